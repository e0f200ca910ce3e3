//! The simulated network between nodes: every message may be delayed, lost, doubled and overtaken; links break
//! one way or both; a node can be cut off from time altogether by holding its messages.
//!
//! All endpoints belong to one `SimNetwork`. One task of the simulator, `run`, delivers what is due, in the
//! order of (time, number), so that the seed fixes every delivery. Identities are checked where real
//! connections check them: nothing arrives between nodes that would refuse each other's hello.

use crate::ambush::{Ambush, step_of};
use crate::trace::{Trace, hash_bytes};
use async_trait::async_trait;
use bytes::Bytes;
use model::{Incarnation, NodeId};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use world::{Identity, Incoming, Network, Rejection};

/// Messages waiting to be received by one node; further ones are dropped.
const INBOX_MAX: usize = 20_000;
/// Messages on their way in the whole network.
const FLYING_MAX: usize = 1_000_000;
/// The port's limit.
const MESSAGE_BYTES_MAX: usize = 32 << 20;

/// What happens to messages on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    pub delay_micros_min: u64,
    pub delay_micros_max: u64,
    pub loss_permille: u32,
    pub duplicate_permille: u32,
    /// Of so many, the delay is ten times as long.
    pub straggler_permille: u32,
}

impl Conditions {
    /// Nothing is lost, delays differ a little.
    pub const CALM: Conditions = Conditions {
        delay_micros_min: 100,
        delay_micros_max: 900,
        loss_permille: 0,
        duplicate_permille: 0,
        straggler_permille: 0,
    };
}

/// Clones are the same network.
#[derive(Clone)]
pub struct SimNetwork {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Wakes `run` when something earlier than it waits for has been sent.
    sent: Notify,
    trace: Trace,
    ambush: Ambush,
}

struct State {
    random: SmallRng,
    conditions: Conditions,
    endpoints: BTreeMap<SocketAddr, EndpointState>,
    flying: BinaryHeap<Reverse<Flight>>,
    next_number: u64,
    /// Directed links that are cut.
    cut: BTreeSet<(SocketAddr, SocketAddr)>,
    /// Nodes whose messages are held.
    held_nodes: BTreeSet<SocketAddr>,
    held: Vec<Flight>,
    statistics: Statistics,
}

/// What has become of messages so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    pub sent: u64,
    pub delivered: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub cut: u64,
    pub rejected: u64,
}

struct EndpointState {
    /// Grows with each attachment: handles of earlier ones are dead.
    generation: u64,
    identity: Identity,
    inbox: VecDeque<Incoming>,
    arrived: Arc<Notify>,
    is_open: bool,
    /// The highest incarnation seen of each peer.
    incarnations: BTreeMap<NodeId, Incarnation>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Flight {
    due: Instant,
    number: u64,
    from: SocketAddr,
    identity: Identity,
    to: SocketAddr,
    message: Bytes,
}

impl Ord for Flight {
    fn cmp(&self, other: &Flight) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

impl PartialOrd for Flight {
    fn partial_cmp(&self, other: &Flight) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// A node that says nothing about itself yet.
fn anonymous(address: SocketAddr) -> Identity {
    Identity {
        cluster: Default::default(),
        node: NodeId(0),
        incarnation: Incarnation(0),
        version_min: 0,
        version_max: u32::MAX,
        advertised: address.to_string(),
    }
}

impl SimNetwork {
    /// Call within the simulator's runtime, and spawn `run` there.
    pub fn new(seed: u64, conditions: Conditions, trace: Trace) -> SimNetwork {
        SimNetwork {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    random: SmallRng::seed_from_u64(seed),
                    conditions,
                    endpoints: BTreeMap::new(),
                    flying: BinaryHeap::new(),
                    next_number: 0,
                    cut: BTreeSet::new(),
                    held_nodes: BTreeSet::new(),
                    held: Vec::new(),
                    statistics: Statistics::default(),
                }),
                sent: Notify::new(),
                trace,
                ambush: Ambush::default(),
            }),
        }
    }

    /// The port of the node at this address, for one life of it: an earlier one is dead from now on.
    pub fn attach(&self, address: SocketAddr) -> Arc<dyn Network> {
        let mut state = self.shared.state.lock();
        let generation = state
            .endpoints
            .get(&address)
            .map_or(0, |endpoint| endpoint.generation)
            + 1;
        let arrived = Arc::new(Notify::new());
        let replaced = state.endpoints.insert(
            address,
            EndpointState {
                generation,
                identity: anonymous(address),
                inbox: VecDeque::new(),
                arrived: arrived.clone(),
                is_open: true,
                incarnations: BTreeMap::new(),
            },
        );
        if let Some(replaced) = replaced {
            replaced.arrived.notify_one();
        }
        Arc::new(Endpoint {
            shared: self.shared.clone(),
            address,
            generation,
            arrived,
        })
    }

    /// The node is gone: what was sent to it and not received is lost.
    pub fn detach(&self, address: SocketAddr) {
        let mut state = self.shared.state.lock();
        if let Some(endpoint) = state.endpoints.get_mut(&address) {
            endpoint.is_open = false;
            endpoint.generation += 1;
            endpoint.inbox.clear();
            endpoint.arrived.notify_one();
        }
    }

    pub fn set_conditions(&self, conditions: Conditions) {
        self.shared.state.lock().conditions = conditions;
    }

    /// Cuts the link in this direction; what is under way on it is lost too.
    pub fn cut(&self, from: SocketAddr, to: SocketAddr) {
        self.shared.state.lock().cut.insert((from, to));
    }

    /// Joins all links that were cut.
    pub fn join_all(&self) {
        self.shared.state.lock().cut.clear();
    }

    /// Holds all messages from and to a node: its tasks go on and its timers fire, in silence.
    pub fn hold(&self, address: SocketAddr) {
        self.shared.state.lock().held_nodes.insert(address);
    }

    /// Lets the held messages go.
    pub fn release(&self, address: SocketAddr) {
        let mut state = self.shared.state.lock();
        state.held_nodes.remove(&address);
        let now = Instant::now();
        for mut flight in std::mem::take(&mut state.held) {
            flight.due = now;
            state.flying.push(Reverse(flight));
        }
        self.shared.sent.notify_one();
    }

    /// Where one can lie in wait for messages of this network.
    pub fn ambush(&self) -> &Ambush {
        &self.shared.ambush
    }

    pub fn statistics(&self) -> Statistics {
        self.shared.state.lock().statistics
    }

    /// Delivers messages as they fall due. Never returns.
    pub async fn run(self) {
        loop {
            let next = {
                let mut state = self.shared.state.lock();
                let now = Instant::now();
                while let Some(Reverse(flight)) = state.flying.peek() {
                    if flight.due > now {
                        break;
                    }
                    if let Some(Reverse(flight)) = state.flying.pop() {
                        state.arrive(flight, &self.shared);
                    }
                }
                state.flying.peek().map(|Reverse(flight)| flight.due)
            };
            match next {
                Some(due) => {
                    tokio::select! {
                        biased;
                        () = self.shared.sent.notified() => {}
                        () = tokio::time::sleep_until(due) => {}
                    }
                }
                None => self.shared.sent.notified().await,
            }
        }
    }
}

impl State {
    fn depart(&mut self, from: SocketAddr, identity: Identity, to: SocketAddr, message: &Bytes) {
        self.statistics.sent += 1;
        let copies = 1 + u64::from(self.chance(self.conditions.duplicate_permille));
        self.statistics.duplicated += copies - 1;
        for _ in 0..copies {
            if self.chance(self.conditions.loss_permille) || self.flying.len() >= FLYING_MAX {
                self.statistics.lost += 1;
                continue;
            }
            let mut delay = self
                .random
                .random_range(self.conditions.delay_micros_min..=self.conditions.delay_micros_max);
            if self.chance(self.conditions.straggler_permille) {
                delay *= 10;
            }
            let number = self.next_number;
            self.next_number += 1;
            self.flying.push(Reverse(Flight {
                due: Instant::now() + Duration::from_micros(delay),
                number,
                from,
                identity: identity.clone(),
                to,
                message: message.clone(),
            }));
        }
    }

    fn chance(&mut self, permille: u32) -> bool {
        permille > 0 && self.random.random_range(0..1000) < permille
    }

    fn arrive(&mut self, flight: Flight, shared: &Shared) {
        let link = (flight.from, flight.to);
        if self.cut.contains(&link) {
            self.statistics.cut += 1;
            return;
        }
        if self.held_nodes.contains(&flight.from) || self.held_nodes.contains(&flight.to) {
            self.held.push(flight);
            return;
        }
        if let Err(rejection) = self.check(&flight) {
            self.statistics.rejected += 1;
            shared.trace.note("reject", &[flight.number], || {
                format!("{} → {}: {rejection}", flight.from, flight.to)
            });
            return;
        }
        let Some(endpoint) = self.endpoints.get_mut(&flight.to) else {
            return;
        };
        if !endpoint.is_open || endpoint.inbox.len() >= INBOX_MAX {
            self.statistics.lost += 1;
            return;
        }
        self.statistics.delivered += 1;
        let digest = hash_bytes(&flight.message);
        shared.trace.note("deliver", &[flight.number, digest], || {
            let step = step_of(&flight.message).unwrap_or_default();
            format!(
                "{} → {} #{} {} bytes {step}",
                flight.from.ip(),
                flight.to.ip(),
                flight.number,
                flight.message.len(),
            )
        });
        shared
            .ambush
            .arrived(flight.from, flight.to, &flight.message);
        endpoint.inbox.push_back(Incoming {
            from: flight.identity,
            address: flight.from,
            message: flight.message,
        });
        endpoint.arrived.notify_one();
    }

    /// What both ends of a connection check before anything crosses it.
    fn check(&mut self, flight: &Flight) -> Result<(), Rejection> {
        let Some(endpoint) = self.endpoints.get_mut(&flight.to) else {
            return Ok(());
        };
        endpoint.identity.accepts(&flight.identity)?;
        flight.identity.accepts(&endpoint.identity)?;
        if flight.identity.node == NodeId(0) {
            return Ok(());
        }
        let known = endpoint
            .incarnations
            .entry(flight.identity.node)
            .or_default();
        if flight.identity.incarnation < *known {
            return Err(Rejection::OldIncarnation {
                node: flight.identity.node,
                theirs: flight.identity.incarnation,
                known: *known,
            });
        }
        *known = flight.identity.incarnation;
        Ok(())
    }
}

/// One node's port, for one life of it.
struct Endpoint {
    shared: Arc<Shared>,
    address: SocketAddr,
    generation: u64,
    arrived: Arc<Notify>,
}

impl Endpoint {
    fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> Option<R> {
        let mut state = self.shared.state.lock();
        let is_current = state
            .endpoints
            .get(&self.address)
            .is_some_and(|endpoint| endpoint.is_open && endpoint.generation == self.generation);
        is_current.then(|| act(&mut state))
    }
}

#[async_trait]
impl Network for Endpoint {
    fn identify(&self, identity: Identity) {
        self.with(|state| {
            if let Some(endpoint) = state.endpoints.get_mut(&self.address) {
                endpoint.identity = identity;
            }
        });
    }

    fn send(&self, to: SocketAddr, message: Bytes) {
        if message.len() > MESSAGE_BYTES_MAX {
            tracing::warn!(
                size = message.len(),
                "a message is too large and is dropped"
            );
            return;
        }
        self.with(|state| {
            let identity = state.endpoints[&self.address].identity.clone();
            state.depart(self.address, identity, to, &message);
        });
        self.shared.sent.notify_one();
    }

    async fn receive(&self) -> Option<Incoming> {
        loop {
            let next = self.with(|state| {
                state
                    .endpoints
                    .get_mut(&self.address)
                    .and_then(|endpoint| endpoint.inbox.pop_front())
            })?;
            if next.is_some() {
                return next;
            }
            self.arrived.notified().await;
        }
    }

    fn local_address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Lines;
    use model::ClusterId;

    fn address(number: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, number], 7000))
    }

    fn identity(number: u8, incarnation: u64, cluster: u8) -> Identity {
        Identity {
            cluster: ClusterId([cluster; 16]),
            node: NodeId(number.into()),
            incarnation: Incarnation(incarnation),
            version_min: 1,
            version_max: 1,
            advertised: address(number).to_string(),
        }
    }

    fn network(conditions: Conditions) -> SimNetwork {
        let network = SimNetwork::new(7, conditions, Trace::new(Lines::Dropped));
        tokio::spawn(network.clone().run());
        network
    }

    async fn received(port: &Arc<dyn Network>) -> Vec<u8> {
        let mut all = Vec::new();
        while let Ok(Some(incoming)) =
            tokio::time::timeout(Duration::from_secs(1), port.receive()).await
        {
            all.push(incoming.message[0]);
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn messages_arrive_and_cut_links_lose_them_one_way() {
        let network = network(Conditions::CALM);
        let (one, two) = (network.attach(address(1)), network.attach(address(2)));
        one.identify(identity(1, 1, 1));
        two.identify(identity(2, 1, 1));
        one.send(address(2), Bytes::from_static(&[1]));
        assert_eq!(received(&two).await, [1]);
        network.cut(address(1), address(2));
        one.send(address(2), Bytes::from_static(&[2]));
        two.send(address(1), Bytes::from_static(&[3]));
        assert!(received(&two).await.is_empty());
        assert_eq!(received(&one).await, [3]);
        network.join_all();
        one.send(address(2), Bytes::from_static(&[4]));
        assert_eq!(received(&two).await, [4]);
    }

    #[tokio::test(start_paused = true)]
    async fn held_messages_arrive_after_the_release() {
        let network = network(Conditions::CALM);
        let (one, two) = (network.attach(address(1)), network.attach(address(2)));
        network.hold(address(2));
        one.send(address(2), Bytes::from_static(&[1]));
        assert!(received(&two).await.is_empty());
        network.release(address(2));
        assert_eq!(received(&two).await, [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_and_ghosts_are_refused() {
        let network = network(Conditions::CALM);
        let (one, two) = (network.attach(address(1)), network.attach(address(2)));
        one.identify(identity(1, 5, 1));
        two.identify(identity(2, 1, 2));
        one.send(address(2), Bytes::from_static(&[1]));
        assert!(received(&two).await.is_empty());
        two.identify(identity(2, 1, 1));
        one.send(address(2), Bytes::from_static(&[2]));
        assert_eq!(received(&two).await, [2]);
        one.identify(identity(1, 4, 1));
        one.send(address(2), Bytes::from_static(&[3]));
        assert!(received(&two).await.is_empty());
        assert_eq!(network.statistics().rejected, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_node_s_port_is_dead() {
        let network = network(Conditions::CALM);
        let (one, two) = (network.attach(address(1)), network.attach(address(2)));
        network.detach(address(2));
        assert!(two.receive().await.is_none());
        one.send(address(2), Bytes::from_static(&[1]));
        let reborn = network.attach(address(2));
        two.send(address(1), Bytes::from_static(&[9]));
        assert!(received(&one).await.is_empty());
        // Sent to its predecessor, but still under way when it came: real sockets would have lost it, real
        // datagrams not. Both happen.
        assert_eq!(received(&reborn).await, [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn loss_and_duplication_happen_about_as_often_as_asked() {
        let network = network(Conditions {
            loss_permille: 200,
            duplicate_permille: 300,
            straggler_permille: 100,
            ..Conditions::CALM
        });
        let (one, two) = (network.attach(address(1)), network.attach(address(2)));
        for number in 0..200 {
            one.send(address(2), Bytes::copy_from_slice(&[number]));
        }
        let all = received(&two).await;
        assert!((150..280).contains(&all.len()), "{}", all.len());
        assert!(
            all.windows(2).any(|pair| pair[0] > pair[1]),
            "none was overtaken"
        );
        let statistics = network.statistics();
        assert!(statistics.lost > 20 && statistics.duplicated > 30);
    }
}
