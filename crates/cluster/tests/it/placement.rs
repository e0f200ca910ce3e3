//! Where replicas go, and the steps by which a growing cluster gets there.

use crate::story::{Story, create_table, profile, replication};
use catalog::{Partitioning, Protocol};
use cluster::{Command, META, Step, plan, ring};
use model::{NodeId, TableId};
use std::collections::{BTreeMap, BTreeSet};

/// Carries out the plan until there is nothing to do; learners are filled at once.
fn settle(story: &mut Story) -> Vec<String> {
    let mut told = Vec::new();
    for _ in 0..1_000 {
        let steps = plan(&story.state, &|_| true, 1);
        let Some(step) = steps.into_iter().next() else {
            return told;
        };
        let command = match step {
            Step::Propose(command) => command,
            Step::Fill { tablet, replica } => Command::Promote {
                tablet,
                replica: replica.id,
            },
            Step::Divide(split) => Command::FinishSplit {
                tablet: split.left.id,
                right: split.right.id,
            },
        };
        told.push(story.tell(command));
    }
    panic!("the plan has no end");
}

fn meta(story: &Story) -> String {
    let meta = story.state.tablet(META).unwrap();
    let nodes: Vec<String> = meta
        .replicas
        .iter()
        .map(|replica| match replica.is_learner {
            true => format!("({})", replica.node),
            false => replica.node.to_string(),
        })
        .collect();
    nodes.join(" ")
}

#[test]
fn the_meta_group_and_the_tables_grow_with_the_third_node() {
    let mut story = Story::founded();
    let table = story.create("t", Partitioning::Range, 0);
    settle(&mut story);
    assert_eq!(meta(&story), "n1");
    assert_eq!(story.tablets(table), "t1 p1 n1");
    story.join(profile(2, "east", "r2"));
    settle(&mut story);
    assert_eq!(meta(&story), "n1 (n2)");
    assert_eq!(story.tablets(table), "t1 p1 n1");
    story.join(profile(3, "east", "r3"));
    settle(&mut story);
    assert_eq!(meta(&story), "n1 n2 n3");
    assert_eq!(story.tablets(table), "t1 p5 n1 n2 n3");
    story.join(profile(4, "east", "r4"));
    assert_eq!(settle(&mut story), Vec::<String>::new());
}

#[test]
fn dead_nodes_get_no_replicas_and_stop_nothing_else() {
    let mut story = Story::founded();
    let table = story.create("t", Partitioning::Range, 0);
    story.join(profile(2, "east", "r2"));
    story.join(profile(3, "east", "r3"));
    let steps = plan(&story.state, &|node| node != NodeId(3), 10);
    let nodes: Vec<_> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Propose(Command::AddReplica { tablet, node, .. }) => Some((tablet.0, node.0)),
            _ => None,
        })
        .collect();
    assert_eq!(nodes, [(0, 2), (1, 2)]);
    assert_eq!(story.tablets(table), "t1 p1 n1");
}

#[test]
fn new_tables_are_spread_evenly() {
    let mut story = Story::with_nodes(5);
    let mut tables = Vec::new();
    for number in 0..10 {
        tables.push(story.create(&format!("t{number}"), Partitioning::Hash, 3));
    }
    let mut counts: BTreeMap<NodeId, u32> = BTreeMap::new();
    for tablet in tables
        .iter()
        .flat_map(|table| story.state.tablets_of(*table))
    {
        assert_eq!(tablet.replicas.len(), 3);
        for replica in &tablet.replicas {
            *counts.entry(replica.node).or_default() += 1;
        }
    }
    let (least, most) = (
        counts.values().min().unwrap(),
        counts.values().max().unwrap(),
    );
    assert_eq!(counts.values().sum::<u32>(), 240);
    assert!(most - least <= 2, "{counts:?}");
}

fn nodes_of(story: &Story, table: TableId) -> BTreeSet<NodeId> {
    let tablets = story.state.tablets_of(table);
    let replicas = tablets.iter().flat_map(|tablet| tablet.replicas.iter());
    replicas.map(|replica| replica.node).collect()
}

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

#[test]
fn a_smaller_factor_takes_no_replicas_away() {
    let mut story = Story::with_nodes(3);
    settle(&mut story);
    let table = story.create("t", Partitioning::Range, 0);
    assert_eq!(story.tablets(table), "t1 p1 n1 n2 n3");
    let set = |value| Command::Set {
        name: "replication_factor".into(),
        value,
    };
    story.tell(set(1));
    assert_eq!(settle(&mut story), Vec::<String>::new());
    let other = story.create("other", Partitioning::Range, 0);
    assert_eq!(nodes_of(&story, other).len(), 1);
    assert!(story.try_tell(set(0)).is_err());
}

#[test]
fn a_strong_tablet_gets_two_learners_before_a_second_voter() {
    let mut story = Story::founded();
    let table = story.create("t", Partitioning::Range, 0);
    for number in 2..=3 {
        story.join(profile(number, "east", &format!("r{number}")));
    }
    let is_alive = |node| node != NodeId(3);
    for _ in 0..10 {
        for step in plan(&story.state, &is_alive, 10) {
            if let Step::Propose(command) = step {
                story.tell(command);
            }
        }
    }
    // The third node is down: two voters would be worse than one.
    assert_eq!(story.tablets(table), "t1 p2 n1 (n2)");
    settle(&mut story);
    assert_eq!(story.tablets(table), "t1 p5 n1 n2 n3");
}

#[test]
fn an_eventual_learner_whose_node_dies_is_given_up() {
    let mut story = Story::founded();
    let change = create_table("t", Partitioning::Range, replication(Protocol::Eventual, 0));
    story.tell(Command::Catalog {
        change,
        avoid: Vec::new(),
    });
    let table = story.state.catalog().table_by_name("shop", "t").unwrap().id;
    for number in 2..=3 {
        story.join(profile(number, "east", &format!("r{number}")));
    }
    let tablet = story.state.tablets_of(table)[0].id;
    let (epoch, node) = (model::PlacementEpoch(1), NodeId(3));
    story.tell(Command::AddReplica {
        tablet,
        epoch,
        node,
    });
    assert_eq!(story.tablets(table), "t1 p2 n1 (n3)");
    for step in plan(&story.state, &|node| node != NodeId(3), 10) {
        if let Step::Propose(command) = step {
            story.tell(command);
        }
    }
    assert_eq!(story.tablets(table), "t1 p3 n1");
}

#[test]
fn the_ring_has_distinct_tokens_and_an_owner_for_each() {
    for count in [1, 3, 12] {
        let story = Story::with_nodes(count);
        let ring = ring(&story.state);
        assert_eq!(ring.len(), usize::from(count));
        let tokens: Vec<i64> = ring.values().flatten().copied().collect();
        let distinct: BTreeSet<i64> = tokens.iter().copied().collect();
        assert_eq!(tokens.len(), distinct.len());
        assert_eq!(*distinct.last().unwrap(), i64::MAX);
        assert!(ring.values().all(|tokens| !tokens.is_empty()));
    }
}
