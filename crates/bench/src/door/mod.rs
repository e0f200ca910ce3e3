//! The three protocols, each as thin as a client can be: what is measured is the server.

pub mod cql;
pub mod dynamo;
pub mod spanner;
pub mod transaction;

/// A value of `size_bytes` printable bytes that depends on the key.
pub fn payload(key: u64, size_bytes: usize) -> Vec<u8> {
    let mut state = key.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..size_bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            b'a' + (state % 26) as u8
        })
        .collect()
}
