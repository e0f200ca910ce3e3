//! ClientRequestToken: what makes a repeated TransactWriteItems do nothing the second time.
//!
//! A token is a row of a strong table that the transaction inserts together with its own writes: it is there if
//! and only if they happened, on whatever node and after whatever restart. It holds a fingerprint of the
//! request, and is no longer seen after ten minutes.
//!
//! The table lives in the namespace of DynamoDB's own tables, made when a token first comes. Its name holds
//! what no client can ask for, and it has no column for a document, so no operation finds it.

use super::Address;
use crate::error::{Failure, IDEMPOTENT_MISMATCH};
use crate::operation::Context;
use crate::operation::tables::{GC_GRACE_SECONDS, change_with_namespace, column};
use crate::table::DEFAULT_NAMESPACE;
use api::{Assignment, Condition, Error, Mutation, Refused, Returning, RowOperation};
use catalog::{Catalog, Change, ChangeError, ColumnRole, Partitioning, Table, TableSpec};
use model::{ColumnId, Row, TableId, Type, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

const TABLE_NAME: &str = "client request tokens";
const TOKEN_COLUMN: &str = "token";
const FINGERPRINT_COLUMN: &str = "fingerprint";
/// The service's idempotency window.
const SECONDS_TO_LIVE: u32 = 600;

pub struct Token {
    pub address: Address,
    column: ColumnId,
    fingerprint: Vec<u8>,
}

impl Token {
    /// The token of a transaction that consists of these mutations.
    pub async fn new(
        context: &Context<'_>,
        text: &str,
        mutations: &[Mutation],
    ) -> Result<Token, Failure> {
        let table = table(context).await?;
        let key = table
            .row_key(&[Value::Text(text.to_owned())])
            .map_err(|error| Failure::internal(error.to_string()))?;
        let encoded =
            minicbor::to_vec(mutations).map_err(|error| Failure::internal(error.to_string()))?;
        Ok(Token {
            address: (table.id, key),
            column: fingerprint_column(&table)?,
            fingerprint: Sha256::digest(&encoded).to_vec(),
        })
    }

    /// Fails where the token has been used.
    pub fn mutation(&self) -> Mutation {
        let (table, key): (TableId, Vec<u8>) = self.address.clone();
        let operation = RowOperation::Merge {
            marker: true,
            assignments: vec![Assignment::Set {
                column: self.column,
                path: None,
                value: Value::Bytes(self.fingerprint.clone()),
            }],
            ttl_seconds: Some(SECONDS_TO_LIVE),
        };
        Mutation {
            condition: Some(Condition::RowMissing),
            returning: Returning::Nothing,
            ..Mutation::new(table, key, operation)
        }
    }

    /// Whether the row that the token left says that this very request has been carried out.
    pub fn is_spent(&self, row: Option<&Row>) -> Result<bool, Failure> {
        let Some(row) = row else { return Ok(false) };
        if row.value(self.column) == Some(&Value::Bytes(self.fingerprint.clone())) {
            return Ok(true);
        }
        Err(Failure::new(
            IDEMPOTENT_MISMATCH,
            "The provided client token has already been used with different parameters",
        ))
    }
}

fn fingerprint_column(table: &Table) -> Result<ColumnId, Failure> {
    table
        .column_by_name(FINGERPRINT_COLUMN)
        .map(|column| column.id)
        .ok_or_else(|| Failure::internal("the table of tokens has no fingerprints"))
}

fn find(catalog: &Catalog) -> Option<&Arc<Table>> {
    catalog.table_by_name(DEFAULT_NAMESPACE, TABLE_NAME)
}

async fn table(context: &Context<'_>) -> Result<Arc<Table>, Failure> {
    if let Some(table) = find(&context.catalog) {
        return Ok(Arc::clone(table));
    }
    let columns = vec![
        column(Type::text(), TOKEN_COLUMN.into(), ColumnRole::Partition),
        column(
            Type::bytes(),
            FINGERPRINT_COLUMN.into(),
            ColumnRole::Regular,
        ),
    ];
    let uuid = uuid::Uuid::new_v4().into_bytes();
    let made = change_with_namespace(context, TABLE_NAME, |replication| Change::CreateTable {
        spec: TableSpec {
            namespace: DEFAULT_NAMESPACE.into(),
            name: TABLE_NAME.into(),
            partitioning: Partitioning::Hash,
            replication,
            columns: columns.clone(),
            parent: None,
            cascade: false,
            gc_grace_seconds: GC_GRACE_SECONDS,
            default_ttl_seconds: 0,
            properties: BTreeMap::new(),
        },
        uuid,
    })
    .await;
    let catalog = match made {
        // Another request has just made it.
        Err(Error::Refused(Refused::Catalog(ChangeError::TableExists(_)))) => {
            let mut changes = context.database.watch_catalog();
            match changes.wait_for(|catalog| find(catalog).is_some()).await {
                Ok(catalog) => catalog.clone(),
                Err(_) => return Err(Failure::internal("the node is stopping")),
            }
        }
        made => made?,
    };
    find(&catalog)
        .cloned()
        .ok_or_else(|| Failure::internal("the table of tokens is gone"))
}
