//! The story of a group, one test a chapter.

use crate::cluster::{Cluster, Journal, TABLET, member, simulate};
use consensus::{ChangeMembers, GroupSpec, Origin, ProposeError, Role};
use model::{ReplicaId, TabletId};
use std::time::Duration;
use tokio::time::{Instant, sleep};

fn texts(contents: Vec<(u64, String)>) -> Vec<String> {
    contents.into_iter().map(|(_, text)| text).collect()
}

#[test]
fn a_lone_voter_leads_at_once_and_one_sync_acknowledges() {
    simulate(|| async {
        let mut cluster = Cluster::new(1);
        let begun = Instant::now();
        cluster.start(1, Origin::Founded(vec![member(1)])).await;
        cluster.propose("a").await;
        assert!(
            begun.elapsed() < Duration::from_millis(50),
            "{:?}",
            begun.elapsed()
        );
        cluster.crash(1);
        let begun = Instant::now();
        cluster.start(1, Origin::Joining).await;
        cluster.propose("b").await;
        assert!(
            begun.elapsed() < Duration::from_millis(50),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(texts(cluster.contents(1)), ["a", "b"]);
    });
}

#[test]
fn three_agree_and_survive_the_crash_of_each() {
    simulate(|| async {
        let mut cluster = Cluster::new(3);
        cluster.found().await;
        let mut expected = Vec::new();
        for round in 0..3u64 {
            let text = format!("before {round}");
            cluster.propose(&text).await;
            expected.push(text);
            cluster.crash(round + 1);
            let text = format!("during {round}");
            cluster.propose(&text).await;
            expected.push(text);
            cluster.start(round + 1, Origin::Joining).await;
        }
        assert_eq!(texts(cluster.agree(&[1, 2, 3]).await), expected);
    });
}

#[test]
fn a_new_group_has_a_leader_without_waiting_for_a_timeout() {
    simulate(|| async {
        let mut cluster = Cluster::new(3);
        let begun = Instant::now();
        cluster.found().await;
        cluster.propose("a").await;
        assert!(
            begun.elapsed() < Duration::from_millis(400),
            "{:?}",
            begun.elapsed()
        );
    });
}

#[test]
fn an_isolated_leader_loses_what_it_could_not_replicate() {
    simulate(|| async {
        let mut cluster = Cluster::new(3);
        cluster.found().await;
        cluster.propose("kept").await;
        let old = cluster.leader().await;
        cluster.isolate(old);
        let lost = cluster.groups(old).propose(TABLET, b"lost".to_vec());
        sleep(Duration::from_secs(5)).await;
        let status = cluster.groups(old).status(TABLET).unwrap();
        assert_ne!(status.role, Role::Leader);
        cluster.propose("after").await;
        cluster.heal();
        assert_eq!(lost.await, Err(ProposeError::Dropped));
        let refused = cluster.groups(old).propose(TABLET, b"x".to_vec()).await;
        assert!(
            matches!(refused, Err(ProposeError::NotLeader { .. })),
            "{refused:?}"
        );
        assert_eq!(texts(cluster.agree(&[1, 2, 3]).await), ["kept", "after"]);
    });
}

#[test]
fn a_proposal_that_commits_after_leadership_was_lost_is_known_to_be_applied() {
    simulate(|| async {
        let mut cluster = Cluster::new(3);
        cluster.found().await;
        cluster.propose("first").await;
        let old = cluster.leader().await;
        // Its appends arrive, the answers do not.
        for other in 1..=3 {
            if other != old {
                cluster.cut(other, old);
            }
        }
        let proposed = cluster.groups(old).propose(TABLET, b"late".to_vec());
        sleep(Duration::from_millis(20)).await;
        cluster.isolate(old);
        sleep(Duration::from_secs(4)).await;
        cluster.heal();
        let done = proposed.await.unwrap();
        assert_eq!(done.result, b"late".as_slice());
        assert_eq!(texts(cluster.agree(&[1, 2, 3]).await), ["first", "late"]);
    });
}

#[test]
fn a_laggard_is_sent_the_state_and_its_log_begins_behind_it() {
    simulate(|| async {
        let mut cluster = Cluster::new(3);
        cluster.found().await;
        cluster.propose("first").await;
        let leader = cluster.leader().await;
        let laggard = leader % 3 + 1;
        cluster.crash(laggard);
        let big = "x".repeat(20_000);
        for number in 0..100 {
            cluster.propose(&format!("{number} {big}")).await;
        }
        for node in cluster.nodes.values() {
            if let Some(stores) = &node.stores {
                for (replica, _) in stores.list().unwrap() {
                    stores.open(replica).unwrap().request_flush();
                }
            }
        }
        sleep(Duration::from_secs(5)).await;
        cluster.propose("wakes").await;
        sleep(Duration::from_secs(3)).await;
        let first = cluster.groups(leader).status(TABLET).unwrap().first_index;
        assert!(first > 80, "the log was not cut: {first}");
        cluster.start(laggard, Origin::Joining).await;
        let contents = cluster.agree(&[1, 2, 3]).await;
        assert_eq!(contents.len(), 102);
        let status = cluster.groups(laggard).status(TABLET).unwrap();
        assert!(status.first_index > 80);
        // And it survives a restart.
        cluster.crash(laggard);
        cluster.start(laggard, Origin::Joining).await;
        cluster.propose("last").await;
        assert_eq!(cluster.agree(&[1, 2, 3]).await.len(), 103);
    });
}

#[test]
fn members_come_and_go_one_step_at_a_time() {
    simulate(|| async {
        let mut cluster = Cluster::new(3);
        cluster.start(1, Origin::Founded(vec![member(1)])).await;
        cluster.propose("alone").await;
        for id in 2..=3 {
            cluster.start(id, Origin::Joining).await;
            let groups = cluster.groups(1);
            let learner = consensus::Member {
                is_learner: true,
                ..member(id)
            };
            groups
                .change_members(TABLET, ChangeMembers::AddLearner(learner))
                .await
                .unwrap();
            let caught_up = groups.wait_for(TABLET, |status| {
                status
                    .matched
                    .iter()
                    .any(|(replica, index)| *replica == learner.replica && *index > 1)
            });
            if tokio::time::timeout(Duration::from_secs(20), caught_up)
                .await
                .is_err()
            {
                panic!(
                    "{:#?} {:#?}",
                    groups.statuses(),
                    cluster.groups(id).statuses()
                );
            }
            groups
                .change_members(TABLET, ChangeMembers::AddVoter(member(id)))
                .await
                .unwrap();
        }
        cluster.propose("three").await;
        assert_eq!(texts(cluster.agree(&[1, 2, 3]).await), ["alone", "three"]);
        // Another leads, and the founder leaves.
        cluster.groups(1).transfer_leadership(TABLET, ReplicaId(20));
        cluster
            .groups(2)
            .wait_for(TABLET, |status| status.role == Role::Leader)
            .await
            .unwrap();
        cluster
            .groups(2)
            .change_members(TABLET, ChangeMembers::Remove(ReplicaId(10)))
            .await
            .unwrap();
        cluster.crash(1);
        cluster.propose("two").await;
        for id in 2..=3 {
            cluster.crash(id);
            cluster.start(id, Origin::Joining).await;
        }
        cluster.propose("again").await;
        let contents = cluster.agree(&[2, 3]).await;
        assert_eq!(texts(contents), ["alone", "three", "two", "again"]);
        let members = cluster.groups(2).status(TABLET).unwrap().members;
        assert_eq!(members, [member(2), member(3)]);
    });
}

#[test]
fn a_quiet_group_says_nothing_and_still_notices_its_leaders_death() {
    simulate(|| async {
        let mut cluster = Cluster::new(3);
        cluster.found().await;
        cluster.propose("a").await;
        sleep(Duration::from_secs(10)).await;
        let leader = cluster.leader().await;
        for id in 1..=3 {
            assert!(cluster.groups(id).status(TABLET).unwrap().is_hibernating);
        }
        let before = cluster.frames();
        sleep(Duration::from_secs(10)).await;
        // Six pairs of nodes, one sign of life every 200 ms.
        assert!(
            cluster.frames() - before <= 6 * 51,
            "{}",
            cluster.frames() - before
        );
        cluster.crash(leader);
        sleep(Duration::from_secs(4)).await;
        assert_ne!(cluster.leader().await, leader);
        cluster.propose("b").await;
        cluster.start(leader, Origin::Joining).await;
        assert_eq!(texts(cluster.agree(&[1, 2, 3]).await), ["a", "b"]);
    });
}

#[test]
fn a_sleeping_leader_confirms_itself_without_an_entry_and_all_sleep_on() {
    simulate(|| async {
        let mut cluster = Cluster::new(3);
        cluster.found().await;
        cluster.propose("a").await;
        let leader = cluster.leader().await;
        let status = |node: u64| cluster.groups(node).status(TABLET).unwrap();
        let sleeps = |node: u64| status(node).is_hibernating;
        sleep(Duration::from_secs(10)).await;
        assert!((1..=3).all(sleeps));
        let before = status(leader);
        let confirmed = cluster.groups(leader).confirm(TABLET).await.unwrap();
        assert_eq!(
            (confirmed.term, confirmed.index),
            (before.term, before.applied)
        );
        assert_eq!(status(leader).last_index, before.last_index);
        sleep(Duration::from_secs(1)).await;
        assert!((1..=3).all(sleeps));
        let other = leader % 3 + 1;
        let refused = cluster.groups(other).confirm(TABLET).await;
        assert!(
            matches!(refused, Err(ProposeError::NotLeader { .. })),
            "{refused:?}"
        );
        // One of the two others is enough.
        cluster.crash(other);
        cluster.groups(leader).confirm(TABLET).await.unwrap();
    });
}

#[test]
fn a_leader_that_others_have_replaced_in_its_sleep_confirms_nothing() {
    simulate(|| async {
        let mut cluster = Cluster::new(3);
        cluster.found().await;
        cluster.propose("a").await;
        sleep(Duration::from_secs(10)).await;
        let old = cluster.leader().await;
        cluster.isolate(old);
        let asked = {
            let groups = cluster.groups(old).clone();
            tokio::spawn(async move { groups.confirm(TABLET).await })
        };
        sleep(Duration::from_secs(5)).await;
        cluster.propose("b").await;
        cluster.heal();
        let refused = asked.await.unwrap();
        assert!(
            matches!(refused, Err(ProposeError::NotLeader { .. })),
            "{refused:?}"
        );
    });
}

#[test]
fn what_was_proposed_before_a_confirmation_is_applied_with_it() {
    simulate(|| async {
        let mut cluster = Cluster::new(3);
        cluster.found().await;
        cluster.propose("a").await;
        let leader = cluster.leader().await;
        let proposed = cluster.groups(leader).propose(TABLET, b"b".to_vec());
        let confirmed = cluster.groups(leader).confirm(TABLET).await.unwrap();
        assert!(confirmed.index >= proposed.await.unwrap().index);
    });
}

#[test]
fn a_restarted_leader_of_a_quiet_group_does_not_leave_it_without_one() {
    simulate(|| async {
        let mut cluster = Cluster::new(3);
        cluster.found().await;
        cluster.propose("a").await;
        sleep(Duration::from_secs(10)).await;
        let leader = cluster.leader().await;
        cluster.crash(leader);
        cluster.start(leader, Origin::Joining).await;
        let begun = Instant::now();
        cluster.propose("b").await;
        assert!(
            begun.elapsed() < Duration::from_secs(4),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(texts(cluster.agree(&[1, 2, 3]).await), ["a", "b"]);
    });
}

#[test]
fn an_installation_cut_short_is_begun_again() {
    simulate(|| async {
        let mut cluster = Cluster::new(3);
        cluster.found().await;
        cluster.propose("a").await;
        let leader = cluster.leader().await;
        let broken = leader % 3 + 1;
        {
            let stores = cluster.nodes[&broken].stores.clone().unwrap();
            drop(stores.begin_install(member(broken).replica).unwrap());
        }
        cluster.crash(broken);
        cluster.propose("b").await;
        cluster.start(broken, Origin::Joining).await;
        assert_eq!(
            cluster.groups(broken).status(TABLET).unwrap().role,
            Role::Broken
        );
        cluster.propose("c").await;
        assert_eq!(texts(cluster.agree(&[1, 2, 3]).await), ["a", "b", "c"]);
    });
}

#[test]
fn a_thousand_groups_share_the_loop() {
    simulate(|| async {
        let mut cluster = Cluster::new(3);
        let members: Vec<_> = (1..=3).map(member).collect();
        for id in 1..=3 {
            let groups = cluster.start_node(id);
            let stores = cluster.nodes[&id].stores.clone().unwrap();
            for tablet in 0..300u64 {
                let members = members
                    .iter()
                    .map(|member| consensus::Member {
                        replica: ReplicaId(member.replica.0 * 1_000 + tablet),
                        ..*member
                    })
                    .collect();
                let replica = ReplicaId(id * 10_000 + tablet);
                groups
                    .create(GroupSpec {
                        tablet: TabletId(tablet),
                        replica,
                        origin: Origin::Founded(members),
                        machine: Box::new(Journal::open(stores.clone(), replica)),
                    })
                    .await
                    .unwrap();
            }
        }
        sleep(Duration::from_secs(10)).await;
        let statuses = cluster.groups(1).statuses();
        assert_eq!(statuses.len(), 300);
        assert!(statuses.iter().all(|status| status.is_hibernating));
        let leads = statuses
            .iter()
            .filter(|status| status.role == Role::Leader)
            .count();
        assert!((50..=150).contains(&leads), "leaders are uneven: {leads}");
        let before = cluster.frames();
        sleep(Duration::from_secs(10)).await;
        assert!(cluster.frames() - before <= 6 * 51);
    });
}

#[test]
fn a_group_grown_from_one_elects_another_when_its_founder_dies_in_its_sleep() {
    simulate(|| async {
        let mut cluster = Cluster::new(3);
        cluster.start(1, Origin::Founded(vec![member(1)])).await;
        cluster.propose("alone").await;
        for id in 2..=3 {
            cluster.start(id, Origin::Joining).await;
            grow(&cluster, id).await;
        }
        sleep(Duration::from_secs(10)).await;
        for id in 1..=3 {
            assert!(cluster.groups(id).status(TABLET).unwrap().is_hibernating);
        }
        cluster.crash(1);
        sleep(Duration::from_secs(5)).await;
        cluster.propose("without it").await;
        assert_eq!(texts(cluster.agree(&[2, 3]).await), ["alone", "without it"]);
    });
}

async fn grow(cluster: &Cluster, id: u64) {
    let groups = cluster.groups(1);
    let learner = consensus::Member {
        is_learner: true,
        ..member(id)
    };
    groups
        .change_members(TABLET, ChangeMembers::AddLearner(learner))
        .await
        .unwrap();
    groups
        .wait_for(TABLET, |status| {
            status
                .matched
                .iter()
                .any(|(replica, index)| *replica == learner.replica && *index > 1)
        })
        .await
        .unwrap();
    groups
        .change_members(TABLET, ChangeMembers::AddVoter(member(id)))
        .await
        .unwrap();
}

#[test]
fn a_founder_that_forgot_its_commits_in_a_crash_does_not_elect_itself_alone() {
    simulate(|| async {
        let mut cluster = Cluster::new(3);
        cluster.start(1, Origin::Founded(vec![member(1)])).await;
        cluster.propose("alone").await;
        for id in 2..=3 {
            cluster.start(id, Origin::Joining).await;
            grow(&cluster, id).await;
        }
        cluster.propose("three").await;
        // Its store was never flushed: it begins with the members of the beginning.
        cluster.crash(1);
        cluster.isolate(1);
        cluster.start(1, Origin::Joining).await;
        for _ in 0..50 {
            sleep(Duration::from_millis(100)).await;
            let status = cluster.groups(1).status(TABLET).unwrap();
            assert_ne!(status.role, Role::Leader, "{status:#?}");
        }
        cluster.propose("without it").await;
        cluster.heal();
        let expected = ["alone", "three", "without it"];
        assert_eq!(texts(cluster.agree(&[1, 2, 3]).await), expected);
    });
}
