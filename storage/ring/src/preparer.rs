//! The preparer: segment files made ready outside the shards' threads.
//!
//! A durable write to a file that was already written costs a third or less of one to a file that is only
//! allocated. So the preparer keeps a pool of written files per size, in a directory of its own: recycled
//! files as they come, new ones filled with zeroes in small steps while there is nothing better to do. A request for
//! a size of which none is ready is met with a smaller one that is, if that will do, and its own size is prepared for
//! the next time; and what has to be made while somebody waits is no larger than needed. So a stream whose segments grow
//! goes on on written files, as long as it is slower than zeroing.
//!
//! Files that are to go are shortened in small steps too. On a file system that tells its device what it no longer
//! needs (mounted with `discard`) removing a written file of 256 MiB at once holds up every other request of the
//! device for 100 to 250 ms; in steps of 4 MiB nothing waits longer than it does anyway.
//!
//! Names in the pool: `<capacity>-<number>.ready`, `.part` while its zeroes are not all there, and `.gone` while it
//! is being removed. Both are hexadecimal. What a former process left: `.part` and `.gone` files are removed; `.ready`
//! ones are settled (its writes may still be landing) and then kept, or removed if that fails.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

use crate::buffer::AlignedBuf;
use crate::vocab::{BLOCK_ALIGN, Files, Job};

mod name;
mod options;
mod thread;
use name::{State, parse_name};
pub use options::PreparerOptions;
pub(crate) use thread::{Gauge, JobPort, Opened};
pub use thread::{PoolStatus, PreparerHandle, spawn_preparer};

/// Bytes of zeroes written in one step of [`Preparer::idle`] while nothing else goes on.
const ZERO_STEP: u64 = 1 << 20;

/// The same beside durable writes, which wait behind it: one of 1 MiB takes 2 ms on a device of 500 MB/s. How often, by
/// how fast these are (`preparer/thread.rs`).
const GENTLE_ZERO_STEP: u64 = 128 << 10;

/// Bytes by which a file that is to go is shortened in one step of [`Preparer::idle`], and at most while much is.
const SHRINK_STEP: u64 = 4 << 20;
const MOST_SHRINK_STEP: u64 = 16 << 20;

/// What a job came to, before its file is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobDone {
    /// The file is there under its name.
    Segment {
        /// Its name.
        path: PathBuf,
        /// Its size in bytes.
        capacity: u64,
        /// Whether its blocks are allocated but not all written.
        cold: bool,
        /// Whether it is to be opened for writing.
        write: bool,
        /// Whether this job made it.
        new: bool,
    },
    /// The name is gone.
    Gone,
}

/// The logic of the preparer, over any [`Files`]; blocking.
pub struct Preparer<F> {
    files: F,
    options: PreparerOptions,
    classes: BTreeMap<u64, Class>,
    /// Files with zeroes still to be written, those with the least left first.
    parts: VecDeque<Part>,
    /// Files that are being removed, and how long each still is. They are not counted as the pool's.
    gone: VecDeque<(PathBuf, u64)>,
    /// Sum of what they still are.
    gone_bytes: u64,
    /// Whether a step of removal comes next, where zeroes are to be written as well.
    removal_next: bool,
    /// Sum of the sizes of all pool files.
    bytes: u64,
    next_number: u64,
    /// Counts `TakeSegment`s, to tell which class was used last.
    takes: u64,
    /// Files that no former process can still be writing to: made, settled or taken by this one.
    trusted: HashSet<PathBuf>,
    counts: Counts,
    last_error: Option<String>,
}

/// What was done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Files made: blocks taken from the file system.
    pub created: u64,
    /// Requests met from the pool.
    pub reused: u64,
    /// Files given back and kept for the next request.
    pub recycled: u64,
}

#[derive(Default)]
struct Class {
    ready: Vec<PathBuf>,
    parts: usize,
    /// Whether to fill it up, and when it was last asked for.
    wanted: bool,
    used: u64,
}

struct Part {
    path: PathBuf,
    capacity: u64,
    /// All before is written.
    at: u64,
}

/// What a step of [`Preparer::idle`] was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Whether there is more to do.
    pub more: bool,
    /// Bytes written whose time on the device it took, about.
    pub cost: u64,
    /// Whether it removed, and did not fill.
    pub removed: bool,
}

impl<F: Files> Preparer<F> {
    /// Opens the pool: takes over what a former process left ready, removes the rest.
    ///
    /// # Errors
    /// When the pool's directory cannot be made or read.
    pub fn new(files: F, options: PreparerOptions) -> io::Result<Preparer<F>> {
        files.create_dir(&options.pool_dir)?;
        let mut preparer = Preparer {
            files,
            classes: BTreeMap::new(),
            parts: VecDeque::new(),
            gone: VecDeque::new(),
            gone_bytes: 0,
            removal_next: true,
            bytes: 0,
            next_number: 0,
            takes: 0,
            trusted: HashSet::new(),
            counts: Counts::default(),
            last_error: None,
            options,
        };
        for name in preparer.files.list(&preparer.options.pool_dir)? {
            let path = preparer.options.pool_dir.join(&name);
            match preparer.adopt(&path, &name) {
                Ok(true) => {}
                Ok(false) if is_big(&preparer.files, &path) => preparer.doom(&path)?,
                Ok(false) => preparer.files.remove(&path)?,
                // Whatever is wrong with it, it is not worth refusing to start.
                Err(_) => {
                    let _ = preparer.files.remove(&path);
                }
            }
        }
        for capacity in preparer.options.prepare.clone() {
            preparer.classes.entry(capacity).or_default().wanted = true;
        }
        Ok(preparer)
    }

    /// Whether the pool file was taken over.
    fn adopt(&mut self, path: &Path, name: &str) -> io::Result<bool> {
        let Some((capacity, number, state)) = parse_name(name) else { return Ok(false) };
        self.next_number = self.next_number.max(number.saturating_add(1));
        if state != State::Ready
            || self.bytes + capacity > self.options.max_bytes
            || self.files.len(path)? != capacity
            || !self.files.is_written(path)?
        {
            return Ok(false);
        }
        self.files.settle(path)?;
        self.bytes += capacity;
        self.classes.entry(capacity).or_default().ready.push(path.to_path_buf());
        Ok(true)
    }

    /// Does one job. Whatever fails, nothing half-done is left behind.
    ///
    /// # Errors
    /// As the file system answers; `ENOSPC` only after the pool has given back what it could.
    pub fn handle(&mut self, job: Job) -> io::Result<JobDone> {
        match job {
            Job::TakeSegment { path, capacity, least } => self.take(path, capacity, least),
            Job::OpenSegment { path, write } => self.open(path, write),
            Job::Recycle { path } => self.recycle(&path),
            Job::RemoveDir { path } => {
                for name in self.files.list(&path)? {
                    let file = path.join(name);
                    if is_big(&self.files, &file) {
                        self.doom(&file)?;
                    }
                }
                self.files.remove_dir(&path)?;
                self.trusted.retain(|known| !known.starts_with(&path));
                Ok(JobDone::Gone)
            }
        }
    }

    fn take(&mut self, path: PathBuf, capacity: u64, least: u64) -> io::Result<JobDone> {
        if capacity == 0 || !capacity.is_multiple_of(BLOCK_ALIGN as u64) {
            let text = format!("segment capacity {capacity} is not a multiple of {BLOCK_ALIGN}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        self.takes += 1;
        self.want_too(capacity);
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            self.files.create_dir(parent)?;
        }
        // A name is asked for once; what is there was left by a request that failed half-way, and never used.
        match self.files.len(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Ok(_) => self.files.remove(&path)?,
            Err(e) => return Err(e),
        }
        if let Some(capacity) = self.take_ready(&path, capacity, least)? {
            self.trusted.insert(path.clone());
            self.counts.reused += 1;
            return Ok(JobDone::Segment { path, capacity, cold: false, write: true, new: true });
        }
        let capacity = cold_size(capacity, least);
        self.want_too(capacity);
        loop {
            match self.create(&path, capacity) {
                Err(e) if is_full(&e) && self.give_way() => {}
                other => break other?,
            }
        }
        self.trusted.insert(path.clone());
        Ok(JobDone::Segment { path, capacity, cold: true, write: true, new: true })
    }

    /// Moves a ready file to `path`: of `capacity`, or the largest below that will do. Its size, or `None` if there is none.
    fn take_ready(&mut self, path: &Path, capacity: u64, least: u64) -> io::Result<Option<u64>> {
        let least = least.min(capacity);
        loop {
            let mut fitting = self.classes.range_mut(least..=capacity).rev();
            let Some((size, ready)) =
                fitting.find_map(|(&size, class)| class.ready.pop().map(|ready| (size, ready)))
            else {
                return Ok(None);
            };
            self.want_too(size);
            self.bytes = self.bytes.saturating_sub(size);
            match self.files.rename(&ready, path) {
                Ok(()) => return Ok(Some(size)),
                // Somebody tidied up the pool: try the next.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => {
                    let _ = self.files.remove(&ready);
                    return Err(e);
                }
            }
        }
    }

    /// Notes that a size was of use: it is to be there the next time.
    fn want_too(&mut self, size: u64) {
        let class = self.classes.entry(size).or_default();
        (class.wanted, class.used) = (true, self.takes);
    }

    /// Makes a file, unless that would leave less free than is kept in reserve: then it is refused before the
    /// file system refuses something that matters more.
    fn create(&mut self, path: &Path, capacity: u64) -> io::Result<()> {
        let reserve = self.options.reserve_bytes;
        // Where the file system does not say, it has to refuse by itself.
        if reserve > 0
            && let Ok((free, _)) = self.files.space()
            && free < capacity.saturating_add(reserve)
        {
            let text = format!(
                "{free} bytes are free; a file of {capacity} would leave less than the {reserve} kept in reserve"
            );
            return Err(io::Error::new(io::ErrorKind::StorageFull, text));
        }
        self.files.create(path, capacity, false)?;
        self.counts.created += 1;
        Ok(())
    }

    fn open(&mut self, path: PathBuf, write: bool) -> io::Result<JobDone> {
        let capacity = self.files.len(&path)?;
        self.settle_once(&path)?;
        let cold = write && !self.files.is_written(&path)?;
        Ok(JobDone::Segment { path, capacity, cold, write, new: false })
    }

    fn settle_once(&mut self, path: &Path) -> io::Result<()> {
        if !self.trusted.contains(path) {
            self.files.settle(path)?;
            self.trusted.insert(path.to_path_buf());
        }
        Ok(())
    }

    fn recycle(&mut self, path: &Path) -> io::Result<JobDone> {
        let capacity = match self.files.len(path) {
            // Done before a crash.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(JobDone::Gone),
            other => other?,
        };
        let fits = capacity > 0
            && capacity.is_multiple_of(BLOCK_ALIGN as u64)
            && capacity <= self.options.max_bytes;
        if !fits || !self.make_room(capacity) {
            self.doom(path)?;
            self.trusted.remove(path);
            return Ok(JobDone::Gone);
        }
        self.settle_once(path)?;
        // A file that was made in a hurry has its end unwritten: what was kept for a seal that came to less.
        let at = self.files.written_to(path)? / BLOCK_ALIGN as u64 * BLOCK_ALIGN as u64;
        let written = at >= capacity;
        let to = self.name(capacity, if written { State::Ready } else { State::Part });
        self.files.rename(path, &to)?;
        self.trusted.remove(path);
        self.bytes += capacity;
        self.counts.recycled += 1;
        let class = self.classes.entry(capacity).or_default();
        if written {
            class.ready.push(to);
        } else {
            class.parts += 1;
            self.add_part(Part { path: to, capacity, at });
        }
        Ok(JobDone::Gone)
    }

    fn add_part(&mut self, part: Part) {
        let left = part.capacity - part.at;
        let before = self.parts.iter().take_while(|p| p.capacity - p.at <= left).count();
        self.parts.insert(before, part);
    }

    /// Does a bounded bit of filling the pool, or of removing: at most 1 MiB of zeroes, 128 KiB if it has to be `gentle`
    /// to durable writes.
    pub fn idle(&mut self, gentle: bool) -> Step {
        match self.step(gentle) {
            Ok(step) => step,
            Err(e) => {
                self.last_error = Some(e.to_string());
                self.abandon();
                Step { more: false, cost: 0, removed: false }
            }
        }
    }

    fn step(&mut self, gentle: bool) -> io::Result<Step> {
        let fills = !self.parts.is_empty() || self.lacking().is_some();
        let removes = !self.gone.is_empty() && (self.removal_next || !fills);
        self.removal_next = !removes;
        if removes {
            self.shrink_gone()?;
            return Ok(Step { more: true, cost: ZERO_STEP, removed: true });
        }
        let most = if gentle { GENTLE_ZERO_STEP } else { ZERO_STEP };
        // What is short of a smaller size is helped sooner.
        let left = self.parts.front().map_or(u64::MAX, |part| part.capacity - part.at);
        let begins = self.lacking().is_some_and(|capacity| capacity < left);
        let filled = if begins { self.begin_part()? } else { Some(self.fill_part(most)?) };
        let more = !self.parts.is_empty() || self.lacking().is_some() || !self.gone.is_empty();
        Ok(Step { more, cost: filled.unwrap_or(0), removed: false })
    }

    /// Shortens the file that is to go, or removes what is left of it.
    fn shrink_gone(&mut self) -> io::Result<()> {
        let step = (self.gone_bytes / 256).clamp(SHRINK_STEP, MOST_SHRINK_STEP);
        let step = step / BLOCK_ALIGN as u64 * BLOCK_ALIGN as u64;
        let Some((path, left)) = self.gone.front_mut() else { return Ok(()) };
        if *left > step {
            *left -= step;
            self.gone_bytes = self.gone_bytes.saturating_sub(step);
            return self.files.shrink(path, *left);
        }
        self.files.remove(path)?;
        self.gone_bytes = self.gone_bytes.saturating_sub(*left);
        self.gone.pop_front();
        Ok(())
    }

    /// Writes zeroes to the file that lacks the fewest, at most `most` bytes; returns how many.
    fn fill_part(&mut self, most: u64) -> io::Result<u64> {
        let Some(part) = self.parts.front_mut() else { return Ok(0) };
        if part.at < part.capacity {
            let len = (part.capacity - part.at).min(most);
            let zeros = AlignedBuf::alloc(len as usize);
            self.files.write_at_relaxed(&part.path, part.at, &zeros, len as usize)?;
            part.at += len;
            return Ok(len);
        }
        let (from, capacity) = (part.path.clone(), part.capacity);
        self.files.settle(&from)?;
        let to = from.with_extension(State::Ready.ending());
        self.files.rename(&from, &to)?;
        self.parts.pop_front();
        let class = self.classes.entry(capacity).or_default();
        class.parts = class.parts.saturating_sub(1);
        class.ready.push(to);
        Ok(0)
    }

    /// Makes a file of the class that lacks one, all its zeroes still to be written; `None` if there is no room for it.
    fn begin_part(&mut self) -> io::Result<Option<u64>> {
        let Some(capacity) = self.lacking() else { return Ok(None) };
        let (free, _) = self.files.space()?;
        let keep = self.options.keep_free_bytes.max(self.options.reserve_bytes);
        if free < capacity.saturating_add(keep) || !self.make_room(capacity) {
            self.give_up(capacity);
            return Ok(None);
        }
        let path = self.name(capacity, State::Part);
        if let Err(error) = self.create(&path, capacity) {
            self.give_up(capacity);
            return Err(error);
        }
        self.bytes += capacity;
        self.classes.entry(capacity).or_default().parts += 1;
        self.add_part(Part { path, capacity, at: 0 });
        Ok(Some(0))
    }

    /// The smallest class that has fewer files than it should: it is ready first, and stands in for larger ones.
    fn lacking(&self) -> Option<u64> {
        let target = self.options.ready_per_class;
        let lacks = |class: &Class| class.wanted && class.ready.len() + class.parts < target;
        self.classes.iter().find(|(_, class)| lacks(class)).map(|(&capacity, _)| capacity)
    }

    /// Stops filling a class until it is asked for again.
    fn give_up(&mut self, capacity: u64) {
        if let Some(class) = self.classes.get_mut(&capacity) {
            class.wanted = false;
        }
    }

    /// Takes a file out of use, durably; its blocks are given back in steps of [`Preparer::idle`].
    fn doom(&mut self, path: &Path) -> io::Result<()> {
        let len = match self.files.len(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        if len <= SHRINK_STEP {
            return self.files.remove(path);
        }
        let to = self.name(len, State::Gone);
        self.files.rename(path, &to)?;
        self.gone.push_back((to, len));
        self.gone_bytes += len;
        Ok(())
    }

    /// Drops the file being removed or filled, after an error.
    fn abandon(&mut self) {
        // A step of removal was the last if the next is none.
        if self.removal_next || !self.bury() {
            self.abandon_part();
        }
    }

    /// Removes at once a file that was to be removed in steps; false if there is none.
    fn bury(&mut self) -> bool {
        let Some((path, left)) = self.gone.pop_front() else { return false };
        self.gone_bytes = self.gone_bytes.saturating_sub(left);
        let _ = self.files.remove(&path);
        true
    }

    /// Drops the file being filled.
    fn abandon_part(&mut self) {
        if let Some(part) = self.parts.pop_front() {
            let _ = self.files.remove(&part.path);
            self.bytes = self.bytes.saturating_sub(part.capacity);
            if let Some(class) = self.classes.get_mut(&part.capacity) {
                class.parts = class.parts.saturating_sub(1);
            }
            self.give_up(part.capacity);
        }
    }

    /// Makes room for `capacity` more bytes by removing files of the classes used longest ago.
    fn make_room(&mut self, capacity: u64) -> bool {
        if capacity > self.options.max_bytes {
            return false;
        }
        while self.bytes.saturating_add(capacity) > self.options.max_bytes {
            let used = self.classes.get(&capacity).map_or(0, |c| c.used);
            let victim = self
                .classes
                .iter_mut()
                .filter(|(size, c)| **size != capacity && c.used <= used && !c.ready.is_empty())
                .min_by_key(|(_, c)| c.used);
            let Some((&size, class)) = victim else { return false };
            let Some(path) = class.ready.pop() else { return false };
            class.wanted = false;
            if self.doom(&path).is_err() {
                return false;
            }
            self.bytes = self.bytes.saturating_sub(size);
        }
        true
    }

    /// Gives the space of one file back, one that is being removed first; false if there was none.
    fn give_way(&mut self) -> bool {
        if self.bury() {
            return true;
        }
        if !self.parts.is_empty() {
            self.abandon_part();
            return true;
        }
        let Some((&size, class)) = self.classes.iter_mut().rev().find(|(_, c)| !c.ready.is_empty())
        else {
            return false;
        };
        class.wanted = false;
        if let Some(path) = class.ready.pop() {
            let _ = self.files.remove(&path);
            self.bytes = self.bytes.saturating_sub(size);
        }
        true
    }

    fn name(&mut self, capacity: u64, state: State) -> PathBuf {
        let number = self.next_number;
        self.next_number += 1;
        let ending = state.ending();
        self.options.pool_dir.join(format!("{capacity:x}-{number:x}.{ending}"))
    }

    /// What is in the pool.
    pub fn status(&self) -> PoolStatus {
        PoolStatus {
            ready: self.classes.iter().map(|(&k, c)| (k, c.ready.len())).collect(),
            bytes: self.bytes,
            gone_bytes: self.gone_bytes,
            counts: self.counts,
            last_error: self.last_error.clone(),
        }
    }

    /// The files it works on.
    pub fn files(&self) -> &F {
        &self.files
    }

    /// Removes a file that a job made and nobody got.
    pub(crate) fn forsake(&mut self, path: &Path) {
        let _ = self.files.remove(path);
        self.trusted.remove(path);
    }

    /// Removes half-filled and half-removed files, on an orderly end.
    pub(crate) fn finish(&mut self) {
        while self.bury() {}
        while !self.parts.is_empty() {
            self.abandon_part();
        }
    }
}

/// The size of a file that nobody has written yet: its durable writes are slow, so it is quartered as long as it is twice
/// the least that will do.
fn cold_size(capacity: u64, least: u64) -> u64 {
    let mut size = capacity;
    while least > 0 && size / 4 >= 2 * least && (size / 4).is_multiple_of(BLOCK_ALIGN as u64) {
        size /= 4;
    }
    size
}

/// Whether removing it at once would be felt.
fn is_big<F: Files>(files: &F, path: &Path) -> bool {
    files.len(path).is_ok_and(|len| len > SHRINK_STEP)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests;
