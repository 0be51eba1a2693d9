//! The memory bound: one figure for the whole server, divided evenly among its cores and, on each, by purpose. What
//! a purpose lacks is waited for, or the request is refused as `Busy`; nothing is allocated beyond.

use highwater_wire::Limits;

use crate::options::bounds::RECEIVE_MIN;

/// Of a core unless the server was told a bound, in bytes; more where the largest batch demands it.
const PER_CORE: u64 = 512 << 20;
/// Least of a core, in bytes: its commit groups then have 4 MiB.
const LEAST: u64 = 64 << 20;
/// A core's memory is divided into so many parts; the purposes below say how many they have.
const PARTS: u64 = 32;
/// A core has at least so many times the largest frame. Then an eighth, of which a half is set aside for connections
/// and a quarter of the rest for small frames, has room for one at least.
const FRAMES: u64 = 32;

/// A core's connections may have a fetch that waits, and a subscription, for so many bytes of what is for their replies:
/// each takes about half a KiB itself, wherever it is served.
const WAITER: usize = 4 << 10;

/// What one core may use for what, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryShares {
    /// Commit groups, what live consumers read of them, and reads from disk: registered with the kernel.
    pub groups: usize,
    /// Batches larger than 1 MiB.
    pub large: usize,
    /// Batches that wait for a segment.
    pub waiting: usize,
    /// Batches that streams' backpressure holds back.
    pub held: usize,
    /// Frames being received.
    pub receive: usize,
    /// Replies and deliveries on their way to clients, and what was read for filters; requests pause at half of it.
    pub queued: usize,
    /// Compiled filters, and the memory in which filter threads inflate batches.
    pub filters: usize,
    /// Requests handed over to other cores.
    pub forwarded: usize,
    /// Requests to the control plane.
    pub control: usize,
}

/// Why memory cannot be divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// Too little for a core.
    #[error(
        "memory: {memory} bytes are {each} for each of {cores} cores; a core needs at least {least}"
    )]
    TooLittle {
        /// The bound of the server.
        memory: u64,
        /// Number of cores.
        cores: u64,
        /// What each has of it.
        each: u64,
        /// What it needs.
        least: u64,
    },
    /// Too many connections for it.
    #[error(
        "max_connections: {connections} on each core are more than the {most} that its memory has room for: \
         allow fewer, or raise the memory bound to {needed} bytes"
    )]
    Connections {
        /// As wanted.
        connections: u64,
        /// As many as there is room for.
        most: u64,
        /// A bound with room for those wanted.
        needed: u64,
    },
}

impl MemoryShares {
    /// The least bound of a server.
    pub fn least_bound(cores: usize, limits: &Limits) -> u64 {
        least(limits).saturating_mul(cores as u64)
    }

    /// The bound of a server that was not told one: 512 MiB a core, more if records may be large.
    pub fn default_bound(cores: usize, limits: &Limits) -> u64 {
        PER_CORE.max(least(limits)).saturating_mul(cores as u64)
    }

    /// Divides `memory` bytes among `cores` (at least 1).
    pub fn divide(memory: u64, cores: usize, limits: &Limits) -> Result<MemoryShares, MemoryError> {
        let cores = (cores as u64).max(1);
        let (each, least) = (memory / cores, least(limits));
        if each < least {
            return Err(MemoryError::TooLittle { memory, cores, each, least });
        }
        let parts = |n: u64| usize::try_from(each / PARTS * n).unwrap_or(usize::MAX);
        Ok(MemoryShares {
            groups: parts(2),
            large: parts(4),
            waiting: parts(1),
            held: parts(8),
            receive: parts(4),
            queued: parts(9),
            filters: parts(2),
            forwarded: parts(1),
            control: parts(1),
        })
    }

    /// Most fetches of a core's connections that may wait at once; and most subscriptions.
    pub fn waiters(&self) -> usize {
        self.queued / WAITER
    }

    /// The most connections of a core: their smallest buffers take no more than half of what is for receiving. Those
    /// `wanted`, or as many of `usual` as there is room for.
    pub fn connections(
        &self,
        wanted: Option<usize>,
        usual: usize,
        cores: usize,
    ) -> Result<usize, MemoryError> {
        let most = self.receive / 2 / RECEIVE_MIN;
        match wanted {
            Some(connections) if connections > most => {
                let (connections, most) = (connections as u64, most as u64);
                let needed = connections * 2 * RECEIVE_MIN as u64 * PARTS / 4 * cores as u64;
                Err(MemoryError::Connections { connections, most, needed })
            }
            Some(connections) => Ok(connections),
            None => Ok(usual.min(most)),
        }
    }
}

fn least(limits: &Limits) -> u64 {
    LEAST.max(FRAMES * limits.max_frame() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(shares: &MemoryShares) -> usize {
        let MemoryShares { groups, large, waiting, held, .. } = *shares;
        let MemoryShares { receive, queued, filters, forwarded, control, .. } = *shares;
        groups + large + waiting + held + receive + queued + filters + forwarded + control
    }

    #[test]
    fn the_shares_of_all_cores_are_the_bound() {
        let limits = Limits::default();
        for (memory, cores) in [(64 << 20, 1), (1 << 30, 2), (3 << 30, 7), ((1 << 40) - 1, 64)] {
            let shares = MemoryShares::divide(memory, cores, &limits).unwrap();
            let all = (sum(&shares) * cores) as u64;
            assert!(
                all <= memory && memory - all < PARTS * 2 * cores as u64,
                "{memory} {shares:?}"
            );
            assert!(shares.groups >= 4 << 20);
        }
        let usual = MemoryShares::default_bound(3, &limits);
        let shares = MemoryShares::divide(usual, 3, &limits).unwrap();
        assert_eq!((shares.groups, shares.held, shares.waiters()), (32 << 20, 128 << 20, 36_864));
        assert_eq!(shares.connections(None, 4096, 3), Ok(4096));
    }

    #[test]
    fn every_purpose_has_room_for_the_largest_batch() {
        for record in [1, 1 << 20, 10 << 20] {
            let limits = Limits::for_record(record);
            let least = least(&limits);
            let refused = MemoryShares::divide(2 * least - 1, 2, &limits);
            assert!(matches!(refused, Err(MemoryError::TooLittle { .. })), "{refused:?}");
            let shares = MemoryShares::divide(2 * least, 2, &limits).unwrap();
            for share in [shares.large, shares.receive, shares.held, shares.queued, shares.filters]
            {
                assert!(share >= 2 * limits.max_batch as usize, "{record}: {shares:?}");
            }
        }
    }

    #[test]
    fn connections_have_their_least_within_the_bound() {
        let limits = Limits::default();
        let shares = MemoryShares::divide(64 << 20, 1, &limits).unwrap();
        assert_eq!(shares.connections(None, 4096, 1), Ok(1024));
        assert_eq!(shares.connections(Some(1000), 4096, 1), Ok(1000));
        let Err(MemoryError::Connections { most, needed, .. }) =
            shares.connections(Some(5000), 4096, 1)
        else {
            panic!("5,000 connections fit");
        };
        assert_eq!(most, 1024);
        let more = MemoryShares::divide(needed, 1, &limits).unwrap();
        assert_eq!(more.connections(Some(5000), 4096, 1), Ok(5000));
    }
}
