//! Styles. With or without colour the same things stand out; colour only helps.

use ratatui::style::{Color, Modifier, Style};

/// The styles there are.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    color: bool,
}

impl Theme {
    /// The terminal's own 16 colours, or none.
    pub fn new(color: bool) -> Theme {
        Theme { color }
    }

    fn with(self, color: Color, modifier: Modifier) -> Style {
        let style = Style::new().add_modifier(modifier);
        if self.color { style.fg(color) } else { style }
    }

    /// Headings and keys.
    pub fn bold(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// What frames and explains.
    pub fn dim(self) -> Style {
        self.with(Color::DarkGray, Modifier::empty())
    }

    /// As it should be.
    pub fn good(self) -> Style {
        self.with(Color::Green, Modifier::empty())
    }

    /// Worth a look.
    pub fn warn(self) -> Style {
        self.with(Color::Yellow, Modifier::BOLD)
    }

    /// Wrong.
    pub fn bad(self) -> Style {
        self.with(Color::Red, Modifier::BOLD)
    }

    /// Wrong, and not to be overlooked.
    pub fn alarm(self) -> Style {
        self.with(Color::Red, Modifier::BOLD | Modifier::REVERSED)
    }

    /// What goes in.
    pub fn into(self) -> Style {
        self.with(Color::Cyan, Modifier::empty())
    }

    /// What goes out.
    pub fn out(self) -> Style {
        self.with(Color::Green, Modifier::empty())
    }

    /// The tail of a distribution.
    pub fn tail(self) -> Style {
        self.with(Color::Magenta, Modifier::empty())
    }
}
