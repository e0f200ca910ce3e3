//! A small language of commands against one state, with the effects as they are said.

use catalog::{
    Change, Column, ColumnRole, Durability, Ordering, Partitioning, Protocol, Replication,
    TableSpec, Type,
};
use cluster::{Command, NodeProfile, Proposal, ProposalId, Refusal, State};
use model::{ClusterId, ColumnId, Incarnation, NodeId, PlacementEpoch, TableId, TabletId};
use proptest::prelude::*;
use std::collections::BTreeMap;

pub struct Story {
    pub state: State,
    sequence: u64,
}

pub fn profile(number: u8, data_center: &str, rack: &str) -> NodeProfile {
    NodeProfile {
        host_id: [number; 16],
        internode: format!("127.0.0.{number}:7000"),
        client_address: format!("127.0.0.{number}"),
        cql_port: 9042,
        data_center: data_center.into(),
        rack: rack.into(),
        ..NodeProfile::default()
    }
}

pub fn replication(protocol: Protocol, factor: u32) -> Replication {
    Replication {
        protocol,
        factor_by_data_center: BTreeMap::new(),
        factor,
        durability: Durability::Synced,
        ordering: Ordering::Conflict,
    }
}

pub fn create_table(name: &str, partitioning: Partitioning, replication: Replication) -> Change {
    let role = match partitioning {
        Partitioning::Hash => ColumnRole::Partition,
        Partitioning::Range => ColumnRole::Clustering,
    };
    let column = |name: &str, role| Column {
        id: ColumnId(0),
        name: name.into(),
        kind: Type::Text { length_max: None },
        role,
        descending: false,
        not_null: false,
        options: BTreeMap::new(),
    };
    Change::CreateTable {
        spec: TableSpec {
            namespace: "shop".into(),
            name: name.into(),
            partitioning,
            replication,
            columns: vec![column("id", role), column("note", ColumnRole::Regular)],
            parent: None,
            cascade: false,
            gc_grace_seconds: 864_000,
            default_ttl_seconds: 0,
            properties: BTreeMap::new(),
        },
        uuid: [7; 16],
    }
}

impl Story {
    /// Nothing has happened yet.
    pub fn empty() -> Story {
        Story {
            state: State::default(),
            sequence: 0,
        }
    }

    /// A cluster of one node with a namespace.
    pub fn founded() -> Story {
        let mut story = Story::empty();
        story.tell(Command::Found {
            cluster: ClusterId([9; 16]),
            name: "test".into(),
            replication_factor: 0,
            incarnation: Incarnation(1),
            profile: profile(1, "east", "r1"),
        });
        story.tell(Command::Catalog {
            change: Change::CreateNamespace {
                name: "shop".into(),
                replication: replication(Protocol::Eventual, 0),
                properties: BTreeMap::new(),
            },
            avoid: Vec::new(),
        });
        story
    }

    pub fn with_nodes(count: u8) -> Story {
        let mut story = Story::founded();
        for number in 2..=count {
            story.join(profile(number, "east", &format!("r{number}")));
        }
        story
    }

    pub fn join(&mut self, profile: NodeProfile) -> String {
        self.tell(Command::Join { profile })
    }

    pub fn create(&mut self, name: &str, partitioning: Partitioning, factor: u32) -> TableId {
        let change = create_table(name, partitioning, replication(Protocol::Strong, factor));
        self.tell(Command::Catalog {
            change,
            avoid: Vec::new(),
        });
        self.state.catalog().table_by_name("shop", name).unwrap().id
    }

    pub fn propose(&mut self, proposal: &Proposal) -> Result<String, Refusal> {
        let (state, applied) = self.state.apply(proposal)?;
        self.state = state;
        let effects: Vec<String> = applied
            .effects
            .iter()
            .map(|effect| format!("{effect:?}"))
            .collect();
        Ok(format!("v{}: {}", applied.version, effects.join(", ")))
    }

    pub fn proposal(&mut self, command: Command) -> Proposal {
        self.sequence += 1;
        Proposal {
            id: ProposalId {
                node: NodeId(1),
                incarnation: Incarnation(1),
                sequence: self.sequence,
            },
            command,
        }
    }

    pub fn try_tell(&mut self, command: Command) -> Result<String, Refusal> {
        let proposal = self.proposal(command);
        self.propose(&proposal)
    }

    pub fn tell(&mut self, command: Command) -> String {
        self.try_tell(command).expect("the command is accepted")
    }

    /// The tablets of a table group: id, epoch and nodes, learners in brackets.
    pub fn tablets(&self, root: TableId) -> String {
        let tablets = self.state.tablets_of(root);
        let lines: Vec<String> = tablets
            .iter()
            .map(|tablet| {
                let nodes: Vec<String> = tablet
                    .replicas
                    .iter()
                    .map(|replica| match replica.is_learner {
                        true => format!("({})", replica.node),
                        false => replica.node.to_string(),
                    })
                    .collect();
                format!("{} {} {}", tablet.id, tablet.epoch, nodes.join(" "))
            })
            .collect();
        lines.join("; ")
    }
}

#[test]
fn a_cluster_is_founded_once_and_nodes_get_ids_for_ever() {
    let mut story = Story::empty();
    let found = Command::Found {
        cluster: ClusterId([9; 16]),
        name: "test".into(),
        replication_factor: 0,
        incarnation: Incarnation(1),
        profile: profile(1, "east", "r1"),
    };
    assert_eq!(
        story.try_tell(Command::Join {
            profile: profile(2, "east", "r1")
        }),
        Err(Refusal::NotFounded)
    );
    assert_eq!(
        story.tell(found.clone()),
        "v1: NodeJoined(NodeId(1)), TabletCreated(TabletId(0))"
    );
    assert_eq!(story.try_tell(found), Err(Refusal::AlreadyFounded));
    assert_eq!(
        story.join(profile(2, "east", "r1")),
        "v2: NodeJoined(NodeId(2))"
    );
    // The same host asks again: its answer was lost.
    assert_eq!(
        story.join(profile(2, "east", "r1")),
        "v3: NodeJoined(NodeId(2))"
    );
    assert_eq!(
        story.join(profile(3, "east", "r1")),
        "v4: NodeJoined(NodeId(3))"
    );
}

#[test]
fn a_start_needs_a_higher_incarnation_and_the_same_disk() {
    let mut story = Story::with_nodes(2);
    let start = |incarnation, host| Command::Start {
        node: NodeId(2),
        incarnation: Incarnation(incarnation),
        profile: profile(host, "east", "r2"),
    };
    assert_eq!(story.tell(start(1, 2)), "v4: NodeStarted(NodeId(2))");
    assert_eq!(
        story.try_tell(start(1, 2)),
        Err(Refusal::OldIncarnation {
            node: NodeId(2),
            theirs: Incarnation(1),
            known: Incarnation(1)
        })
    );
    assert_eq!(story.try_tell(start(5, 3)), Err(Refusal::NoNode(NodeId(2))));
    assert_eq!(story.tell(start(5, 2)), "v5: NodeStarted(NodeId(2))");
}

#[test]
fn a_proposal_that_arrives_twice_is_applied_once() {
    let mut story = Story::founded();
    let change = create_table("t", Partitioning::Range, replication(Protocol::Strong, 0));
    let proposal = story.proposal(Command::Catalog {
        change,
        avoid: Vec::new(),
    });
    let once = story.propose(&proposal).unwrap();
    let version = story.state.version();
    assert_eq!(story.propose(&proposal).unwrap(), once);
    assert_eq!(story.state.version(), version);
}

#[test]
fn tables_come_and_go_with_their_tablets() {
    let mut story = Story::founded();
    let change = create_table("h", Partitioning::Hash, replication(Protocol::Strong, 0));
    let told = story.tell(Command::Catalog {
        change,
        avoid: Vec::new(),
    });
    assert_eq!(told.matches("TabletCreated").count(), 8, "{told}");
    let hash = story.state.catalog().table_by_name("shop", "h").unwrap().id;
    let ranges: Vec<_> = story
        .state
        .tablets_of(hash)
        .iter()
        .map(|tablet| tablet.range.clone())
        .collect();
    assert_eq!(ranges[0].start, Vec::<u8>::new());
    assert_eq!(ranges[4].start, [0x80, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(ranges[7].end, None);
    for pair in ranges.windows(2) {
        assert_eq!(pair[0].end.as_ref(), Some(&pair[1].start));
    }
    let range = story.create("r", Partitioning::Range, 0);
    assert_eq!(story.tablets(range), "t9 p1 n1");
    let told = story.tell(Command::Catalog {
        change: Change::DropTable { table: hash },
        avoid: Vec::new(),
    });
    assert_eq!(told.matches("TabletDropped").count(), 8, "{told}");
    // Others may have to ask the tablets of a strong table how transactions ended, until they say that nobody has to.
    let dropped: Vec<TabletId> = story.state.dropped().keys().copied().collect();
    assert_eq!(dropped.len(), 8);
    story.tell(Command::Forget {
        tablets: dropped[1..].to_vec(),
    });
    assert_eq!(
        story.state.dropped().keys().collect::<Vec<_>>(),
        [&dropped[0]]
    );
    assert_eq!(story.tablets(hash), "");
    // Ids are not used again.
    let other = story.create("other", Partitioning::Range, 0);
    assert_eq!(story.tablets(other), "t10 p1 n1");
}

#[test]
fn a_refused_change_changes_nothing() {
    let mut story = Story::founded();
    story.create("t", Partitioning::Range, 0);
    let before = story.state.clone();
    let change = create_table("t", Partitioning::Range, replication(Protocol::Strong, 0));
    let refused = story.try_tell(Command::Catalog {
        change,
        avoid: Vec::new(),
    });
    assert!(matches!(refused, Err(Refusal::Catalog(_))), "{refused:?}");
    assert_eq!(story.state, before);
}

#[test]
fn steps_are_fenced_by_epochs() {
    let mut story = Story::with_nodes(2);
    let table = story.create("t", Partitioning::Range, 1);
    let tablet = story.state.tablets_of(table)[0].id;
    let add = |epoch| Command::AddReplica {
        tablet,
        epoch: PlacementEpoch(epoch),
        node: NodeId(2),
    };
    assert_eq!(story.tablets(table), "t1 p1 n1");
    assert_eq!(story.tell(add(1)), "v5: TabletChanged(TabletId(1))");
    assert_eq!(story.tablets(table), "t1 p2 n1 (n2)");
    assert_eq!(
        story.try_tell(add(1)),
        Err(Refusal::OldEpoch {
            current: PlacementEpoch(2)
        })
    );
    let learner = story.state.tablets_of(table)[0].replicas[1].id;
    story.tell(Command::Promote {
        tablet,
        replica: learner,
    });
    assert_eq!(story.tablets(table), "t1 p3 n1 n2");
    // Twice is once.
    story.tell(Command::Promote {
        tablet,
        replica: learner,
    });
    assert_eq!(story.tablets(table), "t1 p3 n1 n2");
    let remove = |epoch, replica| Command::RemoveReplica {
        tablet,
        epoch: PlacementEpoch(epoch),
        replica,
    };
    let retire = |epoch, replica| Command::Retire {
        tablet,
        epoch: PlacementEpoch(epoch),
        replica,
    };
    story.tell(retire(3, learner));
    story.tell(remove(4, learner));
    assert_eq!(story.tablets(table), "t1 p5 n1");
    let last = story.state.tablets_of(table)[0].replicas[0].id;
    for command in [retire(5, last), remove(5, last)] {
        let refused = story.try_tell(command);
        assert!(matches!(refused, Err(Refusal::Invalid(_))), "{refused:?}");
    }
}

#[test]
fn a_split_divides_the_range_and_keeps_the_nodes() {
    let mut story = Story::with_nodes(3);
    let table = story.create("t", Partitioning::Range, 0);
    let prepare = |tablet, epoch, key: &[u8]| Command::PrepareSplit {
        tablet: TabletId(tablet),
        epoch: PlacementEpoch(epoch),
        key: key.to_vec(),
    };
    let finish = |tablet, right| Command::FinishSplit {
        tablet: TabletId(tablet),
        right: TabletId(right),
    };
    let settle = |tablet, right| Command::SettleSplit {
        tablet: TabletId(tablet),
        right: TabletId(right),
    };
    let root = story.state.catalog().table(table).unwrap().clone();
    let key = |id: &str| {
        let key = root.row_key(&[model::Value::Text(id.into())]).unwrap();
        root.boundary(&key).unwrap().to_vec()
    };
    let (at, later) = (key("m"), key("q"));
    assert_eq!(
        story.tell(prepare(1, 1, &at)),
        "v6: SplitPrepared(TabletId(2))"
    );
    // Until the tablet has divided itself, the map shows one, which does not move.
    assert_eq!(story.tablets(table), "t1 p1 n1 n2 n3");
    assert!(matches!(
        story.try_tell(prepare(1, 1, &later)),
        Err(Refusal::Invalid(_))
    ));
    // What is said of another split, or too early, changes nothing.
    assert_eq!(story.tell(finish(1, 9)), "v7: ");
    assert_eq!(story.tell(settle(1, 2)), "v8: ");
    assert_eq!(
        story.tell(finish(1, 2)),
        "v9: TabletChanged(TabletId(1)), TabletCreated(TabletId(2))"
    );
    assert_eq!(story.tell(finish(1, 2)), "v10: ");
    assert_eq!(story.tablets(table), "t1 p2 n1 n2 n3; t2 p1 n1 n2 n3");
    let tablets = story.state.tablets_of(table);
    assert_eq!(tablets[0].range.end.as_ref(), Some(&at));
    assert_eq!(tablets[1].range.start, at);
    assert_eq!(tablets[1].range.end, None);
    let replicas = |tablet: usize| tablets[tablet].replicas.iter().map(|replica| replica.id);
    assert!(replicas(0).all(|left| replicas(1).all(|right| left != right)));
    // Nobody may begin it empty.
    assert_eq!(story.state.founders(TabletId(2)), []);
    for (tablet, epoch) in [(1, 2), (2, 1)] {
        assert!(matches!(
            story.try_tell(Command::AddReplica {
                tablet: TabletId(tablet),
                epoch: PlacementEpoch(epoch),
                node: NodeId(1),
            }),
            Err(Refusal::Invalid(_))
        ));
    }
    assert_eq!(story.tell(settle(1, 2)), "v11: SplitSettled(TabletId(2))");
    assert_eq!(story.tell(settle(1, 2)), "v12: ");
    assert!(matches!(
        story.try_tell(prepare(2, 1, &key("a"))),
        Err(Refusal::Invalid(_))
    ));
    story.tell(prepare(2, 1, &later));
}

#[test]
fn a_partition_is_not_cut() {
    let mut story = Story::with_nodes(1);
    let table = story.create("t", Partitioning::Hash, 0);
    let inside = [vec![1; 8], vec![7]].concat();
    for key in [vec![7], inside] {
        let refused = story.try_tell(Command::PrepareSplit {
            tablet: TabletId(1),
            epoch: PlacementEpoch(1),
            key,
        });
        assert!(matches!(refused, Err(Refusal::Invalid(_))));
    }
    story.tell(Command::PrepareSplit {
        tablet: TabletId(1),
        epoch: PlacementEpoch(1),
        key: vec![1; 8],
    });
    assert_eq!(story.state.tablets_of(table).len(), 8);
}

#[test]
fn pieces_make_up_the_state_again() {
    let mut story = Story::with_nodes(3);
    let mut stored: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut known = State::default();
    let mut keep = |state: &State| {
        for (key, value) in state.pieces_since(&known) {
            match value {
                Some(value) => stored.insert(key, value),
                None => stored.remove(&key),
            };
        }
        known = state.clone();
        let pieces = stored
            .iter()
            .map(|(key, value)| (key.as_slice(), value.as_slice()));
        State::from_pieces(pieces).unwrap()
    };
    assert_eq!(keep(&story.state), story.state);
    let table = story.create("t", Partitioning::Hash, 0);
    assert_eq!(keep(&story.state), story.state);
    let (tablet, epoch) = (TabletId(1), PlacementEpoch(1));
    let key = vec![7; 8];
    story.tell(Command::PrepareSplit { tablet, epoch, key });
    assert_eq!(keep(&story.state), story.state);
    story.tell(Command::Catalog {
        change: Change::DropTable { table },
        avoid: Vec::new(),
    });
    assert_eq!(keep(&story.state), story.state);
    assert_eq!(
        State::from_bytes(&story.state.to_bytes()).unwrap(),
        story.state
    );
    assert!(State::from_bytes(b"\x81nonsense").is_err());
}

/// A story with something of everything in its state.
fn rich() -> Story {
    let mut story = Story::with_nodes(3);
    story.create("t", Partitioning::Hash, 0);
    let (tablet, epoch) = (TabletId(1), PlacementEpoch(1));
    let key = vec![7; 8];
    story.tell(Command::PrepareSplit { tablet, epoch, key });
    story
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_make_up_a_state(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        kind in any::<u8>(),
    ) {
        let _ = State::from_bytes(&bytes);
        let _ = minicbor::decode::<Proposal>(&bytes);
        let key = [kind];
        for key in [&key[..], &bytes, b""] {
            let _ = State::from_pieces([(key, &bytes[..])].into_iter());
        }
    }

    #[test]
    fn a_damaged_state_is_refused_or_is_a_state(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = rich().state.to_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(state) = State::from_bytes(&bytes) {
            // What was read can be told again.
            prop_assert_eq!(State::from_bytes(&state.to_bytes()).ok(), Some(state));
        }
    }

    #[test]
    fn a_torn_state_is_refused(cut in any::<prop::sample::Index>()) {
        let bytes = rich().state.to_bytes();
        prop_assert!(State::from_bytes(&bytes[..cut.index(bytes.len())]).is_err());
    }

    #[test]
    fn a_damaged_proposal_is_refused_or_is_one(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut story = rich();
        let change = create_table("u", Partitioning::Hash, replication(Protocol::Strong, 3));
        let proposal = story.proposal(Command::Catalog { change, avoid: Vec::new() });
        let mut bytes = minicbor::to_vec(&proposal).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(read) = minicbor::decode::<Proposal>(&bytes) {
            let again = minicbor::to_vec(&read).unwrap();
            prop_assert_eq!(minicbor::decode::<Proposal>(&again).ok(), Some(read));
        }
    }
}

#[test]
fn a_change_writes_only_what_it_changed() {
    let mut story = Story::founded();
    for number in 0..50 {
        story.create(&format!("t{number}"), Partitioning::Hash, 0);
    }
    let before = story.state.clone();
    story.join(profile(2, "east", "r1"));
    // The head and the node.
    assert_eq!(story.state.pieces_since(&before).len(), 2);
}
