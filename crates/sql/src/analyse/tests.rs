use crate::test_support::Memory;

fn memory() -> Memory {
    Memory::new(&[
        "CREATE TABLE t (id INT64 NOT NULL, s STRING(10), f FLOAT64, d DATE, at TIMESTAMP) PRIMARY KEY (id)"
            .replace("at TIMESTAMP", "ts TIMESTAMP")
            .as_str(),
    ])
}

#[test]
fn types_of_expressions() {
    let memory = memory();
    for (text, wanted) in [
        ("1", "INT64"),
        ("1 + 1.5", "FLOAT64"),
        ("1 / 2", "FLOAT64"),
        ("NUMERIC '1' / 2", "NUMERIC"),
        ("NUMERIC '1' + 1.5", "NUMERIC"),
        ("[1, 2.5]", "ARRAY<FLOAT64>"),
        ("[NULL, 'a']", "ARRAY<STRING>"),
        ("IF(TRUE, NULL, DATE '2020-01-01')", "DATE"),
        ("COALESCE(NULL, 1, 2.5)", "FLOAT64"),
        ("CASE 1 WHEN 2 THEN 'a' END", "STRING"),
        ("STRUCT(1 AS a, 'x' AS b)", "STRUCT<a INT64, b STRING>"),
        ("STRUCT(1 AS a, 'x' AS b).b", "STRING"),
        ("CAST(1 AS STRING)", "STRING"),
        ("FLOOR(1)", "FLOAT64"),
        ("FLOOR(NUMERIC '1.5')", "NUMERIC"),
        ("b'a' || b'b'", "BYTES"),
        ("[1] || [2]", "ARRAY<INT64>"),
        ("NULL", "INT64"),
    ] {
        let plan = memory.plan(&format!("SELECT {text}")).unwrap();
        assert_eq!(plan.columns[0].kind.to_string(), wanted, "{text}");
    }
}

#[test]
fn names_of_columns() {
    let memory = memory();
    let plan = memory.plan("SELECT id, x.s, f AS g, id + 1, t.* EXCEPT (d) FROM t AS x, t");
    assert!(plan.is_err(), "joins are refused");
    let plan = memory
        .plan("SELECT id, x.s, f AS g, id + 1, x.* EXCEPT (d) FROM t AS x")
        .unwrap();
    let names: Vec<&str> = plan
        .columns
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    assert_eq!(names, ["id", "s", "g", "", "id", "s", "f", "ts"]);
}

#[test]
fn errors() {
    let memory = memory();
    for (text, wanted) in [
        ("SELECT x FROM t", "Unrecognized name: x [at 1:8]"),
        ("SELECT t.x FROM t", "Name x not found inside t [at 1:10]"),
        (
            "SELECT id FROM t WHERE s",
            "WHERE clause should return type BOOL, but returns type STRING [at 1:24]",
        ),
        (
            "SELECT s, COUNT(*) FROM t",
            "SELECT list expression references column s which is neither grouped nor aggregated [at 1:8]",
        ),
        (
            "SELECT COUNT(*) FROM t WHERE COUNT(*) > 1",
            "Aggregate function COUNT not allowed here [at 1:30]",
        ),
        (
            "SELECT SUM(COUNT(*)) FROM t",
            "Aggregate function COUNT not allowed here [at 1:12]",
        ),
        (
            "SELECT id FROM t ORDER BY 2",
            "ORDER BY column number 2 is out of range [at 1:27]",
        ),
        (
            "SELECT id FROM t LIMIT -1",
            "LIMIT expects a non-negative integer literal or parameter [at 1:24]",
        ),
        (
            "SELECT id = 'a' FROM t",
            "No common type for a comparison: INT64 and STRING [at 1:8]",
        ),
        (
            "SELECT d = 'yesterday' FROM t",
            "Invalid date: 'yesterday' [at 1:12]",
        ),
        (
            "SELECT * FROM t@{FORCE_INDEX=i}",
            "The table t does not have a secondary index called i [at 1:15]",
        ),
        (
            "SELECT 1 WHERE TRUE",
            "Query without FROM clause cannot have a WHERE clause [at 1:16]",
        ),
        (
            "SELECT id, (SELECT MAX(u.id) FROM t AS u WHERE u.s = t.s) FROM t GROUP BY id",
            "a correlated subquery over groups is not supported by Tessera yet [at 1:12]",
        ),
        (
            "SELECT NO_SUCH(1)",
            "Function not found, or not supported by Tessera yet: NO_SUCH [at 1:8]",
        ),
        (
            "SELECT 1 UNION ALL SELECT 'a'",
            "Column  in UNION ALL has incompatible types: INT64, STRING",
        ),
        (
            "SELECT * FROM SPANNER_SYS.QUERY_STATS_TOP_MINUTE",
            "SPANNER_SYS is not supported by Tessera yet [at 1:15]",
        ),
        (
            "SELECT PENDING_COMMIT_TIMESTAMP()",
            "PENDING_COMMIT_TIMESTAMP() can only be the whole value of a column in INSERT … VALUES or UPDATE … SET [at 1:8]",
        ),
    ] {
        assert_eq!(memory.plan(text).unwrap_err().to_string(), wanted, "{text}");
    }
}

#[test]
fn only_the_columns_in_use_are_read() {
    let memory = memory();
    let plan = memory
        .plan("SELECT s FROM t WHERE f > 1 ORDER BY d")
        .unwrap();
    let text = format!("{:?}", plan.root);
    assert!(text.contains("columns: [1, 2, 3]"), "{text}");
}
