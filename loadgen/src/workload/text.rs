//! Text records: pure text as their payload, the proof in a header; and the small change of making text
//! without an allocation.

use highwater_wire::{BatchBuilder, BatchError, Header};
use jiff::{Timestamp, tz::TimeZone};

use crate::proof::{PROOF_HEADER, PROOF_HEADER_LEN, PROOF_LEN, Proof, seal};

/// Adds a record with the payload `parts`, one behind the other.
#[inline]
pub(super) fn push(
    batch: &mut BatchBuilder,
    key: &[u8],
    parts: &[&[u8]],
    proof: &Proof,
) -> Result<(), BatchError> {
    let headers = [Header { name: PROOF_HEADER, value: &proof.bytes() }];
    batch.push_patched(key, &headers, parts, proof.intended_ns, |bytes| {
        // Behind the header's lengths and name come its value and the payload.
        seal(&mut bytes[PROOF_HEADER_LEN - PROOF_LEN..]);
    })
}

/// Decimal digits of `number`.
pub(super) fn decimal_len(number: u32) -> u32 {
    number.checked_ilog10().unwrap_or(0) + 1
}

/// Appends `number` in decimal.
pub(super) fn put_decimal(text: &mut Vec<u8>, number: u32) {
    let mut digits = [0; 10];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    text.extend_from_slice(&digits[at..]);
}

/// Appends `number` as 16 hexadecimal digits.
pub(super) fn put_hexadecimal(text: &mut Vec<u8>, number: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |at: u64| DIGITS[(number >> (60 - 4 * at)) as usize & 15];
    text.extend_from_slice(&std::array::from_fn::<u8, 16, _>(|at| digit(at as u64)));
}

/// Bytes of a time as [`Clock::iso`] writes it.
pub(super) const ISO_LEN: usize = 24;
/// ... and as [`Clock::apache`] does.
pub(super) const APACHE_LEN: usize = 26;

/// Writes times; keeps the text of the second it wrote last.
#[derive(Debug)]
pub(super) struct Clock {
    second: u64,
    iso: [u8; ISO_LEN],
    apache: [u8; APACHE_LEN],
}

impl Clock {
    pub fn new() -> Clock {
        let (iso, apache) = (*b"1970-01-01T00:00:00.000Z", *b"01/Jan/1970:00:00:00 +0000");
        Clock { second: 0, iso, apache }
    }

    /// `2026-11-22T23:51:18.123Z`
    #[inline]
    pub fn iso(&mut self, ns: u64) -> &[u8; ISO_LEN] {
        self.turn_to(ns / 1_000_000_000);
        let milli = (ns / 1_000_000 % 1_000) as u32;
        digits(&mut self.iso[20..23], milli);
        &self.iso
    }

    /// `22/Nov/2026:23:51:18 +0000`
    #[inline]
    pub fn apache(&mut self, ns: u64) -> &[u8; APACHE_LEN] {
        self.turn_to(ns / 1_000_000_000);
        &self.apache
    }

    #[inline]
    fn turn_to(&mut self, second: u64) {
        if second != self.second {
            self.set(second);
        }
    }

    #[cold]
    fn set(&mut self, second: u64) {
        self.second = second;
        let at = Timestamp::from_second(second as i64).unwrap_or(Timestamp::UNIX_EPOCH);
        let at = TimeZone::UTC.to_datetime(at);
        let [year, month, day] = [at.year() as u32, at.month() as u32, at.day() as u32];
        let [hour, minute, second] = [at.hour() as u32, at.minute() as u32, at.second() as u32];
        for (range, number) in [
            (0..4, year),
            (5..7, month),
            (8..10, day),
            (11..13, hour),
            (14..16, minute),
            (17..19, second),
        ] {
            digits(&mut self.iso[range], number);
        }
        let months = b"JanFebMarAprMayJunJulAugSepOctNovDec";
        let from = (month as usize - 1) * 3;
        self.apache[3..6].copy_from_slice(&months[from..from + 3]);
        for (range, number) in
            [(0..2, day), (7..11, year), (12..14, hour), (15..17, minute), (18..20, second)]
        {
            digits(&mut self.apache[range], number);
        }
    }
}

/// Fills `place` with the last digits of `number`.
fn digits(place: &mut [u8], mut number: u32) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_library_writes_them() {
        for number in [0, 9, 10, 99, 12_345, u32::MAX] {
            let mut text = Vec::new();
            put_decimal(&mut text, number);
            assert_eq!(text, number.to_string().as_bytes());
            assert_eq!(text.len(), decimal_len(number) as usize);
            let mut text = Vec::new();
            put_hexadecimal(&mut text, u64::from(number) << 17);
            assert_eq!(text, format!("{:016x}", u64::from(number) << 17).as_bytes());
        }
    }

    #[test]
    fn times_are_written_right_in_any_order() {
        let mut clock = Clock::new();
        let cases = [
            (0, "1970-01-01T00:00:00.000Z", "01/Jan/1970:00:00:00 +0000"),
            (951_826_154_005_999_999, "2000-02-29T12:09:14.005Z", "29/Feb/2000:12:09:14 +0000"),
            (1_795_391_478_123_000_000, "2026-11-22T23:51:18.123Z", "22/Nov/2026:23:51:18 +0000"),
            (951_826_154_999_000_000, "2000-02-29T12:09:14.999Z", "29/Feb/2000:12:09:14 +0000"),
        ];
        for (ns, iso, apache) in cases {
            assert_eq!(clock.iso(ns), iso.as_bytes());
            assert_eq!(clock.apache(ns), apache.as_bytes());
        }
        assert_eq!(&clock.iso(u64::MAX)[..4], b"2554");
    }
}
