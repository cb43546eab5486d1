//! The two clocks that the engine is told.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_engine::Now;
use tokio::time::Instant;

/// Reads wall and monotonic time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
    /// The wall clock is shown so many milliseconds further: a test's.
    ahead_ms: i64,
}

impl Clock {
    pub(crate) fn start(ahead_ms: i64) -> Self {
        Self {
            start: Instant::now(),
            ahead_ms,
        }
    }

    /// Milliseconds since the Unix epoch.
    pub(crate) fn wall_ms(&self) -> u64 {
        wall_ms().saturating_add_signed(self.ahead_ms)
    }

    /// Both clocks now. A wall clock before 1970 reads 0.
    pub(crate) fn now(&self) -> Now {
        Now {
            wall_ms: self.wall_ms(),
            mono_ms: millis(self.start.elapsed()),
        }
    }

    /// The moment of a monotonic time.
    pub(crate) fn at(&self, mono_ms: u64) -> Instant {
        self.start + Duration::from_millis(mono_ms)
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, millis)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
