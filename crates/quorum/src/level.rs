//! How many answers a level asks for, and counting them. Pure.
//!
//! As in Cassandra, replicas that are being filled get every write and one answer more is awaited for each, so
//! that whichever replicas answered, a quorum of the settled ones is among them. One that is on its way out gets every
//! write and is counted by none in place of one that stays: what is acknowledged from then on is on those. It is read as
//! before, and may be taken back; levels that promise something to every data centre therefore wait for it where nobody
//! else could keep the promise.

use api::{Error, FailureReason, Level, ReplicaFailure, Retry};
use cluster::{Replica, Tablet};
use model::NodeId;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use world::planted::{self, Bug};

/// What a request needs before it is done: in each group so many answers.
#[derive(Clone, Debug)]
pub struct Required {
    pub level: Level,
    groups: Vec<Group>,
    /// Who has answered with an error.
    failed: Vec<NodeId>,
    /// Who has not answered in time.
    silent: Vec<NodeId>,
}

#[derive(Clone, Debug)]
struct Group {
    /// Whose answers count; `None`: everybody's.
    data_center: Option<Arc<str>>,
    /// Writes count who is on its way out, too.
    counts_leaving: bool,
    required: u32,
    received: u32,
    failed: u32,
    /// How many are alive and could answer, or, where a hint is an answer, be hinted.
    eligible: u32,
}

/// What the replicas of a tablet look like from here.
pub(crate) struct Places {
    /// In the tablet's order.
    pub replicas: Vec<Place>,
    pub local: Arc<str>,
}

#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub replica: Replica,
    pub data_center: Arc<str>,
    pub is_alive: bool,
    /// On its way out (`Tablet::leaving`).
    pub is_leaving: bool,
}

/// How a replica has fared of late, and where it stands in this node's data centre.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    /// It has said that it has failed.
    pub is_failing: bool,
    pub is_same_rack: bool,
    /// As `Speeds::slowness`.
    pub slowness: u32,
}

/// Of a replica that takes 32 ms or more: in doublings.
const SLUGGISH_FROM: u32 = 5;

impl Places {
    pub fn new(tablet: &Tablet, peers: &dyn crate::Peers) -> Places {
        let this_node = peers.this_node();
        let replicas = tablet
            .replicas
            .iter()
            .map(|replica| Place {
                replica: *replica,
                data_center: peers.data_center(replica.node),
                is_alive: replica.node == this_node || peers.is_alive(replica.node),
                is_leaving: tablet.leaving == Some(replica.id),
            })
            .collect();
        Places {
            replicas,
            local: peers.data_center(this_node),
        }
    }
}

impl Places {
    /// Whether the data centre of this node is losing its last replica. Who is cut off here does not hear when it has gone,
    /// nor what is acknowledged elsewhere from then on: so nobody is promised that he sees it.
    fn is_going(&self) -> bool {
        let here = || {
            let replicas = self.replicas.iter();
            replicas.filter(|it| it.data_center == self.local && !it.replica.is_learner)
        };
        here().next().is_some() && here().all(|place| place.is_leaving)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Write,
    Read,
}

impl Required {
    /// Refuses levels that are not built, and says `Unavailable` when too few replicas are alive.
    pub(crate) fn new(level: Level, purpose: Purpose, places: &Places) -> Result<Required, Error> {
        let required = Required::of(level, purpose, places)?;
        // A hint counts as an answer, too, so nobody has to be alive.
        if level != Level::Any {
            required.check_alive(purpose, places)?;
        }
        Ok(required)
    }

    /// As `new`, whoever is alive.
    fn of(level: Level, purpose: Purpose, places: &Places) -> Result<Required, Error> {
        let anywhere = |count: fn(u32) -> u32| vec![Group::new(None, count, purpose, places)];
        let here = |count: fn(u32) -> u32| {
            vec![Group::new(
                Some(places.local.clone()),
                count,
                purpose,
                places,
            )]
        };
        let groups = match level {
            Level::One => anywhere(|_| 1),
            Level::Two => anywhere(|_| 2),
            Level::Three => anywhere(|_| 3),
            Level::Quorum | Level::Default => anywhere(quorum),
            Level::All => vec![Group::of_all(purpose, places)],
            Level::LocalOne => here(|_| 1),
            Level::LocalQuorum | Level::LocalSerial
                if purpose == Purpose::Read && places.is_going() =>
            {
                return Err(Error::Retry(Retry::Unavailable {
                    level,
                    required: 1,
                    alive: 0,
                }));
            }
            Level::LocalQuorum => here(quorum),
            Level::EachQuorum => Self::each_quorum(purpose, places),
            Level::Any if purpose == Purpose::Write => {
                let mut groups = anywhere(|_| 1);
                let dead = places.replicas.iter().filter(|place| !place.is_alive);
                groups[0].eligible += dead.count() as u32;
                groups
            }
            Level::Any => {
                return Err(Error::invalid(
                    "ANY ConsistencyLevel is only supported for writes",
                ));
            }
            // Agreement counts differently (`paxos::Electorate`).
            Level::Serial | Level::LocalSerial if purpose == Purpose::Write => {
                return Err(Error::invalid(
                    "You must use conditional updates for serializable writes",
                ));
            }
            Level::Serial => anywhere(quorum),
            Level::LocalSerial => here(quorum),
        };
        Ok(Required {
            level,
            groups,
            failed: Vec::new(),
            silent: Vec::new(),
        })
    }

    /// How many answers a level asks for, for an error that says that it is not known how many have come.
    pub(crate) fn total_of(level: Level, purpose: Purpose, places: &Places) -> u32 {
        Required::of(level, purpose, places).map_or(1, |required| required.total())
    }

    /// A data centre whose first replica is being filled has no quorum yet, only somebody to be waited for. One whose
    /// last replica is on its way out has a quorum of one until it is gone: it may be taken back.
    fn each_quorum(purpose: Purpose, places: &Places) -> Vec<Group> {
        let mut centers: Vec<Arc<str>> = places
            .replicas
            .iter()
            .map(|place| place.data_center.clone())
            .collect();
        centers.sort();
        centers.dedup();
        centers
            .into_iter()
            .map(|center| {
                let mut here = places.replicas.iter().filter(|it| it.data_center == center);
                let is_last = here.all(|place| place.is_leaving || place.replica.is_learner);
                Group::counted(Some(center), is_last, quorum_if_any, purpose, places)
            })
            .collect()
    }

    /// Names the counts of the group that lacks some: at EACH_QUORUM those of one data centre, as Cassandra does.
    fn check_alive(&self, purpose: Purpose, places: &Places) -> Result<(), Error> {
        for group in &self.groups {
            let alive = places.replicas.iter();
            let alive = alive.filter(|place| place.is_alive && group.admits(place, purpose));
            let alive = alive.count() as u32;
            if alive < group.required {
                return Err(Error::Retry(Retry::Unavailable {
                    level: self.level,
                    required: group.required,
                    alive,
                }));
            }
        }
        Ok(())
    }

    /// How many answers are needed in all.
    pub fn total(&self) -> u32 {
        self.groups.iter().map(|group| group.required).sum()
    }

    /// How many answers that count have come, at most as many as are needed.
    pub fn received(&self) -> u32 {
        self.groups
            .iter()
            .map(|group| group.received.min(group.required))
            .sum()
    }

    /// Whether any replica has answered with an error. Then it is those that a level which was missed is put down to.
    pub(crate) fn has_failures(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Who has failed, for clients.
    pub(crate) fn failures(&self, peers: &dyn crate::Peers) -> Vec<ReplicaFailure> {
        let failed = self
            .failed
            .iter()
            .map(|node| (node, FailureReason::Unknown));
        let silent = self
            .silent
            .iter()
            .map(|node| (node, FailureReason::Timeout));
        failed
            .chain(silent)
            .map(|(node, reason)| ReplicaFailure {
                address: peers
                    .client_address(*node)
                    .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
                reason,
            })
            .collect()
    }

    pub fn is_reached(&self) -> bool {
        self.groups
            .iter()
            .all(|group| group.received >= group.required)
    }

    /// Whether the answers still to come could be enough.
    pub fn is_reachable(&self) -> bool {
        self.groups
            .iter()
            .all(|group| group.eligible - group.failed >= group.required)
    }

    /// Whether answers of these, beside those that have come, would be enough.
    pub(crate) fn could_be_reached<'a>(
        &self,
        silent: impl Iterator<Item = &'a Place> + Clone,
        purpose: Purpose,
    ) -> bool {
        self.groups.iter().all(|group| {
            let coming = silent.clone().filter(|place| group.admits(place, purpose));
            group.received + coming.count() as u32 >= group.required
        })
    }

    pub(crate) fn acknowledge(&mut self, place: &Place, purpose: Purpose) {
        for group in &mut self.groups {
            if group.admits(place, purpose) {
                group.received += 1;
            }
        }
    }

    pub(crate) fn fail(&mut self, place: &Place, purpose: Purpose) {
        self.failed.push(place.replica.node);
        for group in &mut self.groups {
            if group.admits(place, purpose) {
                group.failed += 1;
            }
        }
    }

    /// It has not answered in time. It may do so yet, and count.
    pub(crate) fn note_silent(&mut self, place: &Place) {
        self.silent.push(place.replica.node);
    }

    /// Splits those that can be asked into as many as the level needs and the spare ones: this node first, then those of its
    /// rack, then those of its data centre, the faster before the slower. Who is slower than any distance within a data centre
    /// would be is not near, and who has failed comes last.
    pub(crate) fn choose(
        &self,
        places: &Places,
        this_node: NodeId,
        standing: impl Fn(&Place) -> Standing,
    ) -> (Vec<Place>, Vec<Place>) {
        let mut candidates: Vec<&Place> = places
            .replicas
            .iter()
            .filter(|place| place.is_alive)
            .collect();
        candidates.sort_by_cached_key(|place| {
            let Standing {
                is_failing,
                is_same_rack,
                slowness,
            } = standing(place);
            (
                is_failing,
                place.replica.node != this_node,
                place.data_center != places.local,
                slowness >= SLUGGISH_FROM,
                !is_same_rack,
                slowness,
            )
        });
        let mut missing: Vec<u32> = self.groups.iter().map(|group| group.required).collect();
        let (mut chosen, mut spare) = (Vec::new(), Vec::new());
        for place in candidates {
            let group = self
                .groups
                .iter()
                .position(|group| group.admits(place, Purpose::Read));
            match group {
                Some(group) if missing[group] > 0 => {
                    missing[group] -= 1;
                    chosen.push(place.clone());
                }
                Some(_) => spare.push(place.clone()),
                None => {}
            }
        }
        (chosen, spare)
    }
}

impl Group {
    fn new(
        data_center: Option<Arc<str>>,
        count: fn(u32) -> u32,
        purpose: Purpose,
        places: &Places,
    ) -> Group {
        Group::counted(data_center, false, count, purpose, places)
    }

    fn of_all(purpose: Purpose, places: &Places) -> Group {
        Group::counted(None, true, |voters| voters.max(1), purpose, places)
    }

    fn counted(
        data_center: Option<Arc<str>>,
        counts_leaving: bool,
        count: fn(u32) -> u32,
        purpose: Purpose,
        places: &Places,
    ) -> Group {
        let mut group = Group {
            data_center,
            counts_leaving,
            required: 0,
            received: 0,
            failed: 0,
            eligible: 0,
        };
        let (mut voters, mut pending) = (0, 0);
        for place in &places.replicas {
            if !group.admits(place, purpose) {
                continue;
            }
            group.eligible += u32::from(place.is_alive);
            if place.replica.is_learner {
                pending += 1;
            } else {
                voters += 1;
            }
        }
        group.required = count(voters) + pending;
        group
    }

    /// Replicas that are being filled are never read.
    fn admits(&self, place: &Place, purpose: Purpose) -> bool {
        let counts = match purpose {
            Purpose::Read => !place.replica.is_learner,
            Purpose::Write => {
                let counts_leaving = self.counts_leaving && !planted::is(Bug::ForgetWhoLeaves);
                !place.is_leaving || counts_leaving
            }
        };
        counts
            && self
                .data_center
                .as_ref()
                .is_none_or(|center| *center == place.data_center)
    }
}

fn quorum(voters: u32) -> u32 {
    voters / 2 + 1
}

fn quorum_if_any(voters: u32) -> u32 {
    match voters {
        0 => 0,
        voters => quorum(voters),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ReplicaId;

    /// One replica a node: `(data center, is_learner, is_alive)`.
    fn places(replicas: &[(&str, bool, bool)]) -> Places {
        Places {
            replicas: replicas
                .iter()
                .enumerate()
                .map(|(index, (center, is_learner, is_alive))| Place {
                    replica: Replica {
                        id: ReplicaId(index as u64 + 10),
                        node: NodeId(index as u64 + 1),
                        is_learner: *is_learner,
                    },
                    data_center: (*center).into(),
                    is_alive: *is_alive,
                    is_leaving: false,
                })
                .collect(),
            local: "a".into(),
        }
    }

    fn total(level: Level, purpose: Purpose, places: &Places) -> u32 {
        Required::new(level, purpose, places).unwrap().total()
    }

    #[test]
    fn levels_count_voters() {
        let three = places(&[("a", false, true); 3]);
        for (level, expected) in [
            (Level::One, 1),
            (Level::Two, 2),
            (Level::Three, 3),
            (Level::Quorum, 2),
            (Level::Default, 2),
            (Level::All, 3),
            (Level::LocalOne, 1),
            (Level::LocalQuorum, 2),
            (Level::EachQuorum, 2),
        ] {
            assert_eq!(total(level, Purpose::Write, &three), expected, "{level:?}");
            assert_eq!(total(level, Purpose::Read, &three), expected, "{level:?}");
        }
        assert_eq!(
            total(
                Level::Quorum,
                Purpose::Read,
                &places(&[("a", false, true); 4])
            ),
            3
        );
        assert_eq!(
            total(Level::Quorum, Purpose::Read, &places(&[("a", false, true)])),
            1
        );
    }

    #[test]
    fn a_write_awaits_one_more_for_each_learner_and_a_read_does_not_ask_it() {
        let growing = places(&[
            ("a", false, true),
            ("a", false, true),
            ("a", false, true),
            ("a", true, true),
        ]);
        assert_eq!(total(Level::Quorum, Purpose::Write, &growing), 3);
        assert_eq!(total(Level::One, Purpose::Write, &growing), 2);
        assert_eq!(total(Level::Quorum, Purpose::Read, &growing), 2);
        let required = Required::new(Level::All, Purpose::Read, &growing).unwrap();
        let (chosen, spare) = required.choose(&growing, NodeId(4), |_| Standing::default());
        assert!(chosen.iter().all(|place| !place.replica.is_learner));
        assert!(spare.is_empty());
    }

    #[test]
    fn too_few_alive_is_said_up_front_with_counts() {
        let one_of_three = places(&[("a", false, true), ("a", false, false), ("a", false, false)]);
        let error = Required::new(Level::Quorum, Purpose::Write, &one_of_three).unwrap_err();
        assert_eq!(
            error,
            Error::Retry(Retry::Unavailable {
                level: Level::Quorum,
                required: 2,
                alive: 1
            })
        );
        assert!(Required::new(Level::One, Purpose::Write, &one_of_three).is_ok());
        // Of two data centres, that which lacks.
        let two_centers = places(&[
            ("a", false, true),
            ("a", false, true),
            ("a", false, true),
            ("b", false, true),
            ("b", false, false),
            ("b", false, false),
        ]);
        for purpose in [Purpose::Read, Purpose::Write] {
            assert_eq!(
                Required::new(Level::EachQuorum, purpose, &two_centers).unwrap_err(),
                Error::Retry(Retry::Unavailable {
                    level: Level::EachQuorum,
                    required: 2,
                    alive: 1
                })
            );
        }
        let two = places(&[("a", false, true); 2]);
        assert!(matches!(
            Required::new(Level::Three, Purpose::Read, &two),
            Err(Error::Retry(Retry::Unavailable {
                required: 3,
                alive: 2,
                ..
            }))
        ));
    }

    #[test]
    fn local_levels_count_only_local_answers() {
        let two_centers = places(&[
            ("b", false, true),
            ("b", false, true),
            ("b", false, true),
            ("a", false, true),
            ("a", false, true),
            ("a", false, true),
        ]);
        let mut required = Required::new(Level::LocalQuorum, Purpose::Write, &two_centers).unwrap();
        assert_eq!(required.total(), 2);
        for remote in &two_centers.replicas[..3] {
            required.acknowledge(remote, Purpose::Write);
        }
        assert_eq!(required.received(), 0);
        required.acknowledge(&two_centers.replicas[3], Purpose::Write);
        assert!(!required.is_reached());
        required.acknowledge(&two_centers.replicas[4], Purpose::Write);
        assert!(required.is_reached());

        let mut each = Required::new(Level::EachQuorum, Purpose::Write, &two_centers).unwrap();
        assert_eq!(each.total(), 4);
        for remote in &two_centers.replicas[..3] {
            each.acknowledge(remote, Purpose::Write);
        }
        assert_eq!(each.received(), 2);
        assert!(!each.is_reached());
        let (chosen, spare) = each.choose(&two_centers, NodeId(5), |_| Standing::default());
        assert_eq!(chosen[0].replica.node, NodeId(5));
        assert_eq!((chosen.len(), spare.len()), (4, 2));
        let nodes = |places: Vec<Place>| -> Vec<u64> {
            places.iter().map(|place| place.replica.node.0).collect()
        };
        let quorum = Required::new(Level::Quorum, Purpose::Read, &two_centers).unwrap();
        let slow = |place: &Place| Standing {
            slowness: [0, 3, 0, 1, 9, 2, 0][place.replica.node.0 as usize],
            ..Standing::default()
        };
        let (chosen, spare) = quorum.choose(&two_centers, NodeId(5), slow);
        // Itself, its own data centre by pace, the other by pace.
        assert_eq!(
            (nodes(chosen), nodes(spare)),
            (vec![5, 6, 4, 2], vec![3, 1])
        );
    }

    #[test]
    fn near_replicas_are_asked_before_fast_ones_but_not_before_working_ones() {
        let mut two_centers = places(&[("a", false, true); 6]);
        two_centers.replicas[4].data_center = "b".into();
        two_centers.replicas[5].data_center = "b".into();
        // Nodes 2 and 5 stand in the rack of node 3.
        let standing = |slow: u32, failing: u64| {
            move |place: &Place| Standing {
                is_failing: place.replica.node == NodeId(failing),
                is_same_rack: [2, 3, 5].contains(&place.replica.node.0),
                slowness: if place.replica.node == NodeId(2) {
                    slow
                } else {
                    0
                },
            }
        };
        let required = Required::new(Level::One, Purpose::Read, &two_centers).unwrap();
        let order = |slow, failing| -> Vec<u64> {
            let (chosen, spare) = required.choose(&two_centers, NodeId(3), standing(slow, failing));
            let all = chosen.into_iter().chain(spare);
            all.map(|place| place.replica.node.0).collect()
        };
        assert_eq!(order(0, 0), [3, 2, 1, 4, 5, 6]);
        assert_eq!(order(SLUGGISH_FROM - 1, 0), [3, 2, 1, 4, 5, 6]);
        assert_eq!(order(SLUGGISH_FROM, 0), [3, 1, 4, 2, 5, 6]);
        assert_eq!(order(0, 3), [2, 1, 4, 5, 6, 3]);
    }

    #[test]
    fn a_write_does_not_count_who_is_on_its_way_out_and_a_read_does() {
        let mut shrinking = places(&[("a", false, true), ("a", false, true), ("a", false, true)]);
        shrinking.replicas[0].is_leaving = true;
        assert_eq!(total(Level::Quorum, Purpose::Write, &shrinking), 2);
        assert_eq!(total(Level::All, Purpose::Write, &shrinking), 3);
        assert_eq!(total(Level::All, Purpose::Read, &shrinking), 3);
        let mut one = Required::new(Level::One, Purpose::Write, &shrinking).unwrap();
        one.acknowledge(&shrinking.replicas[0], Purpose::Write);
        assert!(!one.is_reached());
        one.acknowledge(&shrinking.replicas[1], Purpose::Write);
        assert!(one.is_reached());
    }

    /// Whatever a write was acknowledged by, whoever reads at the same level asks one of them; also when placements
    /// are a step apart.
    #[test]
    fn reads_and_writes_of_neighbouring_placements_meet() {
        for voters in 2..=6u32 {
            let settled = places(&vec![("a", false, true); voters as usize]);
            let mut shrinking = places(&vec![("a", false, true); voters as usize]);
            shrinking.replicas[0].is_leaving = true;
            let without = places(&vec![("a", false, true); voters as usize - 1]);
            for level in [Level::Quorum, Level::LocalQuorum, Level::EachQuorum] {
                let write = |places: &Places| total(level, Purpose::Write, places);
                let read = |places: &Places| total(level, Purpose::Read, places);
                // Of all voters, and of those that stay.
                assert!(write(&settled) + read(&shrinking) > voters);
                assert!(write(&shrinking) + read(&shrinking) > voters);
                assert!(write(&shrinking) + read(&without) > voters - 1);
                // Those that an old write counted, but for the one that goes, are asked.
                assert!(write(&settled) - 1 + read(&without) > voters - 1);
            }
        }
    }

    #[test]
    fn each_quorum_asks_a_data_center_that_comes_or_goes_for_what_it_has() {
        let mut coming = places(&[
            ("a", false, true),
            ("a", false, true),
            ("a", false, true),
            ("b", true, true),
        ]);
        assert_eq!(total(Level::EachQuorum, Purpose::Write, &coming), 3);
        assert_eq!(total(Level::EachQuorum, Purpose::Read, &coming), 2);
        coming.replicas[3].is_alive = false;
        assert!(Required::new(Level::EachQuorum, Purpose::Write, &coming).is_err());
        let mut going = places(&[("a", false, true), ("b", false, true)]);
        going.replicas[1].is_leaving = true;
        assert_eq!(total(Level::EachQuorum, Purpose::Write, &going), 2);
        assert_eq!(total(Level::EachQuorum, Purpose::Read, &going), 2);
    }

    #[test]
    fn local_levels_end_with_the_last_replica_of_a_data_center() {
        let mut going = places(&[("a", false, true), ("b", false, true), ("b", false, true)]);
        let local = |going: &Places| Required::new(Level::LocalQuorum, Purpose::Read, going);
        assert!(local(&going).is_ok());
        going.replicas[0].is_leaving = true;
        let refused = local(&going).unwrap_err();
        assert!(
            matches!(
                refused,
                Error::Retry(Retry::Unavailable {
                    required: 1,
                    alive: 0,
                    ..
                })
            ),
            "{refused:?}"
        );
        assert!(Required::new(Level::LocalOne, Purpose::Read, &going).is_ok());
        // In another one, and where others stay, it is as before.
        going.local = "b".into();
        assert!(local(&going).is_ok());
        going.replicas[1].is_leaving = true;
        assert!(local(&going).is_ok());
    }

    #[test]
    fn failures_make_a_level_unreachable_in_time() {
        let three = places(&[("a", false, true); 3]);
        let mut required = Required::new(Level::Quorum, Purpose::Write, &three).unwrap();
        required.fail(&three.replicas[0], Purpose::Write);
        assert!(required.is_reachable());
        required.fail(&three.replicas[1], Purpose::Write);
        assert!(!required.is_reachable());
        assert_eq!((required.received(), required.failed.len()), (0, 2));
        // Who is dead does not answer either, but at ANY can be hinted.
        let one_of_two = places(&[("a", false, true), ("a", false, true), ("a", false, false)]);
        for (level, is_reachable) in [
            (Level::Quorum, false),
            (Level::One, true),
            (Level::Any, true),
        ] {
            let mut required = Required::new(level, Purpose::Write, &one_of_two).unwrap();
            required.fail(&one_of_two.replicas[0], Purpose::Write);
            assert_eq!(required.is_reachable(), is_reachable, "{level:?}");
        }
        let mut any = Required::new(Level::Any, Purpose::Write, &one_of_two).unwrap();
        any.fail(&one_of_two.replicas[0], Purpose::Write);
        any.fail(&one_of_two.replicas[1], Purpose::Write);
        assert!(any.is_reachable());
    }

    #[test]
    fn any_needs_nobody_alive_and_is_no_level_of_reads() {
        let dead = places(&[("a", false, false), ("a", false, false)]);
        let mut required = Required::new(Level::Any, Purpose::Write, &dead).unwrap();
        assert!(!required.is_reached());
        required.acknowledge(&dead.replicas[1], Purpose::Write);
        assert!(required.is_reached());
        assert!(matches!(
            Required::new(Level::Any, Purpose::Read, &dead),
            Err(Error::Refused(api::Refused::Invalid(_)))
        ));
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        let three = places(&[("a", false, true); 3]);
        for level in [Level::Serial, Level::LocalSerial] {
            assert!(matches!(
                Required::new(level, Purpose::Write, &three),
                Err(Error::Refused(api::Refused::Invalid(_)))
            ));
        }
    }
}
