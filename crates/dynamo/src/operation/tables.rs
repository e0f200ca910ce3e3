//! Tables: creating, describing, listing, changing and deleting them. What DynamoDB keeps of a table beside its
//! key are properties of the catalog's table, under `dynamo/`.
//!
//! A change of the catalog is answered when all live nodes have it, so a table is ready when CreateTable
//! answers. The answer says CREATING all the same, as the service's does: clients wait for ACTIVE.

use super::{Context, global, indexes, required};
use crate::error::{Failure, IN_USE};
use crate::table::{DOCUMENT_COLUMN, Schema, attribute_type, full_name, split_name};
use crate::wire::constraint::Constraints;
use crate::wire::decode::body;
use crate::wire::shape::{
    CreateTableRequest, EmptyRequest, KeySchemaElement, ListTablesRequest, ProvisionedThroughput,
    StreamSpecification, TableRequest, UpdateTableRequest,
};
use crate::wire::writer::Writer;
use api::document::AttributeType;
use api::{Error, Refused};
use catalog::{
    Catalog, Change, ChangeError, Column, ColumnRole, Durability, Ordering, Partitioning, Protocol,
    Replication, Table, TableSpec,
};
use model::{ColumnId, Type};
use std::collections::BTreeMap;
use uuid::Uuid;

const BILLING_MODE: &str = "dynamo/billing_mode";
const READ_CAPACITY: &str = "dynamo/read_capacity_units";
const WRITE_CAPACITY: &str = "dynamo/write_capacity_units";
const CREATED: &str = "dynamo/created_micros";
const TABLE_ID: &str = "dynamo/table_id";
const DELETION_PROTECTION: &str = "dynamo/deletion_protection";
const TABLE_CLASS: &str = "dynamo/table_class";
/// Followed by the tag's key; the value follows a `=`, for an empty property would be none.
pub const TAG_PREFIX: &str = "dynamo/tag/";

const BILLING_MODES: &[&str] = &["PROVISIONED", "PAY_PER_REQUEST"];
pub const TABLE_CLASSES: &[&str] = &["STANDARD", "STANDARD_INFREQUENT_ACCESS"];
const CAPACITY_UNITS_MAX: i64 = 1_000_000_000_000;
pub const INVALID: &str = "One or more parameter values were invalid: ";
/// As Cassandra's; nothing of a strong table waits for it.
pub const GC_GRACE_SECONDS: u32 = 864_000;

/// The name of a table as the operations on tables check it.
pub fn check_table_name(name: Option<&str>) -> Result<&str, Failure> {
    let name = name.ok_or_else(|| {
        Failure::validation(
            "The parameter 'TableName' is required but was not present in the request",
        )
    })?;
    if !(3..=255).contains(&name.encode_utf16().count()) {
        return Err(Failure::validation(
            "TableName must be at least 3 characters long and at most 255 characters long",
        ));
    }
    Ok(name)
}

fn table_named(context: &Context<'_>, text: &str) -> Result<Schema, Failure> {
    let request: TableRequest = body(text)?;
    let name = check_table_name(request.table_name.as_deref())?;
    let mut constraints = Constraints::default();
    constraints.resource_pattern("tableName", Some(name));
    constraints.finish()?;
    context.table(name)
}

pub async fn describe(context: &Context<'_>, text: &str) -> Result<String, Failure> {
    let schema = table_named(context, text)?;
    let status = global::status(context, &schema.table);
    let replicas = global::replicas(context, &schema.table);
    Ok(described(context, &schema, "Table", status, &replicas))
}

pub async fn delete(context: &Context<'_>, text: &str) -> Result<String, Failure> {
    let schema = table_named(context, text)?;
    if property(&schema.table, DELETION_PROTECTION) == Some("true") {
        return Err(Failure::validation(
            "Resource cannot be deleted as it is currently protected against deletion. Disable deletion \
             protection first.",
        ));
    }
    let replicas = global::replicas(context, &schema.table);
    if !replicas.is_empty() {
        return Err(Failure::validation(format!(
            "Table {} has replicas in other regions: delete them first",
            schema.name
        )));
    }
    let change = Change::DropTable {
        table: schema.table.id,
    };
    context.database.change_catalog(change).await?;
    Ok(described(
        context,
        &schema,
        "TableDescription",
        "DELETING",
        &[],
    ))
}

pub async fn create(context: &Context<'_>, text: &str) -> Result<String, Failure> {
    let request: CreateTableRequest = body(text)?;
    let name = check_table_name(request.table_name.as_deref())?;
    check_create_constraints(&request)?;
    let throughput = check_billing(
        request.billing_mode.as_deref(),
        request.provisioned_throughput.as_ref(),
    )?;
    let columns = columns(&request)?;
    indexes::check_rules(&request)?;
    refuse_what_is_not_built(&request)?;
    if Schema::find(&context.catalog, name).is_some() || is_taken(&context.catalog, name) {
        return Err(Failure::new(
            IN_USE,
            format!("Table already exists: {name}"),
        ));
    }
    let mut properties = BTreeMap::new();
    let mut put = |key: &str, value: String| properties.insert(key.to_owned(), value);
    put(
        BILLING_MODE,
        request
            .billing_mode
            .clone()
            .unwrap_or_else(|| "PROVISIONED".into()),
    );
    put(READ_CAPACITY, throughput.0.to_string());
    put(WRITE_CAPACITY, throughput.1.to_string());
    put(CREATED, context.database.now().latest.0.to_string());
    let uuid = Uuid::new_v4();
    put(TABLE_ID, uuid.to_string());
    if request.deletion_protection_enabled == Some(true) {
        put(DELETION_PROTECTION, "true".into());
    }
    if let Some(class) = &request.table_class {
        put(TABLE_CLASS, class.clone());
    }
    for tag in request.tags.iter().flatten() {
        if let (Some(key), Some(value)) = (&tag.key, &tag.value) {
            put(&format!("{TAG_PREFIX}{key}"), format!("={value}"));
        }
    }
    let catalog = change_with_namespace(context, name, |replication| {
        let (namespace, table) = split_name(name);
        Change::CreateTable {
            spec: TableSpec {
                namespace: namespace.to_owned(),
                name: table.to_owned(),
                partitioning: Partitioning::Hash,
                replication,
                columns: columns.clone(),
                parent: None,
                cascade: false,
                gc_grace_seconds: GC_GRACE_SECONDS,
                default_ttl_seconds: 0,
                properties: properties.clone(),
            },
            uuid: uuid.into_bytes(),
        }
    })
    .await?;
    let schema = Schema::find(&catalog, name).ok_or_else(|| Failure::table_not_found(name))?;
    Ok(described(
        context,
        &schema,
        "TableDescription",
        "CREATING",
        &[],
    ))
}

/// A table of another door's may have the name.
fn is_taken(catalog: &Catalog, name: &str) -> bool {
    let (namespace, table) = split_name(name);
    catalog.table_by_name(namespace, table).is_some()
}

/// DynamoDB's tables are strong, with the copies that their namespace asks for. The namespace is made if there
/// is none.
pub async fn change_with_namespace(
    context: &Context<'_>,
    name: &str,
    change: impl Fn(Replication) -> Change,
) -> Result<std::sync::Arc<Catalog>, Error> {
    let (namespace, _) = split_name(name);
    let strong = |base: Option<&Replication>| Replication {
        protocol: Protocol::Strong,
        factor_by_data_center: base
            .map(|base| base.factor_by_data_center.clone())
            .unwrap_or_default(),
        factor: base.map_or(0, |base| base.factor),
        durability: Durability::Synced,
        ordering: Ordering::Conflict,
    };
    if let Some(existing) = context.catalog.namespaces.get(namespace) {
        let change = change(strong(Some(&existing.replication)));
        return context.database.change_catalog(change).await;
    }
    let create = Change::CreateNamespace {
        name: namespace.to_owned(),
        replication: strong(None),
        properties: BTreeMap::new(),
    };
    let both = Change::All(vec![create, change(strong(None))]);
    match context.database.change_catalog(both).await {
        // Somebody else has just made it.
        Err(Error::Refused(Refused::Catalog(ChangeError::NamespaceExists(_)))) => {
            context.database.change_catalog(change(strong(None))).await
        }
        result => result,
    }
}

/// `path` is that of what has the throughput, and empty for the table itself.
pub fn check_throughput_constraints(
    constraints: &mut Constraints,
    path: &str,
    throughput: Option<&ProvisionedThroughput>,
) {
    let Some(throughput) = throughput else {
        return;
    };
    for (member, value) in [
        ("writeCapacityUnits", throughput.write_capacity_units),
        ("readCapacityUnits", throughput.read_capacity_units),
    ] {
        let separator = if path.is_empty() { "" } else { "." };
        let path = format!("{path}{separator}provisionedThroughput.{member}");
        constraints.present(&path, &value);
        constraints.at_least(&path, value, 1);
    }
}

fn check_create_constraints(request: &CreateTableRequest) -> Result<(), String> {
    let mut constraints = Constraints::default();
    constraints.present("attributeDefinitions", &request.attribute_definitions);
    for (index, definition) in request.attribute_definitions.iter().flatten().enumerate() {
        let path = format!("attributeDefinitions.{}.member", index + 1);
        constraints.present(&format!("{path}.attributeName"), &definition.attribute_name);
        constraints.present(&format!("{path}.attributeType"), &definition.attribute_type);
        constraints.one_of(
            &format!("{path}.attributeType"),
            definition.attribute_type.as_deref(),
            &["B", "N", "S"],
        );
    }
    constraints.resource_pattern("tableName", request.table_name.as_deref());
    constraints.one_of(
        "billingMode",
        request.billing_mode.as_deref(),
        BILLING_MODES,
    );
    check_throughput_constraints(
        &mut constraints,
        "",
        request.provisioned_throughput.as_ref(),
    );
    constraints.present("keySchema", &request.key_schema);
    if let Some(elements) = &request.key_schema {
        let shown = format!("[{}]", vec!["KeySchemaElement"; elements.len()].join(", "));
        constraints.length("keySchema", elements.len(), 1, 2, &shown);
        check_key_schema_constraints(&mut constraints, elements);
    }
    indexes::check_constraints(&mut constraints, request);
    constraints.one_of("tableClass", request.table_class.as_deref(), TABLE_CLASSES);
    constraints.finish()
}

fn check_key_schema_constraints(constraints: &mut Constraints, elements: &[KeySchemaElement]) {
    for (index, element) in elements.iter().enumerate() {
        let path = format!("keySchema.{}.member", index + 1);
        constraints.present(&format!("{path}.attributeName"), &element.attribute_name);
        constraints.present(&format!("{path}.keyType"), &element.key_type);
        constraints.one_of(
            &format!("{path}.keyType"),
            element.key_type.as_deref(),
            &["HASH", "RANGE"],
        );
    }
}

/// The capacity units to read and to write that a table is to show.
fn check_billing(
    mode: Option<&str>,
    throughput: Option<&ProvisionedThroughput>,
) -> Result<(i64, i64), String> {
    if mode == Some("PAY_PER_REQUEST") {
        return match throughput {
            None => Ok((0, 0)),
            Some(_) => Err(format!(
                "{INVALID}Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is \
                 PAY_PER_REQUEST"
            )),
        };
    }
    let units = throughput.and_then(|throughput| {
        Some((
            throughput.read_capacity_units?,
            throughput.write_capacity_units?,
        ))
    });
    let (read, write) = units.ok_or_else(|| {
        format!(
            "{INVALID}ReadCapacityUnits and WriteCapacityUnits must both be specified when BillingMode is \
             PROVISIONED"
        )
    })?;
    for (units, member) in [(read, "ReadCapacityUnits"), (write, "WriteCapacityUnits")] {
        if units > CAPACITY_UNITS_MAX {
            return Err(format!("Given value {units} for {member} is out of bounds"));
        }
    }
    Ok((read, write))
}

/// The columns of a key schema, with the rules on it.
fn columns(request: &CreateTableRequest) -> Result<Vec<Column>, String> {
    let definitions = request.attribute_definitions.as_deref().unwrap_or(&[]);
    let elements = request.key_schema.as_deref().unwrap_or(&[]);
    let name_of = |element: &KeySchemaElement| element.attribute_name.clone().unwrap_or_default();
    let defined: Vec<&str> = definitions
        .iter()
        .filter_map(|definition| definition.attribute_name.as_deref())
        .collect();
    let keys: Vec<String> = elements.iter().map(name_of).collect();
    if keys.len() > defined.len() {
        return Err("Invalid KeySchema: Some index key attribute have no definition".into());
    }
    let key_refs: Vec<&str> = keys.iter().map(String::as_str).collect();
    indexes::check_defined(&key_refs, &defined)?;
    indexes::check_key_order(elements)?;
    let has_indexes =
        request.local_secondary_indexes.is_some() || request.global_secondary_indexes.is_some();
    if !has_indexes && keys.len() != defined.len() {
        return Err(format!(
            "{INVALID}Number of attributes in KeySchema does not exactly match number of attributes defined in \
             AttributeDefinitions"
        ));
    }
    let kind_of = |name: &str| {
        let definition = definitions
            .iter()
            .find(|definition| definition.attribute_name.as_deref() == Some(name));
        match definition.and_then(|definition| definition.attribute_type.as_deref()) {
            Some("N") => Type::Number,
            Some("B") => Type::bytes(),
            _ => Type::text(),
        }
    };
    let roles = [ColumnRole::Partition, ColumnRole::Clustering];
    let mut columns: Vec<Column> = keys
        .into_iter()
        .zip(roles)
        .map(|(name, role)| column(kind_of(&name), name, role))
        .collect();
    columns.push(column(
        Type::Document,
        document_column_name(&columns),
        ColumnRole::Regular,
    ));
    Ok(columns)
}

/// A key attribute may have the document column's name; then that one gives way.
fn document_column_name(keys: &[Column]) -> String {
    let mut name = DOCUMENT_COLUMN.to_owned();
    while keys.iter().any(|key| key.name == name) {
        name.push('_');
    }
    name
}

pub fn column(kind: Type, name: String, role: ColumnRole) -> Column {
    Column {
        // Given by the catalog.
        id: ColumnId(0),
        name,
        kind,
        role,
        descending: false,
        not_null: false,
        options: BTreeMap::new(),
    }
}

fn refuse_what_is_not_built(request: &CreateTableRequest) -> Result<(), Failure> {
    if request.local_secondary_indexes.is_some() {
        return Err(Failure::not_supported("LocalSecondaryIndexes"));
    }
    if request.global_secondary_indexes.is_some() {
        return Err(Failure::not_supported("GlobalSecondaryIndexes"));
    }
    refuse_stream(request.stream_specification.as_ref())?;
    let encryption = request.sse_specification.as_ref();
    if encryption.is_some_and(|specification| specification.enabled == Some(true)) {
        return Err(Failure::not_supported("SSESpecification"));
    }
    Ok(())
}

fn refuse_stream(specification: Option<&StreamSpecification>) -> Result<(), Failure> {
    match specification {
        Some(specification) if specification.stream_enabled == Some(true) => {
            Err(Failure::not_supported("StreamSpecification"))
        }
        _ => Ok(()),
    }
}

pub async fn update(context: &Context<'_>, text: &str) -> Result<String, Failure> {
    let request: UpdateTableRequest = body(text)?;
    let name = check_table_name(request.table_name.as_deref())?;
    let mut constraints = Constraints::default();
    constraints.resource_pattern("tableName", Some(name));
    constraints.one_of(
        "billingMode",
        request.billing_mode.as_deref(),
        BILLING_MODES,
    );
    check_throughput_constraints(
        &mut constraints,
        "",
        request.provisioned_throughput.as_ref(),
    );
    constraints.one_of("tableClass", request.table_class.as_deref(), TABLE_CLASSES);
    indexes::check_update_constraints(
        &mut constraints,
        request
            .global_secondary_index_updates
            .as_deref()
            .unwrap_or_default(),
    );
    global::check_update_constraints(&mut constraints, &request);
    constraints.finish()?;
    let index_updates = request
        .global_secondary_index_updates
        .as_deref()
        .unwrap_or_default();
    indexes::check_update_rules(index_updates)?;
    if index_updates.is_empty() {
        check_has_change(&request)?;
    }
    let properties = changed_properties(&request)?;
    let schema = context.table(name)?;
    if !index_updates.is_empty() {
        return Err(Failure::not_supported("GlobalSecondaryIndexUpdates"));
    }
    refuse_stream(request.stream_specification.as_ref())?;
    check_throughput_change(&schema.table, &request)?;
    if global::is_asked(&request) {
        return global::update(context, &schema, &request, properties).await;
    }
    let catalog = alter_properties(context, &schema, properties).await?;
    let schema = Schema::find(&catalog, name).ok_or_else(|| Failure::table_not_found(name))?;
    let replicas = global::replicas(context, &schema.table);
    Ok(described(
        context,
        &schema,
        "TableDescription",
        "ACTIVE",
        &replicas,
    ))
}

fn check_has_change(request: &UpdateTableRequest) -> Result<(), String> {
    let has_change = request.billing_mode.is_some()
        || request.provisioned_throughput.is_some()
        || request.deletion_protection_enabled.is_some()
        || request.table_class.is_some()
        || request.stream_specification.is_some()
        || global::is_asked(request);
    if has_change {
        return Ok(());
    }
    Err(
        "At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, \
         GlobalSecondaryIndexUpdates or SSESpecification or ReplicaUpdates is required"
            .into(),
    )
}

fn changed_properties(request: &UpdateTableRequest) -> Result<BTreeMap<String, String>, String> {
    let mut properties = BTreeMap::new();
    let mut put = |key: &str, value: String| properties.insert(key.to_owned(), value);
    let mode = request.billing_mode.as_deref();
    if mode == Some("PROVISIONED") && request.provisioned_throughput.is_none() {
        return Err(format!(
            "{INVALID}ProvisionedThroughput must be specified when BillingMode is PROVISIONED"
        ));
    }
    if mode.is_some() || request.provisioned_throughput.is_some() {
        let (read, write) = check_billing(mode, request.provisioned_throughput.as_ref())?;
        put(READ_CAPACITY, read.to_string());
        put(WRITE_CAPACITY, write.to_string());
        put(BILLING_MODE, mode.unwrap_or("PROVISIONED").to_owned());
    }
    if let Some(is_protected) = request.deletion_protection_enabled {
        let value = if is_protected { "true" } else { "" };
        put(DELETION_PROTECTION, value.to_owned());
    }
    if let Some(class) = &request.table_class {
        put(TABLE_CLASS, class.clone());
    }
    Ok(properties)
}

/// A new throughput must be new, and the table provisioned.
fn check_throughput_change(table: &Table, request: &UpdateTableRequest) -> Result<(), String> {
    let Some(throughput) = &request.provisioned_throughput else {
        return Ok(());
    };
    let current_mode = property(table, BILLING_MODE);
    if request.billing_mode.is_none() && current_mode == Some("PAY_PER_REQUEST") {
        return Err(format!(
            "{INVALID}Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is \
             PAY_PER_REQUEST"
        ));
    }
    let current = |key| property(table, key).and_then(|units| units.parse::<i64>().ok());
    let (read, write) = (current(READ_CAPACITY), current(WRITE_CAPACITY));
    if read == throughput.read_capacity_units && write == throughput.write_capacity_units {
        let (read, write) = (read.unwrap_or_default(), write.unwrap_or_default());
        return Err(format!(
            "The provisioned throughput for the table will not change. The requested value equals the current \
             value. Current ReadCapacityUnits provisioned for the table: {read}. Requested ReadCapacityUnits: \
             {read}. Current WriteCapacityUnits provisioned for the table: {write}. Requested \
             WriteCapacityUnits: {write}. Refer to the Amazon DynamoDB Developer Guide for current limits and \
             how to request higher limits."
        ));
    }
    Ok(())
}

/// Changes properties of a table; an empty value removes one.
pub async fn alter_properties(
    context: &Context<'_>,
    schema: &Schema,
    properties: BTreeMap<String, String>,
) -> Result<std::sync::Arc<Catalog>, Failure> {
    let change = Change::AlterTable {
        table: schema.table.id,
        gc_grace_seconds: None,
        default_ttl_seconds: None,
        properties,
    };
    Ok(context.database.change_catalog(change).await?)
}

pub async fn list(context: &Context<'_>, text: &str) -> Result<String, Failure> {
    let request: ListTablesRequest = body(text)?;
    let mut constraints = Constraints::default();
    let limit = request.limit.map(i64::from);
    constraints.at_least("limit", limit, 1);
    constraints.at_most("limit", limit, 100);
    constraints.resource_name(
        "exclusiveStartTableName",
        request.exclusive_start_table_name.as_deref(),
    );
    constraints.finish()?;
    let limit = request.limit.map_or(100, |limit| limit as usize);
    let start = request.exclusive_start_table_name.as_deref();
    let mut names: Vec<String> = context
        .catalog
        .tables
        .values()
        .filter(|table| global::is_here(context.database, table))
        .filter_map(|table| Some(Schema::of(table, full_name(table))?.name))
        .filter(|name| start.is_none_or(|start| name.as_str() > start))
        .collect();
    names.sort();
    let has_more = names.len() > limit;
    names.truncate(limit);
    let mut writer = Writer::with_capacity(64 + 32 * names.len());
    writer.begin_object();
    writer.key("TableNames");
    writer.begin_array();
    for name in &names {
        writer.string(name);
    }
    writer.end_array();
    if let Some(last) = names.last().filter(|_| has_more) {
        writer.key("LastEvaluatedTableName");
        writer.string(last);
    }
    writer.end_object();
    Ok(writer.finish())
}

pub async fn describe_limits(_: &Context<'_>, text: &str) -> Result<String, Failure> {
    let _: EmptyRequest = body(text)?;
    // Nothing is metered here: these are the limits of a new account of the service.
    Ok(
        "{\"AccountMaxReadCapacityUnits\":80000,\"AccountMaxWriteCapacityUnits\":80000,\
        \"TableMaxReadCapacityUnits\":40000,\"TableMaxWriteCapacityUnits\":40000}"
            .into(),
    )
}

pub async fn describe_endpoints(context: &Context<'_>, text: &str) -> Result<String, Failure> {
    let _: EmptyRequest = body(text)?;
    let mut writer = Writer::default();
    writer.begin_object();
    writer.key("Endpoints");
    writer.begin_array();
    writer.begin_object();
    writer.key("Address");
    writer.string(context.host);
    writer.key("CachePeriodInMinutes");
    writer.plain(1440);
    writer.end_object();
    writer.end_array();
    writer.end_object();
    Ok(writer.finish())
}

pub async fn describe_time_to_live(context: &Context<'_>, text: &str) -> Result<String, Failure> {
    table_named(context, text)?;
    Ok("{\"TimeToLiveDescription\":{\"TimeToLiveStatus\":\"DISABLED\"}}".into())
}

pub async fn describe_continuous_backups(
    context: &Context<'_>,
    text: &str,
) -> Result<String, Failure> {
    table_named(context, text)?;
    Ok(
        "{\"ContinuousBackupsDescription\":{\"ContinuousBackupsStatus\":\"DISABLED\",\
        \"PointInTimeRecoveryDescription\":{\"PointInTimeRecoveryStatus\":\"DISABLED\"}}}"
            .into(),
    )
}

fn property<'a>(table: &'a Table, key: &str) -> Option<&'a str> {
    table.spec.properties.get(key).map(String::as_str)
}

/// `{"<member>": <the table's description>}`.
pub fn described(
    context: &Context<'_>,
    schema: &Schema,
    member: &str,
    status: &str,
    replicas: &[global::Shown],
) -> String {
    let mut writer = Writer::with_capacity(1024);
    writer.begin_object();
    writer.key(member);
    writer.begin_object();
    write_description(&mut writer, context, schema, status);
    global::write_description(&mut writer, &schema.table, replicas);
    writer.end_object();
    writer.end_object();
    writer.finish()
}

fn write_description(writer: &mut Writer, context: &Context<'_>, schema: &Schema, status: &str) {
    let table = &schema.table;
    writer.key("TableName");
    writer.string(&schema.name);
    writer.key("TableStatus");
    writer.string(status);
    writer.key("TableArn");
    let arn = match global::region_of(context, table) {
        Some(region) => context.place.within(region).table_arn(&schema.name),
        None => context.place.table_arn(&schema.name),
    };
    writer.string(&arn);
    writer.key("TableId");
    match property(table, TABLE_ID) {
        Some(id) => writer.string(id),
        None => writer.quoted_plain(Uuid::from_bytes(table.uuid)),
    }
    let created_micros = property(table, CREATED).and_then(|micros| micros.parse::<i64>().ok());
    writer.key("CreationDateTime");
    let millis = created_micros.unwrap_or_default() / 1000;
    writer.plain(format_args!("{}.{:03}", millis / 1000, millis % 1000));
    write_keys(writer, schema);
    let units = |key| property(table, key).unwrap_or("0").to_owned();
    writer.key("ProvisionedThroughput");
    writer.begin_object();
    writer.key("NumberOfDecreasesToday");
    writer.plain(0);
    writer.key("ReadCapacityUnits");
    writer.plain(units(READ_CAPACITY));
    writer.key("WriteCapacityUnits");
    writer.plain(units(WRITE_CAPACITY));
    writer.end_object();
    if property(table, BILLING_MODE) == Some("PAY_PER_REQUEST") {
        writer.key("BillingModeSummary");
        writer.begin_object();
        writer.key("BillingMode");
        writer.string("PAY_PER_REQUEST");
        writer.end_object();
        writer.key("TableThroughputModeSummary");
        writer.begin_object();
        writer.key("TableThroughputMode");
        writer.string("PAY_PER_REQUEST");
        writer.end_object();
    }
    if let Some(class) = property(table, TABLE_CLASS) {
        writer.key("TableClassSummary");
        writer.begin_object();
        writer.key("TableClass");
        writer.string(class);
        writer.end_object();
    }
    // Neither is counted yet; the service's own figures lag by hours.
    writer.key("TableSizeBytes");
    writer.plain(0);
    writer.key("ItemCount");
    writer.plain(0);
    writer.key("DeletionProtectionEnabled");
    writer.plain(property(table, DELETION_PROTECTION) == Some("true"));
}

fn write_keys(writer: &mut Writer, schema: &Schema) {
    writer.key("AttributeDefinitions");
    writer.begin_array();
    for column in schema.key_columns() {
        writer.begin_object();
        writer.key("AttributeName");
        writer.string(&column.name);
        writer.key("AttributeType");
        writer.string(attribute_type(&column.kind).map_or("", AttributeType::descriptor));
        writer.end_object();
    }
    writer.end_array();
    writer.key("KeySchema");
    writer.begin_array();
    for (column, kind) in schema.key_columns().zip(["HASH", "RANGE"]) {
        writer.begin_object();
        writer.key("AttributeName");
        writer.string(&column.name);
        writer.key("KeyType");
        writer.string(kind);
        writer.end_object();
    }
    writer.end_array();
}

/// The table that an ARN names.
pub fn table_of_arn(context: &Context<'_>, arn: Option<&String>) -> Result<Schema, Failure> {
    let arn = required(&arn, "ResourceArn")?;
    let name = arn.rsplit('/').next().unwrap_or_default();
    context.find(name).ok_or_else(|| {
        Failure::new(
            crate::error::NOT_FOUND,
            format!("Requested resource not found: ResourcArn: {arn} not found"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::DEFAULT_NAMESPACE;

    #[test]
    fn names_and_namespaces() {
        assert_eq!(split_name("orders.items"), ("orders", "items"));
        assert_eq!(split_name("items"), (DEFAULT_NAMESPACE, "items"));
        assert_eq!(split_name(".items"), (DEFAULT_NAMESPACE, ".items"));
        assert_eq!(split_name("a.b.c"), ("a", "b.c"));
    }

    #[test]
    fn the_document_column_gives_way() {
        let key = column(Type::text(), "item".into(), ColumnRole::Partition);
        assert_eq!(document_column_name(&[key]), "item_");
        assert_eq!(document_column_name(&[]), "item");
    }
}
