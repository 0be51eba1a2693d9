//! What is on the screen: by size, in words, with its styles, and nowhere by colour alone.

mod dump;
mod fixtures;

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Color;

use super::*;
use crate::dashboard::app::Screen;
use crate::dashboard::glyphs::Glyphs;
use crate::dashboard::keys;
use crate::dashboard::player::Link;
use fixtures::{app, loaded, replayed, searching, streams};

fn drawn(app: &App, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view(app, frame)).unwrap();
    terminal.backend().buffer().clone()
}

fn text(app: &App, width: u16, height: u16) -> String {
    dump::text(&drawn(app, width, height))
}

fn has(screen: &str, facts: &[&str]) {
    for fact in facts {
        assert!(screen.contains(fact), "{fact:?} is missing:\n{screen}");
    }
}

/// Every screen as it looks a minute and a half into the made-up server's story.
fn screens(color: bool) -> Vec<(&'static str, App)> {
    let at = |screen, mut app: App| {
        app.screen = screen;
        app
    };
    vec![
        ("overview", app(90, color)),
        ("shards", at(Screen::Shards, app(90, color))),
        ("latency", at(Screen::Latency, app(90, color))),
        ("backlog", at(Screen::Backlog, app(90, color))),
        ("load", at(Screen::Load, loaded(90, color))),
        ("search", at(Screen::Load, searching(90, color))),
        ("streams", at(Screen::Streams, app(90, color))),
        ("stream", at(Screen::Streams, streams(90, color))),
        ("replay", replayed(90, color)),
    ]
}

#[test]
fn every_screen_as_reviewed() {
    for (color, colors) in [(true, "colour"), (false, "none")] {
        for (name, app) in screens(color) {
            for (width, height) in [(80, 24), (120, 36), (200, 60), (40, 12)] {
                let shown = dump::with_styles(&drawn(&app, width, height));
                insta::with_settings!({ snapshot_path => "snapshots", omit_expression => true, prepend_module_to_snapshot => false }, {
                    insta::assert_snapshot!(format!("{name}_{width}x{height}_{colors}"), shown);
                });
            }
        }
    }
}

#[test]
fn no_size_panics() {
    let mut all: Vec<App> = screens(true).into_iter().map(|(_, app)| app).collect();
    all.push(fixtures::empty(true));
    for app in &mut all {
        for width in 1..=120 {
            for height in 1..=40 {
                drawn(app, width, height);
            }
        }
        app.help = true;
        for (width, height) in [(1, 1), (2, 9), (9, 2), (40, 12), (80, 24), (300, 100)] {
            drawn(app, width, height);
        }
        (app.help, app.place_mut().expanded) = (false, true);
        for panel in 0..panels(app).len() {
            app.place_mut().panel = panel;
            for (width, height) in [(64, 18), (80, 24), (300, 100)] {
                drawn(app, width, height);
            }
        }
    }
}

#[test]
fn the_key_facts_are_on_one_screen() {
    let app = app(90, true);
    for (width, height) in [(80, 24), (120, 36), (200, 60)] {
        let screen = text(&app, width, height);
        has(
            &screen,
            &["LIVE", "0.3s old", "1 Overview", "20.0k rec/s", "40.0k rec/s", "10.2 MB/s"],
        );
        has(
            &screen,
            &["p50 400 us", "p99 3.90 ms", "p99.9 9.00 ms", "SLO", "OK", "max 9.00 ms at"],
        );
        has(&screen, &["audit on orders", "NEVER: it grows", "billing on orders", "keeps up"]);
        has(&screen, &["core 0", "58 %", "!! ", "durable write"]);
        has(&screen, &["-1m", "now", "? help", "q quit", "Space pause"]);
    }
}

#[test]
fn what_a_shard_did_not_take_is_beside_its_figures() {
    let mut app = fixtures::beyond_quota(false);
    app.screen = Screen::Shards;
    let facts =
        ["refused 500/s", "dropped 20/s", "sampled 3.00k/s", "waiting 1.05 MB", "split at 7f"];
    has(&text(&app, 200, 60), &facts);
    insta::with_settings!({ snapshot_path => "snapshots", omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("beyond_120x36_none", dump::with_styles(&drawn(&app, 120, 36)));
    });
}

/// The server counted what filters leave out, and no screen had it.
#[test]
fn what_filters_leave_out_is_beside_the_group_and_the_shard() {
    let mut app = fixtures::filtered();
    app.screen = Screen::Backlog;
    let all =
        ["filters of the stream  8.00k/s looked at, 7.96k/s left out", ", 40/s matched (0.5 %)"];
    has(&text(&app, 80, 24), &all[..1]);
    has(&text(&app, 120, 36), &all);
    app.screen = Screen::Shards;
    has(&text(&app, 120, 36), &["filters 7.96k/s of 8.00k/s left out"]);
    app.places[Screen::Shards.index()].selected = 1;
    assert!(!text(&app, 120, 36).contains("left out"), "of another shard");
}

#[test]
fn a_stopped_view_says_of_which_moment_its_records_are() {
    let mut app = streams(90, false);
    app.screen = Screen::Streams;
    app.player.toggle();
    app.browse.until = app.ended_at("orders", 1);
    has(&text(&app, 80, 24), &["Last records at 08:54:50, newest first", "asking"]);
    if let Some(records) = &mut app.browse.records {
        records.until = app.browse.until;
    }
    has(&text(&app, 80, 24), &["Last records at 08:54:50, newest first", "WARN retrying"]);
    if let Some(records) = &mut app.browse.records {
        records.records.clear();
    }
    has(&text(&app, 80, 24), &["those of this moment are not kept any more"]);
}

#[test]
fn words_are_not_clipped() {
    // An ellipsis means that something did not fit; at the usual sizes everything does but names and records.
    for (name, app) in screens(false).iter().filter(|(name, _)| *name != "stream") {
        for (width, height) in [(80, 24), (120, 36), (200, 60)] {
            let screen = text(app, width, height);
            assert!(!screen.contains('…'), "{name} at {width}x{height}:\n{screen}");
        }
    }
}

#[test]
fn stale_paused_lost_and_volatile_are_said() {
    let mut app = app(5, false);
    app.player.toggle();
    has(&text(&app, 80, 24), &["PAUSED"]);
    app.player.toggle();
    app.now += Duration::from_secs(9);
    has(&text(&app, 80, 24), &["STALE", "9s old"]);
    has(&text(&app, 40, 12), &["STALE"]);
    app.link = Link::Lost("connection refused".into());
    has(&text(&app, 80, 24), &["STALE", "!! connection refused"]);
    let mut app = fixtures::empty(false);
    has(&text(&app, 80, 24), &["connecting"]);
    app.link = Link::Lost("connection refused".into());
    has(&text(&app, 80, 24), &["NO SERVER", "!! connection refused"]);
    let app = fixtures::volatile();
    has(&text(&app, 80, 24), &["NOT DURABLE", "!! NOT DURABLE: tmpfs", "no group has committed"]);
}

#[test]
fn a_generator_without_a_server_has_a_calm_screen() {
    let mut app = fixtures::alone();
    has(&text(&app, 80, 24), &["no server", "5 Load", "waiting for the first second"]);
    app.now += Duration::from_secs(60);
    for screen in Screen::ALL {
        app.screen = screen;
        for (width, height) in [(80, 24), (40, 12)] {
            let shown = text(&app, width, height);
            has(&shown, &["no server"]);
            for alarm in ["STALE", "NO SERVER", "connecting", "LIVE"] {
                assert!(!shown.contains(alarm), "{alarm}:\n{shown}");
            }
        }
    }
}

#[test]
fn the_help_has_every_key_and_every_rule() {
    let mut app = app(3, true);
    app.help = true;
    let mut seen = String::new();
    for scroll in 0..=help_last(Rect::new(0, 0, 84, 24)) {
        app.help_scroll = scroll;
        seen += &text(&app, 84, 24);
    }
    for binding in keys::KEYS {
        has(&seen, &[&keys::names(binding), binding.words]);
    }
    for rule in &crate::dashboard::watch::RULES {
        has(&seen, &[rule.name]);
    }
    has(&seen, &["high-water mark", "Watching costs"]);
}

#[test]
fn without_colour_there_is_none_and_the_words_are_the_same() {
    for ((name, with), (_, without)) in screens(true).iter().zip(&screens(false)) {
        assert_eq!(text(with, 100, 30), text(without, 100, 30), "{name}");
        for cell in drawn(without, 100, 30).content() {
            assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset), "{:?}", cell.symbol());
        }
    }
}

#[test]
fn ascii_is_ascii() {
    for (name, mut app) in screens(true) {
        app.look.glyphs = Glyphs::Ascii;
        for (width, height) in [(80, 24), (200, 60), (40, 12)] {
            let screen = text(&app, width, height);
            assert!(screen.is_ascii(), "{name}:\n{screen}");
        }
    }
}
