//! The state as a picture: pure functions, no clock, no channel.

mod backlog;
mod bars;
mod compact;
mod help;
mod latency;
mod load;
mod overview;
mod panel;
mod shards;
mod streams;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Position, Rect};

use super::app::{App, Screen};
use super::player::Link;

pub use help::last_line as help_last;

/// The smallest screen with frames and charts; below it, lines of text.
const FRAMED: (u16, u16) = (64, 18);

/// Said where only a server has figures.
const NO_SERVER: &str = "no server to watch; 5 shows the load generator";

/// A part of a screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Panel {
    /// Records in and out.
    Tps,
    /// Propagation delay.
    Delay,
    /// The groups, worst first.
    Groups,
    /// Cores and shards, one cell each.
    Cells,
    /// What is worth a look.
    Watch,
    /// A line a shard.
    ShardList,
    /// A line a core.
    CoreList,
    /// The selected shard.
    Shard,
    /// The percentile spectrum.
    Spectrum,
    /// Where the time goes.
    Stages,
    /// Delay over time.
    Heat,
    /// The selected group over time.
    Group,
    /// The selected group by shard.
    Parts,
    /// The running second of the generator.
    Run,
    /// Response over time, or over rate in a search.
    Response,
    /// Rate over time.
    Rate,
    /// What a search believes, or the result.
    Outcome,
    /// A line a stream.
    StreamList,
    /// The open stream.
    Stream,
    /// Its records, or one of them.
    Records,
}

/// The panels of the screen shown, in the order `Tab` goes through them.
pub fn panels(app: &App) -> &'static [Panel] {
    use Panel::*;
    match app.screen {
        Screen::Overview => &[Tps, Delay, Groups, Cells, Watch],
        Screen::Shards => &[ShardList, CoreList, Shard],
        Screen::Latency => &[Spectrum, Stages, Heat],
        Screen::Backlog => &[Groups, Group, Parts],
        Screen::Load if app.load.is_none() => &[Run],
        Screen::Load => &[Run, Rate, Response, Outcome],
        Screen::Streams if app.browse.open.is_some() => &[Stream, Records],
        Screen::Streams => &[StreamList],
    }
}

/// Where the panels are in `body`.
fn places(app: &App, body: Rect) -> Vec<(Panel, Rect)> {
    let panels = panels(app);
    let panel = panels.get(app.place().panel).or(panels.first());
    if let (true, Some(panel)) = (app.place().expanded, panel) {
        return vec![(*panel, body)];
    }
    let areas = match app.screen {
        Screen::Overview => overview::areas(app, body),
        Screen::Shards => shards::areas(app, body),
        Screen::Latency => latency::areas(body),
        Screen::Backlog => backlog::areas(app, body),
        Screen::Load => load::areas(app, body),
        Screen::Streams => streams::areas(app, body),
    };
    panels.iter().copied().zip(areas).collect()
}

/// Header, body and footer.
fn split(area: Rect) -> [Rect; 3] {
    let [top, body, bottom] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)])
            .areas(area);
    [top, body, bottom]
}

fn framed(area: Rect) -> bool {
    area.width >= FRAMED.0 && area.height >= FRAMED.1
}

/// Draws everything. Any size will do, also none at all.
pub fn view(app: &App, frame: &mut Frame<'_>) {
    paint(app, frame.buffer_mut());
}

/// The same, where there is no terminal.
pub fn paint(app: &App, buffer: &mut Buffer) {
    let area = buffer.area;
    if area.is_empty() {
        return;
    }
    if framed(area) {
        let [top, body, bottom] = split(area);
        bars::header(app, top, buffer);
        if app.link == Link::Absent && app.screen != Screen::Load {
            let inner = panel::frame(app, app.screen.title(), "", true, body, buffer);
            panel::nothing(app, NO_SERVER, inner, buffer);
        } else {
            panels_of(app, body, buffer);
        }
        bars::footer(app, bottom, buffer);
    } else {
        compact::draw(app, area, buffer);
    }
    if app.help {
        help::draw(app, area, buffer);
    }
}

fn panels_of(app: &App, body: Rect, buffer: &mut Buffer) {
    for (number, (panel, place)) in places(app, body).into_iter().enumerate() {
        let focused = app.place().expanded || number == app.place().panel;
        draw(app, panel, focused, place, buffer);
    }
}

fn draw(app: &App, panel: Panel, focused: bool, area: Rect, buffer: &mut Buffer) {
    let draw = match panel {
        Panel::Tps => overview::tps,
        Panel::Delay => overview::delay,
        Panel::Groups => backlog::groups,
        Panel::Cells => overview::cells,
        Panel::Watch => overview::watch,
        Panel::ShardList => shards::shards,
        Panel::CoreList => shards::cores,
        Panel::Shard => shards::shard,
        Panel::Spectrum => latency::spectrum,
        Panel::Stages => latency::stages,
        Panel::Heat => latency::heat,
        Panel::Group => backlog::group,
        Panel::Parts => backlog::parts,
        Panel::Run => load::run,
        Panel::Rate => load::rate,
        Panel::Response => load::response,
        Panel::Outcome => load::outcome,
        Panel::StreamList => streams::list,
        Panel::Stream => streams::stream,
        Panel::Records => streams::records,
    };
    draw(app, focused, area, buffer);
}

/// The panel at `at`, and where it is.
fn place_at(app: &App, area: Rect, at: Position) -> Option<(Panel, Rect)> {
    let places = if framed(area) { places(app, split(area)[1]) } else { Vec::new() };
    places.into_iter().find(|(_, place)| place.contains(at))
}

/// The number of the panel at `at`.
pub fn panel_at(app: &App, area: Rect, at: Position) -> Option<usize> {
    let (found, _) = place_at(app, area, at)?;
    panels(app).iter().position(|panel| *panel == found)
}

/// The line of the screen's list at `at`, counted from its beginning.
pub fn line_at(app: &App, area: Rect, at: Position) -> Option<usize> {
    let (panel, place) = place_at(app, area, at)?;
    let lists = [Panel::Groups, Panel::ShardList, Panel::StreamList, Panel::Records];
    if !lists.contains(&panel) || app.browse.record.is_some() && panel == Panel::Records {
        return None;
    }
    panel::line_at(app.place().selected, app.list_length(), place, at)
}

/// The screen whose name in the header is at `at`.
pub fn tab_at(app: &App, area: Rect, at: Position) -> Option<Screen> {
    if !framed(area) || at.y != area.y {
        return None;
    }
    bars::tabs(app, split(area)[0])
        .into_iter()
        .find(|(_, place)| place.contains(at))
        .map(|(s, _)| s)
}

#[cfg(test)]
mod tests;
