//! Charts as inline SVG. plotters lays out axes, grid and lines; the axes' scales and ticks are ours, because
//! the ones a latency chart needs (1/(1 - q), microseconds to minutes) are not among its own.
//!
//! Every colour drawn here also becomes a CSS class, so that a style sheet can choose others for a dark page
//! and dash the lines: they differ without colour too. Legends are the page's, not the picture's.

use std::ops::Range;

use plotters::coord::ranged1d::{
    KeyPointHint, KeyPointWeight, NoDefaultFormatting, Ranged, ValueFormatter,
};
use plotters::prelude::*;

/// Size of the picture in its own units; pages scale it. Twice what is seen, because plotters places by whole
/// units.
pub const SIZE: (u32, u32) = (1760, 640);
/// Height of its text, as plotters counts it (it divides by 1.24 on the way to SVG).
const TEXT: f64 = 24.0 * 1.24;

/// Colours of the lines where no style sheet says otherwise, by [`Line::style`]. Chosen to differ for
/// colour-blind eyes and to be legible on white and on black.
const LINES: [RGBColor; 6] = [
    RGBColor(0x0b, 0x6b, 0xb8),
    RGBColor(0xd0, 0x5a, 0x08),
    RGBColor(0x0a, 0x8f, 0x6a),
    RGBColor(0xb4, 0x4f, 0x9b),
    RGBColor(0x8c, 0x7a, 0x00),
    RGBColor(0x6b, 0x76, 0x84),
];
/// Of the bands, by [`Band::kind`].
const BANDS: [RGBColor; 5] = [
    RGBColor(0x80, 0x88, 0x90),
    RGBColor(0xe0, 0x8a, 0x1e),
    RGBColor(0x3a, 0x86, 0xd8),
    RGBColor(0xb0, 0x60, 0xc8),
    RGBColor(0x2f, 0x9e, 0x6c),
];
const TEXT_COLOUR: RGBColor = RGBColor(0x60, 0x69, 0x74);
const AXIS_COLOUR: RGBColor = RGBColor(0x8a, 0x93, 0x9e);
const GRID_COLOUR: RGBColor = RGBColor(0x9a, 0xa3, 0xae);

/// How many styles of lines there are.
pub const STYLES: usize = LINES.len();

/// What is drawn.
#[derive(Clone, Debug)]
pub struct Plot {
    /// From left to right.
    pub x: Axis,
    /// From bottom to top.
    pub y: Axis,
    /// Behind the lines.
    pub bands: Vec<Band>,
    /// In the order they are drawn: the first is solid, and the dashes of the others leave it seen.
    pub lines: Vec<Line>,
}

/// Points in order, joined.
#[derive(Clone, Debug)]
pub struct Line {
    /// For the legend.
    pub name: String,
    /// Which colour and dashes, below [`STYLES`].
    pub style: usize,
    /// Values in the units of the axes; a gap between pieces is left open.
    pub pieces: Vec<Vec<(f64, f64)>>,
}

/// What a stretch of the x axis is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BandKind {
    /// Not measured yet.
    WarmUp,
    /// Consumer groups away.
    Outage,
    /// These catching up.
    CatchUp,
    /// A burst.
    Burst,
    /// Where an estimate lies with 95 %.
    Estimate,
}

impl BandKind {
    /// For the legend.
    pub fn name(self) -> &'static str {
        match self {
            BandKind::WarmUp => "warm-up",
            BandKind::Outage => "group away",
            BandKind::CatchUp => "catching up",
            BandKind::Burst => "burst",
            BandKind::Estimate => "estimate, 95 % interval",
        }
    }
}

/// A stretch of the x axis that is shaded.
#[derive(Clone, Copy, Debug)]
pub struct Band {
    /// Why.
    pub kind: BandKind,
    /// From.
    pub from: f64,
    /// To.
    pub to: f64,
}

/// How values become places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    Linear,
    /// log10.
    Log,
    /// Quantiles 0 to 1: log10(1/(1 - q)), which spreads the tail.
    Quantile,
}

/// One axis, with its ticks.
#[derive(Clone, Debug)]
pub struct Axis {
    title: String,
    scale: Scale,
    /// Places, as [`Axis::place`] gives them, of both ends.
    ends: (f64, f64),
    ticks: Vec<(f64, String)>,
    /// Places of further grid lines.
    minor: Vec<f64>,
}

impl Axis {
    /// Quantiles from 0 to `last`.
    pub fn quantiles(last: f64) -> Axis {
        let axis = Axis::bare("percentile of records", Scale::Quantile);
        let ticks = [
            (0.0, "0 %"),
            (0.5, "50 %"),
            (0.9, "90 %"),
            (0.99, "99 %"),
            (0.999, "99.9 %"),
            (0.9999, "99.99 %"),
            (0.99999, "99.999 %"),
            (0.999_999, "99.9999 %"),
        ];
        let end = axis.place(last).max(axis.place(0.9));
        let seen = |q: f64| axis.place(q) <= end + 1e-9;
        Axis {
            ticks: ticks
                .iter()
                .filter(|(q, _)| seen(*q))
                .map(|(q, label)| (axis.place(*q), (*label).to_owned()))
                .collect(),
            minor: [0.25, 0.75, 0.95, 0.995, 0.9995, 0.99995]
                .into_iter()
                .filter(|q| seen(*q))
                .map(|q| axis.place(q))
                .collect(),
            ends: (0.0, end),
            ..axis
        }
    }

    /// Latencies in microseconds, logarithmic, covering `least` to `most`. Nothing below 1 us is told apart.
    pub fn latency(least: f64, most: f64) -> Axis {
        let axis = Axis::bare("latency (log scale)", Scale::Log);
        let low = least.max(1.0).log10().floor();
        let top = axis.place(most.max(1.0));
        // Up to the next 1, 2 or 5, with a little air above.
        let high = (low as i32..=12)
            .flat_map(|decade| [1.0f64, 2.0, 5.0].map(|m| m.log10() + f64::from(decade)))
            .find(|place| *place >= top + 0.02 && *place >= low + 0.6)
            .unwrap_or(top + 1.0);
        let close = high - low <= 2.5;
        let (mut ticks, mut minor) = (Vec::new(), Vec::new());
        for decade in low as i32..=high.floor() as i32 {
            for multiple in 1..10 {
                let us = f64::from(multiple) * 10f64.powi(decade);
                let place = us.log10();
                if place > high + 1e-9 {
                    continue;
                }
                if multiple == 1 || (close && matches!(multiple, 2 | 5)) {
                    ticks.push((place, round_time(us)));
                } else {
                    minor.push(place);
                }
            }
        }
        Axis { ends: (low, high), ticks, minor, ..axis }
    }

    /// Counts or rates from 0 to at least `most`.
    pub fn count(title: &str, most: f64) -> Axis {
        let step = nice(most.max(1.0) / 5.0);
        let steps = (most.max(1.0) / step * 1.02).ceil();
        let ticks =
            (0..=steps as u32).map(|k| f64::from(k) * step).map(|at| (at, short(at))).collect();
        let ends = (0.0, steps * step);
        Axis { ends, ticks, ..Axis::bare(title, Scale::Linear) }
    }

    /// Shares from `least` (more than a millionth) to `most`, logarithmic; values are given in millionths.
    pub fn share(least: f64, most: f64) -> Axis {
        let (low, high) = ((least * 1e6).max(1.0).log10(), (most * 1e6).max(10.0).log10());
        let within = |place: &f64| *place >= low - 1e-9 && *place <= high + 1e-9;
        let decades = (low.floor() as i32..=high.ceil() as i32).map(f64::from);
        let ticks = decades.clone().filter(within);
        let ticks =
            ticks.map(|place| (place, format!("{} %", trimmed_small(10f64.powf(place - 4.0)))));
        let between = |decade: f64| (2..10).map(move |m| decade + f64::from(m).log10());
        Axis {
            ends: (low, high),
            ticks: ticks.collect(),
            minor: decades.flat_map(between).filter(within).collect(),
            ..Axis::bare("share of records (log scale)", Scale::Log)
        }
    }

    /// Seconds of a run.
    pub fn time(from: f64, to: f64) -> Axis {
        Axis::seconds("time since the measured window began", from, to)
    }

    /// Seconds since something else.
    pub fn seconds(title: &str, from: f64, to: f64) -> Axis {
        let span = (to - from).max(1e-3);
        let (unit, unit_s) = match span {
            span if span <= 600.0 => ("s", 1.0),
            span if span <= 4.0 * 3600.0 => ("min", 60.0),
            _ => ("h", 3600.0),
        };
        let step = unit_s * nice_time(span / unit_s / 10.0, unit);
        let (first, last) = ((from / step).ceil() as i64, (to / step).floor() as i64);
        let ticks =
            (first..=last).map(|k| k as f64 * step).map(|at| (at, trimmed(at / unit_s))).collect();
        let title = format!("{title}, {unit}");
        Axis { ends: (from, from + span), ticks, ..Axis::bare(&title, Scale::Linear) }
    }

    fn bare(title: &str, scale: Scale) -> Axis {
        Axis { title: title.to_owned(), scale, ends: (0.0, 1.0), ticks: vec![], minor: vec![] }
    }

    /// Where a value lies.
    fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(1.0).log10(),
            Scale::Quantile => -(1.0 - value).max(1e-12).log10(),
        }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, place: &f64, (low, high): (i32, i32)) -> i32 {
        let (from, to) = self.ends;
        let share = ((place - from) / (to - from)).clamp(0.0, 1.0);
        low + (share * f64::from(high - low)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match hint.weight() {
            KeyPointWeight::Bold => self.ticks.iter().map(|(place, _)| *place).collect(),
            KeyPointWeight::Any => self.minor.clone(),
        }
    }

    fn range(&self) -> Range<f64> {
        self.ends.0..self.ends.1
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, place: &f64) -> String {
        let label = self.ticks.iter().find(|(tick, _)| tick == place);
        label.map(|(_, label)| label.clone()).unwrap_or_default()
    }
}

/// A multiple of 1, 2 or 5 and a power of ten, at least `value`.
fn nice(value: f64) -> f64 {
    let decade = 10f64.powf(value.log10().floor());
    let multiple = [1.0, 2.0, 5.0].into_iter().find(|m| m * decade >= value * (1.0 - 1e-9));
    multiple.unwrap_or(10.0) * decade
}

/// ... or of what is round in seconds and minutes.
fn nice_time(value: f64, unit: &str) -> f64 {
    if unit == "h" || value <= 5.0 {
        return nice(value);
    }
    [10.0, 15.0, 20.0, 30.0, 60.0].into_iter().find(|step| *step >= value).unwrap_or(60.0)
}

/// Without zeros that say nothing.
fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// The same for powers of ten below 1.
fn trimmed_small(value: f64) -> String {
    format!("{value:.4}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A count with a decimal prefix: `20k`, `1.5M`.
fn short(value: f64) -> String {
    let (value, prefix) = match value {
        v if v < 1e3 => (v, ""),
        v if v < 1e6 => (v / 1e3, "k"),
        v if v < 1e9 => (v / 1e6, "M"),
        v => (v / 1e9, "G"),
    };
    trimmed(value) + prefix
}

/// A round number of microseconds.
fn round_time(us: f64) -> String {
    match us {
        us if us < 1e3 => format!("{} µs", trimmed(us)),
        us if us < 1e6 => format!("{} ms", trimmed(us / 1e3)),
        us => format!("{} s", trimmed(us / 1e6)),
    }
}

/// The plot as an `<svg>` element for an HTML page.
pub fn svg(plot: &Plot) -> Result<String, DrawingError> {
    let mut out = String::new();
    draw(plot, &mut out).map_err(|why| DrawingError(why.to_string()))?;
    Ok(classes(&out))
}

/// plotters could not lay a chart out.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw: {0}")]
pub struct DrawingError(String);

fn draw(plot: &Plot, out: &mut String) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let root = SVGBackend::with_string(out, SIZE).into_drawing_area();
    let (x, y) = (plot.x.clone(), plot.y.clone());
    let mut chart = ChartBuilder::on(&root)
        .margin_top(16)
        .margin_right(56)
        .margin_bottom(4)
        .margin_left(4)
        .x_label_area_size(84)
        .y_label_area_size(148)
        .build_cartesian_2d(x, y)?;
    let (low, high) = plot.y.ends;
    chart.draw_series(plot.bands.iter().map(|band| {
        let (from, to) = (plot.x.place(band.from), plot.x.place(band.to));
        Rectangle::new([(from, high), (to, low)], BANDS[band.kind as usize].mix(0.16).filled())
    }))?;
    let text = ("sans-serif", TEXT).into_font().color(&TEXT_COLOUR);
    chart
        .configure_mesh()
        .bold_line_style(GRID_COLOUR.mix(0.34).stroke_width(2))
        .light_line_style(GRID_COLOUR.mix(0.14).stroke_width(2))
        .axis_style(AXIS_COLOUR.stroke_width(2))
        .set_all_tick_mark_size(8)
        .label_style(text.clone())
        .axis_desc_style(text)
        .x_desc(&plot.x.title)
        .y_desc(&plot.y.title)
        .draw()?;
    for line in &plot.lines {
        let style = LINES[line.style % STYLES].stroke_width(if line.style < 2 { 5 } else { 4 });
        for piece in &line.pieces {
            let points = piece.iter().map(|(x, y)| (plot.x.place(*x), plot.y.place(*y)));
            chart.draw_series(LineSeries::new(points, style))?;
        }
    }
    root.present()?;
    Ok(())
}

/// Gives each colour its class, and takes out what an inline element does not need.
fn classes(svg: &str) -> String {
    let mut svg = svg
        .replace(" xmlns=\"http://www.w3.org/2000/svg\"", "")
        .replacen(&format!("width=\"{}\" height=\"{}\" ", SIZE.0, SIZE.1), "", 1)
        .replace(" font-family=\"sans-serif\"", "");
    let lines = LINES.iter().enumerate().map(|(i, colour)| (*colour, format!("s{i}")));
    let bands = BANDS.iter().enumerate().map(|(i, colour)| (*colour, format!("b{i}")));
    let rest = [(TEXT_COLOUR, "t"), (AXIS_COLOUR, "a"), (GRID_COLOUR, "g")];
    for (RGBColor(r, g, b), class) in
        lines.chain(bands).chain(rest.map(|(colour, class)| (colour, class.to_owned())))
    {
        for attribute in ["stroke", "fill"] {
            let colour = format!("{attribute}=\"#{r:02X}{g:02X}{b:02X}\"");
            svg = svg.replace(&colour, &format!("{colour} class=\"{class}\""));
        }
    }
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn axes_carry_round_ticks_with_units() {
        let percentiles = Axis::quantiles(1.0 - 10.0 / 600_000.0);
        let seen = labels(&percentiles);
        assert_eq!(seen, ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
        // Each further nine takes as much room as the one before.
        let places: Vec<f64> = percentiles.ticks.iter().map(|(place, _)| *place).collect();
        assert!((places[3] - places[2] - 1.0).abs() < 1e-9);
        let latency = Axis::latency(30.0, 950_000.0);
        assert_eq!(labels(&latency), ["10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s"]);
        assert_eq!(labels(&Axis::latency(30.0, 150.0))[..4], ["10 µs", "20 µs", "50 µs", "100 µs"]);
        assert_eq!(labels(&Axis::count("n", 24_000.0)).last(), Some(&"25k"));
        assert_eq!(labels(&Axis::time(-3.0, 60.0)).first(), Some(&"0"));
        assert!(Axis::time(0.0, 3600.0).title.ends_with("min"));
    }

    #[test]
    fn odd_values_are_drawn_at_the_edge_and_fail_nothing() {
        let points = vec![(0.0, 0.0), (0.5, 1e12), (1.0, -5.0)];
        let plot = Plot {
            x: Axis::quantiles(0.5),
            y: Axis::latency(0.0, 0.0),
            bands: vec![Band { kind: BandKind::Outage, from: 0.1, to: 0.2 }],
            lines: vec![Line { name: "a & b".into(), style: 7, pieces: vec![points, vec![]] }],
        };
        let svg = svg(&plot).unwrap();
        assert!(svg.contains("class=\"s1\"") && svg.contains("class=\"b1\""), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("http"));
        assert!(Axis::count("n", 0.0).ends.1 > 0.0);
        assert!(!Axis::time(5.0, 5.0).title.is_empty());
        assert_eq!(labels(&Axis::share(0.0001, 1.0)), ["0.01 %", "0.1 %", "1 %", "10 %", "100 %"]);
    }
}
