//! Dead letters of `put`: what cannot be the record that was asked for is kept in a stream beside, with the reason,
//! and what follows it goes on.

use highwater_client::wire::{Backpressure, ErrorCode, Header, Quota, StreamConfig, StreamName};
use highwater_client::{Client, Producer, ProducerOptions, Receipt, Record};

use super::shape::Unfit;
use crate::failure::chain;
use crate::input::Format;

/// Longest reason kept, in bytes.
const REASON: usize = 1000;

/// Name of the stream for what cannot go to `stream`.
pub fn stream_of(stream: &StreamName) -> String {
    format!("{stream}.dead")
}

/// Where dead letters go; the stream is made when the first comes.
pub struct DeadLetters<'a> {
    client: &'a Client,
    stream: &'a StreamName,
    format: Format,
    producer: Option<Producer>,
}

impl<'a> DeadLetters<'a> {
    /// Of what is meant for `stream` and read as `format`.
    pub fn new(client: &'a Client, stream: &'a StreamName, format: Format) -> DeadLetters<'a> {
        DeadLetters { client, stream, format, producer: None }
    }

    /// Sends what was read at `line` of `file` and is `unfit`; as much of it as a record may have.
    pub async fn send(
        &mut self,
        unfit: &Unfit,
        file: &str,
        line: u64,
        piece: &[u8],
    ) -> Result<Receipt, String> {
        let mut reason = unfit.to_string();
        reason.truncate(reason.floor_char_boundary(REASON));
        let line = line.to_string();
        let size = match unfit {
            Unfit::TooLong { bytes } => *bytes,
            _ => piece.len() as u64,
        };
        let whole = size.to_string();
        let headers = [
            ("reason", reason.as_str()),
            ("origin-stream", self.stream.as_str()),
            ("origin-file", file),
            ("origin-line", &line),
            ("origin-format", self.format.name()),
            ("origin-size", &whole),
        ];
        let headers = headers.map(|(name, value)| Header { name, value: value.as_bytes() });
        // It fits beside them; of what is too long its beginning is kept, and its size is told.
        let beside: usize = headers.iter().map(|h| 3 + h.name.len() + h.value.len()).sum();
        let room = (self.client.info().max_record as usize).saturating_sub(beside);
        let piece = &piece[..piece.len().min(room)];
        let told = if (piece.len() as u64) < size { headers.len() } else { headers.len() - 1 };
        let headers = &headers[..told];
        let name = stream_of(self.stream);
        let producer = self.producer().await?;
        let record = Record { headers, ..Record::new(b"", piece) };
        producer.send(record).await.map_err(|e| format!("dead letter to {name}: {}", chain(&e)))
    }

    async fn producer(&mut self) -> Result<&Producer, String> {
        if self.producer.is_none() {
            let name = stream_of(self.stream);
            let failed = |e: &dyn std::error::Error| {
                format!("cannot keep dead letters in stream {name}: {}", chain(e))
            };
            StreamName::new(&name).map_err(|e| failed(&e))?;
            let source = self.client.describe_stream(self.stream.as_str()).await;
            // Kept as long as what they would have been kept with; one shard, in order, and never shed.
            let config = StreamConfig {
                shards: 1,
                quota: Quota::default(),
                stream_quota: Quota::default(),
                backpressure: Backpressure::default(),
                ..source.map_err(|e| failed(&e))?.config
            };
            match self.client.create_stream(&name, config).await {
                Ok(_) => {}
                Err(e) if e.code() == Some(ErrorCode::StreamExists) => {}
                Err(e) => return Err(failed(&e)),
            }
            let producer = self.client.producer(&name, ProducerOptions::default()).await;
            self.producer = Some(producer.map_err(|e| failed(&e))?);
        }
        self.producer.as_ref().ok_or_else(|| "no producer of dead letters".to_owned())
    }
}
