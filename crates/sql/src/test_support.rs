//! For the unit tests: a catalog made from data definition, and rows in memory.

use crate::analyse::{Environment, NoParameters, Prepared, prepare};
use crate::definition::{DefinitionContext, change, replication};
use crate::error::Error;
use crate::execute::{Cursor, Effect, Storage, execute_manipulation};
use crate::parse::parse_definition;
use crate::plan::{Plan, Row};
use api::evaluate::{Moment, evaluate};
use api::{Direction, Mutation, Projection, ReadRequest, ReadResponse, ReadRow, Selection};
use async_trait::async_trait;
use catalog::{Catalog, Change};
use model::{TableId, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

pub const NAMESPACE: &str = "test";

/// A database of one map, that pages by a few rows so that paging is always in play.
pub struct Memory {
    pub catalog: Catalog,
    pub rows: BTreeMap<(TableId, Vec<u8>), model::Row>,
    pub page_rows: usize,
    /// Rows handed out so far.
    pub rows_read: usize,
    /// What was read in order to be written, as `table(column, …)`, once each.
    pub locked: BTreeSet<String>,
}

impl Memory {
    pub fn new(definitions: &[&str]) -> Memory {
        let mut catalog = Catalog::default();
        let namespace = Change::CreateNamespace {
            name: NAMESPACE.into(),
            replication: replication(),
            properties: BTreeMap::new(),
        };
        catalog.apply(&namespace).unwrap();
        let mut memory = Memory {
            catalog,
            rows: BTreeMap::new(),
            page_rows: 3,
            rows_read: 0,
            locked: BTreeSet::new(),
        };
        for definition in definitions {
            memory.define(definition).unwrap();
        }
        memory
    }

    pub fn define(&mut self, text: &str) -> Result<(), Error> {
        let definition = parse_definition(text)?;
        let context = DefinitionContext {
            catalog: &self.catalog,
            namespace: NAMESPACE,
            uuid: [self.catalog.tables.len() as u8; 16],
            now_micros: 0,
        };
        if let Some(change) = change(&definition, &context)? {
            self.catalog.apply(&change).unwrap();
        }
        Ok(())
    }

    fn environment(&self) -> Environment<'_> {
        Environment {
            catalog: &self.catalog,
            namespace: NAMESPACE,
            parameters: &NoParameters,
            now: Timestamp(1_577_836_800_000_000),
        }
    }

    pub fn plan(&self, text: &str) -> Result<Plan, Error> {
        match prepare(text, self.environment())? {
            Prepared::Query(plan) => Ok(plan),
            Prepared::Manipulation(_) => Err(Error::invalid("not a query")),
        }
    }

    pub fn query(&mut self, text: &str) -> Result<Vec<Row>, Error> {
        let plan = self.plan(text)?;
        block_on(async {
            let mut cursor = Cursor::open(plan, self).await?;
            cursor.all(self).await
        })
    }

    pub fn manipulate(&mut self, text: &str) -> Result<Effect, Error> {
        let Prepared::Manipulation(manipulation) = prepare(text, self.environment())? else {
            return Err(Error::invalid("not a manipulation"));
        };
        let catalog = self.catalog.clone();
        block_on(execute_manipulation(*manipulation, &catalog, self))
    }
}

#[async_trait]
impl Storage for Memory {
    async fn read(&mut self, request: ReadRequest) -> Result<ReadResponse, api::Error> {
        let limit = request.row_limit.map_or(usize::MAX, |limit| limit as usize);
        let limit = limit.min(self.page_rows);
        let mut response = ReadResponse::default();
        match request.selection {
            Selection::Keys(keys) => {
                let mut keys = keys.into_iter();
                for key in keys.by_ref() {
                    if let Some(row) = self.rows.get(&(request.table, key.clone())) {
                        response.rows.push(ReadRow {
                            key,
                            row: row.clone(),
                        });
                        if response.rows.len() >= limit {
                            break;
                        }
                    }
                }
                let rest: Vec<Vec<u8>> = keys.collect();
                response.next = (!rest.is_empty()).then_some(Selection::Keys(rest));
            }
            Selection::Ranges(ranges) => {
                let mut all = Vec::new();
                for range in &ranges {
                    let mut found: Vec<ReadRow> = self
                        .rows
                        .iter()
                        .filter(|((table, key), _)| *table == request.table && range.contains(key))
                        .map(|((_, key), row)| ReadRow {
                            key: key.clone(),
                            row: row.clone(),
                        })
                        .collect();
                    if request.direction == Direction::Backward {
                        found.reverse();
                    }
                    all.extend(found);
                }
                // What follows a page is asked for by key: that is allowed, and simple here.
                let rest: Vec<Vec<u8>> =
                    all.iter().skip(limit).map(|row| row.key.clone()).collect();
                all.truncate(limit);
                response.rows = all;
                response.next = (!rest.is_empty()).then_some(Selection::Keys(rest));
            }
        }
        self.rows_read += response.rows.len();
        Ok(response)
    }

    async fn read_to_write(
        &mut self,
        request: ReadRequest,
        written: Projection,
    ) -> Result<ReadResponse, api::Error> {
        let table = self.catalog.table(request.table).unwrap();
        let columns = table.columns().iter().filter(|column| match &written {
            Projection::All => true,
            Projection::Columns(columns) => columns.contains(&column.id),
        });
        let names: Vec<&str> = columns.map(|column| column.name.as_str()).collect();
        let locked = format!("{}({})", table.name(), names.join(", "));
        self.locked.insert(locked);
        self.read(request).await
    }

    async fn write(&mut self, mutations: Vec<Mutation>) -> Result<(), api::Error> {
        for (index, mutation) in mutations.iter().enumerate() {
            let table = self.catalog.table(mutation.table).unwrap().clone();
            let key = (mutation.table, mutation.key.clone());
            let moment = Moment {
                timestamp: Timestamp(1),
                now_seconds: 0,
            };
            let done = evaluate(&table, index as u32, mutation, self.rows.get(&key), moment)?;
            match done.new {
                Some(row) => self.rows.insert(key, row),
                None => self.rows.remove(&key),
            };
        }
        Ok(())
    }
}

fn block_on<T>(future: impl std::future::Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}
