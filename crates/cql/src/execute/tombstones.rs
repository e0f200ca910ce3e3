//! How many tombstones a request may look at: past one threshold its client is warned, past the other it fails.

use super::Execution;
use crate::error::Error;
use catalog::Table;
use std::net::{IpAddr, Ipv4Addr};

/// Dead cells and rows that a read has looked at.
#[derive(Default)]
pub struct Tombstones {
    of_page: u64,
    most_of_a_page: u64,
}

impl Tombstones {
    pub fn count(&mut self, more: u64) {
        self.of_page += more;
        self.most_of_a_page = self.most_of_a_page.max(self.of_page);
    }

    pub fn turn_page(&mut self) {
        self.of_page = 0;
    }

    pub fn of_page(&self) -> u64 {
        self.of_page
    }

    pub fn most_of_a_page(&self) -> u64 {
        self.most_of_a_page
    }
}

/// So many a page, or a write that depends on what is there, may look at.
pub fn most(execution: &Execution<'_>) -> u64 {
    let setting = execution
        .server
        .database
        .setting("tombstone_failure_threshold");
    setting.unwrap_or(u64::MAX)
}

pub fn is_worth_a_warning(execution: &Execution<'_>, count: u64) -> bool {
    let setting = execution
        .server
        .database
        .setting("tombstone_warn_threshold");
    count > 0 && setting.is_some_and(|threshold| count > threshold)
}

pub fn check(execution: &Execution<'_>, table: &Table, count: u64) -> Result<(), Error> {
    if count == 0 || count <= most(execution) {
        return Ok(());
    }
    Err(too_many(execution, table, count))
}

/// This node has given up.
pub fn too_many(execution: &Execution<'_>, table: &Table, count: u64) -> Error {
    let topology = execution.server.database.topology();
    let mut nodes = topology.nodes.iter();
    let here = nodes.find(|node| node.id == topology.this_node);
    let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    Error::too_many_tombstones(
        execution.parameters.level,
        here.map_or(unknown, |here| here.address),
        format!(
            "Scanned over {count} tombstones in {}.{}; query aborted (see tombstone_failure_threshold)",
            table.namespace(),
            table.name()
        ),
    )
}
