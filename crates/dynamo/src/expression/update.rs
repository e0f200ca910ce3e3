//! Update expressions: `SET … REMOVE … ADD … DELETE …`, each section at most once.

use super::lexer::{ExpressionError, Kind, RawPath, Tokens};
use super::{Placeholders, check_overlap};
use api::document::{AttributeType, Path, SetOperand, SetValue, Update};
use model::Value;

/// Operators, functions and assignments in one expression.
const OPERATORS_MAX: usize = 300;

/// An update, and the paths that it mentions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    pub update: Update,
    /// The paths that are written.
    pub targets: Vec<Path>,
    /// The paths on right-hand sides.
    pub sources: Vec<Path>,
}

pub fn parse(text: &str, placeholders: &mut Placeholders<'_>) -> Result<Parsed, ExpressionError> {
    let mut parser = Parser {
        tokens: Tokens::new(text)?,
        placeholders,
        errors: Errors::default(),
        parsed: Parsed {
            update: Update::default(),
            targets: Vec::new(),
            sources: Vec::new(),
        },
        operators: 0,
    };
    parser.sections()?;
    parser.finish()
}

/// Replaces paths to key attributes on right-hand sides by the key's values: they are not in the document.
pub fn substitute_key(update: &mut Update, key: &[(String, Value)]) {
    for (_, value) in &mut update.set {
        substitute_in_value(value, key);
    }
}

fn substitute_in_value(value: &mut SetValue, key: &[(String, Value)]) {
    match value {
        SetValue::Operand(operand) => substitute_in_operand(operand, key),
        SetValue::Plus(left, right) | SetValue::Minus(left, right) => {
            substitute_in_operand(left, key);
            substitute_in_operand(right, key);
        }
    }
}

fn substitute_in_operand(operand: &mut SetOperand, key: &[(String, Value)]) {
    let key_value = |path: &Path| {
        let is_it = |(name, _): &&(String, Value)| path.steps.is_empty() && *name == path.name;
        key.iter().find(is_it).map(|(_, value)| value.clone())
    };
    match operand {
        SetOperand::Path(path) => {
            if let Some(value) = key_value(path) {
                *operand = SetOperand::Value(value);
            }
        }
        SetOperand::IfNotExists(path, otherwise) => match key_value(path) {
            Some(value) => *operand = SetOperand::Value(value),
            None => substitute_in_operand(otherwise, key),
        },
        SetOperand::ListAppend(first, second) => {
            substitute_in_operand(first, key);
            substitute_in_operand(second, key);
        }
        SetOperand::Nested(value) => substitute_in_value(value, key),
        SetOperand::Value(_) => {}
    }
}

/// The first error of each phase.
#[derive(Debug, Default)]
struct Errors {
    reserved: Option<String>,
    unknown_function: Option<String>,
    section: Option<String>,
    name: Option<String>,
    value: Option<String>,
    operand: Option<String>,
    function: Option<String>,
}

fn note(slot: &mut Option<String>, error: impl FnOnce() -> String) {
    if slot.is_none() {
        *slot = Some(error());
    }
}

struct Parser<'a, 'p, 'v> {
    tokens: Tokens<'a>,
    placeholders: &'p mut Placeholders<'v>,
    errors: Errors,
    parsed: Parsed,
    operators: usize,
}

const SECTIONS: [&str; 4] = ["SET", "REMOVE", "ADD", "DELETE"];

impl<'a> Parser<'a, '_, '_> {
    fn sections(&mut self) -> Result<(), ExpressionError> {
        let mut seen = [false; SECTIONS.len()];
        loop {
            let section = SECTIONS
                .iter()
                .position(|section| self.tokens.take_keyword(section))
                .ok_or_else(|| self.tokens.syntax_error())?;
            if std::mem::replace(&mut seen[section], true) {
                note(&mut self.errors.section, || {
                    format!(
                        "The \"{}\" section can only be used once in an update expression;",
                        SECTIONS[section]
                    )
                });
            }
            loop {
                self.count_operator()?;
                match SECTIONS[section] {
                    "SET" => self.assignment()?,
                    "REMOVE" => {
                        let path = self.target()?;
                        self.parsed.update.remove.push(path);
                    }
                    "ADD" => {
                        let path = self.target()?;
                        let value = self.section_operand("ADD")?;
                        self.parsed.update.add.push((path, value));
                    }
                    _ => {
                        let path = self.target()?;
                        let value = self.section_operand("DELETE")?;
                        self.parsed.update.delete.push((path, value));
                    }
                }
                if !self.tokens.take_symbol(",") {
                    break;
                }
            }
            if self.tokens.peek().kind == Kind::End {
                return Ok(());
            }
        }
    }

    fn finish(self) -> Result<Parsed, ExpressionError> {
        let overlaps = check_overlap(&self.parsed.targets);
        let errors = self.errors;
        let first = errors
            .reserved
            .or(errors.unknown_function)
            .or(errors.section)
            .or(errors.name)
            .or(errors.value)
            .or(overlaps.overlap)
            .or(overlaps.conflict)
            .or(errors.operand)
            .or(errors.function);
        match first {
            Some(error) => Err(error),
            None => Ok(self.parsed),
        }
    }

    fn count_operator(&mut self) -> Result<(), ExpressionError> {
        self.operators += 1;
        if self.operators > OPERATORS_MAX {
            return Err(format!(
                "The expression contains too many operators; operator count: {}, maximum: {OPERATORS_MAX}",
                self.operators
            ));
        }
        Ok(())
    }

    fn next_is_section(&self) -> bool {
        SECTIONS
            .iter()
            .any(|section| self.tokens.next_is_keyword(section))
    }

    fn path(&mut self) -> Result<Path, ExpressionError> {
        if self.next_is_section() {
            return Err(self.tokens.syntax_error());
        }
        let raw = RawPath::parse(&mut self.tokens)?;
        if let Some(name) = raw.reserved() {
            note(&mut self.errors.reserved, || {
                format!("Attribute name is a reserved keyword; reserved keyword: {name}")
            });
        }
        let errors = &mut self.errors;
        Ok(raw.resolve(self.placeholders, |name| {
            note(&mut errors.name, || {
                format!(
                    "An expression attribute name used in the document path is not defined; \
                     attribute name: {name}"
                )
            });
        }))
    }

    fn target(&mut self) -> Result<Path, ExpressionError> {
        let path = self.path()?;
        self.parsed.targets.push(path.clone());
        Ok(path)
    }

    /// A value placeholder; an undefined one is noted.
    fn value(&mut self) -> Result<Option<Value>, ExpressionError> {
        let token = self.tokens.peek();
        if token.kind != Kind::Value {
            return Err(self.tokens.syntax_error());
        }
        self.tokens.advance();
        let name = self.tokens.text_of(token);
        let value = self.placeholders.value(name);
        if value.is_none() {
            note(&mut self.errors.value, || {
                format!(
                    "An expression attribute value used in expression is not defined; attribute value: {name}"
                )
            });
        }
        Ok(value.cloned())
    }

    /// The operand of ADD or DELETE.
    fn section_operand(&mut self, section: &str) -> Result<Value, ExpressionError> {
        let Some(value) = self.value()? else {
            return Ok(Value::Null);
        };
        let wrong = match AttributeType::of(&value) {
            Some(AttributeType::String) => Some("STRING"),
            Some(AttributeType::Number) if section == "DELETE" => Some("NUMBER"),
            Some(AttributeType::Binary) => Some("BINARY"),
            Some(AttributeType::Null) => Some("NULL"),
            Some(AttributeType::Bool) => Some("BOOLEAN"),
            Some(AttributeType::List) => Some("LIST"),
            Some(AttributeType::Map) => Some("MAP"),
            _ => None,
        };
        if let Some(kind) = wrong {
            note(&mut self.errors.operand, || {
                format!(
                    "Incorrect operand type for operator or function; operator: {section}, \
                     operand type: {kind}"
                )
            });
        }
        Ok(value)
    }

    fn assignment(&mut self) -> Result<(), ExpressionError> {
        let path = self.target()?;
        self.tokens.expect_symbol("=")?;
        let value = self.set_value()?;
        self.parsed.update.set.push((path, value));
        Ok(())
    }

    /// An operand, or the sum or difference of two.
    fn set_value(&mut self) -> Result<SetValue, ExpressionError> {
        let left = self.operand()?;
        let symbol = match () {
            () if self.tokens.take_symbol("+") => "+",
            () if self.tokens.take_symbol("-") => "-",
            () => {
                return Ok(match left {
                    SetOperand::Nested(value) => *value,
                    operand => SetValue::Operand(operand),
                });
            }
        };
        self.count_operator()?;
        let right = self.operand()?;
        self.check_types(symbol, AttributeType::Number, [&left, &right]);
        Ok(match symbol {
            "+" => SetValue::Plus(left, right),
            _ => SetValue::Minus(left, right),
        })
    }

    fn check_types(&mut self, function: &str, wanted: AttributeType, operands: [&SetOperand; 2]) {
        for operand in operands {
            if let SetOperand::Value(value) = operand
                && let Some(kind) = AttributeType::of(value)
                && kind != wanted
            {
                note(&mut self.errors.function, || {
                    format!(
                        "Incorrect operand type for operator or function; operator or function: {function}, \
                         operand type: {}",
                        kind.descriptor()
                    )
                });
            }
        }
    }

    fn operand(&mut self) -> Result<SetOperand, ExpressionError> {
        if self.tokens.take_symbol("(") {
            self.tokens.enter()?;
            let value = self.set_value()?;
            self.tokens.leave();
            self.tokens.expect_symbol(")")?;
            return Ok(match value {
                SetValue::Operand(operand) => operand,
                value => SetOperand::Nested(Box::new(value)),
            });
        }
        if self.tokens.next_is_function() && !self.next_is_section() {
            return self.function();
        }
        match self.tokens.peek().kind {
            // An undefined value is an error already; what stands for it does not matter.
            Kind::Value => Ok(match self.value()? {
                Some(value) => SetOperand::Value(value),
                None => SetOperand::Path(Path::attribute("")),
            }),
            _ => {
                let path = self.path()?;
                self.parsed.sources.push(path.clone());
                Ok(SetOperand::Path(path))
            }
        }
    }

    fn function(&mut self) -> Result<SetOperand, ExpressionError> {
        let token = self.tokens.advance();
        let name = self.tokens.text_of(token);
        self.tokens.expect_symbol("(")?;
        self.count_operator()?;
        self.tokens.enter()?;
        let mut operands = vec![self.operand()?];
        while self.tokens.take_symbol(",") {
            operands.push(self.operand()?);
        }
        self.tokens.leave();
        self.tokens.expect_symbol(")")?;
        let is_known = matches!(name, "if_not_exists" | "list_append");
        if !is_known {
            note(&mut self.errors.unknown_function, || {
                format!("Invalid function name; function: {name}")
            });
        } else if operands.len() != 2 {
            note(&mut self.errors.function, || {
                format!(
                    "Incorrect number of operands for operator or function; operator or function: {name}, \
                     number of operands: {}",
                    operands.len()
                )
            });
        }
        let nothing = || SetOperand::Path(Path::attribute(""));
        let mut operands = operands.into_iter();
        let first = operands.next().unwrap_or_else(nothing);
        let second = operands.next().unwrap_or_else(nothing);
        match (name, first) {
            ("if_not_exists", SetOperand::Path(path)) => {
                Ok(SetOperand::IfNotExists(path, Box::new(second)))
            }
            ("if_not_exists", _) => {
                note(&mut self.errors.function, || {
                    format!(
                        "Operator or function requires a document path; operator or function: {name}"
                    )
                });
                Ok(nothing())
            }
            (_, first) => {
                if is_known {
                    self.check_types(name, AttributeType::List, [&first, &second]);
                }
                Ok(SetOperand::ListAppend(Box::new(first), Box::new(second)))
            }
        }
    }
}
