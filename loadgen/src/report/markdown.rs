//! A document as Markdown (with tables, as most readers of it know them). Pictures are left out: the figures
//! they show are in tables.

use super::document::{Block, Document, Remark, Table, Tone};

/// The document as text that reads well as it is, too.
pub fn markdown(document: &Document) -> String {
    let mut page = Page(String::new());
    page.paragraph(&format!("# {}", inline(&document.title)));
    page.paragraph(&inline(&document.subtitle));
    if document.many() {
        page.headline(document);
        page.verdicts(document);
    } else {
        page.verdicts(document);
        page.headline(document);
    }
    // A heading over pictures only would stand over nothing.
    let mut heading = None;
    for block in &document.blocks {
        if matches!(block, Block::Chart(_)) {
            continue;
        }
        if let Block::Heading(text) = block {
            heading = Some(text);
            continue;
        }
        if let Some(text) = heading.take() {
            page.paragraph(&format!("## {}", inline(text)));
        }
        page.block(block);
    }
    page.0.truncate(page.0.trim_end().len());
    page.0 + "\n"
}

/// A mark that needs no colour.
fn mark(tone: Tone, word: &str) -> String {
    match tone {
        Tone::Good | Tone::Plain => word.to_owned(),
        // A unit in capitals is another one.
        Tone::Bad => {
            let figure = |word: &str| word.contains(|c: char| c.is_ascii_digit());
            let loud =
                |word: &str| if figure(word) { word.to_owned() } else { word.to_uppercase() };
            word.split(' ').map(loud).collect::<Vec<_>>().join(" ")
        }
        Tone::Unsure => format!("{word} (!)"),
    }
}

struct Page(String);

impl Page {
    fn line(&mut self, text: &str) {
        self.0 += text;
        self.0.push('\n');
    }

    fn end(&mut self) {
        if !self.0.ends_with("\n\n") {
            self.0.push('\n');
        }
    }

    fn paragraph(&mut self, text: &str) {
        self.line(text);
        self.end();
    }

    fn verdicts(&mut self, document: &Document) {
        for verdict in &document.verdicts {
            let reason = inline(&verdict.reason);
            self.line(&format!("- **{}**: {reason}", mark(verdict.tone, &inline(&verdict.word))));
        }
        self.end();
    }

    fn headline(&mut self, document: &Document) {
        for item in &document.headline {
            let (name, value) = (inline(&item.name), inline(&item.value));
            self.line(&format!("- {name}: **{value}** ({})", inline(&item.detail)));
        }
        self.end();
    }

    fn block(&mut self, block: &Block) {
        match block {
            Block::Paragraph(text) | Block::Note(text) => self.paragraph(&inline(text)),
            Block::Facts(facts) => self.facts(facts),
            Block::Table(table) => self.table(table),
            Block::Remarks(remarks) => {
                remarks.iter().for_each(|remark| self.remark(remark));
                self.end();
            }
            Block::Code(text) => self.code(text),
            Block::Heading(_) | Block::Chart(_) => {}
        }
    }

    fn facts(&mut self, facts: &[(String, String)]) {
        for (name, value) in facts {
            self.line(&format!("- {}: {}", inline(name), inline(value)));
        }
        self.end();
    }

    fn remark(&mut self, remark: &Remark) {
        let Remark { tone, name, message, remedy } = remark;
        let name = match (name.is_empty(), tone) {
            (true, _) => String::new(),
            (false, Tone::Plain | Tone::Good) => format!("{}: ", inline(name)),
            (false, _) => format!("**{}**: ", inline(name)),
        };
        let remedy =
            if remedy.is_empty() { String::new() } else { format!(" Remedy: {}", inline(remedy)) };
        self.line(&format!("- {name}{}{remedy}", inline(message)));
    }

    /// Cells are padded, so that columns line up without a renderer.
    fn table(&mut self, table: &Table) {
        if let Some(caption) = &table.caption {
            self.paragraph(&format!("{}:", inline(caption)));
        }
        let left = |column: usize| column == 0 || table.words.contains(&column);
        let rows: Vec<Vec<String>> = std::iter::once(&table.columns)
            .chain(&table.rows)
            .map(|row| row.iter().map(|cell| inline(cell)).collect())
            .collect();
        let widths: Vec<usize> = (0..table.columns.len())
            .map(|column| {
                let cells = rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(3)
            })
            .collect();
        for (i, row) in rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
                if left(column) { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            self.line(&format!("| {} |", cells.collect::<Vec<_>>().join(" | ")));
            if i == 0 {
                let rules = widths.iter().enumerate().map(|(column, width)| {
                    let rule = "-".repeat(width - usize::from(!left(column)));
                    if left(column) { rule } else { rule + ":" }
                });
                self.line(&format!("| {} |", rules.collect::<Vec<_>>().join(" | ")));
            }
        }
        self.end();
    }

    fn code(&mut self, text: &str) {
        // A fence longer than any within.
        let mut fence = "```".to_owned();
        while text.contains(&fence) {
            fence.push('`');
        }
        self.paragraph(&format!("{fence}sh\n{text}\n{fence}"));
    }
}

/// Text in which nothing is taken for markup.
fn inline(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        // Within a word an underscore is one, and a command stays legible.
        let in_word = out.ends_with(char::is_alphanumeric)
            && chars.peek().is_some_and(|next| next.is_alphanumeric());
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            '_' if in_word => out.push(c),
            '>' if !out.is_empty() => out.push(c),
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '~' => {
                out.push('\\');
                out.push(c);
            }
            '&' => out.push_str("&amp;"),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_never_markup() {
        assert_eq!(inline("a|b *c* <d>\n`e`"), r"a\|b \*c\* \<d> \`e\`");
        assert_eq!(inline("no_turbo _x_"), r"no_turbo \_x\_");
        let mut page = Page(String::new());
        page.code("echo ```");
        assert!(page.0.starts_with("````sh\necho ```\n````"), "{}", page.0);
    }

    #[test]
    fn what_is_bad_is_loud_and_units_stay_what_they_are() {
        assert_eq!(mark(Tone::Bad, "Average 29.1k/s: NO"), "AVERAGE 29.1k/s: NO");
        assert_eq!(mark(Tone::Unsure, "Trust: fair"), "Trust: fair (!)");
    }

    #[test]
    fn tables_line_up() {
        let mut table = Table::new(Some("Speed"), ["what", "n"]);
        table.rows.push(vec!["sent".into(), "1,234".into()]);
        let mut page = Page(String::new());
        page.table(&table);
        let expected = "Speed:\n\n| what |     n |\n| ---- | ----: |\n| sent | 1,234 |\n\n";
        assert_eq!(page.0, expected);
    }
}
