//! A fleet of devices, each with a climate of its own, that report in turn: JSON readings such as
//! `{"deviceid":"device-00042","ts":"2026-11-22T23:51:18.123Z","temp":21.37,"humidity":45.2,"battery":87}`.

use std::sync::Arc;
use std::time::Duration;

use highwater_wire::{BatchBuilder, BatchError};

use super::Draw;
use super::keys::KeyTable;
use super::owned::Owned;
use super::text::{Clock, ISO_LEN, decimal_len, push, put_decimal};
use crate::proof::Proof;
use crate::schedule::{Burst, mix};

const OPEN: &[u8] = b"{\"deviceid\":\"";
const TS: &[u8] = b"\",\"ts\":\"";
const TEMP: &[u8] = b"\",\"temp\":";
const HUMIDITY: &[u8] = b",\"humidity\":";
const BATTERY: &[u8] = b",\"battery\":";
const CLOSE: &[u8] = b"}";

/// Temperatures are counted in hundredths of a degree from here on.
const COLDEST: i32 = -20_00;

/// What all producers share.
#[derive(Debug)]
pub(super) struct Iot {
    devices: u32,
    seed: u64,
    /// Bytes of a reading without its figures.
    frame: u32,
}

/// A reading's figures, in the 32 bits of a draw's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reading {
    /// Hundredths of a degree, from [`COLDEST`] to 13 bits more.
    temp: i32,
    /// Thousandths: 0 to 1,000.
    humidity: u32,
    /// Per cent.
    battery: u32,
}

impl Reading {
    fn pack(self) -> u32 {
        ((self.temp - COLDEST) as u32 & 0x1fff) << 17
            | (self.humidity & 0x3ff) << 7
            | self.battery & 0x7f
    }

    fn unpack(shape: u32) -> Reading {
        Reading {
            temp: (shape >> 17) as i32 + COLDEST,
            humidity: shape >> 7 & 0x3ff,
            battery: shape & 0x7f,
        }
    }

    /// Bytes of the three figures as written.
    fn len(self) -> u32 {
        let sign = u32::from(self.temp < 0);
        let temp = decimal_len(self.temp.unsigned_abs() / 100) + 3;
        sign + temp + decimal_len(self.humidity / 10) + 2 + decimal_len(self.battery)
    }
}

impl Iot {
    pub fn new(devices: u32, seed: u64) -> Iot {
        let text = [OPEN, TS, TEMP, HUMIDITY, BATTERY, CLOSE].concat().len() + ISO_LEN;
        Iot { devices, seed, frame: (text + key(0, devices).len()) as u32 }
    }

    pub fn keys(&self) -> KeyTable {
        let len = key(0, self.devices).len();
        let mut table = KeyTable::with_capacity(self.devices as usize * len);
        (0..self.devices).for_each(|device| table.push(key(device, self.devices).as_bytes()));
        table
    }

    /// Largest payload.
    pub fn most(&self) -> usize {
        // -20.00, 100.0, 100
        self.frame as usize + 6 + 5 + 3
    }

    /// A usual payload: 21.37, 45.2, 87.
    pub fn mean(&self) -> f64 {
        f64::from(self.frame) + 5.0 + 4.0 + 2.0
    }

    /// A fleet reports on the minute: ten times the base rate for 2 s of every 10.
    pub fn profile() -> Burst {
        Burst { peak: 10.0, on: Duration::from_secs(2), every: Duration::from_secs(10) }
    }

    pub fn source(self: &Arc<Self>, producer: u32, producers: u32) -> IotSource {
        let own = Owned::new(self.devices, producer, producers);
        IotSource { iot: Arc::clone(self), own, turn: 0, round: 0 }
    }

    pub fn push(
        &self,
        batch: &mut BatchBuilder,
        key: &[u8],
        draw: &Draw,
        proof: &Proof,
        text: &mut Vec<u8>,
        clock: &mut Clock,
    ) -> Result<(), BatchError> {
        let reading = Reading::unpack(draw.shape);
        text.clear();
        for part in [OPEN, key, TS, clock.iso(proof.intended_ns), TEMP] {
            text.extend_from_slice(part);
        }
        if reading.temp < 0 {
            text.push(b'-');
        }
        let hundredths = reading.temp.unsigned_abs();
        put_decimal(text, hundredths / 100);
        let digit = |number: u32| b'0' + (number % 10) as u8;
        text.extend_from_slice(&[b'.', digit(hundredths / 10), digit(hundredths)]);
        text.extend_from_slice(HUMIDITY);
        put_decimal(text, reading.humidity / 10);
        text.extend_from_slice(&[b'.', digit(reading.humidity)]);
        text.extend_from_slice(BATTERY);
        put_decimal(text, reading.battery);
        text.extend_from_slice(CLOSE);
        push(batch, key, &[text], proof)
    }
}

/// All names of a fleet have the same length.
fn key(device: u32, devices: u32) -> String {
    let digits = decimal_len(devices.saturating_sub(1)).max(5) as usize;
    format!("device-{device:0digits$}")
}

/// One producer's devices, in turn: each reports once in a round.
#[derive(Debug)]
pub(super) struct IotSource {
    iot: Arc<Iot>,
    own: Owned,
    turn: u32,
    round: u32,
}

impl IotSource {
    #[inline]
    pub fn next(&mut self, random: &mut fastrand::Rng) -> Draw {
        let key = self.own.key(self.turn);
        let climate = mix(self.iot.seed, u64::from(key));
        let noise = random.u32(..);
        // From 0 to 36 °C and 20 to 80 %, and near the device's own values from one reading to the next.
        let warmth = (climate as u32 % 36_00) as i32;
        let damp = (climate >> 12) as u32 % 600;
        let drained = (climate >> 24) as u32 % 1000 + self.round;
        let reading = Reading {
            temp: warmth + (noise & 0x7f) as i32 - 64,
            humidity: 200 + damp + (noise >> 7 & 0x1f),
            // A hundred rounds take a per cent; at a fifth it is changed.
            battery: 100 - drained / 100 % 80,
        };
        self.turn += 1;
        if self.turn == self.own.count() {
            self.turn = 0;
            self.round = self.round.wrapping_add(1);
        }
        Draw { key, len: self.iot.frame + reading.len(), shape: reading.pack() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_survive_their_packing_and_know_their_length() {
        for (temp, humidity, battery, text) in [
            (-20_00, 0, 0, "-20.00 0.0 0"),
            (-7, 999, 9, "-0.07 99.9 9"),
            (3_05, 1000, 100, "3.05 100.0 100"),
            (61_91, 452, 87, "61.91 45.2 87"),
        ] {
            let reading = Reading { temp, humidity, battery };
            assert_eq!(Reading::unpack(reading.pack()), reading);
            assert_eq!(reading.len() as usize, text.len() - 2, "{text}");
        }
    }
}
