//! What the control plane does once a second by itself: shards that retention has emptied are forgotten, closed
//! shards give way to their children within the bytes of their stream, and streams that scale are split.

use std::collections::BTreeMap;

use highwater_wire::{Backpressure, ShardId};

use super::{Control, ControlError, now_ns};
use crate::catalogue::StreamRecord;
use crate::core::CoreCommand;
use crate::hotkeys::SplitPoint;
use crate::store::specs_of;
use crate::types::{ShardSpec, ShardStatus};

/// A closed shard is kept at least this long: a producer's retry must find out what became of its batch, and a
/// consumer that is told of it must find its end.
const CLOSED_KEPT_NS: u64 = 60_000_000_000;

/// Between two splits of a stream by itself: long enough for producers to spread over the children and for the
/// load that is left to be seen.
const SPLIT_AGAIN_NS: u64 = 10_000_000_000;

/// Of the last [`LOOKS`] looks at a shard so many found it at its quota: then a split is proposed, if there were refusals
/// among them. (Clients that pace themselves are refused only now and then.)
const PRESSED: u32 = 3;

/// Looks that count, one bit each.
const LOOKS: u32 = 8;

/// What was done by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tended {
    /// A closed shard of which nothing is left was forgotten.
    Forgotten(ShardId),
    /// A shard beyond its quota was split.
    Split(ShardId),
    /// It should have been.
    NotSplit(ShardId, String),
}

/// How hard a shard is pressed, look by look.
#[derive(Clone, Copy, Debug, Default)]
struct Pressure {
    /// Refusals counted when last looked.
    refused: u64,
    /// By how many they grew then.
    grew: u64,
    /// One bit a look, the latest lowest: it was at its quota.
    looks: u8,
    /// The same: it had refused records.
    refusals: u8,
}

impl Pressure {
    fn look(&mut self, refused: u64, pressed: bool) {
        // A counter that went back has begun again.
        self.grew = refused.checked_sub(self.refused).unwrap_or(refused);
        self.refused = refused;
        self.looks = self.looks << 1 | u8::from(pressed || self.grew > 0);
        self.refusals = self.refusals << 1 | u8::from(self.grew > 0);
    }

    fn high(&self) -> bool {
        self.looks.count_ones() >= PRESSED && self.refusals > 0
    }
}

/// What is remembered between two looks.
#[derive(Debug, Default)]
pub(super) struct Tending {
    pressure: BTreeMap<ShardId, Pressure>,
    advice: BTreeMap<ShardId, String>,
    /// By stream: when one of its shards was split, or could not be.
    split_ns: BTreeMap<u32, u64>,
    /// Bytes that closed shards may keep, as told to them.
    allowed: BTreeMap<ShardId, u64>,
}

impl Tending {
    /// The split proposed for a shard; empty for none.
    pub fn advice(&self, shard: ShardId) -> String {
        self.advice.get(&shard).cloned().unwrap_or_default()
    }

    /// A shard was closed: there is nothing to split any more.
    pub fn closed(&mut self, shard: ShardId) {
        self.pressure.remove(&shard);
        self.advice.remove(&shard);
    }

    /// A stream's settings were told anew.
    pub fn forget(&mut self, stream: u32) {
        self.allowed.retain(|id, _| id.stream != stream);
    }

    fn retain(&mut self, exists: impl Fn(ShardId) -> bool) {
        self.pressure.retain(|id, _| exists(*id));
        self.advice.retain(|id, _| exists(*id));
        self.allowed.retain(|id, _| exists(*id));
    }
}

type Statuses = BTreeMap<ShardId, ShardStatus>;

impl Control {
    /// To be called about once a second by whoever has a thread for it; what was done, for the log.
    ///
    /// # Errors
    /// When a core does not answer or the catalogue cannot be written; what was not done is tried again.
    pub fn tend(&mut self) -> Result<Vec<Tended>, ControlError> {
        let closed = |r: &StreamRecord| r.shards.iter().any(|s| s.closed);
        let scales = |r: &StreamRecord| matches!(r.config.backpressure, Backpressure::Scale { .. });
        let names: Vec<String> = self
            .streams
            .iter()
            .filter(|(_, record)| closed(record) || scales(record))
            .map(|(name, _)| name.clone())
            .collect();
        let streams = &self.streams;
        self.tending.retain(|id| {
            let record = streams.values().find(|r| r.id == id.stream);
            record.is_some_and(|r| r.shard(id.shard).is_some())
        });
        self.lay_out_groups()?;
        self.tend_deliveries()?;
        if names.is_empty() {
            self.tending.advice.clear();
            return Ok(Vec::new());
        }
        let (status, now) = (self.status()?, now_ns());
        let mut done = Vec::new();
        for name in names {
            self.forget_expired(&name, &status, now, &mut done)?;
            self.bound_closed(&name, &status)?;
            self.scale(&name, &status, now, &mut done)?;
        }
        Ok(done)
    }

    /// The splits proposed to whoever may carry them out, by shard, as of the last [`Control::tend`].
    pub fn advice(&self) -> &BTreeMap<ShardId, String> {
        &self.tending.advice
    }

    /// Tells every core to refuse what would be stored, or to take it again.
    pub fn set_disk_low(&self, low: bool) {
        for link in &self.links {
            // A core that is gone stores nothing.
            let _ = link(CoreCommand::DiskLow(low));
        }
    }

    /// Closed shards of which retention leaves nothing: forgotten durably, then their files go. Their children go
    /// on naming them.
    fn forget_expired(
        &mut self,
        name: &str,
        status: &Statuses,
        now: u64,
        done: &mut Vec<Tended>,
    ) -> Result<(), ControlError> {
        let mut record = self.find(name)?.clone();
        let stream = record.id;
        let mut gone = Vec::new();
        record.shards.retain(|kept| {
            let id = ShardId { stream, shard: kept.shard };
            let expired = kept.closed
                && now.saturating_sub(kept.closed_ns) > CLOSED_KEPT_NS
                && status.get(&id).is_some_and(|s| s.expired);
            if expired {
                gone.push(id);
            }
            !expired
        });
        if gone.is_empty() {
            return Ok(());
        }
        self.catalogue().update_stream(name, &record)?;
        self.positions.retain(|(_, stream, shard), _| {
            !gone.contains(&ShardId { stream: *stream, shard: *shard })
        });
        self.ends.retain(|id, _| !gone.contains(id));
        gone.iter().for_each(|id| self.deliveries.forget_shard(*id));
        self.streams.insert(name.to_owned(), record);
        done.extend(gone.iter().copied().map(Tended::Forgotten));
        self.remove_files(name, gone)
    }

    /// What a stream may keep belongs to its open shards first; closed ones have what these leave, the youngest
    /// before the older.
    fn bound_closed(&mut self, name: &str, status: &Statuses) -> Result<(), ControlError> {
        let record = self.find(name)?;
        if record.config.retention_bytes == 0 {
            return Ok(());
        }
        let mut specs = specs_of(name, record);
        let bytes = |spec: &ShardSpec| status.get(&spec.id).map_or(0, |s| s.log_bytes);
        let open: u64 = specs.iter().filter(|s| !s.closed).map(bytes).sum();
        let mut left = record.config.retention_bytes.saturating_sub(open);
        specs.retain(|s| s.closed);
        for mut spec in specs.into_iter().rev() {
            let allowed = left;
            left = left.saturating_sub(bytes(&spec));
            // None at all would mean no bound.
            spec.retention_bytes = allowed.max(1);
            let told = self.tending.allowed.insert(spec.id, allowed);
            if told.is_none_or(|told| allowed < told) {
                self.tell(spec.id, CoreCommand::Respec(spec))?;
            }
        }
        Ok(())
    }

    /// Proposes splits of shards beyond their quota, and does one where it may.
    fn scale(
        &mut self,
        name: &str,
        status: &Statuses,
        now: u64,
        done: &mut Vec<Tended>,
    ) -> Result<(), ControlError> {
        let record = self.find(name)?.clone();
        let Backpressure::Scale { max_shards } = record.config.backpressure else {
            self.tending.advice.retain(|id, _| id.stream != record.id);
            return Ok(());
        };
        let open: Vec<_> = record.shards.iter().filter(|s| !s.closed).collect();
        let mut worst: Option<(u64, u32)> = None;
        for kept in &open {
            let id = ShardId { stream: record.id, shard: kept.shard };
            let of = status.get(&id);
            let (refused, pressed) = of.map_or((0, false), |s| (s.counters.refused, s.pressed));
            let pressure = self.tending.pressure.entry(id).or_default();
            pressure.look(refused, pressed);
            if !pressure.high() {
                self.tending.advice.remove(&id);
                continue;
            }
            let (looks, grew) = (pressure.looks.count_ones(), pressure.grew);
            if worst.is_none_or(|(most, _)| grew > most) {
                worst = Some((grew, kept.shard));
            }
            if !self.tending.advice.contains_key(&id) {
                let point = self.split_point(id, kept.range())?;
                let advice = advice(looks, point);
                self.tending.advice.insert(id, advice);
            }
        }
        let Some((_, shard)) = worst.filter(|_| (open.len() as u64) < u64::from(max_shards)) else {
            return Ok(());
        };
        let last = self.tending.split_ns.get(&record.id).copied().unwrap_or(0);
        if now.saturating_sub(last) < SPLIT_AGAIN_NS {
            return Ok(());
        }
        self.tending.split_ns.insert(record.id, now);
        let id = ShardId { stream: record.id, shard };
        done.push(match self.split(name, shard, &[]) {
            Ok(_) => Tended::Split(id),
            Err(reason @ ControlError::Reshard { .. }) => Tended::NotSplit(id, reason.to_string()),
            Err(other) => return Err(other),
        });
        Ok(())
    }
}

fn advice(looks: u32, point: SplitPoint) -> String {
    let pressed = format!("at its quota in {looks} of the last {LOOKS} s");
    match point {
        SplitPoint::At { hash, below_ppm, .. } => {
            let percent = f64::from(below_ppm) / 10_000.0;
            format!("{pressed}: split it at {hash:#034x}, {percent:.0} % of its load lie below")
        }
        SplitPoint::OneKey { .. } => {
            format!("{pressed}, all of one key: a split would not help")
        }
        SplitPoint::Unknown => format!("{pressed}: split it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_high_after_three_looks_of_eight_and_passes() {
        let mut p = Pressure::default();
        for (refused, high) in [(5, false), (5, false), (9, false), (10, true), (10, true)] {
            p.look(refused, false);
            assert_eq!(p.high(), high, "{refused}");
        }
        (0..4).for_each(|_| p.look(10, false));
        assert!(!p.high(), "eight looks ago is forgotten");
        p.look(3, false);
        assert_eq!(p.grew, 3, "a counter that begins again");
    }

    /// Nothing was proposed: clients that pace themselves were refused in one look of four.
    #[test]
    fn a_shard_at_its_quota_that_refuses_now_and_then_is_pressed() {
        let mut p = Pressure::default();
        for (refused, pressed, high) in
            [(0, true, false), (0, true, false), (0, true, false), (7, true, true), (7, true, true)]
        {
            p.look(refused, pressed);
            assert_eq!(p.high(), high, "{refused}");
        }
        (0..3).for_each(|_| p.look(7, true));
        assert!(p.high());
        (0..4).for_each(|_| p.look(7, true));
        assert!(!p.high(), "whoever uses what it has and no more is not refused");
    }

    #[test]
    fn advice_says_where() {
        let at = SplitPoint::At { hash: 1 << 127, below_ppm: 480_000, samples: 512 };
        let text = advice(4, at);
        assert_eq!(
            text,
            "at its quota in 4 of the last 8 s: split it at 0x80000000000000000000000000000000, 48 % of its load lie below"
        );
        assert!(advice(3, SplitPoint::OneKey { hash: 1, samples: 9 }).contains("would not help"));
    }
}
