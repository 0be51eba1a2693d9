//! Frames: what travels on a connection. A fixed header with a checksum, a control part, and data
//! (batches, which carry checksums of their own).

use crate::le::{u16_ule, u32_ule, u64_ule};
use crate::{crc32c, crc32c_combine, portable_header};

/// "HWF1", little-endian.
pub const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"HWF1");

/// Largest control part, in bytes.
const MAX_CONTROL: usize = 32 << 20;

portable_header! {
    /// In front of every frame.
    pub struct FrameHeader, 32 bytes {
        /// [`FRAME_MAGIC`].
        magic: u32_ule,
        /// A [`Kind`].
        kind: u16_ule,
        /// Reserved: 0.
        flags: u16_ule,
        /// Chosen by the client for a request; the reply carries it back. Deliveries carry that of their
        /// subscription.
        correlation: u64_ule,
        /// Bytes of the control part.
        control_len: u32_ule,
        /// Bytes of data after it.
        data_len: u32_ule,
        /// CRC32C of bytes 0 to 24 and of the control part.
        crc: u32_ule,
        /// Reserved: 0.
        reserved: u32_ule,
    }
}

/// Size of [`FrameHeader`] in bytes.
pub const FRAME_HEADER_LEN: usize = FrameHeader::LEN;

macro_rules! kinds {
    ($( $(#[doc = $doc:literal])* $name:ident = $number:literal; )*) => {
        /// What a frame is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Kind { $( $(#[doc = $doc])* $name = $number, )* }

        impl Kind {
            /// All kinds with their names, for documentation.
            pub const ALL: &[(Kind, &str)] = &[ $( (Kind::$name, stringify!($name)), )* ];

            fn from_number(number: u16) -> Option<Kind> {
                match number { $( $number => Some(Kind::$name), )* _ => None }
            }
        }
    };
}

kinds! {
    /// Request, control part: an rkyv archive of `ControlRequest`. The first on a connection is the greeting.
    Control = 0x0001;
    /// Request: append one batch (the data) to a shard.
    Append = 0x0002;
    /// Request: read from a position, waiting if asked to; data: a filter, or nothing.
    Fetch = 0x0003;
    /// Request: push from a position on, as credit allows; data: a filter, or nothing.
    Subscribe = 0x0004;
    /// More credit for a subscription; no reply.
    Credit = 0x0005;
    /// End a subscription; no reply. Deliveries under way may still arrive.
    Unsubscribe = 0x0006;
    /// Request: turn a position (oldest, latest, time …) into a sequence number.
    Locate = 0x0007;
    /// Reply to `Control`: an rkyv archive of `ControlReply`.
    ControlReply = 0x8001;
    /// Reply to `Append`.
    AppendReply = 0x8002;
    /// Reply to `Fetch`; data: batches.
    FetchReply = 0x8003;
    /// Reply to `Subscribe`.
    SubscribeReply = 0x8004;
    /// Reply to `Locate`.
    LocateReply = 0x8007;
    /// Pushed to a subscriber; data: batches.
    Deliver = 0x8104;
    /// Pushed to a subscriber with a filter; data: batches of the records that match.
    DeliverFiltered = 0x8105;
    /// Refusal of a request, or the end of a subscription or (correlation 0) of the connection: an rkyv
    /// archive of `ErrorReply`.
    Error = 0xffff;
}

/// A frame in a receive buffer.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// What it is.
    pub kind: Kind,
    /// Its correlation id.
    pub correlation: u64,
    /// The control part, its checksum verified.
    pub control: &'a [u8],
    /// The data, not verified.
    pub data: &'a [u8],
}

/// Bytes that can be no frame: the connection has to end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not a frame.
    #[error("frame magic {0:#010x} is wrong: not a Highwater client, or out of step")]
    Magic(u32),
    /// Unknown kind.
    #[error("frame kind {0:#06x} is not known")]
    Kind(u16),
    /// Too long; found before anything is allocated.
    #[error("frame of {bytes} bytes; the limit is {limit}")]
    TooLarge {
        /// Announced size.
        bytes: u64,
        /// The limit.
        limit: usize,
    },
    /// Damaged on the way.
    #[error("frame checksum {found:#010x}, expected {expected:#010x}")]
    Checksum {
        /// Computed.
        found: u32,
        /// In the header.
        expected: u32,
    },
}

/// Outcome of looking for a frame at the start of a buffer.
#[derive(Debug)]
pub enum Decoded<'a> {
    /// A whole frame, and how many bytes it took.
    Frame(Frame<'a>, usize),
    /// The frame will have this many bytes in all; fewer are there. (The header's own size while even that
    /// is incomplete.)
    Need(usize),
}

/// Looks for a frame of at most `max_frame` bytes at the start of `bytes`.
pub fn decode_frame(bytes: &[u8], max_frame: usize) -> Result<Decoded<'_>, FrameError> {
    let Some(header) = FrameHeader::view(bytes) else {
        // Refuse what is wrong from its first bytes, rather than wait for more of it.
        if let Some(magic) = bytes.first_chunk::<4>()
            && u32::from_le_bytes(*magic) != FRAME_MAGIC
        {
            return Err(FrameError::Magic(u32::from_le_bytes(*magic)));
        }
        return Ok(Decoded::Need(FRAME_HEADER_LEN));
    };
    if header.magic.to_native() != FRAME_MAGIC {
        return Err(FrameError::Magic(header.magic.to_native()));
    }
    let number = header.kind.to_native();
    let kind = Kind::from_number(number).ok_or(FrameError::Kind(number))?;
    let control_len = header.control_len.to_native() as usize;
    let total = FRAME_HEADER_LEN as u64
        + u64::from(header.control_len.to_native())
        + u64::from(header.data_len.to_native());
    let limit = max_frame.min(if control_len > MAX_CONTROL { MAX_CONTROL } else { max_frame });
    if total > limit as u64 {
        return Err(FrameError::TooLarge { bytes: total, limit });
    }
    let total = total as usize;
    // The checksum covers header and control part: verify as soon as those are there, so that a damaged
    // length does not make the connection wait for bytes that never come.
    let control_end = FRAME_HEADER_LEN + control_len;
    let Some(control) = bytes.get(FRAME_HEADER_LEN..control_end) else {
        return Ok(Decoded::Need(total));
    };
    let (found, expected) = (checksum(bytes, control), header.crc.to_native());
    if found != expected {
        return Err(FrameError::Checksum { found, expected });
    }
    let Some(data) = bytes.get(control_end..total) else {
        return Ok(Decoded::Need(total));
    };
    let correlation = header.correlation.to_native();
    Ok(Decoded::Frame(Frame { kind, correlation, control, data }, total))
}

/// Control parts on the data path are short: one pass over a copy costs a hundredth of combining two sums.
const SHORT: usize = 128;

fn checksum(header: &[u8], control: &[u8]) -> u32 {
    if control.len() <= SHORT {
        let mut both = [0; 24 + SHORT];
        both[..24].copy_from_slice(&header[..24]);
        both[24..24 + control.len()].copy_from_slice(control);
        return crc32c(&both[..24 + control.len()]);
    }
    crc32c_combine(crc32c(&header[..24]), crc32c(control), control.len() as u64)
}

/// The header and control part of a frame whose `data_len` bytes of data are sent from elsewhere.
pub fn encode_frame_header(
    out: &mut Vec<u8>,
    kind: Kind,
    correlation: u64,
    control: &[u8],
    data_len: usize,
) {
    let mut bytes = unsummed(kind, correlation, control.len(), data_len);
    let crc = checksum(&bytes, control);
    bytes[24..28].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&bytes);
    out.extend_from_slice(control);
}

/// The header alone of a frame without data whose control part, of `control_len` bytes and with the CRC32C
/// `control_crc`, is sent from elsewhere: one that many receive is summed once.
pub fn encode_bare_header(
    out: &mut Vec<u8>,
    kind: Kind,
    correlation: u64,
    control_len: usize,
    control_crc: u32,
) {
    let mut bytes = unsummed(kind, correlation, control_len, 0);
    let crc = crc32c_combine(crc32c(&bytes[..24]), control_crc, control_len as u64);
    bytes[24..28].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&bytes);
}

/// A header without its checksum.
fn unsummed(
    kind: Kind,
    correlation: u64,
    control_len: usize,
    data_len: usize,
) -> [u8; FrameHeader::LEN] {
    let header = FrameHeader {
        magic: FRAME_MAGIC.into(),
        kind: (kind as u16).into(),
        flags: 0.into(),
        correlation: correlation.into(),
        control_len: (control_len as u32).into(),
        data_len: (data_len as u32).into(),
        crc: 0.into(),
        reserved: 0.into(),
    };
    header.to_array()
}

/// A whole frame, appended to `out`.
pub fn encode_frame(out: &mut Vec<u8>, kind: Kind, correlation: u64, control: &[u8], data: &[u8]) {
    encode_frame_header(out, kind, correlation, control, data.len());
    out.extend_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_control_part_sent_from_elsewhere_makes_the_same_frame(
            control in prop::collection::vec(any::<u8>(), 0..300), correlation: u64) {
            let (mut whole, mut parts) = (Vec::new(), Vec::new());
            encode_frame_header(&mut whole, Kind::ControlReply, correlation, &control, 0);
            let crc = crc32c(&control);
            encode_bare_header(&mut parts, Kind::ControlReply, correlation, control.len(), crc);
            parts.extend_from_slice(&control);
            prop_assert_eq!(parts, whole);
        }

        #[test]
        fn frames_cut_anywhere_are_waited_for(control in prop::collection::vec(any::<u8>(), 0..60),
                                              data in prop::collection::vec(any::<u8>(), 0..200),
                                              correlation: u64) {
            let mut bytes = Vec::new();
            encode_frame(&mut bytes, Kind::Append, correlation, &control, &data);
            for cut in 0..bytes.len() {
                let Ok(Decoded::Need(n)) = decode_frame(&bytes[..cut], 4096) else { panic!("cut {cut}") };
                prop_assert!(n > cut && n <= bytes.len());
            }
            let Ok(Decoded::Frame(frame, used)) = decode_frame(&bytes, 4096) else { panic!() };
            prop_assert_eq!(used, bytes.len());
            prop_assert_eq!((frame.correlation, frame.control, frame.data), (correlation, &control[..], &data[..]));
        }

        #[test]
        fn a_flipped_bit_in_header_or_control_is_no_frame(bit in 0usize..(32 + 20) * 8) {
            let mut bytes = Vec::new();
            encode_frame(&mut bytes, Kind::Fetch, 7, &[9; 20], &[1; 50]);
            // Bytes 28..32 are reserved and not read.
            prop_assume!(!(28 * 8..32 * 8).contains(&bit));
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!matches!(decode_frame(&bytes, 4096), Ok(Decoded::Frame(..))));
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode_frame(&bytes, 1 << 20);
        }
    }

    #[test]
    fn an_oversized_frame_is_refused_from_its_header() {
        let mut bytes = Vec::new();
        encode_frame_header(&mut bytes, Kind::Append, 1, &[], u32::MAX as usize);
        assert!(matches!(decode_frame(&bytes, 1 << 20), Err(FrameError::TooLarge { .. })));
    }
}
