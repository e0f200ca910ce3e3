//! Turns: those who want to agree on one partition through this gateway do so one after the other, in the order in
//! which they came, instead of outbidding each other. Other gateways know nothing of it; against those there are
//! ballots.

use model::TableId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::OwnedMutexGuard;

/// A table group, and the key of a partition's header.
type Place = (TableId, Vec<u8>);

/// Holds no more than one entry for each request under way.
#[derive(Default)]
pub(super) struct Turns {
    by_place: Mutex<BTreeMap<Place, Arc<tokio::sync::Mutex<()>>>>,
}

/// Held for as long as its holder is at it.
pub(super) struct Turn {
    turns: Arc<Turns>,
    place: Place,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    pub async fn take(self: &Arc<Self>, place: Place) -> Turn {
        let queue = Arc::clone(self.by_place.lock().entry(place.clone()).or_default());
        // Before it waits, so that who gives up cleans up.
        let mut turn = Turn {
            turns: Arc::clone(self),
            place,
            guard: None,
        };
        turn.guard = Some(queue.lock_owned().await);
        turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.guard = None;
        let mut by_place = self.turns.by_place.lock();
        // Whoever waits holds the queue too.
        let is_last = by_place
            .get(&self.place)
            .is_some_and(|queue| Arc::strong_count(queue) == 1);
        if is_last {
            by_place.remove(&self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_come_in_order_and_leave_nothing_behind() {
        let turns: Arc<Turns> = Arc::default();
        let place = || (TableId(1), b"p".to_vec());
        let first = turns.take(place()).await;
        let order: Arc<Mutex<Vec<u32>>> = Arc::default();
        let mut waiting = Vec::new();
        for number in 0..3 {
            let (turns, order, place) = (turns.clone(), order.clone(), place());
            waiting.push(tokio::spawn(async move {
                let _turn = turns.take(place).await;
                order.lock().push(number);
            }));
            tokio::task::yield_now().await;
        }
        let _elsewhere = turns.take((TableId(2), b"p".to_vec())).await;
        waiting.remove(1).abort();
        assert!(order.lock().is_empty());
        drop(first);
        for waiter in waiting {
            waiter.await.unwrap();
        }
        assert_eq!(*order.lock(), [0, 2]);
        assert_eq!(turns.by_place.lock().len(), 1);
    }
}
