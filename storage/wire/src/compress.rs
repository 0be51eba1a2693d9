//! Compression of a batch's body: by the client, once; stored and delivered as it came. Whoever looks inside
//! inflates into memory bounded beforehand: the size a batch announces is held against a limit first, and not a
//! byte is written beyond it.

use zstd::bulk::{Compressor, Decompressor};

use crate::batch::seal;
use crate::{BatchError, BatchHeader, BatchView, padded};

/// Zstandard's level: the fastest of its ordinary ones. The client compresses on the way of a record.
const ZSTD_LEVEL: i32 = 1;

/// How the body of a batch is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Compression {
    /// Not at all.
    #[default]
    None = 0,
    /// An LZ4 block: little work, some gain.
    Lz4 = 1,
    /// A Zstandard frame: more of both.
    Zstd = 2,
}

impl Compression {
    /// All there are.
    pub const ALL: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd];

    /// By its number in a batch header; `None` for one this build does not know.
    pub fn from_tag(tag: u8) -> Option<Compression> {
        Compression::ALL.into_iter().find(|known| *known as u8 == tag)
    }

    /// `none`, `lz4` or `zstd`.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

impl std::fmt::Display for Compression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is none of [`Compression`]'s.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("compression {0:?} is not known; there are none, lz4 and zstd")]
pub struct UnknownCompression(String);

impl std::str::FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(name: &str) -> Result<Compression, UnknownCompression> {
        let known = Compression::ALL.into_iter().find(|known| known.name() == name);
        known.ok_or_else(|| UnknownCompression(name.to_owned()))
    }
}

/// Compresses batches, one after the other, with the same working memory.
#[derive(Default)]
pub struct Packer {
    compression: Compression,
    zstd: Option<Compressor<'static>>,
    packed: Vec<u8>,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").field("compression", &self.compression).finish_non_exhaustive()
    }
}

impl Packer {
    /// That compresses so.
    pub fn new(compression: Compression) -> Packer {
        Packer { compression, ..Packer::default() }
    }

    /// Compresses the body of a finished batch, unless that would not make it shorter.
    pub fn pack(&mut self, batch: &mut Vec<u8>) {
        let Ok(view) = BatchView::parse(batch) else { return };
        if self.compression == Compression::None || view.header().compression != 0 {
            return;
        }
        let (mut header, body) = (*view.header(), view.body());
        let Some(packed) = self.squeeze(body) else { return };
        if padded(packed) >= body.len() {
            return;
        }
        let length = BatchHeader::LEN + padded(packed);
        batch.truncate(BatchHeader::LEN);
        batch.extend_from_slice(&self.packed[..packed]);
        batch.resize(length, 0);
        header.compression = self.compression as u8;
        header.packed_length = (packed as u32).into();
        header.length = (length as u32).into();
        header.write_to(batch);
        seal(batch);
    }

    /// Bytes of the compressed body, now in `packed`.
    fn squeeze(&mut self, body: &[u8]) -> Option<usize> {
        match self.compression {
            Compression::None => None,
            Compression::Lz4 => {
                // It wants room for the worst case.
                self.packed.resize(lz4_flex::block::get_maximum_output_size(body.len()), 0);
                lz4_flex::block::compress_into(body, &mut self.packed).ok()
            }
            Compression::Zstd => {
                let zstd = match &mut self.zstd {
                    Some(zstd) => zstd,
                    none => none.insert(Compressor::new(ZSTD_LEVEL).ok()?),
                };
                // What does not fit is not worth it.
                self.packed.resize(body.len(), 0);
                zstd.compress_to_buffer(body, &mut self.packed[..]).ok()
            }
        }
    }
}

/// Inflates batches, one after the other, with the same working memory.
#[derive(Default)]
pub struct Unpacker {
    zstd: Option<Decompressor<'static>>,
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacker").finish_non_exhaustive()
    }
}

impl Unpacker {
    /// The body of a batch as it was before compression, in place of what `body` holds. The whole batch, inflated,
    /// may have `limit` bytes; that is checked before any memory is taken. The checksum is not looked at.
    ///
    /// # Errors
    /// [`BatchError::TooLarge`], [`BatchError::Unsupported`], and [`BatchError::Packed`] for what does not inflate
    /// to exactly the length announced.
    pub fn unpack_into(
        &mut self,
        batch: &BatchView<'_>,
        limit: u32,
        body: &mut Vec<u8>,
    ) -> Result<(), BatchError> {
        body.clear();
        self.append_body(batch, limit, body)
    }

    /// Adds to `batches` the whole batch as it was before compression: with the same stamps, and a checksum of its
    /// own. Bounds and errors as for [`unpack_into`](Self::unpack_into); after one, nothing was added.
    pub fn unpack_batch(
        &mut self,
        batch: &BatchView<'_>,
        limit: u32,
        batches: &mut Vec<u8>,
    ) -> Result<(), BatchError> {
        let before = batches.len();
        batches.extend_from_slice(&batch.header().to_array());
        if let Err(error) = self.append_body(batch, limit, batches) {
            batches.truncate(before);
            return Err(error);
        }
        if batch.header().compression != 0 {
            let whole = &mut batches[before..];
            let mut header = *batch.header();
            header.compression = 0;
            header.packed_length = 0.into();
            header.length = (whole.len() as u32).into();
            header.write_to(whole);
            seal(whole);
        }
        Ok(())
    }

    fn append_body(
        &mut self,
        batch: &BatchView<'_>,
        limit: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), BatchError> {
        let (header, from) = (batch.header(), out.len());
        let compression = Compression::from_tag(header.compression).ok_or({
            BatchError::Unsupported { field: "compression", value: header.compression }
        })?;
        let length = header.body_length.to_native();
        let bytes = BatchHeader::LEN as u64 + u64::from(length);
        if bytes > u64::from(limit) {
            return Err(BatchError::TooLarge { bytes, limit });
        }
        if compression == Compression::None {
            if length as usize != batch.body().len() || header.packed_length.to_native() != 0 {
                return Err(BatchError::Length(length));
            }
            out.extend_from_slice(batch.body());
            return Ok(());
        }
        let packed = batch.packed()?;
        out.resize(from + length as usize, 0);
        let room = &mut out[from..];
        let inflated = match compression {
            Compression::Lz4 => lz4_flex::block::decompress_into(packed, room).ok(),
            _ => self.zstd(packed, room),
        };
        if inflated != Some(length as usize) {
            out.truncate(from);
            return Err(BatchError::Packed { compression, length });
        }
        Ok(())
    }

    fn zstd(&mut self, packed: &[u8], room: &mut [u8]) -> Option<usize> {
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => none.insert(Decompressor::new().ok()?),
        };
        zstd.decompress_to_buffer(packed, room).ok()
    }
}

#[cfg(test)]
mod tests;
