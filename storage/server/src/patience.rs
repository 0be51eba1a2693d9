//! How long a peer may leave what is queued for it: pure, driven once a second. What counts is how long, not how
//! often: a pause of the whole process is nobody's fault.

use crate::options::bounds::{REPLY_STALL_S, WRITE_STALL_S};

/// What is to be known of a peer once a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Something is queued for it.
    pub queued: bool,
    /// More than it may have while others are short.
    pub much: bool,
    /// It has closed its side, and everything is answered.
    pub gone: bool,
    /// Others are short of memory for what is queued for them.
    pub short: bool,
}

/// Seconds since a peer last did its part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Patience {
    /// It takes nothing.
    silent: u32,
    /// It takes nothing, and somebody waits for it to.
    awaited: u32,
    /// It keeps much while others are short: a peer that takes a byte now and then does no better by that.
    over: u32,
}

impl Patience {
    /// A second later; whether the peer has had its time.
    pub fn tick(&mut self, peer: Peer) -> bool {
        let count = |counter: &mut u32, goes_on: bool| {
            *counter = if goes_on { *counter + 1 } else { 0 };
            *counter
        };
        let silent = count(&mut self.silent, peer.queued);
        let awaited = count(&mut self.awaited, peer.queued && (peer.gone || peer.short));
        let over = count(&mut self.over, peer.much && peer.short);
        silent > REPLY_STALL_S || awaited > WRITE_STALL_S || over > REPLY_STALL_S
    }

    /// The peer took bytes; `much` is still queued for it.
    pub fn took(&mut self, much: bool) {
        (self.silent, self.awaited) = (0, 0);
        if !much {
            self.over = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LITTLE: Peer = Peer { queued: true, much: false, gone: false, short: false };
    const MUCH: Peer = Peer { much: true, ..LITTLE };

    /// Seconds after which a peer has had its time, if it takes bytes every `every` seconds.
    fn seconds(peer: Peer, every: Option<u32>) -> Option<u32> {
        let mut patience = Patience::default();
        (1..=200).find(|second| {
            if every.is_some_and(|every| second % every == 0) {
                patience.took(peer.much);
            }
            patience.tick(peer)
        })
    }

    #[test]
    fn who_takes_nothing_is_cut_the_sooner_the_more_others_need_it() {
        let nothing = Peer { queued: false, ..LITTLE };
        for (peer, every, after) in [
            (nothing, None, None),
            (Peer { short: true, ..nothing }, None, None),
            (LITTLE, None, Some(31)),
            (MUCH, None, Some(31)),
            (Peer { gone: true, ..LITTLE }, None, Some(6)),
            (Peer { short: true, ..LITTLE }, None, Some(6)),
            (Peer { short: true, ..MUCH }, None, Some(6)),
            (LITTLE, Some(20), None),
            (MUCH, Some(20), None),
            (Peer { short: true, ..LITTLE }, Some(3), None),
            (Peer { short: true, ..MUCH }, Some(3), Some(31)),
        ] {
            assert_eq!(seconds(peer, every), after, "{peer:?}, takes every {every:?} s");
        }
    }

    #[test]
    fn only_seconds_in_which_others_are_short_bring_the_end_near() {
        let mut patience = Patience::default();
        for second in 0..20 {
            let short = second % 6 != 0;
            assert!(!patience.tick(Peer { short, ..MUCH }), "second {second}");
        }
    }

    #[test]
    fn who_comes_down_begins_anew() {
        let mut patience = Patience::default();
        for _ in 0..100 {
            patience.took(false);
            assert!(!patience.tick(Peer { short: true, ..MUCH }));
        }
    }
}
