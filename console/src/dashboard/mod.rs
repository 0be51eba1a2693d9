//! The dashboard: a player of snapshots. `source` brings them, `recording` keeps them, `player` plays them into the
//! `model`; `update` changes the state (`app`), `view` draws it, `term` is the terminal. `figures`, `watch` and `once`
//! are plain functions between.

pub mod app;
pub mod browse;
pub mod figures;
#[cfg(test)]
mod fixture;
pub mod glyphs;
pub mod keys;
pub mod load;
pub mod model;
pub mod once;
pub mod player;
pub mod recording;
mod series;
pub mod source;
mod svg;
mod term;
pub mod theme;
pub mod update;
mod view;
pub mod watch;
mod widgets;

use std::io::IsTerminal as _;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use clap::Args;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::failure::Failure;
use crate::signals::Stop;
use crate::units;
use app::{App, Look, Screen};
use glyphs::Glyphs;
use load::LoadEvent;
use player::Player;
use recording::{Recorder, Tape};
use source::{Live, Reading};
use theme::{ColorWhen, Palette, Theme};
use update::Msg;

/// Messages that wait to be shown: a burst of keys and a few snapshots.
const INBOX: usize = 64;

/// How the dashboard looks: flags that every command with a dashboard has.
#[derive(Clone, Debug, Args)]
pub struct StyleArgs {
    /// Colours
    #[arg(long, value_enum, default_value = "auto")]
    color: ColorWhen,
    /// Which colours
    #[arg(long, value_enum, default_value = "ansi")]
    theme: Palette,
    /// Characters of charts and frames [default: what the locale allows]
    #[arg(long, value_enum)]
    glyphs: Option<Glyphs>,
    /// React to the mouse: click and scroll
    #[arg(long)]
    mouse: bool,
}

/// The same where a server is watched.
#[derive(Clone, Debug, Args)]
pub struct LookArgs {
    #[command(flatten)]
    style: StyleArgs,
    /// What the p99 of the propagation delay is to keep: drawn as a line
    #[arg(long, value_name = "TIME", default_value = "10ms", value_parser = units::duration)]
    slo: Duration,
}

impl LookArgs {
    fn look(&self) -> Look {
        let variable = |name: &str| std::env::var(name).ok();
        Look {
            theme: Theme { palette: self.style.theme, color: self.style.color.wanted(variable) },
            glyphs: self.style.glyphs.unwrap_or_else(|| Glyphs::of_environment(variable)),
            slo: self.slo,
        }
    }
}

impl From<StyleArgs> for LookArgs {
    fn from(style: StyleArgs) -> LookArgs {
        LookArgs { style, slo: Duration::from_millis(10) }
    }
}

/// Where a live session is recorded meanwhile.
pub type Recording = Recorder<std::fs::File>;

/// What else a live session does.
#[derive(Debug, Default)]
pub struct Extras {
    /// Records what is shown.
    pub recording: Option<Recording>,
    /// A load generator that runs in this process.
    pub load: Option<Receiver<LoadEvent>>,
    /// What comes first.
    pub screen: Screen,
}

/// Shows the server at `target`, or a load generator that runs without one, until a key or `stop` ends it; gives what
/// was seen.
pub fn run(
    target: Option<&str>,
    look: &LookArgs,
    extras: Extras,
    stop: &Stop,
) -> Result<App, Failure> {
    let mut app = match target {
        Some(target) => App::new(target, look.look(), Player::live()),
        None => App::serverless(look.look()),
    };
    if target.is_some() {
        app.screen = extras.screen;
    }
    let (outbox, inbox) = sync_channel(INBOX);
    let (asker, asks) = source::questions();
    let done = Stop::new();
    let readings = outbox.clone();
    let mut recording = extras.recording;
    let (failed, failure) = sync_channel(1);
    let sink = move |reading: Reading| {
        if let (Some(recorder), Reading::Sample(sample)) = (&mut recording, &reading)
            && let Err(error) = recorder.store(sample)
        {
            // Whoever records wants to have the recording: without it the session ends.
            let _ = failed.try_send(Failure::doing("cannot write the recording", error));
            let _ = readings.send(Msg::Quit);
            return false;
        }
        readings.send(Msg::Reading(reading)).is_ok()
    };
    if let Some(name) = target.map(str::to_owned) {
        source::spawn(move || Live::new(name, asks), done.clone(), sink)?;
    }
    if let Some(events) = extras.load {
        let outbox = outbox.clone();
        forward(move || {
            while let Ok(event) = events.recv() {
                if outbox.send(Msg::Load(event)).is_err() {
                    return;
                }
            }
        })?;
    }
    quit_on(stop.clone(), outbox.clone())?;
    let result = term::run(&mut app, look.style.mouse, &inbox, &outbox, Some(&asker));
    done.request();
    match failure.try_recv() {
        Ok(failure) => Err(failure),
        Err(_) => result.map(|()| app),
    }
}

/// Plays the recording `tape`, called `name`, until a key or `stop` ends it; gives what was seen.
pub fn replay(name: &str, tape: Tape, look: &LookArgs, stop: &Stop) -> Result<App, Failure> {
    let mut app = App::new(name, look.look(), Player::replay(tape));
    let (outbox, inbox) = sync_channel(INBOX);
    quit_on(stop.clone(), outbox.clone())?;
    term::run(&mut app, look.style.mouse, &inbox, &outbox, None)?;
    Ok(app)
}

/// The last moment of the recording `tape`, called `name`, as an SVG picture of so many columns and rows. Times of day
/// are UTC: it looks the same wherever it is made.
pub fn draw(name: &str, tape: Tape, look: &LookArgs, (columns, rows): (u16, u16)) -> String {
    let mut app = App::new(name, look.look(), Player::replay(tape));
    app.zone = jiff::tz::TimeZone::UTC;
    let window = app.window();
    app.player.step_end(true, window);
    let mut buffer = Buffer::empty(Rect::new(0, 0, columns, rows));
    view::paint(&app, &mut buffer);
    svg::picture(&buffer)
}

/// Whether there is a terminal to draw on and to read keys from.
pub fn possible() -> bool {
    std::io::stdout().is_terminal() && std::io::stdin().is_terminal()
}

/// Turns a request to stop into a message.
fn quit_on(stop: Stop, outbox: SyncSender<Msg>) -> Result<(), Failure> {
    let runtime = crate::cli::runtime()?;
    forward(move || {
        runtime.block_on(stop.wait());
        // The dashboard may have ended by itself.
        let _ = outbox.send(Msg::Quit);
    })
}

fn forward(work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    thread::Builder::new()
        .name("forward".into())
        .spawn(work)
        .map(drop)
        .map_err(|e| Failure::doing("cannot start a thread", e))
}
