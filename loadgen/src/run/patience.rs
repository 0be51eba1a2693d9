//! When a target is given up: it answers nothing though it is asked, or refuses whatever it is asked.

use std::time::Duration;

use crate::clock::nanos;

/// What can be seen of the target. Records since the run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Due by now, if there is a schedule.
    pub due: u64,
    /// Sent.
    pub sent: u64,
    /// Acknowledged.
    pub acked: u64,
    /// Refused, or of unknown fate.
    pub failed: u64,
}

/// What the patience ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was answered for so long while so many records waited.
    Hung {
        /// How long.
        silent: Duration,
        /// Records sent and not answered, or due and not taken.
        waiting: u64,
    },
    /// Nothing but refusals and failures came for so long.
    Refusing {
        /// How long.
        since: Duration,
        /// Records refused, or of unknown fate, in that time.
        failed: u64,
    },
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Verdict::Hung { silent, waiting } => write!(
                f,
                "the target answered nothing for {:.1} s while {waiting} records waited for it",
                silent.as_secs_f64()
            ),
            Verdict::Refusing { since, failed } => write!(
                f,
                "the target took nothing for {:.1} s and failed {failed} records in that time",
                since.as_secs_f64()
            ),
        }
    }
}

/// Follows the answers. Pure: the time is what it is told.
#[derive(Clone, Debug)]
pub struct Patience {
    limit_ns: u64,
    seen: Answers,
    /// Since when nothing was answered while something waited.
    silent_since: Option<u64>,
    /// Since when nothing was acknowledged while something failed, and what had failed before.
    failing_since: Option<(u64, u64)>,
}

impl Patience {
    /// That lasts for `limit`.
    pub fn new(limit: Duration) -> Patience {
        Patience {
            limit_ns: nanos(limit),
            seen: Answers::default(),
            silent_since: None,
            failing_since: None,
        }
    }

    /// Looks at the target at `now_ns`; whether it is to be given up.
    pub fn look(&mut self, now_ns: u64, answers: Answers) -> Option<Verdict> {
        let before = std::mem::replace(&mut self.seen, answers);
        let failed_now = answers.failed > before.failed;
        if answers.acked > before.acked {
            self.failing_since = None;
        } else if failed_now {
            self.failing_since.get_or_insert((now_ns, before.failed));
        }
        let answered = answers.acked + answers.failed;
        let waiting = answers.due.max(answers.sent).saturating_sub(answered);
        if waiting == 0 || answered > before.acked + before.failed {
            self.silent_since = None;
        } else {
            self.silent_since.get_or_insert(now_ns);
        }
        let past = |since: u64| now_ns.saturating_sub(since) >= self.limit_ns;
        let long = |since: u64| Duration::from_nanos(now_ns.saturating_sub(since));
        if let Some(since) = self.silent_since.filter(|since| past(*since)) {
            return Some(Verdict::Hung { silent: long(since), waiting });
        }
        // Judged when it fails again: after a single failure it may simply not have been asked.
        let (since, before) = self.failing_since.filter(|(since, _)| failed_now && past(*since))?;
        Some(Verdict::Refusing { since: long(since), failed: answers.failed - before })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first verdict over looks `(now, due, sent, acked, failed)`, with a limit of 10.
    fn first(looks: &[(u64, u64, u64, u64, u64)]) -> Option<(u64, Verdict)> {
        let mut patience = Patience::new(Duration::from_nanos(10));
        looks.iter().find_map(|&(now, due, sent, acked, failed)| {
            let verdict = patience.look(now, Answers { due, sent, acked, failed });
            verdict.map(|verdict| (now, verdict))
        })
    }

    #[test]
    fn an_answering_target_is_never_given_up() {
        // Slow, but alive; idle for long; refusing now and then.
        assert_eq!(first(&[(0, 9, 9, 1, 0), (9, 9, 9, 2, 0), (18, 9, 9, 3, 0)]), None);
        assert_eq!(first(&[(0, 5, 5, 5, 0), (50, 5, 5, 5, 0), (99, 6, 6, 6, 0)]), None);
        assert_eq!(first(&[(0, 5, 5, 4, 1), (50, 7, 7, 5, 2), (99, 9, 9, 6, 3)]), None);
        // Refused once, and not asked again.
        assert_eq!(first(&[(0, 1, 1, 0, 1), (50, 1, 1, 0, 1), (99, 1, 1, 0, 1)]), None);
    }

    #[test]
    fn one_that_answers_nothing_is_given_up_at_the_limit() {
        let silent = |ns| Duration::from_nanos(ns);
        let sent = [(0, 0, 4, 4, 0), (5, 0, 9, 4, 0), (14, 0, 9, 4, 0), (15, 0, 9, 4, 0)];
        let hung = Verdict::Hung { silent: silent(10), waiting: 5 };
        assert_eq!(first(&sent), Some((15, hung)));
        assert!(hung.to_string().contains("5 records"));
        // It does not even take them.
        let due = [(0, 4, 4, 4, 0), (5, 7, 4, 4, 0), (20, 9, 4, 4, 0)];
        let hung = Verdict::Hung { silent: silent(15), waiting: 5 };
        assert_eq!(first(&due), Some((20, hung)));
    }

    #[test]
    fn one_that_refuses_everything_is_given_up_at_the_limit() {
        let looks = [(0, 5, 5, 5, 0), (3, 9, 9, 5, 4), (9, 12, 12, 5, 7), (13, 14, 14, 5, 9)];
        let refusing = Verdict::Refusing { since: Duration::from_nanos(10), failed: 9 };
        assert_eq!(first(&looks), Some((13, refusing)));
    }
}
