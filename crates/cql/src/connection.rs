//! One client's connection: a single task that reads frames, keeps their requests going at the same time, and
//! writes answers as they come, many in one write.
//!
//! Bounded on every side: requests under way, their bytes, and answers that wait to be written. At a bound the
//! connection stops reading, so the client feels it as TCP's own back-pressure.

use crate::error::Error;
use crate::execute::execute;
use crate::metrics::Operation;
use crate::protocol::compression::Compression;
use crate::protocol::frame::{self, BadFrame, Frame};
use crate::protocol::request::{self, Request};
use crate::protocol::response::{Event, Reply};
use crate::protocol::segment::{self, Packer};
use crate::protocol::{
    REQUEST_SIZE_BYTES_MAX, REQUEST_SIZE_BYTES_MAX_BEFORE_STARTUP, Version, flag,
};
use crate::server::Server;
use crate::system::CQL_VERSION;
use crate::trace::{traced, with_id};
use bytes::BytesMut;
use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use parking_lot::RwLock;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

/// Requests under way on one connection.
const REQUESTS_MAX: usize = 1024;
/// Of requests under way on one connection.
const REQUESTS_SIZE_BYTES_MAX: usize = 32 << 20;
/// Answers that wait to be written.
const ANSWERS_SIZE_BYTES_MAX: usize = 8 << 20;
const READ_SIZE_BYTES: usize = 64 << 10;
/// A client says STARTUP within this.
const STARTUP_PATIENCE: Duration = Duration::from_secs(30);

/// What a connection's requests share.
#[derive(Default)]
pub struct Connection {
    keyspace: RwLock<Option<String>>,
    pub client: Option<IpAddr>,
}

impl Connection {
    pub fn keyspace(&self) -> Option<String> {
        self.keyspace.read().clone()
    }

    pub fn set_keyspace(&self, keyspace: &str) {
        *self.keyspace.write() = Some(keyspace.to_owned());
    }
}

/// An answer, with the size of the request that it is to.
type Answer = (Vec<u8>, usize);
type Pending = FuturesUnordered<Pin<Box<dyn Future<Output = Answer> + Send>>>;

/// Which kinds of events were asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Registered {
    topology: bool,
    status: bool,
    schema: bool,
}

impl Registered {
    fn any(self) -> bool {
        self.topology || self.status || self.schema
    }

    fn wants(self, event: &Event) -> bool {
        match event {
            Event::Topology { .. } => self.topology,
            Event::Status { .. } => self.status,
            Event::Schema(_) => self.schema,
        }
    }
}

/// The protocol's side of a connection.
struct Wire {
    server: Arc<Server>,
    connection: Arc<Connection>,
    version: Option<Version>,
    compression: Compression,
    is_started: bool,
    /// v5, once it has started: what makes segments, and envelopes out of segments.
    packer: Option<Packer>,
    envelopes: BytesMut,
    input: BytesMut,
    output: Vec<u8>,
    written: usize,
    registered: Registered,
    in_flight_size_bytes: usize,
    /// Nothing more is read: what is there is answered, and then the connection ends.
    is_ending: bool,
}

pub async fn run(
    mut stream: TcpStream,
    server: Arc<Server>,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stream_client = stream.peer_addr().ok().map(|address| address.ip());
    let (mut reader, mut writer) = stream.split();
    let mut events = None;
    let mut pending = Pending::new();
    let mut wire = Wire::new(server, stream_client);
    let startup_deadline = tokio::time::sleep(STARTUP_PATIENCE);
    let stopping = async move {
        // Without a sender the door is gone: the same.
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    tokio::pin!(startup_deadline, stopping);
    loop {
        wire.take_requests(&mut pending);
        while let Some(Some(answer)) = pending.next().now_or_never() {
            wire.answer(answer);
            wire.take_requests(&mut pending);
        }
        wire.flush();
        let has_output = wire.has_output();
        if wire.is_ending && pending.is_empty() && !has_output {
            return Ok(());
        }
        let reads = !wire.is_ending && wire.has_room(pending.len());
        let (is_ending, is_started) = (wire.is_ending, wire.is_started);
        if wire.registered.any() && events.is_none() {
            events = Some(wire.server.events.subscribe());
        }
        let Wire {
            input,
            output,
            written,
            ..
        } = &mut wire;
        tokio::select! {
            biased;
            Some(answer) = pending.next(), if !pending.is_empty() => wire.answer(answer),
            result = writer.write(&output[*written..]), if has_output => wire.wrote(result?),
            event = next_event(&mut events) => wire.event(event),
            result = read(&mut reader, input), if reads => {
                if result? == 0 {
                    // A half-closed connection still gets its answers.
                    wire.is_ending = true;
                }
            }
            () = &mut stopping, if !is_ending => wire.is_ending = true,
            () = &mut startup_deadline, if !is_started => {
                return Ok(());
            }
        }
    }
}

/// Waiting for events costs a lock that all connections share: only those that asked for events do.
async fn next_event(
    events: &mut Option<broadcast::Receiver<Event>>,
) -> Result<Event, broadcast::error::RecvError> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}

async fn read(
    reader: &mut tokio::net::tcp::ReadHalf<'_>,
    input: &mut BytesMut,
) -> io::Result<usize> {
    input.reserve(READ_SIZE_BYTES);
    reader.read_buf(input).await
}

impl Wire {
    fn new(server: Arc<Server>, client: Option<IpAddr>) -> Wire {
        Wire {
            server,
            connection: Arc::new(Connection {
                client,
                ..Connection::default()
            }),
            version: None,
            compression: Compression::None,
            is_started: false,
            packer: None,
            envelopes: BytesMut::new(),
            input: BytesMut::new(),
            output: Vec::new(),
            written: 0,
            registered: Registered::default(),
            in_flight_size_bytes: 0,
            is_ending: false,
        }
    }

    fn has_room(&self, requests: usize) -> bool {
        requests < REQUESTS_MAX
            && self.in_flight_size_bytes < REQUESTS_SIZE_BYTES_MAX
            && self.output.len() - self.written < ANSWERS_SIZE_BYTES_MAX
    }

    fn has_output(&self) -> bool {
        self.written < self.output.len()
    }

    fn wrote(&mut self, count: usize) {
        self.written += count;
        if !self.has_output() {
            self.output.clear();
            self.written = 0;
        }
    }

    fn size_bytes_max(&self) -> usize {
        if self.is_started {
            REQUEST_SIZE_BYTES_MAX
        } else {
            REQUEST_SIZE_BYTES_MAX_BEFORE_STARTUP
        }
    }

    /// The next frame of what has been read.
    fn next_frame(&mut self) -> Result<Option<Frame>, BadFrame> {
        let size_bytes_max = self.size_bytes_max();
        if self.packer.is_none() {
            return frame::take(&mut self.input, self.compression, size_bytes_max);
        }
        loop {
            let taken = frame::take(&mut self.envelopes, Compression::None, size_bytes_max)?;
            if taken.is_some() {
                return Ok(taken);
            }
            match segment::take(&mut self.input, self.compression) {
                Ok(Some(segment)) => self.envelopes.extend_from_slice(&segment.payload),
                Ok(None) => return Ok(None),
                Err(error) => {
                    return Err(BadFrame {
                        error,
                        version: Version::V5,
                        stream: 0,
                        is_fatal: true,
                    });
                }
            }
        }
    }

    /// Begins the requests that have been read, as far as there is room.
    fn take_requests(&mut self, pending: &mut Pending) {
        while !self.is_ending && self.has_room(pending.len()) {
            match self.next_frame() {
                Ok(Some(frame)) => self.take_request(frame, pending),
                Ok(None) => return,
                Err(bad) => {
                    let reply = Reply {
                        version: bad.version,
                        stream: bad.stream,
                    };
                    self.send(reply.error(&bad.error));
                    self.is_ending |= bad.is_fatal;
                }
            }
        }
    }

    fn take_request(&mut self, frame: Frame, pending: &mut Pending) {
        let reply = Reply {
            version: frame.version,
            stream: frame.stream,
        };
        let result = self
            .check_version(frame.version)
            .and_then(|()| request::decode(&frame))
            .and_then(|request| self.begin(reply, request, &frame, pending));
        match result {
            Ok(None) => {}
            Ok(Some(answer)) => self.send(answer),
            Err(error) => self.send(reply.error(&error)),
        }
    }

    /// All frames of a connection have the version of the first.
    fn check_version(&mut self, version: Version) -> Result<(), Error> {
        let known = *self.version.get_or_insert(version);
        if known != version {
            return Err(Error::protocol(format!(
                "Invalid message version. Got {0}/v{0} but previous messages on this connection had version \
                 {1}/v{1}",
                version as u8, known as u8
            )));
        }
        Ok(())
    }

    /// Answers what is about the connection at once; everything else becomes pending.
    fn begin(
        &mut self,
        reply: Reply,
        request: Request,
        frame: &Frame,
        pending: &mut Pending,
    ) -> Result<Option<Vec<u8>>, Error> {
        match request {
            Request::Options => Ok(Some(reply.supported(&[
                ("CQL_VERSION", &[CQL_VERSION]),
                ("COMPRESSION", &["lz4", "snappy"]),
                ("PROTOCOL_VERSIONS", &["3/v3", "4/v4", "5/v5"]),
            ]))),
            Request::Startup(options) => self.startup(reply, &options).map(|()| None),
            _ if !self.is_started => Err(Error::protocol(
                "Unexpected message, expecting STARTUP or OPTIONS",
            )),
            Request::Register(kinds) => self.register(&kinds).map(|()| Some(reply.ready())),
            request => {
                self.start(reply, request, frame, pending)?;
                Ok(None)
            }
        }
    }

    fn startup(&mut self, reply: Reply, options: &[(String, String)]) -> Result<(), Error> {
        if self.is_started {
            return Err(Error::protocol(
                "Unexpected message STARTUP, the connection has started",
            ));
        }
        let option = |name: &str| {
            options
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.as_str())
        };
        if option("CQL_VERSION").is_none() {
            return Err(Error::protocol(
                "Missing value CQL_VERSION in STARTUP message",
            ));
        }
        let mut compression = Compression::None;
        if let Some(name) = option("COMPRESSION").filter(|name| !name.is_empty()) {
            compression = Compression::from_name(name)
                .ok_or_else(|| Error::protocol(format!("Unknown compression algorithm: {name}")))?;
        }
        let is_segmented = reply.version >= Version::V5;
        if is_segmented && compression == Compression::Snappy {
            return Err(Error::protocol(
                "Compression type snappy is not supported in protocol V5",
            ));
        }
        // READY still goes in the old framing.
        self.send(reply.ready());
        self.is_started = true;
        self.compression = compression;
        if is_segmented {
            self.packer = Some(Packer::new(compression));
        }
        Ok(())
    }

    fn register(&mut self, kinds: &[String]) -> Result<(), Error> {
        for kind in kinds {
            match kind.to_ascii_uppercase().as_str() {
                "TOPOLOGY_CHANGE" => self.registered.topology = true,
                "STATUS_CHANGE" => self.registered.status = true,
                "SCHEMA_CHANGE" => self.registered.schema = true,
                _ => {
                    return Err(Error::protocol(format!("Invalid value '{kind}' for Type")));
                }
            }
        }
        Ok(())
    }

    fn start(
        &mut self,
        reply: Reply,
        request: Request,
        frame: &Frame,
        pending: &mut Pending,
    ) -> Result<(), Error> {
        let size_bytes = frame.body.len();
        let is_traced = frame.flags & flag::TRACING != 0;
        let total = &self.server.options.metrics.in_flight_bytes;
        let before = total.inc_by(size_bytes as i64) as usize;
        if before + size_bytes > self.server.options.in_flight_size_bytes_max {
            total.dec_by(size_bytes as i64);
            return Err(Error::overloaded(
                "too many bytes of requests are under way on this node",
            ));
        }
        self.in_flight_size_bytes += size_bytes;
        let held = Held {
            server: self.server.clone(),
            size_bytes,
        };
        let connection = self.connection.clone();
        pending.push(Box::pin(async move {
            let server = &held.server;
            let operation = match request {
                Request::Execute { .. } => Operation::Execute,
                Request::Batch(_) => Operation::Batch,
                Request::Prepare { .. } => Operation::Prepare,
                _ => Operation::Query,
            };
            let started = Instant::now();
            let (trace, result) = if is_traced {
                // Boxed: it would make every request's future larger.
                let (id, result) = Box::pin(traced(server, &connection, reply, request)).await;
                (Some(id), result)
            } else {
                (None, execute(server, &connection, reply, request).await)
            };
            server
                .options
                .metrics
                .request(operation, &result, started.elapsed());
            if operation == Operation::Prepare {
                let count = server.prepared.len() as i64;
                server.options.metrics.prepared.set(count);
            }
            let answer = result.unwrap_or_else(|error| reply.error(&error));
            let answer = match &trace {
                Some(id) => with_id(answer, id),
                None => answer,
            };
            (answer, size_bytes)
        }));
        Ok(())
    }

    fn answer(&mut self, (answer, size_bytes): Answer) {
        self.in_flight_size_bytes -= size_bytes;
        self.send(answer);
    }

    /// Puts a finished frame into the output.
    fn send(&mut self, answer: Vec<u8>) {
        match &mut self.packer {
            Some(packer) => packer.add(&answer, &mut self.output),
            None => {
                let answer = frame::compress(answer, self.compression);
                self.output.extend_from_slice(&answer);
            }
        }
    }

    fn flush(&mut self) {
        if let Some(packer) = &mut self.packer {
            packer.flush(&mut self.output);
        }
    }

    fn event(&mut self, event: Result<Event, broadcast::error::RecvError>) {
        // One that is too slow misses events; drivers refresh what they know now and then.
        if let (Ok(event), Some(version)) = (event, self.version)
            && self.registered.wants(&event)
        {
            self.send(event.encode(version));
        }
    }
}

/// A request's share of the node's budget, given back also when the connection ends before the answer.
struct Held {
    server: Arc<Server>,
    size_bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        let total = &self.server.options.metrics.in_flight_bytes;
        total.dec_by(self.size_bytes as i64);
    }
}
