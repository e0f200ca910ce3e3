//! The operations, one file per family. Each goes the same way: decode, constraints of the model, rules on
//! parameters, expressions, the table, its key, and only then the database; so errors come in the order in
//! which the service reports them.

mod batch;
mod delete;
mod get;
mod global;
mod indexes;
mod page;
mod put;
mod query;
mod scan;
mod tables;
mod tags;
mod transact;
mod update;
mod write;

pub use transact::TokensInProgress;

use crate::error::{Failure, UNKNOWN_OPERATION};
use crate::http::Door;
use crate::table::Schema;
use api::{Database, Level, Mutation, ReadBound, WriteRequest};
use catalog::Catalog;
use std::sync::Arc;

/// Where the ARNs of tables point: the service's own are made of both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub region: String,
    pub account: String,
}

impl Place {
    /// The same account in another region.
    fn within(&self, region: String) -> Place {
        Place {
            region,
            account: self.account.clone(),
        }
    }

    pub fn table_arn(&self, table_name: &str) -> String {
        format!(
            "arn:aws:dynamodb:{}:{}:table/{table_name}",
            self.region, self.account
        )
    }
}

/// What an operation has at hand.
pub struct Context<'a> {
    pub database: &'a dyn Database,
    pub place: &'a Place,
    pub tokens_in_progress: &'a TokensInProgress,
    /// The host that the client addressed.
    pub host: &'a str,
    /// Taken once a request.
    pub catalog: Arc<Catalog>,
}

impl Context<'_> {
    /// The table of this name, if it is to be found in this region.
    fn find(&self, table_name: &str) -> Option<Schema> {
        let schema = Schema::find(&self.catalog, table_name)?;
        global::is_here(self.database, &schema.table).then_some(schema)
    }

    /// As operations on items ask for it.
    fn schema(&self, table_name: &str) -> Result<Schema, Failure> {
        self.find(table_name).ok_or_else(Failure::not_found)
    }

    /// As operations on tables ask for it.
    fn table(&self, name: &str) -> Result<Schema, Failure> {
        self.find(name)
            .ok_or_else(|| Failure::table_not_found(name))
    }

    /// As transactions ask for it.
    fn strong_schema(&self, table_name: &str) -> Result<Schema, Failure> {
        let schema = self.schema(table_name)?;
        if schema.table.is_strong() {
            return Ok(schema);
        }
        Err(Failure::validation(format!(
            "Table {table_name} is a global table with MultiRegionConsistency EVENTUAL: transactions over those are not \
             supported yet"
        )))
    }
}

/// Requests lowered with an old catalog are lowered again, so often.
const ATTEMPTS_MAX: usize = 4;

macro_rules! operations {
    ($($variant:ident => $run:path),* $(,)?) => {
        /// An operation that is built.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Operation {
            $($variant,)*
        }

        impl Operation {
            pub const ALL: &'static [Operation] = &[$(Operation::$variant,)*];

            pub fn parse(name: &str) -> Option<Operation> {
                match name {
                    $(stringify!($variant) => Some(Operation::$variant),)*
                    _ => None,
                }
            }

            pub fn name(self) -> &'static str {
                match self {
                    $(Operation::$variant => stringify!($variant),)*
                }
            }

            async fn run_once(self, context: &Context<'_>, body: &str) -> Result<String, Failure> {
                match self {
                    $(Operation::$variant => $run(context, body).await,)*
                }
            }
        }
    };
}

operations! {
    BatchGetItem => batch::get,
    BatchWriteItem => batch::write,
    CreateTable => tables::create,
    DeleteItem => delete::run,
    DeleteTable => tables::delete,
    DescribeContinuousBackups => tables::describe_continuous_backups,
    DescribeEndpoints => tables::describe_endpoints,
    DescribeLimits => tables::describe_limits,
    DescribeTable => tables::describe,
    DescribeTimeToLive => tables::describe_time_to_live,
    GetItem => get::run,
    ListTables => tables::list,
    ListTagsOfResource => tags::list,
    PutItem => put::run,
    Query => query::run,
    Scan => scan::run,
    TagResource => tags::tag,
    TransactGetItems => transact::get::run,
    TransactWriteItems => transact::write::run,
    UntagResource => tags::untag,
    UpdateItem => update::run,
    UpdateTable => tables::update,
}

impl Operation {
    /// Runs the operation on a body, and returns the answer's.
    pub async fn run(self, door: &Door, host: &str, body: &str) -> Result<String, Failure> {
        let database = door.database.as_ref();
        let context = || Context {
            database,
            place: &door.place,
            tokens_in_progress: &door.tokens_in_progress,
            host,
            catalog: database.catalog(),
        };
        for _ in 1..ATTEMPTS_MAX {
            let context = context();
            let version = context.catalog.version;
            match self.run_once(&context, body).await {
                Err(failure) if failure.is_stale => {
                    global::lift_old_seals(database, &context.catalog).await;
                    // A newer catalog is on its way; if none comes, this one was as good as any.
                    let mut changes = database.watch_catalog();
                    let newer = changes.wait_for(|catalog| catalog.version > version);
                    if tokio::time::timeout(CATALOG_PATIENCE, newer).await.is_err() {
                        return Err(failure);
                    }
                }
                result => return result,
            }
        }
        self.run_once(&context(), body).await
    }
}

const CATALOG_PATIENCE: std::time::Duration = std::time::Duration::from_millis(500);

/// What the service has and this door has not. Sorted.
const NOT_BUILT: &[&str] = &[
    "BatchExecuteStatement",
    "CreateBackup",
    "CreateGlobalTable",
    "DeleteBackup",
    "DeleteResourcePolicy",
    "DescribeBackup",
    "DescribeContributorInsights",
    "DescribeExport",
    "DescribeGlobalTable",
    "DescribeGlobalTableSettings",
    "DescribeImport",
    "DescribeKinesisStreamingDestination",
    "DescribeStream",
    "DescribeTableReplicaAutoScaling",
    "DisableKinesisStreamingDestination",
    "EnableKinesisStreamingDestination",
    "ExecuteStatement",
    "ExecuteTransaction",
    "ExportTableToPointInTime",
    "GetRecords",
    "GetResourcePolicy",
    "GetShardIterator",
    "ImportTable",
    "ListBackups",
    "ListContributorInsights",
    "ListExports",
    "ListGlobalTables",
    "ListImports",
    "ListStreams",
    "PutResourcePolicy",
    "RestoreTableFromBackup",
    "RestoreTableToPointInTime",
    "UpdateContinuousBackups",
    "UpdateContributorInsights",
    "UpdateGlobalTable",
    "UpdateGlobalTableSettings",
    "UpdateKinesisStreamingDestination",
    "UpdateTableReplicaAutoScaling",
    "UpdateTimeToLive",
];

/// The refusal of an operation that is not built, or not known at all.
pub fn unknown(name: Option<&str>) -> Failure {
    match name {
        Some(name) if NOT_BUILT.binary_search(&name).is_ok() => {
            Failure::new(UNKNOWN_OPERATION, format!("{name} is not supported yet"))
        }
        _ => Failure::without_message(UNKNOWN_OPERATION),
    }
}

/// ConsistentRead. Eventual tables are global ones: what is consistent is so in its region.
fn read_bound(schema: &Schema, is_consistent: Option<bool>) -> ReadBound {
    match (is_consistent == Some(true), schema.table.is_strong()) {
        (true, true) => ReadBound::Strong,
        (false, true) => ReadBound::Eventual,
        (true, false) => ReadBound::Level(Level::LocalQuorum),
        (false, false) => ReadBound::Level(Level::LocalOne),
    }
}

/// A write at the levels of global tables, which are eventual: a region agrees with itself alone. Others have no levels.
fn write_request(mutations: Vec<Mutation>) -> WriteRequest {
    WriteRequest {
        level: Level::LocalQuorum,
        serial_level: Level::LocalSerial,
        ..WriteRequest::new(mutations)
    }
}

/// AttributesToGet names each attribute once.
fn check_duplicate_names(names: Option<&Vec<String>>) -> Result<(), String> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names.into_iter().flatten() {
        if !seen.insert(name) {
            return Err(format!(
                "One or more parameter values were invalid: Duplicate value in attribute name: {name}"
            ));
        }
    }
    Ok(())
}

/// Key attributes are scalars: no path leads into them.
fn check_key_paths<'p>(
    schema: &Schema,
    paths: impl IntoIterator<Item = &'p api::document::Path>,
) -> Result<(), String> {
    for path in paths {
        if !path.steps.is_empty() && schema.is_key_attribute(&path.name) {
            return Err(format!(
                "Key attributes must be scalars; list random access '[]' and map lookup '.' are not allowed: \
                 Key: {}",
                path.name
            ));
        }
    }
    Ok(())
}

/// A required member, after the constraints have seen that it is there.
fn required<'a, T>(member: &'a Option<T>, name: &str) -> Result<&'a T, Failure> {
    member.as_ref().ok_or_else(|| {
        Failure::validation(format!(
            "The parameter '{name}' is required but was not present in the request"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_built_is_sorted_and_refused() {
        assert!(NOT_BUILT.windows(2).all(|pair| pair[0] < pair[1]));
        for name in NOT_BUILT {
            assert_eq!(Operation::parse(name), None);
        }
        assert_eq!(
            unknown(Some("ExecuteTransaction")).message.as_deref(),
            Some("ExecuteTransaction is not supported yet")
        );
        assert_eq!(unknown(Some("Nonsense")).message, None);
    }
}
