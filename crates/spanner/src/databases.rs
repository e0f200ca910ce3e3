//! `google.spanner.admin.database.v1.DatabaseAdmin`. A database is a namespace (see `names`); its statements are
//! printed from the catalog, not kept as text, so that tables of other doors show too.

use crate::names::{
    CREATE_TIME_PROPERTY, DATABASE_PROPERTY, DatabaseName, check_database_id, database_not_found,
    find_namespace, page, parse_instance,
};
use crate::operations::{self, any, empty};
use crate::status::{of_api, of_sql};
use crate::{Door, wire};
use catalog::{Catalog, Change, Namespace};
use googleapis_tonic_google_longrunning::google::longrunning::Operation;
use googleapis_tonic_google_spanner_admin_database_v1::google::spanner::admin::database::v1 as pb;
use model::Timestamp;
use pb::{Database, DatabaseDialect, database};
use sql::ast::Definition;
use sql::definition::{self, DefinitionContext};
use std::collections::BTreeMap;
use std::sync::Arc;
use tonic::Status;

/// Statements of one request.
const STATEMENTS_MAX: usize = 1_000;

fn describe(name: String, namespace: &Namespace) -> Database {
    let created = namespace.properties.get(CREATE_TIME_PROPERTY);
    let created = created.and_then(|text| text.parse().ok()).map(Timestamp);
    Database {
        name,
        state: database::State::Ready as i32,
        create_time: created.map(wire::timestamp),
        version_retention_period: "1h".to_owned(),
        database_dialect: DatabaseDialect::GoogleStandardSql as i32,
        ..Database::default()
    }
}

/// The database and its namespace's name.
fn find(door: &Door, name: &str) -> Result<(DatabaseName, String), Status> {
    let database = DatabaseName::parse(name)?;
    let catalog = door.database.catalog();
    match find_namespace(&catalog, &database) {
        Some(namespace) => Ok((database, namespace.name.clone())),
        None => Err(database_not_found(name)),
    }
}

pub async fn create(
    door: Arc<Door>,
    request: pb::CreateDatabaseRequest,
) -> Result<Operation, Status> {
    let (project, instance) = parse_instance(&request.parent)?;
    if request.database_dialect() == DatabaseDialect::Postgresql {
        return Err(crate::status::unimplemented("the PostgreSQL dialect"));
    }
    let statement = sql::parse_definition(&request.create_statement).map_err(of_sql)?;
    let Definition::CreateDatabase { name: id } = statement else {
        return Err(Status::invalid_argument(
            "create_statement must be a CREATE DATABASE statement",
        ));
    };
    check_database_id(&id.text)?;
    let name = DatabaseName {
        project: project.to_owned(),
        instance: instance.to_owned(),
        database: id.text,
    };
    let catalog = door.database.catalog();
    let instance_property = crate::instances::property(&request.parent);
    if !catalog.properties.contains_key(&instance_property) {
        return Err(Status::not_found(format!(
            "Instance not found: {}",
            request.parent
        )));
    }
    if find_namespace(&catalog, &name).is_some() {
        return Err(Status::already_exists(format!(
            "Database already exists: {}",
            name.full()
        )));
    }
    let definitions = parse_all(&request.extra_statements)?;
    let free = name
        .namespaces()
        .into_iter()
        .find(|candidate| !catalog.namespaces.contains_key(candidate));
    let namespace = free.ok_or_else(|| {
        Status::already_exists(format!("no namespace is free for database {}", name.full()))
    })?;
    let now = door.database.now().latest;
    let change = Change::CreateNamespace {
        name: namespace.clone(),
        replication: definition::replication(),
        properties: BTreeMap::from([
            (DATABASE_PROPERTY.to_owned(), name.full()),
            (CREATE_TIME_PROPERTY.to_owned(), now.0.to_string()),
        ]),
    };
    door.database.change_catalog(change).await.map_err(of_api)?;
    if let Err(error) = apply(&door, &namespace, &definitions).await {
        // A database is created with all of its statements or not at all.
        let drop = Change::DropNamespace {
            name: namespace.clone(),
        };
        door.database.change_catalog(drop).await.map_err(of_api)?;
        return Err(error);
    }
    let catalog = door.database.catalog();
    let made = catalog.namespaces.get(&namespace);
    let made = made.ok_or_else(|| database_not_found(&name.full()))?;
    let metadata = pb::CreateDatabaseMetadata {
        database: name.full(),
    };
    Ok(operations::done(
        &door,
        &name.full(),
        None,
        any(
            "google.spanner.admin.database.v1.CreateDatabaseMetadata",
            &metadata,
        ),
        Ok(any(
            "google.spanner.admin.database.v1.Database",
            &describe(name.full(), made),
        )),
    ))
}

fn parse_all(statements: &[String]) -> Result<Vec<Definition>, Status> {
    if statements.len() > STATEMENTS_MAX {
        return Err(Status::invalid_argument(format!(
            "a request has at most {STATEMENTS_MAX} statements"
        )));
    }
    statements
        .iter()
        .map(|statement| sql::parse_definition(statement).map_err(of_sql))
        .collect()
}

/// Applies statements one after the other, each against the catalog that the one before it left; the
/// statements before one that fails stay.
async fn apply(door: &Door, namespace: &str, definitions: &[Definition]) -> Result<(), Status> {
    for definition in definitions {
        let catalog = door.database.catalog();
        let context = DefinitionContext {
            catalog: &catalog,
            namespace,
            uuid: uuid::Uuid::new_v4().into_bytes(),
            now_micros: door.database.now().latest.0,
        };
        if let Some(change) = definition::change(definition, &context).map_err(of_sql)? {
            door.database.change_catalog(change).await.map_err(of_api)?;
        }
    }
    Ok(())
}

pub async fn update_ddl(
    door: Arc<Door>,
    request: pb::UpdateDatabaseDdlRequest,
) -> Result<Operation, Status> {
    let (name, namespace) = find(&door, &request.database)?;
    if request.statements.is_empty() {
        return Err(Status::invalid_argument(
            "UpdateDatabaseDdl needs at least one statement",
        ));
    }
    let operation_name = format!("{}/operations/{}", name.full(), request.operation_id);
    if !request.operation_id.is_empty() && door.operations.is_known(&operation_name) {
        return Err(Status::already_exists(format!(
            "Operation already exists: {operation_name}"
        )));
    }
    let definitions = parse_all(&request.statements)?;
    let mut metadata = pb::UpdateDatabaseDdlMetadata {
        database: name.full(),
        statements: request.statements.clone(),
        ..Default::default()
    };
    let mut failed = None;
    for definition in &definitions {
        if let Err(status) = apply(&door, &namespace, std::slice::from_ref(definition)).await {
            failed = Some(status);
            break;
        }
        let now = door.database.now().latest;
        metadata.commit_timestamps.push(wire::timestamp(now));
    }
    // Statements that are wrong from the start are refused at once; later ones fail the operation.
    if let Some(status) = &failed
        && metadata.commit_timestamps.is_empty()
    {
        return Err(status.clone());
    }
    Ok(operations::done(
        &door,
        &name.full(),
        Some(&request.operation_id),
        any(
            "google.spanner.admin.database.v1.UpdateDatabaseDdlMetadata",
            &metadata,
        ),
        match failed {
            None => Ok(empty()),
            Some(status) => Err(status),
        },
    ))
}

pub async fn get(door: Arc<Door>, request: pb::GetDatabaseRequest) -> Result<Database, Status> {
    let (name, namespace) = find(&door, &request.name)?;
    let catalog = door.database.catalog();
    let found = catalog.namespaces.get(&namespace);
    let found = found.ok_or_else(|| database_not_found(&request.name))?;
    Ok(describe(name.full(), found))
}

pub async fn list(
    door: Arc<Door>,
    request: pb::ListDatabasesRequest,
) -> Result<pb::ListDatabasesResponse, Status> {
    parse_instance(&request.parent)?;
    let catalog = door.database.catalog();
    if !catalog
        .properties
        .contains_key(&crate::instances::property(&request.parent))
    {
        return Err(Status::not_found(format!(
            "Instance not found: {}",
            request.parent
        )));
    }
    let prefix = format!("{}/databases/", request.parent);
    let found = catalog.namespaces.values().filter_map(|namespace| {
        let name = match namespace.properties.get(DATABASE_PROPERTY) {
            Some(name) if name.starts_with(&prefix) => name.clone(),
            Some(_) => return None,
            None => format!("{prefix}{}", namespace.name),
        };
        Some((name.clone(), describe(name, namespace)))
    });
    let mut found: Vec<(String, Database)> = found.collect();
    found.sort_by(|left, right| left.0.cmp(&right.0));
    let (databases, next_page_token) = page(found, request.page_size, &request.page_token);
    Ok(pb::ListDatabasesResponse {
        databases,
        next_page_token,
    })
}

pub async fn drop(door: Arc<Door>, request: pb::DropDatabaseRequest) -> Result<(), Status> {
    let Ok((_, namespace)) = find(&door, &request.database) else {
        // Dropping what is not there is no error in Spanner; a name that is none is.
        DatabaseName::parse(&request.database)?;
        return Ok(());
    };
    door.database
        .change_catalog(Change::DropNamespace { name: namespace })
        .await
        .map_err(of_api)?;
    Ok(())
}

pub async fn get_ddl(
    door: Arc<Door>,
    request: pb::GetDatabaseDdlRequest,
) -> Result<pb::GetDatabaseDdlResponse, Status> {
    let (_, namespace) = find(&door, &request.database)?;
    let catalog = door.database.catalog();
    Ok(pb::GetDatabaseDdlResponse {
        statements: statements(&catalog, &namespace),
        ..Default::default()
    })
}

/// In the order in which the tables were made, so that parents come before their children.
fn statements(catalog: &Catalog, namespace: &str) -> Vec<String> {
    let Some(namespace) = catalog.namespaces.get(namespace) else {
        return Vec::new();
    };
    let mut ids: Vec<_> = namespace.tables.values().copied().collect();
    ids.sort();
    ids.iter()
        .filter_map(|id| catalog.table(*id))
        .map(|table| definition::create_statement(table, catalog))
        .collect()
}

pub async fn list_operations(
    door: Arc<Door>,
    request: pb::ListDatabaseOperationsRequest,
) -> Result<pb::ListDatabaseOperationsResponse, Status> {
    parse_instance(&request.parent)?;
    let found = door
        .operations
        .under(&format!("{}/databases/", request.parent));
    let (operations, next_page_token) = page(found, request.page_size, &request.page_token);
    Ok(pb::ListDatabaseOperationsResponse {
        operations,
        next_page_token,
    })
}

crate::grpc::service! {
    /// Databases and their schemas.
    DatabaseAdmin, "google.spanner.admin.database.v1.DatabaseAdmin",
    {
        unary CreateDatabase => create;
        unary GetDatabase => get;
        unary ListDatabases => list;
        unary DropDatabase => drop;
        unary UpdateDatabaseDdl => update_ddl;
        unary GetDatabaseDdl => get_ddl;
        unary ListDatabaseOperations => list_operations;
    }
}
