//! What is worth a look, said in words: a short list of rules over what is shown.

use super::figures;
use super::model::{Outlook, Picture};

/// How much it matters; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something is lost or stopped, or will be.
    Bad,
    /// Something is not as it should be.
    Warn,
    /// Good to know.
    Info,
}

impl Level {
    /// In front of the words, so that nothing is told by colour alone.
    pub fn mark(self) -> &'static str {
        match self {
            Level::Bad => "!!",
            Level::Warn => "! ",
            Level::Info => "i ",
        }
    }
}

/// A thing worth a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// How much it matters.
    pub level: Level,
    /// What it is.
    pub text: String,
}

/// A core this busy has no room left.
const BUSY: f64 = 0.95;
/// A shard that gets this much more than the mean is hot.
const SKEW: f64 = 1.5;
/// A file system with less free than this is nearly full.
const DISK_FREE: f64 = 0.05;

/// How the server's own warning of a volatile file system begins.
const NOT_DURABLE: &str = "NOT DURABLE";

/// Why nothing is durable: the server's own words, which name the file system, or else how it writes.
pub fn volatile(warnings: &[String], durability: &str) -> String {
    let told = warnings.iter().find(|warning| warning.starts_with(NOT_DURABLE));
    told.cloned().unwrap_or_else(|| format!("{NOT_DURABLE}: {durability}"))
}

/// What is worth a look in `picture`, the worst first; `restarts` is how often the server was restarted meanwhile.
pub fn notices(picture: &Picture, restarts: u32) -> Vec<Notice> {
    let mut all = Vec::new();
    let mut add = |level, text: String| all.push(Notice { level, text });
    let about = &picture.about;
    let figures_told = picture.figures.is_some() && !about.durable;
    if let Some(figures) = &picture.figures {
        if !about.durable {
            add(Level::Bad, volatile(&about.warnings, &about.durability));
        }
        for shard in figures.shards.iter().filter(|s| s.state != "open") {
            add(Level::Bad, format!("{}/{} {}", shard.stream, shard.shard, shard.state));
        }
        for group in &figures.groups {
            if picture.outlook(group) == Outlook::Grows {
                add(Level::Bad, format!("backlog of {} grows", group.group));
            }
        }
        for core in figures.cores.iter().filter(|c| c.busy > BUSY) {
            add(Level::Warn, format!("core {} is {:.0} % busy", core.core, core.busy * 100.0));
        }
        if let Some(skew) = figures::skew(&figures.shards).filter(|skew| *skew > SKEW) {
            add(Level::Warn, format!("a shard is hot: skew {skew:.1}"));
        }
    }
    if let Some(free) = about.disk_free.filter(|free| *free < DISK_FREE) {
        add(Level::Warn, format!("disk: {:.1} % free", free * 100.0));
    }
    let told = |warning: &&String| figures_told && warning.starts_with(NOT_DURABLE);
    for warning in about.warnings.iter().filter(|warning| !told(warning)) {
        add(Level::Warn, warning.clone());
    }
    if restarts > 0 {
        add(Level::Info, format!("server was restarted {restarts} x"));
    }
    all.sort_by_key(|notice| notice.level);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::{fixture, model::Model};

    #[test]
    fn rules_fire() {
        let mut model = Model::new("test", false);
        for at in 1..6 {
            let mut snapshot = fixture::snapshot(at);
            snapshot.durable = false;
            snapshot.disk_free = 1 << 20;
            snapshot.shards[1].state = "failed: EIO".into();
            snapshot.cores[0].busy_ns = at * 990_000_000;
            snapshot.warnings = vec!["RLIMIT_MEMLOCK is low".into()];
            model.take(Box::new(snapshot));
        }
        let notices = notices(model.picture(), 1);
        let text: Vec<_> = notices.iter().map(|n| n.text.as_str()).collect();
        let expected = [
            "NOT DURABLE: RWF_DSYNC on ext4",
            "orders/1 failed: EIO",
            "backlog of audit grows",
            "core 0 is 99 % busy",
            "a shard is hot: skew 1.6",
            "disk: 0.0 % free",
            "RLIMIT_MEMLOCK is low",
            "server was restarted 1 x",
        ];
        assert_eq!(text, expected);
        assert!(super::notices(&Picture::default(), 0).is_empty());
    }
}
