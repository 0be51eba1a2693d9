//! Streams: the list, one of them with its shards, and the last records of a shard.

use std::time::Duration;

use highwater_wire::AckMode;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;

use super::panel::{self, Words};
use crate::dashboard::app::App;
use crate::dashboard::browse::{Payload, Record, severity};
use crate::dashboard::figures::ShardFigures;
use crate::dashboard::widgets::fit;
use crate::dashboard::widgets::table::{Cell, Column, Table};
use crate::human;

/// In nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// Where the panels are.
pub fn areas(app: &App, body: Rect) -> Vec<Rect> {
    if app.browse.open.is_none() {
        return vec![body];
    }
    Layout::vertical([Constraint::Length(6), Constraint::Min(0)]).areas::<2>(body).into()
}

const STREAMS: [Column; 8] = [
    Column::words("stream", 14, 0).growing(),
    Column::figures("shards", 6, 1),
    Column::figures("in/s", 7, 0),
    Column::figures("bytes/s", 8, 3),
    Column::figures("out/s", 7, 2),
    Column::figures("stored", 8, 1),
    Column::figures("records kept", 14, 4),
    Column::words("state", 10, 2),
];

/// Which of the columns each way of sorting belongs to.
const SORTED: [usize; 3] = [0, 2, 5];

fn sum(shards: &[&ShardFigures], of: impl Fn(&ShardFigures) -> f64) -> f64 {
    shards.iter().map(|shard| of(shard)).sum()
}

/// The list.
pub fn list(app: &App, focused: bool, area: Rect, buffer: &mut Buffer) {
    let (theme, glyphs) = (app.look.theme, app.look.glyphs);
    let (streams, place) = (app.streams(), app.place());
    let room = usize::from(area.height.saturating_sub(3));
    let first = panel::first(place.selected, streams.len(), room);
    let bottom = panel::shown(first, streams.len(), room);
    let title = human::plural(streams.len(), "stream");
    let inner = panel::frame(app, &title, &bottom, focused, area, buffer);
    if streams.is_empty() {
        let why = match (&app.picture().headline, place.filter.is_empty()) {
            (None, _) => "",
            (_, true) => "no stream yet: `highwater stream create` makes one",
            (_, false) => "no stream with that in its name",
        };
        return panel::nothing(app, why, inner, buffer);
    }
    let rows = streams.iter().skip(first).take(room).map(|(name, shards)| {
        let stopped = shards.iter().filter(|s| s.state != "open" && !s.is_closed()).count();
        let (state, style) = match stopped {
            0 => ("open".to_owned(), theme.dim()),
            n => (format!("! {n} stopped"), theme.bad()),
        };
        let kept = shards.iter().map(|s| s.high_water.saturating_sub(s.oldest)).sum();
        vec![
            Cell::styled(*name, theme.bold()),
            shards.len().to_string().into(),
            human::count(sum(shards, |s| s.into.records)).into(),
            human::bytes(sum(shards, |s| s.into.bytes)).into(),
            human::count(sum(shards, |s| s.out.records)).into(),
            human::bytes(sum(shards, |s| s.stored_bytes as f64)).into(),
            human::grouped(kept).into(),
            Cell::styled(state, style),
        ]
    });
    let table = Table {
        columns: &STREAMS,
        rows: rows.collect(),
        selected: Some(place.selected.min(streams.len() - 1).saturating_sub(first)),
        sorted: Some((SORTED[place.sort.min(2)], (place.sort != 0) != place.reverse)),
    };
    let inner = Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner };
    table.draw(theme, glyphs, inner, buffer);
}

/// The open stream.
pub fn stream(app: &App, focused: bool, area: Rect, buffer: &mut Buffer) {
    let theme = app.look.theme;
    let Some((name, shard)) = &app.browse.open else { return };
    let title = format!("stream {name}");
    let inner = panel::frame(app, &title, "", focused, area, buffer);
    let streams = app.streams();
    let found = streams.iter().find(|(stream, _)| stream == name);
    let shards = found.map_or(&[][..], |(_, shards)| shards);
    Words::new(inner)
        .add(human::plural(shards.len(), "shard"), theme.bold())
        .add(format!("  {}/s in", human::count(sum(shards, |s| s.into.records))), Style::new())
        .add(format!("  {}/s out", human::count(sum(shards, |s| s.out.records))), Style::new())
        .add(
            format!("  {} stored", human::bytes(sum(shards, |s| s.stored_bytes as f64))),
            theme.dim(),
        )
        .draw(inner, 0, buffer);
    if let Some(about) = &app.browse.description {
        let config = &about.config;
        let age = match config.retention_ms {
            0 => "for ever".to_owned(),
            ms => format!("for {}", human::duration(Duration::from_millis(ms))),
        };
        let size = match config.retention_bytes {
            0 => String::new(),
            bytes => format!(", up to {}", human::binary(bytes)),
        };
        let ack = match config.ack {
            AckMode::Durable => "when durable",
            _ => "when written",
        };
        Words::new(inner)
            .all([("kept ".to_owned(), theme.dim()), (age + &size, Style::new())])
            .all([("  acknowledged ".to_owned(), theme.dim()), (ack.to_owned(), Style::new())])
            .all([
                ("  created ".to_owned(), theme.dim()),
                (human::rfc3339(about.created_ns - about.created_ns % SECOND), Style::new()),
            ])
            .draw(inner, 1, buffer);
    }
    let mut words = Words::new(inner).add("shard ", theme.dim());
    for other in shards {
        let here = other.shard == *shard;
        let style = if here { theme.selected() } else { theme.dim() };
        words = words.add(format!(" {} ", other.shard), style);
    }
    words.draw(inner, 2, buffer);
    if let Some(one) = shards.iter().find(|s| s.shard == *shard) {
        Words::new(inner)
            .add("records ", theme.dim())
            .add(human::grouped(one.oldest), Style::new())
            .add(" to ", theme.dim())
            .add(human::grouped(one.high_water), Style::new())
            .add(format!("  {}/s", human::count(one.into.records)), Style::new())
            .add(format!("  {}", human::plural(one.readers as usize, "reader")), theme.dim())
            .draw(inner, 3, buffer);
    }
}

/// Columns of a list of records before the payload.
const SEQUENCE: usize = 13;
const TIME: usize = 8;

/// The last records, the newest first; or one of them in full.
pub fn records(app: &App, focused: bool, area: Rect, buffer: &mut Buffer) {
    let theme = app.look.theme;
    if let Some(record) = &app.browse.record {
        return one(app, record, focused, area, buffer);
    }
    let records = app.records();
    let room = usize::from(area.height.saturating_sub(3));
    let selected = app.place().selected;
    let first = panel::first(selected, records.len(), room);
    let bottom = panel::shown(first, records.len(), room);
    let at = app.browse.until.and_then(|_| app.player.model().snapshot());
    let title = match at {
        Some(snapshot) => {
            format!("Last records at {}, newest first", app.clock(snapshot.taken_ns))
        }
        None => "Last records, newest first".to_owned(),
    };
    let inner = panel::frame(app, &title, &bottom, focused, area, buffer);
    if let Some(reason) = &app.browse.trouble {
        panel::text(app, &format!("!! {reason}"), theme.bad(), inner, 0, buffer);
        return;
    }
    if records.is_empty() {
        let why = match (&app.browse.records, app.player.replaying()) {
            (_, true) => "a recording holds figures, not records",
            _ if !app.browse.up_to_date() => "asking",
            (Some(known), _) if known.until.is_some_and(|until| until > 0) => {
                "those of this moment are not kept any more"
            }
            _ => "no record yet",
        };
        return panel::nothing(app, why, inner, buffer);
    }
    let key_width = records.iter().map(|r| r.key.chars().count()).max().unwrap_or(0).clamp(3, 20);
    let head =
        format!("{:>SEQUENCE$}  {:<TIME$}  {:<key_width$}  payload", "sequence", "time", "key");
    panel::text(app, &head, theme.dim(), inner, 0, buffer);
    for (row, record) in records.iter().rev().skip(first).take(room).enumerate() {
        let line = format!(
            "{:>SEQUENCE$}  {:<TIME$}  {:<key_width$}  {}",
            human::grouped(record.sequence),
            app.clock(record.at_ns),
            fit(&record.key, key_width, app.look.glyphs),
            record.line(),
        );
        let style = match (&record.payload, severity(&record.line())) {
            (Payload::Bytes(_), _) => theme.dim(),
            (_, 2) => theme.bad(),
            (_, 1) => theme.warn(),
            _ => Style::new(),
        };
        panel::text(app, &line, style, inner, row as u16 + 1, buffer);
        if first + row == selected.min(records.len() - 1) {
            let line = Rect::new(inner.x, inner.y + row as u16 + 1, inner.width, 1);
            buffer.set_style(line.intersection(inner), theme.selected());
        }
    }
}

fn one(app: &App, record: &Record, focused: bool, area: Rect, buffer: &mut Buffer) {
    let lines = record.lines();
    let room = usize::from(area.height.saturating_sub(2));
    let bottom = if lines.len() > room {
        format!("{} lines, e expands", lines.len())
    } else {
        String::new()
    };
    let title = format!("Record {}", human::grouped(record.sequence));
    let inner = panel::frame(app, &title, &bottom, focused, area, buffer);
    for (row, line) in lines.iter().take(room).enumerate() {
        panel::text(app, line, Style::new(), inner, row as u16, buffer);
    }
}
