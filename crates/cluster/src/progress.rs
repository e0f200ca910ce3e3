//! How far tables are from where their replication wants them: what an operator who has changed it waits for. Pure.

use crate::placement::{attainable, group_of, groups};
use crate::{META, State};
use api::Copies;
use catalog::Table;
use model::TableId;
use std::collections::BTreeMap;

impl State {
    /// The copies of all tables, or of a namespace's, by data centre. Tables whose replication names no data centres
    /// count where their replicas stand.
    pub fn copies(&self, namespace: Option<&str>) -> BTreeMap<String, Copies> {
        self.copies_where(|table| namespace.is_none_or(|name| table.namespace() == name))
    }

    /// The copies of a table group.
    pub fn copies_of(&self, root: TableId) -> BTreeMap<String, Copies> {
        self.copies_where(|table| table.id == root)
    }

    fn copies_where(&self, is_asked: impl Fn(&Table) -> bool) -> BTreeMap<String, Copies> {
        let mut found: BTreeMap<String, Copies> = BTreeMap::new();
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
