//! A screen as text: what is on it, and then in which styles. A changed colour changes the text.

use std::fmt::Write as _;

use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};

/// The lines, without the blanks at their ends.
pub fn text(buffer: &Buffer) -> String {
    let area = buffer.area;
    let line = |y| (0..area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..area.height).map(|y| line(y).trim_end().to_owned() + "\n").collect()
}

/// The lines, then for each line the runs of style that are not plain: `3: 1-4 bold, 9-12 green`.
pub fn with_styles(buffer: &Buffer) -> String {
    let mut out = text(buffer);
    out.push_str("---\n");
    for y in 0..buffer.area.height {
        let mut runs: Vec<(u16, u16, String)> = Vec::new();
        for x in 0..buffer.area.width {
            let cell = &buffer[(x, y)];
            let style = style(cell.fg, cell.bg, cell.modifier);
            match runs.last_mut() {
                Some((_, end, last)) if *last == style && *end + 1 == x => *end = x,
                _ => runs.push((x, x, style)),
            }
        }
        let runs: Vec<String> = runs
            .into_iter()
            .filter(|(_, _, style)| !style.is_empty())
            .map(|(from, to, style)| format!("{from}-{to} {style}"))
            .collect();
        if !runs.is_empty() {
            let _ = writeln!(out, "{y}: {}", runs.join(", "));
        }
    }
    out
}

fn style(fg: Color, bg: Color, modifier: Modifier) -> String {
    let mut words = Vec::new();
    if fg != Color::Reset {
        words.push(fg.to_string().to_lowercase());
    }
    if bg != Color::Reset {
        words.push(format!("on {bg}").to_lowercase());
    }
    for (flag, word) in
        [(Modifier::BOLD, "bold"), (Modifier::REVERSED, "reversed"), (Modifier::DIM, "dim")]
    {
        if modifier.contains(flag) {
            words.push(word.to_owned());
        }
    }
    words.join(" ")
}
