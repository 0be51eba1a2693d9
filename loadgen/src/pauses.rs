//! Pauses in acknowledgements: for how long a shard acknowledged nothing although a record was due for it.
//!
//! A pause ends with an acknowledgement. It began with the one before in that shard, or when the first record of what is
//! acknowledged now was due, whichever is later: time in which nobody had anything to ask of the shard is no pause. A
//! shard that takes over from another so is measured from the first record that waited for it.

use std::collections::BTreeMap;

/// The pauses that one lane saw, by shard. Takes memory only where a shard is new to it.
#[derive(Clone, Debug, Default)]
pub struct Pauses(Vec<Pause>);

#[derive(Clone, Copy, Debug)]
struct Pause {
    shard: u32,
    acked_ns: u64,
    longest_ns: u64,
}

impl Pauses {
    /// Records of `shard`, of which the first was due at `due_ns`, are acknowledged at `now_ns`. Those that are not
    /// `measured` end a pause, and it does not count.
    pub fn acked(&mut self, shard: u32, due_ns: u64, now_ns: u64, measured: bool) {
        let at = self.0.iter().position(|pause| pause.shard == shard).unwrap_or_else(|| {
            self.0.push(Pause { shard, acked_ns: 0, longest_ns: 0 });
            self.0.len() - 1
        });
        let pause = &mut self.0[at];
        let lasted = now_ns.saturating_sub(pause.acked_ns.max(due_ns));
        pause.acked_ns = pause.acked_ns.max(now_ns);
        if measured {
            pause.longest_ns = pause.longest_ns.max(lasted);
        }
    }

    /// Adds the longest of each shard of stream number `stream` to `longest`.
    pub fn add_to(&self, stream: usize, longest: &mut Longest) {
        for pause in &self.0 {
            let known = longest.entry((stream, pause.shard)).or_default();
            *known = (*known).max(pause.longest_ns);
        }
    }
}

/// The longest pause of each shard that any lane saw, nanoseconds, by stream and shard.
pub type Longest = BTreeMap<(usize, u32), u64>;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_pause_is_time_without_an_acknowledgement_in_which_a_record_was_due() {
        // Due, acknowledged, and the longest pause by then, milliseconds.
        let table = [
            (10, 12, 2),
            // Idle for long, then quick: no pause.
            (500, 503, 3),
            // Due while the one before was under way: since that came.
            (501, 510, 7),
            // Stood still.
            (511, 611, 100),
            (512, 612, 100),
        ];
        let mut pauses = Pauses::default();
        for (due, acked, longest) in table {
            pauses.acked(3, due * MS, acked * MS, true);
            let mut all = Longest::new();
            pauses.add_to(1, &mut all);
            assert_eq!(all, Longest::from([((1, 3), longest * MS)]), "due at {due} ms");
        }
    }

    #[test]
    fn shards_are_told_apart_and_the_longest_of_all_lanes_counts() {
        let (mut one, mut other) = (Pauses::default(), Pauses::default());
        // Not measured, but it ends what came before.
        one.acked(0, 0, 50 * MS, false);
        one.acked(0, 10 * MS, 51 * MS, true);
        // The first of a shard that took over: since it was due.
        one.acked(1, 20 * MS, 51 * MS, true);
        other.acked(1, 45 * MS, 52 * MS, true);
        let mut all = Longest::new();
        one.add_to(0, &mut all);
        other.add_to(0, &mut all);
        assert_eq!(all, Longest::from([((0, 0), MS), ((0, 1), 31 * MS)]));
    }
}
