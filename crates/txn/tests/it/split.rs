//! A tablet divides: every row, every promise and every remembered command is on exactly one side afterwards,
//! whatever crashes in between.

use crate::cluster::{Cluster, TABLET, row_key, simulate};
use api::{Error, KeyRange, Retry, Selection, WriteResponse};
use cluster::{Replica, Tablet};
use consensus::{Member, Origin};
use model::{NodeId, PlacementEpoch, ReplicaId, TabletId};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::sleep;
use txn::{
    Ending, Seeded, SplitPlan, Step, Stepped, StrongTablet, TabletError, TabletStep, TabletWrite,
};
use world::Applied;
use world::Clock;

const RIGHT: TabletId = TabletId(2);

/// The first token is flipped, so that half of all keys lie on each side.
fn plan(cluster: &Cluster) -> SplitPlan {
    let whole = cluster.descriptor();
    let at = vec![0x80, 0, 0, 0, 0, 0, 0, 0];
    let beside = |replica: &Replica| Replica {
        id: ReplicaId(replica.id.0 + 1),
        ..*replica
    };
    SplitPlan {
        left: Tablet {
            range: KeyRange {
                start: Vec::new(),
                end: Some(at.clone()),
            },
            epoch: PlacementEpoch(2),
            ..whole.clone()
        },
        right: Tablet {
            id: RIGHT,
            range: KeyRange {
                start: at.clone(),
                end: None,
            },
            replicas: whole.replicas.iter().map(beside).collect(),
            ..whole
        },
        at,
    }
}

struct Halves {
    cluster: Cluster,
    plan: SplitPlan,
    right: BTreeMap<u64, StrongTablet>,
}

impl Halves {
    /// Rows 0 to 39, before anything is divided.
    async fn new() -> Halves {
        let mut cluster = Cluster::new(3, "kv");
        cluster.start_all().await;
        for key in 0..40 {
            let put = cluster.put("kv", &[key], &format!("v{key}"));
            cluster.write(vec![put]).await.unwrap();
        }
        let plan = plan(&cluster);
        Halves {
            cluster,
            plan,
            right: BTreeMap::new(),
        }
    }

    fn is_right(&self, key: i64) -> bool {
        row_key(&self.cluster.table("kv"), &[key]) >= self.plan.at
    }

    /// A key on this side.
    fn key(&self, is_right: bool) -> i64 {
        (0..).find(|key| self.is_right(*key) == is_right).unwrap()
    }

    async fn divide(&self) {
        loop {
            let leader = self.cluster.leaseholder().await;
            match self.cluster.tablet(leader).split(self.plan.clone()).await {
                Ok(()) => return,
                Err(TabletError::NotLeaseholder { .. }) => sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    fn replica(&self, id: u64) -> ReplicaId {
        self.plan.right.replica_on(NodeId(id)).unwrap().id
    }

    async fn seed(&self, id: u64) -> Seeded {
        let tablet = self.cluster.tablet(id);
        tablet
            .seed(&self.plan.right, self.replica(id))
            .await
            .unwrap()
    }

    /// Makes the right half's replica on a node, and opens it.
    async fn open_right(&mut self, id: u64) {
        while self.seed(id).await == Seeded::NotYet {
            sleep(Duration::from_millis(20)).await;
        }
        self.continue_right(id).await;
    }

    async fn continue_right(&mut self, id: u64) {
        let members = self.plan.right.replicas.iter().map(|replica| Member {
            replica: replica.id,
            node: replica.node,
            is_learner: false,
        });
        let origin = Origin::Founded(members.collect());
        let replica = self.replica(id);
        let tablet = self.plan.right.clone();
        let opened = self.cluster.open(id, tablet, replica, origin).await;
        self.right.insert(id, opened);
    }

    fn on_right(&self, mut write: TabletWrite) -> TabletWrite {
        write.tablet = RIGHT;
        write
    }

    async fn write_right(&self, write: TabletWrite) -> WriteResponse {
        loop {
            for tablet in self.right.values() {
                match tablet.write(write.clone()).await {
                    Ok(response) => return response,
                    Err(TabletError::NotLeaseholder { .. } | TabletError::Api(Error::Retry(_))) => {
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn scan_right(&self) -> Vec<String> {
        let range = Selection::Ranges(vec![self.plan.right.range.clone()]);
        let mut read = self
            .cluster
            .read_request("kv", range, api::ReadBound::Strong);
        read.tablet = RIGHT;
        loop {
            for tablet in self.right.values() {
                match tablet.read(read.clone()).await {
                    Ok(response) => return self.cluster.values("kv", &response),
                    Err(TabletError::NotLeaseholder { .. } | TabletError::Api(Error::Retry(_))) => {
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn scan_left(&self) -> Vec<String> {
        let range = Selection::Ranges(vec![self.plan.left.range.clone()]);
        let read = self
            .cluster
            .read_request("kv", range, api::ReadBound::Strong);
        let response = self.cluster.read_as(read).await.unwrap();
        self.cluster.values("kv", &response)
    }

    /// The rows that were there at the division, on the side where they belong.
    fn expect(&self, is_right: bool) -> Vec<String> {
        let mut keys: Vec<i64> = (0..40)
            .filter(|key| self.is_right(*key) == is_right)
            .collect();
        keys.sort_by_key(|key| row_key(&self.cluster.table("kv"), &[*key]));
        keys.iter().map(|key| format!("v{key}")).collect()
    }

    async fn check(&self) {
        assert_eq!(self.scan_left().await, self.expect(false));
        assert_eq!(self.scan_right().await, self.expect(true));
    }
}

#[test]
fn each_row_and_each_command_is_on_its_side() {
    simulate(|| async {
        let mut halves = Halves::new().await;
        let moved = (0..).find(|key| halves.is_right(*key)).unwrap();
        let put = halves.cluster.put("kv", &[moved], &format!("v{moved}"));
        let command = halves.cluster.request(vec![put]);
        let first = halves.cluster.write_as(command.clone()).await.unwrap();
        halves.divide().await;
        // Also when the answer was lost.
        halves.divide().await;
        let leader = halves.cluster.leaseholder().await;
        let refused = halves.cluster.tablet(leader).write(command.clone()).await;
        assert!(matches!(refused, Err(TabletError::StaleRoute(_))));
        for id in 1..=3 {
            halves.open_right(id).await;
        }
        halves.check().await;
        // The right half remembers what it was asked before.
        let again = halves.write_right(halves.on_right(command)).await;
        assert_eq!(again.commit_timestamp, first.commit_timestamp);
        let put = halves.cluster.put("kv", &[moved], "new");
        let write = halves.on_right(halves.cluster.request(vec![put]));
        let newer = halves.write_right(write).await;
        assert!(newer.commit_timestamp > first.commit_timestamp);
    });
}

#[test]
fn the_left_half_remembers_commits_and_both_what_is_refused() {
    simulate(|| async {
        let mut halves = Halves::new().await;
        let (left, right) = (halves.key(false), halves.key(true));
        let began = halves.cluster.nodes[&1].clock.now().unwrap().earliest;
        let kept = |key: i64| TabletWrite {
            is_kept: true,
            ..halves
                .cluster
                .request(vec![halves.cluster.put("kv", &[key], &format!("v{key}"))])
        };
        let (written, refused) = (kept(right), [kept(left), kept(right)]);
        let recall = |write: &TabletWrite, epoch| TabletStep {
            tablet: TABLET,
            epoch: PlacementEpoch(epoch),
            schema: write.schema,
            patience_ms: 2_000,
            step: Step::Recall {
                kept_as: write.command,
                began,
                refuses: true,
            },
        };
        let committed = halves.cluster.write_as(written.clone()).await.unwrap();
        let committed = Ending::Committed(committed.commit_timestamp.unwrap());
        let leader = halves.cluster.leaseholder().await;
        let tablet = halves.cluster.tablet(leader);
        for write in &refused {
            let answer = tablet.step(recall(write, 1)).await;
            assert_eq!(answer, Ok(Stepped::Ended(Ending::Aborted)));
        }
        halves.divide().await;
        // Who does not know of the division yet would not ask the other half.
        let stale = tablet.step(recall(&written, 1)).await;
        assert!(
            matches!(stale, Err(TabletError::StaleRoute(_))),
            "{stale:?}"
        );
        for id in 1..=3 {
            halves.open_right(id).await;
        }
        let known = tablet.step(recall(&written, 2)).await;
        assert_eq!(known, Ok(Stepped::Ended(committed)));
        let outcome = halves.cluster.write_as(refused[0].clone()).await;
        assert!(
            matches!(outcome, Err(Error::Retry(Retry::Aborted(_)))),
            "{outcome:?}"
        );
        let late = halves.on_right(refused[1].clone());
        let outcome = loop {
            let mut last = None;
            for tablet in halves.right.values() {
                match tablet.write(late.clone()).await {
                    Err(
                        TabletError::NotLeaseholder { .. }
                        | TabletError::Api(Error::Retry(
                            Retry::NoLeader { .. } | Retry::NotServing(_),
                        )),
                    ) => {}
                    outcome => last = Some(outcome),
                }
            }
            match last {
                Some(outcome) => break outcome,
                None => sleep(Duration::from_millis(20)).await,
            }
        };
        assert!(
            matches!(
                outcome,
                Err(TabletError::Api(Error::Retry(Retry::Aborted(_))))
            ),
            "{outcome:?}"
        );
        halves.check().await;
    });
}

#[test]
fn a_half_is_made_again_after_a_crash_and_only_once() {
    simulate(|| async {
        let mut halves = Halves::new().await;
        halves.divide().await;
        // One has made its half, one has only heard of the split, one nothing; none has flushed by itself.
        let leader = halves.cluster.leaseholder().await;
        assert_eq!(halves.seed(leader).await, Seeded::Done);
        for id in 1..=3 {
            halves.cluster.crash(id);
        }
        halves.cluster.start_all().await;
        for id in 1..=3 {
            if id == leader {
                // It is there, and is not made anew over what may have been written to it.
                assert_eq!(halves.seed(id).await, Seeded::NotYet);
                halves.continue_right(id).await;
            } else {
                halves.open_right(id).await;
            }
        }
        halves.check().await;
        for id in 1..=3 {
            halves.cluster.crash(id);
        }
        halves.cluster.start_all().await;
        for id in 1..=3 {
            halves.continue_right(id).await;
        }
        halves.check().await;
    });
}

#[test]
fn who_was_sent_the_left_half_makes_the_right_one_from_it() {
    simulate(|| async {
        let mut halves = Halves::new().await;
        halves.cluster.leaseholder().await;
        let leader = halves.cluster.leaseholder().await;
        let behind = (1..=3).find(|id| *id != leader).unwrap();
        halves.cluster.crash(behind);
        halves.divide().await;
        for round in 0..300 {
            let key = (0..).find(|key| !halves.is_right(*key)).unwrap();
            let put = halves.cluster.put("kv", &[key], &format!("v{key}"));
            halves.cluster.write(vec![put]).await.unwrap();
            if round % 50 == 0 {
                halves.cluster.flush();
                sleep(Duration::from_secs(1)).await;
            }
        }
        sleep(Duration::from_secs(5)).await;
        halves.cluster.start(behind).await;
        halves.open_right(behind).await;
        let other = (1..=3).find(|id| *id != leader && *id != behind).unwrap();
        halves.open_right(other).await;
        halves.check().await;
    });
}

#[test]
fn what_has_moved_goes_when_it_is_settled() {
    simulate(|| async {
        let mut halves = Halves::new().await;
        halves.divide().await;
        for id in 1..=3 {
            halves.open_right(id).await;
        }
        halves.check().await;
        let leader = halves.cluster.leaseholder().await;
        let right = halves.cluster.tablet(leader).division().unwrap();
        halves.cluster.tablet(leader).settle(&right).await;
        sleep(Duration::from_secs(60)).await;
        for id in 1..=3 {
            assert_eq!(halves.cluster.tablet(id).division(), None);
            assert_eq!(halves.seed(id).await, Seeded::Settled);
        }
        // The store drops what it was told to forget with its next flush.
        let key = (0..).find(|key| !halves.is_right(*key)).unwrap();
        let put = halves.cluster.put("kv", &[key], &format!("v{key}"));
        halves.cluster.write(vec![put]).await.unwrap();
        halves.cluster.flush();
        sleep(Duration::from_secs(2)).await;
        let node = &halves.cluster.nodes[&leader];
        let store = node.stores.as_ref().unwrap();
        let store = store
            .open(
                halves
                    .cluster
                    .descriptor()
                    .replica_on(NodeId(leader))
                    .unwrap()
                    .id,
            )
            .unwrap();
        assert_ne!(store.applied(), Applied::default());
        let rows =
            |start: &[u8], end: &[u8]| store.scan(start, Some(end), &store.snapshot()).count();
        let cut = [&[1], halves.plan.at.as_slice()].concat();
        assert!(rows(&[1], &cut) > 0);
        assert_eq!(rows(&cut, &[2]), 0);
        halves.check().await;
    });
}

#[test]
fn a_promise_made_before_the_split_binds_the_right_half() {
    simulate(|| async {
        let mut halves = Halves::new().await;
        let moved = (0..).find(|key| halves.is_right(*key)).unwrap();
        let key = row_key(&halves.cluster.table("kv"), &[moved]);
        let read =
            halves
                .cluster
                .read_request("kv", Selection::Keys(vec![key]), api::ReadBound::Strong);
        let shown = halves.cluster.read_as(read.clone()).await.unwrap();
        halves.divide().await;
        for id in 1..=3 {
            halves.open_right(id).await;
            let refused = halves.cluster.tablet(id).read(read.clone()).await;
            assert!(matches!(
                refused,
                Err(TabletError::StaleRoute(_) | TabletError::NotLeaseholder { .. })
            ));
        }
        let put = halves.cluster.put("kv", &[moved], "new");
        let write = halves.on_right(halves.cluster.request(vec![put]));
        let written = halves.write_right(write).await;
        assert!(written.commit_timestamp > shown.timestamp);
        // A plan that was carried out long ago changes nothing.
        let leader = halves.cluster.leaseholder().await;
        let tablet = halves.cluster.tablet(leader);
        assert_eq!(tablet.split(halves.plan.clone()).await, Ok(()));
        let mut stale = halves.plan.clone();
        stale.right.range.end = Some(vec![0xC0]);
        stale.left.range.end = Some(vec![0x90]);
        stale.at = vec![0x90];
        let refused = tablet.split(stale).await;
        assert!(matches!(
            refused,
            Err(TabletError::Api(
                Error::Refused(_) | Error::Retry(Retry::NotServing(_))
            ))
        ));
        assert_eq!(halves.cluster.descriptor().id, TABLET);
    });
}
