//! Where replicas go, and the steps by which a growing cluster gets there.

use crate::story::{Story, create_table, profile, replication};
use catalog::{Partitioning, Protocol};
use cluster::{Command, Liveness, META, Refusal, Replica, Step, plan, ring};
use model::{NodeId, PlacementEpoch, TableId, TabletId};
use std::collections::{BTreeMap, BTreeSet};

const ALL_ALIVE: Liveness<'static> = Liveness {
    is_alive: &|_| true,
    is_lost: &|_| false,
};

/// Carries out the plan until there is nothing to do; learners are filled at once.
pub fn settle(story: &mut Story) -> Vec<String> {
    let mut told = Vec::new();
    for _ in 0..1_000 {
        let steps = plan(&story.state, &ALL_ALIVE, 1);
        let Some(step) = steps.into_iter().next() else {
            return told;
        };
        let command = match step {
            Step::Propose(command) => command,
            Step::Fill { tablet, replica } => Command::Promote {
                tablet,
                replica: replica.id,
            },
            Step::TakeOver {
                tablet, leaving, ..
            }
            | Step::LetGo { tablet, leaving } => Command::RemoveReplica {
                tablet,
                epoch: story.state.tablet(tablet).unwrap().epoch,
                replica: leaving.id,
            },
            Step::Divide(split) => Command::FinishSplit {
                tablet: split.left.id,
                right: split.right.id,
            },
            Step::Settle(split) => Command::SettleSplit {
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
    let nodes = Liveness {
        is_alive: &|node| node != NodeId(3),
        is_lost: &|_| false,
    };
    let steps = plan(&story.state, &nodes, 10);
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

pub fn nodes_of(story: &Story, table: TableId) -> BTreeSet<NodeId> {
    let tablets = story.state.tablets_of(table);
    let replicas = tablets.iter().flat_map(|tablet| tablet.replicas.iter());
    replicas.map(|replica| replica.node).collect()
}

#[test]
fn a_smaller_factor_takes_replicas_away_one_by_one() {
    let mut story = Story::with_nodes(3);
    settle(&mut story);
    let table = story.create("t", Partitioning::Range, 0);
    assert_eq!(story.tablets(table), "t1 p1 n1 n2 n3");
    let set = |value| Command::Set {
        name: "replication_factor".into(),
        value,
    };
    story.tell(set(1));
    assert_eq!(settle(&mut story).len(), 4);
    assert_eq!(story.tablets(table).split(' ').count(), 3);
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
    let nodes = Liveness {
        is_alive: &|node| node != NodeId(3),
        is_lost: &|_| false,
    };
    for _ in 0..10 {
        for step in plan(&story.state, &nodes, 10) {
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
    let nodes = Liveness {
        is_alive: &|node| node != NodeId(3),
        is_lost: &|_| false,
    };
    for step in plan(&story.state, &nodes, 10) {
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

/// Tablets as `id: nodes`, to be compared at a glance.
pub fn places(story: &Story, table: TableId) -> Vec<Vec<u64>> {
    let tablets = story.state.tablets_of(table);
    let nodes = |tablet: &&std::sync::Arc<cluster::Tablet>| {
        let replicas = tablet.replicas.iter();
        replicas.map(|replica| replica.node.0).collect()
    };
    tablets.iter().map(nodes).collect()
}

fn remove(story: &Story, tablet: TabletId, leaving: Replica) -> Command {
    Command::RemoveReplica {
        tablet,
        epoch: story.state.tablet(tablet).unwrap().epoch,
        replica: leaving.id,
    }
}

fn decommission(node: u64, successor: Option<u64>) -> Command {
    Command::Decommission {
        node: NodeId(node),
        successor: successor.map(NodeId),
    }
}

#[test]
fn a_node_that_leaves_is_drained_by_gaining_before_losing() {
    let mut story = Story::with_nodes(3);
    settle(&mut story);
    let strong = story.create("s", Partitioning::Range, 0);
    // Nobody could keep the third copy.
    assert!(story.try_tell(decommission(2, None)).is_err());
    for number in 4..=5 {
        story.join(profile(number, "east", &format!("r{number}")));
    }
    settle(&mut story);
    story.tell(decommission(2, Some(5)));
    let mut fewest = 3;
    for _ in 0..100 {
        let Some(step) = plan(&story.state, &ALL_ALIVE, 1).into_iter().next() else {
            break;
        };
        let command = match step {
            Step::Propose(command) => command,
            Step::Fill { tablet, replica } => Command::Promote {
                tablet,
                replica: replica.id,
            },
            Step::LetGo { tablet, leaving } => remove(&story, tablet, leaving),
            other => panic!("{other:?}"),
        };
        story.tell(command);
        let tablet = &story.state.tablets_of(strong)[0];
        fewest = fewest.min(tablet.voters().count());
    }
    assert_eq!(fewest, 3);
    assert_eq!(places(&story, strong), [[1, 3, 5]]);
    assert_eq!(story.state.replicas_on(NodeId(2)), 0, "{}", meta(&story));
    assert_eq!(meta(&story).split(' ').count(), 3);
    // It keeps its record when it starts again, and is given nothing.
    story.create("late", Partitioning::Hash, 0);
    assert_eq!(story.state.replicas_on(NodeId(2)), 0);
    story.tell(Command::RemoveNode {
        node: NodeId(2),
        successor: None,
    });
    assert!(story.state.members().all(|node| node.id != NodeId(2)));
    assert!(story.try_tell(decommission(2, None)).is_err());
}

#[test]
fn what_a_lost_node_held_is_made_anew_and_not_before() {
    let mut story = Story::with_nodes(4);
    settle(&mut story);
    let table = story.create("t", Partitioning::Hash, 0);
    let before = places(&story, table);
    let is_alive = |node: NodeId| node != NodeId(2);
    let dead = Liveness {
        is_alive: &is_alive,
        is_lost: &|_| false,
    };
    assert_eq!(plan(&story.state, &dead, 100), []);
    let lost = Liveness {
        is_alive: &is_alive,
        is_lost: &|node| node == NodeId(2),
    };
    for _ in 0..200 {
        let steps = plan(&story.state, &lost, 1);
        let Some(step) = steps.into_iter().next() else {
            break;
        };
        let command = match step {
            Step::Propose(command) => command,
            Step::Fill { tablet, replica } => Command::Promote {
                tablet,
                replica: replica.id,
            },
            Step::LetGo { tablet, leaving } => remove(&story, tablet, leaving),
            other => panic!("{other:?}"),
        };
        story.tell(command);
    }
    for (place, was) in places(&story, table).iter().zip(before) {
        assert_eq!(place.len(), 3);
        assert!(!place.contains(&2), "{was:?} became {place:?}");
    }
}

/// The group before the map, and nothing is taken back: it may have let go already.
#[test]
fn a_strong_tablet_loses_a_replica_only_when_its_group_has_let_go_of_it() {
    let mut story = Story::with_nodes(4);
    settle(&mut story);
    let table = story.create("t", Partitioning::Range, 0);
    assert_eq!(story.tablets(table), "t1 p1 n1 n2 n3");
    let tablet = story.state.tablets_of(table)[0].id;
    let leaving = story.state.tablets_of(table)[0].replicas[1];
    let retire = |epoch| Command::Retire {
        tablet,
        epoch: PlacementEpoch(epoch),
        replica: leaving.id,
    };
    let refused = story.try_tell(remove(&story, tablet, leaving));
    assert!(matches!(refused, Err(Refusal::Invalid(_))), "{refused:?}");
    story.tell(retire(1));
    let nodes = |dead: &'static [u64]| {
        let is_alive = move |node: NodeId| !dead.contains(&node.0);
        plan(
            &story.state,
            &Liveness {
                is_alive: &is_alive,
                is_lost: &|_| false,
            },
            100,
        )
    };
    let let_go = Step::LetGo { tablet, leaving };
    assert_eq!(nodes(&[]), nodes(&[2]));
    assert_eq!(nodes(&[2]), [let_go]);
    // Without a majority a group lets go of nobody.
    assert_eq!(nodes(&[1, 2]), []);
    story.tell(Command::Promote {
        tablet,
        replica: leaving.id,
    });
    assert_eq!(story.state.tablets_of(table)[0].leaving, Some(leaving.id));
    assert!(matches!(
        story.try_tell(retire(2)),
        Err(Refusal::Invalid(_))
    ));
    story.tell(remove(&story, tablet, leaving));
    assert_eq!(story.tablets(table), "t1 p3 n1 n3");
}

#[test]
fn an_eventual_tablet_loses_a_replica_only_when_the_others_have_all_it_has() {
    let mut story = Story::with_nodes(4);
    let change = create_table("t", Partitioning::Range, replication(Protocol::Eventual, 3));
    story.tell(Command::Catalog {
        change,
        avoid: vec![NodeId(4)],
    });
    settle(&mut story);
    story.tell(decommission(2, None));
    let mut seen = Vec::new();
    for _ in 0..20 {
        let Some(step) = plan(&story.state, &ALL_ALIVE, 100)
            .into_iter()
            .find(|step| !matches!(step, Step::Propose(command) if is_of_meta(command)))
        else {
            break;
        };
        let command = match step {
            Step::Propose(command) => command,
            Step::Fill { tablet, replica } => Command::Promote {
                tablet,
                replica: replica.id,
            },
            Step::TakeOver {
                tablet, leaving, ..
            } => {
                seen.push(leaving.node);
                Command::RemoveReplica {
                    tablet,
                    epoch: story.state.tablet(tablet).unwrap().epoch,
                    replica: leaving.id,
                }
            }
            other => panic!("{other:?}"),
        };
        story.tell(command);
    }
    assert_eq!(seen, [NodeId(2)]);
    let table = table_named(&story, "t");
    assert_eq!(places(&story, table), [[1, 3, 4]]);
}

fn table_named(story: &Story, name: &str) -> TableId {
    story
        .state
        .catalog()
        .table_by_name("shop", name)
        .unwrap()
        .id
}

fn is_of_meta(command: &Command) -> bool {
    match command {
        Command::AddReplica { tablet, .. }
        | Command::RemoveReplica { tablet, .. }
        | Command::Retire { tablet, .. } => *tablet == META,
        _ => false,
    }
}

#[test]
fn a_new_node_gets_its_part_and_then_nothing_moves() {
    let mut story = Story::with_nodes(3);
    settle(&mut story);
    for number in 0..4 {
        story.create(&format!("t{number}"), Partitioning::Hash, 0);
    }
    story.join(profile(4, "east", "r9"));
    settle(&mut story);
    let on = |story: &Story, node: u64| {
        let tablets = story.state.tablets().values();
        let held = tablets.filter(|it| it.id != META && it.replica_on(NodeId(node)).is_some());
        held.count()
    };
    let counts: Vec<usize> = (1..=4).map(|node| on(&story, node)).collect();
    assert_eq!(counts.iter().sum::<usize>(), 96);
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(most - least <= 2, "{counts:?}");
    assert_eq!(settle(&mut story), Vec::<String>::new());
}

#[test]
fn a_late_plan_changes_nothing() {
    let mut story = Story::with_nodes(4);
    settle(&mut story);
    let table = story.create("t", Partitioning::Range, 0);
    story.tell(decommission(places(&story, table)[0][1], None));
    let late = plan(&story.state, &ALL_ALIVE, 100);
    settle(&mut story);
    let settled = places(&story, table);
    let mut refused = 0;
    for step in late {
        if let Step::Propose(command @ Command::AddReplica { tablet, .. }) = step
            && tablet != META
        {
            assert!(story.try_tell(command).is_err());
            refused += 1;
        }
    }
    assert!(refused > 0);
    assert_eq!(places(&story, table), settled);
}

/// Two data centres of three nodes each, and what a namespace's tables are to have in them.
fn two_centers(east: u32, west: u32) -> (Story, TableId) {
    let mut story = Story::with_nodes(3);
    for number in 4..=6 {
        story.join(profile(number, "west", &format!("r{number}")));
    }
    settle(&mut story);
    story.tell(Command::Catalog {
        change: create_table("t", Partitioning::Range, by_center(east, west)),
        avoid: Vec::new(),
    });
    let table = table_named(&story, "t");
    (story, table)
}

fn by_center(east: u32, west: u32) -> catalog::Replication {
    let factors = BTreeMap::from([("east".into(), east), ("west".into(), west)]);
    catalog::Replication {
        factor_by_data_center: factors,
        ..replication(Protocol::Eventual, east + west)
    }
}

#[test]
fn a_table_that_changes_its_protocol_has_new_tablets() {
    let mut story = Story::with_nodes(3);
    story.join(profile(4, "west", "r4"));
    settle(&mut story);
    let old = story.create("t", Partitioning::Hash, 0);
    let before: Vec<_> = story.state.tablets_of(old).iter().map(|it| it.id).collect();
    let tell = |story: &mut Story, change| {
        let avoid = Vec::new();
        story.tell(Command::Catalog { change, avoid })
    };
    tell(
        &mut story,
        catalog::Change::SealTable {
            table: old,
            version: 1,
            at_micros: Some(1),
        },
    );
    tell(
        &mut story,
        catalog::Change::ReplicateTable {
            table: old,
            version: 2,
            replication: by_center(3, 3),
            properties: BTreeMap::new(),
        },
    );
    let new = table_named(&story, "t");
    assert!(before.iter().all(|id| story.state.tablet(*id).is_none()));
    assert_eq!(places(&story, new), vec![vec![1, 2, 3, 4]; before.len()]);
    let copies = story.state.copies_of(new);
    assert_eq!((copies["east"].wanted, copies["west"].wanted), (24, 8));
    assert!(copies.values().all(api::Copies::is_settled));
    assert!(story.state.copies_of(old).is_empty());
}

fn alter(story: &mut Story, east: u32, west: u32) {
    story.tell(Command::Catalog {
        change: catalog::Change::AlterNamespace {
            name: "shop".into(),
            replication: Some(by_center(east, west)),
            properties: BTreeMap::new(),
        },
        avoid: Vec::new(),
    });
}

#[test]
fn a_data_centre_comes_and_another_goes_by_altering_the_replication() {
    let (mut story, table) = two_centers(3, 0);
    assert_eq!(places(&story, table), [[1, 2, 3]]);
    alter(&mut story, 3, 3);
    let copies = story.state.copies(Some("shop"));
    assert_eq!((copies["west"].wanted, copies["west"].settled), (3, 0));
    assert!(!copies["west"].is_settled() && copies["east"].is_settled());
    settle(&mut story);
    assert_eq!(places(&story, table), [[1, 2, 3, 4, 5, 6]]);
    assert!(
        story
            .state
            .copies(None)
            .values()
            .all(api::Copies::is_settled)
    );
    alter(&mut story, 0, 2);
    assert_eq!(story.state.copies(None)["east"].leaving, 3);
    assert_eq!(story.state.copies(None)["west"].leaving, 1);
    let told = settle(&mut story);
    // Each is retired before it goes.
    assert_eq!(told.len(), 8, "{told:?}");
    assert_eq!(places(&story, table)[0].len(), 2);
    assert!(nodes_of(&story, table).iter().all(|node| node.0 > 3));
    assert!(
        story
            .state
            .copies(None)
            .values()
            .all(api::Copies::is_settled)
    );
}

#[test]
fn what_is_on_its_way_is_taken_back_when_the_replication_is() {
    let (mut story, table) = two_centers(3, 3);
    alter(&mut story, 3, 0);
    let step = plan(&story.state, &ALL_ALIVE, 1).remove(0);
    let Step::Propose(command @ Command::Retire { .. }) = step else {
        panic!("{step:?}");
    };
    story.tell(command.clone());
    assert!(
        story.try_tell(command).is_err(),
        "one at a time, and fenced"
    );
    // A voter that should take over is away: writes are not to miss both.
    let away = Liveness {
        is_alive: &|node| node != NodeId(1),
        is_lost: &|_| false,
    };
    assert!(matches!(
        plan(&story.state, &away, 1).as_slice(),
        [Step::Propose(Command::Promote { .. })]
    ));
    alter(&mut story, 3, 3);
    settle(&mut story);
    assert_eq!(places(&story, table), [[1, 2, 3, 4, 5, 6]]);
    assert_eq!(story.state.tablets_of(table)[0].leaving, None);
    // A learner of a data centre that is not to be any more goes at once.
    let (mut story, table) = two_centers(3, 0);
    alter(&mut story, 3, 1);
    let Some(Step::Propose(command)) = plan(&story.state, &ALL_ALIVE, 1).pop() else {
        panic!("nothing is added");
    };
    story.tell(command);
    alter(&mut story, 3, 0);
    assert_eq!(settle(&mut story).len(), 1);
    assert_eq!(places(&story, table), [[1, 2, 3]]);
}

#[test]
fn a_data_centre_that_is_away_is_waited_for_and_one_that_is_removed_is_not() {
    let (mut story, table) = two_centers(3, 3);
    alter(&mut story, 3, 0);
    let is_east = |node: NodeId| node.0 <= 3;
    let away = Liveness {
        is_alive: &is_east,
        is_lost: &|node| node.0 > 3,
    };
    let steps = plan(&story.state, &away, 100);
    assert!(
        steps
            .iter()
            .all(|step| matches!(step, Step::Propose(command) if is_of_meta(command)))
    );
    for node in 4..=6 {
        story.tell(Command::RemoveNode {
            node: NodeId(node),
            successor: None,
        });
    }
    for _ in 0..20 {
        match plan(&story.state, &away, 100).pop() {
            Some(Step::Propose(command)) => {
                story.tell(command);
            }
            Some(Step::TakeOver {
                tablet,
                leaving,
                is_lost,
            }) => {
                assert!(is_lost);
                story.tell(remove(&story, tablet, leaving));
            }
            Some(Step::LetGo { tablet, leaving }) => {
                story.tell(remove(&story, tablet, leaving));
            }
            Some(Step::Fill { tablet, replica }) => {
                story.tell(Command::Promote {
                    tablet,
                    replica: replica.id,
                });
            }
            other => {
                assert_eq!(other, None);
                break;
            }
        }
    }
    assert_eq!(places(&story, table), [[1, 2, 3]]);
}

#[test]
fn the_meta_group_stands_in_as_many_data_centres_as_it_can() {
    let mut story = Story::with_nodes(3);
    settle(&mut story);
    assert_eq!(meta(&story), "n1 n2 n3");
    story.join(profile(4, "west", "r1"));
    settle(&mut story);
    assert_eq!(meta(&story), "n1 n2 n4");
    story.join(profile(5, "west", "r2"));
    assert_eq!(settle(&mut story), Vec::<String>::new());
    story.join(profile(6, "north", "r1"));
    settle(&mut story);
    assert_eq!(meta(&story), "n1 n4 n6");
    assert_eq!(settle(&mut story), Vec::<String>::new());
}

#[test]
fn a_node_that_holds_replicas_keeps_its_data_centre() {
    let (mut story, _) = two_centers(3, 3);
    let start = |center: &str, incarnation| Command::Start {
        node: NodeId(5),
        incarnation: model::Incarnation(incarnation),
        profile: profile(5, center, "elsewhere"),
    };
    story.tell(start("west", 1));
    assert!(story.try_tell(start("east", 2)).is_err());
    story.tell(start("west", 2));
}

#[test]
fn halves_of_an_eventual_tablet_stay_until_each_replica_has_been_made() {
    let mut story = Story::with_nodes(4);
    settle(&mut story);
    let change = create_table("t", Partitioning::Range, replication(Protocol::Eventual, 3));
    story.tell(Command::Catalog {
        change,
        avoid: vec![NodeId(4)],
    });
    let table = story.state.catalog().table_by_name("shop", "t").unwrap().id;
    let root = story.state.catalog().table(table).unwrap().clone();
    let key = root.row_key(&[model::Value::Text("m".into())]).unwrap();
    let (left, right) = (model::TabletId(1), model::TabletId(2));
    // Both halves are there at once.
    story.tell(Command::PrepareSplit {
        tablet: left,
        epoch: model::PlacementEpoch(1),
        key: root.boundary(&key).unwrap().to_vec(),
    });
    assert_eq!(story.tablets(table), "t1 p2 n1 n2 n3; t2 p1 n1 n2 n3");
    let steps = |story: &Story, dead: Option<u64>, is_lost: bool| {
        let is_dead = |node: NodeId| dead == Some(node.0);
        let nodes = Liveness {
            is_alive: &|node| !is_dead(node),
            is_lost: &|node| is_lost && is_dead(node),
        };
        let steps = plan(&story.state, &nodes, 100).into_iter();
        let steps = steps.filter(|step| !matches!(step, Step::Propose(it) if is_of_meta(it)));
        steps.collect::<Vec<_>>()
    };
    let is_settling =
        |steps: &[Step]| matches!(steps, [Step::Settle(split)] if split.right.id == right);
    assert!(is_settling(&steps(&story, None, false)));
    // One of them may have nothing yet that the other half's replica there is made from.
    assert_eq!(steps(&story, Some(2), false), []);
    let add = |tablet, epoch| Command::AddReplica {
        tablet,
        epoch: model::PlacementEpoch(epoch),
        node: NodeId(4),
    };
    assert_eq!(steps(&story, Some(2), true), [Step::Propose(add(right, 1))]);
    assert!(story.try_tell(add(left, 2)).is_err());
    story.tell(add(right, 1));
    for _ in 0..10 {
        let command = match steps(&story, Some(2), true).into_iter().next() {
            Some(Step::Propose(command)) => command,
            Some(Step::Fill { tablet, replica }) => Command::Promote {
                tablet,
                replica: replica.id,
            },
            Some(Step::TakeOver { leaving, .. }) => Command::RemoveReplica {
                tablet: right,
                epoch: story.state.tablet(right).unwrap().epoch,
                replica: leaving.id,
            },
            Some(Step::Settle(_)) => break,
            other => panic!("{other:?}"),
        };
        story.tell(command);
    }
    // Of those that are there still, each has been made.
    assert_eq!(story.tablets(table), "t1 p2 n1 n2 n3; t2 p5 n1 n3 n4");
    assert!(is_settling(&steps(&story, Some(2), true)));
    story.tell(Command::SettleSplit {
        tablet: left,
        right,
    });
    assert_eq!(steps(&story, Some(2), true), [Step::Propose(add(left, 2))]);
}
