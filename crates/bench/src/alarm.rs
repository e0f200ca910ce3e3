//! A timer finer than tokio's, which counts whole milliseconds: at a fixed rate that would be most of the latency
//! that is charged to a fast server. One thread waits for the next moment and wakes whoever is due.

use std::collections::BTreeMap;
use std::sync::{Condvar, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Who is to be woken, by the moment; the number tells apart those of one moment.
type Sleepers = BTreeMap<(Instant, u64), oneshot::Sender<()>>;

struct Alarms {
    sleepers: Mutex<(u64, Sleepers)>,
    /// Somebody is due before all that the thread knew of.
    is_earlier: Condvar,
}

static ALARMS: LazyLock<Alarms> = LazyLock::new(|| {
    std::thread::spawn(|| ALARMS.ring());
    Alarms {
        sleepers: Mutex::default(),
        is_earlier: Condvar::new(),
    }
});

/// Comes back at `due`, or as soon after it as the kernel lets it: a tenth of a millisecond on an idle machine.
pub async fn sleep_until(due: Instant) {
    let (ring, rung) = oneshot::channel();
    {
        let mut sleepers = ALARMS
            .sleepers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (number, sleepers) = &mut *sleepers;
        *number += 1;
        let is_first = sleepers
            .first_key_value()
            .is_none_or(|((first, _), _)| due < *first);
        sleepers.insert((due, *number), ring);
        if is_first {
            ALARMS.is_earlier.notify_one();
        }
    }
    // The thread lives as long as the process, so nobody is forgotten.
    let _ = rung.await;
}

impl Alarms {
    fn ring(&self) {
        /// How long to wait when nobody sleeps: they make themselves heard.
        const IDLE: Duration = Duration::from_secs(1);
        let mut sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let now = Instant::now();
            while let Some(first) = sleepers.1.first_entry() {
                if first.key().0 > now {
                    break;
                }
                // Whoever has given up waiting does not hear it.
                let _ = first.remove().send(());
            }
            let wait = sleepers
                .1
                .first_key_value()
                .map_or(IDLE, |((due, _), _)| due.saturating_duration_since(now));
            sleepers = self
                .is_earlier
                .wait_timeout(sleepers, wait)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(guard, _)| guard);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::sleep_until;
    use std::time::{Duration, Instant};

    #[tokio::test]
    async fn sleepers_wake_in_the_order_of_their_moments_and_none_before_it() {
        let now = Instant::now();
        let (woken, mut order) = tokio::sync::mpsc::unbounded_channel();
        for delay_ms in [30_u64, 10, 20, 0] {
            let woken = woken.clone();
            tokio::spawn(async move {
                let due = now + Duration::from_millis(delay_ms);
                sleep_until(due).await;
                assert!(Instant::now() >= due);
                woken.send(delay_ms).unwrap();
            });
        }
        for expected in [0, 10, 20, 30] {
            assert_eq!(order.recv().await, Some(expected));
        }
    }
}
