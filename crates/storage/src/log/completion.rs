//! What the writers of one group wait for: one allocation for all of them, and one result.

use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use world::LogError;

#[derive(Default)]
pub(super) struct Completion {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    result: Option<Result<(), LogError>>,
    wakers: Vec<Option<Waker>>,
}

impl Completion {
    pub(super) fn finish(&self, result: Result<(), LogError>) {
        let wakers = {
            let mut state = self.state.lock();
            state.result = Some(result);
            std::mem::take(&mut state.wakers)
        };
        for waker in wakers.into_iter().flatten() {
            waker.wake();
        }
    }
}

/// Resolves with its group.
pub(super) struct Written {
    completion: Arc<Completion>,
    /// Where this one's waker is.
    slot: Option<usize>,
}

impl Written {
    pub(super) fn new(completion: Arc<Completion>) -> Written {
        Written {
            completion,
            slot: None,
        }
    }
}

impl Future for Written {
    type Output = Result<(), LogError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let completion = self.completion.clone();
        let mut state = completion.state.lock();
        if let Some(result) = &state.result {
            return Poll::Ready(result.clone());
        }
        let slot = *self.slot.get_or_insert_with(|| {
            state.wakers.push(None);
            state.wakers.len() - 1
        });
        match &mut state.wakers[slot] {
            Some(waker) if waker.will_wake(context.waker()) => {}
            waker => *waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if let Some(slot) = self.slot
            && let Some(waker) = self.completion.state.lock().wakers.get_mut(slot)
        {
            *waker = None;
        }
    }
}
