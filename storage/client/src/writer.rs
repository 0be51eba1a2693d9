//! The writing side of a connection: everything queued goes out in one system call where it fits.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;

use highwater_wire::{Kind, encode_frame_header};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;

/// Frames taken from the queue for one write, at most.
const FRAMES: usize = 64;
/// Bodies up to this size are copied beside the headers rather than given a slice of their own.
const COPIED: usize = 8 << 10;

/// A control part: most are small and of fixed size.
#[derive(Debug)]
pub(crate) enum Control {
    Fixed { bytes: [u8; 56], len: u8 },
    Archive(Vec<u8>),
}

impl Control {
    /// A fixed header of at most 56 bytes.
    pub(crate) fn fixed<const N: usize>(header: [u8; N]) -> Control {
        const { assert!(N <= 56) }
        let mut bytes = [0; 56];
        bytes[..N].copy_from_slice(&header);
        Control::Fixed { bytes, len: N as u8 }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Control::Fixed { bytes, len } => &bytes[..usize::from(*len)],
            Control::Archive(bytes) => bytes,
        }
    }
}

/// A frame to send.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub kind: Kind,
    pub correlation: u64,
    pub control: Control,
    pub body: Option<Arc<Vec<u8>>>,
}

/// A piece of a write.
#[derive(Debug)]
enum Piece {
    /// Of the scratch buffer.
    Scratch(Range<usize>),
    /// The body of the frame with this number.
    Body(usize),
}

/// Writes until every sender is gone (then closes) or the connection breaks.
pub(crate) async fn write_loop(
    mut write: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Outgoing>,
) -> io::Result<()> {
    let mut frames = Vec::with_capacity(FRAMES);
    let mut scratch = Vec::new();
    let mut pieces = Vec::with_capacity(2 * FRAMES);
    while queue.recv_many(&mut frames, FRAMES).await > 0 {
        lay_out(&frames, &mut scratch, &mut pieces);
        write_pieces(&mut write, &frames, &scratch, &pieces).await?;
        frames.clear();
    }
    write.shutdown().await
}

/// Encodes headers, control parts and small bodies into `scratch`; `pieces` is the order of it all.
fn lay_out(frames: &[Outgoing], scratch: &mut Vec<u8>, pieces: &mut Vec<Piece>) {
    scratch.clear();
    pieces.clear();
    let mut from = 0;
    for (number, frame) in frames.iter().enumerate() {
        let body = frame.body.as_deref().map_or(&[][..], Vec::as_slice);
        encode_frame_header(
            scratch,
            frame.kind,
            frame.correlation,
            frame.control.bytes(),
            body.len(),
        );
        if body.len() <= COPIED {
            scratch.extend_from_slice(body);
        } else {
            pieces.push(Piece::Scratch(from..scratch.len()));
            pieces.push(Piece::Body(number));
            from = scratch.len();
        }
    }
    if from < scratch.len() {
        pieces.push(Piece::Scratch(from..scratch.len()));
    }
}

async fn write_pieces(
    write: &mut OwnedWriteHalf,
    frames: &[Outgoing],
    scratch: &[u8],
    pieces: &[Piece],
) -> io::Result<()> {
    let mut slices = [IoSlice::new(&[]); 2 * FRAMES];
    for (slice, piece) in slices.iter_mut().zip(pieces) {
        *slice = IoSlice::new(match piece {
            Piece::Scratch(range) => &scratch[range.clone()],
            Piece::Body(number) => frames[*number].body.as_deref().map_or(&[], Vec::as_slice),
        });
    }
    let mut left = &mut slices[..pieces.len()];
    while !left.is_empty() {
        let written = write.write_vectored(left).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut left, written);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_wire::{Decoded, decode_frame};

    #[test]
    fn small_frames_share_a_piece_and_large_bodies_are_not_copied() {
        let frame = |correlation, body: usize| Outgoing {
            kind: Kind::Append,
            correlation,
            control: Control::fixed([correlation as u8; 16]),
            body: Some(Arc::new(vec![7; body])),
        };
        let frames = [frame(1, 10), frame(2, COPIED), frame(3, COPIED + 1), frame(4, 0)];
        let (mut scratch, mut pieces) = (Vec::new(), Vec::new());
        lay_out(&frames, &mut scratch, &mut pieces);
        assert!(matches!(pieces[..], [Piece::Scratch(_), Piece::Body(2), Piece::Scratch(_)]));

        let mut bytes = Vec::new();
        for piece in &pieces {
            match piece {
                Piece::Scratch(range) => bytes.extend_from_slice(&scratch[range.clone()]),
                Piece::Body(n) => bytes.extend_from_slice(frames[*n].body.as_ref().unwrap()),
            }
        }
        let mut rest = &bytes[..];
        for expected in &frames {
            let Ok(Decoded::Frame(found, used)) = decode_frame(rest, 1 << 20) else { panic!() };
            assert_eq!(found.correlation, expected.correlation);
            assert_eq!(found.data.len(), expected.body.as_ref().unwrap().len());
            rest = &rest[used..];
        }
        assert!(rest.is_empty());
    }
}
