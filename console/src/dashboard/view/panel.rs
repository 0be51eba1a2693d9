//! What panels have in common: a frame, lines of words that are left out rather than clipped, a list that scrolls.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use ratatui::widgets::{Block, Widget as _};

use crate::dashboard::app::App;
use crate::dashboard::widgets::{chart, fit};
use crate::human;

/// A frame with a title; gives what is inside it. What has the keys has a frame that stands out.
pub fn frame(
    app: &App,
    title: &str,
    bottom: &str,
    focused: bool,
    area: Rect,
    buffer: &mut Buffer,
) -> Rect {
    let look = app.look;
    let style = if focused { look.theme.focus() } else { look.theme.dim() };
    let block = Block::bordered().border_set(look.glyphs.border()).border_style(style);
    let inner = block.inner(area);
    block.render(area, buffer);
    let width = usize::from(area.width.saturating_sub(4));
    if area.height > 0 && width > 4 {
        let title = format!(" {} ", fit(title, width - 2, look.glyphs));
        let title_style = if focused { style } else { look.theme.title() };
        buffer.set_stringn(area.x + 2, area.y, title, width, title_style);
    }
    if area.height > 1 && !bottom.is_empty() && bottom.chars().count() + 2 <= width {
        let text = format!(" {bottom} ");
        buffer.set_stringn(area.x + 2, area.bottom() - 1, text, width, look.theme.dim());
    }
    inner
}

/// A line made of words that are all there or not at all.
pub struct Words {
    parts: Vec<(String, Style)>,
    used: usize,
    width: usize,
    full: bool,
}

impl Words {
    /// As wide as `area`, after a blank.
    pub fn new(area: Rect) -> Words {
        Words { parts: Vec::new(), used: 0, width: usize::from(area.width), full: false }
            .add(" ", Style::new())
    }

    /// Adds `text`, unless it or something before it does not fit.
    #[must_use]
    pub fn add(self, text: impl Into<String>, style: Style) -> Words {
        self.all([(text.into(), style)])
    }

    /// Adds all of `parts`, or none of them and nothing after.
    #[must_use]
    pub fn all<const N: usize>(mut self, parts: [(String, Style); N]) -> Words {
        let full: usize = parts.iter().map(|(text, _)| text.chars().count()).sum();
        // Blanks at the end may fall off the edge.
        let last = parts.last().map_or(0, |(text, _)| text.len() - text.trim_end().len());
        if self.full || self.used + full - last > self.width {
            self.full = true;
            return self;
        }
        self.used += full;
        self.parts.extend(parts);
        self
    }

    /// Draws it in the `row`th line of `area`.
    pub fn draw(self, area: Rect, row: u16, buffer: &mut Buffer) {
        if row >= area.height {
            return;
        }
        let mut x = area.x;
        for (text, style) in self.parts {
            let room = usize::from(area.right().saturating_sub(x));
            x = buffer.set_stringn(x, area.y + row, text, room, style).0;
        }
    }
}

/// Draws `text` in the `row`th line of `area`, cut with an ellipsis if need be.
pub fn text(app: &App, text: &str, style: Style, area: Rect, row: u16, buffer: &mut Buffer) {
    if row < area.height && area.width > 1 {
        let width = usize::from(area.width - 1);
        let text = fit(text, width, app.look.glyphs);
        buffer.set_stringn(area.x + 1, area.y + row, text, width, style);
    }
}

/// A line that says why there is nothing.
pub fn nothing(app: &App, why: &str, area: Rect, buffer: &mut Buffer) {
    text(app, why, app.look.theme.dim(), area, 0, buffer);
}

/// `area` without its first `rows`.
pub fn below(area: Rect, rows: u16) -> Rect {
    let rows = rows.min(area.height);
    Rect { y: area.y + rows, height: area.height - rows, ..area }
}

/// First line of a list of `lines` that keeps the selected one in view, `room` lines at a time.
pub fn first(selected: usize, lines: usize, room: usize) -> usize {
    let selected = selected.min(lines.saturating_sub(1));
    // The selected one is in the middle, but for the ends.
    selected.saturating_sub(room / 2).min(lines.saturating_sub(room))
}

/// The line of a list at `at`, which has a frame and a heading in `area`.
pub fn line_at(selected: usize, lines: usize, area: Rect, at: Position) -> Option<usize> {
    let room = area.height.saturating_sub(3);
    let row = at.y.checked_sub(area.y + 2).filter(|row| *row < room)?;
    let inside = at.x > area.x && at.x + 1 < area.right();
    let line = first(selected, lines, usize::from(room)) + usize::from(row);
    (inside && line < lines).then_some(line)
}

/// At the lower edge of a list: which of its lines are shown, if not all.
pub fn shown(first: usize, lines: usize, room: usize) -> String {
    if lines <= room || room == 0 {
        return String::new();
    }
    format!("{}-{} of {lines}", first + 1, (first + room).min(lines))
}

/// Labels under a chart over time.
pub fn time_labels(app: &App) -> Vec<(f64, String)> {
    let shown = app.picture().figures.as_ref().map_or(0, |f| f.at_ns);
    let end = if app.player.replaying() || app.player.behind() > 0 || app.stale() {
        app.clock(shown)
    } else {
        "now".to_owned()
    };
    vec![(0.0, format!("-{}", human::span(app.window()))), (1.0, end)]
}

/// As many values of a series as a chart in `area` has dots.
pub fn dots(app: &App, area: Rect) -> usize {
    chart::dots(area, app.look.glyphs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_keep_the_selected_line_in_view() {
        for lines in 0..20 {
            for room in 1..9 {
                for selected in 0..25 {
                    let first = first(selected, lines, room);
                    let selected = selected.min(lines.saturating_sub(1));
                    assert!(first <= selected && selected < first + room);
                    assert!(first + room <= lines.max(room));
                }
            }
        }
        let list = Rect::new(10, 5, 30, 7);
        let line = |selected, y| line_at(selected, 20, list, Position::new(12, y));
        assert_eq!(
            [line(0, 6), line(0, 7), line(0, 10), line(0, 11)],
            [None, Some(0), Some(3), None]
        );
        assert_eq!(line(10, 7), Some(8), "it has scrolled");
        assert_eq!(line_at(0, 2, list, Position::new(12, 9)), None, "below the last");
        assert_eq!(line_at(0, 2, list, Position::new(10, 7)), None, "on the frame");
        assert_eq!(shown(3, 20, 5), "4-8 of 20");
        assert_eq!(shown(0, 5, 5), "");
    }

    #[test]
    fn words_are_whole() {
        let area = Rect::new(0, 0, 12, 1);
        let mut buffer = Buffer::empty(area);
        let style = Style::new();
        let words = Words::new(area).add("one ", style).add("two ", style).add("three", style);
        words.add("x", style).draw(area, 0, &mut buffer);
        assert_eq!(buffer, Buffer::with_lines([" one two    "]));
    }
}
