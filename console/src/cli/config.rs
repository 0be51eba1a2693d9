//! `highwater config print`, `completions` and `man`: what can be set, what it is set to, and how to learn it.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _, Subcommand};
use clap_complete::Shell;
use clap_mangen::roff::{Roff, bold, roman};
use serde::Serialize;

use super::Cli;
use crate::config::{Origin, Setting, Settings};
use crate::dashboard::keys;
use crate::failure::Failure;
use crate::output;

/// `highwater config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Show every setting and where it comes from; the output is a configuration file
    Print(PrintArgs),
}

#[derive(Debug, Args)]
struct PrintArgs {
    /// Only of this command: load, load run, serve ...
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// `highwater completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// For this shell
    shell: Shell,
}

/// `highwater man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write the page of every command into this directory, instead of the main page to standard output
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Carries out `config`.
pub fn run(args: &ConfigArgs, settings: &Settings) -> Result<(), Failure> {
    let ConfigCommand::Print(args) = &args.command;
    let list = settings.list(&args.command);
    if list.is_empty() {
        let what = format!("no command {:?} with settings", args.command.join(" "));
        return Err(Failure::Usage(what));
    }
    if args.json {
        let rows: Vec<Row<'_>> = list.iter().map(Row::from).collect();
        return output::json(&rows);
    }
    let mut text = match settings.path() {
        Some(path) => format!("# configuration file: {}\n", path.display()),
        None => "# no configuration file\n".to_owned(),
    };
    let mut table = "";
    for setting in &list {
        if setting.command != table {
            table = &setting.command;
            text += &format!("\n[{}]\n", table.replace(' ', "."));
        }
        text += &line(setting, settings);
    }
    output::text(text)
}

#[derive(Serialize)]
struct Row<'a> {
    command: &'a str,
    option: &'a str,
    values: &'a [String],
    /// `default`, `file` or `environment`.
    origin: &'static str,
    /// Table of the file, or name of the variable.
    place: Option<&'a str>,
    default: Option<&'a str>,
    variable: Option<&'a str>,
}

impl<'a> From<&'a Setting> for Row<'a> {
    fn from(s: &'a Setting) -> Row<'a> {
        let (origin, place) = match &s.origin {
            Origin::Default => ("default", None),
            Origin::File(table) => ("file", Some(table.as_str())),
            Origin::Environment(name) => ("environment", Some(name.as_str())),
        };
        Row {
            command: &s.command,
            option: &s.option,
            values: &s.values,
            origin,
            place,
            default: s.default.as_deref(),
            variable: s.variable.as_deref(),
        }
    }
}

/// `rate = "20k"   # file [load.run]`; commented out where nobody has said anything.
fn line(s: &Setting, settings: &Settings) -> String {
    let quoted = |value: &String| toml::Value::String(value.clone()).to_string();
    let value = match &s.values[..] {
        [] if s.flag => "false".to_owned(),
        [] => String::new(),
        [one] if s.flag => one.clone(),
        [one] => quoted(one),
        several => format!("[{}]", several.iter().map(quoted).collect::<Vec<_>>().join(", ")),
    };
    let origin = match &s.origin {
        Origin::Environment(name) => format!("environment {name}"),
        Origin::File(table) => {
            let path = settings.path().map(|p| p.display().to_string()).unwrap_or_default();
            format!("{path} {table}").trim_end().to_owned()
        }
        Origin::Default => match &s.default {
            Some(words) => format!("default: {words}"),
            None if value.is_empty() => "not set".to_owned(),
            None => "default".to_owned(),
        },
    };
    let hash = if s.origin == Origin::Default { "# " } else { "" };
    let setting = format!("{hash}{} = {value}", s.option);
    format!("{:<40} # {origin}\n", setting.trim_end())
}

/// Carries out `completions`.
pub fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "highwater", &mut script);
    output::text(String::from_utf8_lossy(&script))
}

/// Carries out `man`.
pub fn man(args: &ManArgs) -> Result<(), Failure> {
    let command = Cli::command();
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        return output::text(String::from_utf8_lossy(&page));
    };
    let doing = || format!("cannot write manual pages to {}", dir.display());
    std::fs::create_dir_all(dir).map_err(|e| Failure::doing(doing(), e))?;
    clap_mangen::generate_to(command, dir).map_err(|e| Failure::doing(doing(), e))?;
    add_keys(&dir.join("highwater-top.1")).map_err(|e| Failure::doing(doing(), e))
}

/// Puts the dashboard's keys at the end of the page of `top`.
fn add_keys(page: &Path) -> io::Result<()> {
    let mut roff = Roff::new();
    roff.control("SH", ["KEYS"]);
    for (scope, rows) in keys::rows() {
        roff.control("SS", [scope.title()]);
        for (keys, words) in rows {
            roff.control("TP", ["16"]).text([bold(keys)]).text([roman(words)]);
        }
    }
    roff.to_writer(&mut OpenOptions::new().append(true).open(page)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_has_every_key() {
        let dir = tempfile::tempdir().unwrap();
        man(&ManArgs { dir: Some(dir.path().to_owned()) }).unwrap();
        let page = std::fs::read_to_string(dir.path().join("highwater-top.1")).unwrap();
        assert!(page.contains(".SH NAME") && page.contains("\n.SH KEYS\n"), "{page}");
        for (scope, rows) in keys::rows() {
            assert!(page.contains(scope.title()), "{}", scope.title());
            for (keys, words) in rows {
                let mut row = Roff::new();
                row.text([bold(keys)]).text([roman(words)]);
                // What comes first sets up how quotes look.
                let row = row.render();
                let lines = row.lines().skip_while(|line| !line.starts_with("\\fB"));
                let row = lines.collect::<Vec<_>>().join("\n");
                assert!(!row.is_empty() && page.contains(&row), "{row:?} is not in:\n{page}");
            }
        }
    }
}
