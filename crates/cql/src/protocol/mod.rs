//! The CQL native protocol, versions 3 to 5: bytes to requests, answers to bytes. Knows nothing of CQL text,
//! tables or the database. (native_protocol_v3.spec, native_protocol_v4.spec, native_protocol_v5.spec of
//! Apache Cassandra; section numbers in this module are those of v5.)

pub mod compression;
pub mod frame;
pub mod request;
pub mod response;
pub mod segment;
pub mod wire;

use api::Level;

/// A request may not be larger, once a connection has said STARTUP.
pub const REQUEST_SIZE_BYTES_MAX: usize = 16 << 20;
/// A request may not be larger before.
pub const REQUEST_SIZE_BYTES_MAX_BEFORE_STARTUP: usize = 64 << 10;
/// Bound values of one statement.
pub const VALUES_MAX: usize = 65_535;
/// Statements of one batch.
pub const BATCH_STATEMENTS_MAX: usize = 65_535;

/// A protocol version that this door speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V3 = 3,
    V4 = 4,
    V5 = 5,
}

impl Version {
    pub const NEWEST: Version = Version::V5;

    pub fn from_byte(byte: u8) -> Option<Version> {
        match byte & 0x7F {
            3 => Some(Version::V3),
            4 => Some(Version::V4),
            5 => Some(Version::V5),
            _ => None,
        }
    }
}

/// Section 2.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    Error = 0x00,
    Startup = 0x01,
    Ready = 0x02,
    Authenticate = 0x03,
    Options = 0x05,
    Supported = 0x06,
    Query = 0x07,
    Result = 0x08,
    Prepare = 0x09,
    Execute = 0x0A,
    Register = 0x0B,
    Event = 0x0C,
    Batch = 0x0D,
    AuthChallenge = 0x0E,
    AuthResponse = 0x0F,
    AuthSuccess = 0x10,
}

impl Opcode {
    pub fn from_byte(byte: u8) -> Option<Opcode> {
        Some(match byte {
            0x00 => Opcode::Error,
            0x01 => Opcode::Startup,
            0x02 => Opcode::Ready,
            0x03 => Opcode::Authenticate,
            0x05 => Opcode::Options,
            0x06 => Opcode::Supported,
            0x07 => Opcode::Query,
            0x08 => Opcode::Result,
            0x09 => Opcode::Prepare,
            0x0A => Opcode::Execute,
            0x0B => Opcode::Register,
            0x0C => Opcode::Event,
            0x0D => Opcode::Batch,
            0x0E => Opcode::AuthChallenge,
            0x0F => Opcode::AuthResponse,
            0x10 => Opcode::AuthSuccess,
            _ => return None,
        })
    }
}

/// Frame flags (section 2.2).
pub mod flag {
    pub const COMPRESSED: u8 = 0x01;
    pub const TRACING: u8 = 0x02;
    pub const CUSTOM_PAYLOAD: u8 = 0x04;
    pub const WARNING: u8 = 0x08;
    pub const BETA: u8 = 0x10;
}

/// The number of a consistency level on the wire (section 3, [consistency]).
pub fn level_code(level: Level) -> u16 {
    match level {
        Level::Any => 0x0000,
        Level::One => 0x0001,
        Level::Two => 0x0002,
        Level::Three => 0x0003,
        Level::Quorum | Level::Default => 0x0004,
        Level::All => 0x0005,
        Level::LocalQuorum => 0x0006,
        Level::EachQuorum => 0x0007,
        Level::Serial => 0x0008,
        Level::LocalSerial => 0x0009,
        Level::LocalOne => 0x000A,
    }
}

pub fn level_from_code(code: u16) -> Option<Level> {
    Some(match code {
        0x0000 => Level::Any,
        0x0001 => Level::One,
        0x0002 => Level::Two,
        0x0003 => Level::Three,
        0x0004 => Level::Quorum,
        0x0005 => Level::All,
        0x0006 => Level::LocalQuorum,
        0x0007 => Level::EachQuorum,
        0x0008 => Level::Serial,
        0x0009 => Level::LocalSerial,
        0x000A => Level::LocalOne,
        _ => return None,
    })
}
