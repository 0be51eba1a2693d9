//! Dead letters of a group: records given up are copied into its dead-letter stream, with where they come from and why,
//! and only then settled. After a crash in between a record is buried again; its headers say that it is the same.

use std::sync::Arc;

use highwater_wire::{
    Burial, ErrorCode, Header, Outcome, RecordView, StreamConfig, StreamDescription,
};
use tokio::sync::Mutex;

use crate::membership::Identity;
use crate::record_consumer::{Held, Source, fetch, settle};
use crate::{AppendError, Client, ClientError, Producer, ProducerOptions, Record, SendError};

/// All headers of a record together hold at most so many bytes.
const MAX_HEADERS: usize = 65_535;

/// Buries records; what is opened for that is kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Burier {
    producer: Arc<Mutex<Option<(String, Producer)>>>,
}

impl Burier {
    /// Buries what a claim brought, and says so to the server; what fails is given back to it.
    pub async fn bury(
        &self,
        identity: &Identity,
        source: Source<'_>,
        held: Held,
        dead_letters: &str,
        burials: Vec<Burial>,
    ) -> Result<(), ClientError> {
        let mut outcome = Ok(());
        for burial in burials {
            let (from, to) = (burial.from, burial.to);
            let copied = match &outcome {
                Ok(()) => self.copy(identity, source, held, dead_letters, &burial).await,
                // The next would fare no better.
                Err(_) => Ok(Outcome::Released),
            };
            let settled = match copied {
                Ok(settled) => settled,
                Err(error) => {
                    outcome = Err(error);
                    *self.producer.lock().await = None;
                    Outcome::Released
                }
            };
            let done = settle(identity, held, vec![(from, to, settled)]).await;
            outcome = outcome.and(done);
        }
        outcome
    }

    /// Copies records; what became of them.
    async fn copy(
        &self,
        identity: &Identity,
        source: Source<'_>,
        held: Held,
        dead_letters: &str,
        burial: &Burial,
    ) -> Result<Outcome, ClientError> {
        let mut from = burial.from;
        let mut copied = 0;
        while from < burial.to {
            let fetched = fetch(&identity.client, source, held.shard, from..burial.to).await?;
            let mut receipts = Vec::new();
            let producer = self.open(&identity.client, source.stream, dead_letters).await?;
            for batch in fetched.parts.iter().flat_map(|part| part.batches()) {
                let arrival_ns = batch.header().arrival_ns.to_native();
                let wanted = fetched.range.clone();
                for record in batch.records().filter(|r| wanted.contains(&r.sequence)) {
                    let origin = Origin { identity, shard: held.shard, arrival_ns, burial };
                    let max_record = identity.client.info().max_record;
                    let sent = origin.send(&producer, &record, max_record).await;
                    receipts.push(sent.map_err(unsent)?);
                }
            }
            for receipt in receipts {
                receipt.await.map_err(unsent)?;
                copied += 1;
            }
            from = fetched.range.end;
        }
        Ok(if copied > 0 { Outcome::Buried } else { Outcome::Lost })
    }

    /// The producer of the dead-letter stream, which is made if it is not there: of one shard, and kept as long as the
    /// stream the records come from.
    async fn open(
        &self,
        client: &Client,
        origin: &StreamDescription,
        name: &str,
    ) -> Result<Producer, ClientError> {
        let mut kept = self.producer.lock().await;
        if let Some((_, producer)) = kept.as_ref().filter(|(of, _)| of == name) {
            return Ok(producer.clone());
        }
        let options = ProducerOptions::default();
        let producer = match client.producer(name, options.clone()).await {
            Err(error) if error.code() == Some(ErrorCode::UnknownStream) => {
                let config = StreamConfig {
                    shards: 1,
                    retention_ms: origin.config.retention_ms,
                    retention_bytes: match origin.config.retention_bytes {
                        0 => 0,
                        bytes => bytes.max(LEAST_KEPT),
                    },
                    ..StreamConfig::default()
                };
                match client.create_stream(name, config).await {
                    Ok(_) => {}
                    // Another member was faster.
                    Err(error) if error.code() == Some(ErrorCode::StreamExists) => {}
                    Err(error) => return Err(error),
                }
                client.producer(name, options).await?
            }
            producer => producer?,
        };
        *kept = Some((name.to_owned(), producer.clone()));
        Ok(producer)
    }
}

/// Least that a stream may be bounded to, bytes: two segments. An earlier release took less.
const LEAST_KEPT: u64 = 8 << 20;

/// Where a dead letter comes from.
struct Origin<'a> {
    identity: &'a Identity,
    shard: u32,
    arrival_ns: u64,
    burial: &'a Burial,
}

impl Origin<'_> {
    /// Sends the record with its own key and headers and those that say where it comes from. What would make it larger
    /// than a record may be is left out, the end of its payload or its own headers, and a header says so.
    async fn send(
        &self,
        producer: &Producer,
        record: &RecordView<'_>,
        max_record: u32,
    ) -> Result<crate::Receipt, SendError> {
        let (shard, sequence) = (self.shard.to_string(), record.sequence.to_string());
        let (arrival, attempts) = (self.arrival_ns.to_string(), self.burial.attempts.to_string());
        let size = record.payload.len().to_string();
        let told = [
            ("reason", self.burial.reason.as_str()),
            ("attempts", &attempts),
            ("origin-group", &self.identity.group),
            ("origin-stream", &self.identity.stream),
            ("origin-shard", &shard),
            ("origin-sequence", &sequence),
            ("origin-arrival", &arrival),
        ];
        let header = |(name, value): (&'static str, &'_ str)| (name, value.to_owned());
        let mut told: Vec<(&'static str, String)> = told.into_iter().map(header).collect();
        let fit = fit(record, &told, max_record as usize);
        if fit.payload < record.payload.len() {
            told.push(("origin-size", size));
        }
        if !fit.headers {
            told.push(("origin-headers", "left out".to_owned()));
        }
        let own = record.headers().filter(|_| fit.headers);
        let told = told.iter().map(|(name, value)| Header { name, value: value.as_bytes() });
        let headers: Vec<Header<'_>> = own.chain(told).collect();
        let letter = Record {
            key: record.key,
            headers: &headers,
            payload: &record.payload[..fit.payload],
            timestamp_ns: Some(record.timestamp_ns),
            hash_key: None,
        };
        producer.send(letter).await
    }
}

/// What of a record fits beside the headers of a dead letter.
#[derive(Debug, PartialEq, Eq)]
struct Fit {
    /// Its own headers do.
    headers: bool,
    /// So many bytes of its payload.
    payload: usize,
}

/// Bytes that the two headers which say what was left out take at most.
const LEFT_OUT: usize = 64;

fn fit(record: &RecordView<'_>, told: &[(&'static str, String)], max_record: usize) -> Fit {
    let told: usize = told.iter().map(|(name, value)| 3 + name.len() + value.len()).sum();
    let headers = record.raw_headers.len() + told + LEFT_OUT <= MAX_HEADERS
        && record.key.len() + record.raw_headers.len() + told + LEFT_OUT <= max_record;
    let own = if headers { record.raw_headers.len() } else { 0 };
    let room = max_record.saturating_sub(record.key.len() + own + told + LEFT_OUT);
    Fit { headers, payload: record.payload.len().min(room) }
}

/// As the failure of a request.
fn unsent(error: SendError) -> ClientError {
    match error {
        SendError::Client(error)
        | SendError::Append(AppendError::FateUnknown(error) | AppendError::NotStored(error)) => {
            error
        }
        error => ClientError::Protocol(format!("a dead letter was not stored: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_is_cut_to_what_a_record_may_be() {
        let told = [("reason", "because".to_owned())];
        let told_bytes = 3 + 6 + 7;
        let (payload, headers) = (vec![b'x'; 1_000], vec![0; 100]);
        let record = RecordView {
            sequence: 1,
            timestamp_ns: 2,
            key: b"key",
            raw_headers: &headers,
            payload: &payload,
        };
        // Limit, whether its own headers fit, bytes of payload.
        let all = 3 + 100 + told_bytes + LEFT_OUT;
        let table = [
            (1_000_000, true, 1_000),
            (all + 1_000, true, 1_000),
            (all + 999, true, 999),
            (all, true, 0),
            (all - 1, false, 99),
            (10, false, 0),
        ];
        for (limit, headers, payload) in table {
            assert_eq!(fit(&record, &told, limit), Fit { headers, payload }, "{limit}");
        }
        let headers = vec![0; MAX_HEADERS - 10];
        let record = RecordView { raw_headers: &headers, ..record };
        assert_eq!(fit(&record, &told, 1 << 20), Fit { headers: false, payload: 1_000 });
    }
}
