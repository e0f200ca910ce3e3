//! What a SELECT makes of each row: columns, functions of them, and aggregates over rows.

use super::Planner;
use super::function::{self, Function};
use super::term::{Context, Term};
use super::view::{Place, Source, View};
use crate::error::Error;
use crate::grammar::ast;
use crate::types::name::{cql_name, resolve};
use crate::types::order::compare;
use crate::types::wire::put_value;
use crate::types::{literal, number};
use api::collection::assemble;
use catalog::{ColumnRole, Table};

use model::row::CellContent;
use model::{Cell, ColumnId, Row, Type, Value};
use std::sync::Arc;

/// A row as it was read: its key's values, its cells, and its partition's.
#[derive(Clone, Copy, Default)]
pub struct RowView<'a> {
    /// Of a static row the partition columns only.
    pub key: &'a [Value],
    pub row: Option<&'a Row>,
    pub header: Option<&'a Row>,
}

#[derive(Clone, Debug)]
pub enum Selector {
    /// A column of a single value.
    Column(Place),
    /// A collection that keeps a cell per element.
    Collection {
        place: Place,
        kind: Type,
    },
    WriteTime(Place),
    Ttl(Place),
    Token(Arc<Table>),
    Call(Function, Vec<Selector>),
    Cast(Box<Selector>, Type),
    Term(Term),
    /// A map's value, or one element of a set.
    Element {
        of: Box<Selector>,
        key: Term,
    },
    Field {
        of: Box<Selector>,
        index: usize,
    },
}

#[derive(Clone, Debug)]
pub enum Output {
    Row(Selector),
    Aggregate(Aggregate),
}

#[derive(Clone, Debug)]
pub struct Aggregate {
    pub kind: AggregateKind,
    /// `None` for `count(*)`.
    pub argument: Option<(Selector, Type)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregateKind {
    Count,
    Min,
    Max,
    Sum,
    Average,
    /// A plain selector beside aggregates: its value in the first row.
    First,
}

/// A selector with its type and the name that its column gets.
pub struct Planned {
    pub output: Output,
    pub kind: Type,
    pub name: String,
}

pub fn plan(
    selector: &ast::Selector,
    view: &View,
    planner: &mut Planner<'_>,
) -> Result<Planned, Error> {
    match selector {
        ast::Selector::CountRows => Ok(Planned {
            output: Output::Aggregate(Aggregate {
                kind: AggregateKind::Count,
                argument: None,
            }),
            kind: Type::BigInt,
            name: "count".into(),
        }),
        ast::Selector::Function(name, arguments) => {
            if let Some(kind) = aggregate_kind(name) {
                return plan_aggregate(name, kind, arguments, view, planner);
            }
            plan_row(selector, view, planner)
        }
        _ => plan_row(selector, view, planner),
    }
}

fn plan_row(
    selector: &ast::Selector,
    view: &View,
    planner: &mut Planner<'_>,
) -> Result<Planned, Error> {
    let (planned, kind) = plan_value(selector, view, planner)?;
    Ok(Planned {
        output: Output::Row(planned),
        kind,
        name: shown_name(selector),
    })
}

fn aggregate_kind(name: &str) -> Option<AggregateKind> {
    Some(match name {
        "count" => AggregateKind::Count,
        "min" => AggregateKind::Min,
        "max" => AggregateKind::Max,
        "sum" => AggregateKind::Sum,
        "avg" => AggregateKind::Average,
        _ => return None,
    })
}

fn plan_aggregate(
    name: &str,
    kind: AggregateKind,
    arguments: &[ast::Selector],
    view: &View,
    planner: &mut Planner<'_>,
) -> Result<Planned, Error> {
    let [argument] = arguments else {
        return Err(Error::invalid(format!(
            "Invalid number of arguments in call to function system.{name}: 1 required but {} provided",
            arguments.len()
        )));
    };
    let (planned, argument_kind) = plan_value(argument, view, planner)?;
    // What is made of counters is plain numbers.
    let argument_kind = match argument_kind {
        Type::Counter => Type::BigInt,
        kind => kind,
    };
    let is_number = matches!(
        argument_kind,
        Type::TinyInt
            | Type::SmallInt
            | Type::Int
            | Type::BigInt
            | Type::Varint
            | Type::Float32
            | Type::Float64
            | Type::Decimal
    );
    if matches!(kind, AggregateKind::Sum | AggregateKind::Average) && !is_number {
        return Err(Error::invalid(format!(
            "Invalid call to function {name}, none of its type signatures match: it takes numbers, not {}",
            cql_name(&argument_kind)
        )));
    }
    let result = if kind == AggregateKind::Count {
        Type::BigInt
    } else {
        argument_kind.clone()
    };
    Ok(Planned {
        output: Output::Aggregate(Aggregate {
            kind,
            argument: Some((planned, argument_kind)),
        }),
        kind: result,
        name: format!("system.{name}({})", shown_name(argument)),
    })
}

/// The name of a result's column that has no alias.
fn shown_name(selector: &ast::Selector) -> String {
    match selector {
        ast::Selector::Column(name) => name.clone(),
        ast::Selector::CountRows => "count".into(),
        ast::Selector::Function(name, arguments) => {
            let arguments: Vec<_> = arguments.iter().map(shown_name).collect();
            let arguments = arguments.join(", ");
            if matches!(name.as_str(), "writetime" | "ttl") {
                format!("{name}({arguments})")
            } else {
                format!("system.{name}({arguments})")
            }
        }
        ast::Selector::Cast(inner, kind) => format!("cast({} as {kind})", shown_name(inner)),
        ast::Selector::Term(term) => format!("{}", Shown(term)),
        ast::Selector::Element(inner, term) => {
            format!("{}[{}]", shown_name(inner), Shown(term))
        }
        ast::Selector::Field(inner, field) => format!("{}.{field}", shown_name(inner)),
    }
}

struct Shown<'a>(&'a ast::Term);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            ast::Term::Constant(ast::Constant::Text(text)) => write!(formatter, "'{text}'"),
            ast::Term::Constant(ast::Constant::Integer(text) | ast::Constant::Float(text)) => {
                write!(formatter, "{text}")
            }
            ast::Term::Marker(_) => write!(formatter, "?"),
            ast::Term::Function { name, .. } => write!(formatter, "system.{name}()"),
            _ => write!(formatter, "(literal)"),
        }
    }
}

fn plan_value(
    selector: &ast::Selector,
    view: &View,
    planner: &mut Planner<'_>,
) -> Result<(Selector, Type), Error> {
    match selector {
        ast::Selector::Column(name) => Ok(column(view, view.index(name)?)),
        ast::Selector::Function(name, arguments) => plan_call(name, arguments, view, planner),
        ast::Selector::Cast(inner, name) => {
            let (inner, from) = plan_value(inner, view, planner)?;
            let to = resolve(name, &view.keyspace, &planner.types_of(&view.keyspace))?;
            if !can_cast(&from, &to) {
                return Err(Error::invalid(format!(
                    "{} cannot be cast to {}",
                    cql_name(&from),
                    cql_name(&to)
                )));
            }
            Ok((Selector::Cast(Box::new(inner), to.clone()), to))
        }
        ast::Selector::Term(term) => {
            let kind = match term {
                ast::Term::Typed(name, _) => {
                    resolve(name, &view.keyspace, &planner.types_of(&view.keyspace))?
                }
                other => super::term::own_type(other).ok_or_else(|| {
                    Error::invalid("Cannot infer the type of a selected term; write (type)term")
                })?,
            };
            let term = planner.term(term, &kind, "[selection]")?;
            Ok((Selector::Term(term), kind))
        }
        ast::Selector::Element(inner, term) => {
            let (of, kind) = plan_value(inner, view, planner)?;
            let (key_kind, result) = match &kind {
                Type::Map { key, value, .. } => (key.as_ref().clone(), value.as_ref().clone()),
                Type::Set { element, .. } => (element.as_ref().clone(), element.as_ref().clone()),
                other => {
                    return Err(Error::invalid(format!(
                        "Invalid element selection: {} is of type {} is not a collection",
                        shown_name(inner),
                        cql_name(other)
                    )));
                }
            };
            let key = planner.term(term, &key_kind, &format!("key({})", shown_name(inner)))?;
            Ok((
                Selector::Element {
                    of: Box::new(of),
                    key,
                },
                result,
            ))
        }
        ast::Selector::Field(inner, field) => {
            let (of, kind) = plan_value(inner, view, planner)?;
            let Type::User { fields, .. } = &kind else {
                return Err(Error::invalid(format!(
                    "Invalid field selection: {} of type {} is not a user type",
                    shown_name(inner),
                    cql_name(&kind)
                )));
            };
            let index = fields
                .iter()
                .position(|(name, _)| name == field)
                .ok_or_else(|| {
                    Error::invalid(format!(
                        "{} of type {} has no field {field}",
                        shown_name(inner),
                        cql_name(&kind)
                    ))
                })?;
            let result = fields[index].1.clone();
            Ok((
                Selector::Field {
                    of: Box::new(of),
                    index,
                },
                result,
            ))
        }
        ast::Selector::CountRows => Err(Error::invalid(
            "aggregate functions cannot be used as arguments of other functions",
        )),
    }
}

/// The selector of a column as it is.
pub fn column(view: &View, index: usize) -> (Selector, Type) {
    let column = &view.columns[index];
    let selector = if column.kind.is_multi_cell() && !matches!(column.place, Place::Key(_)) {
        Selector::Collection {
            place: column.place,
            kind: column.kind.clone(),
        }
    } else {
        Selector::Column(column.place)
    };
    (selector, column.kind.clone())
}

fn plan_call(
    name: &str,
    arguments: &[ast::Selector],
    view: &View,
    planner: &mut Planner<'_>,
) -> Result<(Selector, Type), Error> {
    if aggregate_kind(name).is_some() {
        return Err(Error::invalid(
            "aggregate functions cannot be used as arguments of other functions",
        ));
    }
    match (name, arguments) {
        ("writetime" | "ttl", [ast::Selector::Column(column)]) => {
            let index = view.index(column)?;
            let column = &view.columns[index];
            let shown = if name == "ttl" { "ttl" } else { "writetime" };
            if matches!(column.role, ColumnRole::Partition | ColumnRole::Clustering) {
                return Err(Error::invalid(format!(
                    "Cannot use selection function {shown} on PRIMARY KEY part {}",
                    column.name
                )));
            }
            if column.kind.is_multi_cell() {
                return Err(Error::invalid(format!(
                    "Cannot use selection function {shown} on non-frozen collection {}",
                    column.name
                )));
            }
            if name == "ttl" {
                Ok((Selector::Ttl(column.place), Type::Int))
            } else {
                Ok((Selector::WriteTime(column.place), Type::BigInt))
            }
        }
        ("token", _) => {
            let Source::Stored(table) = &view.source else {
                return Err(Error::invalid("token() is not supported on virtual tables"));
            };
            let names: Vec<_> = table
                .partition_columns()
                .map(|column| column.name.as_str())
                .collect();
            let given = arguments.iter().map(|argument| match argument {
                ast::Selector::Column(name) => name.as_str(),
                _ => "",
            });
            if !given.eq(names.iter().copied()) {
                return Err(Error::invalid(format!(
                    "Invalid call to function token: its arguments are the partition key: {}",
                    names.join(", ")
                )));
            }
            Ok((Selector::Token(table.clone()), Type::BigInt))
        }
        _ => {
            let mut selectors = Vec::new();
            let mut kinds = Vec::new();
            for argument in arguments {
                let (selector, kind) = plan_value(argument, view, planner)?;
                selectors.push(selector);
                kinds.push(Some(kind));
            }
            let function = function::find(name, &kinds)?;
            let result = function.result.clone();
            Ok((Selector::Call(function, selectors), result))
        }
    }
}

fn can_cast(from: &Type, to: &Type) -> bool {
    let is_number = |kind: &Type| {
        matches!(
            kind,
            Type::TinyInt
                | Type::SmallInt
                | Type::Int
                | Type::BigInt
                | Type::Varint
                | Type::Float32
                | Type::Float64
                | Type::Decimal
        )
    };
    from == to
        || (is_number(from) && is_number(to))
        || (matches!(to, Type::Text { .. } | Type::Ascii)
            && (is_number(from)
                || matches!(
                    from,
                    Type::Bool
                        | Type::Uuid
                        | Type::TimeUuid
                        | Type::Inet
                        | Type::Date
                        | Type::Time
                        | Type::TimestampMillis
                        | Type::Text { .. }
                        | Type::Ascii
                )))
        || (matches!(from, Type::TimeUuid | Type::TimestampMillis)
            && matches!(to, Type::Date | Type::TimestampMillis))
        || (*from == Type::Date && *to == Type::TimestampMillis)
}

impl Selector {
    /// Whether it needs the key's values.
    pub fn uses_key(&self) -> bool {
        match self {
            Selector::Column(place)
            | Selector::Collection { place, .. }
            | Selector::WriteTime(place)
            | Selector::Ttl(place) => matches!(place, Place::Key(_)),
            Selector::Token(_) => true,
            Selector::Call(_, inner) => inner.iter().any(Selector::uses_key),
            Selector::Cast(inner, _)
            | Selector::Element { of: inner, .. }
            | Selector::Field { of: inner, .. } => inner.uses_key(),
            Selector::Term(_) => false,
        }
    }

    /// Adds the stored columns that it reads.
    pub fn places(&self, places: &mut Vec<Place>) {
        match self {
            Selector::Column(place)
            | Selector::Collection { place, .. }
            | Selector::WriteTime(place)
            | Selector::Ttl(place) => places.push(*place),
            Selector::Call(_, inner) => inner.iter().for_each(|inner| inner.places(places)),
            Selector::Cast(inner, _)
            | Selector::Element { of: inner, .. }
            | Selector::Field { of: inner, .. } => inner.places(places),
            Selector::Term(_) | Selector::Token(_) => {}
        }
    }

    /// Appends the value with its length: straight from the cell for plain columns.
    pub fn put(
        &self,
        row: &RowView<'_>,
        kind: &Type,
        context: &Context<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        match self {
            Selector::Column(place) => {
                put_value(place_value(row, *place).unwrap_or(&Value::Null), kind, out);
            }
            _ => put_value(&self.value(row, context)?, kind, out),
        }
        Ok(())
    }

    pub fn value(&self, row: &RowView<'_>, context: &Context<'_>) -> Result<Value, Error> {
        Ok(match self {
            Selector::Column(place) => place_value(row, *place).cloned().unwrap_or(Value::Null),
            Selector::Collection { place, kind } => assemble(cells(row, *place), kind),
            Selector::WriteTime(place) => match live_cell(row, *place) {
                Some(cell) => Value::Int(cell.timestamp.0),
                None => Value::Null,
            },
            Selector::Ttl(place) => match live_cell(row, *place).map(|cell| &cell.content) {
                Some(CellContent::Live {
                    expiry: Some(expiry),
                    ..
                }) => Value::Int((expiry.at_seconds - context.now.seconds()).max(0)),
                _ => Value::Null,
            },
            Selector::Token(table) => {
                let count = table.partition_columns().count();
                let values = row.key.get(..count).unwrap_or(&[]);
                Value::Int(table.token(values).map_err(super::keys::bad_key)?)
            }
            Selector::Call(function, arguments) => {
                let values = arguments
                    .iter()
                    .map(|argument| argument.value(row, context))
                    .collect::<Result<Vec<_>, _>>()?;
                function.call(&values, context)?
            }
            Selector::Cast(inner, to) => cast(inner.value(row, context)?, to),
            Selector::Term(term) => term.evaluate(context)?.unwrap_or(Value::Null),
            Selector::Element { of, key } => {
                let key = key.evaluate(context)?.unwrap_or(Value::Null);
                match of.value(row, context)? {
                    Value::Map(pairs) => pairs
                        .into_iter()
                        .find(|(candidate, _)| *candidate == key)
                        .map_or(Value::Null, |(_, value)| value),
                    Value::Set(elements) if elements.contains(&key) => key,
                    _ => Value::Null,
                }
            }
            Selector::Field { of, index } => match of.value(row, context)? {
                Value::Tuple(mut values) if *index < values.len() => values.swap_remove(*index),
                _ => Value::Null,
            },
        })
    }
}

fn place_row<'a>(row: &RowView<'a>, place: Place) -> Option<(&'a Row, ColumnId)> {
    match place {
        Place::Row(id) => Some((row.row?, id)),
        Place::Header(id) => Some((row.header?, id)),
        Place::Key(_) => None,
    }
}

fn place_value<'a>(row: &RowView<'a>, place: Place) -> Option<&'a Value> {
    if let Place::Key(position) = place {
        return row.key.get(position);
    }
    let (row, id) = place_row(row, place)?;
    row.value(id)
}

fn cells<'a>(row: &RowView<'a>, place: Place) -> &'a [Cell] {
    place_row(row, place).map_or(&[], |(row, id)| row.cells(id))
}

fn live_cell<'a>(row: &RowView<'a>, place: Place) -> Option<&'a Cell> {
    cells(row, place)
        .iter()
        .find(|cell| matches!(cell.content, CellContent::Live { .. }))
}

fn cast(value: Value, to: &Type) -> Value {
    if value.is_null() {
        return value;
    }
    match to {
        Type::Text { .. } | Type::Ascii => {
            literal::to_text(&value).map_or(Value::Null, Value::Text)
        }
        Type::TimestampMillis | Type::Date => cast_time(value, to),
        _ => cast_number(value, to),
    }
}

fn cast_time(value: Value, to: &Type) -> Value {
    let millis = match &value {
        Value::Uuid(uuid) => crate::timeuuid::micros(uuid).map(|micros| micros.div_euclid(1000)),
        Value::Timestamp { seconds, nanos } => {
            Some(crate::types::wire::millis_from_timestamp(*seconds, *nanos))
        }
        Value::Date(days) => Some(i64::from(*days) * 86_400_000),
        _ => None,
    };
    match (millis, to) {
        (Some(millis), Type::Date) => Value::Date(millis.div_euclid(86_400_000) as i32),
        (Some(millis), _) => crate::types::wire::timestamp_from_millis(millis),
        _ => Value::Null,
    }
}

fn cast_number(value: Value, to: &Type) -> Value {
    let as_float = match &value {
        Value::Int(value) => *value as f64,
        Value::Varint(bytes) => number::decimal_to_f64(0, bytes),
        Value::Float32(value) => f64::from(*value),
        Value::Float64(value) => *value,
        Value::Decimal { scale, unscaled } => number::decimal_to_f64(*scale, unscaled),
        _ => return value,
    };
    let as_integer = match &value {
        Value::Int(value) => *value,
        Value::Varint(bytes) => number::varint_to_i64(bytes).unwrap_or(as_float as i64),
        _ => as_float as i64,
    };
    match to {
        Type::TinyInt => Value::Int((as_integer as i8).into()),
        Type::SmallInt => Value::Int((as_integer as i16).into()),
        Type::Int => Value::Int((as_integer as i32).into()),
        Type::BigInt => Value::Int(as_integer),
        Type::Varint => match value {
            Value::Varint(_) => value,
            _ => Value::Varint(number::varint_from_i64(as_integer)),
        },
        Type::Float32 => Value::Float32(as_float as f32),
        Type::Float64 => Value::Float64(as_float),
        Type::Decimal => {
            let text = literal::to_text(&value).unwrap_or_default();
            match number::decimal_from_text(&text) {
                Some((scale, unscaled)) => Value::Decimal { scale, unscaled },
                None => Value::Null,
            }
        }
        _ => value,
    }
}

/// An aggregate on its way through the rows.
pub struct Running {
    count: i64,
    value: Value,
    float_sum: f64,
    integer_sum: num_bigint::BigInt,
}

impl Default for Running {
    fn default() -> Running {
        Running {
            count: 0,
            value: Value::Null,
            float_sum: 0.0,
            integer_sum: 0.into(),
        }
    }
}

impl Aggregate {
    pub fn add(
        &self,
        running: &mut Running,
        row: &RowView<'_>,
        context: &Context<'_>,
    ) -> Result<(), Error> {
        let Some((selector, kind)) = &self.argument else {
            running.count += 1;
            return Ok(());
        };
        if self.kind == AggregateKind::First {
            if running.count == 0 {
                running.value = selector.value(row, context)?;
            }
            running.count += 1;
            return Ok(());
        }
        let value = selector.value(row, context)?;
        if value.is_null() {
            return Ok(());
        }
        running.count += 1;
        let is_better = |order: std::cmp::Ordering| match self.kind {
            AggregateKind::Min => order.is_lt(),
            _ => order.is_gt(),
        };
        match self.kind {
            AggregateKind::Min | AggregateKind::Max => {
                if running.value.is_null() || is_better(compare(&value, &running.value, kind)) {
                    running.value = value;
                }
            }
            AggregateKind::Sum | AggregateKind::Average => match &value {
                Value::Int(value) => running.integer_sum += *value,
                Value::Varint(bytes) => {
                    running.integer_sum += num_bigint::BigInt::from_signed_bytes_be(bytes);
                }
                Value::Decimal { scale, unscaled } => {
                    running.value = number::add_decimal(&running.value, *scale, unscaled)?;
                }
                Value::Float32(value) => running.float_sum += f64::from(*value),
                Value::Float64(value) => running.float_sum += value,
                _ => {}
            },
            AggregateKind::Count | AggregateKind::First => {}
        }
        Ok(())
    }

    pub fn finish(&self, running: Running) -> Value {
        match self.kind {
            AggregateKind::Count => Value::Int(running.count),
            AggregateKind::Min | AggregateKind::Max | AggregateKind::First => running.value,
            AggregateKind::Sum | AggregateKind::Average => {
                let kind = self.argument.as_ref().map_or(&Type::Int, |(_, kind)| kind);
                let divisor = match self.kind {
                    AggregateKind::Average => running.count.max(1),
                    _ => 1,
                };
                match kind {
                    Type::Float32 => Value::Float32((running.float_sum / divisor as f64) as f32),
                    Type::Float64 => Value::Float64(running.float_sum / divisor as f64),
                    Type::Decimal => number::divide_decimal(running.value, divisor),
                    Type::Varint => {
                        Value::Varint((running.integer_sum / divisor).to_signed_bytes_be())
                    }
                    // Sums wrap in the column's own type, as Cassandra's do.
                    kind => {
                        let bytes = (running.integer_sum / divisor).to_signed_bytes_be();
                        let wrapped = number::wrap_to_i64(&bytes);
                        cast_number(Value::Int(wrapped), kind)
                    }
                }
            }
        }
    }
}
