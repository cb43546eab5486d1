//! What a node counts about itself. Export comes with the metrics endpoint.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters since the start; all only grow.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        /// The counters at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            pub(crate) fn read(&self) -> Counts {
                Counts { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters! {
    /// Votes handed in by clients.
    submits,
    /// Votes of clients that were refused, for whatever reason.
    submits_rejected,
    /// Calls refused for want of the right role.
    calls_forbidden,
    /// Calls refused by the rate limit.
    calls_limited,
    /// Exchange streams that came up.
    streams_opened,
    /// Frames that came in on streams.
    frames_received,
    /// Frames sent on streams.
    frames_sent,
    /// Frames not sent because a stream's queue was full.
    frames_dropped,
    /// Frames that were no frames.
    frames_malformed,
    /// Entries of the board's log that this node believed.
    entries_believed,
    /// Commits of the journal.
    journal_commits,
    /// Records in those commits.
    journal_records,
    /// Alerts raised.
    alerts,
    /// Misbehaviour found.
    violations,
}

/// One counter.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }

    pub(crate) fn one(&self) {
        self.add(1);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
