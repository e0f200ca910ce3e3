//! Condition, filter and key condition expressions.

use super::lexer::{ExpressionError, Kind, RawPath, Tokens};
use super::{Placeholders, show};
use api::document::{AttributeType, Comparator, Condition, Operand, Path, compare};
use model::Value;
use std::cmp::Ordering;

/// Operators and functions in one expression.
const OPERATORS_MAX: usize = 300;
/// Operands of IN.
const CANDIDATES_MAX: usize = 100;

/// A condition, and every path that it mentions.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    pub condition: Condition,
    pub paths: Vec<Path>,
}

pub fn parse(text: &str, placeholders: &mut Placeholders<'_>) -> Result<Parsed, ExpressionError> {
    let mut parser = Parser {
        tokens: Tokens::new(text)?,
        placeholders,
        errors: Errors::default(),
        paths: Vec::new(),
        operators: 0,
    };
    let node = parser.disjunction()?;
    parser.tokens.expect_end()?;
    let condition = parser.condition_of(node)?;
    if let Some(error) = parser.errors.first() {
        return Err(error);
    }
    Ok(Parsed {
        condition,
        paths: parser.paths,
    })
}

/// The first error of each phase.
#[derive(Debug, Default)]
struct Errors {
    parentheses: Option<String>,
    unknown_function: Option<String>,
    misused_function: Option<String>,
    reserved: Option<String>,
    /// That of the first condition that has one of the following.
    condition: Option<String>,
    placeholder: Option<String>,
    operand_count: Option<String>,
    distinct: Option<String>,
    operand_type: Option<String>,
}

impl Errors {
    fn first(self) -> Option<String> {
        self.parentheses
            .or(self.unknown_function)
            .or(self.misused_function)
            .or(self.reserved)
            .or(self.condition)
    }

    /// At the end of each condition.
    fn close_condition(&mut self) {
        if self.condition.is_none() {
            self.condition = self
                .placeholder
                .take()
                .or(self.operand_count.take())
                .or(self.distinct.take())
                .or(self.operand_type.take());
        }
    }
}

fn note(slot: &mut Option<String>, error: impl FnOnce() -> String) {
    if slot.is_none() {
        *slot = Some(error());
    }
}

/// A part of an expression: what it is shows only when what follows has been read.
enum Node {
    Operand(Term),
    /// A function other than `size`, with the condition that it makes.
    Function(String, Condition),
    Condition(Condition),
    Parenthesized(Box<Node>),
}

/// An operand with what the checks want to know of it.
struct Term {
    operand: Operand,
    /// The type, where the expression alone tells.
    kind: Option<AttributeType>,
}

struct Parser<'a, 'p, 'v> {
    tokens: Tokens<'a>,
    placeholders: &'p mut Placeholders<'v>,
    errors: Errors,
    paths: Vec<Path>,
    operators: usize,
}

impl<'a> Parser<'a, '_, '_> {
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

    fn disjunction(&mut self) -> Result<Node, ExpressionError> {
        let first = self.conjunction()?;
        if !self.tokens.next_is_keyword("OR") {
            return Ok(first);
        }
        let mut conditions = vec![self.condition_of(first)?];
        while self.tokens.take_keyword("OR") {
            self.count_operator()?;
            let next = self.conjunction()?;
            conditions.push(self.condition_of(next)?);
        }
        Ok(Node::Condition(Condition::Or(conditions)))
    }

    fn conjunction(&mut self) -> Result<Node, ExpressionError> {
        let first = self.negation()?;
        if !self.tokens.next_is_keyword("AND") {
            return Ok(first);
        }
        let mut conditions = vec![self.condition_of(first)?];
        while self.tokens.take_keyword("AND") {
            self.count_operator()?;
            let next = self.negation()?;
            conditions.push(self.condition_of(next)?);
        }
        Ok(Node::Condition(Condition::And(conditions)))
    }

    fn negation(&mut self) -> Result<Node, ExpressionError> {
        if !self.tokens.take_keyword("NOT") {
            return self.comparison();
        }
        self.count_operator()?;
        self.tokens.enter()?;
        let inner = self.negation()?;
        self.tokens.leave();
        let inner = self.condition_of(inner)?;
        Ok(Node::Condition(Condition::Not(Box::new(inner))))
    }

    /// A comparison, a function, or something in parentheses.
    fn comparison(&mut self) -> Result<Node, ExpressionError> {
        let node = self.primary()?;
        if let Some(comparator) = self.comparator() {
            self.count_operator()?;
            let left = self.term_of(node)?;
            let right = self.operand()?;
            return Ok(self.comparison_of(left, comparator, right));
        }
        if self.tokens.take_keyword("BETWEEN") {
            self.count_operator()?;
            let value = self.term_of(node)?;
            let low = self.operand()?;
            if !self.tokens.take_keyword("AND") {
                return Err(self.tokens.syntax_error());
            }
            let high = self.operand()?;
            return Ok(self.between_of(value, low, high));
        }
        if self.tokens.take_keyword("IN") {
            self.count_operator()?;
            let value = self.term_of(node)?;
            self.tokens.expect_symbol("(")?;
            let candidates = self.operand_list()?;
            return Ok(self.in_of(value, candidates));
        }
        if matches!(node, Node::Function(..)) {
            self.errors.close_condition();
        }
        Ok(node)
    }

    fn comparator(&mut self) -> Option<Comparator> {
        [
            ("=", Comparator::Equal),
            ("<>", Comparator::NotEqual),
            ("<", Comparator::Less),
            ("<=", Comparator::LessOrEqual),
            (">", Comparator::Greater),
            (">=", Comparator::GreaterOrEqual),
        ]
        .into_iter()
        .find(|(symbol, _)| self.tokens.take_symbol(symbol))
        .map(|(_, comparator)| comparator)
    }

    fn primary(&mut self) -> Result<Node, ExpressionError> {
        if self.tokens.take_symbol("(") {
            self.tokens.enter()?;
            let inner = self.disjunction()?;
            self.tokens.leave();
            self.tokens.expect_symbol(")")?;
            if matches!(inner, Node::Parenthesized(_)) {
                note(&mut self.errors.parentheses, || {
                    "The expression has redundant parentheses;".into()
                });
            }
            let mut node = Node::Parenthesized(Box::new(inner));
            if self.tokens.next_is(".") || self.tokens.next_is("[") {
                self.extend_path(&mut node)?;
            }
            return Ok(node);
        }
        if self.tokens.next_is_function() && !self.next_is_reserved_by_grammar() {
            return self.function();
        }
        let token = self.tokens.peek();
        match token.kind {
            Kind::Value => {
                self.tokens.advance();
                let name = self.tokens.text_of(token);
                Ok(Node::Operand(self.value(name)))
            }
            Kind::Word | Kind::Name if !self.next_is_reserved_by_grammar() => {
                let path = RawPath::parse(&mut self.tokens)?;
                Ok(Node::Operand(self.path(&path)))
            }
            _ => Err(self.tokens.syntax_error()),
        }
    }

    /// `(a).b[0]` goes on with the path in parentheses.
    fn extend_path(&mut self, node: &mut Node) -> Result<(), ExpressionError> {
        match node {
            Node::Parenthesized(inner) => self.extend_path(inner),
            Node::Operand(Term {
                operand: Operand::Path(path),
                ..
            }) => {
                let mut tail = RawPath {
                    elements: Vec::new(),
                };
                tail.parse_steps(&mut self.tokens)?;
                self.note_reserved(&tail);
                let errors = &mut self.errors;
                path.steps.extend(
                    tail.resolve_steps(self.placeholders, |name| undefined_name(errors, name)),
                );
                self.paths.push(path.clone());
                Ok(())
            }
            _ => Err(self.tokens.syntax_error()),
        }
    }

    /// Words that can be nothing but keywords.
    fn next_is_reserved_by_grammar(&self) -> bool {
        ["BETWEEN", "IN", "AND", "OR", "NOT"]
            .iter()
            .any(|keyword| self.tokens.next_is_keyword(keyword))
    }

    fn value(&mut self, name: &str) -> Term {
        let value = self.placeholders.value(name);
        if value.is_none() {
            note(&mut self.errors.placeholder, || {
                format!(
                    "An expression attribute value used in expression is not defined; attribute value: {name}"
                )
            });
        }
        Term {
            kind: value.and_then(AttributeType::of),
            operand: Operand::Value(value.cloned().unwrap_or(Value::Null)),
        }
    }

    fn note_reserved(&mut self, path: &RawPath<'a>) {
        if let Some(name) = path.reserved() {
            note(&mut self.errors.reserved, || {
                format!("Attribute name is a reserved keyword; reserved keyword: {name}")
            });
        }
    }

    fn path(&mut self, raw: &RawPath<'a>) -> Term {
        self.note_reserved(raw);
        let errors = &mut self.errors;
        let path = raw.resolve(self.placeholders, |name| undefined_name(errors, name));
        self.paths.push(path.clone());
        Term {
            operand: Operand::Path(path),
            kind: None,
        }
    }

    /// An operand, perhaps in parentheses.
    fn operand(&mut self) -> Result<Term, ExpressionError> {
        let node = self.primary()?;
        self.term_of(node)
    }

    /// Operands up to a closing parenthesis, which is read.
    fn operand_list(&mut self) -> Result<Vec<Term>, ExpressionError> {
        let mut operands = Vec::new();
        loop {
            self.tokens.enter()?;
            operands.push(self.operand()?);
            self.tokens.leave();
            if !self.tokens.take_symbol(",") {
                break;
            }
        }
        self.tokens.expect_symbol(")")?;
        Ok(operands)
    }

    /// What a node is as an operand.
    fn term_of(&mut self, node: Node) -> Result<Term, ExpressionError> {
        match node {
            Node::Operand(term) => Ok(term),
            Node::Function(name, _) => {
                note(&mut self.errors.misused_function, || misused(&name));
                Ok(Term {
                    operand: Operand::Value(Value::Bool(true)),
                    kind: Some(AttributeType::Bool),
                })
            }
            Node::Parenthesized(inner) => self.term_of(*inner),
            Node::Condition(_) => Err(self.tokens.syntax_error()),
        }
    }

    /// What a node is as a condition.
    fn condition_of(&mut self, node: Node) -> Result<Condition, ExpressionError> {
        match node {
            Node::Condition(condition) | Node::Function(_, condition) => Ok(condition),
            Node::Parenthesized(inner) => self.condition_of(*inner),
            Node::Operand(Term {
                operand: Operand::Size(_),
                ..
            }) => {
                note(&mut self.errors.misused_function, || misused("size"));
                Ok(Condition::And(Vec::new()))
            }
            Node::Operand(_) => Err(self.tokens.syntax_error()),
        }
    }

    fn check_distinct(&mut self, operator: &str, first: &Term, second: &Term) {
        if let (Operand::Path(first), Operand::Path(second)) = (&first.operand, &second.operand)
            && first == second
        {
            note(&mut self.errors.distinct, || {
                format!(
                    "The first operand must be distinct from the remaining operands for this operator or \
                     function; operator: {operator}, first operand: {first}"
                )
            });
        }
    }

    fn wrong_operand_type(&mut self, operator: &str, kind: &str) {
        note(&mut self.errors.operand_type, || {
            format!(
                "Incorrect operand type for operator or function; operator or function: {operator}, \
                 operand type: {kind}"
            )
        });
    }

    fn comparison_of(&mut self, left: Term, comparator: Comparator, right: Term) -> Node {
        let symbol = match comparator {
            Comparator::Equal => "=",
            Comparator::NotEqual => "<>",
            Comparator::Less => "<",
            Comparator::LessOrEqual => "<=",
            Comparator::Greater => ">",
            Comparator::GreaterOrEqual => ">=",
        };
        self.check_distinct(symbol, &left, &right);
        if !matches!(comparator, Comparator::Equal | Comparator::NotEqual) {
            for kind in [left.kind, right.kind].into_iter().flatten() {
                if !is_ordered(kind) {
                    self.wrong_operand_type(symbol, kind.descriptor());
                }
            }
        }
        self.errors.close_condition();
        Node::Condition(Condition::Compare {
            left: left.operand,
            comparator,
            right: right.operand,
        })
    }

    fn between_of(&mut self, value: Term, low: Term, high: Term) -> Node {
        if let (
            Operand::Value(low_value),
            Operand::Value(high_value),
            Some(low_kind),
            Some(high_kind),
        ) = (&low.operand, &high.operand, low.kind, high.kind)
        {
            let bounds = || {
                format!(
                    "lower bound operand: {}, upper bound operand: {}",
                    show(low_value),
                    show(high_value)
                )
            };
            if low_kind != high_kind {
                note(&mut self.errors.operand_type, || {
                    format!(
                        "The BETWEEN operator requires same data type for lower and upper bounds; {}",
                        bounds()
                    )
                });
            } else if compare(low_value, high_value) == Some(Ordering::Greater) {
                note(&mut self.errors.operand_type, || {
                    format!(
                        "The BETWEEN operator requires upper bound to be greater than or equal to lower \
                         bound; {}",
                        bounds()
                    )
                });
            }
        }
        self.errors.close_condition();
        Node::Condition(Condition::Between {
            value: value.operand,
            low: low.operand,
            high: high.operand,
        })
    }

    fn in_of(&mut self, value: Term, candidates: Vec<Term>) -> Node {
        if candidates.len() > CANDIDATES_MAX {
            note(&mut self.errors.operand_count, || {
                format!(
                    "Invalid number of operands for operator; operator: IN, number of operands: {}",
                    candidates.len()
                )
            });
        }
        self.errors.close_condition();
        Node::Condition(Condition::In {
            value: value.operand,
            candidates: candidates
                .into_iter()
                .map(|candidate| candidate.operand)
                .collect(),
        })
    }

    fn function(&mut self) -> Result<Node, ExpressionError> {
        let token = self.tokens.advance();
        let name = self.tokens.text_of(token);
        self.tokens.expect_symbol("(")?;
        self.count_operator()?;
        let operands = self.operand_list()?;
        let expected = match name {
            "attribute_exists" | "attribute_not_exists" | "size" => 1,
            "attribute_type" | "begins_with" | "contains" => 2,
            _ => {
                note(&mut self.errors.unknown_function, || {
                    format!("Invalid function name; function: {name}")
                });
                operands.len()
            }
        };
        if operands.len() != expected {
            note(&mut self.errors.operand_count, || {
                format!(
                    "Incorrect number of operands for operator or function; operator or function: {name}, \
                     number of operands: {}",
                    operands.len()
                )
            });
        } else if let [first, second] = operands.as_slice() {
            self.check_distinct(name, first, second);
        }
        let mut operands = operands.into_iter();
        let first = operands.next();
        let second = operands.next();
        let nothing = || Condition::And(Vec::new());
        let condition = match (name, first, second) {
            ("size", Some(operand), _) => return Ok(Node::Operand(self.size_of(operand))),
            ("attribute_exists", Some(operand), _) => {
                self.required_path(name, operand).map(Condition::Exists)
            }
            ("attribute_not_exists", Some(operand), _) => {
                self.required_path(name, operand).map(Condition::Missing)
            }
            ("attribute_type", Some(operand), Some(kind)) => self.has_type(operand, &kind),
            ("begins_with", Some(value), Some(prefix)) => {
                for kind in [value.kind, prefix.kind].into_iter().flatten() {
                    if !matches!(kind, AttributeType::String | AttributeType::Binary) {
                        self.wrong_operand_type(name, kind.descriptor());
                    }
                }
                Some(Condition::BeginsWith {
                    value: value.operand,
                    prefix: prefix.operand,
                })
            }
            ("contains", Some(container), Some(element)) => Some(Condition::Contains {
                container: container.operand,
                element: element.operand,
            }),
            _ => None,
        };
        Ok(Node::Function(
            name.to_owned(),
            condition.unwrap_or_else(nothing),
        ))
    }

    fn size_of(&mut self, operand: Term) -> Term {
        if let Some(kind) = operand.kind
            && matches!(
                kind,
                AttributeType::Number | AttributeType::Bool | AttributeType::Null
            )
        {
            self.wrong_operand_type("size", kind.descriptor());
        }
        Term {
            operand: Operand::Size(Box::new(operand.operand)),
            kind: Some(AttributeType::Number),
        }
    }

    fn required_path(&mut self, function: &str, operand: Term) -> Option<Path> {
        match operand.operand {
            Operand::Path(path) => Some(path),
            _ => {
                note(&mut self.errors.operand_type, || {
                    format!(
                        "Operator or function requires a document path; operator or function: {function}"
                    )
                });
                None
            }
        }
    }

    fn has_type(&mut self, operand: Term, kind: &Term) -> Option<Condition> {
        let name = match &kind.operand {
            Operand::Value(Value::Text(name)) => name,
            _ => {
                let shown = kind
                    .kind
                    .map_or("{NS,SS,L,BS,N,M,B,BOOL,NULL,S}", AttributeType::descriptor);
                self.wrong_operand_type("attribute_type", shown);
                return None;
            }
        };
        let Some(kind) = AttributeType::from_descriptor(name) else {
            note(&mut self.errors.operand_type, || {
                format!(
                    "Invalid attribute type name found; type: {name}, valid types: \
                     {{B,NULL,SS,BOOL,L,BS,N,NS,S,M}}"
                )
            });
            return None;
        };
        self.required_path("attribute_type", operand)
            .map(|path| Condition::HasType { path, kind })
    }
}

fn undefined_name(errors: &mut Errors, name: &str) {
    note(&mut errors.placeholder, || {
        format!(
            "An expression attribute name used in the document path is not defined; attribute name: {name}"
        )
    });
}

fn is_ordered(kind: AttributeType) -> bool {
    matches!(
        kind,
        AttributeType::String | AttributeType::Number | AttributeType::Binary
    )
}

fn misused(function: &str) -> String {
    format!(
        "The function is not allowed to be used this way in an expression; function: {function}"
    )
}
