//! Curves over an axis, with a limit line, in dots of braille, half blocks or plain characters.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use crate::dashboard::glyphs::Glyphs;
use crate::dashboard::theme::Theme;

/// Columns of the labels of the y axis; the axis is one more.
pub const LABEL: u16 = 6;

/// A curve: a value for each dot from left to right.
pub struct Curve {
    /// `None` is not measured: the curve goes straight on to the next one that is.
    pub values: Vec<Option<f64>>,
    /// How it is drawn.
    pub style: Style,
    /// Filled down to the axis.
    pub filled: bool,
}

impl Curve {
    /// A line.
    pub fn line(values: Vec<Option<f64>>, style: Style) -> Curve {
        Curve { values, style, filled: false }
    }

    /// An area.
    pub fn filled(values: Vec<Option<f64>>, style: Style) -> Curve {
        Curve { values, style, filled: true }
    }
}

/// Everything in a chart.
pub struct Chart {
    /// Later ones over earlier ones.
    pub curves: Vec<Curve>,
    /// The y axis.
    pub scale: Scale,
    /// Labels under the x axis, each at its share (0 to 1) of the width.
    pub below: Vec<(f64, String)>,
    /// A line across at this value, with a word at its right end.
    pub limit: Option<(f64, String)>,
}

/// The y axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    /// Smallest and largest value.
    pub bounds: [f64; 2],
    /// What is written beside which value, from the bottom up.
    pub labels: Vec<(f64, String)>,
}

impl Scale {
    /// From 0 to a round number at or above `max`.
    pub fn linear(max: f64, format: impl Fn(f64) -> String) -> Scale {
        let top = round_up(max);
        let mut labels = Vec::from([0.0, top / 2.0, top].map(|value| (value, format(value))));
        // Half of one record is none.
        labels.dedup_by(|higher, lower| higher.1 == lower.1);
        Scale { bounds: [0.0, top], labels }
    }

    /// Around `min` and `max`, both in nanoseconds; values are their logarithms. Bounds are 1, 2 or 5 times a power
    /// of ten, labels the powers of ten.
    pub fn logarithmic(min: u64, max: u64) -> Scale {
        let low = step_down(min.max(1) as f64);
        let high = round_log(max.max(1) as f64).max(low * 2.0);
        let powers = low.log10().ceil() as i32..=high.log10().floor() as i32;
        let mut labels: Vec<(f64, String)> =
            powers.map(|power| (f64::from(power), short_time(10f64.powi(power)))).collect();
        if labels.len() < 2 {
            labels = vec![(low.log10(), short_time(low)), (high.log10(), short_time(high))];
        }
        Scale { bounds: [low.log10(), high.log10()], labels }
    }

    /// Whether `value` is within the bounds.
    pub fn holds(&self, value: f64) -> bool {
        (self.bounds[0]..=self.bounds[1]).contains(&value)
    }

    /// How far up `value` is, 0 to 1.
    pub fn share(&self, value: f64) -> f64 {
        let [low, high] = self.bounds;
        ((value - low) / (high - low)).clamp(0.0, 1.0)
    }
}

/// A power of ten of nanoseconds or 2 or 5 times one: `500us`.
fn short_time(ns: f64) -> String {
    let (value, unit) = match ns {
        ns if ns < 1e3 => (ns, "ns"),
        ns if ns < 1e6 => (ns / 1e3, "us"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    format!("{value:.0}{unit}")
}

/// 1, 2 or 5 times a power of ten, at or above `value`.
fn round_log(value: f64) -> f64 {
    let decade = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0]
        .map(|step| step * decade)
        .into_iter()
        .find(|v| *v >= value)
        .unwrap_or(10.0 * decade)
}

/// 1, 2 or 5 times a power of ten, at or below `value`.
fn step_down(value: f64) -> f64 {
    let decade = 10f64.powf(value.log10().floor());
    [5.0, 2.0, 1.0].map(|step| step * decade).into_iter().find(|v| *v <= value).unwrap_or(decade)
}

/// A digit times a power of ten, at or above `value`.
fn round_up(value: f64) -> f64 {
    if value.is_nan() || value <= 1.0 {
        return 1.0;
    }
    let decade = 10f64.powf(value.log10().floor());
    [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0]
        .map(|step| step * decade)
        .into_iter()
        .find(|v| *v >= value)
        .unwrap_or(value)
}

/// How many values a curve in `area` should have: one for each dot from left to right.
pub fn dots(area: Rect, glyphs: Glyphs) -> usize {
    usize::from(area.width.saturating_sub(LABEL + 1)) * resolution(glyphs).0
}

/// Dots of a character: across and up.
fn resolution(glyphs: Glyphs) -> (usize, usize) {
    match glyphs {
        Glyphs::Braille => (2, 4),
        Glyphs::Block => (1, 2),
        Glyphs::Ascii => (1, 1),
    }
}

/// Draws it; nothing where there is no room for a chart.
pub fn draw(chart: &Chart, theme: Theme, glyphs: Glyphs, area: Rect, buffer: &mut Buffer) {
    if area.height < 3 || area.width < LABEL + 5 {
        return;
    }
    let plot = Rect::new(area.x + LABEL + 1, area.y, area.width - LABEL - 1, area.height - 1);
    axes(chart, theme, glyphs, area, plot, buffer);
    let limit = chart.limit.as_ref().filter(|(value, _)| chart.scale.holds(*value));
    let line = limit.map(|(value, word)| (row(&chart.scale, *value, plot), word));
    if let Some((y, _)) = line {
        let line = glyphs.limit().repeat(usize::from(plot.width));
        buffer.set_stringn(plot.x, y, line, usize::from(plot.width), theme.dim());
    }
    for (number, curve) in chart.curves.iter().enumerate() {
        let dots = Dots::of(curve, &chart.scale, plot, glyphs);
        dots.draw(curve, number, glyphs, plot, buffer);
    }
    if let Some((y, word)) = line {
        limit_word(&format!(" {word} "), theme, glyphs, plot, y, buffer);
    }
}

fn row(scale: &Scale, value: f64, plot: Rect) -> u16 {
    let up = (scale.share(value) * f64::from(plot.height - 1)).round() as u16;
    plot.bottom() - 1 - up.min(plot.height - 1)
}

fn axes(chart: &Chart, theme: Theme, glyphs: Glyphs, area: Rect, plot: Rect, buffer: &mut Buffer) {
    for y in plot.y..plot.bottom() {
        let bar = if glyphs == Glyphs::Ascii { "|" } else { "│" };
        buffer.set_string(plot.x - 1, y, bar, theme.dim());
    }
    // The ends first: a label that would touch one that is there is left out.
    let labels = &chart.scale.labels;
    let mut taken: Vec<u16> = Vec::new();
    for (value, text) in labels.iter().take(1).chain(labels.iter().rev()) {
        let y = row(&chart.scale, *value, plot);
        if taken.iter().all(|t| t.abs_diff(y) > 1) {
            taken.push(y);
            let width = usize::from(LABEL);
            buffer.set_string(area.x, y, format!("{text:>width$}"), theme.dim());
            buffer.set_string(plot.x - 1, y, glyphs.axis(), theme.dim());
        }
    }
    let below = area.bottom() - 1;
    let mut free = area.x;
    // The last one first, for it matters most; the others as far as they fit before it.
    let mut end = area.right();
    let place = |share: f64, text: &str, end: u16| {
        let half = if share >= 1.0 {
            text.len()
        } else if share <= 0.0 {
            0
        } else {
            text.len() / 2
        };
        let x = f64::from(plot.x) + share * f64::from(plot.width) - half as f64;
        (x.round() as u16).min(end.saturating_sub(text.len() as u16)).max(plot.x)
    };
    if let Some((share, text)) = chart.below.last() {
        let x = place(*share, text, end);
        buffer.set_stringn(
            x,
            below,
            text,
            usize::from(area.right().saturating_sub(x)),
            theme.dim(),
        );
        end = x.saturating_sub(1);
    }
    for (share, text) in chart.below.iter().rev().skip(1).rev() {
        let x = place(*share, text, u16::MAX);
        if x >= free && x + text.len() as u16 <= end {
            buffer.set_string(x, below, text, theme.dim());
            free = x + text.len() as u16 + 1;
        }
    }
}

/// Names the limit's line where no curve is in the way, if there is such a place.
fn limit_word(word: &str, theme: Theme, glyphs: Glyphs, plot: Rect, y: u16, buffer: &mut Buffer) {
    let width = word.chars().count() as u16;
    let free = |x: u16| (x..x + width).all(|x| buffer[(x, y)].symbol() == glyphs.limit());
    let last = plot.right().saturating_sub(width + 2);
    if width + 6 < plot.width {
        let x = (plot.x + 2..last).find(|&x| free(x)).unwrap_or(plot.x + 2);
        buffer.set_string(x, y, word, theme.dim());
    }
}

/// The dots of a curve, by character, from the top left.
struct Dots {
    bits: Vec<u8>,
    across: usize,
    up: usize,
}

impl Dots {
    fn of(curve: &Curve, scale: &Scale, plot: Rect, glyphs: Glyphs) -> Dots {
        let (across, up) = resolution(glyphs);
        let (columns, rows) = (usize::from(plot.width) * across, usize::from(plot.height) * up);
        let mut dots = Dots { bits: vec![0; plot.area() as usize], across, up };
        let height = |value: f64| (scale.share(value) * (rows - 1) as f64).round() as usize;
        let mut last: Option<(usize, usize)> = None;
        let skip = curve.values.len().saturating_sub(columns);
        let gap = columns.saturating_sub(curve.values.len());
        for (x, value) in curve.values[skip..].iter().enumerate() {
            let Some(value) = value.filter(|value| !value.is_nan()) else { continue };
            let (x, y) = (x + gap, height(value));
            if curve.filled {
                let from = last.map_or(x, |(x, _)| x + 1);
                let flat = last.map_or(y, |(_, y)| y);
                for x in from..x {
                    (0..=flat).for_each(|y| dots.set(x, y, plot));
                }
                (0..=y).for_each(|y| dots.set(x, y, plot));
            } else {
                dots.join(last.unwrap_or((x, y)), (x, y), plot);
            }
            last = Some((x, y));
        }
        dots
    }

    /// Dots from the one point to the other.
    fn join(&mut self, (x0, y0): (usize, usize), (x1, y1): (usize, usize), plot: Rect) {
        let steps = x0.abs_diff(x1).max(y0.abs_diff(y1)).max(1);
        let between = |a: usize, b: usize, i: usize| {
            (a as f64 + (b as f64 - a as f64) * i as f64 / steps as f64).round() as usize
        };
        for i in 0..=steps {
            self.set(between(x0, x1, i), between(y0, y1, i), plot);
        }
    }

    /// The dot in column `x` from the left and row `y` from below.
    fn set(&mut self, x: usize, y: usize, plot: Rect) {
        let rows = usize::from(plot.height) * self.up;
        let Some(from_top) = (rows - 1).checked_sub(y) else { return };
        let cell = from_top / self.up * usize::from(plot.width) + x / self.across;
        let bit = from_top % self.up * self.across + x % self.across;
        if let Some(bits) =
            self.bits.get_mut(cell).filter(|_| x / self.across < usize::from(plot.width))
        {
            *bits |= 1 << bit;
        }
    }

    fn draw(&self, curve: &Curve, number: usize, glyphs: Glyphs, plot: Rect, buffer: &mut Buffer) {
        for (index, &bits) in self.bits.iter().enumerate().filter(|(_, bits)| **bits != 0) {
            let (x, y) = (index as u16 % plot.width, index as u16 / plot.width);
            let Some(cell) = buffer.cell_mut((plot.x + x, plot.y + y)) else { continue };
            let glyph = match glyphs {
                Glyphs::Braille => {
                    // What another curve left in this character stays visible.
                    let there = cell.symbol().chars().next().map_or(0, |c| c as u32);
                    let there = if (0x2800..0x2900).contains(&there) { there - 0x2800 } else { 0 };
                    char::from_u32(0x2800 + (braille(bits) | there)).unwrap_or(' ')
                }
                Glyphs::Block => match bits {
                    1 => '▀',
                    2 => '▄',
                    _ => '█',
                },
                Glyphs::Ascii if curve.filled => ':',
                Glyphs::Ascii => ['*', '+', 'o', 'x', '='][number % 5],
            };
            cell.set_char(glyph).set_style(curve.style);
        }
    }
}

/// Bits from the top left, by rows, as Unicode numbers the dots of a braille character.
fn braille(bits: u8) -> u32 {
    const PLACE: [u32; 8] = [0x01, 0x08, 0x02, 0x10, 0x04, 0x20, 0x40, 0x80];
    PLACE.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, place)| place).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::theme::Palette;

    fn drawn(curve: Curve, glyphs: Glyphs, size: (u16, u16)) -> Buffer {
        let area = Rect::new(0, 0, size.0, size.1);
        let mut buffer = Buffer::empty(area);
        let chart = Chart {
            curves: vec![curve],
            scale: Scale::linear(2.0, |v| format!("{v:.0}")),
            below: vec![(0.0, "-1m".into()), (1.0, "now".into())],
            limit: Some((1.0, "SLO".into())),
        };
        let theme = Theme { palette: Palette::Ansi, color: false };
        draw(&chart, theme, glyphs, area, &mut buffer);
        buffer
    }

    #[test]
    fn a_chart_in_every_kind_of_glyph() {
        let values = || vec![Some(0.0), Some(2.0), None, Some(1.0)];
        let expected = [
            "     2| *        ",
            "      | **       ",
            "     1|-*-*------",
            "      |*         ",
            "     0|*         ",
            "       -1m    now",
        ];
        let mut curve = Curve::line(values(), Style::new());
        curve.values.extend([None; 6]);
        assert_eq!(drawn(curve, Glyphs::Ascii, (17, 6)), Buffer::with_lines(expected));
        let filled = drawn(Curve::filled(values(), Style::new()), Glyphs::Block, (11, 3));
        let row = |y| (0..11).map(|x| filled[(x, y)].symbol()).collect::<String>();
        assert_eq!([row(0), row(1)], ["      │╌██▄", "     0┤▄███"]);
        let line = drawn(Curve::line(values(), Style::new()), Glyphs::Braille, (11, 3));
        assert_eq!(line[(9, 0)].symbol(), "⢸");
    }

    #[test]
    fn scales_are_round() {
        assert_eq!(round_up(20_000.0), 20_000.0);
        assert_eq!(round_up(20_001.0), 30_000.0);
        assert_eq!(round_up(0.0), 1.0);
        assert_eq!(round_up(f64::NAN), 1.0);
        let words = |scale: Scale| scale.labels.into_iter().map(|l| l.1).collect::<Vec<_>>();
        assert_eq!(words(Scale::logarithmic(400_000, 41_000_000)), ["1ms", "10ms"]);
        assert_eq!(words(Scale::logarithmic(0, 0)), ["1ns", "2ns"]);
        assert_eq!(words(Scale::logarithmic(210_000, 480_000)), ["200us", "500us"]);
        assert_eq!(Scale::logarithmic(1, u64::MAX).labels.len(), 20);
        assert_eq!(Scale::linear(2.0, |v| v.to_string()).share(9.0), 1.0);
    }

    #[test]
    fn no_size_panics() {
        for width in 0..30 {
            for height in 0..8 {
                for glyphs in [Glyphs::Braille, Glyphs::Block, Glyphs::Ascii] {
                    let values = vec![Some(1.0), None, Some(f64::NAN), Some(5.0), Some(-5.0)];
                    drawn(Curve::filled(values.clone(), Style::new()), glyphs, (width, height));
                    drawn(Curve::line(values, Style::new()), glyphs, (width, height));
                }
            }
        }
    }
}
