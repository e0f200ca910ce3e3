//! A value that many can wait on, like `tokio::sync::watch`, but waking the waiters in the order in which they
//! began to wait. Tokio's draws that order at random, which no seed can repeat. Use this one below the doors
//! wherever more than one task waits.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// There is no sender any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody can change the value any more")]
pub struct Closed;

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

struct State<T> {
    value: T,
    version: u64,
    is_closed: bool,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing that can panic runs under the lock but the callers' own closures.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The only one who changes the value.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// One who waits. A clone has seen what its original has seen.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// The value, locked: hold it shortly, and never across an await.
pub struct Ref<'a, T> {
    state: MutexGuard<'a, State<T>>,
}

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.state.value
    }
}

impl<T> Sender<T> {
    pub fn new(value: T) -> Sender<T> {
        Sender {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    value,
                    version: 0,
                    is_closed: false,
                }),
                changed: Notify::new(),
            }),
        }
    }

    pub fn subscribe(&self) -> Receiver<T> {
        Receiver {
            shared: Arc::clone(&self.shared),
            seen: self.shared.lock().version,
        }
    }

    pub fn borrow(&self) -> Ref<'_, T> {
        Ref {
            state: self.shared.lock(),
        }
    }

    pub fn send_replace(&self, value: T) -> T {
        let mut state = self.shared.lock();
        state.version += 1;
        let old = std::mem::replace(&mut state.value, value);
        drop(state);
        self.shared.changed.notify_waiters();
        old
    }

    /// Wakes the waiters only if `change` says that it has changed something.
    pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let mut state = self.shared.lock();
        let is_modified = change(&mut state.value);
        if is_modified {
            state.version += 1;
            drop(state);
            self.shared.changed.notify_waiters();
        }
        is_modified
    }

    pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            change(value);
            true
        });
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.changed.notify_waiters();
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        Receiver {
            shared: Arc::clone(&self.shared),
            seen: self.seen,
        }
    }
}

impl<T> Receiver<T> {
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref {
            state: self.shared.lock(),
        }
    }

    /// The value, which counts as seen.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let state = self.shared.lock();
        self.seen = state.version;
        Ref { state }
    }

    /// Whether there is a value that has not been seen.
    pub fn has_changed(&self) -> Result<bool, Closed> {
        let state = self.shared.lock();
        if state.is_closed {
            return Err(Closed);
        }
        Ok(state.version != self.seen)
    }

    /// Resolves when the value is as wished, also at once.
    pub async fn wait_for(&mut self, mut is_wished: impl FnMut(&T) -> bool) -> Result<(), Closed>
    where
        T: Send,
    {
        loop {
            if is_wished(&self.borrow_and_update()) {
                return Ok(());
            }
            self.changed().await?;
        }
    }

    /// Resolves when there is a value that has not been seen; it counts as seen then.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        loop {
            let notified = self.shared.changed.notified();
            let mut notified = std::pin::pin!(notified);
            // Registered before the look, so that a change after the look wakes it.
            notified.as_mut().enable();
            {
                let state = self.shared.lock();
                if state.version != self.seen {
                    self.seen = state.version;
                    return Ok(());
                }
                if state.is_closed {
                    return Err(Closed);
                }
            }
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn waiters_wake_in_the_order_of_their_waiting() {
        let sender = Sender::new(0);
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for number in 0..20 {
            let (mut receiver, order) = (sender.subscribe(), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                receiver.changed().await.unwrap();
                order.lock().unwrap().push((number, *receiver.borrow()));
            }));
        }
        tokio::task::yield_now().await;
        sender.send_replace(7);
        for task in tasks {
            task.await.unwrap();
        }
        let expected: Vec<(i32, i32)> = (0..20).map(|number| (number, 7)).collect();
        assert_eq!(*order.lock().unwrap(), expected);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn changes_are_seen_once_and_the_end_too() {
        let sender = Sender::new(1);
        let mut receiver = sender.subscribe();
        assert_eq!(receiver.has_changed(), Ok(false));
        sender.send_modify(|value| *value += 1);
        sender.send_if_modified(|_| false);
        assert_eq!(receiver.has_changed(), Ok(true));
        receiver.changed().await.unwrap();
        assert_eq!(receiver.has_changed(), Ok(false));
        assert_eq!(*receiver.borrow_and_update(), 2);
        drop(sender);
        assert_eq!(receiver.changed().await, Err(Closed));
    }
}
