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
    /// Less than twice the reserve is free.
    Nearly,
    /// Less than the reserve: no new segments.
    Reserve,
    /// Less than half of it: nothing is stored.
    Full,
}

/// Follows the free space.
#[derive(Clone, Copy, Debug)]
pub struct Watermark {
    reserve: u64,
    free: u64,
    level: Level,
}

impl Watermark {
    /// With so many bytes in reserve.
    pub fn new(reserve: u64) -> Watermark {
        Watermark { reserve, free: u64::MAX, level: Level::Roomy }
    }

    /// Takes a look. `Some` when appends are to be refused from now on, or taken again.
    pub fn look(&mut self, free: u64) -> Option<bool> {
        let was_full = self.level == Level::Full;
        self.free = free;
        self.level = match free {
            f if f < self.reserve / 2 => Level::Full,
            // Once full, until all of the reserve is back: between the two it would go on and off.
            f if f < self.reserve && was_full => Level::Full,
            f if f < self.reserve => Level::Reserve,
            f if f < self.reserve.saturating_mul(2) => Level::Nearly,
            _ => Level::Roomy,
        };
        let full = self.level == Level::Full;
        (full != was_full).then_some(full)
    }

    /// How full it is.
    pub fn level(&self) -> Level {
        self.level
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
    fn levels_and_when_cores_are_told() {
        let mut w = Watermark::new(10 * MIB);
        let steps = [
            (90, None, Level::Roomy),
            (19, None, Level::Nearly),
            (9, None, Level::Reserve),
            (4, Some(true), Level::Full),
            (9, None, Level::Full),
            (3, None, Level::Full),
            (10, Some(false), Level::Nearly),
            (9, None, Level::Reserve),
            (40, None, Level::Roomy),
        ];
        for (free, told, level) in steps {
            assert_eq!((w.look(free * MIB), w.level()), (told, level), "{free} MiB");
            assert_eq!(w.warning().is_some(), level != Level::Roomy);
        }
    }
}
