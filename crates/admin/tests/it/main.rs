//! The port over a socket, with a source that answers from its hand.

use admin::{CommandError, Source, serve};
use async_trait::async_trait;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Default)]
struct Hand {
    is_ill: AtomicBool,
}

#[async_trait]
impl Source for Hand {
    fn status(&self) -> Value {
        json!({ "nodes": [{ "id": 1 }] })
    }

    fn health(&self) -> Result<String, String> {
        match self.is_ill.load(Ordering::SeqCst) {
            true => Err("no quorum".into()),
            false => Ok("ok".into()),
        }
    }

    async fn command(&self, name: &str, arguments: Value) -> Result<Value, CommandError> {
        match name {
            "echo" => Ok(arguments),
            "refuse" => Err(CommandError::Invalid("no such table".into())),
            _ => Err(CommandError::Unknown),
        }
    }
}

/// Sends one request on a connection of its own and returns all that comes back.
async fn ask(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn answers_operators() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut registry = Registry::default();
    let counter: Counter = Counter::default();
    counter.inc();
    registry.register("seen", "Things seen", counter);
    let hand = Arc::new(Hand::default());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(serve(
        listener,
        hand.clone(),
        Arc::new(registry),
        async move {
            let _ = stopped.await;
        },
    ));

    assert!(
        ask(address, &get("/health"))
            .await
            .starts_with("HTTP/1.1 200")
    );
    hand.is_ill.store(true, Ordering::SeqCst);
    let ill = ask(address, &get("/health")).await;
    assert!(
        ill.starts_with("HTTP/1.1 503") && ill.ends_with("no quorum\n"),
        "{ill}"
    );
    assert!(
        ask(address, &get("/metrics"))
            .await
            .contains("seen_total 1\n")
    );
    assert!(
        ask(address, &get("/api/status"))
            .await
            .contains(r#"{"nodes":[{"id":1}]}"#)
    );
    assert!(
        ask(address, &get("/"))
            .await
            .contains("<title>Tessera</title>")
    );
    assert!(
        ask(address, &get("/nowhere"))
            .await
            .starts_with("HTTP/1.1 404")
    );
    assert!(
        ask(address, &post("/health", ""))
            .await
            .starts_with("HTTP/1.1 405")
    );
    assert!(
        ask(address, &get("/api/command/echo"))
            .await
            .starts_with("HTTP/1.1 405")
    );
    assert!(
        ask(address, &post("/api/command/echo", "[1,2]"))
            .await
            .ends_with("[1,2]\n")
    );
    assert!(
        ask(address, &post("/api/command/echo", "[1,"))
            .await
            .starts_with("HTTP/1.1 400")
    );
    assert!(
        ask(address, &post("/api/command/refuse", ""))
            .await
            .contains("no such table")
    );
    assert!(
        ask(address, &post("/api/command/none", ""))
            .await
            .starts_with("HTTP/1.1 404")
    );
    assert!(
        ask(address, "\0\0\0\0 garbage\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 400")
    );
    assert!(
        ask(address, &get("/health"))
            .await
            .starts_with("HTTP/1.1 503"),
        "the server survives garbage"
    );

    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}
