//! The player: live, forwards and back.

use super::*;
use crate::dashboard::fixture;

const SECOND: u64 = 1_000_000_000;
const MINUTE: Duration = Duration::from_secs(60);

fn sample(second: u64) -> Sample {
    let at = fixture::STARTED + second * SECOND + 300_000_000;
    Sample { at, what: What::Snapshot(Box::new(fixture::snapshot(second))) }
}

fn live(seconds: u64) -> Player {
    let mut player = Player::live();
    for second in 1..=seconds {
        player.push(sample(second));
    }
    player
}

fn shown(player: &Player) -> u64 {
    let figures = player.model().picture().figures.as_ref().unwrap();
    (figures.at_ns - fixture::STARTED) / SECOND
}

#[test]
fn a_live_session_can_be_stopped_scrubbed_and_caught_up_with() {
    let mut player = live(300);
    assert_eq!((player.mode, shown(&player)), (Mode::Following, 300));
    player.step(-1, MINUTE);
    assert_eq!((player.mode, shown(&player)), (Mode::Paused, 299));
    player.step_time(MINUTE, true, MINUTE);
    assert_eq!(shown(&player), 239);
    player.step(1, MINUTE);
    assert_eq!((shown(&player), player.behind()), (240, 60));
    assert!(!player.push(sample(301)), "what comes meanwhile is kept");
    player.toggle();
    assert_eq!((player.mode, shown(&player), player.behind()), (Mode::Following, 301, 0));
    assert!(player.push(sample(302)));
    player.step_end(false, MINUTE);
    assert_eq!(shown(&player), 2);
}

#[test]
fn what_is_shown_does_not_depend_on_the_way_there() {
    let mut straight = live(200);
    let mut player = live(260);
    player.step_time(MINUTE, true, MINUTE);
    let points =
        |player: &Player| player.model().picture().within(MINUTE).copied().collect::<Vec<_>>();
    assert_eq!(points(&player), points(&straight));
    assert_eq!(player.model().picture().figures, straight.model().picture().figures);
    straight.frames.clear();
    straight.step(-50, MINUTE);
    player.step(-50, MINUTE);
    assert_eq!(points(&player), points(&straight));
}

#[test]
fn a_recording_plays_at_its_speed_and_stops_at_its_end() {
    let mut tape = Tape::live();
    (1..=100).for_each(|second| tape.push(&sample(second)));
    let mut player = Player::replay(tape);
    assert_eq!(shown(&player), 2);
    assert_eq!(player.due(), Some(Duration::from_secs(1)));
    assert!(!player.tick(Duration::from_millis(400)));
    assert!(player.tick(Duration::from_millis(600)));
    assert_eq!(shown(&player), 3);
    assert!(player.change_speed(true) && player.change_speed(true));
    assert!(player.tick(Duration::from_millis(2_500)));
    assert_eq!((player.speed(), shown(&player)), (4, 13));
    player.tick(Duration::from_secs(1_000));
    assert_eq!((shown(&player), player.mode), (100, Mode::Paused));
}

#[test]
fn gaps_are_passed_over() {
    let mut tape = Tape::live();
    [1, 2, 3, 4_000].iter().for_each(|&second| tape.push(&sample(second)));
    let mut player = Player::replay(tape);
    player.tick(Duration::from_secs(1));
    assert!(player.due().unwrap() <= GAP);
    player.tick(Duration::from_millis(1));
    assert_eq!(shown(&player), 4_000);
}

#[test]
fn marks_and_events_are_found_again() {
    let mut player = Player::live();
    for second in 1..=300 {
        let Sample { at, what: What::Snapshot(mut snapshot) } = sample(second) else { panic!() };
        snapshot.groups.retain(|group| group.group != "audit");
        snapshot.disk_free = if second == 120 { 1 } else { 40 << 30 };
        player.push(Sample { at, what: What::Snapshot(snapshot) });
    }
    player.step_time(4 * MINUTE, true, MINUTE);
    let here = shown(&player);
    player.mark();
    let search = |player: &mut Player| {
        player.search(MINUTE);
        while player.mode == Mode::Searching {
            player.tick(Duration::ZERO);
        }
        (player.mode, shown(player))
    };
    assert_eq!(search(&mut player), (Mode::Paused, 120));
    assert_eq!(search(&mut player), (Mode::Paused, 120), "there is no other");
    player.mark();
    assert!(player.next_mark(MINUTE));
    assert_eq!(shown(&player), here, "after the last mark comes the first");
    player.step_end(true, MINUTE);
    assert!(player.previous_event(MINUTE));
    assert_eq!(shown(&player), 120);
    assert_eq!(player.marks().count(), 2);
}
