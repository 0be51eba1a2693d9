//! A disk that has done everything by the time it is looked at, and keeps nothing: what is counted is the engine's.

use std::io;

use highwater_ring::{Completion, Disk, Done, FileId, Job, Op, Token};

/// Takes every write, gives every file. Reads are refused: what is measured here reads from memory.
#[derive(Debug, Default)]
pub struct QuickDisk {
    done: Vec<Completion>,
    files: u32,
}

/// The size a file that is only opened claims to have.
const OPENED: u64 = 1 << 20;

impl QuickDisk {
    fn open(&mut self, capacity: u64) -> Done {
        self.files += 1;
        Done::Segment { file: FileId(self.files), capacity, cold: false }
    }
}

impl Disk for QuickDisk {
    fn submit(&mut self, token: Token, op: Op) {
        let result = match op {
            Op::Write { .. } => Ok(Done::Written),
            Op::Read { .. } => Err(io::Error::from(io::ErrorKind::Unsupported)),
            Op::Sync { .. } => Ok(Done::Synced),
            Op::Job(Job::TakeSegment { capacity, .. }) => Ok(self.open(capacity)),
            Op::Job(Job::OpenSegment { .. }) => Ok(self.open(OPENED)),
            Op::Job(Job::Recycle { .. } | Job::RemoveDir { .. }) => Ok(Done::Gone),
        };
        self.done.push(Completion { token, result });
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn reap(&mut self, out: &mut Vec<Completion>) {
        out.append(&mut self.done);
    }

    fn close(&mut self, _: FileId) {}

    fn in_flight(&self) -> usize {
        self.done.len()
    }
}
