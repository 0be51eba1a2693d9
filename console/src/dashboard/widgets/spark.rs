//! A series in one line of characters.

use crate::dashboard::glyphs::Glyphs;

/// `values` as columns up to `top`; what was not measured is blank.
pub fn spark(values: &[Option<f64>], top: f64, glyphs: Glyphs) -> String {
    let share = |value: f64| if top > 0.0 { value / top } else { 0.0 };
    values.iter().map(|value| value.map_or(' ', |value| glyphs.column(share(value)))).collect()
}

/// As [`spark`], up to the largest of them.
pub fn spark_of(values: &[Option<f64>], glyphs: Glyphs) -> String {
    spark(values, values.iter().flatten().copied().fold(0.0, f64::max), glyphs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_character_each() {
        let values = [Some(0.0), None, Some(4.0), Some(8.0)];
        assert_eq!(spark_of(&values, Glyphs::Block), "▁ ▅█");
        assert_eq!(spark(&values, 16.0, Glyphs::Ascii), "_ :=");
        assert_eq!(spark(&[Some(3.0)], 0.0, Glyphs::Block), "▁");
    }
}
