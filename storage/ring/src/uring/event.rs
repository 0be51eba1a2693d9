//! A disk's events as a tokio task awaits them.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::UringDisk;

/// Tells a task on a tokio runtime (or tokio-uring's) that its [`UringDisk`] has something to reap. Does not
/// borrow the disk. The descriptor is never read: tokio waits for edges, and every signal is one.
#[derive(Debug)]
pub struct DiskEvent {
    fd: AsyncFd<OwnedFd>,
}

impl UringDisk {
    /// [`UringDisk::event_fd`], registered with the runtime this is called in.
    ///
    /// # Errors
    /// When the kernel or the runtime does not register it.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn event(&mut self) -> io::Result<DiskEvent> {
        let fd = self.event_fd()?;
        // SAFETY: the `OwnedFd` moves into the `AsyncFd`, which keeps it, open and the same, until it is
        // deregistered.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? };
        Ok(DiskEvent { fd })
    }
}

impl DiskEvent {
    /// Waits for completions or a wake: call [`crate::Disk::reap`] next, then look at queues of one's own. May return
    /// for nothing, as [`UringDisk::has_news`] tells. May be dropped while waiting: nothing is lost.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub async fn wait(&self) -> io::Result<()> {
        self.fd.readable().await?.clear_ready();
        Ok(())
    }
}
