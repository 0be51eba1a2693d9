//! The rules themselves. Rates and tails are those of the last ten seconds, so that one slow second is no alarm.

use std::time::Duration;

use highwater_wire::{BreakerState, ErrorCode};

use super::{Level, NOT_DURABLE, Rule, volatile};
use crate::dashboard::figures::{CoreFigures, Figures, GroupFigures, Limit, ShardFigures};
use crate::dashboard::model::{Outlook, Picture};
use crate::human;

/// A core this busy has no room left.
const BUSY: f64 = 0.95;
/// A shard that gets this much more than the mean of its stream is a skew.
const SKEW: f64 = 1.5;
/// A key with this share of its shard is named as the reason.
const HOT: f64 = 0.1;
/// Durable writes whose p99 is longer than this are slow, nanoseconds.
const WRITE_P99: u64 = 20_000_000;
/// Fewer writes have no p99.
const WRITES: u64 = 100;
/// Retention that passes a group within this time is close.
const LOSS: Duration = Duration::from_secs(3600);
/// A group this far behind that reads nothing stands still, if it was watched for so long; else one this far.
const STANDS: Duration = Duration::from_secs(60);
const WATCHED: Duration = Duration::from_secs(6);
const STANDS_LONG: Duration = Duration::from_secs(300);
/// A file system with less free than this is nearly full.
const DISK_FREE: f64 = 0.05;
/// Requests refused for other reasons than want of room, a second.
const REFUSED: f64 = 1.0;
/// Buffer memory in use, as a share, above which appends soon wait.
const BUFFERS: f64 = 0.95;
/// Samples that may go missing, as a share of the last minute's.
const MISSED: f64 = 0.05;
/// What happens at a moment is told for this long.
const MINUTE: Duration = Duration::from_secs(60);

/// See [`super::RULES`].
pub const RULES: [Rule; 19] = [
    Rule {
        name: "not-durable",
        level: Level::Bad,
        threshold: "the file system is volatile",
        cause: "data on tmpfs, or another file system in memory",
        remedy: "ext4 or xfs on a local device",
        test: not_durable,
    },
    Rule {
        name: "shard-stopped",
        level: Level::Bad,
        threshold: "a shard does not accept appends",
        cause: "a failed write, damaged data, or no space",
        remedy: "its state says which: look at the device, restart; make space",
        test: shard_stopped,
    },
    Rule {
        name: "backlog-grows",
        level: Level::Bad,
        threshold: "a group over 1 s behind whose backlog grows by more than 1/200 of what arrives",
        cause: "consumers are slower than producers, or have stopped",
        remedy: "more or faster consumers; see which shards in Backlog",
        test: backlog_grows,
    },
    Rule {
        name: "standstill",
        level: Level::Warn,
        threshold: "a group over 1 min behind has read nothing for 6 s; if it was watched for less, one over 5 min behind",
        cause: "its consumers are gone, or hang",
        remedy: "start them; a group that nobody needs: group delete",
        test: standstill,
    },
    Rule {
        name: "retention",
        level: Level::Bad,
        threshold: "retention will pass a group within 1 h, or has",
        cause: "the group is slow or stands still, and old segments go",
        remedy: "let it catch up; a longer retention (stream set)",
        test: retention,
    },
    Rule {
        name: "breaker",
        level: Level::Bad,
        threshold: "the breaker of a group is open or half-open",
        cause: "too many of its records became dead letters: its consumers are broken, or what they need is away",
        remedy: "dlq show says why; mend them, then dlq redrive",
        test: breaker,
    },
    Rule {
        name: "hot-shard",
        level: Level::Warn,
        threshold: "a core is over 95 % busy",
        cause: "one shard carries most of the core, or the server has too few cores",
        remedy: "more shards or better spread keys; more cores",
        test: hot_shard,
    },
    Rule {
        name: "skew",
        level: Level::Warn,
        threshold: "a shard gets over 1.5 times the mean of its stream",
        cause: "few keys, or one key with much of the load",
        remedy: "a finer partition key; Shards shows the hottest keys",
        test: uneven,
    },
    Rule {
        name: "write-tail",
        level: Level::Warn,
        threshold: "p99 of durable writes over 20 ms, of at least 100 in 10 s",
        cause: "the device: others use it, its cache is full, it wears out",
        remedy: "a device of its own; fio and dmesg tell more",
        test: write_tail,
    },
    Rule {
        name: "queue-full",
        level: Level::Warn,
        threshold: "requests are refused as Busy or OutOfMemory, or over 95 % of a core's buffers are in use",
        cause: "more comes in than the device or the core takes",
        remedy: "fewer or larger batches; more --memory; a faster device",
        test: queue_full,
    },
    Rule {
        name: "refusals",
        level: Level::Warn,
        threshold: "over 1 request a second is refused for another reason",
        cause: "clients ask for what is not there or not allowed, or a limit is reached",
        remedy: "the named error says which; clients log it too",
        test: refusals,
    },
    Rule {
        name: "quota",
        level: Level::Warn,
        threshold: "a shard refuses over 1 record a second, or requests are refused as QuotaExceeded",
        cause: "a quota of the shard, the stream or the client is used up, or the appends fail",
        remedy: "slower producers; a higher quota (stream set, quota set); a split",
        test: quota,
    },
    Rule {
        name: "records-dropped",
        level: Level::Warn,
        threshold: "a shard drops records or leaves them out of its sample",
        cause: "more comes in than the quota, and the stream's backpressure says so",
        remedy: "a higher quota, a split, or another backpressure (stream set)",
        test: records_dropped,
    },
    Rule {
        name: "clock",
        level: Level::Warn,
        threshold: "the server's wall clock jumped by more than 10 ms in the last minute",
        cause: "a time service that steps, or a suspended machine",
        remedy: "let it slew; delays and retention by age follow this clock",
        test: clock,
    },
    Rule {
        name: "samples-dropped",
        level: Level::Warn,
        threshold: "over 5 % of the last minute's samples were never seen",
        cause: "a slow connection, or a watcher without CPU",
        remedy: "watch from closer by; rates stay true, tails of seconds are missing",
        test: samples_dropped,
    },
    Rule {
        name: "disk",
        level: Level::Warn,
        threshold: "less than 5 % of the file system is free",
        cause: "retention allows more than there is, or others write there",
        remedy: "less retention, a larger device; appends are refused from the reserve on",
        test: disk,
    },
    Rule {
        name: "server-warning",
        level: Level::Warn,
        threshold: "the server itself warns",
        cause: "limits or the kernel, found when it started",
        remedy: "see Warnings",
        test: warnings,
    },
    Rule {
        name: "restarted",
        level: Level::Info,
        threshold: "the server was restarted while it was watched",
        cause: "an operator, a supervisor or a crash",
        remedy: "its log says which",
        test: restarted,
    },
    Rule {
        name: "split-advice",
        level: Level::Info,
        threshold: "a shard's load suggests a split",
        cause: "one shard is at its quota while its stream may scale",
        remedy: "stream split, or stream reshard; backpressure scale:MAX does it by itself",
        test: split_advice,
    },
];

/// What `of` says of the last ten seconds.
fn lately(picture: &Picture, of: impl Fn(&Figures) -> Vec<String>) -> Vec<String> {
    picture.headline.as_ref().map_or_else(Vec::new, of)
}

fn not_durable(picture: &Picture) -> Vec<String> {
    let about = &picture.about;
    let told = picture.headline.is_some() && !about.durable;
    told.then(|| volatile(&about.warnings, &about.durability)).into_iter().collect()
}

fn shard_stopped(picture: &Picture) -> Vec<String> {
    // As of now: what a shard was ten seconds ago is no news.
    picture.figures.as_ref().map_or_else(Vec::new, |figures| {
        let stopped = figures.shards.iter().filter(|s| s.state != "open" && !s.is_closed());
        stopped.map(|s| format!("{}/{} {}", s.stream, s.shard, s.state)).collect()
    })
}

fn backlog_grows(picture: &Picture) -> Vec<String> {
    lately(picture, |figures| {
        let grows = |g: &&_| picture.outlook(g) == Outlook::Grows;
        let text = |g: &GroupFigures| {
            format!("backlog of {} grows by {}/s", g.group, human::count(picture.growth(g)))
        };
        figures.groups.iter().filter(grows).map(text).collect()
    })
}

fn standstill(picture: &Picture) -> Vec<String> {
    lately(picture, |figures| {
        let behind = if figures.span >= WATCHED { STANDS } else { STANDS_LONG };
        let stands = |g: &&GroupFigures| {
            // One that grows is told of already.
            g.records > 0 && g.age > behind && g.read == 0.0 && picture.outlook(g) != Outlook::Grows
        };
        let text = |g: &GroupFigures| {
            let (records, age) = (human::counted(g.records, "record"), human::duration(g.age));
            format!("{} reads nothing of {}: {records} wait, {age} old", g.group, g.stream)
        };
        figures.groups.iter().filter(stands).map(text).collect()
    })
}

fn retention(picture: &Picture) -> Vec<String> {
    lately(picture, |figures| {
        let mut texts = Vec::new();
        for group in &figures.groups {
            let name = &group.group;
            if group.lost > 0 {
                let lost = human::grouped(group.lost);
                texts.push(format!("{name} lost {lost} records of {} unread", group.stream));
            } else if let Some(loss) = group.loss.filter(|loss| loss.after < LOSS) {
                let by = match loss.by {
                    Limit::Age => "age",
                    Limit::Bytes => "bytes",
                };
                let (shard, after) = (loss.shard, human::duration(loss.after));
                texts.push(format!("retention by {by} passes {name} on shard {shard} in {after}"));
            }
        }
        texts
    })
}

fn breaker(picture: &Picture) -> Vec<String> {
    // As of now, like stopped shards.
    let groups = picture.figures.as_ref().map_or(&[][..], |figures| &figures.groups);
    let stopped = groups.iter().filter_map(|group| {
        let delivery = group.delivery.as_ref()?;
        let (name, buried) = (&group.group, human::counted(delivery.buried, "dead letter"));
        let text =
            format!("breaker of {name} on {} is {}: {buried}", group.stream, delivery.breaker);
        (delivery.breaker != BreakerState::Closed).then_some(text)
    });
    stopped.collect()
}

/// The key that explains a shard's load, in brackets.
fn why(shard: &ShardFigures) -> String {
    match shard.keys.first().filter(|key| key.share >= HOT) {
        Some(key) => format!(" (key {}: {:.0} %)", key.key, key.share * 100.0),
        None => String::new(),
    }
}

fn hot_shard(picture: &Picture) -> Vec<String> {
    lately(picture, |figures| {
        let busy = figures.cores.iter().filter(|c| c.busy > BUSY);
        let text = |core: &CoreFigures| {
            let own = figures.shards.iter().filter(|s| s.core == core.core);
            let hottest = own.max_by(|a, b| a.into.records.total_cmp(&b.into.records));
            let busy = format!("core {} is {:.0} % busy", core.core, core.busy * 100.0);
            match hottest.filter(|s| s.into.records > 0.0) {
                Some(s) => {
                    let share = s.into.records / core.into.records * 100.0;
                    format!("{busy}: {}/{} is {share:.0} % of it{}", s.stream, s.shard, why(s))
                }
                None => busy,
            }
        };
        busy.map(text).collect()
    })
}

fn uneven(picture: &Picture) -> Vec<String> {
    lately(picture, |figures| {
        let text = |(stream, skew): (&str, f64)| {
            let own = figures.shards.iter().filter(|s| s.stream == stream);
            let hottest = own.max_by(|a, b| a.into.records.total_cmp(&b.into.records))?;
            Some(format!("{stream}: skew {skew:.1}, shard {}{}", hottest.shard, why(hottest)))
        };
        picture.skews().into_iter().filter(|(_, skew)| *skew > SKEW).filter_map(text).collect()
    })
}

fn write_tail(picture: &Picture) -> Vec<String> {
    let write = picture.write;
    let slow = write.count >= WRITES && write.p99 > WRITE_P99;
    slow.then(|| format!("durable writes: p99 {}", human::nanos(write.p99))).into_iter().collect()
}

fn is_full(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::Busy | ErrorCode::OutOfMemory)
}

/// A few in all are no rate.
fn refusal(code: ErrorCode, rate: f64, span: Duration) -> String {
    if rate >= 1.0 {
        return format!("{code:?}: {}/s refused", human::count(rate));
    }
    let (seconds, some) = (span.as_secs_f64(), (rate * span.as_secs_f64()).round());
    format!("{code:?}: {some:.0} refused in {seconds:.0} s")
}

fn queue_full(picture: &Picture) -> Vec<String> {
    lately(picture, |figures| {
        let refused = figures.refusals.iter().filter(|(code, _)| is_full(*code));
        let mut texts: Vec<String> =
            refused.map(|(code, rate)| refusal(*code, *rate, figures.span)).collect();
        let used =
            |c: &&CoreFigures| c.buffer_used as f64 > BUFFERS * c.buffer_capacity.max(1) as f64;
        let full = figures.cores.iter().filter(used);
        texts.extend(full.map(|c| format!("core {}: its buffers are full", c.core)));
        texts
    })
}

/// Other rules tell of it.
fn is_told(code: ErrorCode) -> bool {
    is_full(code) || code == ErrorCode::QuotaExceeded
}

fn refusals(picture: &Picture) -> Vec<String> {
    lately(picture, |figures| {
        let others =
            figures.refusals.iter().filter(|(code, rate)| !is_told(*code) && *rate > REFUSED);
        others.map(|(code, rate)| refusal(*code, *rate, figures.span)).collect()
    })
}

fn quota(picture: &Picture) -> Vec<String> {
    lately(picture, |figures| {
        let refusing = figures.shards.iter().filter(|s| s.beyond.refused > REFUSED);
        let text = |s: &ShardFigures| {
            let rate = human::count(s.beyond.refused);
            format!("{}/{} refuses {rate} records/s", s.stream, s.shard)
        };
        let shards: Vec<String> = refusing.map(text).collect();
        if !shards.is_empty() {
            return shards;
        }
        // Reads, and what was refused before it came to a shard.
        let others = figures.refusals.iter().filter(|(code, _)| *code == ErrorCode::QuotaExceeded);
        others.map(|(code, rate)| refusal(*code, *rate, figures.span)).collect()
    })
}

fn records_dropped(picture: &Picture) -> Vec<String> {
    lately(picture, |figures| {
        let mut texts = Vec::new();
        for shard in &figures.shards {
            let (name, beyond) = (format!("{}/{}", shard.stream, shard.shard), &shard.beyond);
            if beyond.dropped > 0.0 {
                texts.push(format!("{name} drops {} records/s", human::count(beyond.dropped)));
            }
            if beyond.sampled_out > 0.0 {
                let rate = human::count(beyond.sampled_out);
                texts.push(format!("{name} samples out {rate} records/s"));
            }
        }
        texts
    })
}

fn split_advice(picture: &Picture) -> Vec<String> {
    picture.figures.as_ref().map_or_else(Vec::new, |figures| {
        let advised = figures.shards.iter().filter(|s| !s.advice.is_empty());
        advised.map(|s| format!("{}/{}: {}", s.stream, s.shard, s.advice)).collect()
    })
}

fn clock(picture: &Picture) -> Vec<String> {
    let jumps: u32 = picture.within(MINUTE).map(|p| p.clock_jumps).sum();
    (jumps > 0).then(|| format!("the server's clock jumped {jumps} x")).into_iter().collect()
}

fn samples_dropped(picture: &Picture) -> Vec<String> {
    let (seen, missed) = picture
        .within(MINUTE)
        .fold((0u64, 0u64), |(seen, missed), p| (seen + 1, missed + u64::from(p.missed)));
    let many = missed as f64 > MISSED * (seen + missed) as f64;
    let all = seen + missed;
    many.then(|| format!("{missed} of {all} samples were not seen")).into_iter().collect()
}

fn disk(picture: &Picture) -> Vec<String> {
    let free = picture.about.disk_free.filter(|free| *free < DISK_FREE);
    free.map(|free| format!("disk: {:.1} % free", free * 100.0)).into_iter().collect()
}

fn warnings(picture: &Picture) -> Vec<String> {
    // What `not-durable` says is not said twice.
    let told = picture.headline.is_some() && !picture.about.durable;
    let warnings = picture.about.warnings.iter();
    warnings.filter(|warning| !(told && warning.starts_with(NOT_DURABLE))).cloned().collect()
}

fn restarted(picture: &Picture) -> Vec<String> {
    let times = picture.restarts;
    (times > 0).then(|| format!("server was restarted {times} x")).into_iter().collect()
}
