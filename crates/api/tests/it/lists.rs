//! Elements of lists by where and what they are.

use crate::{column, replication, spec};
use api::evaluate::{Moment, blind_change, evaluate, needs_read, resolved};
use api::reference::Reference;
use api::{
    Assignment, Check, CheckOperator, Condition, Database, Error, Mutation, Refused, RowOperation,
};
use catalog::{Change, ColumnRole, Partitioning, Protocol, Table};
use model::{Cell, CellContent, ColumnId, Marker, Row, Timestamp, Type, Value};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

const MOMENT: Moment = Moment {
    timestamp: Timestamp(9),
    now_seconds: 0,
};

async fn table() -> (Arc<Table>, ColumnId) {
    let database = Reference::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9042);
    let create = Change::CreateNamespace {
        name: "n".into(),
        replication: replication(Protocol::Eventual),
        properties: BTreeMap::new(),
    };
    database.change_catalog(create).await.unwrap();
    let list = Type::List {
        element: Box::new(Type::Int),
        frozen: false,
    };
    let columns = vec![
        column("p", Type::BigInt, ColumnRole::Partition),
        column("l", list, ColumnRole::Regular),
    ];
    let create = Change::CreateTable {
        spec: spec("t", Partitioning::Hash, Protocol::Eventual, columns),
        uuid: [7; 16],
    };
    let catalog = database.change_catalog(create).await.unwrap();
    let table = catalog.table_by_name("n", "t").unwrap().clone();
    let list = table.columns().iter().find(|column| column.name == "l");
    let id = list.unwrap().id;
    (table, id)
}

fn path(number: u8) -> Option<Vec<u8>> {
    Some(vec![number])
}

fn row(column: ColumnId, elements: &[(u8, i64)]) -> Row {
    let cell = |&(number, value): &(u8, i64)| Cell {
        column,
        path: path(number),
        timestamp: Timestamp(1),
        content: CellContent::Live {
            value: Value::Int(value),
            expiry: None,
        },
    };
    Row {
        marker: Some(Marker {
            timestamp: Timestamp(1),
            expiry: None,
        }),
        cells: elements.iter().map(cell).collect(),
        ..Row::default()
    }
}

fn merge(assignments: Vec<Assignment>) -> RowOperation {
    RowOperation::Merge {
        marker: false,
        assignments,
        ttl_seconds: None,
    }
}

fn set_at(column: ColumnId, position: i64, value: Value) -> Assignment {
    Assignment::SetElementAt {
        column,
        position,
        value,
    }
}

#[tokio::test]
async fn elements_are_those_of_the_row_that_is_there() {
    let (table, column) = table().await;
    let row = row(column, &[(3, 10), (5, 20), (8, 10)]);
    let five = Value::Int(5);
    let operation = merge(vec![
        set_at(column, 1, five.clone()),
        set_at(column, 2, Value::Null),
        Assignment::RemoveElements {
            column,
            values: vec![Value::Int(10), Value::Int(7)],
        },
    ]);
    let remove = |number| Assignment::Remove {
        column,
        path: path(number),
    };
    let set = Assignment::Set {
        column,
        path: path(5),
        value: five,
    };
    assert_eq!(
        resolved(&table, &operation, Some(&row)).unwrap().as_ref(),
        &merge(vec![set, remove(8), remove(3), remove(8)])
    );
    let mutation = Mutation::new(table.id, vec![1], operation);
    assert!(needs_read(&mutation));
    assert!(blind_change(&table, &mutation, MOMENT).is_err());
    let new = evaluate(&table, 0, &mutation, Some(&row), MOMENT)
        .unwrap()
        .new;
    let left: Vec<_> = new
        .unwrap()
        .cells
        .into_iter()
        .map(|cell| cell.path)
        .collect();
    assert_eq!(left, [path(5)]);
    // By value, of a list that is not there: nothing.
    let remove = merge(vec![Assignment::RemoveElements {
        column,
        values: vec![Value::Int(1)],
    }]);
    assert_eq!(
        resolved(&table, &remove, None).unwrap().as_ref(),
        &merge(vec![])
    );
}

#[tokio::test]
async fn an_element_that_is_not_there_is_refused_where_the_condition_holds() {
    let (table, column) = table().await;
    let row = row(column, &[(3, 10)]);
    let refused = |position, row: Option<&Row>, condition| {
        let operation = merge(vec![set_at(column, position, Value::Int(1))]);
        let mut mutation = Mutation::new(table.id, vec![1], operation);
        mutation.condition = condition;
        evaluate(&table, 0, &mutation, row, MOMENT).unwrap_err()
    };
    for position in [1, -1] {
        let error = refused(position, Some(&row), Some(Condition::RowExists));
        let text = format!("List index {position} out of bound, list has size 1");
        assert_eq!(error, Error::invalid(text));
    }
    let error = refused(0, None, None);
    assert!(error.to_string().contains("which is null"), "{error}");
    let never = Condition::Columns(vec![Check {
        column,
        operator: CheckOperator::Contains,
        values: vec![Value::Int(11)],
        part: None,
    }]);
    let error = refused(1, Some(&row), Some(never));
    let is_condition = matches!(error, Error::Refused(Refused::ConditionFailed { .. }));
    assert!(is_condition, "{error:?}");
}
