//! Aligned buffers: a pool over one mapped region, in size classes, returned lock-free from any thread.
//!
//! A region of whole 1 MiB chunks is mapped once (2 MiB-aligned, touched lazily). Each chunk serves one
//! size class at a time (4, 16, 64, 256 KiB, 1 MiB); a chunk whose buffers are all back may serve another
//! class. A dropped buffer goes onto a lock-free list, which the next [`BufferPool::take`] drains; so the
//! lock around the bookkeeping is only ever taken by callers of `take`, in practice one thread.
//!
//! Memory is always initialised (the kernel maps zeroes), but a recycled buffer keeps the bytes of its
//! previous use: whoever sends or writes a buffer must have filled what it sends.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_queue::SegQueue;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::vocab::BLOCK_ALIGN;

const CHUNK: usize = 1 << 20;
const HUGE: usize = 2 << 20;
/// Buffer capacities of the classes, in bytes.
const CLASSES: [usize; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, CHUNK];

/// A pool of aligned buffers. Clones share it. See the module's page for how it works.
#[derive(Clone)]
pub struct BufferPool {
    shared: Arc<Shared>,
}

struct Shared {
    /// Start of the mapping (as mapped) and its length, for unmapping.
    map: *mut u8,
    map_len: usize,
    /// First 2 MiB-aligned address in it, and the bytes used from there (whole chunks).
    region: *mut u8,
    region_len: usize,
    large_limit: usize,
    /// Bytes out (capacity) of the region, and of the large allocations.
    used: AtomicUsize,
    large_used: AtomicUsize,
    /// Dropped buffers: byte offset in the region / 4 KiB.
    returned: SegQueue<u32>,
    state: Mutex<State>,
}

// SAFETY: the raw pointers name a private anonymous mapping that lives as long as `Shared`. The bytes in
// it are only reached through `AlignedBuf`s, which own disjoint ranges; all bookkeeping is atomic or
// behind the mutex.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

struct State {
    /// Chunks that serve no class.
    free: Vec<u32>,
    /// Per class, the chunks with at least one free buffer.
    partial: [Vec<u32>; CLASSES.len()],
    chunks: Vec<Chunk>,
}

#[derive(Clone, Copy)]
struct Chunk {
    class: u8,
    free_count: u16,
    /// Where it stands in its class's `partial`, if there.
    at: u32,
    /// One bit per buffer, set when free.
    free: [u64; 4],
}

const NOWHERE: u32 = u32::MAX;

impl BufferPool {
    /// Maps a region of `region_bytes` (rounded up to whole MiB; may be 0) and allows `large_bytes` more
    /// for buffers above 1 MiB, which are allocated one by one.
    ///
    /// # Errors
    /// When the kernel refuses the mapping (`ENOMEM`), or the region is above 16 TiB.
    pub fn new(region_bytes: usize, large_bytes: usize) -> io::Result<BufferPool> {
        let region_len = region_bytes
            .checked_next_multiple_of(CHUNK)
            .filter(|len| len / BLOCK_ALIGN <= u32::MAX as usize)
            .ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidInput, "buffer region too large")
            })?;
        let map_len = region_len + HUGE;
        // SAFETY: an anonymous private mapping at an address the kernel chooses touches no existing memory.
        let map = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                map_len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?
        .cast::<u8>();
        let skip = map.align_offset(HUGE);
        // SAFETY: skip < HUGE, and the mapping has HUGE bytes more than the region.
        let region = unsafe { map.add(skip) };
        if region_len > 0 {
            // SAFETY: advice only, on our own mapping. Without huge pages it merely runs on small ones.
            let _ = unsafe { madvise(region.cast(), region_len, Advice::LinuxHugepage) };
        }
        let count = u32::try_from(region_len / CHUNK).unwrap_or(0);
        let state = State {
            free: (0..count).rev().collect(),
            partial: Default::default(),
            chunks: vec![
                Chunk { class: 0, free_count: 0, at: NOWHERE, free: [0; 4] };
                count as usize
            ],
        };
        Ok(BufferPool {
            shared: Arc::new(Shared {
                map,
                map_len,
                region,
                region_len,
                large_limit: large_bytes,
                used: AtomicUsize::new(0),
                large_used: AtomicUsize::new(0),
                returned: SegQueue::new(),
                state: Mutex::new(state),
            }),
        })
    }

    /// A buffer of the smallest class that holds `len` bytes (capacity ≥ `len`); above 1 MiB, one of its
    /// own, rounded up to 4 KiB, out of the separate budget. `None` when the budget is spent: nothing
    /// waits here. Bytes are initialised but stale (see the module's page).
    pub fn take(&self, len: usize) -> Option<AlignedBuf> {
        if len > CHUNK {
            return self.take_apart(len, self.shared.large_limit);
        }
        let class = CLASSES.iter().position(|&size| size >= len)?;
        let offset = {
            let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            while let Some(slot) = self.shared.returned.pop() {
                state.give_back(slot as usize * BLOCK_ALIGN);
            }
            state.take(class)?
        };
        let cap = CLASSES[class];
        self.shared.used.fetch_add(cap, Ordering::Relaxed);
        // SAFETY: offset + cap lies in the region; a region pointer is never null.
        let ptr = unsafe { NonNull::new_unchecked(self.shared.region.add(offset)) };
        Some(AlignedBuf { ptr, cap, home: Home::Region(Arc::clone(&self.shared)) })
    }

    /// A buffer of its own whatever its size, out of the budget for large ones as long as no more than `limit` bytes
    /// of that are out afterwards.
    pub fn take_apart(&self, len: usize, limit: usize) -> Option<AlignedBuf> {
        let cap = len.max(1).checked_next_multiple_of(BLOCK_ALIGN)?;
        let limit = limit.min(self.shared.large_limit);
        self.shared
            .large_used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(cap).filter(|&sum| sum <= limit)
            })
            .ok()?;
        match allocate(cap) {
            Some(ptr) => Some(AlignedBuf { ptr, cap, home: Home::Large(Arc::clone(&self.shared)) }),
            None => {
                self.shared.large_used.fetch_sub(cap, Ordering::Relaxed);
                None
            }
        }
    }

    /// Bytes now out (capacity of the live buffers, large ones included).
    pub fn used_bytes(&self) -> usize {
        self.shared.used.load(Ordering::Relaxed) + self.shared.large_used.load(Ordering::Relaxed)
    }

    /// Bytes of the region in use (buffers above 1 MiB come from elsewhere).
    pub fn region_used(&self) -> usize {
        self.shared.used.load(Ordering::Relaxed)
    }

    /// Bytes of the region.
    pub fn region_bytes(&self) -> usize {
        self.shared.region_len
    }

    /// Bytes of the budget for large buffers.
    pub fn large_bytes(&self) -> usize {
        self.shared.large_limit
    }

    /// Bytes this pool may ever have out: the region and the budget for large buffers.
    pub fn capacity_bytes(&self) -> usize {
        self.shared.region_len + self.shared.large_limit
    }

    /// Start and length of the region in bytes, for registering it with a ring.
    pub(crate) fn region(&self) -> (*mut u8, usize) {
        (self.shared.region, self.shared.region_len)
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufferPool({} of {} B)", self.used_bytes(), self.capacity_bytes())
    }
}

impl State {
    /// Offset in the region of a free buffer of the class.
    fn take(&mut self, class: usize) -> Option<usize> {
        let size = CLASSES[class];
        if self.partial[class].is_empty() {
            let chunk = self.free.pop()?;
            let count = CHUNK / size;
            let mut free = [0u64; 4];
            for (i, word) in free.iter_mut().enumerate() {
                *word = match count.saturating_sub(i * 64) {
                    0 => 0,
                    left @ 1..64 => (1 << left) - 1,
                    _ => u64::MAX,
                };
            }
            self.chunks[chunk as usize] =
                Chunk { class: class as u8, free_count: count as u16, at: 0, free };
            self.partial[class].push(chunk);
        }
        let chunk = *self.partial[class].last()?;
        let entry = &mut self.chunks[chunk as usize];
        let word = entry.free.iter().position(|&bits| bits != 0)?;
        let bit = entry.free[word].trailing_zeros() as usize;
        entry.free[word] &= !(1 << bit);
        entry.free_count -= 1;
        if entry.free_count == 0 {
            entry.at = NOWHERE;
            self.partial[class].pop();
        }
        Some(chunk as usize * CHUNK + (word * 64 + bit) * size)
    }

    fn give_back(&mut self, offset: usize) {
        let chunk = offset / CHUNK;
        let Some(entry) = self.chunks.get_mut(chunk) else { return };
        let class = usize::from(entry.class);
        let size = CLASSES[class];
        let i = (offset % CHUNK) / size;
        debug_assert_eq!(entry.free[i / 64] & (1 << (i % 64)), 0, "returned twice");
        entry.free[i / 64] |= 1 << (i % 64);
        entry.free_count += 1;
        if entry.at == NOWHERE {
            entry.at = self.partial[class].len() as u32;
            self.partial[class].push(chunk as u32);
        }
        if usize::from(entry.free_count) == CHUNK / size {
            let at = entry.at as usize;
            entry.at = NOWHERE;
            self.partial[class].swap_remove(at);
            if let Some(&moved) = self.partial[class].get(at) {
                self.chunks[moved as usize].at = at as u32;
            }
            self.free.push(chunk as u32);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no buffer of it is left: each holds an Arc of this struct. What
        // the kernel may still write to is held by its disk, which then leaks the buffers.
        let _ = unsafe { munmap(self.map.cast(), self.map_len) };
    }
}

/// Zeroed memory aligned to [`BLOCK_ALIGN`]; `cap` is a nonzero multiple of it.
fn allocate(cap: usize) -> Option<NonNull<u8>> {
    let layout = Layout::from_size_align(cap, BLOCK_ALIGN).ok()?;
    // SAFETY: callers never pass a size of zero.
    NonNull::new(unsafe { alloc_zeroed(layout) })
}

/// An owned buffer whose address and capacity are multiples of [`BLOCK_ALIGN`]. Dereferences to its whole
/// capacity; dropping it, on any thread, returns it to its pool.
pub struct AlignedBuf {
    ptr: NonNull<u8>,
    cap: usize,
    home: Home,
}

enum Home {
    Region(Arc<Shared>),
    Large(Arc<Shared>),
    Alone,
}

// SAFETY: an `AlignedBuf` owns its bytes exclusively; its home is `Send + Sync`.
unsafe impl Send for AlignedBuf {}
// SAFETY: a shared reference gives only shared access to the bytes.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// A zeroed buffer of at least `len` bytes (rounded up to 4 KiB) that belongs to no pool: for recovery,
    /// tools and tests.
    ///
    /// # Panics
    /// When `len` is above `isize::MAX`. Aborts when memory is exhausted, as `Vec` does.
    pub fn alloc(len: usize) -> AlignedBuf {
        let cap = len.max(1).next_multiple_of(BLOCK_ALIGN);
        let Some(ptr) = allocate(cap) else {
            match Layout::from_size_align(cap, BLOCK_ALIGN) {
                Ok(layout) => handle_alloc_error(layout),
                Err(_) => panic!("a buffer of {len} bytes cannot exist"),
            }
        };
        AlignedBuf { ptr, cap, home: Home::Alone }
    }

    /// Size in bytes: what it dereferences to.
    pub fn capacity(&self) -> usize {
        self.cap
    }

    /// Makes it shareable and immutable.
    pub fn freeze(self) -> SharedBuf {
        SharedBuf { buf: Arc::new(self) }
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: ptr is valid for cap initialised bytes (zeroed when mapped or allocated) and owned.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.cap) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the exclusive borrow makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.cap) }
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        match &self.home {
            Home::Region(shared) => {
                let offset = self.ptr.as_ptr() as usize - shared.region as usize;
                shared.used.fetch_sub(self.cap, Ordering::Relaxed);
                shared.returned.push((offset / BLOCK_ALIGN) as u32);
            }
            Home::Large(shared) => {
                release(self.ptr, self.cap);
                shared.large_used.fetch_sub(self.cap, Ordering::Relaxed);
            }
            Home::Alone => release(self.ptr, self.cap),
        }
    }
}

fn release(ptr: NonNull<u8>, cap: usize) {
    if let Ok(layout) = Layout::from_size_align(cap, BLOCK_ALIGN) {
        // SAFETY: allocated by `allocate` with this very layout, and dropped once.
        unsafe { dealloc(ptr.as_ptr(), layout) };
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} B)", self.cap)
    }
}

/// An immutable buffer with several owners: written to the disk and sent to consumers at the same time.
/// Goes back to its pool with the last of them.
#[derive(Clone)]
pub struct SharedBuf {
    buf: Arc<AlignedBuf>,
}

impl SharedBuf {
    /// Size in bytes: what it dereferences to.
    pub fn capacity(&self) -> usize {
        self.buf.cap
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.buf.as_ptr()
    }
}

impl Deref for SharedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.buf
    }
}

impl fmt::Debug for SharedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedBuf({} B, {} owners)", self.buf.cap, Arc::strong_count(&self.buf))
    }
}

#[cfg(test)]
mod tests;
