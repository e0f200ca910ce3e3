//! Secondary indexes: the rules on their definitions. Indexes themselves are not built yet: a definition that
//! breaks a rule is refused for that, and a good one because it is not supported.

use super::tables::{INVALID, check_throughput_constraints};
use crate::wire::constraint::Constraints;
use crate::wire::shape::{
    CreateTableRequest, GlobalSecondaryIndexUpdate, KeySchemaElement, Projection,
};
use std::collections::BTreeSet;

const LOCAL_INDEXES_MAX: usize = 5;
const GLOBAL_INDEXES_MAX: usize = 20;
const PROJECTION_TYPES: &[&str] = &["ALL", "INCLUDE", "KEYS_ONLY"];

/// The constraints of the model on the index definitions of CreateTable.
pub fn check_constraints(constraints: &mut Constraints, request: &CreateTableRequest) {
    for (number, index) in request.local_secondary_indexes.iter().flatten().enumerate() {
        let path = format!("localSecondaryIndexes.{}.member", number + 1);
        check_name(constraints, &path, &index.index_name);
        check_key_schema(constraints, &path, index.key_schema.as_ref());
        check_projection(constraints, &path, index.projection.as_ref());
    }
    for (number, index) in request
        .global_secondary_indexes
        .iter()
        .flatten()
        .enumerate()
    {
        let path = format!("globalSecondaryIndexes.{}.member", number + 1);
        check_name(constraints, &path, &index.index_name);
        check_key_schema(constraints, &path, index.key_schema.as_ref());
        check_projection(constraints, &path, index.projection.as_ref());
        check_throughput_constraints(constraints, &path, index.provisioned_throughput.as_ref());
    }
}

fn check_name(constraints: &mut Constraints, path: &str, name: &Option<String>) {
    let path = format!("{path}.indexName");
    constraints.present(&path, name);
    constraints.resource_name(&path, name.as_deref());
}

fn check_key_schema(
    constraints: &mut Constraints,
    path: &str,
    elements: Option<&Vec<KeySchemaElement>>,
) {
    let path = format!("{path}.keySchema");
    constraints.present(&path, &elements);
    let Some(elements) = elements else {
        return;
    };
    let shown = format!("[{}]", vec!["KeySchemaElement"; elements.len()].join(", "));
    constraints.length(&path, elements.len(), 1, 2, &shown);
    for (number, element) in elements.iter().enumerate() {
        let path = format!("{path}.{}.member", number + 1);
        constraints.present(&format!("{path}.attributeName"), &element.attribute_name);
        constraints.present(&format!("{path}.keyType"), &element.key_type);
    }
}

fn check_projection(constraints: &mut Constraints, path: &str, projection: Option<&Projection>) {
    let path = format!("{path}.projection");
    constraints.present(&path, &projection);
    if let Some(projection) = projection {
        constraints.one_of(
            &format!("{path}.projectionType"),
            projection.projection_type.as_deref(),
            PROJECTION_TYPES,
        );
        if let Some(names) = &projection.non_key_attributes {
            let shown = format!("[{}]", names.join(", "));
            let path = format!("{path}.nonKeyAttributes");
            constraints.length(&path, names.len(), 1, usize::MAX, &shown);
        }
    }
}

/// The constraints on the index changes of UpdateTable.
pub fn check_update_constraints(
    constraints: &mut Constraints,
    updates: &[GlobalSecondaryIndexUpdate],
) {
    for (number, change) in updates.iter().enumerate() {
        let path = format!("globalSecondaryIndexUpdates.{}.member", number + 1);
        if let Some(update) = &change.update {
            let path = format!("{path}.update");
            check_name(constraints, &path, &update.index_name);
            constraints.present(
                &format!("{path}.provisionedThroughput"),
                &update.provisioned_throughput,
            );
            let throughput = update.provisioned_throughput.as_ref();
            check_throughput_constraints(constraints, &path, throughput);
        }
        if let Some(create) = &change.create {
            let path = format!("{path}.create");
            check_projection(constraints, &path, create.projection.as_ref());
            check_name(constraints, &path, &create.index_name);
            let throughput = create.provisioned_throughput.as_ref();
            check_throughput_constraints(constraints, &path, throughput);
            check_key_schema(constraints, &path, create.key_schema.as_ref());
        }
        if let Some(delete) = &change.delete {
            check_name(constraints, &format!("{path}.delete"), &delete.index_name);
        }
    }
}

/// The rules on the index changes of UpdateTable.
pub fn check_update_rules(updates: &[GlobalSecondaryIndexUpdate]) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for change in updates {
        let name = match (&change.update, &change.create, &change.delete) {
            (Some(update), _, _) => &update.index_name,
            (_, Some(create), _) => &create.index_name,
            (_, _, Some(delete)) => &delete.index_name,
            (None, None, None) => {
                return Err(format!(
                    "{INVALID}One of GlobalSecondaryIndexUpdate.Update, GlobalSecondaryIndexUpdate.Create, \
                     GlobalSecondaryIndexUpdate.Delete must not be null"
                ));
            }
        };
        let name = name.as_deref().unwrap_or_default();
        if !seen.insert(name) {
            return Err(format!(
                "{INVALID}Only one global secondary index update per index is allowed simultaneously. Index: \
                 {name}"
            ));
        }
    }
    Ok(())
}

/// The rules on the index definitions of CreateTable, whose own key is fine.
pub fn check_rules(request: &CreateTableRequest) -> Result<(), String> {
    let mut names = BTreeSet::new();
    check_local_rules(request, &mut names)?;
    check_global_rules(request, &mut names)
}

fn check_local_rules<'a>(
    request: &'a CreateTableRequest,
    names: &mut BTreeSet<&'a str>,
) -> Result<(), String> {
    let Some(indexes) = &request.local_secondary_indexes else {
        return Ok(());
    };
    if indexes.is_empty() {
        return Err(format!("{INVALID}List of LocalSecondaryIndexes is empty"));
    }
    let table_key = key_names(request.key_schema.as_ref());
    let [table_hash, _] = table_key.as_slice() else {
        return Err(format!(
            "{INVALID}Table KeySchema does not have a range key, which is required when specifying a \
             LocalSecondaryIndex"
        ));
    };
    for index in indexes {
        let name = index.index_name.as_deref().unwrap_or_default();
        let key = key_names(index.key_schema.as_ref());
        check_index_key(request, index.key_schema.as_ref(), &key)?;
        if key.len() != 2 {
            return Err(format!(
                "{INVALID}Index KeySchema does not have a range key for index: {name}"
            ));
        }
        if key[0] != *table_hash {
            return Err(format!(
                "{INVALID}Index KeySchema does not have the same leading hash key as table KeySchema for index: \
                 {name}. index hash key: {}, table hash key: {table_hash}",
                key[0]
            ));
        }
        check_projection_rules(index.projection.as_ref())?;
        check_unique(name, names)?;
    }
    if indexes.len() > LOCAL_INDEXES_MAX {
        return Err(format!(
            "{INVALID}Number of LocalSecondaryIndexes exceeds per-table limit of {LOCAL_INDEXES_MAX}"
        ));
    }
    Ok(())
}

fn check_global_rules<'a>(
    request: &'a CreateTableRequest,
    names: &mut BTreeSet<&'a str>,
) -> Result<(), String> {
    let Some(indexes) = &request.global_secondary_indexes else {
        return Ok(());
    };
    if indexes.is_empty() {
        return Err(format!("{INVALID}List of GlobalSecondaryIndexes is empty"));
    }
    for index in indexes {
        let name = index.index_name.as_deref().unwrap_or_default();
        let key = key_names(index.key_schema.as_ref());
        check_index_key(request, index.key_schema.as_ref(), &key)?;
        check_projection_rules(index.projection.as_ref())?;
        if request.billing_mode.as_deref() == Some("PAY_PER_REQUEST")
            && index.provisioned_throughput.is_some()
        {
            return Err(format!(
                "{INVALID}ProvisionedThroughput should not be specified for index: {name} when BillingMode is \
                 PAY_PER_REQUEST"
            ));
        }
        check_unique(name, names)?;
    }
    if indexes.len() > GLOBAL_INDEXES_MAX {
        return Err(format!(
            "{INVALID}GlobalSecondaryIndex count exceeds the per-table limit of {GLOBAL_INDEXES_MAX}"
        ));
    }
    Ok(())
}

fn key_names(elements: Option<&Vec<KeySchemaElement>>) -> Vec<&str> {
    elements
        .into_iter()
        .flatten()
        .filter_map(|element| element.attribute_name.as_deref())
        .collect()
}

fn check_index_key(
    request: &CreateTableRequest,
    elements: Option<&Vec<KeySchemaElement>>,
    key: &[&str],
) -> Result<(), String> {
    let defined: Vec<&str> = request
        .attribute_definitions
        .iter()
        .flatten()
        .filter_map(|definition| definition.attribute_name.as_deref())
        .collect();
    check_defined(key, &defined)?;
    check_key_order(elements.map_or(&[], Vec::as_slice))
}

pub fn check_defined(key: &[&str], defined: &[&str]) -> Result<(), String> {
    if key.iter().all(|name| defined.contains(name)) {
        return Ok(());
    }
    Err(format!(
        "{INVALID}Some index key attributes are not defined in AttributeDefinitions. Keys: [{}], \
         AttributeDefinitions: [{}]",
        key.join(", "),
        defined.join(", ")
    ))
}

/// A hash key, then perhaps a range key of another name.
pub fn check_key_order(elements: &[KeySchemaElement]) -> Result<(), String> {
    if let [hash, range] = elements
        && hash.attribute_name == range.attribute_name
    {
        return Err(
            "Both the Hash Key and the Range Key element in the KeySchema have the same name"
                .into(),
        );
    }
    let expected = [("HASH", "first"), ("RANGE", "second")];
    for (element, (kind, ordinal)) in elements.iter().zip(expected) {
        if element.key_type.as_deref() != Some(kind) {
            return Err(format!(
                "Invalid KeySchema: The {ordinal} KeySchemaElement is not a {kind} key type"
            ));
        }
    }
    Ok(())
}

fn check_projection_rules(projection: Option<&Projection>) -> Result<(), String> {
    let kind = projection.and_then(|projection| projection.projection_type.as_deref());
    let kind = kind.ok_or_else(|| format!("{INVALID}Unknown ProjectionType: null"))?;
    let has_names = projection.is_some_and(|projection| projection.non_key_attributes.is_some());
    if has_names && kind != "INCLUDE" {
        return Err(format!(
            "{INVALID}ProjectionType is {kind}, but NonKeyAttributes is specified"
        ));
    }
    Ok(())
}

fn check_unique<'a>(name: &'a str, names: &mut BTreeSet<&'a str>) -> Result<(), String> {
    if names.insert(name) {
        Ok(())
    } else {
        Err(format!("{INVALID}Duplicate index name: {name}"))
    }
}
