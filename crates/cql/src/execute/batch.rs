//! Batches, from the protocol and as text.
//!
//! A logged batch promises that all of it happens or nothing. Within one partition that is one atomic write, on strong
//! tables one transaction; across partitions of eventual tables it happens whole in the end. Unlogged batches promise
//! nothing across partitions.

use super::write::{Conditional, conditional, lower, lower_unread, write};
use super::{BATCH_PARTITIONS_WARNED, Execution, arrange, current};
use crate::connection::Connection;
use crate::error::{Error, WriteType};
use crate::grammar::{ast, parse};
use crate::plan::lower::timestamp_value;
use crate::plan::modify::{ModifyPlan, has_counters};
use crate::plan::{BatchPlan, Plan, Planned, plan};
use crate::prepared::Prepared;
use crate::protocol::request::{self, BatchKind, StatementSource, Values};
use crate::protocol::response::Reply;
use crate::server::Server;
use api::{Atomicity, Mutation};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

enum Source {
    Prepared(Arc<Prepared>),
    Text(Box<Planned>),
}

impl Source {
    fn planned(&self) -> &Planned {
        match self {
            Source::Prepared(prepared) => &prepared.planned,
            Source::Text(planned) => planned,
        }
    }
}

pub async fn protocol_batch(
    server: &Server,
    connection: &Connection,
    reply: Reply,
    request: &request::Batch,
) -> Result<Vec<u8>, Error> {
    let keyspace = request
        .parameters
        .keyspace
        .clone()
        .or_else(|| connection.keyspace());
    let catalog = server.database.catalog();
    let mut statements: Vec<(Source, Cow<'_, Values>)> =
        Vec::with_capacity(request.statements.len());
    for statement in &request.statements {
        let source = match &statement.source {
            StatementSource::Prepared(id) => Source::Prepared(current(server, id)?),
            StatementSource::Text(text) => {
                let parsed = parse(text)?;
                Source::Text(Box::new(plan(&parsed, &catalog, keyspace.as_deref())?))
            }
        };
        let arranged = arrange(source.planned(), &statement.values)?;
        let values = arranged.map_or(Cow::Borrowed(&statement.values), Cow::Owned);
        statements.push((source, values));
    }
    let mut parts = Vec::with_capacity(statements.len());
    for (source, values) in &statements {
        let Plan::Modify(modify) = &source.planned().plan else {
            return Err(Error::invalid(
                "Invalid statement in batch: only UPDATE, INSERT and DELETE statements are allowed.",
            ));
        };
        parts.push((modify.as_ref(), values.as_ref()));
    }
    let execution = Execution {
        server,
        connection,
        reply,
        parameters: &request.parameters,
        values: &request.parameters.values,
        now: server.now(),
        transaction: None,
    };
    run(
        &execution,
        request.kind,
        &parts,
        request.parameters.timestamp,
    )
    .await
}

pub async fn text_batch(execution: &Execution<'_>, batch: &BatchPlan) -> Result<Vec<u8>, Error> {
    let kind = match batch.kind {
        ast::BatchKind::Logged => BatchKind::Logged,
        ast::BatchKind::Unlogged => BatchKind::Unlogged,
        ast::BatchKind::Counter => BatchKind::Counter,
    };
    let timestamp = match &batch.timestamp {
        Some(term) => timestamp_value(term, &execution.context())?.map(|timestamp| timestamp.0),
        None => execution.parameters.timestamp,
    };
    let parts: Vec<(&ModifyPlan, &Values)> = batch
        .statements
        .iter()
        .map(|plan| (plan, execution.values))
        .collect();
    run(execution, kind, &parts, timestamp).await
}

/// Whether the batch is one of counters, by Cassandra's rules: those keep to themselves, and to no log.
fn check_counters(kind: BatchKind, parts: &[(&ModifyPlan, &Values)]) -> Result<bool, Error> {
    let count = parts
        .iter()
        .filter(|(plan, _)| has_counters(&plan.table))
        .count();
    let refused = match kind {
        BatchKind::Counter if count < parts.len() => {
            "Cannot include non-counter statement in a counter batch"
        }
        BatchKind::Logged if count > 0 => "Cannot include a counter statement in a logged batch",
        BatchKind::Unlogged if count > 0 && count < parts.len() => {
            "Counter and non-counter mutations cannot exist in the same batch"
        }
        _ => return Ok(count > 0),
    };
    Err(Error::invalid(refused))
}

async fn run(
    execution: &Execution<'_>,
    kind: BatchKind,
    parts: &[(&ModifyPlan, &Values)],
    timestamp: Option<i64>,
) -> Result<Vec<u8>, Error> {
    let is_of_counters = check_counters(kind, parts)?;
    let has_conditions = parts.iter().any(|(plan, _)| plan.condition.is_some());
    let mut mutations: Vec<Mutation> = Vec::with_capacity(parts.len());
    let mut partitions = BTreeSet::new();
    let mut conditionals = Vec::new();
    let mut all_strong = true;
    for (plan, values) in parts {
        let part = Execution {
            server: execution.server,
            connection: execution.connection,
            reply: execution.reply,
            parameters: execution.parameters,
            values,
            now: execution.now,
            transaction: None,
        };
        let mut lowered = if has_conditions || plan.table.is_strong() {
            lower_unread(plan, &part.context())?
        } else {
            lower(&part, plan, &part.context()).await?
        };
        all_strong &= plan.table.is_strong();
        partitions.extend(
            lowered
                .headers
                .drain(..)
                .map(|header| (plan.table.id, header)),
        );
        if has_conditions {
            conditionals.push(Conditional::new(plan, lowered, &part.context())?);
        } else {
            mutations.append(&mut lowered.mutations);
        }
    }
    if has_conditions {
        if partitions.len() > 1 && !all_strong {
            return Err(Error::invalid(
                "Batch with conditions cannot span multiple partitions",
            ));
        }
        return conditional(execution, conditionals, &execution.context()).await;
    }
    let mut warnings = Vec::new();
    let (atomicity, write_type) = match kind {
        // A batch of counters promises nothing across partitions.
        _ if is_of_counters => {
            let atomicity = match partitions.len() {
                0 | 1 => Atomicity::All,
                _ => Atomicity::Each,
            };
            (atomicity, WriteType::Counter)
        }
        _ if partitions.len() <= 1 => (Atomicity::All, WriteType::UnloggedBatch),
        BatchKind::Logged => (Atomicity::Logged, WriteType::Batch),
        _ => {
            if partitions.len() > BATCH_PARTITIONS_WARNED {
                warnings.push(format!(
                    "Unlogged batch covering {} partitions detected. You should use a logged batch for \
                     atomicity, or asynchronous writes for performance.",
                    partitions.len()
                ));
            }
            (Atomicity::Each, WriteType::UnloggedBatch)
        }
    };
    write(execution, mutations, atomicity, timestamp, write_type).await?;
    Ok(execution.reply.void(&warnings))
}
