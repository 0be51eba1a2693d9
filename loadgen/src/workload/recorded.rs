//! The records of a file, with their keys and payloads, in the order they arrived. (Their headers are not sent: the
//! proof takes their place.)

use std::collections::HashMap;
use std::path::Path;

use highwater_process::record_line::RecordLine;

use super::WorkloadError;
use super::apache::Lines;
use super::keys::KeyTable;
use crate::recorded;

impl Lines {
    /// The payloads of the records of a file, and their keys.
    pub fn recorded(file: &Path) -> Result<(Lines, KeyTable), WorkloadError> {
        let (mut keys, mut known) = (KeyTable::default(), HashMap::new());
        let mut records: Vec<(u64, u32, Vec<u8>)> = Vec::new();
        recorded::each(file, |at, line| {
            let record = RecordLine::parse(line)?;
            let key = *known.entry(record.key).or_insert_with_key(|key| {
                keys.push(key.as_bytes());
                keys.count() - 1
            });
            records.push((at, key, record.payload));
            Ok(())
        })?;
        if records.is_empty() {
            let limit = "there: the file has no records";
            return Err(WorkloadError::Line { file: file.to_owned(), line: 1, limit });
        }
        // As their times are: those of one time stay as they are.
        records.sort_by_key(|(at, ..)| *at);
        let mut lines = Lines::default();
        for (_, key, payload) in &records {
            lines.add(payload, *key);
        }
        Ok((lines, keys))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Draw, Material};
    use crate::schedule::{Profile, TraceSpec};
    use crate::{Keys, Workload};
    use std::sync::Arc;
    use std::time::Duration;

    fn line(second: u64, key: &str, payload: &str) -> String {
        format!(
            "{{\"key\":\"{key}\",\"arrival\":\"1970-01-01T00:00:0{second}Z\",\"payload\":\"{payload}\"}}\n"
        )
    }

    #[test]
    fn records_and_times_of_a_file_belong_together() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("trace.jsonl");
        let text =
            [line(3, "b", "three"), line(1, "a", "one"), line(2, "b", ""), line(3, "c", "!")];
        std::fs::write(&file, text.concat() + "\n").unwrap();
        let profile = Profile::Trace(TraceSpec { file: file.clone(), speed: 2.0 });
        assert_eq!(profile.prepare().unwrap().length(), Some(Duration::from_secs(1)));
        let workload = Workload::Recorded { file };
        let material = Arc::new(Material::prepare(&workload, &Keys::default(), 1).unwrap());
        assert!(material.begins_with_window());
        assert_eq!((material.key_count(), material.max_payload()), (3, 5));
        for (producers, wanted) in [
            (1, vec![vec![("a", 3), ("b", 0), ("b", 5), ("c", 1), ("a", 3)]]),
            (2, vec![vec![("a", 3), ("b", 5)], vec![("b", 0), ("c", 1)]]),
        ] {
            for (producer, wanted) in (0..).zip(wanted) {
                let mut source = material.source(producer, producers, 1);
                for (key, len) in wanted {
                    let Draw { key: drawn, len: bytes, .. } = source.next();
                    assert_eq!((material.key(drawn), bytes), (key.as_bytes(), len));
                }
            }
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("trace.jsonl");
        for (text, wanted) in [
            ("{\"payload\":\"x\"}\n", "line 1: it must be a record that says when it arrived"),
            ("{\"arrival\":\"1970-01-01T00:00:01Z\"}\n", "line 1: payload and payload_base64"),
            ("{\"arrival\":\"x\",\"payload\":\"\"}\n", "arrival is \"x\""),
        ] {
            std::fs::write(&file, text).unwrap();
            let workload = Workload::Recorded { file: file.clone() };
            let said = Material::prepare(&workload, &Keys::default(), 1).unwrap_err().to_string();
            assert!(said.contains("trace.jsonl") && said.contains(wanted), "{text}: {said}");
        }
        std::fs::write(&file, line(1, "a", "one")).unwrap();
        let profile = Profile::Trace(TraceSpec { file, speed: 1.0 });
        let said = profile.prepare().unwrap_err().to_string();
        assert!(said.contains("fewer than two different times"), "{said}");
    }
}
