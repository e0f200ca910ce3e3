//! A clock among its peers, without a network.

use super::keeping::{Exchange, Moment, Surroundings, Timekeeping};
use super::reference::{Claimant, Local};
use super::trust::Trust;
use model::{Interval, NodeId, Timestamp};
use std::collections::BTreeSet;
use world::{ClockError, ClockSource};

const START: i64 = 1_000_000_000;

fn interval(earliest: i64, latest: i64) -> Interval {
    Interval {
        earliest: Timestamp(earliest),
        latest: Timestamp(latest),
    }
}

/// `wall_off`: how far the wall clock is off true time.
fn moment(ms: i64, wall_off: i64) -> Moment {
    Moment {
        local: Local(1 + ms.unsigned_abs() * 1_000),
        wall: START + ms * 1_000 + wall_off,
        wall_error: Ok(10_000),
    }
}

fn node(source: ClockSource) -> Timekeeping {
    let claimant = Claimant {
        node: NodeId(1),
        life: 0,
    };
    Timekeeping::new(claimant, source, Local(1), None)
}

fn nodes(members: &[u64], leads: bool) -> Surroundings {
    let members: BTreeSet<NodeId> = members.iter().copied().map(NodeId).collect();
    Surroundings {
        leads,
        leader: leads.then_some(NodeId(1)),
        voters: if leads {
            members.clone()
        } else {
            BTreeSet::new()
        },
        members,
    }
}

/// Compares with a peer that is right, and exact.
fn compare(clock: &mut Timekeeping, peer: u64, ms: i64, wall_off: i64) {
    let now = moment(ms, wall_off);
    let exchange = Exchange {
        began: now.local,
        before: clock.read_raw(&now).ok(),
        received: None,
        sent: Some(interval(START + ms * 1_000, START + ms * 1_000)),
        authority_micros: 0,
        master: None,
    };
    clock.exchanged(NodeId(peer), &exchange, &now);
}

#[test]
fn a_fixed_clock_is_its_wall_clock_and_never_goes_back() {
    let mut clock = node(ClockSource::Fixed);
    let now = moment(0, 0);
    assert_eq!(
        clock.read(&now),
        Ok(interval(START - 10_000, START + 10_000))
    );
    // Within its bound it may jump, and stands still meanwhile.
    let back = clock.read(&moment(1, -9_000)).unwrap();
    assert_eq!(back, interval(START - 10_000, START + 10_000));
    let on = clock.read(&moment(20, 0)).unwrap();
    assert_eq!(on, interval(START + 10_000, START + 30_000));
}

#[test]
fn a_wall_clock_that_is_set_shows_at_the_next_reading_and_is_well_again_when_it_agrees() {
    for step in [5_000_000, -5_000_000] {
        let mut clock = node(ClockSource::Fixed);
        clock.round(&moment(0, 0), &nodes(&[1, 2, 3], false));
        assert!(clock.read(&moment(1, 0)).is_ok());
        let fenced = clock.read(&moment(2, step)).unwrap_err();
        assert!(
            matches!(&fenced, ClockError::Fenced(why) if why.contains("was set")),
            "{fenced:?}"
        );
        assert!(
            clock.read_raw(&moment(3, step)).is_ok(),
            "peers may look at it"
        );
        // Its peers find it wrong, so it stays fenced.
        for ms in [500, 1_000, 2_000] {
            for peer in [2, 3] {
                compare(&mut clock, peer, ms, step);
            }
            assert!(clock.read(&moment(ms, step)).is_err());
        }
        // Somebody sets it right.
        for ms in [2_500, 3_000, 4_000] {
            for peer in [2, 3] {
                compare(&mut clock, peer, ms, 0);
            }
        }
        let reading = clock.read(&moment(4_001, 0)).unwrap();
        assert!(reading.earliest.0 <= START + 4_001_000 && START + 4_001_000 <= reading.latest.0);
    }
}

#[test]
fn a_clock_that_strobes_within_its_bound_is_not_fenced() {
    let mut clock = node(ClockSource::Fixed);
    for ms in 0..5_000 {
        let wall_off = [10_000, -10_000, 0, 9_999][ms as usize % 4];
        let reading = clock.read(&moment(ms, wall_off)).unwrap();
        let truth = START + ms * 1_000;
        assert!(reading.earliest.0 <= truth && truth <= reading.latest.0);
    }
}

#[test]
fn single_is_for_one_node() {
    let mut clock = node(ClockSource::Single);
    let round = clock.round(&moment(0, 0), &nodes(&[1], true));
    assert!(clock.read(&moment(0, 0)).is_err());
    clock.set_floor(round.floor.expect("nothing is on disk yet"));
    assert_eq!(clock.read(&moment(0, 0)), Ok(interval(START, START)));
    clock.round(&moment(10, 0), &nodes(&[1, 2], true));
    let refused = clock.read(&moment(11, 0)).unwrap_err();
    assert!(
        matches!(&refused, ClockError::Unbounded(why) if why.contains("`cluster`")),
        "{refused:?}"
    );
}

#[test]
fn cluster_time_of_one_node_is_called_single() {
    let mut clock = node(ClockSource::Cluster);
    clock.round(&moment(0, 0), &nodes(&[1], true));
    clock.set_floor(Timestamp(START + 60_000_000));
    assert_eq!(clock.source(), ClockSource::Single);
    // Its wall clock is set: the reference goes its own way, and follows.
    let reading = clock.read(&moment(1_000, 3_600_000_000)).unwrap();
    assert_eq!(reading, interval(START + 1_000_000, START + 1_000_000));
    clock.round(&moment(1_000, 3_600_000_000), &nodes(&[1], true));
    let later = clock.read(&moment(11_000, 3_600_000_000)).unwrap();
    assert_eq!(later.earliest.0 - reading.earliest.0, 11_000_000);
    clock.round(&moment(11_000, 0), &nodes(&[1, 2], true));
    assert_eq!(clock.source(), ClockSource::Cluster);
}

/// Takes a sample of a master whose time is true.
fn sample(clock: &mut Timekeeping, ms: i64, oscillator_off: i64) {
    let now = moment(ms + oscillator_off, 0);
    let exchange = Exchange {
        began: now.local,
        before: clock.read_raw(&now).ok(),
        received: None,
        sent: Some(interval(START + ms * 1_000, START + ms * 1_000)),
        authority_micros: 2_000_000,
        master: Some(NodeId(2)),
    };
    clock.exchanged(NodeId(2), &exchange, &now);
}

#[test]
fn an_oscillator_that_jumps_is_fenced_by_the_master_and_measured_anew() {
    let mut clock = node(ClockSource::Cluster);
    let others = nodes(&[1, 2], false);
    clock.round(&moment(0, 0), &others);
    sample(&mut clock, 0, 0);
    assert!(clock.read(&moment(100, 0)).is_ok());
    // From now on the oscillator is 500 ms ahead. It shows at the next exchange.
    sample(&mut clock, 250, 500);
    assert!(matches!(clock.comparisons().trust(), Trust::Doubted { .. }));
    assert!(matches!(
        clock.read(&moment(760, 0)),
        Err(ClockError::Unbounded(_))
    ));
    for ms in [350, 450, 550, 650] {
        sample(&mut clock, ms, 500);
        clock.round(&moment(ms + 501, 0), &others);
    }
    assert!(matches!(
        clock.read(&moment(1_160, 0)),
        Err(ClockError::Fenced(_))
    ));
    for ms in [900, 1_150, 1_400, 1_650, 1_900] {
        sample(&mut clock, ms, 500);
        clock.round(&moment(ms + 501, 0), &others);
    }
    let reading = clock.read(&moment(2_410, 0)).unwrap();
    let truth = START + 1_910_000;
    assert!(reading.earliest.0 <= truth && truth <= reading.latest.0);
}

#[test]
fn whoever_is_accused_of_being_ahead_asks_the_others() {
    let mut clock = node(ClockSource::Fixed);
    clock.round(&moment(0, 0), &nodes(&[1, 2, 3], false));
    let behind = interval(START - 900_000, START - 800_000);
    let now = moment(1, 0);
    assert!(
        !clock.heard(NodeId(2), behind, false, &now),
        "it was long under way"
    );
    assert!(clock.heard(NodeId(2), behind, true, &now));
    assert!(clock.read(&moment(1, 0)).is_err());
    compare(&mut clock, 3, 2, 0);
    assert!(clock.read(&moment(2, 0)).is_ok(), "two against one");
}
