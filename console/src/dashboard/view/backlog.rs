//! Backlog: the groups, the one furthest behind first; one of them over time and by shard.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;

use highwater_wire::BreakerState;

use super::panel::{self, Words, below};
use crate::dashboard::app::{App, Screen};
use crate::dashboard::figures::{self, Filters, GroupFigures, Limit, Loss};
use crate::dashboard::model::{Outlook, Series};
use crate::dashboard::widgets::chart::{self, Chart, Curve, Scale};
use crate::dashboard::widgets::spark;
use crate::dashboard::widgets::table::{Cell, Column, Table};
use crate::human;

/// Characters of a trend.
const TREND: usize = 8;
/// Characters of a bar.
const BAR: usize = 20;
/// A share of the backlog from which on a shard is said to hold most of it.
const MOST: f64 = 0.6;
/// From this width on, rates are drawn beside the backlog.
const BOTH: u16 = 100;
/// Retention this close is a warning.
const SOON: Duration = Duration::from_secs(3600);

/// Where the panels are.
pub fn areas(app: &App, body: Rect) -> Vec<Rect> {
    let groups = app.groups().len().max(1) as u16;
    let list = groups.saturating_add(3).min((body.height / 3).max(5));
    let parts = selected(app).map_or(1, |g| g.parts.len()) as u16;
    let parts = parts.saturating_add(3).min((body.height / 3).max(5));
    Layout::vertical([Constraint::Length(list), Constraint::Min(0), Constraint::Length(parts)])
        .areas::<3>(body)
        .into()
}

/// The group that the list's cursor is on.
fn selected(app: &App) -> Option<&GroupFigures> {
    let groups = app.groups();
    let last = groups.len().checked_sub(1)?;
    groups.get(app.place().selected.min(last)).copied()
}

const COLUMNS: [Column; 12] = [
    Column::words("group on stream", 20, 0).growing(),
    Column::figures("records", 8, 0),
    Column::figures("bytes", 7, 2),
    Column::figures("age", 8, 0),
    Column::words("trend 1m", TREND as u16, 3),
    Column::figures("net/s", 6, 2),
    Column::words("empty in", 15, 0),
    Column::figures("arrival/s", 9, 5),
    Column::figures("read/s", 7, 5),
    Column::figures("lost in", 8, 4),
    Column::figures("peak", 8, 7),
    Column::figures("shards", 6, 8),
];

/// Which of the columns each way of sorting belongs to.
const SORTED: [usize; 3] = [3, 1, 0];

/// The list.
pub fn groups(app: &App, focused: bool, area: Rect, buffer: &mut Buffer) {
    let groups = app.groups();
    let place = app.place();
    let room = usize::from(area.height.saturating_sub(3));
    let first = panel::first(place.selected, groups.len(), room);
    let bottom = panel::shown(first, groups.len(), room);
    let title = if place.sort == 0 && !place.reverse { "Backlog, worst first" } else { "Backlog" };
    let inner = panel::frame(app, title, &bottom, focused, area, buffer);
    if groups.is_empty() {
        let why = match (&app.picture().figures, place.filter.is_empty()) {
            (None, _) => "",
            (_, true) => "no group has committed a position",
            (_, false) => "no group with that in its name",
        };
        return panel::nothing(app, why, inner, buffer);
    }
    let on_backlog = app.screen == Screen::Backlog;
    let table = Table {
        columns: &COLUMNS,
        rows: groups.iter().skip(first).take(room).map(|group| row(app, group)).collect(),
        selected: (on_backlog || focused)
            .then(|| place.selected.min(groups.len() - 1).saturating_sub(first)),
        sorted: Some((SORTED[place.sort.min(2)], (place.sort != 2) != place.reverse)),
    };
    let inner = Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner };
    table.draw(app.look.theme, app.look.glyphs, inner, buffer);
}

/// When it will be empty, in words.
fn outlook(app: &App, group: &GroupFigures) -> (String, Style) {
    let theme = app.look.theme;
    match app.picture().outlook(group) {
        Outlook::KeepsUp => ("keeps up".to_owned(), theme.good()),
        Outlook::Drains(eta) => (human::duration(eta), theme.warn()),
        Outlook::Holds => ("holds".to_owned(), theme.warn()),
        Outlook::Grows => ("NEVER: it grows".to_owned(), theme.bad()),
    }
}

fn loss(app: &App, loss: Option<Loss>) -> (String, Style) {
    let theme = app.look.theme;
    match loss {
        None => ("safe".to_owned(), theme.dim()),
        Some(loss) if loss.after < SOON => (human::duration(loss.after) + " !", theme.bad()),
        Some(loss) => (human::duration(loss.after), Style::new()),
    }
}

fn signed(rate: f64) -> String {
    let sign = if rate < 0.0 { "-" } else { "+" };
    match human::count(rate.abs()).as_str() {
        "0" => "0".to_owned(),
        text => format!("{sign}{text}"),
    }
}

fn row(app: &App, group: &GroupFigures) -> Vec<Cell> {
    let (theme, glyphs, picture) = (app.look.theme, app.look.glyphs, app.picture());
    let minute = Duration::from_secs(60);
    let (name, stream) = (group.group.as_str(), group.stream.as_str());
    let trend = picture.series(Series::GroupRecords(name, stream), minute, TREND);
    let (words, style) = outlook(app, group);
    let (lost, lost_style) = match group.lost {
        0 => loss(app, group.loss),
        // How many is said below, and by Watch.
        _ => ("passed !".to_owned(), theme.bad()),
    };
    let peak = picture
        .series(Series::GroupRecords(name, stream), app.window(), 1)
        .first()
        .copied()
        .flatten()
        .unwrap_or(0.0);
    vec![
        Cell::styled(format!("{name} on {stream}"), theme.bold()),
        human::count(group.records as f64).into(),
        human::bytes(group.bytes as f64).into(),
        human::nanos(u64::try_from(group.age.as_nanos()).unwrap_or(u64::MAX)).into(),
        Cell::styled(spark::spark_of(&trend, glyphs), theme.into()),
        signed(picture.growth(group)).into(),
        Cell::styled(words, style),
        human::count(group.arrival).into(),
        human::count(group.read).into(),
        Cell::styled(lost, lost_style),
        human::count(peak).into(),
        group.parts.len().to_string().into(),
    ]
}

/// The selected group: figures, forecast, and a chart of its backlog.
pub fn group(app: &App, focused: bool, area: Rect, buffer: &mut Buffer) {
    let theme = app.look.theme;
    let Some(group) = selected(app) else {
        let inner = panel::frame(app, "Group", "", focused, area, buffer);
        return panel::nothing(app, "no group", inner, buffer);
    };
    let title = format!("{} on {}", group.group, group.stream);
    let bottom = if area.width >= BOTH + 2 {
        "left: unread records; right: read/s filled, arrival/s line"
    } else {
        "unread records"
    };
    let inner = panel::frame(app, &title, bottom, focused, area, buffer);
    let picture = app.picture();
    let (words, style) = outlook(app, group);
    let draining = matches!(app.picture().outlook(group), Outlook::Drains(_));
    let before = if draining { "   empty in " } else { "   " };
    let age = human::nanos(u64::try_from(group.age.as_nanos()).unwrap_or(u64::MAX));
    Words::new(inner)
        .all([
            (human::grouped(group.records), theme.bold()),
            (" records  ".to_owned(), theme.dim()),
        ])
        .all([(human::bytes(group.bytes as f64), theme.bold()), ("  ".to_owned(), theme.dim())])
        .all([(age, theme.bold()), (" of stream".to_owned(), theme.dim())])
        .all([(before.to_owned(), theme.dim()), (words, style)])
        .draw(inner, 0, buffer);
    let net = picture.growth(group);
    let mut second = Words::new(inner)
        .all([
            ("arrival ".to_owned(), theme.dim()),
            (human::count(group.arrival) + "/s", theme.bold()),
        ])
        .all([
            ("   read ".to_owned(), theme.dim()),
            (human::count(group.read) + "/s", theme.bold()),
        ])
        .all([("   net ".to_owned(), theme.dim()), (signed(net) + "/s", theme.bold())]);
    let (lost, lost_style) = loss(app, group.loss);
    let by = match group.loss.map(|loss| loss.by) {
        None => "   retention ",
        Some(Limit::Age) => "   lost by age in ",
        Some(Limit::Bytes) => "   lost by size in ",
    };
    second = second.all([(by.to_owned(), theme.dim()), (lost, lost_style)]);
    if group.lost > 0 {
        let text = format!("   {} already lost", human::counted(group.lost, "record"));
        second = second.add(text, theme.bad());
    }
    // Only of those that settle record by record, and where there is something to tell.
    if let Some(delivery) = &group.delivery {
        for (what, records) in [("again", delivery.redelivered), ("buried", delivery.buried)] {
            if records > 0 {
                let count = human::count(records as f64);
                second = second.all([(format!("   {what} "), theme.dim()), (count, theme.warn())]);
            }
        }
        if delivery.breaker != BreakerState::Closed {
            second = second.add(format!("   breaker {}", delivery.breaker), theme.bad());
        }
    }
    second.draw(inner, 1, buffer);
    // The server counts what filters leave out for all readers of a stream together.
    let shards = app.picture().headline.as_ref().map_or(&[][..], |f| &f.shards);
    let filters = figures::filters(shards).get(group.stream.as_str()).and_then(Filters::words);
    let lines = if filters.is_some() { 3 } else { 2 };
    if let Some(words) = filters {
        let line = Words::new(inner).add("filters of the stream  ", theme.dim());
        words
            .into_iter()
            .fold(line, |line, word| line.add(word, Style::new()))
            .draw(inner, 2, buffer);
    }
    let place = below(inner, lines);
    if place.width < BOTH {
        return unread(app, group, place, buffer);
    }
    let halves = [Constraint::Percentage(50), Constraint::Percentage(50)];
    let [left, right] = Layout::horizontal(halves).areas(place);
    unread(app, group, left, buffer);
    rates(app, group, right, buffer);
}

/// Unread records over time.
fn unread(app: &App, group: &GroupFigures, place: Rect, buffer: &mut Buffer) {
    let (theme, picture) = (app.look.theme, app.picture());
    let dots = panel::dots(app, place);
    let (name, stream) = (group.group.as_str(), group.stream.as_str());
    let values = picture.series(Series::GroupRecords(name, stream), app.window(), dots);
    let top = values.iter().flatten().copied().fold(0.0, f64::max);
    let chart = Chart {
        curves: vec![Curve::filled(values, theme.into())],
        scale: Scale::linear(top, human::count),
        below: panel::time_labels(app),
        limit: None,
    };
    chart::draw(&chart, theme, app.look.glyphs, place, buffer);
}

/// What arrives for the group against what it reads, over time: the line is above while the backlog grows.
fn rates(app: &App, group: &GroupFigures, place: Rect, buffer: &mut Buffer) {
    let (theme, picture) = (app.look.theme, app.picture());
    let dots = panel::dots(app, place);
    let (name, stream) = (group.group.as_str(), group.stream.as_str());
    let arrival = picture.series(Series::GroupArrival(name, stream), app.window(), dots);
    let read = picture.series(Series::GroupRead(name, stream), app.window(), dots);
    let top = arrival.iter().chain(&read).flatten().copied().fold(0.0, f64::max);
    let chart = Chart {
        curves: vec![Curve::filled(read, theme.out()), Curve::line(arrival, theme.into())],
        scale: Scale::linear(top, human::count),
        below: panel::time_labels(app),
        limit: None,
    };
    chart::draw(&chart, theme, app.look.glyphs, place, buffer);
}

const PARTS: [Column; 9] = [
    Column::words("shard", 5, 0).growing(),
    Column::figures("records", 8, 0),
    Column::words("share", 6 + BAR as u16, 5),
    Column::figures("bytes", 8, 2),
    Column::figures("age", 8, 0),
    Column::figures("arrival/s", 9, 3),
    Column::figures("read/s", 8, 3),
    Column::figures("position", 14, 4),
    Column::figures("lost in", 9, 5),
];

/// The selected group by shard, the one with the most first.
pub fn parts(app: &App, focused: bool, area: Rect, buffer: &mut Buffer) {
    let (theme, glyphs) = (app.look.theme, app.look.glyphs);
    let Some(group) = selected(app) else {
        panel::frame(app, "By shard", "", focused, area, buffer);
        return;
    };
    let mut parts: Vec<_> = group.parts.iter().collect();
    parts.sort_by_key(|part| (std::cmp::Reverse(part.records), part.shard));
    let room = usize::from(area.height.saturating_sub(3));
    let bottom = panel::shown(0, parts.len(), room);
    let share = |records: u64| records as f64 / group.records.max(1) as f64;
    let title = match parts.first() {
        Some(part) if parts.len() > 1 && share(part.records) >= MOST && group.records > 0 => {
            let percent = share(part.records) * 100.0;
            format!("By shard: {} holds {percent:.0} % of it", part.shard)
        }
        _ => "By shard".to_owned(),
    };
    let inner = panel::frame(app, &title, &bottom, focused, area, buffer);
    let rows = parts.iter().take(room).map(|part| {
        let (lost, lost_style) = loss(app, part.loss);
        let share = share(part.records);
        vec![
            part.shard.to_string().into(),
            human::count(part.records as f64).into(),
            Cell::styled(
                format!("{:>3.0} % {}", share * 100.0, glyphs.bar(share, BAR).trim_end()),
                theme.into(),
            ),
            human::bytes(part.bytes as f64).into(),
            human::nanos(u64::try_from(part.age.as_nanos()).unwrap_or(u64::MAX)).into(),
            human::count(part.arrival).into(),
            human::count(part.read).into(),
            human::grouped(part.position).into(),
            Cell::styled(lost, lost_style),
        ]
    });
    let table = Table { columns: &PARTS, rows: rows.collect(), selected: None, sorted: None };
    let inner = Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner };
    table.draw(theme, glyphs, inner, buffer);
}
