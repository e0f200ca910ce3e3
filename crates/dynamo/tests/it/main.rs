//! The door over the reference database, on a real socket: a story in requests and answers, byte for byte, and
//! what becomes of clients that do not speak the protocol.

mod global;
mod hostile;
mod story;
mod transactions;

use api::reference::Reference;
use dynamo::{Credentials, Options};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A running door; dropping `stop` stops it.
struct Served {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

async fn serve(credentials: Credentials) -> Served {
    let database = Reference::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9042);
    serve_over(database, credentials).await
}

async fn serve_over(database: Arc<Reference>, credentials: Credentials) -> Served {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("an address");
    let options = Options {
        credentials,
        ..Options::default()
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(dynamo::serve(listener, database, options, async {
        let _ = stopped.await;
    }));
    Served {
        address,
        stop,
        task,
    }
}

/// An answer, taken apart.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

/// One connection, kept alive.
struct Client {
    stream: TcpStream,
}

impl Client {
    async fn connect(address: SocketAddr) -> Client {
        Client {
            stream: TcpStream::connect(address).await.expect("connects"),
        }
    }

    async fn send(&mut self, head: &str, body: &[u8]) -> Answer {
        let mut request = head.replace('\n', "\r\n").into_bytes();
        request.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
        request.extend_from_slice(body);
        self.stream.write_all(&request).await.expect("writes");
        self.answer().await
    }

    /// Sends an operation with a signature that nobody verifies.
    async fn call(&mut self, operation: &str, body: &str) -> Answer {
        let head = format!(
            "POST / HTTP/1.1\nhost: localhost\ncontent-type: application/x-amz-json-1.0\n\
             x-amz-target: DynamoDB_20120810.{operation}\nx-amz-date: 20300101T000000Z\n\
             authorization: AWS4-HMAC-SHA256 Credential=a, SignedHeaders=b, Signature=c\n"
        );
        let answer = self.send(&head, body.as_bytes()).await;
        let crc = answer.header("x-amz-crc32").expect("a checksum");
        assert_eq!(crc, crc32fast::hash(&answer.body).to_string());
        answer
    }

    async fn answer(&mut self) -> Answer {
        let mut received = Vec::new();
        let head_end = loop {
            if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            let mut chunk = [0; 4096];
            let count = self.stream.read(&mut chunk).await.expect("reads");
            assert!(count > 0, "closed without an answer: {received:?}");
            received.extend_from_slice(&chunk[..count]);
        };
        let head = String::from_utf8(received[..head_end].to_vec()).expect("text");
        let mut answer = Answer {
            status: head[9..12].parse().expect("a status"),
            head,
            body: received[head_end + 4..].to_vec(),
        };
        let length: usize = answer
            .header("content-length")
            .map_or(0, |length| length.parse().expect("a length"));
        while answer.body.len() < length {
            let mut chunk = [0; 4096];
            let count = self.stream.read(&mut chunk).await.expect("reads");
            assert!(count > 0, "closed inside a body");
            answer.body.extend_from_slice(&chunk[..count]);
        }
        answer
    }
}
