//! Many schedules at once. What a seed comes to depends on nothing but the seed, so
//! threads change how long a hunt takes and nothing else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::plan::draw::{self, Family};
use crate::plan::{BoardKind, Plan};
use crate::world::Outcome;

use super::{Runner, Tally};

/// Which schedules to run, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hunt {
    /// The first seed. The others follow it by one each.
    pub base: u64,
    /// How many schedules at most. Seeds that are passed over do not count.
    pub schedules: u64,
    /// Only bad days of this kind; each seed chooses its own when none.
    pub family: Option<Family>,
    /// Only seeds that have their board in this; the others are passed over.
    pub board: Option<BoardKind>,
    /// Only seeds whose schedule has so many members, from 1 to [`draw::MOST_NODES`];
    /// the others are passed over.
    pub nodes: Option<usize>,
    /// How many threads, at least 1.
    pub threads: usize,
    /// Goes on after a failure. Otherwise the hunt ends with the first failing seed,
    /// and tells of that one alone.
    pub keep_going: bool,
}

impl Hunt {
    /// Whether the schedule of this seed is one of those that are hunted through.
    pub fn wants(&self, seed: u64) -> bool {
        self.board.is_none_or(|board| board == draw::board(seed))
            && self.nodes.is_none_or(|nodes| nodes == draw::nodes(seed))
    }
}

/// Runs the schedules. `going` is shown the tally after each one and says whether to
/// go on: it is the caller who knows a clock, and how to show progress. Schedules that
/// have begun are finished.
pub fn many(hunt: &Hunt, going: &(dyn Fn(&Tally) -> bool + Sync)) -> Tally {
    many_by(hunt, going, &|| {
        let mut runner = Runner::default();
        move |plan: &Arc<Plan>| runner.run(plan)
    })
}

/// The same with another way to run a plan, made once for each thread.
fn many_by<R: FnMut(&Arc<Plan>) -> Outcome>(
    hunt: &Hunt,
    going: &(dyn Fn(&Tally) -> bool + Sync),
    runner: &(dyn Fn() -> R + Sync),
) -> Tally {
    let shared = Shared {
        hunt,
        going,
        next: Mutex::new(Next {
            number: 0,
            seed: hunt.base,
        }),
        // As many as are to be run; less once it is to end.
        end: AtomicU64::new(hunt.schedules),
        tally: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for _ in 0..hunt.threads.max(1) {
            scope.spawn(|| shared.work(runner()));
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
    next: Mutex<Next>,
    end: AtomicU64,
    tally: Mutex<Tally>,
}

/// What is given out next.
struct Next {
    /// How many schedules were given out before it.
    number: u64,
    /// It, or a seed before it that is to be passed over.
    seed: u64,
}

impl Shared<'_> {
    fn work(&self, mut run: impl FnMut(&Arc<Plan>) -> Outcome) {
        loop {
            let Some((number, seed)) = self.next() else {
                return;
            };
            let family = self.hunt.family.unwrap_or_else(|| draw::family(seed));
            let plan = Arc::new(draw::of_family(seed, family));
            let outcome = run(&plan);
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

    /// The number and the seed of the next schedule, unless there is none.
    fn next(&self) -> Option<(u64, u64)> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let number = next.number;
        if number >= self.end.load(Ordering::Relaxed) {
            return None;
        }
        while !self.hunt.wants(next.seed) {
            next.seed = next.seed.wrapping_add(1);
        }
        let seed = next.seed;
        next.number += 1;
        next.seed = seed.wrapping_add(1);
        Some((number, seed))
    }

    /// Whoever panicked with it held (only `going` could) has left a good tally.
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::hunt::Size;
    use crate::world::Failure;

    fn hunt(threads: usize, keep_going: bool) -> Hunt {
        Hunt {
            base: u64::MAX - 9,
            schedules: 200,
            family: None,
            board: None,
            nodes: None,
            threads,
            keep_going,
        }
    }

    /// Every seventh seed fails.
    fn failing() -> impl FnMut(&Arc<Plan>) -> Outcome {
        |plan| {
            let failure = (plan.seed % 7 == 3).then(|| Failure {
                invariant: "seven",
                detail: plan.seed.to_string(),
                at_ms: 1,
            });
            Outcome {
                failure,
                ballots: 8,
                ..Outcome::default()
            }
        }
    }

    #[test]
    fn threads_change_nothing() {
        let run = |threads| many_by(&hunt(threads, true), &|_| true, &failing);
        let one = run(1);
        assert_eq!(one.schedules, 200);
        assert_eq!(one.ballots, 1_600);
        assert_eq!(one, run(4));
        let failed: u64 = one.families.values().map(|count| count.failed).sum();
        assert_eq!(failed, one.failures.len() as u64);
        // Past the last seed comes the first.
        assert!(one.failures.iter().any(|found| found.seed == 3));
        for found in &one.failures {
            assert_eq!(found.seed, (u64::MAX - 9).wrapping_add(found.after - 1));
        }
    }

    #[test]
    fn the_first_failure_ends_it() {
        let first = many_by(&hunt(1, true), &|_| true, &failing).failures[0].clone();
        for threads in 1..5 {
            let tally = many_by(&hunt(threads, false), &|_| true, &failing);
            assert_eq!(tally.failures, std::slice::from_ref(&first));
            assert!(tally.schedules >= first.after, "{tally:?}");
            assert!(tally.schedules < 200, "{tally:?}");
        }
    }

    #[test]
    fn an_earlier_seed_that_fails_later_is_the_first() {
        let hunt = Hunt {
            base: 0,
            ..hunt(2, false)
        };
        // Seed 0 takes until seed 1 has failed.
        let failed = AtomicBool::new(false);
        let going = |tally: &Tally| {
            failed.store(!tally.failures.is_empty(), Ordering::SeqCst);
            true
        };
        let runner = || {
            |plan: &Arc<Plan>| {
                while plan.seed == 0 && !failed.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                let failure = Failure {
                    invariant: "any",
                    detail: String::new(),
                    at_ms: 1,
                };
                Outcome {
                    failure: Some(failure),
                    ..Outcome::default()
                }
            }
        };
        let tally = many_by(&hunt, &going, &runner);
        assert_eq!(tally.schedules, 2);
        assert_eq!(tally.failures.len(), 1);
        assert_eq!(tally.failures[0].seed, 0);
    }

    #[test]
    fn seeds_that_are_not_wanted_are_passed_over_and_not_counted() {
        for threads in [1, 3] {
            for nodes in [1, 5, draw::MOST_NODES] {
                let hunt = Hunt {
                    base: 1,
                    schedules: 20,
                    nodes: Some(nodes),
                    board: Some(BoardKind::Keys),
                    ..hunt(threads, true)
                };
                let seen = Mutex::new(Vec::new());
                let runner = || {
                    |plan: &Arc<Plan>| {
                        assert_eq!((plan.shape.nodes, plan.board), (nodes, BoardKind::Keys));
                        seen.lock().expect("whole").push(plan.seed);
                        Outcome::default()
                    }
                };
                assert_eq!(many_by(&hunt, &|_| true, &runner).schedules, 20);
                let mut seen = seen.into_inner().expect("whole");
                seen.sort_unstable();
                let all = (1..).filter(|seed| {
                    let plan = draw::plan(*seed);
                    (plan.shape.nodes, plan.board) == (nodes, BoardKind::Keys)
                });
                assert_eq!(seen, all.take(20).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn what_fails_among_few_seeds_is_replayed_by_its_seed_alone() {
        let hunt = Hunt {
            base: 1,
            nodes: Some(5),
            ..hunt(2, false)
        };
        let tally = many_by(&hunt, &|_| true, &failing);
        let [found] = &tally.failures[..] else {
            panic!("{:?}", tally.failures);
        };
        let wanted = |seed: &u64| draw::nodes(*seed) == 5;
        let first = (1..).filter(wanted).position(|seed| seed % 7 == 3);
        let seed = (1..)
            .filter(wanted)
            .find(|seed| seed % 7 == 3)
            .expect("one");
        assert_eq!(
            (found.seed, found.after),
            (seed, first.expect("one") as u64 + 1)
        );
        assert_eq!(found.replay(), format!("quorate sim --seed {seed} --trace"));
    }

    #[test]
    fn the_caller_ends_it() {
        let going = |tally: &Tally| tally.schedules < 5;
        let tally = many_by(&hunt(1, true), &going, &failing);
        assert_eq!(tally.schedules, 5);
    }

    #[test]
    fn real_schedules_are_the_same_in_company() {
        let hunt = Hunt {
            base: 1,
            schedules: 12,
            family: None,
            board: None,
            nodes: None,
            threads: 3,
            keep_going: true,
        };
        let tally = many(&hunt, &|_| true);
        let mut runner = Runner::default();
        let alone: Vec<_> = (1..=12).map(|seed| runner.hunt(seed)).collect();
        let sum = |of: fn(&Outcome) -> u64| alone.iter().map(of).sum::<u64>();
        assert_eq!(tally.events, sum(|outcome| outcome.events));
        assert_eq!(tally.ballots, sum(|outcome| outcome.ballots));
        assert_eq!(tally.simulated_ms, sum(|outcome| outcome.took_ms));
        let prints = alone.iter().map(|outcome| outcome.fingerprint);
        assert_eq!(tally.fingerprint, prints.fold(0, u64::wrapping_add));
    }

    #[test]
    fn no_schedule_is_smaller_than_asked() {
        let mut least: Option<Size> = None;
        for seed in 0..500 {
            for family in Family::ALL {
                let size = Size::of(&draw::of_family(seed, *family));
                least = Some(least.map_or(size, |least| least.least(size)));
            }
        }
        let least = least.expect("some");
        assert!(least.ballots >= 8, "{least:?}");
        assert!(least.faults >= 20, "{least:?}");
        assert!(least.restarts >= 1, "{least:?}");
    }
}
