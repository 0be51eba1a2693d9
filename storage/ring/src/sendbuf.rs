//! Bytes on their way to a socket: owned, or a range of a log buffer that was just written.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio_uring::buf::IoBuf;

use crate::buffer::SharedBuf;

/// A buffer that tokio-uring can send without a copy, for `writev(Vec<SendBuf>)`.
#[derive(Clone, Debug)]
pub enum SendBuf {
    /// Bytes of its own.
    Owned(Vec<u8>),
    /// `buf[start..end]`, kept alive until sent. Make it with [`SendBuf::shared`].
    Shared {
        /// The log buffer.
        buf: SharedBuf,
        /// First byte to send.
        start: usize,
        /// One past the last byte to send.
        end: usize,
    },
    /// Bytes that others send as well, from `start` on.
    Common {
        /// All of them.
        bytes: Arc<Vec<u8>>,
        /// First byte to send.
        start: usize,
    },
}

impl SendBuf {
    /// A range of a shared buffer.
    ///
    /// # Panics
    /// When the range is not within the buffer.
    pub fn shared(buf: SharedBuf, start: usize, end: usize) -> SendBuf {
        assert!(start <= end && end <= buf.len(), "range {start}..{end} of {} bytes", buf.len());
        SendBuf::Shared { buf, start, end }
    }

    /// Bytes left to send.
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether nothing is left to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes left to send. A `Shared` made by hand with a range outside its buffer is empty.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            SendBuf::Owned(bytes) => bytes,
            SendBuf::Shared { buf, start, end } => buf.get(*start..*end).unwrap_or_default(),
            SendBuf::Common { bytes, start } => bytes.get(*start..).unwrap_or_default(),
        }
    }

    /// Drops the first `n` bytes (all, if there are fewer): after a short write. An owned buffer moves
    /// what is left to its front.
    pub fn advance(&mut self, n: usize) {
        match self {
            SendBuf::Owned(bytes) => {
                bytes.drain(..n.min(bytes.len()));
            }
            SendBuf::Shared { start, end, .. } => *start = start.saturating_add(n).min(*end),
            SendBuf::Common { bytes, start } => *start = start.saturating_add(n).min(bytes.len()),
        }
    }
}

/// Buffers that [`send_now`] sends in a call; of more, the first.
pub const SEND_NOW: usize = 64;

/// Sends the first of `bufs` as far as the socket takes them now: the number of bytes. It never blocks, and takes one
/// system call where a ring takes three, and its answer a turn.
///
/// # Errors
/// `WouldBlock` when the socket takes nothing now; whatever else the kernel answers.
pub fn send_now(socket: &impl AsRawFd, bufs: &[SendBuf]) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); SEND_NOW];
    let count = bufs.len().min(SEND_NOW);
    for (slice, buf) in slices.iter_mut().zip(bufs) {
        *slice = IoSlice::new(buf.as_slice());
    }
    // SAFETY: `socket` is borrowed for as long as the descriptor is, and does not close it meanwhile.
    let socket = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    Ok(sendmsg(socket, &slices[..count], &mut SendAncillaryBuffer::default(), flags)?)
}

impl From<Vec<u8>> for SendBuf {
    fn from(bytes: Vec<u8>) -> SendBuf {
        SendBuf::Owned(bytes)
    }
}

// SAFETY: the bytes live on the heap or in a pool region, so their address stays when the `SendBuf` is
// moved; they are initialised and are not changed while this value owns them (a `SharedBuf` is immutable;
// a `Vec` needs `&mut`, which tokio-uring, holding the value, does not give out, and an `Arc` only to its
// last holder). `as_slice` checks the range, so pointer and length always agree.
unsafe impl IoBuf for SendBuf {
    fn stable_ptr(&self) -> *const u8 {
        self.as_slice().as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len()
    }

    fn bytes_total(&self) -> usize {
        self.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::AlignedBuf;

    #[test]
    fn advances_within_its_range() {
        let mut buf = AlignedBuf::alloc(4096);
        for (i, byte) in buf.iter_mut().enumerate() {
            *byte = i as u8;
        }
        let mut send = SendBuf::shared(buf.freeze(), 10, 20);
        assert_eq!((send.len(), send.bytes_init()), (10, 10));
        send.advance(4);
        assert_eq!(send.as_slice(), &[14, 15, 16, 17, 18, 19]);
        send.advance(100);
        assert!(send.is_empty());

        let bytes = Arc::new(vec![1, 2, 3]);
        let mut send = SendBuf::Common { bytes: Arc::clone(&bytes), start: 0 };
        send.advance(2);
        assert_eq!((send.as_slice(), send.stable_ptr()), (&[3][..], bytes[2..].as_ptr()));
        send.advance(2);
        assert!(send.is_empty());

        let mut send = SendBuf::from(vec![1, 2, 3]);
        send.advance(1);
        assert_eq!(send.as_slice(), &[2, 3]);
        send.advance(9);
        assert!(send.is_empty());
    }

    #[test]
    #[should_panic(expected = "range")]
    fn a_range_outside_is_refused() {
        SendBuf::shared(AlignedBuf::alloc(4096).freeze(), 0, 4097);
    }
}
