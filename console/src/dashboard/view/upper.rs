//! The upper half: TPS and propagation delay.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph};

use super::super::figures::Flow;
use super::super::model::{HEADLINE, Model};
use super::plot::{self, Curve, Scale};
use super::theme::Theme;
use crate::human;

/// TPS in and out: figures of the last sample, a chart of the window.
pub fn tps(model: &Model, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let (text, chart) =
        panel(" TPS, last sample ", " chart: in filled, out line ", theme, frame, area);
    let picture = model.picture();
    let Some(figures) = &picture.figures else { return };
    let line = |name: &'static str, style, flow: Flow, more: String| {
        let rate = format!("{:>6} rec/s", human::count(flow.records));
        let bytes = format!("{:>7}/s", human::bytes(flow.bytes));
        Line::from(vec![
            Span::styled(name, style),
            Span::styled(rate, theme.bold()),
            Span::raw(format!(" {bytes} ")),
            Span::styled(more, theme.dim()),
        ])
    };
    let peak = format!("peak {}", human::count(picture.peak_in));
    let lines = vec![
        line(" in  ", theme.into(), figures.into, peak),
        line(" out ", theme.out(), figures.out, String::new()),
    ];
    frame.render_widget(Paragraph::new(lines), text);
    let (window, width) = (model.window(), plot::dots(chart));
    let highest =
        picture.within(window).map(|p| p.into.records.max(p.out.records)).fold(0.0, f64::max);
    let curves = [
        Curve::new(picture, window, width, |p| Some(p.into.records)).style(theme.into()).filled(),
        Curve::new(picture, window, width, |p| Some(p.out.records)).style(theme.out()),
    ];
    let scale = Scale::linear(highest, human::count);
    plot::draw(&curves, scale, window, theme, frame, chart);
}

/// Propagation delay: percentiles of the last ten seconds, a chart of p50 and p99 over the window.
pub fn delay(model: &Model, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let what = if area.width < 56 { "" } else { " (arrival to hand-over)" };
    let title = format!(" Propagation delay{what}, last {} ", human::duration(HEADLINE));
    let (text, chart) = panel(&title, " chart: p99 above p50 ", theme, frame, area);
    let (picture, window) = (model.picture(), model.window());
    if picture.figures.is_none() {
        return;
    }
    let tail = picture.propagation;
    if tail.count == 0 {
        let nothing = Line::styled(" nothing was delivered to a subscriber", theme.dim());
        frame.render_widget(Paragraph::new(nothing), text);
        return;
    }
    let value = |name: &'static str, ns: u64| {
        [Span::raw(name), Span::styled(human::nanos(ns), theme.bold())]
    };
    let percentiles =
        [value(" p50 ", tail.p50), value(" p99 ", tail.p99), value(" p99.9 ", tail.p999)];
    let mut lines = vec![Line::from(percentiles.concat())];
    if let Some((max, at)) = picture.slowest(window) {
        lines.push(Line::from(vec![
            Span::raw(" max "),
            Span::styled(human::nanos(max), theme.bold()),
            Span::raw(format!(" at {}", human::clock(at))),
            Span::styled(format!(" in {}", human::span(window)), theme.dim()),
        ]));
    }
    frame.render_widget(Paragraph::new(lines), text);
    let measured = || picture.within(window).filter(|p| p.propagation.count > 0);
    let low = measured().map(|p| p.propagation.p50).min().unwrap_or(1);
    let high = measured().map(|p| p.propagation.p99).max().unwrap_or(1);
    let width = plot::dots(chart);
    let curve = |of: fn(&super::super::figures::Tail) -> u64| {
        Curve::new(picture, window, width, move |p| {
            (p.propagation.count > 0).then(|| (of(&p.propagation).max(1) as f64).log10())
        })
    };
    let curves = [curve(|t| t.p50).style(theme.into()), curve(|t| t.p99).style(theme.tail())];
    plot::draw(&curves, Scale::decades(low, high), window, theme, frame, chart);
}

/// A frame with two lines of text above a chart, whose lines `legend` tells apart without colour.
fn panel(
    title: &str,
    legend: &'static str,
    theme: Theme,
    frame: &mut Frame<'_>,
    area: Rect,
) -> (Rect, Rect) {
    let block =
        Block::bordered().title(title.to_owned()).title_bottom(legend).border_style(theme.dim());
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [text, chart] = Layout::vertical([Constraint::Length(2), Constraint::Min(0)]).areas(inner);
    (text, chart)
}
