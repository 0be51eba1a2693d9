//! What was measured: the last samples and the picture they make. No I/O, no clock, no terminal, nothing of how it
//! is shown.

mod ladder;
mod picture;
mod point;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use highwater_wire::telemetry::Snapshot;

use super::figures::{self, Measured, Tail};

pub use picture::{About, HEADLINE, Outlook, Picture, Series};
pub use point::{HEAT_ROWS, Peak, heat_bound};

/// What the charts can show.
pub const WINDOWS: [Duration; 4] = [
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(3600),
];

/// Which of [`WINDOWS`] they show at first.
pub const USUAL_WINDOW: usize = 1;

/// Snapshots kept for [`HEADLINE`], however fast a server publishes.
const MAX_RECENT: usize = 64;

/// Everything measured. A copy shares the snapshots and costs about a megabyte after an hour.
#[derive(Clone, Debug, Default)]
pub struct Model {
    picture: Picture,
    /// The snapshots of the last [`HEADLINE`], oldest first.
    recent: VecDeque<Arc<Snapshot>>,
}

impl Model {
    /// Nothing known yet.
    pub fn new() -> Model {
        Model::default()
    }

    /// What is to be shown.
    pub fn picture(&self) -> &Picture {
        &self.picture
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.recent.back().map(Arc::as_ref)
    }

    /// Takes in a snapshot; whether it is a sample. One that was seen before is none.
    pub fn take(&mut self, snapshot: Box<Snapshot>) -> bool {
        let mut missed = 0;
        if let Some(last) = self.recent.back() {
            if last.started_ns != snapshot.started_ns {
                self.recent.clear();
                self.picture.restarts += 1;
                self.picture.forget_server();
            } else if last.uptime_ns >= snapshot.uptime_ns {
                return false;
            } else {
                missed = snapshot.serial.saturating_sub(last.serial.saturating_add(1));
            }
        }
        self.picture.about = About::of(&snapshot);
        self.picture.ladder.push(&snapshot);
        let figures = self.recent.back().and_then(|last| figures::between(last, &snapshot));
        let delays = |old: &Snapshot| {
            Measured::Propagation.merged(&snapshot).since(&Measured::Propagation.merged(old))
        };
        if let (Some(figures), Some(last)) = (figures, self.recent.back()) {
            self.picture.add(figures, &delays(last), missed);
        }
        self.keep(*snapshot);
        true
    }

    /// Keeps what the headline is made of, and makes it.
    fn keep(&mut self, snapshot: Snapshot) {
        let since = snapshot.uptime_ns.saturating_sub(HEADLINE.as_nanos() as u64);
        // Keep one that is just old enough to be the beginning.
        while self.recent.get(1).is_some_and(|s| s.uptime_ns <= since)
            || self.recent.len() >= MAX_RECENT
        {
            self.recent.pop_front();
        }
        let mut headline = self.recent.front().and_then(|old| figures::between(old, &snapshot));
        if let (Some(headline), Some(latest)) = (&mut headline, &self.picture.figures) {
            headline.complete(latest);
        }
        let tail =
            |of: fn(&figures::Figures) -> Tail| headline.as_ref().map(of).unwrap_or_default();
        self.picture.propagation = tail(|f| f.propagation);
        self.picture.write = tail(|f| f.write);
        self.picture.headline = headline;
        self.recent.push_back(Arc::new(snapshot));
    }
}

#[cfg(test)]
mod tests;
