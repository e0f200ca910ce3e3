//! Drives gossip: packets and timers in, packets and verdicts out.

use crate::core::Core;
use crate::rpc::{GOSSIP, tagged};
use bytes::Bytes;
use cluster::{Gossip, GossipEffect, GossipMember, GossipTimer};
use model::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

/// Packets that may wait for the gossip task; more are dropped, as the network might have.
pub(crate) const PACKETS_MAX: usize = 1_024;
/// How often members that are not known to be alive are said hello to.
const HELLO_INTERVAL: Duration = Duration::from_millis(500);

/// Members are waited for so long at the start, so that the first requests do not take them for dead.
const SETTLE_PATIENCE: Duration = Duration::from_millis(1_200);

/// What the gossip task is told.
pub(crate) enum Input {
    Packet(Bytes),
    /// This node stops: the others need not find out by themselves.
    Leave,
}

struct Driver {
    core: Arc<Core>,
    gossip: Gossip,
    /// By time, then by the order in which they were set.
    timers: BTreeMap<(Instant, u64), GossipTimer>,
    next_timer: u64,
}

pub(crate) async fn run(core: Arc<Core>, mut inputs: mpsc::Receiver<Input>) {
    let random = Arc::clone(&core.world.random);
    let member = GossipMember {
        node: core.node,
        incarnation: core.incarnation,
        renewal: 0,
    };
    let mut driver = Driver {
        gossip: Gossip::new(member, Box::new(move || random.next_u64())),
        core,
        timers: BTreeMap::new(),
        next_timer: 0,
    };
    let mut next_hello = Instant::now();
    loop {
        let next_timer = driver.timers.first_key_value().map(|((at, _), _)| *at);
        let wake = next_timer.map_or(next_hello, |at| at.min(next_hello));
        tokio::select! {
            biased;
            input = inputs.recv() => match input {
                Some(Input::Packet(packet)) => match driver.gossip.handle(&packet) {
                    Ok(effects) => driver.carry_out(effects),
                    Err(error) => tracing::debug!(%error, "gossip"),
                },
                Some(Input::Leave) => {
                    let effects = driver.gossip.leave();
                    driver.carry_out(effects);
                    return;
                }
                None => return,
            },
            () = sleep_until(wake) => {}
        }
        driver.fire_timers();
        if Instant::now() >= next_hello {
            next_hello = Instant::now() + HELLO_INTERVAL;
            driver.say_hello();
        }
    }
}

/// Waits, not for long, until all members are known to be alive.
pub(crate) async fn settle(core: &Core) {
    let mut topologies = core.views.watch_topology();
    let all_alive = topologies.wait_for(|topology| topology.nodes.iter().all(|node| node.is_alive));
    let _ = timeout(SETTLE_PATIENCE, all_alive).await;
}

impl Driver {
    fn fire_timers(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let effects = self.gossip.handle_timer(entry.remove());
            self.carry_out(effects);
        }
    }

    fn say_hello(&mut self) {
        let view = self.core.view();
        let unknown: Vec<NodeId> = view
            .state
            .members()
            .map(|node| node.id)
            .filter(|id| *id != self.core.node && !self.gossip.is_alive(*id))
            .collect();
        for node in unknown {
            let effects = self.gossip.announce(node);
            self.carry_out(effects);
        }
    }

    fn carry_out(&mut self, effects: Vec<GossipEffect>) {
        for effect in effects {
            match effect {
                GossipEffect::Send { to, message } => {
                    if let Some(address) = self.core.view().address(to) {
                        self.core.rpc.send(address, tagged(GOSSIP, &message));
                    }
                }
                GossipEffect::Schedule { after, timer } => {
                    let key = (Instant::now() + after, self.next_timer);
                    self.next_timer += 1;
                    self.timers.insert(key, timer);
                }
                GossipEffect::Alive(node) => {
                    tracing::info!(%node, "is alive");
                    self.core.views.set_alive(node, true);
                }
                GossipEffect::Dead(node) => {
                    tracing::info!(%node, "is taken for dead");
                    self.core.views.set_alive(node, false);
                }
            }
        }
    }
}
