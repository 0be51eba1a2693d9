//! What a run goes through: warm-up, measured window, outage.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{MAX_TIME, seconds};

/// What a run goes through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Scenario {
    /// A warm-up and a measured window.
    #[default]
    Run,
    /// The same under a burst profile, calm and burst told apart.
    Burst,
    /// Some consumer groups stay away for a while, and return while producers go on. `duration` is what
    /// is measured before that.
    Backlog {
        /// How long they stay away, more than 0.
        #[serde(rename = "outage_s", with = "seconds")]
        outage: Duration,
        /// How long they may take to catch up, more than 0.
        #[serde(rename = "drain_limit_s", with = "seconds")]
        drain_limit: Duration,
        /// How many groups; at least 1 and fewer than there are.
        paused_groups: u32,
    },
}

impl Scenario {
    /// One group away for `outage`, with ten times that, and at least a minute, to catch up.
    pub fn backlog(outage: Duration) -> Scenario {
        let drain_limit = outage.saturating_mul(10).clamp(Duration::from_secs(60), MAX_TIME);
        Scenario::Backlog { outage, drain_limit, paused_groups: 1 }
    }
}

/// When the warm-up ends. Its records are sent at the profile's mean rate and not measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WarmUpForm", into = "WarmUpForm")]
pub enum WarmUpRule {
    /// After this long, whatever was seen.
    Fixed(Duration),
    /// When rate and latency have become steady, but no later than `most`.
    Steady {
        /// The longest it may take.
        most: Duration,
    },
}

impl WarmUpRule {
    /// The longest it may last.
    pub fn most(&self) -> Duration {
        match *self {
            WarmUpRule::Fixed(most) | WarmUpRule::Steady { most } => most,
        }
    }
}

/// A warm-up rule as JSON has it.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct WarmUpForm {
    steady: bool,
    #[serde(rename = "most_s", with = "seconds")]
    most: Duration,
}

impl From<WarmUpForm> for WarmUpRule {
    fn from(form: WarmUpForm) -> WarmUpRule {
        match form {
            WarmUpForm { steady: true, most } => WarmUpRule::Steady { most },
            WarmUpForm { steady: false, most } => WarmUpRule::Fixed(most),
        }
    }
}

impl From<WarmUpRule> for WarmUpForm {
    fn from(rule: WarmUpRule) -> WarmUpForm {
        WarmUpForm { steady: matches!(rule, WarmUpRule::Steady { .. }), most: rule.most() }
    }
}
