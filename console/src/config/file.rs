//! `highwater.toml`: tables named like commands, keys named like options.
//!
//! A key in the table of a command that has subcommands, or at the top, goes for all commands below that have such
//! an option; the nearest one counts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command};
use toml::{Table, Value};

use super::layers::{commands, options, title};

/// Why settings cannot be used. Wrong usage, all of it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML.
    #[error("configuration {}: {}", path.display(), source.to_string().trim_end())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A table or key that no command has.
    #[error("configuration {}: no command has {name}{}", path.display(), nearest(near))]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The table or key, with its table.
        name: String,
        /// The nearest name that is known there.
        near: Option<String>,
    },
    /// A value that the option does not take.
    #[error("{place}: {reason}")]
    Value {
        /// File and key, or environment variable.
        place: String,
        /// What the option says of it.
        reason: String,
    },
}

fn nearest(near: &Option<String>) -> String {
    near.as_ref().map_or(String::new(), |near| format!("; did you mean {near}?"))
}

/// A value for an option, as words that could have been typed, and the table it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// One per occurrence.
    pub words: Vec<String>,
    /// The table: `[load.run]`; empty at the top.
    pub table: String,
}

/// A configuration file, every value checked.
#[derive(Debug)]
pub struct ConfigFile {
    path: PathBuf,
    /// By command (`load run`) and option.
    given: BTreeMap<(String, String), Given>,
}

impl ConfigFile {
    /// Reads and checks it against what `root` and its subcommands take.
    pub fn read(path: &Path, root: &Command) -> Result<ConfigFile, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        ConfigFile::parse(path, &text, root)
    }

    /// Checks the text of one.
    pub fn parse(path: &Path, text: &str, root: &Command) -> Result<ConfigFile, ConfigError> {
        let table: Table = text.parse().map_err(|source| ConfigError::Syntax {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        let mut file = ConfigFile { path: path.to_owned(), given: BTreeMap::new() };
        file.take(&table, root, &mut Vec::new())?;
        Ok(file)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says about an option.
    pub fn get(&self, command: &str, option: &str) -> Option<&Given> {
        self.given.get(&(command.to_owned(), option.to_owned()))
    }

    /// Takes in the table of `command`. Keys first: what stands in a table further down overrides them.
    fn take<'a>(
        &mut self,
        table: &Table,
        command: &'a Command,
        path: &mut Vec<&'a str>,
    ) -> Result<(), ConfigError> {
        for (key, value) in table.iter().filter(|(_, value)| !value.is_table()) {
            self.key(key, value, command, path)?;
        }
        for (key, value) in table {
            let Value::Table(inner) = value else { continue };
            let Some(below) = command.find_subcommand(key).filter(|c| c.get_name() == key) else {
                let known = command.get_subcommands().map(Command::get_name);
                return Err(self.unknown(path, key, known));
            };
            path.push(below.get_name());
            self.take(inner, below, path)?;
            path.pop();
        }
        Ok(())
    }

    fn key(
        &mut self,
        key: &str,
        value: &Value,
        command: &Command,
        path: &[&str],
    ) -> Result<(), ConfigError> {
        let table = if path.is_empty() { String::new() } else { format!("[{}]", path.join(".")) };
        let below = commands(command, path);
        let mut known = false;
        for (words, command) in &below {
            let Some(arg) = options(command).find(|arg| arg.get_long() == Some(key)) else {
                continue;
            };
            known = true;
            let words_given = self.words(&table, key, value, arg)?;
            let given = Given { words: words_given, table: table.clone() };
            self.given.insert((title(words), key.to_owned()), given);
        }
        if known {
            return Ok(());
        }
        let names =
            below.iter().flat_map(|(_, command)| options(command)).filter_map(Arg::get_long);
        Err(self.unknown(path, key, names))
    }

    /// A value as it would be typed, accepted by the option's own parser.
    fn words(
        &self,
        table: &str,
        key: &str,
        value: &Value,
        arg: &Arg,
    ) -> Result<Vec<String>, ConfigError> {
        let wrong = |reason: String| ConfigError::Value {
            place: format!("configuration {}: {table} {key}", self.path.display())
                .replace("  ", " "),
            reason,
        };
        let word = |value: &Value| match value {
            Value::String(text) => Ok(text.clone()),
            Value::Integer(number) => Ok(number.to_string()),
            Value::Float(number) => Ok(number.to_string()),
            Value::Boolean(set) => Ok(set.to_string()),
            Value::Datetime(time) => Ok(time.to_string()),
            Value::Array(_) | Value::Table(_) => Err(wrong("one value is wanted".to_owned())),
        };
        let words = match (value, arg.get_action()) {
            (Value::Array(values), ArgAction::Append) => {
                values.iter().map(word).collect::<Result<Vec<_>, _>>()?
            }
            (value, _) => vec![word(value)?],
        };
        check(arg, &words).map_err(wrong)?;
        Ok(words)
    }

    fn unknown<'a>(
        &self,
        path: &[&str],
        key: &str,
        known: impl Iterator<Item = &'a str>,
    ) -> ConfigError {
        let likeness = |name: &str| strsim::jaro_winkler(name, key);
        let near = known
            .filter(|name| likeness(name) > 0.7)
            .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
            .map(str::to_owned);
        let mut name = path.to_vec();
        name.push(key);
        ConfigError::Unknown { path: self.path.clone(), name: name.join("."), near }
    }
}

/// Whether an option takes these words; else why not, in its parser's words.
pub fn check(arg: &Arg, words: &[String]) -> Result<(), String> {
    let long = arg.get_long().unwrap_or_default();
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        let boolean = |word: &String| matches!(word.as_str(), "true" | "false");
        return words.iter().all(boolean).then_some(()).ok_or("true or false is wanted".to_owned());
    }
    // The option alone: what it demands of others is judged when a command is given.
    let mut alone = Arg::new("value").long(long.to_owned()).allow_hyphen_values(true);
    if let Some(names) = arg.get_value_names() {
        alone = alone.value_names(names.to_vec());
    }
    alone = alone.action(arg.get_action().clone()).value_parser(arg.get_value_parser().clone());
    let typed = words.iter().map(|word| format!("--{long}={word}"));
    let command = Command::new("highwater").no_binary_name(true).arg(alone);
    match command.try_get_matches_from(typed) {
        Ok(_) => Ok(()),
        Err(error) => Err(plain(&error)),
    }
}

/// What clap says, in a line: without its title, usage and hints.
fn plain(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    let mut said: Vec<&str> = lines.collect();
    if let Some(first) = said.first_mut() {
        *first = first.strip_prefix("error: ").unwrap_or(first);
    }
    said.join(" ")
}
