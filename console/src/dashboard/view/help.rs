//! The help: every key of the table, what the figures mean, the rules of Watch, and what looking costs.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::Style;
use ratatui::widgets::{Clear, Widget as _};

use super::panel;
use crate::dashboard::app::App;
use crate::dashboard::theme::Theme;
use crate::dashboard::{keys, watch};
use crate::human;

/// Characters on the left, and what is on the right has at 80 columns.
const LEFT: u16 = 18;
const RIGHT: usize = 58;

const MEANINGS: &[(&str, &str)] = &[
    ("TPS in", "records acknowledged, per second"),
    ("TPS out", "records handed to consumers, per second"),
    ("propagation", "from arrival at the server to hand-over to a subscriber"),
    ("durable write", "a commit group's write, as the device took it"),
    ("queue", "from arrival until the commit group is submitted"),
    ("ack", "from on the device until the reply is at the socket"),
    ("deliver", "from on the device until the delivery is at the socket"),
    ("backlog", "from a group's position to the high-water mark"),
    ("age", "of the oldest record a group has not read"),
    ("lost in", "until retention removes what a group has not read"),
    ("skew", "busiest shard of a stream over the mean; 1 is even"),
    ("busy", "CPU time of a core's thread as a share of the time"),
    ("tables", "figures of the last 10 s; charts keep each column's maximum"),
];

/// What is on the left, and what on the right of it; a heading has nothing on the right.
fn entries() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (scope, rows) in keys::rows() {
        all.push((scope.title().to_owned(), String::new()));
        all.extend(rows.into_iter().map(|(key, words)| (key, words.to_owned())));
    }
    all.push(("Figures".to_owned(), String::new()));
    all.extend(MEANINGS.iter().map(|(word, text)| ((*word).to_owned(), (*text).to_owned())));
    all.push(("Watch".to_owned(), String::new()));
    for rule in &watch::RULES {
        let lines = human::wrap(rule.threshold, RIGHT).into_iter().enumerate();
        all.extend(lines.map(|(n, line)| (if n == 0 { rule.name } else { "" }.to_owned(), line)));
    }
    all
}

/// As it lies over a screen.
struct Layout {
    place: Rect,
    columns: usize,
    rows: usize,
}

impl Layout {
    fn of(lines: usize, area: Rect) -> Layout {
        let wide = area.width >= 150;
        let columns = if wide { 2 } else { 1 };
        let needed = lines.div_ceil(columns) as u16 + 3;
        let width = area.width.min(if wide { 164 } else { 84 });
        let place =
            area.centered(Constraint::Length(width), Constraint::Length(area.height.min(needed)));
        Layout { place, columns, rows: usize::from(place.height.saturating_sub(3)) }
    }

    fn last(&self, lines: usize) -> usize {
        lines.saturating_sub(self.rows * self.columns)
    }
}

/// How far one can scroll on a screen.
pub fn last_line(area: Rect) -> usize {
    let lines = entries().len();
    Layout::of(lines, area).last(lines)
}

/// Draws the help over whatever is there.
pub fn draw(app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = app.look.theme;
    let entries = entries();
    let layout = Layout::of(entries.len(), area);
    let first = app.help_scroll.min(layout.last(entries.len()));
    let Layout { place, columns, rows } = layout;
    let shown = rows * columns;
    Clear.render(place, buffer);
    let bottom = panel::shown(first, entries.len(), shown);
    let inner = panel::frame(app, "Help", &bottom, true, place, buffer);
    if inner.height == 0 {
        return;
    }
    let each = inner.width / columns as u16;
    for (number, (left, right)) in entries.iter().skip(first).take(shown).enumerate() {
        let (column, row) = ((number / rows.max(1)) as u16, (number % rows.max(1)) as u16);
        let line = Rect::new(inner.x + column * each, inner.y + row, each, 1);
        entry(app, left, right, theme, line, buffer);
    }
    let cost = match app.picture().figures.as_ref() {
        Some(f) => format!(
            "Watching costs the server {:.0} us of CPU a second: {:.4} % of a core.",
            f.snapshot_cost_us,
            f.snapshot_cost_us / 1e4
        ),
        None => "Watching costs the server one snapshot a second.".to_owned(),
    };
    panel::text(app, &cost, theme.dim(), inner, inner.height - 1, buffer);
}

fn entry(app: &App, left: &str, right: &str, theme: Theme, line: Rect, buffer: &mut Buffer) {
    let key_width = LEFT.min(line.width / 2);
    if right.is_empty() {
        panel::text(app, left, theme.focus(), line, 0, buffer);
        return;
    }
    let key = Rect { width: key_width, ..line };
    panel::text(app, &format!(" {left}"), theme.bold(), key, 0, buffer);
    let rest = Rect { x: line.x + key_width, width: line.width - key_width, ..line };
    panel::text(app, right, Style::new(), rest, 0, buffer);
}
