//! The reports of a search and of a sweep: the answer first, then the curve it comes from, then everything else.

use super::chart::{Axis, Band, BandKind, Line, Plot};
use super::document::{Block, Chart, Document, Headline, Remark, Table, Tone, Verdict};
use super::figures::{bytes, counted, moment, percent, seconds, time};
use super::machine;
use super::pages::{lints, micro, quoted, sentence};
use crate::search::{
    Ended, GoalResult, Hysteresis, SearchFile, SearchResult, SweepFile, SweepMode, text,
};

/// The document of a search.
pub fn search(file: &SearchFile) -> Document {
    let mut blocks = Vec::new();
    if let Some(result) = &file.result {
        blocks.push(Block::Heading("What each goal allows".into()));
        blocks.push(table(text::goals(result)));
        blocks.push(Block::Note(WHAT_IS_WHAT.into()));
        for goal in result.goals.iter().filter(|goal| !goal.curve.is_empty()) {
            blocks.push(Block::Chart(Box::new(curve(file, result, goal))));
        }
        if let Some(walk) = &result.hysteresis {
            blocks.push(Block::Heading("After an overload".into()));
            blocks.push(Block::Paragraph(after(walk)));
            blocks.push(steps(walk));
        }
        if !result.notes.is_empty() {
            blocks.push(Block::Heading("To read it right".into()));
            blocks.push(Block::Remarks(result.notes.iter().map(|note| plain(note)).collect()));
        }
    }
    blocks.push(Block::Heading("Trials".into()));
    blocks.push(table(text::trials(file)));
    blocks.push(Block::Note(HOW.into()));
    lints(&file.lints, &mut blocks);
    blocks.push(Block::Heading("What was asked".into()));
    blocks.push(Block::Facts(asked(file)));
    blocks.push(Block::Heading("The machine".into()));
    blocks.push(Block::Facts(machine::rows(&file.environment)));
    again(&file.command, &mut blocks);
    blocks.push(Block::Heading("Files".into()));
    blocks.push(Block::Facts(
        [
            (
                "search.json",
                "everything in this report as one JSON object, every trial with its counts",
            ),
            ("trial-NNN/", "each trial's run directory, with its own report and histograms"),
        ]
        .map(|(name, what)| (name.into(), what.into()))
        .to_vec(),
    ));
    let mut document = Document {
        title: format!("Sustainable rate of {}", file.load.stream),
        subtitle: format!(
            "{} · {} · {} · {} from {}",
            file.target,
            if file.server.is_empty() { "unknown server" } else { &file.server },
            load(file),
            seconds(file.spent_s),
            moment(file.started_ns)
        ),
        verdicts: file
            .result
            .as_ref()
            .map_or_else(Vec::new, |result| verdicts(result, file.settings.precision)),
        headline: file.result.as_ref().map_or_else(Vec::new, |result| headline(file, result)),
        blocks,
    };
    document.each_text(&mut |text| *text = micro(text));
    document
}

/// The document of a sweep.
pub fn sweep(file: &SweepFile) -> Document {
    let done = file.points.iter().filter(|point| point.done).count();
    let void = file.points.iter().filter(|point| point.void_reason.is_some()).count();
    let what = match &file.mode {
        SweepMode::Search { settings } => {
            format!("a search of at most {} at each", seconds(settings.budget_s))
        }
        SweepMode::Rate { rate, duration_s } => format!(
            "{} at each, {} measured",
            rate.map_or("as fast as it goes".to_owned(), |rate| format!("{}/s", text::about(rate))),
            seconds(*duration_s)
        ),
    };
    let missed = file.points.iter().filter(|point| point.missed.is_some()).count();
    let damaged = file.points.iter().filter(|point| point.damaged).count();
    let tone = match void == 0 && done == file.points.len() {
        _ if damaged > 0 => Tone::Bad,
        true if missed > 0 && missed == done => Tone::Bad,
        true => Tone::Good,
        false => Tone::Unsure,
    };
    let mut reason = format!("{void} of them void");
    if missed > 0 {
        reason += &format!("; {missed} meet the goals at no rate");
    }
    if damaged > 0 {
        reason += &format!("; at {damaged} the records are not as they were sent");
    }
    let word = format!("{done} of {} measured", counted(file.points.len() as u64, "point"));
    let mut blocks = vec![Block::Heading("Points".into()), table(text::points(file))];
    lints(&file.lints, &mut blocks);
    blocks.push(Block::Heading("The machine".into()));
    blocks.push(Block::Facts(machine::rows(&file.environment)));
    again(&file.command, &mut blocks);
    let best = file.points.iter().filter(|point| point.void_reason.is_none());
    let best =
        best.filter_map(|point| Some((point.published_rate.or(Some(point.rate?.value))?, point)));
    let best = best.max_by(|a, b| a.0.total_cmp(&b.0));
    let headline = best.map(|(rate, point)| Headline {
        name: "highest".into(),
        value: format!("{}/s", text::about(rate)),
        detail: point
            .settings
            .iter()
            .map(|setting| format!("{} {}", setting.name, setting.value))
            .collect::<Vec<_>>()
            .join(", "),
    });
    let mut document = Document {
        title: format!("Sweep of {}", file.load.stream),
        subtitle: format!(
            "{} · {} · {what} · from {}",
            file.target,
            file.server,
            moment(file.started_ns)
        ),
        verdicts: vec![Verdict { tone, word, reason }],
        headline: headline.into_iter().collect(),
        blocks,
    };
    document.each_text(&mut |text| *text = micro(text));
    document
}

const WHAT_IS_WHAT: &str = "A goal gives out at the rate where, in the long run, as many records are beyond its bound \
    as it allows: of all two-minute runs at just that rate, half miss it. So that is not the rate to promise. The last \
    column is: a two-minute run there keeps the goal with 95 %, the uncertainty of the curve included.";

const HOW: &str = "Void trials count for nothing and were repeated. Growth is that of everything that waits (due and not \
    answered, or acknowledged and not read, over all groups) per second, as a share of the offered rate; drain is \
    from the end of the window until nothing waited.";

fn plain(text: &str) -> Remark {
    let (name, remedy) = (String::new(), String::new());
    Remark { tone: Tone::Plain, name, message: text.to_owned(), remedy }
}

/// A table whose first row are its columns.
fn table(rows: Vec<Vec<String>>) -> Block {
    let mut rows = rows.into_iter();
    let columns = rows.next().unwrap_or_default();
    let words = columns.iter().enumerate().filter(|(_, name)| *name == "remark");
    let words = words.map(|(at, _)| at).collect();
    Block::Table(Table { columns, rows: rows.collect(), words, ..Table::default() })
}

fn again(command: &[String], blocks: &mut Vec<Block>) {
    if !command.is_empty() {
        blocks.push(Block::Heading("To repeat it".into()));
        let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
        blocks.push(Block::Code(words.join(" ")));
    }
}

fn load(file: &SearchFile) -> String {
    format!(
        "{} of {}, {}, acknowledged {}",
        counted(u64::from(file.shards), "shard"),
        counted(u64::from(file.load.streams), "stream"),
        counted(u64::from(file.groups), "group"),
        file.ack
    )
}

fn verdicts(result: &SearchResult, precision: f64) -> Vec<Verdict> {
    let verdict = |tone, word: &str, reason: String| Verdict { tone, word: word.into(), reason };
    let (tone, word) = match (result.estimate, result.published_rate) {
        (_, None) if result.needs_s.is_some() => (Tone::Unsure, "Budget too short"),
        (_, None) if result.ended == Ended::Void => (Tone::Unsure, "No valid trial"),
        (_, None) => (Tone::Bad, "Goal out of reach"),
        (Some(_), _) if result.is_rough(precision) => (Tone::Unsure, "Found, roughly"),
        (Some(_), _) => (Tone::Good, "Found"),
        (None, _) => (Tone::Unsure, "More than was tried"),
    };
    let mut verdicts = vec![verdict(tone, word, sentence(&result.in_words()))];
    verdicts.push(match &result.soak {
        Some(soak) => {
            let long = soak.seconds >= soak.wanted_s * 0.99;
            let (tone, word) = match (soak.held, long) {
                (true, true) => (Tone::Good, "Sustained"),
                (true, false) => (Tone::Unsure, "Held, for a while"),
                (false, _) => (Tone::Bad, "Did not hold"),
            };
            let (rate, length) = (text::about(soak.rate), seconds(soak.seconds));
            let wanted = seconds(soak.wanted_s);
            verdict(tone, word, format!("{length} at {rate}/s; to be called sustained, {wanted}."))
        }
        None => verdict(Tone::Unsure, "Not soaked", "No long trial at the published rate.".into()),
    });
    if let Some(walk) = &result.hysteresis {
        let (tone, word) = match (walk.recovers, walk.slower) {
            (true, None) => (Tone::Good, "Recovers"),
            (true, Some(_)) => (Tone::Unsure, "Recovers, but slower"),
            (false, _) => (Tone::Bad, "Does not recover"),
        };
        verdicts.push(verdict(tone, word, after(walk)));
    }
    verdicts
}

fn after(walk: &Hysteresis) -> String {
    match (walk.recovers, walk.slower) {
        (true, None) => {
            return "On the way down from an overload it was as before, as far as can be told."
                .to_owned();
        }
        (true, Some(factor)) => {
            return format!(
                "On the way down from an overload the goals were kept as before, but p99 of the response was {factor:.1} times \
                 as high."
            );
        }
        (false, _) => {}
    }
    let ratio = |step: &crate::search::Walk| step.down_us / step.up_us.max(1e-3);
    let worst = walk.steps.iter().max_by(|a, b| ratio(a).total_cmp(&ratio(b)));
    worst.map_or_else(String::new, |step| {
        format!(
            "At {}/s, p99 of the response is {} after an overload, and was {} before.",
            text::about(step.rate),
            time(step.down_us),
            time(step.up_us)
        )
    })
}

fn steps(walk: &Hysteresis) -> Block {
    let mut table =
        Table::new(None, ["rate on the way down", "p99 then", "p99 before, at that rate", "trial"]);
    table.rows = walk
        .steps
        .iter()
        .map(|step| {
            let rate = format!("{}/s", text::about(step.rate));
            vec![rate, time(step.down_us), time(step.up_us), step.trial.to_string()]
        })
        .collect();
    Block::Table(table)
}

fn headline(file: &SearchFile, result: &SearchResult) -> Vec<Headline> {
    let item =
        |name: &str, value: String, detail: String| Headline { name: name.into(), value, detail };
    let mut items = Vec::new();
    let volume = |rate: f64| format!("{}/s", bytes(rate * file.mean_payload_bytes));
    if let Some(rate) = result.published_rate {
        items.push(item("rely on", format!("{}/s", text::about(rate)), volume(rate)));
    }
    if let Some(e) = result.estimate {
        let detail = format!(
            "95 % within {} .. {}; {}",
            text::about(e.low),
            text::about(e.high),
            volume(e.value)
        );
        items.push(item("gives out at", format!("{}/s", text::about(e.value)), detail));
    }
    if let Some(goal) = result.goals.iter().find(|goal| result.binding.as_ref() == Some(&goal.of)) {
        items.push(item("what gives out first", goal.of.clone(), goal.asked()));
    }
    let void = file.trials.iter().filter(|trial| trial.void_reason.is_some()).count();
    let detail = format!("{void} void; {}", result.ended_in_words());
    items.push(item("trials", file.trials.len().to_string(), detail));
    items
}

fn asked(file: &SearchFile) -> Vec<(String, String)> {
    let s = &file.settings;
    let goals: Vec<String> =
        s.goals.iter().map(|g| format!("{} <= {}", g.of, time(g.bound_us))).collect();
    [
        ("goals", goals.join(", ")),
        ("stable", format!("what waits may grow by {} of the offered rate", percent(s.stable))),
        ("budget", seconds(s.budget_s)),
        ("precision", format!("± {}", percent(s.precision))),
        ("a trial", seconds(s.trial_s)),
        (
            "records",
            format!("{} in the mean, {}", bytes(file.mean_payload_bytes), file.load.workload),
        ),
        ("producers", file.load.producers.to_string()),
        ("seed", s.seed.to_string()),
        ("layout of search.json", file.schema.clone()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .collect()
}

/// The share beyond the bound by rate: every stretch, the curve through them, and where it crosses.
fn curve(file: &SearchFile, result: &SearchResult, goal: &GoalResult) -> Chart {
    let at = result.goals.iter().position(|other| other.of == goal.of).unwrap_or(0);
    let ppm = |share: f64| share * 1e6;
    let counted = file.trials.iter().filter(|trial| trial.void_reason.is_none());
    let points: Vec<(f64, f64)> = counted
        .flat_map(|trial| {
            trial.blocks.iter().filter_map(move |block| {
                let over = *block.over.get(at)? as f64 / block.records.max(1) as f64;
                Some((trial.rate, over))
            })
        })
        .collect();
    let least = goal.allowed / 100.0;
    let most = points.iter().map(|(rate, _)| *rate).fold(0.0, f64::max);
    let dash = |(rate, share): (f64, f64)| {
        let (half, y) = (most * 0.004, ppm(share.max(least)));
        vec![(rate - half, y), (rate + half, y)]
    };
    let side = |of: fn(&crate::search::Curve) -> f64| -> Vec<(f64, f64)> {
        goal.curve.iter().map(|point| (point.rate, ppm(of(point).max(least)))).collect()
    };
    let ends = vec![(0.0, ppm(goal.allowed)), (most, ppm(goal.allowed))];
    let line = |name: &str, style, pieces| Line { name: name.into(), style, pieces };
    let lines = vec![
        line("fitted", 0, vec![side(|point| point.share)]),
        line("its 95 % interval", 5, vec![side(|point| point.low), side(|point| point.high)]),
        line("allowed", 1, vec![ends]),
        line("a stretch of about 10 s", 2, points.into_iter().map(dash).collect()),
    ];
    let band = goal.estimate.map(|e| Band { kind: BandKind::Estimate, from: e.low, to: e.high });
    Chart {
        title: format!("Records beyond {} by rate", goal.asked().replace("<=", "of")),
        caption: format!(
            "Share of the records due that took longer than the bound, by the rate offered; log scale, what is below {} \
             lies on the bottom edge. Shaded: where the curve crosses what is allowed, with 95 %.",
            percent(least)
        ),
        plot: Plot {
            x: Axis::count("records per second offered", most),
            y: Axis::share(least, 1.0),
            bands: band.into_iter().collect(),
            lines,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::{Interval, Search, SearchSettings, Walk};

    fn words(result: &SearchResult) -> Vec<(Tone, String)> {
        verdicts(result, 0.1).into_iter().map(|verdict| (verdict.tone, verdict.word)).collect()
    }

    /// Green is for what can be relied on as it stands.
    #[test]
    fn a_rough_answer_and_a_slow_recovery_are_not_green() {
        let settings = SearchSettings {
            goals: vec![],
            stable: 0.005,
            budget_s: 480.0,
            precision: 0.1,
            trial_s: 16.0,
            start_rate: 1e4,
            max_rate: 1e9,
            seed: 1,
        };
        let found = |low: f64, slower: Option<f64>| SearchResult {
            estimate: Some(Interval { value: 10e3, low, high: 11e3 }),
            published_rate: Some(9e3),
            hysteresis: Some(Hysteresis {
                recovers: true,
                slower,
                steps: vec![Walk { rate: 5e3, down_us: 4e3, up_us: 2e3, trial: 9 }],
            }),
            ..Search::new(settings.clone()).result()
        };
        let sound = words(&found(9e3, None));
        assert_eq!(sound[0], (Tone::Good, "Found".to_owned()));
        assert_eq!(sound[2], (Tone::Good, "Recovers".to_owned()));
        let rough = words(&found(200.0, Some(2.0)));
        assert_eq!(rough[0], (Tone::Unsure, "Found, roughly".to_owned()));
        assert_eq!(rough[2], (Tone::Unsure, "Recovers, but slower".to_owned()));
        let said = &verdicts(&found(9e3, Some(2.0)), 0.1)[2].reason;
        assert!(said.contains("2.0 times as high"), "{said}");
    }
}
