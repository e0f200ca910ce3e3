//! Cluster time under everything that can happen to it: no two nodes ever say what cannot both be true.

use super::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::VecDeque;

const STEP_MICROS: i64 = 1_000;
const ROUND_STEPS: u64 = 100;

enum Message {
    Claim(Claimant, Claim, Local),
    Granted(Claim, Local, Grant),
    Ask(Local),
    Answer {
        began: Local,
        reading: Interval,
        authority_micros: i64,
    },
}

struct Node {
    reference: Reference,
    /// Local time is true time at this rate, from some number on.
    ppm: i64,
    from: i64,
    wall_off: i64,
    floor: Option<Timestamp>,
    life: u64,
    is_up: bool,
    leads: bool,
}

impl Node {
    fn local(&self, time: i64) -> Local {
        Local((self.from + time + time / 1_000 * self.ppm / 1_000).unsigned_abs())
    }

    /// A new life, with what is on disk.
    fn start(&mut self, index: usize, time: i64) {
        self.life += 1;
        self.is_up = true;
        let claimant = claimant(index as u64 + 1, self.life);
        self.reference = Reference::new(claimant, self.local(time), self.floor);
    }
}

/// A cluster whose leaders are told by a capricious director, and whose messages take their time.
struct World {
    random: SmallRng,
    time: i64,
    nodes: Vec<Node>,
    /// When, from whom, to whom.
    messages: VecDeque<(i64, usize, usize, Message)>,
    /// No reading may lie wholly below.
    passed: Timestamp,
    delay_max: i64,
    loss_percent: u32,
    readings: u64,
}

fn id(index: usize) -> NodeId {
    NodeId(index as u64 + 1)
}

fn claimant(node: u64, life: u64) -> Claimant {
    Claimant {
        node: NodeId(node),
        life,
    }
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = SmallRng::seed_from_u64(seed);
        let nodes = (0..3)
            .map(|index| {
                let from = random.random_range(1_000_000..1_000_000_000);
                Node {
                    reference: Reference::new(
                        claimant(index as u64 + 1, 0),
                        Local(from as u64),
                        None,
                    ),
                    life: 0,
                    ppm: random.random_range(-70..=70),
                    from,
                    wall_off: random.random_range(-10_000_000..10_000_000),
                    floor: None,
                    is_up: true,
                    leads: index == 0,
                }
            })
            .collect();
        World {
            time: 0,
            nodes,
            messages: VecDeque::new(),
            passed: Timestamp::MIN,
            delay_max: [500, 5_000, 60_000][random.random_range(0..3)],
            loss_percent: [0, 2, 20][random.random_range(0..3)],
            readings: 0,
            random,
        }
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        if from != to && self.random.random_ratio(self.loss_percent, 100) {
            return;
        }
        let delay = match from == to {
            true => 0,
            false => self.random.random_range(50..=self.delay_max),
        };
        self.messages
            .push_back((self.time + delay, from, to, message));
    }

    fn round(&mut self, index: usize) {
        let time = self.time;
        let node = &mut self.nodes[index];
        let now = node.local(time);
        if !node.leads {
            node.reference.resign(now);
            for to in 0..self.nodes.len() {
                self.send(index, to, Message::Ask(now));
            }
            return;
        }
        let electorate = Electorate {
            voters: (0..3).map(id).collect(),
            is_alone: false,
        };
        let claim = node.reference.lead(now, time + node.wall_off, electorate);
        let claimant = node.reference.claimant();
        for to in 0..self.nodes.len() {
            let claim = claim.expect("it is not alone");
            self.send(index, to, Message::Claim(claimant, claim, now));
        }
    }

    fn deliver(&mut self, from: usize, to: usize, message: Message) {
        let time = self.time;
        let node = &mut self.nodes[to];
        if !node.is_up {
            return;
        }
        let now = node.local(time);
        match message {
            Message::Claim(claimant, claim, asked) => {
                let considered = node.reference.consider(claimant, claim, now, None);
                if let Some(Considered { grant, floor }) = considered {
                    if let Some(floor) = floor {
                        node.floor = Some(floor);
                        node.reference.set_floor(floor);
                    }
                    self.send(to, from, Message::Granted(claim, asked, grant));
                }
            }
            Message::Granted(claim, asked, grant) => {
                let wall = time + node.wall_off;
                node.reference
                    .granted_by(id(from), claim, asked, grant, (now, wall));
            }
            Message::Ask(began) => {
                let authority_micros = node.reference.authority_micros(now);
                if let (Some(reading), true) = (node.reference.read(now), authority_micros > 0) {
                    self.send(
                        to,
                        from,
                        Message::Answer {
                            began,
                            reading,
                            authority_micros,
                        },
                    );
                }
            }
            Message::Answer {
                began,
                reading,
                authority_micros,
            } => {
                let sample = Sample {
                    began,
                    ended: now,
                    received: reading,
                    sent: reading,
                    authority_micros,
                };
                node.reference.take(id(from), &sample, now, false);
            }
        }
    }

    /// External consistency in one line: what somebody says has passed, nobody may later say is still to come.
    fn check(&mut self, seed: u64) {
        let time = self.time;
        let readings: Vec<Interval> = self
            .nodes
            .iter()
            .filter(|node| node.is_up)
            .filter_map(|node| node.reference.read(node.local(time)))
            .collect();
        for reading in &readings {
            self.passed = self.passed.max(reading.earliest);
        }
        for reading in &readings {
            assert!(
                reading.latest >= self.passed,
                "seed {seed}, {time} us: {reading:?} lies before {}",
                self.passed
            );
        }
        self.readings += readings.len() as u64;
    }

    fn step(&mut self, seed: u64) {
        self.time += STEP_MICROS;
        while let Some(position) = self.messages.iter().position(|(due, ..)| *due <= self.time) {
            if let Some((_, from, to, message)) = self.messages.remove(position) {
                self.deliver(from, to, message);
            }
        }
        self.check(seed);
    }

    fn disturb(&mut self) {
        let index = self.random.random_range(0..self.nodes.len());
        let time = self.time;
        match self.random.random_range(0..10) {
            // A new leader; the old one may not know yet.
            0..4 => {
                let keeps_old = self.random.random_bool(0.5);
                for node in &mut self.nodes {
                    node.leads &= keeps_old;
                }
                self.nodes[index].leads = true;
            }
            4..6 => self.nodes[index].leads = false,
            6..8 => self.restart(index),
            8 => {
                for index in 0..self.nodes.len() {
                    self.restart(index);
                }
            }
            _ => {
                let node = &mut self.nodes[index];
                node.is_up = !node.is_up;
                if node.is_up {
                    node.start(index, time);
                }
            }
        }
    }

    fn restart(&mut self, index: usize) {
        let time = self.time;
        self.nodes[index].start(index, time);
    }

    fn run_for(&mut self, steps: u64, seed: u64) {
        for step in 0..steps {
            for index in 0..self.nodes.len() {
                let is_due = (step + index as u64 * 31).is_multiple_of(ROUND_STEPS);
                if is_due && self.nodes[index].is_up {
                    self.round(index);
                }
            }
            self.step(seed);
        }
    }
}

#[test]
fn readings_never_contradict_each_other_whatever_happens_to_masters() {
    let mut readings = 0;
    for seed in 0..150 {
        let mut world = World::new(seed);
        world.run_for(4_000, seed);
        for _ in 0..12 {
            world.disturb();
            let steps = world.random.random_range(50..2_500);
            world.run_for(steps, seed);
        }
        // The faults end: soon everybody can tell the time, and tightly.
        world.delay_max = 500;
        world.loss_percent = 0;
        for (index, node) in world.nodes.iter_mut().enumerate() {
            node.leads = index == 1;
            if !node.is_up {
                node.start(index, world.time);
            }
        }
        world.run_for(6_000, seed);
        for node in &world.nodes {
            let reading = node.reference.read(node.local(world.time));
            let reading =
                reading.unwrap_or_else(|| panic!("seed {seed}: no reading after the heal"));
            let width = reading.latest.0 - reading.earliest.0;
            assert!(width < 5_000, "seed {seed}: {width} us wide");
        }
        readings += world.readings;
    }
    assert!(readings > 1_000_000, "{readings} readings were compared");
}

fn interval(earliest: i64, latest: i64) -> Interval {
    Interval {
        earliest: Timestamp(earliest),
        latest: Timestamp(latest),
    }
}

fn ms(ms: u64) -> Local {
    Local(ms * 1_000)
}

#[test]
fn a_sample_is_half_its_round_trip_wide_widens_and_expires() {
    let mut follower = Reference::new(claimant(2, 0), ms(0), None);
    let sample = Sample {
        began: ms(100),
        ended: ms(106),
        received: interval(5_000_000, 5_000_000),
        // 4 ms went by at the master: 2 of the 6 were the messages'.
        sent: interval(5_004_000, 5_004_000),
        authority_micros: 1_500_000,
    };
    assert_eq!(sample.round_trip_micros(), 2_000);
    follower.take(NodeId(1), &sample, ms(106), false);
    let fresh = follower.read(ms(106)).unwrap();
    assert!(fresh.earliest.0 <= 5_004_000 && 5_006_000 <= fresh.latest.0);
    assert!(fresh.latest.0 - fresh.earliest.0 < 2_010);
    let later = follower.read(ms(1_106)).unwrap();
    // 200 ppm of a second to either side.
    assert!((2_400..2_420).contains(&(later.latest.0 - later.earliest.0)));
    assert!(follower.read(ms(1_599)).is_some());
    assert_eq!(
        follower.read(ms(1_600)),
        None,
        "the master's authority ends"
    );
    assert_eq!(follower.master(), Some(NodeId(1)));
}

#[test]
fn a_lone_node_tells_the_time_at_once_and_hands_it_over_when_others_come() {
    let mut one = Reference::new(claimant(1, 0), ms(0), None);
    let alone = alone();
    assert_eq!(one.lead(ms(5), 7_000_000, alone.clone()), None);
    assert_eq!(one.read(ms(5)), None, "nothing is on disk yet");
    record(&mut one, 5);
    assert_eq!(one.read(ms(5)), Some(interval(7_000_000, 7_000_000)));
    for time in (250..=600_000).step_by(250) {
        assert_eq!(
            one.lead(ms(time), 7_000_000 + time as i64 * 1_000, alone.clone()),
            None
        );
        record(&mut one, time);
        assert!(one.read(ms(time)).is_some(), "it asks nobody");
    }
    // A second node joins: the first goes on without a break.
    let two = Electorate {
        is_alone: false,
        ..alone
    };
    let claim = one.lead(ms(600_000), 607_000_000, two.clone()).unwrap();
    assert!(matches!(claim, Claim::Reference(_)));
    let considered = one.consider(claimant(1, 0), claim, ms(600_000), Some(NodeId(1)));
    let considered = considered.unwrap();
    assert!(
        considered.floor.is_some(),
        "the reference is to be recorded now"
    );
    let at = ms(600_003);
    one.granted_by(NodeId(1), claim, ms(600_000), considered.grant, (at, 0));
    assert!(one.is_master(ms(601_999)));
    // As the cluster's only voter it still has to ask itself.
    assert_eq!(one.read(ms(602_000)), None);
}

fn alone() -> Electorate {
    Electorate {
        voters: BTreeSet::from([NodeId(1)]),
        is_alone: true,
    }
}

/// Puts on disk what should be there; says whether that was anything.
fn record(lone: &mut Reference, time: u64) -> bool {
    let wanted = lone.wanted_floor(ms(time));
    if let Some(floor) = wanted {
        lone.set_floor(floor);
    }
    wanted.is_some()
}

#[test]
fn a_lone_node_whose_wall_clock_is_set_back_between_two_starts_goes_on_above_what_it_has_shown() {
    let mut first = Reference::new(claimant(1, 0), ms(0), None);
    let mut wall = 70_000_000;
    let (mut records, mut shown) = (0, Timestamp::MIN);
    for time in (0..20_000).step_by(250) {
        first.lead(ms(time), wall + time as i64 * 1_000, alone());
        records += u64::from(record(&mut first, time));
        shown = shown.max(first.read(ms(time)).unwrap().latest);
    }
    assert_eq!(shown, Timestamp(wall + 19_750_000));
    assert!((8..=11).contains(&records), "{records} records in 20 s");
    // The disk stalls: it stops at what is recorded.
    let floor = first.wanted_floor(ms(25_000)).unwrap();
    assert_eq!(first.read(ms(25_000)), None);
    first.set_floor(floor);
    assert!(first.read(ms(25_000)).is_some());

    // An hour back.
    wall -= 3_600_000_000;
    let mut second = Reference::new(claimant(1, 1), ms(0), Some(floor));
    second.lead(ms(0), wall, alone());
    assert_eq!(second.read(ms(0)), None);
    record(&mut second, 0);
    let start = second.read(ms(0)).unwrap();
    assert!(start.earliest >= floor && floor > shown);
    // It nears its wall clock by a tenth, and gives no samples meanwhile.
    assert_eq!(second.authority_micros(ms(1)), 0);
    second.lead(ms(1_000), wall + 1_000_000, alone());
    let later = second.read(ms(1_000)).unwrap();
    assert_eq!(later.latest.0 - start.latest.0, 900_000);
    // With others it has to be as even as they expect.
    let two = Electorate {
        is_alone: false,
        ..alone()
    };
    second.lead(ms(1_100), wall + 1_100_000, two);
    let then = second.read(ms(1_100)).unwrap();
    assert!(second.authority_micros(ms(1_100)) > 0);
    second.lead(ms(1_200), wall + 1_200_000, alone());
    let even = second.read(ms(1_200)).unwrap();
    assert_eq!(even.latest.0 - then.latest.0, 99_995);
}

#[test]
fn a_lone_node_that_starts_again_is_soon_with_its_wall_clock() {
    let wall = 70_000_000;
    let floor = Timestamp(wall + 2_000_000);
    let mut one = Reference::new(claimant(1, 1), ms(0), Some(floor));
    let mut last = Timestamp::MIN;
    for time in (0..40_000).step_by(250) {
        one.lead(ms(time), wall + time as i64 * 1_000, alone());
        record(&mut one, time);
        let reading = one.read(ms(time)).unwrap().latest;
        assert!(reading > last);
        last = reading;
    }
    let off = last.0 - (wall + 39_750_000);
    assert!((0..=SLEW_FROM_MICROS).contains(&off), "{off} us ahead");
}

#[test]
fn a_voter_that_has_just_started_elects_nobody_but_knows_an_old_reference() {
    let mut voter = Reference::new(claimant(2, 0), ms(0), Some(Timestamp(40)));
    let master = claimant(1, 0);
    assert_eq!(
        voter.consider(master, Claim::Election, ms(2_003), None),
        None
    );
    let considered = voter.consider(master, Claim::Election, ms(2_004), None);
    let grant = considered.unwrap().grant;
    assert_eq!((grant.bound, grant.is_cold), (Timestamp(40), true));
    assert_eq!(
        voter.consider(claimant(3, 0), Claim::Election, ms(2_100), None),
        None
    );
    let reborn = voter.consider(claimant(1, 1), Claim::Election, ms(2_100), None);
    assert_eq!(
        reborn, None,
        "its former life may have told others the time"
    );
    let elsewhere = voter.consider(master, Claim::Election, ms(2_100), Some(NodeId(3)));
    assert_eq!(elsewhere, None, "it knows that another node leads");
}
