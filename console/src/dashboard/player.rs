//! Plays samples into the model: those that come, or those of a tape, forwards and back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::model::Model;
use super::recording::Tape;
use super::source::{Sample, What};
use super::watch::{self, Level};

/// How fast a recording is played.
pub const SPEEDS: [u32; 7] = [1, 2, 4, 10, 30, 60, 300];

/// A model is kept each this many samples, so that going back is quick.
const FRAME_EVERY: usize = 64;
/// At most this many.
const FRAMES: usize = 24;
/// Samples played at once while looking for an event; the screen stays alive between them.
const SEARCH_STEP: usize = 100;
/// A pause in a recording longer than this is passed over.
const GAP: Duration = Duration::from_secs(5);
/// Marks and events kept.
const MAX_MARKS: usize = 256;

/// The connection to the server, as the sample shown says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// Nothing has come yet.
    Connecting,
    /// There are figures.
    Live,
    /// There are none, for this reason.
    Lost(String),
    /// There is no server: a load generator runs on its own.
    Absent,
}

/// What the player does by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Shows samples as they come.
    Following,
    /// Plays the tape.
    Playing,
    /// Stands still.
    Paused,
    /// Looks for the next Watch event.
    Searching,
}

/// The tape, and where on it the model is.
#[derive(Debug)]
pub struct Player {
    /// What can be gone to.
    pub tape: Tape,
    /// What it does.
    pub mode: Mode,
    /// The connection.
    pub link: Link,
    /// Number of the speed in [`SPEEDS`].
    speed: usize,
    model: Model,
    /// Index of the next sample.
    next: usize,
    /// The moment shown, nanoseconds since 1970 UTC.
    clock_ns: u64,
    marks: BTreeSet<usize>,
    events: BTreeSet<usize>,
    /// Where one was when a search for an event began, and what charts span.
    searched_from: (usize, Mode, Duration),
    /// Rules that fire at the sample shown.
    firing: Vec<&'static str>,
    /// Rules that fired at any sample shown.
    fired: BTreeSet<&'static str>,
    frames: BTreeMap<usize, Box<(Model, Link)>>,
}

impl Player {
    /// Of a live session.
    pub fn live() -> Player {
        Player::new(Tape::live(), Mode::Following)
    }

    /// Of a recording, at its beginning.
    pub fn replay(tape: Tape) -> Player {
        let mut player = Player::new(tape, Mode::Playing);
        let tape = &player.tape;
        let marked = |at: &u64| Some(tape.find(*at)).filter(|&index| tape.at(index) == Some(*at));
        player.marks = tape.marks().iter().filter_map(marked).take(MAX_MARKS).collect();
        // Two samples make the first figures.
        player.feed();
        player.feed();
        player
    }

    fn new(tape: Tape, mode: Mode) -> Player {
        Player {
            tape,
            mode,
            link: Link::Connecting,
            speed: 0,
            model: Model::new(),
            next: 0,
            clock_ns: 0,
            marks: BTreeSet::new(),
            events: BTreeSet::new(),
            searched_from: (0, mode, Duration::ZERO),
            firing: Vec::new(),
            fired: BTreeSet::new(),
            frames: BTreeMap::new(),
        }
    }

    /// Rules of Watch that fired at any moment shown so far, by name.
    pub fn fired(&self) -> impl Iterator<Item = &'static str> {
        self.fired.iter().copied()
    }

    /// What is known at the moment shown.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Whether a recording is played.
    pub fn replaying(&self) -> bool {
        matches!(self.tape, Tape::Recorded(_))
    }

    /// Whether the view stands still.
    pub fn paused(&self) -> bool {
        self.mode == Mode::Paused
    }

    /// How many times as fast as it happened.
    pub fn speed(&self) -> u32 {
        SPEEDS[self.speed]
    }

    /// When the sample shown was received.
    pub fn shown_at(&self) -> Option<u64> {
        self.tape.at(self.next.checked_sub(1)?)
    }

    /// When the first and the last sample were received.
    pub fn span(&self) -> Option<(u64, u64)> {
        Some((self.tape.at(self.tape.first())?, self.tape.at(self.tape.end().checked_sub(1)?)?))
    }

    /// How far behind the newest sample the view is, in samples.
    pub fn behind(&self) -> usize {
        self.tape.end().saturating_sub(self.next)
    }

    /// When the marked samples were received.
    pub fn marks(&self) -> impl Iterator<Item = u64> {
        self.marks.iter().filter_map(|&index| self.tape.at(index))
    }

    /// Takes in a sample that came; whether that changes what is shown.
    pub fn push(&mut self, sample: Sample) -> bool {
        self.tape.push(&sample);
        let following = self.mode == Mode::Following;
        if following {
            self.show(self.tape.end().saturating_sub(1), sample);
        }
        following
    }

    /// Stands still, or goes on from here: a recording plays, a live session catches up.
    pub fn toggle(&mut self) {
        self.mode = match (self.mode, self.replaying()) {
            (Mode::Paused, true) => {
                // At the end there is nothing to go on with: from the beginning.
                if self.behind() == 0 {
                    self.go_to(self.tape.first() + 1, Duration::ZERO);
                }
                Mode::Playing
            }
            (Mode::Paused, false) => {
                while self.feed() {}
                Mode::Following
            }
            _ => Mode::Paused,
        };
    }

    /// The next faster (or slower) speed; whether there was one.
    pub fn change_speed(&mut self, faster: bool) -> bool {
        let next = if faster { self.speed + 1 } else { self.speed.wrapping_sub(1) };
        let there = next < SPEEDS.len();
        if there {
            self.speed = next;
        }
        there
    }

    /// Stands still, `samples` further on, or back. Charts span `window`.
    pub fn step(&mut self, samples: isize, window: Duration) {
        self.mode = Mode::Paused;
        let shown = self.next.saturating_sub(1);
        self.go_to(shown.saturating_add_signed(samples), window);
    }

    /// Stands still, this much later, or earlier.
    pub fn step_time(&mut self, by: Duration, back: bool, window: Duration) {
        self.mode = Mode::Paused;
        let Some(at) = self.shown_at() else { return };
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        let to = if back { at.saturating_sub(by) } else { at.saturating_add(by) };
        self.go_to(self.tape.find(to), window);
    }

    /// Stands still at the oldest sample, or the newest.
    pub fn step_end(&mut self, newest: bool, window: Duration) {
        self.mode = Mode::Paused;
        let to = if newest { self.tape.end().saturating_sub(1) } else { self.tape.first() + 1 };
        self.go_to(to, window);
    }

    /// Marks the sample shown, or unmarks it.
    pub fn mark(&mut self) {
        let Some(shown) = self.next.checked_sub(1) else { return };
        if !self.marks.remove(&shown) && self.marks.len() < MAX_MARKS {
            self.marks.insert(shown);
        }
    }

    /// Stands still at the next mark, round and round; whether there is one.
    pub fn next_mark(&mut self, window: Duration) -> bool {
        let after = self.marks.range(self.next..).next();
        let Some(&to) = after.or_else(|| self.marks.first()) else { return false };
        self.mode = Mode::Paused;
        self.go_to(to, window);
        true
    }

    /// Looks for the next sample at which a rule of Watch begins to fire; without one everything stays as it was.
    pub fn search(&mut self, window: Duration) {
        if self.mode != Mode::Searching {
            self.searched_from = (self.next.saturating_sub(1), self.mode, window);
            self.mode = Mode::Searching;
        }
    }

    /// Stands still at the last such sample before, of those that were played; whether there is one.
    pub fn previous_event(&mut self, window: Duration) -> bool {
        let shown = self.next.saturating_sub(1);
        let Some(&to) = self.events.range(..shown).next_back() else { return false };
        self.mode = Mode::Paused;
        self.go_to(to, window);
        true
    }

    /// What happens by itself in `passed` time; whether that changes what is shown.
    pub fn tick(&mut self, passed: Duration) -> bool {
        match self.mode {
            Mode::Playing => self.play(passed),
            Mode::Searching => self.look(),
            Mode::Following | Mode::Paused => false,
        }
    }

    /// How soon the next sample of the recording is due.
    pub fn due(&self) -> Option<Duration> {
        match self.mode {
            Mode::Searching => Some(Duration::ZERO),
            Mode::Playing => {
                let at = self.tape.at(self.next)?;
                let ns = at.saturating_sub(self.clock_ns).min(GAP.as_nanos() as u64);
                Some(Duration::from_nanos(ns / u64::from(self.speed())))
            }
            _ => None,
        }
    }

    fn play(&mut self, passed: Duration) -> bool {
        let passed = passed.as_nanos() as u64;
        self.clock_ns = self.clock_ns.saturating_add(passed.saturating_mul(self.speed().into()));
        if let Some(next) = self.tape.at(self.next)
            && next.saturating_sub(self.clock_ns) > GAP.as_nanos() as u64
        {
            self.clock_ns = next;
        }
        let clock = self.clock_ns;
        let mut changed = false;
        while self.tape.at(self.next).is_some_and(|at| at <= clock) {
            changed |= self.feed();
        }
        // Showing a sample sets the clock to its time: what has passed since is not lost.
        self.clock_ns = clock;
        if self.behind() == 0 {
            self.mode = Mode::Paused;
            changed = true;
        }
        changed
    }

    fn look(&mut self) -> bool {
        for _ in 0..SEARCH_STEP {
            if !self.feed() {
                let (index, mode, window) = self.searched_from;
                self.mode = mode;
                if mode != Mode::Following {
                    self.mode = Mode::Paused;
                    self.go_to(index, window);
                }
                break;
            }
            if self.next.checked_sub(1).is_some_and(|shown| self.events.contains(&shown)) {
                self.mode = Mode::Paused;
                break;
            }
        }
        true
    }

    /// Shows the sample of this index, with as much before it as charts over `window` need.
    fn go_to(&mut self, index: usize, window: Duration) {
        let (first, end) = (self.tape.first(), self.tape.end());
        let Some(index) = end.checked_sub(1).map(|last| index.clamp(first, last)) else { return };
        let wanted = self.next.checked_sub(1).is_some_and(|shown| shown <= index)
            && index - self.next.saturating_sub(1) <= 2 * FRAME_EVERY;
        if !wanted {
            // Trends and headlines look back half a minute.
            let history = window.as_nanos() as u64 + 60_000_000_000;
            let from =
                self.tape.at(index).map_or(first, |at| self.tape.find(at.saturating_sub(history)));
            let frame = self.frames.range(..=index).next_back().filter(|(at, _)| **at >= from);
            let (at, (model, link)) = match frame {
                Some((at, frame)) => (*at + 1, (**frame).clone()),
                None => (from, (Model::new(), Link::Connecting)),
            };
            (self.next, self.model, self.link) = (at, model, link);
            self.firing = firing(&self.model);
        }
        while self.next <= index && self.feed() {}
    }

    /// Shows the next sample of the tape; whether there was one.
    fn feed(&mut self) -> bool {
        self.next = self.next.max(self.tape.first());
        if self.next >= self.tape.end() {
            return false;
        }
        match self.tape.get(self.next) {
            Some(sample) => self.show(self.next, sample),
            // A sample that cannot be read is passed over.
            None => self.next += 1,
        }
        true
    }

    fn show(&mut self, index: usize, sample: Sample) {
        self.next = index + 1;
        self.clock_ns = sample.at;
        match sample.what {
            What::Snapshot(snapshot) => {
                self.link = Link::Live;
                self.model.take(snapshot);
            }
            What::Lost(reason) => self.link = Link::Lost(reason),
        }
        let now = firing(&self.model);
        if now.iter().any(|rule| !self.firing.contains(rule)) && self.events.len() < MAX_MARKS {
            self.events.insert(index);
        }
        self.fired.extend(&now);
        self.firing = now;
        if index.is_multiple_of(FRAME_EVERY) {
            self.frames.insert(index, Box::new((self.model.clone(), self.link.clone())));
            if self.frames.len() > FRAMES {
                self.forget_frame(index);
            }
        }
    }

    /// Drops the model that is furthest from the sample shown.
    fn forget_frame(&mut self, shown: usize) {
        let ends = [self.frames.keys().next(), self.frames.keys().next_back()];
        let furthest = ends.into_iter().flatten().max_by_key(|at| at.abs_diff(shown)).copied();
        if let Some(furthest) = furthest {
            self.frames.remove(&furthest);
        }
    }
}

/// The rules that fire and are more than good to know.
fn firing(model: &Model) -> Vec<&'static str> {
    let notices = watch::notices(model.picture());
    notices.iter().filter(|n| n.level != Level::Info).map(|n| n.rule).collect()
}

#[cfg(test)]
mod tests;
