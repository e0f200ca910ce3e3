//! Placement: which nodes hold a tablet's replicas, and the next steps towards where they should be.
//!
//! A data centre gets as many copies as its replication says, never more than it has nodes; where it says nothing, copies
//! prefer different data centres. They prefer different racks, and nodes that hold fewer, and move apart when there are
//! nodes for that. With two nodes a table that asks for three keeps one voter: two
//! voters stop when either stops, so the second node takes part when the third is there.
//!
//! A tablet moves by gaining before it loses: a new replica is added, filled and made a voter, and only then one
//! that should go is taken away: one on a node that leaves or is lost, one too many, one in a data centre that the
//! table is to leave, or one of the fullest node. It goes in two steps: it is *retired*, and then removed. A voter of an
//! eventual tablet is counted by no write once it is retired, and the others take over all that it has; as long as reads
//! ask it, that can be taken back. Of a retired replica of a strong tablet its group lets go, before the map does: were
//! the map first, a node might end a replica, or never begin one, whose vote its group cannot do without.

use crate::command::Counts;
use crate::{Command, META, NodeRecord, Replica, Split, State, Tablet};
use catalog::{Protocol, Replication};
use model::{NodeId, ReplicaId, TabletId};
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
    let mut counts: Counts = state.takers().map(|node| (node.id, 0)).collect();
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
        let mut placed: Vec<&NodeRecord> = Vec::new();
        while placed.len() < wanted {
            // The first replica is dealt in turn, so that CQL's ring names a node that has the data.
            let turn = position % group.len();
            let next = group
                .iter()
                .enumerate()
                .filter(|(_, node)| placed.iter().all(|other| other.id != node.id))
                .min_by_key(|(index, node)| {
                    let is_turn = placed.is_empty() && *index == turn;
                    (
                        avoid.contains(&node.id),
                        !is_turn,
                        closeness(placed.iter().copied(), node),
                        counts.get(&node.id).copied().unwrap_or(0),
                        (index + group.len() - turn) % group.len(),
                    )
                });
            let Some((_, node)) = next else { break };
            placed.push(node);
        }
        chosen.extend(placed.iter().map(|node| node.id));
    }
    chosen
}

/// How many of the nodes that have a copy stand in a node's data centre, and how many in its rack.
fn closeness<'a>(
    placed: impl Iterator<Item = &'a NodeRecord>,
    node: &NodeRecord,
) -> (usize, usize) {
    let beside = placed.filter(|other| other.profile.data_center == node.profile.data_center);
    let (mut in_center, mut in_rack) = (0, 0);
    for other in beside {
        in_center += 1;
        in_rack += usize::from(other.profile.rack == node.profile.rack);
    }
    (in_center, in_rack)
}

/// Members that a replication's copies are spread over, and how many copies.
pub(crate) type NodeGroup<'a> = (Vec<&'a NodeRecord>, u32);

fn is_in(group: &[&NodeRecord], node: NodeId) -> bool {
    group.iter().any(|member| member.id == node)
}

pub(crate) fn group_of<'a, 'b>(
    groups: &'b [NodeGroup<'a>],
    node: NodeId,
) -> Option<&'b NodeGroup<'a>> {
    groups.iter().find(|(group, _)| is_in(group, node))
}

/// One group per data centre, or one of all nodes.
pub(crate) fn groups<'a>(state: &'a State, replication: &Replication) -> Vec<NodeGroup<'a>> {
    let members = || state.takers().map(AsRef::as_ref);
    let mut groups: Vec<NodeGroup<'_>> = replication
        .factor_by_data_center
        .iter()
        .map(|(data_center, factor)| {
            let nodes = members().filter(|node| node.profile.data_center == *data_center);
            (nodes.collect(), *factor)
        })
        .filter(|(nodes, factor): &NodeGroup<'_>| !nodes.is_empty() && *factor > 0)
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
pub(crate) fn attainable(factor: u32, nodes: usize) -> usize {
    match (factor as usize).min(nodes) {
        2 if factor > 2 => 1,
        count => count,
    }
}

/// How many copies a table can have on the nodes that there are.
pub(crate) fn copies(state: &State, replication: &Replication) -> usize {
    let groups = groups(state, replication);
    groups
        .iter()
        .map(|(group, factor)| (*factor as usize).min(group.len()))
        .sum()
}

/// What is believed about the nodes now.
#[derive(Clone, Copy)]
pub struct Liveness<'a> {
    /// Can take part now.
    pub is_alive: &'a (dyn Fn(NodeId) -> bool + Sync),
    /// Has been dead for so long that what it holds is to be made anew.
    pub is_lost: &'a (dyn Fn(NodeId) -> bool + Sync),
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
    /// This eventual tablet was divided: once each first replica of the right half has been made, `Command::SettleSplit`
    /// ends it.
    Settle(Arc<Split>),
    /// This strong tablet's group, or the meta group, is to let go of a replica; `Command::RemoveReplica` ends it.
    LetGo { tablet: TabletId, leaving: Replica },
    /// The other replicas of this eventual tablet are to take over all that the leaving one has;
    /// `Command::RemoveReplica` ends it.
    TakeOver {
        tablet: TabletId,
        leaving: Replica,
        /// Its node has been dead for long, or was removed: what it alone has is lost.
        is_lost: bool,
    },
}

/// Tablets that are moved at one time for the sake of balance alone.
const BALANCING_MAX: usize = 4;

/// The next steps, at most one per tablet and `steps_max` in all, meta group first; and the splits that may be over.
pub fn plan(state: &State, nodes: &Liveness<'_>, steps_max: usize) -> Vec<Step> {
    let mut planner = Planner {
        state,
        nodes,
        counts: counts(state),
        moving: 0,
    };
    let mut steps = Vec::new();
    steps.extend(planner.meta());
    steps.extend(planner.hopeless());
    let (mut settled, mut settling) = (Vec::new(), Vec::new());
    for tablet in state.tablets.values().filter(|tablet| tablet.id != META) {
        let Some(table) = state.catalog.tables.get(&tablet.root) else {
            continue;
        };
        if state.is_fixed(tablet.id) {
            let split = state.splits.get(&tablet.id);
            match split {
                Some(split) if !split.is_finished => steps.push(Step::Divide(Arc::clone(split))),
                // A strong tablet's right half says itself when it lives.
                Some(split) if !table.is_strong() && planner.can_settle(split) => {
                    settling.push(Step::Settle(Arc::clone(split)));
                }
                _ => {}
            }
            continue;
        }
        let replication = &table.spec.replication;
        planner.moving += usize::from(planner.is_moving(tablet, replication));
        match planner.tablet(tablet, replication) {
            Some(step) if steps.len() < steps_max => steps.push(step),
            Some(_) => {}
            // A half that is not settled leaves lost nodes, no others.
            None if state.is_splitting(tablet.id) => {}
            None => settled.push((tablet, replication)),
        }
    }
    for (tablet, replication) in settled {
        if steps.len() >= steps_max || planner.moving >= BALANCING_MAX {
            break;
        }
        steps.extend(planner.balance(tablet, replication));
    }
    steps.truncate(steps_max);
    steps.extend(settling);
    steps
}

struct Planner<'a> {
    state: &'a State,
    nodes: &'a Liveness<'a>,
    counts: Counts,
    /// Tablets with a replica that is being filled, or one too many.
    moving: usize,
}

impl Planner<'_> {
    fn is_alive(&self, node: NodeId) -> bool {
        (self.nodes.is_alive)(node)
    }

    /// Whether what this node holds counts on.
    fn stays(&self, node: NodeId) -> bool {
        let is_taker = self.state.takers().any(|taker| taker.id == node);
        is_taker && !(self.nodes.is_lost)(node)
    }

    /// Whether nobody is away who may have to make a replica of the right half yet.
    fn can_settle(&self, split: &Split) -> bool {
        let mut founders = self.state.founders_of_half(split);
        founders.all(|founder| self.is_alive(founder.node))
    }

    fn count(&self, node: NodeId) -> u64 {
        self.counts.get(&node).copied().unwrap_or(0)
    }

    /// Dropped tablets whose groups will never have a majority again: nobody can say what they have decided.
    fn hopeless(&self) -> Option<Step> {
        let is_hopeless = |tablet: &&Arc<Tablet>| {
            let removed = tablet.voters().filter(|it| self.state.is_removed(it.node));
            removed.count() * 2 >= tablet.voters().count()
        };
        let tablets = self.state.dropped.values().filter(is_hopeless);
        let tablets: Vec<TabletId> = tablets.map(|tablet| tablet.id).collect();
        (!tablets.is_empty()).then_some(Step::Propose(Command::Forget { tablets }))
    }

    /// One voter, or three; further members of a small cluster follow as learners.
    fn meta(&self) -> Option<Step> {
        let meta = self.state.tablets.get(&META)?;
        let takers: Vec<NodeId> = self.state.takers().map(|node| node.id).collect();
        let wanted = (META_VOTERS as usize).min(takers.len());
        if let Some(leaving) = leaving(meta) {
            return self.let_go(meta, leaving);
        }
        let staying = |replica: &&Replica| self.stays(replica.node);
        if meta.replicas.iter().filter(staying).count() < wanted
            && let Some(node) = self.apart(meta)
        {
            return Some(add(meta, node));
        }
        let learners: Vec<&Replica> = meta.replicas.iter().filter(|r| r.is_learner).collect();
        if let Some(gone) = learners.iter().find(|learner| !self.stays(learner.node)) {
            return Some(retire(meta, gone.id));
        }
        let voters = meta.voters().filter(staying).count();
        if voters < attainable(META_VOTERS, takers.len()) {
            // All three, or none: a group of two voters should be over as soon as it begins.
            let is_whole = learners.iter().all(|replica| self.is_alive(replica.node));
            if is_whole || meta.voters().count() >= 2 {
                let learner = learners.iter().find(|replica| self.is_alive(replica.node));
                return learner.map(|replica| Step::Fill {
                    tablet: META,
                    replica: **replica,
                });
            }
            return None;
        }
        match meta.voters().find(|voter| !self.stays(voter.node)) {
            Some(leaving) => self
                .can_lose(meta, leaving)
                .then(|| retire(meta, leaving.id)),
            None if voters >= META_VOTERS as usize => self.spread_meta(meta),
            None => None,
        }
    }

    /// The meta group's voters in a data centre, of those that count on.
    fn meta_voters_in(&self, meta: &Tablet, center: &str) -> usize {
        let voters = meta.voters().filter(|voter| self.stays(voter.node));
        voters
            .filter(|voter| self.center(voter.node) == center)
            .count()
    }

    fn center(&self, node: NodeId) -> &str {
        let record = self.state.nodes.get(&node);
        record.map_or("", |record| record.profile.data_center.as_str())
    }

    /// The node for one more replica of the meta group: where there are fewest, by data centre and by rack.
    fn apart(&self, meta: &Tablet) -> Option<NodeId> {
        let free = self
            .state
            .takers()
            .filter(|node| meta.replica_on(node.id).is_none() && self.is_alive(node.id));
        let placed = || {
            let nodes = meta.replicas.iter().filter(|it| self.stays(it.node));
            nodes.filter_map(|replica| self.state.nodes.get(&replica.node))
        };
        let best = free.min_by_key(|node| {
            let beside =
                |other: &&Arc<NodeRecord>| other.profile.data_center == node.profile.data_center;
            let close =
                |other: &&Arc<NodeRecord>| beside(other) && other.profile.rack == node.profile.rack;
            (
                placed().filter(beside).count(),
                placed().filter(close).count(),
                node.id,
            )
        });
        best.map(|node| node.id)
    }

    /// The group's voters stand in as many data centres as they can, so that no one centre has the majority where it
    /// need not: one more in a centre that has none, and then one less in the most crowded.
    fn spread_meta(&self, meta: &Tablet) -> Option<Step> {
        let most = meta
            .voters()
            .filter(|voter| self.stays(voter.node))
            .max_by_key(|voter| {
                let beside = self.meta_voters_in(meta, self.center(voter.node));
                (beside, voter.node)
            })?;
        let is_crowded = self.meta_voters_in(meta, self.center(most.node)) > 1;
        let is_better =
            |node: NodeId| is_crowded && self.meta_voters_in(meta, self.center(node)) == 0;
        if let Some(learner) = meta.replicas.iter().find(|replica| replica.is_learner) {
            // Where it changes nothing it is left from a shortage that has passed.
            return match is_better(learner.node) {
                true => self.is_alive(learner.node).then(|| fill(meta, learner)),
                false => Some(retire(meta, learner.id)),
            };
        }
        if meta.voters().count() > META_VOTERS as usize {
            return self.can_lose(meta, most).then(|| retire(meta, most.id));
        }
        let node = self.apart(meta).filter(|node| is_better(*node))?;
        Some(add(meta, node))
    }

    fn tablet(&mut self, tablet: &Tablet, replication: &Replication) -> Option<Step> {
        let is_eventual = replication.protocol == Protocol::Eventual;
        let groups = groups(self.state, replication);
        if let Some(leaving) = leaving(tablet).filter(|_| !is_eventual) {
            return self.let_go(tablet, leaving);
        }
        let mut learners = tablet.replicas.iter().filter(|r| r.is_learner);
        if let Some(gone) = learners
            .find(|learner| !self.stays(learner.node) || group_of(&groups, learner.node).is_none())
        {
            return Some(match is_eventual {
                true => remove(tablet, gone.id),
                false => retire(tablet, gone.id),
            });
        }
        if let Some(leaving) = leaving(tablet) {
            let goes =
                self.can_go(tablet, &groups, &leaving) && self.can_take_over(tablet, &leaving);
            return Some(match goes {
                true => Step::TakeOver {
                    tablet: tablet.id,
                    leaving,
                    is_lost: self.is_lost(leaving.node),
                },
                false => promote(tablet, &leaving),
            });
        }
        if is_eventual && let Some(learner) = tablet.replicas.iter().find(|r| r.is_learner) {
            // One at a time, and not for long: every write waits for it.
            return Some(match self.is_alive(learner.node) {
                true => fill(tablet, learner),
                false => remove(tablet, learner.id),
            });
        }
        let mut wanted_in_all = 0;
        for (group, factor) in &groups {
            let wanted = attainable(*factor, group.len());
            wanted_in_all += wanted;
            if let Some(node) = self.missing(tablet, group, wanted) {
                *self.counts.entry(node).or_default() += 1;
                return Some(add(tablet, node));
            }
        }
        // A group of two voters should be over as soon as it begins: the third stands ready.
        let voters = tablet.voters().count();
        let mut learners = tablet
            .replicas
            .iter()
            .filter(|replica| replica.is_learner && self.is_alive(replica.node));
        let ready = voters + learners.clone().count();
        if voters == 1 && wanted_in_all > 2 && ready < 3 {
            return None;
        }
        if let Some(learner) = learners.next() {
            return Some(fill(tablet, learner));
        }
        let leaving = self.leaving(tablet, &groups, is_eventual)?;
        let can_go = match is_eventual {
            true => self.can_take_over(tablet, &leaving),
            false => self.can_lose(tablet, &leaving),
        };
        can_go.then(|| retire(tablet, leaving.id))
    }

    /// A group lets go of a replica when it has a majority for that.
    fn let_go(&self, tablet: &Tablet, leaving: Replica) -> Option<Step> {
        let alive = tablet.voters().filter(|voter| self.is_alive(voter.node));
        let can_agree = alive.count() > tablet.voters().count() / 2;
        let tablet = tablet.id;
        can_agree.then_some(Step::LetGo { tablet, leaving })
    }

    /// The voter that should go next: one of a node that does not count on, once there are enough others; or one
    /// of more than there should be in a group of nodes: of a strong tablet, whose group agrees without it, one that is
    /// dead before all others.
    fn leaving(
        &self,
        tablet: &Tablet,
        groups: &[NodeGroup<'_>],
        is_eventual: bool,
    ) -> Option<Replica> {
        let mut voters = tablet.voters();
        if let Some(voter) = voters
            .find(|voter| !self.counts_on(groups, voter) && self.can_go(tablet, groups, voter))
        {
            return Some(*voter);
        }
        groups.iter().find_map(|(group, _)| {
            let record = |voter: &Replica| group.iter().find(|node| node.id == voter.node);
            let here: Vec<(&Replica, &NodeRecord)> = tablet
                .voters()
                .filter_map(|voter| Some((voter, *record(voter)?)))
                .collect();
            let (victim, _) = here.iter().max_by_key(|(voter, node)| {
                let others = here.iter().map(|(_, other)| *other);
                let others = others.filter(|other| other.id != node.id);
                let closeness = closeness(others, node);
                let is_dead = !is_eventual && !self.is_alive(node.id);
                (is_dead, closeness, self.count(voter.node), voter.node)
            })?;
            self.can_go(tablet, groups, victim).then_some(**victim)
        })
    }

    /// Whether a voter's node stays, in a data centre that the table is in.
    fn counts_on(&self, groups: &[NodeGroup<'_>], voter: &Replica) -> bool {
        self.stays(voter.node) && group_of(groups, voter.node).is_some()
    }

    /// Whether there are enough others for a voter to go: in its own group of nodes, or, when it is in none, in all.
    fn can_go(&self, tablet: &Tablet, groups: &[NodeGroup<'_>], voter: &Replica) -> bool {
        let has_enough = |(group, factor): &NodeGroup<'_>| {
            let here = tablet.voters().filter(|it| is_in(group, it.node));
            let counting = here.filter(|it| self.counts_on(groups, it)).count();
            match self.counts_on(groups, voter) {
                true => counting > *factor as usize,
                false => counting >= attainable(*factor, group.len()),
            }
        };
        match group_of(groups, voter.node) {
            Some(group) => has_enough(group),
            None => groups.iter().all(has_enough),
        }
    }

    /// Whether enough voters are alive to agree on losing this one, and to go on without it.
    fn can_lose(&self, tablet: &Tablet, leaving: &Replica) -> bool {
        let count = tablet.voters().count();
        let others = tablet.voters().filter(|voter| voter.id != leaving.id);
        let alive = others.filter(|voter| self.is_alive(voter.node)).count();
        let agree = alive + usize::from(self.is_alive(leaving.node));
        agree > count / 2 && alive > (count - 1) / 2
    }

    /// Whether all other replicas of an eventual tablet can take over now what one has: they are alive, and so is it,
    /// unless there is no hope for it. Those of removed nodes are not waited for.
    fn can_take_over(&self, tablet: &Tablet, leaving: &Replica) -> bool {
        let mut others = tablet
            .voters()
            .filter(|voter| voter.id != leaving.id && !self.state.is_removed(voter.node))
            .peekable();
        others.peek().is_some()
            && others.all(|voter| self.is_alive(voter.node))
            && (self.is_alive(leaving.node) || self.is_lost(leaving.node))
    }

    fn is_lost(&self, node: NodeId) -> bool {
        (self.nodes.is_lost)(node) || self.state.is_removed(node)
    }

    fn is_moving(&self, tablet: &Tablet, replication: &Replication) -> bool {
        let wanted: u32 = groups(self.state, replication)
            .iter()
            .map(|(_, factor)| *factor)
            .sum();
        tablet.replicas.iter().any(|replica| replica.is_learner)
            || tablet.replicas.len() > wanted as usize
            || tablet.leaving.is_some()
    }

    /// A replica further apart from the others in place of one that stands close to one, if there is a node for it; or one
    /// on the emptiest node in place of one on the fullest, if that makes a difference that lasts: what is moving already
    /// may be half of the way.
    fn balance(&mut self, tablet: &Tablet, replication: &Replication) -> Option<Step> {
        let moving = self.moving as u64;
        // Its surplus cannot go at the moment: more of it would not help.
        if self.is_moving(tablet, replication) {
            return None;
        }
        for (group, factor) in groups(self.state, replication) {
            if group.len() <= factor as usize {
                continue;
            }
            let is_usable = |node: &&&NodeRecord| self.is_alive(node.id);
            let (held, free): (Vec<&NodeRecord>, Vec<&NodeRecord>) = group
                .into_iter()
                .partition(|node| tablet.replica_on(node.id).is_some());
            let free = || free.iter().filter(is_usable);
            // How close a node is to those that keep their copies when this one gives up its.
            let beside = |node: &NodeRecord, without: NodeId| {
                let others = held.iter().copied().filter(|other| other.id != without);
                closeness(others, node)
            };
            let closest = held
                .iter()
                .max_by_key(|node| (beside(node, node.id), node.id));
            let Some(closest) = closest else {
                continue;
            };
            let apart = free().min_by_key(|node| {
                let close = beside(node, closest.id);
                (close, self.count(node.id), node.id)
            });
            let apart = apart.filter(|node| beside(node, closest.id) < beside(closest, closest.id));
            let fullest = held
                .iter()
                .filter(is_usable)
                .max_by_key(|node| (self.count(node.id), node.id));
            let emptiest = free().min_by_key(|node| (self.count(node.id), node.id));
            let emptier = emptiest.filter(|to| {
                fullest.is_some_and(|from| {
                    beside(to, from.id) <= beside(from, from.id)
                        && self.count(from.id) >= self.count(to.id) + 2 + moving
                })
            });
            if let Some(to) = apart.or(emptier) {
                *self.counts.entry(to.id).or_default() += 1;
                self.moving += 1;
                return Some(add(tablet, to.id));
            }
        }
        None
    }

    /// The node for one more replica in a group of nodes that has too few, if one is alive.
    fn missing(&self, tablet: &Tablet, group: &[&NodeRecord], wanted: usize) -> Option<NodeId> {
        let placed: Vec<&NodeRecord> = group
            .iter()
            .copied()
            .filter(|node| tablet.replica_on(node.id).is_some() && self.stays(node.id))
            .collect();
        if placed.len() >= wanted {
            return None;
        }
        let successors: Vec<NodeId> = tablet
            .replicas
            .iter()
            .filter_map(|replica| self.state.nodes.get(&replica.node)?.successor)
            .collect();
        let free = group
            .iter()
            .filter(|node| tablet.replica_on(node.id).is_none() && self.is_alive(node.id));
        let best = free.min_by_key(|node| {
            (
                !successors.contains(&node.id),
                closeness(placed.iter().copied(), node),
                self.count(node.id),
                node.id,
            )
        });
        best.map(|node| node.id)
    }
}

fn leaving(tablet: &Tablet) -> Option<Replica> {
    tablet.leaving.and_then(|id| tablet.replica(id)).copied()
}

fn add(tablet: &Tablet, node: NodeId) -> Step {
    Step::Propose(Command::AddReplica {
        tablet: tablet.id,
        epoch: tablet.epoch,
        node,
    })
}

fn remove(tablet: &Tablet, replica: ReplicaId) -> Step {
    Step::Propose(Command::RemoveReplica {
        tablet: tablet.id,
        epoch: tablet.epoch,
        replica,
    })
}

fn retire(tablet: &Tablet, replica: ReplicaId) -> Step {
    Step::Propose(Command::Retire {
        tablet: tablet.id,
        epoch: tablet.epoch,
        replica,
    })
}

/// Takes a retirement back.
fn promote(tablet: &Tablet, leaving: &Replica) -> Step {
    Step::Propose(Command::Promote {
        tablet: tablet.id,
        replica: leaving.id,
    })
}

fn fill(tablet: &Tablet, learner: &Replica) -> Step {
    Step::Fill {
        tablet: tablet.id,
        replica: *learner,
    }
}
