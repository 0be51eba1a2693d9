//! How a run is asked to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// A request to end, raised from any thread; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicU8>);

impl Stop {
    /// Nothing is asked for yet.
    pub fn new() -> Stop {
        Stop::default()
    }

    /// Asks once more. After the first time no more records are made, and those sent are waited for and
    /// read; after the second they are not waited for either.
    pub fn request(&self) {
        // Fails only at the highest level, where there is nothing more to ask for.
        let _raised = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |level| {
            (level < 2).then_some(level + 1)
        });
    }

    /// How often it was asked, up to 2.
    pub fn level(&self) -> u8 {
        self.0.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_levels_are_all_there_are() {
        let stop = Stop::new();
        let levels = [(); 4].map(|()| {
            stop.clone().request();
            stop.level()
        });
        assert_eq!(levels, [1, 2, 2, 2]);
    }
}
