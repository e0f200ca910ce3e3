//! What clients do to a simulated cluster, and who judges it.

mod append;
mod bank;
mod batches;
mod client;
mod external;
mod quorum;
mod receipts;
mod register;

pub(crate) use client::{NAMESPACE, replication};

use crate::cluster::Cluster;
use crate::plan::Plan;
use bank::Outcomes;
use quorum::Levels;
use register::Kind;
use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Reads, writes, deletions and compare-and-set of single rows of a strong table: linearizable.
    Register,
    /// The same on an eventual table: each write a compare-and-set, reads serial or at QUORUM; in some seeds with nodes
    /// that join under faults, or are replaced.
    Cas,
    /// Logged batches over several partitions of an eventual table: all of each, or nothing, in the end.
    Batches,
    /// Quorum writes and quorum reads of an eventual table: nothing acknowledged or shown is missed.
    Quorum,
    /// The same with writes at ANY, ONE and QUORUM, a short `gc_grace` and incessant repair, in some seeds with nodes that
    /// are replaced: in the end all replicas are alike, with every acknowledged write, and nothing that was deleted.
    Heal,
    /// Three data centres that are cut off, come and go; reads and writes at all levels, with clients' clocks that differ.
    /// What a level promises is seen by those whom it promises it to; in the end all replicas hold the same.
    Centres,
    /// As in `Cas`, by the replicas of one data centre alone, each for keys of its own, in partitions that it shares with the
    /// others: linearizable there, whatever becomes of the others. And by all of them, in partitions that are everybody's.
    Regions,
    /// Transactions that append to lists of a strong table and read them: serializable, in the order of real time as
    /// far as the table promises.
    Append,
    /// Transfers between accounts of a strong table, some with a row of a table that is dropped meanwhile: at every
    /// timestamp and replica, the books balance.
    Bank,
    /// The same, and of each commit whose outcome its client has not heard another node is asked: what it says is so.
    Recall,
    /// Single writes one after the other over many tablets of an `external` table, and snapshots of all keys: commit
    /// timestamps follow real time.
    External,
}

impl Workload {
    pub const ALL: [Workload; 11] = [
        Workload::Register,
        Workload::Quorum,
        Workload::Heal,
        Workload::Centres,
        Workload::Regions,
        Workload::Cas,
        Workload::Batches,
        Workload::Append,
        Workload::Bank,
        Workload::Recall,
        Workload::External,
    ];

    /// On tables that consensus keeps.
    pub fn is_strong(self) -> bool {
        matches!(
            self,
            Workload::Register
                | Workload::Append
                | Workload::Bank
                | Workload::Recall
                | Workload::External
        )
    }

    pub fn name(self) -> &'static str {
        match self {
            Workload::Register => "register",
            Workload::Quorum => "quorum",
            Workload::Heal => "heal",
            Workload::Centres => "centres",
            Workload::Regions => "regions",
            Workload::Cas => "cas",
            Workload::Batches => "batches",
            Workload::Append => "append",
            Workload::Bank => "bank",
            Workload::Recall => "recall",
            Workload::External => "external",
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Workload {
    type Err = String;

    fn from_str(name: &str) -> Result<Workload, String> {
        Workload::ALL
            .into_iter()
            .find(|workload| workload.name() == name)
            .ok_or_else(|| {
                let names = Workload::ALL.map(Workload::name).join(", ");
                format!("no workload is called {name}: there are {names}")
            })
    }
}

/// How operations have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub succeeded: u64,
    /// Certainly did not happen.
    pub refused: u64,
    pub unknown: u64,
}

/// Runs the clients and the nemesis, lets the cluster heal, and judges.
pub(crate) async fn run(
    workload: Workload,
    cluster: &Cluster,
    plan: &Plan,
) -> Result<(Counts, crate::nemesis::Strikes), String> {
    match workload {
        Workload::Register => register::run(cluster, plan, Kind::Strong).await,
        Workload::Cas => register::run(cluster, plan, Kind::Swapped).await,
        Workload::Regions => register::run(cluster, plan, Kind::Regional).await,
        Workload::Batches => batches::run(cluster, plan).await,
        Workload::Quorum => quorum::run(cluster, plan, Levels::quorum()).await,
        Workload::Heal => quorum::run(cluster, plan, Levels::healing()).await,
        Workload::Centres => quorum::run(cluster, plan, Levels::of_centres()).await,
        Workload::Append => append::run(cluster, plan).await,
        Workload::Bank => bank::run(cluster, plan, Outcomes::AsHeard).await,
        Workload::Recall => bank::run(cluster, plan, Outcomes::Recalled).await,
        Workload::External => external::run(cluster, plan).await,
    }
}
