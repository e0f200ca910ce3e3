//! Rows as bytes, on disk and between nodes: docs/formats/row.md has the table.
//!
//! Encoding a normal row gives the same bytes everywhere, so that bytes may be compared and hashed. Decoding is
//! strict: whatever no encoder writes is refused, nothing panics, and nothing is allocated that the bytes do not
//! pay for.

use crate::row::{Cell, CellContent, Deletion, Expiry, Marker, RangeTombstone, Row};
use crate::{ColumnId, Number, Timestamp, Value};
use std::collections::BTreeMap;

/// The first byte of every row.
const FORMAT: u8 = 1;

const HAS_MARKER: u8 = 1 << 0;
const MARKER_EXPIRES: u8 = 1 << 1;
const HAS_DELETION: u8 = 1 << 2;
const HAS_RANGES: u8 = 1 << 3;
const ROW_FLAGS: u8 = HAS_MARKER | MARKER_EXPIRES | HAS_DELETION | HAS_RANGES;

const HAS_PATH: u8 = 1 << 0;
const IS_TOMBSTONE: u8 = 1 << 1;
const EXPIRES: u8 = 1 << 2;
/// The cell's timestamp is not the row's base.
const OTHER_TIMESTAMP: u8 = 1 << 3;
const CELL_FLAGS: u8 = HAS_PATH | IS_TOMBSTONE | EXPIRES | OTHER_TIMESTAMP;

/// Room is made for this many cells before they are seen.
const CELLS_RESERVED_MAX: usize = 256;

/// How deep values may be nested; doors allow 32.
const NESTING_MAX: u32 = 128;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    #[error("row format {0} is unknown")]
    Format(u8),
    #[error("a row's bytes end too early or are not what an encoder writes: {0}")]
    Malformed(&'static str),
}

impl Row {
    /// The row in its compact binary format.
    pub fn to_bytes(&self) -> Vec<u8> {
        if !self.is_ordered() {
            // A change may be put together in any order; its bytes have one.
            let mut normal = Row::default();
            normal.merge(self);
            return normal.to_bytes();
        }
        let mut bytes = Vec::with_capacity(16 + self.cells.len() * 16);
        let base = self.base();
        let mut flags = 0;
        if let Some(marker) = &self.marker {
            flags |= HAS_MARKER;
            if marker.expiry.is_some() {
                flags |= MARKER_EXPIRES;
            }
        }
        if self.deletion.is_some() {
            flags |= HAS_DELETION;
        }
        if !self.range_tombstones.is_empty() {
            flags |= HAS_RANGES;
        }
        bytes.extend_from_slice(&[FORMAT, flags]);
        bytes.extend_from_slice(&base.to_be_bytes());
        if let Some(expiry) = self.marker.and_then(|marker| marker.expiry) {
            put_expiry(expiry, &mut bytes);
        }
        if let Some(deletion) = self.deletion {
            put_deletion(deletion, base, &mut bytes);
        }
        put_varint(self.cells.len() as u64, &mut bytes);
        for cell in &self.cells {
            put_cell(cell, base, &mut bytes);
        }
        if !self.range_tombstones.is_empty() {
            put_varint(self.range_tombstones.len() as u64, &mut bytes);
            for range in &self.range_tombstones {
                put_bytes(&range.start, &mut bytes);
                put_bytes(&range.end, &mut bytes);
                put_deletion(range.deletion, base, &mut bytes);
            }
        }
        bytes
    }

    /// Reads what `to_bytes` wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Row, RowError> {
        let mut reader = Reader { rest: bytes };
        let format = reader.byte()?;
        if format != FORMAT {
            return Err(RowError::Format(format));
        }
        let flags = reader.byte()?;
        if flags & !ROW_FLAGS != 0 || flags & (HAS_MARKER | MARKER_EXPIRES) == MARKER_EXPIRES {
            return Err(RowError::Malformed("row flags"));
        }
        let base = i64::from_be_bytes(reader.array()?);
        let mut row = Row::default();
        if flags & HAS_MARKER != 0 {
            let expiry = match flags & MARKER_EXPIRES {
                0 => None,
                _ => Some(reader.expiry()?),
            };
            row.marker = Some(Marker {
                timestamp: Timestamp(base),
                expiry,
            });
        }
        if flags & HAS_DELETION != 0 {
            row.deletion = Some(reader.deletion(base)?);
        }
        let count = reader.count()?;
        row.cells.reserve_exact(count.min(CELLS_RESERVED_MAX));
        for _ in 0..count {
            let cell = reader.cell(base)?;
            if row.cells.last().is_some_and(|last| {
                (last.column, last.path.as_deref()) >= (cell.column, cell.path.as_deref())
            }) {
                return Err(RowError::Malformed("cells out of order"));
            }
            row.cells.push(cell);
        }
        if flags & HAS_RANGES != 0 {
            reader.ranges(base, &mut row.range_tombstones)?;
        }
        if !reader.rest.is_empty() {
            return Err(RowError::Malformed("bytes left over"));
        }
        if row.base() != base {
            return Err(RowError::Malformed("another base timestamp"));
        }
        Ok(row)
    }

    /// The timestamp that the others are written relative to.
    fn base(&self) -> i64 {
        let marker = self.marker.map(|marker| marker.timestamp);
        let cell = || self.cells.first().map(|cell| cell.timestamp);
        let deletion = || self.deletion.map(|deletion| deletion.timestamp);
        let range = || Some(self.range_tombstones.first()?.deletion.timestamp);
        marker
            .or_else(cell)
            .or_else(deletion)
            .or_else(range)
            .map_or(0, |timestamp| timestamp.0)
    }
}

fn put_varint(mut value: u64, bytes: &mut Vec<u8>) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Zigzag: small magnitudes of either sign are short.
fn put_signed(value: i64, bytes: &mut Vec<u8>) {
    put_varint((value << 1 ^ value >> 63) as u64, bytes);
}

fn put_bytes(value: &[u8], bytes: &mut Vec<u8>) {
    put_varint(value.len() as u64, bytes);
    bytes.extend_from_slice(value);
}

fn put_expiry(expiry: Expiry, bytes: &mut Vec<u8>) {
    put_signed(expiry.at_seconds, bytes);
    put_varint(u64::from(expiry.ttl_seconds), bytes);
}

fn put_deletion(deletion: Deletion, base: i64, bytes: &mut Vec<u8>) {
    put_signed(deletion.timestamp.0.wrapping_sub(base), bytes);
    put_signed(deletion.local_seconds, bytes);
}

fn put_cell(cell: &Cell, base: i64, bytes: &mut Vec<u8>) {
    let mut flags = 0;
    if cell.path.is_some() {
        flags |= HAS_PATH;
    }
    if cell.timestamp.0 != base {
        flags |= OTHER_TIMESTAMP;
    }
    match &cell.content {
        CellContent::Tombstone { .. } => flags |= IS_TOMBSTONE,
        CellContent::Live {
            expiry: Some(_), ..
        } => flags |= EXPIRES,
        CellContent::Live { expiry: None, .. } => {}
    }
    bytes.push(flags);
    put_varint(cell.column.0, bytes);
    if let Some(path) = &cell.path {
        put_bytes(path, bytes);
    }
    if cell.timestamp.0 != base {
        put_signed(cell.timestamp.0.wrapping_sub(base), bytes);
    }
    match &cell.content {
        CellContent::Tombstone { local_seconds } => put_signed(*local_seconds, bytes),
        CellContent::Live { value, expiry } => {
            if let Some(expiry) = expiry {
                put_expiry(*expiry, bytes);
            }
            put_value(value, bytes);
        }
    }
}

mod tag {
    pub const NULL: u8 = 0;
    pub const FALSE: u8 = 1;
    pub const TRUE: u8 = 2;
    pub const INT: u8 = 3;
    pub const VARINT: u8 = 4;
    pub const FLOAT32: u8 = 5;
    pub const FLOAT64: u8 = 6;
    pub const DECIMAL: u8 = 7;
    pub const NUMBER: u8 = 8;
    pub const TEXT: u8 = 9;
    pub const BYTES: u8 = 10;
    pub const UUID: u8 = 11;
    pub const INET: u8 = 12;
    pub const DATE: u8 = 13;
    pub const TIME: u8 = 14;
    pub const TIMESTAMP: u8 = 15;
    pub const DURATION: u8 = 16;
    pub const LIST: u8 = 17;
    pub const SET: u8 = 18;
    pub const MAP: u8 = 19;
    pub const TUPLE: u8 = 20;
    pub const JSON: u8 = 21;
    pub const DOCUMENT: u8 = 22;
}

pub(crate) fn put_value(value: &Value, bytes: &mut Vec<u8>) {
    match value {
        Value::Null => bytes.push(tag::NULL),
        Value::Bool(false) => bytes.push(tag::FALSE),
        Value::Bool(true) => bytes.push(tag::TRUE),
        Value::Int(value) => {
            bytes.push(tag::INT);
            put_signed(*value, bytes);
        }
        Value::Varint(value) => put_tagged(tag::VARINT, value, bytes),
        Value::Float32(value) => {
            bytes.push(tag::FLOAT32);
            bytes.extend_from_slice(&value.to_bits().to_be_bytes());
        }
        Value::Float64(value) => {
            bytes.push(tag::FLOAT64);
            bytes.extend_from_slice(&value.to_bits().to_be_bytes());
        }
        Value::Decimal { scale, unscaled } => {
            bytes.push(tag::DECIMAL);
            put_signed(i64::from(*scale), bytes);
            put_bytes(unscaled, bytes);
        }
        Value::Number(value) => {
            bytes.push(tag::NUMBER);
            let sign = i64::from(value.is_negative());
            put_signed(i64::from(value.exponent()) << 1 | sign, bytes);
            let coefficient = value.coefficient();
            put_varint(coefficient as u64, bytes);
            put_varint((coefficient >> 64) as u64, bytes);
        }
        Value::Text(value) => put_tagged(tag::TEXT, value.as_bytes(), bytes),
        Value::Bytes(value) => put_tagged(tag::BYTES, value, bytes),
        Value::Uuid(value) => {
            bytes.push(tag::UUID);
            bytes.extend_from_slice(value);
        }
        Value::Inet(value) => put_tagged(tag::INET, value, bytes),
        Value::Date(value) => {
            bytes.push(tag::DATE);
            put_signed(i64::from(*value), bytes);
        }
        Value::Time(value) => {
            bytes.push(tag::TIME);
            put_signed(*value, bytes);
        }
        Value::Timestamp { seconds, nanos } => {
            bytes.push(tag::TIMESTAMP);
            put_signed(*seconds, bytes);
            put_varint(u64::from(*nanos), bytes);
        }
        Value::Duration {
            months,
            days,
            nanos,
        } => {
            bytes.push(tag::DURATION);
            put_signed(i64::from(*months), bytes);
            put_signed(i64::from(*days), bytes);
            put_signed(*nanos, bytes);
        }
        Value::List(values) => put_values(tag::LIST, values, bytes),
        Value::Set(values) => put_values(tag::SET, values, bytes),
        Value::Tuple(values) => put_values(tag::TUPLE, values, bytes),
        Value::Map(pairs) => {
            bytes.push(tag::MAP);
            put_varint(pairs.len() as u64, bytes);
            for (key, value) in pairs {
                put_value(key, bytes);
                put_value(value, bytes);
            }
        }
        Value::Json(value) => put_tagged(tag::JSON, value.as_bytes(), bytes),
        Value::Document(members) => {
            bytes.push(tag::DOCUMENT);
            put_varint(members.len() as u64, bytes);
            for (name, value) in members {
                put_bytes(name.as_bytes(), bytes);
                put_value(value, bytes);
            }
        }
    }
}

fn put_tagged(tag: u8, value: &[u8], bytes: &mut Vec<u8>) {
    bytes.push(tag);
    put_bytes(value, bytes);
}

fn put_values(tag: u8, values: &[Value], bytes: &mut Vec<u8>) {
    bytes.push(tag);
    put_varint(values.len() as u64, bytes);
    for value in values {
        put_value(value, bytes);
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

const ENDS: RowError = RowError::Malformed("ends early");

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, RowError> {
        let (first, rest) = self.rest.split_first().ok_or(ENDS)?;
        self.rest = rest;
        Ok(*first)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RowError> {
        let (first, rest) = self.rest.split_first_chunk().ok_or(ENDS)?;
        self.rest = rest;
        Ok(*first)
    }

    fn varint(&mut self) -> Result<u64, RowError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(RowError::Malformed("integer too large"));
            }
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                if byte == 0 && shift > 0 {
                    return Err(RowError::Malformed("integer not in its shortest form"));
                }
                return Ok(value);
            }
        }
        Err(RowError::Malformed("integer too large"))
    }

    fn signed(&mut self) -> Result<i64, RowError> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn signed_32(&mut self) -> Result<i32, RowError> {
        i32::try_from(self.signed()?).map_err(|_| RowError::Malformed("integer too large"))
    }

    fn unsigned_32(&mut self) -> Result<u32, RowError> {
        u32::try_from(self.varint()?).map_err(|_| RowError::Malformed("integer too large"))
    }

    /// A count of things that take at least a byte each, so it can be no more than what is left.
    fn count(&mut self) -> Result<usize, RowError> {
        let count = self.varint()?;
        if count > self.rest.len() as u64 {
            return Err(ENDS);
        }
        Ok(count as usize)
    }

    fn bytes(&mut self) -> Result<&'a [u8], RowError> {
        let length = self.count()?;
        let (bytes, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(bytes)
    }

    fn text(&mut self) -> Result<String, RowError> {
        match std::str::from_utf8(self.bytes()?) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(RowError::Malformed("text is not UTF-8")),
        }
    }

    fn expiry(&mut self) -> Result<Expiry, RowError> {
        Ok(Expiry {
            at_seconds: self.signed()?,
            ttl_seconds: self.unsigned_32()?,
        })
    }

    fn deletion(&mut self, base: i64) -> Result<Deletion, RowError> {
        Ok(Deletion {
            timestamp: Timestamp(base.wrapping_add(self.signed()?)),
            local_seconds: self.signed()?,
        })
    }

    fn cell(&mut self, base: i64) -> Result<Cell, RowError> {
        let flags = self.byte()?;
        let dead_and_expiring = IS_TOMBSTONE | EXPIRES;
        if flags & !CELL_FLAGS != 0 || flags & dead_and_expiring == dead_and_expiring {
            return Err(RowError::Malformed("cell flags"));
        }
        let column = ColumnId(self.varint()?);
        let path = match flags & HAS_PATH {
            0 => None,
            _ => Some(self.bytes()?.to_vec()),
        };
        let timestamp = match flags & OTHER_TIMESTAMP {
            0 => base,
            _ => match self.signed()? {
                0 => return Err(RowError::Malformed("the base timestamp written again")),
                delta => base.wrapping_add(delta),
            },
        };
        let content = if flags & IS_TOMBSTONE != 0 {
            CellContent::Tombstone {
                local_seconds: self.signed()?,
            }
        } else {
            let expiry = match flags & EXPIRES {
                0 => None,
                _ => Some(self.expiry()?),
            };
            CellContent::Live {
                value: self.value(0)?,
                expiry,
            }
        };
        Ok(Cell {
            column,
            path,
            timestamp: Timestamp(timestamp),
            content,
        })
    }

    fn ranges(&mut self, base: i64, ranges: &mut Vec<RangeTombstone>) -> Result<(), RowError> {
        let count = self.count()?;
        if count == 0 {
            return Err(RowError::Malformed("no ranges"));
        }
        for _ in 0..count {
            let range = RangeTombstone {
                start: self.bytes()?.to_vec(),
                end: self.bytes()?.to_vec(),
                deletion: self.deletion(base)?,
            };
            let follows = ranges.last().is_none_or(|last| last.is_before(&range));
            if range.start >= range.end || !follows {
                return Err(RowError::Malformed("ranges out of order"));
            }
            ranges.push(range);
        }
        Ok(())
    }

    fn value(&mut self, depth: u32) -> Result<Value, RowError> {
        Ok(match self.byte()? {
            tag::NULL => Value::Null,
            tag::FALSE => Value::Bool(false),
            tag::TRUE => Value::Bool(true),
            tag::INT => Value::Int(self.signed()?),
            tag::VARINT => Value::Varint(self.bytes()?.to_vec()),
            tag::FLOAT32 => Value::Float32(f32::from_bits(u32::from_be_bytes(self.array()?))),
            tag::FLOAT64 => Value::Float64(f64::from_bits(u64::from_be_bytes(self.array()?))),
            tag::DECIMAL => Value::Decimal {
                scale: self.signed_32()?,
                unscaled: self.bytes()?.to_vec(),
            },
            tag::NUMBER => self.number()?,
            tag::TEXT => Value::Text(self.text()?),
            tag::BYTES => Value::Bytes(self.bytes()?.to_vec()),
            tag::UUID => Value::Uuid(self.array()?),
            tag::INET => Value::Inet(self.bytes()?.to_vec()),
            tag::DATE => Value::Date(self.signed_32()?),
            tag::TIME => Value::Time(self.signed()?),
            tag::TIMESTAMP => Value::Timestamp {
                seconds: self.signed()?,
                nanos: self.unsigned_32()?,
            },
            tag::DURATION => Value::Duration {
                months: self.signed_32()?,
                days: self.signed_32()?,
                nanos: self.signed()?,
            },
            tag::LIST => Value::List(self.values(depth)?),
            tag::SET => Value::Set(self.values(depth)?),
            tag::TUPLE => Value::Tuple(self.values(depth)?),
            tag::MAP => {
                let depth = deeper(depth)?;
                let mut pairs = Vec::new();
                for _ in 0..self.count()? {
                    pairs.push((self.value(depth)?, self.value(depth)?));
                }
                Value::Map(pairs)
            }
            tag::JSON => Value::Json(self.text()?),
            tag::DOCUMENT => {
                let depth = deeper(depth)?;
                let mut members = BTreeMap::new();
                for _ in 0..self.count()? {
                    let name = self.text()?;
                    if members
                        .last_key_value()
                        .is_some_and(|(last, _)| *last >= name)
                    {
                        return Err(RowError::Malformed("members out of order"));
                    }
                    members.insert(name, self.value(depth)?);
                }
                Value::Document(members)
            }
            _ => return Err(RowError::Malformed("unknown value tag")),
        })
    }

    fn values(&mut self, depth: u32) -> Result<Vec<Value>, RowError> {
        let depth = deeper(depth)?;
        // Not reserved ahead: a value in memory is many times its one byte.
        let mut values = Vec::new();
        for _ in 0..self.count()? {
            values.push(self.value(depth)?);
        }
        Ok(values)
    }

    fn number(&mut self) -> Result<Value, RowError> {
        let sign_and_exponent = self.signed()?;
        let low = self.varint()?;
        let high = self.varint()?;
        let coefficient = u128::from(high) << 64 | u128::from(low);
        let malformed = RowError::Malformed("number");
        let exponent = i32::try_from(sign_and_exponent >> 1).map_err(|_| malformed.clone())?;
        let negative = sign_and_exponent & 1 == 1;
        let number = Number::from_parts(negative, coefficient, exponent);
        let number = number.map_err(|_| malformed.clone())?;
        let same = number.coefficient() == coefficient
            && number.exponent() == exponent
            && number.is_negative() == negative;
        if !same {
            return Err(malformed);
        }
        Ok(Value::Number(number))
    }
}

fn deeper(depth: u32) -> Result<u32, RowError> {
    if depth >= NESTING_MAX {
        return Err(RowError::Malformed("nested too deep"));
    }
    Ok(depth + 1)
}
