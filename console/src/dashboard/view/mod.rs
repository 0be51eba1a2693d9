//! The model as a picture: pure functions, no clock, no channel.

mod backlog;
mod compact;
mod help;
mod lower;
mod plot;
mod theme;
mod upper;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::keys;
use super::model::{Link, Model};
use crate::human;
use theme::Theme;

/// The smallest screen with frames and charts; below it, lines of text.
const FRAMED: (u16, u16) = (64, 18);

/// Draws everything. Any size will do, also none at all.
pub fn view(model: &Model, frame: &mut Frame<'_>) {
    let area = frame.area();
    if area.is_empty() {
        return;
    }
    let theme = Theme::new(model.color);
    if area.width < FRAMED.0 || area.height < FRAMED.1 {
        compact::draw(model, theme, frame, area);
    } else {
        overview(model, theme, frame, area);
    }
    if model.help {
        help::draw(model, theme, frame, area);
    }
}

fn overview(model: &Model, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let figures = model.picture().figures.as_ref();
    let groups = figures.map_or(0, |f| f.groups.len()).max(1) as u16;
    // The charts keep half of the height; the lists share the other, and leave to the charts what they do not need.
    let lists = area.height.saturating_sub(2) / 2;
    let backlog_height = groups.saturating_add(3).min((lists / 2).max(5));
    let rest = lists.saturating_sub(backlog_height);
    let lower_height = lower::wanted_height(model).min(rest.max(6));
    let [top, upper_area, backlog_area, lower_area, bottom] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(backlog_height),
        Constraint::Length(lower_height),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(header(model, theme, area.width), top);
    let halves = Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]);
    let [left, right] = halves.areas(upper_area);
    upper::tps(model, theme, frame, left);
    upper::delay(model, theme, frame, right);
    backlog::draw(model, theme, frame, backlog_area);
    let parts = Layout::horizontal([Constraint::Percentage(58), Constraint::Percentage(42)]);
    let [left, right] = parts.areas(lower_area);
    lower::shards(model, theme, frame, left);
    lower::watch(model, theme, frame, right);
    frame.render_widget(footer(theme), bottom);
}

/// What is watched on the left, how old it is on the right; what does not fit is left out.
fn header(model: &Model, theme: Theme, width: u16) -> Paragraph<'static> {
    let picture = model.picture();
    let (state, style) = state(model, theme);
    let mut left = format!(" {}", model.target);
    let mut alarm = "";
    if let Some(figures) = &picture.figures {
        if !picture.about.durable {
            alarm = "  NOT DURABLE";
        }
        let (cores, shards) = (figures.cores.len(), figures.shards.len());
        let up = human::duration(picture.about.uptime);
        let (cores, shards) = (human::plural(cores, "core"), human::plural(shards, "shard"));
        let more = format!("  {cores} {shards} up {up}");
        if left.len() + more.len() + alarm.len() + state.len() < usize::from(width) {
            left += &more;
        }
    }
    let used = left.chars().count() + alarm.len() + state.chars().count();
    let gap = usize::from(width).saturating_sub(used).max(1);
    Paragraph::new(Line::from(vec![
        Span::styled(left, theme.bold()),
        Span::styled(alarm, theme.alarm()),
        Span::raw(" ".repeat(gap)),
        Span::styled(state, style),
    ]))
}

/// `LIVE`, `STALE`, … with the age of the figures.
fn state(model: &Model, theme: Theme) -> (String, ratatui::style::Style) {
    let picture = model.picture();
    let clock = picture.figures.as_ref().map(|f| human::clock(f.at_ns)).unwrap_or_default();
    let age = model.age().map(|age| age.as_secs_f64());
    match (&model.link, age) {
        (Link::Lost { .. }, None) => ("NO SERVER, trying again ".to_owned(), theme.alarm()),
        (_, None) => ("connecting ".to_owned(), theme.dim()),
        (_, Some(age)) if model.stale() => {
            let clock = if clock.is_empty() { clock } else { format!(" {clock},") };
            (format!("STALE{clock} {age:.0}s old "), theme.alarm())
        }
        (_, Some(_)) if picture.figures.is_none() => {
            ("waiting for a second sample ".to_owned(), theme.dim())
        }
        (_, Some(_)) if model.paused() => (format!("PAUSED at {clock} "), theme.alarm()),
        (_, Some(age)) => (format!("LIVE {clock}  1s samples, {age:.1}s old "), theme.good()),
    }
}

/// At the lower edge of a list: how many of its `lines` do not fit into `area`, frame included.
fn more(lines: usize, area: Rect) -> String {
    match lines.saturating_sub(usize::from(area.height.saturating_sub(2))) {
        0 => String::new(),
        hidden => format!(" +{hidden} more "),
    }
}

/// From the table of keys.
fn footer(theme: Theme) -> Paragraph<'static> {
    let mut spans = Vec::new();
    for binding in keys::KEYS.iter().filter(|b| !b.short.is_empty()) {
        let first = binding.keys.first().map(|&key| keys::name(key)).unwrap_or_default();
        spans.push(Span::styled(format!(" {first}"), theme.bold()));
        spans.push(Span::styled(format!(" {} ", binding.short), theme.dim()));
    }
    Paragraph::new(Line::from(spans))
}

#[cfg(test)]
mod tests;
