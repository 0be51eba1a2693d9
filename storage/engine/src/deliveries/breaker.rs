//! The breaker of a group: while too many of the records it settles become dead letters nothing is handed out, so that an
//! outage behind the consumers does not bury a stream. Pure.

use highwater_wire::{BreakerState, DeliveryConfig};

use super::Tally;

/// The window is counted in so many parts, of which the oldest is forgotten first.
const PARTS: u64 = 10;

/// Fewer records settled within the window say nothing.
const ENOUGH: u64 = 20;

/// Whoever asks while another's record is on trial asks again after this time, milliseconds.
const ON_TRIAL_MS: u32 = 100;

/// How much may be handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    All,
    /// One record, to see how it fares.
    One,
    None {
        retry_after_ms: u32,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    /// Until then.
    Open(u64),
    /// One is on trial until then; 0 for none.
    HalfOpen(u64),
}

/// Part of the window.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    /// Number of the part, by the clock.
    number: u64,
    done: u64,
    given_up: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Breaker {
    state: State,
    parts: [Part; PARTS as usize],
}

impl Breaker {
    /// What may be handed out now.
    pub fn admit(&mut self, now_ns: u64, config: &DeliveryConfig) -> Admission {
        if config.breaker_permille == 0 {
            *self = Breaker::default();
        }
        self.state = self.state_at(now_ns);
        match self.state {
            State::Closed => Admission::All,
            State::HalfOpen(until_ns) if until_ns > now_ns => {
                Admission::None { retry_after_ms: ON_TRIAL_MS }
            }
            State::HalfOpen(_) => Admission::One,
            State::Open(until_ns) => {
                let left_ms = until_ns.saturating_sub(now_ns).div_ceil(1_000_000);
                Admission::None { retry_after_ms: u32::try_from(left_ms).unwrap_or(u32::MAX) }
            }
        }
    }

    /// What was admitted was handed out.
    pub fn handed_out(&mut self, now_ns: u64, config: &DeliveryConfig) {
        if let State::HalfOpen(trial) = &mut self.state {
            *trial = now_ns.saturating_add(u64::from(config.timeout_ms) * 1_000_000);
        }
    }

    /// What became of records.
    pub fn count(&mut self, now_ns: u64, config: &DeliveryConfig, tally: &Tally) {
        if config.breaker_permille == 0 {
            *self = Breaker::default();
            return;
        }
        self.state = self.state_at(now_ns);
        let open = State::Open(now_ns.saturating_add(window_ns(config)));
        match self.state {
            State::HalfOpen(_) if tally.done > 0 => *self = Breaker::default(),
            State::HalfOpen(_) if tally.failed > 0 => self.state = open,
            State::HalfOpen(_) if tally.released > 0 => self.state = State::HalfOpen(0),
            State::HalfOpen(_) | State::Open(_) => {}
            State::Closed => {
                self.add(now_ns, config, tally);
                let (done, given_up) = self.settled(now_ns, config);
                let all = done + given_up;
                let share = u64::from(config.breaker_permille);
                if all >= ENOUGH && tally.given_up > 0 && given_up * 1_000 > share * all {
                    *self = Breaker { state: open, ..Breaker::default() };
                }
            }
        }
    }

    fn add(&mut self, now_ns: u64, config: &DeliveryConfig, tally: &Tally) {
        let number = now_ns / part_ns(config);
        let part = &mut self.parts[(number % PARTS) as usize];
        if part.number != number {
            *part = Part { number, ..Part::default() };
        }
        part.done += tally.done;
        part.given_up += tally.given_up;
    }

    /// Records settled within the window: processed, and given up.
    fn settled(&self, now_ns: u64, config: &DeliveryConfig) -> (u64, u64) {
        let now = now_ns / part_ns(config);
        let recent =
            self.parts.iter().filter(|part| part.number + PARTS > now && part.number <= now);
        recent.fold((0, 0), |(done, given_up), p| (done + p.done, given_up + p.given_up))
    }

    fn state_at(&self, now_ns: u64) -> State {
        match self.state {
            State::Open(until_ns) if until_ns <= now_ns => State::HalfOpen(0),
            state => state,
        }
    }

    pub fn is_open(&self, now_ns: u64) -> bool {
        matches!(self.state_at(now_ns), State::Open(_))
    }

    pub fn state(&self, now_ns: u64) -> BreakerState {
        match self.state_at(now_ns) {
            State::Closed => BreakerState::Closed,
            State::Open(_) => BreakerState::Open,
            State::HalfOpen(_) => BreakerState::HalfOpen,
        }
    }
}

fn window_ns(config: &DeliveryConfig) -> u64 {
    u64::from(config.breaker_window_ms) * 1_000_000
}

fn part_ns(config: &DeliveryConfig) -> u64 {
    (window_ns(config) / PARTS).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn config() -> DeliveryConfig {
        let (breaker_permille, breaker_window_ms) = (500, 10_000);
        DeliveryConfig { breaker_permille, breaker_window_ms, ..DeliveryConfig::default() }
    }

    fn settled(done: u64, given_up: u64) -> Tally {
        Tally { done, given_up, failed: given_up, ..Tally::default() }
    }

    fn after(tallies: &[(u64, u64, u64)]) -> Breaker {
        let mut breaker = Breaker::default();
        for (second, done, given_up) in tallies {
            breaker.count(second * SECOND, &config(), &settled(*done, *given_up));
        }
        breaker
    }

    #[test]
    fn it_opens_when_more_than_the_share_of_enough_records_was_given_up() {
        // By second: processed, given up. Whether it is open after the last.
        type Row = (&'static [(u64, u64, u64)], bool);
        let table: [Row; 7] = [
            (&[(100, 0, 19)], false),
            (&[(100, 0, 20)], true),
            (&[(100, 10, 10)], false),
            (&[(100, 10, 11)], true),
            (&[(100, 100, 0), (105, 0, 60), (106, 0, 60)], true),
            (&[(100, 100, 0), (112, 0, 60)], true),
            (&[(100, 0, 15), (112, 0, 15)], false),
        ];
        for (tallies, open) in table {
            let now = tallies.last().map_or(0, |(second, _, _)| second * SECOND);
            assert_eq!(after(tallies).is_open(now), open, "{tallies:?}");
        }
        let mut none = Breaker::default();
        let without = DeliveryConfig { breaker_permille: 0, ..config() };
        none.count(SECOND, &without, &settled(0, 1_000));
        assert_eq!(none.admit(SECOND, &without), Admission::All);
    }

    #[test]
    fn one_record_decides_whether_it_closes() {
        let opened = || after(&[(100, 0, 30)]);
        let mut breaker = opened();
        let at = |second: u64| second * SECOND;
        let none = |retry_after_ms| Admission::None { retry_after_ms };
        assert_eq!(breaker.admit(at(103), &config()), none(7_000));
        assert_eq!(breaker.state(at(109)), BreakerState::Open);
        assert_eq!(breaker.state(at(110)), BreakerState::HalfOpen);
        assert_eq!(breaker.admit(at(110), &config()), Admission::One);
        breaker.handed_out(at(110), &config());
        assert_eq!(breaker.admit(at(111), &config()), none(ON_TRIAL_MS), "one at a time");
        let mut released = breaker.clone();
        released.count(at(111), &config(), &Tally { released: 1, ..Tally::default() });
        assert_eq!(released.admit(at(111), &config()), Admission::One);
        let mut failed = breaker.clone();
        failed.count(at(112), &config(), &Tally { failed: 1, ..Tally::default() });
        assert_eq!(failed.admit(at(112), &config()), none(10_000));
        breaker.count(at(112), &config(), &settled(1, 0));
        assert_eq!(breaker.admit(at(112), &config()), Admission::All);
        assert_eq!(breaker.state(at(112)), BreakerState::Closed);
        breaker.count(at(113), &config(), &settled(0, 19));
        assert_eq!(breaker.state(at(113)), BreakerState::Closed, "it begins anew");
    }
}
