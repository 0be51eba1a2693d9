//! Shapes that ratatui lacks or that must keep to our glyphs: charts with peaks and limits, tables that leave out
//! columns instead of clipping them, sparklines, heat maps, sliders.

pub mod chart;
pub mod heat;
pub mod slider;
pub mod spark;
pub mod table;

use super::glyphs::Glyphs;

/// `text` in at most `width` characters; where it was cut there is an ellipsis.
pub fn fit(text: &str, width: usize, glyphs: Glyphs) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    match width {
        0 => String::new(),
        _ => text.chars().take(width - 1).collect::<String>() + glyphs.ellipsis(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_fits() {
        assert_eq!(fit("orders", 6, Glyphs::Braille), "orders");
        assert_eq!(fit("orders", 4, Glyphs::Ascii), "ord~");
        assert_eq!(fit("orders", 0, Glyphs::Ascii), "");
    }
}
