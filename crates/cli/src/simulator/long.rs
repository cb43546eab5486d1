//! A hunt through many schedules: how it goes, and what it came to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use quorate_sim::hunt::{Count, Found, Hunt, Runner, Size, Tally, many};
use quorate_sim::plan::draw::{self, Family};
use serde_json::{Value, json};

use super::failed::{Failed, Folder, broken};
use super::progress::{Progress, per_second};
use super::{counted, grouped};
use crate::failure::{Failure, Outcome};
use crate::output::{Out, Tone};

/// So many failures are told at length; each of them breaks something else.
const MOST_TOLD: usize = 5;

/// So many others are told in a line.
const MOST_NAMED: usize = 20;

/// A hunt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Long {
    /// The first seed.
    pub(crate) base: u64,
    /// How many schedules at most.
    pub(crate) schedules: Option<u64>,
    /// How long at most.
    pub(crate) time: Option<Duration>,
    /// Only this kind of bad day.
    pub(crate) family: Option<Family>,
    /// Only schedules with so many members.
    pub(crate) nodes: Option<usize>,
    /// How many threads.
    pub(crate) threads: usize,
    /// Goes on after a failure.
    pub(crate) keep_going: bool,
}

impl Long {
    pub(super) fn run(self, stop: &AtomicBool, folder: &Folder, out: Out) -> Outcome {
        out.line(self.title());
        if cfg!(debug_assertions) {
            out.note(
                "this binary is not optimised: `make soak` builds one that is 7 times as fast",
            );
        }
        let hunt = Hunt {
            base: self.base,
            schedules: self.schedules.unwrap_or(u64::MAX),
            family: self.family,
            board: None,
            nodes: self.nodes,
            threads: self.threads,
            keep_going: self.keep_going,
        };
        let began = Instant::now();
        let progress = Progress::new(out, self.schedules, self.time);
        let tally = many(&hunt, &|tally| {
            progress.show(tally, began.elapsed());
            let late = self.time.is_some_and(|time| began.elapsed() >= time);
            !late && !stop.load(Ordering::Relaxed)
        });
        progress.finish();
        let took = began.elapsed();
        let told = tell(&tally, folder, out);
        self.print_json(&tally, &told, took, out);
        print(&tally, took, out);
        print_failures(&tally, &told, out);
        let failed = tally.failures.len() as u64;
        match told.values().next() {
            None => Ok(()),
            Some(first) if failed == 1 => Err(first.error("a schedule failed", true)),
            Some(_) => Err(Failure::failed(format!(
                "{} of {} failed",
                grouped(failed),
                counted(tally.schedules, "schedule", "schedules")
            ))),
        }
    }

    fn title(&self) -> String {
        let many = match (self.schedules, self.time) {
            (Some(schedules), None) => counted(schedules, "schedule", "schedules"),
            (Some(schedules), Some(time)) => format!(
                "{} or {}",
                counted(schedules, "schedule", "schedules"),
                span(time)
            ),
            (None, Some(time)) => span(time),
            (None, None) => "until Ctrl-C".to_owned(),
        };
        let family = self.family.map(|family| format!(" of {}", family.name()));
        let nodes = self.nodes.map(|nodes| nodes as u64);
        let nodes = nodes.map(|nodes| format!(" with {}", counted(nodes, "node", "nodes")));
        format!(
            "Hunting from seed {}: {many}{}{}, {}",
            self.base,
            family.unwrap_or_default(),
            nodes.unwrap_or_default(),
            counted(self.threads as u64, "thread", "threads")
        )
    }

    fn print_json(&self, tally: &Tally, told: &BTreeMap<u64, Failed>, took: Duration, out: Out) {
        let failures = tally.failures.iter().map(|found| failure_json(found, told));
        let families = tally.families.iter().map(|(family, count)| {
            let count = json!({
                "schedules": count.schedules,
                "ballots": count.ballots,
                "failed": count.failed,
            });
            (family.name().to_owned(), count)
        });
        out.json_pretty(&json!({
            "seed": self.base,
            "scenario": self.family.map(Family::name),
            "nodes": self.nodes,
            "threads": self.threads,
            "holds": tally.failures.is_empty(),
            "schedules": tally.schedules,
            "ballots": tally.ballots,
            "events": tally.events,
            "simulated_ms": tally.simulated_ms,
            "fingerprint": format!("{:016x}", tally.fingerprint),
            "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "schedules_per_s": rounded(per_second(tally.schedules, took)),
            "ballots_per_s": rounded(per_second(tally.ballots, took)),
            "least": tally.least.map(size_json),
            "total": size_json(tally.total),
            "scenarios": families.collect::<serde_json::Map<_, _>>(),
            "faults": tally.faults,
            "liars": tally.liars,
            "failures": failures.collect::<Vec<_>>(),
        }));
    }
}

/// Looks closer at the first failure of each kind.
fn tell(tally: &Tally, folder: &Folder, out: Out) -> BTreeMap<u64, Failed> {
    let mut firsts: BTreeMap<&str, &Found> = BTreeMap::new();
    for found in &tally.failures {
        firsts.entry(found.failure.invariant).or_insert(found);
    }
    let mut firsts: Vec<_> = firsts.into_values().collect();
    firsts.sort_by_key(|found| found.after);
    firsts.truncate(MOST_TOLD);
    let mut runner = Runner::default();
    let mut told = BTreeMap::new();
    for found in firsts {
        let plan = Arc::new(draw::of_family(found.seed, found.family));
        let replay = found.replay();
        let failed = Failed::shrunk(&plan, &found.failure, replay, folder, &mut runner, out);
        told.insert(found.after, failed);
    }
    told
}

fn failure_json(found: &Found, told: &BTreeMap<u64, Failed>) -> Value {
    let failed = told.get(&found.after).cloned();
    let failed = failed.unwrap_or_else(|| Failed::as_it_is(&found.failure, found.replay()));
    let mut json = failed.json();
    json["seed"] = found.seed.into();
    json["scenario"] = found.family.name().into();
    json["after"] = found.after.into();
    json
}

fn size_json(size: Size) -> Value {
    json!({
        "ballots": size.ballots,
        "faults": size.faults,
        "restarts": size.restarts,
        "liars": size.liars,
    })
}

fn rounded(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

fn print(tally: &Tally, took: Duration, out: Out) {
    let mut table = out.table(&["scenario", "schedules", "ballots", "failed"]);
    let mut row = |name: &str, count: &Count| {
        let tone = if count.failed > 0 {
            Tone::Bad
        } else {
            Tone::Plain
        };
        table.add_row([
            out.cell(Tone::Plain, name),
            out.cell(Tone::Plain, grouped(count.schedules)),
            out.cell(Tone::Plain, grouped(count.ballots)),
            out.cell(tone, grouped(count.failed)),
        ]);
    };
    for (family, count) in &tally.families {
        row(family.name(), count);
    }
    let all = Count {
        schedules: tally.schedules,
        ballots: tally.ballots,
        failed: tally.failures.len() as u64,
    };
    row("all", &all);
    out.line(table);
    let speed = format!(
        "{:.0} schedules/s, {:.0} ballots/s; {}",
        per_second(tally.schedules, took),
        per_second(tally.ballots, took),
        span(took)
    );
    let in_all = format!(
        "{}, {}; {} of the engines in {} of simulated time",
        counted(tally.total.faults, "fault", "faults"),
        counted(tally.total.restarts, "restart", "restarts"),
        counted(tally.events, "event", "events"),
        span(Duration::from_millis(tally.simulated_ms)),
    );
    let least = tally.least.unwrap_or_default();
    let in_each = format!(
        "at least {}, {}, {}",
        counted(least.ballots, "ballot", "ballots"),
        counted(least.faults, "fault", "faults"),
        counted(least.restarts, "restart", "restarts"),
    );
    out.line(out.pairs([
        ("speed", Tone::Plain, speed),
        ("in all", Tone::Plain, in_all),
        ("in each", Tone::Plain, in_each),
        ("schedules with", Tone::Plain, names(&tally.faults)),
        ("liars in", Tone::Plain, names(&tally.liars)),
    ]));
}

/// Names with their counts, the most frequent first.
fn names(counts: &BTreeMap<&'static str, u64>) -> String {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), **name));
    let texts = counts.into_iter();
    let texts = texts.map(|(name, count)| format!("{name} {}", grouped(*count)));
    let texts: Vec<_> = texts.collect();
    match texts.is_empty() {
        true => "none".to_owned(),
        false => texts.join(", "),
    }
}

fn print_failures(tally: &Tally, told: &BTreeMap<u64, Failed>, out: Out) {
    let mut others = Vec::new();
    for found in &tally.failures {
        let Some(failed) = told.get(&found.after) else {
            others.push(found);
            continue;
        };
        let text = format!(
            "seed {}, {}: the {} schedule",
            found.seed,
            found.family.name(),
            ordinal(found.after)
        );
        let mut rows = vec![("failed", Tone::Bad, text)];
        rows.extend(failed.rows());
        out.line(out.pairs(rows));
    }
    for found in others.iter().take(MOST_NAMED) {
        let broken = broken(&found.failure);
        out.line(format!("also failed: {}   {broken}", found.replay()));
    }
    if others.len() > MOST_NAMED {
        let more = counted((others.len() - MOST_NAMED) as u64, "other", "others");
        out.line(format!("and {more}: --json names them all"));
    }
}

fn ordinal(number: u64) -> String {
    let end = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{}{end}", grouped(number))
}

/// A time in the unit that suits it.
pub(super) fn span(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match time.as_secs() {
        0..120 => format!("{seconds:.1} s"),
        120..7_200 => format!("{:.1} minutes", seconds / 60.0),
        7_200..172_800 => format!("{:.1} hours", seconds / 3_600.0),
        _ => format!("{:.1} days", seconds / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        for (number, text) in [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th")] {
            assert_eq!(ordinal(number), text);
        }
        assert_eq!(ordinal(1_112), "1,112th");
        assert_eq!(ordinal(1_122), "1,122nd");
        assert_eq!(span(Duration::from_secs(20)), "20.0 s");
        assert_eq!(span(Duration::from_secs(3_600)), "60.0 minutes");
        assert_eq!(
            names(&BTreeMap::from([("a", 1), ("b", 2_000)])),
            "b 2,000, a 1"
        );
    }
}
