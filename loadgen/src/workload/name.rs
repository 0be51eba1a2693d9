//! Workloads by name, as on the command line: `NAME` or `NAME:ARGUMENT`.

use std::fmt;
use std::str::FromStr;

use super::{Part, Workload, WorkloadError};
use crate::nearest::nearest;
use crate::units;

/// Every name, and the argument it may have.
const KNOWN: &str = "fixed[:SIZE], uniform:LEAST..MOST, lognormal:MEDIAN[,SIGMA[,MOST]], \
                     apache-log[:FILE], recorded:FILE, iot[:DEVICES], clickstream[:USERS], video[:CAMERAS] or \
                     mixed[:NAME=WEIGHT,...]";
const NAMES: [&str; 8] =
    ["fixed", "uniform", "lognormal", "apache-log", "iot", "clickstream", "video", "mixed"];

/// Standard deviation of lognormal sizes if none is given.
pub(crate) const SIGMA: f64 = 1.0;
/// Lognormal sizes are cut off there if nothing is said: with a key, within the usual limit of a record.
pub(crate) const MOST: usize = (1 << 20) - 64;

impl Workload {
    /// The workload of this name with every default; `None` if there is none.
    pub(crate) fn named(name: &str) -> Option<Workload> {
        let part = |weight, name| Some(Part { weight, workload: Workload::named(name)? });
        Some(match name {
            "fixed" => Workload::default(),
            "uniform" => Workload::Uniform { least: 100, most: 1 << 10 },
            "lognormal" => Workload::LogNormal { median: 1 << 10, sigma: SIGMA, most: MOST },
            "apache-log" => Workload::ApacheLog { file: None },
            "iot" => Workload::Iot { devices: 10_000 },
            "clickstream" => Workload::Clickstream { users: 100_000 },
            "video" => Workload::Video { cameras: 16 },
            "mixed" => Workload::Mixed {
                parts: vec![part(5.0, "iot")?, part(3.0, "clickstream")?, part(2.0, "apache-log")?],
            },
            _ => return None,
        })
    }

    /// The error for a name that is none.
    pub(crate) fn unknown(name: &str) -> WorkloadError {
        match nearest(name, NAMES) {
            Some(nearest) => WorkloadError::Misspelt { value: name.to_owned(), nearest },
            None => {
                WorkloadError::Unknown { what: "workload", value: name.to_owned(), known: KNOWN }
            }
        }
    }
}

impl FromStr for Workload {
    type Err = WorkloadError;

    fn from_str(text: &str) -> Result<Workload, WorkloadError> {
        let (name, argument) = match text.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (text, None),
        };
        // Without a file there is nothing.
        if let ("recorded", Some(file)) = (name, argument.filter(|file| !file.is_empty())) {
            return Ok(Workload::Recorded { file: file.into() });
        }
        let mut workload = Workload::named(name).ok_or_else(|| Workload::unknown(name))?;
        if let Some(argument) = argument {
            workload.set(argument).ok_or_else(|| WorkloadError::Unknown {
                what: "workload",
                value: text.to_owned(),
                known: KNOWN,
            })?;
        }
        workload.validate()?;
        Ok(workload)
    }
}

impl Workload {
    fn set(&mut self, argument: &str) -> Option<()> {
        let bytes = |text: &str| usize::try_from(units::size(text)?).ok();
        match self {
            Workload::Fixed { size } => *size = bytes(argument)?,
            Workload::Uniform { least, most } => {
                let (from, to) = argument.split_once("..")?;
                (*least, *most) = (bytes(from)?, bytes(to)?);
            }
            Workload::LogNormal { median, sigma, most } => {
                let mut values = argument.splitn(3, ',');
                *median = bytes(values.next()?)?;
                if let Some(value) = values.next() {
                    *sigma = value.trim().parse().ok()?;
                }
                if let Some(value) = values.next() {
                    *most = bytes(value)?;
                }
            }
            Workload::ApacheLog { file } if !argument.is_empty() => *file = Some(argument.into()),
            Workload::ApacheLog { .. } | Workload::Recorded { .. } => return None,
            Workload::Iot { devices: count }
            | Workload::Clickstream { users: count }
            | Workload::Video { cameras: count } => *count = argument.parse().ok()?,
            Workload::Mixed { parts } => {
                parts.clear();
                for part in argument.split(',') {
                    let (name, weight) = part.split_once('=')?;
                    let workload = Workload::named(name.trim())?;
                    parts.push(Part { weight: weight.trim().parse().ok()?, workload });
                }
            }
        }
        Some(())
    }
}

impl fmt::Display for Workload {
    /// As it is read, but that the parts of a mixed workload are named without their arguments.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Workload::Fixed { size } => write!(f, ":{}", units::size_text(*size)),
            Workload::Uniform { least, most } => {
                write!(f, ":{}..{}", units::size_text(*least), units::size_text(*most))
            }
            Workload::LogNormal { median, sigma, most } => {
                write!(f, ":{},{sigma},{}", units::size_text(*median), units::size_text(*most))
            }
            Workload::ApacheLog { file: None } => Ok(()),
            Workload::ApacheLog { file: Some(file) } | Workload::Recorded { file } => {
                write!(f, ":{}", file.display())
            }
            Workload::Iot { devices: count }
            | Workload::Clickstream { users: count }
            | Workload::Video { cameras: count } => write!(f, ":{count}"),
            Workload::Mixed { parts } => {
                for (index, part) in parts.iter().enumerate() {
                    let sign = if index == 0 { ':' } else { ',' };
                    write!(f, "{sign}{}={}", part.workload.name(), part.weight)?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in NAMES {
            let workload: Workload = name.parse().unwrap();
            assert_eq!(workload.name(), name);
            assert_eq!(workload.to_string().parse::<Workload>().unwrap(), workload);
            let json = serde_json::to_string(&workload).unwrap();
            assert_eq!(serde_json::from_str::<Workload>(&json).unwrap(), workload, "{json}");
            assert!(json.contains(&format!("\"name\":\"{name}\"")), "{json}");
        }
        for text in [
            "fixed:100",
            "uniform:100..1KiB",
            "lognormal:300,0.5,64KiB",
            "apache-log:a:b.log",
            "recorded:clicks.jsonl",
            "iot:7",
            "video:1",
            "mixed:iot=3,video=0.5",
        ] {
            assert_eq!(text.parse::<Workload>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, wanted) in [
            ("apache-logs", "\"apache-logs\" is not known; did you mean apache-log?"),
            ("pictures", "write fixed[:SIZE], uniform"),
            ("fixed:8", "size is 8; it must be 32 to 10485760"),
            ("fixed:many", "\"fixed:many\" is not known"),
            ("uniform:2KiB..1KiB", "most size is 1024; it must be 2048 to"),
            ("lognormal:100,0", "sigma is 0"),
            ("iot:0", "devices is 0; it must be 1 to 4194304"),
            ("video:70000", "cameras is 70000; it must be 1 to 65536"),
            ("apache-log:", "is not known"),
            ("recorded", "recorded:FILE"),
            ("recorded:", "recorded:FILE"),
            ("mixed:mixed=1", "part of a mixed workload is mixed"),
            ("mixed:iot=0", "weight is 0"),
        ] {
            let said = text.parse::<Workload>().unwrap_err().to_string();
            assert!(said.contains(wanted), "{text}: {said}");
        }
    }
}
