//! How far tables are from where their replication wants them: what an operator who has changed it waits for. Pure.

use crate::placement::{attainable, group_of, groups};
use crate::{META, State};
use catalog::Table;
use std::collections::BTreeMap;

/// Copies of tablets in one data centre.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// As many as replication asks for and there are nodes for.
    pub wanted: u64,
    /// Those that are read and counted, of the wanted ones.
    pub settled: u64,
    /// Those that are being filled.
    pub filling: u64,
    /// Those that are one too many, and are to go.
    pub leaving: u64,
}

impl Copies {
    pub fn is_settled(&self) -> bool {
        self.settled >= self.wanted && self.filling == 0 && self.leaving == 0
    }
}

impl State {
    /// The copies of all tables, or of a namespace's, by data centre. Tables whose replication names no data centres
    /// count where their replicas stand.
    pub fn copies(&self, namespace: Option<&str>) -> BTreeMap<String, Copies> {
        let mut found: BTreeMap<String, Copies> = BTreeMap::new();
        let is_asked = |table: &Table| namespace.is_none_or(|name| table.namespace() == name);
        for tablet in self.tablets.values().filter(|tablet| tablet.id != META) {
            let Some(table) = self.catalog.tables.get(&tablet.root) else {
                continue;
            };
            if !is_asked(table) {
                continue;
            }
            let center = |node| {
                let record = self.nodes.get(&node);
                record.map_or("", |record| record.profile.data_center.as_str())
            };
            let groups = groups(self, &table.spec.replication);
            for (group, factor) in &groups {
                let mut here: Vec<_> = tablet
                    .voters()
                    .filter(|voter| group.iter().any(|node| node.id == voter.node))
                    .collect();
                // What is there stays, up to the factor.
                let kept = here.len().min(*factor as usize);
                let wanted = attainable(*factor, group.len()).max(kept);
                // Where there are too many, the one on its way out is.
                here.sort_by_key(|voter| tablet.leaving == Some(voter.id));
                for (position, voter) in here.iter().enumerate() {
                    let copies = found.entry(center(voter.node).to_owned()).or_default();
                    if position < wanted {
                        copies.wanted += 1;
                        copies.settled += 1;
                    } else {
                        copies.leaving += 1;
                    }
                }
                if let (true, Some(node)) = (here.len() < wanted, group.first()) {
                    let name = node.profile.data_center.clone();
                    found.entry(name).or_default().wanted += (wanted - here.len()) as u64;
                }
            }
            for replica in &tablet.replicas {
                let copies = found.entry(center(replica.node).to_owned()).or_default();
                if replica.is_learner {
                    copies.filling += 1;
                } else if group_of(&groups, replica.node).is_none() {
                    copies.leaving += 1;
                }
            }
        }
        found
    }
}
