//! Ctrl-C, SIGTERM and SIGHUP as an orderly end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::watch;

use crate::failure::Failure;

/// Calls `act` for each signal, on a thread of its own. When it returns false, the process ends as it would have
/// without us.
pub fn on_each(mut act: impl FnMut() -> bool + Send + 'static) -> Result<(), Failure> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|e| Failure::doing("cannot handle signals", e))?;
    let watcher = move || {
        for signal in signals.forever() {
            if !act() {
                // Best effort: if even this fails there is nothing left to try.
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
        }
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(watcher)
        .map(drop)
        .map_err(|e| Failure::doing("cannot start a thread", e))
}

/// Whether to stop; clones see the same.
#[derive(Clone, Debug)]
pub struct Stop {
    flag: Arc<AtomicBool>,
    sender: Arc<watch::Sender<bool>>,
    load: highwater_loadgen::Stop,
}

impl Stop {
    /// Nothing stops it but [`Stop::request`].
    pub fn new() -> Stop {
        Stop {
            flag: Arc::default(),
            sender: Arc::new(watch::Sender::new(false)),
            load: highwater_loadgen::Stop::default(),
        }
    }

    /// Stops on the first signal; a second one ends the process at once.
    pub fn on_signals() -> Result<Stop, Failure> {
        let stop = Stop::new();
        let on_signal = stop.clone();
        on_each(move || on_signal.request())?;
        Ok(stop)
    }

    /// Asks to stop. Whether nobody had before.
    pub fn request(&self) -> bool {
        let first = !self.flag.swap(true, Ordering::AcqRel);
        if first {
            self.load.request();
            self.sender.send_replace(true);
        }
        first
    }

    /// Whether it was asked.
    pub fn requested(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    /// The same for a load run: it drains when asked to stop, and no more often than once.
    pub fn load(&self) -> &highwater_loadgen::Stop {
        &self.load
    }

    /// Resolves once it was asked.
    pub async fn wait(&self) {
        let mut receiver = self.sender.subscribe();
        // The sender lives in self, so this cannot fail.
        let _ = receiver.wait_for(|stop| *stop).await;
    }
}
