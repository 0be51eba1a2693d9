//! Where replayed records go.

use std::cell::{Cell, RefCell};
use std::io::{BufWriter, Write};
use std::rc::Rc;
use std::time::Duration;

use highwater_client::wire::Header;
use highwater_client::{Client, KeptRecord, Producer, ProducerOptions, Receipt, Record, SendError};
use highwater_process::record_line;
use highwater_wire::StreamName;
use tokio::sync::mpsc;

use crate::failure::{Failure, chain};
use crate::output;

/// Acknowledgements waited for at most; records waiting for them are bounded in bytes by the producer.
const RECEIPTS: usize = 65_536;

/// A destination, opened.
pub struct Sink {
    out: Out,
    settling: Option<Settling>,
}

/// The side that records are given to.
pub struct Out {
    kind: Kind,
    settled: Rc<Settled>,
}

enum Kind {
    /// They are only counted.
    Nothing,
    /// Lines of JSON.
    Lines { stream: String, out: Box<dyn Write>, failing: Option<&'static str> },
    /// A stream, and who waits for its acknowledgements.
    Stream { producer: Producer, expect: Option<mpsc::Sender<Awaited>> },
}

struct Awaited {
    shard: u32,
    sequence: u64,
    receipt: Receipt,
}

struct Settling {
    name: String,
    receipts: mpsc::Receiver<Awaited>,
    settled: Rc<Settled>,
}

/// What became of records sent.
#[derive(Debug, Default)]
pub struct Settled {
    /// Dropped by the stream's backpressure, or left out of its sample.
    pub shed: Cell<u64>,
    /// The first that failed.
    failed: RefCell<Option<String>>,
}

impl Sink {
    fn new(kind: Kind, settling: Option<Settling>, settled: Rc<Settled>) -> Sink {
        Sink { out: Out { kind, settled }, settling }
    }

    /// Nowhere.
    pub fn nothing() -> Sink {
        Sink::new(Kind::Nothing, None, Rc::default())
    }

    /// Lines of records of `stream` on standard output.
    pub fn stdout(stream: &str) -> Sink {
        let out = Box::new(output::stdout());
        let kind = Kind::Lines { stream: stream.to_owned(), out, failing: None };
        Sink::new(kind, None, Rc::default())
    }

    /// ... in a file.
    pub fn lines(stream: &str, file: std::fs::File) -> Sink {
        let out = Box::new(BufWriter::with_capacity(256 << 10, file));
        let kind = Kind::Lines {
            stream: stream.to_owned(),
            out,
            failing: Some("cannot write the file of records"),
        };
        Sink::new(kind, None, Rc::default())
    }

    /// A stream that is there. Unless it goes as fast as it can, nothing lingers.
    pub async fn stream(client: &Client, name: &StreamName, fast: bool) -> Result<Sink, Failure> {
        let mut options = ProducerOptions::default();
        if !fast {
            options.linger = Duration::ZERO;
        }
        let producer = client
            .producer(name.as_str(), options)
            .await
            .map_err(|e| Failure::doing(format!("cannot write to stream {name} (--to)"), e))?;
        let (expect, receipts) = mpsc::channel(RECEIPTS);
        let settled: Rc<Settled> = Rc::default();
        let settling = Settling { name: name.to_string(), receipts, settled: Rc::clone(&settled) };
        let kind = Kind::Stream { producer, expect: Some(expect) };
        Ok(Sink::new(kind, Some(settling), settled))
    }

    /// Lets `play` fill it, and waits until all is where it belongs. How many records a stream's backpressure shed.
    pub async fn drain(
        self,
        play: impl AsyncFnOnce(&mut Out) -> Result<(), Failure>,
    ) -> Result<u64, Failure> {
        let Sink { mut out, settling } = self;
        let Some(settling) = settling else {
            play(&mut out).await?;
            return Ok(0);
        };
        let playing = async {
            let played = play(&mut out).await;
            out.close().await;
            played
        };
        // What was sent before a failure is stored all the same.
        let (played, settled) = tokio::join!(playing, settling.settle());
        settled.and(played)?;
        Ok(out.settled.shed.get())
    }
}

impl Settling {
    async fn settle(mut self) -> Result<(), Failure> {
        while let Some(Awaited { shard, sequence, receipt }) = self.receipts.recv().await {
            match receipt.await {
                Ok(_) => {}
                // What the stream was told to do is no failure, but is said.
                Err(SendError::Shed { .. }) => self.settled.shed.update(|shed| shed + 1),
                Err(error) => {
                    let what = format!(
                        "cannot store record {sequence} of shard {shard} in {}: {}",
                        self.name,
                        chain(&error)
                    );
                    self.settled.failed.borrow_mut().get_or_insert(what);
                }
            }
        }
        match self.settled.failed.borrow_mut().take() {
            Some(what) => Err(Failure::Failed(what)),
            None => Ok(()),
        }
    }
}

impl Out {
    /// Gives a record on.
    pub async fn send(&mut self, shard: u32, kept: &KeptRecord) -> Result<(), Failure> {
        let record = kept.view();
        match &mut self.kind {
            Kind::Nothing => Ok(()),
            Kind::Lines { stream, out, failing } => {
                let written = record_line::write(stream, shard, &record, kept.arrival_ns, out);
                written.map_err(|e| match failing {
                    Some(doing) => Failure::doing(doing, e),
                    None => e.into(),
                })
            }
            Kind::Stream { producer, expect } => {
                let failed = |what: String| {
                    let sequence = record.sequence;
                    Failure::Failed(format!("record {sequence} of shard {shard}: {what}"))
                };
                if self.settled.failed.borrow().is_some() {
                    // It is told by whoever waits for the acknowledgements.
                    return Err(failed("not sent, for one before it is not stored".to_owned()));
                }
                let headers: Vec<Header<'_>> = record.headers().collect();
                let again = Record {
                    headers: &headers,
                    timestamp_ns: Some(record.timestamp_ns),
                    ..Record::new(record.key, record.payload)
                };
                let receipt = producer.send(again).await.map_err(|e| failed(chain(&e)))?;
                let awaited = Awaited { shard, sequence: record.sequence, receipt };
                if let Some(expect) = expect {
                    // Whoever waits for them waits until this is dropped.
                    let _gone = expect.send(awaited).await;
                }
                Ok(())
            }
        }
    }

    /// Everything given so far is on its way.
    pub fn flush(&mut self) -> Result<(), Failure> {
        match &mut self.kind {
            Kind::Lines { out, failing, .. } => out.flush().map_err(|e| match failing {
                Some(doing) => Failure::doing(doing, e),
                None => e.into(),
            }),
            _ => Ok(()),
        }
    }

    /// Waits until what was given so far is stored, or has failed.
    pub async fn arrive(&mut self) {
        if let Kind::Stream { producer, .. } = &self.kind {
            // Each record's failure is told by its receipt.
            let _told = producer.flush().await;
        }
    }

    /// Nothing more will come.
    async fn close(&mut self) {
        if let Kind::Stream { producer, expect } = &mut self.kind {
            // Each record's failure is told by its receipt.
            let _told = producer.close().await;
            *expect = None;
        }
    }
}
