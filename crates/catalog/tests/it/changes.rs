//! What changes do, and which are refused.

use crate::fixture::*;
use catalog::{
    Catalog, Change, ChangeError, Column, ColumnRole, Partitioning, Protocol, Replication, Type,
};
use model::{ColumnId, SchemaVersion, TableId};
use std::collections::BTreeMap;

fn refused(catalog: &mut Catalog, change: Change) -> ChangeError {
    let before = catalog.clone();
    let error = catalog.apply(&change).unwrap_err();
    assert_eq!(*catalog, before, "a refused change changed something");
    error
}

fn simple(name: &str) -> catalog::TableSpec {
    spec(
        name,
        Partitioning::Hash,
        vec![partition("k", Type::text()), regular("v", Type::Int)],
    )
}

fn create_namespace(name: &str) -> Change {
    Change::CreateNamespace {
        name: name.into(),
        replication: replication(Protocol::Eventual),
        properties: BTreeMap::from([("cql/x".into(), "1".into()), ("cql/y".into(), "".into())]),
    }
}

#[test]
fn ids_are_given_in_order_and_never_again() {
    let mut catalog = shop();
    let first = created(&mut catalog, simple("first"));
    assert_eq!(first.id, TableId(1));
    assert_eq!((first.root, first.version), (TableId(1), 1));
    let ids: Vec<ColumnId> = first.columns().iter().map(|column| column.id).collect();
    assert_eq!(ids, [ColumnId(1), ColumnId(2)]);
    catalog
        .apply(&Change::DropTable { table: first.id })
        .unwrap();
    assert!(catalog.table_by_name("shop", "first").is_none());
    assert_eq!(created(&mut catalog, simple("first")).id, TableId(2));
    assert_eq!(catalog.version, SchemaVersion(4));
}

#[test]
fn a_truncated_table_is_a_new_one_of_the_same_shape() {
    let mut catalog = shop();
    let table = created(&mut catalog, simple("t"));
    let dropped = Change::DropColumns {
        table: table.id,
        columns: vec![ColumnId(2)],
        at_micros: 7,
    };
    catalog.apply(&dropped).unwrap();
    let before = catalog.table_by_name("shop", "t").unwrap().clone();
    catalog
        .apply(&Change::TruncateTable { table: table.id })
        .unwrap();
    let after = catalog.table_by_name("shop", "t").unwrap();
    assert!(catalog.table(table.id).is_none());
    assert_eq!((after.id, after.root), (TableId(2), TableId(2)));
    assert!(after.version > before.version);
    assert_eq!((after.uuid, &after.spec), (before.uuid, &before.spec));
    assert_eq!(after.dropped, before.dropped);
    // Ids of columns go on, too: what is left of an old cell is never taken for a new column's.
    assert_eq!(after.next_column_id, before.next_column_id);
    let gone = Change::TruncateTable { table: table.id };
    refused(&mut catalog, gone);
    // Those that share tablets cannot be emptied alone.
    let key = || clustering("a", Type::BigInt);
    let parent = created(&mut catalog, spec("p", Partitioning::Range, vec![key()]));
    let columns = vec![key(), clustering("b", Type::text())];
    let middle = created(&mut catalog, child("c", parent.id, columns));
    for shared in [parent.id, middle.id] {
        refused(&mut catalog, Change::TruncateTable { table: shared });
    }
}

#[test]
fn names_are_unique_and_namespaces_exist() {
    let mut catalog = shop();
    created(&mut catalog, simple("t"));
    assert_eq!(
        refused(&mut catalog, create(simple("t"))),
        ChangeError::TableExists("t".into())
    );
    let elsewhere = catalog::TableSpec {
        namespace: "nowhere".into(),
        ..simple("t")
    };
    assert_eq!(
        refused(&mut catalog, create(elsewhere)),
        ChangeError::NoNamespace("nowhere".into())
    );
    assert_eq!(
        refused(&mut catalog, create_namespace("shop")),
        ChangeError::NamespaceExists("shop".into())
    );
    for name in ["", "system", "system_auth"] {
        refused(&mut catalog, create_namespace(name));
    }
    catalog.apply(&create_namespace("systematic")).unwrap();
    let namespace = &catalog.namespaces["systematic"];
    assert_eq!(
        namespace.properties.keys().collect::<Vec<_>>(),
        ["cql/x"],
        "an empty value removes"
    );
}

#[test]
fn shapes_are_checked() {
    let mut catalog = shop();
    let hash = |columns| create(spec("t", Partitioning::Hash, columns));
    let range = |columns| create(spec("t", Partitioning::Range, columns));
    let key = || partition("k", Type::text());
    let list = Type::List {
        element: Box::new(Type::Int),
        frozen: false,
    };
    for change in [
        hash(vec![regular("v", Type::Int)]),
        hash(vec![key(), key()]),
        hash(vec![regular("v", Type::Int), key()]),
        hash(vec![descending(key())]),
        hash(vec![partition("k", Type::Duration)]),
        hash(vec![partition("k", list)]),
        hash(vec![key(), column("s", Type::Int, ColumnRole::Static)]),
        hash(vec![key(), regular("", Type::Int)]),
        range(vec![key()]),
    ] {
        refused(&mut catalog, change);
    }
    let counter = catalog::TableSpec {
        replication: replication(Protocol::Eventual),
        ..spec(
            "t",
            Partitioning::Hash,
            vec![key(), regular("n", Type::Counter)],
        )
    };
    refused(&mut catalog, create(counter));
}

#[test]
fn interleaving_is_checked() {
    let mut catalog = shop();
    let key = || clustering("a", Type::BigInt);
    let parent = created(&mut catalog, spec("p", Partitioning::Range, vec![key()]));
    for columns in [
        vec![clustering("a", Type::text())],
        vec![clustering("b", Type::BigInt)],
        vec![descending(key())],
        vec![],
    ] {
        refused(&mut catalog, create(child("c", parent.id, columns)));
    }
    refused(&mut catalog, create(child("c", TableId(77), vec![key()])));
    let columns = vec![key(), clustering("b", Type::text())];
    let middle = created(&mut catalog, child("c", parent.id, columns));
    assert_eq!(middle.root, parent.id);
    assert_eq!(middle.ancestors, [(parent.id, 1)]);
    let columns = vec![key(), clustering("b", Type::text())];
    let last = created(&mut catalog, child("d", middle.id, columns));
    assert_eq!(last.ancestors, [(parent.id, 1), (middle.id, 1)]);
    refused(&mut catalog, Change::DropTable { table: parent.id });
    refused(
        &mut catalog,
        Change::RenameColumn {
            table: parent.id,
            column: ColumnId(1),
            name: "z".into(),
        },
    );
    catalog
        .apply(&Change::DropTable { table: last.id })
        .unwrap();
    catalog
        .apply(&Change::DropTable { table: middle.id })
        .unwrap();
    catalog
        .apply(&Change::DropTable { table: parent.id })
        .unwrap();
}

#[test]
fn columns_come_and_go_and_are_remembered() {
    let mut catalog = shop();
    let table = created(&mut catalog, simple("t")).id;
    let add = |name: &str| Change::AddColumns {
        table,
        columns: vec![regular(name, Type::Int)],
    };
    assert_eq!(
        refused(&mut catalog, add("v")),
        ChangeError::ColumnExists("v".into())
    );
    refused(
        &mut catalog,
        Change::AddColumns {
            table,
            columns: vec![clustering("c", Type::Int)],
        },
    );
    let drop = |column| Change::DropColumns {
        table,
        columns: vec![ColumnId(column)],
        at_micros: 5,
    };
    refused(&mut catalog, drop(1));
    refused(&mut catalog, drop(9));
    catalog.apply(&drop(2)).unwrap();
    catalog.apply(&add("v")).unwrap();
    let now = catalog.table(table).unwrap();
    assert_eq!(now.column_by_name("v").unwrap().id, ColumnId(3));
    assert_eq!(now.dropped["v"], (Type::Int, 5));
    assert_eq!(now.version, 3);
    catalog
        .apply(&Change::RenameColumn {
            table,
            column: ColumnId(3),
            name: "w".into(),
        })
        .unwrap();
    assert!(catalog.table(table).unwrap().column_by_name("w").is_some());
}

#[test]
fn a_column_may_only_become_wider() {
    let mut catalog = shop();
    let table = created(&mut catalog, simple("t"));
    let alter = |column: &Column, kind| Change::AlterColumn {
        table: table.id,
        column: Column {
            kind,
            ..column.clone()
        },
    };
    let key = &table.columns()[0];
    let value = &table.columns()[1];
    let short = Type::Text {
        length_max: Some(10),
    };
    catalog.apply(&alter(key, short)).unwrap();
    catalog.apply(&alter(value, Type::BigInt)).unwrap();
    refused(&mut catalog, alter(value, Type::Int));
    refused(&mut catalog, alter(value, Type::text()));
    refused(&mut catalog, alter(key, Type::bytes()));
}

#[test]
fn user_types_follow_their_changes() {
    let mut catalog = shop();
    let user = |names: &[&str]| Type::User {
        name: "address".into(),
        fields: names
            .iter()
            .map(|name| (name.to_string(), Type::text()))
            .collect(),
        frozen: true,
    };
    let put = |kind| Change::PutType {
        namespace: "shop".into(),
        name: "address".into(),
        kind,
    };
    catalog.apply(&put(Some(user(&["street"])))).unwrap();
    let list = Type::List {
        element: Box::new(user(&["street"])),
        frozen: false,
    };
    let columns = vec![partition("k", Type::Int), regular("v", list)];
    let in_value = created(&mut catalog, spec("t", Partitioning::Hash, columns)).id;
    catalog
        .apply(&put(Some(user(&["street", "town"]))))
        .unwrap();
    let Type::List { element, .. } = &catalog.table(in_value).unwrap().columns()[1].kind else {
        panic!("still a list");
    };
    assert_eq!(**element, user(&["street", "town"]));
    refused(&mut catalog, put(None));
    refused(&mut catalog, put(Some(user(&["twice", "twice"]))));

    let columns = vec![partition("k", user(&["street", "town"]))];
    let in_key = created(&mut catalog, spec("u", Partitioning::Hash, columns)).id;
    refused(&mut catalog, put(Some(user(&["street", "town", "zip"]))));
    catalog.apply(&put(Some(user(&["road", "town"])))).unwrap();
    for table in [in_value, in_key] {
        catalog.apply(&Change::DropTable { table }).unwrap();
    }
    catalog.apply(&put(None)).unwrap();
    assert_eq!(
        refused(&mut catalog, put(None)),
        ChangeError::NoType("address".into())
    );
}

#[test]
fn replication_of_a_namespace_reaches_its_tables() {
    let mut catalog = shop();
    let table = created(&mut catalog, simple("t")).id;
    let alter = |replication| Change::AlterNamespace {
        name: "shop".into(),
        replication: Some(replication),
        properties: BTreeMap::new(),
    };
    let five = Replication {
        factor: 5,
        ..replication(Protocol::Strong)
    };
    catalog.apply(&alter(five)).unwrap();
    assert_eq!(catalog.table(table).unwrap().spec.replication.factor, 5);
    refused(&mut catalog, alter(replication(Protocol::Eventual)));
}

#[test]
fn a_table_s_own_replication_is_not_its_namespace_s_any_more() {
    let mut catalog = shop();
    let [own, other] = ["own", "other"].map(|name| created(&mut catalog, simple(name)).id);
    let by_center = Replication {
        factor_by_data_center: BTreeMap::from([("east".into(), 3), ("west".into(), 3)]),
        ..replication(Protocol::Strong)
    };
    let replicate = |version, replication: &Replication| Change::ReplicateTable {
        table: own,
        version,
        replication: replication.clone(),
        properties: BTreeMap::from([("dynamo/x".into(), "1".into())]),
    };
    assert_eq!(
        refused(&mut catalog, replicate(2, &by_center)),
        ChangeError::Changed("own".into())
    );
    catalog.apply(&replicate(1, &by_center)).unwrap();
    let table = catalog.table(own).unwrap();
    assert_eq!((table.version, &table.spec.replication), (2, &by_center));
    assert_eq!(table.spec.properties["dynamo/x"], "1");
    let alter = Change::AlterNamespace {
        name: "shop".into(),
        replication: Some(Replication {
            factor: 5,
            ..replication(Protocol::Strong)
        }),
        properties: BTreeMap::new(),
    };
    catalog.apply(&alter).unwrap();
    assert_eq!(
        catalog
            .table(own)
            .unwrap()
            .spec
            .replication
            .factor_by_data_center
            .len(),
        2
    );
    assert_eq!(catalog.table(other).unwrap().spec.replication.factor, 5);
}

#[test]
fn a_table_changes_its_protocol_only_sealed_and_is_made_anew() {
    let mut catalog = shop();
    let old = created(&mut catalog, simple("t"));
    let seal = |version, at_micros| Change::SealTable {
        table: old.id,
        version,
        at_micros,
    };
    let convert = |version| Change::ReplicateTable {
        table: old.id,
        version,
        replication: replication(Protocol::Eventual),
        properties: BTreeMap::new(),
    };
    refused(&mut catalog, convert(1));
    catalog.apply(&seal(1, Some(7))).unwrap();
    // Somebody has lifted the seal, and writes go on: whoever has set it hears of that.
    catalog.apply(&seal(2, None)).unwrap();
    refused(&mut catalog, convert(2));
    refused(&mut catalog, convert(3));
    catalog.apply(&seal(3, Some(8))).unwrap();
    assert!(catalog.table(old.id).unwrap().is_sealed());
    catalog.apply(&convert(4)).unwrap();
    assert!(catalog.table(old.id).is_none());
    let new = catalog.table_by_name("shop", "t").unwrap().clone();
    assert_eq!((new.id, new.root), (TableId(2), TableId(2)));
    assert_eq!((new.uuid, new.columns()), (old.uuid, old.columns()));
    assert!(!new.is_strong() && !new.is_sealed());
    assert_eq!(created(&mut catalog, simple("u")).id, TableId(3));
    let seal = Change::SealTable {
        table: new.id,
        version: new.version,
        at_micros: Some(9),
    };
    refused(&mut catalog, seal);
}

#[test]
fn several_changes_are_one() {
    let mut catalog = Catalog::default();
    let all = Change::All(vec![
        create_namespace("shop"),
        create(simple("t")),
        create(simple("u")),
    ]);
    catalog.apply(&all).unwrap();
    assert_eq!(catalog.version, SchemaVersion(1));
    assert_eq!(catalog.tables.len(), 2);
    refused(
        &mut catalog,
        Change::All(vec![create(simple("x")), create(simple("u"))]),
    );
    refused(&mut catalog, Change::All(vec![Change::All(vec![])]));
    catalog
        .apply(&Change::DropNamespace {
            name: "shop".into(),
        })
        .unwrap();
    assert!(catalog.tables.is_empty() && catalog.namespaces.is_empty());
}

#[test]
fn a_catalog_is_written_out_and_read_back() {
    let mut catalog = shop();
    let parent = created(
        &mut catalog,
        spec(
            "p",
            Partitioning::Range,
            vec![clustering("a", Type::BigInt)],
        ),
    );
    let columns = vec![
        clustering("a", Type::BigInt),
        clustering("b", Type::text()),
        regular("n", Type::Numeric),
    ];
    created(&mut catalog, child("c", parent.id, columns));
    let property = Change::PutProperty {
        key: "spanner/instance".into(),
        value: "{}".into(),
    };
    catalog.apply(&property).unwrap();
    let bytes = minicbor::to_vec(&catalog).unwrap();
    assert_eq!(minicbor::decode::<Catalog>(&bytes).unwrap(), catalog);
    let change = minicbor::to_vec(&property).unwrap();
    assert_eq!(minicbor::decode::<Change>(&change).unwrap(), property);
}
