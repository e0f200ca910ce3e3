//! Placement: which nodes hold a tablet's replicas, and the next steps towards where they should be.
//!
//! A data centre gets as many copies as its replication says, never more than it has nodes; copies prefer
//! different racks, and nodes that hold fewer. With two nodes a table that asks for three keeps one voter: two
//! voters stop when either stops, so the second node takes part when the third is there.
//!
//! Replicas beyond the factor stay: taking one away from an eventual table loses what only it has, until repair
//! is built.

use crate::command::Counts;
use crate::{Command, META, NodeRecord, Replica, Split, State, Tablet};
use catalog::{Protocol, Replication};
use model::{NodeId, TabletId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Tablets that a hash-partitioned table begins with.
pub const HASH_TABLETS: u32 = 8;

/// The meta group's voters in a cluster that has the nodes for them.
const META_VOTERS: u32 = 3;

/// The key at which the `position`th of the first tablets of a hash-partitioned table begins: the token as
/// keys carry it, eight bytes with the sign bit flipped. `None` at both ends of the key space.
pub fn hash_boundary(position: u32) -> Option<Vec<u8>> {
    if position == 0 || position >= HASH_TABLETS {
        return None;
    }
    let width = (1u64 << 63) / u64::from(HASH_TABLETS / 2);
    Some((width * u64::from(position)).to_be_bytes().to_vec())
}

/// The tokens that each node is shown to own in CQL's ring, ascending. A ring knows one owner per token whatever
/// the tables; so it is laid over the boundaries that all hash-partitioned tables begin with, dealt to the nodes
/// in turn, as `choose` deals first replicas. A node beyond those has one token from its id.
pub fn ring(state: &State) -> BTreeMap<NodeId, Vec<i64>> {
    let members: Vec<NodeId> = state.members().map(|node| node.id).collect();
    let mut tokens: BTreeMap<NodeId, Vec<i64>> = BTreeMap::new();
    if members.is_empty() {
        return tokens;
    }
    let width = (1u64 << 63) / u64::from(HASH_TABLETS / 2);
    for position in 0..HASH_TABLETS {
        // The last one's end is 2^64, so what wraps is right.
        let last = width.wrapping_mul(u64::from(position + 1)).wrapping_sub(1);
        let token = (last ^ (1 << 63)) as i64;
        let owner = members[position as usize % members.len()];
        tokens.entry(owner).or_default().push(token);
    }
    for (index, id) in members.iter().enumerate() {
        if !tokens.contains_key(id) {
            // Between boundaries, so that it differs from all of them.
            let token = (index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            tokens.insert(*id, vec![(token & !(1 << 20)) as i64]);
        }
    }
    tokens
}

/// How many replicas each node holds.
pub(crate) fn counts(state: &State) -> Counts {
    let mut counts: Counts = state.members().map(|node| (node.id, 0)).collect();
    for tablet in state.tablets.values().filter(|tablet| tablet.id != META) {
        for replica in &tablet.replicas {
            *counts.entry(replica.node).or_default() += 1;
        }
    }
    counts
}

/// The nodes for the `position`th tablet of a new table, first choice first. Nodes to avoid are taken only when
/// there are not enough others.
pub(crate) fn choose(
    state: &State,
    replication: &Replication,
    position: usize,
    avoid: &[NodeId],
    counts: &Counts,
) -> Vec<NodeId> {
    let mut chosen: Vec<NodeId> = Vec::new();
    for (group, factor) in groups(state, replication) {
        let wanted = attainable(factor, group.len());
        let mut placed: Vec<NodeId> = Vec::new();
        while placed.len() < wanted {
            // The first replica is dealt in turn, so that CQL's ring names a node that has the data.
            let turn = position % group.len();
            let next = group
                .iter()
                .enumerate()
                .filter(|(_, node)| !placed.contains(&node.id))
                .min_by_key(|(index, node)| {
                    let is_turn = placed.is_empty() && *index == turn;
                    (
                        avoid.contains(&node.id),
                        !is_turn,
                        shares_rack(&group, &placed, node),
                        counts.get(&node.id).copied().unwrap_or(0),
                        (index + group.len() - turn) % group.len(),
                    )
                });
            let Some((_, node)) = next else { break };
            placed.push(node.id);
        }
        chosen.extend(placed);
    }
    chosen
}

fn shares_rack(group: &[&NodeRecord], placed: &[NodeId], node: &NodeRecord) -> bool {
    group
        .iter()
        .filter(|other| placed.contains(&other.id))
        .any(|other| other.profile.rack == node.profile.rack)
}

/// The members that a replication's copies are spread over, with the number of copies: one group per data
/// centre, or one of all nodes.
fn groups<'a>(state: &'a State, replication: &Replication) -> Vec<(Vec<&'a NodeRecord>, u32)> {
    let members = || state.members().map(AsRef::as_ref);
    let mut groups: Vec<(Vec<&NodeRecord>, u32)> = replication
        .factor_by_data_center
        .iter()
        .map(|(data_center, factor)| {
            let nodes = members().filter(|node| node.profile.data_center == *data_center);
            (nodes.collect(), *factor)
        })
        .filter(|(nodes, factor): &(Vec<&NodeRecord>, u32)| !nodes.is_empty() && *factor > 0)
        .collect();
    if groups.is_empty() {
        // No factors, or only of data centres that have no node yet: somewhere is better than nowhere.
        let factor = match (
            replication.factor_by_data_center.values().max(),
            replication.factor,
        ) {
            (Some(factor), 0) => *factor,
            (_, 0) => state.replication_factor(),
            (_, factor) => factor,
        };
        groups.push((members().collect(), factor.max(1)));
    }
    groups
}

/// How many copies `nodes` nodes can keep of `factor` wanted.
fn attainable(factor: u32, nodes: usize) -> usize {
    match (factor as usize).min(nodes) {
        2 if factor > 2 => 1,
        count => count,
    }
}

/// A step that brings a tablet closer to where it should be.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// To be proposed to the meta group.
    Propose(Command),
    /// This learner is to be filled and made a voter; `Command::Promote` ends it.
    Fill { tablet: TabletId, replica: Replica },
    /// This tablet is to divide itself; `Command::FinishSplit` ends it.
    Divide(Arc<Split>),
}

/// The next steps, at most one per tablet and `steps_max` in all, meta group first. `is_alive` says which nodes
/// can take part now.
pub fn plan(state: &State, is_alive: &dyn Fn(NodeId) -> bool, steps_max: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut counts = counts(state);
    steps.extend(plan_meta(state, is_alive));
    for tablet in state.tablets.values().filter(|tablet| tablet.id != META) {
        if steps.len() >= steps_max {
            break;
        }
        if state.is_splitting(tablet.id) {
            let split = state.splits.get(&tablet.id);
            if let Some(split) = split.filter(|split| !split.is_finished) {
                steps.push(Step::Divide(Arc::clone(split)));
            }
            continue;
        }
        let Some(table) = state.catalog.tables.get(&tablet.root) else {
            continue;
        };
        if let Some(step) = plan_tablet(
            state,
            tablet,
            &table.spec.replication,
            is_alive,
            &mut counts,
        ) {
            steps.push(step);
        }
    }
    steps
}

/// One voter, or three; further members of a small cluster follow as learners.
fn plan_meta(state: &State, is_alive: &dyn Fn(NodeId) -> bool) -> Option<Step> {
    let meta = state.tablets.get(&META)?;
    let members: Vec<NodeId> = state.members().map(|node| node.id).collect();
    let wanted = (META_VOTERS as usize).min(members.len());
    let voters = meta.voters().count();
    if meta.replicas.len() < wanted {
        let node = members
            .iter()
            .find(|id| meta.replica_on(**id).is_none() && is_alive(**id))?;
        return Some(Step::Propose(Command::AddReplica {
            tablet: META,
            epoch: meta.epoch,
            node: *node,
        }));
    }
    if voters < attainable(META_VOTERS, members.len()) {
        // All three, or none: a group of two voters should be over as soon as it begins.
        let learners: Vec<&Replica> = meta.replicas.iter().filter(|r| r.is_learner).collect();
        if learners.iter().all(|replica| is_alive(replica.node)) || voters == 2 {
            return learners
                .iter()
                .find(|replica| is_alive(replica.node))
                .map(|replica| Step::Fill {
                    tablet: META,
                    replica: **replica,
                });
        }
    }
    None
}

fn plan_tablet(
    state: &State,
    tablet: &Tablet,
    replication: &Replication,
    is_alive: &dyn Fn(NodeId) -> bool,
    counts: &mut Counts,
) -> Option<Step> {
    let is_eventual = replication.protocol == Protocol::Eventual;
    if is_eventual && let Some(learner) = tablet.replicas.iter().find(|r| r.is_learner) {
        // One at a time, and not for long: every write waits for it.
        return Some(if is_alive(learner.node) {
            Step::Fill {
                tablet: tablet.id,
                replica: *learner,
            }
        } else {
            Step::Propose(Command::RemoveReplica {
                tablet: tablet.id,
                epoch: tablet.epoch,
                replica: learner.id,
            })
        });
    }
    let groups = groups(state, replication);
    let mut wanted_in_all = 0;
    for (group, factor) in &groups {
        let wanted = attainable(*factor, group.len());
        wanted_in_all += wanted;
        if let Some(node) = missing(tablet, group, wanted, is_alive, counts) {
            *counts.entry(node).or_default() += 1;
            return Some(Step::Propose(Command::AddReplica {
                tablet: tablet.id,
                epoch: tablet.epoch,
                node,
            }));
        }
    }
    // A group of two voters should be over as soon as it begins: the third stands ready.
    let voters = tablet.voters().count();
    let mut learners = tablet
        .replicas
        .iter()
        .filter(|replica| replica.is_learner && is_alive(replica.node));
    let ready = voters + learners.clone().count();
    if voters == 1 && wanted_in_all > 2 && ready < 3 {
        return None;
    }
    learners.next().map(|learner| Step::Fill {
        tablet: tablet.id,
        replica: *learner,
    })
}

/// The node for one more replica in a group of nodes that has too few, if one is alive.
fn missing(
    tablet: &Tablet,
    group: &[&NodeRecord],
    wanted: usize,
    is_alive: &dyn Fn(NodeId) -> bool,
    counts: &Counts,
) -> Option<NodeId> {
    let placed: Vec<NodeId> = tablet
        .replicas
        .iter()
        .map(|replica| replica.node)
        .filter(|id| group.iter().any(|node| node.id == *id))
        .collect();
    if placed.len() >= wanted {
        return None;
    }
    let free = group
        .iter()
        .filter(|node| !placed.contains(&node.id) && is_alive(node.id));
    let best = free.min_by_key(|node| {
        (
            shares_rack(group, &placed, node),
            counts.get(&node.id).copied().unwrap_or(0),
            node.id,
        )
    });
    best.map(|node| node.id)
}
