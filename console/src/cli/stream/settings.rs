//! The settings `stream create` and `stream set` share.

use std::time::Duration;

use clap::{Args, ValueEnum};
use highwater_client::ClientError;
use highwater_wire::{Backpressure, ErrorCode, Quota, StreamChange, StreamConfig};

use crate::failure::Failure;
use crate::policy::{self, RatesIn};
use crate::{human, units};

/// What a stream can be told.
#[derive(Debug, Default, Args)]
pub struct Settings {
    /// Quotas of a known service, for each shard; the flags below change parts of it
    #[arg(long, value_enum)]
    preset: Option<Preset>,
    /// Records and bytes a second each shard takes, such as 1000rec/s,1MB/s; 0 for no bound. Set as a whole: with
    /// 1MB/s alone records have no bound
    #[arg(long, value_name = "RATES", value_parser = policy::rates_in, allow_hyphen_values = true)]
    quota_in: Option<RatesIn>,
    /// Bytes a second each shard gives to readers, such as 2MB/s; 0 for no bound
    #[arg(long, value_name = "RATE", value_parser = policy::rate_out, allow_hyphen_values = true)]
    quota_out: Option<u64>,
    /// How long the rates may be saved up while little comes, of shard and stream [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = policy::burst)]
    quota_burst: Option<u32>,
    /// The same as --quota-in for all shards together
    #[arg(long, value_name = "RATES", value_parser = policy::rates_in, allow_hyphen_values = true)]
    stream_quota_in: Option<RatesIn>,
    /// The same as --quota-out for all shards together
    #[arg(long, value_name = "RATE", value_parser = policy::rate_out, allow_hyphen_values = true)]
    stream_quota_out: Option<u64>,
    /// What happens beyond a quota: reduce, scale or scale:MAX, buffer or buffer:64MiB,5s, drop-oldest or drop-oldest:64MiB,5s, drop-newest
    /// or sample:5%[,key|record] [default: reduce]
    #[arg(long, value_name = "WAY", value_parser = policy::backpressure)]
    backpressure: Option<Backpressure>,
    /// Drop segments whose last record is older than this; 0 keeps for ever [default: 0]
    #[arg(long, value_name = "AGE", value_parser = policy::age)]
    retention: Option<u64>,
    /// Drop the oldest segments above this size; 0 for no bound [default: 0]
    #[arg(long, value_name = "BYTES", value_parser = units::size)]
    retention_bytes: Option<u64>,
}

/// Quotas of known services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Preset {
    /// 1,000 records/s or 1 MB/s in, 2 MB/s out, per shard
    Kinesis,
}

impl Settings {
    /// Whether nothing is told.
    pub fn is_empty(&self) -> bool {
        self.change(&StreamConfig::default()) == StreamChange::default()
    }

    /// `config` with what is told.
    pub fn on(&self, config: StreamConfig) -> StreamConfig {
        let change = self.change(&config);
        StreamConfig {
            retention_ms: change.retention_ms.unwrap_or(config.retention_ms),
            retention_bytes: change.retention_bytes.unwrap_or(config.retention_bytes),
            quota: change.quota.unwrap_or(config.quota),
            stream_quota: change.stream_quota.unwrap_or(config.stream_quota),
            backpressure: change.backpressure.unwrap_or(config.backpressure),
            ..config
        }
    }

    /// What is to change in a stream that has `config`.
    pub fn change(&self, config: &StreamConfig) -> StreamChange {
        let shard = self.quota_in.is_some() || self.quota_out.is_some();
        let stream = self.stream_quota_in.is_some() || self.stream_quota_out.is_some();
        let base = match self.preset {
            Some(Preset::Kinesis) => policy::KINESIS,
            None => config.quota,
        };
        let quota = self.quota(base, self.quota_in, self.quota_out);
        let of_stream =
            self.quota(config.stream_quota, self.stream_quota_in, self.stream_quota_out);
        // A burst alone goes for whichever quota there is.
        let burst = self.quota_burst.is_some();
        let whole = stream || burst && bounded(&config.stream_quota);
        StreamChange {
            retention_ms: self.retention,
            retention_bytes: self.retention_bytes,
            quota: (self.preset.is_some() || shard || burst && !whole || burst && bounded(&base))
                .then_some(quota),
            stream_quota: whole.then_some(of_stream),
            backpressure: self.backpressure,
        }
    }

    fn quota(&self, base: Quota, into: Option<RatesIn>, out: Option<u64>) -> Quota {
        let into = into.unwrap_or(RatesIn { records: base.records_in, bytes: base.bytes_in });
        Quota {
            records_in: into.records,
            bytes_in: into.bytes,
            bytes_out: out.unwrap_or(base.bytes_out),
            burst_ms: self.quota_burst.unwrap_or(base.burst_ms),
        }
    }
}

fn bounded(quota: &Quota) -> bool {
    quota.records_in != 0 || quota.bytes_in != 0 || quota.bytes_out != 0
}

/// A refusal of settings: a value outside its range is wrong usage, and called by its flag.
pub fn refused(doing: String, error: ClientError) -> Failure {
    match &error {
        ClientError::Refused(told) if told.code == ErrorCode::InvalidArgument => {
            Failure::Usage(format!("{doing}: {}", by_flag(&told.message)))
        }
        _ => Failure::doing(doing, error),
    }
}

/// What the server says of a field, said of the flag that sets it.
fn by_flag(message: &str) -> String {
    let flags = [
        ("retention_bytes is ", "--retention-bytes is "),
        ("backpressure bytes is ", "--backpressure: the bytes to hold back are "),
        ("burst_ms is ", "--quota-burst in milliseconds is "),
        ("age_ms is ", "--backpressure: the milliseconds to hold back are "),
        ("max_shards is ", "--backpressure scale: the shards are "),
    ];
    let flag =
        |(field, flag): (&str, &str)| Some(format!("{flag}{}", message.strip_prefix(field)?));
    flags.into_iter().find_map(flag).unwrap_or_else(|| message.to_owned())
}

/// A stream's settings in a line.
pub fn text(config: &StreamConfig) -> String {
    let mut parts = vec![format!("retention {}", retention(config))];
    parts.push(format!("quota of each shard {}", policy::quota_text(&config.quota)));
    if bounded(&config.stream_quota) {
        parts.push(format!("of the stream {}", policy::quota_text(&config.stream_quota)));
    }
    parts.push(format!("backpressure {}", policy::backpressure_text(&config.backpressure)));
    parts.join("; ")
}

/// How long records are kept.
pub fn retention(config: &StreamConfig) -> String {
    let age = Duration::from_millis(config.retention_ms);
    match (config.retention_ms, config.retention_bytes) {
        (0, 0) => "for ever".to_owned(),
        (_, 0) => human::duration(age),
        (0, bytes) => human::binary(bytes),
        (_, bytes) => format!("{} or {}", human::duration(age), human::binary(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_in(bytes: u64) -> Option<RatesIn> {
        Some(RatesIn { records: 0, bytes })
    }

    #[test]
    fn a_preset_is_where_the_flags_begin() {
        let settings =
            Settings { preset: Some(Preset::Kinesis), quota_out: Some(0), ..Settings::default() };
        let quota = settings.on(StreamConfig::default()).quota;
        assert_eq!(quota, Quota { bytes_out: 0, ..policy::KINESIS });
    }

    #[test]
    fn what_is_not_named_stays() {
        let config =
            StreamConfig { quota: policy::KINESIS, retention_ms: 5, ..StreamConfig::default() };
        let settings = Settings { quota_in: bytes_in(7), ..Settings::default() };
        let change = settings.change(&config);
        let quota = Quota { records_in: 0, bytes_in: 7, ..policy::KINESIS };
        assert_eq!(change, StreamChange { quota: Some(quota), ..StreamChange::default() });
        assert!(Settings::default().is_empty() && !settings.is_empty());
    }

    #[test]
    fn a_value_the_server_refuses_is_wrong_usage_and_called_by_its_flag() {
        let told = |code, message: &str| {
            let error = highwater_wire::WireError::new(code, message);
            refused("cannot change s".to_owned(), ClientError::Refused(error))
        };
        let out = told(ErrorCode::InvalidArgument, "retention_bytes is 1; 8388608 at least");
        let words = "cannot change s: --retention-bytes is 1; 8388608 at least";
        assert!(matches!(out, Failure::Usage(told) if told == words));
        let gone = told(ErrorCode::UnknownStream, "stream \"s\" does not exist");
        assert!(matches!(gone, Failure::Failed(_)));
    }

    #[test]
    fn a_burst_alone_changes_the_quotas_there_are() {
        let settings = Settings { quota_burst: Some(50), ..Settings::default() };
        assert!(!settings.is_empty());
        let quota = Quota { bytes_in: 9, ..Quota::default() };
        let both = StreamConfig { quota, stream_quota: quota, ..StreamConfig::default() };
        let change = settings.change(&both);
        let changed = Some(Quota { burst_ms: 50, ..quota });
        assert_eq!((change.quota, change.stream_quota), (changed, changed));
        let only = StreamConfig { stream_quota: quota, ..StreamConfig::default() };
        assert_eq!(settings.change(&only).quota, None);
    }
}
