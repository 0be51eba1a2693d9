//! Styles by role. With or without colour the same things stand out: what matters is also said by words, marks
//! or weight.

use clap::ValueEnum;
use ratatui::style::{Color, Modifier, Style};

/// Which colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Palette {
    /// The terminal's own 16 colours
    #[default]
    Ansi,
    /// For a dark background, 256 colours
    Dark,
    /// For a light background, 256 colours
    Light,
    /// Told apart with every kind of colour vision (after Okabe and Ito), 256 colours
    Safe,
}

impl Palette {
    /// The one after it, round and round.
    pub fn next(self) -> Palette {
        match self {
            Palette::Ansi => Palette::Dark,
            Palette::Dark => Palette::Light,
            Palette::Light => Palette::Safe,
            Palette::Safe => Palette::Ansi,
        }
    }
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    /// Unless NO_COLOR is set or the terminal is dumb
    #[default]
    Auto,
    /// In any case
    Always,
    /// Not at all
    Never,
}

impl ColorWhen {
    /// Whether colours are wanted, given the environment. `NO_COLOR`, set and not empty, is respected; see
    /// <https://no-color.org>.
    pub fn wanted(self, variable: impl Fn(&str) -> Option<String>) -> bool {
        match self {
            ColorWhen::Always => true,
            ColorWhen::Never => false,
            ColorWhen::Auto => {
                let plain = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
                !plain && variable("TERM").is_none_or(|term| term != "dumb")
            }
        }
    }
}

/// The roles' colours of a palette.
struct Colors {
    dim: Color,
    good: Color,
    warn: Color,
    bad: Color,
    into: Color,
    out: Color,
    tail: Color,
    accent: Color,
    heat: [Color; 5],
}

const ANSI: Colors = Colors {
    dim: Color::DarkGray,
    good: Color::Green,
    warn: Color::Yellow,
    bad: Color::Red,
    into: Color::Cyan,
    out: Color::Green,
    tail: Color::Magenta,
    accent: Color::Blue,
    heat: [Color::Blue, Color::Cyan, Color::Green, Color::Yellow, Color::Red],
};

const DARK: Colors = Colors {
    dim: Color::Indexed(244),
    good: Color::Indexed(114),
    warn: Color::Indexed(221),
    bad: Color::Indexed(203),
    into: Color::Indexed(80),
    out: Color::Indexed(150),
    tail: Color::Indexed(176),
    accent: Color::Indexed(75),
    heat: indexed([24, 31, 72, 179, 203]),
};

const LIGHT: Colors = Colors {
    dim: Color::Indexed(243),
    good: Color::Indexed(28),
    warn: Color::Indexed(130),
    bad: Color::Indexed(160),
    into: Color::Indexed(25),
    out: Color::Indexed(29),
    tail: Color::Indexed(90),
    accent: Color::Indexed(26),
    heat: indexed([153, 110, 67, 130, 160]),
};

/// Blue, orange and yellow instead of green and red.
const SAFE: Colors = Colors {
    dim: Color::Indexed(245),
    good: Color::Indexed(74),
    warn: Color::Indexed(220),
    bad: Color::Indexed(208),
    into: Color::Indexed(74),
    out: Color::Indexed(220),
    tail: Color::Indexed(175),
    accent: Color::Indexed(32),
    heat: indexed([18, 25, 74, 220, 208]),
};

const fn indexed([a, b, c, d, e]: [u8; 5]) -> [Color; 5] {
    use Color::Indexed;
    [Indexed(a), Indexed(b), Indexed(c), Indexed(d), Indexed(e)]
}

/// The styles there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// Which colours, if any.
    pub palette: Palette,
    /// Whether there are any.
    pub color: bool,
}

impl Theme {
    fn with(self, pick: impl Fn(&Colors) -> Color, modifier: Modifier) -> Style {
        let style = Style::new().add_modifier(modifier);
        let colors = match self.palette {
            Palette::Ansi => &ANSI,
            Palette::Dark => &DARK,
            Palette::Light => &LIGHT,
            Palette::Safe => &SAFE,
        };
        if self.color { style.fg(pick(colors)) } else { style }
    }

    /// Figures, headings and keys.
    pub fn bold(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// What frames and explains.
    pub fn dim(self) -> Style {
        self.with(|c| c.dim, Modifier::empty())
    }

    /// The title of a panel.
    pub fn title(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// The frame of the panel that has the keys.
    pub fn focus(self) -> Style {
        self.with(|c| c.accent, Modifier::BOLD)
    }

    /// The line selected in a list.
    pub fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// As it should be.
    pub fn good(self) -> Style {
        self.with(|c| c.good, Modifier::empty())
    }

    /// Worth a look.
    pub fn warn(self) -> Style {
        self.with(|c| c.warn, Modifier::BOLD)
    }

    /// Wrong.
    pub fn bad(self) -> Style {
        self.with(|c| c.bad, Modifier::BOLD)
    }

    /// Wrong, and not to be overlooked.
    pub fn alarm(self) -> Style {
        self.with(|c| c.bad, Modifier::BOLD | Modifier::REVERSED)
    }

    /// A state that is not the usual one: paused, replayed.
    pub fn state(self) -> Style {
        self.with(|c| c.accent, Modifier::BOLD | Modifier::REVERSED)
    }

    /// What goes in; the middle of a distribution.
    pub fn into(self) -> Style {
        self.with(|c| c.into, Modifier::empty())
    }

    /// What goes out.
    pub fn out(self) -> Style {
        self.with(|c| c.out, Modifier::empty())
    }

    /// The tail of a distribution.
    pub fn tail(self) -> Style {
        self.with(|c| c.tail, Modifier::empty())
    }

    /// One of five steps of a heat map, the coolest 0; the glyph tells the step as well.
    pub fn heat(self, step: usize) -> Style {
        self.with(|c| c.heat[step.min(4)], Modifier::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_respected() {
        let with = |name: &'static str, value: &'static str| {
            move |asked: &str| (asked == name).then(|| value.to_owned())
        };
        assert!(ColorWhen::Auto.wanted(|_| None));
        assert!(!ColorWhen::Auto.wanted(with("NO_COLOR", "1")));
        assert!(ColorWhen::Auto.wanted(with("NO_COLOR", "")));
        assert!(!ColorWhen::Auto.wanted(with("TERM", "dumb")));
        assert!(ColorWhen::Always.wanted(with("NO_COLOR", "1")));
        assert!(!ColorWhen::Never.wanted(|_| None));
    }

    #[test]
    fn without_colour_weight_remains() {
        let theme = Theme { palette: Palette::Dark, color: false };
        for style in [theme.bad(), theme.warn(), theme.alarm(), theme.state(), theme.selected()] {
            assert_eq!(style.fg, None);
            assert!(!style.add_modifier.is_empty());
        }
        assert_eq!(Palette::Ansi.next().next().next().next(), Palette::Ansi);
    }
}
