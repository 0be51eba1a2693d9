//! What is on the screen: by size, in words, and nowhere by colour alone.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

use super::*;
use crate::dashboard::{fixture, keys::KEYS};

fn after(seconds: u64, color: bool) -> Model {
    let mut model = Model::new("127.0.0.1:7411", color);
    for at in 1..=seconds {
        model.now = Duration::from_secs(at);
        model.take(Box::new(fixture::snapshot(at)));
    }
    model
}

fn draw(model: &Model, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view(model, frame)).unwrap();
    terminal
}

fn screen(model: &Model, width: u16, height: u16) -> String {
    draw(model, width, height).backend().to_string()
}

fn has(screen: &str, facts: &[&str]) {
    for fact in facts {
        assert!(screen.contains(fact), "{fact:?} is missing:\n{screen}");
    }
}

#[test]
fn overview_has_the_key_facts() {
    let mut model = after(70, true);
    model.now += Duration::from_millis(300);
    for (width, height) in [(80, 24), (120, 36), (200, 60)] {
        let screen = screen(&model, width, height);
        let facts = ["LIVE", "1s samples", "20.0k rec/s", "40.0k rec/s", "10.2 MB/s", "peak 20.0k"];
        has(&screen, &facts);
        has(&screen, &["p50 400 us", "p99 3.90 ms", "p99.9 9.00 ms", "max 9.00 ms at"]);
        has(&screen, &["audit", "NEVER: it grows", "billing", "keeps up", "+1.00k"]);
        has(
            &screen,
            &["core 0", "58 %", "skew 1.60", "!! backlog of audit grows", "durable write"],
        );
        has(&screen, &["-1m ", "now", "0.3s old", "? help", "q quit", "Space pause"]);
    }
}

#[test]
fn stale_paused_lost_and_volatile_are_said() {
    let mut model = after(5, false);
    model.toggle_pause();
    has(&screen(&model, 80, 24), &["PAUSED at"]);
    model.toggle_pause();
    model.now += Duration::from_secs(9);
    has(&screen(&model, 80, 24), &["STALE", "9s old"]);
    model.link = Link::Lost { reason: "connection refused".into() };
    has(&screen(&model, 80, 24), &["STALE", "!! connection refused"]);
    let mut model = Model::new("host:1", false);
    has(&screen(&model, 80, 24), &["connecting"]);
    model.link = Link::Lost { reason: "connection refused".into() };
    has(&screen(&model, 80, 24), &["NO SERVER", "!! connection refused"]);
    for at in 1..4 {
        let mut snapshot = fixture::snapshot(at);
        (snapshot.durable, snapshot.durability) = (false, "tmpfs".into());
        snapshot.groups.clear();
        model.take(Box::new(snapshot));
    }
    has(
        &screen(&model, 80, 24),
        &["NOT DURABLE", "!! NOT DURABLE: tmpfs", "no group has committed"],
    );
}

#[test]
fn help_has_every_key() {
    let mut model = after(3, true);
    model.help = true;
    let screen = screen(&model, 80, 30);
    for binding in KEYS {
        has(&screen, &[&keys::names(binding), binding.words]);
    }
    has(&screen, &["propagation delay", "high-water mark"]);
}

#[test]
fn no_size_panics() {
    let (mut empty, mut full) = (Model::new("target", false), after(65, true));
    for help in [false, true] {
        (empty.help, full.help) = (help, help);
        for width in 0..=90 {
            for height in 0..=30 {
                draw(&full, width, height);
                draw(&empty, width, height);
            }
        }
        draw(&full, 400, 200);
    }
}

#[test]
fn without_colour_there_is_none_and_the_words_are_the_same() {
    let (with, without) = (after(20, true), after(20, false));
    assert_eq!(screen(&with, 100, 30), screen(&without, 100, 30));
    let terminal = draw(&without, 100, 30);
    for cell in terminal.backend().buffer().content() {
        assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset), "{:?}", cell.symbol());
    }
}
