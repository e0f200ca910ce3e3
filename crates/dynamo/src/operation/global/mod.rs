//! Global tables: tables with replicas in several regions. A region is a data centre of the cluster, by its name.
//!
//! `EVENTUAL` makes an eventual table of it, with copies in each of its regions, that is read and written at local
//! levels: a region goes on by itself while it cannot reach the others. An item is one value, so of two writes of it the
//! one with the later timestamp wins whole. `STRONG` leaves it a strong table, with its replicas in three regions.
//!
//! A table of either kind is there in its regions alone: elsewhere it is not found. Which regions those are, the catalog
//! says (`Replication::factor_by_data_center`), and the property `CONSISTENCY` that it is so of purpose.
//!
//! A strong table becomes an eventual one only with nothing in it. So that no write is lost between the look whether there
//! is anything and the change, it is *sealed* first: its tablets take no writes until it is made anew, or the seal is
//! lifted again. `lift_old_seals` does that for who could not.

mod plan;

use super::Context;
use super::tables::{INVALID, TABLE_CLASSES, alter_properties, described};
use crate::error::{Failure, IN_USE};
use crate::table::Schema;
use crate::wire::constraint::Constraints;
use crate::wire::shape::{
    ProvisionedThroughputOverride, ReplicationGroupUpdate, UpdateTableRequest,
};
use crate::wire::writer::Writer;
use api::{Copies, Database, KeyRange, ReadRequest, Selection};
use catalog::{Catalog, Change, Durability, Ordering, Protocol, Replication, Table};
use model::TableId;
use plan::{Consistency, Plan, Standing, plan};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The property of a table that has regions of its own: how they are kept alike.
const CONSISTENCY: &str = "dynamo/multi_region_consistency";
/// Followed by a region, a slash, and the name of what is overridden there.
const OVERRIDES: &str = "dynamo/replica/";
const READ_CAPACITY: &str = "read_capacity_units";
const TABLE_CLASS: &str = "table_class";
/// The only version of global tables that there is here.
const VERSION: &str = "2019.11.21";
/// Whoever seals a table is done with it, one way or another, within this; or will not be.
const SEAL_PATIENCE_MICROS: i64 = 30_000_000;
/// Copies in a region of a cluster that does not say how many it wants.
const FACTOR: u64 = 3;

/// A replica in another region, as descriptions show it.
pub struct Shown {
    region: String,
    status: &'static str,
}

fn consistency(table: &Table) -> Option<Consistency> {
    let name = table.spec.properties.get(CONSISTENCY)?;
    Consistency::parse(name)
}

fn regions(table: &Table) -> BTreeSet<&str> {
    let factors = &table.spec.replication.factor_by_data_center;
    factors.keys().map(String::as_str).collect()
}

/// The region of this node.
fn here(database: &dyn Database) -> String {
    let topology = database.topology();
    let mut nodes = topology.nodes.iter();
    let this_node = nodes.find(|node| node.id == topology.this_node);
    this_node.map_or_else(String::new, |node| node.data_center.clone())
}

/// Whether a table is to be found in this region.
pub fn is_here(database: &dyn Database, table: &Table) -> bool {
    consistency(table).is_none() || regions(table).contains(here(database).as_str())
}

/// The region that a table's ARN names, if it has regions of its own.
pub fn region_of(context: &Context<'_>, table: &Table) -> Option<String> {
    consistency(table).map(|_| here(context.database))
}

/// The table's replicas in other regions, those that are going last.
pub fn replicas(context: &Context<'_>, table: &Table) -> Vec<Shown> {
    if consistency(table).is_none() {
        return Vec::new();
    }
    let (here, copies) = (here(context.database), context.database.copies(table.root));
    let is_filled = |region: &str| {
        let copies = copies.get(region);
        copies.is_none_or(|copies| copies.settled >= copies.wanted)
    };
    let mut shown: Vec<Shown> = Vec::new();
    for region in regions(table) {
        let status = match is_filled(region) {
            true => "ACTIVE",
            false => "CREATING",
        };
        shown.push(Shown::new(region, status));
    }
    let going = copies
        .keys()
        .filter(|region| !regions(table).contains(region.as_str()));
    shown.extend(going.map(|region| Shown::new(region, "DELETING")));
    shown.retain(|replica| replica.region != here);
    shown
}

impl Shown {
    fn new(region: &str, status: &'static str) -> Shown {
        Shown {
            region: region.to_owned(),
            status,
        }
    }
}

/// ACTIVE, or UPDATING while replicas come or go.
pub fn status(context: &Context<'_>, table: &Table) -> &'static str {
    let is_moving = |copies: BTreeMap<String, Copies>| {
        let regions = regions(table);
        copies.iter().any(|(region, copies)| {
            copies.settled < copies.wanted || !regions.contains(region.as_str())
        })
    };
    let is_global = consistency(table).is_some();
    match table.is_sealed() || is_global && is_moving(context.database.copies(table.root)) {
        true => "UPDATING",
        false => "ACTIVE",
    }
}

/// The members of a description that only global tables have.
pub fn write_description(writer: &mut Writer, table: &Table, replicas: &[Shown]) {
    let Some(consistency) = consistency(table).filter(|_| !replicas.is_empty()) else {
        return;
    };
    writer.key("Replicas");
    writer.begin_array();
    for replica in replicas {
        let overridden = |what: &str| {
            let key = override_key(&replica.region, what);
            table.spec.properties.get(&key)
        };
        writer.begin_object();
        writer.key("RegionName");
        writer.string(&replica.region);
        writer.key("ReplicaStatus");
        writer.string(replica.status);
        if let Some(units) = overridden(READ_CAPACITY) {
            writer.key("ProvisionedThroughputOverride");
            writer.begin_object();
            writer.key("ReadCapacityUnits");
            writer.plain(units);
            writer.end_object();
        }
        if let Some(class) = overridden(TABLE_CLASS) {
            writer.key("ReplicaTableClassSummary");
            writer.begin_object();
            writer.key("TableClass");
            writer.string(class);
            writer.end_object();
        }
        writer.end_object();
    }
    writer.end_array();
    writer.key("GlobalTableVersion");
    writer.string(VERSION);
    writer.key("MultiRegionConsistency");
    writer.string(consistency.name());
}

fn override_key(region: &str, what: &str) -> String {
    format!("{OVERRIDES}{region}/{what}")
}

/// The constraints of the model on what concerns regions in UpdateTable.
pub fn check_update_constraints(constraints: &mut Constraints, request: &UpdateTableRequest) {
    constraints.one_of(
        "multiRegionConsistency",
        request.multi_region_consistency.as_deref(),
        Consistency::NAMES,
    );
    let Some(updates) = &request.replica_updates else {
        return;
    };
    constraints.length("replicaUpdates", updates.len(), 1, usize::MAX, "[]");
    for (number, update) in updates.iter().enumerate() {
        let path = format!("replicaUpdates.{}.member", number + 1);
        let mut check = |kind: &str, it: Overridden<'_>| {
            let path = format!("{path}.{kind}");
            constraints.present(&format!("{path}.regionName"), &it.region_name);
            constraints.one_of(
                &format!("{path}.tableClassOverride"),
                it.table_class,
                TABLE_CLASSES,
            );
            let units = it
                .throughput
                .and_then(|throughput| throughput.read_capacity_units);
            let path = format!("{path}.provisionedThroughputOverride.readCapacityUnits");
            constraints.at_least(&path, units, 1);
        };
        for (kind, it) in overridden(update) {
            check(kind, it);
        }
    }
}

/// What an update says of one region's replica.
#[derive(Default)]
struct Overridden<'a> {
    region_name: Option<&'a str>,
    table_class: Option<&'a str>,
    throughput: Option<&'a ProvisionedThroughputOverride>,
    /// What there is not here.
    unbuilt: Option<&'static str>,
}

fn overridden(update: &ReplicationGroupUpdate) -> Vec<(&'static str, Overridden<'_>)> {
    let unbuilt = |has_key: bool, has_indexes: bool, is_limited: bool| {
        let unbuilt = [
            (has_key, "KMSMasterKeyId"),
            (has_indexes, "GlobalSecondaryIndexes of a replica"),
            (is_limited, "OnDemandThroughputOverride"),
        ];
        let asked = unbuilt.into_iter().find(|(is_asked, _)| *is_asked);
        asked.map(|(_, name)| name)
    };
    let mut found = Vec::with_capacity(1);
    if let Some(create) = &update.create {
        let overridden = Overridden {
            region_name: create.region_name.as_deref(),
            table_class: create.table_class_override.as_deref(),
            throughput: create.provisioned_throughput_override.as_ref(),
            unbuilt: unbuilt(
                create.kms_master_key_id.is_some(),
                create.global_secondary_indexes.is_some(),
                create.on_demand_throughput_override.is_some(),
            ),
        };
        found.push(("create", overridden));
    }
    if let Some(update) = &update.update {
        let overridden = Overridden {
            region_name: update.region_name.as_deref(),
            table_class: update.table_class_override.as_deref(),
            throughput: update.provisioned_throughput_override.as_ref(),
            unbuilt: unbuilt(
                update.kms_master_key_id.is_some(),
                update.global_secondary_indexes.is_some(),
                update.on_demand_throughput_override.is_some(),
            ),
        };
        found.push(("update", overridden));
    }
    if let Some(delete) = &update.delete {
        let overridden = Overridden {
            region_name: delete.region_name.as_deref(),
            ..Overridden::default()
        };
        found.push(("delete", overridden));
    }
    found
}

/// Whether UpdateTable is about regions.
pub fn is_asked(request: &UpdateTableRequest) -> bool {
    request.replica_updates.is_some()
        || request.multi_region_consistency.is_some()
        || request.global_table_witness_updates.is_some()
}

/// Carries out an UpdateTable that is about regions; `properties` is what it changes besides.
pub async fn update(
    context: &Context<'_>,
    schema: &Schema,
    request: &UpdateTableRequest,
    mut properties: BTreeMap<String, String>,
) -> Result<String, Failure> {
    let table = schema.table.as_ref();
    let updates = request.replica_updates.as_deref().unwrap_or_default();
    refuse_what_is_not_built(request, updates)?;
    check_active(context, schema)?;
    let (here, topology) = (here(context.database), context.database.topology());
    let centers = topology.nodes.iter().map(|node| node.data_center.as_str());
    let known = consistency(table);
    let is_strong_alone = table.is_strong() && regions(table).len() == 1;
    let standing = Standing {
        here: &here,
        regions: match known {
            Some(_) => regions(table),
            None => BTreeSet::from([here.as_str()]),
        },
        consistency: known.filter(|_| !is_strong_alone),
        known: centers.collect(),
    };
    let wanted = request.multi_region_consistency.as_deref();
    let plan = plan(&standing, updates, wanted.and_then(Consistency::parse))?;
    put_overrides(updates, &mut properties);
    let mut factors = factors(context, &standing, table);
    let (catalog, changed) = match plan {
        Plan::Update => (alter_properties(context, schema, properties).await?, None),
        Plan::Create {
            regions,
            consistency,
        } => {
            let factor = factor(context);
            factors.extend(regions.iter().map(|region| ((*region).to_owned(), factor)));
            properties.insert(CONSISTENCY.into(), consistency.name().into());
            let wanted = Wanted {
                factors,
                properties,
            };
            let catalog = extend(context, schema, consistency, wanted).await?;
            (catalog, Some((regions, "CREATING")))
        }
        Plan::Delete { regions } => {
            factors.retain(|region, _| !regions.contains(&region.as_str()));
            for what in [TABLE_CLASS, READ_CAPACITY] {
                let keys = regions.iter().map(|region| override_key(region, what));
                properties.extend(keys.map(|key| (key, String::new())));
            }
            let wanted = Wanted {
                factors,
                properties,
            };
            let change = wanted.change(table, table.version, table.spec.replication.protocol);
            let catalog = context.database.change_catalog(change).await?;
            (catalog, Some((regions, "DELETING")))
        }
    };
    let schema = Schema::find(&catalog, &schema.name)
        .ok_or_else(|| Failure::table_not_found(&schema.name))?;
    let mut shown = replicas(context, &schema.table);
    let mut status = "ACTIVE";
    if let Some((regions, becomes)) = changed {
        // Also what is done already: the service takes its time, and clients wait for the end of it.
        shown.retain(|replica| !regions.contains(&replica.region.as_str()));
        shown.extend(regions.iter().map(|region| Shown::new(region, becomes)));
        status = "UPDATING";
    }
    Ok(described(
        context,
        &schema,
        "TableDescription",
        status,
        &shown,
    ))
}

fn refuse_what_is_not_built(
    request: &UpdateTableRequest,
    updates: &[ReplicationGroupUpdate],
) -> Result<(), Failure> {
    if request.global_table_witness_updates.is_some() {
        return Err(Failure::not_supported("GlobalTableWitnessUpdates"));
    }
    let mut all = updates.iter().flat_map(overridden);
    match all.find_map(|(_, it)| it.unbuilt) {
        Some(what) => Err(Failure::not_supported(what)),
        None => Ok(()),
    }
}

/// What the updates say of single replicas is kept among the table's properties.
fn put_overrides(updates: &[ReplicationGroupUpdate], properties: &mut BTreeMap<String, String>) {
    for (_, it) in updates.iter().flat_map(overridden) {
        let mut put = |what, value: Option<String>| {
            if let (Some(region), Some(value)) = (it.region_name, value) {
                properties.insert(override_key(region, what), value);
            }
        };
        put(TABLE_CLASS, it.table_class.map(str::to_owned));
        let units = it.throughput.and_then(|it| it.read_capacity_units);
        put(READ_CAPACITY, units.map(|units| units.to_string()));
    }
}

/// Nothing of a table's regions changes while something is under way.
fn check_active(context: &Context<'_>, schema: &Schema) -> Result<(), Failure> {
    match status(context, &schema.table) {
        "ACTIVE" => Ok(()),
        _ => Err(Failure::new(
            IN_USE,
            format!(
                "Attempt to change a resource which is still in use: Table is being updated: {}",
                schema.name
            ),
        )),
    }
}

/// Copies in a region that begins.
fn factor(context: &Context<'_>) -> u32 {
    let factor = context.database.setting("replication_factor");
    factor.unwrap_or(FACTOR) as u32
}

/// Copies in the regions that the table is in.
fn factors(context: &Context<'_>, standing: &Standing<'_>, table: &Table) -> BTreeMap<String, u32> {
    match consistency(table) {
        Some(_) => table.spec.replication.factor_by_data_center.clone(),
        None => BTreeMap::from([(standing.here.to_owned(), factor(context))]),
    }
}

/// The copies and properties that a table is to have.
struct Wanted {
    factors: BTreeMap<String, u32>,
    properties: BTreeMap<String, String>,
}

impl Wanted {
    fn change(self, table: &Table, version: u64, protocol: Protocol) -> Change {
        Change::ReplicateTable {
            table: table.id,
            version,
            replication: Replication {
                protocol,
                factor_by_data_center: self.factors,
                factor: 0,
                durability: Durability::Synced,
                ordering: Ordering::Conflict,
            },
            properties: self.properties,
        }
    }
}

/// Gives a table replicas in more regions.
async fn extend(
    context: &Context<'_>,
    schema: &Schema,
    consistency: Consistency,
    wanted: Wanted,
) -> Result<Arc<Catalog>, Failure> {
    let table = schema.table.as_ref();
    match consistency {
        Consistency::Eventual if table.is_strong() => make_eventual(context, table, wanted).await,
        Consistency::Eventual => {
            let change = wanted.change(table, table.version, Protocol::Eventual);
            Ok(context.database.change_catalog(change).await?)
        }
        Consistency::Strong => {
            if !is_empty(context, table.id).await? {
                return Err(Failure::validation(format!(
                    "{INVALID}MultiRegionConsistency STRONG takes an empty table"
                )));
            }
            let change = wanted.change(table, table.version, Protocol::Strong);
            Ok(context.database.change_catalog(change).await?)
        }
    }
}

/// Makes an empty strong table anew as an eventual one.
async fn make_eventual(
    context: &Context<'_>,
    table: &Table,
    wanted: Wanted,
) -> Result<Arc<Catalog>, Failure> {
    let nodes = &context.database.topology().nodes;
    if let Some(node) = nodes.iter().find(|node| !node.is_alive) {
        // It might not hear of the seal, and take writes.
        return Err(Failure::internal(format!(
            "A table becomes a global one while all nodes of the cluster are there: {} is not",
            node.address
        )));
    }
    let seal = |version, at_micros| Change::SealTable {
        table: table.id,
        version,
        at_micros,
    };
    let now = context.database.now().latest;
    let sealing = seal(table.version, Some(now.0));
    context.database.change_catalog(sealing).await?;
    let version = table.version + 1;
    let outcome = match is_empty(context, table.id).await {
        Ok(true) => {
            let change = wanted.change(table, version, Protocol::Eventual);
            let changing = context.database.change_catalog(change).await;
            changing.map_err(Failure::from)
        }
        Ok(false) => Err(Failure::validation(format!(
            "{INVALID}A table with items in it cannot become a global table with MultiRegionConsistency EVENTUAL: \
             create its replicas before its items"
        ))),
        Err(failure) => Err(failure),
    };
    if outcome.is_err() {
        // Refused, should the table have been made anew after all.
        let _ = context.database.change_catalog(seal(version, None)).await;
    }
    outcome
}

async fn is_empty(context: &Context<'_>, table: TableId) -> Result<bool, Failure> {
    let mut next = Some(Selection::Ranges(vec![KeyRange::all()]));
    while let Some(selection) = next.take() {
        let mut read = ReadRequest::new(table, selection);
        read.row_limit = Some(1);
        let response = context.database.read(read).await?;
        if !response.rows.is_empty() {
            return Ok(false);
        }
        next = response.next;
    }
    Ok(true)
}

/// Lifts seals that have been there for too long: whoever has set them does not come back.
pub async fn lift_old_seals(database: &dyn Database, catalog: &Catalog) {
    let oldest = database.now().latest.plus_micros(-SEAL_PATIENCE_MICROS).0;
    for table in catalog.tables.values() {
        if table.sealed_at_micros.is_some_and(|at| at < oldest) {
            let lift = Change::SealTable {
                table: table.id,
                version: table.version,
                at_micros: None,
            };
            // Refused, if somebody has done it before.
            let _ = database.change_catalog(lift).await;
        }
    }
}
