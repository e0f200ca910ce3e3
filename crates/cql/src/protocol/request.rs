//! Requests: the bodies of what clients send (section 4.1).

use super::frame::Frame;
use super::wire::Reader;
use super::{Opcode, VALUES_MAX, Version, flag, level_from_code};
use crate::error::Error;
use api::Level;
use bytes::Bytes;

#[derive(Debug)]
pub enum Request {
    Startup(Vec<(String, String)>),
    Options,
    Query {
        text: String,
        parameters: Parameters,
    },
    Prepare {
        text: String,
        keyspace: Option<String>,
    },
    Execute {
        id: Bytes,
        result_metadata_id: Option<Bytes>,
        parameters: Parameters,
    },
    Batch(Batch),
    Register(Vec<String>),
}

#[derive(Debug)]
pub struct Batch {
    pub kind: BatchKind,
    pub statements: Vec<BatchStatement>,
    pub parameters: Parameters,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchKind {
    Logged,
    Unlogged,
    Counter,
}

#[derive(Debug)]
pub struct BatchStatement {
    pub source: StatementSource,
    pub values: Values,
}

#[derive(Debug)]
pub enum StatementSource {
    Text(String),
    Prepared(Bytes),
}

/// What accompanies QUERY, EXECUTE and BATCH.
#[derive(Clone, Debug)]
pub struct Parameters {
    pub level: Level,
    pub serial_level: Option<Level>,
    pub values: Values,
    pub skip_metadata: bool,
    /// Rows; `None` for all.
    pub page_size: Option<u32>,
    pub paging_state: Option<Bytes>,
    pub timestamp: Option<i64>,
    pub keyspace: Option<String>,
    pub now_seconds: Option<i32>,
}

impl Default for Parameters {
    fn default() -> Parameters {
        Parameters {
            level: Level::One,
            serial_level: None,
            values: Values::default(),
            skip_metadata: false,
            page_size: None,
            paging_state: None,
            timestamp: None,
            keyspace: None,
            now_seconds: None,
        }
    }
}

/// Bound values, still in the body that they came in.
#[derive(Clone, Debug, Default)]
pub struct Values {
    body: Bytes,
    spans: Vec<Span>,
    /// As many as there are values, or none.
    names: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    /// -1 is null, -2 is unset.
    length: i32,
}

/// One bound value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoundValue<'a> {
    Null,
    Unset,
    Bytes(&'a [u8]),
}

impl Values {
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    pub fn get(&self, index: usize) -> Option<BoundValue<'_>> {
        let span = self.spans.get(index)?;
        Some(match span.length {
            -1 => BoundValue::Null,
            -2 => BoundValue::Unset,
            length => {
                let start = span.start as usize;
                BoundValue::Bytes(&self.body[start..start + length as usize])
            }
        })
    }

    pub fn is_named(&self) -> bool {
        !self.names.is_empty()
    }

    /// The first `count` of these values, and further ones behind them; `None` is null.
    pub fn followed_by(&self, count: usize, more: &[Option<Vec<u8>>]) -> Result<Values, Error> {
        let too_large = || Error::invalid("the values are too large");
        let mut body = self.body.to_vec();
        let mut spans: Vec<Span> = self.spans.iter().take(count).copied().collect();
        for value in more {
            let start = u32::try_from(body.len()).map_err(|_| too_large())?;
            let length = match value {
                Some(value) => i32::try_from(value.len()).map_err(|_| too_large())?,
                None => -1,
            };
            body.extend_from_slice(value.as_deref().unwrap_or_default());
            spans.push(Span { start, length });
        }
        Ok(Values {
            body: body.into(),
            spans,
            names: Vec::new(),
        })
    }

    /// Writes a value as a cell of a row; what is not there is null.
    pub fn put(&self, index: usize, out: &mut Vec<u8>) {
        match self.get(index) {
            Some(BoundValue::Bytes(bytes)) => {
                out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
                out.extend_from_slice(bytes);
            }
            _ => out.extend_from_slice(&(-1i32).to_be_bytes()),
        }
    }

    /// The position of a named value.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    /// The values in the order of a statement's markers, found by their names.
    pub fn arranged(&self, names: &[String]) -> Result<Values, Error> {
        let spans = names
            .iter()
            .map(|name| {
                self.position(name)
                    .and_then(|position| self.spans.get(position))
                    .copied()
                    .ok_or_else(|| {
                        Error::invalid(format!(
                            "Missing value for bind marker :{name} of the statement"
                        ))
                    })
            })
            .collect::<Result<_, _>>()?;
        Ok(Values {
            body: self.body.clone(),
            spans,
            names: Vec::new(),
        })
    }

    /// Values that did not come in a frame, for tests.
    pub fn from_parts(parts: &[Option<&[u8]>]) -> Values {
        let mut body = Vec::new();
        let mut spans = Vec::new();
        for part in parts {
            let start = body.len() as u32;
            let length = part.map_or(-1, |part| part.len() as i32);
            body.extend_from_slice(part.unwrap_or_default());
            spans.push(Span { start, length });
        }
        Values {
            body: body.into(),
            spans,
            names: Vec::new(),
        }
    }
}

/// Decodes a frame's body.
pub fn decode(frame: &Frame) -> Result<Request, Error> {
    let mut reader = Reader::new(&frame.body);
    let version = frame.version;
    if frame.flags & flag::CUSTOM_PAYLOAD != 0 && version >= Version::V4 {
        reader.skip_bytes_map()?;
    }
    let request = match frame.opcode {
        Opcode::Startup => {
            let options = reader.string_map()?;
            let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
            Request::Startup(options.into_iter().map(owned).collect())
        }
        Opcode::Options => Request::Options,
        Opcode::Query => Request::Query {
            text: reader.long_string()?.to_owned(),
            parameters: parameters(&mut reader, version, &frame.body)?,
        },
        Opcode::Prepare => prepare(&mut reader, version)?,
        Opcode::Execute => {
            let id = frame.body.slice_ref(reader.short_bytes()?);
            let result_metadata_id = if version >= Version::V5 {
                Some(frame.body.slice_ref(reader.short_bytes()?))
            } else {
                None
            };
            Request::Execute {
                id,
                result_metadata_id,
                parameters: parameters(&mut reader, version, &frame.body)?,
            }
        }
        Opcode::Batch => Request::Batch(batch(&mut reader, version, &frame.body)?),
        Opcode::Register => {
            let names = reader.string_list()?;
            Request::Register(names.into_iter().map(str::to_owned).collect())
        }
        Opcode::AuthResponse => {
            return Err(Error::protocol(
                "Unexpected AUTH_RESPONSE: this server asked for no authentication",
            ));
        }
        other => {
            return Err(Error::protocol(format!(
                "Wrong protocol direction: {other:?} is not a request"
            )));
        }
    };
    Ok(request)
}

fn prepare(reader: &mut Reader<'_>, version: Version) -> Result<Request, Error> {
    let text = reader.long_string()?.to_owned();
    let mut keyspace = None;
    if version >= Version::V5 {
        let flags = reader.int()?;
        if flags & 0x01 != 0 {
            keyspace = Some(reader.string()?.to_owned());
        }
    }
    Ok(Request::Prepare { text, keyspace })
}

/// The flags of query parameters (section 4.1.4); a batch has some of them.
mod query_flag {
    pub const VALUES: u32 = 0x01;
    pub const SKIP_METADATA: u32 = 0x02;
    pub const PAGE_SIZE: u32 = 0x04;
    pub const PAGING_STATE: u32 = 0x08;
    pub const SERIAL_CONSISTENCY: u32 = 0x10;
    pub const DEFAULT_TIMESTAMP: u32 = 0x20;
    pub const NAMES: u32 = 0x40;
    pub const KEYSPACE: u32 = 0x80;
    pub const NOW_IN_SECONDS: u32 = 0x100;
}

fn level(reader: &mut Reader<'_>) -> Result<Level, Error> {
    let code = reader.short()?;
    level_from_code(code)
        .ok_or_else(|| Error::protocol(format!("Unknown code {code} for a consistency level")))
}

fn flags(reader: &mut Reader<'_>, version: Version) -> Result<u32, Error> {
    if version >= Version::V5 {
        Ok(reader.int()? as u32)
    } else {
        Ok(u32::from(reader.byte()?))
    }
}

fn parameters(
    reader: &mut Reader<'_>,
    version: Version,
    body: &Bytes,
) -> Result<Parameters, Error> {
    let mut parameters = Parameters {
        level: level(reader)?,
        ..Parameters::default()
    };
    let flags = flags(reader, version)?;
    if flags & query_flag::VALUES != 0 {
        parameters.values = values(reader, version, flags & query_flag::NAMES != 0, body)?;
    }
    parameters.skip_metadata = flags & query_flag::SKIP_METADATA != 0;
    if flags & query_flag::PAGE_SIZE != 0 {
        // Zero and negative sizes mean no paging, as in Cassandra.
        parameters.page_size = u32::try_from(reader.int()?).ok().filter(|size| *size > 0);
    }
    if flags & query_flag::PAGING_STATE != 0 {
        parameters.paging_state = reader.bytes()?.map(|state| body.slice_ref(state));
    }
    tail(reader, version, flags, &mut parameters)?;
    Ok(parameters)
}

/// What the parameters of queries and batches both end with.
fn tail(
    reader: &mut Reader<'_>,
    version: Version,
    flags: u32,
    parameters: &mut Parameters,
) -> Result<(), Error> {
    if flags & query_flag::SERIAL_CONSISTENCY != 0 {
        let serial = level(reader)?;
        if !matches!(serial, Level::Serial | Level::LocalSerial) {
            return Err(Error::invalid(
                "Invalid consistency level for conditional update. Must be one of SERIAL or LOCAL_SERIAL",
            ));
        }
        parameters.serial_level = Some(serial);
    }
    if flags & query_flag::DEFAULT_TIMESTAMP != 0 {
        let timestamp = reader.long()?;
        if timestamp == i64::MIN {
            return Err(Error::protocol(format!(
                "Out of bound timestamp, must be in [{}, {}] (got {timestamp})",
                i64::MIN + 1,
                i64::MAX
            )));
        }
        parameters.timestamp = Some(timestamp);
    }
    if version >= Version::V5 {
        if flags & query_flag::KEYSPACE != 0 {
            parameters.keyspace = Some(reader.string()?.to_owned());
        }
        if flags & query_flag::NOW_IN_SECONDS != 0 {
            parameters.now_seconds = Some(reader.int()?);
        }
    }
    Ok(())
}

fn values(
    reader: &mut Reader<'_>,
    version: Version,
    has_names: bool,
    body: &Bytes,
) -> Result<Values, Error> {
    let count = usize::from(reader.short()?);
    // A value takes at least 4 bytes: an absurd count allocates nothing.
    let mut spans = Vec::with_capacity(count.min(reader.remaining() / 4));
    let mut names = Vec::new();
    if count > VALUES_MAX {
        return Err(Error::protocol("too many bound values"));
    }
    for _ in 0..count {
        if has_names {
            names.push(reader.string()?.to_owned());
        }
        let length = reader.int()?;
        let start = reader.position() as u32;
        if length >= 0 {
            reader.take(length as usize)?;
        } else if length < -2 || (length == -2 && version < Version::V4) {
            return Err(Error::protocol(format!("Invalid ByteBuf length {length}")));
        }
        spans.push(Span { start, length });
    }
    Ok(Values {
        body: body.clone(),
        spans,
        names,
    })
}

fn batch(reader: &mut Reader<'_>, version: Version, body: &Bytes) -> Result<Batch, Error> {
    let kind = match reader.byte()? {
        0 => BatchKind::Logged,
        1 => BatchKind::Unlogged,
        2 => BatchKind::Counter,
        other => return Err(Error::protocol(format!("Invalid batch type {other}"))),
    };
    let count = usize::from(reader.short()?);
    let mut statements = Vec::with_capacity(count.min(reader.remaining() / 4));
    for _ in 0..count {
        let source = match reader.byte()? {
            0 => StatementSource::Text(reader.long_string()?.to_owned()),
            1 => StatementSource::Prepared(body.slice_ref(reader.short_bytes()?)),
            other => {
                return Err(Error::protocol(format!(
                    "Invalid query kind in BATCH messages. Must be 0 or 1 but got {other}"
                )));
            }
        };
        let values = values(reader, version, false, body)?;
        statements.push(BatchStatement { source, values });
    }
    let mut parameters = Parameters {
        level: level(reader)?,
        ..Parameters::default()
    };
    let flags = flags(reader, version)?;
    if flags & query_flag::NAMES != 0 {
        // The names come after the values' count, where no server can read them (CASSANDRA-10246).
        return Err(Error::protocol("Named values are not supported in batches"));
    }
    tail(reader, version, flags, &mut parameters)?;
    Ok(Batch {
        kind,
        statements,
        parameters,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(version: Version, opcode: Opcode, body: &[u8]) -> Frame {
        Frame {
            version,
            flags: 0,
            stream: 1,
            opcode,
            body: Bytes::copy_from_slice(body),
        }
    }

    #[test]
    fn query_with_everything_in_v5() {
        let mut body = Vec::new();
        body.extend_from_slice(&[0, 0, 0, 2, b'h', b'i']);
        body.extend_from_slice(&[0, 6]);
        body.extend_from_slice(&0x1FF_u32.to_be_bytes());
        body.extend_from_slice(&[0, 3]);
        for (name, length, value) in [(b'a', 1, &b"x"[..]), (b'b', -1, b""), (b'c', -2, b"")] {
            body.extend_from_slice(&[0, 1, name]);
            body.extend_from_slice(&i32::to_be_bytes(length));
            body.extend_from_slice(value);
        }
        body.extend_from_slice(&100_i32.to_be_bytes());
        body.extend_from_slice(&[0, 0, 0, 1, 0xEE]);
        body.extend_from_slice(&[0, 8]);
        body.extend_from_slice(&42_i64.to_be_bytes());
        body.extend_from_slice(&[0, 2, b'k', b's']);
        body.extend_from_slice(&7_i32.to_be_bytes());
        let Request::Query { text, parameters } =
            decode(&frame(Version::V5, Opcode::Query, &body)).unwrap()
        else {
            panic!("not a query")
        };
        assert_eq!(text, "hi");
        assert_eq!(parameters.level, Level::LocalQuorum);
        assert!(parameters.skip_metadata);
        assert_eq!(parameters.page_size, Some(100));
        assert_eq!(parameters.paging_state.as_deref(), Some(&[0xEE][..]));
        assert_eq!(parameters.serial_level, Some(Level::Serial));
        assert_eq!(parameters.timestamp, Some(42));
        assert_eq!(parameters.keyspace.as_deref(), Some("ks"));
        assert_eq!(parameters.now_seconds, Some(7));
        let names = ["c".to_owned(), "a".to_owned(), "b".to_owned()];
        let values = parameters.values.arranged(&names).unwrap();
        assert_eq!(values.get(0), Some(BoundValue::Unset));
        assert_eq!(values.get(1), Some(BoundValue::Bytes(b"x")));
        assert_eq!(values.get(2), Some(BoundValue::Null));
        for length in 0..body.len() {
            decode(&frame(Version::V5, Opcode::Query, &body[..length])).unwrap_err();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn no_body_panics(
            version in prop::sample::select(vec![Version::V3, Version::V4, Version::V5]),
            opcode in 0_u8..0x11,
            flags in any::<u8>(),
            body in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0xFF), any::<u8>()], 0..200),
        ) {
            if let Some(opcode) = Opcode::from_byte(opcode) {
                let mut frame = frame(version, opcode, &body);
                frame.flags = flags;
                if let Ok(Request::Query { parameters, .. }) = decode(&frame) {
                    for index in 0..parameters.values.len() {
                        let _ = parameters.values.get(index);
                    }
                }
            }
        }
    }
}
