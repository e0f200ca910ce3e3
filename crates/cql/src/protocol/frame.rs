//! Frames of v3 and v4, which v5 calls envelopes: a header of 9 bytes and a body (section 2).
//!
//! ```text
//! version and direction 1 · flags 1 · stream 2 · opcode 1 · body length 4 · body
//! ```

use super::compression::Compression;
use super::{Opcode, Version, flag};
use crate::error::Error;
use bytes::{Buf, Bytes, BytesMut};

pub const HEADER_SIZE_BYTES: usize = 9;

/// A request's frame, its body plain.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub version: Version,
    pub flags: u8,
    pub stream: i16,
    pub opcode: Opcode,
    pub body: Bytes,
}

/// What is wrong with a frame, and whether the bytes behind it can still be made sense of.
#[derive(Debug)]
pub struct BadFrame {
    pub error: Error,
    /// The version and stream to answer with.
    pub version: Version,
    pub stream: i16,
    pub is_fatal: bool,
}

/// Takes one frame from the front of `input`; `None` when it is not all there yet.
pub fn take(
    input: &mut BytesMut,
    compression: Compression,
    size_bytes_max: usize,
) -> Result<Option<Frame>, BadFrame> {
    let Some(&first) = input.first() else {
        return Ok(None);
    };
    let bad = |error, version, stream, is_fatal| BadFrame {
        error,
        version,
        stream,
        is_fatal,
    };
    // Before waiting for a whole header: a client of another protocol might never send one.
    let Some(version) = Version::from_byte(first).filter(|_| first & 0x80 == 0) else {
        let stream = input
            .get(2..4)
            .map_or(0, |stream| i16::from_be_bytes([stream[0], stream[1]]));
        let error = Error::protocol(format!(
            "Invalid or unsupported protocol version ({}); supported versions are (3/v3, 4/v4, 5/v5)",
            first & 0x7F
        ));
        return Err(bad(error, Version::NEWEST, stream, true));
    };
    if input.len() < HEADER_SIZE_BYTES {
        return Ok(None);
    }
    let flags = input[1];
    let stream = i16::from_be_bytes([input[2], input[3]]);
    let length = u32::from_be_bytes([input[5], input[6], input[7], input[8]]) as usize;
    if length > size_bytes_max {
        let error = Error::protocol(format!(
            "Request is too big: length {length} exceeds maximum allowed length {size_bytes_max}."
        ));
        return Err(bad(error, version, stream, true));
    }
    if input.len() < HEADER_SIZE_BYTES + length {
        input.reserve(HEADER_SIZE_BYTES + length - input.len());
        return Ok(None);
    }
    let opcode_byte = input[4];
    input.advance(HEADER_SIZE_BYTES);
    let mut body = input.split_to(length).freeze();
    let opcode = Opcode::from_byte(opcode_byte).ok_or_else(|| {
        let error = Error::protocol(format!("Unknown opcode {opcode_byte}"));
        bad(error, version, stream, false)
    })?;
    // In v5 segments are compressed, envelopes never.
    if flags & flag::COMPRESSED != 0 && version < Version::V5 {
        body = compression
            .decompress(&body, size_bytes_max)
            .map_err(|error| bad(error, version, stream, false))?
            .into();
    }
    Ok(Some(Frame {
        version,
        flags,
        stream,
        opcode,
        body,
    }))
}

/// Begins an answer's frame; `finish` completes it.
pub fn begin(version: Version, flags: u8, stream: i16, opcode: Opcode, capacity: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER_SIZE_BYTES + capacity);
    frame.push(0x80 | version as u8);
    frame.push(flags);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.push(opcode as u8);
    frame.extend_from_slice(&[0; 4]);
    frame
}

/// Writes the body's length into the header.
pub fn finish(frame: &mut [u8]) {
    let length = (frame.len() - HEADER_SIZE_BYTES) as u32;
    frame[5..9].copy_from_slice(&length.to_be_bytes());
}

/// Compresses a finished frame's body when that is agreed (v3, v4) and pays.
pub fn compress(frame: Vec<u8>, compression: Compression) -> Vec<u8> {
    /// Smaller bodies are sent plain.
    const SIZE_BYTES_MIN: usize = 512;
    if compression == Compression::None || frame.len() < HEADER_SIZE_BYTES + SIZE_BYTES_MIN {
        return frame;
    }
    let body = compression.compress(&frame[HEADER_SIZE_BYTES..]);
    let mut out = Vec::with_capacity(HEADER_SIZE_BYTES + body.len());
    out.extend_from_slice(&frame[..HEADER_SIZE_BYTES]);
    out[1] |= flag::COMPRESSED;
    out.extend_from_slice(&body);
    finish(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: u8, opcode: u8, body: &[u8]) -> BytesMut {
        let mut frame = vec![version, 0, 0, 7, opcode];
        frame.extend_from_slice(&(body.len() as u32).to_be_bytes());
        frame.extend_from_slice(body);
        BytesMut::from(&frame[..])
    }

    #[test]
    fn takes_whole_frames_only() {
        let whole = request(4, 5, b"abc");
        for length in 0..whole.len() {
            let mut input = BytesMut::from(&whole[..length]);
            assert!(matches!(take(&mut input, Compression::None, 100), Ok(None)));
        }
        let mut input = whole;
        let frame = take(&mut input, Compression::None, 100).unwrap().unwrap();
        assert_eq!(frame.opcode, Opcode::Options);
        assert_eq!(frame.stream, 7);
        assert_eq!(&frame.body[..], b"abc");
        assert!(input.is_empty());
    }

    #[test]
    fn other_versions_are_refused_so_that_drivers_fall_back() {
        for version in [0, 1, 2, 6, 65, 66, 0x84] {
            let bad = take(&mut request(version, 5, b""), Compression::None, 100).unwrap_err();
            assert!(bad.is_fatal);
            assert!(bad.error.message.contains("unsupported protocol version"));
        }
    }

    #[test]
    fn too_large_and_unknown() {
        let bad = take(&mut request(4, 5, &[0; 101]), Compression::None, 100).unwrap_err();
        assert!(bad.is_fatal);
        let mut input = request(4, 0x55, b"");
        let bad = take(&mut input, Compression::None, 100).unwrap_err();
        assert!(!bad.is_fatal);
        assert!(input.is_empty(), "the connection goes on behind it");
    }

    #[test]
    fn bodies_compress_both_ways() {
        for compression in [Compression::Lz4, Compression::Snappy] {
            let mut frame = begin(Version::V4, 0, 1, Opcode::Result, 0);
            frame.extend_from_slice(&[9; 5000]);
            finish(&mut frame);
            let mut packed = compress(frame, compression);
            assert!(packed.len() < 1000);
            packed[0] &= 0x7F;
            let mut input = BytesMut::from(&packed[..]);
            let read = take(&mut input, compression, 5000).unwrap().unwrap();
            assert_eq!(&read.body[..], &[9; 5000]);
            let mut input = BytesMut::from(&packed[..]);
            assert!(take(&mut input, compression, 4999).is_err());
        }
    }

    proptest::proptest! {
        /// Whatever comes, behind a good header or none: a frame, a refusal, or a wait for more.
        #[test]
        fn arbitrary_bytes_are_taken_or_refused(
            flags in proptest::prelude::any::<u8>(),
            opcode in 0u8..20,
            body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
            junk in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40),
        ) {
            for compression in [Compression::None, Compression::Lz4, Compression::Snappy] {
                for version in [3, 4, 5] {
                    let mut input = request(version, opcode, &body);
                    input[1] = flags;
                    let _ = take(&mut input, compression, 1 << 20);
                }
                let mut input = BytesMut::from(&junk[..]);
                if let Ok(None) = take(&mut input, compression, 1 << 20) {
                    assert_eq!(&input[..], &junk[..], "what is not taken stays");
                }
            }
        }
    }
}
