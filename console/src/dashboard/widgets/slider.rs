//! Where a replay is in its recording.

use crate::dashboard::glyphs::Glyphs;

/// A line `width` characters long with the knob at `share` (0 to 1), and marks, each at its share.
pub fn slider(share: f64, marks: &[f64], width: usize, glyphs: Glyphs) -> String {
    if width == 0 {
        return String::new();
    }
    let place =
        |share: f64| ((share.clamp(0.0, 1.0) * (width - 1) as f64).round() as usize).min(width - 1);
    let [rest, passed, knob] = glyphs.slider();
    let at = place(share);
    let marks: Vec<usize> = marks.iter().map(|mark| place(*mark)).collect();
    (0..width)
        .map(|column| match column {
            _ if column == at => knob,
            _ if marks.contains(&column) => glyphs.mark(),
            _ if column < at => passed,
            _ => rest,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_knob_is_where_the_replay_is() {
        assert_eq!(slider(0.5, &[0.0, 1.0], 5, Glyphs::Ascii), "|=O-|");
        assert_eq!(slider(7.0, &[], 3, Glyphs::Block), "━━●");
        assert_eq!(slider(0.0, &[], 0, Glyphs::Ascii), "");
        assert_eq!(slider(f64::NAN, &[f64::NAN], 1, Glyphs::Ascii), "O");
    }
}
