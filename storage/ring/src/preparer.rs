//! The preparer: segment files made ready outside the shards' threads.
//!
//! A durable write to a file that was already written costs a third or less of one to a file that is only
//! allocated. So the preparer keeps a pool of written files per size, in a directory of its own: recycled
//! files as they come, new ones filled with zeroes in small steps while there is nothing better to do.
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

mod thread;
pub(crate) use thread::{Gauge, JobPort, Opened};
pub use thread::{PoolStatus, PreparerHandle, spawn_preparer};

/// Bytes of zeroes written in one step of [`Preparer::idle`].
pub const ZERO_STEP: usize = 1 << 20;

/// Bytes by which a file that is to go is shortened in one step of [`Preparer::idle`].
const SHRINK_STEP: u64 = 4 << 20;

/// How the preparer keeps its pool.
#[derive(Clone, Debug)]
pub struct PreparerOptions {
    /// The pool's directory, relative to the data directory. One preparer per directory.
    pub pool_dir: PathBuf,
    /// Files kept ready per size that was asked for.
    pub ready_per_class: usize,
    /// Bound on the pool's files together, in bytes.
    pub max_bytes: u64,
    /// The file system's free bytes which filling the pool leaves alone.
    pub keep_free_bytes: u64,
    /// The file system's free bytes below which no file is made at all: a request for a segment that the pool
    /// cannot meet is refused as if it were full. 0 for none.
    pub reserve_bytes: u64,
    /// Sizes to prepare from the start, before they are first asked for.
    pub prepare: Vec<u64>,
    /// Zeroing speed while durable writes are going on, in bytes per second. Without any, full speed.
    pub busy_bytes_per_sec: u64,
}

impl Default for PreparerOptions {
    fn default() -> Self {
        PreparerOptions {
            pool_dir: PathBuf::from("pool"),
            ready_per_class: 2,
            max_bytes: 1 << 30,
            keep_free_bytes: 512 << 20,
            reserve_bytes: 0,
            prepare: Vec::new(),
            busy_bytes_per_sec: 64 << 20,
        }
    }
}

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
    /// Files with zeroes still to be written, the front one under way.
    parts: VecDeque<Part>,
    /// Files that are being removed, and how long each still is. They are not counted as the pool's.
    gone: VecDeque<(PathBuf, u64)>,
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
    at: u64,
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
            Job::TakeSegment { path, capacity } => self.take(path, capacity),
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

    fn take(&mut self, path: PathBuf, capacity: u64) -> io::Result<JobDone> {
        if capacity == 0 || !capacity.is_multiple_of(BLOCK_ALIGN as u64) {
            let text = format!("segment capacity {capacity} is not a multiple of {BLOCK_ALIGN}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        self.takes += 1;
        let class = self.classes.entry(capacity).or_default();
        (class.wanted, class.used) = (true, self.takes);
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            self.files.create_dir(parent)?;
        }
        // A name is asked for once; what is there was left by a request that failed half-way, and never used.
        match self.files.len(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Ok(_) => self.files.remove(&path)?,
            Err(e) => return Err(e),
        }
        while let Some(ready) = self.classes.get_mut(&capacity).and_then(|c| c.ready.pop()) {
            self.bytes = self.bytes.saturating_sub(capacity);
            match self.files.rename(&ready, &path) {
                Ok(()) => {
                    self.trusted.insert(path.clone());
                    self.counts.reused += 1;
                    return Ok(JobDone::Segment {
                        path,
                        capacity,
                        cold: false,
                        write: true,
                        new: true,
                    });
                }
                // Somebody tidied up the pool: try the next.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => {
                    let _ = self.files.remove(&ready);
                    return Err(e);
                }
            }
        }
        match self.create(&path, capacity) {
            Err(e) if is_full(&e) && self.empty_pool() => self.create(&path, capacity)?,
            other => other?,
        }
        self.trusted.insert(path.clone());
        Ok(JobDone::Segment { path, capacity, cold: true, write: true, new: true })
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
        let written = self.files.is_written(path)?;
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
            self.parts.push_back(Part { path: to, capacity, at: 0 });
        }
        Ok(JobDone::Gone)
    }

    /// Does a bounded bit (about 1 MiB) of filling the pool; returns whether there is more to do.
    pub fn idle(&mut self) -> bool {
        match self.step() {
            Ok(more) => more,
            Err(e) => {
                self.last_error = Some(e.to_string());
                self.abandon();
                false
            }
        }
    }

    fn step(&mut self) -> io::Result<bool> {
        if let Some((path, left)) = self.gone.front_mut() {
            if *left > SHRINK_STEP {
                *left -= SHRINK_STEP;
                self.files.shrink(path, *left)?;
            } else {
                self.files.remove(path)?;
                self.gone.pop_front();
            }
            return Ok(true);
        }
        if let Some(part) = self.parts.front_mut() {
            if part.at < part.capacity {
                let len = (part.capacity - part.at).min(ZERO_STEP as u64);
                let zeros = AlignedBuf::alloc(len as usize);
                self.files.write_at_relaxed(&part.path, part.at, &zeros, len as usize)?;
                part.at += len;
                return Ok(true);
            }
            let (from, capacity) = (part.path.clone(), part.capacity);
            self.files.settle(&from)?;
            let to = from.with_extension("ready");
            self.files.rename(&from, &to)?;
            self.parts.pop_front();
            let class = self.classes.entry(capacity).or_default();
            class.parts = class.parts.saturating_sub(1);
            class.ready.push(to);
            return Ok(self.lacking().is_some() || !self.parts.is_empty());
        }
        let Some(capacity) = self.lacking() else { return Ok(false) };
        let (free, _) = self.files.space()?;
        let keep = self.options.keep_free_bytes.max(self.options.reserve_bytes);
        if free < capacity.saturating_add(keep) || !self.make_room(capacity) {
            self.give_up(capacity);
            return Ok(false);
        }
        let path = self.name(capacity, State::Part);
        if let Err(error) = self.create(&path, capacity) {
            self.give_up(capacity);
            return Err(error);
        }
        self.bytes += capacity;
        self.classes.entry(capacity).or_default().parts += 1;
        self.parts.push_back(Part { path, capacity, at: 0 });
        Ok(true)
    }

    /// The class, most recently used first, that has fewer files than it should.
    fn lacking(&self) -> Option<u64> {
        let target = self.options.ready_per_class;
        let lacks = |class: &Class| class.wanted && class.ready.len() + class.parts < target;
        self.classes.iter().filter(|(_, c)| lacks(c)).max_by_key(|(_, c)| c.used).map(|(&k, _)| k)
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
        Ok(())
    }

    /// Removes at once what was to be removed in steps; false if there was nothing.
    fn bury(&mut self) -> bool {
        let had = !self.gone.is_empty();
        for (path, _) in self.gone.drain(..) {
            let _ = self.files.remove(&path);
        }
        had
    }

    /// Drops the file being removed or filled, after an error.
    fn abandon(&mut self) {
        if let Some((path, _)) = self.gone.pop_front() {
            let _ = self.files.remove(&path);
            return;
        }
        self.abandon_part();
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

    /// Gives all the pool's space back; false if there was none.
    fn empty_pool(&mut self) -> bool {
        let had = self.bury() | (self.bytes > 0);
        while !self.parts.is_empty() {
            self.abandon_part();
        }
        for class in self.classes.values_mut() {
            class.wanted = false;
            for path in class.ready.drain(..) {
                let _ = self.files.remove(&path);
            }
        }
        self.bytes = 0;
        had
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
        self.bury();
        while !self.parts.is_empty() {
            self.abandon_part();
        }
    }
}

/// What a file of the pool is, as its name ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Written, to be used.
    Ready,
    /// Being filled with zeroes.
    Part,
    /// Being removed.
    Gone,
}

impl State {
    fn ending(self) -> &'static str {
        match self {
            State::Ready => "ready",
            State::Part => "part",
            State::Gone => "gone",
        }
    }
}

/// Whether removing it at once would be felt.
fn is_big<F: Files>(files: &F, path: &Path) -> bool {
    files.len(path).is_ok_and(|len| len > SHRINK_STEP)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Capacity, number and state from the name of a pool file.
fn parse_name(name: &str) -> Option<(u64, u64, State)> {
    let (stem, ending) = name.split_once('.')?;
    let (capacity, number) = stem.split_once('-')?;
    let state =
        [State::Ready, State::Part, State::Gone].into_iter().find(|s| s.ending() == ending)?;
    Some((u64::from_str_radix(capacity, 16).ok()?, u64::from_str_radix(number, 16).ok()?, state))
}

#[cfg(test)]
mod tests;
