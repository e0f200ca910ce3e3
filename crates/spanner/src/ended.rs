//! How read-write transactions have ended, for clients that repeat a commit whose answer they have not heard: what
//! was committed must not be said to be lost, or the client does all of it again.
//!
//! An ending is kept for an hour, in `BYTES_MAX` of memory: beyond that the oldest go first. Of a transaction that
//! is neither open nor here this node knows nothing, and asks the tablets.

use crate::status;
use api::TransactionId;
use model::Timestamp;
use std::collections::{BTreeMap, VecDeque};
use tonic::{Code, Status};

/// A client that repeats itself later than this hears that nothing is known.
const KEPT_MICROS: i64 = 3_600 * 1_000_000;
/// Room for the commits of an hour at about a hundred a second, or of six minutes at a thousand.
const BYTES_MAX: usize = 64 << 20;
/// A record with its places in the map and in the queue, but for its message.
const RECORD_BYTES: usize = 192;
/// What is kept of an error's message.
const MESSAGE_BYTES_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    pub timestamp: Timestamp,
    /// As Spanner counts; not known where the tablets alone knew of the commit.
    pub mutation_count: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    Committed(Committed),
    /// What every later request hears.
    Failed {
        code: Code,
        message: Box<str>,
    },
}

impl Ending {
    pub fn failed(code: Code, message: &str) -> Ending {
        let end = message.floor_char_boundary(MESSAGE_BYTES_MAX);
        Ending::Failed {
            code,
            message: message[..end].into(),
        }
    }

    /// What a request hears that would go on with the transaction.
    pub fn refusal(&self) -> Status {
        match self {
            Ending::Committed(_) => Status::failed_precondition(
                "Cannot start a read or query within a transaction after Commit has been called.",
            ),
            Ending::Failed {
                code: Code::Aborted,
                message,
            } => status::aborted(message),
            Ending::Failed { code, message } => Status::new(*code, message.as_ref()),
        }
    }

    /// What a commit hears.
    pub fn outcome(&self) -> Result<Committed, Status> {
        match self {
            Ending::Committed(committed) => Ok(*committed),
            Ending::Failed { .. } => Err(self.refusal()),
        }
    }

    fn size_bytes(&self) -> usize {
        RECORD_BYTES
            + match self {
                Ending::Committed(_) => 0,
                Ending::Failed { message, .. } => message.len(),
            }
    }
}

#[derive(Default)]
pub struct Endings {
    by_id: BTreeMap<TransactionId, Ending>,
    /// Oldest first, with when each came.
    order: VecDeque<(Timestamp, TransactionId)>,
    size_bytes: usize,
}

impl Endings {
    pub fn get(&self, id: &TransactionId) -> Option<&Ending> {
        self.by_id.get(id)
    }

    /// Keeps how a transaction has ended; what is known already stays as it is.
    pub fn put(&mut self, id: TransactionId, ending: Ending, now: Timestamp) {
        if self.by_id.contains_key(&id) {
            return;
        }
        self.size_bytes += ending.size_bytes();
        self.by_id.insert(id, ending);
        self.order.push_back((now, id));
        self.forget_old(now);
    }

    pub fn forget_old(&mut self, now: Timestamp) {
        while let Some((at, id)) = self.order.front() {
            if now.0.saturating_sub(at.0) <= KEPT_MICROS && self.size_bytes <= BYTES_MAX {
                return;
            }
            let ending = self.by_id.remove(id);
            self.size_bytes -= ending.map_or(0, |ending| ending.size_bytes());
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::RequestId;

    fn id(number: u64) -> TransactionId {
        TransactionId {
            request: RequestId(number),
            ..Default::default()
        }
    }

    fn committed(at: i64) -> Ending {
        Ending::Committed(Committed {
            timestamp: Timestamp(at),
            mutation_count: Some(1),
        })
    }

    #[test]
    fn an_ending_is_kept_for_an_hour_and_the_first_word_counts() {
        let mut endings = Endings::default();
        endings.put(id(1), committed(1), Timestamp(0));
        let other = Ending::failed(Code::Aborted, "idle");
        endings.put(id(1), other, Timestamp(1));
        endings.put(id(2), committed(2), Timestamp(KEPT_MICROS));
        assert_eq!(endings.get(&id(1)), Some(&committed(1)));
        endings.forget_old(Timestamp(KEPT_MICROS + 1));
        assert_eq!(endings.get(&id(1)), None);
        assert_eq!(endings.get(&id(2)), Some(&committed(2)));
        endings.forget_old(Timestamp(3 * KEPT_MICROS));
        assert_eq!((endings.get(&id(2)), endings.size_bytes), (None, 0));
    }

    #[test]
    fn what_is_kept_is_bounded_in_bytes() {
        let mut endings = Endings::default();
        let message = "é".repeat(MESSAGE_BYTES_MAX);
        let each = RECORD_BYTES + MESSAGE_BYTES_MAX;
        let count = (BYTES_MAX / each) as u64;
        for number in 0..=count {
            let ending = Ending::failed(Code::NotFound, &message);
            endings.put(id(number), ending, Timestamp(0));
        }
        assert!(endings.size_bytes <= BYTES_MAX);
        assert_eq!(endings.get(&id(0)), None);
        assert!(endings.get(&id(1)).is_some() && endings.get(&id(count)).is_some());
    }
}
