//! A plan as a document: the first page first, then every question with its figures, formulas and inputs.

use super::answer::{Answer, Verdict, span};
use super::charts::charts;
use super::plan::Plan;
use super::proposals::Proposal;
use crate::report::document::{Block, Document, Headline, Remark, Table, Tone, Verdict as Line};
use crate::report::figures::{counted, moment, rate};
use crate::report::machine;
use crate::{Lint, Severity};

/// Everything a reader has to know.
pub fn document(plan: &Plan) -> Document {
    let mut blocks = Vec::new();
    proposals(plan, &mut blocks);
    let charts = charts(plan);
    if !charts.is_empty() {
        blocks.push(Block::Heading("In pictures".into()));
        blocks.extend(charts.into_iter().map(|chart| Block::Chart(Box::new(chart))));
    }
    for answer in &plan.answers {
        question(plan, answer, &mut blocks);
    }
    blocks.push(Block::Heading("What was assumed".into()));
    blocks.push(Block::Remarks(plan.assumptions.iter().map(|text| plain(text)).collect()));
    formulas(plan, &mut blocks);
    sources(plan, &mut blocks);
    trust(plan, &mut blocks);
    if !plan.command.is_empty() {
        blocks.push(Block::Heading("To repeat it".into()));
        blocks.push(Block::Code(crate::report::shell_words(&plan.command)));
    }
    let target = plan.sources.first().map_or("", |source| source.target.as_str());
    let mut document = Document {
        title: "Capacity plan".to_owned(),
        subtitle: format!(
            "{} · asked for: {} · made {} from {}",
            if target.is_empty() { "unnamed target" } else { target },
            asked(plan),
            moment(plan.made_ns),
            counted(plan.sources.len() as u64, "source")
        ),
        verdicts: first_page(plan),
        headline: headline(plan),
        blocks,
    };
    document.each_text(&mut |text| *text = crate::report::micro(text));
    document
}

/// The demand in a line.
fn asked(plan: &Plan) -> String {
    let demand = &plan.demand;
    let mut all = vec![format!("{} records/s on average", rate(demand.rate))];
    if let Some(peak) = demand.peak {
        all.push(format!("{:.1} times that for {}", peak.factor, span(peak.time_s)));
    }
    all.extend(demand.retention_s.map(|time| format!("kept for {}", span(time))));
    all.push(format!("read by {}", counted(u64::from(demand.groups), "group")));
    all.extend(demand.outage_s.map(|time| format!("one of them away for {}", span(time))));
    all.join(", ")
}

fn tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Fits => Tone::Good,
        Verdict::No => Tone::Bad,
        Verdict::Tight | Verdict::BeyondMeasured | Verdict::NotMeasured => Tone::Unsure,
        Verdict::Known | Verdict::NotAsked => Tone::Plain,
    }
}

fn first_page(plan: &Plan) -> Vec<Line> {
    let line = |answer: &Answer| {
        let title = plan.title(answer);
        let mut start = title.chars();
        let title: String =
            start.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default() + start.as_str();
        let word = match answer.verdict.word() {
            "" => title,
            word => format!("{title}: {word}"),
        };
        Line { tone: tone(answer.verdict), word, reason: plan.in_short(answer) }
    };
    let trust = Line {
        tone: match plan.trust.verdict {
            "good" => Tone::Good,
            "poor" => Tone::Bad,
            _ => Tone::Unsure,
        },
        word: format!("Trust: {}", plan.trust.verdict),
        reason: plan.trust.reasons.join("; "),
    };
    let caution = |answer: &Answer| {
        let reason = answer.caution.clone()?;
        Some(Line { tone: Tone::Unsure, word: "Caution".to_owned(), reason })
    };
    let cautions = plan.answers.iter().filter_map(caution);
    plan.by_use().map(line).chain(cautions).chain([trust]).collect()
}

fn headline(plan: &Plan) -> Vec<Headline> {
    let item = |name: &str, value: String, detail: String| Headline {
        name: name.to_owned(),
        value,
        detail,
    };
    let mut items = Vec::new();
    if let Some(s) = &plan.sustains {
        items.push(item(
            "safe rate",
            format!("{}/s", rate(s.safe.round())),
            match s.basis {
                "search" if s.open => format!(
                    "records, at least: no limit was found, and 95 % of two-minute runs keep {} ({})",
                    s.goals, s.from
                ),
                "search" => {
                    format!("records; 95 % of two-minute runs keep {} ({})", s.goals, s.from)
                }
                _ => format!("records; {} ({})", s.goals, s.from),
            },
        ));
        if let Some(range) = s.estimate {
            let (low, high) = (rate(range.low.round()), rate(range.high.round()));
            let detail = format!("where a goal gives out in the long run; 95 %: {low} to {high}");
            let value = format!("{}/s", rate(range.value.round()));
            items.push(item("gives out at", value, detail));
        }
        if let Some(overload) = s.overload {
            let (low, high) = (rate(overload.low.round()), rate(overload.high.round()));
            let detail = match overload.low < overload.high {
                true => format!("when more is offered; {low} to {high}"),
                false => "when more is offered".to_owned(),
            };
            let value = format!("{}/s", rate(overload.value.round()));
            items.push(item("delivered under overload, C", value, detail));
        }
        if let Some(setup) = &s.setup {
            items.push(item(
                "measured with",
                counted(u64::from(setup.shards), "shard"),
                setup.words().split_once(", ").map_or(String::new(), |(_, rest)| rest.to_owned()),
            ));
        }
    }
    if let Some((_, environment)) = plan.machine() {
        let cpus = counted(environment.cpus as u64, "CPU");
        let words = plan.machine_words().unwrap_or_default();
        let rest = words.strip_prefix(&format!("{cpus}, ")).map(str::to_owned);
        items.push(item("measured on", cpus, rest.unwrap_or(words)));
    }
    items
}

fn proposals(plan: &Plan, blocks: &mut Vec<Block>) {
    let proposals = plan.proposals();
    if proposals.is_empty() {
        return;
    }
    blocks.push(Block::Heading("To answer more".into()));
    blocks.push(Block::Paragraph(
        "These questions are open, or can be answered better. Run what is below against a server at -t (that of --measure is \
         gone), and plan again with the directories it writes."
            .into(),
    ));
    let line = |p: &Proposal<'_>| format!("# ({}) {}\n{}", p.number, p.titles(), p.command);
    let lines: Vec<String> = proposals.iter().map(line).collect();
    blocks.push(Block::Code(lines.join("\n")));
}

fn question(plan: &Plan, answer: &Answer, blocks: &mut Vec<Block>) {
    if answer.figures.is_empty() && answer.notes.is_empty() && answer.tables.is_empty() {
        return;
    }
    blocks.push(Block::Heading(answer.question.asks().to_owned()));
    let line = answer.line();
    blocks.push(Block::Paragraph(format!("{line}.")));
    if !answer.figures.is_empty() {
        let mut table = Table::new(None, ["figure", "value", "interval", "formula"]).words(&[2, 3]);
        let inputs = Table::new(Some("Inputs"), ["figure", "input", "value", "from"]);
        let mut inputs = inputs.words(&[1, 3]);
        inputs.folded = true;
        for figure in &answer.figures {
            let formula = plan.formulas.iter().find(|formula| formula.id == figure.formula);
            let text = formula.map_or(figure.formula, |formula| formula.text);
            table.rows.push(vec![
                figure.name.clone(),
                figure.shown(),
                figure.interval(),
                text.to_owned(),
            ]);
            for input in &figure.inputs {
                inputs.rows.push(vec![
                    figure.name.clone(),
                    input.name.clone(),
                    input.unit.show(input.value),
                    input.from.clone(),
                ]);
            }
        }
        blocks.push(Block::Table(table));
        blocks.push(Block::Table(inputs));
    }
    for rows in &answer.tables {
        blocks.push(Block::Table(Table {
            caption: Some(rows.caption.clone()),
            columns: rows.columns.clone(),
            rows: rows.rows.clone(),
            ..Table::default()
        }));
    }
    let caution = answer
        .caution
        .iter()
        .map(|caution| Remark { tone: Tone::Unsure, ..plain(&format!("{caution}.")) });
    let remarks: Vec<Remark> = caution.chain(answer.notes.iter().map(|note| plain(note))).collect();
    if !remarks.is_empty() {
        blocks.push(Block::Remarks(remarks));
    }
}

fn formulas(plan: &Plan, blocks: &mut Vec<Block>) {
    blocks.push(Block::Heading("Formulas".into()));
    let table = Table::new(None, ["name", "formula", "from", "beware"]);
    let mut table = table.words(&[1, 2, 3]);
    for formula in &plan.formulas {
        let cells = [formula.id, formula.text, formula.source, formula.caution];
        table.rows.push(cells.map(str::to_owned).into());
    }
    blocks.push(Block::Table(table));
}

fn sources(plan: &Plan, blocks: &mut Vec<Block>) {
    blocks.push(Block::Heading("What it was made from".into()));
    let table = Table::new(None, ["source", "kind", "target", "began", "count", "void"]);
    let mut table = table.words(&[1, 2, 3]);
    for source in &plan.sources {
        table.rows.push(vec![
            source.name.clone(),
            source.kind.name().to_owned(),
            source.target.clone(),
            if source.began_ns > 0 { moment(source.began_ns) } else { "-".to_owned() },
            source.counted.to_string(),
            source.void.len().to_string(),
        ]);
    }
    blocks.push(Block::Table(table));
    let void = plan.sources.iter().flat_map(|source| {
        source.void.iter().map(|reason| format!("{} is void: {reason}.", source.name))
    });
    let left_out = plan.left_out.iter().map(|text| format!("Left out: {text}."));
    let remarks: Vec<Remark> = void.chain(left_out).map(|text| plain(&text)).collect();
    if !remarks.is_empty() {
        blocks.push(Block::Remarks(remarks));
    }
    for source in plan.sources.iter().filter(|source| !source.command.is_empty()) {
        blocks.push(Block::Note(format!("{} is repeated by", source.name)));
        blocks.push(Block::Code(crate::report::shell_words(&source.command)));
    }
}

fn trust(plan: &Plan, blocks: &mut Vec<Block>) {
    if let Some((source, environment)) = plan.machine() {
        blocks.push(Block::Heading("The machine".into()));
        blocks.push(Block::Note(format!("As {} tells it.", source.name)));
        blocks.push(Block::Facts(machine::rows(environment)));
    }
    if !plan.mixed.is_empty() {
        blocks.push(Block::Heading("Mixed by force".into()));
        let remark = |mixed: &super::Mixed| Remark {
            tone: Tone::Bad,
            name: mixed.field.clone(),
            message: format!("{} in {}, {} in {}", mixed.of_a, mixed.a, mixed.of_b, mixed.b),
            remedy: String::new(),
        };
        blocks.push(Block::Remarks(plan.mixed.iter().map(remark).collect()));
    }
    if !plan.lints.is_empty() {
        blocks.push(Block::Heading("What the machine does to the figures".into()));
        let remark = |lint: &Lint| Remark {
            tone: if lint.severity == Severity::Warning { Tone::Unsure } else { Tone::Plain },
            name: lint.name.clone(),
            message: format!("{}.", lint.message),
            remedy: lint.remedy.clone(),
        };
        blocks.push(Block::Remarks(plan.lints.iter().map(remark).collect()));
    }
}

fn plain(text: &str) -> Remark {
    Remark {
        tone: Tone::Plain,
        name: String::new(),
        message: text.to_owned(),
        remedy: String::new(),
    }
}
