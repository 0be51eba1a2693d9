//! A window over a file that is read from front to back in large aligned pieces.

use std::io;
use std::path::Path;

use highwater_ring::{AlignedBuf, BLOCK_ALIGN, Files};

use crate::format::page_align;

/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// Reads a file through one buffer.
pub struct Window<'a> {
    files: &'a dyn Files,
    path: &'a Path,
    buf: AlignedBuf,
    piece: usize,
    start: u64,
    len: usize,
}

impl<'a> Window<'a> {
    /// Over `path`, for reading all of it.
    pub fn new(files: &'a dyn Files, path: &'a Path) -> Window<'a> {
        Window::of(files, path, PIECE)
    }

    /// Over `path`, for reading a page here and there.
    pub fn pages(files: &'a dyn Files, path: &'a Path) -> Window<'a> {
        Window::of(files, path, BLOCK_ALIGN)
    }

    fn of(files: &'a dyn Files, path: &'a Path, piece: usize) -> Window<'a> {
        Window { files, path, buf: AlignedBuf::alloc(piece), piece, start: 0, len: 0 }
    }

    /// `len` bytes at `offset` (a multiple of the page size), fewer at the end of the file.
    pub fn get(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let within = offset >= self.start && offset + len as u64 <= self.start + self.len as u64;
        if !within {
            let want = page_align(len).max(self.piece);
            if self.buf.len() < want {
                self.buf = AlignedBuf::alloc(want);
            }
            self.start = offset;
            self.len = self.files.read_at(self.path, offset, &mut self.buf)?;
        }
        let from = (offset - self.start) as usize;
        let to = (from + len).min(self.len);
        Ok(self.buf.get(from..to).unwrap_or_default())
    }

    /// One page at `offset`.
    pub fn page(&mut self, offset: u64) -> io::Result<&[u8]> {
        self.get(offset, BLOCK_ALIGN)
    }
}
