//! Keys, clicks and what comes, in; state, out.

use crossterm::event::KeyModifiers;
use highwater_wire::telemetry::Snapshot;

use super::*;
use crate::dashboard::app::Look;
use crate::dashboard::browse::{Answer, Ask, Record, Records};
use crate::dashboard::fixture;
use crate::dashboard::glyphs::Glyphs;
use crate::dashboard::player::{Mode, Player};
use crate::dashboard::source::Sample;
use crate::dashboard::theme::{Palette, Theme};

const AREA: Rect = Rect::new(0, 0, 80, 24);

fn app() -> App {
    let theme = Theme { palette: Palette::Ansi, color: true };
    let look = Look { theme, glyphs: Glyphs::Braille, slo: Duration::from_millis(10) };
    App::new("test", look, Player::live())
}

fn reading(snapshot: Snapshot) -> Msg {
    let at = snapshot.taken_ns;
    Msg::Reading(Reading::Sample(Sample { at, what: What::Snapshot(Box::new(snapshot)) }))
}

fn after(seconds: u64) -> App {
    let mut app = app();
    for at in 1..=seconds {
        update(&mut app, reading(fixture::snapshot(at)), Duration::from_secs(at), AREA);
    }
    app
}

fn press(app: &mut App, code: KeyCode) -> Flow {
    let now = app.now;
    update(app, Msg::Input(Event::Key(KeyEvent::new(code, KeyModifiers::NONE))), now, AREA)
}

fn keys(app: &mut App, text: &str) {
    for c in text.chars() {
        press(app, KeyCode::Char(c));
    }
}

#[test]
fn quit_closes_the_help_first_and_escape_never_quits() {
    let mut app = app();
    keys(&mut app, "?");
    assert!(app.help);
    assert_eq!(press(&mut app, KeyCode::Char('q')), Flow::Draw);
    assert!(!app.help);
    assert_eq!(press(&mut app, KeyCode::Esc), Flow::Draw);
    assert_eq!(press(&mut app, KeyCode::Char('q')), Flow::Quit);
    assert_eq!(press(&mut app, KeyCode::Char('x')), Flow::Rest);
}

#[test]
fn nothing_is_drawn_for_nothing() {
    let mut app = after(1);
    let second = app.now;
    let later = second + Duration::from_millis(100);
    assert_eq!(update(&mut app, Msg::Tick, later, AREA), Flow::Rest);
    assert_eq!(update(&mut app, Msg::Tick, second + second, AREA), Flow::Draw);
    keys(&mut app, "--");
    assert_eq!(press(&mut app, KeyCode::Char('-')), Flow::Rest, "no shorter window");
    assert_eq!(press(&mut app, KeyCode::Char('+')), Flow::Draw);
    assert_eq!(press(&mut app, KeyCode::Char('>')), Flow::Rest, "no replay");
    assert_eq!(update(&mut app, Msg::Quit, later, AREA), Flow::Quit);
}

#[test]
fn a_lost_server_is_stale_until_it_is_back() {
    let mut app = after(5);
    assert!(!app.stale());
    let lost = Sample { at: 0, what: What::Lost("refused".into()) };
    let now = app.now;
    assert_eq!(update(&mut app, Msg::Reading(Reading::Sample(lost)), now, AREA), Flow::Draw);
    assert!(app.stale());
    update(&mut app, reading(fixture::snapshot(6)), now, AREA);
    assert!(!app.stale());
    update(&mut app, Msg::Tick, now + Duration::from_secs(4), AREA);
    assert!(app.stale(), "figures four seconds old");
    let now = now + Duration::from_secs(10);
    update(&mut app, reading(fixture::snapshot(16)), now, AREA);
    update(&mut app, Msg::Tick, now + Duration::from_secs(4), AREA);
    assert!(!app.stale(), "this server has figures every ten seconds");
}

#[test]
fn the_view_stops_and_goes_back_while_sampling_goes_on() {
    let mut app = after(100);
    keys(&mut app, " ");
    assert_eq!(app.player.mode, Mode::Paused);
    let now = app.now;
    assert_eq!(update(&mut app, reading(fixture::snapshot(101)), now, AREA), Flow::Rest);
    keys(&mut app, "hhH");
    assert_eq!(app.player.behind(), 63);
    keys(&mut app, " ");
    assert_eq!((app.player.mode, app.player.behind()), (Mode::Following, 0));
}

#[test]
fn lists_are_filtered_sorted_and_walked() {
    let mut app = after(30);
    keys(&mut app, "/AUD");
    assert!(app.typing && app.place().filter == "AUD");
    assert_eq!(app.groups().len(), 1);
    assert_eq!(press(&mut app, KeyCode::Char('q')), Flow::Draw, "typed, not obeyed");
    press(&mut app, KeyCode::Backspace);
    press(&mut app, KeyCode::Enter);
    assert!(!app.typing);
    press(&mut app, KeyCode::Esc);
    assert_eq!(app.groups().len(), 2);
    assert_eq!(app.groups()[0].group, "audit");
    keys(&mut app, "O");
    assert_eq!(app.groups()[0].group, "billing");
    press(&mut app, KeyCode::Enter);
    assert_eq!(app.screen, Screen::Backlog);
    assert_eq!(app.groups()[app.place().selected].group, "billing", "the one that was selected");
    keys(&mut app, "2jjjjjjjj");
    assert_eq!(app.place().selected, 3, "no further than the last");
    keys(&mut app, "g`");
    assert_eq!((app.places[1].selected, app.screen), (0, Screen::Backlog));
}

#[test]
fn a_stream_is_looked_into() {
    let mut app = after(12);
    keys(&mut app, "6");
    press(&mut app, KeyCode::Enter);
    let ask = |shard| Ask::Records {
        stream: "orders".into(),
        shard,
        last: crate::dashboard::browse::LAST,
        until: None,
    };
    assert_eq!(app.asks, [ask(0), Ask::Describe { stream: "orders".into() }]);
    app.asks.clear();
    keys(&mut app, "[");
    assert_eq!(app.asks[0], ask(3), "round and round");
    app.asks.clear();
    let now = app.now;
    update(&mut app, reading(fixture::snapshot(13)), now, AREA);
    assert_eq!(app.asks, [ask(3)], "the records stay up to date");
    let record = Record {
        sequence: 7,
        at_ns: 0,
        key: "k".into(),
        headers: Vec::new(),
        length: 1,
        payload: crate::dashboard::browse::Payload::Text("x".into()),
    };
    let records = Records {
        stream: "orders".into(),
        shard: 3,
        records: vec![record.clone()],
        ..Records::default()
    };
    update(&mut app, Msg::Reading(Reading::Answer(Answer::Records(records))), now, AREA);
    press(&mut app, KeyCode::Enter);
    assert_eq!(app.browse.record, Some(record));
    press(&mut app, KeyCode::Esc);
    assert!(app.browse.record.is_none() && app.browse.open.is_some());
    press(&mut app, KeyCode::Esc);
    assert!(app.browse.open.is_none());
}

/// An answer that was on its way, and every shard opened, showed what had come since.
#[test]
fn a_view_that_stands_still_shows_no_later_records() {
    let mut app = after(12);
    keys(&mut app, "6");
    press(&mut app, KeyCode::Enter);
    let now = app.now;
    let records = |until, sequence: u64| Records {
        stream: "orders".into(),
        until,
        records: vec![Record {
            sequence,
            at_ns: 0,
            key: "k".into(),
            headers: Vec::new(),
            length: 1,
            payload: crate::dashboard::browse::Payload::Text("x".into()),
        }],
        ..Records::default()
    };
    let answer = |records| Msg::Reading(Reading::Answer(Answer::Records(records)));
    update(&mut app, answer(records(None, 47_000)), now, AREA);
    app.asks.clear();
    let asked = |shard, until| Ask::Records {
        stream: "orders".into(),
        shard,
        last: crate::dashboard::browse::LAST,
        until: Some(until),
    };
    keys(&mut app, " ");
    assert_eq!(std::mem::take(&mut app.asks), [asked(0, 48_000)], "as it ended then");
    assert!(app.records().is_empty(), "until they are known");
    update(&mut app, answer(records(None, 99_000)), now, AREA);
    assert!(app.records().is_empty(), "an answer of before comes too late");
    update(&mut app, reading(fixture::snapshot(13)), now, AREA);
    assert_eq!(std::mem::take(&mut app.asks), [asked(0, 48_000)], "asked again, for none came");
    update(&mut app, answer(records(Some(48_000), 47_999)), now, AREA);
    update(&mut app, reading(fixture::snapshot(14)), now, AREA);
    assert_eq!((app.asks.len(), app.records()[0].sequence), (0, 47_999));
    keys(&mut app, "h");
    assert_eq!(std::mem::take(&mut app.asks), [asked(0, 44_000)], "a sample back");
    keys(&mut app, "{");
    app.asks.clear();
    keys(&mut app, "h");
    assert_eq!(std::mem::take(&mut app.asks), [asked(0, 4_000)], "the first has no figures");
    keys(&mut app, "}");
    app.asks.clear();
    keys(&mut app, "hhh");
    app.asks.clear();
    keys(&mut app, "[");
    assert_eq!(std::mem::take(&mut app.asks)[0], asked(3, 88_000), "another shard, then");
    keys(&mut app, " ");
    assert!(matches!(app.asks.as_slice(), [Ask::Records { until: None, .. }]), "{:?}", app.asks);
}

#[test]
fn a_click_selects_the_line_it_is_on() {
    let mut app = after(5);
    keys(&mut app, "2");
    let click = |app: &mut App, column, row| {
        let kind = MouseEventKind::Down(MouseButton::Left);
        let mouse = MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE };
        let now = app.now;
        update(app, Msg::Input(Event::Mouse(mouse)), now, AREA)
    };
    // Below the header, the frame and the heading.
    assert_eq!(click(&mut app, 5, 5), Flow::Draw);
    assert_eq!((app.place().selected, app.place().panel), (2, 0));
    click(&mut app, 5, 2);
    assert_eq!(app.place().selected, 2, "the heading is no line");
    click(&mut app, 5, 20);
    assert_eq!((app.place().selected, app.place().panel), (2, 2), "nor is there a list");
    keys(&mut app, "4");
    click(&mut app, 5, 4);
    assert_eq!(app.groups()[app.place().selected].group, "billing");
}

#[test]
fn the_mouse_focuses_and_scrolls() {
    let mut app = after(5);
    let mouse = |kind, column, row| {
        Msg::Input(Event::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE }))
    };
    let click = MouseEventKind::Down(MouseButton::Left);
    let now = app.now;
    assert_eq!(update(&mut app, mouse(click, 60, 4), now, AREA), Flow::Draw);
    assert_eq!(app.place().panel, 1);
    assert_eq!(update(&mut app, mouse(click, 60, 23), now, AREA), Flow::Rest);
    update(&mut app, mouse(MouseEventKind::ScrollDown, 1, 1), now, AREA);
    assert_eq!(app.place().selected, 1);
    let wide = Rect::new(0, 0, 200, 60);
    update(&mut app, mouse(click, 199, 0), now, wide);
    assert_eq!(app.screen, Screen::Streams);
}

#[test]
fn panels_expand_and_go_round() {
    let mut app = after(3);
    for _ in 0..5 {
        press(&mut app, KeyCode::Tab);
    }
    assert_eq!(app.place().panel, 0);
    press(&mut app, KeyCode::BackTab);
    assert_eq!(app.place().panel, 4);
    keys(&mut app, "e");
    assert!(app.place().expanded);
    press(&mut app, KeyCode::Esc);
    assert!(!app.place().expanded);
    keys(&mut app, "t");
    assert_eq!(app.look.theme.palette, Palette::Dark);
}
