//! Results on stdout: buffered, and quiet when the reader has gone.

use std::io::{self, BufWriter, Write};

use serde::Serialize;

use crate::failure::Failure;

/// A line on standard error, for people. Nobody has to read it: that it cannot be written ends nothing.
macro_rules! note {
    ($($words:tt)*) => { $crate::output::note(format_args!($($words)*)) };
}

/// See [`note!`].
pub fn note(line: std::fmt::Arguments<'_>) {
    let _nobody_reads = writeln!(io::stderr(), "{line}");
}

/// Large enough that a line costs no system call.
const BUFFER: usize = 256 << 10;

/// Standard output, buffered. Flush it: dropping it hides errors.
pub fn stdout() -> BufWriter<io::Stdout> {
    BufWriter::with_capacity(BUFFER, io::stdout())
}

/// A value as indented JSON and a newline.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let mut out = stdout();
    serde_json::to_writer_pretty(&mut out, value)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// A line.
pub fn line(text: impl std::fmt::Display) -> Result<(), Failure> {
    let mut out = io::stdout();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Rows under headings, columns aligned: text to the left, figures to the right.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        widest.max(head.get(column).map_or(0, |h| h.len()))
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = stdout();
    let head: Vec<String> = head.iter().map(|h| (*h).to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (cell, &width) in row.iter().zip(&widths) {
            let figure = cell.starts_with(|c: char| c.is_ascii_digit());
            line += &if figure { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") };
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(out.flush()?)
}

/// A text of several lines that ends its last one itself.
pub fn text(text: impl std::fmt::Display) -> Result<(), Failure> {
    let mut out = stdout();
    write!(out, "{text}")?;
    Ok(out.flush()?)
}
