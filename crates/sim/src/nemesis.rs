//! Who breaks things: draws faults from the seed, ends them again, and leaves nothing broken behind.

use crate::ambush::Spot;
use crate::cluster::{Cluster, HEAL_PATIENCE, STOP_PATIENCE};
use crate::plan::{Fault, Plan, Script, draw_conditions};
use crate::workload::{NAMESPACE, replication};
use catalog::{Change, Protocol};
use model::{TableId, Value};
use node::{TRANSACTION_STEPS, VOTE_STEP};
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// So long somebody lies in wait.
const AMBUSH_PATIENCE: Duration = Duration::from_millis(1_500);

/// So long it may take until somebody stands for election.
const ELECTION_PATIENCE: Duration = Duration::from_secs(4);

/// How often each fault has struck.
pub type Strikes = BTreeMap<Fault, u64>;

/// Breaks things until `until`, then ends all faults.
pub async fn run(cluster: Cluster, plan: Plan, mut random: SmallRng, until: Instant) -> Strikes {
    let mut strikes = Strikes::new();
    let mut replacements = Replacements::default();
    if let Some(script) = plan.script {
        play(&cluster, script, &mut random, until).await;
        cluster.heal();
        return strikes;
    }
    while Instant::now() < until {
        let pause = random.random_range(plan.nemesis_pause_ms / 10..=plan.nemesis_pause_ms);
        sleep(Duration::from_millis(pause)).await;
        // What is broken is mended about as often as something new breaks.
        if random.random_bool(0.45) {
            mend(&cluster, &mut random);
        } else {
            let fault = plan.faults[random.random_range(0..plan.faults.len())];
            if fault == Fault::Replace && !replacements.begin(&cluster, &plan, until) {
                continue;
            }
            *strikes.entry(fault).or_default() += 1;
            strike(&cluster, &plan, fault, &mut random).await;
        }
    }
    // An orderly stop that is still under way must not end after the heal.
    if strikes.contains_key(&Fault::Stop) {
        sleep(STOP_PATIENCE * 2).await;
    }
    if plan.loses_node {
        bury(&cluster, &mut random).await;
    }
    cluster.heal();
    replacements.end(&cluster).await;
    strikes
}

/// Replacements of nodes, of which one at most is under way: of two that were dead at once something might be lost.
#[derive(Default)]
struct Replacements {
    begun: u64,
    current: Option<JoinHandle<()>>,
}

const REPLACEMENTS_MAX: u64 = 3;
/// How often somebody looks whether a node can be replaced, and asks for it.
const REPLACEMENT_LOOK: Duration = Duration::from_millis(50);

impl Replacements {
    /// Begins one, if it may.
    fn begin(&mut self, cluster: &Cluster, plan: &Plan, until: Instant) -> bool {
        let is_over = self.current.as_ref().is_none_or(JoinHandle::is_finished);
        let begins = is_over && self.begun < REPLACEMENTS_MAX;
        if begins {
            self.begun += 1;
            let replacing = replace(cluster.clone(), plan.clone(), cluster.draw_random(), until);
            self.current = Some(tokio::spawn(replacing));
        }
        begins
    }

    /// Without faults one that is under way ends soon.
    async fn end(self, cluster: &Cluster) {
        let Some(current) = self.current else {
            return;
        };
        if timeout(HEAL_PATIENCE, current).await.is_err() {
            cluster.complain("a node cannot be replaced when all faults have ended".into());
        }
    }
}

/// Replaces a node that dies, or one that lives, as soon as all copies are where they should be; if they are not by `until`,
/// none. Of a group of two voters that is just growing none may be lost.
async fn replace(cluster: Cluster, plan: Plan, mut random: SmallRng, until: Instant) {
    while !cluster.is_settled() || !cluster.can_lose_one() {
        if Instant::now() >= until {
            return;
        }
        sleep(REPLACEMENT_LOOK).await;
    }
    let survivors = cluster.survivors();
    let old = survivors[random.random_range(0..survivors.len())];
    let new = cluster.enlist(&plan);
    let is_dead = random.random_bool(0.7);
    cluster.note("replace", old as u64, || {
        format!("node {} by node {}, dead: {is_dead}", old + 1, new + 1)
    });
    if is_dead {
        cluster.lose(old);
    }
    cluster.start(new);
    loop {
        sleep(REPLACEMENT_LOOK).await;
        let through = random.random_range(0..cluster.size());
        let outcome = cluster.replace(through, old, new, is_dead).await;
        cluster.note("replace", old as u64, || format!("{outcome:?}"));
        if outcome.is_ok() {
            return;
        }
    }
}

/// One node dies for good: if possible a voter of a group which still counts somebody else who is on the way out, and
/// who has just crashed.
async fn bury(cluster: &Cluster, random: &mut SmallRng) {
    let looks = LEAVING_PATIENCE.as_millis() / LOOK.as_millis();
    for _ in 0..looks {
        if let Some((leaving, others)) = cluster.leaving_voter() {
            let victim = others[random.random_range(0..others.len())];
            if cluster.spares(victim) {
                cluster.crash(leaving);
                return cluster.lose(victim);
            }
        }
        sleep(LOOK).await;
    }
    let victim = random.random_range(0..cluster.size());
    if cluster.spares(victim) {
        cluster.lose(victim);
    }
}

fn mend(cluster: &Cluster, random: &mut SmallRng) {
    let down: Vec<usize> = (0..cluster.size())
        .filter(|index| cluster.is_down(*index) && !cluster.is_lost(*index))
        .collect();
    if !down.is_empty() {
        cluster.start(down[random.random_range(0..down.len())]);
        return;
    }
    cluster.note("mend", 0, || "links and pauses".into());
    cluster.network().join_all();
    for index in 0..cluster.size() {
        cluster.resume(index);
        cluster.disk(index).set_slow(1);
        cluster.clock(index).set_right();
    }
}

/// How far clocks go wrong: beyond any bound, and by more than a lease.
const STEP_MICROS: i64 = 5_000_000;
/// A fault of a script lasts so long, and then what it has done is mended.
const SCENE: Duration = Duration::from_secs(4);

async fn play(cluster: &Cluster, script: Script, random: &mut SmallRng, until: Instant) {
    while Instant::now() + SCENE * 2 < until {
        sleep(Duration::from_millis(random.random_range(100..1_500))).await;
        let master = cluster.time_master();
        let other = |random: &mut SmallRng| random.random_range(0..cluster.size());
        let victim = match script {
            Script::NodeStepped => other(random),
            Script::NodeForward => {
                let master = master.unwrap_or_default();
                (master + random.random_range(1..cluster.size().max(2))) % cluster.size()
            }
            _ => match master {
                Some(master) => master,
                None => continue,
            },
        };
        cluster.note("strike", victim as u64, || {
            format!("{script:?} (node {})", victim + 1)
        });
        let clock = cluster.clock(victim);
        match script {
            Script::MasterKilled => cluster.crash(victim),
            Script::MasterPaused => cluster.pause(victim),
            Script::MasterPartitioned => isolate(cluster, victim),
            Script::MasterForward | Script::NodeForward => clock.jump(STEP_MICROS as u64),
            Script::MasterStepped | Script::NodeStepped => {
                clock.step(match random.random_bool(0.5) {
                    true => STEP_MICROS,
                    false => -STEP_MICROS,
                })
            }
        }
        sleep(SCENE).await;
        mend(cluster, random);
        sleep(SCENE / 2).await;
    }
}

async fn strike(cluster: &Cluster, plan: &Plan, fault: Fault, random: &mut SmallRng) {
    let size = cluster.size();
    let victim = random.random_range(0..size);
    let address = cluster.address(victim);
    cluster.note("strike", victim as u64, || {
        format!("{fault:?} (node {})", victim + 1)
    });
    match fault {
        Fault::Crash => {
            cluster.crash(victim);
            // Often back at once, before anybody has noticed.
            if random.random_bool(0.5) {
                cluster.start(victim);
            }
        }
        Fault::Flicker => {
            let longest = [20, 100, 500][random.random_range(0..3)];
            for _ in 0..random.random_range(2..10) {
                cluster.crash(victim);
                cluster.start(victim);
                sleep(Duration::from_millis(random.random_range(1..=longest))).await;
            }
        }
        Fault::Stop => {
            let cluster = cluster.clone();
            let is_restarted = random.random_bool(0.5);
            // Meanwhile other faults may strike.
            tokio::spawn(async move {
                cluster.stop(victim).await;
                if is_restarted {
                    cluster.start(victim);
                }
            });
        }
        Fault::PowerLoss => lose_power(cluster),
        Fault::Vote => {
            lose_power(cluster);
            strike_voter(cluster, random).await;
        }
        Fault::Isolate => isolate(cluster, victim),
        Fault::Partition => partition(cluster, random),
        Fault::OneWay => {
            let other = (victim + random.random_range(1..size.max(2))) % size;
            cluster.network().cut(address, cluster.address(other));
        }
        Fault::Pause => cluster.pause(victim),
        Fault::SlowDisk => cluster.disk(victim).set_slow(random.random_range(5..100)),
        Fault::Skew => {
            for index in 0..size {
                let bound = plan.clock_bound_micros;
                let skew = match random.random_range(0..3) {
                    0 => bound,
                    1 => -bound,
                    _ => random.random_range(-bound..=bound),
                };
                cluster.clock(index).set_skew(skew);
            }
        }
        // A lone clock that is vouched for has no witness: that it was set is seen at most, which of the two times is right
        // is not. Nor is a majority right that was set alike: one clock at a time.
        Fault::Step if size == 1 && !plan.is_cluster_time => {}
        Fault::Step if (0..size).any(|index| index != victim && cluster.clock(index).is_set()) => {}
        Fault::Step => {
            let beyond = plan.clock_bound_micros * 4 + STEP_MICROS;
            cluster.clock(victim).step(match random.random_bool(0.5) {
                true => beyond,
                false => -beyond,
            });
        }
        Fault::Ambush => ambush(cluster, random).await,
        Fault::Weather => cluster.network().set_conditions(draw_conditions(random)),
        Fault::Move => {
            let (cluster, leaves) = (cluster.clone(), random.random_bool(0.7));
            let through = random.random_range(0..size);
            tokio::spawn(async move {
                let outcome = cluster.take_out(through, victim, leaves).await;
                cluster.note("move", victim as u64, || {
                    format!("node {} leaves: {leaves}, {outcome:?}", victim + 1)
                });
            });
        }
        Fault::LatePlan => {
            let lost = plan.buries_alive.then(|| random.random_range(0..size));
            let carrier = random.random_range(0..size);
            let pause = Duration::from_millis(random.random_range(100..5_000));
            let cluster = cluster.clone();
            tokio::spawn(async move {
                if let Some(plan) = cluster.foresee(victim, lost) {
                    cluster.note("foresee", victim as u64, || format!("{plan:?}"));
                    sleep(pause).await;
                    cluster.note("late", carrier as u64, || format!("{plan:?}"));
                    cluster.carry_out(carrier, plan).await;
                }
            });
        }
        Fault::CutCentre => {
            let centre = random.random_range(0..plan.factors.len().max(1));
            let is_in = |node: usize| plan.centre(node) == Some(centre);
            cut_between(cluster, is_in);
        }
        // See `Replacements`.
        Fault::Replace => {}
        Fault::Alter => alter(cluster, plan, victim, random).await,
        Fault::Split => {
            let number = random.random_range(0..plan.keys);
            let is_behind = random.random_bool(0.5);
            let cluster = cluster.clone();
            // It may take long, and other faults strike meanwhile.
            tokio::spawn(async move {
                let Some((table, key)) = boundary(&cluster, victim, number, is_behind) else {
                    return;
                };
                let outcome = cluster.split(victim, table, key).await;
                cluster.note("split", number, || format!("at key {number}: {outcome:?}"));
            });
        }
    }
}

/// Waits for a step of a transaction and strikes who is at it, at once or when its log may have been written.
async fn ambush(cluster: &Cluster, random: &mut SmallRng) {
    let spot = match random.random_bool(0.8) {
        true => Spot::Step(TRANSACTION_STEPS[random.random_range(0..TRANSACTION_STEPS.len())]),
        false => Spot::Sync(cluster.address(random.random_range(0..cluster.size()))),
    };
    let pass = random.random_range(0..4);
    let ambush = cluster.network().ambush();
    let Some((sender, receiver)) = ambush.lie(spot, pass, AMBUSH_PATIENCE).await else {
        return;
    };
    let micros = [0, 0, 100, 1_000, 10_000][random.random_range(0..5)];
    sleep(Duration::from_micros(micros)).await;
    let (address, other) = match random.random() {
        true => (sender, receiver),
        false => (receiver, sender),
    };
    let Some(victim) = node_at(cluster, address) else {
        return;
    };
    cluster.note("ambush", victim as u64, || {
        format!("{spot:?} (node {})", victim + 1)
    });
    match random.random_range(0..5) {
        0 => {
            cluster.crash(victim);
            cluster.start(victim);
        }
        1 => cluster.crash(victim),
        2 => isolate(cluster, victim),
        3 => cluster.pause(victim),
        // What it says next is late, and what the other has promised may be over by then.
        _ => {
            cluster.network().hold(address);
            if let Some(other) = node_at(cluster, other).filter(|other| *other != victim) {
                cluster.crash(other);
            }
        }
    }
}

fn lose_power(cluster: &Cluster) {
    for index in 0..cluster.size() {
        cluster.crash(index);
    }
    for index in 0..cluster.size() {
        cluster.start(index);
    }
}

/// Who is asked for its vote has given it, perhaps, when it crashes; when it is back, it hears of another candidate, which
/// hears nothing of the first. In the end all hear of each other.
async fn strike_voter(cluster: &Cluster, random: &mut SmallRng) {
    let (spot, pass) = (Spot::Step(VOTE_STEP), random.random_range(0..12));
    let network = cluster.network();
    let Some((candidate, voter)) = network.ambush().lie(spot, pass, ELECTION_PATIENCE).await else {
        return;
    };
    let Some(victim) = node_at(cluster, voter) else {
        return;
    };
    cluster.note("ambush", victim as u64, || {
        format!("{spot:?} (node {})", victim + 1)
    });
    let others: Vec<SocketAddr> = (0..cluster.size())
        .map(|index| cluster.address(index))
        .filter(|address| *address != voter && *address != candidate)
        .collect();
    network.cut(candidate, voter);
    for other in &others {
        network.cut(candidate, *other);
        network.cut(*other, candidate);
        network.hold(*other);
    }
    sleep(Duration::from_millis(random.random_range(1..8))).await;
    cluster.crash(victim);
    cluster.start(victim);
    // Its groups take part long before its doors are open.
    sleep(Duration::from_millis(random.random_range(30..150))).await;
    for other in others {
        network.release(other);
    }
    sleep(Duration::from_millis(random.random_range(50..500))).await;
    network.join_all();
}

fn node_at(cluster: &Cluster, address: SocketAddr) -> Option<usize> {
    (0..cluster.size()).find(|index| cluster.address(*index) == address)
}

fn isolate(cluster: &Cluster, victim: usize) {
    let address = cluster.address(victim);
    for other in (0..cluster.size()).filter(|other| *other != victim) {
        cluster.network().cut(address, cluster.address(other));
        cluster.network().cut(cluster.address(other), address);
    }
}

/// A boundary of the workload's table, right before a partition or right behind it.
fn boundary(
    cluster: &Cluster,
    node: usize,
    number: u64,
    is_behind: bool,
) -> Option<(TableId, Vec<u8>)> {
    let catalog = cluster.door(node)?.database.catalog();
    let mut tables = catalog.tables.values();
    let table = tables.find(|table| table.namespace() == NAMESPACE)?;
    let key = table.key_prefix(&[Value::Int(number as i64)]).ok()?;
    let mut boundary = table.boundary(&key)?.to_vec();
    if let Some(last) = boundary.last_mut() {
        *last = last.wrapping_add(u8::from(is_behind));
    }
    Some((table.id, boundary))
}

/// How long a voter that is on its way out is waited for.
const LEAVING_PATIENCE: Duration = Duration::from_secs(2);
/// How long the last replica of a data centre is waited for, and how often it is looked for.
const LAST_REPLICA_PATIENCE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(2);

fn partition(cluster: &Cluster, random: &mut SmallRng) {
    let sides: Vec<bool> = (0..cluster.size()).map(|_| random.random()).collect();
    cut_between(cluster, |node| sides[node]);
}

/// Cuts all links between the nodes of one side and the others, in both directions.
fn cut_between(cluster: &Cluster, is_on_one_side: impl Fn(usize) -> bool) {
    for from in 0..cluster.size() {
        for to in 0..cluster.size() {
            if is_on_one_side(from) != is_on_one_side(to) {
                cluster
                    .network()
                    .cut(cluster.address(from), cluster.address(to));
            }
        }
    }
}

/// Gives one data centre another number of copies, but leaves the table some. A centre that is to have none may be cut off
/// just when its last replica is on its way out, and not told how that ended.
async fn alter(cluster: &Cluster, plan: &Plan, through: usize, random: &mut SmallRng) {
    let centre = random.random_range(0..plan.factors.len().max(1));
    let factor = random.random_range(0..4);
    let Some(door) = cluster.door(through) else {
        return;
    };
    let catalog = door.database.catalog();
    let Some(namespace) = catalog.namespaces.get(NAMESPACE) else {
        return;
    };
    let known = &namespace.replication.factor_by_data_center;
    let mut factors: Vec<u32> = known.values().copied().collect();
    if let Some(changed) = factors.get_mut(centre) {
        *changed = factor;
    }
    if factors.iter().sum::<u32>() == 0 {
        return;
    }
    let change = Change::AlterNamespace {
        name: NAMESPACE.into(),
        replication: Some(replication(Protocol::Eventual, plan, &factors)),
        properties: BTreeMap::new(),
    };
    let altering = cluster.clone();
    // It takes long when the meta group is away, and other faults strike meanwhile.
    tokio::spawn(async move {
        let outcome = door.database.change_catalog(change).await;
        altering.note("alter", centre as u64, || {
            format!("copies by data centre: {factors:?}: {:?}", outcome.err())
        });
    });
    if factor == 0 && random.random_bool(0.5) {
        let is_in = |node: usize| plan.centre(node) == Some(centre);
        let looks = LAST_REPLICA_PATIENCE.as_millis() / LOOK.as_millis();
        for _ in 0..looks {
            if cluster.is_last_leaving(is_in) {
                sleep(Duration::from_millis(random.random_range(0..120))).await;
                cut_between(cluster, is_in);
                break;
            }
            sleep(LOOK).await;
        }
    }
}
