//! `google.spanner.admin.instance.v1.InstanceAdmin`. An instance is a name that databases are listed under: its
//! record is kept in a property of the catalog; nodes and processing units are remembered and mean nothing.

use crate::names::{INSTANCE_PREFIX, page, parse_instance, parse_project};
use crate::operations::{self, any};
use crate::status::of_api;
use crate::{Door, wire};
use catalog::Change;
use googleapis_tonic_google_longrunning::google::longrunning::Operation;
use googleapis_tonic_google_spanner_admin_instance_v1::google::spanner::admin::instance::v1 as pb;
use pb::{Instance, InstanceConfig, instance, instance_config};
use prost::Message;
use std::sync::Arc;
use tonic::Status;

/// The configurations that there are. Users of the vendor's emulator ask for the first.
const CONFIGS: [(&str, &str); 2] = [("emulator-config", "Emulator"), ("tessera", "Tessera")];
/// Instances of a cluster.
const INSTANCES_MAX: usize = 1_000;

fn config(project: &str, (id, name): (&str, &str)) -> InstanceConfig {
    InstanceConfig {
        name: format!("projects/{project}/instanceConfigs/{id}"),
        display_name: name.to_owned(),
        config_type: instance_config::Type::GoogleManaged as i32,
        state: instance_config::State::Ready as i32,
        ..InstanceConfig::default()
    }
}

pub async fn list_configs(
    _: Arc<Door>,
    request: pb::ListInstanceConfigsRequest,
) -> Result<pb::ListInstanceConfigsResponse, Status> {
    let project = parse_project(&request.parent)?;
    let configs = CONFIGS.map(|known| (known.0.to_owned(), config(project, known)));
    let (instance_configs, next_page_token) =
        page(configs.to_vec(), request.page_size, &request.page_token);
    Ok(pb::ListInstanceConfigsResponse {
        instance_configs,
        next_page_token,
    })
}

pub async fn get_config(
    _: Arc<Door>,
    request: pb::GetInstanceConfigRequest,
) -> Result<InstanceConfig, Status> {
    let not_found = || Status::not_found(format!("Instance config not found: {}", request.name));
    let rest = request
        .name
        .strip_prefix("projects/")
        .ok_or_else(not_found)?;
    let (project, id) = rest.split_once("/instanceConfigs/").ok_or_else(not_found)?;
    let known = CONFIGS.iter().find(|known| known.0 == id);
    known
        .map(|known| config(project, *known))
        .ok_or_else(not_found)
}

pub fn property(name: &str) -> String {
    format!("{INSTANCE_PREFIX}{name}")
}

fn decode(text: &str) -> Option<Instance> {
    let bytes = sql::value::parse_base64(text)?;
    Instance::decode(bytes.as_slice()).ok()
}

fn find(door: &Door, name: &str) -> Result<Instance, Status> {
    let catalog = door.database.catalog();
    catalog
        .properties
        .get(&property(name))
        .and_then(|text| decode(text))
        .ok_or_else(|| Status::not_found(format!("Instance not found: {name}")))
}

async fn store(door: &Door, instance: &Instance) -> Result<(), Status> {
    let change = Change::PutProperty {
        key: property(&instance.name),
        value: sql::value::base64_text(&instance.encode_to_vec()),
    };
    door.database.change_catalog(change).await.map_err(of_api)?;
    Ok(())
}

pub async fn create(
    door: Arc<Door>,
    request: pb::CreateInstanceRequest,
) -> Result<Operation, Status> {
    let project = parse_project(&request.parent)?;
    let name = format!("projects/{project}/instances/{}", request.instance_id);
    parse_instance(&name)?;
    let catalog = door.database.catalog();
    if catalog.properties.contains_key(&property(&name)) {
        return Err(Status::already_exists(format!(
            "Instance already exists: {name}"
        )));
    }
    let known = catalog
        .properties
        .keys()
        .filter(|key| key.starts_with(INSTANCE_PREFIX));
    if known.count() >= INSTANCES_MAX {
        return Err(Status::resource_exhausted(format!(
            "the cluster has {INSTANCES_MAX} instances already"
        )));
    }
    let mut instance = request.instance.unwrap_or_default();
    if instance.node_count < 0 || instance.processing_units < 0 {
        return Err(Status::invalid_argument("an instance has no negative size"));
    }
    if instance.node_count == 0 && instance.processing_units == 0 {
        instance.node_count = 1;
    }
    match instance.processing_units {
        0 => instance.processing_units = instance.node_count.saturating_mul(1_000),
        units => instance.node_count = units / 1_000,
    }
    if instance.display_name.is_empty() {
        instance.display_name = request.instance_id.clone();
    }
    let now = wire::timestamp(door.database.now().latest);
    instance.name = name.clone();
    instance.state = instance::State::Ready as i32;
    instance.create_time = Some(now);
    instance.update_time = Some(now);
    store(&door, &instance).await?;
    let metadata = pb::CreateInstanceMetadata {
        instance: Some(instance.clone()),
        start_time: Some(now),
        end_time: Some(now),
        ..Default::default()
    };
    Ok(operations::done(
        &door,
        &name,
        None,
        any(
            "google.spanner.admin.instance.v1.CreateInstanceMetadata",
            &metadata,
        ),
        Ok(any("google.spanner.admin.instance.v1.Instance", &instance)),
    ))
}

pub async fn get(door: Arc<Door>, request: pb::GetInstanceRequest) -> Result<Instance, Status> {
    parse_instance(&request.name)?;
    find(&door, &request.name)
}

pub async fn list(
    door: Arc<Door>,
    request: pb::ListInstancesRequest,
) -> Result<pb::ListInstancesResponse, Status> {
    let project = parse_project(&request.parent)?;
    let prefix = format!("{INSTANCE_PREFIX}projects/{project}/instances/");
    let catalog = door.database.catalog();
    // Filters are `name:x`, `labels.k:v` and their like; a plain search in the name answers the common one.
    let wanted = request.filter.rsplit(':').next().unwrap_or_default();
    let wanted = wanted.trim().trim_matches('"').to_owned();
    let found: Vec<(String, Instance)> = catalog
        .properties
        .range(prefix.clone()..)
        .take_while(|(key, _)| key.starts_with(&prefix))
        .filter_map(|(key, text)| Some((key.clone(), decode(text)?)))
        .filter(|(_, instance)| instance.name.contains(&wanted))
        .collect();
    let (instances, next_page_token) = page(found, request.page_size, &request.page_token);
    Ok(pb::ListInstancesResponse {
        instances,
        next_page_token,
        ..Default::default()
    })
}

pub async fn update(
    door: Arc<Door>,
    request: pb::UpdateInstanceRequest,
) -> Result<Operation, Status> {
    let wanted = request
        .instance
        .ok_or_else(|| Status::invalid_argument("UpdateInstance without an instance"))?;
    let mut instance = find(&door, &wanted.name)?;
    let mask = request.field_mask.unwrap_or_default();
    for path in &mask.paths {
        match path.as_str() {
            "display_name" => instance.display_name.clone_from(&wanted.display_name),
            "node_count" => {
                instance.node_count = wanted.node_count;
                instance.processing_units = wanted.node_count.saturating_mul(1_000);
            }
            "processing_units" => {
                instance.processing_units = wanted.processing_units;
                instance.node_count = wanted.processing_units / 1_000;
            }
            // Both configurations mean the same cluster.
            "config" => instance.config.clone_from(&wanted.config),
            "labels" => instance.labels.clone_from(&wanted.labels),
            "edition" => instance.edition = wanted.edition,
            other => {
                return Err(Status::invalid_argument(format!(
                    "Field {other} of an instance cannot be updated"
                )));
            }
        }
    }
    let now = wire::timestamp(door.database.now().latest);
    instance.update_time = Some(now);
    store(&door, &instance).await?;
    let metadata = pb::UpdateInstanceMetadata {
        instance: Some(instance.clone()),
        start_time: Some(now),
        end_time: Some(now),
        ..Default::default()
    };
    Ok(operations::done(
        &door,
        &instance.name,
        None,
        any(
            "google.spanner.admin.instance.v1.UpdateInstanceMetadata",
            &metadata,
        ),
        Ok(any("google.spanner.admin.instance.v1.Instance", &instance)),
    ))
}

/// Deletes an instance with the databases that were made in it.
pub async fn delete(door: Arc<Door>, request: pb::DeleteInstanceRequest) -> Result<(), Status> {
    parse_instance(&request.name)?;
    find(&door, &request.name)?;
    let catalog = door.database.catalog();
    let prefix = format!("{}/databases/", request.name);
    let mut changes: Vec<Change> = catalog
        .namespaces
        .values()
        .filter(|namespace| {
            namespace
                .properties
                .get(crate::names::DATABASE_PROPERTY)
                .is_some_and(|database| database.starts_with(&prefix))
        })
        .map(|namespace| Change::DropNamespace {
            name: namespace.name.clone(),
        })
        .collect();
    changes.push(Change::PutProperty {
        key: property(&request.name),
        value: String::new(),
    });
    door.database
        .change_catalog(Change::All(changes))
        .await
        .map_err(of_api)?;
    Ok(())
}

crate::grpc::service! {
    /// Instances.
    InstanceAdmin, "google.spanner.admin.instance.v1.InstanceAdmin",
    {
        unary ListInstanceConfigs => list_configs;
        unary GetInstanceConfig => get_config;
        unary CreateInstance => create;
        unary GetInstance => get;
        unary ListInstances => list;
        unary UpdateInstance => update;
        unary DeleteInstance => delete;
    }
}
