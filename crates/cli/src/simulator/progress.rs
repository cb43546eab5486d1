//! How a hunt goes: one line that changes on a terminal, a line now and then elsewhere.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use quorate_sim::hunt::Tally;

use super::failed::broken;
use super::long::span;
use super::{counted, grouped};
use crate::output::Out;

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// So many failures are told at once.
const MOST_TOLD: usize = 20;

/// Shows how a hunt goes, on standard error.
pub(super) struct Progress {
    out: Out,
    /// Only on a terminal.
    bar: Option<ProgressBar>,
    schedules: Option<u64>,
    time: Option<Duration>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Failures that were told.
    told: usize,
    /// When the next line is due, from the start.
    next_line: Duration,
}

impl Progress {
    pub(super) fn new(out: Out, schedules: Option<u64>, time: Option<Duration>) -> Self {
        Self {
            out,
            bar: out.is_live().then(spinner),
            schedules,
            time,
            state: Mutex::new(State {
                told: 0,
                next_line: LINE_EVERY,
            }),
        }
    }

    /// So far.
    pub(super) fn show(&self, tally: &Tally, elapsed: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for found in tally.failures.iter().skip(state.told) {
            state.told += 1;
            if state.told <= MOST_TOLD {
                let broken = broken(&found.failure);
                self.note(&format!("failed: {}   {broken}", found.replay()));
            }
        }
        if let Some(bar) = &self.bar {
            bar.set_message(self.line(tally, elapsed));
        } else if elapsed >= state.next_line {
            state.next_line = elapsed + LINE_EVERY;
            self.note(&self.line(tally, elapsed));
        }
    }

    /// Leaves the terminal as it was.
    pub(super) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }

    fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.out.note(text)),
            None => self.out.note(text),
        }
    }

    fn line(&self, tally: &Tally, elapsed: Duration) -> String {
        let of = self.schedules.map(|all| format!(" of {}", grouped(all)));
        let until = self.time.map(|time| format!(" of {}", span(time)));
        format!(
            "{}{}, {:.0}/s, {:.0} ballots/s, {} failed, {}{}",
            counted(tally.schedules, "schedule", "schedules"),
            of.unwrap_or_default(),
            per_second(tally.schedules, elapsed),
            per_second(tally.ballots, elapsed),
            grouped(tally.failures.len() as u64),
            span(elapsed),
            until.unwrap_or_default()
        )
    }
}

/// Something that moves on a terminal.
pub(super) fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// How many there are in a second.
pub(super) fn per_second(number: u64, time: Duration) -> f64 {
    number as f64 / time.as_secs_f64().max(1e-6)
}
