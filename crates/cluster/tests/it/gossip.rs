//! Gossip among nodes that share a clock and a network made of a queue.

use cluster::{Gossip, GossipEffect, GossipMember, GossipTimer};
use model::{Incarnation, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

enum Event {
    Timer(GossipTimer),
    Packet(Vec<u8>),
}

struct World {
    nodes: BTreeMap<NodeId, Gossip>,
    down: BTreeSet<NodeId>,
    events: BTreeMap<(Duration, u64), (NodeId, Event)>,
    next: u64,
    now: Duration,
}

fn member(node: u64, incarnation: u64) -> GossipMember {
    GossipMember {
        node: NodeId(node),
        incarnation: Incarnation(incarnation),
        renewal: 0,
    }
}

fn draws(seed: u64) -> Box<dyn FnMut() -> u64 + Send> {
    let mut state = seed;
    Box::new(move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed ^ (mixed >> 27)
    })
}

impl World {
    fn new(count: u64) -> World {
        let mut world = World {
            nodes: BTreeMap::new(),
            down: BTreeSet::new(),
            events: BTreeMap::new(),
            next: 0,
            now: Duration::ZERO,
        };
        for node in 1..=count {
            world.start(node, 1);
        }
        world
    }

    fn start(&mut self, node: u64, incarnation: u64) {
        let id = NodeId(node);
        self.down.remove(&id);
        self.events.retain(|_, (owner, _)| *owner != id);
        self.nodes
            .insert(id, Gossip::new(member(node, incarnation), draws(node)));
        let effects = self.nodes.get_mut(&id).unwrap().announce(NodeId(1));
        if node != 1 {
            self.carry_out(id, effects);
        }
    }

    fn carry_out(&mut self, node: NodeId, effects: Vec<GossipEffect>) {
        for effect in effects {
            let (owner, after, event) = match effect {
                GossipEffect::Send { to, message } => {
                    (to, Duration::from_millis(1), Event::Packet(message))
                }
                GossipEffect::Schedule { after, timer } => (node, after, Event::Timer(timer)),
                GossipEffect::Alive(_) | GossipEffect::Dead(_) => continue,
            };
            self.next += 1;
            self.events
                .insert((self.now + after, self.next), (owner, event));
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > end {
                break;
            }
            self.now = entry.key().0;
            let (node, event) = entry.remove();
            if self.down.contains(&node) {
                continue;
            }
            let gossip = self.nodes.get_mut(&node).unwrap();
            let effects = match event {
                Event::Timer(timer) => gossip.handle_timer(timer),
                Event::Packet(packet) => gossip.handle(&packet).unwrap_or_default(),
            };
            self.carry_out(node, effects);
        }
        self.now = end;
    }

    fn sees(&self, observer: u64, node: u64) -> bool {
        self.nodes[&NodeId(observer)].is_alive(NodeId(node))
    }
}

#[test]
fn nodes_find_each_other_through_one() {
    let mut world = World::new(5);
    world.run(Duration::from_secs(3));
    for observer in 1..=5 {
        for node in 1..=5 {
            assert!(world.sees(observer, node), "{observer} does not see {node}");
        }
    }
}

#[test]
fn a_dead_node_is_known_within_three_seconds_and_comes_back_with_its_next_start() {
    let mut world = World::new(3);
    world.run(Duration::from_secs(5));
    world.down.insert(NodeId(3));
    world.run(Duration::from_secs(3));
    assert!(!world.sees(1, 3) && !world.sees(2, 3));
    assert!(world.sees(1, 2) && world.sees(2, 1));
    world.start(3, 2);
    world.run(Duration::from_secs(3));
    for observer in 1..=3 {
        for node in 1..=3 {
            assert!(world.sees(observer, node), "{observer} does not see {node}");
        }
    }
}

#[test]
fn a_node_that_was_only_silent_returns_by_itself() {
    let mut world = World::new(3);
    world.run(Duration::from_secs(5));
    let paused: Vec<_> = {
        world.down.insert(NodeId(2));
        // Its timers wait with it.
        world
            .events
            .extract_if(.., |_, (owner, event)| {
                *owner == NodeId(2) && matches!(event, Event::Timer(_))
            })
            .collect()
    };
    world.run(Duration::from_secs(10));
    assert!(!world.sees(1, 2));
    world.down.remove(&NodeId(2));
    for (_, entry) in paused {
        world.next += 1;
        let key = (world.now, world.next);
        world.events.insert(key, entry);
    }
    world.run(Duration::from_secs(8));
    for observer in 1..=3 {
        for node in 1..=3 {
            assert!(world.sees(observer, node), "{observer} does not see {node}");
        }
    }
}

#[test]
fn nonsense_is_refused() {
    let mut gossip = Gossip::new(member(1, 1), draws(1));
    for bytes in [&b""[..], b"\x00", &[0xFF; 200]] {
        let _ = gossip.handle(bytes);
    }
    assert!(gossip.is_alive(NodeId(1)));
    assert!(!gossip.is_alive(NodeId(2)));
}
