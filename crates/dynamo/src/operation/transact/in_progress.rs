//! The tokens of the transactions that this node is carrying out. A repetition waits for the first a short while,
//! and then hears that it is still in progress, as the service has it. One that comes to another node meets the
//! token's row (`super::token`).

use crate::error::{Failure, IN_PROGRESS};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;

/// How long a repetition waits for the first.
const PATIENCE: Duration = Duration::from_secs(4);

pub fn in_progress() -> Failure {
    Failure::new(
        IN_PROGRESS,
        "The transaction with the given request token is already in progress",
    )
}

/// Bounded by the requests under way.
#[derive(Debug, Default)]
pub struct TokensInProgress {
    by_token: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// Keeps repetitions waiting until it is dropped.
pub struct Turn<'t> {
    tokens: &'t TokensInProgress,
    token: &'t str,
    guard: Option<OwnedMutexGuard<()>>,
}

impl TokensInProgress {
    pub async fn enter<'t>(&'t self, token: &'t str) -> Result<Turn<'t>, Failure> {
        let mutex = {
            let mut by_token = self.by_token.lock();
            Arc::clone(by_token.entry(token.to_owned()).or_default())
        };
        // Made first: whoever gives up waiting may be the last to leave.
        let mut turn = Turn {
            tokens: self,
            token,
            guard: None,
        };
        let guard = tokio::time::timeout(PATIENCE, mutex.lock_owned()).await;
        turn.guard = Some(guard.map_err(|_| in_progress())?);
        Ok(turn)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut by_token = self.tokens.by_token.lock();
        self.guard = None;
        // Others have it from the map, under the same lock.
        let is_last = |mutex: &Arc<_>| Arc::strong_count(mutex) == 1;
        if by_token.get(self.token).is_some_and(is_last) {
            by_token.remove(self.token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_repetition_waits_for_the_first_and_then_gives_up() {
        let tokens = TokensInProgress::default();
        let first = tokens.enter("a").await.unwrap();
        tokens.enter("b").await.unwrap();
        let refused = tokens.enter("a").await.map(|_| ()).unwrap_err();
        assert_eq!(refused.name(), "TransactionInProgressException");
        let (second, ()) = tokio::join!(tokens.enter("a"), async {
            tokio::time::sleep(PATIENCE / 2).await;
            drop(first);
        });
        drop(second.unwrap());
        assert!(tokens.by_token.lock().is_empty());
    }
}
