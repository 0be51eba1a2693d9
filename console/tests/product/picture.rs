//! The README's picture is what the recording beside it shows, to the byte.

use crate::support::{highwater, scratch};

#[test]
fn the_picture_of_the_readme_is_drawn_again_byte_for_byte() {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");
    let script = std::fs::read_to_string(format!("{docs}/picture.sh")).unwrap();
    // The arguments are those of the script, but for where the picture goes.
    let words = script.lines().last().unwrap().split_whitespace().skip(1);
    let dir = scratch();
    let svg = dir.path().join("again.svg");
    let words = words.map(|word| match word {
        "docs/demo.rec" => format!("{docs}/demo.rec"),
        "docs/picture.svg" => svg.display().to_string(),
        word => word.to_owned(),
    });
    let mut command = highwater();
    // Whatever the place, the hour and the terminal.
    command.args(words).env("TZ", "Asia/Tokyo").env("NO_COLOR", "1").env("LANG", "C");
    assert!(command.status().unwrap().success());
    let (again, kept) = (std::fs::read(svg).unwrap(), std::fs::read(format!("{docs}/picture.svg")));
    assert!(again == kept.unwrap(), "docs/picture.sh draws it anew");
    let text = String::from_utf8(again).unwrap();
    for seen in [
        "Propagation delay",
        "archive on access",
        "NEVER: it grows",
        "!! backlog of archive grows",
        "SLO",
    ] {
        assert!(text.contains(seen), "{seen}");
    }
}
