//! How full the file system may get. Below the reserve no new segment is made: a shard that needs one is refused
//! with a typed error, while those that go on with recycled files, reads and the control database still have
//! room. Below half of it nothing is stored at all. Both pass by themselves when space returns. Pure: free and
//! total bytes in, a level out.

/// Of a large file system this part is kept in reserve: one percent.
const PART: u64 = 100;
/// Of a smaller one at least so many bytes…
const LEAST: u64 = 64 << 20;
/// …but never more than this part of it: a twentieth.
const MOST_PART: u64 = 20;

/// Bytes of a file system of `total` bytes that are kept free: 1 %, at least 64 MiB, at most 5 %.
pub fn reserve_of(total: u64) -> u64 {
    (total / PART).max(LEAST.min(total / MOST_PART))
}

/// How full it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing to say.
    #[default]
    Roomy,
    /// Less than twice that is free.
    Nearly,
    /// Less than the reserve and the smallest segment: no new segments.
    Reserve,
    /// Less than half of it: nothing is stored.
    Full,
}

/// Follows the free space.
#[derive(Clone, Copy, Debug)]
pub struct Watermark {
    reserve: u64,
    /// Bytes of the smallest segment: it leaves the reserve untouched, or is not made.
    segment: u64,
    free: u64,
    level: Level,
    /// Of what the log has been told.
    said: Level,
}

impl Watermark {
    /// With so many bytes in reserve, beside which the smallest segment takes `segment` bytes.
    pub fn new(reserve: u64, segment: u64) -> Watermark {
        Watermark { reserve, segment, free: u64::MAX, level: Level::Roomy, said: Level::Roomy }
    }

    /// Takes a look. `Some` when appends are to be refused from now on, or taken again.
    pub fn look(&mut self, free: u64) -> Option<bool> {
        let was_full = self.level == Level::Full;
        self.free = free;
        let segments = self.reserve.saturating_add(self.segment);
        self.level = match free {
            f if f < self.reserve / 2 => Level::Full,
            // Once full, until all of the reserve is back: between the two it would go on and off.
            f if f < self.reserve && was_full => Level::Full,
            f if f < segments => Level::Reserve,
            f if f < segments.saturating_mul(2) => Level::Nearly,
            _ => Level::Roomy,
        };
        let full = self.level == Level::Full;
        (full != was_full).then_some(full)
    }

    /// How full it is.
    pub fn level(&self) -> Level {
        self.level
    }

    /// What the log is to be told after a look: once when appends begin to be refused, and once when that is over.
    pub fn news(&mut self) -> Option<String> {
        // A little more than is needed: at its edge it would begin and end again and again.
        let enough = self.reserve.saturating_add(self.segment).saturating_add(self.reserve / 16);
        let over = self.level < Level::Reserve && self.free >= enough;
        if self.level >= Level::Reserve && self.level != self.said {
            self.said = self.level;
            self.warning()
        } else if over && self.said != Level::Roomy {
            self.said = Level::Roomy;
            let free = self.free >> 20;
            Some(format!(
                "the file system has room again: {free} MiB are free; appends are no longer refused"
            ))
        } else {
            None
        }
    }

    /// What an operator should know.
    pub fn warning(&self) -> Option<String> {
        let (free, reserve) = (self.free >> 20, self.reserve >> 20);
        match self.level {
            Level::Roomy => None,
            Level::Nearly => Some(format!(
                "the file system is nearly full: {free} MiB are free; below {reserve} MiB no new segments are made"
            )),
            Level::Reserve => Some(format!(
                "the file system is full: {free} MiB are free, {reserve} MiB are kept in reserve; appends that need a new segment are refused"
            )),
            Level::Full => Some(format!(
                "the file system is full: {free} MiB are free; all appends are refused until {reserve} MiB are"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_reserve_goes_with_the_size() {
        for (total, reserve) in [
            (100 * MIB, 5 * MIB),
            (1280 * MIB, 64 * MIB),
            (4 << 30, 64 * MIB),
            (1 << 40, (1 << 40) / 100),
        ] {
            assert_eq!(reserve_of(total), reserve, "{total}");
        }
    }

    #[test]
    fn the_log_hears_once_that_it_begins_and_once_that_it_ends() {
        let mut w = Watermark::new(16 * MIB, 4 * MIB);
        let steps = [
            (90, None),
            (24, None),
            (19, Some("full: 19 MiB are free, 16 MiB are kept in reserve")),
            (14, None),
            (20, None),
            (15, None),
            (7, Some("full: 7 MiB are free; all appends are refused until 16 MiB are")),
            (9, None),
            (20, None),
            (21, Some("room again: 21 MiB")),
            (20, None),
            (15, Some("full: 15 MiB")),
            (90, Some("room again: 90 MiB")),
            (91, None),
        ];
        for (free, said) in steps {
            w.look(free * MIB);
            let news = w.news();
            let right = match (&news, said) {
                (Some(news), Some(said)) => news.contains(said),
                (news, said) => news.is_none() && said.is_none(),
            };
            assert!(right, "{free} MiB: {news:?} instead of {said:?}");
        }
    }

    #[test]
    fn levels_and_when_cores_are_told() {
        let mut w = Watermark::new(10 * MIB, MIB);
        let steps = [
            (90, None, Level::Roomy),
            (21, None, Level::Nearly),
            (10, None, Level::Reserve),
            (4, Some(true), Level::Full),
            (9, None, Level::Full),
            (3, None, Level::Full),
            (10, Some(false), Level::Reserve),
            (11, None, Level::Nearly),
            (9, None, Level::Reserve),
            (40, None, Level::Roomy),
        ];
        for (free, told, level) in steps {
            assert_eq!((w.look(free * MIB), w.level()), (told, level), "{free} MiB");
            assert_eq!(w.warning().is_some(), level != Level::Roomy);
        }
    }
}
