//! CRC32C (Castagnoli, iSCSI), the one checksum used on the wire and on disk.

use crc_fast::{CrcAlgorithm, Digest, checksum, checksum_combine};

/// CRC32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// CRC32C of `parts` as if they lay one behind the other.
pub fn crc32c_parts(parts: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize() as u32
}

/// CRC32C of A followed by B, from the CRC of each and the length of B in bytes.
pub fn crc32c_combine(a: u32, b: u32, len_b: u64) -> u32 {
    checksum_combine(CrcAlgorithm::Crc32Iscsi, u64::from(a), u64::from(b), len_b) as u32
}

/// [`crc32c_combine`] where every B is of one length: four look-ups in 4 KiB of tables.
#[derive(Clone, Debug)]
pub struct Crc32cCombine(Box<[[u32; 256]; 4]>);

impl Crc32cCombine {
    /// For B of `len_b` bytes.
    pub fn new(len_b: u64) -> Crc32cCombine {
        // What B's length makes of A's checksum it makes of each bit of it on its own.
        let bits: [u32; 32] = std::array::from_fn(|bit| crc32c_combine(1 << bit, 0, len_b));
        let mut tables = Box::new([[0; 256]; 4]);
        for (table, bits) in tables.iter_mut().zip(bits.chunks(8)) {
            for (byte, entry) in table.iter_mut().enumerate() {
                let set = bits.iter().enumerate().filter(|(bit, _)| byte >> bit & 1 == 1);
                *entry = set.fold(0, |sum, (_, bit)| sum ^ bit);
            }
        }
        Crc32cCombine(tables)
    }

    /// CRC32C of A followed by B, from the CRC of each.
    #[inline]
    pub fn combine(&self, a: u32, b: u32) -> u32 {
        let moved = self.0.iter().zip(a.to_le_bytes());
        moved.fold(b, |sum, (table, byte)| sum ^ table[usize::from(byte)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn combined_by_table_is_as_over_both(
            a in prop::collection::vec(any::<u8>(), 0..50), b in prop::collection::vec(any::<u8>(), 0..5000),
        ) {
            let combine = Crc32cCombine::new(b.len() as u64);
            prop_assert_eq!(combine.combine(crc32c(&a), crc32c(&b)), crc32c_parts(&[&a, &b]));
        }
    }
}
