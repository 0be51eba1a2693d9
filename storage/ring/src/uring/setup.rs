//! Making a ring: the flags the kernel takes, registered files and buffers, and clear refusals.

use std::io;

use io_uring::IoUring;

use crate::buffer::BufferPool;

/// How a durable write is made durable; see [`crate::calibrate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// One write with RWF_DSYNC: FUA, or a flush by the file system, or nothing where the device needs none.
    #[default]
    Dsync,
    /// A plain write with an fdatasync linked to it.
    WriteThenFlush,
}

impl Durability {
    /// Its name in texts: `dsync` or `write-then-flush`.
    pub fn name(self) -> &'static str {
        match self {
            Durability::Dsync => "dsync",
            Durability::WriteThenFlush => "write-then-flush",
        }
    }

    /// The inverse of [`Durability::name`].
    pub fn from_name(name: &str) -> Option<Durability> {
        [Durability::Dsync, Durability::WriteThenFlush].into_iter().find(|d| d.name() == name)
    }
}

/// How a ring is set up.
#[derive(Clone, Debug)]
pub struct UringOptions {
    /// Submission queue entries.
    pub entries: u32,
    /// Bound on writes and syncs in the kernel at once, at least 1; more wait in a queue.
    pub max_in_flight: u32,
    /// The same of reads, which have a queue of their own: a write finds no more than these before it.
    pub max_reads: u32,
    /// Bound on what these reads bring, in bytes; one alone may be larger. At the device a write waits for bytes.
    pub max_read_bytes: u64,
    /// Slots for open files (halved until `RLIMIT_NOFILE` allows it).
    pub max_files: u32,
    /// How durable writes are made durable.
    pub durability: Durability,
    /// Register the pool's region as fixed buffers. The kernel then makes the whole region resident.
    pub register_buffers: bool,
}

impl Default for UringOptions {
    fn default() -> Self {
        UringOptions {
            entries: 64,
            max_in_flight: 256,
            // At 2 GB/s what is read before a write takes 2 ms of a device, which it keeps busy.
            max_reads: 32,
            max_read_bytes: 4 << 20,
            max_files: 4096,
            durability: Durability::default(),
            register_buffers: true,
        }
    }
}

/// Why there is no ring.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UringError {
    /// This process may not use io_uring.
    #[error(
        "the kernel refuses io_uring ({source}): kernel.io_uring_disabled is {sysctl}; set it to 0 (sysctl -w kernel.io_uring_disabled=0), \
         and in a container allow the io_uring_setup, io_uring_enter and io_uring_register calls in its seccomp profile"
    )]
    Refused {
        /// What `kernel.io_uring_disabled` says, or `unknown`.
        sysctl: String,
        /// EPERM or ENOSYS.
        source: io::Error,
    },
    /// The kernel lacks what this needs.
    #[error("this kernel's io_uring lacks {missing}; Linux 6.1 or later is needed")]
    TooOld {
        /// What is missing.
        missing: &'static str,
    },
    /// Anything else.
    #[error("io_uring, {step}: {source}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// Which flags the kernel took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Defer,
    Coop,
    Plain,
}

pub(crate) fn build(options: &UringOptions) -> Result<(IoUring, Mode), UringError> {
    // Twice the larger of two bounds is room for both.
    let in_flight = options.max_in_flight.max(options.max_reads).max(options.entries).max(1);
    let cq = in_flight.saturating_mul(2).next_power_of_two();
    let mut refused = None;
    for mode in [Mode::Defer, Mode::Coop, Mode::Plain] {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(cq).setup_clamp();
        match mode {
            Mode::Defer => {
                builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
                builder.setup_submit_all();
            }
            Mode::Coop => {
                builder.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
            }
            Mode::Plain => {}
        }
        match builder.build(options.entries.max(2)) {
            Ok(ring) if !ring.params().is_feature_ext_arg() => {
                return Err(UringError::TooOld { missing: "waiting with a timeout (EXT_ARG)" });
            }
            Ok(ring) if !ring.params().is_feature_nodrop() => {
                return Err(UringError::TooOld { missing: "lossless completions (NODROP)" });
            }
            Ok(ring) if !ring.params().is_feature_skip_cqe_on_success() => {
                return Err(UringError::TooOld { missing: "silent success (CQE_SKIP)" });
            }
            Ok(ring) => return Ok((ring, mode)),
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => refused = Some(e),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => {
                let sysctl = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
                    .map_or_else(|_| "unknown".to_string(), |text| text.trim().to_string());
                return Err(UringError::Refused { sysctl, source: e });
            }
            Err(source) => return Err(UringError::Io { step: "making the ring", source }),
        }
    }
    let source = refused.unwrap_or_else(|| io::Error::from_raw_os_error(libc::EINVAL));
    Err(UringError::Io { step: "making the ring", source })
}

/// Registers an empty table of files; returns how many slots it has.
pub(crate) fn register_files(ring: &IoUring, wanted: u32) -> Result<u32, UringError> {
    let mut count = wanted.max(1);
    loop {
        let result = match ring.submitter().register_files_sparse(count) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                ring.submitter().register_files(&vec![-1; count as usize])
            }
            other => other,
        };
        match result {
            Ok(()) => return Ok(count),
            Err(e) if e.raw_os_error() == Some(libc::EMFILE) && count > 16 => count /= 2,
            Err(source) => return Err(UringError::Io { step: "registering files", source }),
        }
    }
}

/// Largest piece the kernel registers as one buffer.
pub(crate) const FIXED_PIECE: usize = 1 << 30;

/// Registers the pool's region; `Err` is a warning for people: plain reads and writes serve as well.
pub(crate) fn register_buffers(ring: &IoUring, pool: &BufferPool) -> Result<bool, String> {
    let (start, len) = pool.region();
    if len == 0 {
        return Ok(false);
    }
    let pieces: Vec<libc::iovec> = (0..len)
        .step_by(FIXED_PIECE)
        .map(|at| libc::iovec {
            iov_base: start.wrapping_add(at).cast(),
            iov_len: FIXED_PIECE.min(len - at),
        })
        .collect();
    // SAFETY: the region stays mapped as long as the pool, a clone of which the disk keeps until after the
    // ring is gone.
    let result = unsafe { ring.submitter().register_buffers(&pieces) };
    result.map(|()| true).map_err(|e| {
        format!(
            "buffers are not registered with the kernel ({e}): {} MiB of locked memory are not allowed here; \
             raise RLIMIT_MEMLOCK (LimitMEMLOCK=infinity). Large writes cost more CPU until then",
            len >> 20
        )
    })
}
