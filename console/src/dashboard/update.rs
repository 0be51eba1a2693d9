//! How the model changes: one function, no I/O.

use std::time::Duration;

use crossterm::event::{Event, KeyEvent, KeyEventKind};

use super::keys::{self, Action};
use super::model::{Link, Model};
use super::source::Reading;

/// What can happen.
#[derive(Debug)]
pub enum Msg {
    /// Something from the server.
    Reading(Reading),
    /// Something from the terminal.
    Input(Event),
    /// Time went on.
    Tick,
    /// The dashboard has to end: a signal came, the terminal has gone, or the demo is over.
    Quit,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Nothing: the screen is right as it is.
    Rest,
    /// Draw.
    Draw,
    /// End.
    Quit,
}

/// Changes `model` by what happened `now` (time since the dashboard started).
pub fn update(model: &mut Model, msg: Msg, now: Duration) -> Flow {
    let shown_before = shown_age(model);
    model.now = now;
    match msg {
        Msg::Reading(Reading::Snapshot(snapshot)) => {
            model.take(snapshot);
            Flow::Draw
        }
        Msg::Reading(Reading::Lost { reason }) => {
            model.link = Link::Lost { reason };
            Flow::Draw
        }
        Msg::Input(Event::Key(key)) if key.kind != KeyEventKind::Release => press(model, &key),
        Msg::Input(Event::Resize(..)) => Flow::Draw,
        Msg::Input(_) => Flow::Rest,
        // The age in the header is all that changes by itself, and only when its text does.
        Msg::Tick if shown_age(model) != shown_before => Flow::Draw,
        Msg::Tick => Flow::Rest,
        Msg::Quit => Flow::Quit,
    }
}

fn press(model: &mut Model, key: &KeyEvent) -> Flow {
    let Some(action) = keys::action(key) else { return Flow::Rest };
    match action {
        Action::Leave => return Flow::Quit,
        Action::Quit if !model.help => return Flow::Quit,
        Action::Quit | Action::Help => {
            model.help = !model.help;
            model.scroll = 0;
        }
        Action::Pause => model.toggle_pause(),
        Action::Longer if !model.change_window(true) => return Flow::Rest,
        Action::Shorter if !model.change_window(false) => return Flow::Rest,
        Action::Longer | Action::Shorter => {}
        Action::Up => model.scroll = model.scroll.saturating_sub(1),
        Action::Down => model.scroll = (model.scroll + 1).min(max_scroll(model)),
    }
    Flow::Draw
}

fn max_scroll(model: &Model) -> u16 {
    let lines = match (&model.picture().figures, model.help) {
        (_, true) => keys::KEYS.len() + 16,
        (Some(figures), false) => figures.groups.len().saturating_sub(1),
        (None, false) => 0,
    };
    lines.min(usize::from(u16::MAX)) as u16
}

/// The age as the header shows it: live figures in tenths when they change, stale ones in seconds.
fn shown_age(model: &Model) -> (bool, u64) {
    match model.age() {
        Some(age) if model.stale() => (true, age.as_secs()),
        Some(age) => (false, age.as_millis() as u64 / 500),
        None => (model.stale(), model.now.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::fixture;
    use crossterm::event::{KeyCode, KeyModifiers};

    fn press_char(model: &mut Model, c: char) -> Flow {
        let key = Event::Key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE));
        let now = model.now;
        update(model, Msg::Input(key), now)
    }

    #[test]
    fn quit_closes_the_help_first() {
        let mut model = Model::new("test", false);
        assert_eq!(press_char(&mut model, '?'), Flow::Draw);
        assert!(model.help);
        assert_eq!(press_char(&mut model, 'q'), Flow::Draw);
        assert!(!model.help);
        assert_eq!(press_char(&mut model, 'q'), Flow::Quit);
        assert_eq!(press_char(&mut model, 'x'), Flow::Rest);
    }

    #[test]
    fn nothing_is_drawn_for_nothing() {
        let mut model = Model::new("test", false);
        let second = Duration::from_secs(1);
        let reading = |at| Msg::Reading(Reading::Snapshot(Box::new(fixture::snapshot(at))));
        assert_eq!(update(&mut model, reading(1), second), Flow::Draw);
        let later = second + Duration::from_millis(100);
        assert_eq!(update(&mut model, Msg::Tick, later), Flow::Rest);
        assert_eq!(update(&mut model, Msg::Tick, second + second), Flow::Draw);
        assert_eq!(press_char(&mut model, '-'), Flow::Rest, "no shorter window");
        assert_eq!(press_char(&mut model, '+'), Flow::Draw);
        assert_eq!(update(&mut model, Msg::Quit, later), Flow::Quit);
    }

    #[test]
    fn a_lost_server_is_said_and_scrolling_has_ends() {
        let mut model = Model::new("test", false);
        let lost = Reading::Lost { reason: "refused".into() };
        assert_eq!(update(&mut model, Msg::Reading(lost), Duration::ZERO), Flow::Draw);
        assert!(model.stale());
        press_char(&mut model, 'j');
        press_char(&mut model, 'k');
        press_char(&mut model, 'k');
        assert_eq!(model.scroll, 0);
    }
}
