//! The first line (what is watched, how old it is, which screens there are; or where a replay is) and the last (keys).

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use crate::dashboard::app::{App, Screen};
use crate::dashboard::keys;
use crate::dashboard::player::{Link, Mode};
use crate::dashboard::widgets::{fit, slider};
use crate::human;

/// Below this width only the screen shown is named.
const WIDE: u16 = 140;

/// Where the names of the screens are.
pub fn tabs(app: &App, area: Rect) -> Vec<(Screen, Rect)> {
    let names: Vec<(Screen, u16)> = Screen::ALL
        .into_iter()
        .filter(|screen| area.width >= WIDE || *screen == app.screen)
        .map(|screen| (screen, screen.title().len() as u16 + 4))
        .collect();
    let mut x = area.right().saturating_sub(names.iter().map(|(_, width)| width).sum());
    names
        .into_iter()
        .map(|(screen, width)| {
            let place = Rect::new(x, area.y, width, 1).intersection(area);
            x += width;
            (screen, place)
        })
        .collect()
}

/// The first line.
pub fn header(app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = app.look.theme;
    let tabs = tabs(app, area);
    let end = tabs.first().map_or(area.right(), |(_, place)| place.x);
    for (screen, place) in tabs {
        let here = screen == app.screen;
        let style = if here { theme.selected() } else { theme.dim() };
        let text = format!(" {} {} ", screen.index() + 1, screen.title());
        buffer.set_stringn(place.x, place.y, text, usize::from(place.width), style);
    }
    let left = Rect { width: end.saturating_sub(area.x + 1), ..area };
    if app.player.replaying() {
        replay(app, left, buffer);
    } else {
        live(app, left, buffer);
    }
}

fn live(app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = app.look.theme;
    let width = usize::from(area.width);
    let (state, style) = state(app, width);
    let picture = app.picture();
    let alarm =
        if picture.figures.is_some() && !picture.about.durable { "NOT DURABLE" } else { "" };
    let target = format!(" {}", app.target);
    let mut used = state.chars().count() + 2 + alarm.len() + usize::from(!alarm.is_empty()) * 2;
    let target = fit(&target, width.saturating_sub(used), app.look.glyphs);
    used += target.chars().count();
    let mut about = String::new();
    if let Some(figures) = &picture.figures {
        let (cores, shards) = (figures.cores.len(), figures.shards.len());
        let up = human::duration(picture.about.uptime);
        for part in
            [human::plural(cores, "core"), human::plural(shards, "shard"), format!("up {up}")]
        {
            if used + about.len() + part.len() + 2 <= width {
                about += &format!("  {part}");
            }
        }
    }
    let mut x = area.x;
    let mut put = |x: &mut u16, text: &str, style: Style| {
        let room = usize::from(area.right().saturating_sub(*x));
        *x = buffer.set_stringn(*x, area.y, text, room, style).0;
    };
    put(&mut x, &target, theme.bold());
    put(&mut x, &about, theme.dim());
    if !alarm.is_empty() {
        put(&mut x, "  ", Style::new());
        put(&mut x, alarm, theme.alarm());
    }
    let mut x = area.right().saturating_sub(state.chars().count() as u16).max(x);
    put(&mut x, &state, style);
}

/// `LIVE`, `STALE`, … with the age of the figures; in a line of `room` characters.
pub fn state(app: &App, room: usize) -> (String, Style) {
    let theme = app.look.theme;
    let picture = app.picture();
    let clock = picture.figures.as_ref().map(|f| app.clock(f.at_ns)).unwrap_or_default();
    let age = app.age().map(|age| age.as_secs_f64());
    match (&app.link, age) {
        (Link::Absent, _) => ("no server".to_owned(), theme.dim()),
        (Link::Lost(_), None) => (" NO SERVER, trying again ".to_owned(), theme.alarm()),
        (_, None) => ("connecting".to_owned(), theme.dim()),
        (_, Some(age)) if app.stale() => {
            let clock = if clock.is_empty() { clock } else { format!(" {clock},") };
            (format!(" STALE{clock} {age:.0}s old "), theme.alarm())
        }
        (_, Some(_)) if picture.figures.is_none() => {
            ("waiting for a second sample".to_owned(), theme.dim())
        }
        (_, Some(_)) if app.player.mode == Mode::Searching => {
            (format!(" SEARCHING {clock} "), theme.state())
        }
        (_, Some(_)) if app.player.paused() => {
            let back = match app.player.behind() {
                0 => String::new(),
                n => format!(", {} back", human::plural(n, "sample")),
            };
            let marked = app.player.marks().any(|at| Some(at) == app.player.shown_at());
            let marked = if marked { ", marked" } else { "" };
            (format!(" PAUSED {clock}{back}{marked} "), theme.state())
        }
        (_, Some(age)) => {
            let every = picture.figures.as_ref().map_or(0.0, |f| f.span.as_secs_f64());
            let long = format!("LIVE {clock}  {every:.0}s samples, {age:.1}s old");
            let short = format!("LIVE {clock}, {age:.1}s old");
            (if room >= 90 { long } else { short }, theme.good())
        }
    }
}

fn replay(app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = app.look.theme;
    let player = &app.player;
    let word = match player.mode {
        Mode::Paused if player.behind() == 0 => " END ".to_owned(),
        Mode::Paused => " PAUSED ".to_owned(),
        Mode::Searching => " SEARCHING ".to_owned(),
        _ => format!(" REPLAY x{} ", player.speed()),
    };
    let Some((from, to)) = player.span() else { return };
    let at = player.shown_at().unwrap_or(from);
    let share =
        |ns: u64| (ns.saturating_sub(from)) as f64 / (to.saturating_sub(from)).max(1) as f64;
    let marks: Vec<f64> = player.marks().map(share).collect();
    let (start, end) = (app.clock(from), app.clock(to));
    let width = usize::from(area.width);
    let lost = matches!(player.link, Link::Lost(_));
    let alarm = if lost { " STALE " } else { "" };
    let fixed = word.len() + start.len() + end.len() + 10 + 4 + alarm.len() + 3;
    let name_room = width.saturating_sub(fixed + 16).min(app.target.chars().count() + 1);
    let name = fit(&app.target, name_room, app.look.glyphs);
    let line = width.saturating_sub(fixed + name.chars().count() + 1);
    let parts = [
        (word, theme.state()),
        (alarm.to_owned(), theme.alarm()),
        (format!(" {name} "), theme.bold()),
        (format!("{start} "), theme.dim()),
        (slider::slider(share(at), &marks, line, app.look.glyphs), theme.focus()),
        (format!(" {end}"), theme.dim()),
        (format!("  {}", app.clock(at)), theme.bold()),
    ];
    let mut x = area.x;
    for (text, style) in parts {
        let room = usize::from(area.right().saturating_sub(x));
        x = buffer.set_stringn(x, area.y, text, room, style).0;
    }
}

/// The last line, from the table of keys; or the filter that is typed.
pub fn footer(app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = app.look.theme;
    let mut x = area.x;
    let filter = &app.place().filter;
    if app.typing || !filter.is_empty() {
        let cursor = if app.typing { "_" } else { "" };
        let text = format!(" /{filter}{cursor} ");
        let style = if app.typing { theme.selected() } else { theme.state() };
        x = buffer.set_stringn(x, area.y, text, usize::from(area.width), style).0;
    }
    let screens = [(String::from("1-6"), "screen")];
    let of_table = keys::KEYS
        .iter()
        .filter(|b| !b.short.is_empty() && app.scopes().contains(&b.scope))
        .filter(|b| b.scope != keys::Scope::Streams || app.browse.open.is_some())
        .filter(|b| b.scope != keys::Scope::Lists || app.list_length() > 0 || app.typing)
        .map(|b| (b.keys.first().map(|&key| keys::name(key)).unwrap_or_default(), b.short));
    let quit = |(_, short): &(String, &str)| *short == "quit";
    // Help and quit are always there; the others as far as they fit.
    let mut entries: Vec<(String, &str)> = of_table.collect();
    if !app.typing {
        entries.splice(1..1, screens);
    }
    let last: Vec<(String, &str)> = entries.iter().filter(|e| quit(e)).cloned().collect();
    entries.retain(|entry| !quit(entry));
    let reserved: u16 = last.iter().map(|(key, short)| width(key, short)).sum();
    for (key, short) in entries.iter().chain(&last) {
        let is_last = quit(&(key.clone(), short));
        let room =
            area.right().saturating_sub(x).saturating_sub(if is_last { 0 } else { reserved });
        if width(key, short) <= room {
            x = buffer.set_string_at(x, area.y, &format!(" {key}"), theme.bold());
            x = buffer.set_string_at(x, area.y, &format!(" {short} "), theme.dim());
        }
    }
}

fn width(key: &str, short: &str) -> u16 {
    (key.chars().count() + short.chars().count() + 3) as u16
}

/// So that text can be put one after the other.
trait SetString {
    /// Puts `text` there; gives the column after it.
    fn set_string_at(&mut self, x: u16, y: u16, text: &str, style: Style) -> u16;
}

impl SetString for Buffer {
    fn set_string_at(&mut self, x: u16, y: u16, text: &str, style: Style) -> u16 {
        self.set_stringn(x, y, text, usize::MAX, style).0
    }
}
