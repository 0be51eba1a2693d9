//! Fixed-size headers: pointer-free rkyv structs on explicit little-endian integers, read in place.

/// Declares a fixed header: a `repr(C)` rkyv [`Portable`](rkyv::Portable) struct with alignment 1, its
/// size checked at compile time, `view` to read one in place and `write_to` to lay one down.
///
/// An all-zero header is a valid view: check magic and checksum first.
#[macro_export]
macro_rules! portable_header {
    (
        $(#[$meta:meta])*
        pub struct $name:ident, $size:literal bytes {
            $( $(#[$fmeta:meta])* $field:ident : $ty:ty, )*
        }
    ) => {
        $(#[$meta])*
        #[derive($crate::__rkyv::Portable, $crate::__rkyv::bytecheck::CheckBytes, Clone, Copy, Debug, PartialEq, Eq)]
        #[bytecheck(crate = $crate::__rkyv::bytecheck)]
        #[rkyv(crate = $crate::__rkyv)]
        #[repr(C)]
        pub struct $name {
            $( $(#[$fmeta])* pub $field: $ty, )*
        }

        const _: () = assert!(size_of::<$name>() == $size && align_of::<$name>() == 1);

        impl $name {
            /// Size in bytes.
            pub const LEN: usize = $size;

            /// Reads one in place from the first [`Self::LEN`] bytes; `None` if there are fewer.
            pub fn view(bytes: &[u8]) -> Option<&Self> {
                let bytes = bytes.get(..Self::LEN)?;
                $crate::__rkyv::access::<Self, $crate::__rkyv::rancor::Failure>(bytes).ok()
            }

            /// Writes all fields to the first [`Self::LEN`] bytes of `out`.
            ///
            /// # Panics
            /// If `out` is shorter.
            pub fn write_to(&self, out: &mut [u8]) {
                $(
                    out[std::mem::offset_of!(Self, $field)..][..size_of::<$ty>()]
                        .copy_from_slice(&$crate::FixedBytes::fixed(&self.$field)[..]);
                )*
            }

            /// The header as bytes.
            pub fn to_array(&self) -> [u8; $size] {
                let mut out = [0; $size];
                self.write_to(&mut out);
                out
            }

            /// Name, offset and size in bytes of every field, for documentation and its test.
            pub const FIELDS: &[(&str, usize, usize)] =
                &[ $( (stringify!($field), std::mem::offset_of!(Self, $field), size_of::<$ty>()), )* ];
        }
    };
}

/// Integers with one fixed byte form.
pub trait FixedBytes {
    /// The bytes.
    type Bytes: std::ops::Index<std::ops::RangeFull, Output = [u8]>;
    /// As stored.
    fn fixed(&self) -> Self::Bytes;
}

macro_rules! fixed {
    ($($ty:ty => $n:literal),*) => { $(
        impl FixedBytes for $ty {
            type Bytes = [u8; $n];
            fn fixed(&self) -> [u8; $n] { self.to_native().to_le_bytes() }
        }
    )* };
}
fixed!(rend::unaligned::u16_ule => 2, rend::unaligned::u32_ule => 4, rend::unaligned::u64_ule => 8);

impl FixedBytes for u8 {
    type Bytes = [u8; 1];
    fn fixed(&self) -> [u8; 1] {
        [*self]
    }
}
