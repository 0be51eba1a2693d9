//! A rate that changes by steps, and a walk along it in integers.
//!
//! Rates are whole nanorecords per second and times whole nanoseconds; their product, a *unit*, is
//! 10⁻¹⁸ of a record. Everything a run can ask for fits 128 bits.

use std::sync::Arc;

/// Units of one record.
pub const RECORD: u128 = 1_000_000_000_000_000_000;

/// Largest rate in nanorecords per second: twice it still fits 64 bits.
const MAX_RATE: f64 = 9e18;

/// A time during which the rate does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// How long, in nanoseconds; more than 0.
    pub length_ns: u64,
    /// Nanorecords per second; may be 0.
    pub rate: u64,
}

impl Step {
    /// Of `rate` records per second.
    pub fn new(length_ns: u64, rate: f64) -> Step {
        Step { length_ns, rate: (rate * 1e9).round().clamp(0.0, MAX_RATE) as u64 }
    }

    fn units(&self) -> u128 {
        u128::from(self.length_ns) * u128::from(self.rate)
    }
}

/// Steps that repeat for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steps {
    steps: Vec<Step>,
    /// Of all steps together.
    length_ns: u64,
    /// Of all steps together; more than 0.
    units: u128,
}

impl Steps {
    /// `None` if nothing would ever be due, or if they take longer than 64 bits of nanoseconds.
    pub fn new(steps: Vec<Step>) -> Option<Steps> {
        let length_ns = steps.iter().try_fold(0u64, |sum, s| sum.checked_add(s.length_ns))?;
        let units = steps.iter().map(Step::units).sum();
        (units > 0).then_some(Steps { steps, length_ns, units })
    }

    /// One rate for ever: `rate` records per second, at least a nanorecord.
    pub fn flat(rate: f64) -> Steps {
        let mut step = Step::new(u64::MAX, rate);
        step.rate = step.rate.max(1);
        Steps { steps: vec![step], length_ns: u64::MAX, units: step.units() }
    }

    /// The steps of one period.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Length of a period, in nanoseconds.
    pub fn length_ns(&self) -> u64 {
        self.length_ns
    }

    /// Records per second, over a period.
    pub fn mean_rate(&self) -> f64 {
        self.units as f64 / self.length_ns as f64 / 1e9
    }
}

/// A place in the steps: the one that is current.
#[derive(Clone, Debug)]
pub struct Course {
    steps: Arc<Steps>,
    start_ns: u64,
    index: usize,
    begin_ns: u64,
    end_ns: u64,
    rate: u64,
}

impl Course {
    /// At the first step, which begins at `start_ns`.
    pub fn new(steps: Arc<Steps>, start_ns: u64) -> Course {
        let mut course =
            Course { steps, start_ns, index: 0, begin_ns: start_ns, end_ns: start_ns, rate: 0 };
        course.enter(0, start_ns);
        course
    }

    /// Rate of the current step, nanorecords per second.
    #[inline]
    pub fn rate(&self) -> u64 {
        self.rate
    }

    /// When the current step began.
    pub fn begin_ns(&self) -> u64 {
        self.begin_ns
    }

    /// When the current step ends.
    #[inline]
    pub fn end_ns(&self) -> u64 {
        self.end_ns
    }

    /// Goes to where `units` have come since the current step began. Returns when that is, rounded down,
    /// and the remainder in parts of the rate of a nanosecond; `None` beyond the end of time. The step
    /// that is current then has a rate.
    pub fn seek(&mut self, mut units: u128) -> Option<(u64, u64)> {
        loop {
            let whole = self.step().units();
            if units < whole {
                let rate = u128::from(self.rate);
                let ahead = u64::try_from(units / rate).ok()?;
                return Some((self.begin_ns.checked_add(ahead)?, (units % rate) as u64));
            }
            units -= whole;
            if self.forward()? {
                let periods = units / self.steps.units;
                units %= self.steps.units;
                self.skip(u64::try_from(periods).ok()?)?;
            }
        }
    }

    /// From the end of the current step on, goes to where `records` are spent. Returns when that is,
    /// rounded down, and what was rounded off in nanoseconds.
    pub fn spend(&mut self, mut records: f64) -> Option<(u64, f64)> {
        loop {
            if self.forward()? {
                let all = self.steps.units as f64 / RECORD as f64;
                let periods = (records / all).floor();
                records = (records - periods * all).max(0.0);
                self.skip(periods as u64)?;
            }
            let step = self.step();
            let whole = step.units() as f64 / RECORD as f64;
            if records < whole {
                let ahead = records * (RECORD as f64 / step.rate as f64);
                // The product may round up to the step's very end.
                let whole_ns = (ahead as u64).min(step.length_ns - 1);
                return Some((self.begin_ns.checked_add(whole_ns)?, ahead - whole_ns as f64));
            }
            records -= whole;
        }
    }

    /// Units from the start of all to `at_ns`.
    pub fn units_until(&self, at_ns: u64) -> u128 {
        let elapsed = at_ns.saturating_sub(self.start_ns);
        let (periods, mut left) = (elapsed / self.steps.length_ns, elapsed % self.steps.length_ns);
        let mut units = u128::from(periods).saturating_mul(self.steps.units);
        for step in self.steps.steps() {
            let part = Step { length_ns: left.min(step.length_ns), rate: step.rate };
            units = units.saturating_add(part.units());
            left -= part.length_ns;
            if left == 0 {
                break;
            }
        }
        units
    }

    fn step(&self) -> Step {
        self.steps.steps[self.index]
    }

    /// To the next step; whether it is the first again.
    fn forward(&mut self) -> Option<bool> {
        let begin_ns = self.begin_ns.checked_add(self.step().length_ns)?;
        let index = if self.index + 1 == self.steps.steps.len() { 0 } else { self.index + 1 };
        self.enter(index, begin_ns);
        Some(index == 0)
    }

    /// Whole periods on.
    fn skip(&mut self, periods: u64) -> Option<()> {
        let ahead = periods.checked_mul(self.steps.length_ns)?;
        self.enter(self.index, self.begin_ns.checked_add(ahead)?);
        Some(())
    }

    fn enter(&mut self, index: usize, begin_ns: u64) {
        (self.index, self.begin_ns) = (index, begin_ns);
        let step = self.step();
        (self.end_ns, self.rate) = (begin_ns.saturating_add(step.length_ns), step.rate);
    }
}
