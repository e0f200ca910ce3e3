//! Compression of bodies (v3, v4) and of segments (v5).

use crate::error::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Lz4,
    /// Only up to v4.
    Snappy,
}

impl Compression {
    /// The name that STARTUP gives, in any case.
    pub fn from_name(name: &str) -> Option<Compression> {
        if name.eq_ignore_ascii_case("lz4") {
            Some(Compression::Lz4)
        } else if name.eq_ignore_ascii_case("snappy") {
            Some(Compression::Snappy)
        } else {
            None
        }
    }

    /// Compresses a body as v3 and v4 do; LZ4 blocks are preceded by the plain length as 4 bytes big-endian.
    pub fn compress(self, body: &[u8]) -> Vec<u8> {
        match self {
            Compression::None => body.to_vec(),
            Compression::Lz4 => {
                let mut out = Vec::with_capacity(body.len() / 2 + 16);
                out.extend_from_slice(&(body.len() as u32).to_be_bytes());
                out.extend_from_slice(&lz4_flex::block::compress(body));
                out
            }
            Compression::Snappy => snap::raw::Encoder::new()
                .compress_vec(body)
                .unwrap_or_default(),
        }
    }

    /// The plain body, refused if it says that it is larger than `size_bytes_max`.
    pub fn decompress(self, body: &[u8], size_bytes_max: usize) -> Result<Vec<u8>, Error> {
        let too_large = || Error::protocol("a compressed body is too large once decompressed");
        match self {
            Compression::None => Err(Error::protocol(
                "a compressed frame, but no compression was agreed in STARTUP",
            )),
            Compression::Lz4 => {
                let (length, block) = body
                    .split_first_chunk::<4>()
                    .ok_or_else(|| Error::protocol("a compressed body is too short"))?;
                let length = u32::from_be_bytes(*length) as usize;
                if length > size_bytes_max {
                    return Err(too_large());
                }
                lz4_block(block, length)
            }
            Compression::Snappy => {
                let length = snap::raw::decompress_len(body)
                    .map_err(|error| Error::protocol(format!("bad snappy data: {error}")))?;
                if length > size_bytes_max {
                    return Err(too_large());
                }
                snap::raw::Decoder::new()
                    .decompress_vec(body)
                    .map_err(|error| Error::protocol(format!("bad snappy data: {error}")))
            }
        }
    }
}

/// One LZ4 block of a known plain length.
pub fn lz4_block(block: &[u8], length: usize) -> Result<Vec<u8>, Error> {
    let plain = lz4_flex::block::decompress(block, length)
        .map_err(|error| Error::protocol(format!("bad LZ4 data: {error}")))?;
    if plain.len() != length {
        return Err(Error::protocol("an LZ4 block has not the length it says"));
    }
    Ok(plain)
}
