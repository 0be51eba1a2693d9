//! For a screen too small for frames: the same figures as lines, the most important first.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::{bars, panel};
use crate::dashboard::app::{App, Screen};
use crate::dashboard::figures::{Figures, Flow, Measured, Tail};
use crate::dashboard::model::Outlook;
use crate::dashboard::player::{Link, Mode};
use crate::dashboard::watch::{self, Level};
use crate::human;

/// A line and how it looks.
type Line = (String, Style);

/// Draws the lines.
pub fn draw(app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = app.look.theme;
    let mut lines = vec![head(app)];
    if let Some(figures) = &app.picture().figures {
        match app.screen {
            Screen::Overview => overview(app, figures, &mut lines),
            Screen::Shards => shards(app, figures, &mut lines),
            Screen::Latency => latency(app, &mut lines),
            Screen::Backlog => backlog(app, &mut lines),
            Screen::Load => {}
            Screen::Streams => streams(app, &mut lines),
        }
    }
    if app.link == Link::Absent && app.screen != Screen::Load {
        lines.push((super::NO_SERVER.to_owned(), theme.dim()));
    }
    if app.screen == Screen::Load {
        load(app, &mut lines);
    }
    let with_footer = area.height >= 8;
    let room = usize::from(area.height.saturating_sub(u16::from(with_footer)));
    // The list follows the cursor; the first line always stays.
    let skip = app.place().selected.min(lines.len().saturating_sub(room));
    let (first, rest) = lines.split_at(1);
    for (row, (line, style)) in first.iter().chain(rest.iter().skip(skip)).take(room).enumerate() {
        panel::text(app, line, *style, area, row as u16, buffer);
    }
    if with_footer {
        let bottom = Rect { y: area.bottom() - 1, height: 1, ..area };
        if app.typing {
            bars::footer(app, bottom, buffer);
        } else {
            panel::text(app, "? help  1-6 screen  q quit", theme.dim(), bottom, 0, buffer);
        }
    }
}

/// The screen and the state.
fn head(app: &App) -> Line {
    let theme = app.look.theme;
    let title = format!("{} {}", app.screen.index() + 1, app.screen.title());
    if app.player.replaying() {
        let at = app.player.shown_at().map(|at| app.clock(at)).unwrap_or_default();
        let word = match app.player.mode {
            Mode::Paused => "PAUSED".to_owned(),
            _ => format!("REPLAY x{}", app.player.speed()),
        };
        return (format!("{title}  {word} {at}"), theme.bold());
    }
    let (state, style) = bars::state(app, 0);
    (format!("{title}  {}", state.trim()), style)
}

fn flow(name: &str, flow: Flow) -> String {
    format!("{name:<4} {:>6}/s  {:>8}/s", human::count(flow.records), human::bytes(flow.bytes))
}

fn percentiles(tail: Tail) -> String {
    if tail.count == 0 {
        return "-".to_owned();
    }
    format!(
        "p50 {}  p99 {}  max {}",
        human::nanos(tail.p50),
        human::nanos(tail.p99),
        human::nanos(tail.max)
    )
}

fn overview(app: &App, figures: &Figures, lines: &mut Vec<Line>) {
    let (theme, picture) = (app.look.theme, app.picture());
    lines.push((flow("in", figures.into), Style::new()));
    lines.push((flow("out", figures.out), Style::new()));
    lines.push((percentiles(picture.propagation), Style::new()));
    for notice in watch::notices(picture) {
        let style = if notice.level == Level::Bad { theme.bad() } else { theme.warn() };
        lines.push((format!("{} {}", notice.level.mark(), notice.text), style));
    }
    backlog(app, lines);
    for core in &figures.cores {
        lines.push((format!("core {} {:.0} % busy", core.core, core.busy * 100.0), Style::new()));
    }
}

fn backlog(app: &App, lines: &mut Vec<Line>) {
    let theme = app.look.theme;
    for group in app.groups() {
        let (words, style) = match app.picture().outlook(group) {
            Outlook::KeepsUp => ("keeps up".to_owned(), Style::new()),
            Outlook::Drains(eta) => (format!("empty in {}", human::duration(eta)), theme.warn()),
            Outlook::Holds => ("holds".to_owned(), theme.warn()),
            Outlook::Grows => ("NEVER: it grows".to_owned(), theme.bad()),
        };
        let age = human::nanos(u64::try_from(group.age.as_nanos()).unwrap_or(u64::MAX));
        let records = human::count(group.records as f64);
        lines.push((format!("{} {records} {age} {words}", group.group), style));
    }
}

fn shards(app: &App, figures: &Figures, lines: &mut Vec<Line>) {
    for core in &figures.cores {
        let text = format!(
            "core {} {:>3.0} %  write p99 {}",
            core.core,
            core.busy * 100.0,
            core.write.time(|t| t.p99)
        );
        lines.push((text, app.look.theme.bold()));
    }
    for shard in app.shards() {
        let text = format!(
            "{} {}/s  {}",
            shard.name(),
            human::count(shard.into.records),
            shard.write.time(|t| t.p99)
        );
        lines.push((text, Style::new()));
    }
}

fn latency(app: &App, lines: &mut Vec<Line>) {
    let measured = [
        ("propag", Measured::Propagation),
        ("append", Measured::Append),
        ("queue", Measured::Queue),
        ("write", Measured::Write),
        ("ack", Measured::Ack),
    ];
    for (name, what) in measured {
        let of = app.picture().distribution(what, app.window());
        let at = |q| of.quantile(q).map_or_else(|| "-".to_owned(), human::nanos);
        let text = format!("{name:<7}p50 {:<8} p99 {}", at(0.5), at(0.99));
        lines.push((text, Style::new()));
    }
}

fn load(app: &App, lines: &mut Vec<Line>) {
    let Some(feed) = &app.load else {
        lines.push(("no load generator in this process".to_owned(), app.look.theme.dim()));
        return;
    };
    lines.push((feed.plan.words.clone(), Style::new()));
    let Some(tick) = feed.ticks.back() else { return };
    let us = |us: f64| human::nanos((us * 1e3) as u64);
    lines.push((
        format!("{}  acked {}/s", tick.phase, human::count(tick.acked_per_s)),
        Style::new(),
    ));
    let offered = tick.offered_per_s.map_or_else(|| "max".to_owned(), human::count);
    let read = human::count(tick.consumed_per_s);
    lines.push((format!("offered {offered}/s  read {read}/s"), Style::new()));
    for (name, of) in [("response", &tick.response), ("propag.", &tick.propagation)] {
        let text = format!("{name:<9}p50 {}  p99 {}", us(of.p50), us(of.p99));
        lines.push((text, Style::new()));
    }
    lines.push((format!("send lag p99 {}", us(tick.send_lag.p99)), Style::new()));
    let trouble = tick.refused + tick.errors + tick.unsent;
    if trouble > 0 {
        let text = format!(
            "! refused {}  errors {}  unsent {}",
            human::count(tick.refused as f64),
            human::count(tick.errors as f64),
            human::count(tick.unsent as f64)
        );
        lines.push((text, app.look.theme.warn()));
    }
    lines.push((format!("unread {}", human::counted(tick.backlog, "record")), Style::new()));
}

fn streams(app: &App, lines: &mut Vec<Line>) {
    if let Some(record) = &app.browse.record {
        lines.extend(record.lines().into_iter().map(|line| (line, Style::new())));
        return;
    }
    if let (Some((stream, shard)), Some(records)) = (&app.browse.open, &app.browse.records) {
        lines.push((format!("{stream}/{shard}"), app.look.theme.bold()));
        for record in records.records.iter().rev() {
            lines.push((format!("{} {}", record.sequence, record.line()), Style::new()));
        }
        return;
    }
    for (name, shards) in app.streams() {
        let rate: f64 = shards.iter().map(|s| s.into.records).sum();
        let text =
            format!("{name} {} {}/s", human::plural(shards.len(), "shard"), human::count(rate));
        lines.push((text, Style::new()));
    }
}
