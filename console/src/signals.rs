//! Ctrl-C, SIGTERM and SIGHUP as an orderly end. A second signal ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::watch;

use crate::failure::Failure;

/// Whether to stop; clones see the same.
#[derive(Clone, Debug)]
pub struct Stop {
    flag: Arc<AtomicBool>,
    sender: Arc<watch::Sender<bool>>,
}

impl Stop {
    /// Nothing stops it but [`Stop::request`].
    pub fn new() -> Stop {
        Stop { flag: Arc::default(), sender: Arc::new(watch::Sender::new(false)) }
    }

    /// Stops on the first signal.
    pub fn on_signals() -> Result<Stop, Failure> {
        let stop = Stop::new();
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
            .map_err(|e| Failure::doing("cannot handle signals", e))?;
        let on_signal = stop.clone();
        let watcher = move || {
            for signal in signals.forever() {
                if on_signal.requested() {
                    // Best effort: if even this fails there is nothing left to try.
                    let _ = signal_hook::low_level::emulate_default_handler(signal);
                }
                on_signal.request();
            }
        };
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(watcher)
            .map_err(|e| Failure::doing("cannot start a thread", e))?;
        Ok(stop)
    }

    /// Asks to stop.
    pub fn request(&self) {
        self.flag.store(true, Ordering::Release);
        self.sender.send_replace(true);
    }

    /// Whether it was asked.
    pub fn requested(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    /// The flag itself, for those who poll one.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flag)
    }

    /// Resolves once it was asked.
    pub async fn wait(&self) {
        let mut receiver = self.sender.subscribe();
        // The sender lives in self, so this cannot fail.
        let _ = receiver.wait_for(|stop| *stop).await;
    }
}
