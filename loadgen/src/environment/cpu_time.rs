//! How much of its time the machine really had.

/// CPU time of the whole machine since it started, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CpuTime {
    total: u64,
    steal: u64,
}

impl CpuTime {
    /// Now; `None` where there is no `/proc/stat`.
    pub(crate) fn read() -> Option<CpuTime> {
        CpuTime::parse(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    fn parse(stat: &str) -> Option<CpuTime> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        // user nice system idle iowait irq softirq steal; what follows is contained in user and nice.
        let fields: Vec<u64> =
            line.split_ascii_whitespace().take(8).map_while(|field| field.parse().ok()).collect();
        Some(CpuTime { total: fields.iter().sum(), steal: *fields.get(7)? })
    }

    /// Share of all time since `before` that the hypervisor gave to others, 0 to 1; `None` if no time has
    /// passed.
    pub(crate) fn steal_since(self, before: CpuTime) -> Option<f64> {
        let total = self.total.checked_sub(before.total).filter(|total| *total > 0)?;
        Some(self.steal.saturating_sub(before.steal) as f64 / total as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_is_its_share_of_all_time_between_two_readings() {
        let before = CpuTime::parse("cpu  10 0 10 70 0 0 0 10 5 5\ncpu0 1 1\n").unwrap();
        let after = CpuTime::parse("cpu  30 0 20 130 0 0 0 20 9 9\n").unwrap();
        assert_eq!(before, CpuTime { total: 100, steal: 10 });
        assert_eq!(after.steal_since(before), Some(0.1));
        assert_eq!(after.steal_since(after), None);
        assert_eq!(CpuTime::parse("intr 5\n"), None);
    }
}
