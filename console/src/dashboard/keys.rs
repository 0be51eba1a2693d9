//! The one table of keys: dispatch, footer and help come from it.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// End the dashboard, or close the help.
    Quit,
    /// End the dashboard, whatever is open.
    Leave,
    /// Open or close the help.
    Help,
    /// Stop the view, or let it go on.
    Pause,
    /// Charts over more time.
    Longer,
    /// Charts over less time.
    Shorter,
    /// Scroll up.
    Up,
    /// Scroll down.
    Down,
}

/// A line of the table.
#[derive(Debug)]
pub struct Binding {
    /// Any of these.
    pub keys: &'static [(KeyCode, KeyModifiers)],
    /// Does this.
    pub action: Action,
    /// In a word, for the footer; empty to leave it out there.
    pub short: &'static str,
    /// For the help.
    pub words: &'static str,
}

const NONE: KeyModifiers = KeyModifiers::NONE;

/// All keys, in the order of the footer and the help.
pub const KEYS: &[Binding] = &[
    Binding {
        keys: &[(KeyCode::Char('?'), NONE), (KeyCode::Char('h'), NONE)],
        action: Action::Help,
        short: "help",
        words: "open or close this help",
    },
    Binding {
        keys: &[(KeyCode::Char(' '), NONE)],
        action: Action::Pause,
        short: "pause",
        words: "stop the view, or let it go on; sampling goes on",
    },
    Binding {
        keys: &[(KeyCode::Char('+'), NONE), (KeyCode::Char('='), NONE)],
        action: Action::Longer,
        short: "longer",
        words: "charts over more time: 1, 5, 15, 60 minutes",
    },
    Binding {
        keys: &[(KeyCode::Char('-'), NONE)],
        action: Action::Shorter,
        short: "shorter",
        words: "charts over less time",
    },
    Binding {
        keys: &[(KeyCode::Up, NONE), (KeyCode::Char('k'), NONE)],
        action: Action::Up,
        short: "",
        words: "scroll the groups, or this help, up",
    },
    Binding {
        keys: &[(KeyCode::Down, NONE), (KeyCode::Char('j'), NONE)],
        action: Action::Down,
        short: "",
        words: "scroll the groups, or this help, down",
    },
    Binding {
        keys: &[(KeyCode::Char('q'), NONE), (KeyCode::Esc, NONE)],
        action: Action::Quit,
        short: "quit",
        words: "quit, or close this help",
    },
    Binding {
        keys: &[(KeyCode::Char('c'), KeyModifiers::CONTROL)],
        action: Action::Leave,
        short: "",
        words: "quit at once",
    },
];

/// What `event` asks for.
pub fn action(event: &KeyEvent) -> Option<Action> {
    // Shift is already in the character: some terminals report it with `+` and `?`, some do not.
    let modifiers = event.modifiers - KeyModifiers::SHIFT;
    KEYS.iter()
        .find(|binding| binding.keys.contains(&(event.code, modifiers)))
        .map(|binding| binding.action)
}

/// The binding's keys as people call them: `q Esc`.
pub fn names(binding: &Binding) -> String {
    binding.keys.iter().map(|&key| name(key)).collect::<Vec<_>>().join(" ")
}

/// A key as people call it.
pub fn name((code, modifiers): (KeyCode, KeyModifiers)) -> String {
    let key = match code {
        KeyCode::Char(' ') => "Space".to_owned(),
        KeyCode::Char(c) if modifiers.contains(KeyModifiers::CONTROL) => {
            c.to_uppercase().to_string()
        }
        KeyCode::Char(c) => c.to_string(),
        other => other.to_string(),
    };
    if modifiers.contains(KeyModifiers::CONTROL) { format!("Ctrl-{key}") } else { key }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_does_two_things() {
        let mut seen = Vec::new();
        for binding in KEYS {
            assert!(!binding.keys.is_empty() && !binding.words.is_empty());
            for key in binding.keys {
                assert!(!seen.contains(key), "{} is bound twice", name(*key));
                seen.push(*key);
                assert_eq!(action(&KeyEvent::new(key.0, key.1)), Some(binding.action));
            }
        }
        assert_eq!(name((KeyCode::Char('c'), KeyModifiers::CONTROL)), "Ctrl-C");
        assert_eq!(name((KeyCode::Char(' '), NONE)), "Space");
    }

    #[test]
    fn shift_is_in_the_character() {
        let plus = KeyEvent::new(KeyCode::Char('+'), KeyModifiers::SHIFT);
        assert_eq!(action(&plus), Some(Action::Longer));
        assert_eq!(action(&KeyEvent::new(KeyCode::Char('c'), NONE)), None);
    }
}
