//! What is worth a look, said in words: a short table of rules over what was measured. Each has a name, a
//! threshold, a usual cause and a remedy; `docs/operating.md` has the same table.

mod rules;

use super::model::Picture;

/// How much it matters; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something is lost or stopped, or will be.
    Bad,
    /// Something is not as it should be.
    Warn,
    /// Good to know.
    Info,
}

impl Level {
    /// In front of the words, so that nothing is told by colour alone.
    pub fn mark(self) -> &'static str {
        match self {
            Level::Bad => "!!",
            Level::Warn => "! ",
            Level::Info => "i ",
        }
    }

    /// In machine-readable output.
    pub fn name(self) -> &'static str {
        match self {
            Level::Bad => "bad",
            Level::Warn => "warn",
            Level::Info => "info",
        }
    }
}

/// A rule.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// What it is called; stable.
    pub name: &'static str,
    /// How much it matters.
    pub level: Level,
    /// When it fires.
    pub threshold: &'static str,
    /// What it usually comes from.
    pub cause: &'static str,
    /// What to do.
    pub remedy: &'static str,
    /// What it has to say: nothing unless it fires.
    test: fn(&Picture) -> Vec<String>,
}

/// A thing worth a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The rule's name.
    pub rule: &'static str,
    /// How much it matters.
    pub level: Level,
    /// What it is.
    pub text: String,
}

/// All rules, in the order they are documented.
pub use rules::RULES;

/// The rule of this name.
pub fn rule(name: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.name == name)
}

/// How the server's own warning of a volatile file system begins.
const NOT_DURABLE: &str = "NOT DURABLE";

/// Why nothing is durable: the server's own words, which name the file system, or else how it writes.
pub fn volatile(warnings: &[String], durability: &str) -> String {
    let told = warnings.iter().find(|warning| warning.starts_with(NOT_DURABLE));
    told.cloned().unwrap_or_else(|| format!("{NOT_DURABLE}: {durability}"))
}

/// What is worth a look in `picture`, the worst first.
pub fn notices(picture: &Picture) -> Vec<Notice> {
    let of = |rule: &'static Rule| {
        let notice = |text| Notice { rule: rule.name, level: rule.level, text };
        (rule.test)(picture).into_iter().map(notice)
    };
    let mut all: Vec<Notice> = RULES.iter().flat_map(of).collect();
    all.sort_by_key(|notice| notice.level);
    all
}

/// Whether nothing is wrong: what is good to know does not count.
pub fn healthy(notices: &[Notice]) -> bool {
    notices.iter().all(|notice| notice.level == Level::Info)
}

#[cfg(test)]
mod tests;
