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

#[tokio::test]
async fn transactions_over_partitions() {
    let mut client = client("strong").await;
    let transfer = |amount: i32| {
        format!(
            "BEGIN TRANSACTION \
               LET source = (SELECT balance, owner FROM accounts WHERE id = 1); \
               LET target = (SELECT * FROM accounts WHERE id = 2 LIMIT 1); \
               SELECT source.balance, target.owner; \
               IF source.balance >= {amount} AND target IS NOT NULL THEN \
                 UPDATE accounts SET balance -= {amount} WHERE id = 1; \
                 UPDATE accounts SET balance = balance + {amount} WHERE id = 2; \
                 INSERT INTO log (id, what) VALUES (1, source.owner); \
               END IF \
             COMMIT TRANSACTION"
        )
    };
    check(
        &mut client,
        &[
            ("CREATE TABLE accounts (id int PRIMARY KEY, balance int, owner text)", "schema CREATED TABLE s"),
            ("CREATE TABLE log (id int PRIMARY KEY, what text, m map<text, int>)", "schema CREATED TABLE s"),
            ("INSERT INTO accounts (id, balance, owner) VALUES (1, 10, 'ada')", "void"),
            (&transfer(5), "source.balance=10 target.owner=null"),
            ("SELECT * FROM log", "no rows"),
            ("INSERT INTO accounts (id, balance, owner) VALUES (2, 0, 'bob')", "void"),
            (&transfer(7), "source.balance=10 target.owner=bob"),
            ("SELECT id, balance FROM accounts WHERE id IN (1, 2)", "id=1 balance=3 | id=2 balance=7"),
            ("SELECT what FROM log", "what=ada"),
            (&transfer(7), "source.balance=3 target.owner=bob"),
            ("SELECT id, balance FROM accounts WHERE id IN (1, 2)", "id=1 balance=3 | id=2 balance=7"),
            (
                "BEGIN TRANSACTION SELECT owner FROM accounts WHERE id = 2; \
                 UPDATE accounts SET balance += 1 WHERE id = 2; UPDATE accounts SET balance += 1 WHERE id = 2; \
                 DELETE FROM log WHERE id = 1; COMMIT TRANSACTION",
                "owner=bob",
            ),
            ("SELECT balance FROM accounts WHERE id = 2", "balance=9"),
            ("SELECT * FROM log", "no rows"),
            (
                "BEGIN TRANSACTION LET a = (SELECT * FROM log WHERE id = 9); \
                 IF a IS NULL AND a.what IS NULL THEN INSERT INTO log (id, what) VALUES (9, 'new'); END IF \
                 COMMIT TRANSACTION;",
                "void",
            ),
            ("SELECT id, what FROM log", "id=9 what=new"),
        ],
    )
    .await;
    let refused = [
        (
            "LET a = (SELECT * FROM accounts); SELECT a.id;",
            "2200 SELECT in LET assignment a without the whole primary key must specify the partition key and LIMIT 1",
        ),
        (
            "LET a = (SELECT * FROM accounts WHERE id = 1); SELECT a.nothing;",
            "2200 Cannot resolve reference to a.nothing",
        ),
        (
            "LET a = (SELECT * FROM accounts WHERE id = 1); IF b IS NULL THEN DELETE FROM log WHERE id = 1; END IF",
            "2200 Cannot resolve reference to row b",
        ),
        (
            "LET a = (SELECT * FROM accounts WHERE id = 1); UPDATE log SET what = a.balance WHERE id = 1;",
            "2200 Cannot assign a.balance of type int to what of type text",
        ),
        (
            "UPDATE log SET what = 'x' WHERE id = 1 IF EXISTS;",
            "2200 Updates within transactions may not specify their own conditions",
        ),
        (
            "UPDATE log USING TIMESTAMP 1 SET what = 'x' WHERE id = 1;",
            "2200 Updates within transactions may not specify custom timestamps",
        ),
        (
            "",
            "2200 Transaction contains no reads or writes: it needs a SELECT or a modification",
        ),
    ];
    for (body, error) in refused {
        let statement = format!("BEGIN TRANSACTION {body} COMMIT TRANSACTION");
        check(&mut client, &[(&statement, &format!("error {error}"))]).await;
    }
    let eventual =
        "CREATE KEYSPACE e WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}";
    check(
        &mut client,
        &[
            (eventual, "schema CREATED KEYSPACE e"),
            ("CREATE TABLE e.t (k int PRIMARY KEY, v int)", "schema CREATED TABLE e"),
            (
                "BEGIN TRANSACTION UPDATE e.t SET v = 1 WHERE k = 1; COMMIT TRANSACTION",
                "error 2200 Transactions take tables of keyspaces WITH consistency = 'strong': e.t is eventual",
            ),
            // Outside of transactions there are no references, and no sums of plain numbers.
            (
                "UPDATE accounts SET balance = balance + 1 WHERE id = 1",
                "error 2200 Invalid operation (balance = balance + …) for non collection int column balance",
            ),
        ],
    )
    .await;
}
