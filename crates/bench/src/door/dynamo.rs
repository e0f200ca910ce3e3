//! DynamoDB's JSON over HTTP/1.1, one request under way on a connection, as the SDKs do.
//!
//! Requests carry a signature's form but not a valid one: a server that checks signatures needs to be told not
//! to.

use super::payload;
use crate::load::{Operation, Wire};
use bytes::{Buf, BytesMut};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HEADERS_BYTES_MAX: usize = 64 << 10;

#[derive(Clone)]
pub struct Settings {
    pub table: String,
    pub value_bytes: usize,
    pub is_consistent: bool,
}

pub struct Dynamo {
    settings: Settings,
    host: String,
}

pub async fn create(address: &str, settings: &Settings) -> io::Result<()> {
    let (mut stream, wire) = open(address, settings).await?;
    let table = &settings.table;
    let body = format!(
        r#"{{"TableName":"{table}","AttributeDefinitions":[{{"AttributeName":"id","AttributeType":"S"}}],"KeySchema":[{{"AttributeName":"id","KeyType":"HASH"}}],"BillingMode":"PAY_PER_REQUEST"}}"#
    );
    let answer = call(&mut stream, &wire, "CreateTable", &body).await?;
    if !answer.contains("TableDescription") && !answer.contains("ResourceInUseException") {
        return Err(io::Error::other(format!("the server says: {answer}")));
    }
    for _ in 0..200 {
        let body = format!(r#"{{"TableName":"{table}"}}"#);
        let answer = call(&mut stream, &wire, "DescribeTable", &body).await?;
        if answer.contains(r#""TableStatus":"ACTIVE""#) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(io::Error::other("the table does not become active"))
}

pub async fn connect(address: &str, settings: &Settings) -> io::Result<(TcpStream, Box<dyn Wire>)> {
    let (stream, wire) = open(address, settings).await?;
    Ok((stream, Box::new(wire)))
}

async fn open(address: &str, settings: &Settings) -> io::Result<(TcpStream, Dynamo)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok((
        stream,
        Dynamo {
            settings: settings.clone(),
            host: address.to_owned(),
        },
    ))
}

async fn call(
    stream: &mut TcpStream,
    wire: &Dynamo,
    target: &str,
    body: &str,
) -> io::Result<String> {
    let mut out = Vec::new();
    wire.put_request(target, body.as_bytes(), &mut out);
    stream.write_all(&out).await?;
    let mut input = BytesMut::new();
    loop {
        if let Some((_, length)) = whole_answer(&input)? {
            let text = String::from_utf8_lossy(&input[..length]).into_owned();
            return Ok(text);
        }
        if stream.read_buf(&mut input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The status and the length in bytes of the answer at the front of `input`, once it is all there.
fn whole_answer(input: &[u8]) -> io::Result<Option<(u16, usize)>> {
    let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else {
        return match input.len() > HEADERS_BYTES_MAX {
            true => Err(io::Error::other("the answer's headers are too long")),
            false => Ok(None),
        };
    };
    let head = std::str::from_utf8(&input[..end]).map_err(io::Error::other)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("the answer has no status"))?;
    let mut length = None;
    for line in head.split("\r\n") {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse::<usize>().ok();
        }
    }
    let length = length.ok_or_else(|| io::Error::other("the answer has no Content-Length"))?;
    let total = end + 4 + length;
    Ok((input.len() >= total).then_some((status, total)))
}

impl Dynamo {
    fn put_request(&self, target: &str, body: &[u8], out: &mut Vec<u8>) {
        let head = format!(
            "POST / HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-amz-json-1.0\r\n\
             X-Amz-Target: DynamoDB_20120810.{target}\r\nX-Amz-Date: 20260101T000000Z\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=bench/20260101/us-east-1/dynamodb/aws4_request, \
             SignedHeaders=host;x-amz-date;x-amz-target, Signature={:064x}\r\nContent-Length: {}\r\n\r\n",
            self.host,
            0,
            body.len()
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(body);
    }
}

impl Wire for Dynamo {
    fn in_flight_max(&self) -> usize {
        1
    }

    fn encode(&mut self, operation: Operation, _slot: usize, out: &mut Vec<u8>) {
        let table = &self.settings.table;
        match operation {
            Operation::Read(key) => {
                let is_consistent = self.settings.is_consistent;
                let body = format!(
                    r#"{{"TableName":"{table}","Key":{{"id":{{"S":"{key:016x}"}}}},"ConsistentRead":{is_consistent}}}"#
                );
                self.put_request("GetItem", body.as_bytes(), out);
            }
            Operation::Write(key) => {
                let value = payload(key, self.settings.value_bytes);
                let value = String::from_utf8_lossy(&value);
                let body = format!(
                    r#"{{"TableName":"{table}","Item":{{"id":{{"S":"{key:016x}"}},"n":{{"N":"{key}"}},"value":{{"S":"{value}"}}}}}}"#
                );
                self.put_request("PutItem", body.as_bytes(), out);
            }
        }
    }

    fn decode(&mut self, input: &mut BytesMut) -> io::Result<Option<(usize, bool)>> {
        let Some((status, length)) = whole_answer(input)? else {
            return Ok(None);
        };
        input.advance(length);
        Ok(Some((0, status == 200)))
    }
}
