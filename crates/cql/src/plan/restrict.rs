//! WHERE: which restrictions find keys, and which are filters that the door applies to what it reads.

use super::Planner;
use super::keys::{Bound, Choice, KeyPlan, TupleTerm};
use super::term::{Context, Term};
use super::view::{Source, View};
use crate::error::Error;
use crate::grammar::ast::{self, InValues, Operator, Relation, RelationLeft};
use crate::types::name::cql_name;
use crate::types::order::compare;
use catalog::ColumnRole;
use model::{Type, Value};
use std::cmp::Ordering;

/// How the rows of a statement are found.
#[derive(Clone, Debug)]
pub enum Access {
    /// All of the table, or a range of tokens.
    Scan {
        lower: Option<(Term, bool)>,
        upper: Option<(Term, bool)>,
    },
    Partitions(KeyPlan),
}

impl Access {
    pub fn key_positions(&self) -> Vec<u16> {
        match self {
            Access::Partitions(keys) => keys.key_positions(),
            Access::Scan { .. } => Vec::new(),
        }
    }

    pub fn restricts_clustering(&self) -> bool {
        matches!(self, Access::Partitions(keys) if keys.restricts_clustering())
    }
}

#[derive(Clone, Debug)]
pub enum Operand {
    One(Term),
    Many(Vec<Term>),
    ManyMarker(Term),
    Nothing,
}

/// A restriction that is checked against each row read.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Index into the view's columns.
    pub column: usize,
    pub kind: Type,
    /// A map's key or a list's index.
    pub element: Option<Term>,
    pub operator: Operator,
    pub operand: Operand,
}

/// A filter with its terms evaluated.
#[derive(Debug)]
pub struct ReadyFilter {
    pub column: usize,
    kind: Type,
    element: Option<Value>,
    operator: Operator,
    values: Vec<Value>,
}

#[derive(Clone, Debug)]
pub struct Restrictions {
    pub access: Access,
    pub filters: Vec<Filter>,
    /// Some filter would have Cassandra read what it does not return.
    pub needs_filtering: bool,
}

const NEEDS_FILTERING: &str = "Cannot execute this query as it might involve data filtering and thus may have \
    unpredictable performance. If you want to execute this query despite the performance unpredictability, use \
    ALLOW FILTERING";

pub fn needs_filtering() -> Error {
    Error::invalid(NEEDS_FILTERING)
}

/// A relation with its columns looked up.
struct Resolved<'a> {
    relation: &'a Relation,
    columns: Vec<usize>,
    is_used: bool,
}

pub fn plan(
    relations: &[Relation],
    view: &View,
    planner: &mut Planner<'_>,
) -> Result<Restrictions, Error> {
    let mut resolved = Vec::new();
    for relation in relations {
        let columns = match &relation.left {
            RelationLeft::Column(name) | RelationLeft::Element(name, _) => vec![view.index(name)?],
            RelationLeft::Columns(names) | RelationLeft::Token(names) => names
                .iter()
                .map(|name| view.index(name))
                .collect::<Result<_, _>>()?,
        };
        resolved.push(Resolved {
            relation,
            columns,
            is_used: false,
        });
    }
    check_repeated(&resolved, view)?;
    let mut needs = false;
    // Markers take their types in the order of planning, which is of no matter; names are given by place.
    let access = match &view.source {
        Source::System(_) => scan(),
        Source::Stored(_) => plan_access(&mut resolved, view, planner, &mut needs)?,
    };
    let mut filters = Vec::new();
    for one in resolved.iter().filter(|one| !one.is_used) {
        needs |= matches!(view.source, Source::Stored(_));
        plan_filters(one, view, planner, &mut filters)?;
    }
    Ok(Restrictions {
        access,
        filters,
        needs_filtering: needs,
    })
}

fn scan() -> Access {
    Access::Scan {
        lower: None,
        upper: None,
    }
}

fn check_repeated(resolved: &[Resolved<'_>], view: &View) -> Result<(), Error> {
    for (index, one) in resolved.iter().enumerate() {
        let RelationLeft::Column(name) = &one.relation.left else {
            continue;
        };
        let column = &view.columns[one.columns[0]];
        for other in &resolved[..index] {
            let is_same =
                matches!(&other.relation.left, RelationLeft::Column(other) if other == name);
            let has_equal = one.relation.operator == Operator::Equal
                || other.relation.operator == Operator::Equal;
            if is_same && has_equal && !column.kind.is_multi_cell() {
                return Err(Error::invalid(format!(
                    "{name} cannot be restricted by more than one relation if it includes an Equal"
                )));
            }
        }
        if column.kind.is_multi_cell()
            && !matches!(
                one.relation.operator,
                Operator::Contains | Operator::ContainsKey | Operator::IsNotNull
            )
        {
            return Err(Error::invalid(format!(
                "Collection column '{name}' ({}) cannot be restricted by a '{}' relation",
                cql_name(&column.kind),
                one.relation.operator
            )));
        }
        if column.kind == Type::Duration
            && matches!(
                one.relation.operator,
                Operator::Less
                    | Operator::LessOrEqual
                    | Operator::Greater
                    | Operator::GreaterOrEqual
            )
        {
            return Err(Error::invalid(
                "Slice restrictions are not supported on duration columns",
            ));
        }
    }
    Ok(())
}

fn plan_access(
    resolved: &mut [Resolved<'_>],
    view: &View,
    planner: &mut Planner<'_>,
    needs: &mut bool,
) -> Result<Access, Error> {
    let partition: Vec<usize> = view
        .of_role(ColumnRole::Partition)
        .map(|(index, _)| index)
        .collect();
    let has_token = resolved
        .iter()
        .any(|one| matches!(one.relation.left, RelationLeft::Token(_)));
    if has_token {
        return plan_tokens(resolved, view, &partition, planner);
    }
    let mut choices = Vec::new();
    for &column in &partition {
        let found = resolved.iter().position(|one| {
            one.columns == [column]
                && matches!(one.relation.left, RelationLeft::Column(_))
                && matches!(one.relation.operator, Operator::Equal | Operator::In)
        });
        if let Some(position) = found {
            choices.push((position, column));
        }
    }
    if choices.len() < partition.len() {
        // A filter on a part of the partition key needs a scan.
        let restricts_part = resolved
            .iter()
            .any(|one| one.columns.iter().any(|column| partition.contains(column)));
        *needs |= restricts_part;
        return Ok(scan());
    }
    let mut keys = KeyPlan::default();
    for (position, column) in choices {
        let one = &mut resolved[position];
        one.is_used = true;
        keys.partition
            .push(plan_choice(one.relation, view, column, planner)?);
    }
    plan_clustering(resolved, view, &mut keys, planner)?;
    Ok(Access::Partitions(keys))
}

fn plan_tokens(
    resolved: &mut [Resolved<'_>],
    view: &View,
    partition: &[usize],
    planner: &mut Planner<'_>,
) -> Result<Access, Error> {
    let (mut lower, mut upper) = (None, None);
    for one in resolved.iter_mut() {
        if !matches!(one.relation.left, RelationLeft::Token(_)) {
            continue;
        }
        if one.columns != partition {
            let names: Vec<_> = partition
                .iter()
                .map(|&column| view.columns[column].name.as_str())
                .collect();
            return Err(Error::invalid(format!(
                "The token() function must be applied to all partition key components or none of them, in \
                 the order of the partition key: {}",
                names.join(", ")
            )));
        }
        one.is_used = true;
        let term = token_term(single(one.relation)?, view, planner)?;
        let bound = |is_inclusive| Some((term.clone(), is_inclusive));
        match one.relation.operator {
            Operator::Greater => lower = bound(false),
            Operator::GreaterOrEqual => lower = bound(true),
            Operator::Less => upper = bound(false),
            Operator::LessOrEqual => upper = bound(true),
            Operator::Equal => {
                lower = bound(true);
                upper = bound(true);
            }
            other => {
                return Err(Error::invalid(format!(
                    "{other} cannot be used with the token function"
                )));
            }
        }
    }
    Ok(Access::Scan { lower, upper })
}

/// The right-hand side of a token relation: a bigint, or token() of constants.
fn token_term(term: &ast::Term, view: &View, planner: &mut Planner<'_>) -> Result<Term, Error> {
    if let ast::Term::Function { name, arguments } = term
        && name == "token"
    {
        let Source::Stored(table) = &view.source else {
            return Err(Error::invalid("token() is not supported on virtual tables"));
        };
        let columns: Vec<_> = table.partition_columns().collect();
        if columns.len() != arguments.len() {
            return Err(Error::invalid(format!(
                "Invalid number of arguments in call to function token: {} required but {} provided",
                columns.len(),
                arguments.len()
            )));
        }
        let mut values = Vec::new();
        for (argument, column) in arguments.iter().zip(columns) {
            match planner.term(argument, &column.kind, &column.name)? {
                Term::Constant(value) => values.push(value),
                _ => {
                    return Err(Error::invalid(
                        "token() on the right of a relation takes constants only; bind the token itself",
                    ));
                }
            }
        }
        let token = table.token(&values).map_err(super::keys::bad_key)?;
        return Ok(Term::Constant(Value::Int(token)));
    }
    planner.term(term, &Type::BigInt, "partition key token")
}

fn single(relation: &Relation) -> Result<&ast::Term, Error> {
    match &relation.right {
        InValues::Terms(terms) if terms.len() == 1 => Ok(&terms[0]),
        _ => Err(Error::invalid("one value is expected here")),
    }
}

fn in_list_type(kind: &Type) -> Type {
    Type::List {
        element: Box::new(kind.clone()),
        frozen: true,
    }
}

fn plan_choice(
    relation: &Relation,
    view: &View,
    column: usize,
    planner: &mut Planner<'_>,
) -> Result<Choice, Error> {
    let column = &view.columns[column];
    match (&relation.operator, &relation.right) {
        (Operator::Equal, _) => planner
            .term(single(relation)?, &column.kind, &column.name)
            .map(Choice::Equal),
        (_, InValues::Terms(terms)) => terms
            .iter()
            .map(|term| planner.term(term, &column.kind, &column.name))
            .collect::<Result<_, _>>()
            .map(Choice::In),
        (_, InValues::Marker(index)) => {
            let kind = in_list_type(&column.kind);
            planner
                .term(
                    &ast::Term::Marker(*index),
                    &kind,
                    &format!("in({})", column.name),
                )
                .map(Choice::InMarker)
        }
    }
}

/// Uses up restrictions of clustering columns from the first on.
fn plan_clustering(
    resolved: &mut [Resolved<'_>],
    view: &View,
    keys: &mut KeyPlan,
    planner: &mut Planner<'_>,
) -> Result<(), Error> {
    let clustering: Vec<usize> = view
        .of_role(ColumnRole::Clustering)
        .map(|(index, _)| index)
        .collect();
    let mut at = 0;
    while at < clustering.len() {
        let column = clustering[at];
        let equal = resolved.iter_mut().find(|one| {
            one.columns == [column]
                && matches!(one.relation.left, RelationLeft::Column(_))
                && matches!(one.relation.operator, Operator::Equal | Operator::In)
        });
        if let Some(one) = equal {
            one.is_used = true;
            keys.clustering
                .push(plan_choice(one.relation, view, column, planner)?);
            at += 1;
            continue;
        }
        let tuple = resolved.iter_mut().find(|one| {
            matches!(one.relation.left, RelationLeft::Columns(_))
                && clustering[at..].starts_with(&one.columns)
                && matches!(one.relation.operator, Operator::Equal | Operator::In)
        });
        if let Some(one) = tuple {
            one.is_used = true;
            keys.tuple_width = one.columns.len();
            plan_tuples(one.relation, view, &one.columns.clone(), keys, planner)?;
            // Restrictions behind a tuple are filters.
            return Ok(());
        }
        return plan_slices(resolved, view, &clustering[at..], keys, planner);
    }
    Ok(())
}

fn tuple_type(view: &View, columns: &[usize]) -> Type {
    Type::Tuple {
        fields: columns
            .iter()
            .map(|&column| view.columns[column].kind.clone())
            .collect(),
    }
}

fn plan_tuple(
    term: &ast::Term,
    view: &View,
    columns: &[usize],
    planner: &mut Planner<'_>,
) -> Result<TupleTerm, Error> {
    match term {
        ast::Term::Tuple(terms) => {
            if terms.len() != columns.len() {
                return Err(Error::invalid(format!(
                    "Expected {} elements in value tuple, but got {}",
                    columns.len(),
                    terms.len()
                )));
            }
            let planned = terms
                .iter()
                .zip(columns)
                .map(|(term, &column)| {
                    let column = &view.columns[column];
                    planner.term(term, &column.kind, &column.name)
                })
                .collect::<Result<_, _>>()?;
            Ok(TupleTerm::Terms(planned))
        }
        other => {
            let names: Vec<_> = columns
                .iter()
                .map(|&column| view.columns[column].name.as_str())
                .collect();
            let kind = tuple_type(view, columns);
            planner
                .term(other, &kind, &format!("({})", names.join(",")))
                .map(TupleTerm::Marker)
        }
    }
}

fn plan_tuples(
    relation: &Relation,
    view: &View,
    columns: &[usize],
    keys: &mut KeyPlan,
    planner: &mut Planner<'_>,
) -> Result<(), Error> {
    match &relation.right {
        InValues::Terms(terms) => {
            let tuples = terms
                .iter()
                .map(|term| plan_tuple(term, view, columns, planner))
                .collect::<Result<_, _>>()?;
            keys.tuples = Some(tuples);
        }
        InValues::Marker(index) => {
            let kind = in_list_type(&tuple_type(view, columns));
            keys.tuples_marker =
                Some(planner.term(&ast::Term::Marker(*index), &kind, "in(tuple)")?);
        }
    }
    Ok(())
}

fn plan_slices(
    resolved: &mut [Resolved<'_>],
    view: &View,
    rest: &[usize],
    keys: &mut KeyPlan,
    planner: &mut Planner<'_>,
) -> Result<(), Error> {
    for one in resolved.iter_mut().filter(|one| !one.is_used) {
        let is_slice = match one.relation.left {
            RelationLeft::Column(_) => one.columns[..] == rest[..1],
            RelationLeft::Columns(_) => rest.starts_with(&one.columns),
            _ => false,
        };
        let (slot, is_inclusive) = match one.relation.operator {
            Operator::Greater => (&mut keys.lower, false),
            Operator::GreaterOrEqual => (&mut keys.lower, true),
            Operator::Less => (&mut keys.upper, false),
            Operator::LessOrEqual => (&mut keys.upper, true),
            _ => continue,
        };
        if !is_slice {
            continue;
        }
        if slot.is_some() {
            return Err(Error::invalid(format!(
                "More than one restriction was found for the {} bound on {}",
                if matches!(
                    one.relation.operator,
                    Operator::Greater | Operator::GreaterOrEqual
                ) {
                    "start"
                } else {
                    "end"
                },
                view.columns[rest[0]].name
            )));
        }
        let term = single(one.relation)?;
        let terms = match one.relation.left {
            RelationLeft::Columns(_) => plan_tuple(term, view, &one.columns, planner)?,
            _ => {
                let column = &view.columns[rest[0]];
                TupleTerm::Terms(vec![planner.term(term, &column.kind, &column.name)?])
            }
        };
        *slot = Some(Bound {
            terms,
            is_inclusive,
        });
        one.is_used = true;
    }
    Ok(())
}

fn plan_filters(
    one: &Resolved<'_>,
    view: &View,
    planner: &mut Planner<'_>,
    filters: &mut Vec<Filter>,
) -> Result<(), Error> {
    let relation = one.relation;
    if let RelationLeft::Columns(_) = relation.left {
        // A tuple of columns as a filter: only equality comes apart into its columns.
        if relation.operator != Operator::Equal {
            return Err(Error::invalid(format!(
                "Clustering columns of a multi-column relation must follow those that are restricted by \
                 equality, in the order of the primary key, without a gap ({} here)",
                view.columns[one.columns[0]].name
            )));
        }
        let ast::Term::Tuple(terms) = single(relation)? else {
            return Err(Error::invalid("a tuple of values is expected here"));
        };
        for (term, &column) in terms.iter().zip(&one.columns) {
            let kind = view.columns[column].kind.clone();
            let operand = Operand::One(planner.term(term, &kind, &view.columns[column].name)?);
            filters.push(Filter {
                column,
                kind,
                element: None,
                operator: Operator::Equal,
                operand,
            });
        }
        return Ok(());
    }
    let column = &view.columns[one.columns[0]];
    let mut element = None;
    let mut kind = column.kind.clone();
    if let RelationLeft::Element(_, index) = &relation.left {
        let (element_kind, value_kind) = match &column.kind {
            Type::Map { key, value, .. } => (key.as_ref(), value.as_ref()),
            Type::List { element, .. } => (&Type::Int, element.as_ref()),
            other => {
                return Err(Error::invalid(format!(
                    "Column {} of type {} has no elements to select",
                    column.name,
                    cql_name(other)
                )));
            }
        };
        element = Some(planner.term(index, element_kind, &column.name)?);
        kind = value_kind.clone();
    }
    let wanted = match (relation.operator, &kind) {
        (Operator::Contains, Type::List { element, .. } | Type::Set { element, .. }) => {
            element.as_ref().clone()
        }
        (Operator::Contains, Type::Map { value, .. }) => value.as_ref().clone(),
        (Operator::ContainsKey, Type::Map { key, .. }) => key.as_ref().clone(),
        (Operator::Contains | Operator::ContainsKey, other) => {
            return Err(Error::invalid(format!(
                "Cannot use {} on column {} of type {}",
                relation.operator,
                column.name,
                cql_name(other)
            )));
        }
        _ => kind.clone(),
    };
    if relation.operator == Operator::Like {
        return Err(Error::invalid(format!(
            "LIKE restriction is only supported on properly indexed columns. {} LIKE is not valid.",
            column.name
        )));
    }
    let operand = match (&relation.operator, &relation.right) {
        (Operator::IsNotNull, _) => Operand::Nothing,
        (Operator::In | Operator::NotIn, InValues::Terms(terms)) => Operand::Many(
            terms
                .iter()
                .map(|term| planner.term(term, &wanted, &column.name))
                .collect::<Result<_, _>>()?,
        ),
        (_, InValues::Marker(index)) => Operand::ManyMarker(planner.term(
            &ast::Term::Marker(*index),
            &in_list_type(&wanted),
            &format!("in({})", column.name),
        )?),
        _ => Operand::One(planner.term(single(relation)?, &wanted, &column.name)?),
    };
    filters.push(Filter {
        column: one.columns[0],
        kind: wanted,
        element,
        operator: relation.operator,
        operand,
    });
    Ok(())
}

impl Filter {
    pub fn ready(&self, context: &Context<'_>, view: &View) -> Result<ReadyFilter, Error> {
        let name = &view.columns[self.column].name;
        let values = match &self.operand {
            Operand::Nothing => Vec::new(),
            Operand::One(term) => vec![term.required(context, name)?],
            Operand::Many(terms) => terms
                .iter()
                .map(|term| term.required(context, name))
                .collect::<Result<_, _>>()?,
            Operand::ManyMarker(term) => match term.required(context, name)? {
                Value::List(values) => values,
                _ => Vec::new(),
            },
        };
        let element = match &self.element {
            Some(term) => Some(term.required(context, name)?),
            None => None,
        };
        Ok(ReadyFilter {
            column: self.column,
            kind: self.kind.clone(),
            element,
            operator: self.operator,
            values,
        })
    }
}

impl ReadyFilter {
    /// Whether a row passes whose column has this value. Null passes nothing.
    pub fn passes(&self, value: &Value) -> bool {
        let selected;
        let value = match (&self.element, value) {
            (None, value) => value,
            (Some(key), Value::Map(pairs)) => {
                selected = pairs
                    .iter()
                    .find(|(candidate, _)| candidate == key)
                    .map(|(_, value)| value.clone());
                selected.as_ref().unwrap_or(&Value::Null)
            }
            (Some(Value::Int(index)), Value::List(values)) => usize::try_from(*index)
                .ok()
                .and_then(|index| values.get(index))
                .unwrap_or(&Value::Null),
            _ => &Value::Null,
        };
        if value.is_null() {
            return false;
        }
        let equals = |other: &Value| compare(value, other, &self.kind) == Ordering::Equal;
        let order = || match self.values.first() {
            Some(other) => compare(value, other, &self.kind),
            None => Ordering::Less,
        };
        match self.operator {
            Operator::Equal => order().is_eq(),
            Operator::NotEqual => order().is_ne(),
            Operator::Less => order().is_lt(),
            Operator::LessOrEqual => order().is_le(),
            Operator::Greater => order().is_gt(),
            Operator::GreaterOrEqual => order().is_ge(),
            Operator::In => self.values.iter().any(equals),
            Operator::NotIn => !self.values.iter().any(equals),
            Operator::IsNotNull => true,
            Operator::Like => false,
            Operator::Contains | Operator::ContainsKey => {
                let is_wanted = |element: &Value| {
                    self.values
                        .first()
                        .is_some_and(|wanted| compare(element, wanted, &self.kind).is_eq())
                };
                match (value, self.operator) {
                    (Value::List(elements) | Value::Set(elements), _) => {
                        elements.iter().any(is_wanted)
                    }
                    (Value::Map(pairs), Operator::ContainsKey) => {
                        pairs.iter().any(|(key, _)| is_wanted(key))
                    }
                    (Value::Map(pairs), _) => pairs.iter().any(|(_, value)| is_wanted(value)),
                    _ => false,
                }
            }
        }
    }
}
