//! Reads the input on a thread of its own, so that a slow pipe does not hold up what was read before.

use std::io::{BufReader, Read};
use std::thread;

use tokio::sync::mpsc;

use crate::failure::Failure;
use crate::input::{InputError, Piece, Records};

/// A chunk is passed on at this size, or when the input has nothing more at the moment.
const CHUNK: usize = 256 << 10;

/// ... or with this many records, however short.
const CHUNK_RECORDS: usize = 16_384;

/// Chunks that wait: with the one being filled the bound of memory, with a record's length each.
const WAITING: usize = 4;

/// Records back to back.
#[derive(Debug, Default)]
pub struct Chunk {
    bytes: Vec<u8>,
    /// Where each begins, its line, and its length if it was cut.
    starts: Vec<(usize, u64, Option<u64>)>,
}

impl Chunk {
    /// The records with their lines.
    pub fn records(&self) -> impl Iterator<Item = Piece<'_>> {
        let ends = self.starts.iter().skip(1).map(|(start, ..)| *start).chain([self.bytes.len()]);
        let records = self.starts.iter().zip(ends);
        records.map(|(&(start, line, cut), end)| Piece {
            line,
            bytes: self.bytes.get(start..end).unwrap_or_default(),
            cut,
        })
    }

    fn push(&mut self, Piece { line, bytes, cut }: Piece<'_>) {
        self.starts.push((self.bytes.len(), line, cut));
        self.bytes.extend_from_slice(bytes);
    }
}

/// What comes, in order; an error is the last.
pub type Feed = mpsc::Receiver<Result<Chunk, InputError>>;

/// Starts reading.
pub fn start<R: Read + Send + 'static>(
    mut records: Records<BufReader<R>>,
) -> Result<Feed, Failure> {
    let (sender, feed) = mpsc::channel(WAITING);
    let read = move || {
        loop {
            let (chunk, end) = fill(&mut records);
            if !chunk.starts.is_empty() && sender.blocking_send(Ok(chunk)).is_err() {
                return;
            }
            match end {
                Ok(false) => {}
                Ok(true) => return,
                // If nobody listens any more, nobody misses it.
                Err(error) => return drop(sender.blocking_send(Err(error))),
            }
        }
    };
    thread::Builder::new()
        .name("input".into())
        .spawn(read)
        .map_err(|e| Failure::doing("cannot start a thread", e))?;
    Ok(feed)
}

/// A chunk, and whether the input has ended.
fn fill<R: Read>(records: &mut Records<BufReader<R>>) -> (Chunk, Result<bool, InputError>) {
    let mut chunk = Chunk::default();
    loop {
        match records.next() {
            Ok(Some(piece)) => chunk.push(piece),
            Ok(None) => return (chunk, Ok(true)),
            Err(error) => return (chunk, Err(error)),
        }
        let full = chunk.bytes.len() >= CHUNK || chunk.starts.len() >= CHUNK_RECORDS;
        // Without a whole line at hand the next read may take for ever.
        if full || !records.reader().buffer().contains(&b'\n') {
            return (chunk, Ok(false));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Format;

    #[test]
    fn everything_comes_in_order_and_the_error_last() {
        let lines: Vec<String> = (0..60_000).map(|i| format!("line {i}")).collect();
        let input = lines.join("\n") + "\n" + &"x".repeat(200) + "\nafter\n";
        let reader = BufReader::new(std::io::Cursor::new(input.into_bytes()));
        let mut feed = start(Records::new(reader, Format::Lines, 100)).unwrap();
        let mut got = Vec::new();
        let error = loop {
            match feed.blocking_recv().unwrap() {
                Ok(chunk) => {
                    assert!(chunk.bytes.len() < CHUNK + 100);
                    for piece in chunk.records() {
                        assert_eq!(piece.line as usize, got.len() + 1);
                        got.push(String::from_utf8(piece.bytes.to_vec()).unwrap());
                    }
                }
                Err(error) => break error.to_string(),
            }
        };
        assert_eq!(got, lines);
        assert_eq!(error, "line 60001: record of 200 bytes; the server's limit is 100");
        assert!(feed.blocking_recv().is_none());
    }
}
