//! What a plan says: a verdict for each question, with the figures behind it.

use serde::Serialize;

use super::evidence::Range;
use super::formula::Formula;

/// The questions, in the order a reader asks them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Question {
    /// Does the average fit below what is safe?
    Headroom,
    /// Does the peak, and what happens if not?
    Peak,
    /// What gives out first?
    FirstLimit,
    /// What does one more shard bring, and until when does that pay?
    OneMoreShard,
    /// How many shards and cores for the target?
    ShardsAndCores,
    /// How long to catch up after an outage, and how long may one be?
    CatchUp,
    /// How much disk, and how much wear?
    Retention,
    /// How many consumer groups?
    Groups,
    /// What does durability cost?
    Durability,
    /// Which batch and linger?
    BatchAndLinger,
    /// What would it be in shards of Kinesis, and what would they refuse?
    Kinesis,
    /// Does the machine allow for more?
    Machine,
}

impl Question {
    /// All of them.
    pub const ALL: [Question; 12] = [
        Question::Headroom,
        Question::Peak,
        Question::FirstLimit,
        Question::OneMoreShard,
        Question::ShardsAndCores,
        Question::CatchUp,
        Question::Retention,
        Question::Groups,
        Question::Durability,
        Question::BatchAndLinger,
        Question::Kinesis,
        Question::Machine,
    ];

    /// In a few words, for the first page.
    pub fn title(self) -> &'static str {
        match self {
            Question::Headroom => "average",
            Question::Peak => "peak",
            Question::FirstLimit => "first limit",
            Question::OneMoreShard => "one more shard",
            Question::ShardsAndCores => "shards and cores",
            Question::CatchUp => "consumer outage",
            Question::Retention => "retention",
            Question::Groups => "consumer groups",
            Question::Durability => "durability",
            Question::BatchAndLinger => "batch and linger",
            Question::Kinesis => "Kinesis equivalent",
            Question::Machine => "this machine",
        }
    }

    /// As it is asked.
    pub fn asks(self) -> &'static str {
        match self {
            Question::Headroom => {
                "Does the average load fit below what the machine safely sustains?"
            }
            Question::Peak => "Does the peak fit, and what happens to delay if it does not?",
            Question::FirstLimit => "What gives out first?",
            Question::OneMoreShard => {
                "What does one more shard bring, and until when does that pay?"
            }
            Question::ShardsAndCores => "How many shards and cores does the target need?",
            Question::CatchUp => {
                "After an outage of a consumer group, how long does it take to catch up, and how long may the outage be?"
            }
            Question::Retention => {
                "How much disk does the retention need, and how fast does it wear?"
            }
            Question::Groups => "How many consumer groups can follow?",
            Question::Durability => "What does waiting for the device cost?",
            Question::BatchAndLinger => "Which batch size and linger?",
            Question::Kinesis => {
                "How many shards of Amazon Kinesis is this, and what would they refuse?"
            }
            Question::Machine => "Does the probe of this machine say that more is possible?",
        }
    }
}

/// What it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It fits.
    Fits,
    /// It fits, with less room than one should have.
    Tight,
    /// It does not fit.
    No,
    /// There is no yes or no; the figures answer.
    Known,
    /// More is asked than anything that was measured: nothing is extrapolated.
    BeyondMeasured,
    /// It was not asked: a flag is missing.
    NotAsked,
    /// What would answer it was not measured.
    NotMeasured,
}

impl Verdict {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Fits => "FITS",
            Verdict::Tight => "TIGHT",
            Verdict::No => "NO",
            Verdict::Known => "",
            Verdict::BeyondMeasured => "BEYOND MEASURED",
            Verdict::NotAsked => "not asked",
            Verdict::NotMeasured => "not measured",
        }
    }
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Records per second.
    RecordsPerS,
    /// Bytes per second.
    BytesPerS,
    /// Records.
    Records,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// Microseconds.
    Microseconds,
    /// 0 to 1, or more where more is asked than there is.
    Share,
    /// A number of things.
    Count,
    /// One over another.
    Ratio,
    /// Whole writes of the drive a day.
    DriveWritesPerDay,
}

impl Unit {
    /// The number for people.
    pub fn show(self, value: f64) -> String {
        use crate::report::figures::{bytes, percent, rate, time};
        if !value.is_finite() {
            return "never".to_owned();
        }
        match self {
            Unit::RecordsPerS => format!("{} records/s", rate(value)),
            Unit::BytesPerS => format!("{}/s", bytes(value)),
            Unit::Records => format!("{} records", rate(value.round())),
            Unit::Bytes => bytes(value),
            Unit::Seconds => span(value),
            Unit::Microseconds => time(value),
            Unit::Share => percent(value),
            Unit::Count => rate(value),
            // Such as what contention costs in a fit: two digits behind the point would be none of it.
            Unit::Ratio if value != 0.0 && value.abs() < 0.1 => {
                let zeros = -value.abs().log10().floor();
                format!("{value:.0$}", zeros.min(12.0) as usize + 2)
            }
            Unit::Ratio => format!("{value:.2}"),
            Unit::DriveWritesPerDay if value < 10.0 => {
                format!("{value:.2} writes of the drive a day")
            }
            Unit::DriveWritesPerDay => format!("{} writes of the drive a day", rate(value)),
        }
    }
}

/// Seconds; from two days on in days.
pub fn span(s: f64) -> String {
    use crate::report::figures::{rate, seconds};
    const DAY: f64 = 86_400.0;
    let whole = |text: String| {
        let short = text.strip_suffix(" 00 s").or_else(|| text.strip_suffix(" 00 min"));
        short.map(str::to_owned).unwrap_or(text)
    };
    match s {
        0.0 => "0 s".to_owned(),
        s if s < 2.0 * DAY => whole(seconds(s)),
        s if s < 100.0 * DAY => format!("{:.1} days", s / DAY),
        s => format!("{} days", rate((s / DAY).round())),
    }
}

/// A number a figure was computed from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Input {
    /// What it is.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: Unit,
    /// The run it came from, or who asked for it.
    pub from: String,
}

/// A number a question is answered with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// What it is.
    pub name: String,
    /// How much; absent where it is infinite (it never happens).
    pub value: Option<f64>,
    /// What it may also be; absent where there is no interval.
    pub low: Option<f64>,
    /// The same.
    pub high: Option<f64>,
    /// Of what.
    pub unit: Unit,
    /// How it was computed: the `id` of a formula of the plan.
    pub formula: &'static str,
    /// From what.
    pub inputs: Vec<Input>,
}

impl Figure {
    /// Of this value, computed by `formula`.
    pub fn new(name: impl Into<String>, value: f64, unit: Unit, formula: Formula) -> Figure {
        Figure {
            name: name.into(),
            value: value.is_finite().then_some(value),
            low: None,
            high: None,
            unit,
            formula: formula.id,
            inputs: Vec::new(),
        }
    }

    /// With its interval, the ends in any order; an infinite end is left open.
    pub fn within(mut self, one: f64, other: f64) -> Figure {
        let (low, high) = (one.min(other), one.max(other));
        self.low = low.is_finite().then_some(low);
        self.high = high.is_finite().then_some(high);
        self
    }

    /// With one more input.
    pub fn from(mut self, name: &str, value: f64, unit: Unit, from: &str) -> Figure {
        self.inputs.push(Input { name: name.to_owned(), value, unit, from: from.to_owned() });
        self
    }

    /// With a range as one more input, told by its value.
    pub fn from_range(self, name: &str, range: Range, unit: Unit, from: &str) -> Figure {
        let spread = range.low < range.value || range.value < range.high;
        let this = self.from(name, range.value, unit, from);
        if !spread {
            return this;
        }
        this.from(&format!("{name}, lower end"), range.low, unit, from).from(
            &format!("{name}, upper end"),
            range.high,
            unit,
            from,
        )
    }

    /// The value for people.
    pub fn shown(&self) -> String {
        self.unit.show(self.value.unwrap_or(f64::INFINITY))
    }

    /// The interval behind the value in a sentence: ` [5.00 s, 12.0 s]`; empty where it has no extent.
    pub fn extent(&self) -> String {
        let none =
            self.interval().is_empty() || (self.low == self.value && self.high == self.value);
        if none { String::new() } else { format!(" {}", self.interval()) }
    }

    /// The interval for people; empty without one.
    pub fn interval(&self) -> String {
        match (self.low, self.high) {
            (None, None) => String::new(),
            (Some(low), Some(high)) => {
                format!("[{}, {}]", self.unit.show(low), self.unit.show(high))
            }
            (Some(low), None) => format!("{} or more", self.unit.show(low)),
            (None, Some(high)) => format!("{} or less", self.unit.show(high)),
        }
    }
}

/// Rows that belong to an answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rows {
    /// What they show.
    pub caption: String,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Cells, as text.
    pub rows: Vec<Vec<String>>,
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// Which.
    pub question: Question,
    /// What it comes to.
    pub verdict: Verdict,
    /// In a sentence without its full stop.
    pub says: String,
    /// The figures.
    pub figures: Vec<Figure>,
    /// Details as rows.
    pub tables: Vec<Rows>,
    /// What a reader has to know, in sentences.
    pub notes: Vec<String>,
    /// What takes from its worth and belongs on the first page, in a sentence without its full stop.
    pub caution: Option<String>,
    /// The command that would answer it, or answer it better.
    pub command: Option<String>,
}

impl Answer {
    /// Without figures yet.
    pub fn new(question: Question, verdict: Verdict, says: impl Into<String>) -> Answer {
        Answer {
            question,
            verdict,
            says: says.into(),
            figures: vec![],
            tables: vec![],
            notes: vec![],
            caution: None,
            command: None,
        }
    }

    /// What would answer it was not measured: `run COMMAND`.
    pub fn not_measured(question: Question, command: String) -> Answer {
        let says = format!("run {command}");
        Answer { command: Some(command), ..Answer::new(question, Verdict::NotMeasured, says) }
    }

    /// One more figure.
    pub fn figure(mut self, figure: Figure) -> Answer {
        self.figures.push(figure);
        self
    }

    /// One more thing to know.
    pub fn note(mut self, note: impl Into<String>) -> Answer {
        self.notes.push(note.into());
        self
    }

    /// What belongs on the first page beside it.
    pub fn caution(mut self, caution: String) -> Answer {
        self.caution = Some(caution);
        self
    }

    /// What would answer it better.
    pub fn better(mut self, command: String) -> Answer {
        self.command = Some(command);
        self
    }

    /// The verdict and the sentence, as `not measured: run ...` for one that is missing.
    pub fn line(&self) -> String {
        match self.verdict {
            Verdict::Known => self.says.clone(),
            verdict => format!("{}: {}", verdict.word(), self.says),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::formula;

    #[test]
    fn figures_are_shown_with_unit_and_interval() {
        let figure =
            Figure::new("delay", 240.6, Unit::Seconds, formula::PEAK_DELAY).within(500.0, 100.0);
        assert_eq!(
            (figure.shown().as_str(), figure.interval().as_str()),
            ("4 min 01 s", "[100 s, 8 min 20 s]")
        );
        let never = Figure::new("x", f64::INFINITY, Unit::Seconds, formula::PEAK_CLEAR)
            .within(5.0, f64::INFINITY);
        assert_eq!(
            (never.shown().as_str(), never.value, never.interval().as_str()),
            ("never", None, "5.00 s or more")
        );
        for (unit, value, shown) in [
            (Unit::RecordsPerS, 400e3, "400,000 records/s"),
            (Unit::BytesPerS, 204.8e6, "205 MB/s"),
            (Unit::Bytes, 23.4e12, "23.4 TB"),
            (Unit::Share, 0.7, "70.0 %"),
            (Unit::Ratio, 1.3, "1.30"),
            (Unit::Ratio, 0.0, "0.00"),
            (Unit::Ratio, 0.0427, "0.0427"),
            (Unit::Ratio, 0.000_104_4, "0.000104"),
            (Unit::DriveWritesPerDay, 0.611, "0.61 writes of the drive a day"),
            (Unit::DriveWritesPerDay, 12.34, "12.3 writes of the drive a day"),
            (Unit::DriveWritesPerDay, 1_728.0, "1,728 writes of the drive a day"),
            (Unit::DriveWritesPerDay, 7_200.0, "7,200 writes of the drive a day"),
            (Unit::Seconds, 86_400.0, "24 h"),
            (Unit::Seconds, 600.0, "10 min"),
            (Unit::Seconds, 3.5 * 86_400.0, "3.5 days"),
            (Unit::Seconds, 1e9, "11,574 days"),
        ] {
            assert_eq!(unit.show(value), shown);
        }
    }

    #[test]
    fn what_is_missing_names_its_command() {
        let answer = Answer::not_measured(Question::CatchUp, "highwater load backlog".into());
        assert_eq!(answer.line(), "not measured: run highwater load backlog");
        assert_eq!(answer.command.as_deref(), Some("highwater load backlog"));
    }

    #[test]
    fn names_in_json_are_stable() {
        let names = serde_json::to_string(&Question::ALL).unwrap();
        assert_eq!(
            names,
            r#"["headroom","peak","first-limit","one-more-shard","shards-and-cores","catch-up","retention","groups","durability","batch-and-linger","kinesis","machine"]"#
        );
        let verdicts =
            [Verdict::Fits, Verdict::BeyondMeasured, Verdict::NotMeasured, Verdict::NotAsked];
        assert_eq!(
            serde_json::to_string(&verdicts).unwrap(),
            r#"["fits","beyond-measured","not-measured","not-asked"]"#
        );
    }
}
