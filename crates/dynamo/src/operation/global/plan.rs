//! What a request for other replicas makes of a table's regions. Pure.
//!
//! As the service has it: an eventual global table gains or loses one region at a time; a strong one is made with three
//! regions at once, and ends with all of them but one.

use super::super::tables::INVALID;
use crate::wire::shape::ReplicationGroupUpdate;
use std::collections::BTreeSet;

/// Regions of a strong global table: a majority of them survives the loss of any.
const STRONG_REGIONS: usize = 3;

/// MultiRegionConsistency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Each region answers for itself; of two writes of an item the later one wins.
    Eventual,
    /// All regions are one.
    Strong,
}

impl Consistency {
    pub const NAMES: &'static [&'static str] = &["EVENTUAL", "STRONG"];

    pub fn parse(name: &str) -> Option<Consistency> {
        match name {
            "EVENTUAL" => Some(Consistency::Eventual),
            "STRONG" => Some(Consistency::Strong),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Consistency::Eventual => "EVENTUAL",
            Consistency::Strong => "STRONG",
        }
    }
}

/// How things stand before.
#[derive(Clone, Debug)]
pub struct Standing<'a> {
    /// The region of the node that is asked; the table is there.
    pub here: &'a str,
    /// The table's; `here` alone if it is no global table.
    pub regions: BTreeSet<&'a str>,
    /// Its consistency over several regions. Where one is left of them, an eventual table is still one.
    pub consistency: Option<Consistency>,
    /// All that the cluster has.
    pub known: BTreeSet<&'a str>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan<'a> {
    Create {
        regions: Vec<&'a str>,
        consistency: Consistency,
    },
    Delete {
        regions: Vec<&'a str>,
    },
    /// Only what is set for one region's replica.
    Update,
}

/// Which regions each kind of update names.
#[derive(Default)]
struct Named<'a> {
    created: Vec<&'a str>,
    deleted: Vec<&'a str>,
    updated: Vec<&'a str>,
}

fn named(updates: &[ReplicationGroupUpdate]) -> Result<Named<'_>, String> {
    let mut named = Named::default();
    for update in updates {
        let names = [
            update.create.as_ref().map(|it| it.region_name.as_deref()),
            update.delete.as_ref().map(|it| it.region_name.as_deref()),
            update.update.as_ref().map(|it| it.region_name.as_deref()),
        ];
        let (list, region) = match names {
            [Some(region), None, None] => (&mut named.created, region),
            [None, Some(region), None] => (&mut named.deleted, region),
            [None, None, Some(region)] => (&mut named.updated, region),
            _ => {
                return Err(format!(
                    "{INVALID}Exactly one of Create, Update and Delete must be specified in each of ReplicaUpdates"
                ));
            }
        };
        list.push(region.unwrap_or_default());
    }
    Ok(named)
}

pub fn plan<'a>(
    standing: &Standing<'_>,
    updates: &'a [ReplicationGroupUpdate],
    consistency: Option<Consistency>,
) -> Result<Plan<'a>, String> {
    let Named {
        created,
        deleted,
        updated,
    } = named(updates)?;
    if consistency.is_some() && created.is_empty() {
        return Err(format!(
            "{INVALID}MultiRegionConsistency can only be specified with a Create in ReplicaUpdates"
        ));
    }
    let names = [&created, &deleted, &updated];
    if names.iter().filter(|names| !names.is_empty()).count() > 1 {
        return Err(format!(
            "{INVALID}ReplicaUpdates can create, delete or update replicas, one of these at a time"
        ));
    }
    let distinct: BTreeSet<&&str> = names.into_iter().flatten().collect();
    if distinct.len() < updates.len() {
        return Err(format!("{INVALID}ReplicaUpdates names a region twice"));
    }
    if !created.is_empty() {
        let consistency = created_with(standing, &created, consistency)?;
        return Ok(Plan::Create {
            regions: created,
            consistency,
        });
    }
    if !deleted.is_empty() {
        check_deleted(standing, &deleted)?;
        return Ok(Plan::Delete { regions: deleted });
    }
    for region in &updated {
        check_is_there(standing, region)?;
    }
    one_at_a_time(&updated)?;
    Ok(Plan::Update)
}

/// The consistency that a table has with these regions.
fn created_with(
    standing: &Standing<'_>,
    created: &[&str],
    asked: Option<Consistency>,
) -> Result<Consistency, String> {
    for region in created {
        if !standing.known.contains(region) {
            let known: Vec<&str> = standing.known.iter().copied().collect();
            return Err(format!(
                "{INVALID}Region {region} is not available: the cluster's data centres are {}",
                known.join(", ")
            ));
        }
        if standing.regions.contains(region) {
            return Err(format!(
                "Failed to create a replica in region {region}: the table has one there already"
            ));
        }
    }
    let wanted = asked
        .or(standing.consistency)
        .unwrap_or(Consistency::Eventual);
    if standing.consistency.is_some_and(|known| known != wanted) {
        return Err(format!(
            "{INVALID}MultiRegionConsistency of a global table cannot be changed"
        ));
    }
    match (wanted, standing.consistency) {
        (Consistency::Strong, Some(_)) => Err(format!(
            "{INVALID}No replica can be added to a global table with MultiRegionConsistency STRONG"
        )),
        (Consistency::Strong, None) if standing.regions.len() + created.len() != STRONG_REGIONS => {
            Err(format!(
                "{INVALID}MultiRegionConsistency STRONG takes replicas in exactly three regions: two must be \
                 created in one request"
            ))
        }
        (Consistency::Eventual, _) => one_at_a_time(created).map(|()| wanted),
        (Consistency::Strong, None) => Ok(wanted),
    }
}

fn check_deleted(standing: &Standing<'_>, deleted: &[&str]) -> Result<(), String> {
    for region in deleted {
        if *region == standing.here {
            return Err(format!(
                "Failed to delete the replica in region {region}: a region cannot delete its own; ask another, or \
                 delete the table when it is the last"
            ));
        }
        check_is_there(standing, region)?;
    }
    match standing.consistency {
        Some(Consistency::Strong) if deleted.len() + 1 < standing.regions.len() => Err(format!(
            "{INVALID}A global table with MultiRegionConsistency STRONG keeps three replicas: both others must be \
             deleted in one request"
        )),
        Some(Consistency::Strong) => Ok(()),
        _ => one_at_a_time(deleted),
    }
}

fn check_is_there(standing: &Standing<'_>, region: &str) -> Result<(), String> {
    match standing.consistency.is_some() && standing.regions.contains(region) {
        true => Ok(()),
        false => Err(format!("The table has no replica in region {region}")),
    }
}

fn one_at_a_time(regions: &[&str]) -> Result<(), String> {
    match regions.len() {
        0 | 1 => Ok(()),
        _ => Err(format!(
            "{INVALID}Only one replica can be created, deleted or updated at a time"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::shape::{
        CreateReplicationGroupMemberAction, DeleteReplicationGroupMemberAction,
        UpdateReplicationGroupMemberAction,
    };

    fn create(region: &str) -> ReplicationGroupUpdate {
        ReplicationGroupUpdate {
            create: Some(CreateReplicationGroupMemberAction {
                region_name: Some(region.into()),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn delete(region: &str) -> ReplicationGroupUpdate {
        ReplicationGroupUpdate {
            delete: Some(DeleteReplicationGroupMemberAction {
                region_name: Some(region.into()),
            }),
            ..Default::default()
        }
    }

    fn update(region: &str) -> ReplicationGroupUpdate {
        ReplicationGroupUpdate {
            update: Some(UpdateReplicationGroupMemberAction {
                region_name: Some(region.into()),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// A table in these regions, asked in the first of a cluster with the regions a to d.
    fn standing<'a>(regions: &[&'a str], consistency: Option<Consistency>) -> Standing<'a> {
        Standing {
            here: regions[0],
            regions: regions.iter().copied().collect(),
            consistency,
            known: ["a", "b", "c", "d"].into(),
        }
    }

    fn refusal(
        standing: &Standing<'_>,
        updates: &[ReplicationGroupUpdate],
        consistency: Option<Consistency>,
    ) -> String {
        plan(standing, updates, consistency).unwrap_err()
    }

    const EVENTUAL: Option<Consistency> = Some(Consistency::Eventual);
    const STRONG: Option<Consistency> = Some(Consistency::Strong);

    #[test]
    fn an_eventual_table_gains_and_loses_a_region_at_a_time() {
        let local = standing(&["a"], None);
        for asked in [None, EVENTUAL] {
            let updates = [create("b")];
            let planned = plan(&local, &updates, asked).unwrap();
            assert_eq!(
                planned,
                Plan::Create {
                    regions: vec!["b"],
                    consistency: Consistency::Eventual
                }
            );
        }
        let two = standing(&["a", "b"], EVENTUAL);
        plan(&two, &[create("c")], None).unwrap();
        plan(&two, &[delete("b")], None).unwrap();
        plan(&two, &[update("a")], None).unwrap();
        assert!(refusal(&local, &[create("b"), create("c")], None).contains("at a time"));
        let three = standing(&["a", "b", "c"], EVENTUAL);
        assert!(refusal(&three, &[delete("b"), delete("c")], None).contains("at a time"));
        assert!(refusal(&two, &[create("c"), delete("b")], None).contains("at a time"));
        assert!(refusal(&two, &[create("c"), create("d")], STRONG).contains("cannot be changed"));
    }

    #[test]
    fn a_strong_table_has_three_regions_or_one() {
        let local = standing(&["a"], None);
        let updates = [create("b"), create("c")];
        assert!(matches!(
            plan(&local, &updates, STRONG).unwrap(),
            Plan::Create {
                consistency: Consistency::Strong,
                ..
            }
        ));
        assert!(refusal(&local, &[create("b")], STRONG).contains("exactly three"));
        let four = [create("b"), create("c"), create("d")];
        assert!(refusal(&local, &four, STRONG).contains("exactly three"));
        let three = standing(&["a", "b", "c"], STRONG);
        plan(&three, &[delete("b"), delete("c")], None).unwrap();
        assert!(refusal(&three, &[delete("b")], None).contains("in one request"));
        assert!(refusal(&three, &[create("d")], None).contains("No replica can be added"));
        assert!(refusal(&three, &[create("d")], EVENTUAL).contains("cannot be changed"));
    }

    #[test]
    fn what_is_not_there_or_there_already_is_named() {
        let two = standing(&["a", "b"], EVENTUAL);
        let unknown = refusal(&two, &[create("x")], None);
        assert!(
            unknown
                .ends_with("Region x is not available: the cluster's data centres are a, b, c, d")
        );
        assert!(refusal(&two, &[create("b")], None).contains("has one there already"));
        assert!(refusal(&standing(&["a"], None), &[create("a")], None).contains("already"));
        assert!(refusal(&two, &[delete("c")], None).contains("no replica in region c"));
        assert!(refusal(&two, &[update("c")], None).contains("no replica in region c"));
        assert!(refusal(&two, &[delete("a")], None).contains("its own"));
        let last = standing(&["a"], EVENTUAL);
        assert!(refusal(&last, &[delete("a")], None).contains("its own"));
        assert!(refusal(&last, &[update("b")], None).contains("no replica"));
        assert!(refusal(&standing(&["a"], None), &[update("a")], None).contains("no replica"));
    }

    #[test]
    fn each_update_is_one_thing() {
        let two = standing(&["a", "b"], EVENTUAL);
        let nothing = ReplicationGroupUpdate::default();
        assert!(refusal(&two, &[nothing], None).contains("Exactly one of"));
        let both = ReplicationGroupUpdate {
            delete: delete("b").delete,
            ..create("c")
        };
        assert!(refusal(&two, &[both], None).contains("Exactly one of"));
        assert!(refusal(&two, &[delete("b"), delete("b")], None).contains("twice"));
        assert!(refusal(&two, &[delete("b")], EVENTUAL).contains("with a Create"));
    }
}
