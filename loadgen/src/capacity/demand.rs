//! What is asked of a machine.

use serde::Serialize;

/// The load a plan is for. [`Demand::validate`] says what is in range.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Demand {
    /// Records per second on average.
    pub rate: f64,
    /// Payload bytes of a record; absent: as in the runs.
    pub record_bytes: Option<f64>,
    /// The highest load, and how long it lasts.
    pub peak: Option<Peak>,
    /// How long records are kept, in seconds.
    pub retention_s: Option<f64>,
    /// How long a consumer group may be away, in seconds.
    pub outage_s: Option<f64>,
    /// Consumer groups, each of which reads everything.
    pub groups: u32,
    /// Busiest shard over the mean of all, for the keys in use; absent: as measured.
    pub skew: Option<f64>,
    /// Where the rate comes from: what was asked, or the recording it was observed in.
    pub from: String,
}

/// A load above the average.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Peak {
    /// Times the average.
    pub factor: f64,
    /// How long, in seconds.
    pub time_s: f64,
}

/// A field of a demand that is out of range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{field} is {value}; it has to be {limit}")]
pub struct DemandError {
    /// Which one, by the name of its flag.
    pub field: &'static str,
    /// What it is.
    pub value: f64,
    /// What it may be.
    pub limit: &'static str,
}

/// Ten years: beyond that, nothing here means anything.
const LONGEST_S: f64 = 10.0 * 366.0 * 86_400.0;

impl Demand {
    /// Of this average rate, and nothing else.
    pub fn of(rate: f64) -> Demand {
        Demand {
            rate,
            record_bytes: None,
            peak: None,
            retention_s: None,
            outage_s: None,
            groups: 1,
            skew: None,
            from: "asked for".to_owned(),
        }
    }

    /// The rate of the peak; the average without one.
    pub fn peak_rate(&self) -> f64 {
        self.rate * self.peak.map_or(1.0, |peak| peak.factor)
    }

    /// The first field that is out of range.
    pub fn validate(&self) -> Result<(), DemandError> {
        let time = |field, value: Option<f64>| (field, value, 1e-3..=LONGEST_S, "1ms to 10 years");
        let checks = [
            ("--demand", Some(self.rate), 1e-3..=1e9, "more than 0 and at most 1G records/s"),
            ("--record-size", self.record_bytes, 1.0..=10_485_760.0, "1 byte to 10MiB"),
            ("--peak", self.peak.map(|p| p.factor), 1.0..=1e3, "1x to 1000x"),
            time("--peak", self.peak.map(|p| p.time_s)),
            time("--retention", self.retention_s),
            time("--outage", self.outage_s),
            ("--groups", Some(f64::from(self.groups)), 0.0..=1e4, "0 to 10000"),
            ("--skew", self.skew, 1.0..=4_096.0, "1 (even) to 4096"),
        ];
        for (field, value, range, limit) in checks {
            if let Some(value) = value.filter(|value| !range.contains(value)) {
                return Err(DemandError { field, value, limit });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_named_with_its_limit() {
        let good = Demand {
            peak: Some(Peak { factor: 2.0, time_s: 600.0 }),
            retention_s: Some(86_400.0),
            outage_s: Some(1_800.0),
            skew: Some(1.3),
            ..Demand::of(400e3)
        };
        assert_eq!(good.validate(), Ok(()));
        assert_eq!(good.peak_rate(), 800e3);
        type Change = fn(&mut Demand);
        let table: [(&str, Change); 8] = [
            ("--demand", |d| d.rate = 0.0),
            ("--demand", |d| d.rate = f64::NAN),
            ("--record-size", |d| d.record_bytes = Some(2e7)),
            ("--peak", |d| d.peak = Some(Peak { factor: 0.5, time_s: 1.0 })),
            ("--retention", |d| d.retention_s = Some(0.0)),
            ("--outage", |d| d.outage_s = Some(1e12)),
            ("--groups", |d| d.groups = 10_001),
            ("--skew", |d| d.skew = Some(0.9)),
        ];
        for (field, change) in table {
            let mut demand = good.clone();
            change(&mut demand);
            let error = demand.validate().unwrap_err();
            assert_eq!(error.field, field);
            assert!(error.to_string().starts_with(field), "{error}");
        }
    }
}
