//! Video: each camera sends fragment after fragment, every twelfth a key frame and some seven times as
//! large; cameras do not send their key frames all at once.

use std::sync::Arc;

use super::Draw;
use super::keys::KeyTable;
use super::owned::Owned;
use super::sizes::Sizes;
use crate::schedule::mix;

/// Fragments from one key frame to the next.
const GROUP: u32 = 12;
/// Smallest fragment.
const LEAST: usize = 16 << 10;
/// Largest: with its key, 1 MiB, the usual limit of a record.
const MOST: usize = (1 << 20) - KEY_LEN;
/// Bytes of a camera's name.
const KEY_LEN: usize = 12;

/// What all producers share.
#[derive(Debug)]
pub(super) struct Video {
    key_frames: Sizes,
    others: Sizes,
    cameras: u32,
    seed: u64,
}

impl Video {
    pub fn new(cameras: u32, seed: u64) -> Video {
        Video {
            key_frames: Sizes::log_normal(4 * LEAST, 280 << 10, 0.45, MOST),
            others: Sizes::log_normal(LEAST, 40 << 10, 0.45, MOST),
            cameras,
            seed,
        }
    }

    pub fn keys(&self) -> KeyTable {
        let mut table = KeyTable::with_capacity(self.cameras as usize * KEY_LEN);
        (0..self.cameras).for_each(|camera| table.push(format!("camera-{camera:05}").as_bytes()));
        table
    }

    pub fn most(&self) -> usize {
        self.key_frames.most().max(self.others.most()) as usize
    }

    pub fn mean(&self) -> f64 {
        let group = f64::from(GROUP);
        (self.key_frames.mean() + self.others.mean() * (group - 1.0)) / group
    }

    pub fn source(self: &Arc<Self>, producer: u32, producers: u32) -> VideoSource {
        let own = Owned::new(self.cameras, producer, producers);
        let next = vec![0; own.count() as usize];
        VideoSource { video: Arc::clone(self), own, next, turn: 0 }
    }
}

/// One producer's cameras, in turn.
#[derive(Debug)]
pub(super) struct VideoSource {
    video: Arc<Video>,
    own: Owned,
    /// Number of the next fragment of each camera: the draw's shape.
    next: Vec<u32>,
    turn: u32,
}

impl VideoSource {
    pub fn next(&mut self, random: &mut fastrand::Rng) -> Draw {
        let key = self.own.key(self.turn);
        let fragment = &mut self.next[self.turn as usize];
        let shape = *fragment;
        *fragment = fragment.wrapping_add(1);
        self.turn = (self.turn + 1) % self.own.count();
        let phase = mix(self.video.seed, u64::from(key)) as u32 % GROUP;
        let key_frame = (shape % GROUP + phase).is_multiple_of(GROUP);
        let sizes = if key_frame { &self.video.key_frames } else { &self.video.others };
        Draw { key, len: sizes.draw(random), shape }
    }
}
