//! A table that leaves out whole columns rather than clip what is in them.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::fit;
use crate::dashboard::glyphs::Glyphs;
use crate::dashboard::theme::Theme;

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its heading.
    pub head: &'static str,
    /// Its width in characters; a growing column has at least this.
    pub width: u16,
    /// Figures stand to the right.
    pub right: bool,
    /// Takes what is left over.
    pub grows: bool,
    /// The column with the largest number is left out first; 0 is never left out.
    pub rank: u8,
}

impl Column {
    /// Words.
    pub const fn words(head: &'static str, width: u16, rank: u8) -> Column {
        Column { head, width, right: false, grows: false, rank }
    }

    /// Figures.
    pub const fn figures(head: &'static str, width: u16, rank: u8) -> Column {
        Column { head, width, right: true, grows: false, rank }
    }

    /// Takes what is left over.
    pub const fn growing(self) -> Column {
        Column { grows: true, ..self }
    }
}

/// A cell.
#[derive(Clone, Debug)]
pub struct Cell {
    /// What is in it.
    pub text: String,
    /// What follows, and stays when the text is cut.
    pub tail: String,
    /// How it looks.
    pub style: Style,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell { text: text.into(), tail: String::new(), style: Style::new() }
    }
}

impl Cell {
    /// In this style.
    pub fn styled(text: impl Into<String>, style: Style) -> Cell {
        Cell { text: text.into(), tail: String::new(), style }
    }

    /// With this behind it, whatever is cut.
    pub fn with_tail(self, tail: impl Into<String>) -> Cell {
        Cell { tail: tail.into(), ..self }
    }

    /// Characters.
    fn length(&self) -> u16 {
        let length = self.text.chars().count() + self.tail.chars().count();
        u16::try_from(length).unwrap_or(u16::MAX)
    }

    /// As much of it as there is room for.
    fn fitted(&self, width: u16, glyphs: Glyphs) -> String {
        let room = usize::from(width).saturating_sub(self.tail.chars().count());
        format!("{}{}", fit(&self.text, room, glyphs), self.tail)
    }
}

/// What is to be drawn.
pub struct Table<'a> {
    /// The columns there are.
    pub columns: &'a [Column],
    /// The rows in view, each with a cell for each column.
    pub rows: Vec<Vec<Cell>>,
    /// Which of the rows is selected.
    pub selected: Option<usize>,
    /// By which column the rows are sorted, and whether the largest comes first.
    pub sorted: Option<(usize, bool)>,
}

/// Most blanks between two columns.
const MAX_GAP: u16 = 6;

/// Columns that fit into `width`: number and width of each; and how many blanks lie between them.
fn widths(columns: &[Column], width: u16, longest: u16) -> (Vec<(usize, u16)>, u16) {
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    let needed = |kept: &[usize]| {
        let own: u32 = kept.iter().map(|&i| u32::from(columns[i].width)).sum();
        own + 2 * (kept.len() as u32).saturating_sub(1)
    };
    while needed(&kept) > u32::from(width) {
        let last = kept.iter().copied().max_by_key(|&i| (columns[i].rank, i));
        match last.filter(|&i| columns[i].rank > 0) {
            Some(out) => kept.retain(|&i| i != out),
            None => break,
        }
    }
    let (needed, width) = (needed(&kept), u32::from(width));
    let (mut spare, over) = (width.saturating_sub(needed), needed.saturating_sub(width));
    let growing = kept.iter().copied().find(|&i| columns[i].grows);
    let mut grown = 0;
    if let Some(i) = growing {
        // Twice its width at first, or what its longest cell takes; then the blanks between the columns; what is left then stays at the right, for
        // a line whose ends are far apart is hard to follow.
        let wanted = longest.saturating_sub(columns[i].width).max(columns[i].width);
        grown = spare.min(u32::from(wanted));
        spare -= grown;
    }
    let gaps = (kept.len() as u32).saturating_sub(1).max(1);
    let gap = (2 + spare / gaps).min(u32::from(MAX_GAP));
    let own = |i: usize| match growing {
        // When even the columns that are never left out are too wide, this one gives way.
        Some(growing) if growing == i => {
            let own = u32::from(columns[i].width) + grown;
            own.saturating_sub(over).max(own.min(4)) as u16
        }
        _ => columns[i].width,
    };
    (kept.into_iter().map(|i| (i, own(i))).collect(), gap as u16)
}

impl Table<'_> {
    /// Draws the heading and the rows.
    pub fn draw(&self, theme: Theme, glyphs: Glyphs, area: Rect, buffer: &mut Buffer) {
        if area.is_empty() {
            return;
        }
        let growing = self.columns.iter().position(|column| column.grows);
        let cells = self.rows.iter().filter_map(|row| row.get(growing?));
        let longest = cells.map(Cell::length).max().unwrap_or(0);
        let (widths, gap) = widths(self.columns, area.width, longest);
        let mut x = area.x;
        for &(i, width) in &widths {
            let column = &self.columns[i];
            let head = match self.sorted {
                Some((by, descending)) if by == i => {
                    format!("{}{}", glyphs.sorted(descending), column.head)
                }
                _ => column.head.to_owned(),
            };
            put(&head, column.right, theme.dim(), glyphs, x, area.y, width, area, buffer);
            x = x.saturating_add(width + gap);
        }
        let rows = (area.y + 1..area.bottom()).zip(&self.rows);
        for (number, (y, row)) in rows.enumerate() {
            let mut x = area.x;
            for &(i, width) in &widths {
                if let Some(cell) = row.get(i) {
                    let right = self.columns[i].right;
                    let text = cell.fitted(width, glyphs);
                    put(&text, right, cell.style, glyphs, x, y, width, area, buffer);
                }
                x = x.saturating_add(width + gap);
            }
            if self.selected == Some(number) {
                let line = Rect::new(area.x, y, area.width, 1);
                buffer.set_style(line, theme.selected());
            }
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "a cell is where and what")]
fn put(
    text: &str,
    right: bool,
    style: Style,
    glyphs: Glyphs,
    x: u16,
    y: u16,
    width: u16,
    area: Rect,
    buffer: &mut Buffer,
) {
    let width = width.min(area.right().saturating_sub(x));
    let text = fit(text, usize::from(width), glyphs);
    let pad = if right { width.saturating_sub(text.chars().count() as u16) } else { 0 };
    if width > 0 {
        buffer.set_stringn(x + pad, y, text, usize::from(width - pad), style);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::theme::Palette;

    const COLUMNS: [Column; 3] = [
        Column::words("name", 4, 0).growing(),
        Column::figures("rec/s", 6, 1),
        Column::figures("bytes", 7, 2),
    ];

    fn drawn(width: u16) -> String {
        let area = Rect::new(0, 0, width, 2);
        let mut buffer = Buffer::empty(area);
        let rows = vec![vec!["orders".into(), "20.0k".into(), "10.2 MB".into()]];
        let table = Table { columns: &COLUMNS, rows, selected: None, sorted: Some((1, true)) };
        let theme = Theme { palette: Palette::Ansi, color: false };
        table.draw(theme, Glyphs::Ascii, area, &mut buffer);
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        format!("{}\n{}", line(0), line(1))
    }

    #[test]
    fn columns_go_before_words_are_clipped() {
        assert_eq!(drawn(26), "name      vrec/s    bytes \norders     20.0k  10.2 MB ");
        assert_eq!(drawn(16), "name      vrec/s\norders     20.0k");
        assert_eq!(drawn(6), "name  \norders");
        assert_eq!(drawn(3), "na~\nor~");
    }

    #[test]
    fn a_tail_stays() {
        let cell = Cell::from("orders").with_tail("/12");
        assert_eq!(cell.fitted(12, Glyphs::Ascii), "orders/12");
        assert_eq!(cell.fitted(7, Glyphs::Ascii), "ord~/12");
    }

    #[test]
    fn no_width_panics() {
        (0..40).for_each(|width| drop(drawn(width)));
    }
}
