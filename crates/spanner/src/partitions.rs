//! PartitionRead and PartitionQuery: one read or query in parts, which clients run side by side.
//!
//! A partition is a part of the scan's keys or key ranges, and its token is that part, so nothing is kept here and
//! any node serves it. All parts are read at the timestamp of one read-only transaction, and together they are the
//! whole. Ranges are cut by arithmetic between the first and the last key that is there: the parts are alike where
//! keys are spread evenly.

use crate::mutations::{find_columns, find_table};
use crate::queries::{FOR_UPDATE_REFUSED, RequestParameters, analyse, check_index};
use crate::sessions::Session;
use crate::status::of_api;
use crate::transactions::{Held, Selected, Snapshot};
use crate::{Door, keys};
use api::{Direction, KeyRange, Projection, ReadBound, ReadRequest, Selection};
use catalog::Table;
use googleapis_tonic_google_spanner_v1::google::spanner::v1 as pb;
use model::murmur3;
use prost::Message;
use sql::Prepared;
use sql::plan::Scan;
use std::sync::Arc;
use tonic::Status;

/// So many, if the client does not say.
const PARTITIONS_DEFAULT: usize = 16;
const PARTITIONS_MAX: usize = 1_000;
/// The first byte of a token.
const TOKEN_VERSION: u8 = 1;

/// What a token is for, so that it does not serve another request.
pub struct Of(i64);

impl Of {
    pub fn query(session: &Session, text: &str, parameters: Option<&prost_types::Struct>) -> Of {
        let parameters = parameters.map(Message::encode_to_vec).unwrap_or_default();
        Of::parts(&[session.namespace.as_bytes(), text.as_bytes(), &parameters])
    }

    pub fn read(table: &Table, columns: &[String], set: &pb::KeySet) -> Of {
        let id = table.id.0.to_be_bytes();
        let columns = columns.join("\0");
        Of::parts(&[&id, columns.as_bytes(), &set.encode_to_vec()])
    }

    fn parts(parts: &[&[u8]]) -> Of {
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        Of(murmur3::token(&bytes))
    }
}

/// Narrows a scan to the part that a token names.
pub fn narrow(scan: Option<&mut Scan>, token: &[u8], of: &Of) -> Result<(), Status> {
    let invalid = || {
        Status::invalid_argument(
            "Invalid partition token: it must come from a partition request with the same parameters.",
        )
    };
    let scan = scan.ok_or_else(invalid)?;
    let (version, sum, selection): (u8, i64, Selection) =
        minicbor::decode(token).map_err(|_| invalid())?;
    if version != TOKEN_VERSION || sum != of.0 {
        return Err(invalid());
    }
    scan.selection = selection;
    Ok(())
}

fn token(part: &Selection, of: &Of) -> Result<Vec<u8>, Status> {
    minicbor::to_vec((TOKEN_VERSION, of.0, part))
        .map_err(|error| Status::internal(error.to_string()))
}

pub async fn query(
    door: Arc<Door>,
    request: pb::PartitionQueryRequest,
) -> Result<pb::PartitionResponse, Status> {
    let session = door.sessions.find(&door, &request.session)?;
    let parameters = RequestParameters {
        values: request.params.as_ref(),
        types: &request.param_types,
    };
    let Prepared::Query(mut plan) = analyse(&door, &session, &request.sql, &parameters)? else {
        return Err(Status::invalid_argument("Only a query can be partitioned."));
    };
    if plan.for_update {
        return Err(Status::invalid_argument(FOR_UPDATE_REFUSED));
    }
    let scan = plan.partitionable().ok_or_else(|| {
        Status::invalid_argument(
            "Query is not root partitionable: every row of the answer must come from one row of one table.",
        )
    })?;
    let of = Of::query(&session, &request.sql, request.params.as_ref());
    partition(
        &door,
        &session,
        request.transaction.as_ref(),
        scan,
        request.partition_options.unwrap_or_default(),
        &of,
    )
    .await
}

pub async fn read(
    door: Arc<Door>,
    request: pb::PartitionReadRequest,
) -> Result<pb::PartitionResponse, Status> {
    let session = door.sessions.find(&door, &request.session)?;
    let catalog = door.database.catalog();
    let table = find_table(&catalog, &session.namespace, &request.table)?;
    check_index(table, &request.index)?;
    let set = request.key_set.unwrap_or_default();
    let scan = Scan {
        looked_at: None,
        selection: keys::selection(table, &set)?,
        table: table.clone(),
        columns: find_columns(table, &request.columns)?,
        direction: Direction::Forward,
        row_limit: None,
        for_update: false,
    };
    let of = Of::read(table, &request.columns, &set);
    partition(
        &door,
        &session,
        request.transaction.as_ref(),
        &scan,
        request.partition_options.unwrap_or_default(),
        &of,
    )
    .await
}

async fn partition(
    door: &Door,
    session: &Session,
    selector: Option<&pb::TransactionSelector>,
    scan: &Scan,
    options: pb::PartitionOptions,
    of: &Of,
) -> Result<pb::PartitionResponse, Status> {
    let selected = door.transactions.select(door, session, selector).await?;
    let Selected {
        held:
            Held::Snapshot(Snapshot {
                bound: bound @ ReadBound::At(_),
                ..
            }),
        begun,
    } = selected
    else {
        return Err(Status::invalid_argument(
            "Partition requests may only be created using a read only transaction that outlives them.",
        ));
    };
    let count = match usize::try_from(options.max_partitions) {
        Err(_) => {
            return Err(Status::invalid_argument(
                "max_partitions must not be negative.",
            ));
        }
        Ok(0) => PARTITIONS_DEFAULT,
        Ok(count) => count.min(PARTITIONS_MAX),
    };
    let parts = match &scan.selection {
        Selection::Keys(keys) => keys
            .chunks(keys.len().div_ceil(count).max(1))
            .map(|keys| Selection::Keys(keys.to_vec()))
            .collect(),
        Selection::Ranges(ranges) => {
            let first = end_key(door, scan, ranges.clone(), Direction::Forward, bound).await?;
            let reversed = ranges.iter().rev().cloned().collect();
            let last = end_key(door, scan, reversed, Direction::Backward, bound).await?;
            match (first, last) {
                (Some(first), Some(last)) => cut(ranges, &split_keys(&first, &last, count)),
                _ => vec![scan.selection.clone()],
            }
        }
    };
    let partitions = parts.iter().map(|part| {
        Ok(pb::Partition {
            partition_token: token(part, of)?,
        })
    });
    Ok(pb::PartitionResponse {
        partitions: partitions.collect::<Result<_, Status>>()?,
        transaction: begun,
    })
}

/// The first key that is there, in either direction.
async fn end_key(
    door: &Door,
    scan: &Scan,
    ranges: Vec<KeyRange>,
    direction: Direction,
    bound: ReadBound,
) -> Result<Option<Vec<u8>>, Status> {
    let mut rest = Some(Selection::Ranges(ranges));
    while let Some(selection) = rest.take() {
        let mut read = ReadRequest::new(scan.table.id, selection);
        read.projection = Projection::Columns(Vec::new());
        read.row_limit = Some(1);
        read.direction = direction;
        read.bound = bound;
        let page = door.database.read(read).await.map_err(of_api)?;
        if let Some(row) = page.rows.into_iter().next() {
            return Ok(Some(row.key));
        }
        rest = page.next;
    }
    Ok(None)
}

/// Keys between two, that cut what lies between them into `count` parts of about one width.
fn split_keys(first: &[u8], last: &[u8], count: usize) -> Vec<Vec<u8>> {
    let common = first.iter().zip(last).take_while(|(a, b)| a == b).count();
    let number = |key: &[u8]| {
        let mut bytes = [0; 8];
        for (byte, own) in bytes.iter_mut().zip(&key[common..]) {
            *byte = *own;
        }
        u128::from(u64::from_be_bytes(bytes))
    };
    let (low, high) = (number(first), number(last));
    let mut keys: Vec<Vec<u8>> = (1..count as u128)
        .map(|index| {
            let at = low + (high.saturating_sub(low)) * index / count as u128;
            let mut key = first[..common].to_vec();
            key.extend_from_slice(&(at as u64).to_be_bytes());
            key
        })
        .collect();
    keys.dedup();
    keys
}

/// Ranges cut at sorted keys; parts with nothing in them are left out.
fn cut(ranges: &[KeyRange], split_keys: &[Vec<u8>]) -> Vec<Selection> {
    let starts = std::iter::once(Vec::new()).chain(split_keys.iter().cloned());
    let ends = split_keys.iter().cloned().map(Some).chain([None]);
    starts
        .zip(ends)
        .filter_map(|(start, end)| {
            let part = KeyRange { start, end };
            let ranges: Vec<KeyRange> = ranges
                .iter()
                .map(|range| range.intersection(&part))
                .filter(|range| !range.is_empty())
                .collect();
            (!ranges.is_empty()).then_some(Selection::Ranges(ranges))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_cut_evenly() {
        let key = |number: u64| [&[7, 1][..], &number.to_be_bytes(), &[9]].concat();
        let cuts = split_keys(&key(0), &key(1_000), 4);
        assert_eq!(cuts.len(), 3);
        let below = |cut: &Vec<u8>| (0..=1_000).filter(|number| key(*number) < *cut).count();
        let counts: Vec<usize> = cuts.iter().map(below).collect();
        for (count, wanted) in counts.iter().zip([250, 500, 750]) {
            assert!(count.abs_diff(wanted) <= 256, "{counts:?}");
        }
    }

    proptest! {
        #[test]
        fn every_key_is_in_exactly_one_part(
            mut ends in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 2..8),
            first in prop::collection::vec(any::<u8>(), 0..12),
            last in prop::collection::vec(any::<u8>(), 0..12),
            count in 1usize..20,
            probe in prop::collection::vec(any::<u8>(), 0..5),
        ) {
            ends.sort();
            ends.dedup();
            let ranges: Vec<KeyRange> = ends
                .chunks_exact(2)
                .map(|pair| KeyRange { start: pair[0].clone(), end: Some(pair[1].clone()) })
                .collect();
            let (first, last) = (first.clone().min(last.clone()), first.max(last));
            let parts = cut(&ranges, &split_keys(&first, &last, count));
            prop_assert!(parts.len() <= count);
            let inside = ranges.iter().filter(|range| range.contains(&probe)).count();
            let found: usize = parts
                .iter()
                .map(|part| match part {
                    Selection::Ranges(ranges) => ranges.iter().filter(|range| range.contains(&probe)).count(),
                    Selection::Keys(_) => 0,
                })
                .sum();
            prop_assert_eq!(found, inside);
        }

        #[test]
        fn any_token_is_read_or_refused(token in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = minicbor::decode::<(u8, i64, Selection)>(&token);
        }
    }
}
