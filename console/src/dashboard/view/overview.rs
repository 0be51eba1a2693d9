//! Overview: TPS, propagation delay, backlog, cores and shards, Watch.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};

use super::panel::{self, Words, below};
use crate::dashboard::app::App;
use crate::dashboard::figures::{self, Flow, ShardFigures};
use crate::dashboard::model::{HEADLINE, Series};
use crate::dashboard::player::Link;
use crate::dashboard::watch::{self, Level};
use crate::dashboard::widgets::chart::{self, Chart, Curve, Scale};
use crate::dashboard::widgets::fit;
use crate::human;

/// A core this busy has no room left.
const BUSY: f64 = 0.95;

/// Panels that are half of 80 columns: less air between words.
const NARROW: u16 = 46;

/// Where the panels are.
pub fn areas(app: &App, body: Rect) -> Vec<Rect> {
    let groups = app.groups().len().max(1) as u16;
    // The charts keep half of the height; the lists share the other, and leave to the charts what they do not need.
    let lists = body.height / 2;
    let backlog_height = groups.saturating_add(3).min((lists / 2).max(5));
    let rest = lists.saturating_sub(backlog_height);
    let lower_height = wanted_height(app).min(rest.max(6));
    let [upper, backlog, lower] = Layout::vertical([
        Constraint::Min(0),
        Constraint::Length(backlog_height),
        Constraint::Length(lower_height),
    ])
    .areas(body);
    let halves = [Constraint::Percentage(50), Constraint::Percentage(50)];
    let [tps, delay] = Layout::horizontal(halves).areas(upper);
    let [cells, watch] = Layout::horizontal(halves).areas(lower);
    vec![tps, delay, backlog, cells, watch]
}

/// Lines the cores, shards and notices would like, frames included.
fn wanted_height(app: &App) -> u16 {
    let Some(figures) = app.picture().figures.as_ref() else { return 5 };
    let left = 2 + figures.cores.len().div_ceil(3) + streams(app).len();
    let right = watch::notices(app.picture()).len().max(3);
    left.max(right).min(40) as u16 + 2
}

/// TPS in and out: figures of the last sample, a chart of the window.
pub fn tps(app: &App, focused: bool, area: Rect, buffer: &mut Buffer) {
    let theme = app.look.theme;
    let inner = panel::frame(app, "TPS", "in filled, out line", focused, area, buffer);
    let picture = app.picture();
    let Some(figures) = &picture.figures else { return };
    let line = |name: &str, style, flow: Flow| {
        Words::new(inner)
            .add(format!("{name:<4}"), style)
            .add(format!("{:>6}", human::count(flow.records)), theme.bold())
            .add(" rec/s", theme.dim())
            .add(format!("  {:>9}", human::bytes(flow.bytes) + "/s"), ratatui::style::Style::new())
    };
    let peak = |peak: crate::dashboard::model::Peak| {
        let mark = app.look.glyphs.peak();
        [
            (format!("  {mark} {}", human::count(peak.value)), theme.dim()),
            (String::new(), theme.dim()),
        ]
    };
    let at = |peak: crate::dashboard::model::Peak| match peak.at_ns {
        0 => String::new(),
        ns => format!(" at {}", app.clock(ns)),
    };
    let (peak_in, peak_out) = (picture.peaks.tps_in, picture.peaks.tps_out);
    let into = line("in", theme.into(), figures.into).all(peak(peak_in));
    into.add(at(peak_in), theme.dim()).draw(inner, 0, buffer);
    let out = line("out", theme.out(), figures.out).all(peak(peak_out));
    out.add(at(peak_out), theme.dim()).draw(inner, 1, buffer);
    let place = below(inner, 2);
    let (window, dots) = (app.window(), panel::dots(app, place));
    let into = picture.series(Series::TpsIn, window, dots);
    let out = picture.series(Series::TpsOut, window, dots);
    let highest = into.iter().chain(&out).flatten().copied().fold(0.0, f64::max);
    let chart = Chart {
        curves: vec![Curve::filled(into, theme.into()), Curve::line(out, theme.out())],
        scale: Scale::linear(highest, human::count),
        below: panel::time_labels(app),
        limit: None,
    };
    chart::draw(&chart, theme, app.look.glyphs, place, buffer);
}

/// Propagation delay: percentiles of the last ten seconds, a chart of p50 and p99 over the window.
pub fn delay(app: &App, focused: bool, area: Rect, buffer: &mut Buffer) {
    let theme = app.look.theme;
    let inner = panel::frame(app, "Propagation delay", "p99 above p50", focused, area, buffer);
    let (picture, window) = (app.picture(), app.window());
    if picture.figures.is_none() {
        return;
    }
    let tail = picture.propagation;
    if tail.count == 0 {
        panel::nothing(app, "nothing was delivered to a subscriber", inner, buffer);
        return;
    }
    let value =
        |name: &str, ns: u64| [(name.to_owned(), theme.dim()), (human::nanos(ns), theme.bold())];
    let narrow = inner.width < NARROW;
    let gap = if narrow { " " } else { "  " };
    Words::new(inner)
        .all(value("p50 ", tail.p50))
        .all(value(&format!("{gap}p99 "), tail.p99))
        .all(value(&format!("{gap}p99.9 "), tail.p999))
        .add(format!("  {}", human::duration(HEADLINE)), theme.dim())
        .draw(inner, 0, buffer);
    let slo = app.look.slo;
    let slo_ns = u64::try_from(slo.as_nanos()).unwrap_or(u64::MAX);
    let (verdict, style) =
        if tail.p99 <= slo_ns { ("OK", theme.good()) } else { ("MISSED", theme.bad()) };
    let limit = match narrow {
        true => "  SLO ".to_owned(),
        false => format!("  SLO {} ", human::nanos(slo_ns)),
    };
    let mut second = Words::new(inner);
    if let Some((max, at)) = picture.slowest(window) {
        second = second.all(value("max ", max)).add(format!(" at {}", app.clock(at)), theme.dim());
    }
    second.all([(limit, theme.dim()), (verdict.to_owned(), style)]).draw(inner, 1, buffer);
    let place = below(inner, 2);
    let dots = panel::dots(app, place);
    let (p50, p99) =
        (picture.series(Series::P50, window, dots), picture.series(Series::P99, window, dots));
    let low = p50.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    let high = p99.iter().flatten().copied().fold(0.0, f64::max);
    // The limit is in the picture when it is near.
    let high = if slo_ns as f64 <= high * 10.0 { high.max(slo_ns as f64 * 1.2) } else { high };
    let log = |values: Vec<Option<f64>>| -> Vec<Option<f64>> {
        values.into_iter().map(|v| v.map(|v| v.max(1.0).log10())).collect()
    };
    let chart = Chart {
        curves: vec![Curve::line(log(p50), theme.into()), Curve::line(log(p99), theme.tail())],
        scale: Scale::logarithmic(if low.is_finite() { low as u64 } else { 1 }, high as u64),
        below: panel::time_labels(app),
        limit: Some(((slo_ns.max(1) as f64).log10(), "SLO".to_owned())),
    };
    chart::draw(&chart, theme, app.look.glyphs, place, buffer);
}

/// The shards of each stream, the busiest stream first.
fn streams(app: &App) -> Vec<(&str, Vec<&ShardFigures>)> {
    let mut streams: Vec<(&str, Vec<&ShardFigures>)> = Vec::new();
    for shard in app.picture().headline.as_ref().map_or(&[][..], |f| &f.shards) {
        match streams.last_mut() {
            Some((name, shards)) if *name == shard.stream => shards.push(shard),
            _ => streams.push((&shard.stream, vec![shard])),
        }
    }
    let rate = |shards: &[&ShardFigures]| shards.iter().map(|s| s.into.records).sum::<f64>();
    streams.sort_by(|a, b| rate(&b.1).total_cmp(&rate(&a.1)));
    streams
}

/// Durable writes, cores and shards, a cell each.
pub fn cells(app: &App, focused: bool, area: Rect, buffer: &mut Buffer) {
    let (theme, glyphs) = (app.look.theme, app.look.glyphs);
    let picture = app.picture();
    let streams = streams(app);
    let cores = picture.headline.as_ref().map_or(&[][..], |f| &f.cores);
    let per_row = (usize::from(area.width.saturating_sub(3)) / 14).max(1);
    let lines = 2 + cores.len().div_ceil(per_row) + streams.len();
    let room = usize::from(area.height.saturating_sub(2));
    let more = lines.saturating_sub(room);
    let bottom = if more > 0 && room > 0 { format!("+{more} more") } else { String::new() };
    let inner = panel::frame(app, "Cores and shards", &bottom, focused, area, buffer);
    if picture.headline.is_none() {
        return;
    }
    let write = picture.write;
    let gap = if inner.width < NARROW { " " } else { "  " };
    Words::new(inner)
        .add("durable write ", theme.dim())
        .add("p50 ", theme.dim())
        .add(write.time(|t| t.p50), theme.bold())
        .all([(format!("{gap}p99 "), theme.dim()), (write.time(|t| t.p99), theme.bold())])
        .draw(inner, 0, buffer);
    let mut row = 1;
    for chunk in cores.chunks(per_row) {
        let mut words = Words::new(inner);
        for core in chunk {
            let (style, mark) =
                if core.busy > BUSY { (theme.bad(), "!") } else { (theme.into(), " ") };
            let cell = format!("{}{:>3.0} %{mark} ", glyphs.column(core.busy), core.busy * 100.0);
            words = words.all([(format!("core {:<2}", core.core), theme.dim()), (cell, style)]);
        }
        words.draw(inner, row, buffer);
        row += 1;
    }
    for (name, shards) in streams {
        stream(app, name, &shards, inner, row, buffer);
        row += 1;
    }
    let memory = cores.iter().map(|c| c.buffer_used).sum::<u64>();
    let connections = cores.iter().map(|c| c.connections).max().unwrap_or(0);
    Words::new(inner)
        .add(format!("buffers {}", human::bytes(memory as f64)), theme.dim())
        .add(format!("  {}", human::plural(connections as usize, "connection")), theme.dim())
        .draw(inner, row, buffer);
}

/// A stream's shards: a cell each, relative to the busiest, then the range of rates and the skew.
fn stream(
    app: &App,
    name: &str,
    shards: &[&ShardFigures],
    area: Rect,
    row: u16,
    buffer: &mut Buffer,
) {
    let (theme, glyphs) = (app.look.theme, app.look.glyphs);
    let rates = || shards.iter().map(|s| s.into.records);
    let (low, high) = (rates().fold(f64::MAX, f64::min), rates().fold(0.0, f64::max));
    let owned: Vec<ShardFigures> = shards.iter().map(|s| (*s).clone()).collect();
    let range = match (human::count(low), human::count(high)) {
        (_, high) if high == "0" => "  idle".to_owned(),
        (low, high) if low == high => format!("  {high} rec/s"),
        (low, high) => format!("  {low}..{high} rec/s"),
    };
    let skew = figures::skew(&owned).map_or_else(String::new, |skew| format!("  skew {skew:.2}"));
    let name = format!("{:<10} ", fit(name, 10, glyphs));
    let room =
        usize::from(area.width).saturating_sub(name.len() + range.len() + skew.len() + 3).max(4);
    let mut cells: String = rates()
        .take(room)
        .map(|rate| glyphs.column(if high > 0.0 { rate / high } else { 0.0 }))
        .collect();
    if shards.len() > room {
        cells.pop();
        cells += glyphs.ellipsis();
    }
    Words::new(area)
        .add(name, theme.dim())
        .add(cells, theme.into())
        .add(range, theme.dim())
        .add(skew, theme.dim())
        .draw(area, row, buffer);
}

/// What is worth a look; with room, also where it comes from and what to do.
pub fn watch(app: &App, focused: bool, area: Rect, buffer: &mut Buffer) {
    let theme = app.look.theme;
    let picture = app.picture();
    let mut all: Vec<(&str, String, ratatui::style::Style, Option<&watch::Rule>)> = Vec::new();
    if let Link::Lost(reason) = &app.link {
        all.push(("!!", reason.clone(), theme.bad(), None));
    }
    for notice in watch::notices(picture) {
        let style = match notice.level {
            Level::Bad => theme.bad(),
            Level::Warn => theme.warn(),
            Level::Info => theme.dim(),
        };
        all.push((notice.level.mark(), notice.text, style, watch::rule(notice.rule)));
    }
    let width = usize::from(area.width.saturating_sub(2 + 5)).max(8);
    let room = usize::from(area.height.saturating_sub(2));
    let lines = |explained: bool| {
        let mut lines = Vec::new();
        for (mark, text, style, rule) in &all {
            for (number, line) in human::wrap(text, width).into_iter().enumerate() {
                let mark = if number == 0 { *mark } else { "" };
                lines.push((format!("{mark:<2} {line}"), *style));
            }
            if let (true, Some(rule)) = (explained, rule) {
                for text in [format!("from: {}", rule.cause), format!("do: {}", rule.remedy)] {
                    for line in human::wrap(&text, width.saturating_sub(2)) {
                        lines.push((format!("     {line}"), theme.dim()));
                    }
                }
            }
        }
        lines
    };
    let explained = lines(true);
    let lines =
        if explained.len() <= room || app.place().expanded { explained } else { lines(false) };
    let more = lines.len().saturating_sub(room);
    let bottom =
        if more > 0 && room > 0 { format!("+{more} more, e expands") } else { String::new() };
    let inner = panel::frame(app, "Watch", &bottom, focused, area, buffer);
    for (row, (line, style)) in lines.iter().enumerate().take(room) {
        panel::text(app, line, *style, inner, row as u16, buffer);
    }
    if lines.is_empty() && picture.figures.is_some() {
        let about = &picture.about;
        panel::text(app, "nothing to report", theme.good(), inner, 0, buffer);
        let server = format!("highwater {}", about.server);
        panel::text(app, &server, theme.dim(), inner, 1, buffer);
        for (row, line) in (2..).zip(human::wrap(&about.durability, width)) {
            panel::text(app, &line, theme.dim(), inner, row, buffer);
        }
    }
}
