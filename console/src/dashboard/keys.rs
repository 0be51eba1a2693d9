//! The one table of keys: dispatch, footer, help and manual come from it.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::app::Screen;

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// End the dashboard; within the help, close it.
    Quit,
    /// End the dashboard, whatever is open.
    Leave,
    /// Close what was opened last.
    Back,
    /// Open or close the help.
    Help,
    /// Another screen.
    Go(Screen),
    /// The screen before.
    LastScreen,
    /// The keys go to the next panel.
    NextPanel,
    /// The keys go to the panel before.
    PreviousPanel,
    /// One panel takes the whole screen, or gives it back.
    Expand,
    /// Stop the view, or let it go on.
    Pause,
    /// Charts over more time.
    Longer,
    /// Charts over less time.
    Shorter,
    /// Charts over the usual time.
    UsualWindow,
    /// A sample back.
    StepBack,
    /// A sample on.
    StepOn,
    /// A minute back.
    MinuteBack,
    /// A minute on.
    MinuteOn,
    /// To the oldest sample there is.
    Oldest,
    /// To the newest.
    Newest,
    /// Mark the sample shown.
    Mark,
    /// To the next mark.
    NextMark,
    /// To the next Watch event.
    NextEvent,
    /// To the one before.
    PreviousEvent,
    /// Play a recording more slowly.
    Slower,
    /// Play it faster.
    Faster,
    /// Up in a list.
    Up,
    /// Down in a list.
    Down,
    /// A page up.
    PageUp,
    /// A page down.
    PageDown,
    /// To the top of a list.
    Top,
    /// To its end.
    Bottom,
    /// Look into what is selected.
    Open,
    /// Sort by the next column.
    Sort,
    /// The other way round.
    Reverse,
    /// Type a filter.
    Filter,
    /// The shard before.
    PreviousShard,
    /// The next shard.
    NextShard,
    /// Other colours.
    NextPalette,
    /// Draw everything anew.
    Redraw,
    /// Keep what was typed.
    Accept,
    /// Forget what was typed.
    Discard,
    /// Take a character back.
    Erase,
}

/// Where a key is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// On all screens.
    Everywhere,
    /// Where there is a list.
    Lists,
    /// On the screen of streams.
    Streams,
    /// In time: of a recording, or back in a live session.
    Time,
    /// While a recording is played.
    Replay,
    /// While a filter is typed; nothing else is then.
    Typing,
}

impl Scope {
    /// All of them, as the help lists them.
    pub const ALL: [Scope; 6] = [
        Scope::Everywhere,
        Scope::Lists,
        Scope::Streams,
        Scope::Time,
        Scope::Replay,
        Scope::Typing,
    ];

    /// Heading in the help and the manual.
    pub fn title(self) -> &'static str {
        match self {
            Scope::Everywhere => "Everywhere",
            Scope::Lists => "In a list",
            Scope::Streams => "On Streams",
            Scope::Time => "In time",
            Scope::Replay => "In a replay",
            Scope::Typing => "While a filter is typed",
        }
    }
}

/// A key with its modifiers.
type Key = (KeyCode, KeyModifiers);

/// A line of the table.
#[derive(Debug)]
pub struct Binding {
    /// Where.
    pub scope: Scope,
    /// Any of these.
    pub keys: &'static [Key],
    /// Does this.
    pub action: Action,
    /// In a word, for the footer; empty to leave it out there.
    pub short: &'static str,
    /// For the help.
    pub words: &'static str,
}

const NONE: KeyModifiers = KeyModifiers::NONE;
const SHIFT: KeyModifiers = KeyModifiers::SHIFT;
const CTRL: KeyModifiers = KeyModifiers::CONTROL;

const fn char(c: char) -> Key {
    (KeyCode::Char(c), NONE)
}

const fn code(code: KeyCode) -> Key {
    (code, NONE)
}

const fn bind(
    scope: Scope,
    keys: &'static [Key],
    action: Action,
    short: &'static str,
    words: &'static str,
) -> Binding {
    Binding { scope, keys, action, short, words }
}

/// All keys, in the order of the footer and the help.
#[rustfmt::skip]
pub const KEYS: &[Binding] = { use Scope::*; &[
    bind(Everywhere, &[char('?')], Action::Help, "help", "open or close this help"),
    bind(Everywhere, &[char('1')], Action::Go(Screen::Overview), "", "Overview"),
    bind(Everywhere, &[char('2')], Action::Go(Screen::Shards), "", "Shards and cores"),
    bind(Everywhere, &[char('3')], Action::Go(Screen::Latency), "", "Latency"),
    bind(Everywhere, &[char('4')], Action::Go(Screen::Backlog), "", "Backlog"),
    bind(Everywhere, &[char('5')], Action::Go(Screen::Load), "", "Load"),
    bind(Everywhere, &[char('6')], Action::Go(Screen::Streams), "", "Streams"),
    bind(Everywhere, &[char('`')], Action::LastScreen, "", "the screen before"),
    bind(Everywhere, &[char(' ')], Action::Pause, "pause", "stop the view, or let it go on; sampling goes on"),
    bind(Everywhere, &[char('+'), char('=')], Action::Longer, "window", "charts over more time: 10s, 1m, 5m, 1h"),
    bind(Everywhere, &[char('-')], Action::Shorter, "", "charts over less time"),
    bind(Everywhere, &[char('0')], Action::UsualWindow, "", "charts over the usual time"),
    bind(Lists, &[char('/')], Action::Filter, "filter", "show only what contains a word"),
    bind(Lists, &[char('o')], Action::Sort, "sort", "sort by the next column"),
    bind(Lists, &[char('O')], Action::Reverse, "", "sort the other way round"),
    bind(Lists, &[code(KeyCode::Enter)], Action::Open, "open", "look into what is selected"),
    bind(Everywhere, &[code(KeyCode::Tab)], Action::NextPanel, "panel", "the keys go to the next panel"),
    bind(Everywhere, &[code(KeyCode::BackTab)], Action::PreviousPanel, "", "to the panel before"),
    bind(Everywhere, &[char('e')], Action::Expand, "expand", "the panel takes the whole screen, or gives it back"),
    bind(Everywhere, &[char('t')], Action::NextPalette, "", "other colours: ansi, dark, light, safe"),
    bind(Everywhere, &[code(KeyCode::Esc)], Action::Back, "", "close what was opened last: help, filter, panel, record"),
    bind(Everywhere, &[char('q')], Action::Quit, "quit", "quit, or close the help"),
    bind(Everywhere, &[(KeyCode::Char('c'), CTRL)], Action::Leave, "", "quit at once"),
    bind(Everywhere, &[(KeyCode::Char('l'), CTRL)], Action::Redraw, "", "draw everything anew"),
    bind(Lists, &[code(KeyCode::Up), char('k')], Action::Up, "", "up"),
    bind(Lists, &[code(KeyCode::Down), char('j')], Action::Down, "", "down"),
    bind(Lists, &[code(KeyCode::PageUp), (KeyCode::Char('u'), CTRL)], Action::PageUp, "", "a page up"),
    bind(Lists, &[code(KeyCode::PageDown), (KeyCode::Char('d'), CTRL)], Action::PageDown, "", "a page down"),
    bind(Lists, &[code(KeyCode::Home), char('g')], Action::Top, "", "to the top"),
    bind(Lists, &[code(KeyCode::End), char('G')], Action::Bottom, "", "to the end"),
    bind(Streams, &[char('[')], Action::PreviousShard, "", "the shard before"),
    bind(Streams, &[char(']')], Action::NextShard, "shard", "the next shard"),
    bind(Time, &[code(KeyCode::Left), char('h')], Action::StepBack, "scrub", "a sample back"),
    bind(Time, &[code(KeyCode::Right), char('l')], Action::StepOn, "", "a sample on"),
    bind(Time, &[(KeyCode::Left, SHIFT), char('H')], Action::MinuteBack, "", "a minute back"),
    bind(Time, &[(KeyCode::Right, SHIFT), char('L')], Action::MinuteOn, "", "a minute on"),
    bind(Time, &[char('{')], Action::Oldest, "", "to the oldest sample"),
    bind(Time, &[char('}')], Action::Newest, "", "to the newest sample"),
    bind(Time, &[char('m')], Action::Mark, "", "mark the sample shown, or unmark it"),
    bind(Time, &[char('\'')], Action::NextMark, "", "to the next mark, round and round"),
    bind(Time, &[char('n')], Action::NextEvent, "event", "to the next sample at which a rule of Watch begins to fire"),
    bind(Time, &[char('N')], Action::PreviousEvent, "", "to the one before, of those seen"),
    bind(Replay, &[char('>'), char('.')], Action::Faster, "speed", "play faster, up to 300 times"),
    bind(Replay, &[char('<'), char(',')], Action::Slower, "", "play more slowly"),
    bind(Typing, &[code(KeyCode::Enter)], Action::Accept, "keep", "keep the filter"),
    bind(Typing, &[code(KeyCode::Esc)], Action::Discard, "discard", "forget it"),
    bind(Typing, &[code(KeyCode::Backspace)], Action::Erase, "", "take a character back"),
    bind(Typing, &[(KeyCode::Char('c'), CTRL)], Action::Leave, "", "quit at once"),
]};

/// What `event` asks for where these scopes apply; the first that knows it decides.
pub fn action(event: &KeyEvent, scopes: &[Scope]) -> Option<Action> {
    // Shift is already in a character: some terminals report it with `+` and `?`, some do not.
    let modifiers = match event.code {
        KeyCode::Char(_) | KeyCode::BackTab => event.modifiers - SHIFT,
        _ => event.modifiers,
    };
    let key = (event.code, modifiers);
    scopes.iter().find_map(|scope| {
        KEYS.iter().find(|b| b.scope == *scope && b.keys.contains(&key)).map(|b| b.action)
    })
}

/// The binding's keys as people call them: `Up k`.
pub fn names(binding: &Binding) -> String {
    binding.keys.iter().map(|&key| name(key)).collect::<Vec<_>>().join(" ")
}

/// A key as people call it.
pub fn name((code, modifiers): Key) -> String {
    let key = match code {
        KeyCode::Char(' ') => "Space".to_owned(),
        KeyCode::Char(c) if modifiers.contains(CTRL) => c.to_uppercase().to_string(),
        KeyCode::Char(c) => c.to_string(),
        KeyCode::PageUp => "PgUp".to_owned(),
        KeyCode::PageDown => "PgDn".to_owned(),
        KeyCode::BackTab => "Shift-Tab".to_owned(),
        other => other.to_string(),
    };
    if modifiers.contains(CTRL) {
        format!("Ctrl-{key}")
    } else if modifiers.contains(SHIFT) {
        format!("Shift-{key}")
    } else {
        key
    }
}

/// Keys and what they do, by scope: for the help and the manual.
pub fn rows() -> impl Iterator<Item = (Scope, Vec<(String, &'static str)>)> {
    Scope::ALL.into_iter().map(|scope| {
        let of_scope = KEYS.iter().filter(move |binding| binding.scope == scope);
        (scope, of_scope.map(|binding| (names(binding), binding.words)).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::Scope::{Everywhere, Lists, Replay, Streams, Time, Typing};
    use super::*;

    #[test]
    fn no_key_does_two_things_where_both_are_understood() {
        let usual = [Everywhere, Lists, Streams, Time, Replay];
        for scopes in [&usual[..], &[Typing]] {
            let mut seen = Vec::new();
            for binding in KEYS.iter().filter(|b| scopes.contains(&b.scope)) {
                assert!(!binding.keys.is_empty() && !binding.words.is_empty());
                for key in binding.keys {
                    assert!(!seen.contains(key), "{} is bound twice", name(*key));
                    seen.push(*key);
                    assert_eq!(action(&KeyEvent::new(key.0, key.1), scopes), Some(binding.action));
                }
            }
        }
        assert_eq!(rows().map(|(_, rows)| rows.len()).sum::<usize>(), KEYS.len());
    }

    #[test]
    fn keys_have_names() {
        assert_eq!(name((KeyCode::Char('c'), CTRL)), "Ctrl-C");
        assert_eq!(name(char(' ')), "Space");
        assert_eq!(name((KeyCode::Left, SHIFT)), "Shift-Left");
        assert_eq!(name(code(KeyCode::PageDown)), "PgDn");
    }

    #[test]
    fn shift_is_in_the_character() {
        let pressed =
            |code, modifiers| action(&KeyEvent::new(code, modifiers), &[Everywhere, Time]);
        assert_eq!(pressed(KeyCode::Char('+'), SHIFT), Some(Action::Longer));
        assert_eq!(pressed(KeyCode::BackTab, SHIFT), Some(Action::PreviousPanel));
        assert_eq!(pressed(KeyCode::Left, SHIFT), Some(Action::MinuteBack));
        assert_eq!(pressed(KeyCode::Char('c'), NONE), None);
        assert_eq!(pressed(KeyCode::Enter, NONE), None, "no list, nothing to open");
    }
}
