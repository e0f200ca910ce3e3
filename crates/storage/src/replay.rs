//! What binds a replica's log to its store: where the log may be cut, and where replay begins.
//!
//! A store is flushed up to some entry and forgets everything behind it in a crash; the log brings that back. So
//! the log must always reach down to the entry after the flushed one. One that begins above it has lost entries
//! that nothing else holds here: a gap.

use world::planted::{self, Bug};
use world::{Applied, LogBounds};

/// Where a log may be cut: the `first` of `LogOperation::Cut` for someone who no longer wants the entries below
/// `wanted`, given that its store is `flushed`. Consensus and quorum both ask here before they cut.
pub fn cut_point(flushed: Applied, wanted: u64) -> u64 {
    if planted::is(Bug::CutLogAboveFlushed) {
        return wanted;
    }
    wanted.min(flushed.index + 1)
}

/// What a replica does with its log when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// Apply `first ..= last`; nothing if `last < first`.
    From { first: u64, last: u64 },
    /// The log ends below the store (an installation was finished but for its log's reset): reset the log with
    /// `Cut { first }`, then there is nothing to apply.
    Reset { first: u64 },
}

/// The log begins above the entry that the store needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the log begins at entry {first}, but the store holds only what entries up to {applied} did: \
     rebuild this replica from its peers"
)]
pub struct Gap {
    pub applied: u64,
    pub first: u64,
}

/// Compares a log's bounds (`None`: it was never written) with the store as it was opened.
pub fn replay(bounds: Option<LogBounds>, applied: Applied) -> Result<Replay, Gap> {
    let bounds = bounds.unwrap_or(LogBounds { first: 1, last: 0 });
    let next = applied.index + 1;
    if bounds.first > next {
        return Err(Gap {
            applied: applied.index,
            first: bounds.first,
        });
    }
    if bounds.last < applied.index {
        return Ok(Replay::Reset { first: next });
    }
    Ok(Replay::From {
        first: next,
        last: bounds.last,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(index: u64) -> Applied {
        Applied { index, term: 1 }
    }

    #[test]
    fn a_log_is_never_cut_above_what_is_flushed() {
        assert_eq!(cut_point(applied(10), 5), 5);
        assert_eq!(cut_point(applied(10), 11), 11);
        assert_eq!(cut_point(applied(10), 30), 11);
    }

    #[test]
    fn replay_begins_behind_the_store_and_notices_a_gap() {
        let bounds = |first, last| Some(LogBounds { first, last });
        let from = |first, last| Ok(Replay::From { first, last });
        assert_eq!(replay(bounds(3, 9), applied(5)), from(6, 9));
        assert_eq!(replay(bounds(6, 9), applied(5)), from(6, 9));
        assert_eq!(replay(bounds(6, 5), applied(5)), from(6, 5));
        let gap = Gap {
            applied: 5,
            first: 7,
        };
        assert_eq!(replay(bounds(7, 9), applied(5)), Err(gap));
        assert_eq!(
            replay(bounds(1, 4), applied(5)),
            Ok(Replay::Reset { first: 6 })
        );
        assert_eq!(replay(None, applied(0)), from(1, 0));
        assert_eq!(replay(None, applied(5)), Ok(Replay::Reset { first: 6 }));
    }
}
