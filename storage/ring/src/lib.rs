//! Log I/O: the io_uring ring, aligned buffers, prepared segment files, and the same vocabulary on a
//! simulated disk with faults. The only crate with `unsafe` code.

mod buffer;
mod calibrate;
mod files;
mod pin;
mod preparer;
mod sendbuf;
mod sim;
mod uring;
mod vocab;

pub use buffer::{AlignedBuf, BufferPool, SharedBuf};
pub use calibrate::{Calibration, CalibrationError, calibrate, device_of};
pub use files::{DirLock, FilesError, FilesOptions, LockError, OsFiles};
pub use pin::{PinError, pin_thread, usable_cpus};
pub use preparer::{
    Counts, JobDone, PoolStatus, Preparer, PreparerHandle, PreparerOptions, Step, spawn_preparer,
};
pub use sendbuf::{SEND_NOW, SendBuf, send_now};
pub use sim::{Crash, FaultKind, SimDisk, SimFiles, SimOptions, SimWorld};
pub use uring::{DiskEvent, Durability, UringDisk, UringError, UringOptions, UringStats, Waker};
pub use vocab::{BLOCK_ALIGN, Completion, Disk, Done, FileId, Files, Job, Op, OpenMode, Token};
