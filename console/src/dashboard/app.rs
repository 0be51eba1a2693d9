//! The whole state of the dashboard: what is known, by the player, and how it is looked at. No I/O, no clock.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::browse::{Ask, Browse, Record};
use super::figures::{GroupFigures, ShardFigures};
use super::glyphs::Glyphs;
use super::keys::Scope;
use super::load::LoadFeed;
use super::model::{Picture, USUAL_WINDOW, WINDOWS};
use super::player::{Link, Mode, Player};
use super::theme::Theme;
use crate::human;

/// Data older than this is called stale, or than twice the time between the last two samples: a server with many busy
/// shards takes its figures more rarely.
const STALE_AFTER: Duration = Duration::from_secs(3);

/// Between samples passes so long at most.
const RAREST: Duration = Duration::from_secs(10);

/// A screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Screen {
    /// TPS, propagation delay, backlog, cores, Watch.
    #[default]
    Overview,
    /// Every shard and every core.
    Shards,
    /// Where the time goes.
    Latency,
    /// Every group.
    Backlog,
    /// The load generator.
    Load,
    /// Streams and their records.
    Streams,
}

impl Screen {
    /// All of them, as they are numbered from 1.
    pub const ALL: [Screen; 6] = [
        Screen::Overview,
        Screen::Shards,
        Screen::Latency,
        Screen::Backlog,
        Screen::Load,
        Screen::Streams,
    ];

    /// Its number from 0.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Its name.
    pub fn title(self) -> &'static str {
        ["Overview", "Shards", "Latency", "Backlog", "Load", "Streams"][self.index()]
    }

    /// The names of the columns its list can be sorted by.
    pub fn sorts(self) -> &'static [&'static str] {
        match self {
            Screen::Shards => &["rec/s", "write p99", "shard"],
            Screen::Overview | Screen::Backlog => &["age", "records", "group"],
            Screen::Streams => &["stream", "rec/s", "stored"],
            Screen::Latency | Screen::Load => &[],
        }
    }
}

/// How the things of a screen are looked at.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Panel that has the keys.
    pub panel: usize,
    /// Whether it takes the whole screen.
    pub expanded: bool,
    /// Line selected in the list.
    pub selected: usize,
    /// Number of the column the list is sorted by.
    pub sort: usize,
    /// The other way round.
    pub reverse: bool,
    /// Only what contains this.
    pub filter: String,
}

/// How it shall look.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Colours.
    pub theme: Theme,
    /// Characters.
    pub glyphs: Glyphs,
    /// What the 99th percentile of the propagation delay is to keep.
    pub slo: Duration,
}

/// The state.
#[derive(Debug)]
pub struct App {
    /// What is watched, for the header.
    pub target: String,
    /// How it shall look.
    pub look: Look,
    /// Where times of day are told.
    pub zone: TimeZone,
    /// Plays samples into the model.
    pub player: Player,
    /// Time since the dashboard started.
    pub now: Duration,
    /// When the last sample came, and the last figures, in that time.
    pub received: Option<Duration>,
    /// The connection, whatever is shown.
    pub link: Link,
    /// The screen shown.
    pub screen: Screen,
    /// The one before.
    pub last_screen: Screen,
    /// Whether the help is open.
    pub help: bool,
    /// First line of the help shown.
    pub help_scroll: usize,
    /// Whether a filter is typed.
    pub typing: bool,
    /// By number of the screen.
    pub places: [Place; 6],
    /// Number of the window in [`WINDOWS`].
    window: usize,
    /// The streams screen.
    pub browse: Browse,
    /// The load generator, if one runs here.
    pub load: Option<LoadFeed>,
    /// Questions to be asked.
    pub asks: Vec<Ask>,
    /// Everything is to be drawn anew, for the terminal may show something else.
    pub redraw: bool,
}

impl App {
    /// Of a live session, or of a replay.
    pub fn new(target: impl Into<String>, look: Look, player: Player) -> App {
        App {
            target: target.into(),
            look,
            zone: TimeZone::system(),
            player,
            now: Duration::ZERO,
            received: None,
            link: Link::Connecting,
            screen: Screen::Overview,
            last_screen: Screen::Overview,
            help: false,
            help_scroll: 0,
            typing: false,
            places: std::array::from_fn(|_| Place::default()),
            window: USUAL_WINDOW,
            browse: Browse::default(),
            load: None,
            asks: Vec::new(),
            redraw: false,
        }
    }

    /// Of a load generator on its own.
    pub fn serverless(look: Look) -> App {
        App {
            link: Link::Absent,
            screen: Screen::Load,
            ..App::new("load generator", look, Player::live())
        }
    }

    /// What is to be shown.
    pub fn picture(&self) -> &Picture {
        self.player.model().picture()
    }

    /// How the screen shown is looked at.
    pub fn place(&self) -> &Place {
        &self.places[self.screen.index()]
    }

    /// The same, to change it.
    pub fn place_mut(&mut self) -> &mut Place {
        &mut self.places[self.screen.index()]
    }

    /// Span of the charts.
    pub fn window(&self) -> Duration {
        WINDOWS[self.window]
    }

    /// The next longer (or shorter) span; whether there was one.
    pub fn change_window(&mut self, longer: bool) -> bool {
        let next = if longer { self.window + 1 } else { self.window.wrapping_sub(1) };
        let there = next < WINDOWS.len();
        if there {
            self.window = next;
        }
        there
    }

    /// The usual span.
    pub fn reset_window(&mut self) {
        self.window = USUAL_WINDOW;
    }

    /// The time of day at `ns` nanoseconds since 1970 UTC.
    pub fn clock(&self, ns: u64) -> String {
        human::clock_in(&self.zone, ns)
    }

    /// Time since the newest figures came; `None` before there are any, and in a replay.
    pub fn age(&self) -> Option<Duration> {
        self.received.map(|at| self.now.saturating_sub(at))
    }

    /// Whether the figures are too old to be called live.
    pub fn stale(&self) -> bool {
        if self.player.replaying() {
            return matches!(self.player.link, Link::Lost(_));
        }
        // Of a server one knows only one sample of, it is not known how often they come.
        let between = self.picture().figures.as_ref().map_or(RAREST, |f| f.span);
        let after = STALE_AFTER.max(between.saturating_mul(2));
        matches!(self.link, Link::Lost(_)) || self.age().is_some_and(|age| age > after)
    }

    /// Where keys are understood now, the nearest first.
    pub fn scopes(&self) -> &'static [Scope] {
        use Scope::{Everywhere, Lists, Replay, Streams, Time, Typing};
        match (self.typing, self.screen, self.player.replaying()) {
            (true, ..) => &[Typing],
            (_, Screen::Streams, false) => &[Everywhere, Lists, Streams, Time],
            (_, Screen::Streams, true) => &[Everywhere, Lists, Streams, Time, Replay],
            (_, _, false) => &[Everywhere, Lists, Time],
            (_, _, true) => &[Everywhere, Lists, Time, Replay],
        }
    }

    /// Where a shard ended at the moment shown: its high-water mark then; `None` while the view follows what comes, and in
    /// a replay, which has no records.
    pub fn ended_at(&self, stream: &str, shard: u32) -> Option<u64> {
        if self.player.mode == Mode::Following || self.player.replaying() {
            return None;
        }
        // Also at the first sample, of which there are no figures; a shard that was not there then had no records.
        let mut shards = self.player.model().snapshot().into_iter().flat_map(|s| &s.shards);
        let found = shards.find(|s| s.stream == stream && s.shard == shard);
        Some(found.map_or(0, |shard| shard.high_water))
    }

    /// The groups of the list on this screen, filtered and sorted.
    pub fn groups(&self) -> Vec<&GroupFigures> {
        let place = &self.places[if self.screen == Screen::Backlog { 3 } else { 0 }];
        // Backlogs are those of now all the same.
        let figures = self.picture().headline.as_ref();
        let mut groups: Vec<&GroupFigures> = figures
            .map_or(&[][..], |f| &f.groups)
            .iter()
            .filter(|g| matches(&place.filter, &format!("{} on {}", g.group, g.stream)))
            .collect();
        match place.sort {
            1 => groups.sort_by_key(|g| std::cmp::Reverse(g.records)),
            2 => groups.sort_by(|a, b| (&a.group, &a.stream).cmp(&(&b.group, &b.stream))),
            _ => groups.sort_by_key(|g| std::cmp::Reverse(g.age)),
        }
        reversed(groups, place.reverse)
    }

    /// The shards of the list, filtered and sorted.
    pub fn shards(&self) -> Vec<&ShardFigures> {
        let place = &self.places[Screen::Shards.index()];
        let figures = self.picture().headline.as_ref();
        let mut shards: Vec<&ShardFigures> = figures
            .map_or(&[][..], |f| &f.shards)
            .iter()
            .filter(|s| matches(&place.filter, &s.name()))
            .collect();
        match place.sort {
            0 => shards.sort_by(|a, b| b.into.records.total_cmp(&a.into.records)),
            1 => shards.sort_by_key(|s| std::cmp::Reverse(s.write.p99)),
            _ => {}
        }
        reversed(shards, place.reverse)
    }

    /// The streams of the list, filtered and sorted, each with its shards.
    pub fn streams(&self) -> Vec<(&str, Vec<&ShardFigures>)> {
        let place = &self.places[Screen::Streams.index()];
        let figures = self.picture().headline.as_ref();
        let mut streams: Vec<(&str, Vec<&ShardFigures>)> = Vec::new();
        for shard in figures.map_or(&[][..], |f| &f.shards) {
            match streams.last_mut() {
                Some((name, shards)) if *name == shard.stream => shards.push(shard),
                _ => streams.push((&shard.stream, vec![shard])),
            }
        }
        streams.retain(|(name, _)| matches(&place.filter, name));
        let rate = |shards: &[&ShardFigures]| shards.iter().map(|s| s.into.records).sum::<f64>();
        let stored = |shards: &[&ShardFigures]| shards.iter().map(|s| s.stored_bytes).sum::<u64>();
        match place.sort {
            1 => streams.sort_by(|a, b| rate(&b.1).total_cmp(&rate(&a.1))),
            2 => streams.sort_by_key(|s| std::cmp::Reverse(stored(&s.1))),
            _ => {}
        }
        reversed(streams, place.reverse)
    }

    /// The records of the open shard at the moment shown, oldest first; none while they are being asked for.
    pub fn records(&self) -> &[Record] {
        let known = self.browse.records.as_ref().filter(|_| self.browse.up_to_date());
        known.map_or(&[][..], |known| &known.records)
    }

    /// Lines of the list on this screen.
    pub fn list_length(&self) -> usize {
        match self.screen {
            Screen::Overview | Screen::Backlog => self.groups().len(),
            Screen::Shards => self.shards().len(),
            Screen::Streams if self.browse.open.is_some() => self.records().len(),
            Screen::Streams => self.streams().len(),
            Screen::Latency | Screen::Load => 0,
        }
    }
}

/// Whether `text`, which is what a line is called, contains what is typed, whatever the case.
fn matches(filter: &str, text: &str) -> bool {
    filter.is_empty() || text.to_lowercase().contains(&filter.to_lowercase())
}

fn reversed<T>(mut list: Vec<T>, reverse: bool) -> Vec<T> {
    if reverse {
        list.reverse();
    }
    list
}
