//! How much an engine holds: what a driver shows to operators, and what a test bounds.

use super::Engine;

/// How much an engine holds in memory, beside its mirror of the board.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Transactions that it keeps something about.
    pub transactions: usize,
    /// Votes of its own trustee that the board does not show yet.
    pub own_votes: usize,
    /// Verified votes that the board does not show yet.
    pub held_votes: usize,
    /// Entries of the board's log from the future, by its clock.
    pub held_entries: usize,
    /// Questions under way: to keys, journal, coordinator, audit store and chain.
    pub questions: usize,
    /// Requests of clients that wait.
    pub requests: usize,
    /// Streams, greeting or established.
    pub streams: usize,
    /// Alarms that are set.
    pub timers: usize,
    /// Statements that are remembered as dealt with.
    pub duplicates: usize,
    /// Votes of peers that were dropped because of that, since the start.
    pub duplicates_dropped: u64,
    /// Accusations, its own and those that it heard.
    pub accusations: usize,
}

impl Engine {
    /// How much this engine holds now.
    pub fn load(&self) -> Load {
        Load {
            transactions: self.locals.len(),
            own_votes: self.locals.values().filter(|l| l.is_voting()).count(),
            held_votes: self.held_votes.values().sum(),
            held_entries: self.held.len(),
            questions: self.pending.len(),
            requests: self.requests.len(),
            streams: self.streams.len(),
            timers: self.timers.len(),
            duplicates: self.duplicates.len(),
            duplicates_dropped: self.duplicates.dropped(),
            accusations: self.accusations.len() + self.heard_accusations.len(),
        }
    }
}
