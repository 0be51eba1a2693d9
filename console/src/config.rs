//! Settings in layers, for every command alike: what is typed, over the environment, over `highwater.toml`, over
//! the defaults.
//!
//! The layers are made in the command line's own description: an option's environment variable is derived from its
//! command and name, and a value from the file becomes its default. So everything that can be typed can be
//! configured, by the same name, read by the same parser.

mod file;
mod layers;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory as _, FromArgMatches as _};

use crate::cli::Cli;
pub use file::{ConfigError, ConfigFile};
pub use layers::{Origin, Setting};

/// Names the configuration file; empty for none.
const VARIABLE: &str = "HIGHWATER_CONFIG";
/// Its name where it is looked for.
const NAME: &str = "highwater.toml";

/// All layers below what is typed.
#[derive(Debug)]
pub struct Settings {
    command: Command,
    file: Option<ConfigFile>,
}

impl Settings {
    /// Reads the configuration file, if there is one: `--config` among `args`, or the one `HIGHWATER_CONFIG` names,
    /// or the first of `./highwater.toml`, the user's and the system's.
    pub fn load(args: &[OsString]) -> Result<Settings, ConfigError> {
        let command = layers::with_environment(layers::with_negative_numbers(Cli::command()));
        let file = match path(args) {
            Some(path) => Some(ConfigFile::read(&path, &command)?),
            None => None,
        };
        Ok(Settings { command, file })
    }

    /// What was typed, over these. Ends the process for `--help` and wrong usage, as clap does.
    pub fn parse(&self, args: &[OsString]) -> Result<Cli, ConfigError> {
        let command = match &self.file {
            Some(file) => layers::with_file(self.command.clone(), file),
            None => self.command.clone(),
        };
        let command = layers::with_variables(command);
        let parsed =
            command.try_get_matches_from(args).and_then(|matches| Cli::from_arg_matches(&matches));
        parsed.map_err(|error| match layers::variable_at_fault(&self.command, &error) {
            Some(wrong) => wrong,
            None => error.exit(),
        })
    }

    /// Every option of every command below `prefix` (words of a command; empty for all), with what it is now.
    pub fn list(&self, prefix: &[String]) -> Vec<Setting> {
        layers::list(&self.command, self.file.as_ref(), prefix)
    }

    /// The file that was read.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(ConfigFile::path)
    }
}

/// Which file to read. One that is named must be there; one that is only looked for need not.
fn path(args: &[OsString]) -> Option<PathBuf> {
    let named = typed(args).or_else(|| std::env::var_os(VARIABLE));
    match named {
        Some(name) if name.is_empty() => None,
        Some(name) => Some(name.into()),
        None => places().into_iter().find(|path| path.exists()),
    }
}

/// The value of `--config`, which has to be known before anything else can be understood.
fn typed(args: &[OsString]) -> Option<OsString> {
    let mut args = args.iter().skip(1).take_while(|arg| *arg != "--");
    while let Some(arg) = args.next() {
        if arg == "--config" {
            return args.next().cloned();
        }
        if let Some(value) = arg.to_str().and_then(|arg| arg.strip_prefix("--config=")) {
            return Some(value.into());
        }
    }
    None
}

fn places() -> Vec<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
    let mut places = vec![PathBuf::from(NAME)];
    places.extend(user.map(|dir| dir.join("highwater").join(NAME)));
    places.push(Path::new("/etc/highwater").join(NAME));
    places
}

#[cfg(test)]
mod tests;
