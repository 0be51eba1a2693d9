//! What a data directory says of itself: whose it is and in which format, and how its device is written to durably.

use std::io;
use std::path::Path;

use highwater_ring::{Calibration, Files, OsFiles, calibrate};
use serde::{Deserialize, Serialize};

use super::{OpenError, StoreOptions, doing};
use crate::format::FORMAT_VERSION;

/// Names the format version; the first file written, the last to be trusted.
pub(super) const IDENTITY: &str = "highwater.json";

const CALIBRATION: &str = "calibration.txt";

#[derive(Debug, Serialize, Deserialize)]
struct Identity {
    format: u32,
    created_by: String,
}

/// The format version a data directory says it has; `None` if it is not one.
pub(crate) fn read_format(dir: &Path) -> Option<u32> {
    let text = std::fs::read(dir.join(IDENTITY)).ok()?;
    serde_json::from_slice::<Identity>(&text).ok().map(|identity| identity.format)
}

pub(super) fn identify(dir: &Path, files: &OsFiles) -> Result<(), OpenError> {
    let path = dir.join(IDENTITY);
    match std::fs::read(&path) {
        Ok(text) => {
            let identity: Identity = serde_json::from_slice(&text)
                .map_err(|e| OpenError::Identity { file: path.clone(), reason: e.to_string() })?;
            match identity.format {
                FORMAT_VERSION => Ok(()),
                // An older release must not read what is written from here on.
                older if older < FORMAT_VERSION => identify_as_ours(files, &path),
                found => {
                    let (dir, known) = (dir.to_owned(), FORMAT_VERSION);
                    Err(OpenError::NewerFormat { dir, found, known })
                }
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let others = files.list(Path::new("")).map_err(doing("listing the data directory"))?;
            // Hidden files are leavings of a first start that was cut short, or nobody's data.
            let ours = ["LOCK", "lost+found", "highwater.part", CALIBRATION];
            if others.iter().any(|name| !name.starts_with('.') && !ours.contains(&name.as_str())) {
                return Err(OpenError::NotOurs { dir: dir.to_owned() });
            }
            identify_as_ours(files, &path)
        }
        Err(source) => Err(OpenError::Io { doing: format!("reading {}", path.display()), source }),
    }
}

fn identify_as_ours(files: &OsFiles, path: &Path) -> Result<(), OpenError> {
    let identity = Identity {
        format: FORMAT_VERSION,
        created_by: concat!("highwater ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let text = serde_json::to_string_pretty(&identity).unwrap_or_default();
    write_durably(files, path, text.as_bytes())
        .map_err(doing("writing the identity of the directory"))
}

/// A small file beside the data: written, synced, renamed into place.
fn write_durably(files: &OsFiles, path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let part = path.with_extension("part");
    let mut file = std::fs::File::create(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    let relative = |p: &Path| p.strip_prefix(files.root()).unwrap_or(p).to_path_buf();
    files.rename(&relative(&part), &relative(path))
}

/// Measured once per device, and remembered beside the data.
pub(super) fn calibration(dir: &Path, options: &StoreOptions) -> Result<Calibration, OpenError> {
    let path = dir.join(CALIBRATION);
    let remembered =
        std::fs::read_to_string(&path).ok().and_then(|t| Calibration::from_text(&t)).filter(|c| {
            !options.calibrate_again
                && highwater_ring::device_of(dir).is_ok_and(|device| device == c.device)
        });
    if let Some(calibration) = remembered {
        return Ok(calibration);
    }
    let calibration = calibrate(dir)?;
    // Not worth failing for: it would only be measured again.
    let _ = std::fs::write(&path, calibration.to_text());
    Ok(calibration)
}
