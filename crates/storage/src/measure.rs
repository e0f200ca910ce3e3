//! How large a tablet is, and where its middle lies: by reading its rows, some at a time. An estimate that a
//! divided tablet can rely on: what a split has left over in the store does not count.

use api::KeyRange;
use catalog::Table;
use std::sync::Arc;
use tokio::task::yield_now;
use world::{Kind, Snapshot, Store, StoreError};

/// Rows that are read before others have their turn.
const ROWS_AT_A_TIME: usize = 512;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measure {
    /// Keys and present rows.
    pub size_bytes: u64,
    /// A boundary of the table with about half of that before it; `None` where there is no boundary inside.
    pub middle: Option<Vec<u8>>,
}

struct Measuring {
    store: Arc<dyn Store>,
    snapshot: Snapshot,
    end: Vec<u8>,
}

impl Measuring {
    /// Shows rows from a stored key on until `wants` says no; returns where it stopped.
    async fn walk(
        &self,
        mut next: Vec<u8>,
        mut wants: impl FnMut(&[u8], u64) -> bool,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        loop {
            let mut count = 0;
            {
                let mut rows = self.store.scan(&next, Some(&self.end), &self.snapshot);
                for pair in rows.by_ref().take(ROWS_AT_A_TIME) {
                    let (key, value) = pair?;
                    if !wants(&key[1..], (key.len() + value.len()) as u64) {
                        return Ok(Some(key.to_vec()));
                    }
                    next.clear();
                    next.extend_from_slice(&key);
                    next.push(0);
                    count += 1;
                }
            }
            if count < ROWS_AT_A_TIME {
                return Ok(None);
            }
            yield_now().await;
        }
    }
}

/// Measures what a store holds of a tablet's range. `root` is the root of the tablet's table group.
pub async fn measure(
    store: &Arc<dyn Store>,
    range: &KeyRange,
    root: &Table,
) -> Result<Measure, StoreError> {
    let measuring = Measuring {
        snapshot: store.snapshot(),
        store: Arc::clone(store),
        end: match &range.end {
            Some(end) => stored(end),
            None => vec![Kind::Row as u8 + 1],
        },
    };
    let start = stored(&range.start);
    let mut size_bytes = 0;
    let all = |_: &[u8], size: u64| {
        size_bytes += size;
        true
    };
    measuring.walk(start.clone(), all).await?;
    let mut before = 0;
    let half = |_: &[u8], size: u64| {
        before += size;
        before * 2 <= size_bytes
    };
    let half = measuring.walk(start, half).await?;
    let Some(half) = half else {
        return Ok(Measure {
            size_bytes,
            middle: None,
        });
    };
    // What shares the middle row's partition or root row begins before it; where it begins the tablet too, the
    // next one will do.
    let mut middle = root.boundary(&half[1..]).map(<[u8]>::to_vec);
    if middle.as_ref().is_some_and(|middle| *middle <= range.start) {
        let first = middle.clone();
        let is_same = |key: &[u8], _: u64| {
            root.boundary(key)
                .is_none_or(|at| at == first.as_deref().unwrap_or_default())
        };
        let other = measuring.walk(half, is_same).await?;
        let other = other.as_ref().and_then(|key| root.boundary(&key[1..]));
        middle = other.map(<[u8]>::to_vec);
    }
    Ok(Measure { size_bytes, middle })
}

/// Where the store keeps a row.
fn stored(key: &[u8]) -> Vec<u8> {
    [&[Kind::Row as u8], key].concat()
}
