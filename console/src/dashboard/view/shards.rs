//! Shards and cores: a line each, and the selected shard in full with its hottest keys.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;

use super::panel::{self, Words};
use crate::dashboard::app::App;
use crate::dashboard::figures::{self, Beyond, ShardFigures};
use crate::dashboard::model::Series;
use crate::dashboard::widgets::table::{Cell, Column, Table};
use crate::dashboard::widgets::{fit, spark};
use crate::human;

/// A core this busy has no room left.
const BUSY: f64 = 0.95;
/// A shard that gets this much more than the mean is hot.
const HOT: f64 = 1.5;

/// What the small charts of the tables span, and their characters.
const MINUTE: Duration = Duration::from_secs(60);
const TREND: usize = 8;

/// Lines of all that is known of a shard: ten keys, their heading and the frame, and one to breathe.
const DETAIL: u16 = 14;

/// Where the panels are.
pub fn areas(app: &App, body: Rect) -> Vec<Rect> {
    let figures = app.picture().headline.as_ref();
    let cores = figures.map_or(1, |f| f.cores.len()) as u16;
    let cores = cores.saturating_add(3).min((body.height / 4).max(4));
    // What the list does not need the selected shard has, up to all that is known of it.
    let list = (app.shards().len().max(1) as u16).saturating_add(3);
    let least = if body.height >= 40 { DETAIL } else { 8.min(body.height / 3) };
    let detail = body.height.saturating_sub(cores).saturating_sub(list).clamp(least, DETAIL);
    let [list, cores, detail] = Layout::vertical([
        Constraint::Min(5),
        Constraint::Length(cores),
        Constraint::Length(detail),
    ])
    .areas(body);
    vec![list, cores, detail]
}

const SHARDS: [Column; 14] = [
    Column::words("shard", 12, 0).growing(),
    Column::figures("core", 4, 1),
    Column::figures("in/s", 6, 0),
    Column::figures("bytes/s", 7, 3),
    Column::words("1m", TREND as u16, 4),
    Column::figures("out/s", 6, 2),
    Column::figures("write p50", 9, 5),
    Column::figures("write p99", 9, 1),
    Column::figures("group", 7, 6),
    Column::figures("in flight", 9, 8),
    Column::figures("refused/s", 9, 9),
    Column::figures("stored", 7, 7),
    Column::figures("high-water", 13, 10),
    Column::words("state", 8, 2),
];

/// Which of the columns each way of sorting belongs to.
const SORTED: [usize; 3] = [2, 7, 0];

/// The list of shards.
pub fn shards(app: &App, focused: bool, area: Rect, buffer: &mut Buffer) {
    let (theme, glyphs) = (app.look.theme, app.look.glyphs);
    let shards = app.shards();
    let place = app.place();
    let room = usize::from(area.height.saturating_sub(3));
    let first = panel::first(place.selected, shards.len(), room);
    let bottom = panel::shown(first, shards.len(), room);
    let hidden = shards.is_empty() && !place.filter.is_empty();
    let skew = app.picture().skews().into_iter().map(|(_, skew)| skew).fold(0.0, f64::max);
    let count = human::plural(shards.len(), "shard");
    let title = match skew > 0.0 && !hidden {
        true => format!("{count}, last 10s, skew {skew:.2}"),
        false => format!("{count}, last 10s"),
    };
    let inner = panel::frame(app, &title, &bottom, focused, area, buffer);
    if shards.is_empty() {
        let why = match (&app.picture().headline, place.filter.is_empty()) {
            (None, _) => "",
            (_, true) => "no stream yet",
            (_, false) => "no shard with that in its name",
        };
        return panel::nothing(app, why, inner, buffer);
    }
    let mean = |stream: &str| {
        let open = |s: &&&ShardFigures| s.stream == stream && !s.is_closed();
        let all = || shards.iter().filter(open).map(|s| s.into.records);
        all().sum::<f64>() / all().count().max(1) as f64
    };
    let top = shards.iter().map(|s| s.into.records).fold(0.0, f64::max);
    let rows = shards.iter().skip(first).take(room).map(|shard| {
        let hot = shard.into.records > HOT * mean(&shard.stream) && shard.into.records >= 1.0;
        let mark = if hot { "hot" } else { "" };
        let (state, style) = match shard.state.as_str() {
            "open" if hot => (mark.to_owned(), theme.warn()),
            state @ ("open" | "closed") => (state.to_owned(), theme.dim()),
            other => (other.to_owned(), theme.bad()),
        };
        let series = Series::ShardIn(&shard.stream, shard.shard);
        let trend = app.picture().series(series, MINUTE, TREND);
        vec![
            Cell::styled(&shard.stream, theme.bold()).with_tail(format!("/{}", shard.shard)),
            shard.core.to_string().into(),
            human::count(shard.into.records).into(),
            human::bytes(shard.into.bytes).into(),
            Cell::styled(spark::spark(&trend, top, glyphs), theme.into()),
            human::count(shard.out.records).into(),
            shard.write.time(|t| t.p50).into(),
            shard.write.time(|t| t.p99).into(),
            size(shard.group_bytes).into(),
            shard.in_flight.to_string().into(),
            human::count(shard.refused).into(),
            human::bytes(shard.stored_bytes as f64).into(),
            human::grouped(shard.high_water).into(),
            Cell::styled(state, style),
        ]
    });
    let table = Table {
        columns: &SHARDS,
        rows: rows.collect(),
        selected: Some(place.selected.min(shards.len() - 1).saturating_sub(first)),
        sorted: Some((SORTED[place.sort.min(2)], (place.sort != 2) != place.reverse)),
    };
    let inner = Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner };
    table.draw(theme, glyphs, inner, buffer);
}

/// Bytes of a commit group; a dash where none was written.
fn size(bytes: f64) -> String {
    if bytes > 0.0 { human::bytes(bytes) } else { "-".to_owned() }
}

const CORES: [Column; 15] = [
    Column::words("core", 4, 0).growing(),
    Column::figures("cpu", 3, 7),
    Column::words("busy", 17, 0),
    Column::words("1m", TREND as u16, 5),
    Column::figures("turn p99", 8, 4),
    Column::figures("ring", 4, 1),
    Column::figures("groups", 6, 2),
    Column::figures("group size", 10, 5),
    Column::figures("write p50", 9, 3),
    Column::figures("write p99", 9, 1),
    Column::figures("refused/s", 9, 6),
    Column::figures("conns", 5, 3),
    Column::figures("memory", 20, 6),
    Column::figures("requests/s", 10, 8),
    Column::figures("forwarded/s", 11, 9),
];

/// The list of cores.
pub fn cores(app: &App, focused: bool, area: Rect, buffer: &mut Buffer) {
    let (theme, glyphs) = (app.look.theme, app.look.glyphs);
    let cores = app.picture().headline.as_ref().map_or(&[][..], |f| &f.cores);
    let room = usize::from(area.height.saturating_sub(3));
    let bottom = panel::shown(0, cores.len(), room);
    let inner = panel::frame(app, "Cores, last 10s", &bottom, focused, area, buffer);
    let rows = cores.iter().take(room).map(|core| {
        let busy = app.picture().series(Series::CoreBusy(core.core), MINUTE, TREND);
        let (style, mark) = if core.busy > BUSY { (theme.bad(), "!") } else { (theme.into(), " ") };
        vec![
            Cell::styled(core.core.to_string(), theme.bold()),
            core.cpu.to_string().into(),
            Cell::styled(
                format!(
                    "{:>3.0} %{mark} {}",
                    core.busy * 100.0,
                    glyphs.bar(core.busy, 10).trim_end()
                ),
                style,
            ),
            Cell::styled(spark::spark(&busy, 1.0, glyphs), theme.into()),
            core.turn.time(|t| t.p99).into(),
            core.ring_in_flight.to_string().into(),
            core.groups_in_flight.to_string().into(),
            size(core.group_bytes.p50 as f64).into(),
            core.write.time(|t| t.p50).into(),
            core.write.time(|t| t.p99).into(),
            human::count(core.refused).into(),
            core.connections.to_string().into(),
            format!(
                "{} of {}",
                human::bytes(core.buffer_used as f64),
                human::bytes(core.buffer_capacity as f64)
            )
            .into(),
            human::count(core.requests).into(),
            human::count(core.forwarded).into(),
        ]
    });
    let table = Table { columns: &CORES, rows: rows.collect(), selected: None, sorted: None };
    let inner = Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner };
    table.draw(theme, glyphs, inner, buffer);
}

/// The selected shard: its rate over time, and its hottest keys.
pub fn shard(app: &App, focused: bool, area: Rect, buffer: &mut Buffer) {
    let theme = app.look.theme;
    let shards = app.shards();
    let Some(shard) = shards.get(app.place().selected.min(shards.len().saturating_sub(1))) else {
        panel::frame(app, "Shard", "", focused, area, buffer);
        return;
    };
    let title = shard.name();
    let inner = panel::frame(app, &title, "", focused, area, buffer);
    // What is said in sentences takes the whole width, below.
    let mut said = Vec::new();
    if shard.state != "open" && !shard.is_closed() {
        said.push(("state", &shard.state, theme.bad()));
    }
    if !shard.advice.is_empty() {
        said.push(("advice", &shard.advice, theme.warn()));
    }
    let width = usize::from(inner.width.saturating_sub(10)).max(8);
    let lines = said.into_iter().flat_map(|(name, text, style)| {
        let names = std::iter::once(name).chain(std::iter::repeat(""));
        names.zip(human::wrap(text, width)).map(move |(name, line)| (name, line, style))
    });
    let lines: Vec<_> = lines.take(usize::from(inner.height / 2)).collect();
    let below = inner.height - lines.len() as u16;
    for (row, (name, line, style)) in (below..).zip(lines) {
        let words = Words::new(inner).add(format!("{name:<7} "), theme.dim());
        words.add(line, style).draw(inner, row, buffer);
    }
    let halves = [Constraint::Percentage(50), Constraint::Percentage(50)];
    let [left, right] = Layout::horizontal(halves).areas(Rect { height: below, ..inner });
    about(app, shard, left, buffer);
    keys(app, shard, right, buffer);
}

fn about(app: &App, shard: &ShardFigures, area: Rect, buffer: &mut Buffer) {
    let (theme, glyphs) = (app.look.theme, app.look.glyphs);
    let width = usize::from(area.width.saturating_sub(10)).min(60);
    let series = Series::ShardIn(&shard.stream, shard.shard);
    let values = app.picture().series(series, app.window(), width);
    let line = |name: &str, text: String, style: Style, row: u16, buffer: &mut Buffer| {
        Words::new(area)
            .add(format!("{name:<7} "), theme.dim())
            .add(text, style)
            .draw(area, row, buffer);
    };
    line("rec/s", spark::spark_of(&values, glyphs), theme.into(), 0, buffer);
    let of_stream: Vec<ShardFigures> = app
        .picture()
        .headline
        .as_ref()
        .map_or(&[][..], |f| &f.shards)
        .iter()
        .filter(|s| s.stream == shard.stream)
        .cloned()
        .collect();
    let total: f64 = of_stream.iter().map(|s| s.into.records).sum();
    let share = if total > 0.0 { shard.into.records / total * 100.0 } else { 0.0 };
    let skew = figures::skew(&of_stream).map_or_else(String::new, |s| format!(", skew {s:.2}"));
    let plain = Style::new();
    line("share", format!("{share:.0} % of its stream{skew}"), plain, 1, buffer);
    let of = if shard.group_bytes > 0.0 {
        format!(" of {}", human::bytes(shard.group_bytes))
    } else {
        String::new()
    };
    let groups = format!("{}/s{of}", human::count(shard.groups));
    line("groups", groups, plain, 2, buffer);
    line("batches", format!("{}/s", human::count(shard.batches)), plain, 3, buffer);
    let tail = |t: figures::Tail| match t.count {
        0 => "-".to_owned(),
        _ => format!("p50 {}  p99 {}", human::nanos(t.p50), human::nanos(t.p99)),
    };
    line("write", tail(shard.write), plain, 4, buffer);
    line("deliver", tail(shard.propagation), plain, 5, buffer);
    let kept = format!("{} to {}", human::grouped(shard.oldest), human::grouped(shard.high_water));
    let readers = human::counted(u64::from(shard.readers), "reader");
    let words = Words::new(area).add("kept    ", theme.dim()).add(kept, plain);
    words.add(format!(", {readers}"), plain).draw(area, 6, buffer);
    // What happens seldom has a line only when it does.
    let filters = (shard.filters.looked > 0.0).then(|| {
        let (out, looked) = (shard.filters.left_out(), shard.filters.looked);
        let text = format!("{}/s of {}/s left out", human::count(out), human::count(looked));
        ("filters", text, plain)
    });
    let told = beyond(&shard.beyond).filter(|(_, text)| !text.is_empty());
    let told = told.map(|(name, text)| (name, text, theme.warn())).chain(filters);
    for (row, (name, text, style)) in (7..).zip(told) {
        line(name, text, style, row, buffer);
    }
}

/// What did not get past the quota, by what became of it; empty for what did not happen.
fn beyond(beyond: &Beyond) -> impl Iterator<Item = (&'static str, String)> {
    let rates = [
        ("refused", beyond.refused),
        ("held", beyond.buffered),
        ("dropped", beyond.dropped),
        ("sampled", beyond.sampled_out),
    ];
    let rate =
        |rate: f64| if rate > 0.0 { format!("{}/s", human::count(rate)) } else { String::new() };
    let waiting = match beyond.held_bytes {
        0 => String::new(),
        bytes => human::bytes(bytes as f64),
    };
    rates.map(|(what, of)| (what, rate(of))).into_iter().chain([("waiting", waiting)])
}

fn keys(app: &App, shard: &ShardFigures, area: Rect, buffer: &mut Buffer) {
    let (theme, glyphs) = (app.look.theme, app.look.glyphs);
    panel::text(app, "hottest keys, of the shard's records", theme.dim(), area, 0, buffer);
    if shard.keys.is_empty() {
        panel::text(app, "none stands out", Style::new(), area, 1, buffer);
    }
    let name_width = usize::from(area.width.saturating_sub(22)).clamp(4, 28);
    for (row, key) in (1..).zip(&shard.keys) {
        let name = fit(&key.key, name_width, glyphs);
        Words::new(area)
            .add(format!("{name:<name_width$} "), theme.bold())
            .add(format!("{:>3.0} % ", key.share * 100.0), Style::new())
            .add(glyphs.bar(key.share, 12), theme.into())
            .draw(area, row, buffer);
    }
}
