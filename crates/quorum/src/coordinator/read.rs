//! Reads: data from one replica and digests from the others that the level asks for. Where they differ, the
//! data of all of them is merged, and those that lack something get it before the answer goes out, so that a
//! later quorum read cannot miss what this one has shown.

use super::agreement::{Agreement, Ended, Subject};
use super::exchange::Exchange;
use super::{Coordinator, no_tablet};
use crate::grace::change_expires;
use crate::merge::Merged;
use crate::message::{Covered, ReplicaRead, ReplicaSelection};
use crate::partition::Layout;
use crate::replica::successor;
use crate::visible::View;
use api::{
    Broken, Direction, Error, KeyRange, Level, Outcome, ReadBound, ReadRequest, ReadResponse,
    ReadRow, Selection,
};
use catalog::Table;
use cluster::Tablet;
use futures::future::try_join_all;
use model::TabletId;
use model::key::HEADER;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Keys that are asked for at once.
const KEYS_PER_ROUND_MAX: usize = 256;
/// No answer is larger, whatever the request says.
const ANSWER_BYTES_MAX: u32 = 16 << 20;
/// A page that replicas are asked for is at least so large.
const PAGE_BYTES_MIN: u32 = 16 << 10;

/// What stays the same for all tablets of one read.
struct Reading<'a> {
    table: &'a Table,
    layout: Layout,
    request: &'a ReadRequest,
    level: Level,
    now_seconds: i64,
    size_bytes_max: usize,
    deadline: Instant,
    /// Of a serial read: the partition that it is about.
    partition: Option<Vec<u8>>,
    tombstones: AtomicU64,
}

impl Reading<'_> {
    fn view(&self) -> View<'_> {
        View::new(
            self.table,
            &self.layout,
            &self.request.projection,
            self.now_seconds,
            &self.tombstones,
        )
    }
}

/// What is left of a range read's limits.
struct Budget {
    rows: Option<u32>,
    spent_bytes: usize,
    size_bytes_max: usize,
}

impl Budget {
    fn is_spent(&self) -> bool {
        self.rows == Some(0) || self.spent_bytes >= self.size_bytes_max
    }

    /// Takes as many rows as the limit still allows (headers do not count) and drops the rest. Tells the last row's
    /// key if any had to be dropped.
    fn admit(&mut self, shown: &mut Vec<ReadRow>, layout: &Layout) -> Option<Vec<u8>> {
        let limit = self.rows.as_mut()?;
        let mut last = None;
        for (index, read) in shown.iter().enumerate() {
            if layout.is_header(&read.key) {
                continue;
            }
            if *limit == 0 {
                break;
            }
            *limit -= 1;
            last = Some(index);
        }
        let keep = last? + 1;
        let is_cut = *limit == 0 && keep < shown.len();
        if !is_cut {
            return None;
        }
        shown.truncate(keep);
        shown.last().map(|read| read.key.clone())
    }
}

/// The part of the piece that has been looked through.
fn covered_part(
    piece: &KeyRange,
    covered: &Covered,
    direction: Direction,
) -> Result<KeyRange, Error> {
    let part = match (covered, direction) {
        (Covered::All, _) => return Ok(piece.clone()),
        (Covered::To(end), Direction::Forward) => KeyRange {
            start: piece.start.clone(),
            end: Some(end.clone()),
        },
        (Covered::To(start), Direction::Backward) => KeyRange {
            start: start.clone(),
            end: piece.end.clone(),
        },
        (Covered::Keys(_), _) => KeyRange {
            start: Vec::new(),
            end: Some(Vec::new()),
        },
    };
    let part = part.intersection(piece);
    if part.is_empty() {
        // Without progress this would go on for ever.
        return Err(broken("a replica's page covers nothing of what was asked"));
    }
    Ok(part)
}

fn take_away(rest: &mut KeyRange, covered: KeyRange, direction: Direction) {
    match (direction, covered.end) {
        (Direction::Backward, _) => rest.end = Some(covered.start),
        (Direction::Forward, Some(end)) => rest.start = end,
        (Direction::Forward, None) => rest.end = Some(rest.start.clone()),
    }
}

/// The header's key of the partition that a selection lies in; `None` when it selects nothing.
fn one_partition(layout: &Layout, selection: &Selection) -> Result<Option<Vec<u8>>, Error> {
    let several = || {
        Error::invalid(
            "SERIAL/LOCAL_SERIAL consistency may only be requested for one partition at a time",
        )
    };
    let starts: Vec<&Vec<u8>> = match selection {
        Selection::Keys(keys) => keys.iter().collect(),
        Selection::Ranges(ranges) => ranges.iter().map(|range| &range.start).collect(),
    };
    let mut partition: Option<Vec<u8>> = None;
    for start in starts {
        let length = layout.partition_length(start).ok_or_else(several)?;
        match &partition {
            Some(known) if known[..known.len() - 1] != start[..length] => return Err(several()),
            Some(_) => {}
            None => partition = Some([&start[..length], &[HEADER]].concat()),
        }
    }
    if let (Selection::Ranges(ranges), Some(partition)) = (selection, &partition) {
        let whole = KeyRange::prefix(partition[..partition.len() - 1].to_vec());
        let is_inside = |range: &KeyRange| whole.intersection(range) == *range;
        if !ranges.iter().all(is_inside) {
            return Err(several());
        }
    }
    Ok(partition)
}

fn broken(message: impl Into<String>) -> Error {
    Error::Broken(Broken {
        message: message.into(),
        outcome: Outcome::NotApplied,
    })
}

impl Coordinator {
    /// Carries out a read of an eventual table.
    pub async fn read(&self, table: &Table, request: &ReadRequest) -> Result<ReadResponse, Error> {
        let level = match request.bound {
            ReadBound::Strong => Level::Quorum,
            ReadBound::Eventual => Level::One,
            ReadBound::Level(level) => level,
            _ => {
                return Err(Error::unsupported(
                    "snapshots at a timestamp need a strong table: this one is eventual",
                ));
            }
        };
        let patience = Duration::from_millis(u64::from(request.patience.ms));
        let layout = Layout::new(table);
        let is_serial = matches!(level, Level::Serial | Level::LocalSerial);
        let partition = if is_serial {
            match one_partition(&layout, &request.selection)? {
                Some(partition) => Some(partition),
                None => return Ok(ReadResponse::default()),
            }
        } else {
            None
        };
        let reading = Reading {
            table,
            layout,
            partition,
            request,
            level,
            now_seconds: self.gateway.now_seconds(),
            size_bytes_max: request.size_bytes_max.min(ANSWER_BYTES_MAX) as usize,
            deadline: Instant::now() + patience,
            tombstones: AtomicU64::new(0),
        };
        let mut response = match &request.selection {
            Selection::Keys(keys) => self.read_keys(&reading, keys).await,
            Selection::Ranges(ranges) => self.read_ranges(&reading, ranges).await,
        }?;
        response.tombstones = reading.tombstones.into_inner();
        Ok(response)
    }

    async fn read_keys(
        &self,
        reading: &Reading<'_>,
        keys: &[Vec<u8>],
    ) -> Result<ReadResponse, Error> {
        let mut response = ReadResponse::default();
        let limit = reading
            .request
            .row_limit
            .map_or(usize::MAX, |limit| limit as usize);
        let (mut done, mut size) = (0, 0);
        while done < keys.len() && response.rows.len() < limit && size < reading.size_bytes_max {
            let round = &keys[done..keys.len().min(done + KEYS_PER_ROUND_MAX)];
            let (found, answered, bytes) = self.read_round(reading, round).await?;
            size += bytes;
            for key in &round[..answered] {
                if response.rows.len() >= limit {
                    break;
                }
                response.rows.extend(found.get(key).cloned());
                done += 1;
            }
        }
        if done < keys.len() {
            response.next = Some(Selection::Keys(keys[done..].to_vec()));
        }
        Ok(response)
    }

    /// Reads some keys from their tablets: what is there, how many of the keys have been looked up, and the
    /// size of it all.
    async fn read_round(
        &self,
        reading: &Reading<'_>,
        keys: &[Vec<u8>],
    ) -> Result<(BTreeMap<Vec<u8>, ReadRow>, usize, usize), Error> {
        let mut groups: BTreeMap<TabletId, (Arc<Tablet>, Vec<Vec<u8>>)> = BTreeMap::new();
        for key in keys {
            let tablet = self
                .peers
                .tablet(reading.table.root, key)
                .ok_or_else(|| no_tablet(reading.table))?;
            let group = groups
                .entry(tablet.id)
                .or_insert_with(|| (tablet, Vec::new()));
            group.1.push(key.clone());
        }
        let reads = groups.into_values().map(|(tablet, mut keys)| async move {
            keys.sort();
            keys.dedup();
            let read = self.replica_read(reading, ReplicaSelection::Keys(keys.clone()), None, 0);
            let merged = self.read_tablet(reading, tablet, read).await?;
            Ok::<_, Error>((keys, merged))
        });
        let view = reading.view();
        let (mut found, mut size) = (BTreeMap::new(), 0);
        let mut missed: Vec<Vec<u8>> = Vec::new();
        for (keys, merged) in try_join_all(reads).await? {
            let Some(merged) = merged else {
                // Their tablet was divided meanwhile: they are asked for again.
                missed.extend(keys);
                continue;
            };
            if let Covered::Keys(count) = merged.covered {
                missed.extend_from_slice(keys.get(count as usize..).unwrap_or_default());
            }
            size += merged.size_bytes;
            found.extend(view.by_key(merged));
        }
        let answered = keys
            .iter()
            .position(|key| missed.contains(key))
            .unwrap_or(keys.len());
        Ok((found, answered, size))
    }

    async fn read_ranges(
        &self,
        reading: &Reading<'_>,
        ranges: &[KeyRange],
    ) -> Result<ReadResponse, Error> {
        let mut response = ReadResponse::default();
        let mut budget = Budget {
            rows: reading.request.row_limit,
            spent_bytes: 0,
            size_bytes_max: reading.size_bytes_max,
        };
        for (index, range) in ranges.iter().enumerate() {
            let mut rest = range.clone();
            while !rest.is_empty() {
                if budget.is_spent() {
                    let mut next = vec![rest];
                    next.extend_from_slice(&ranges[index + 1..]);
                    response.next = Some(Selection::Ranges(next));
                    return Ok(response);
                }
                let rows = self.read_piece(reading, &mut rest, &mut budget).await?;
                response.rows.extend(rows);
            }
        }
        Ok(response)
    }

    /// Reads the next part of a range, from one tablet, and takes it away from `rest`; nothing, if the tablet is divided
    /// just then.
    async fn read_piece(
        &self,
        reading: &Reading<'_>,
        rest: &mut KeyRange,
        budget: &mut Budget,
    ) -> Result<Vec<ReadRow>, Error> {
        let (root, direction) = (reading.table.root, reading.request.direction);
        let tablet = match direction {
            Direction::Forward => self.peers.tablet(root, &rest.start),
            Direction::Backward => self.peers.tablet_before(root, rest.end.as_deref()),
        };
        let tablet = tablet.ok_or_else(|| no_tablet(reading.table))?;
        let piece = rest.intersection(&tablet.range);
        let selection = ReplicaSelection::Range {
            range: piece.clone(),
            direction,
        };
        let read = self.replica_read(reading, selection, budget.rows, budget.spent_bytes);
        let Some(merged) = self.read_tablet(reading, tablet, read).await? else {
            return Ok(Vec::new());
        };
        let mut covered = covered_part(&piece, &merged.covered, direction)?;
        budget.spent_bytes += merged.size_bytes;
        let view = reading.view();
        let mut shown = if reading.request.headers {
            view.rows_with_headers(merged, &covered, direction)
        } else {
            view.rows(merged)
        };
        if let Some(last) = budget.admit(&mut shown, &reading.layout) {
            covered = match direction {
                Direction::Forward => KeyRange {
                    end: Some(successor(last)),
                    ..covered
                },
                Direction::Backward => KeyRange {
                    start: last,
                    ..covered
                },
            };
        }
        take_away(rest, covered, direction);
        Ok(shown)
    }

    fn replica_read(
        &self,
        reading: &Reading<'_>,
        rows: ReplicaSelection,
        row_limit: Option<u32>,
        spent_bytes: usize,
    ) -> ReplicaRead {
        let left = reading.size_bytes_max.saturating_sub(spent_bytes) as u32;
        ReplicaRead {
            rows,
            row_limit,
            size_bytes_max: left.max(PAGE_BYTES_MIN),
            now_seconds: reading.now_seconds,
        }
    }

    /// Reads behind everything that was decided or is under way in the partition.
    async fn read_serially(
        &self,
        reading: &Reading<'_>,
        partition: &[u8],
        read: ReplicaRead,
    ) -> Result<Merged, Error> {
        let place = (reading.table.root, partition.to_vec());
        let mut agreement = Agreement::new(Subject {
            coordinator: self,
            table: reading.table,
            layout: &reading.layout,
            partition: partition.to_vec(),
            level: reading.level,
            read,
            deadline: reading.deadline,
        });
        let Ok(_turn) = timeout_at(reading.deadline, self.turns.take(place)).await else {
            return Err(agreement.read_timeout());
        };
        match agreement.settle().await {
            Ok(settled) => Ok(settled.merged),
            Err(Ended::Timeout) => Err(agreement.read_timeout()),
            Err(Ended::Error(error)) => Err(error),
        }
    }

    /// `None`: what is asked for is not all in one tablet any more.
    async fn read_tablet(
        &self,
        reading: &Reading<'_>,
        tablet: Arc<Tablet>,
        read: ReplicaRead,
    ) -> Result<Option<Merged>, Error> {
        if let Some(partition) = &reading.partition {
            let merged = self.read_serially(reading, partition, read).await?;
            return Ok(Some(merged));
        }
        let exchange = Exchange {
            coordinator: self,
            layout: &reading.layout,
            level: reading.level,
            durability: reading.table.spec.replication.durability,
            repairs: reading.table.repairs_reads(),
            table: reading.table.id,
            speculation: reading.table.speculation(),
            expires: change_expires(self.gateway.now(), reading.table.spec.gc_grace_seconds),
            deadline: reading.deadline,
            read,
        };
        exchange.run(tablet).await
    }
}
