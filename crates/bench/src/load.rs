//! The engine: keeps connections busy, in a closed loop or at a fixed rate, and takes the time.
//!
//! At a fixed rate a latency counts from the moment at which the operation was due, not from when it could be
//! sent: a server that stalls is charged for all that it kept waiting (no coordinated omission).

use crate::alarm;
use crate::keys::Keys;
use bytes::BytesMut;
use hdrhistogram::Histogram;
use std::io;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Read(u64),
    Write(u64),
}

/// How one connection speaks to a server.
pub trait Wire: Send {
    /// How many requests may be under way on the connection.
    fn in_flight_max(&self) -> usize;

    /// Appends a request. `slot` is below `in_flight_max` and free.
    fn encode(&mut self, operation: Operation, slot: usize, out: &mut Vec<u8>);

    /// Takes the next whole answer from the front of `input`: its slot, and whether it was a success.
    fn decode(&mut self, input: &mut BytesMut) -> io::Result<Option<(usize, bool)>>;
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub warm_up: Duration,
    pub duration: Duration,
    /// Ends a run early: exactly this many operations are made in all, none of them as warm-up.
    pub operations: Option<u64>,
    /// Operations per second over all connections; `None` for a closed loop.
    pub rate: Option<f64>,
    pub read_permille: u32,
    pub key_count: u64,
    pub is_zipfian: bool,
    /// Every key once, in turn, instead of at random.
    pub is_sequential: bool,
    pub seed: u64,
}

/// What happened on one connection, or on all of them.
pub struct Tally {
    /// Microseconds.
    pub reads: Histogram<u64>,
    pub writes: Histogram<u64>,
    pub failures: u64,
}

impl Tally {
    pub fn new() -> Tally {
        let empty =
            || Histogram::new_with_bounds(1, 120_000_000, 3).expect("these bounds are valid");
        Tally {
            reads: empty(),
            writes: empty(),
            failures: 0,
        }
    }

    pub fn record(&mut self, operation: Operation, latency: Duration, is_success: bool) {
        if !is_success {
            self.failures += 1;
            return;
        }
        let histogram = match operation {
            Operation::Read(_) => &mut self.reads,
            Operation::Write(_) => &mut self.writes,
        };
        histogram.saturating_record((latency.as_micros() as u64).max(1));
    }

    pub fn add(&mut self, other: &Tally) {
        self.reads
            .add(&other.reads)
            .expect("all histograms have the same bounds");
        self.writes
            .add(&other.writes)
            .expect("all histograms have the same bounds");
        self.failures += other.failures;
    }
}

/// Draws the operations of one connection and says when each is due.
pub struct Schedule {
    keys: Keys,
    read_permille: u32,
    begin: Instant,
    measured_from: Instant,
    end: Instant,
    interval: Option<Duration>,
    issued: u64,
    /// The first key and the distance to the next, where keys come in turn.
    sequence: Option<(u64, u64)>,
    operations_max: Option<u64>,
}

impl Schedule {
    /// `index` of `count` connections.
    pub fn new(plan: &Plan, begin: Instant, index: usize, count: usize) -> Schedule {
        let interval = plan
            .rate
            .map(|rate| Duration::from_secs_f64(count as f64 / rate));
        // Connections take turns instead of all sending at once.
        let offset = interval.map_or(Duration::ZERO, |interval| {
            interval.mul_f64(index as f64 / count as f64)
        });
        let share = plan
            .operations
            .map(|all| all / count as u64 + u64::from((index as u64) < all % count as u64));
        let (warm_up, duration) = match share {
            Some(_) => (Duration::ZERO, Duration::from_secs(3_600)),
            None => (plan.warm_up, plan.duration),
        };
        Schedule {
            keys: Keys::new(
                plan.key_count,
                plan.is_zipfian,
                plan.seed.wrapping_add(index as u64),
            ),
            read_permille: plan.read_permille,
            begin: begin + offset,
            measured_from: begin + warm_up,
            end: begin + warm_up + duration,
            interval,
            issued: 0,
            sequence: plan.is_sequential.then_some((index as u64, count as u64)),
            operations_max: share,
        }
    }

    /// When the next operation is due; `None` when there is none any more.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        if now >= self.end || self.operations_max.is_some_and(|max| self.issued >= max) {
            return None;
        }
        let due = self.interval.map_or(now, |interval| {
            self.begin + interval.mul_f64(self.issued as f64)
        });
        (due < self.end).then_some(due)
    }

    pub fn draw(&mut self) -> Operation {
        let key = match self.sequence {
            Some((first, step)) => first + self.issued * step,
            None => self.keys.next(),
        };
        self.issued += 1;
        match self.keys.chance(self.read_permille) {
            true => Operation::Read(key),
            false => Operation::Write(key),
        }
    }

    pub fn counts(&self, due: Instant) -> bool {
        due >= self.measured_from
    }
}

const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs one connection to its end.
pub async fn drive(
    mut stream: TcpStream,
    mut wire: Box<dyn Wire>,
    mut schedule: Schedule,
) -> io::Result<Tally> {
    let mut tally = Tally::new();
    let slot_count = wire.in_flight_max();
    let mut under_way: Vec<Option<(Operation, Instant)>> = vec![None; slot_count];
    let mut free: Vec<usize> = (0..slot_count).rev().collect();
    let mut out = Vec::with_capacity(64 << 10);
    let mut input = BytesMut::with_capacity(256 << 10);
    loop {
        let now = Instant::now();
        let mut next_due = schedule.due(now);
        while let Some(due) = next_due {
            if due > now {
                break;
            }
            let Some(slot) = free.pop() else { break };
            let operation = schedule.draw();
            under_way[slot] = Some((operation, due));
            wire.encode(operation, slot, &mut out);
            next_due = schedule.due(now);
        }
        if !out.is_empty() {
            stream.write_all(&out).await?;
            out.clear();
        }
        if free.len() == slot_count {
            let Some(due) = next_due else {
                return Ok(tally);
            };
            alarm::sleep_until(due).await;
            continue;
        }
        // Wake for the next operation only if there is a slot to send it from.
        let wake = next_due.filter(|due| !free.is_empty() && *due > now);
        input.reserve(64 << 10);
        let received = tokio::select! {
            received = stream.read_buf(&mut input) => received?,
            () = alarm::sleep_until(wake.unwrap_or(now)), if wake.is_some() => continue,
            () = tokio::time::sleep_until((now + ANSWER_TIMEOUT).into()) => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 30 s"));
            }
        };
        if received == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let arrived = Instant::now();
        while let Some((slot, is_success)) = wire.decode(&mut input)? {
            let answered = under_way.get_mut(slot).and_then(Option::take);
            let (operation, due) = answered
                .ok_or_else(|| io::Error::other("an answer to a request that was not made"))?;
            free.push(slot);
            if schedule.counts(due) {
                tally.record(
                    operation,
                    arrived.saturating_duration_since(due),
                    is_success,
                );
            }
        }
    }
}
