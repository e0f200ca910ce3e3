//! The life of a split in the tablet map, three commands long: prepared (ids are allotted, the tablet divides
//! itself in its log), finished (the map shows both halves), settled (the new half lives on its own).
//!
//! From the first to the last neither half moves nor splits, so that each of the new tablet's first replicas finds
//! beside it a replica of the old one to be made from, for as long as it may need one.
//!
//! An eventual tablet has no log of its own to be divided in: the first command is the second as well. Every replica of the
//! old tablet refuses what was meant for the whole from the moment it knows, and what it took before goes into both halves;
//! so each quorum's writes are on as many replicas of the half that they belong to. A new replica can be made from no other
//! but the one beside it: the split is settled when each has been made, or has left the map, as that of a lost node
//! does. Until then the new half may move, the old one not.

use crate::command::{TABLETS_MAX, too_many_tablets};
use crate::{Effect, META, Refusal, Replica, Split, State, Tablet};
use api::KeyRange;
use model::{PlacementEpoch, TableId, TabletId};
use std::sync::Arc;

impl State {
    /// Splits that are not settled, by the tablet that is split.
    pub fn splits(&self) -> &std::collections::BTreeMap<TabletId, Arc<Split>> {
        &self.splits
    }

    /// The split, not settled yet, that has made this tablet.
    pub fn split_into(&self, right: TabletId) -> Option<&Arc<Split>> {
        let mut splits = self.splits.values();
        splits.find(|split| split.right.id == right && split.is_finished)
    }

    /// Whether a tablet is a part of a split that is not settled.
    pub fn is_splitting(&self, id: TabletId) -> bool {
        self.splits.contains_key(&id) || self.split_into(id).is_some()
    }

    /// Those of the right half's first replicas that are in the map still.
    pub fn founders_of_half<'a>(&'a self, split: &'a Split) -> impl Iterator<Item = &'a Replica> {
        let right = self.tablet(split.right.id);
        let is_there =
            move |founder: &&Replica| right.is_some_and(|it| it.replica(founder.id).is_some());
        split.right.replicas.iter().filter(is_there)
    }

    /// Whether a tablet's replicas stay where they are, for the sake of a split.
    pub(crate) fn is_fixed(&self, id: TabletId) -> bool {
        let is_strong = |split: &Split| self.is_strong(split.right.root);
        self.splits.contains_key(&id) || self.split_into(id).is_some_and(|it| is_strong(it))
    }

    fn is_strong(&self, root: TableId) -> bool {
        let table = self.catalog.table(root);
        table.is_some_and(|table| table.is_strong())
    }

    /// Whether a tablet's replicas are members of a consensus group.
    pub(crate) fn is_group(&self, tablet: &Tablet) -> bool {
        tablet.id == META || self.is_strong(tablet.root)
    }

    pub(crate) fn prepare_split(
        &mut self,
        id: TabletId,
        epoch: PlacementEpoch,
        key: &[u8],
    ) -> Result<Vec<Effect>, Refusal> {
        let mut left = self.tablet_at(id, epoch)?;
        if id == META {
            return Err(Refusal::Invalid("the meta group is not split".into()));
        }
        if !left.range.contains(key) || left.range.start == key {
            return Err(Refusal::Invalid(format!(
                "the key does not lie inside {id}'s range"
            )));
        }
        let root = self.catalog.table(left.root);
        if root.and_then(|root| root.boundary(key)) != Some(key) {
            return Err(Refusal::Invalid(
                "a tablet is not cut inside a partition, or inside a row with what is interleaved in it"
                    .into(),
            ));
        }
        if self.is_splitting(id) {
            return Err(Refusal::Invalid(format!("{id} is being split")));
        }
        if left.replicas.iter().any(|replica| replica.is_learner) || left.leaving.is_some() {
            return Err(Refusal::Invalid(format!(
                "{id} is being moved; split it afterwards"
            )));
        }
        if self.tablets.len() + self.splits.len() >= TABLETS_MAX {
            return Err(too_many_tablets());
        }
        let mut replicas = left.replicas.clone();
        for replica in &mut replicas {
            replica.id = self.next_replica();
        }
        let right = Tablet {
            id: TabletId(self.head.next_tablet),
            root: left.root,
            range: KeyRange {
                start: key.to_vec(),
                end: left.range.end.replace(key.to_vec()),
            },
            replicas,
            epoch: PlacementEpoch(1),
            leaving: None,
        };
        self.head.next_tablet += 1;
        left.epoch = PlacementEpoch(left.epoch.0 + 1);
        let created = right.id;
        let is_strong = self.is_strong(left.root);
        let split = Split {
            left,
            right,
            is_finished: false,
        };
        self.splits.insert(id, Arc::new(split));
        let mut effects = vec![Effect::SplitPrepared(created)];
        if !is_strong {
            effects.extend(self.finish_split(id, created));
        }
        Ok(effects)
    }

    /// The new tablet has no founders in the map: whoever comes without a state is sent one.
    pub(crate) fn finish_split(&mut self, id: TabletId, right: TabletId) -> Vec<Effect> {
        let known = self.splits.get(&id);
        let Some(split) = known.filter(|split| split.right.id == right && !split.is_finished)
        else {
            // Somebody was faster.
            return Vec::new();
        };
        let split = Split {
            is_finished: true,
            ..split.as_ref().clone()
        };
        self.tablets.insert(id, Arc::new(split.left.clone()));
        self.tablets.insert(right, Arc::new(split.right.clone()));
        self.splits.insert(id, Arc::new(split));
        vec![Effect::TabletChanged(id), Effect::TabletCreated(right)]
    }

    pub(crate) fn settle_split(&mut self, id: TabletId, right: TabletId) -> Vec<Effect> {
        let known = self.splits.get(&id);
        if !known.is_some_and(|split| split.right.id == right && split.is_finished) {
            return Vec::new();
        }
        self.splits.remove(&id);
        vec![Effect::SplitSettled(right)]
    }
}
