//! How the state changes: one function, no I/O.

use std::time::Duration;

use crossterm::event::{
    Event, KeyCode, KeyEvent, KeyEventKind, MouseButton, MouseEvent, MouseEventKind,
};
use ratatui::layout::{Position, Rect};

use super::app::{App, Screen};
use super::keys::{self, Action};
use super::load::{LoadEvent, LoadFeed};
use super::player::Link;
use super::source::{Reading, What};
use super::view;

/// What can happen.
#[derive(Debug)]
pub enum Msg {
    /// Something from the server.
    Reading(Reading),
    /// Something from a load generator.
    Load(LoadEvent),
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

/// Longest filter, characters.
const MAX_FILTER: usize = 64;
const MINUTE: Duration = Duration::from_secs(60);

/// Changes `app` by what happened `now` (time since the dashboard started); `area` is the screen.
pub fn update(app: &mut App, msg: Msg, now: Duration, area: Rect) -> Flow {
    let shown_before = shown_age(app);
    let passed = now.saturating_sub(app.now);
    app.now = now;
    let played = app.player.tick(passed);
    let sampled = matches!(msg, Msg::Reading(Reading::Sample(_)));
    let flow = match msg {
        Msg::Reading(reading) => read(app, reading),
        Msg::Load(event) => {
            app.load.get_or_insert_with(LoadFeed::default).take(event);
            if app.screen == Screen::Load { Flow::Draw } else { Flow::Rest }
        }
        Msg::Input(Event::Key(key)) if key.kind != KeyEventKind::Release => press(app, &key, area),
        Msg::Input(Event::Mouse(mouse)) => point(app, mouse, area),
        Msg::Input(Event::Resize(..)) => Flow::Draw,
        // The age in the header is all that changes by itself, and only when its text does.
        Msg::Tick if shown_age(app) != shown_before => Flow::Draw,
        Msg::Input(_) | Msg::Tick => Flow::Rest,
        Msg::Quit => Flow::Quit,
    };
    ask_for_records(app, sampled);
    if played && flow == Flow::Rest { Flow::Draw } else { flow }
}

/// Asks for the records of the moment shown, where they are another moment's: while the view stands still, those that
/// come meanwhile are not shown. What could not be asked is asked again with the next sample.
fn ask_for_records(app: &mut App, sampled: bool) {
    let Some((stream, shard)) = &app.browse.open else { return };
    if app.screen != Screen::Streams || app.browse.record.is_some() {
        return;
    }
    let until = app.ended_at(stream, *shard);
    let waits = until.is_some() && sampled && !app.browse.up_to_date();
    if until != app.browse.until || waits {
        app.asks.extend(app.browse.again(until));
    }
}

fn read(app: &mut App, reading: Reading) -> Flow {
    match reading {
        Reading::Sample(sample) => {
            let before = app.link.clone();
            match &sample.what {
                What::Snapshot(_) => {
                    app.link = Link::Live;
                    app.received = Some(app.now);
                }
                What::Lost(reason) => app.link = Link::Lost(reason.clone()),
            }
            let live = app.link == Link::Live;
            let shown = app.player.push(sample);
            if live && shown && app.screen == Screen::Streams && app.browse.record.is_none() {
                app.asks.extend(app.browse.again(None));
            }
            if shown || app.link != before { Flow::Draw } else { Flow::Rest }
        }
        Reading::Answer(answer) => {
            app.browse.take(answer);
            Flow::Draw
        }
    }
}

fn press(app: &mut App, key: &KeyEvent, area: Rect) -> Flow {
    // So that it can be shown that a panic leaves a clean terminal.
    if cfg!(debug_assertions)
        && key.code == KeyCode::F(12)
        && std::env::var_os("HIGHWATER_TEST_PANIC").is_some_and(|value| value == "1")
    {
        panic!("asked to panic");
    }
    match (keys::action(key, app.scopes()), key.code) {
        (Some(action), _) => act(app, action, area),
        (None, KeyCode::Char(c)) if app.typing && !c.is_control() => {
            let filter = &mut app.place_mut().filter;
            if filter.chars().count() < MAX_FILTER {
                filter.push(c);
            }
            app.place_mut().selected = 0;
            Flow::Draw
        }
        _ => Flow::Rest,
    }
}

fn act(app: &mut App, action: Action, area: Rect) -> Flow {
    let window = app.window();
    match action {
        Action::Leave => return Flow::Quit,
        Action::Quit if !app.help => return Flow::Quit,
        Action::Quit | Action::Help => {
            app.help = !app.help;
            app.help_scroll = 0;
        }
        Action::Back => back(app),
        Action::Go(screen) => go(app, screen),
        Action::LastScreen => go(app, app.last_screen),
        Action::NextPanel | Action::PreviousPanel => {
            let panels = view::panels(app).len().max(1);
            let step = if action == Action::NextPanel { 1 } else { panels - 1 };
            let place = app.place_mut();
            place.panel = (place.panel + step) % panels;
        }
        Action::Expand => {
            let place = app.place_mut();
            place.expanded = !place.expanded;
        }
        Action::Pause => app.player.toggle(),
        Action::Longer if !app.change_window(true) => return Flow::Rest,
        Action::Shorter if !app.change_window(false) => return Flow::Rest,
        Action::Longer | Action::Shorter => {}
        Action::UsualWindow => app.reset_window(),
        Action::StepBack => app.player.step(-1, window),
        Action::StepOn => app.player.step(1, window),
        Action::MinuteBack => app.player.step_time(MINUTE, true, window),
        Action::MinuteOn => app.player.step_time(MINUTE, false, window),
        Action::Oldest => app.player.step_end(false, window),
        Action::Newest => app.player.step_end(true, window),
        Action::Mark => app.player.mark(),
        Action::NextMark if !app.player.next_mark(window) => return Flow::Rest,
        Action::PreviousEvent if !app.player.previous_event(window) => return Flow::Rest,
        Action::NextMark | Action::PreviousEvent => {}
        Action::NextEvent => app.player.search(app.window()),
        Action::Slower if !app.player.change_speed(false) => return Flow::Rest,
        Action::Faster if !app.player.change_speed(true) => return Flow::Rest,
        Action::Slower | Action::Faster => {}
        Action::Up => select(app, -1, area),
        Action::Down => select(app, 1, area),
        Action::PageUp => select(app, -page(area), area),
        Action::PageDown => select(app, page(area), area),
        Action::Top => select(app, isize::MIN, area),
        Action::Bottom => select(app, isize::MAX, area),
        Action::Open => open(app),
        Action::Sort => {
            let sorts = app.screen.sorts().len().max(1);
            let place = app.place_mut();
            (place.sort, place.selected) = ((place.sort + 1) % sorts, 0);
        }
        Action::Reverse => {
            let place = app.place_mut();
            (place.reverse, place.selected) = (!place.reverse, 0);
        }
        Action::Filter => app.typing = true,
        Action::Accept => app.typing = false,
        Action::Discard => {
            app.typing = false;
            app.place_mut().filter.clear();
        }
        Action::Erase => {
            app.place_mut().filter.pop();
        }
        Action::PreviousShard => other_shard(app, false),
        Action::NextShard => other_shard(app, true),
        Action::NextPalette => app.look.theme.palette = app.look.theme.palette.next(),
        Action::Redraw => app.redraw = true,
    }
    Flow::Draw
}

fn go(app: &mut App, screen: Screen) {
    app.help = false;
    if screen != app.screen {
        app.last_screen = app.screen;
        app.screen = screen;
    }
}

/// Closes what was opened last; at the end of that there is nothing to close.
fn back(app: &mut App) {
    if app.help {
        app.help = false;
    } else if app.place().expanded {
        app.place_mut().expanded = false;
    } else if app.screen == Screen::Streams && app.browse.open.is_some() {
        app.browse.close();
        app.place_mut().selected = 0;
    } else {
        app.place_mut().filter.clear();
    }
}

/// Looks into what is selected.
fn open(app: &mut App) {
    let selected = app.place().selected;
    match app.screen {
        Screen::Overview => {
            let name = app.groups().get(selected).map(|g| (g.group.clone(), g.stream.clone()));
            go(app, Screen::Backlog);
            // The same group is selected there, whatever the order.
            let found = app
                .groups()
                .iter()
                .position(|g| name.as_ref().is_some_and(|(n, s)| *n == g.group && *s == g.stream));
            app.place_mut().selected = found.unwrap_or(0);
        }
        Screen::Streams => {
            if app.browse.open.is_some() {
                app.browse.record = app.records().iter().rev().nth(selected).cloned();
            } else if let Some(name) =
                app.streams().get(selected).map(|(name, _)| (*name).to_owned())
            {
                let until = app.ended_at(&name, 0);
                let asks = app.browse.open(&name, 0, until);
                app.asks.extend(asks);
                app.place_mut().selected = 0;
            }
        }
        _ => {
            let place = app.place_mut();
            place.expanded = !place.expanded;
        }
    }
}

fn other_shard(app: &mut App, next: bool) {
    let Some((stream, shard)) = app.browse.open.clone() else { return };
    let streams = app.streams();
    let count = streams.iter().find(|(name, _)| *name == stream).map_or(1, |(_, s)| s.len() as u32);
    let step = if next { 1 } else { count - 1 };
    let shard = (shard + step) % count;
    let until = app.ended_at(&stream, shard);
    let asks = app.browse.open(&stream, shard, until);
    app.asks.extend(asks);
    app.place_mut().selected = 0;
}

fn select(app: &mut App, by: isize, area: Rect) {
    if app.help {
        let last = view::help_last(area);
        app.help_scroll = app.help_scroll.saturating_add_signed(by).min(last);
        return;
    }
    let last = app.list_length().saturating_sub(1);
    let place = app.place_mut();
    place.selected = place.selected.min(last).saturating_add_signed(by).min(last);
}

fn page(area: Rect) -> isize {
    (area.height / 2).max(1) as isize
}

fn point(app: &mut App, mouse: MouseEvent, area: Rect) -> Flow {
    match mouse.kind {
        MouseEventKind::ScrollUp => select(app, -1, area),
        MouseEventKind::ScrollDown => select(app, 1, area),
        MouseEventKind::Down(MouseButton::Left) => {
            let at = Position::new(mouse.column, mouse.row);
            if app.help {
                app.help = false;
            } else if let Some(screen) = view::tab_at(app, area, at) {
                go(app, screen);
            } else if let Some(panel) = view::panel_at(app, area, at) {
                let line = view::line_at(app, area, at);
                let place = app.place_mut();
                place.panel = panel;
                place.selected = line.unwrap_or(place.selected);
            } else {
                return Flow::Rest;
            }
        }
        _ => return Flow::Rest,
    }
    Flow::Draw
}

/// The age as the header shows it: live figures in tenths when they change, stale ones in seconds.
fn shown_age(app: &App) -> (bool, u64) {
    match app.age() {
        _ if app.player.replaying() => (false, 0),
        Some(age) if app.stale() => (true, age.as_secs()),
        Some(age) => (false, age.as_millis() as u64 / 500),
        // While it connects there is nothing to count, nor without a server.
        None => (app.stale(), 0),
    }
}

#[cfg(test)]
mod tests;
