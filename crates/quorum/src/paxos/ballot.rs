//! Ballots: the attempts of proposers, in the order of their clocks.

use minicbor::{Decode, Encode};
use model::{Incarnation, NodeId, Timestamp};

/// One attempt of one proposer. Ballots are ordered by their timestamps; two different ones with the same
/// timestamp exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ballot {
    /// Also the write timestamp of what is first proposed under it.
    #[n(0)]
    pub timestamp: Timestamp,
    #[n(1)]
    pub node: NodeId,
    #[n(2)]
    pub incarnation: Incarnation,
    /// Grows with each ballot of an incarnation, whatever the clock does.
    #[n(3)]
    pub sequence: u64,
}

impl Ballot {
    /// Whether one who has promised `promised` may take part in this ballot. The same ballot again is a message
    /// that came twice.
    pub fn is_admitted_after(&self, promised: Option<&Ballot>) -> bool {
        promised.is_none_or(|promised| self.timestamp > promised.timestamp || self == promised)
    }
}

#[cfg(test)]
pub(super) fn ballot(timestamp: i64, node: u64) -> Ballot {
    Ballot {
        timestamp: Timestamp(timestamp),
        node: NodeId(node),
        incarnation: Incarnation(1),
        sequence: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_ballots_are_admitted_and_equal_times_exclude_each_other() {
        let promised = ballot(5, 1);
        assert!(ballot(1, 1).is_admitted_after(None));
        assert!(ballot(6, 1).is_admitted_after(Some(&promised)));
        assert!(promised.is_admitted_after(Some(&promised)));
        for refused in [
            ballot(4, 9),
            ballot(5, 2),
            Ballot {
                incarnation: Incarnation(2),
                ..promised
            },
            Ballot {
                sequence: 2,
                ..promised
            },
        ] {
            assert!(!refused.is_admitted_after(Some(&promised)), "{refused:?}");
        }
    }
}
