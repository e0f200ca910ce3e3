//! What this node knows of the cluster now: the newest state of the meta group that it has seen, and what
//! follows from it. Versions only grow. Everyone takes snapshots; nobody waits for a lock that is held long.

use api::{NodeInfo, Topology};
use catalog::Catalog;
use cluster::{META, State, Tablet};
use model::{NodeId, TableId};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::sync::watch;

/// One version of the state, with what routing needs worked out.
#[derive(Default)]
pub(crate) struct View {
    pub state: Arc<State>,
    /// By table group, in the order of their ranges.
    routes: BTreeMap<TableId, Arc<[Arc<Tablet>]>>,
    addresses: BTreeMap<NodeId, SocketAddr>,
    data_centers: BTreeMap<NodeId, Arc<str>>,
    racks: BTreeMap<NodeId, Arc<str>>,
}

impl View {
    fn new(state: Arc<State>) -> View {
        let mut routes: BTreeMap<TableId, Vec<Arc<Tablet>>> = BTreeMap::new();
        for tablet in state.tablets().values().filter(|tablet| tablet.id != META) {
            routes
                .entry(tablet.root)
                .or_default()
                .push(Arc::clone(tablet));
        }
        let routes = routes
            .into_iter()
            .map(|(root, mut tablets)| {
                tablets.sort_by(|left, right| left.range.start.cmp(&right.range.start));
                (root, tablets.into())
            })
            .collect();
        let address = |text: &str| text.parse::<SocketAddr>().ok();
        View {
            routes,
            addresses: state
                .members()
                .filter_map(|node| Some((node.id, address(&node.profile.internode)?)))
                .collect(),
            data_centers: state
                .nodes()
                .values()
                .map(|node| (node.id, Arc::from(node.profile.data_center.as_str())))
                .collect(),
            racks: state
                .nodes()
                .values()
                .map(|node| (node.id, Arc::from(node.profile.rack.as_str())))
                .collect(),
            state,
        }
    }

    /// The tablets of a table group, in the order of their ranges.
    pub fn tablets(&self, root: TableId) -> &[Arc<Tablet>] {
        self.routes.get(&root).map_or(&[], |tablets| tablets)
    }

    /// The tablet that holds a key.
    pub fn tablet_of(&self, root: TableId, key: &[u8]) -> Option<&Arc<Tablet>> {
        let tablets = self.tablets(root);
        let above = tablets.partition_point(|tablet| tablet.range.start.as_slice() <= key);
        let tablet = tablets.get(above.checked_sub(1)?)?;
        tablet.range.contains(key).then_some(tablet)
    }

    /// The tablet that holds the greatest keys below `end` (`None`: the table's end).
    pub fn tablet_before(&self, root: TableId, end: Option<&[u8]>) -> Option<&Arc<Tablet>> {
        let tablets = self.tablets(root);
        let above = match end {
            Some(end) => tablets.partition_point(|tablet| tablet.range.start.as_slice() < end),
            None => tablets.len(),
        };
        tablets.get(above.checked_sub(1)?)
    }

    pub fn address(&self, node: NodeId) -> Option<SocketAddr> {
        self.addresses.get(&node).copied()
    }

    pub fn addresses(&self) -> &BTreeMap<NodeId, SocketAddr> {
        &self.addresses
    }

    pub fn data_center(&self, node: NodeId) -> Option<&Arc<str>> {
        self.data_centers.get(&node)
    }

    /// Whether two nodes stand in one rack of one data centre.
    pub fn is_same_rack(&self, one: NodeId, other: NodeId) -> bool {
        self.racks.get(&one) == self.racks.get(&other)
            && self.data_center(one) == self.data_center(other)
    }
}

/// The present view, and whoever waits for the next.
pub(crate) struct Views {
    current: RwLock<Arc<View>>,
    alive: Mutex<BTreeMap<NodeId, bool>>,
    version: world::watch::Sender<u64>,
    catalog: watch::Sender<Arc<Catalog>>,
    topology: watch::Sender<Arc<Topology>>,
    this_node: Mutex<NodeId>,
}

impl Views {
    pub fn new() -> Views {
        Views {
            current: RwLock::default(),
            alive: Mutex::default(),
            version: world::watch::Sender::new(0),
            catalog: watch::Sender::new(Arc::default()),
            topology: watch::Sender::new(Arc::default()),
            this_node: Mutex::new(NodeId(0)),
        }
    }

    pub fn set_this_node(&self, node: NodeId) {
        *self.this_node.lock() = node;
        self.set_alive(node, true);
        self.refresh_topology();
    }

    pub fn current(&self) -> Arc<View> {
        Arc::clone(&self.current.read())
    }

    /// Takes a state if it is newer than the present one.
    pub fn publish(&self, state: Arc<State>) {
        if state.version() <= self.current.read().state.version() {
            return;
        }
        let view = Arc::new(View::new(state));
        {
            let mut current = self.current.write();
            if view.state.version() <= current.state.version() {
                return;
            }
            *current = Arc::clone(&view);
        }
        let catalog = view.state.catalog();
        self.catalog.send_if_modified(|known| {
            let is_newer = catalog.version > known.version;
            if is_newer {
                *known = Arc::clone(catalog);
            }
            is_newer
        });
        self.refresh_topology();
        self.version.send_if_modified(|known| {
            let is_newer = view.state.version() > *known;
            *known = view.state.version().max(*known);
            is_newer
        });
    }

    pub fn set_alive(&self, node: NodeId, is_alive: bool) {
        if self.alive.lock().insert(node, is_alive) != Some(is_alive) {
            self.refresh_topology();
        }
    }

    pub fn is_alive(&self, node: NodeId) -> bool {
        self.alive.lock().get(&node).copied().unwrap_or(false)
    }

    pub fn watch_version(&self) -> world::watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub fn watch_catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.catalog.subscribe()
    }

    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.borrow())
    }

    pub fn watch_topology(&self) -> watch::Receiver<Arc<Topology>> {
        self.topology.subscribe()
    }

    pub fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.topology.borrow())
    }

    fn refresh_topology(&self) {
        // Held to the end, so that what is worked out last is what is known last.
        let this_node = self.this_node.lock();
        let view = self.current();
        let mut tokens = cluster::ring(&view.state);
        let nodes = view
            .state
            .members()
            .map(|node| NodeInfo {
                id: node.id,
                host_id: node.profile.host_id,
                address: node
                    .profile
                    .client_address
                    .parse()
                    .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
                cql_port: node.profile.cql_port,
                data_center: node.profile.data_center.clone(),
                rack: node.profile.rack.clone(),
                is_alive: self.is_alive(node.id),
                tokens: tokens.remove(&node.id).unwrap_or_default(),
                version: node.profile.version.clone(),
            })
            .collect();
        let topology = Topology {
            cluster_name: view.state.name().to_owned(),
            this_node: *this_node,
            nodes,
        };
        self.topology.send_if_modified(|known| {
            let is_new = **known != topology;
            if is_new {
                *known = Arc::new(topology);
            }
            is_new
        });
    }
}
