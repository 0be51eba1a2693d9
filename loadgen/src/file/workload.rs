//! Workloads in a file: by name, or as a table with a name.

use std::path::{Path, PathBuf};

use highwater_wire::MAX_RECORD_CEILING;

use super::reader::{Reader, Value, decimal};
use super::{FileError, beside};
use crate::proof::PROOF_LEN;
use crate::workload::{Part, Workload};

/// `workload = "iot:500"`, or a table with its name and fields.
pub(super) fn workload(
    f: &Reader<'_>,
    field: &str,
    value: &Value<'_>,
) -> Result<Workload, FileError> {
    let line = f.line(value.span().start);
    let invalid = |error: &dyn std::fmt::Display| FileError::Syntax {
        file: f.file.to_owned(),
        line,
        message: format!("{field}: {error}"),
    };
    if let Some(text) = value.get_ref().as_str() {
        let mut workload: Workload = text.parse().map_err(|error| invalid(&error))?;
        if let Workload::ApacheLog { file: Some(path) } | Workload::Recorded { file: path } =
            &mut workload
        {
            *path = f.file.parent().unwrap_or(Path::new("")).join(&*path);
        }
        return Ok(workload);
    }
    let Some(name) = value.get_ref().get("name").and_then(|name| name.get_ref().as_str()) else {
        return Err(f.wrong(field, value, "a workload's name, or a table with name"));
    };
    let mut workload = match name {
        "recorded" => Workload::Recorded { file: PathBuf::new() },
        name => Workload::named(name).ok_or_else(|| invalid(&Workload::unknown(name)))?,
    };
    let fields = known(&workload).iter().copied();
    let fields: Vec<&str> = fields.filter(|of| field != "workload" || *of != "weight").collect();
    let table = f.table(field, value, &fields)?;
    fill(f, &table, &mut workload, || f.wrong(field, value, "a table with file"))?;
    workload.validate().map_err(|error| invalid(&error))?;
    Ok(workload)
}

/// The fields of a workload's table; one that is a part has a weight as well.
fn known(workload: &Workload) -> &'static [&'static str] {
    match workload {
        Workload::Fixed { .. } => &["name", "weight", "size"],
        Workload::Uniform { .. } => &["name", "weight", "least", "most"],
        Workload::LogNormal { .. } => &["name", "weight", "median", "sigma", "most"],
        Workload::ApacheLog { .. } | Workload::Recorded { .. } => &["name", "weight", "file"],
        Workload::Iot { .. } => &["name", "weight", "devices"],
        Workload::Clickstream { .. } => &["name", "weight", "users"],
        Workload::Video { .. } => &["name", "weight", "cameras"],
        Workload::Mixed { .. } => &["name", "parts"],
    }
}

/// Takes a workload's fields from its table.
fn fill(
    f: &Reader<'_>,
    table: &Reader<'_>,
    workload: &mut Workload,
    no_file: impl FnOnce() -> FileError,
) -> Result<(), FileError> {
    let ceiling = u64::from(MAX_RECORD_CEILING);
    let bytes = |name, place: &mut usize| -> Result<(), FileError> {
        if let Some(bytes) = table.bytes(name, PROOF_LEN as u64, ceiling)? {
            *place = bytes as usize;
        }
        Ok(())
    };
    let count = |name, place: &mut u32| -> Result<(), FileError> {
        if let Some(count) = table.count(name, 1, u64::from(u32::MAX))? {
            *place = count as u32;
        }
        Ok(())
    };
    match workload {
        Workload::Fixed { size } => bytes("size", size)?,
        Workload::Uniform { least, most } => {
            bytes("least", least)?;
            bytes("most", most)?;
        }
        Workload::LogNormal { median, sigma, most } => {
            bytes("median", median)?;
            bytes("most", most)?;
            if let Some(given) = table.float("sigma", 0.0, 5.0)? {
                *sigma = given;
            }
        }
        Workload::ApacheLog { file } => {
            *file = table.text("file")?.map(|path| beside(f.file, path));
        }
        Workload::Recorded { file } => match table.text("file")? {
            Some(path) => *file = beside(f.file, path),
            None => return Err(no_file()),
        },
        Workload::Iot { devices } => count("devices", devices)?,
        Workload::Clickstream { users } => count("users", users)?,
        Workload::Video { cameras } => count("cameras", cameras)?,
        Workload::Mixed { parts } => {
            if let Some(value) = table.get("parts") {
                *parts = self::parts(table, value)?;
            }
        }
    }
    Ok(())
}

/// `[[workload.parts]]`: each a workload with its weight.
fn parts(f: &Reader<'_>, value: &Value<'_>) -> Result<Vec<Part>, FileError> {
    let Some(array) = value.get_ref().as_array() else {
        return Err(f.wrong("parts", value, "an array of tables with name and weight"));
    };
    let part = |value| {
        let workload = workload(f, "part", value)?;
        let weight = match value.get_ref().get("weight") {
            None => 1.0,
            Some(given) => decimal(given.get_ref())
                .filter(|weight| *weight > 0.0 && *weight <= 1e9)
                .ok_or_else(|| f.wrong("weight", given, "a number, more than 0"))?,
        };
        Ok(Part { weight, workload })
    };
    array.iter().map(part).collect()
}
