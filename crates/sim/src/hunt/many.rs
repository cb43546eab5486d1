//! Many schedules at once. What a seed comes to depends on nothing but the seed, so
//! threads change how long a hunt takes and nothing else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::plan::draw::{self, Family};

use super::{Runner, Tally};

/// Which schedules to run, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hunt {
    /// The first seed. The others follow it by one each.
    pub base: u64,
    /// How many schedules at most.
    pub schedules: u64,
    /// Only bad days of this kind; each seed chooses its own when none.
    pub family: Option<Family>,
    /// How many threads, at least 1.
    pub threads: usize,
    /// Goes on after a failure. Otherwise the hunt ends with the first failing seed,
    /// and tells of that one alone.
    pub keep_going: bool,
}

/// Runs the schedules. `going` is shown the tally after each one and says whether to
/// go on: it is the caller who knows a clock, and how to show progress. Schedules that
/// have begun are finished.
pub fn many(hunt: &Hunt, going: &(dyn Fn(&Tally) -> bool + Sync)) -> Tally {
    let shared = Shared {
        hunt,
        going,
        next: AtomicU64::new(0),
        // As many as are to be run; less once it is to end.
        end: AtomicU64::new(hunt.schedules),
        tally: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for _ in 0..hunt.threads.max(1) {
            scope.spawn(|| shared.work());
        }
    });
    let mut tally = std::mem::take(&mut *shared.tally());
    tally.failures.sort_by_key(|found| found.after);
    if !hunt.keep_going {
        // Seeds are given out in order, and none before a failing one is left out: the
        // first is the first for any number of threads.
        tally.failures.truncate(1);
    }
    tally
}

struct Shared<'a> {
    hunt: &'a Hunt,
    going: &'a (dyn Fn(&Tally) -> bool + Sync),
    next: AtomicU64,
    end: AtomicU64,
    tally: Mutex<Tally>,
}

impl Shared<'_> {
    fn work(&self) {
        let mut runner = Runner::default();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.end.load(Ordering::Relaxed) {
                return;
            }
            let seed = self.hunt.base.wrapping_add(number);
            let family = self.hunt.family.unwrap_or_else(|| draw::family(seed));
            let plan = Arc::new(draw::of_family(seed, family));
            let outcome = runner.run(&plan);
            let failed = outcome.failure.is_some();
            let mut tally = self.tally();
            tally.add(number.saturating_add(1), family, &plan, outcome);
            if failed && !self.hunt.keep_going {
                // Earlier ones are still run: one of them may be the first to fail.
                self.end.fetch_min(number, Ordering::Relaxed);
            }
            if !(self.going)(&tally) {
                self.end.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Whoever panicked with it held (only `going` could) has left a good tally.
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
