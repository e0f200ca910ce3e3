//! Expressions with types and resolved names, and their evaluation over one row. Pure: no clock, no table, no
//! parameter is left in them; `CURRENT_TIMESTAMP` and parameters became literals in analysis.

use crate::error::{Error, Offset};
use crate::functions::Function;
use crate::types::SqlType;
use crate::value::{self, Compared};
use model::Value;
use std::cmp::Ordering;

#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    pub kind: SqlType,
    pub node: Node,
    /// Where it began in the text: runtime errors name it.
    pub at: Offset,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    Literal(Value),
    /// A position in the row.
    Column(usize),
    /// A position among the results of the statement's subqueries.
    Slot(usize),
    /// Only inside analysis: the aggregate with this index, before it is lifted to a column.
    Aggregate(usize),
    Call(Function, Vec<Expression>),
    Compare(Comparison, Box<Expression>, Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
    Not(Box<Expression>),
    IsNull(Box<Expression>),
    /// True exactly when the operand is this value.
    IsBool(Box<Expression>, bool),
    In(Box<Expression>, Vec<Expression>),
    /// The right side is an array; NULL arrays count as empty.
    InArray(Box<Expression>, Box<Expression>),
    Like(Box<Expression>, Box<Expression>),
    /// Conditions with their results; the first that is true decides.
    Case(Vec<(Expression, Expression)>, Box<Expression>),
    Coalesce(Vec<Expression>),
    Cast {
        operand: Box<Expression>,
        safe: bool,
    },
    /// Errors of the operand become NULL.
    Safe(Box<Expression>),
    Array(Vec<Expression>),
    Struct(Vec<Expression>),
    Field(Box<Expression>, usize),
    Index {
        array: Box<Expression>,
        index: Box<Expression>,
        /// What the first element's index is: 0 or 1.
        base: i64,
        safe: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    /// The comparison with its sides exchanged.
    pub fn flipped(self) -> Comparison {
        match self {
            Comparison::Less => Comparison::Greater,
            Comparison::LessOrEqual => Comparison::GreaterOrEqual,
            Comparison::Greater => Comparison::Less,
            Comparison::GreaterOrEqual => Comparison::LessOrEqual,
            same => same,
        }
    }

    fn holds(self, compared: Compared) -> Value {
        let ordering = match compared {
            Compared::Unknown => return Value::Null,
            Compared::NotANumber => return Value::Bool(self == Comparison::NotEqual),
            Compared::As(ordering) => ordering,
        };
        Value::Bool(match self {
            Comparison::Equal => ordering == Ordering::Equal,
            Comparison::NotEqual => ordering != Ordering::Equal,
            Comparison::Less => ordering == Ordering::Less,
            Comparison::LessOrEqual => ordering != Ordering::Greater,
            Comparison::Greater => ordering == Ordering::Greater,
            Comparison::GreaterOrEqual => ordering != Ordering::Less,
        })
    }
}

/// What an expression is evaluated over.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    pub row: &'a [Value],
    pub slots: &'a [Value],
}

impl Expression {
    pub fn literal(value: Value, kind: SqlType) -> Expression {
        Expression {
            kind,
            node: Node::Literal(value),
            at: 0,
        }
    }

    pub fn column(position: usize, kind: SqlType) -> Expression {
        Expression {
            kind,
            node: Node::Column(position),
            at: 0,
        }
    }

    pub fn as_literal(&self) -> Option<&Value> {
        match &self.node {
            Node::Literal(value) => Some(value),
            _ => None,
        }
    }

    pub fn children(&self) -> Vec<&Expression> {
        match &self.node {
            Node::Literal(_) | Node::Column(_) | Node::Slot(_) | Node::Aggregate(_) => Vec::new(),
            Node::Call(_, items)
            | Node::And(items)
            | Node::Or(items)
            | Node::Coalesce(items)
            | Node::Array(items)
            | Node::Struct(items) => items.iter().collect(),
            Node::Compare(_, left, right)
            | Node::InArray(left, right)
            | Node::Like(left, right) => vec![left, right],
            Node::Not(operand)
            | Node::IsNull(operand)
            | Node::IsBool(operand, _)
            | Node::Cast { operand, .. }
            | Node::Safe(operand)
            | Node::Field(operand, _) => vec![operand],
            Node::In(operand, items) => std::iter::once(operand.as_ref()).chain(items).collect(),
            Node::Case(whens, otherwise) => whens
                .iter()
                .flat_map(|(when, then)| [when, then])
                .chain([otherwise.as_ref()])
                .collect(),
            Node::Index { array, index, .. } => vec![array, index],
        }
    }

    /// The same as another type, which it can be cast to.
    pub fn cast(self, kind: &SqlType) -> Expression {
        if self.kind == *kind {
            return self;
        }
        Expression {
            kind: kind.clone(),
            at: self.at,
            node: Node::Cast {
                operand: Box::new(self),
                safe: false,
            },
        }
    }

    /// Evaluated if it is constant; what fails stays, and fails when it runs.
    pub fn folded(self) -> Expression {
        if matches!(self.node, Node::Literal(_)) || !self.is_constant() {
            return self;
        }
        let scope = Scope {
            row: &[],
            slots: &[],
        };
        match self.evaluate(scope) {
            Ok(value) => Expression {
                node: Node::Literal(value),
                ..self
            },
            Err(_) => self,
        }
    }

    pub fn children_mut(&mut self) -> Vec<&mut Expression> {
        match &mut self.node {
            Node::Literal(_) | Node::Column(_) | Node::Slot(_) | Node::Aggregate(_) => Vec::new(),
            Node::Call(_, items)
            | Node::And(items)
            | Node::Or(items)
            | Node::Coalesce(items)
            | Node::Array(items)
            | Node::Struct(items) => items.iter_mut().collect(),
            Node::Compare(_, left, right)
            | Node::InArray(left, right)
            | Node::Like(left, right) => vec![left, right],
            Node::Not(operand)
            | Node::IsNull(operand)
            | Node::IsBool(operand, _)
            | Node::Cast { operand, .. }
            | Node::Safe(operand)
            | Node::Field(operand, _) => vec![operand],
            Node::In(operand, items) => std::iter::once(operand.as_mut()).chain(items).collect(),
            Node::Case(whens, otherwise) => whens
                .iter_mut()
                .flat_map(|(when, then)| [when, then])
                .chain([otherwise.as_mut()])
                .collect(),
            Node::Index { array, index, .. } => vec![array, index],
        }
    }

    /// Whether it has the same value for every row of the statement, known in analysis.
    pub fn is_constant(&self) -> bool {
        !matches!(
            self.node,
            Node::Column(_) | Node::Slot(_) | Node::Aggregate(_)
        ) && self.children().iter().all(|child| child.is_constant())
    }

    /// Calls `visit` with the position of every column in it.
    pub fn columns(&self, visit: &mut dyn FnMut(usize)) {
        if let Node::Column(position) = self.node {
            visit(position);
        }
        for child in self.children() {
            child.columns(visit);
        }
    }

    /// Replaces the position of every column.
    pub fn remap(&mut self, new: &dyn Fn(usize) -> usize) {
        if let Node::Column(position) = &mut self.node {
            *position = new(*position);
        }
        for child in self.children_mut() {
            child.remap(new);
        }
    }

    pub fn evaluate(&self, scope: Scope<'_>) -> Result<Value, Error> {
        match &self.node {
            Node::Literal(value) => Ok(value.clone()),
            Node::Column(position) => Ok(scope.row.get(*position).cloned().unwrap_or(Value::Null)),
            Node::Slot(slot) => Ok(scope.slots.get(*slot).cloned().unwrap_or(Value::Null)),
            Node::Aggregate(_) => Err(Error::invalid("an aggregate function has no place here")),
            Node::Call(function, arguments) => {
                let mut values = Vec::with_capacity(arguments.len());
                for argument in arguments {
                    let value = argument.evaluate(scope)?;
                    if function.strict && value.is_null() {
                        return Ok(Value::Null);
                    }
                    values.push(value);
                }
                (function.body)(&values).map_err(|error| error.at(self.at))
            }
            Node::Compare(comparison, left, right) => {
                let (left, right) = (left.evaluate(scope)?, right.evaluate(scope)?);
                Ok(comparison.holds(value::compare(&left, &right)))
            }
            Node::And(items) => connective(items, scope, false),
            Node::Or(items) => connective(items, scope, true),
            Node::Not(operand) => Ok(match operand.evaluate(scope)? {
                Value::Bool(value) => Value::Bool(!value),
                _ => Value::Null,
            }),
            Node::IsNull(operand) => Ok(Value::Bool(operand.evaluate(scope)?.is_null())),
            Node::IsBool(operand, wanted) => Ok(Value::Bool(
                operand.evaluate(scope)? == Value::Bool(*wanted),
            )),
            Node::In(operand, items) => {
                let operand = operand.evaluate(scope)?;
                let mut items = items.iter().map(|item| item.evaluate(scope));
                is_among(&operand, &mut items)
            }
            Node::InArray(operand, array) => {
                let operand = operand.evaluate(scope)?;
                match array.evaluate(scope)? {
                    Value::List(items) => is_among(&operand, &mut items.into_iter().map(Ok)),
                    _ => Ok(Value::Bool(false)),
                }
            }
            Node::Like(operand, pattern) => {
                let (operand, pattern) = (operand.evaluate(scope)?, pattern.evaluate(scope)?);
                crate::functions::like(&operand, &pattern).map_err(|error| error.at(self.at))
            }
            Node::Case(whens, otherwise) => {
                for (when, then) in whens {
                    if when.evaluate(scope)? == Value::Bool(true) {
                        return then.evaluate(scope);
                    }
                }
                otherwise.evaluate(scope)
            }
            Node::Coalesce(items) => {
                for item in items {
                    let value = item.evaluate(scope)?;
                    if !value.is_null() {
                        return Ok(value);
                    }
                }
                Ok(Value::Null)
            }
            Node::Cast { operand, safe } => {
                let value = operand.evaluate(scope)?;
                match value::cast(&value, &operand.kind, &self.kind) {
                    Err(Error::Statement { .. }) if *safe => Ok(Value::Null),
                    result => result.map_err(|error| error.at(self.at)),
                }
            }
            Node::Safe(operand) => match operand.evaluate(scope) {
                Err(Error::Statement { .. }) => Ok(Value::Null),
                result => result,
            },
            Node::Array(items) => evaluate_all(items, scope).map(Value::List),
            Node::Struct(items) => evaluate_all(items, scope).map(Value::Tuple),
            Node::Field(operand, index) => Ok(match operand.evaluate(scope)? {
                Value::Tuple(values) => values.into_iter().nth(*index).unwrap_or(Value::Null),
                _ => Value::Null,
            }),
            Node::Index {
                array,
                index,
                base,
                safe,
            } => element(array.evaluate(scope)?, index.evaluate(scope)?, *base, *safe)
                .map_err(|error| error.at(self.at)),
        }
    }

    /// As a condition: NULL counts as false.
    pub fn holds(&self, scope: Scope<'_>) -> Result<bool, Error> {
        Ok(self.evaluate(scope)? == Value::Bool(true))
    }
}

pub fn evaluate_all(items: &[Expression], scope: Scope<'_>) -> Result<Vec<Value>, Error> {
    items.iter().map(|item| item.evaluate(scope)).collect()
}

/// AND (`decisive` false) and OR (`decisive` true) with three truth values.
fn connective(items: &[Expression], scope: Scope<'_>, decisive: bool) -> Result<Value, Error> {
    let mut unknown = false;
    for item in items {
        match item.evaluate(scope)? {
            Value::Bool(value) if value == decisive => return Ok(Value::Bool(decisive)),
            Value::Bool(_) => {}
            _ => unknown = true,
        }
    }
    Ok(match unknown {
        true => Value::Null,
        false => Value::Bool(!decisive),
    })
}

fn is_among(
    operand: &Value,
    items: &mut dyn Iterator<Item = Result<Value, Error>>,
) -> Result<Value, Error> {
    let (mut unknown, mut any) = (false, false);
    for item in items {
        any = true;
        match value::compare(operand, &item?) {
            Compared::As(Ordering::Equal) => return Ok(Value::Bool(true)),
            Compared::Unknown => unknown = true,
            _ => {}
        }
    }
    Ok(match unknown && any {
        true => Value::Null,
        false => Value::Bool(false),
    })
}

fn element(array: Value, index: Value, base: i64, safe: bool) -> Result<Value, Error> {
    let (Value::List(values), Value::Int(index)) = (array, index) else {
        return Ok(Value::Null);
    };
    let found = index
        .checked_sub(base)
        .and_then(|index| usize::try_from(index).ok())
        .and_then(|index| values.into_iter().nth(index));
    match found {
        Some(value) => Ok(value),
        None if safe => Ok(Value::Null),
        None => Err(Error::out_of_range(format!(
            "Array index {index} is out of bounds"
        ))),
    }
}
