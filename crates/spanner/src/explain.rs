//! A plan as Spanner's clients show it: a list of nodes, each with links to its children.

use googleapis_tonic_google_spanner_v1::google::spanner::v1 as pb;
use pb::plan_node::{ChildLink, Kind};
use pb::{PlanNode, QueryPlan};
use prost_types::value::Kind as ValueKind;
use sql::plan::Relation;

pub fn plan(root: &Relation) -> QueryPlan {
    let mut nodes = Vec::new();
    add(root, &mut nodes);
    QueryPlan {
        plan_nodes: nodes,
        ..QueryPlan::default()
    }
}

fn add(relation: &Relation, nodes: &mut Vec<PlanNode>) -> i32 {
    let (name, detail, children): (&str, String, Vec<&Relation>) = match relation {
        Relation::Rows(rows) => ("Rows", format!("{} rows", rows.len()), Vec::new()),
        Relation::Values(rows) => ("Values", format!("{} rows", rows.len()), Vec::new()),
        Relation::Scan(scan) => {
            let what = match &scan.selection {
                api::Selection::Keys(keys) => format!("{} keys", keys.len()),
                api::Selection::Ranges(ranges) => format!("{} ranges", ranges.len()),
            };
            let detail = format!("{}: {what}, {:?}", scan.table.name(), scan.direction);
            ("Scan", detail, Vec::new())
        }
        Relation::Unnest { .. } => ("Unnest", String::new(), Vec::new()),
        Relation::Filter { input, .. } => ("Filter", String::new(), vec![input]),
        Relation::Project { input, .. } => ("Compute", String::new(), vec![input]),
        Relation::Aggregate { input, keys, .. } => {
            ("Aggregate", format!("{} keys", keys.len()), vec![input])
        }
        Relation::Distinct { input } => ("Distinct", String::new(), vec![input]),
        Relation::Sort { input, keys, .. } => ("Sort", format!("{} keys", keys.len()), vec![input]),
        Relation::Limit { input, count, .. } => {
            let detail = count.map_or(String::new(), |count| count.to_string());
            ("Limit", detail, vec![input])
        }
        Relation::Trim { input, .. } => ("Project", String::new(), vec![input]),
        Relation::Set {
            operation,
            left,
            right,
            ..
        } => ("Set", format!("{operation:?}"), vec![left, right]),
        Relation::Join(join) => {
            let detail = format!("{:?}, {} keys", join.kind, join.keys.len());
            ("Hash Join", detail, vec![&join.left, &join.right])
        }
        Relation::Flatten { input, .. } => ("Array Unnest", String::new(), vec![input]),
        Relation::Apply { input, applied } => {
            let subqueries = applied.iter().map(|applied| &applied.root);
            let children = std::iter::once(input.as_ref()).chain(subqueries);
            ("Apply", String::new(), children.collect())
        }
        Relation::UnionAll(inputs) => ("Union All", String::new(), inputs.iter().collect()),
    };
    let index = nodes.len() as i32;
    let detail = prost_types::Value {
        kind: Some(ValueKind::StringValue(detail)),
    };
    nodes.push(PlanNode {
        index,
        kind: Kind::Relational as i32,
        display_name: name.to_owned(),
        metadata: Some(prost_types::Struct {
            fields: [("detail".to_owned(), detail)].into_iter().collect(),
        }),
        ..PlanNode::default()
    });
    for child in children {
        let child_index = add(child, nodes);
        nodes[index as usize].child_links.push(ChildLink {
            child_index,
            ..ChildLink::default()
        });
    }
    index
}
