//! Load: the load generator as it runs, or the trials of a search.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;

use super::panel::{self, Words, below};
use crate::dashboard::app::App;
use crate::dashboard::load::{LoadFeed, Percentiles, Tick};
use crate::dashboard::widgets::chart::{self, Chart, Curve, Scale};
use crate::dashboard::widgets::table::{Cell, Column, Table};
use crate::human;

/// Where the panels are.
pub fn areas(app: &App, body: Rect) -> Vec<Rect> {
    if app.load.is_none() {
        return vec![body];
    }
    let result = app.load.as_ref().and_then(|feed| feed.result.as_ref()).map_or(0, Vec::len);
    let searching = app.load.as_ref().is_some_and(|feed| feed.plan.budget_s.is_some());
    let least = if searching { 5 } else { 4 };
    let outcome = (result as u16).saturating_add(2).clamp(least, (body.height / 3).max(least));
    let [upper, outcome] =
        Layout::vertical([Constraint::Min(0), Constraint::Length(outcome)]).areas(body);
    let halves = [Constraint::Percentage(50), Constraint::Percentage(50)];
    let [left, right] = Layout::horizontal(halves).areas(upper);
    let words = app.load.as_ref().map_or(1, |feed| plan(feed, left).len().min(2)) as u16;
    let [run, rate] =
        Layout::vertical([Constraint::Length(10 + words), Constraint::Min(0)]).areas(left);
    vec![run, rate, right, outcome]
}

/// What is run, in the lines of a frame in `area`.
fn plan(feed: &LoadFeed, area: Rect) -> Vec<String> {
    human::wrap(&feed.plan.words, usize::from(area.width.saturating_sub(4)))
}

/// A time in microseconds.
fn micros(us: f64) -> String {
    human::nanos((us * 1e3) as u64)
}

/// What is shown when no generator runs in this process.
fn absent(app: &App, area: Rect, buffer: &mut Buffer) {
    if app.player.replaying() {
        return panel::nothing(
            app,
            "a recording has what a server said, no load generator",
            area,
            buffer,
        );
    }
    panel::nothing(app, "no load generator runs in this process", area, buffer);
    let hints = [
        "`highwater load run`, `burst`, `backlog`, `search` and `sweep` show themselves here",
        "`highwater demo` shows its own",
        "what any of them does to this server is on 1 to 4",
    ];
    for (row, hint) in (2..).zip(hints) {
        panel::text(app, hint, app.look.theme.dim(), area, row, buffer);
    }
}

/// The last second of the run.
pub fn run(app: &App, focused: bool, area: Rect, buffer: &mut Buffer) {
    let theme = app.look.theme;
    let title =
        app.load.as_ref().map_or("Load".to_owned(), |feed| format!("Load {}", feed.plan.what));
    let inner = panel::frame(app, title.trim(), "", focused, area, buffer);
    let Some(feed) = &app.load else { return absent(app, inner, buffer) };
    let words = plan(feed, area);
    for (row, line) in (0..2).zip(&words) {
        panel::text(app, line, Style::new(), inner, row, buffer);
    }
    let inner = below(inner, u16::from(words.len() > 1));
    let Some(tick) = feed.ticks.back() else {
        panel::text(app, "waiting for the first second", theme.dim(), inner, 1, buffer);
        return;
    };
    progress(app, tick, inner, 1, buffer);
    let line =
        |name: &str, row: u16, value: String, style: Style, more: String, buffer: &mut Buffer| {
            Words::new(inner)
                .add(format!("{name:<12}"), theme.dim())
                .add(value, style)
                .add(more, theme.dim())
                .draw(inner, row, buffer);
        };
    let plain = theme.bold();
    let offered = tick
        .offered_per_s
        .map_or("as fast as it goes".to_owned(), |rate| format!("{}/s", human::count(rate)));
    line("offered", 2, offered, plain, String::new(), buffer);
    let more = format!("  {}/s", human::bytes(tick.acked_bytes_per_s));
    line("acked", 3, format!("{}/s", human::count(tick.acked_per_s)), plain, more, buffer);
    let more = format!("  {} unread", human::counted(tick.backlog, "record"));
    line("read", 4, format!("{}/s", human::count(tick.consumed_per_s)), plain, more, buffer);
    distribution("response", &tick.response, feed.plan.slo_us, app, inner, 5, buffer);
    distribution("propagation", &tick.propagation, None, app, inner, 6, buffer);
    let lag = tick.send_lag;
    let (verdict, style) = match feed.plan.lag_budget_us {
        Some(budget) if lag.p99 > budget => {
            (format!("late, budget {}", micros(budget)), theme.bad())
        }
        Some(budget) => (format!("OK, budget {}", micros(budget)), theme.good()),
        None => (String::new(), theme.dim()),
    };
    let lag_text =
        if lag.count > 0 { format!("p99 {}  ", micros(lag.p99)) } else { "-  ".to_owned() };
    Words::new(inner)
        .add(format!("{:<12}", "send lag"), theme.dim())
        .add(lag_text, plain)
        .add(verdict, style)
        .draw(inner, 7, buffer);
    let trouble = tick.refused + tick.errors + tick.unsent;
    let style = if trouble > 0 { theme.warn() } else { theme.dim() };
    Words::new(inner)
        .add(format!("{} refused", human::count(tick.refused as f64)), style)
        .add(format!("  {} errors", human::count(tick.errors as f64)), style)
        .add(format!("  {} unsent", human::count(tick.unsent as f64)), style)
        .draw(inner, 8, buffer);
}

fn progress(app: &App, tick: &Tick, area: Rect, row: u16, buffer: &mut Buffer) {
    let theme = app.look.theme;
    let time = |s: f64| human::duration(std::time::Duration::from_secs_f64(s.clamp(0.0, 1e9)));
    let (passed, of) = tick.of_phase();
    let mut words = Words::new(area)
        .add(format!("{:<9}", tick.phase), theme.bold())
        .add(time(passed), Style::new());
    if let Some(of) = of.filter(|of| *of > 0.0 && *of < 1e7) {
        let most = if tick.warms_up_openly() { " of at most " } else { " of " };
        words = words
            .add(format!("{most}{} ", time(of)), theme.dim())
            .add(app.look.glyphs.bar(passed / of, 14), theme.into());
    }
    words
        .add(format!("  {}", human::counted(tick.acked, "record")), theme.dim())
        .draw(area, row, buffer);
}

fn distribution(
    name: &str,
    of: &Percentiles,
    slo_us: Option<f64>,
    app: &App,
    area: Rect,
    row: u16,
    buffer: &mut Buffer,
) {
    let theme = app.look.theme;
    let words = Words::new(area).add(format!("{name:<12}"), theme.dim());
    if of.count == 0 {
        words.add("-", theme.dim()).draw(area, row, buffer);
        return;
    }
    let style = match slo_us {
        Some(slo) if of.p99 > slo => theme.bad(),
        Some(_) => theme.good(),
        None => theme.bold(),
    };
    words
        .add(format!("p50 {}  ", micros(of.p50)), Style::new())
        .add(format!("p99 {}  ", micros(of.p99)), style)
        .add(format!("p99.9 {}  ", micros(of.p999)), Style::new())
        .add(format!("max {}", micros(of.max)), theme.dim())
        .draw(area, row, buffer);
}

/// Acknowledged and offered records over time; in a search what is late by rate.
pub fn rate(app: &App, focused: bool, area: Rect, buffer: &mut Buffer) {
    if let Some(feed) = app.load.as_ref().filter(|feed| feed.curve.is_some()) {
        return curve(app, feed, focused, area, buffer);
    }
    let theme = app.look.theme;
    let inner = panel::frame(app, "Rate", "acked filled, offered line", focused, area, buffer);
    let Some(feed) = &app.load else { return };
    let seconds = seconds(app);
    let acked = stretched(feed, seconds, panel::dots(app, inner), |t| Some(t.acked_per_s));
    let offered = stretched(feed, seconds, panel::dots(app, inner), |t| t.offered_per_s);
    let top = acked.iter().chain(&offered).flatten().copied().fold(0.0, f64::max);
    let chart = Chart {
        curves: vec![Curve::filled(acked, theme.into()), Curve::line(offered, theme.tail())],
        scale: Scale::linear(top, human::count),
        below: vec![(0.0, format!("-{}", human::span(app.window()))), (1.0, "now".to_owned())],
        limit: None,
    };
    chart::draw(&chart, theme, app.look.glyphs, inner, buffer);
}

/// Shares less than the allowed one by this factor are drawn on the bottom edge.
const DEEP: f64 = 100.0;

/// The trials of a search and the curve through them: share of records over the SLO by rate.
fn curve(app: &App, feed: &LoadFeed, focused: bool, area: Rect, buffer: &mut Buffer) {
    let theme = app.look.theme;
    let words = "share over the SLO by rate; trials dim, fit bold";
    let inner = panel::frame(app, "Response curve", words, focused, area, buffer);
    let Some(response) = &feed.curve else { return };
    let counted: Vec<(f64, f64)> = feed
        .trials
        .iter()
        .filter(|trial| trial.kept.is_some())
        .map(|trial| (trial.rate, trial.over))
        .collect();
    let top = counted.iter().map(|(rate, _)| *rate).fold(0.0, f64::max);
    if top <= 0.0 {
        return panel::nothing(app, "no trial counts yet", inner, buffer);
    }
    let least = (response.allowed / DEEP).clamp(1e-6, 0.01);
    let dots = panel::dots(app, inner);
    let drawn = |points: &[(f64, f64)]| {
        let mut values: Vec<Option<f64>> = vec![None; dots];
        for (rate, share) in points {
            let dot = (rate / top * dots.saturating_sub(1) as f64).round().max(0.0) as usize;
            if let Some(value) = values.get_mut(dot) {
                let place = share.clamp(least, 1.0).log10();
                *value = Some(value.map_or(place, |there: f64| there.max(place)));
            }
        }
        values
    };
    let label = |share: f64| (share.log10(), format!("{}%", share * 100.0));
    let labels = [1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 1.0].into_iter().filter(|at| *at >= least);
    let chart = Chart {
        curves: vec![
            Curve::line(drawn(&counted), theme.dim()),
            Curve::line(drawn(&response.curve), theme.tail()),
        ],
        scale: Scale { bounds: [least.log10(), 0.0], labels: labels.map(label).collect() },
        below: vec![(0.0, "0".to_owned()), (1.0, format!("{}/s", human::count(top)))],
        limit: Some((response.allowed.max(least).log10(), "SLO".to_owned())),
    };
    chart::draw(&chart, theme, app.look.glyphs, inner, buffer);
}

fn seconds(app: &App) -> usize {
    app.window().as_secs() as usize
}

/// The last `seconds` of the feed over so many `dots`; a dot that holds several seconds shows the largest.
fn stretched(
    feed: &LoadFeed,
    seconds: usize,
    dots: usize,
    of: impl Fn(&Tick) -> Option<f64>,
) -> Vec<Option<f64>> {
    let values = feed.series(seconds, of);
    let mut out: Vec<Option<f64>> = vec![None; dots];
    for (second, value) in values.into_iter().enumerate() {
        let dot = (second + 1) * dots / seconds.max(1);
        if let (Some(slot), Some(value)) = (out.get_mut(dot.saturating_sub(1)), value) {
            *slot = Some(slot.map_or(value, |v| v.max(value)));
        }
    }
    out
}

/// Response over time; in a search the share over the SLO by rate.
pub fn response(app: &App, focused: bool, area: Rect, buffer: &mut Buffer) {
    let searching = app.load.as_ref().is_some_and(|feed| !feed.trials.is_empty());
    if searching {
        return trials(app, focused, area, buffer);
    }
    let theme = app.look.theme;
    let inner = panel::frame(app, "Response", "p99 above p50", focused, area, buffer);
    let Some(feed) = &app.load else { return };
    let dots = panel::dots(app, inner);
    let curve = |of: fn(&Percentiles) -> f64| {
        stretched(feed, seconds(app), dots, |t| {
            (t.response.count > 0).then(|| of(&t.response) * 1e3)
        })
    };
    let (p50, p99) = (curve(|p| p.p50), curve(|p| p.p99));
    let low = p50.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    let high = p99.iter().flatten().copied().fold(0.0, f64::max);
    if !low.is_finite() {
        return panel::nothing(app, "nothing was acknowledged yet", inner, buffer);
    }
    let log = |values: Vec<Option<f64>>| -> Vec<Option<f64>> {
        values.into_iter().map(|v| v.map(|v| v.max(1.0).log10())).collect()
    };
    let slo = feed.plan.slo_us.map(|us| ((us * 1e3).max(1.0).log10(), "SLO".to_owned()));
    let chart = Chart {
        curves: vec![Curve::line(log(p50), theme.into()), Curve::line(log(p99), theme.tail())],
        scale: Scale::logarithmic(low as u64, high as u64),
        below: vec![(0.0, format!("-{}", human::span(app.window()))), (1.0, "now".to_owned())],
        limit: slo,
    };
    chart::draw(&chart, theme, app.look.glyphs, inner, buffer);
}

const TRIALS: [Column; 5] = [
    Column::figures("trial", 5, 2),
    Column::figures("rate", 8, 0),
    Column::figures("over SLO", 8, 0),
    Column::figures("p99", 8, 1),
    Column::words("verdict", 10, 0).growing(),
];

/// The trials of a search, the newest first.
fn trials(app: &App, focused: bool, area: Rect, buffer: &mut Buffer) {
    let theme = app.look.theme;
    let Some(feed) = &app.load else { return };
    let room = usize::from(area.height.saturating_sub(3));
    let bottom = panel::shown(0, feed.trials.len(), room);
    let inner = panel::frame(app, "Trials, newest first", &bottom, focused, area, buffer);
    let rows = feed.trials.iter().enumerate().rev().take(room).map(|(number, trial)| {
        let (verdict, style) = match trial.kept {
            Some(true) => ("kept", theme.good()),
            Some(false) => ("! missed", theme.bad()),
            None => ("void", theme.dim()),
        };
        vec![
            (number + 1).to_string().into(),
            format!("{}/s", human::count(trial.rate)).into(),
            format!("{:.2} %", trial.over * 100.0).into(),
            micros(trial.p99_us).into(),
            Cell::styled(verdict, style),
        ]
    });
    let table = Table { columns: &TRIALS, rows: rows.collect(), selected: None, sorted: None };
    let inner = Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner };
    table.draw(theme, app.look.glyphs, inner, buffer);
}

/// What a search believes, or what came out.
pub fn outcome(app: &App, focused: bool, area: Rect, buffer: &mut Buffer) {
    let theme = app.look.theme;
    let feed = app.load.as_ref();
    let result = feed.and_then(|feed| feed.result.as_ref());
    let title = if result.is_some() { "Result" } else { "So far" };
    let inner = panel::frame(app, title, "", focused, area, buffer);
    let Some(feed) = feed else { return };
    if let Some(lines) = result {
        for (row, line) in lines.iter().enumerate().take(usize::from(inner.height)) {
            panel::text(app, line, Style::new(), inner, row as u16, buffer);
        }
        return;
    }
    let rate = |rate: f64| format!("{}/s", human::count(rate));
    if let Some(estimate) = &feed.estimate {
        Words::new(inner)
            .add("max sustainable ", theme.dim())
            .add(rate(estimate.rate), theme.bold())
            .add(
                format!(
                    "  95 % within {} .. {}",
                    rate(estimate.interval.0),
                    rate(estimate.interval.1)
                ),
                Style::new(),
            )
            .add(
                estimate
                    .before
                    .map_or_else(String::new, |b| format!("  was {} .. {}", rate(b.0), rate(b.1))),
                theme.dim(),
            )
            .draw(inner, 0, buffer);
        let planned = estimate.planned.map_or_else(String::new, |n| format!(" of at most {n}"));
        Words::new(inner)
            .add(format!("{}{planned}", human::plural(feed.trials.len(), "trial")), Style::new())
            .add(
                estimate.next.map_or_else(String::new, |next| format!("  next at {}", rate(next))),
                theme.dim(),
            )
            .draw(inner, 1, buffer);
        stage(app, feed, inner, 2, buffer);
        return;
    }
    if feed.stage.is_some() {
        panel::text(app, "no estimate yet", theme.dim(), inner, 0, buffer);
        stage(app, feed, inner, 1, buffer);
        return;
    }
    let worst = feed.ticks.iter().map(|t| t.response.p99).fold(0.0, f64::max);
    let top = feed.ticks.iter().map(|t| t.acked_per_s).fold(0.0, f64::max);
    let late = feed.ticks.iter().filter(|t| over(feed, t)).count();
    if feed.ticks.is_empty() {
        return;
    }
    Words::new(inner)
        .all([("highest rate ".to_owned(), theme.dim()), (rate(top), theme.bold())])
        .all([("  worst p99 of a second ".to_owned(), theme.dim()), (micros(worst), theme.bold())])
        .draw(inner, 0, buffer);
    if feed.plan.slo_us.is_some() {
        let text = format!("{late} of {} over the SLO", human::plural(feed.ticks.len(), "second"));
        panel::text(app, &text, theme.dim(), below(inner, 1), 0, buffer);
    }
}

/// What a search does now, and the time it has.
fn stage(app: &App, feed: &LoadFeed, area: Rect, row: u16, buffer: &mut Buffer) {
    let theme = app.look.theme;
    let words = feed.stage.as_ref().map_or("", |stage| stage.words.as_str());
    let left = feed.left_s().map_or_else(String::new, |left| {
        format!("  {} left", human::duration(std::time::Duration::from_secs_f64(left.min(1e9))))
    });
    Words::new(area).add(words, Style::new()).add(left, theme.dim()).draw(area, row, buffer);
}

fn over(feed: &LoadFeed, tick: &Tick) -> bool {
    feed.plan.slo_us.is_some_and(|slo| tick.response.p99 > slo)
}
