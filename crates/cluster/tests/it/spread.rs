//! Copies stand apart: in different data centres, and in different racks of one; and who is dead goes first.

use crate::placement::{nodes_of, places, settle};
use crate::story::{Story, create_table, profile, replication};
use catalog::{Partitioning, Protocol};
use cluster::{Command, Liveness, Step, plan};
use model::{NodeId, PlacementEpoch};
use std::collections::BTreeMap;

#[test]
fn racks_and_data_centers_are_kept_apart() {
    let mut story = Story::founded();
    for (number, data_center, rack) in [
        (2, "east", "r1"),
        (3, "east", "r2"),
        (4, "west", "r1"),
        (5, "west", "r2"),
    ] {
        story.join(profile(number, data_center, rack));
    }
    let mut by_center = replication(Protocol::Eventual, 0);
    by_center.factor_by_data_center = BTreeMap::from([("east".into(), 2), ("west".into(), 1)]);
    story.tell(Command::Catalog {
        change: create_table("t", Partitioning::Range, by_center),
        avoid: vec![NodeId(4)],
    });
    let table = story.state.catalog().table_by_name("shop", "t").unwrap().id;
    let nodes = nodes_of(&story, table);
    // Two racks of the east, and the one node of the west that is not avoided.
    assert!(nodes.contains(&NodeId(3)), "{nodes:?}");
    assert!(nodes.contains(&NodeId(5)), "{nodes:?}");
    assert_eq!(nodes.len(), 3);
}

/// Where no data centre is named, copies stand in as many as they can, and move there when nodes come.
#[test]
fn copies_move_apart_when_there_are_nodes_for_that() {
    let mut story = Story::with_nodes(3);
    settle(&mut story);
    let table = story.create("t", Partitioning::Hash, 0);
    assert_eq!(places(&story, table), vec![vec![1, 2, 3]; 8]);
    for (number, center) in [(4, "west"), (5, "north")] {
        story.join(profile(number, center, "r1"));
    }
    settle(&mut story);
    for nodes in places(&story, table) {
        assert!(nodes.contains(&4) && nodes.contains(&5), "{nodes:?}");
    }
    let other = story.create("other", Partitioning::Hash, 0);
    for nodes in places(&story, other) {
        assert!(nodes.contains(&4) && nodes.contains(&5), "{nodes:?}");
    }
    assert_eq!(settle(&mut story), Vec::<String>::new());
    // The same with racks of one data centre.
    let mut story = Story::founded();
    for number in 2..=3 {
        story.join(profile(number, "east", "r1"));
    }
    let table = story.create("t", Partitioning::Hash, 0);
    settle(&mut story);
    story.join(profile(4, "east", "r4"));
    settle(&mut story);
    assert!(places(&story, table).iter().all(|nodes| nodes.contains(&4)));
    assert_eq!(settle(&mut story), Vec::<String>::new());
}

#[test]
fn a_move_that_a_death_overtakes_leaves_those_who_live() {
    let mut story = Story::with_nodes(4);
    settle(&mut story);
    let table = story.create("t", Partitioning::Range, 0);
    let tablet = story.state.tablets_of(table)[0].id;
    story.tell(Command::AddReplica {
        tablet,
        epoch: PlacementEpoch(1),
        node: NodeId(4),
    });
    let replica = story.state.tablets_of(table)[0].replicas[3].id;
    story.tell(Command::Promote { tablet, replica });
    for dead in 1..=4 {
        let is_alive = move |node: NodeId| node.0 != dead;
        let nodes = Liveness {
            is_alive: &is_alive,
            is_lost: &|_| false,
        };
        let steps = plan(&story.state, &nodes, 100);
        let [Step::Propose(Command::Retire { replica, .. })] = steps[..] else {
            panic!("{steps:?}");
        };
        let node = story
            .state
            .tablet(tablet)
            .and_then(|it| it.replica(replica));
        assert_eq!(node.unwrap().node, NodeId(dead));
    }
}
