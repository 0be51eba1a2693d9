//! Tests of the buffer pool: disjoint, bounded, all returned.

use super::*;
use proptest::prelude::*;

const MIB: usize = 1 << 20;

fn range(buf: &AlignedBuf) -> (usize, usize) {
    let start = buf.as_ptr() as usize;
    (start, start + buf.capacity())
}

#[test]
fn smallest_class_that_fits_aligned_and_zeroed() {
    let pool = BufferPool::new(8 * MIB, 0).unwrap();
    for (len, class) in [
        (0, 4 << 10),
        (1, 4 << 10),
        (4097, 16 << 10),
        (65536, 65536),
        (65537, 256 << 10),
        (MIB, MIB),
    ] {
        let buf = pool.take(len).unwrap();
        assert_eq!(buf.capacity(), class);
        assert_eq!(buf.as_ptr() as usize % BLOCK_ALIGN, 0);
        assert!(buf.iter().all(|&b| b == 0));
    }
    assert_eq!(pool.used_bytes(), 0);
}

#[test]
fn spent_budget_is_none_until_something_returns() {
    let pool = BufferPool::new(2 * MIB, 3 * MIB).unwrap();
    let a = pool.take(MIB).unwrap();
    let b = pool.take(1).unwrap();
    assert!(pool.take(MIB).is_none());
    drop(b);
    let c = pool.take(MIB).unwrap(); // the 4 KiB chunk was wholly free and changed class
    assert!(pool.take(1).is_none());
    drop((a, c));
    let big = pool.take(2 * MIB + 1).unwrap();
    assert_eq!(big.capacity(), 2 * MIB + 4096);
    assert!(pool.take(MIB + 1).is_none());
    assert_eq!(pool.used_bytes(), big.capacity());
    drop(big);
    assert_eq!(pool.used_bytes(), 0);
    assert_eq!(pool.capacity_bytes(), 5 * MIB);
}

#[test]
fn dropped_on_other_threads_they_all_come_back() {
    let pool = BufferPool::new(4 * MIB, 0).unwrap();
    let mut threads = Vec::new();
    for round in 0..32 {
        let bufs: Vec<SharedBuf> =
            (0..16).filter_map(|_| pool.take(64 << 10)).map(AlignedBuf::freeze).collect();
        assert!(round > 0 || bufs.len() == 16);
        threads.push(std::thread::spawn(move || drop(bufs)));
    }
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(pool.used_bytes(), 0);
    let all: Vec<_> = std::iter::from_fn(|| pool.take(4096)).collect();
    assert_eq!(all.len(), 4 * MIB / 4096);
}

#[test]
fn a_pool_outlives_its_handle_through_its_buffers() {
    let pool = BufferPool::new(MIB, 0).unwrap();
    let mut buf = pool.take(4096).unwrap();
    drop(pool);
    buf.fill(7);
    let shared = buf.freeze();
    let other = shared.clone();
    drop(shared);
    assert!(other.iter().all(|&b| b == 7));
}

proptest! {
    #[test]
    fn live_buffers_never_overlap(
        steps in prop::collection::vec((any::<bool>(), 0usize..MIB + 1, any::<prop::sample::Index>()), 1..400),
    ) {
        let pool = BufferPool::new(6 * MIB, 0).unwrap();
        let mut live: Vec<AlignedBuf> = Vec::new();
        for (take, len, which) in steps {
            if take || live.is_empty() {
                if let Some(buf) = pool.take(len) {
                    let (start, end) = range(&buf);
                    prop_assert!(buf.capacity() >= len);
                    for other in &live {
                        let (s, e) = range(other);
                        prop_assert!(end <= s || e <= start);
                    }
                    live.push(buf);
                }
            } else {
                live.swap_remove(which.index(live.len()));
            }
            prop_assert_eq!(pool.used_bytes(), live.iter().map(AlignedBuf::capacity).sum::<usize>());
        }
        live.clear();
        let whole: Vec<_> = std::iter::from_fn(|| pool.take(MIB)).collect();
        prop_assert_eq!(whole.len(), 6);
    }
}
