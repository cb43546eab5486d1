//! Which loops move. Each says, whenever it comes round, until when it will come round
//! again; whoever is late by more than the allowed silence has stalled.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Cause;

/// A loop of the node that must never stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Loop {
    /// The loop around the engine.
    Driver,
    /// Feeds the engine the board's log.
    Follower,
    /// Projects into the audit store.
    Projector,
    /// Reads the certificates again.
    Certificates,
}

impl Loop {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Driver,
        Self::Follower,
        Self::Projector,
        Self::Certificates,
    ];

    pub(crate) fn cause(self) -> Cause {
        match self {
            Self::Driver => Cause::DriverStalled,
            Self::Follower => Cause::FollowerStalled,
            Self::Projector => Cause::ProjectorStalled,
            Self::Certificates => Cause::CertificatesStalled,
        }
    }
}

/// When each loop is due.
#[derive(Debug)]
pub(crate) struct Beats {
    start: Instant,
    silence: Duration,
    /// Milliseconds since the start.
    due: [AtomicU64; Loop::ALL.len()],
}

impl Beats {
    /// All loops are due at once, with the allowed silence on top.
    pub(crate) fn new(silence: Duration) -> Self {
        Self {
            start: Instant::now(),
            silence,
            due: Default::default(),
        }
    }

    /// The loop moves, and will be here again at once.
    pub(crate) fn moves(&self, which: Loop) {
        self.waits(which, Duration::ZERO);
    }

    /// The loop moves, and will be here again within `upto`.
    pub(crate) fn waits(&self, which: Loop, upto: Duration) {
        let due = millis(self.start.elapsed() + upto);
        self.due[which as usize].store(due, Ordering::Relaxed);
    }

    /// How late each loop is that has stalled.
    pub(crate) fn stalled(&self) -> Vec<(Loop, Duration)> {
        let now = millis(self.start.elapsed());
        let late = |which: &Loop| {
            let due = self.due[*which as usize].load(Ordering::Relaxed);
            Duration::from_millis(now.saturating_sub(due))
        };
        let all = Loop::ALL.into_iter().map(|which| (which, late(&which)));
        all.filter(|(_, late)| *late > self.silence).collect()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_late_has_stalled_until_it_moves_again() {
        let mut beats = Beats::new(Duration::from_secs(10));
        assert_eq!(beats.stalled(), []);
        // As if it had begun a minute ago.
        beats.start -= Duration::from_secs(60);
        beats.waits(Loop::Driver, Duration::ZERO);
        beats.waits(Loop::Projector, Duration::from_secs(60));
        let stalled: Vec<_> = beats.stalled().into_iter().map(|(l, _)| l).collect();
        assert_eq!(stalled, [Loop::Follower, Loop::Certificates]);
        beats.start -= Duration::from_secs(60);
        let stalled: Vec<_> = beats.stalled().into_iter().map(|(l, _)| l).collect();
        assert_eq!(stalled, [Loop::Driver, Loop::Follower, Loop::Certificates]);
        beats.moves(Loop::Driver);
        beats.moves(Loop::Follower);
        beats.moves(Loop::Certificates);
        assert_eq!(beats.stalled(), []);
    }
}
