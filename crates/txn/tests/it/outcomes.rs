//! What a tablet remembers of the commits whose outcome is kept: through crashes, snapshots and divisions, and against
//! whatever comes late.

use crate::cluster::{Cluster, simulate};
use api::{Error, ReadBound, Retry, TransactionId};
use model::{PlacementEpoch, TableId, Timestamp};
use std::time::Duration;
use tokio::time::sleep;
use txn::{
    Attempt, CommandId, Ending, Prepared, Share, Span, Step, Stepped, TabletError, TabletStep,
    TabletWrite,
};
use world::Clock;

const COMMITTED: fn(Timestamp) -> Stepped = |at| Stepped::Ended(Ending::Committed(at));
const ABORTED: Stepped = Stepped::Ended(Ending::Aborted);

impl Cluster {
    fn kept(&self, key: i64, value: &str) -> TabletWrite {
        TabletWrite {
            is_kept: true,
            ..self.request(vec![self.put("kv", &[key], value)])
        }
    }

    async fn step(&self, step: Step) -> Result<Stepped, TabletError> {
        let step = TabletStep {
            tablet: self.descriptor().id,
            epoch: PlacementEpoch(1),
            schema: self.request(Vec::new()).schema,
            patience_ms: 2_000,
            step,
        };
        for _ in 0..400 {
            for id in self.nodes.keys() {
                let Some(tablet) = self.nodes[id].tablet.clone() else {
                    continue;
                };
                match tablet.step(step.clone()).await {
                    Err(
                        TabletError::NotLeaseholder { .. }
                        | TabletError::Api(Error::Retry(Retry::NoLeader { .. })),
                    ) => {}
                    answer => return answer,
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("nobody took the step");
    }

    fn began(&self) -> Timestamp {
        self.nodes[&1].clock.now().unwrap().earliest
    }

    async fn recall(&self, kept_as: CommandId, began: Timestamp, refuses: bool) -> Stepped {
        let step = Step::Recall {
            kept_as,
            began,
            refuses,
        };
        self.step(step).await.unwrap()
    }

    /// A share in this tablet of a transaction that `coordinator` decides.
    fn share(&self, key: i64, coordinator: Option<Span>) -> Share {
        let mutation = self.put("kv", &[key], "shared");
        let own = Span::point(self.table("kv").id, mutation.key.clone());
        Share {
            attempt: Attempt {
                id: self.command(),
                transaction: TransactionId::default(),
                began: self.began(),
                coordinator: coordinator.unwrap_or(own),
                kept_as: Some(self.command()),
            },
            mutations: vec![mutation],
            assertions: Vec::new(),
        }
    }

    async fn prepare(&self, share: &Share) -> Prepared {
        match self.step(Step::Prepare(share.clone())).await {
            Ok(Stepped::Prepared(prepared)) => prepared,
            other => panic!("{other:?}"),
        }
    }

    async fn decide(&self, share: &Share, prepared: &Prepared) -> Result<Stepped, TabletError> {
        self.step(Step::Decide {
            attempt: share.attempt.clone(),
            timestamp: prepared.timestamp,
            before: prepared.before,
            is_external: prepared.is_external,
            participants: vec![share.attempt.coordinator.clone()],
        })
        .await
    }

    async fn value(&self, key: i64) -> Option<String> {
        self.get_at("kv", &[key], ReadBound::Strong).await
    }
}

fn is_aborted<T>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::Retry(Retry::Aborted(_))))
}

#[test]
fn a_commit_is_remembered_after_thousands_of_others_and_a_crash_of_all() {
    simulate(|| async {
        let mut cluster = Cluster::new(3, "kv");
        cluster.start_all().await;
        let began = cluster.began();
        let write = cluster.kept(1, "a");
        let committed = cluster.write_as(write.clone()).await.unwrap();
        let committed = COMMITTED(committed.commit_timestamp.unwrap());
        let plain = cluster.request(vec![cluster.put("kv", &[2], "b")]);
        cluster.write_as(plain.clone()).await.unwrap();
        // More than a tablet remembers of commands for their own sake.
        for round in 0..9_000 {
            let put = cluster.put("kv", &[3], "c");
            cluster.write(vec![put]).await.unwrap();
            if round == 4_000 {
                cluster.flush();
            }
        }
        assert_eq!(cluster.recall(write.command, began, true).await, committed);
        let unkept = cluster.recall(plain.command, began, false).await;
        assert_eq!(unkept, Stepped::Undecided);
        for id in 1..=3 {
            cluster.crash(id);
        }
        cluster.start_all().await;
        assert_eq!(cluster.recall(write.command, began, true).await, committed);
    });
}

#[test]
fn what_is_refused_is_not_committed_by_what_comes_late() {
    simulate(|| async {
        let mut cluster = Cluster::new(3, "kv");
        cluster.start_all().await;
        let began = cluster.began();
        let late = cluster.kept(1, "late");
        let unheard = cluster.recall(late.command, began, false).await;
        assert_eq!(unheard, Stepped::Undecided);
        for _ in 0..2 {
            assert_eq!(cluster.recall(late.command, began, true).await, ABORTED);
        }
        for id in 1..=3 {
            cluster.crash(id);
        }
        cluster.start_all().await;
        let outcome = cluster.write_as(late.clone()).await;
        assert!(is_aborted(&outcome), "{outcome:?}");
        assert_eq!(cluster.value(1).await, None);
        // Nothing is claimed about what may have been forgotten.
        let hour_ago = began.plus_micros(-3_700_000_000);
        let recent = cluster.kept(2, "recent");
        cluster.write_as(recent).await.unwrap();
        let old = cluster.recall(cluster.command(), hour_ago, true).await;
        assert_eq!(old, Stepped::Undecided);
    });
}

#[test]
fn a_commit_over_several_tablets_is_remembered_by_all_that_had_a_share() {
    simulate(|| async {
        let mut cluster = Cluster::new(3, "kv");
        cluster.start_all().await;
        let began = cluster.began();
        let own = cluster.share(1, None);
        let prepared = cluster.prepare(&own).await;
        let decided = cluster.decide(&own, &prepared).await.unwrap();
        let Stepped::Decided(timestamp) = decided else {
            panic!("{decided:?}");
        };
        let kept_as = own.attempt.kept_as.unwrap();
        let recalled = cluster.recall(kept_as, began, true).await;
        assert_eq!(recalled, COMMITTED(timestamp));
        // Decided elsewhere: as long as that is not known here, nothing is.
        let share = cluster.share(2, Some(Span::point(TableId(99), b"k".to_vec())));
        let prepared = cluster.prepare(&share).await;
        let kept_as = share.attempt.kept_as.unwrap();
        let recalled = cluster.recall(kept_as, began, true).await;
        assert_eq!(recalled, Stepped::Undecided);
        let resolve = Step::Resolve {
            id: share.attempt.id,
            ending: Ending::Committed(prepared.timestamp),
        };
        cluster.step(resolve).await.unwrap();
        let recalled = cluster.recall(kept_as, began, true).await;
        assert_eq!(recalled, COMMITTED(prepared.timestamp));
    });
}

#[test]
fn a_share_that_comes_after_a_refusal_is_not_prepared() {
    simulate(|| async {
        let mut cluster = Cluster::new(3, "kv");
        cluster.start_all().await;
        let share = cluster.share(1, None);
        let kept_as = share.attempt.kept_as.unwrap();
        let recalled = cluster.recall(kept_as, cluster.began(), true).await;
        assert_eq!(recalled, ABORTED);
        let outcome = cluster.step(Step::Prepare(share)).await;
        assert!(
            matches!(
                outcome,
                Err(TabletError::Api(Error::Retry(Retry::Aborted(_))))
            ),
            "{outcome:?}"
        );
        assert_eq!(cluster.value(1).await, None);
    });
}
