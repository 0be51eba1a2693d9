//! A run on the console's Load screen.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use highwater_loadgen::{LoadError, Observer, Report, Scenario, Stop, Tick};

use super::flags::Request;
use crate::dashboard::app::Screen;
use crate::dashboard::load::{LoadEvent, Plan};
use crate::dashboard::{self, Extras, LookArgs};
use crate::failure::Failure;
use crate::signals;

/// Seconds that wait to be shown. A screen that cannot keep up misses some; the run does not wait for it.
const INBOX: usize = 16;

/// Tells the screen of each interval, after `also` has been told.
struct Teller<'a> {
    screen: SyncSender<LoadEvent>,
    also: &'a mut (dyn Observer + Send),
}

impl Observer for Teller<'_> {
    fn tick(&mut self, tick: &Tick<'_>) {
        self.also.tick(tick);
        let _full_or_gone = self.screen.try_send(LoadEvent::Tick(tick.progress.into()));
    }
}

/// Runs `request` and shows it until it is over. Leaving the screen ends production; what was sent is drained.
pub fn run(
    request: &Request,
    also: &mut (dyn Observer + Send),
    stop: &Stop,
) -> Result<Result<Report, LoadError>, Failure> {
    let options = request.options.clone();
    let (screen, events) = sync_channel(INBOX);
    let _room_for_the_first = screen.try_send(LoadEvent::Begins(plan(request)));
    let target = server(&options.target).map(str::to_owned);
    let left = signals::Stop::new();
    thread::scope(|scope| {
        let over = left.clone();
        let load = scope.spawn(move || {
            let mut teller = Teller { screen, also };
            let result = highwater_loadgen::run(options, &mut teller, stop);
            over.request();
            result
        });
        let extras = Extras { load: Some(events), screen: Screen::Load, ..Extras::default() };
        let shown = dashboard::run(target.as_deref(), &LookArgs::default(), extras, &left);
        if stop.level() == 0 && !load.is_finished() {
            note!("left the screen: no more records are made; waiting for what is under way");
            stop.request();
        }
        let report =
            load.join().map_err(|_| Failure::failed("the load generator ended unexpectedly"))?;
        shown.map(|_| report)
    })
}

/// The server to watch, if the target is one.
fn server(target: &str) -> Option<&str> {
    let apart = |name: &str| target == name || target.starts_with(&format!("{name}:"));
    (!apart("null") && !apart("embedded")).then_some(target)
}

/// The run in a line.
fn plan(request: &Request) -> Plan {
    let options = &request.options;
    let micros = |time: std::time::Duration| time.as_secs_f64() * 1e6;
    Plan {
        what: match options.scenario {
            Scenario::Run => "run",
            Scenario::Burst => "burst",
            Scenario::Backlog { .. } => "backlog",
        }
        .to_owned(),
        words: format!(
            "{} {} {} to {} of {}",
            options.rate, options.arrival, options.workload, options.stream, options.target
        ),
        slo_us: request.slo.iter().filter_map(|slo| slo.response_p99_us()).reduce(f64::min),
        lag_budget_us: Some(micros(options.late_bound)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_are_watched() {
        assert_eq!(server("host:7411"), Some("host:7411"));
        for target in ["null", "null:stall=1s/10s", "embedded", "embedded:/srv/data"] {
            assert_eq!(server(target), None, "{target}");
        }
        assert_eq!(server("nullable:1"), Some("nullable:1"));
    }
}
