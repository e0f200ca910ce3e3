//! Murmur3 x64 128-bit exactly as Cassandra computes it (with its sign-extension quirk in the tail): the
//! first half is the token.

const C1: u64 = 0x87C3_7B91_1142_53D5;
const C2: u64 = 0x4CF5_AD43_2745_937F;

/// Cassandra's `Murmur3Partitioner` token: `i64::MIN` becomes `i64::MAX`, but the empty key has `i64::MIN`,
/// the smallest of all.
pub fn token(partition_key: &[u8]) -> i64 {
    if partition_key.is_empty() {
        return i64::MIN;
    }
    match hash(partition_key) as i64 {
        i64::MIN => i64::MAX,
        token => token,
    }
}

fn mix_first(block: u64) -> u64 {
    block.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2)
}

fn mix_second(block: u64) -> u64 {
    block.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1)
}

fn finish(mut value: u64) -> u64 {
    value ^= value >> 33;
    value = value.wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    value ^= value >> 33;
    value = value.wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    value ^ value >> 33
}

fn hash(data: &[u8]) -> u64 {
    let mut first = 0u64;
    let mut second = 0u64;
    let (blocks, tail) = data.as_chunks::<16>();
    for block in blocks {
        let block = u128::from_le_bytes(*block);
        first ^= mix_first(block as u64);
        first = first.rotate_left(27).wrapping_add(second);
        first = first.wrapping_mul(5).wrapping_add(0x52DC_E729);
        second ^= mix_second((block >> 64) as u64);
        second = second.rotate_left(31).wrapping_add(first);
        second = second.wrapping_mul(5).wrapping_add(0x3849_5AB5);
    }
    // Java's bytes are signed, and Cassandra xors them in as they are: a byte from 0x80 on flips all above it.
    let word = |bytes: &[u8]| {
        bytes.iter().enumerate().fold(0u64, |word, (index, byte)| {
            word ^ ((*byte as i8 as i64 as u64) << (8 * index))
        })
    };
    if tail.len() > 8 {
        second ^= mix_second(word(&tail[8..]));
    }
    if !tail.is_empty() {
        first ^= mix_first(word(&tail[..tail.len().min(8)]));
    }
    first ^= data.len() as u64;
    second ^= data.len() as u64;
    first = first.wrapping_add(second);
    second = second.wrapping_add(first);
    first = finish(first);
    second = finish(second);
    first.wrapping_add(second)
}

#[cfg(test)]
mod tests {
    use super::token;

    /// The vectors of the published Python driver's metadata tests.
    #[test]
    fn tokens_are_those_of_the_published_drivers() {
        assert_eq!(token(b"123"), -7_468_325_962_851_647_638);
        assert_eq!(
            token(&b"\x00\xff\x10\xfa\x99".repeat(10)),
            5_837_342_703_291_459_765
        );
        assert_eq!(token(&[0xFE; 8]), -8_927_430_733_708_461_935);
        assert_eq!(token(&[0x10; 8]), 1_446_172_840_243_228_796);
        assert_eq!(token(b"9223372036854775807"), 7_162_290_910_810_015_547);
        assert_eq!(token(b""), i64::MIN);
    }
}
