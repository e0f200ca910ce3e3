//! Statements and what comes of them, as a client sees it.

use super::client::{Client, serve};

/// Runs each statement and compares its answer.
async fn check(client: &mut Client, story: &[(&str, &str)]) {
    for (statement, expected) in story {
        assert_eq!(client.show(statement).await, *expected, "{statement}");
    }
}

async fn client(consistency: &str) -> Client {
    let mut client = Client::connect(serve().await).await;
    let create = format!(
        "CREATE KEYSPACE s WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}} AND \
         consistency = '{consistency}'"
    );
    check(
        &mut client,
        &[
            (&create, "schema CREATED KEYSPACE s"),
            ("USE s", "keyspace s"),
        ],
    )
    .await;
    client
}

#[tokio::test]
async fn rows_and_their_order() {
    let mut client = client("eventual").await;
    check(
        &mut client,
        &[
            (
                "CREATE TABLE t (k int, a int, b text, st text static, v bigint, PRIMARY KEY (k, a, b)) WITH \
                 CLUSTERING ORDER BY (a DESC, b ASC)",
                "schema CREATED TABLE s",
            ),
            ("INSERT INTO t (k, a, b, v) VALUES (1, 1, 'x', 11)", "void"),
            ("INSERT INTO t (k, a, b, v) VALUES (1, 2, 'y', 22)", "void"),
            ("INSERT INTO t (k, a, b) VALUES (1, 2, 'x')", "void"),
            (
                "SELECT * FROM t",
                "k=1 a=2 b=x st=null v=null | k=1 a=2 b=y st=null v=22 | k=1 a=1 b=x st=null v=11",
            ),
            (
                "SELECT a, b FROM t WHERE k = 1 AND (a, b) > (1, 'w')",
                "a=2 b=x | a=2 b=y | a=1 b=x",
            ),
            ("SELECT b FROM t WHERE k = 1 AND a = 2 AND b > 'x'", "b=y"),
            (
                "SELECT a, b FROM t WHERE k = 1 ORDER BY a ASC, b DESC LIMIT 2",
                "a=1 b=x | a=2 b=y",
            ),
            ("UPDATE t SET st = 'both' WHERE k = 1", "void"),
            ("INSERT INTO t (k, st) VALUES (2, 'alone')", "void"),
            (
                "SELECT DISTINCT k, st FROM t WHERE k IN (1, 2)",
                "k=1 st=both | k=2 st=alone",
            ),
            ("SELECT k, a, st FROM t WHERE k = 2", "k=2 a=null st=alone"),
            ("SELECT k, a, st FROM t WHERE k = 2 AND a = 1", "no rows"),
            ("SELECT count(*), max(v) FROM t WHERE k = 1", "count=3 system.max(v)=22"),
            ("DELETE FROM t WHERE k = 1 AND a >= 2", "void"),
            ("SELECT a, v FROM t WHERE k = 1", "a=1 v=11"),
            ("DELETE FROM t WHERE k = 1", "void"),
            ("SELECT k FROM t", "k=2"),
            ("TRUNCATE t", "void"),
            ("SELECT k FROM t", "no rows"),
        ],
    )
    .await;
}

#[tokio::test]
async fn refusals_have_codes_and_reasons() {
    let mut client = client("eventual").await;
    check(
        &mut client,
        &[
            ("CREATE TABLE t (k int PRIMARY KEY, v int)", "schema CREATED TABLE s"),
            (
                "CREATE TABLE t (k int PRIMARY KEY)",
                "error 2400 Cannot add already existing table \"t\" to keyspace \"s\"",
            ),
            ("CREATE TABLE IF NOT EXISTS t (k int PRIMARY KEY)", "void"),
            ("SELECT x FROM t", "error 2200 Undefined column name x in table s.t"),
            ("SELECT FROM", "error 2000 line 1:7 no viable alternative at input 'FROM'"),
            ("DROP TABLE nothing", "error 2200 Table 's.nothing' doesn't exist"),
            ("DROP TABLE IF EXISTS nothing", "void"),
            (
                "DROP KEYSPACE system",
                "error 2100 system keyspace is not user-modifiable.",
            ),
            (
                "INSERT INTO t (k, v) VALUES (1, 'x')",
                "error 2200 Invalid STRING constant ('x') for \"v\" of type int",
            ),
            (
                "INSERT INTO t (k) VALUES (?)",
                "error 2200 Invalid amount of bind variables: there were 1 markers(?) in CQL but 0 bound variables",
            ),
            (
                "CREATE KEYSPACE x WITH replication = {'class': 'Nope'}",
                "error 2300 Unable to find replication strategy class 'Nope' for keyspace x: there are \
                 SimpleStrategy and NetworkTopologyStrategy",
            ),
            ("SELECT key FROM system.local", "key=local"),
        ],
    )
    .await;
}

#[tokio::test]
async fn conditions_on_a_strong_table() {
    let mut client = client("strong").await;
    check(
        &mut client,
        &[
            (
                "CREATE TABLE t (k int, c int, total int static, v int, PRIMARY KEY (k, c))",
                "schema CREATED TABLE s",
            ),
            ("INSERT INTO t (k, c, v) VALUES (1, 1, 5) IF NOT EXISTS", "[applied]=true"),
            (
                "INSERT INTO t (k, c, v) VALUES (1, 1, 6) IF NOT EXISTS",
                "[applied]=false k=1 c=1 total=null v=5",
            ),
            ("UPDATE t SET v = 6 WHERE k = 1 AND c = 1 IF v = 4", "[applied]=false v=5"),
            ("UPDATE t SET v = 6 WHERE k = 1 AND c = 1 IF v IN (4, 5)", "[applied]=true"),
            ("UPDATE t SET v = 6 WHERE k = 9 AND c = 1 IF EXISTS", "[applied]=false"),
            ("UPDATE t SET v = 7 WHERE k = 9 AND c = 1 IF v = null", "[applied]=true"),
            ("UPDATE t SET v = 8 WHERE k = 9 AND c = 1 IF v = null", "[applied]=false v=7"),
            ("UPDATE t SET total = 1 WHERE k = 1 IF total = null", "[applied]=true"),
            (
                "BEGIN BATCH UPDATE t SET total = 2 WHERE k = 1 IF total = 1; INSERT INTO t (k, c, v) VALUES \
                 (1, 2, 9); APPLY BATCH",
                "[applied]=true",
            ),
            ("SELECT c, total, v FROM t WHERE k = 1", "c=1 total=2 v=6 | c=2 total=2 v=9"),
            ("DELETE FROM t WHERE k = 1 AND c = 1 IF v = 0", "[applied]=false v=6"),
            ("DELETE FROM t WHERE k = 1 AND c = 1 IF EXISTS", "[applied]=true"),
            ("SELECT c FROM t WHERE k = 1", "c=2"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_frame_as_it_is_on_the_wire() {
    let mut client = client("eventual").await;
    let (opcode, body) = client
        .ask(&super::client::query(
            "SELECT key, rpc_port FROM system.local LIMIT 1",
        ))
        .await
        .unwrap();
    assert_eq!(opcode, 8);
    let mut expected = vec![
        0, 0, 0, 2, // rows
        0, 0, 0, 1, // global table
        0, 0, 0, 2, // columns
        0, 6, b's', b'y', b's', b't', b'e', b'm', 0, 5, b'l', b'o', b'c', b'a', b'l', //
        0, 3, b'k', b'e', b'y', 0, 13, //
        0, 8, b'r', b'p', b'c', b'_', b'p', b'o', b'r', b't', 0, 9, //
        0, 0, 0, 1, // one row
        0, 0, 0, 5, b'l', b'o', b'c', b'a', b'l', //
        0, 0, 0, 4,
    ];
    // The port is the test's own.
    expected.extend_from_slice(&body[body.len() - 4..]);
    assert_eq!(body, expected);
}

#[tokio::test]
async fn counters_count_in_any_keyspace() {
    let mut client = client("eventual").await;
    let mixed = "error 2200 Cannot mix counter and non counter columns in the same table";
    let set = "error 2200 Cannot set the value of counter column c (counters can only be \
               incremented/decremented, not set)";
    check(
        &mut client,
        &[
            (
                "CREATE TABLE n (k int, a int, c counter, d counter, st counter static, PRIMARY KEY (k, a))",
                "schema CREATED TABLE s",
            ),
            ("CREATE TABLE plain (k int PRIMARY KEY, v int)", "schema CREATED TABLE s"),
            ("CREATE TABLE m (k int PRIMARY KEY, c counter, v int)", mixed),
            ("UPDATE n SET c = c + 3, d = d - 1 WHERE k = 1 AND a = 1", "void"),
            ("UPDATE n SET c -= 5, st = st + 7 WHERE k = 1 AND a = 1", "void"),
            ("UPDATE n SET d += 9223372036854775807 WHERE k = 1 AND a = 2", "void"),
            ("UPDATE n SET d += 1 WHERE k = 1 AND a = 2", "void"),
            (
                "SELECT * FROM n",
                "k=1 a=1 st=7 c=-2 d=-1 | k=1 a=2 st=7 c=null d=-9223372036854775808",
            ),
            (
                "BEGIN COUNTER BATCH UPDATE n SET c = c + 1 WHERE k = 1 AND a = 1; \
                 UPDATE n SET c = c + 1 WHERE k = 1 AND a = 1; UPDATE n SET c = c + 1 WHERE k = 2 AND a = 1; \
                 APPLY BATCH",
                "void",
            ),
            ("DELETE d FROM n WHERE k = 1 AND a = 1", "void"),
            ("DELETE FROM n WHERE k = 1 AND a = 2", "void"),
            ("SELECT k, a, c, d FROM n WHERE k IN (1, 2)", "k=1 a=1 c=0 d=null | k=2 a=1 c=1 d=null"),
            ("UPDATE n SET c = 1 WHERE k = 1 AND a = 1", set),
            (
                "INSERT INTO n (k, a, c) VALUES (1, 1, 1)",
                "error 2200 INSERT statements are not allowed on counter tables, use UPDATE instead",
            ),
            (
                "UPDATE n USING TIMESTAMP 1 SET c = c + 1 WHERE k = 1 AND a = 1",
                "error 2200 Cannot provide custom timestamp for counter updates",
            ),
            (
                "UPDATE n USING TTL 1 SET c = c + 1 WHERE k = 1 AND a = 1",
                "error 2200 Cannot provide custom TTL for counter updates",
            ),
            (
                "UPDATE n SET c = c + 1 WHERE k = 1 AND a = 1 IF c = 1",
                "error 2200 Conditional updates are not supported on counter tables",
            ),
            (
                "BEGIN BATCH UPDATE n SET c = c + 1 WHERE k = 1 AND a = 1; APPLY BATCH",
                "error 2200 Cannot include a counter statement in a logged batch",
            ),
            (
                "BEGIN COUNTER BATCH UPDATE plain SET v = 1 WHERE k = 1; APPLY BATCH",
                "error 2200 Cannot include non-counter statement in a counter batch",
            ),
            (
                "ALTER TABLE plain ADD c counter",
                "error 2200 Cannot add column c of type counter: a table has counters beside its key, or none",
            ),
        ],
    )
    .await;
}
