//! The layers as changes to the command line's description, and what they come to for each option.

use clap::builder::{Resettable, StyledStr};
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Command};

use super::ConfigFile;
use super::file::{ConfigError, Given, check};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// This table of the configuration file.
    File(String),
    /// This environment variable.
    Environment(String),
}

/// One option of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// `load run`.
    pub command: String,
    /// Its name, without the dashes.
    pub option: String,
    /// What it is, as it could be typed; several if it was given several times. Empty: not set.
    pub values: Vec<String>,
    /// Where that comes from.
    pub origin: Origin,
    /// The default in words, if it is no value.
    pub default: Option<String>,
    /// Whether it is on or off and takes no value.
    pub flag: bool,
    /// Its environment variable.
    pub variable: Option<String>,
}

/// Commands that take no settings.
const WITHOUT: [&str; 4] = ["config", "completions", "man", "help"];

/// The words of a command as one name.
pub fn title(words: &[&str]) -> String {
    words.join(" ")
}

/// `command`, at `path`, if it has options, and all commands below, each with its words.
pub fn commands<'a>(command: &'a Command, path: &[&'a str]) -> Vec<(Vec<&'a str>, &'a Command)> {
    if !command.has_subcommands() {
        return vec![(path.to_vec(), command)];
    }
    let below = command.get_subcommands().filter(|c| !WITHOUT.contains(&c.get_name()));
    below
        .flat_map(|below| {
            let mut path = path.to_vec();
            path.push(below.get_name());
            commands(below, &path)
        })
        .collect()
}

/// The options of a command that can be configured.
pub fn options(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| {
        let action = arg.get_action();
        let says_something = matches!(action, ArgAction::Help | ArgAction::HelpShort)
            || matches!(action, ArgAction::HelpLong | ArgAction::Version);
        !says_something && !arg.is_hide_set() && arg.get_long().is_some_and(|long| long != "config")
    })
}

/// Gives every option of every command below `root` an environment variable.
pub fn with_environment(root: Command) -> Command {
    below(root, &mut Vec::new(), &|path, arg| {
        if arg.get_env().is_some() || !configurable(&arg) {
            return arg;
        }
        let long = arg.get_long().unwrap_or_default();
        let words = path.iter().map(String::as_str).chain([long]);
        let name = words.fold("HIGHWATER".to_owned(), |name, word| name + "_" + word);
        // Shown by `config print`, where there is room.
        arg.env(name.replace('-', "_").to_uppercase()).hide_env(true)
    })
}

/// Lets every option have a number below zero for a value: what is wrong with it, its parser says with the limits, and not
/// clap, which would take it for an option.
pub fn with_negative_numbers(root: Command) -> Command {
    below(root, &mut Vec::new(), &|_, arg| match configurable(&arg) {
        true if arg.get_action().takes_values() => arg.allow_negative_numbers(true),
        _ => arg,
    })
}

/// Makes the values of `file` the defaults.
pub fn with_file(root: Command, file: &ConfigFile) -> Command {
    below(root, &mut Vec::new(), &|path, arg| {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let given = arg.get_long().and_then(|long| file.get(&title(&path), long));
        match given {
            Some(given) if configurable(&arg) => default(arg, given),
            _ => arg,
        }
    })
}

/// Makes the values of environment variables the defaults, over those of the file. A variable is there for every
/// command line: it must not demand or forbid options as one that was typed does.
pub fn with_variables(root: Command) -> Command {
    below(root, &mut Vec::new(), &|_, arg| match variable(&arg) {
        Some((_, value)) if configurable(&arg) => {
            let words: Vec<String> = match (arg.get_action(), arg.get_value_delimiter()) {
                (ArgAction::SetTrue, _) => vec![is_on(&value).to_string()],
                (_, Some(between)) => value.split(between).map(str::to_owned).collect(),
                (_, None) => vec![value],
            };
            arg.required(false).env(Resettable::Reset).default_values(words)
        }
        _ => arg,
    })
}

/// Whether a variable of an option without a value turns it on.
fn is_on(value: &str) -> bool {
    let off = ["", "0", "false", "f", "no", "n", "off"];
    !off.iter().any(|word| word.eq_ignore_ascii_case(value))
}

fn configurable(arg: &Arg) -> bool {
    !arg.is_hide_set()
        && arg.get_long().is_some_and(|long| !matches!(long, "help" | "version" | "config"))
}

fn default(arg: Arg, given: &Given) -> Arg {
    let (about, _) = split_default(arg.get_help());
    let value = given.words.join(" ");
    let arg = arg.help(format!("{about} [default: {value}, by {}]", super::NAME));
    let valued = !matches!(arg.get_action(), ArgAction::SetTrue);
    arg.required(false).hide_default_value(valued).default_values(given.words.clone())
}

/// Changes every argument of every command below `root`, whose path is given with it.
fn below(root: Command, path: &mut Vec<String>, change: &dyn Fn(&[String], Arg) -> Arg) -> Command {
    let names: Vec<String> = root.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    if names.is_empty() {
        return root.mut_args(|arg| change(path, arg));
    }
    names.into_iter().filter(|name| !WITHOUT.contains(&name.as_str())).fold(root, |root, name| {
        root.mut_subcommand(&name, |command| {
            path.push(name.clone());
            let command = below(command, path, change);
            path.pop();
            command
        })
    })
}

/// The environment variable that made parsing fail, if it was one.
pub fn variable_at_fault(root: &Command, error: &clap::Error) -> Option<ConfigError> {
    let value = match error.get(ContextKind::InvalidValue)? {
        ContextValue::String(value) => value,
        _ => return None,
    };
    for (_, command) in commands(root, &[]) {
        for arg in options(command) {
            let Some((name, set)) = variable(arg) else { continue };
            if set == *value
                && let Err(reason) = check(arg, &[set])
            {
                return Some(ConfigError::Value {
                    place: format!("environment variable {name}"),
                    reason,
                });
            }
        }
    }
    None
}

/// An option's environment variable, if it is set.
fn variable(arg: &Arg) -> Option<(String, String)> {
    let name = arg.get_env()?.to_str()?;
    Some((name.to_owned(), std::env::var(name).ok()?))
}

/// What every option of every command whose words begin with `prefix` is.
pub fn list(root: &Command, file: Option<&ConfigFile>, prefix: &[String]) -> Vec<Setting> {
    let mut settings = Vec::new();
    for (words, command) in commands(root, &[]) {
        if words.len() < prefix.len() || !words.iter().zip(prefix).all(|(word, p)| word == p) {
            continue;
        }
        settings.extend(options(command).map(|arg| setting(&title(&words), arg, file)));
    }
    settings
}

fn setting(command: &str, arg: &Arg, file: Option<&ConfigFile>) -> Setting {
    let option = arg.get_long().unwrap_or_default().to_owned();
    let flag = matches!(arg.get_action(), ArgAction::SetTrue);
    let (_, words) = split_default(arg.get_help());
    let (values, origin) = if let Some((name, value)) = variable(arg) {
        (vec![value], Origin::Environment(name))
    } else if let Some(given) = file.and_then(|file| file.get(command, &option)) {
        (given.words.clone(), Origin::File(given.table.clone()))
    } else {
        let values = arg.get_default_values().iter().map(|v| v.to_string_lossy().into_owned());
        (values.collect(), Origin::Default)
    };
    let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned());
    Setting { command: command.to_owned(), option, values, origin, default: words, flag, variable }
}

/// An option's help without the default in words at its end, and that.
fn split_default(help: Option<&StyledStr>) -> (String, Option<String>) {
    let text = help.map(ToString::to_string).unwrap_or_default();
    let split = text.rsplit_once(" [default: ").and_then(|(about, default)| {
        Some((about.to_owned(), Some(default.strip_suffix(']')?.to_owned())))
    });
    split.unwrap_or((text, None))
}
