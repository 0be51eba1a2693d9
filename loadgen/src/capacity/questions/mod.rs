//! The questions, each a function of the facts. Every figure names its formula, its inputs and where they are from.

mod cost;
mod kinesis;
mod limits;
mod outage;
mod rate;
mod retention;
mod scaling;

use super::answer::{Answer, Question};
use super::facts::Facts;
pub use scaling::{Scaling, scaling};

/// All twelve, in order.
pub fn answers(facts: &Facts<'_>, scaling: Option<&Scaling>) -> Vec<Answer> {
    let answer = |question| match question {
        Question::Headroom => rate::headroom(facts),
        Question::Peak => rate::peak(facts),
        Question::FirstLimit => limits::first(facts),
        Question::OneMoreShard => scaling::one_more(facts, scaling),
        Question::ShardsAndCores => scaling::shards_and_cores(facts, scaling),
        Question::CatchUp => outage::catch_up(facts),
        Question::Retention => retention::retention(facts),
        Question::Groups => rate::groups(facts),
        Question::Durability => cost::durability(facts),
        Question::BatchAndLinger => cost::batch_and_linger(facts),
        Question::Kinesis => kinesis::equivalent(facts),
        Question::Machine => limits::machine(facts),
    };
    Question::ALL.map(answer).into()
}
