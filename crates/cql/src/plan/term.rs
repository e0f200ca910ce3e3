//! Terms with their types settled, and their evaluation with bound values.

use super::Planner;
use super::function::{self, Function};
use crate::error::Error;
use crate::grammar::ast::{self, Constant};
use crate::protocol::request::{BoundValue, Values};
use crate::timeuuid::TimeUuids;
use crate::types::name::{cql_name, resolve};
use crate::types::order::{normalise_map, normalise_set};
use crate::types::{literal, wire};
use model::{Timestamp, Type, Value};

#[derive(Clone, Debug)]
pub enum Term {
    Constant(Value),
    Marker { index: usize, kind: Type },
    List(Vec<Term>),
    Set(Vec<Term>, Type),
    Map(Vec<(Term, Term)>, Type),
    Tuple(Vec<Term>),
    Call(Function, Vec<Term>),
}

/// What an execution's terms are evaluated with.
pub struct Context<'a> {
    pub values: &'a Values,
    pub now: Timestamp,
    pub uuids: &'a TimeUuids,
}

/// `None` is a marker that was left unset.
pub type Evaluated = Option<Value>;

impl Term {
    pub fn evaluate(&self, context: &Context<'_>) -> Result<Evaluated, Error> {
        match self {
            Term::Constant(value) => Ok(Some(value.clone())),
            Term::Marker { index, kind } => match context.values.get(*index) {
                Some(BoundValue::Bytes(bytes)) => wire::decode(kind, bytes).map(Some),
                Some(BoundValue::Null) => Ok(Some(Value::Null)),
                Some(BoundValue::Unset) => Ok(None),
                None => Err(Error::invalid(format!(
                    "Invalid amount of bind variables: the statement has a marker {index}, but {} values \
                     were given",
                    context.values.len()
                ))),
            },
            Term::List(elements) => {
                elements_of(elements, context).map(|list| Some(Value::List(list)))
            }
            Term::Set(elements, kind) => {
                let elements = elements_of(elements, context)?;
                Ok(Some(Value::Set(normalise_set(elements, kind))))
            }
            Term::Map(pairs, kind) => {
                let pairs = pairs
                    .iter()
                    .map(|(key, value)| Ok((element(key, context)?, element(value, context)?)))
                    .collect::<Result<_, Error>>()?;
                Ok(Some(Value::Map(normalise_map(pairs, kind))))
            }
            Term::Tuple(fields) => {
                let fields = fields
                    .iter()
                    .map(|field| {
                        field.evaluate(context)?.ok_or_else(|| {
                            Error::invalid("Invalid unset value for a field of a tuple")
                        })
                    })
                    .collect::<Result<_, _>>()?;
                Ok(Some(Value::Tuple(fields)))
            }
            Term::Call(function, arguments) => {
                let mut values = Vec::with_capacity(arguments.len());
                for argument in arguments {
                    values.push(argument.evaluate(context)?.ok_or_else(|| {
                        Error::invalid(format!(
                            "Invalid unset value for an argument in call to function {}",
                            function.name
                        ))
                    })?);
                }
                function.call(&values, context).map(Some)
            }
        }
    }

    /// The value where null and unset are refused; `name` is what is restricted.
    pub fn required(&self, context: &Context<'_>, name: &str) -> Result<Value, Error> {
        match self.evaluate(context)? {
            Some(Value::Null) => Err(Error::invalid(format!(
                "Invalid null value in condition for column {name}"
            ))),
            Some(value) => Ok(value),
            None => Err(Error::invalid(format!(
                "Invalid unset value for column {name}"
            ))),
        }
    }
}

fn element(term: &Term, context: &Context<'_>) -> Result<Value, Error> {
    match term.evaluate(context)? {
        Some(Value::Null) => Err(Error::invalid("null is not supported inside collections")),
        Some(value) => Ok(value),
        None => Err(Error::invalid(
            "unset value is not supported inside collections",
        )),
    }
}

fn elements_of(terms: &[Term], context: &Context<'_>) -> Result<Vec<Value>, Error> {
    terms.iter().map(|term| element(term, context)).collect()
}

/// Settles the types of a term where a `kind` is wanted.
pub fn plan(
    term: &ast::Term,
    kind: &Type,
    receiver: &str,
    planner: &mut Planner<'_>,
) -> Result<Term, Error> {
    let mismatch = |what: &str| {
        Error::invalid(format!(
            "Invalid {what} literal for {receiver} of type {}",
            cql_name(kind)
        ))
    };
    match term {
        ast::Term::Constant(constant) => {
            literal::value(constant, kind, receiver).map(Term::Constant)
        }
        ast::Term::Marker(index) => {
            planner.set_marker(*index, kind, receiver)?;
            Ok(Term::Marker {
                index: *index,
                kind: kind.clone(),
            })
        }
        ast::Term::Reference(reference) => {
            let (index, own) = planner.reference(reference)?;
            if cql_name(&own) != cql_name(kind) {
                return Err(Error::invalid(format!(
                    "Cannot assign {}.{} of type {} to {receiver} of type {}",
                    reference.row,
                    reference.column,
                    cql_name(&own),
                    cql_name(kind)
                )));
            }
            Ok(Term::Marker { index, kind: own })
        }
        ast::Term::Function { name, arguments } => call(name, arguments, kind, receiver, planner),
        ast::Term::List(elements) => match kind {
            Type::List { element, .. } | Type::Array { element } | Type::Vector { element, .. } => {
                if let Type::Vector { dimension, .. } = kind
                    && elements.len() != *dimension as usize
                {
                    return Err(Error::invalid(format!(
                        "Invalid vector literal for {receiver} of type {}: expected {dimension} elements, \
                         got {}",
                        cql_name(kind),
                        elements.len()
                    )));
                }
                plan_all(elements, element, receiver, planner).map(Term::List)
            }
            _ => Err(mismatch("list")),
        },
        ast::Term::Set(elements) => match kind {
            Type::Set { element, .. } => Ok(Term::Set(
                plan_all(elements, element, receiver, planner)?,
                element.as_ref().clone(),
            )),
            _ => Err(mismatch("set")),
        },
        ast::Term::Map(pairs) => match kind {
            Type::Set { element, .. } if pairs.is_empty() => {
                Ok(Term::Set(Vec::new(), element.as_ref().clone()))
            }
            Type::Map { key, value, .. } => {
                let planned = pairs
                    .iter()
                    .map(|(left, right)| {
                        Ok((
                            plan(left, key, &format!("key({receiver})"), planner)?,
                            plan(right, value, &format!("value({receiver})"), planner)?,
                        ))
                    })
                    .collect::<Result<_, Error>>()?;
                Ok(Term::Map(planned, key.as_ref().clone()))
            }
            Type::User { fields, .. } if pairs.is_empty() => Ok(Term::Tuple(
                fields.iter().map(|_| Term::Constant(Value::Null)).collect(),
            )),
            _ => Err(mismatch("map")),
        },
        ast::Term::Tuple(terms) => tuple(terms, kind, receiver, planner),
        ast::Term::Fields(given) => match kind {
            Type::User { name, fields, .. } => {
                for (field, _) in given {
                    if !fields.iter().any(|(known, _)| known == field) {
                        return Err(Error::invalid(format!(
                            "Unknown field '{field}' in value of user defined type {name}"
                        )));
                    }
                }
                let terms = fields
                    .iter()
                    .map(
                        |(field, kind)| match given.iter().find(|(name, _)| name == field) {
                            Some((_, term)) => {
                                plan(term, kind, &format!("{receiver}.{field}"), planner)
                            }
                            None => Ok(Term::Constant(Value::Null)),
                        },
                    )
                    .collect::<Result<_, _>>()?;
                Ok(Term::Tuple(terms))
            }
            _ => Err(mismatch("user type")),
        },
        ast::Term::Typed(name, inner) => {
            let keyspace = planner.keyspace.unwrap_or_default().to_owned();
            let types = planner.types_of(&keyspace);
            let said = resolve(name, &keyspace, &types)?;
            if cql_name(&said) != cql_name(kind) {
                return Err(Error::invalid(format!(
                    "Cannot assign value {name} to {receiver} of type {}",
                    cql_name(kind)
                )));
            }
            plan(inner, kind, receiver, planner)
        }
    }
}

fn plan_all(
    terms: &[ast::Term],
    kind: &Type,
    receiver: &str,
    planner: &mut Planner<'_>,
) -> Result<Vec<Term>, Error> {
    terms
        .iter()
        .map(|term| plan(term, kind, &format!("value({receiver})"), planner))
        .collect()
}

fn tuple(
    terms: &[ast::Term],
    kind: &Type,
    receiver: &str,
    planner: &mut Planner<'_>,
) -> Result<Term, Error> {
    let Type::Tuple { fields } = kind else {
        // Parentheses around one term are only that.
        if let [single] = terms {
            return plan(single, kind, receiver, planner);
        }
        return Err(Error::invalid(format!(
            "Invalid tuple type literal for {receiver} of type {}",
            cql_name(kind)
        )));
    };
    if terms.len() > fields.len() {
        return Err(Error::invalid(format!(
            "Invalid tuple literal for {receiver}: too many elements. Type {} expects {} but got {}",
            cql_name(kind),
            fields.len(),
            terms.len()
        )));
    }
    let mut planned = terms
        .iter()
        .zip(fields)
        .map(|(term, kind)| plan(term, kind, receiver, planner))
        .collect::<Result<Vec<_>, _>>()?;
    planned.resize_with(fields.len(), || Term::Constant(Value::Null));
    Ok(Term::Tuple(planned))
}

/// The type of a term that has one of its own: a function's result, or a constant's natural type.
pub fn own_type(term: &ast::Term) -> Option<Type> {
    match term {
        ast::Term::Constant(Constant::Null) => None,
        ast::Term::Constant(constant) => literal::natural_type(constant),
        ast::Term::Function { name, arguments } => {
            let kinds: Vec<_> = arguments.iter().map(own_type).collect();
            function::find(name, &kinds).ok().map(|found| found.result)
        }
        _ => None,
    }
}

fn call(
    name: &str,
    arguments: &[ast::Term],
    kind: &Type,
    receiver: &str,
    planner: &mut Planner<'_>,
) -> Result<Term, Error> {
    let kinds: Vec<Option<Type>> = arguments.iter().map(own_type).collect();
    let function = function::find(name, &kinds)?;
    let fits = function.result == *kind
        || matches!(
            (&function.result, kind),
            (Type::TimeUuid, Type::Uuid)
                | (Type::Text { .. }, Type::Text { .. })
                | (Type::Bytes { .. }, Type::Bytes { .. })
                | (Type::BigInt, Type::TimestampMillis)
        );
    if !fits {
        return Err(Error::invalid(format!(
            "Type error: cannot assign result of function system.{} (type {}) to {receiver} (type {})",
            function.name,
            cql_name(&function.result),
            cql_name(kind)
        )));
    }
    let terms = arguments
        .iter()
        .zip(&function.arguments)
        .map(|(term, kind)| plan(term, kind, receiver, planner))
        .collect::<Result<_, _>>()?;
    Ok(Term::Call(function, terms))
}
