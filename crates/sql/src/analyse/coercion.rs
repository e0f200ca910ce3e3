//! Drafts: expressions whose type may still bend, and how they settle.

use super::Analyser;
use crate::ast;
use crate::error::{Error, Offset};
use crate::typed::{Expression, Node, Scope};
use crate::types::SqlType;
use crate::value;
use model::Value;

/// An expression whose type may still bend to what it meets.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub expression: Expression,
    pub loose: Loose,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Loose {
    No,
    Null,
    /// An undeclared parameter; the expression is a placeholder of its natural type.
    Parameter(String),
    EmptyArray,
    IntegerLiteral,
    FloatLiteral,
    TextLiteral,
}

impl Draft {
    pub fn firm(expression: Expression) -> Draft {
        Draft {
            expression,
            loose: Loose::No,
        }
    }

    pub fn kind(&self) -> &SqlType {
        &self.expression.kind
    }

    pub fn at(&self) -> Offset {
        self.expression.at
    }
}

impl Analyser<'_> {
    /// Ends looseness: the expression keeps its natural type.
    pub(super) fn settle(&mut self, draft: Draft) -> Result<Expression, Error> {
        let kind = draft.kind().clone();
        self.coerce(draft, &kind)
    }

    pub(super) fn can_coerce(&self, draft: &Draft, to: &SqlType) -> bool {
        use SqlType as T;
        match &draft.loose {
            Loose::Null | Loose::Parameter(_) => true,
            Loose::EmptyArray => matches!(to, T::Array(_)),
            Loose::IntegerLiteral => {
                matches!(to, T::Int64 | T::Float32 | T::Float64 | T::Numeric)
            }
            Loose::FloatLiteral => matches!(to, T::Float32 | T::Float64 | T::Numeric),
            Loose::TextLiteral => matches!(to, T::String | T::Date | T::Timestamp | T::Uuid),
            Loose::No => draft.kind().coerces_to(to),
        }
    }

    pub(super) fn coerce(&mut self, draft: Draft, to: &SqlType) -> Result<Expression, Error> {
        let at = draft.at();
        if !self.can_coerce(&draft, to) {
            return Err(
                Error::invalid(format!("Expected type {to}; found {}", draft.kind())).at(at),
            );
        }
        let Draft { expression, loose } = draft;
        let value = match loose {
            Loose::Null => Value::Null,
            Loose::EmptyArray => Value::List(Vec::new()),
            Loose::Parameter(name) => self
                .environment
                .parameters
                .value(&name, to)
                .map_err(|error| error.at(at))?,
            _ if expression.kind == *to => return Ok(expression),
            _ => {
                // A literal that cannot be read as the type is the statement's fault, not the data's.
                return match (loose, expression.cast(to).folded()) {
                    (Loose::No, folded) => Ok(folded),
                    (_, folded) if folded.as_literal().is_some() => Ok(folded),
                    (_, folded) => match folded.evaluate(Scope {
                        row: &[],
                        slots: &[],
                    }) {
                        Err(error) => Err(Error::invalid(error.to_string()).at(at)),
                        Ok(_) => Ok(folded),
                    },
                };
            }
        };
        Ok(Expression {
            kind: to.clone(),
            node: Node::Literal(value),
            at,
        })
    }

    /// The type that all of these can be given.
    pub(super) fn common_type(&self, drafts: &[Draft], what: &str) -> Result<SqlType, Error> {
        let at = drafts.first().map_or(0, Draft::at);
        let mismatch = |left: &SqlType, right: &SqlType| {
            Error::invalid(format!("No common type for {what}: {left} and {right}")).at(at)
        };
        let mut common: Option<SqlType> = None;
        for draft in drafts.iter().filter(|draft| draft.loose == Loose::No) {
            common = Some(match common {
                None => draft.kind().clone(),
                Some(kind) => kind
                    .supertype(draft.kind())
                    .ok_or_else(|| mismatch(&kind, draft.kind()))?,
            });
        }
        if let Some(kind) = &common {
            for draft in drafts {
                if !self.can_coerce(draft, kind) {
                    return match kind.supertype(draft.kind()) {
                        Some(kind) => Ok(kind),
                        None => Err(mismatch(kind, draft.kind())),
                    };
                }
            }
            return Ok(kind.clone());
        }
        // Only loose ones: literals decide, then parameters by their natural types.
        let is_untyped = |draft: &&Draft| matches!(draft.loose, Loose::Null | Loose::EmptyArray);
        let is_parameter = |draft: &&Draft| matches!(draft.loose, Loose::Parameter(_));
        let literals = drafts
            .iter()
            .filter(|draft| !is_untyped(draft) && !is_parameter(draft));
        for draft in literals {
            common = Some(match common {
                None => draft.kind().clone(),
                Some(kind) => kind
                    .supertype(draft.kind())
                    .ok_or_else(|| mismatch(&kind, draft.kind()))?,
            });
        }
        let natural = || {
            let parameter = drafts.iter().find(is_parameter);
            let any =
                parameter.or_else(|| drafts.iter().find(|draft| draft.loose == Loose::EmptyArray));
            any.or(drafts.first()).map(|draft| draft.kind().clone())
        };
        Ok(common.or_else(natural).unwrap_or(SqlType::Int64))
    }

    pub(super) fn coerce_all(
        &mut self,
        drafts: Vec<Draft>,
        what: &str,
    ) -> Result<(Vec<Expression>, SqlType), Error> {
        let kind = self.common_type(&drafts, what)?;
        let coerced: Result<Vec<Expression>, Error> = drafts
            .into_iter()
            .map(|draft| self.coerce(draft, &kind))
            .collect();
        Ok((coerced?, kind))
    }
}

pub(super) fn null(at: Offset) -> Draft {
    Draft {
        expression: Expression {
            kind: SqlType::Int64,
            node: Node::Literal(Value::Null),
            at,
        },
        loose: Loose::Null,
    }
}

/// A literal as a draft.
pub(super) fn literal(text: &ast::Expression) -> Result<Draft, Error> {
    use ast::Node as N;
    let at = text.at;
    let make = |value: Value, kind: SqlType, loose: Loose| {
        Ok(Draft {
            expression: Expression {
                kind,
                node: Node::Literal(value),
                at,
            },
            loose,
        })
    };
    match &text.node {
        N::Bool(value) => make(Value::Bool(*value), SqlType::Bool, Loose::No),
        N::Integer(digits) => match value::parse_integer(digits) {
            Some(value) => make(Value::Int(value), SqlType::Int64, Loose::IntegerLiteral),
            None => Err(Error::invalid(format!("Invalid integer literal: {digits}"))),
        },
        N::Float(digits) => match value::parse_float(digits) {
            Some(value) => make(Value::Float64(value), SqlType::Float64, Loose::FloatLiteral),
            None => Err(Error::invalid(format!(
                "Invalid floating point literal: {digits}"
            ))),
        },
        N::String(value) => make(
            Value::Text(value.clone()),
            SqlType::String,
            Loose::TextLiteral,
        ),
        N::Bytes(value) => make(Value::Bytes(value.clone()), SqlType::Bytes, Loose::No),
        N::Typed(kind, written) => {
            let kind = SqlType::of_name(kind)?;
            let value = match kind {
                SqlType::Json => value::normal_json(written)
                    .map(Value::Json)
                    .ok_or_else(|| Error::invalid("Invalid JSON literal"))?,
                _ => value::cast(&Value::Text(written.clone()), &SqlType::String, &kind)
                    .map_err(|_| Error::invalid(format!("Invalid {kind} literal")))?,
            };
            make(value, kind, Loose::No)
        }
        _ => Ok(null(at)),
    }
}
