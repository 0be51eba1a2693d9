//! CRC32C (Castagnoli, iSCSI), the one checksum used on the wire and on disk.

use crc_fast::{CrcAlgorithm, checksum, checksum_combine};

/// CRC32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// CRC32C of A followed by B, from the CRC of each and the length of B in bytes.
pub fn crc32c_combine(a: u32, b: u32, len_b: u64) -> u32 {
    checksum_combine(CrcAlgorithm::Crc32Iscsi, u64::from(a), u64::from(b), len_b) as u32
}

/// CRC32C of `len` zero bytes, for the padding (fewer than 64 bytes; longer runs are computed).
pub fn crc32c_zeros(len: usize) -> u32 {
    const ZEROS: [u8; 64] = [0; 64];
    if len <= 64 { crc32c(&ZEROS[..len]) } else { crc32c(&vec![0; len]) }
}
