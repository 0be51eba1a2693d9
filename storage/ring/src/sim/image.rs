//! One simulated file: what is stable on the device, and the volatile cache of sectors before it.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

/// What a device writes in one piece, in bytes.
pub(super) const SECTOR: usize = 512;
const PAGE: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Image {
    pub(super) len: u64,
    /// By page; a page that is missing is all zeroes.
    stable: BTreeMap<u64, Box<[u8; PAGE]>>,
    /// By sector; newest version only.
    cache: BTreeMap<u64, Cached>,
    /// Pages that were ever written, or all of them.
    written: BTreeSet<u64>,
    all_written: bool,
}

#[derive(Debug)]
struct Cached {
    /// When its write completed.
    seq: u64,
    /// A flush of it failed: no later one will try again, though reads still show it.
    lost: bool,
    data: Box<[u8; SECTOR]>,
}

impl Image {
    pub(super) fn new(len: u64, all_written: bool) -> Image {
        Image { len, all_written, ..Image::default() }
    }

    /// Reads up to `buf.len()` bytes, the cache over the stable image; returns how many there are.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> usize {
        let len = (self.len.saturating_sub(offset)).min(buf.len() as u64) as usize;
        for (i, sector) in buf[..len].chunks_mut(SECTOR).enumerate() {
            let number = offset / SECTOR as u64 + i as u64;
            match self.cache.get(&number) {
                Some(cached) => sector.copy_from_slice(&cached.data[..sector.len()]),
                None => self.read_stable(number, sector),
            }
        }
        len
    }

    fn read_stable(&self, number: u64, sector: &mut [u8]) {
        let at = (number as usize % (PAGE / SECTOR)) * SECTOR;
        match self.stable.get(&(number / (PAGE / SECTOR) as u64)) {
            Some(page) => sector.copy_from_slice(&page[at..at + sector.len()]),
            None => sector.fill(0),
        }
    }

    fn write_stable(&mut self, number: u64, data: &[u8]) {
        let page = number / (PAGE / SECTOR) as u64;
        let at = (number as usize % (PAGE / SECTOR)) * SECTOR;
        if let Some(page) = self.stable.get_mut(&page) {
            page[at..at + data.len()].copy_from_slice(data);
        } else if data.iter().any(|&b| b != 0) {
            let mut fresh = Box::new([0; PAGE]);
            fresh[at..at + data.len()].copy_from_slice(data);
            self.stable.insert(page, fresh);
        }
    }

    /// A write completes. `keep`: a flush is under way that promised everything up to this number, so an
    /// older version that it covers becomes stable before it is replaced.
    pub(super) fn write(
        &mut self,
        offset: u64,
        data: &[u8],
        durable: bool,
        seq: u64,
        keep: Option<u64>,
    ) {
        self.len = self.len.max(offset + data.len() as u64);
        for (i, sector) in data.chunks(SECTOR).enumerate() {
            self.write_sector(offset / SECTOR as u64 + i as u64, sector, durable, seq, keep);
        }
        if !self.all_written {
            let pages = offset / PAGE as u64..(offset + data.len() as u64).div_ceil(PAGE as u64);
            self.written.extend(pages);
        }
    }

    /// A write that failed or was cut off: each sector arrives with probability `p`, in the cache or stable.
    pub(super) fn write_partly(
        &mut self,
        offset: u64,
        data: &[u8],
        to_stable: bool,
        seq: u64,
        p: f64,
        rng: &mut Rng,
    ) {
        for (i, sector) in data.chunks(SECTOR).enumerate() {
            if rng.f64() < p {
                let number = offset / SECTOR as u64 + i as u64;
                if number * SECTOR as u64 + sector.len() as u64 <= self.len {
                    self.write_sector(number, sector, to_stable, seq, None);
                }
            }
        }
    }

    fn write_sector(
        &mut self,
        number: u64,
        data: &[u8],
        durable: bool,
        seq: u64,
        keep: Option<u64>,
    ) {
        let old = self.cache.remove(&number);
        if durable {
            return self.write_stable(number, data);
        }
        if let (Some(old), Some(keep)) = (&old, keep)
            && old.seq <= keep
            && !old.lost
        {
            let bytes = *old.data;
            self.write_stable(number, &bytes);
        }
        let mut bytes = Box::new([0; SECTOR]);
        self.read_stable(number, &mut bytes[..]);
        if bytes[..data.len()] == *data {
            return; // nothing to lose
        }
        bytes[..data.len()].copy_from_slice(data);
        self.cache.insert(number, Cached { seq, lost: false, data: bytes });
    }

    /// A flush succeeds that covers what completed up to `upto`.
    pub(super) fn sync(&mut self, upto: u64) {
        let covered: Vec<u64> =
            self.cache.iter().filter(|(_, c)| c.seq <= upto && !c.lost).map(|(&n, _)| n).collect();
        for number in covered {
            if let Some(cached) = self.cache.remove(&number) {
                self.write_stable(number, &cached.data[..]);
            }
        }
    }

    /// A flush fails: what it covered stays visible and is never written.
    pub(super) fn fail_sync(&mut self, upto: u64) {
        for cached in self.cache.values_mut().filter(|c| c.seq <= upto) {
            cached.lost = true;
        }
    }

    /// The power goes: each cached sector is stable after all with probability `p`, and gone otherwise.
    pub(super) fn power_cut(&mut self, p: f64, rng: &mut Rng) {
        for (number, cached) in std::mem::take(&mut self.cache) {
            if !cached.lost && rng.f64() < p {
                self.write_stable(number, &cached.data[..]);
            }
        }
    }

    /// Flips a bit, in whatever version a read shows and in the stable one.
    pub(super) fn flip(&mut self, offset: u64, bit: u8) {
        let number = offset / SECTOR as u64;
        let at = (offset % SECTOR as u64) as usize;
        let mask = 1 << (bit % 8);
        if let Some(cached) = self.cache.get_mut(&number) {
            cached.data[at] ^= mask;
        }
        let mut sector = [0; SECTOR];
        self.read_stable(number, &mut sector);
        sector[at] ^= mask;
        self.write_stable(number, &sector);
    }

    /// Where the first page lies that was never written; its length if all were.
    pub(super) fn written_to(&self) -> u64 {
        if self.all_written {
            return self.len;
        }
        let pages = (0..).zip(&self.written).take_while(|(at, page)| at == *page).count() as u64;
        (pages * PAGE as u64).min(self.len)
    }

    /// Sectors that a power cut could take.
    pub(super) fn volatile_sectors(&self) -> usize {
        self.cache.len()
    }
}
