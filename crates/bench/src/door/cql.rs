//! CQL native protocol v4, prepared statements, many requests under way on a connection.

use super::payload;
use crate::load::{Operation, Wire};
use bytes::{Buf, BytesMut};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

const VERSION: u8 = 4;
const HEADER_BYTES: usize = 9;
const FRAME_BYTES_MAX: usize = 64 << 20;
const STARTUP: u8 = 0x01;
const ERROR: u8 = 0x00;
const QUERY: u8 = 0x07;
const RESULT: u8 = 0x08;
const PREPARE: u8 = 0x09;
const EXECUTE: u8 = 0x0A;
const RESULT_PREPARED: i32 = 4;

#[derive(Clone)]
pub struct Settings {
    pub keyspace: String,
    /// `WITH replication = …` and what follows.
    pub keyspace_options: String,
    /// Protocol code: 1 is ONE, 4 is QUORUM.
    pub consistency: u16,
    pub in_flight: usize,
    pub value_bytes: usize,
}

const CONNECT_ATTEMPTS_MAX: u32 = 20;
const CONNECT_PAUSE: Duration = Duration::from_millis(500);

pub struct Cql {
    settings: Settings,
    read_id: Vec<u8>,
    write_id: Vec<u8>,
}

/// Creates the keyspace and the table that `connect` prepares for.
pub async fn create(address: &str, settings: &Settings) -> io::Result<()> {
    let mut stream = open(address).await?;
    let Settings {
        keyspace,
        keyspace_options,
        ..
    } = settings;
    query(
        &mut stream,
        &format!("CREATE KEYSPACE IF NOT EXISTS {keyspace} {keyspace_options}"),
    )
    .await?;
    let table =
        format!("CREATE TABLE IF NOT EXISTS {keyspace}.load (id bigint PRIMARY KEY, value blob)");
    query(&mut stream, &table).await
}

/// Other servers' nodes hear of the table one after the other, and may hang up on who asks too early: that is tried again.
pub async fn connect(address: &str, settings: &Settings) -> io::Result<(TcpStream, Box<dyn Wire>)> {
    let mut attempts = 0;
    loop {
        match connect_once(address, settings).await {
            Err(_) if attempts < CONNECT_ATTEMPTS_MAX => {
                attempts += 1;
                sleep(CONNECT_PAUSE).await;
            }
            connected => return connected,
        }
    }
}

async fn connect_once(
    address: &str,
    settings: &Settings,
) -> io::Result<(TcpStream, Box<dyn Wire>)> {
    let mut stream = open(address).await?;
    let keyspace = &settings.keyspace;
    let read = format!("SELECT value FROM {keyspace}.load WHERE id = ?");
    let write = format!("INSERT INTO {keyspace}.load (id, value) VALUES (?, ?)");
    let read_id = prepare(&mut stream, &read).await?;
    let write_id = prepare(&mut stream, &write).await?;
    Ok((
        stream,
        Box::new(Cql {
            settings: settings.clone(),
            read_id,
            write_id,
        }),
    ))
}

async fn open(address: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut body = vec![0, 1];
    put_string(&mut body, "CQL_VERSION");
    put_string(&mut body, "3.0.0");
    call(&mut stream, STARTUP, &body).await?;
    Ok(stream)
}

async fn query(stream: &mut TcpStream, text: &str) -> io::Result<()> {
    let mut body = Vec::new();
    put_long_string(&mut body, text);
    body.extend([0, 1, 0]);
    call(stream, QUERY, &body).await.map(drop)
}

async fn prepare(stream: &mut TcpStream, text: &str) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    put_long_string(&mut body, text);
    let (opcode, mut answer) = call(stream, PREPARE, &body).await?;
    if opcode != RESULT || answer.len() < 6 || answer.get_i32() != RESULT_PREPARED {
        return Err(io::Error::other(
            "PREPARE was not answered with a prepared statement",
        ));
    }
    let length = usize::from(answer.get_u16());
    if answer.len() < length {
        return Err(io::Error::other("a prepared statement's id is cut short"));
    }
    Ok(answer.split_to(length).to_vec())
}

/// One request, one answer, on a connection with nothing else under way.
async fn call(stream: &mut TcpStream, opcode: u8, body: &[u8]) -> io::Result<(u8, BytesMut)> {
    let mut frame = Vec::with_capacity(HEADER_BYTES + body.len());
    put_header(&mut frame, 0, opcode, body.len());
    frame.extend_from_slice(body);
    stream.write_all(&frame).await?;
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await?;
    let length = u32::from_be_bytes([header[5], header[6], header[7], header[8]]) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::other("the answer is too long"));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    if header[4] == ERROR {
        return Err(io::Error::other(format!(
            "the server says: {}",
            error_text(&answer)
        )));
    }
    Ok((header[4], BytesMut::from(answer.as_slice())))
}

fn error_text(body: &[u8]) -> String {
    let text = body.get(6..).unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

fn put_header(out: &mut Vec<u8>, slot: usize, opcode: u8, length: usize) {
    out.extend([VERSION, 0]);
    out.extend((slot as i16).to_be_bytes());
    out.push(opcode);
    out.extend((length as u32).to_be_bytes());
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_long_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u32).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

impl Wire for Cql {
    fn in_flight_max(&self) -> usize {
        self.settings.in_flight
    }

    fn encode(&mut self, operation: Operation, slot: usize, out: &mut Vec<u8>) {
        let begin = out.len();
        put_header(out, slot, EXECUTE, 0);
        let (id, key) = match operation {
            Operation::Read(key) => (&self.read_id, key),
            Operation::Write(key) => (&self.write_id, key),
        };
        out.extend((id.len() as u16).to_be_bytes());
        out.extend_from_slice(id);
        out.extend(self.settings.consistency.to_be_bytes());
        // Flags: values, and no metadata in the answer.
        out.push(0x03);
        out.extend(match operation {
            Operation::Read(_) => [0, 1],
            Operation::Write(_) => [0, 2],
        });
        out.extend(8_u32.to_be_bytes());
        out.extend(key.to_be_bytes());
        if let Operation::Write(_) = operation {
            let value = payload(key, self.settings.value_bytes);
            out.extend((value.len() as u32).to_be_bytes());
            out.extend_from_slice(&value);
        }
        let length = (out.len() - begin - HEADER_BYTES) as u32;
        out[begin + 5..begin + 9].copy_from_slice(&length.to_be_bytes());
    }

    fn decode(&mut self, input: &mut BytesMut) -> io::Result<Option<(usize, bool)>> {
        if input.len() < HEADER_BYTES {
            return Ok(None);
        }
        let length = u32::from_be_bytes([input[5], input[6], input[7], input[8]]) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(io::Error::other("the answer is too long"));
        }
        if input.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        let slot = usize::from(u16::from_be_bytes([input[2], input[3]]));
        let is_success = input[4] == RESULT;
        input.advance(HEADER_BYTES + length);
        Ok(Some((slot, is_success)))
    }
}
