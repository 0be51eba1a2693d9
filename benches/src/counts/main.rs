//! How many instructions the parts of the engine take that decide its speed, counted by Callgrind and held against
//! the figures in `benches/counts.toml`. Unlike times they hardly depend on the machine or on what else it does.
//!
//! `benches/counts.sh` builds and calls it. Each scene is a process of its own, under Valgrind, which counts only
//! what lies within a function found by its name; the disk is one in memory.

mod disk;
mod scenes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;
use scenes::{SCENES, Scene};
use serde::{Deserialize, Serialize};

type Failure = Box<dyn std::error::Error>;

/// Instructions of the engine's parts, held against what they were.
#[derive(Parser)]
struct Args {
    /// The figures they are held against
    #[arg(long, value_name = "FILE", default_value = "benches/counts.toml")]
    baselines: PathBuf,
    /// Write what was counted there, as what is expected from now on
    #[arg(long)]
    write: bool,
    /// Only scenes whose name contains this
    #[arg(default_value = "")]
    filter: String,
    /// Play one scene, as under Valgrind
    #[arg(long, value_name = "SCENE", hide = true)]
    play: Option<String>,
}

/// What is expected.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Baselines {
    /// More than this above what was counted before is a failure, in percent.
    bound: f64,
    /// With which compiler they were counted: another one makes other instructions.
    rustc: String,
    /// Instructions for each unit, by scene.
    instructions: BTreeMap<String, f64>,
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    if let Some(name) = &args.play {
        let scene = SCENES.iter().find(|scene| scene.name == name).ok_or("no such scene")?;
        println!("{}", (scene.play)()?);
        return Ok(());
    }
    let mut expected: Baselines = match std::fs::read_to_string(&args.baselines) {
        Ok(text) => toml::from_str(&text)?,
        Err(error) if args.write && error.kind() == std::io::ErrorKind::NotFound => {
            Baselines { bound: 5.0, ..Baselines::default() }
        }
        Err(error) => return Err(format!("{}: {error}", args.baselines.display()).into()),
    };
    let rustc = compiler()?;
    if !args.write && rustc != expected.rustc {
        println!("counted with {rustc}; what is expected was counted with {}", expected.rustc);
    }
    println!("{:<12} {:>14} {:>10}   scene", "", "instructions", "expected");
    let mut failed = Vec::new();
    for scene in SCENES.iter().filter(|scene| scene.name.contains(&args.filter)) {
        let counted = count(scene)?;
        let before = expected.instructions.get(scene.name).copied();
        let change = before.map(|before| (counted / before - 1.0) * 100.0);
        println!(
            "{:<12} {counted:>14.1} {:>10}   {}, for each {}",
            scene.name,
            change.map_or("new".to_owned(), |change| format!("{change:+.1} %")),
            scene.what,
            scene.unit,
        );
        if args.write {
            expected.instructions.insert(scene.name.to_owned(), (counted * 10.0).round() / 10.0);
        } else if change.is_none_or(|change| change > expected.bound) {
            failed.push(scene.name);
        }
    }
    if args.write {
        expected.rustc = rustc;
        std::fs::write(&args.baselines, text(&expected)?)?;
        return Ok(());
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "more than {} % above {}, or not in it: {}; if that is meant, --write it",
            expected.bound,
            args.baselines.display(),
            failed.join(", ")
        )
        .into()),
    }
}

fn text(expected: &Baselines) -> Result<String, Failure> {
    let about = "# Instructions of the engine's parts, held against what is counted by benches/counts.sh, which also writes this file\n\
                 # (--write). Release build, Callgrind; `bound` is how many percent more are a failure.\n";
    Ok(format!("{about}{}", toml::to_string(expected)?))
}

fn compiler() -> Result<String, Failure> {
    let said = Command::new("rustc").arg("--version").output()?;
    Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

/// Plays a scene under Callgrind: instructions for each unit.
fn count(scene: &Scene) -> Result<f64, Failure> {
    let dir = tempfile::tempdir()?;
    let out = dir.path().join("out");
    let played = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--quiet",
            "--collect-atstart=no",
            "--toggle-collect=*measured_part*",
        ])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args(["--play", scene.name])
        .output()
        .map_err(|error| format!("valgrind cannot be run ({error}); apt-get install valgrind"))?;
    if !played.status.success() {
        let said = String::from_utf8_lossy(&played.stderr);
        return Err(format!("{} failed ({}): {said}", scene.name, played.status).into());
    }
    let units: u64 = String::from_utf8_lossy(&played.stdout).trim().parse()?;
    let instructions = total(&out)?;
    match (units, instructions) {
        (0, _) | (_, 0) => Err(format!("{}: nothing was counted", scene.name).into()),
        (units, instructions) => Ok(instructions as f64 / units as f64),
    }
}

/// The sum in a file of Callgrind's.
fn total(file: &Path) -> Result<u64, Failure> {
    let text = std::fs::read_to_string(file)?;
    let sum = text.lines().find_map(|line| line.strip_prefix("totals:"));
    Ok(sum.ok_or("Callgrind's file has no totals")?.trim().parse()?)
}
