//! A heat map: columns are times, rows are values, the density of a cell is how much fell into it.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::dashboard::glyphs::Glyphs;
use crate::dashboard::theme::Theme;

/// Draws `columns`, each with its counts from the lowest row up, into `area`: one character each, the last column
/// at the right edge. Density is logarithmic, relative to the largest cell.
pub fn draw(columns: &[Vec<u64>], theme: Theme, glyphs: Glyphs, area: Rect, buffer: &mut Buffer) {
    let top = columns.iter().flatten().copied().max().unwrap_or(0);
    let skip = columns.len().saturating_sub(usize::from(area.width));
    let gap = usize::from(area.width).saturating_sub(columns.len()) as u16;
    for (x, column) in (area.x + gap..area.right()).zip(&columns[skip..]) {
        for (y, &count) in (area.y..area.bottom()).rev().zip(column) {
            let Some(step) = step(count, top) else { continue };
            if let Some(cell) = buffer.cell_mut((x, y)) {
                cell.set_char(glyphs.shade(step)).set_style(theme.heat(step));
            }
        }
    }
}

/// One of five steps; `None` for nothing.
fn step(count: u64, top: u64) -> Option<usize> {
    if count == 0 || top == 0 {
        return None;
    }
    let share = (count as f64).ln_1p() / (top as f64).ln_1p();
    Some(((share * 5.0).ceil() as usize).clamp(1, 5) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::theme::Palette;

    #[test]
    fn steps_and_places() {
        assert_eq!([step(0, 9), step(9, 9), step(1, 1_000_000)], [None, Some(4), Some(0)]);
        let area = Rect::new(0, 0, 3, 2);
        let mut buffer = Buffer::empty(area);
        let theme = Theme { palette: Palette::Ansi, color: false };
        draw(&[vec![9, 0], vec![0, 9]], theme, Glyphs::Ascii, area, &mut buffer);
        assert_eq!(buffer, Buffer::with_lines(["  #", " # "]));
    }
}
