//! Which threads run, which have ended, and how.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::CoreDied;

/// Which threads have ended, and how.
#[derive(Default)]
pub(super) struct Exits {
    state: Mutex<ExitState>,
    changed: Condvar,
}

#[derive(Default)]
pub(super) struct ExitState {
    pub running: usize,
    pub cores_started: usize,
    pub cores_ended: usize,
    pub died: Option<CoreDied>,
}

impl Exits {
    pub fn with<T>(&self, change: impl FnOnce(&mut ExitState) -> T) -> T {
        let result = change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
        result
    }

    /// Waits until `done`, at most until `deadline`; whether it was.
    pub fn wait(&self, deadline: Option<Instant>, done: impl Fn(&ExitState) -> bool) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !done(&state) {
            let left = match deadline {
                None => Duration::from_secs(3600),
                Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                    None => return false,
                    Some(left) => left,
                },
            };
            state =
                self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// Notes the end of a thread, by panic too.
pub(super) struct Exit {
    pub exits: Arc<Exits>,
    pub core: Option<usize>,
    pub outcome: Result<(), String>,
}

impl Drop for Exit {
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut self.outcome, Ok(()));
        self.exits.with(|state| {
            state.running -= 1;
            if let Some(core) = self.core {
                state.cores_ended += 1;
                if let Err(reason) = outcome {
                    state.died.get_or_insert(CoreDied { core, reason });
                }
            }
        });
    }
}
