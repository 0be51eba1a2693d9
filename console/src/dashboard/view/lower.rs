//! The lower part: cores and shards one cell each, and what is worth a look.

use std::collections::BTreeMap;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Wrap};

use super::super::figures::{self, Figures, ShardFigures};
use super::super::model::Model;
use super::super::watch::{self, Level};
use super::backlog::bar;
use super::theme::Theme;
use crate::human;

/// Lines the cores, shards and notices would like, frames included.
pub fn wanted_height(model: &Model) -> u16 {
    let picture = model.picture();
    let Some(figures) = &picture.figures else { return 3 };
    let streams = by_stream(&figures.shards).len();
    let left = 1 + figures.cores.len().div_ceil(3) + streams;
    let right = watch::notices(picture, model.restarts).len();
    left.max(right).min(40) as u16 + 2
}

/// Durable writes, cores and shards.
pub fn shards(model: &Model, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let block = Block::bordered().title(" Cores and shards ").border_style(theme.dim());
    let picture = model.picture();
    let mut lines = Vec::new();
    if let Some(figures) = &picture.figures {
        let write = picture.write;
        let (p50, p99) = (human::nanos(write.p50), human::nanos(write.p99));
        lines.push(Line::from(vec![
            Span::styled(" durable write ", theme.dim()),
            Span::raw(format!("p50 {p50} p99 {p99} ")),
            Span::styled("10s", theme.dim()),
        ]));
        lines.extend(cores(figures, theme));
        let width = usize::from(area.width.saturating_sub(2));
        lines.extend(
            by_stream(&figures.shards).iter().map(|(name, s)| stream(name, s, width, theme)),
        );
    }
    let block = block.title_bottom(super::more(lines.len(), area));
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn cores(figures: &Figures, theme: Theme) -> Vec<Line<'static>> {
    let cell = |core: &figures::CoreFigures| {
        let style = if core.busy > 0.95 { theme.bad() } else { theme.into() };
        let text = format!("{:>3.0} % {}", core.busy * 100.0, bar(core.busy, 1.0));
        [Span::raw(format!(" core {} ", core.core)), Span::styled(text, style)]
    };
    figures
        .cores
        .chunks(3)
        .map(|row| Line::from(row.iter().flat_map(cell).collect::<Vec<_>>()))
        .collect()
}

/// A stream's shards: a cell each, relative to the busiest, then the range of rates and the skew.
fn stream(name: &str, shards: &[&ShardFigures], width: usize, theme: Theme) -> Line<'static> {
    let rates = || shards.iter().map(|s| s.into.records);
    let (low, high) = (rates().fold(f64::MAX, f64::min), rates().fold(0.0, f64::max));
    let owned: Vec<ShardFigures> = shards.iter().map(|s| (*s).clone()).collect();
    let mut text = format!(" {}..{} rec/s", human::count(low), human::count(high));
    if let Some(skew) = figures::skew(&owned) {
        text += &format!(" skew {skew:.2}");
    }
    let name: String = name.chars().take(16).collect();
    let room = width.saturating_sub(name.len() + text.len() + 3);
    let cells: String = shards.iter().take(room).map(|s| bar(s.into.records, high)).collect();
    let more = if shards.len() > room { "…" } else { "" };
    Line::from(vec![
        Span::raw(format!(" {name} ")),
        Span::styled(format!("{cells}{more}"), theme.into()),
        Span::styled(text, theme.dim()),
    ])
}

/// The shards of each stream, the busiest stream first.
fn by_stream(shards: &[ShardFigures]) -> Vec<(&str, Vec<&ShardFigures>)> {
    let mut streams: BTreeMap<&str, Vec<&ShardFigures>> = BTreeMap::new();
    for shard in shards {
        streams.entry(&shard.stream).or_default().push(shard);
    }
    let mut streams: Vec<_> = streams.into_iter().collect();
    let rate = |shards: &[&ShardFigures]| shards.iter().map(|s| s.into.records).sum::<f64>();
    streams.sort_by(|a, b| rate(&b.1).total_cmp(&rate(&a.1)));
    streams
}

/// What is worth a look.
pub fn watch(model: &Model, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let block = Block::bordered().title(" Watch ").border_style(theme.dim());
    let mut lines = Vec::new();
    if let super::Link::Lost { reason } = &model.link {
        lines.push(Line::styled(format!(" !! {reason}"), theme.bad()));
    }
    for notice in watch::notices(model.picture(), model.restarts) {
        let style = match notice.level {
            Level::Bad => theme.bad(),
            Level::Warn => theme.warn(),
            Level::Info => theme.dim(),
        };
        let text = format!(" {} {}", notice.level.mark(), notice.text);
        lines.push(Line::styled(text, style));
    }
    if lines.is_empty() && model.picture().figures.is_some() {
        lines.push(Line::styled(" nothing to report", theme.good()));
        let about = &model.picture().about;
        let text = format!(" highwater {}: {}", about.server, about.durability);
        lines.push(Line::styled(text, theme.dim()));
    }
    let block = block.title_bottom(super::more(lines.len(), area));
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).block(block), area);
}
