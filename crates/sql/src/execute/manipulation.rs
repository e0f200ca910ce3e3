//! Runs INSERT, UPDATE and DELETE: reads the rows they are about, makes mutations, hands them to the storage.

use super::{Operator, State, Storage, run_subqueries};
use crate::ast::OnConflict;
use crate::error::{Error, ErrorKind};
use crate::plan::{Action, CellExpression, InsertSource, Manipulation, Relation, Returning, Row};
use crate::rows::{self, Cell, WriteKind};
use crate::typed::Scope;
use api::{KeyRange, Mutation, Projection, ReadRequest, ReadResponse, RowOperation, Selection};
use async_trait::async_trait;
use catalog::{Catalog, Table};
use model::{TableId, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a statement did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effect {
    pub row_count: i64,
    /// THEN RETURN's rows.
    pub returned: Vec<Row>,
}

pub async fn execute_manipulation(
    manipulation: Manipulation,
    catalog: &Catalog,
    storage: &mut dyn Storage,
) -> Result<Effect, Error> {
    let text = manipulation.text.clone();
    let effect = execute(manipulation, catalog, storage).await;
    effect.map_err(|error| error.in_text(&text))
}

async fn execute(
    manipulation: Manipulation,
    catalog: &Catalog,
    storage: &mut dyn Storage,
) -> Result<Effect, Error> {
    let mut state = State {
        slots: Vec::new(),
        memory: Default::default(),
    };
    run_subqueries(manipulation.subqueries, &mut state, storage).await?;
    let mut run = Run {
        table: manipulation.table,
        catalog,
        state,
        storage,
    };
    let returning = manipulation.returning;
    match manipulation.action {
        Action::Insert {
            conflict,
            columns,
            source,
        } => run.insert(conflict, columns, source, returning).await,
        Action::Update { rows, assignments } => run.update(rows, assignments, returning).await,
        Action::Delete { rows } => run.delete(rows, returning).await,
    }
}

struct Run<'a> {
    table: Arc<Table>,
    catalog: &'a Catalog,
    state: State,
    storage: &'a mut dyn Storage,
}

/// The storage of a statement that changes rows of a table. Rows that are named by key are what it changes; of ranges
/// it may only look at most, and does not keep others from looking as well.
struct ToWrite<'a> {
    table: TableId,
    written: Projection,
    storage: &'a mut dyn Storage,
}

#[async_trait]
impl Storage for ToWrite<'_> {
    async fn read(&mut self, request: ReadRequest) -> Result<ReadResponse, api::Error> {
        match request.selection {
            Selection::Keys(_) if request.table == self.table => {
                let written = self.written.clone();
                self.storage.read_to_write(request, written).await
            }
            _ => self.storage.read(request).await,
        }
    }

    /// Where the statement says that what it scans is locked for it alone.
    async fn read_to_write(
        &mut self,
        request: ReadRequest,
        written: Projection,
    ) -> Result<ReadResponse, api::Error> {
        let written = match request.table == self.table {
            true => both(written, &self.written),
            false => written,
        };
        self.storage.read_to_write(request, written).await
    }

    async fn write(&mut self, mutations: Vec<Mutation>) -> Result<(), api::Error> {
        self.storage.write(mutations).await
    }
}

fn both(one: Projection, other: &Projection) -> Projection {
    match (one, other) {
        (Projection::Columns(mut columns), Projection::Columns(others)) => {
            columns.extend(others);
            columns.sort();
            columns.dedup();
            Projection::Columns(columns)
        }
        _ => Projection::All,
    }
}

async fn all_rows(
    relation: Relation,
    state: &mut State,
    storage: &mut dyn Storage,
) -> Result<Vec<Row>, Error> {
    let mut operator = Operator::of(relation);
    let mut rows = Vec::new();
    while let Some(batch) = operator.next(state, storage).await? {
        for row in &batch {
            state.memory.hold(row)?;
        }
        rows.extend(batch);
    }
    Ok(rows)
}

impl Run<'_> {
    async fn insert(
        &mut self,
        conflict: OnConflict,
        columns: Vec<usize>,
        source: InsertSource,
        returning: Option<Returning>,
    ) -> Result<Effect, Error> {
        let mut inserted = Vec::new();
        match source {
            InsertSource::Values(values) => {
                for cells in &values {
                    inserted.push(self.cells(cells, &[])?);
                }
            }
            InsertSource::Query(relation) => {
                for row in self.rows(relation).await? {
                    inserted.push(row.into_iter().map(Cell::Value).collect());
                }
            }
        }
        let kind = match conflict {
            OnConflict::Update => WriteKind::InsertOrUpdate,
            OnConflict::Refuse | OnConflict::Ignore => WriteKind::Insert,
        };
        let mut mutations = Vec::new();
        for cells in &inserted {
            mutations.push(rows::write(&self.table, kind, &columns, cells.clone())?);
        }
        if conflict == OnConflict::Ignore {
            self.drop_existing(&mut mutations, &mut inserted).await?;
        }
        let mut effect = Effect {
            row_count: mutations.len() as i64,
            returned: Vec::new(),
        };
        let keys: Vec<Vec<u8>> = mutations
            .iter()
            .map(|mutation| mutation.key.clone())
            .collect();
        self.write(mutations).await?;
        if let Some(returning) = &returning {
            let written = self.read_back(keys).await?;
            effect.returned = self.returned(returning, &written, "INSERT")?;
        }
        Ok(effect)
    }

    /// INSERT OR IGNORE: rows that are there, or came earlier in the statement, are left out.
    async fn drop_existing(
        &mut self,
        mutations: &mut Vec<Mutation>,
        inserted: &mut Vec<Vec<Cell>>,
    ) -> Result<(), Error> {
        let keys: Vec<Vec<u8>> = mutations
            .iter()
            .map(|mutation| mutation.key.clone())
            .collect();
        let mut taken: BTreeMap<Vec<u8>, ()> = BTreeMap::new();
        for key in self.existing(keys).await? {
            taken.insert(key, ());
        }
        let mut keep = Vec::new();
        for mutation in mutations.iter() {
            keep.push(taken.insert(mutation.key.clone(), ()).is_none());
        }
        let mut flags = keep.iter();
        mutations.retain(|_| *flags.next().unwrap_or(&true));
        let mut flags = keep.iter();
        inserted.retain(|_| *flags.next().unwrap_or(&true));
        Ok(())
    }

    async fn existing(&mut self, mut keys: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, Error> {
        keys.sort();
        keys.dedup();
        let mut found = Vec::new();
        let mut rest = Some(Selection::Keys(keys));
        while let Some(selection) = rest.take() {
            let mut request = ReadRequest::new(self.table.id, selection);
            request.projection = Projection::Columns(Vec::new());
            let response = self.storage.read(request).await?;
            found.extend(response.rows.into_iter().map(|row| row.key));
            rest = response.next;
        }
        Ok(found)
    }

    /// Whole rows as the transaction sees them now, in the order of the keys.
    async fn read_back(&mut self, keys: Vec<Vec<u8>>) -> Result<Vec<Row>, Error> {
        let all: Vec<usize> = (0..self.table.columns().len()).collect();
        let mut found = Vec::new();
        let mut rest = Some(Selection::Keys(keys));
        while let Some(selection) = rest.take() {
            let response = self
                .storage
                .read(ReadRequest::new(self.table.id, selection))
                .await?;
            for row in &response.rows {
                found.push(rows::values(&self.table, &all, row)?);
            }
            rest = response.next;
        }
        Ok(found)
    }

    async fn update(
        &mut self,
        relation: Relation,
        assignments: Vec<(usize, CellExpression)>,
        returning: Option<Returning>,
    ) -> Result<Effect, Error> {
        let key_columns = self.key_columns();
        let mut mutations = Vec::new();
        let mut changed = Vec::new();
        let assigned = assignments.iter();
        let written = assigned.map(|(index, _)| self.table.columns()[*index].id);
        let written = Projection::Columns(written.collect());
        for mut row in self.rows_to_write(relation, written).await? {
            let (columns, texts): (Vec<usize>, Vec<CellExpression>) =
                assignments.iter().cloned().unzip();
            let cells = self.cells(&texts, &row)?;
            let mut all_columns = key_columns.clone();
            all_columns.extend(&columns);
            let keys = key_columns
                .iter()
                .map(|index| Cell::Value(row[*index].clone()));
            let all_cells = keys.chain(cells.iter().cloned()).collect();
            mutations.push(rows::write(
                &self.table,
                WriteKind::Update,
                &all_columns,
                all_cells,
            )?);
            for (index, cell) in columns.iter().zip(cells) {
                if let Cell::Value(value) = cell {
                    row[*index] = value;
                }
            }
            changed.push(row);
        }
        let mut effect = Effect {
            row_count: mutations.len() as i64,
            returned: Vec::new(),
        };
        self.write(mutations).await?;
        if let Some(returning) = &returning {
            effect.returned = self.returned(returning, &changed, "UPDATE")?;
        }
        Ok(effect)
    }

    async fn delete(
        &mut self,
        relation: Relation,
        returning: Option<Returning>,
    ) -> Result<Effect, Error> {
        let key_columns = self.key_columns();
        let mut mutations = Vec::new();
        let deleted = self.rows_to_write(relation, Projection::All).await?;
        for row in &deleted {
            let key: Vec<Value> = key_columns
                .iter()
                .map(|index| row[*index].clone())
                .collect();
            let key = rows::row_key(&self.table, &key)?;
            refuse_orphans(
                &self.table,
                self.catalog,
                &KeyRange::prefix(key_stem(&key)),
                self.storage,
            )
            .await?;
            mutations.push(Mutation::new(self.table.id, key, RowOperation::Delete));
        }
        let mut effect = Effect {
            row_count: mutations.len() as i64,
            returned: Vec::new(),
        };
        self.write(mutations).await?;
        if let Some(returning) = &returning {
            effect.returned = self.returned(returning, &deleted, "DELETE")?;
        }
        Ok(effect)
    }

    fn key_columns(&self) -> Vec<usize> {
        let positions = self.table.key_columns().map(|key| {
            self.table
                .columns()
                .iter()
                .position(|column| column.id == key.id)
                .unwrap_or(0)
        });
        positions.collect()
    }

    fn cells(&self, cells: &[CellExpression], row: &[Value]) -> Result<Vec<Cell>, Error> {
        let scope = Scope {
            row,
            slots: &self.state.slots,
        };
        let cells = cells.iter().map(|cell| match cell {
            CellExpression::Value(expression) => expression.evaluate(scope).map(Cell::Value),
            CellExpression::CommitTimestamp => Ok(Cell::CommitTimestamp),
        });
        cells.collect()
    }

    async fn rows(&mut self, relation: Relation) -> Result<Vec<Row>, Error> {
        all_rows(relation, &mut self.state, self.storage).await
    }

    /// As `rows`, of the table's rows that the statement changes.
    async fn rows_to_write(
        &mut self,
        relation: Relation,
        written: Projection,
    ) -> Result<Vec<Row>, Error> {
        let mut storage = ToWrite {
            table: self.table.id,
            written,
            storage: self.storage,
        };
        all_rows(relation, &mut self.state, &mut storage).await
    }

    async fn write(&mut self, mutations: Vec<Mutation>) -> Result<(), Error> {
        if mutations.is_empty() {
            return Ok(());
        }
        let result = self.storage.write(mutations.clone()).await;
        result.map_err(|error| rows::explain(error, &mutations, self.catalog))
    }

    fn returned(
        &self,
        returning: &Returning,
        rows: &[Row],
        action: &str,
    ) -> Result<Vec<Row>, Error> {
        let mut returned = Vec::new();
        for row in rows {
            let scope = Scope {
                row,
                slots: &self.state.slots,
            };
            let mut values = crate::typed::evaluate_all(&returning.expressions, scope)?;
            if returning.with_action {
                values.push(Value::Text(action.to_owned()));
            }
            returned.push(values);
        }
        Ok(returned)
    }
}

/// A row's key without its last byte: what the keys of the row and of all interleaved in it begin with.
fn key_stem(key: &[u8]) -> Vec<u8> {
    key[..key.len().saturating_sub(1)].to_vec()
}

/// Refuses to delete rows in `range` (keys of `table`, and what is interleaved in them) while a child table
/// that says ON DELETE NO ACTION has rows there. Children that cascade go with their parents below the waist.
pub async fn refuse_orphans(
    table: &Table,
    catalog: &Catalog,
    range: &KeyRange,
    storage: &mut dyn Storage,
) -> Result<(), Error> {
    let is_below = |child: &Table| child.ancestors.iter().any(|(id, _)| *id == table.id);
    let strict = catalog
        .tables
        .values()
        .filter(|child| child.root == table.root && is_below(child) && !child.spec.cascade);
    for child in strict {
        let mut request = ReadRequest::new(child.id, Selection::Ranges(vec![range.clone()]));
        request.row_limit = Some(1);
        request.projection = Projection::Columns(Vec::new());
        let mut rest = Some(request);
        while let Some(request) = rest.take() {
            let response = storage.read(request.clone()).await?;
            if let Some(row) = response.rows.first() {
                let key = child.decode_key(&row.key).unwrap_or_default();
                return Err(Error::new(
                    ErrorKind::FailedPrecondition,
                    format!(
                        "Integrity constraint violation during DELETE/REPLACE. Found child row {} in table {}.",
                        rows::key_text(&key),
                        child.name()
                    ),
                ));
            }
            rest = response.next.map(|selection| ReadRequest {
                selection,
                ..request
            });
        }
    }
    Ok(())
}
