//! The commands that would answer more: each once, with the number by which the first page refers to it.

use super::answer::{Answer, Question, Verdict};
use super::plan::Plan;

/// A command, and what it would answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Proposal<'a> {
    /// From 1.
    pub number: usize,
    /// As it is typed.
    pub command: &'a str,
    /// Those it would answer, or answer better.
    pub questions: Vec<Question>,
}

impl Proposal<'_> {
    /// The questions in a few words.
    pub fn titles(&self) -> String {
        let titles: Vec<&str> = self.questions.iter().map(|question| question.title()).collect();
        titles.join(", ")
    }
}

impl Plan {
    /// What would answer more: first what is not answered at all.
    pub(super) fn proposals(&self) -> Vec<Proposal<'_>> {
        let open = |answer: &&Answer| answer.verdict == Verdict::NotMeasured;
        let answers = self.answers.iter().filter(open);
        let answers = answers.chain(self.answers.iter().filter(|answer| !open(answer)));
        let mut proposals: Vec<Proposal<'_>> = Vec::new();
        for answer in answers {
            let Some(command) = answer.command.as_deref() else { continue };
            match proposals.iter_mut().find(|known| known.command == command) {
                Some(known) => known.questions.push(answer.question),
                None => {
                    let number = proposals.len() + 1;
                    let questions = vec![answer.question];
                    proposals.push(Proposal { number, command, questions });
                }
            }
        }
        proposals
    }

    /// What the first page says to a question. Commands would fill it: they are below, by their numbers.
    pub(super) fn in_short(&self, answer: &Answer) -> String {
        let proposals = self.proposals();
        let known = proposals.iter().find(|known| Some(known.command) == answer.command.as_deref());
        known.map_or_else(
            || answer.says.clone(),
            |known| {
                let below = format!("run ({}) below", known.number);
                answer.says.replace(&format!("run {}", known.command), &below)
            },
        )
    }
}
