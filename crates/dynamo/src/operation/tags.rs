//! Tags of tables, kept among a table's properties.

use super::Context;
use super::tables::{TAG_PREFIX, alter_properties, table_of_arn};
use crate::error::{ACCESS_DENIED, Failure};
use crate::wire::decode::body;
use crate::wire::shape::{ListTagsOfResourceRequest, TagResourceRequest, UntagResourceRequest};
use crate::wire::writer::Writer;
use std::collections::BTreeMap;

const TAGS_MAX: usize = 50;

/// An ARN must look like one at all, or the service takes it for somebody else's resource.
fn check_arn(context: &Context<'_>, operation: &str, arn: Option<&str>) -> Result<String, Failure> {
    let arn = arn.ok_or_else(|| Failure::validation("Invalid TableArn"))?;
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let looks_like_arn = parts.len() == 6
        && parts.iter().all(|part| !part.is_empty())
        && parts[5]
            .split_once('/')
            .is_some_and(|(kind, name)| !kind.is_empty() && !name.is_empty());
    if !looks_like_arn {
        let shown = if arn.is_empty() { "*" } else { arn };
        return Err(Failure::new(
            ACCESS_DENIED,
            format!(
                "User: arn:aws:iam::{}:user/tessera is not authorized to perform: dynamodb:{operation} on \
                 resource: {shown}",
                context.place.account
            ),
        ));
    }
    Ok(arn.to_owned())
}

/// `arn:aws:dynamodb:region:digits:table/name`, with a name of three characters at least.
fn check_table_arn(arn: &str) -> Result<(), Failure> {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let is_table = matches!(parts.as_slice(), ["arn", "aws", "dynamodb", _, account, resource]
    if account.bytes().all(|byte| byte.is_ascii_digit())
        && resource.strip_prefix("table/").is_some_and(|name| {
            name.chars().count() >= 3 && !name.contains('/')
        }));
    if is_table {
        Ok(())
    } else {
        Err(Failure::validation(format!(
            "Invalid TableArn: Invalid ResourceArn provided as input {arn}"
        )))
    }
}

fn missing(member: &str) -> Failure {
    Failure::validation(format!(
        "1 validation error detected: Value null at '{member}' failed to satisfy constraint: Member must not be \
         null"
    ))
}

pub async fn list(context: &Context<'_>, text: &str) -> Result<String, Failure> {
    let request: ListTagsOfResourceRequest = body(text)?;
    let arn = check_arn(
        context,
        "ListTagsOfResource",
        request.resource_arn.as_deref(),
    )?;
    check_table_arn(&arn)?;
    let schema = table_of_arn(context, Some(&arn))?;
    let mut writer = Writer::with_capacity(256);
    writer.begin_object();
    writer.key("Tags");
    writer.begin_array();
    for (key, value) in &schema.table.spec.properties {
        let (Some(key), Some(value)) = (key.strip_prefix(TAG_PREFIX), value.strip_prefix('='))
        else {
            continue;
        };
        writer.begin_object();
        writer.key("Key");
        writer.string(key);
        writer.key("Value");
        writer.string(value);
        writer.end_object();
    }
    writer.end_array();
    writer.end_object();
    Ok(writer.finish())
}

pub async fn tag(context: &Context<'_>, text: &str) -> Result<String, Failure> {
    let request: TagResourceRequest = body(text)?;
    let arn = check_arn(context, "TagResource", request.resource_arn.as_deref())?;
    let tags = request.tags.ok_or_else(|| missing("tags"))?;
    check_table_arn(&arn)?;
    if tags.is_empty() {
        return Err(Failure::validation(
            "Atleast one Tag needs to be provided as Input.",
        ));
    }
    let mut properties = BTreeMap::new();
    for tag in &tags {
        let key = tag
            .key
            .as_ref()
            .ok_or_else(|| missing("tags.1.member.key"))?;
        let value = tag
            .value
            .as_ref()
            .ok_or_else(|| missing("tags.1.member.value"))?;
        properties.insert(format!("{TAG_PREFIX}{key}"), format!("={value}"));
    }
    let schema = table_of_arn(context, Some(&arn))?;
    let existing = &schema.table.spec.properties;
    let others = existing
        .keys()
        .filter(|key| key.starts_with(TAG_PREFIX) && !properties.contains_key(*key))
        .count();
    if others + properties.len() > TAGS_MAX {
        return Err(Failure::validation(format!(
            "Too many tags: a table has at most {TAGS_MAX}"
        )));
    }
    alter_properties(context, &schema, properties).await?;
    Ok(String::new())
}

pub async fn untag(context: &Context<'_>, text: &str) -> Result<String, Failure> {
    let request: UntagResourceRequest = body(text)?;
    let arn = check_arn(context, "UntagResource", request.resource_arn.as_deref())?;
    let keys = request.tag_keys.ok_or_else(|| missing("tagKeys"))?;
    check_table_arn(&arn)?;
    if keys.is_empty() {
        return Err(Failure::validation(
            "Atleast one Tag Key needs to be provided as Input.",
        ));
    }
    // The service words this one differently.
    let schema = table_of_arn(context, Some(&arn)).map_err(|_| Failure::not_found())?;
    let properties = keys
        .iter()
        .map(|key| (format!("{TAG_PREFIX}{key}"), String::new()))
        .collect();
    alter_properties(context, &schema, properties).await?;
    Ok(String::new())
}
