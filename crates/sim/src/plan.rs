//! What one seed's run looks like: everything that varies between seeds is drawn here, before anything happens.

use crate::network::Conditions;
use catalog::Partitioning;
use rand::Rng;
use rand::rngs::SmallRng;

/// A kind of fault. Which ones a run has is drawn from its seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// One node loses what it had not synced, and is started again some time later.
    Crash,
    /// One node crashes and starts again several times in a row.
    Flicker,
    /// One node is stopped in order, and started again some time later.
    Stop,
    /// All nodes at once.
    PowerLoss,
    /// A node is cut off from all others.
    Isolate,
    /// The nodes fall into two halves.
    Partition,
    /// One link breaks in one direction.
    OneWay,
    /// A node's messages are held for a while, then all delivered: a long pause.
    Pause,
    SlowDisk,
    /// Clocks jump and strobe within their bound.
    Skew,
    /// All nodes lose power, and in the elections that follow a voter does again, as soon as it has voted. Not drawn, but
    /// added.
    Vote,
    /// One wall clock is set, to far beyond what anybody vouches for, and later set right. Not drawn, but added.
    Step,
    /// The network turns lossy, slow, or calm.
    Weather,
    /// Somebody is struck in the middle of a transaction: at the sending or the arrival of one of its messages, or at
    /// a sync of its log.
    Ambush,
    /// No fault, but a moment when others strike at their best: a tablet is divided.
    Split,
    /// A node is to leave, or may stay after all: replicas move.
    Move,
    /// Somebody plans the placement of tablets, as if a node were dead for good, and does what it has planned seconds
    /// later. Not drawn, but added.
    LatePlan,
    /// A whole data centre is cut off from all others. Not drawn, but added.
    CutCentre,
    /// A node is dead for good, and a new one takes its place; or takes that of one that lives. Not drawn, but added.
    Replace,
    /// No fault either: a data centre is to have more copies, or fewer, or none. Not drawn, but added.
    Alter,
}

impl Fault {
    pub const ALL: [Fault; 14] = [
        Fault::Crash,
        Fault::Flicker,
        Fault::Stop,
        Fault::PowerLoss,
        Fault::Isolate,
        Fault::Partition,
        Fault::OneWay,
        Fault::Pause,
        Fault::SlowDisk,
        Fault::Skew,
        Fault::Weather,
        Fault::Ambush,
        Fault::Split,
        Fault::Move,
    ];
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub nodes: usize,
    pub conditions: Conditions,
    /// Half the width of every clock's intervals.
    pub clock_bound_micros: i64,
    pub faults: Vec<Fault>,
    /// Simulated milliseconds between two doings of the nemesis, at most.
    pub nemesis_pause_ms: u64,
    pub fault_seconds: u64,
    pub clients: u64,
    pub keys: u64,
    /// Simulated milliseconds between two operations of a client, at most.
    pub think_ms: u64,
    /// Strong tables: commit timestamps follow real time.
    pub is_external: bool,
    /// Transactions: hashed keys lie in many tablets, others in one.
    pub partitioning: Partitioning,
    /// Strong tables: how far a replica may lag before it is sent a snapshot.
    pub log_entries_kept: u64,
    /// Eventual tables: seconds that tombstones stay at least.
    pub gc_grace_seconds: u32,
    /// Eventual tables: how often each tablet is repaired.
    pub repair_interval_ms: u64,
    /// Strong tables: how long a lease is.
    pub lease_ms: u64,
    /// Strong tables: how long older versions are kept.
    pub history_ms: u64,
    /// Strong tables: the size at which a tablet is divided by itself; 0: the cluster's default.
    pub split_size_bytes: u64,
    /// The last so many nodes join only when the faults have begun.
    pub late_nodes: usize,
    /// How many copies each data centre is to have; empty where there is but one data centre.
    pub factors: Vec<u32>,
    /// Nodes go to the data centres in turn as they join; else one data centre is there before the next.
    pub is_dealt: bool,
    /// How long a node may be dead before its replicas are made anew elsewhere; 0: the cluster's default.
    pub rebuild_after_seconds: u64,
    /// Late plans take a node that lives for one that is dead for good. Strong tables lose nothing by that; of eventual
    /// ones it is what they may lose with a node.
    pub buries_alive: bool,
    /// One node is dead in the end, and stays it. Strong tables only.
    pub loses_node: bool,
    /// Nodes die for good, one after the other, and new ones take their places. Eventual tables only.
    pub replaces: bool,
    /// Nobody vouches for the wall clocks: the cluster keeps a time of its own.
    pub is_cluster_time: bool,
    /// Instead of drawn faults.
    pub script: Option<Script>,
}

/// What happens to clocks and to who keeps the time, again and again. No oscillator stands still: who has lost time hears
/// of it with the next answer of a peer, and what it has proposed until then may be committed by others, at a timestamp
/// that is too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    MasterKilled,
    /// Its messages are held, for longer than its authority lasts, and then all delivered.
    MasterPaused,
    MasterPartitioned,
    /// Its oscillator jumps, its wall clock with it.
    MasterForward,
    /// Its wall clock is set, which nobody vouches for.
    MasterStepped,
    /// The wall clock of a node whose wall clock is vouched for is set.
    NodeStepped,
    /// The oscillator of a node that follows the time master jumps.
    NodeForward,
}

impl Script {
    pub const ALL: [Script; 7] = [
        Script::MasterKilled,
        Script::MasterPaused,
        Script::MasterPartitioned,
        Script::MasterForward,
        Script::MasterStepped,
        Script::NodeStepped,
        Script::NodeForward,
    ];
}

impl Plan {
    pub fn draw(random: &mut SmallRng) -> Plan {
        let mut faults: Vec<Fault> = Fault::ALL
            .into_iter()
            .filter(|_| random.random_bool(0.5))
            .collect();
        if faults.is_empty() {
            faults.push(Fault::Crash);
        }
        let clock_bound_micros = [500, 5_000, 50_000, 200_000][random.random_range(0..4)];
        let plan = Plan {
            nodes: [3, 3, 3, 3, 3, 3, 3, 3, 1, 5][random.random_range(0..10)],
            conditions: draw_conditions(random),
            clock_bound_micros,
            faults,
            nemesis_pause_ms: [400, 1_500, 4_000][random.random_range(0..3)],
            fault_seconds: random.random_range(6..16),
            clients: random.random_range(3..7),
            keys: random.random_range(1..5),
            think_ms: [40, 150, 400][random.random_range(0..3)],
            is_external: random.random_bool(0.5),
            partitioning: [Partitioning::Hash, Partitioning::Hash, Partitioning::Range]
                [random.random_range(0..3)],
            log_entries_kept: [1, 20, 4_096][random.random_range(0..3)],
            gc_grace_seconds: 864_000,
            repair_interval_ms: 3_600_000,
            // Well above what the clocks differ by.
            lease_ms: match clock_bound_micros {
                200_000 => 3_000,
                _ => [500, 1_000, 3_000][random.random_range(0..3)],
            },
            history_ms: [4_000, 3_600_000][random.random_range(0..2)],
            split_size_bytes: [0, 0, 0, 40][random.random_range(0..4)],
            late_nodes: 0,
            factors: Vec::new(),
            is_dealt: false,
            rebuild_after_seconds: [0, 0, 2][random.random_range(0..3)],
            buries_alive: false,
            loses_node: false,
            replaces: false,
            is_cluster_time: false,
            script: None,
        };
        match random.random_range(0..12) {
            0 => plan.with_laggards(),
            1 => plan.with_elections(),
            2 => plan.with_handovers(),
            3 | 4 => plan.with_splits(),
            5 | 6 => plan.with_moves(random.random_bool(0.5)),
            _ => plan,
        }
    }

    /// In some seeds the cluster keeps its own time, and in some a wall clock is set. Not for eventual tables, which
    /// take their timestamps from wall clocks, as good as they are; nor where staleness is held against true time.
    pub fn with_clocks(mut self, seed: u64) -> Plan {
        self.is_cluster_time = seed.is_multiple_of(3);
        if seed % 4 == 1 {
            self.faults.push(Fault::Step);
        }
        self
    }

    /// A node that is the whole cluster, and whose wall clock is set between its starts.
    pub fn with_lone_clock(self) -> Plan {
        Plan {
            nodes: 1,
            conditions: Conditions::CALM,
            faults: vec![Fault::Step, Fault::Step, Fault::Crash, Fault::Flicker],
            nemesis_pause_ms: 1_500,
            is_cluster_time: true,
            ..self
        }
    }

    /// Commit timestamps over many keys.
    pub fn with_external_order(self) -> Plan {
        Plan {
            is_external: true,
            think_ms: self.think_ms.min(60),
            split_size_bytes: 0,
            ..self
        }
    }

    /// Nothing but what the script says, on three nodes.
    pub fn with_script(self, script: Script) -> Plan {
        Plan {
            nodes: 3,
            conditions: Conditions::CALM,
            clock_bound_micros: 5_000,
            faults: Vec::new(),
            fault_seconds: 24,
            think_ms: 40,
            is_cluster_time: script != Script::NodeStepped,
            script: Some(script),
            ..self.with_external_order()
        }
    }

    /// In one seed of two some nodes join under faults, and tables grow from one replica to three.
    pub fn with_late_nodes(self, seed: u64) -> Plan {
        let late = [0, 0, 1, 2][(seed % 4) as usize];
        Plan {
            late_nodes: if self.nodes == 3 { late } else { 0 },
            ..self
        }
    }

    /// In some seeds the faults that strong tables guard against with most care, more often than they are drawn.
    pub fn with_aim(self, seed: u64) -> Plan {
        match seed % 8 {
            6 => self.with_elections(),
            7 => self.with_handovers(),
            _ => self,
        }
    }

    /// What was answered waits long to be durable, and then the power goes.
    pub fn with_slow_syncs(self) -> Plan {
        Plan {
            nodes: 3,
            conditions: Conditions::CALM,
            faults: vec![Fault::SlowDisk, Fault::SlowDisk, Fault::PowerLoss],
            nemesis_pause_ms: 400,
            keys: 1,
            think_ms: 40,
            ..self
        }
    }

    /// Much is written to little while a node is away for long: it must be sent a snapshot.
    fn with_laggards(self) -> Plan {
        Plan {
            nodes: 3,
            conditions: Conditions::CALM,
            faults: vec![Fault::Isolate, Fault::Crash],
            nemesis_pause_ms: 4_000,
            keys: 1,
            think_ms: 15,
            log_entries_kept: 1,
            ..self
        }
    }

    /// Leases go from one node to another without a pause, between clocks that differ as much as they may.
    fn with_handovers(self) -> Plan {
        Plan {
            nodes: 3,
            conditions: Conditions::CALM,
            clock_bound_micros: 200_000,
            lease_ms: 3_000,
            faults: vec![Fault::Stop, Fault::Skew],
            nemesis_pause_ms: 1_500,
            keys: 1,
            think_ms: 40,
            ..self
        }
    }

    /// Replicas go from node to node, while nodes crash and are cut off, and many messages are lost.
    fn with_moves(self, loses_node: bool) -> Plan {
        Plan {
            nodes: 5,
            loses_node,
            conditions: Conditions {
                loss_permille: 100,
                ..Conditions::CALM
            },
            keys: 2,
            faults: vec![
                Fault::Move,
                Fault::Move,
                Fault::LatePlan,
                Fault::Crash,
                Fault::Isolate,
                Fault::OneWay,
            ],
            nemesis_pause_ms: 1_500,
            think_ms: 15,
            fault_seconds: 16,
            ..self
        }
    }

    /// Leases are short, and what is said between the steps of a transaction is often late by more than that.
    pub fn with_late_decisions(self) -> Plan {
        Plan {
            nodes: 3,
            conditions: Conditions::CALM,
            clock_bound_micros: 5_000,
            lease_ms: 500,
            faults: vec![Fault::Ambush, Fault::Ambush, Fault::Pause, Fault::SlowDisk],
            nemesis_pause_ms: 400,
            think_ms: 40,
            keys: 2,
            is_external: false,
            ..self
        }
    }

    /// Replicas go from node to node all the time, also by plans that come late, while nodes crash; and one stays dead.
    pub fn with_funeral(self) -> Plan {
        Plan {
            conditions: Conditions::CALM,
            faults: vec![
                Fault::Move,
                Fault::Move,
                Fault::LatePlan,
                Fault::LatePlan,
                Fault::Crash,
                Fault::Isolate,
            ],
            nemesis_pause_ms: 400,
            rebuild_after_seconds: 0,
            late_nodes: 0,
            ..self.with_moves(true)
        }
    }

    /// Tablets are divided again and again, while nodes crash and clocks differ as much as they may.
    fn with_splits(self) -> Plan {
        Plan {
            nodes: 3,
            clock_bound_micros: 200_000,
            lease_ms: 3_000,
            faults: vec![Fault::Split, Fault::Split, Fault::Crash, Fault::Skew],
            nemesis_pause_ms: 400,
            think_ms: 40,
            ..self
        }
    }

    /// Repair goes on all the time, and tombstones go as soon as they may: within the run.
    pub fn with_healing(self) -> Plan {
        Plan {
            nodes: 3,
            gc_grace_seconds: 2,
            repair_interval_ms: 2_000,
            fault_seconds: self.fault_seconds + 15,
            ..self
        }
    }

    /// Three data centres of three nodes each, that are cut off as a whole, come and go; repair goes on all the time. Or
    /// two, with nodes to spare, where replicas of nodes that are dead for two seconds are made anew.
    pub fn with_centres(mut self, seed: u64) -> Plan {
        let factors: [&[u32]; 7] = [
            &[3, 3, 3],
            &[3, 3, 3],
            &[3, 2, 1],
            &[2, 2, 2],
            &[3, 3, 0],
            &[1, 1, 1],
            &[3, 3],
        ];
        let factors = factors[(seed % 7) as usize].to_vec();
        self.faults.retain(|fault| *fault != Fault::Ambush);
        self.faults.extend([Fault::CutCentre; 3]);
        if !seed.is_multiple_of(3) {
            self.faults
                .extend([Fault::Alter, Fault::Alter, Fault::LatePlan]);
        }
        Plan {
            nodes: 9,
            // Of nine nodes, five or more have to be heard.
            conditions: Conditions {
                loss_permille: self.conditions.loss_permille.min(50),
                ..self.conditions
            },
            loses_node: false,
            is_dealt: seed.is_multiple_of(2),
            keys: self.keys.min(3),
            think_ms: self.think_ms.max(40),
            split_size_bytes: 0,
            rebuild_after_seconds: if factors.len() < 3 { 2 } else { 0 },
            factors,
            gc_grace_seconds: 4,
            repair_interval_ms: 4_000,
            fault_seconds: self.fault_seconds + 6,
            ..self
        }
    }

    /// Nodes are replaced, dead or alive, while others crash, are cut off, and come and go.
    pub fn with_replacements(mut self, seed: u64) -> Plan {
        self.faults = vec![
            Fault::Replace,
            Fault::Replace,
            Fault::Crash,
            Fault::Isolate,
            Fault::OneWay,
            Fault::Pause,
        ];
        if seed.is_multiple_of(2) {
            self.faults.push(Fault::Move);
        }
        Plan {
            nodes: [3, 3, 4, 5][(seed / 2 % 4) as usize],
            conditions: Conditions {
                loss_permille: self.conditions.loss_permille.max(20),
                ..Conditions::CALM
            },
            late_nodes: 0,
            rebuild_after_seconds: 0,
            replaces: true,
            nemesis_pause_ms: 1_500,
            fault_seconds: self.fault_seconds + 20,
            ..self
        }
    }

    /// Data centres that are cut off as a whole, come and go; each has keys of its own in the first two
    /// partitions, and all have those of the third.
    pub fn with_regions(self, seed: u64) -> Plan {
        let gc_grace_seconds = self.gc_grace_seconds;
        let mut plan = self.with_centres(seed);
        let factors = plan.factors.iter().map(|factor| (*factor).max(2));
        plan.factors = factors.collect();
        Plan {
            keys: 3 * plan.factors.len() as u64,
            gc_grace_seconds,
            ..plan
        }
    }

    /// Much gets lost between nodes that are all there: replicas differ in every way, and no read finds them alike.
    pub fn with_losses(self) -> Plan {
        Plan {
            nodes: 3,
            conditions: Conditions {
                loss_permille: 150,
                ..Conditions::CALM
            },
            faults: vec![Fault::Skew],
            keys: 2,
            think_ms: 15,
            ..self
        }
    }

    /// The data centre that a node stands in, if there are several.
    pub fn centre(&self, node: usize) -> Option<usize> {
        let count = self.factors.len();
        match (count, self.is_dealt) {
            (0, _) => None,
            (_, true) => Some(node % count),
            (_, false) => Some(node * count / self.nodes),
        }
    }

    /// Single links break for so long that what one node owes another comes when what was deleted since is forgotten; most
    /// keys are not written meanwhile.
    pub fn with_late_hints(self) -> Plan {
        Plan {
            conditions: Conditions::CALM,
            faults: vec![Fault::OneWay],
            nemesis_pause_ms: 25_000,
            fault_seconds: 45,
            keys: 60,
            think_ms: 800,
            clients: 4,
            repair_interval_ms: 500,
            ..self
        }
    }

    /// Nodes come and go so fast that there is always an election, and messages take long.
    fn with_elections(self) -> Plan {
        Plan {
            nodes: 3,
            conditions: Conditions {
                delay_micros_min: 1_000,
                delay_micros_max: 60_000,
                ..Conditions::CALM
            },
            faults: vec![Fault::Flicker, Fault::PowerLoss, Fault::Vote, Fault::Vote],
            nemesis_pause_ms: 400,
            ..self
        }
    }
}

/// What a data centre is called.
pub fn centre_name(centre: usize) -> String {
    format!("dc{}", centre + 1)
}

/// From calm to miserable.
pub fn draw_conditions(random: &mut SmallRng) -> Conditions {
    let delay_micros_min = random.random_range(50..500);
    Conditions {
        delay_micros_min,
        delay_micros_max: delay_micros_min + [300, 3_000, 30_000][random.random_range(0..3)],
        loss_permille: [0, 0, 5, 50][random.random_range(0..4)],
        duplicate_permille: [0, 5, 50][random.random_range(0..3)],
        straggler_permille: [0, 10, 50][random.random_range(0..3)],
    }
}
