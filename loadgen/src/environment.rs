//! Where the generator ran, as far as a reader of the figures must know.

use serde::Serialize;

/// The machine of the load generator.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Environment {
    /// CPUs this process may use.
    pub cpus: usize,
    /// Operating system and kernel release.
    pub kernel: String,
    /// Share of all CPU time during the run that the hypervisor gave to others, 0 to 1; absent where
    /// the system does not tell.
    pub steal: Option<f64>,
    /// Whether the generator was built without optimisation.
    pub debug_build: bool,
}

impl Environment {
    /// Of this machine, with the steal share since `before`.
    pub(crate) fn read(before: Option<CpuTime>) -> Environment {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let steal = before.zip(CpuTime::read()).and_then(|(before, now)| now.steal_since(before));
        Environment {
            cpus: cpus(),
            kernel: format!("{} {}", std::env::consts::OS, release.trim()).trim().to_owned(),
            steal,
            debug_build: cfg!(debug_assertions),
        }
    }
}

/// CPUs this process may use, at least 1.
pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

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

    fn steal_since(self, before: CpuTime) -> Option<f64> {
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
