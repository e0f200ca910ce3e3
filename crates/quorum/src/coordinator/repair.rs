//! Repair of a tablet, in steps of a short range each: the replicas' trees of it are compared, and where leaves differ
//! all replicas' rows are read, merged, and brought to whoever lacks something.
//!
//! A step in which every replica took part, those included that are being filled, ends with each of them noting that
//! the range was repaired since the step's begin. Every message carries the placement's epoch: when the placement
//! changes under way, the step fails and notes nothing.

use super::{Coordinator, Failure};
use crate::grace::change_expires;
use crate::merge::{Reconciled, reconcile};
use crate::message::{
    Action, Covered, Page, RawRow, RepairReply, RepairRequest, ReplicaRead, ReplicaSelection,
    Reply, Request,
};
use crate::partition::Layout;
use crate::repair::tree::{Leaves, Tree};
use api::{Direction, KeyRange};
use catalog::{Durability, Table};
use cluster::Tablet;
use futures::future::{join_all, try_join_all};
use minicbor::{Decode, Encode};
use model::{NodeId, Timestamp};
use std::time::Duration;
use tokio::time::Instant;

/// A replica has so long to answer a part of a step.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of each replica so much is read at once where leaves differ.
const PAGE_BYTES: u32 = 256 << 10;

/// What a step of repair came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct RepairStep {
    /// Where the next step begins; `None` at the tablet's end.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub next: Option<Vec<u8>>,
    /// Every replica took part.
    #[n(1)]
    pub is_whole: bool,
    /// What this node's replica holds of the range.
    #[n(2)]
    pub compared_bytes: u64,
    /// Rows that some replica lacked, once for each.
    #[n(3)]
    pub streamed_rows: u64,
    /// What was read and sent for them.
    #[n(4)]
    pub streamed_bytes: u64,
}

/// What stays the same throughout one step.
struct Session<'a> {
    coordinator: &'a Coordinator,
    layout: Layout,
    tablet: &'a Tablet,
    /// Who takes part.
    nodes: Vec<NodeId>,
    /// Until when replicas take what the step brings them.
    expires: Timestamp,
}

impl Coordinator {
    /// Repairs the part of a tablet that begins at `from`. This node must hold a replica of it.
    pub async fn repair_step(
        &self,
        table: &Table,
        tablet: &Tablet,
        from: &[u8],
    ) -> Result<RepairStep, String> {
        let begin = self.gateway.now();
        let local = self.peers.local(tablet.id);
        let local = local.map_err(|error| error.to_string())?;
        let mut session = Session {
            coordinator: self,
            layout: Layout::new(table),
            tablet,
            nodes: Vec::new(),
            expires: change_expires(begin, table.spec.gc_grace_seconds),
        };
        let purged_before = session.begin().await?;
        let rest = KeyRange {
            start: from.to_vec(),
            end: tablet.range.end.clone(),
        };
        let (leaves, compared) = local.cut_leaves(rest).map_err(|error| error.to_string())?;
        let (leaves, differences) = session.compare(&local, leaves, purged_before).await?;
        let mut step = RepairStep {
            is_whole: session.nodes.len() == tablet.replicas.len(),
            compared_bytes: compared as u64,
            ..RepairStep::default()
        };
        for range in differences {
            session.stream(range, &mut step).await?;
        }
        if step.is_whole {
            session.note(&leaves.range, begin).await?;
        }
        step.next = leaves.range.end.filter(|end| {
            let tablet_end = tablet.range.end.as_ref();
            tablet_end.is_none_or(|tablet_end| end < tablet_end)
        });
        Ok(step)
    }
}

impl Session<'_> {
    async fn ask(&self, node: NodeId, action: Action) -> Result<Reply, String> {
        let request = Request {
            tablet: self.tablet.id,
            epoch: self.tablet.epoch,
            action,
        };
        let deadline = Instant::now() + PATIENCE;
        let answer = self.coordinator.ask_node(node, request, deadline).await;
        answer.map_err(|failure| match failure {
            Failure::Refused(error) => format!("{node}: {error}"),
            Failure::Silent(error) => format!("{node}: {error}"),
        })
    }

    /// Finds out who takes part. Returns before which moment all of them may have forgotten tombstones.
    async fn begin(&mut self) -> Result<i64, String> {
        let peers = &self.coordinator.peers;
        let alive: Vec<NodeId> = self
            .tablet
            .replicas
            .iter()
            .map(|replica| replica.node)
            .filter(|node| *node == peers.this_node() || peers.is_alive(*node))
            .collect();
        let asked = alive
            .iter()
            .map(|node| self.ask(*node, Action::Repair(RepairRequest::Begin)));
        let answers = join_all(asked).await;
        let mut purged_before = i64::MAX;
        for (node, answer) in alive.into_iter().zip(answers) {
            match answer {
                Ok(Reply::Repair(RepairReply::Begun {
                    purged_before: here,
                })) => {
                    purged_before = purged_before.min(here);
                    self.nodes.push(node);
                }
                Ok(_) => return Err(format!("{node}: an answer that makes no sense")),
                Err(error) => tracing::debug!(tablet = %self.tablet.id, error, "not repaired"),
            }
        }
        if self.nodes.contains(&peers.this_node()) {
            Ok(purged_before)
        } else {
            Err("the replica here does not take part".into())
        }
    }

    fn others(&self) -> impl Iterator<Item = NodeId> {
        let this_node = self.coordinator.peers.this_node();
        self.nodes
            .iter()
            .copied()
            .filter(move |node| *node != this_node)
    }

    /// Compares trees. Returns the leaves that were compared, fewer than given where a replica holds too much, and the
    /// ranges that differ.
    async fn compare(
        &self,
        local: &crate::EventualReplica,
        mut leaves: Leaves,
        purged_before: i64,
    ) -> Result<(Leaves, Vec<KeyRange>), String> {
        'leaves: loop {
            let tree = local.tree(&leaves, purged_before);
            let mine = match tree.map_err(|error| error.to_string())? {
                Ok(tree) => tree,
                Err(key) => {
                    leaves = leaves.up_to(key);
                    continue;
                }
            };
            let asked = self.others().map(|node| {
                let request = RepairRequest::Tree {
                    leaves: leaves.clone(),
                    purged_before,
                    root: mine.root(),
                };
                self.ask(node, Action::Repair(request))
            });
            let mut differing: Vec<Tree> = Vec::new();
            for answer in try_join_all(asked).await? {
                match answer {
                    Reply::Repair(RepairReply::Same) => {}
                    Reply::Repair(RepairReply::Leaves(tree)) => differing.push(tree),
                    Reply::Repair(RepairReply::Shorter(key)) if leaves.range.contains(&key) => {
                        if key == leaves.range.start {
                            return Err("a replica asks for an empty range".into());
                        }
                        leaves = leaves.up_to(key);
                        continue 'leaves;
                    }
                    _ => return Err("an answer that makes no sense".into()),
                }
            }
            let ranges = match differing.as_slice() {
                [] => Vec::new(),
                [only] => mine.difference(only, &leaves),
                // A leaf that differs anywhere is exchanged among all.
                several => several_differences(&mine, several, &leaves),
            };
            return Ok((leaves, ranges));
        }
    }

    /// Reads a range from all who take part, page by page, and brings each what it lacks.
    async fn stream(&self, mut range: KeyRange, step: &mut RepairStep) -> Result<(), String> {
        loop {
            let selection = ReplicaSelection::Range {
                range: range.clone(),
                direction: Direction::Forward,
            };
            let read = ReplicaRead {
                rows: selection.clone(),
                row_limit: None,
                size_bytes_max: PAGE_BYTES,
                // Nothing counts as expired: the copy is exact.
                now_seconds: i64::MIN,
            };
            let asked = self
                .nodes
                .iter()
                .map(|node| self.ask(*node, Action::Read(read.clone())));
            let mut pages: Vec<Page> = Vec::with_capacity(self.nodes.len());
            for answer in try_join_all(asked).await? {
                let Reply::Page(page) = answer else {
                    return Err("an answer that makes no sense".into());
                };
                step.streamed_bytes += size_bytes(page.headers.iter().chain(&page.rows));
                pages.push(page);
            }
            let Reconciled { merged, repairs } = reconcile(&self.layout, &selection, &pages)?;
            let bringing = self
                .nodes
                .iter()
                .zip(repairs)
                .filter(|(_, deltas)| !deltas.is_empty())
                .map(|(node, deltas)| {
                    step.streamed_rows += deltas.len() as u64;
                    step.streamed_bytes += size_bytes(deltas.iter());
                    let action = Action::Apply {
                        deltas,
                        durability: Durability::Synced,
                        expires: Some(self.expires),
                    };
                    self.ask(*node, action)
                });
            try_join_all(bringing.collect::<Vec<_>>()).await?;
            match merged.covered {
                Covered::All => return Ok(()),
                Covered::To(key) if key > range.start => range.start = key,
                _ => return Err("a page that gets nowhere".into()),
            }
            if range.is_empty() {
                return Ok(());
            }
        }
    }

    async fn note(&self, range: &KeyRange, since: Timestamp) -> Result<(), String> {
        let noting = self.nodes.iter().map(|node| {
            let range = range.clone();
            self.ask(
                *node,
                Action::Repair(RepairRequest::Repaired { range, since }),
            )
        });
        try_join_all(noting).await?;
        Ok(())
    }
}

fn several_differences(mine: &Tree, others: &[Tree], leaves: &Leaves) -> Vec<KeyRange> {
    let count = leaves.count();
    if others.iter().any(|other| other.0.len() != count) {
        return vec![leaves.range.clone()];
    }
    // A tree that differs from mine wherever one of them does.
    let any = (0..count).map(|index| {
        let other = others.iter().find(|other| other.0[index] != mine.0[index]);
        other.map_or(mine.0[index], |other| other.0[index])
    });
    mine.difference(&Tree(any.collect()), leaves)
}

fn size_bytes<'a>(rows: impl Iterator<Item = &'a RawRow>) -> u64 {
    rows.map(|row| row.size_bytes() as u64).sum()
}
