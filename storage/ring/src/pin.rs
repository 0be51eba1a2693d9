//! Pinning threads to CPUs.

use core_affinity::CoreId;

/// Why a thread could not be pinned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// The CPU does not exist or this process may not run on it.
    #[error("CPU {cpu} does not exist or is not allowed here; usable: {usable:?}")]
    NotUsable {
        /// The CPU asked for.
        cpu: usize,
        /// Those that may be used.
        usable: Vec<usize>,
    },
    /// The kernel refused.
    #[error("the kernel refused to pin this thread to CPU {cpu}")]
    Refused {
        /// The CPU asked for.
        cpu: usize,
    },
    /// The list of CPUs could not be read.
    #[error("the CPUs this process may use could not be listed")]
    Unknown,
}

/// The CPUs this thread may run on (its affinity mask), ascending. Call it before pinning: a pinned thread
/// sees only its own.
///
/// # Errors
/// When the kernel does not tell.
pub fn usable_cpus() -> Result<Vec<usize>, PinError> {
    let mut cpus: Vec<usize> = core_affinity::get_core_ids()
        .ok_or(PinError::Unknown)?
        .iter()
        .map(|core| core.id)
        .collect();
    cpus.sort_unstable();
    Ok(cpus)
}

/// Pins the calling thread to `cpu`. Do it before making a ring or touching buffers.
///
/// # Errors
/// When the CPU does not exist, is not allowed, or the kernel refuses.
pub fn pin_thread(cpu: usize) -> Result<(), PinError> {
    let usable = usable_cpus()?;
    if !usable.contains(&cpu) {
        return Err(PinError::NotUsable { cpu, usable });
    }
    if core_affinity::set_for_current(CoreId { id: cpu }) {
        Ok(())
    } else {
        Err(PinError::Refused { cpu })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_to_each_usable_cpu_and_refuses_others() {
        for cpu in usable_cpus().unwrap() {
            std::thread::spawn(move || {
                pin_thread(cpu).unwrap();
                assert_eq!(usable_cpus().unwrap(), [cpu]);
            })
            .join()
            .unwrap();
        }
        assert!(matches!(pin_thread(100_000), Err(PinError::NotUsable { cpu: 100_000, .. })));
    }
}
