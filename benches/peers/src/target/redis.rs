//! Redis Streams: a pipeline of `XADD` per batch, and `XREAD` that waits.
//!
//! Entries are numbered by Redis, as `0-1`, `0-2`, …: ids of the form `0-*`, which cost what `*` costs and are dense.

use std::time::Duration;

use highwater_loadgen::Target;
use highwater_loadgen::target::{Failure, LaneOptions, Link, Outcome, Refusal, Sink};
use highwater_wire::{BatchBuilder, Limits, StreamConfig, StreamDescription};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, Pipeline, RedisResult, Value, cmd};
use tokio::sync::mpsc;

use super::{Answer, Feed, Message, Reading, Teller, Told, in_order, payloads, refused, taken};

/// The name of the one field of each entry.
const FIELD: &str = "p";
/// Entries read at a time.
const TOGETHER: usize = 1000;
/// How long a read waits at the server, milliseconds.
const WAIT_MS: usize = 1000;
/// After this a command is given up; a synchronised append may take its time.
const PATIENCE: Duration = Duration::from_secs(30);

/// A Redis server.
#[derive(Clone, Debug)]
pub struct Redis {
    /// `host:port`.
    pub address: String,
}

impl Redis {
    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let client = Client::open(format!("redis://{}", self.address))?;
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
        client.get_multiplexed_async_connection_with_config(&config).await
    }
}

impl Target for Redis {
    type Link = RedisLink;

    fn address(&self) -> &str {
        &self.address
    }

    async fn link(&self) -> Result<RedisLink, Refusal> {
        let mut connection = self.connect().await.map_err(refused)?;
        let info: String =
            cmd("INFO").arg("server").query_async(&mut connection).await.map_err(refused)?;
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
        let server = format!("redis-server {}", version.unwrap_or("of an unknown release"));
        Ok(RedisLink { redis: self.clone(), connection, server })
    }
}

/// A connection for what is asked now and then.
pub struct RedisLink {
    redis: Redis,
    connection: MultiplexedConnection,
    server: String,
}

impl Link for RedisLink {
    type Sink = RedisSink;
    type Outcomes = Told;
    type Source = Reading<RedisFeed>;

    fn server(&self) -> String {
        self.server.clone()
    }

    fn limits(&self) -> Limits {
        Limits::default()
    }

    /// There is nothing to create: the first entry makes the stream.
    async fn stream(
        &self,
        name: &str,
        config: &StreamConfig,
    ) -> Result<StreamDescription, Refusal> {
        Ok(StreamDescription::evenly(name, 1, config.clone()))
    }

    /// As many as there are entries: none is ever removed.
    async fn high_water(&self, stream: &StreamDescription, _: u32) -> Result<u64, Refusal> {
        let mut connection = self.connection.clone();
        cmd("XLEN").arg(&stream.name).query_async(&mut connection).await.map_err(refused)
    }

    /// On a connection of its own: the server reads a little of each connection in a turn, and syncs once a turn.
    async fn sink(
        &self,
        stream: &StreamDescription,
        _: u32,
        _: LaneOptions,
    ) -> Result<(RedisSink, Told), Refusal> {
        let (tell, told) = mpsc::unbounded_channel();
        let connection = self.redis.connect().await.map_err(refused)?;
        Ok((RedisSink { connection, stream: stream.name.clone(), tell }, Told(told)))
    }

    async fn delete(&self, name: &str) -> Result<(), Refusal> {
        let mut connection = self.connection.clone();
        cmd("UNLINK").arg(name).exec_async(&mut connection).await.map_err(refused)
    }

    /// On a connection of its own: a read that waits holds up whatever comes behind it.
    async fn source(
        &self,
        stream: &StreamDescription,
        _: u32,
        from: u64,
    ) -> Result<Reading<RedisFeed>, Refusal> {
        let connection = self.redis.connect().await.map_err(refused)?;
        let feed = RedisFeed { connection, stream: stream.name.clone(), next: from, answer: None };
        Ok(Reading::new(feed, from))
    }
}

/// Appends to one stream.
pub struct RedisSink {
    connection: MultiplexedConnection,
    stream: String,
    tell: mpsc::UnboundedSender<Outcome>,
}

impl Sink for RedisSink {
    /// Always: the window is the generator's own.
    async fn ready(&mut self) {}

    async fn append(&mut self, batch: &mut BatchBuilder, tag: u64) -> Result<(), Failure> {
        let mut pipeline = Pipeline::with_capacity(batch.record_count() as usize);
        for payload in payloads(&taken(batch)) {
            let mut add = Cmd::with_capacity(5, payload.len() + self.stream.len() + 16);
            add.arg("XADD").arg(&self.stream).arg("0-*").arg(FIELD).arg(payload);
            pipeline.add_command(add);
        }
        let count = pipeline.len();
        let mut connection = self.connection.clone();
        let answer = Box::pin(async move { pipeline.query_async(&mut connection).await });
        let teller = Teller::new(self.tell.clone(), tag);
        in_order(answer, move |answer| tell(teller, count, answer)).await;
        Ok(())
    }
}

fn tell(mut teller: Teller, count: usize, answer: RedisResult<Vec<String>>) {
    match answer {
        Ok(ids) => {
            for id in ids {
                match number(id.as_bytes()) {
                    Some(number) => teller.stored(number),
                    None => teller.failed(true, format!("the entry's id is {id:?}, not 0-N")),
                }
            }
        }
        // Which of the commands it was, and so which are stored, is not known.
        Err(error) => return teller.whole(count, Err(error.to_string())),
    }
    teller.flush();
}

/// The number, from 0, of the entry `0-N`, the first of which is `0-1`.
fn number(id: &[u8]) -> Option<u64> {
    let digits = id.strip_prefix(b"0-")?;
    std::str::from_utf8(digits).ok()?.parse::<u64>().ok()?.checked_sub(1)
}

/// Reads one stream, one waiting read after the other.
pub struct RedisFeed {
    connection: MultiplexedConnection,
    stream: String,
    next: u64,
    /// Of the read under way; it outlives a wait for it that was dropped.
    answer: Option<Answer<RedisResult<Value>>>,
}

impl Feed for RedisFeed {
    type Payload = Vec<u8>;

    async fn more(&mut self) -> Result<Vec<Message<Vec<u8>>>, String> {
        loop {
            let answer = match &mut self.answer {
                Some(answer) => answer,
                none => {
                    let mut connection = self.connection.clone();
                    let mut read = cmd("XREAD");
                    read.arg("COUNT").arg(TOGETHER).arg("BLOCK").arg(WAIT_MS);
                    read.arg("STREAMS").arg(&self.stream).arg(format!("0-{}", self.next));
                    none.insert(Box::pin(async move { read.query_async(&mut connection).await }))
                }
            };
            let answer = answer.await;
            self.answer = None;
            let messages = messages(answer.map_err(|error| error.to_string())?)?;
            if let Some(last) = messages.last() {
                self.next = last.sequence + 1;
                return Ok(messages);
            }
        }
    }
}

/// The entries in the answer to an `XREAD` of one stream: `[[stream, [[id, [field, value]], …]]]`, or nil for none.
fn messages(answer: Value) -> Result<Vec<Message<Vec<u8>>>, String> {
    let mut entries = match answer {
        Value::Nil => return Ok(Vec::new()),
        answer => list(answer)?,
    };
    for _ in 0..2 {
        // The only stream, and then what follows its name.
        entries = list(entries.pop().ok_or("an answer without a stream")?)?;
    }
    entries.into_iter().map(message).collect()
}

fn message(entry: Value) -> Result<Message<Vec<u8>>, String> {
    let mut entry = list(entry)?.into_iter();
    let (Some(Value::BulkString(id)), Some(fields)) = (entry.next(), entry.next()) else {
        return Err("an entry without id or fields".to_owned());
    };
    let Some(Value::BulkString(payload)) = list(fields)?.pop() else {
        return Err("an entry without a value".to_owned());
    };
    let sequence = number(&id).ok_or_else(|| format!("an entry's id is {id:?}, not 0-N"))?;
    Ok(Message { sequence, arrival_ns: 0, payload })
}

fn list(value: Value) -> Result<Vec<Value>, String> {
    match value {
        Value::Array(values) => Ok(values),
        other => Err(format!("not a list: {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

    use super::*;

    #[test]
    fn entries_are_found_in_what_xread_answers() {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let entry = |id: &str| {
            Value::Array(vec![bulk(id), Value::Array(vec![bulk(FIELD), bulk("payload")])])
        };
        let entries = Value::Array(vec![entry("0-1"), entry("0-17")]);
        let answer = Value::Array(vec![Value::Array(vec![bulk("stream"), entries])]);
        let read = messages(answer).unwrap();
        let numbers: Vec<u64> = read.iter().map(|message| message.sequence).collect();
        assert_eq!(numbers, [0, 16]);
        assert!(read.iter().all(|message| message.payload == b"payload"));
        assert!(messages(Value::Nil).unwrap().is_empty());
        let strange = Value::Array(vec![Value::Array(vec![
            bulk("stream"),
            Value::Array(vec![entry("1700000000000-0")]),
        ])]);
        assert!(messages(strange).is_err());
    }
}
