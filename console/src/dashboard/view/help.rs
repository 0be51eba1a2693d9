//! The help: every key of the table, and what the figures mean.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};

use super::super::keys;
use super::super::model::Model;
use super::theme::Theme;

const MEANINGS: &[(&str, &str)] = &[
    ("TPS in", "records acknowledged, per second"),
    ("TPS out", "records handed to consumers, per second"),
    ("propagation delay", "from arrival at the server to hand-over to a subscriber"),
    ("backlog", "from a group's position to the high-water mark"),
    ("seconds", "age of the oldest record a group has not read"),
    ("net/s", "growth of the backlog over the last ten samples"),
    ("skew", "busiest shard of a stream over the mean; 1 is even"),
    ("durable write", "one commit group's write, as the device took it"),
];

/// Draws the help over whatever is there.
pub fn draw(model: &Model, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let mut lines: Vec<Line<'_>> = keys::KEYS
        .iter()
        .map(|binding| entry(keys::names(binding), binding.words, theme))
        .collect();
    lines.push(Line::default());
    lines.extend(MEANINGS.iter().map(|(word, text)| entry((*word).to_owned(), text, theme)));
    lines.push(Line::default());
    let cost = "Watching costs the server one reply a second from counters it keeps anyway.";
    lines.push(Line::styled(cost, theme.dim()));
    let (width, height) = (area.width.min(78), area.height.min(lines.len() as u16 + 2));
    let place = area.centered(Constraint::Length(width), Constraint::Length(height));
    let block = Block::bordered().title(" Help ").border_style(theme.bold());
    let text = Paragraph::new(lines).wrap(Wrap { trim: false }).scroll((model.scroll, 0));
    frame.render_widget(Clear, place);
    frame.render_widget(text.block(block), place);
}

fn entry(left: String, right: &str, theme: Theme) -> Line<'_> {
    Line::from(vec![Span::styled(format!(" {left:<18} "), theme.bold()), Span::raw(right)])
}
