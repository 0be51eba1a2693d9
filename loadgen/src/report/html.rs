//! A document as one HTML file: style and pictures inside, no script, nothing fetched; light or dark as the
//! reader's screen is.

use super::chart;
use super::document::{Block, Chart, Document, Remark, Table, Tone};

/// Everything a page looks like.
const STYLE: &str = include_str!("style.css");

/// The document as a page.
pub fn html(document: &Document) -> String {
    let mut page = Page(String::with_capacity(64 << 10));
    let title = escaped(&document.title);
    page.raw(&format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"generator\" content=\"highwater {}\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n",
        env!("CARGO_PKG_VERSION"),
    ));
    page.element("p", "subtitle", &document.subtitle);
    page.raw("</header>\n");
    if document.many() {
        page.headline(document);
        page.verdicts(document, "verdicts list");
    } else {
        page.verdicts(document, "verdicts");
        page.headline(document);
    }
    page.raw("<main>\n");
    document.blocks.iter().for_each(|block| page.block(block));
    page.raw("</main>\n</body>\n</html>\n");
    page.0
}

/// Class and mark of a tone.
fn tone(tone: Tone) -> (&'static str, &'static str) {
    match tone {
        Tone::Good => ("good", "✓"),
        Tone::Bad => ("bad", "✗"),
        Tone::Unsure => ("unsure", "!"),
        Tone::Plain => ("plain", "·"),
    }
}

struct Page(String);

impl Page {
    fn raw(&mut self, html: &str) {
        self.0 += html;
    }

    fn element(&mut self, name: &str, class: &str, text: &str) {
        let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
        self.raw(&format!("<{name}{class}>{}</{name}>\n", escaped(text)));
    }

    fn verdicts(&mut self, document: &Document, class: &str) {
        self.raw(&format!("<section class=\"{class}\">\n"));
        for verdict in &document.verdicts {
            let (class, mark) = tone(verdict.tone);
            self.raw(&format!(
                "<div class=\"verdict {class}\"><b>{mark} {}</b><span>{}</span></div>\n",
                escaped(&verdict.word),
                escaped(&verdict.reason)
            ));
        }
        self.raw("</section>\n");
    }

    fn headline(&mut self, document: &Document) {
        self.raw("<dl class=\"headline\">\n");
        for item in &document.headline {
            self.raw(&format!(
                "<div><dt>{}</dt><dd>{}</dd><dd class=\"detail\">{}</dd></div>\n",
                escaped(&item.name),
                escaped(&item.value),
                escaped(&item.detail)
            ));
        }
        self.raw("</dl>\n");
    }

    fn block(&mut self, block: &Block) {
        match block {
            Block::Heading(text) => self.element("h2", "", text),
            Block::Paragraph(text) => self.element("p", "", text),
            Block::Note(text) => self.element("p", "note", text),
            Block::Facts(facts) => self.facts(facts),
            Block::Table(table) => self.table(table),
            Block::Remarks(remarks) => self.remarks(remarks),
            Block::Code(text) => self.element("pre", "", text),
            Block::Chart(chart) => self.chart(chart),
        }
    }

    fn facts(&mut self, facts: &[(String, String)]) {
        self.raw("<dl class=\"facts\">\n");
        for (name, value) in facts {
            self.raw(&format!("<dt>{}</dt><dd>{}</dd>\n", escaped(name), escaped(value)));
        }
        self.raw("</dl>\n");
    }

    fn table(&mut self, table: &Table) {
        let caption = table.caption.as_deref().unwrap_or_default();
        if table.folded {
            self.raw(&format!("<details><summary>{} as a table</summary>\n", escaped(caption)));
        }
        self.raw("<div class=\"wide\"><table>\n");
        if !table.folded && !caption.is_empty() {
            self.element("caption", "", caption);
        }
        self.raw("<thead><tr>");
        let words = |i| if table.words.contains(&i) { " class=\"words\"" } else { "" };
        for (i, column) in table.columns.iter().enumerate() {
            self.raw(&format!("<th scope=\"col\"{}>{}</th>", words(i), escaped(column)));
        }
        self.raw("</tr></thead>\n<tbody>\n");
        for row in &table.rows {
            self.raw("<tr>");
            for (i, cell) in row.iter().enumerate() {
                let (open, close) = if i == 0 { ("th scope=\"row\"", "th") } else { ("td", "td") };
                self.raw(&format!("<{open}{}>{}</{close}>", words(i), escaped(cell)));
            }
            self.raw("</tr>\n");
        }
        self.raw("</tbody>\n</table></div>\n");
        if table.folded {
            self.raw("</details>\n");
        }
    }

    fn remarks(&mut self, remarks: &[Remark]) {
        self.raw("<ul class=\"remarks\">\n");
        for Remark { tone: how, name, message, remedy } in remarks {
            let name =
                if name.is_empty() { String::new() } else { format!("<b>{}</b>: ", escaped(name)) };
            let remedy = match remedy.as_str() {
                "" => String::new(),
                remedy => format!(" <span class=\"remedy\">Remedy: {}</span>", escaped(remedy)),
            };
            let class = tone(*how).0;
            self.raw(&format!("<li class=\"{class}\">{name}{}{remedy}</li>\n", escaped(message)));
        }
        self.raw("</ul>\n");
    }

    fn chart(&mut self, chart: &Chart) {
        self.raw("<figure>\n<figcaption>");
        self.element("h3", "", &chart.title);
        self.element("p", "", &chart.caption);
        self.raw("<ul class=\"legend\">\n");
        for line in &chart.plot.lines {
            let style = line.style % chart::STYLES;
            let mark = format!(
                "<line x1=\"0\" y1=\"12\" x2=\"72\" y2=\"12\" stroke-width=\"6\" class=\"s{style}\"/>"
            );
            self.legend(&mark, &line.name);
        }
        let mut kinds: Vec<_> = chart.plot.bands.iter().map(|band| band.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            let class = kind as usize;
            let mark =
                format!("<rect width=\"72\" height=\"24\" opacity=\"0.3\" class=\"b{class}\"/>");
            self.legend(&mark, kind.name());
        }
        self.raw("</ul></figcaption>\n");
        match chart::svg(&chart.plot) {
            Ok(svg) => {
                let label = format!("<svg role=\"img\" aria-label=\"{}\" ", escaped(&chart.title));
                self.raw(&format!(
                    "<div class=\"plot\">{}</div>\n",
                    svg.replacen("<svg ", &label, 1)
                ));
            }
            Err(why) => self.element("p", "note", &why.to_string()),
        }
        self.raw("</figure>\n");
    }

    fn legend(&mut self, mark: &str, name: &str) {
        self.raw(&format!(
            "<li><svg viewBox=\"0 0 72 24\" aria-hidden=\"true\">{mark}</svg>{}</li>\n",
            escaped(name)
        ));
    }
}

/// Text in which nothing is taken for markup, in content and in attributes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() && c != '\n' && c != '\t' => {}
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
        assert_eq!(escaped("<script>\"&'\u{7}"), "&lt;script&gt;&quot;&amp;'");
    }
}
