//! Latency: the percentile spectrum, where the time goes, and delay over time as a heat map.

use highwater_wire::telemetry::Distribution;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;

use super::panel::{self, Words, below};
use crate::dashboard::app::App;
use crate::dashboard::figures::Measured;
use crate::dashboard::model::{HEAT_ROWS, heat_bound};
use crate::dashboard::widgets::chart::{self, Chart, Curve, LABEL, Scale};
use crate::dashboard::widgets::heat;
use crate::dashboard::widgets::table::{Cell, Column, Table};
use crate::human;

/// Where the panels are.
pub fn areas(body: Rect) -> Vec<Rect> {
    let lower = (body.height * 2 / 5).clamp(9, 24).min(body.height);
    let [spectrum, lower] =
        Layout::vertical([Constraint::Min(0), Constraint::Length(lower)]).areas(body);
    let halves = [Constraint::Percentage(50), Constraint::Percentage(50)];
    let [stages, heat] = Layout::horizontal(halves).areas(lower);
    vec![spectrum, stages, heat]
}

/// Percentiles over the window, on an axis on which each nine takes the same room.
pub fn spectrum(app: &App, focused: bool, area: Rect, buffer: &mut Buffer) {
    let theme = app.look.theme;
    let window = human::span(app.window());
    let title = format!("Percentile spectrum, last {window}");
    let inner = panel::frame(
        app,
        &title,
        "each nine of the percentile takes the same room",
        focused,
        area,
        buffer,
    );
    let picture = app.picture();
    if picture.figures.is_none() {
        return;
    }
    let of = |what| picture.distribution(what, app.window());
    let lines = [
        ("propagation", of(Measured::Propagation), theme.tail()),
        ("append", of(Measured::Append), theme.into()),
        ("durable write", of(Measured::Write), theme.out()),
    ];
    let mut row = 0;
    for (name, distribution, style) in &lines {
        tail(name, distribution, *style, app, inner, row, buffer);
        row += 1;
    }
    let place = below(inner, row);
    let count = lines.iter().map(|(_, d, _)| d.count()).max().unwrap_or(0);
    if count == 0 {
        return panel::nothing(app, "nothing was measured", place, buffer);
    }
    // Beyond the last nine that ten values stand behind there is only noise.
    let nines = (count as f64 / 10.0).log10().clamp(2.0, 6.0);
    let dots = panel::dots(app, place);
    let curve = |distribution: &Distribution, style| {
        let value = |dot: usize| {
            let q = 1.0 - 10f64.powf(-nines * dot as f64 / (dots.max(2) - 1) as f64);
            distribution.quantile(q).map(|ns| (ns.max(1) as f64).log10())
        };
        Curve::line((0..dots).map(value).collect(), style)
    };
    let extreme = |q: f64| lines.iter().filter_map(move |(_, d, _)| d.quantile(q));
    let (low, high) = (extreme(0.0).min().unwrap_or(1), extreme(1.0).max().unwrap_or(1));
    let slo = u64::try_from(app.look.slo.as_nanos()).unwrap_or(u64::MAX).max(1);
    let labels = [(0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99")];
    let mut below: Vec<(f64, String)> = vec![(0.0, "0 %".to_owned())];
    below.extend(
        labels
            .into_iter()
            .chain([(0.99999, "99.999"), (0.999_999, "99.9999")])
            .map(|(q, text)| (-(1.0f64 - q).log10() / nines, text.to_owned()))
            .filter(|(share, _)| *share <= 1.0 + 1e-9),
    );
    let chart = Chart {
        curves: lines.iter().rev().map(|(_, d, style)| curve(d, *style)).collect(),
        scale: Scale::logarithmic(low, high),
        below,
        limit: Some(((slo as f64).log10(), "SLO".to_owned())),
    };
    chart::draw(&chart, theme, app.look.glyphs, place, buffer);
}

fn tail(
    name: &str,
    of: &Distribution,
    style: Style,
    app: &App,
    area: Rect,
    row: u16,
    buffer: &mut Buffer,
) {
    let theme = app.look.theme;
    let mut words = Words::new(area).add(format!("{name:<14}"), style);
    if of.count() == 0 {
        words.add("nothing measured", theme.dim()).draw(area, row, buffer);
        return;
    }
    for (label, q) in
        [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)]
    {
        let value = human::nanos(of.quantile(q).unwrap_or(0));
        words =
            words.all([(format!("{label} "), theme.dim()), (format!("{value:<9}"), theme.bold())]);
    }
    let max = human::nanos(of.max);
    words
        .all([("max ".to_owned(), theme.dim()), (format!("{max:<9}"), theme.bold())])
        .add(format!("{} values", human::count(of.count() as f64)), theme.dim())
        .draw(area, row, buffer);
}

/// Characters of a bar.
const BAR: usize = 14;

const STAGES: [Column; 6] = [
    Column::words("stage", 7, 0).growing(),
    Column::figures("mean", 8, 0),
    Column::words("", BAR as u16, 1),
    Column::figures("p50", 8, 3),
    Column::figures("p99", 8, 0),
    Column::figures("max", 8, 4),
];

/// The stages of a record's way: their means add up.
pub fn stages(app: &App, focused: bool, area: Rect, buffer: &mut Buffer) {
    let (theme, glyphs, picture) = (app.look.theme, app.look.glyphs, app.picture());
    let title = format!("Where the time goes, last {}", human::span(app.window()));
    let inner = panel::frame(app, &title, "", focused, area, buffer);
    if picture.figures.is_none() {
        return;
    }
    let stages = [
        ("queue", Measured::Queue),
        ("write", Measured::Write),
        ("ack", Measured::Ack),
        ("deliver", Measured::Deliver),
    ]
    .map(|(name, what)| (name, picture.distribution(what, app.window())));
    let mean = |d: &Distribution| d.sum.checked_div(d.count()).unwrap_or(0);
    let time = |ns: u64| if ns == 0 { "-".to_owned() } else { human::nanos(ns) };
    let longest = stages.iter().map(|(_, d)| mean(d)).max().unwrap_or(0).max(1);
    let rows = stages.iter().map(|(name, d)| {
        let at = |q| d.quantile(q).map_or_else(|| "-".to_owned(), human::nanos);
        let share = mean(d) as f64 / longest as f64;
        vec![
            Cell::styled(*name, theme.bold()),
            time(mean(d)).into(),
            Cell::styled(glyphs.bar(share, BAR).trim_end(), theme.into()),
            at(0.5).into(),
            at(0.99).into(),
            time(d.max).into(),
        ]
    });
    let table = Table { columns: &STAGES, rows: rows.collect(), selected: None, sorted: None };
    let place = Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner };
    table.draw(theme, glyphs, place, buffer);
    let sum = |parts: &[usize]| parts.iter().map(|&i| mean(&stages[i].1)).sum::<u64>();
    // A line apart, where there is one.
    let after = below(inner, if inner.height < 8 { 5 } else { 6 });
    let ways = [("to the producer", &[0, 1, 2], "ack"), ("to a consumer", &[0, 1, 3], "deliver")];
    for (row, (name, parts, last)) in ways.into_iter().enumerate() {
        Words::new(after)
            .add(format!("{name:<15}  "), theme.dim())
            .add(time(sum(parts)), theme.bold())
            .add(format!("  queue + write + {last}"), theme.dim())
            .draw(after, row as u16, buffer);
    }
}

/// Propagation delay over time.
pub fn heat(app: &App, focused: bool, area: Rect, buffer: &mut Buffer) {
    let (theme, glyphs, picture) = (app.look.theme, app.look.glyphs, app.picture());
    let inner = panel::frame(
        app,
        "Propagation delay over time",
        "denser is more records",
        focused,
        area,
        buffer,
    );
    if inner.height < 3 || inner.width < LABEL + 6 || picture.figures.is_none() {
        return;
    }
    let map = Rect {
        x: inner.x + LABEL + 1,
        width: inner.width - LABEL - 1,
        height: inner.height - 1,
        ..inner
    };
    // No more columns than samples: where there is room for more, each is drawn several times.
    let width = usize::from(map.width);
    let n = width.min(app.window().as_secs().max(1) as usize);
    let measured = picture.heat(app.window(), n);
    let columns: Vec<_> = (0..width).map(|x| measured[x * n / width]).collect();
    // Only the rows that anything fell into, and one around them.
    let used = |row: usize| columns.iter().any(|column| column[row] > 0);
    let Some(lowest) = (0..HEAT_ROWS).find(|row| used(*row)) else {
        return panel::nothing(app, "nothing was delivered to a subscriber", inner, buffer);
    };
    let highest = (0..HEAT_ROWS).rev().find(|row| used(*row)).unwrap_or(lowest);
    let room = usize::from(map.height);
    let from = lowest.saturating_sub(1);
    let to = (highest + 1).min(HEAT_ROWS - 1).max((from + room.min(6) - 1).min(HEAT_ROWS - 1));
    let rows = to - from + 1;
    // Rows of the map as characters: several in one where there is no room, several characters where there is.
    let merge = rows.div_ceil(room);
    let drawn = rows.div_ceil(merge);
    let tall = (room / drawn).max(1);
    let cells: Vec<Vec<u64>> = columns
        .iter()
        .map(|column| {
            let merged = column[from..=to].chunks(merge).map(|chunk| chunk.iter().sum::<u64>());
            merged.flat_map(|count| std::iter::repeat_n(count, tall)).collect()
        })
        .collect();
    let height = (drawn * tall).min(room) as u16;
    let map = Rect { y: map.bottom() - height, height, ..map };
    heat::draw(&cells, theme, glyphs, map, buffer);
    for number in 0..drawn {
        let bottom = map.bottom().saturating_sub((number * tall) as u16 + 1);
        let top = bottom.saturating_sub(tall as u16 - 1);
        let bound = heat_bound((from + (number + 1) * merge - 1).min(HEAT_ROWS - 1));
        // Every label would be too many: each second where rows are low.
        if tall == 1 && number % 2 == 1 && drawn > 4 {
            continue;
        }
        let text = bound.map_or_else(
            || ">10s".to_owned(),
            |ns| human::nanos(ns).replace(".00", "").replace(".0", "").replace(' ', ""),
        );
        let width = usize::from(LABEL);
        if top >= inner.y {
            buffer.set_string(inner.x, top, format!("{text:>width$}"), theme.dim());
        }
    }
    for y in map.y..map.bottom() {
        let bar = if glyphs == crate::dashboard::glyphs::Glyphs::Ascii { "|" } else { "│" };
        buffer.set_string(map.x - 1, y, bar, theme.dim());
    }
    let y = inner.bottom() - 1;
    for (share, text) in panel::time_labels(app) {
        let x = if share > 0.5 { map.right().saturating_sub(text.len() as u16) } else { map.x };
        buffer.set_stringn(x, y, text, usize::from(map.width), theme.dim());
    }
}
