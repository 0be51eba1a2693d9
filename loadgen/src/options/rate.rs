//! How fast records are offered, and how they are spaced.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How fast records are offered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// Records per second, all producers together; more than 0 and at most 10⁹.
    PerSecond(f64),
    /// As fast as the target takes them. Nothing is scheduled then: the intended time of a record is the
    /// moment it was made, so response says nothing about records that could not even be offered.
    Max,
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Rate::PerSecond(rate) => write!(f, "{rate}"),
            Rate::Max => f.write_str("max"),
        }
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Rate::PerSecond(rate) => serializer.serialize_f64(*rate),
            Rate::Max => serializer.serialize_str("max"),
        }
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Rate, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(f64),
            Word(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(rate) => Ok(Rate::PerSecond(rate)),
            Form::Word(word) if word == "max" => Ok(Rate::Max),
            Form::Word(word) => Err(serde::de::Error::custom(format!(
                "rate {word:?} is neither a number nor \"max\""
            ))),
        }
    }
}

/// How due times are spaced around the rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrival {
    /// Evenly: the k-th record at `start + k / rate`.
    #[default]
    Constant,
    /// As independent producers behave: exponential gaps, seeded.
    Poisson,
}

impl std::fmt::Display for Arrival {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Arrival::Constant => "constant",
            Arrival::Poisson => "poisson",
        })
    }
}
