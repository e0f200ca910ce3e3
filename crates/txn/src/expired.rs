//! What has expired in a strong tablet goes by ordinary deletions, through the log: all replicas hold the same, and the
//! past shows it as long as any other row that was deleted.
//!
//! A row goes when all of it has expired. It does so only if it has not changed since it was looked at.

use crate::request::{CommandId, TabletError, TabletWrite};
use crate::tablet::StrongTablet;
use crate::versions::View;
use api::{
    Atomicity, ColumnSet, Direction, Error, KeyRange, Mutation, ReadAssertion, Retry, RowOperation,
};
use catalog::Table;
use model::{SchemaVersion, Timestamp};

/// Rows that are looked at in one step, and so the most that one write deletes.
const STEP_ROWS: usize = 256;
/// So long an expired row is left alone: clocks may differ by that much.
const GRACE_SECONDS: i64 = 10;
const PATIENCE_MS: u32 = 5_000;

/// How far a sweep over a tablet has come, and what it has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpirySweep {
    /// `None`: it is at the end.
    pub rest: Option<KeyRange>,
    pub scanned_bytes: u64,
    pub deleted_rows: u64,
    /// Seconds since 1970 at which the next of the rows seen goes.
    pub next_expiry: Option<i64>,
}

impl StrongTablet {
    /// Where a sweep over all rows begins.
    pub fn expiry_sweep(&self) -> ExpirySweep {
        ExpirySweep {
            rest: Some(self.inner.replica.state.lock().range.clone()),
            ..ExpirySweep::default()
        }
    }

    /// The newest commit here: while it stays, so does what a sweep has seen.
    pub fn newest(&self) -> Timestamp {
        self.inner.replica.state.lock().newest
    }

    /// Looks at the next rows of a hash-partitioned table's tablet, and deletes those that have expired. On the
    /// leaseholder, or on who leads and may become it.
    pub async fn sweep_expired(
        &self,
        table: &Table,
        schema: SchemaVersion,
        command: CommandId,
        sweep: &mut ExpirySweep,
    ) -> Result<(), TabletError> {
        let inner = &self.inner;
        let (Some(range), Some(store)) = (sweep.rest.take(), inner.replica.store()) else {
            return Ok(());
        };
        let seconds = inner.spec.clock.wall_micros().div_euclid(1_000_000);
        let view = View::new(store, Timestamp::MAX, || self.newest());
        let window = view.window(&range, Direction::Forward, STEP_ROWS)?;
        let mut write = TabletWrite {
            tablet: inner.spec.tablet.id,
            epoch: inner.placed.lock().epoch,
            schema,
            command,
            first_attempt: None,
            mutations: Vec::new(),
            atomicity: Atomicity::All,
            assertions: Vec::new(),
            patience_ms: PATIENCE_MS,
            transaction: None,
            is_kept: false,
        };
        for (key, version) in window.rows {
            sweep.scanned_bytes += (key.len() + version.len()) as u64;
            // What a partition's rows share goes with none of them.
            let expiry = version.row()?.expires_at().filter(|_| table.owns_key(&key));
            let Some(expiry) = expiry else {
                continue;
            };
            if expiry + GRACE_SECONDS > seconds {
                let next = sweep.next_expiry.map_or(expiry, |next| next.min(expiry));
                sweep.next_expiry = Some(next);
                continue;
            }
            write.assertions.push(ReadAssertion {
                table: table.id,
                range: KeyRange {
                    start: key.clone(),
                    end: Some(crate::keys::successor(&key)),
                },
                timestamp: version.timestamp,
                columns: ColumnSet::ALL,
            });
            write
                .mutations
                .push(Mutation::new(table.id, key, RowOperation::Delete));
        }
        sweep.rest = window.rest;
        if write.mutations.is_empty() {
            return Ok(());
        }
        let count = write.mutations.len() as u64;
        match self.write(write).await {
            Ok(_) => sweep.deleted_rows += count,
            // Something of it is written anew: all of it is looked at again the next time.
            Err(TabletError::Api(Error::Retry(Retry::Aborted(_)))) => {
                sweep.next_expiry = Some(seconds);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
