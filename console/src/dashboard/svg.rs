//! A screen as an SVG picture, for manuals: the same cells a terminal would show. Charts and frames are drawn as shapes,
//! so that they do not depend on anybody's font; the rest is text in whatever monospaced font there is.

use std::fmt::Write as _;

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

/// Size of a cell, in user units.
const CELL: (f64, f64) = (8.0, 17.0);
/// Room around the screen.
const MARGIN: f64 = 10.0;
/// From the top of a cell to the line its text stands on.
const BASE: f64 = 13.0;
/// What a terminal that says nothing of its own shows on what.
const PLAIN: (&str, &str) = ("#d4d7de", "#14171f");
/// The sixteen colours a terminal names, in the order of their numbers.
const NAMED: [&str; 16] = [
    "#14171f", "#e5646e", "#7fc97a", "#e3c15d", "#5d9cec", "#c68ae0", "#55c2c9", "#c3c8d2",
    "#6f7787", "#f08a90", "#9fdc98", "#f0d684", "#86b7f4", "#dbacef", "#80d9de", "#f2f4f8",
];

/// The picture of `buffer`. The same cells make the same bytes.
pub fn picture(buffer: &Buffer) -> String {
    let area = buffer.area;
    let (width, height) = (
        f64::from(area.width) * CELL.0 + 2.0 * MARGIN,
        f64::from(area.height) * CELL.1 + 2.0 * MARGIN,
    );
    let (fg, bg) = PLAIN;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\">\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"{bg}\"/>\n\
         <g transform=\"translate({MARGIN} {MARGIN})\" fill=\"{fg}\" font-size=\"13\" font-family=\"ui-monospace,\
         SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace\" xml:space=\"preserve\">\n"
    );
    for y in 0..area.height {
        let mut x = 0;
        while x < area.width {
            let look = Look::of(&buffer[(x, y)]);
            let end = (x..area.width).find(|&x| Look::of(&buffer[(x, y)]) != look);
            let end = end.unwrap_or(area.width);
            let cells: Vec<&str> = (x..end).map(|x| buffer[(x, y)].symbol()).collect();
            run(&mut out, (x, y), &cells, &look);
            x = end;
        }
    }
    out.push_str("</g>\n</svg>\n");
    out
}

/// What cells of one run have in common.
#[derive(PartialEq, Eq)]
struct Look {
    fg: String,
    bg: String,
    bold: bool,
    dim: bool,
}

impl Look {
    fn of(cell: &Cell) -> Look {
        let (mut fg, mut bg) = (color(cell.fg, PLAIN.0), color(cell.bg, PLAIN.1));
        if cell.modifier.contains(Modifier::REVERSED) {
            std::mem::swap(&mut fg, &mut bg);
        }
        let has = |modifier| cell.modifier.contains(modifier);
        Look { fg, bg, bold: has(Modifier::BOLD), dim: has(Modifier::DIM) }
    }

    /// Attributes beyond what holds for the whole picture.
    fn attributes(&self) -> String {
        let mut all = String::new();
        if self.fg != PLAIN.0 {
            all += &format!(" fill=\"{}\"", self.fg);
        }
        if self.bold {
            all += " font-weight=\"bold\"";
        }
        if self.dim {
            all += " opacity=\"0.6\"";
        }
        all
    }
}

/// A colour as SVG has it; `plain` where the terminal decides.
fn color(color: Color, plain: &str) -> String {
    match color {
        Color::Rgb(r, g, b) => format!("#{r:02x}{g:02x}{b:02x}"),
        Color::Indexed(n) => indexed(n),
        Color::Reset => plain.to_owned(),
        named => {
            let order = [
                Color::Black,
                Color::Red,
                Color::Green,
                Color::Yellow,
                Color::Blue,
                Color::Magenta,
                Color::Cyan,
                Color::Gray,
                Color::DarkGray,
                Color::LightRed,
                Color::LightGreen,
                Color::LightYellow,
                Color::LightBlue,
                Color::LightMagenta,
                Color::LightCyan,
                Color::White,
            ];
            let at = order.iter().position(|known| *known == named);
            at.map_or(plain, |at| NAMED[at]).to_owned()
        }
    }
}

/// A colour of the 256: the named ones, a cube of six steps, a ramp of grey.
fn indexed(n: u8) -> String {
    let step = |n: u8| if n == 0 { 0 } else { 55 + 40 * n };
    match n {
        0..16 => NAMED[usize::from(n)].to_owned(),
        16..232 => {
            let n = n - 16;
            format!("#{:02x}{:02x}{:02x}", step(n / 36), step(n / 6 % 6), step(n % 6))
        }
        232.. => {
            let grey = 8 + 10 * (n - 232);
            format!("#{grey:02x}{grey:02x}{grey:02x}")
        }
    }
}

/// Cells of one look, from (`x`, `y`) on.
fn run(out: &mut String, (x, y): (u16, u16), cells: &[&str], look: &Look) {
    let (left, top) = (f64::from(x) * CELL.0, f64::from(y) * CELL.1);
    if look.bg != PLAIN.1 {
        let width = cells.len() as f64 * CELL.0;
        let _ = writeln!(
            out,
            "<path d=\"M{left} {top}h{width}v{}h-{width}z\" fill=\"{}\"/>",
            CELL.1, look.bg
        );
    }
    let mut shapes = String::new();
    let mut text: Option<(usize, String)> = None;
    let write = |text: Option<(usize, String)>, out: &mut String| {
        let Some((at, text)) = text else { return };
        let text = text.trim_end();
        let length = text.chars().count() as f64 * CELL.0;
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" textLength=\"{length}\"{}>{}</text>",
            left + at as f64 * CELL.0,
            top + BASE,
            look.attributes(),
            text.replace('&', "&amp;").replace('<', "&lt;")
        );
    };
    for (at, symbol) in cells.iter().enumerate() {
        let drawn = shape(symbol, left + at as f64 * CELL.0, top, &mut shapes);
        match (&mut text, drawn || symbol.trim().is_empty()) {
            // A blank within words is part of them, two are not.
            (Some((_, words)), true) if !drawn && !words.ends_with(' ') => words.push(' '),
            (_, true) => write(text.take(), out),
            (Some((_, words)), false) => words.push_str(symbol),
            (None, false) => text = Some((at, (*symbol).to_owned())),
        }
    }
    write(text, out);
    if !shapes.is_empty() {
        let _ = writeln!(out, "<path d=\"{shapes}\"{}/>", look.attributes());
    }
}

/// Adds a rectangle to a path, in hundredths that are cut off.
fn rectangle(path: &mut String, x: f64, y: f64, width: f64, height: f64) {
    let short = |value: f64| (value * 100.0).round() / 100.0;
    let (x, y, width, height) = (short(x), short(y), short(width), short(height));
    let _ = write!(path, "M{x} {y}h{width}v{height}h-{width}z");
}

/// Adds what `symbol` draws to a path; false if it is text.
fn shape(symbol: &str, x: f64, y: f64, path: &mut String) -> bool {
    let mut chars = symbol.chars();
    let (Some(char), None) = (chars.next(), chars.next()) else { return false };
    let (width, height) = CELL;
    match char {
        '\u{2800}'..='\u{28ff}' => {
            // Dots 1 to 3 and 7 are the left column, 4 to 6 and 8 the right one.
            const DOTS: [(u8, u8); 8] =
                [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3)];
            let set = char as u32 - 0x2800;
            for (bit, (column, row)) in
                DOTS.iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1)
            {
                let _ = bit;
                let (w, h) = (width / 2.0, height / 4.0);
                let (dx, dy) = (f64::from(*column) * w, f64::from(*row) * h);
                rectangle(path, x + dx + 0.8, y + dy + 0.9, w - 1.6, h - 1.8);
            }
        }
        // Filled from below, by eighths; a little room keeps small charts of neighbouring lines apart.
        '\u{2581}'..='\u{2588}' => {
            let high = (height - 2.0) * f64::from(char as u32 - 0x2580) / 8.0;
            rectangle(path, x, y + height - high, width, high);
        }
        '\u{2580}' => rectangle(path, x, y, width, height / 2.0),
        '╌' => {
            rectangle(path, x + 0.5, y + height / 2.0 - 0.5, 3.0, 1.0);
            rectangle(path, x + 4.5, y + height / 2.0 - 0.5, 3.0, 1.0);
        }
        _ => {
            // The arms of a line: left, right, up, down.
            let (left, right, up, down) = match char {
                '─' => (true, true, false, false),
                '│' => (false, false, true, true),
                '┌' => (false, true, false, true),
                '┐' => (true, false, false, true),
                '└' => (false, true, true, false),
                '┘' => (true, false, true, false),
                '├' => (false, true, true, true),
                '┤' => (true, false, true, true),
                '┬' => (true, true, false, true),
                '┴' => (true, true, true, false),
                '┼' => (true, true, true, true),
                _ => return false,
            };
            let (cx, cy) = (width / 2.0, height / 2.0);
            if left || right {
                let from = if left { 0.0 } else { cx - 0.5 };
                let to = if right { width } else { cx + 0.5 };
                rectangle(path, x + from, y + cy - 0.5, to - from, 1.0);
            }
            if up || down {
                let from = if up { 0.0 } else { cy - 0.5 };
                let to = if down { height } else { cy + 0.5 };
                rectangle(path, x + cx - 0.5, y + from, 1.0, to - from);
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::layout::Rect;
    use ratatui::style::Style;

    #[test]
    fn cells_become_text_shapes_and_colours() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 12, 2));
        buffer.set_string(0, 0, "a<b  c", Style::new().fg(Color::Green));
        buffer.set_string(6, 0, "▄⣿", Style::new().fg(Color::Indexed(203)));
        buffer.set_string(0, 1, "┌─", Style::new().bg(Color::Rgb(1, 2, 3)));
        let svg = picture(&buffer);
        for part in [
            "<text x=\"0\" y=\"13\" textLength=\"24\" fill=\"#7fc97a\">a&lt;b</text>",
            "<text x=\"40\" y=\"13\" textLength=\"8\" fill=\"#7fc97a\">c</text>",
            "<path d=\"M48 9.5h8v7.5h-8zM56.8 0.9h2.4v2.45h-2.4z",
            "<path d=\"M0 17h16v17h-16z\" fill=\"#010203\"/>",
            "<path d=\"M3.5 25h4.5v1h-4.5zM3.5 25h1v9h-1zM8 25h8v1h-8z\"/>",
        ] {
            assert!(svg.contains(part), "{part} is missing in\n{svg}");
        }
        assert_eq!(svg.matches("h2.4v").count(), 8, "dots");
        assert!(svg.contains("fill=\"#ff5f5f\""));
    }
}
