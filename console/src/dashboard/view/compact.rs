//! For a screen too small for frames: the same figures as lines, the most important first.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use super::super::model::Model;
use super::super::{once, watch};
use super::theme::Theme;
use crate::human;

/// Draws the lines.
pub fn draw(model: &Model, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let picture = model.picture();
    let (state, style) = super::state(model, theme);
    let mut lines = vec![Line::styled(state, style)];
    if let Some(figures) = &picture.figures {
        let flow = |name, flow: super::super::figures::Flow| {
            let (records, bytes) = (human::count(flow.records), human::bytes(flow.bytes));
            Line::raw(format!("{name} {records}/s {bytes}/s"))
        };
        lines.push(flow("in ", figures.into));
        lines.push(flow("out", figures.out));
        lines.push(Line::raw(once::tail(picture.propagation)));
        for notice in watch::notices(picture, model.restarts) {
            lines.push(Line::styled(
                format!("{} {}", notice.level.mark(), notice.text),
                theme.warn(),
            ));
        }
        for group in figures.groups.iter().skip(usize::from(model.scroll)) {
            let age = human::nanos(group.age.as_nanos() as u64);
            let records = human::count(group.records as f64);
            lines.push(Line::raw(format!("{}: {records} behind, {age}", group.group)));
        }
        for core in &figures.cores {
            lines.push(Line::raw(format!("core {} {:.0} % busy", core.core, core.busy * 100.0)));
        }
    }
    frame.render_widget(Paragraph::new(lines), area);
}
