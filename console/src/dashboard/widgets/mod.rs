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

/// `text` on lines of at most `width` characters, broken between words; a word longer than that is broken too.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        let last = lines.last().map_or(0, |line| line.chars().count());
        if last > 0 && last + 1 + word.len() > width {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut()
            && !line.is_empty()
        {
            line.push(' ');
        }
        while let Some(line) = lines.last_mut() {
            let room = width.saturating_sub(line.chars().count());
            let rest = word.split_off(word.len().min(room));
            line.extend(word);
            if rest.is_empty() {
                break;
            }
            word = rest;
            lines.push(String::new());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_fits() {
        assert_eq!(fit("orders", 6, Glyphs::Braille), "orders");
        assert_eq!(fit("orders", 4, Glyphs::Ascii), "ord~");
        assert_eq!(fit("orders", 0, Glyphs::Ascii), "");
        assert_eq!(wrap("a bb ccc", 4), ["a bb", "ccc"]);
        assert_eq!(wrap("abcdef g", 3), ["abc", "def", "g"]);
        assert_eq!(wrap("", 3), [""]);
        assert_eq!(wrap("ab", 0), ["a", "b"]);
    }
}
