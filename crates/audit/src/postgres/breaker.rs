//! A breaker: when the database has failed several times in a row, nobody waits for it
//! any more, but for one caller from time to time who tries. Pure: times are arguments.

use std::time::{Duration, Instant};

/// Failures in a row after which it opens.
const FAILURES: u32 = 3;

/// How long it stays open at first; twice as long after each vain try.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// And at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What a breaker lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything: the database answers.
    Closed,
    /// Nothing: it does not answer.
    Open,
    /// One call, to see whether it answers again.
    Trying,
}

#[derive(Debug)]
pub(super) struct Breaker {
    state: BreakerState,
    failures: u32,
    pause: Duration,
    /// When the next call may try; when the one that tries must be back.
    until: Option<Instant>,
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self {
            state: BreakerState::Closed,
            failures: 0,
            pause: FIRST_PAUSE,
            until: None,
        }
    }

    pub(super) fn state(&self) -> BreakerState {
        self.state
    }

    /// Whether a call may go on; it then tells with [`Self::came_back`] within `limit`
    /// how it went. Who does not (it was given up) is not waited for longer.
    pub(super) fn lets_through(&mut self, now: Instant, limit: Duration) -> bool {
        let over = self.until.is_none_or(|until| now >= until);
        match self.state {
            BreakerState::Closed => true,
            BreakerState::Open | BreakerState::Trying if over => {
                self.state = BreakerState::Trying;
                self.until = Some(now + limit);
                true
            }
            BreakerState::Open | BreakerState::Trying => false,
        }
    }

    /// A call came back: whether the database answered it. Gives the new state if that
    /// is another than before.
    pub(super) fn came_back(&mut self, answered: bool, now: Instant) -> Option<BreakerState> {
        let before = self.state;
        if answered {
            *self = Self::new();
        } else {
            self.failures = self.failures.saturating_add(1);
            match self.state {
                BreakerState::Closed if self.failures < FAILURES => {}
                // One that began before the breaker opened.
                BreakerState::Open => {}
                BreakerState::Closed | BreakerState::Trying => {
                    self.state = BreakerState::Open;
                    self.until = Some(now + self.pause);
                    self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        (self.state != before).then_some(self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn it_opens_after_three_failures_and_closes_with_an_answer() {
        let (mut breaker, now) = (Breaker::new(), Instant::now());
        for _ in 0..2 {
            assert!(breaker.lets_through(now, LIMIT));
            assert_eq!(breaker.came_back(false, now), None);
        }
        assert_eq!(breaker.came_back(true, now), None, "it begins anew");
        for _ in 0..2 {
            assert_eq!(breaker.came_back(false, now), None);
        }
        let open = Some(BreakerState::Open);
        assert_eq!(breaker.came_back(false, now), open);
        assert!(!breaker.lets_through(now + ms(249), LIMIT));
        assert!(breaker.lets_through(now + ms(250), LIMIT));
        assert_eq!(breaker.state(), BreakerState::Trying);
        assert!(!breaker.lets_through(now + ms(250), LIMIT), "one tries");
        let closed = Some(BreakerState::Closed);
        assert_eq!(breaker.came_back(true, now + ms(260)), closed);
        assert!(breaker.lets_through(now + ms(260), LIMIT));
    }

    #[test]
    fn it_waits_longer_each_time_but_not_for_ever() {
        let (mut breaker, mut now) = (Breaker::new(), Instant::now());
        for _ in 0..FAILURES {
            breaker.came_back(false, now);
        }
        for pause in [250, 500, 1000, 2000, 4000, 5000, 5000] {
            assert!(!breaker.lets_through(now + ms(pause - 1), LIMIT));
            now += ms(pause);
            assert!(breaker.lets_through(now, LIMIT), "after {pause} ms");
            assert_eq!(breaker.came_back(false, now), Some(BreakerState::Open));
        }
    }

    #[test]
    fn one_who_tries_and_never_comes_back_locks_nobody_out() {
        let (mut breaker, now) = (Breaker::new(), Instant::now());
        for _ in 0..FAILURES {
            breaker.came_back(false, now);
        }
        assert!(breaker.lets_through(now + ms(250), LIMIT));
        let later = now + ms(250) + LIMIT;
        assert!(!breaker.lets_through(later - ms(1), LIMIT));
        assert!(breaker.lets_through(later, LIMIT));
    }

    #[test]
    fn failures_that_come_late_do_not_keep_it_open() {
        let (mut breaker, now) = (Breaker::new(), Instant::now());
        for _ in 0..10 {
            breaker.came_back(false, now);
        }
        assert!(breaker.lets_through(now + ms(250), LIMIT));
    }
}
