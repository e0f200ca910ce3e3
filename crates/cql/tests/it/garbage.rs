//! Whatever a client sends, the door answers in its protocol or hangs up, and serves the next client.

use super::client::{Client, frame, query, serve, startup};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Numbers that repeat (a linear congruential generator, Knuth's constants).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

#[tokio::test]
async fn damaged_frames_hurt_nobody() {
    let address = serve().await;
    let mut numbers = Numbers(42);
    let whole = [
        startup(),
        query("SELECT * FROM system.local"),
        frame(9, b"\0\0\0\x08SELECT 1"),
        frame(10, b"\0\x02ab\0\x01\0"),
        frame(13, b"\0\0\x01\0\0\0\0\x03USE\0\0\0\x01\0"),
        frame(11, b"\0\x01\0\x0DSCHEMA_CHANGE"),
    ]
    .concat();
    for round in 0..400 {
        let mut bytes = if round % 2 == 0 {
            startup()
        } else {
            Vec::new()
        };
        let mut damaged = whole.clone();
        for _ in 0..=numbers.below(4) {
            let at = numbers.below(damaged.len());
            damaged[at] ^= 1 << numbers.below(8);
        }
        damaged.truncate(numbers.below(damaged.len()) + 1);
        if round % 3 == 0 {
            // v5, where segments follow the first frame.
            damaged[0] = 5;
        }
        bytes.extend_from_slice(&damaged);
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The door may have hung up on the first part already.
        let _ = stream.write_all(&bytes).await;
    }
    let mut client = Client::connect(address).await;
    assert_eq!(
        client.show("SELECT key FROM system.local").await,
        "key=local"
    );
}

#[tokio::test]
async fn words_in_any_order_get_an_answer() {
    let words = [
        "SELECT",
        "*",
        "k",
        "v",
        "FROM",
        "s.t",
        "WHERE",
        "=",
        "1",
        "'x'",
        "AND",
        "token(k)",
        ">",
        "(",
        ")",
        "IN",
        "(k,",
        "c)",
        "ORDER BY",
        "LIMIT",
        "INSERT INTO",
        "VALUES",
        "UPDATE",
        "SET",
        "DELETE",
        "IF",
        "EXISTS",
        "USING TTL",
        "null",
        "{}",
        "[1]",
        "+",
        "count(*)",
        "ALLOW FILTERING",
        "DISTINCT",
        "l",
        "m",
        "['a']",
        ",",
        "BEGIN BATCH",
        "APPLY BATCH",
        "now()",
        "CAST(v AS text)",
        "<",
        "l[0]",
        "PER PARTITION LIMIT",
        "?",
    ];
    let address = serve().await;
    let mut client = Client::connect(address).await;
    client
        .show("CREATE KEYSPACE s WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}")
        .await;
    client
        .show("CREATE TABLE s.t (k int, c text, v int, l list<int>, m map<text, int>, PRIMARY KEY (k, c))")
        .await;
    let mut numbers = Numbers(7);
    let starts = [
        "SELECT * FROM s.t WHERE k = 1",
        "SELECT * FROM s.t WHERE",
        "SELECT k, c FROM s.t",
        "UPDATE s.t SET v = 1 WHERE k = 1 AND c = 'x'",
        "UPDATE s.t SET l = l +",
        "INSERT INTO s.t (k, c, v) VALUES (1, 'x', 2)",
        "DELETE FROM s.t WHERE k = 1",
        "SELECT",
        "",
    ];
    let mut understood = 0;
    for _ in 0..4000 {
        let mut text = starts[numbers.below(starts.len())].to_owned();
        for _ in 0..numbers.below(7) {
            text.push(' ');
            text.push_str(words[numbers.below(words.len())]);
        }
        let shown = client.show(&text).await;
        assert_ne!(shown, "the connection ended", "{text}");
        assert!(!shown.starts_with("error 0000"), "{text}: {shown}");
        understood += u32::from(!shown.starts_with("error"));
    }
    assert!(understood > 50, "{understood}");
}
