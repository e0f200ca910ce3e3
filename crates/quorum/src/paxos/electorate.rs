//! Whose votes make a quorum. While replicas come or go it takes a majority of those that were there before and
//! a majority of those that will be, so that any two quorums of neighbouring placements have a replica in common
//! that has voted in both.

use crate::level::{Place, Places};
use api::{Error, Level, Retry};
use model::ReplicaId;

/// Votes of the set that lacks most of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    pub required: u32,
    pub received: u32,
}

/// Sets of replicas, of each of which a majority is needed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Electorate {
    sets: Vec<Vec<ReplicaId>>,
}

impl Electorate {
    /// `Level::Serial`: all replicas; `Level::LocalSerial`: those of this data centre. Says `Unavailable` when too
    /// few are alive.
    pub fn new(level: Level, places: &Places) -> Result<Electorate, Error> {
        let electorate = Electorate::of(level, places);
        let alive = places.replicas.iter().filter(|place| place.is_alive);
        let alive: Vec<ReplicaId> = alive.map(|place| place.replica.id).collect();
        if electorate.is_quorum(&alive) {
            return Ok(electorate);
        }
        let Tally { required, received } = electorate.tally(&alive);
        Err(Error::Retry(Retry::Unavailable {
            level,
            required,
            alive: received,
        }))
    }

    /// As `new`, whoever is alive.
    pub fn of(level: Level, places: &Places) -> Electorate {
        let is_local =
            |place: &&Place| level != Level::LocalSerial || place.data_center == places.local;
        let members = || places.replicas.iter().filter(is_local);
        let settled = || members().filter(|place| !place.replica.is_learner);
        let mut sets = vec![settled().map(|place| place.replica.id).collect::<Vec<_>>()];
        if members().any(|place| place.replica.is_learner) {
            sets.push(members().map(|place| place.replica.id).collect());
        }
        if settled().any(|place| place.is_leaving) {
            let staying = settled().filter(|place| !place.is_leaving);
            sets.push(staying.map(|place| place.replica.id).collect());
        }
        Electorate { sets }
    }

    pub fn is_quorum(&self, votes: &[ReplicaId]) -> bool {
        self.sets.iter().all(|set| {
            let cast = set.iter().filter(|member| votes.contains(member)).count();
            cast >= majority(set)
        })
    }

    pub fn has(&self, replica: ReplicaId) -> bool {
        self.sets.iter().any(|set| set.contains(&replica))
    }

    /// How many votes it takes and how many there are, in the set that lacks most.
    pub fn tally(&self, votes: &[ReplicaId]) -> Tally {
        let tallies = self.sets.iter().map(|set| Tally {
            required: majority(set) as u32,
            received: set.iter().filter(|member| votes.contains(member)).count() as u32,
        });
        let most =
            tallies.max_by_key(|tally| i64::from(tally.required) - i64::from(tally.received));
        most.unwrap_or(Tally {
            required: 1,
            received: 0,
        })
    }
}

fn majority(set: &[ReplicaId]) -> usize {
    set.len() / 2 + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster::Replica;
    use model::NodeId;

    /// `(id, data center, is_learner, is_alive)`.
    fn places(replicas: &[(u64, &str, bool, bool)]) -> Places {
        let place = |&(id, center, is_learner, is_alive): &(u64, &str, bool, bool)| Place {
            replica: Replica {
                id: ReplicaId(id),
                node: NodeId(id),
                is_learner,
            },
            data_center: center.into(),
            is_alive,
            is_leaving: false,
        };
        Places {
            replicas: replicas.iter().map(place).collect(),
            local: "a".into(),
        }
    }

    fn quorums(electorate: &Electorate, of: u64) -> Vec<Vec<ReplicaId>> {
        let subset = |bits: u64| {
            let members = (1..=of).filter(move |id| bits & (1 << id) != 0);
            members.map(ReplicaId).collect::<Vec<_>>()
        };
        (0..1u64 << (of + 1))
            .filter(|bits| bits & 1 == 0)
            .map(subset)
            .filter(|votes| electorate.is_quorum(votes))
            .collect()
    }

    #[test]
    fn quorums_of_neighbouring_placements_meet_in_a_settled_replica() {
        let settled = |count: u64| {
            let replicas: Vec<_> = (1..=count).map(|id| (id, "a", false, true)).collect();
            Electorate::new(Level::Serial, &places(&replicas)).unwrap()
        };
        for count in 1..=5 {
            let mut growing: Vec<_> = (1..=count).map(|id| (id, "a", false, true)).collect();
            growing.push((count + 1, "a", true, true));
            let growing = Electorate::new(Level::Serial, &places(&growing)).unwrap();
            let more: Vec<_> = (1..=count + 1).map(|id| (id, "a", false, true)).collect();
            let mut shrinking = places(&more);
            shrinking.replicas[count as usize].is_leaving = true;
            let shrinking = Electorate::new(Level::Serial, &shrinking).unwrap();
            for (one, other) in [
                (settled(count), growing.clone()),
                (growing, settled(count + 1)),
                (settled(count + 1), shrinking.clone()),
                (shrinking, settled(count)),
            ] {
                for left in quorums(&one, count + 1) {
                    for right in quorums(&other, count + 1) {
                        let meets = left.iter().any(|id| right.contains(id));
                        assert!(meets, "{left:?} {right:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_lacks_is_told_of_the_set_that_lacks_it() {
        let mut shrinking = places(&[
            (1, "a", false, true),
            (2, "a", false, true),
            (3, "a", false, false),
        ]);
        shrinking.replicas[0].is_leaving = true;
        // Two of three are alive, and one of the two that stay, where it takes both.
        assert_eq!(
            Electorate::new(Level::Serial, &shrinking),
            Err(Error::Retry(Retry::Unavailable {
                level: Level::Serial,
                required: 2,
                alive: 1,
            }))
        );
    }

    #[test]
    fn local_levels_ask_the_local_data_center_alone() {
        let two_centers = places(&[
            (1, "a", false, true),
            (2, "a", false, true),
            (3, "a", false, false),
            (4, "b", false, true),
            (5, "b", false, false),
            (6, "b", false, false),
        ]);
        let local = Electorate::new(Level::LocalSerial, &two_centers).unwrap();
        assert_eq!(local.tally(&[]).required, 2);
        assert!(local.is_quorum(&[ReplicaId(1), ReplicaId(2)]));
        assert!(!local.is_quorum(&[ReplicaId(1), ReplicaId(4), ReplicaId(5)]));
        assert!(!local.has(ReplicaId(4)));
        assert_eq!(
            Electorate::new(Level::Serial, &two_centers),
            Err(Error::Retry(Retry::Unavailable {
                level: Level::Serial,
                required: 4,
                alive: 3,
            }))
        );
    }
}
