//! How much an engine holds: what a driver shows to operators, and what a test bounds.

use quorate_gossip::{Counts, Mesh};

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
    /// Peers in the mesh of a large cluster.
    pub mesh_peers: usize,
    /// Statements that may be requested in a large cluster.
    pub mesh_kept: usize,
    /// Statements that were announced in a large cluster and have not come.
    pub mesh_wanted: usize,
    /// What the mesh of a large cluster said and heard, since the start.
    pub mesh: Counts,
}

impl Engine {
    /// How much this engine holds now.
    pub fn load(&self) -> Load {
        let mesh = self.mesh.as_ref().map(Mesh::load).unwrap_or_default();
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
            mesh_peers: mesh.degree,
            mesh_kept: mesh.kept,
            mesh_wanted: mesh.wanted,
            mesh: self.mesh.as_ref().map(Mesh::counts).unwrap_or_default(),
            accusations: self.accusations.len() + self.heard_accusations.len(),
        }
    }
}
