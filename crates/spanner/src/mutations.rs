//! Mutations of a commit to mutations of the inner language.

use crate::transactions::TransactionStorage;
use crate::{keys, wire};
use api::{
    KeyRange, Mutation, Projection, ReadRequest, ReadResponse, Refused, RowOperation, Selection,
};
use async_trait::async_trait;
use catalog::{Catalog, Partitioning, Table};
use googleapis_tonic_google_spanner_v1::google::spanner::v1 as pb;
use model::Type;
use pb::mutation::{Delete, Operation, Write};
use prost_types::value::Kind;
use sql::rows::{Cell, WriteKind};
use sql::types::SqlType;
use std::sync::Arc;
use tonic::Status;

/// Spanner's limit, of a transaction's statements and mutations together.
const MUTATIONS_MAX: u64 = 80_000;
/// What stands for the commit timestamp in a mutation.
const COMMIT_TIMESTAMP: &str = "spanner.commit_timestamp()";

/// Mutations, and how many Spanner counts them as.
#[derive(Debug, Default)]
pub struct Lowered {
    pub mutations: Vec<Mutation>,
    pub count: u64,
}

pub fn find_table<'c>(
    catalog: &'c Catalog,
    namespace: &str,
    name: &str,
) -> Result<&'c Arc<Table>, Status> {
    sql::find_table(catalog, namespace, name)
        .ok_or_else(|| Status::not_found(format!("Table not found: {name}")))
}

pub fn find_columns(table: &Table, names: &[String]) -> Result<Vec<usize>, Status> {
    let find = |name: &String| {
        sql::find_column(table, name).ok_or_else(|| {
            Status::not_found(format!(
                "Column not found in table {}: {name}",
                table.name()
            ))
        })
    };
    names.iter().map(find).collect()
}

pub fn lower(
    catalog: &Catalog,
    namespace: &str,
    mutations: &[pb::Mutation],
) -> Result<Lowered, Status> {
    let mut lowered = Lowered::default();
    for mutation in mutations {
        let (write, kind) = match &mutation.operation {
            Some(Operation::Insert(write)) => (write, WriteKind::Insert),
            Some(Operation::Update(write)) => (write, WriteKind::Update),
            Some(Operation::InsertOrUpdate(write)) => (write, WriteKind::InsertOrUpdate),
            Some(Operation::Replace(write)) => (write, WriteKind::Replace),
            Some(Operation::Delete(delete)) => {
                lower_delete(catalog, namespace, delete, &mut lowered)?;
                continue;
            }
            Some(Operation::Send(_) | Operation::Ack(_)) => {
                return Err(crate::status::unimplemented("queues"));
            }
            None => return Err(Status::invalid_argument("A mutation without an operation.")),
        };
        lower_write(catalog, namespace, write, kind, &mut lowered)?;
    }
    Ok(lowered)
}

/// What Spanner counts mutations as: of a written row its columns, those of the key always among them; of a deletion
/// one.
pub fn count_of(table: &Table, mutation: &Mutation) -> u64 {
    match &mutation.operation {
        RowOperation::Merge { assignments, .. }
        | RowOperation::Replace { assignments }
        | RowOperation::Insert { assignments }
        | RowOperation::Update { assignments } => {
            (table.key_columns().count() + assignments.len()) as u64
        }
        _ => 1,
    }
}

pub fn check_count(count: u64) -> Result<(), Status> {
    match count > MUTATIONS_MAX {
        false => Ok(()),
        true => Err(Status::invalid_argument(too_many(count))),
    }
}

fn too_many(count: u64) -> String {
    format!(
        "The transaction contains too many mutations ({count}; a row counts once for each column). The limit is \
         {MUTATIONS_MAX}: split the work into smaller transactions"
    )
}

/// The storage of a statement that changes rows in a transaction: what it writes counts.
pub struct CountingStorage<'t> {
    pub inner: TransactionStorage<'t>,
    pub catalog: &'t Catalog,
    pub count: &'t mut u64,
}

#[async_trait]
impl sql::Storage for CountingStorage<'_> {
    async fn read(&mut self, request: ReadRequest) -> Result<ReadResponse, api::Error> {
        self.inner.read(request).await
    }

    async fn read_to_write(
        &mut self,
        request: ReadRequest,
        written: Projection,
    ) -> Result<ReadResponse, api::Error> {
        self.inner.read_to_write(request, written).await
    }

    async fn write(&mut self, mutations: Vec<Mutation>) -> Result<(), api::Error> {
        let counted = mutations.iter().filter_map(|mutation| {
            let table = self.catalog.table(mutation.table)?;
            Some(count_of(table, mutation))
        });
        let count = *self.count + counted.sum::<u64>();
        if count > MUTATIONS_MAX {
            return Err(api::Error::Refused(Refused::TooLarge(too_many(count))));
        }
        self.inner.write(mutations).await?;
        *self.count = count;
        Ok(())
    }
}

fn lower_write(
    catalog: &Catalog,
    namespace: &str,
    write: &Write,
    kind: WriteKind,
    lowered: &mut Lowered,
) -> Result<(), Status> {
    let table = find_table(catalog, namespace, &write.table)?;
    let columns = find_columns(table, &write.columns)?;
    for (position, column) in columns.iter().enumerate() {
        if columns[..position].contains(column) {
            return Err(Status::invalid_argument(format!(
                "Multiple values for column {}.",
                table.columns()[*column].name
            )));
        }
    }
    let has_children = catalog
        .tables
        .values()
        .any(|child| child.spec.parent == Some(table.id));
    for list in &write.values {
        if list.values.len() != columns.len() {
            return Err(Status::invalid_argument(format!(
                "Mutation column and value size mismatch: {} columns, {} values",
                columns.len(),
                list.values.len()
            )));
        }
        let cells: Result<Vec<Cell>, Status> = columns
            .iter()
            .zip(&list.values)
            .map(|(index, value)| cell(table, *index, value))
            .collect();
        let mutation =
            sql::rows::write(table, kind, &columns, cells?).map_err(crate::status::of_sql)?;
        lowered.count += count_of(table, &mutation);
        if kind == WriteKind::Replace && has_children {
            // A replaced row is deleted first, and its children with it.
            let delete = Mutation::new(table.id, mutation.key.clone(), RowOperation::Delete);
            lowered.mutations.push(delete);
        }
        lowered.mutations.push(mutation);
    }
    Ok(())
}

fn cell(table: &Table, index: usize, value: &prost_types::Value) -> Result<Cell, Status> {
    let column = &table.columns()[index];
    if let Some(Kind::StringValue(text)) = &value.kind
        && text == COMMIT_TIMESTAMP
        && column.kind == Type::TimestampNanos
    {
        return Ok(Cell::CommitTimestamp);
    }
    let kind = SqlType::of_column(&column.kind).ok_or_else(|| {
        crate::status::unimplemented(&format!(
            "writing column {} of type {:?} through Spanner",
            column.name, column.kind
        ))
    })?;
    let value = wire::decode(value, &kind).map_err(|expected| {
        Status::failed_precondition(format!(
            "Invalid value for column {} in table {}: {expected}.",
            column.name,
            table.name()
        ))
    })?;
    Ok(Cell::Value(value))
}

fn lower_delete(
    catalog: &Catalog,
    namespace: &str,
    delete: &Delete,
    lowered: &mut Lowered,
) -> Result<(), Status> {
    let table = find_table(catalog, namespace, &delete.table)?;
    let set = delete.key_set.clone().unwrap_or_default();
    let ranges = match keys::selection(table, &set)? {
        Selection::Keys(keys) => {
            for key in keys {
                lowered.count += 1;
                lowered
                    .mutations
                    .push(Mutation::new(table.id, key, RowOperation::Delete));
            }
            return Ok(());
        }
        Selection::Ranges(ranges) => ranges,
    };
    if table.spec.partitioning == Partitioning::Hash {
        return Err(crate::status::unimplemented(
            "deleting ranges of a table that was made at another door (its rows are ordered by hash)",
        ));
    }
    for range in ranges {
        lowered.count += 1;
        let operation = RowOperation::DeleteRange {
            range: range.clone(),
        };
        lowered
            .mutations
            .push(Mutation::new(table.id, range.start, operation));
    }
    Ok(())
}

/// Whether the mutations delete rows that a child table with ON DELETE NO ACTION may hold on to: then they need
/// a look before they are written.
pub fn may_orphan(catalog: &Catalog, mutations: &[Mutation]) -> bool {
    mutations.iter().any(|mutation| {
        doomed(mutation).is_some() && {
            let id = mutation.table;
            catalog.tables.values().any(|child| {
                !child.spec.cascade && child.ancestors.iter().any(|(ancestor, _)| *ancestor == id)
            })
        }
    })
}

/// The keys that go with a deletion: of the row, or of the range, and of all that is interleaved there.
pub fn doomed(mutation: &Mutation) -> Option<KeyRange> {
    match &mutation.operation {
        RowOperation::Delete => {
            let stem = &mutation.key[..mutation.key.len().saturating_sub(1)];
            Some(KeyRange::prefix(stem.to_vec()))
        }
        RowOperation::DeleteRange { range } => Some(range.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use catalog::Change;
    use pb::key_range::{EndKeyType, StartKeyType};
    use proptest::prelude::*;
    use prost_types::{ListValue, Value};
    use sql::definition::{self, DefinitionContext};
    use std::collections::BTreeMap;

    fn catalog() -> Catalog {
        let mut catalog = Catalog::default();
        let namespace = Change::CreateNamespace {
            name: "db".into(),
            replication: definition::replication(),
            properties: BTreeMap::new(),
        };
        catalog.apply(&namespace).unwrap();
        for text in [
            "CREATE TABLE a (k INT64 NOT NULL, s STRING(5), d DATE, f FLOAT64) PRIMARY KEY (k)",
            "CREATE TABLE b (k INT64 NOT NULL, n BYTES(4), t TIMESTAMP OPTIONS (allow_commit_timestamp = true)) \
             PRIMARY KEY (k, n DESC), INTERLEAVE IN PARENT a",
        ] {
            let definition = sql::parse_definition(text).unwrap();
            let context = DefinitionContext {
                catalog: &catalog,
                namespace: "db",
                uuid: [0; 16],
                now_micros: 0,
            };
            let change = definition::change(&definition, &context).unwrap().unwrap();
            catalog.apply(&change).unwrap();
        }
        catalog
    }

    fn value() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            Just("1".to_owned()),
            Just("AA==".to_owned()),
            Just("2020-01-01".to_owned()),
            Just(COMMIT_TIMESTAMP.to_owned()),
            ".{0,8}",
        ];
        let kind = prop_oneof![
            Just(None),
            Just(Some(Kind::NullValue(0))),
            any::<f64>().prop_map(|value| Some(Kind::NumberValue(value))),
            any::<bool>().prop_map(|value| Some(Kind::BoolValue(value))),
            text.prop_map(|text| Some(Kind::StringValue(text))),
        ];
        kind.prop_map(|kind| Value { kind })
    }

    fn list() -> impl Strategy<Value = ListValue> {
        prop::collection::vec(value(), 0..4).prop_map(|values| ListValue { values })
    }

    fn range() -> impl Strategy<Value = pb::KeyRange> {
        (list(), list(), 0..4u8).prop_map(|(start, end, form)| pb::KeyRange {
            start_key_type: Some(match form % 2 {
                0 => StartKeyType::StartClosed(start),
                _ => StartKeyType::StartOpen(start),
            }),
            end_key_type: Some(match form / 2 {
                0 => EndKeyType::EndClosed(end),
                _ => EndKeyType::EndOpen(end),
            }),
        })
    }

    fn mutation() -> impl Strategy<Value = pb::Mutation> {
        let table = || prop::sample::select(vec!["a", "b", "B", "none"]);
        let column = prop::sample::select(vec!["k", "s", "d", "f", "n", "t", "K", "none"]);
        let columns = prop::collection::vec(column.prop_map(str::to_owned), 0..4);
        let write = (
            table(),
            columns,
            prop::collection::vec(list(), 0..3),
            0..4u8,
        )
            .prop_map(|(table, columns, values, kind)| {
                let write = Write {
                    table: table.to_owned(),
                    columns,
                    values,
                };
                match kind {
                    0 => Operation::Insert(write),
                    1 => Operation::Update(write),
                    2 => Operation::InsertOrUpdate(write),
                    _ => Operation::Replace(write),
                }
            });
        let ranges = prop::collection::vec(range(), 0..3);
        let delete = (
            table(),
            prop::collection::vec(list(), 0..3),
            ranges,
            any::<bool>(),
        )
            .prop_map(|(table, keys, ranges, all)| {
                Operation::Delete(Delete {
                    table: table.to_owned(),
                    key_set: Some(pb::KeySet { keys, ranges, all }),
                })
            });
        prop_oneof![write, delete].prop_map(|operation| pb::Mutation {
            operation: Some(operation),
        })
    }

    proptest! {
        #[test]
        fn any_mutation_is_lowered_or_refused(mutation in mutation()) {
            let catalog = catalog();
            if let Ok(lowered) = lower(&catalog, "db", std::slice::from_ref(&mutation)) {
                for made in &lowered.mutations {
                    // What is written by key has a whole key of its table.
                    let table = catalog.table(made.table).unwrap();
                    if doomed(made).is_none() {
                        prop_assert!(table.decode_key(&made.key).is_ok());
                    }
                }
            }
        }
    }
}
