//! Charts over time in braille: sampled and held per dot, with axes that say what they show.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::symbols::Marker;
use ratatui::widgets::{Axis, Chart, Dataset, GraphType};

use super::super::model::{Picture, Point};
use super::theme::Theme;
use crate::human;

/// Columns of the y labels; one more is the axis.
const LABEL: usize = 5;

/// A curve.
pub struct Curve {
    /// Seconds before now (negative) and value, per dot.
    dots: Vec<(f64, f64)>,
    style: Style,
    filled: bool,
}

/// The y axis.
pub struct Scale {
    /// Smallest and largest value.
    pub bounds: [f64; 2],
    /// From the bottom up, evenly spaced.
    pub labels: Vec<String>,
}

impl Scale {
    /// From 0 to a round number at or above `max`.
    pub fn linear(max: f64, format: fn(f64) -> String) -> Scale {
        let top = round_up(max);
        Scale { bounds: [0.0, top], labels: vec![format(0.0), format(top / 2.0), format(top)] }
    }

    /// Whole decades around `min` and `max`, both in nanoseconds; values are logarithms.
    pub fn decades(min: u64, max: u64) -> Scale {
        let low = min.max(1).ilog10();
        let high = (max.max(1).ilog10() + 1).max(low + 1);
        Scale {
            bounds: [f64::from(low), f64::from(high)],
            labels: (low..=high).map(decade).collect(),
        }
    }
}

/// `10 us` for 4.
fn decade(power: u32) -> String {
    match power {
        0..3 => format!("{}ns", 10u64.pow(power)),
        3..6 => format!("{}us", 10u64.pow(power - 3)),
        6..9 => format!("{}ms", 10u64.pow(power - 6)),
        _ => format!("{}s", 10u64.saturating_pow(power - 9)),
    }
}

/// A digit times a power of ten, at or above `value`.
fn round_up(value: f64) -> f64 {
    if value.is_nan() || value <= 1.0 {
        return 1.0;
    }
    let decade = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0]
        .map(|step| step * decade)
        .into_iter()
        .find(|v| *v >= value)
        .unwrap_or(value)
}

impl Curve {
    /// `value` of each point of the last `window`, for a chart `dots` wide. A dot that holds
    /// several points shows the largest, so that a spike survives; one that holds none keeps the value before.
    pub fn new(
        picture: &Picture,
        window: Duration,
        dots: usize,
        value: impl Fn(&Point) -> Option<f64>,
    ) -> Curve {
        let last_dot = dots.max(2) - 1;
        let seconds = window.as_secs_f64();
        let end = picture.points.back().map_or(0, |p| p.at_ns);
        let mut held: Vec<Option<f64>> = vec![None; last_dot + 1];
        for point in picture.within(window) {
            let ago = end.saturating_sub(point.at_ns) as f64 / 1e9;
            let dot = ((1.0 - ago / seconds) * last_dot as f64).round();
            if let (Some(slot), Some(value)) = (held.get_mut(dot.max(0.0) as usize), value(point)) {
                *slot = Some(slot.map_or(value, |v| v.max(value)));
            }
        }
        let mut last = None;
        let line = held.into_iter().enumerate().filter_map(|(dot, value)| {
            last = value.or(last);
            last.map(|value| ((dot as f64 / last_dot as f64 - 1.0) * seconds, value))
        });
        Curve { dots: line.collect(), style: Style::new(), filled: false }
    }

    /// In this style.
    pub fn style(mut self, style: Style) -> Curve {
        self.style = style;
        self
    }

    /// Filled down to the axis.
    pub fn filled(mut self) -> Curve {
        self.filled = true;
        self
    }
}

/// Draws `curves`, later ones over earlier ones.
pub fn draw(
    curves: &[Curve],
    scale: Scale,
    window: Duration,
    theme: Theme,
    frame: &mut Frame<'_>,
    area: Rect,
) {
    if area.height < 2 || area.width < 12 {
        return;
    }
    let sets = curves
        .iter()
        .map(|curve| {
            Dataset::default()
                .marker(Marker::Braille)
                .graph_type(if curve.filled { GraphType::Bar } else { GraphType::Line })
                .style(curve.style)
                .data(&curve.dots)
        })
        .collect();
    let span = format!("-{}", human::span(window));
    let x = Axis::default()
        .bounds([-window.as_secs_f64(), 0.0])
        .style(theme.dim())
        .labels([span, "now".into()]);
    // Labels closer than two lines apart would overlap.
    let room = usize::from(area.height.saturating_sub(2) / 2).max(2);
    let labels = thinned(scale.labels, room).into_iter().map(|text| format!("{text:>LABEL$}"));
    let y = Axis::default().bounds(scale.bounds).style(theme.dim()).labels(labels);
    frame.render_widget(Chart::new(sets).x_axis(x).y_axis(y).legend_position(None), area);
}

/// Dots of a chart in `area` from left to right: two for each column the labels leave.
pub fn dots(area: Rect) -> usize {
    usize::from(area.width).saturating_sub(LABEL + 1) * 2
}

/// All labels if there is room, else the first and the last.
fn thinned(labels: Vec<String>, room: usize) -> Vec<String> {
    match labels.as_slice() {
        [first, .., last] if labels.len() > room => vec![first.clone(), last.clone()],
        _ => labels,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_round() {
        assert_eq!(round_up(20_000.0), 20_000.0);
        assert_eq!(round_up(20_001.0), 30_000.0);
        assert_eq!(round_up(61_000.0), 80_000.0);
        assert_eq!(round_up(0.0), 1.0);
        assert_eq!(round_up(f64::NAN), 1.0);
        let scale = Scale::decades(400_000, 41_000_000);
        assert_eq!(scale.labels, ["100us", "1ms", "10ms", "100ms"]);
        assert_eq!(Scale::decades(0, 0).labels, ["1ns", "10ns"]);
        assert_eq!(Scale::decades(1, u64::MAX).bounds[1], 20.0);
    }

    #[test]
    fn spikes_survive_and_gaps_are_held() {
        let mut picture = Picture::default();
        for (second, max) in [(0, 1), (1, 900), (2, 2), (30, 3)] {
            let mut point = Point { at_ns: second * 1_000_000_000, ..Point::default() };
            point.propagation.max = max;
            picture.points.push_back(point);
        }
        let window = Duration::from_secs(60);
        let curve = Curve::new(&picture, window, 11, |p| Some(p.propagation.max as f64));
        assert_eq!(curve.dots.len(), 6, "the right half of eleven dots");
        assert_eq!(curve.dots[0].1, 900.0);
        assert_eq!(curve.dots.last().unwrap(), &(0.0, 3.0));
    }
}
