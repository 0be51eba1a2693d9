//! A report as a document that knows nothing of how it is written down; [`super::markdown`] and
//! [`super::html`] do that.

use super::chart::Plot;

/// A whole document.
#[derive(Clone, Debug)]
pub struct Document {
    /// What it is about.
    pub title: String,
    /// Of what, where and when.
    pub subtitle: String,
    /// What came of it, most important first.
    pub verdicts: Vec<Verdict>,
    /// The few figures most readers came for.
    pub headline: Vec<Headline>,
    /// Everything else, in order.
    pub blocks: Vec<Block>,
}

/// Cards of more verdicts than this are hard to take in: they become a list, below the figures they rest on.
const CARDS: usize = 4;

impl Document {
    /// Whether its verdicts are a list.
    pub fn many(&self) -> bool {
        self.verdicts.len() > CARDS
    }
}

/// How a reader should feel about something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
    /// Cannot be said, or be aware.
    Unsure,
    /// Worth knowing.
    Plain,
}

/// An answer in a word, and its reasons.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Good or bad.
    pub tone: Tone,
    /// The answer.
    pub word: String,
    /// Why.
    pub reason: String,
}

/// A figure that stands out.
#[derive(Clone, Debug)]
pub struct Headline {
    /// What it is.
    pub name: String,
    /// The figure with its unit.
    pub value: String,
    /// What belongs to it.
    pub detail: String,
}

/// A piece of a document.
#[derive(Clone, Debug)]
pub enum Block {
    /// Begins a section.
    Heading(String),
    /// Running text.
    Paragraph(String),
    /// Explains what is above it.
    Note(String),
    /// Names and values.
    Facts(Vec<(String, String)>),
    /// Rows and columns.
    Table(Table),
    /// Things to be aware of.
    Remarks(Vec<Remark>),
    /// Something to be copied as it is.
    Code(String),
    /// A picture; a writer that cannot draw leaves it out.
    Chart(Box<Chart>),
}

/// Rows and columns; the first column names the row, the others are figures.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// What it shows, where the heading does not say.
    pub caption: Option<String>,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// As many cells each as there are columns.
    pub rows: Vec<Vec<String>>,
    /// For those who want to look closer: folded away where that is possible.
    pub folded: bool,
    /// Columns of words instead of figures: they begin at the left, and may be broken.
    pub words: Vec<usize>,
}

impl Table {
    /// Without rows yet.
    pub fn new<const N: usize>(caption: Option<&str>, columns: [&str; N]) -> Table {
        Table {
            caption: caption.map(str::to_owned),
            columns: columns.map(str::to_owned).to_vec(),
            ..Table::default()
        }
    }

    /// These columns are words.
    pub fn words(self, columns: &[usize]) -> Table {
        Table { words: columns.to_vec(), ..self }
    }
}

/// Something to be aware of, and what to do about it.
#[derive(Clone, Debug)]
pub struct Remark {
    /// How much it matters.
    pub tone: Tone,
    /// Its name; may be empty.
    pub name: String,
    /// What was found.
    pub message: String,
    /// What to do about it; may be empty.
    pub remedy: String,
}

/// A picture with its explanation.
#[derive(Clone, Debug)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// How to read it.
    pub caption: String,
    /// What is drawn.
    pub plot: Plot,
}

impl Document {
    /// Passes every text of the document but code and pictures, to be changed in place.
    pub fn each_text(&mut self, change: &mut dyn FnMut(&mut String)) {
        for verdict in &mut self.verdicts {
            change(&mut verdict.reason);
        }
        for headline in &mut self.headline {
            change(&mut headline.value);
            change(&mut headline.detail);
        }
        for block in &mut self.blocks {
            match block {
                Block::Heading(text) | Block::Paragraph(text) | Block::Note(text) => change(text),
                Block::Facts(facts) => facts.iter_mut().for_each(|(_, value)| change(value)),
                Block::Table(table) => table.rows.iter_mut().flatten().for_each(&mut *change),
                Block::Remarks(remarks) => {
                    for remark in remarks {
                        change(&mut remark.message);
                        change(&mut remark.remedy);
                    }
                }
                Block::Code(_) | Block::Chart(_) => {}
            }
        }
    }
}
