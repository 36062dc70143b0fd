//! Bytes that every system sends: written, never fresh zeros, and the same in every language. `compare/python/payload.py` is its twin.

/// `len` bytes. Word `n` of 64 bits is `(n + 1) * 0x9e3779b97f4a7c15`, xored with itself shifted down by 29.
pub fn bytes(len: usize) -> Vec<u8> {
    let words = (1..=len.div_ceil(8) as u64).map(|n| {
        let word = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word ^ (word >> 29)
    });
    let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    bytes.truncate(len);
    bytes
}

/// The sum of the 64-bit words of some bytes, wrapping; a rest of less than a word does not count. Reads everything, at the
/// speed of memory.
pub fn sum(bytes: &[u8]) -> u64 {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().fold(0, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_other_languages_have_it() {
        let expected = [0x15, 0x7c, 0x4a, 0x7f, 0xb9, 0x79, 0x37, 0x9e];
        let word = u64::from_le_bytes(expected);
        assert_eq!(bytes(8), (word ^ (word >> 29)).to_le_bytes());
        assert_eq!(bytes(5), bytes(8)[..5]);
        assert_eq!(sum(&bytes(23)), sum(&bytes(16)));
    }
}
