//! A timer that is late by microseconds, where the runtime's own is by milliseconds.

#[cfg(target_os = "linux")]
pub use linux::Alarm;
#[cfg(not(target_os = "linux"))]
pub use portable::Alarm;

#[cfg(target_os = "linux")]
mod linux {
    //! A kernel timer in the runtime's own wait.

    use std::io;
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    /// Rings once, when it was told to.
    #[derive(Debug)]
    pub struct Alarm(AsyncFd<OwnedFd>);

    impl Alarm {
        /// In the runtime that this is called in.
        ///
        /// # Errors
        /// When the process has too many descriptors open.
        pub fn new() -> io::Result<Alarm> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            // What is deprecated about `new` is types that lie about their descriptor, as an `OwnedFd`
            // cannot; what replaces it needs `unsafe`, which this crate does without.
            #[expect(deprecated)]
            let fd = AsyncFd::new(fd)?;
            Ok(Alarm(fd))
        }

        /// Returns after `wait`, which is not 0.
        ///
        /// # Errors
        /// When the kernel's timer fails.
        pub async fn after(&self, wait: Duration) -> io::Result<()> {
            let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
            let value = Timespec::try_from(wait).map_err(io::Error::other)?;
            // Setting it also takes back an earlier expiry that nobody read.
            let spec = Itimerspec { it_interval: zero, it_value: value };
            timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &spec)?;
            loop {
                let mut ready = self.0.readable().await?;
                let mut expiries = [0; 8];
                match ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut expiries)?)) {
                    Ok(read) => return read.map(drop),
                    Err(_would_block) => {}
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod portable {
    //! The runtime's timer, which is late by up to 2 ms: so it rings early, and the caller spins longer.

    use std::io;
    use std::time::Duration;

    /// Rings once, when it was told to.
    #[derive(Debug)]
    pub struct Alarm;

    impl Alarm {
        /// It needs nothing.
        ///
        /// # Errors
        /// None.
        pub fn new() -> io::Result<Alarm> {
            Ok(Alarm)
        }

        /// Returns after `wait`, or up to 2 ms before.
        ///
        /// # Errors
        /// None.
        pub async fn after(&self, wait: Duration) -> io::Result<()> {
            match wait.checked_sub(Duration::from_millis(2)) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => tokio::task::yield_now().await,
            }
            Ok(())
        }
    }
}
