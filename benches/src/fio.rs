//! fio's io_uring engine on a written file: what the file system gives.

use std::path::{Path, PathBuf};
use std::process::Command;

/// fio over one file that was written before.
pub struct Fio {
    file: PathBuf,
}

type Failure = Box<dyn std::error::Error>;

impl Fio {
    /// Writes the file: 1 GiB.
    pub fn prepare(dir: &Path) -> Result<Fio, Failure> {
        let fio = Fio { file: dir.join("fio.dat") };
        fio.run(&["--bs=1m", "--iodepth=4", "--size=1g"])?;
        Ok(fio)
    }

    /// 256 KiB durable writes at depth 4: bytes per second.
    pub fn bandwidth(&self, seconds: u64) -> Result<f64, Failure> {
        let runtime = format!("--runtime={seconds}");
        let args =
            ["--bs=256k", "--iodepth=4", "--sync=dsync", "--size=1g", "--time_based", &runtime];
        number(&self.run(&args)?, &["bw_bytes"])
    }

    /// 4 KiB durable writes at depth 1: median of the whole latency (submission included), microseconds.
    pub fn latency(&self, seconds: u64) -> Result<f64, Failure> {
        let runtime = format!("--runtime={seconds}");
        let args = [
            "--bs=4k",
            "--iodepth=1",
            "--sync=dsync",
            "--size=1g",
            "--time_based",
            "--lat_percentiles=1",
            &runtime,
        ];
        Ok(number(&self.run(&args)?, &["lat_ns", "percentile", "50.000000"])? / 1e3)
    }

    /// 1 MiB reads at depth 4, from end to end: bytes per second.
    pub fn reading(&self, seconds: u64) -> Result<f64, Failure> {
        let runtime = format!("--runtime={seconds}");
        let args = ["--rw=read", "--bs=1m", "--iodepth=4", "--size=1g", "--time_based", &runtime];
        of(&self.run(&args)?, "read", &["bw_bytes"])
    }

    fn run(&self, args: &[&str]) -> Result<serde_json::Value, Failure> {
        let out = Command::new("fio")
            .args(["--name=w", "--rw=write", "--ioengine=io_uring", "--direct=1", "--overwrite=1"])
            .args(["--output-format=json", "--registerfiles=1", "--fixedbufs=1"])
            .arg(format!("--filename={}", self.file.display()))
            .args(args)
            .output()
            .map_err(|e| format!("fio could not be run ({e}); install it, or use --engine-only"))?;
        if !out.status.success() {
            return Err(format!("fio failed: {}", String::from_utf8_lossy(&out.stderr)).into());
        }
        Ok(serde_json::from_slice(&out.stdout)?)
    }
}

fn number(json: &serde_json::Value, path: &[&str]) -> Result<f64, Failure> {
    of(json, "write", path)
}

fn of(json: &serde_json::Value, what: &str, path: &[&str]) -> Result<f64, Failure> {
    let job = &json["jobs"][0][what];
    let found = path.iter().fold(job, |value, key| &value[*key]);
    found.as_f64().ok_or_else(|| format!("fio's output has no {}", path.join(".")).into())
}
