//! Function calls: aggregates, the functions that take any type, and the table of the others.

use super::Analyser;
use super::coercion::{Draft, Loose, null};
use super::scope::NameScope;
use crate::ast::{self, Call};
use crate::error::{Error, Offset};
use crate::functions::{self, DatePart, Function};
use crate::plan::{Aggregate, AggregateFunction};
use crate::typed::{Comparison, Expression, Node};
use crate::types::SqlType;
use crate::value;
use model::Value;
use std::cmp::Ordering;

impl<'a> Analyser<'a> {
    pub(super) fn call(
        &mut self,
        call: &Call,
        at: Offset,
        scope: &NameScope<'_>,
    ) -> Result<Draft, Error> {
        if let Some(function) = aggregate_function(&call.name) {
            return self.aggregate(function, call, at, scope);
        }
        if call.star || call.distinct {
            return Err(Error::invalid(format!(
                "Function {} takes neither * nor DISTINCT",
                call.name
            )));
        }
        if let Some(draft) = self.dated(call, at, scope)? {
            return Ok(draft);
        }
        let arguments = self.drafts(&call.arguments, scope)?;
        let draft = match self.generic(&call.name, arguments, at)? {
            Made::Draft(draft) => draft,
            Made::Not(arguments) => self.function(&call.name, arguments, at)?,
        };
        match call.safe || functions_safe(&call.name) {
            false => Ok(draft),
            true => {
                let expression = self.settle(draft)?;
                Ok(Draft::firm(Expression {
                    kind: expression.kind.clone(),
                    at,
                    node: Node::Safe(Box::new(expression)),
                }))
            }
        }
    }

    /// A function of the table of signatures.
    pub(super) fn function(
        &mut self,
        name: &str,
        arguments: Vec<Draft>,
        at: Offset,
    ) -> Result<Draft, Error> {
        let cost = |index: usize, parameter: &SqlType| {
            let argument = arguments.get(index)?;
            if !self.can_coerce(argument, parameter) {
                return None;
            }
            Some(match argument.loose {
                Loose::Null => (0, 0),
                _ if argument.kind() == parameter => (0, 0),
                Loose::No => (1, 0),
                _ => (0, 1),
            })
        };
        let signature = match functions::resolve(name, arguments.len(), &cost) {
            None => {
                return Err(Error::invalid(format!(
                    "Function not found, or not supported by Tessera yet: {name}"
                )));
            }
            Some(None) => return Err(no_signature(name, &arguments)),
            Some(Some(signature)) => signature,
        };
        self.apply(signature, arguments, at)
    }

    fn apply(
        &mut self,
        signature: (Function, Vec<SqlType>, SqlType),
        arguments: Vec<Draft>,
        at: Offset,
    ) -> Result<Draft, Error> {
        let (function, parameters, kind) = signature;
        let coerced: Result<Vec<Expression>, Error> = arguments
            .into_iter()
            .zip(&parameters)
            .map(|(argument, parameter)| self.coerce(argument, parameter))
            .collect();
        Ok(Draft::firm(Expression {
            kind,
            node: Node::Call(function, coerced?),
            at,
        }))
    }

    /// DATE_ADD and its kin, whose last argument names a part of a date.
    fn dated(
        &mut self,
        call: &Call,
        at: Offset,
        scope: &NameScope<'_>,
    ) -> Result<Option<Draft>, Error> {
        let name = call.name.as_str();
        if !matches!(
            name,
            "DATE_ADD"
                | "DATE_SUB"
                | "DATE_DIFF"
                | "TIMESTAMP_ADD"
                | "TIMESTAMP_SUB"
                | "TIMESTAMP_DIFF"
        ) {
            return Ok(None);
        }
        let wrong = || Error::invalid(format!("No matching signature for function {name}"));
        let (part, texts) = match call.arguments.as_slice() {
            [first, last] => match &last.node {
                ast::Node::Interval(amount, part) => {
                    (part.text.clone(), vec![first.clone(), (**amount).clone()])
                }
                _ => return Err(wrong()),
            },
            [first, second, last] => match &last.node {
                ast::Node::Name(part) => (part.clone(), vec![first.clone(), second.clone()]),
                _ => return Err(wrong()),
            },
            _ => return Err(wrong()),
        };
        let found = DatePart::parse(&part)
            .and_then(|part| functions::interval_function(name, part))
            .ok_or_else(|| {
                Error::invalid(format!("{name} does not support the {part} date part"))
            })?;
        let arguments = self.drafts(&texts, scope)?;
        for (argument, parameter) in arguments.iter().zip(&found.1) {
            if !self.can_coerce(argument, parameter) {
                return Err(no_signature(name, &arguments));
            }
        }
        self.apply(found, arguments, at).map(Some)
    }

    /// Functions whose arguments may have any type.
    fn generic(
        &mut self,
        name: &str,
        mut arguments: Vec<Draft>,
        at: Offset,
    ) -> Result<Made, Error> {
        let count = arguments.len();
        let now = self.environment.now;
        let expression = match (name, count) {
            ("CURRENT_TIMESTAMP", 0) => {
                Expression::literal(api::evaluate::timestamp_value(now), SqlType::Timestamp)
            }
            ("CURRENT_DATE", 0 | 1) => {
                let zone = match arguments.pop() {
                    Some(zone) => match self.coerce(zone, &SqlType::String)?.as_literal() {
                        Some(Value::Text(zone)) => zone.clone(),
                        _ => {
                            return Err(Error::unimplemented(
                                "CURRENT_DATE with a time zone that is not constant",
                            ));
                        }
                    },
                    None => value::DEFAULT_TIME_ZONE.to_owned(),
                };
                let today = functions::extract(
                    DatePart::Date,
                    &api::evaluate::timestamp_value(now),
                    &zone,
                )?;
                Expression::literal(today, SqlType::Date)
            }
            ("PENDING_COMMIT_TIMESTAMP", 0) => {
                return Err(Error::invalid(
                    "PENDING_COMMIT_TIMESTAMP() can only be the whole value of a column in INSERT … VALUES or \
                     UPDATE … SET",
                ));
            }
            ("IF", 3) => {
                let otherwise = arguments.pop().unwrap_or_else(|| null(at));
                let then = arguments.pop().unwrap_or_else(|| null(at));
                let condition = arguments.pop().unwrap_or_else(|| null(at));
                let condition = self.coerce(condition, &SqlType::Bool)?;
                let (mut results, kind) = self.coerce_all(vec![then, otherwise], "IF")?;
                let otherwise = Box::new(results.remove(1));
                let whens = vec![(condition, results.remove(0))];
                Expression {
                    kind,
                    node: Node::Case(whens, otherwise),
                    at,
                }
            }
            ("COALESCE", 1..) | ("IFNULL", 2) => {
                let (items, kind) = self.coerce_all(arguments, name)?;
                Expression {
                    kind,
                    node: Node::Coalesce(items),
                    at,
                }
            }
            ("NULLIF", 2) => {
                let (mut sides, kind) = self.coerce_all(arguments, name)?;
                let right = sides.remove(1);
                let left = sides.remove(0);
                let equal = Expression {
                    kind: SqlType::Bool,
                    node: Node::Compare(Comparison::Equal, Box::new(left.clone()), Box::new(right)),
                    at,
                };
                let nothing = Expression::literal(Value::Null, kind.clone());
                Expression {
                    kind,
                    node: Node::Case(vec![(equal, nothing)], Box::new(left)),
                    at,
                }
            }
            ("GREATEST" | "LEAST", 1..) => {
                let (items, kind) = self.coerce_all(arguments, name)?;
                if !kind.is_orderable() {
                    return Err(Error::invalid(format!(
                        "{name} is not defined for arguments of type {kind}"
                    )));
                }
                let function = match name {
                    "GREATEST" => any("GREATEST", |values| Ok(extreme(values, Ordering::Greater))),
                    _ => any("LEAST", |values| Ok(extreme(values, Ordering::Less))),
                };
                call_of(function, items, kind, at)
            }
            (_, 1..) if name.starts_with("ARRAY_") => {
                return self.array_function(name, arguments, at);
            }
            ("TO_JSON_STRING" | "TO_JSON" | "PARSE_JSON" | "JSON_VALUE" | "JSON_QUERY", _) => {
                return Err(Error::unimplemented(format!("the function {name}")));
            }
            ("GENERATE_UUID", 0) => {
                return Err(Error::unimplemented("the function GENERATE_UUID"));
            }
            ("ERROR", 1) => {
                let message = arguments.remove(0);
                let message = self.coerce(message, &SqlType::String)?;
                let function = any("ERROR", |values| match values {
                    [Value::Text(message)] => Err(Error::out_of_range(message.clone())),
                    _ => Err(Error::out_of_range("NULL")),
                });
                call_of(function, vec![message], SqlType::Int64, at)
            }
            _ => return Ok(Made::Not(arguments)),
        };
        Ok(Made::Draft(Draft::firm(expression)))
    }

    fn array_function(
        &mut self,
        name: &str,
        mut arguments: Vec<Draft>,
        at: Offset,
    ) -> Result<Made, Error> {
        let count = arguments.len();
        let expression = match (name, count) {
            ("ARRAY_LENGTH", 1) => {
                let items = self.array_arguments(arguments, name)?;
                let function = any("ARRAY_LENGTH", |values| match values {
                    [Value::List(items)] => Ok(Value::Int(items.len() as i64)),
                    _ => Ok(Value::Null),
                });
                call_of(function, items, SqlType::Int64, at)
            }
            ("ARRAY_REVERSE", 1) => {
                let items = self.array_arguments(arguments, name)?;
                let kind = items[0].kind.clone();
                let function = any("ARRAY_REVERSE", |values| match values {
                    [Value::List(items)] => Ok(Value::List(items.iter().rev().cloned().collect())),
                    _ => Ok(Value::Null),
                });
                call_of(function, items, kind, at)
            }
            ("ARRAY_CONCAT", 1..) => return self.array_concat(arguments).map(Made::Draft),
            ("ARRAY_INCLUDES", 2) => {
                let needle = arguments.remove(1);
                let needle = self.settle(needle)?;
                let items = self.array_arguments(arguments, name)?;
                let array = items
                    .into_iter()
                    .next()
                    .unwrap_or_else(|| null(at).expression);
                if array.kind != SqlType::array(needle.kind.clone()) {
                    return Err(Error::invalid(
                        "No matching signature for function ARRAY_INCLUDES",
                    ));
                }
                Expression {
                    kind: SqlType::Bool,
                    node: Node::InArray(Box::new(needle), Box::new(array)),
                    at,
                }
            }
            _ => return Ok(Made::Not(arguments)),
        };
        Ok(Made::Draft(Draft::firm(expression)))
    }

    fn array_arguments(
        &mut self,
        arguments: Vec<Draft>,
        name: &str,
    ) -> Result<Vec<Expression>, Error> {
        arguments
            .into_iter()
            .map(|draft| {
                let kind = match draft.kind() {
                    SqlType::Array(_) => draft.kind().clone(),
                    _ if draft.loose == Loose::Null => SqlType::array(SqlType::Int64),
                    _ => return Err(no_signature(name, &[draft])),
                };
                self.coerce(draft, &kind)
            })
            .collect()
    }

    pub(super) fn array_concat(&mut self, arguments: Vec<Draft>) -> Result<Draft, Error> {
        let at = arguments.first().map_or(0, Draft::at);
        let (items, kind) = self.coerce_all(arguments, "ARRAY_CONCAT")?;
        if !matches!(kind, SqlType::Array(_)) {
            return Err(Error::invalid(
                "No matching signature for function ARRAY_CONCAT",
            ));
        }
        let function = any("ARRAY_CONCAT", |values| {
            let mut all = Vec::new();
            for value in values {
                if let Value::List(items) = value {
                    all.extend(items.iter().cloned());
                }
            }
            Ok(Value::List(all))
        });
        Ok(Draft::firm(call_of(function, items, kind, at)))
    }

    fn aggregate(
        &mut self,
        function: AggregateFunction,
        call: &Call,
        at: Offset,
        scope: &NameScope<'_>,
    ) -> Result<Draft, Error> {
        // Taken while the argument is analysed: an aggregate inside an aggregate finds no place.
        let Some(mut aggregates) = self.aggregates.take() else {
            return Err(Error::invalid(format!(
                "Aggregate function {} not allowed here",
                call.name
            )));
        };
        let drafts = self.drafts(&call.arguments, scope);
        let result = drafts.and_then(|drafts| self.make_aggregate(function, call, drafts));
        let draft = result.map(|aggregate| {
            let kind = aggregate.kind.clone();
            aggregates.push(aggregate);
            Draft::firm(Expression {
                kind,
                node: Node::Aggregate(aggregates.len() - 1),
                at,
            })
        });
        self.aggregates = Some(aggregates);
        draft
    }

    fn make_aggregate(
        &mut self,
        function: AggregateFunction,
        call: &Call,
        mut drafts: Vec<Draft>,
    ) -> Result<Aggregate, Error> {
        use AggregateFunction as F;
        let mut aggregate = Aggregate {
            function,
            argument: None,
            delimiter: None,
            distinct: call.distinct,
            kind: SqlType::Int64,
        };
        if call.star {
            return match function {
                F::Count if !call.distinct => Ok(aggregate),
                _ => Err(Error::invalid(format!("{}(*) is not defined", call.name))),
            };
        }
        if function == F::StringAgg && drafts.len() == 2 {
            let delimiter = drafts.remove(1);
            aggregate.delimiter = Some(self.settle(delimiter)?);
        }
        if drafts.len() != 1 {
            return Err(no_signature(&call.name, &drafts));
        }
        let draft = drafts.remove(0);
        let wrong = no_signature(&call.name, std::slice::from_ref(&draft));
        let argument = match function {
            F::CountIf | F::LogicalAnd | F::LogicalOr => {
                if !self.can_coerce(&draft, &SqlType::Bool) {
                    return Err(wrong);
                }
                self.coerce(draft, &SqlType::Bool)?
            }
            _ => self.settle(draft)?,
        };
        aggregate.kind = match (function, &argument.kind) {
            (F::Count | F::CountIf, _) => SqlType::Int64,
            (F::Sum, SqlType::Int64) => SqlType::Int64,
            (F::Sum | F::Average, SqlType::Numeric) => SqlType::Numeric,
            (F::Sum, SqlType::Float32 | SqlType::Float64) => SqlType::Float64,
            (F::Average, kind) if kind.is_numeric() => SqlType::Float64,
            (F::Minimum | F::Maximum, kind) if kind.is_orderable() => kind.clone(),
            (F::AnyValue, kind) => kind.clone(),
            (F::ArrayAgg, SqlType::Array(_)) => return Err(wrong),
            (F::ArrayAgg, kind) => SqlType::array(kind.clone()),
            (F::StringAgg, kind @ (SqlType::String | SqlType::Bytes)) => kind.clone(),
            (F::LogicalAnd | F::LogicalOr, _) => SqlType::Bool,
            _ => return Err(wrong),
        };
        if call.distinct && !argument.kind.is_comparable() {
            return Err(wrong);
        }
        aggregate.argument = Some(argument);
        Ok(aggregate)
    }
}

enum Made {
    Draft(Draft),
    /// Not one of these: the arguments back.
    Not(Vec<Draft>),
}

fn any(name: &'static str, body: functions::Body) -> Function {
    Function {
        name,
        strict: true,
        body,
    }
}

fn call_of(
    function: Function,
    arguments: Vec<Expression>,
    kind: SqlType,
    at: Offset,
) -> Expression {
    Expression {
        kind,
        node: Node::Call(function, arguments),
        at,
    }
}

/// The greatest or least of values without NULLs; NaN wins.
fn extreme(values: &[Value], wanted: Ordering) -> Value {
    let is_nan = |value: &&Value| match value {
        Value::Float64(value) => value.is_nan(),
        Value::Float32(value) => value.is_nan(),
        _ => false,
    };
    if let Some(nan) = values.iter().find(is_nan) {
        return nan.clone();
    }
    let mut best = values.first();
    for value in values {
        if best.is_some_and(|best| value::order(value, best) == wanted) {
            best = Some(value);
        }
    }
    best.cloned().unwrap_or(Value::Null)
}

fn functions_safe(name: &str) -> bool {
    matches!(
        name,
        "SAFE_ADD" | "SAFE_SUBTRACT" | "SAFE_MULTIPLY" | "SAFE_NEGATE" | "SAFE_DIVIDE"
    )
}

fn no_signature(name: &str, arguments: &[Draft]) -> Error {
    let kinds: Vec<String> = arguments
        .iter()
        .map(|argument| argument.kind().to_string())
        .collect();
    let what = match name {
        "u-" => "operator -".to_owned(),
        name if name.starts_with(|c: char| c.is_ascii_alphabetic()) => format!("function {name}"),
        name => format!("operator {name}"),
    };
    Error::invalid(format!(
        "No matching signature for {what} for argument types: {}",
        kinds.join(", ")
    ))
}

fn aggregate_function(name: &str) -> Option<AggregateFunction> {
    use AggregateFunction as F;
    Some(match name {
        "COUNT" => F::Count,
        "COUNTIF" => F::CountIf,
        "SUM" => F::Sum,
        "AVG" => F::Average,
        "MIN" => F::Minimum,
        "MAX" => F::Maximum,
        "ANY_VALUE" => F::AnyValue,
        "ARRAY_AGG" => F::ArrayAgg,
        "STRING_AGG" => F::StringAgg,
        "LOGICAL_AND" => F::LogicalAnd,
        "LOGICAL_OR" => F::LogicalOr,
        _ => return None,
    })
}

/// EXTRACT of one part, as a function of the value and the zone's name.
pub(super) fn extract_function(part: DatePart) -> (Function, SqlType) {
    macro_rules! parts {
        ($($part:ident),*) => {
            match part {
                $(DatePart::$part => any(concat!("EXTRACT ", stringify!($part)), |values| match values {
                    [value, Value::Text(zone)] => functions::extract(DatePart::$part, value, zone),
                    _ => Ok(Value::Null),
                }),)*
            }
        };
    }
    let function = parts!(
        Nanosecond,
        Microsecond,
        Millisecond,
        Second,
        Minute,
        Hour,
        Day,
        DayOfWeek,
        DayOfYear,
        Week,
        IsoWeek,
        Month,
        Quarter,
        Year,
        IsoYear,
        Date
    );
    let kind = match part {
        DatePart::Date => SqlType::Date,
        _ => SqlType::Int64,
    };
    (function, kind)
}
