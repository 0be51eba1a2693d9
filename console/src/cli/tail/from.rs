//! `--from`: where reading begins.

use std::str::FromStr;

use highwater_client::Start;
use jiff::Timestamp;

use crate::when::moment;

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct From(Start);

impl From {
    /// For the client.
    pub fn start(self) -> Start {
        self.0
    }
}

/// Not a place to begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write oldest, latest, a sequence number, a time like 2026-05-17T10:05:03Z, or -10m")]
pub struct FromError;

impl FromStr for From {
    type Err = FromError;

    fn from_str(text: &str) -> Result<From, FromError> {
        parse(text, Timestamp::now()).map(From)
    }
}

fn parse(text: &str, now: Timestamp) -> Result<Start, FromError> {
    match text {
        "oldest" => return Ok(Start::Oldest),
        "latest" => return Ok(Start::Latest),
        _ => {}
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map(Start::At).map_err(|_| FromError);
    }
    moment(text, now).map(Start::Time).ok_or(FromError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_to_begin() {
        let now: Timestamp = "2026-05-17T10:15:03Z".parse().unwrap();
        let at = |text| parse(text, now);
        assert_eq!(at("oldest"), Ok(Start::Oldest));
        assert_eq!(at("latest"), Ok(Start::Latest));
        assert_eq!(at("17"), Ok(Start::At(17)));
        let ten_minutes_ago = Start::Time(1_779_012_303_000_000_000);
        assert_eq!(at("2026-05-17T10:05:03Z"), Ok(ten_minutes_ago));
        assert_eq!(at("2026-05-17T12:05:03+02:00"), Ok(ten_minutes_ago));
        assert_eq!(at("-10m"), Ok(ten_minutes_ago));
        assert_eq!(at("-1h30m"), at("2026-05-17T08:45:03Z"));
        for wrong in ["", "newest", "-", "--1m", "99999999999999999999", "1969-01-01T00:00:00Z"] {
            assert_eq!(at(wrong), Err(FromError), "{wrong}");
        }
    }
}
