//! The characters pictures are made of: braille, blocks, or plain ASCII.

use clap::ValueEnum;
use ratatui::symbols::border;

/// Which characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Glyphs {
    /// Charts of 2 x 4 dots a character
    #[default]
    Braille,
    /// Charts of block elements, for fonts without braille
    Block,
    /// Nothing but ASCII
    Ascii,
}

impl Glyphs {
    /// What the environment allows: the locale's character set decides between Unicode and ASCII, and the Linux
    /// console's font has no braille.
    pub fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Glyphs {
        let set = |name: &&str| variable(name).filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(set).unwrap_or_default();
        let locale = locale.to_ascii_lowercase();
        if !locale.contains("utf-8") && !locale.contains("utf8") {
            Glyphs::Ascii
        } else if variable("TERM").is_some_and(|term| term == "linux") {
            Glyphs::Block
        } else {
            Glyphs::Braille
        }
    }

    /// Frames of panels.
    pub fn border(self) -> border::Set<'static> {
        match self {
            Glyphs::Ascii => border::Set {
                top_left: "+",
                top_right: "+",
                bottom_left: "+",
                bottom_right: "+",
                vertical_left: "|",
                vertical_right: "|",
                horizontal_top: "-",
                horizontal_bottom: "-",
            },
            _ => border::PLAIN,
        }
    }

    /// `share` (0 to 1) as a column of growing height; an empty one is no blank, for it was measured.
    pub fn column(self, share: f64) -> char {
        let ramp: [char; 8] = match self {
            Glyphs::Ascii => ['_', '.', ':', '-', '=', '+', '*', '#'],
            _ => ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
        };
        ramp[((share * 7.0).round() as usize).min(7)]
    }

    /// `share` (0 to 1) of `width` characters as a bar, padded.
    pub fn bar(self, share: f64, width: usize) -> String {
        let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
        let (full, steps): (char, &[char]) = match self {
            Glyphs::Ascii => ('#', &[]),
            _ => ('█', &['▏', '▎', '▍', '▌', '▋', '▊', '▉']),
        };
        let parts = steps.len() + 1;
        let filled = (share * (width * parts) as f64).round() as usize;
        let mut bar: String = std::iter::repeat_n(full, filled / parts).collect();
        if let Some(step) = (filled % parts).checked_sub(1).and_then(|step| steps.get(step)) {
            bar.push(*step);
        }
        let blanks = width.saturating_sub(bar.chars().count());
        bar.extend(std::iter::repeat_n(' ', blanks));
        bar
    }

    /// One of five steps of density, the lightest 0.
    pub fn shade(self, step: usize) -> char {
        let ramp: [char; 5] = match self {
            Glyphs::Ascii => ['.', ':', '+', '*', '#'],
            _ => ['·', '░', '▒', '▓', '█'],
        };
        ramp[step.min(4)]
    }

    /// A vertical axis.
    pub fn axis(self) -> &'static str {
        if self == Glyphs::Ascii { "|" } else { "┤" }
    }

    /// A line that marks a limit.
    pub fn limit(self) -> &'static str {
        if self == Glyphs::Ascii { "-" } else { "╌" }
    }

    /// Where words were cut off.
    pub fn ellipsis(self) -> &'static str {
        if self == Glyphs::Ascii { "~" } else { "…" }
    }

    /// In front of the column a list is sorted by.
    pub fn sorted(self, descending: bool) -> &'static str {
        match (self, descending) {
            (Glyphs::Ascii, true) => "v",
            (Glyphs::Ascii, false) => "^",
            (_, true) => "▾",
            (_, false) => "▴",
        }
    }

    /// The line, the part of it passed, and the knob of a replay.
    pub fn slider(self) -> [&'static str; 3] {
        match self {
            Glyphs::Ascii => ["-", "=", "O"],
            _ => ["─", "━", "●"],
        }
    }

    /// Where a mark was set.
    pub fn mark(self) -> &'static str {
        // No exclamation mark: those are Watch's.
        if self == Glyphs::Ascii { "|" } else { "◆" }
    }

    /// Beside a peak.
    pub fn peak(self) -> &'static str {
        if self == Glyphs::Ascii { "^" } else { "▲" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locale_decides() {
        let env = |locale: &'static str, term: &'static str| {
            move |name: &str| match name {
                "LANG" => Some(locale.to_owned()),
                "TERM" => Some(term.to_owned()),
                _ => None,
            }
        };
        assert_eq!(Glyphs::of_environment(env("en_US.UTF-8", "xterm")), Glyphs::Braille);
        assert_eq!(Glyphs::of_environment(env("C.utf8", "linux")), Glyphs::Block);
        assert_eq!(Glyphs::of_environment(env("C", "xterm")), Glyphs::Ascii);
        assert_eq!(Glyphs::of_environment(|_| None), Glyphs::Ascii);
    }

    #[test]
    fn bars_have_their_width() {
        for glyphs in [Glyphs::Braille, Glyphs::Ascii] {
            for share in [0.0, 0.01, 0.49, 0.999, 1.0, 7.0, -1.0, f64::NAN] {
                assert_eq!(glyphs.bar(share, 9).chars().count(), 9);
            }
        }
        assert_eq!(Glyphs::Block.bar(0.5, 3), "█▌ ");
        assert_eq!(Glyphs::Ascii.bar(0.5, 4), "##  ");
        assert_eq!([0.0, 1.0, f64::NAN].map(|v| Glyphs::Block.column(v)), ['▁', '█', '▁']);
    }

    #[test]
    fn ascii_is_ascii() {
        let g = Glyphs::Ascii;
        let all = [g.axis(), g.limit(), g.ellipsis(), g.mark(), g.peak(), g.sorted(true)];
        assert!(all.iter().chain(&g.slider()).all(|text| text.is_ascii()));
        assert!(!all.contains(&"!"), "Watch has that");
        assert!((0..5).all(|step| g.shade(step).is_ascii()));
        assert!((0..8).all(|step| g.column(f64::from(step) / 7.0).is_ascii()));
    }
}
