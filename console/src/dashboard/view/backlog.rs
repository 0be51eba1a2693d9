//! Backlog of each group, the one furthest behind first: records, bytes, seconds, trend, and when it ends.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table};

use super::super::figures::GroupFigures;
use super::super::model::{Model, Outlook, Picture};
use super::theme::Theme;
use crate::human;

/// Characters of a trend.
const TREND: usize = 8;

/// Draws the list.
pub fn draw(model: &Model, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let picture = model.picture();
    let block = Block::bordered().title(" Backlog, worst first ").border_style(theme.dim());
    let groups = picture.figures.as_ref().map_or(&[][..], |f| &f.groups);
    if groups.is_empty() {
        let text =
            if picture.figures.is_some() { " no group has committed a position" } else { "" };
        frame.render_widget(Paragraph::new(Line::styled(text, theme.dim())).block(block), area);
        return;
    }
    let left = groups.len().saturating_sub(usize::from(model.scroll));
    // A line more for the heading.
    let block = block.title_bottom(super::more(left + 1, area));
    let head = [
        Cell::from("group on stream"),
        right("records"),
        right("bytes"),
        right("age"),
        Cell::from("trend"),
        right("net/s"),
        Cell::from("drained in"),
    ];
    let rows = groups
        .iter()
        .skip(usize::from(model.scroll))
        .take(usize::from(area.height))
        .map(|group| row(picture, group, theme));
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(TREND as u16),
        Constraint::Length(7),
        Constraint::Length(15),
    ];
    let table = Table::new(rows, widths).header(Row::new(head).style(theme.dim())).block(block);
    frame.render_widget(table, area);
}

fn right<'a>(text: impl Into<Text<'a>>) -> Cell<'a> {
    Cell::from(text.into().right_aligned())
}

fn row(picture: &Picture, group: &GroupFigures, theme: Theme) -> Row<'static> {
    let (outlook, style) = match picture.outlook(group) {
        Outlook::KeepsUp => ("keeps up".to_owned(), theme.good()),
        Outlook::Drains(eta) => (human::duration(eta), theme.warn()),
        Outlook::Holds => ("holds".to_owned(), theme.warn()),
        Outlook::Grows => ("NEVER: it grows".to_owned(), theme.bad()),
    };
    let growth = picture.growth(group);
    let sign = if growth < 0.0 { "-" } else { "+" };
    Row::new([
        Cell::from(format!("{} on {}", group.group, group.stream)).style(theme.bold()),
        right(human::count(group.records as f64)),
        right(human::bytes(group.bytes as f64)),
        right(human::nanos(group.age.as_nanos() as u64)),
        Cell::from(sparkline(picture.trend(group))).style(theme.into()),
        right(format!("{sign}{}", human::count(growth.abs()))),
        Cell::from(outlook).style(style),
    ])
}

/// The values in [`TREND`] characters, each the largest of its share.
fn sparkline(values: impl Iterator<Item = u64>) -> String {
    let values: Vec<u64> = values.collect();
    let top = values.iter().copied().max().unwrap_or(0);
    let per_char = values.len().div_ceil(TREND).max(1);
    values
        .chunks(per_char)
        .map(|share| bar(share.iter().copied().max().unwrap_or(0) as f64, top as f64))
        .collect()
}

/// `value` of `top` as one of eight blocks.
pub fn bar(value: f64, top: f64) -> char {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let share = if top > 0.0 { value / top } else { 0.0 };
    BARS[((share * 7.0).round() as usize).min(7)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trends_fit() {
        assert_eq!(sparkline([0, 1, 2, 3, 4, 5, 6, 7].into_iter()), "▁▂▃▄▅▆▇█");
        assert_eq!(sparkline(std::iter::empty()), "");
        assert!(sparkline(0..60).chars().count() <= TREND);
        assert_eq!((bar(9.0, 3.0), bar(f64::NAN, 1.0), bar(-1.0, 1.0)), ('█', '▁', '▁'));
    }
}
