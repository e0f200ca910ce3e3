//! Goldens of the grammar, and proof that no text makes it panic.

use super::ast::*;
use super::parse;
use proptest::prelude::*;

fn statement(text: &str) -> Statement {
    parse(text)
        .unwrap_or_else(|error| panic!("{text}: {}", error.message))
        .statement
}

fn error(text: &str) -> String {
    parse(text).expect_err(text).message
}

#[test]
fn statements_that_drivers_and_cqlsh_send() {
    for text in [
        "SELECT * FROM system.local WHERE key='local'",
        "SELECT peer, data_center, host_id, rack, release_version, rpc_address, schema_version, tokens \
         FROM system.peers",
        "SELECT * FROM system_schema.keyspaces",
        "CREATE KEYSPACE IF NOT EXISTS ks WITH replication = {'class': 'SimpleStrategy', \
         'replication_factor': '1'} AND durable_writes = true AND consistency = 'strong'",
        "create table ks.t (a int, b text, c frozen<list<frozen<map<int, text>>>>, s set<int> static, \
         primary key ((a, b), c)) with clustering order by (c desc) and comment = 'x' and \
         compaction = {'class': 'UnifiedCompactionStrategy'} and gc_grace_seconds = 60;",
        "ALTER TABLE t ADD x int, y map<text, frozen<set<inet>>>",
        "ALTER TABLE t ADD (x int, y text)",
        "ALTER TABLE t DROP x",
        "ALTER TABLE t RENAME a TO b AND c TO d",
        "ALTER TABLE t WITH default_time_to_live = 10",
        "DROP TABLE IF EXISTS ks.t",
        "TRUNCATE TABLE ks.t",
        "INSERT INTO t (a, b) VALUES (?, :named) IF NOT EXISTS USING TTL 10 AND TIMESTAMP 1",
        "UPDATE t USING TTL ? SET a = 1, l = l + [1], l = [0] + l, s -= {1}, m['k'] = 'v', l[2] = 3 \
         WHERE k = 1 AND (c, d) > (1, 2) IF v = 3 AND w IN (1, 2)",
        "DELETE a, m['x'] FROM t USING TIMESTAMP 5 WHERE k IN (1, 2) AND c >= 1 IF EXISTS",
        "BEGIN UNLOGGED BATCH USING TIMESTAMP 1; INSERT INTO t (a) VALUES (1); DELETE FROM t WHERE a = 2; \
         APPLY BATCH;",
        "SELECT DISTINCT k, s FROM t WHERE token(k) > ? AND token(k) <= ? PER PARTITION LIMIT 2 LIMIT 10 \
         ALLOW FILTERING",
        "SELECT count(*) AS n, writetime(v), ttl(v), CAST(a AS text), m['k'], u.f, toJson(v) FROM t",
        "SELECT json, distinct, key, ttl, type FROM t",
        "SELECT \"Quoted\"\"Name\" FROM \"Ks\".\"T\"",
        "INSERT INTO t (a) VALUES (-1.5e-3) -- comment",
        "/* c */ INSERT INTO t (a, b, c, d, e, f) VALUES (0xCAFE, 1h30m, NaN, -Infinity, $$it's$$, \
         123e4567-e89b-12d3-a456-426614174000) // x",
        "INSERT INTO t (a) VALUES ({1: {2}, 3: {}}) ",
        "INSERT INTO t (a) VALUES ({street: 'x', number: 3})",
        "INSERT INTO t (a) VALUES ((text)'x')",
        "DESCRIBE KEYSPACES",
        "DESC FULL SCHEMA",
        "DESCRIBE TABLE ks.t WITH INTERNALS",
        "USE \"Ks\"",
    ] {
        statement(text);
    }
}

#[test]
fn the_shape_of_a_select() {
    let Statement::Select(select) = statement(
        "SELECT a, b AS c FROM ks.t WHERE k = ? AND c BETWEEN 1 AND 2 ORDER BY c DESC LIMIT :n",
    ) else {
        panic!()
    };
    assert_eq!(select.selectors.len(), 2);
    assert_eq!(select.relations.len(), 3);
    assert_eq!(select.relations[1].operator, Operator::GreaterOrEqual);
    assert_eq!(select.order_by, [("c".to_owned(), true)]);
    assert_eq!(select.limit, Some(Term::Marker(1)));
}

#[test]
fn errors_say_the_place() {
    assert_eq!(
        error("SELEC * FROM t"),
        "line 1:0 no viable alternative at input 'SELEC'"
    );
    assert_eq!(
        error("SELECT *\nFROM t WHERE"),
        "line 2:12 no viable alternative at input '<EOF>'"
    );
    assert_eq!(
        error("USE ks x"),
        "line 1:7 mismatched input 'x' expecting EOF"
    );
    assert!(error("INSERT INTO t (a) VALUES ('x").contains("unterminated string literal"));
    let deep = format!("INSERT INTO t (a) VALUES ({}1", "[".repeat(100_000));
    assert!(error(&deep).contains("nested at most 32"));
    let deep = format!("CREATE TABLE t (a {}", "frozen<".repeat(100_000));
    assert!(error(&deep).contains("nested at most 32"));
    let deep = format!("SELECT {} FROM t", "f(".repeat(100_000));
    assert!(error(&deep).contains("nested at most 32"));
}

#[test]
fn durations() {
    for (text, months, days, nanos) in [
        ("1y2mo3w4d5h6m7s8ms9us10ns", 14, 25, 18_367_008_009_010),
        ("P1Y2M3DT4H5M6S", 14, 3, 14_706_000_000_000),
        ("P4W", 0, 28, 0),
        ("P0001-02-03T04:05:06", 14, 3, 14_706_000_000_000),
        ("-2d", 0, -2, 0),
    ] {
        let Statement::Insert(insert) = statement(&format!("INSERT INTO t (a) VALUES ({text})"))
        else {
            panic!()
        };
        let expected = Term::Constant(Constant::Duration {
            months,
            days,
            nanos,
        });
        assert_eq!(insert.values[0], expected, "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    #[test]
    fn no_text_panics(words in prop::collection::vec(prop::sample::select(vec![
        "SELECT", "*", "FROM", "t", "WHERE", "a", "=", "?", "(", ")", "[", "]", "{", "}", ",", ":", "1", "1.",
        "'x'", "\"q", "--", "/*", "µ", "1µs", "P1", "0x", "token", "IN", "INSERT", "INTO", "VALUES", "UPDATE",
        "SET", "BATCH", "BEGIN", "APPLY", ";", "CREATE", "TABLE", "<", ">", ".", "-", "+", "PRIMARY", "KEY",
        "frozen", "count", "AS", "$$", "é", "DESCRIBE", "9h9", "PT", "AND", "IF", "not", "exists",
    ]), 0..24), separator in prop::sample::select(vec![" ", ""])) {
        let _ = parse(&words.join(separator));
    }

    #[test]
    fn no_bytes_panic(text in "\\PC{0,60}") {
        let _ = parse(&text);
    }
}
