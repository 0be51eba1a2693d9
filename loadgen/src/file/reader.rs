//! Values out of a table of a workload file, each with the line it stands on.

use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::FileError;
use crate::nearest::nearest;
use crate::units;

/// A value and where it is.
pub type Value<'t> = Spanned<DeValue<'t>>;

/// One table.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'t> {
    /// The file, for messages and for paths in it.
    pub file: &'t Path,
    text: &'t str,
    table: &'t DeTable<'t>,
    /// Where the table begins.
    start: usize,
}

impl<'t> Reader<'t> {
    /// The whole file.
    pub fn new(file: &'t Path, text: &'t str, table: &'t DeTable<'t>) -> Reader<'t> {
        Reader { file, text, table, start: 0 }
    }

    /// A table that is a value, all of whose fields must be among `known`.
    pub fn table(
        &self,
        field: &str,
        value: &'t Value<'t>,
        known: &[&str],
    ) -> Result<Self, FileError> {
        let Some(table) = value.get_ref().as_table() else {
            return Err(self.wrong(field, value, "a table"));
        };
        let inner = Reader { table, start: value.span().start, ..*self };
        inner.check(known)?;
        Ok(inner)
    }

    /// Whether all fields are among `known`.
    pub fn check(&self, known: &[&str]) -> Result<(), FileError> {
        let odd = self.table.iter().find(|(key, _)| !known.contains(&key.get_ref().as_ref()));
        let Some((key, _)) = odd else { return Ok(()) };
        Err(FileError::Unknown {
            file: self.file.to_owned(),
            line: self.line(key.span().start),
            field: key.get_ref().to_string(),
            nearest: nearest(key.get_ref(), known.iter().copied()).map(str::to_owned),
        })
    }

    /// The line of a place in the text.
    pub fn line(&self, at: usize) -> usize {
        self.text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
    }

    /// The line this table begins on.
    pub fn first_line(&self) -> usize {
        self.line(self.start)
    }

    /// A field, if it is there.
    pub fn get(&self, field: &str) -> Option<&'t Value<'t>> {
        let table: &'t DeTable<'t> = self.table;
        table.iter().find(|(key, _)| key.get_ref().as_ref() == field).map(|(_, value)| value)
    }

    /// The error for a value that is not as it must be.
    pub fn wrong(&self, field: &str, value: &Value<'_>, limit: impl Into<String>) -> FileError {
        let shown = self.text.get(value.span()).unwrap_or_default();
        FileError::Field {
            file: self.file.to_owned(),
            line: self.line(value.span().start),
            field: field.to_owned(),
            value: shown.chars().take(80).collect(),
            limit: limit.into(),
        }
    }

    /// The error for a field that must not be there.
    pub fn refused(&self, field: &str, value: &Value<'_>, why: &'static str) -> FileError {
        FileError::Refused {
            file: self.file.to_owned(),
            line: self.line(value.span().start),
            field: field.to_owned(),
            why,
        }
    }

    /// A whole number.
    pub fn count(&self, field: &str, least: u64, most: u64) -> Result<Option<u64>, FileError> {
        self.number(field, format!("a whole number, {least} to {most}"), |value| {
            whole(value).filter(|count| (least..=most).contains(count))
        })
    }

    /// Bytes: a whole number, or text with a unit.
    pub fn bytes(&self, field: &str, least: u64, most: u64) -> Result<Option<u64>, FileError> {
        self.number(field, format!("{}, {least} to {most} bytes", units::SIZE), |value| {
            let bytes = value.as_str().map_or_else(|| whole(value), units::size);
            bytes.filter(|bytes| (least..=most).contains(bytes))
        })
    }

    /// A number above `above` and up to `most`.
    pub fn float(&self, field: &str, above: f64, most: f64) -> Result<Option<f64>, FileError> {
        self.number(field, format!("a number, more than {above} and at most {most}"), |value| {
            decimal(value).filter(|number| *number > above && *number <= most)
        })
    }

    /// A time: a number of `unit` seconds, or text with a unit.
    pub fn time(&self, field: &str, unit: f64) -> Result<Option<Duration>, FileError> {
        self.number(field, format!("{}, up to 366 days", units::TIME), |value| time(value, unit))
    }

    /// Text.
    pub fn text(&self, field: &str) -> Result<Option<&'t str>, FileError> {
        self.number(field, "text".to_owned(), DeValue::as_str)
    }

    /// Yes or no.
    pub fn flag(&self, field: &str) -> Result<Option<bool>, FileError> {
        self.number(field, "true or false".to_owned(), DeValue::as_bool)
    }

    /// What `read` makes of a field.
    pub fn number<T>(
        &self,
        field: &str,
        limit: String,
        read: impl FnOnce(&'t DeValue<'t>) -> Option<T>,
    ) -> Result<Option<T>, FileError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        match read(value.get_ref()) {
            Some(read) => Ok(Some(read)),
            None => Err(self.wrong(field, value, limit)),
        }
    }
}

/// A whole number, not negative.
pub fn whole(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// A number, with a point or without.
pub fn decimal(value: &DeValue<'_>) -> Option<f64> {
    match value.as_float() {
        Some(float) => float.as_str().parse().ok(),
        None => value.as_integer().and_then(|_| whole(value)).map(|whole| whole as f64),
    }
}

/// A time: a number of `unit` seconds, or text with a unit.
pub fn time(value: &DeValue<'_>, unit: f64) -> Option<Duration> {
    let time = match value.as_str() {
        Some(text) => units::time(text)?,
        None => Duration::try_from_secs_f64(decimal(value)? * unit).ok()?,
    };
    (time <= crate::options::MAX_TIME).then_some(time)
}
