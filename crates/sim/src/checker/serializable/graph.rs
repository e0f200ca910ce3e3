//! Who came before whom, and the search for somebody who came before itself.

use super::story::tell_cycle;
use super::versions::{Version, Versions};
use super::{Anomaly, Class, Clock, Cycle, Element, Key, Moment, Promise, Transaction};
use std::collections::{BTreeMap, VecDeque};

/// From so many edges of a kind that lies on cycles the shortest way back is looked for.
const PIVOTS_MAX: usize = 300;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Because {
    /// `after` was appended next after `before`.
    WriteWrite {
        key: Key,
        before: Element,
        after: Element,
    },
    /// The list that was read ended with `element`.
    WriteRead { key: Key, element: Element },
    /// `next` was appended after the list that was read, which ended with `last`.
    ReadWrite {
        key: Key,
        last: Option<Element>,
        next: Element,
    },
    /// The same client had the answer to the one before it called the other.
    Process,
    /// The one had returned before the other was called.
    RealTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    WriteWrite,
    WriteRead,
    ReadWrite,
    Process,
    RealTime,
}

impl Because {
    fn kind(self) -> Kind {
        match self {
            Because::WriteWrite { .. } => Kind::WriteWrite,
            Because::WriteRead { .. } => Kind::WriteRead,
            Because::ReadWrite { .. } => Kind::ReadWrite,
            Because::Process => Kind::Process,
            Because::RealTime => Kind::RealTime,
        }
    }

    fn is_time(self) -> bool {
        matches!(self, Because::Process | Because::RealTime)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    pub to: usize,
    pub because: Because,
}

pub(super) struct Graph<'a> {
    history: &'a [Transaction],
    promise: Promise,
    /// By transaction: who came after it.
    edges: Vec<Vec<Edge>>,
}

impl<'a> Graph<'a> {
    pub fn new(history: &'a [Transaction], versions: &Versions, promise: Promise) -> Graph<'a> {
        let mut graph = Graph {
            history,
            promise,
            edges: vec![Vec::new(); history.len()],
        };
        graph.add_writes(versions);
        graph.add_reads(versions);
        graph.add_order(versions);
        graph
    }

    fn add(&mut self, from: usize, to: usize, because: Because) {
        if from != to {
            self.edges[from].push(Edge { to, because });
        }
    }

    fn add_writes(&mut self, versions: &Versions) {
        for (key, order) in &versions.orders {
            let links = order.seen.windows(2).map(|pair| (pair[0], pair[1]));
            let ends = order.seen.last().into_iter().flat_map(|last| {
                let unseen = order.unseen.iter();
                unseen.map(|element| (*last, *element))
            });
            for (before, after) in links.chain(ends) {
                let writers = (versions.writer(*key, before), versions.writer(*key, after));
                if let (Some(from), Some(to)) = writers {
                    let because = Because::WriteWrite {
                        key: *key,
                        before,
                        after,
                    };
                    self.add(from, to, because);
                }
            }
        }
    }

    fn add_reads(&mut self, versions: &Versions) {
        for observation in &versions.observations {
            let (reader, key) = (observation.reader, observation.key);
            let order = &versions.orders[&key];
            let length = match observation.version {
                Version::Length(length) => length,
                Version::Unplaced(element) => {
                    if let Some(writer) = versions.writer(key, element) {
                        self.add(writer, reader, Because::WriteRead { key, element });
                    }
                    continue;
                }
            };
            let last = length.checked_sub(1).map(|index| order.seen[index]);
            if let Some(element) = last
                && let Some(writer) = versions.writer(key, element)
            {
                self.add(writer, reader, Because::WriteRead { key, element });
            }
            // Behind what is appended next comes all else.
            let next = match order.seen.get(length) {
                Some(next) => std::slice::from_ref(next),
                None => order.unseen.as_slice(),
            };
            for next in next.iter().copied() {
                if let Some(writer) = versions.writer(key, next) {
                    self.add(reader, writer, Because::ReadWrite { key, last, next });
                }
            }
        }
    }

    /// Real time's edges, those left out that follow from others.
    fn add_order(&mut self, versions: &Versions) {
        match self.promise {
            Promise::Serializable => {}
            Promise::Strict => {
                let all: Vec<usize> = versions.committed().collect();
                self.add_order_among(&all, |_| true);
            }
            Promise::PerKey => {
                let mut by_key: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
                for index in versions.committed() {
                    for step in &self.history[index].steps {
                        let members = by_key.entry(step.key()).or_default();
                        if members.last() != Some(&index) {
                            members.push(index);
                        }
                    }
                }
                for (key, members) in by_key {
                    let history = self.history;
                    self.add_order_among(&members, |index| history[index].appends_to(key));
                }
            }
        }
    }

    /// Adds the order of time among `members`. A hub follows all members that returned before it was called, and is
    /// followed by all that were called after it returned: what goes through a hub needs no edge of its own.
    fn add_order_among(&mut self, members: &[usize], is_hub: impl Fn(usize) -> bool) {
        let history = self.history;
        let mut by_return: Vec<usize> = members.to_vec();
        by_return.sort_by_key(|index| history[*index].returned);
        let mut called_last = Vec::with_capacity(by_return.len());
        let mut latest = 0;
        for index in &by_return {
            if history[*index].moment == Moment::Within && is_hub(*index) {
                latest = latest.max(history[*index].called);
            }
            called_last.push(latest);
        }
        for to in members.iter().copied() {
            let called = history[to].called;
            let before = by_return.partition_point(|index| history[*index].returned < called);
            let Some(hub_called) = before.checked_sub(1).map(|last| called_last[last]) else {
                continue;
            };
            for from in by_return[..before].iter().rev().copied() {
                if history[from].returned < hub_called {
                    break;
                }
                if let Some(because) = self.follows(from, to) {
                    self.add(from, to, because);
                }
            }
        }
    }

    /// Whether `to` must come after `from` by time alone.
    fn follows(&self, from: usize, to: usize) -> Option<Because> {
        let (first, second) = (&self.history[from], &self.history[to]);
        if from == to || second.moment == Moment::Past || first.returned >= second.called {
            return None;
        }
        let is_bound = match self.promise {
            Promise::Serializable => false,
            Promise::Strict => true,
            Promise::PerKey => first.steps.iter().map(super::Step::key).any(|key| {
                second.steps.iter().any(|step| step.key() == key)
                    && (first.appends_to(key)
                        || second.appends_to(key)
                        || first.only_reads(key)
                        || second.only_reads(key))
            }),
        };
        let because = match first.client == second.client {
            true => Because::Process,
            false => Because::RealTime,
        };
        is_bound.then_some(because)
    }

    /// One cycle of each set of transactions that all come before each other: of the worst class that it has, where
    /// a cycle that needs no clock is worse than any that does.
    pub fn anomalies(mut self) -> Vec<Anomaly> {
        let all: Vec<usize> = (0..self.history.len()).collect();
        let mut anomalies = Vec::new();
        for component in self.components(&all, |_| true) {
            self.complete(&component);
            let found = SEARCHES.iter().find_map(|search| {
                let cycle = self.find(&component, search)?;
                Some((Class::Cycle(search.cycle, search.clock), cycle))
            });
            let (class, cycle) = found.unwrap_or_else(|| self.any(&component));
            anomalies.push(Anomaly {
                class,
                story: tell_cycle(self.history, &cycle),
            });
        }
        anomalies
    }

    /// Adds, within a component, the edges of time that follow from others: with them, cycles are short.
    fn complete(&mut self, component: &[usize]) {
        for from in component.iter().copied() {
            self.edges[from].retain(|edge| !edge.because.is_time());
            for to in component.iter().copied() {
                if let Some(because) = self.follows(from, to) {
                    self.add(from, to, because);
                }
            }
        }
    }

    /// Some cycle of a component that is too large to be searched.
    fn any(&self, component: &[usize]) -> (Class, Vec<(usize, Edge)>) {
        let search = Search {
            cycle: Cycle::AntiDependency,
            clock: Clock::RealTime,
        };
        let start = component[0];
        let way = self.edges[start]
            .iter()
            .filter(|edge| component.contains(&edge.to))
            .find_map(|edge| {
                (0..=2).find_map(|wanted| self.way_back(start, *edge, &search, wanted))
            })
            .expect("every member of a component lies on a cycle");
        let has = |kind| way.iter().any(|(_, edge)| edge.because.kind() == kind);
        let clock = match (has(Kind::Process), has(Kind::RealTime)) {
            (_, true) => Clock::RealTime,
            (true, false) => Clock::Process,
            (false, false) => Clock::None,
        };
        let is_rw = |(_, edge): &&(usize, Edge)| edge.because.kind() == Kind::ReadWrite;
        let cycle = match way.iter().filter(is_rw).count() {
            0 if has(Kind::WriteRead) => Cycle::Information,
            0 => Cycle::Write,
            1 => Cycle::Single,
            _ => Cycle::AntiDependency,
        };
        (Class::Cycle(cycle, clock), way)
    }

    /// The sets of transactions that all come before each other, by the edges that are allowed (Tarjan 1972, with a
    /// stack of its own).
    fn components(&self, among: &[usize], is_allowed: impl Fn(Kind) -> bool) -> Vec<Vec<usize>> {
        const UNSEEN: usize = usize::MAX;
        let size = self.history.len();
        let mut is_member = vec![false; size];
        for node in among {
            is_member[*node] = true;
        }
        let mut number = vec![UNSEEN; size];
        let mut lowest = vec![UNSEEN; size];
        let mut is_open = vec![false; size];
        let mut open = Vec::new();
        let mut components = Vec::new();
        let mut count = 0;
        for root in among.iter().copied() {
            if number[root] != UNSEEN {
                continue;
            }
            let mut path = vec![(root, 0)];
            while let Some((node, next)) = path.last_mut() {
                let node = *node;
                if *next == 0 {
                    number[node] = count;
                    lowest[node] = count;
                    count += 1;
                    open.push(node);
                    is_open[node] = true;
                }
                let edge = self.edges[node].get(*next).copied();
                *next += 1;
                if let Some(edge) = edge {
                    if !is_member[edge.to] || !is_allowed(edge.because.kind()) {
                        continue;
                    }
                    if number[edge.to] == UNSEEN {
                        path.push((edge.to, 0));
                    } else if is_open[edge.to] {
                        lowest[node] = lowest[node].min(number[edge.to]);
                    }
                    continue;
                }
                path.pop();
                if let Some((parent, _)) = path.last() {
                    lowest[*parent] = lowest[*parent].min(lowest[node]);
                }
                if lowest[node] == number[node] {
                    let start = open
                        .iter()
                        .rposition(|other| *other == node)
                        .expect("a node is open until its component is complete");
                    let component = open.split_off(start);
                    for member in &component {
                        is_open[*member] = false;
                    }
                    if component.len() > 1 {
                        components.push(component);
                    }
                }
            }
        }
        components
    }

    /// The shortest cycle of a class, from the edges that such a cycle must have.
    fn find(&self, component: &[usize], search: &Search) -> Option<Vec<(usize, Edge)>> {
        let mut home = BTreeMap::new();
        let parts = self.components(component, |kind| search.allows(kind));
        for (number, part) in parts.iter().enumerate() {
            home.extend(part.iter().map(|node| (*node, number)));
        }
        let mut shortest: Option<Vec<(usize, Edge)>> = None;
        let mut pivots = 0;
        for (from, part) in &home {
            for edge in &self.edges[*from] {
                let is_pivot =
                    edge.because.kind() == search.pivot() && home.get(&edge.to) == Some(part);
                if !is_pivot || pivots == PIVOTS_MAX {
                    continue;
                }
                pivots += 1;
                if let Some(way) = self.way_back(*from, *edge, search, search.rw_count())
                    && shortest
                        .as_ref()
                        .is_none_or(|found| way.len() < found.len())
                {
                    shortest = Some(way);
                }
            }
        }
        shortest
    }

    /// The shortest way from the end of `pivot` to its start, with the pivot before it and `wanted` rw on it; for the
    /// class of more than one, 2 stand for any number above.
    fn way_back(
        &self,
        start: usize,
        pivot: Edge,
        search: &Search,
        wanted: usize,
    ) -> Option<Vec<(usize, Edge)>> {
        let count_max = match search.cycle {
            Cycle::AntiDependency => 2,
            _ => usize::MAX,
        };
        // A place is a transaction, and how many rw have been used on the way there.
        let count = |before: usize, edge: Edge| match edge.because.kind() {
            Kind::ReadWrite => (before + 1).min(count_max),
            _ => before,
        };
        let first = (pivot.to, count(0, pivot));
        let mut came: BTreeMap<(usize, usize), ((usize, usize), Edge)> = BTreeMap::new();
        let mut queue = VecDeque::from([first]);
        while let Some(place) = queue.pop_front() {
            if place == (start, wanted) {
                let mut way = Vec::new();
                let mut place = place;
                while place != first {
                    let (from, edge) = came[&place];
                    way.push((from.0, edge));
                    place = from;
                }
                way.push((start, pivot));
                way.reverse();
                return Some(way);
            }
            for edge in &self.edges[place.0] {
                let next = (edge.to, count(place.1, *edge));
                let is_allowed = search.allows(edge.because.kind()) && next.1 <= wanted;
                if is_allowed && next != first && !came.contains_key(&next) {
                    came.insert(next, (place, *edge));
                    queue.push_back(next);
                }
            }
        }
        None
    }
}

/// A class of cycles to look for.
struct Search {
    cycle: Cycle,
    clock: Clock,
}

impl Search {
    fn allows(&self, kind: Kind) -> bool {
        match kind {
            Kind::WriteWrite => true,
            Kind::WriteRead => self.cycle != Cycle::Write,
            Kind::ReadWrite => matches!(self.cycle, Cycle::Single | Cycle::AntiDependency),
            Kind::Process => self.clock != Clock::None,
            Kind::RealTime => self.clock == Clock::RealTime,
        }
    }

    /// How many rw such a cycle has; 2 stand for any number above.
    fn rw_count(&self) -> usize {
        match self.cycle {
            Cycle::Write | Cycle::Information => 0,
            Cycle::Single => 1,
            Cycle::AntiDependency => 2,
        }
    }

    /// The kind of edge without which a cycle is not of this class.
    fn pivot(&self) -> Kind {
        match (self.clock, self.cycle) {
            (Clock::Process, _) => Kind::Process,
            (Clock::RealTime, _) => Kind::RealTime,
            (Clock::None, Cycle::Write) => Kind::WriteWrite,
            (Clock::None, Cycle::Information) => Kind::WriteRead,
            (Clock::None, Cycle::Single | Cycle::AntiDependency) => Kind::ReadWrite,
        }
    }
}

/// All classes, in the order in which they are looked for.
const SEARCHES: [Search; 12] = {
    const fn search(cycle: Cycle, clock: Clock) -> Search {
        Search { cycle, clock }
    }
    [
        search(Cycle::Write, Clock::None),
        search(Cycle::Information, Clock::None),
        search(Cycle::Single, Clock::None),
        search(Cycle::AntiDependency, Clock::None),
        search(Cycle::Write, Clock::Process),
        search(Cycle::Information, Clock::Process),
        search(Cycle::Single, Clock::Process),
        search(Cycle::AntiDependency, Clock::Process),
        search(Cycle::Write, Clock::RealTime),
        search(Cycle::Information, Clock::RealTime),
        search(Cycle::Single, Clock::RealTime),
        search(Cycle::AntiDependency, Clock::RealTime),
    ]
};
