//! A small client that speaks v4 by hand and shows answers as text.

use api::reference::Reference;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Serves the door over the reference database, for as long as the runtime lives.
pub async fn serve() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let database = Reference::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port());
    let options = cql::Options::default();
    tokio::spawn(cql::serve(
        listener,
        database,
        options,
        std::future::pending(),
    ));
    address
}

pub fn frame(opcode: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![4, 0, 0, 1, opcode];
    frame.extend_from_slice(&(body.len() as u32).to_be_bytes());
    frame.extend_from_slice(body);
    frame
}

pub fn startup() -> Vec<u8> {
    let mut body = vec![0, 1];
    for text in ["CQL_VERSION", "3.0.0"] {
        body.extend_from_slice(&(text.len() as u16).to_be_bytes());
        body.extend_from_slice(text.as_bytes());
    }
    frame(1, &body)
}

pub fn query(text: &str) -> Vec<u8> {
    let mut body = (text.len() as u32).to_be_bytes().to_vec();
    body.extend_from_slice(text.as_bytes());
    body.extend_from_slice(&[0, 1, 0]);
    frame(7, &body)
}

pub struct Client {
    stream: TcpStream,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Client {
        let mut client = Client {
            stream: TcpStream::connect(address).await.unwrap(),
        };
        assert_eq!(client.ask(&startup()).await.unwrap().0, 2);
        client
    }

    /// The answer's opcode and body; `None` when the connection ends instead.
    pub async fn ask(&mut self, request: &[u8]) -> Option<(u8, Vec<u8>)> {
        self.stream.write_all(request).await.ok()?;
        let mut header = [0; 9];
        self.stream.read_exact(&mut header).await.ok()?;
        let length = u32::from_be_bytes([header[5], header[6], header[7], header[8]]) as usize;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.ok()?;
        Some((header[4], body))
    }

    /// Runs a statement and shows what came of it.
    pub async fn show(&mut self, text: &str) -> String {
        let Some((opcode, body)) = self.ask(&query(text)).await else {
            return "the connection ended".into();
        };
        let mut body = Body(&body);
        match opcode {
            0 => format!("error {:04x} {}", body.int(), body.string()),
            8 => match body.int() {
                1 => "void".into(),
                2 => body.rows(),
                3 => format!("keyspace {}", body.string()),
                5 => format!(
                    "schema {} {} {}",
                    body.string(),
                    body.string(),
                    body.string()
                ),
                other => format!("result {other}"),
            },
            other => format!("opcode {other}"),
        }
    }
}

struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    fn int(&mut self) -> i32 {
        i32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    fn short(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    fn string(&mut self) -> String {
        let length = usize::from(self.short());
        String::from_utf8(self.take(length).to_vec()).unwrap()
    }

    /// Skips a type and returns its number.
    fn kind(&mut self) -> u16 {
        let kind = self.short();
        match kind {
            0x00 => drop(self.string()),
            0x20 | 0x22 => drop(self.kind()),
            0x21 => {
                self.kind();
                self.kind();
            }
            0x31 => {
                for _ in 0..self.short() {
                    self.kind();
                }
            }
            _ => {}
        }
        kind
    }

    fn rows(&mut self) -> String {
        let flags = self.int();
        let count = self.int();
        if flags & 2 != 0 {
            let length = self.int();
            self.take(length as usize);
        }
        self.string();
        self.string();
        let columns: Vec<(String, u16)> =
            (0..count).map(|_| (self.string(), self.kind())).collect();
        let mut shown = String::new();
        for _ in 0..self.int() {
            if !shown.is_empty() {
                shown.push_str(" | ");
            }
            for (index, (name, kind)) in columns.iter().enumerate() {
                let separator = if index == 0 { "" } else { " " };
                let length = self.int();
                let value = match (length, kind) {
                    (length, _) if length < 0 => "null".into(),
                    (_, 0x0D | 0x01) => String::from_utf8_lossy(self.take(length as usize)).into(),
                    (8, 0x02 | 0x05) => {
                        i64::from_be_bytes(self.take(8).try_into().unwrap()).to_string()
                    }
                    (4, 0x09) => i32::from_be_bytes(self.take(4).try_into().unwrap()).to_string(),
                    (1, 0x04) => (self.take(1)[0] == 1).to_string(),
                    _ => self
                        .take(length as usize)
                        .iter()
                        .fold(String::new(), |mut hex, byte| {
                            let _ = write!(hex, "{byte:02x}");
                            hex
                        }),
                };
                let _ = write!(shown, "{separator}{name}={value}");
            }
        }
        if shown.is_empty() {
            "no rows".into()
        } else {
            shown
        }
    }
}
