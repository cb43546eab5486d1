//! What each peer is to this node.
//!
//! A score says how useful a peer was lately, and nothing else: it chooses whom to ask
//! first and whom to have in the mesh. It never shuts anybody out for good, for a peer
//! that is slow, or whose frames are lost, must be able to come back: each heartbeat
//! brings every score one step nearer to nothing, so that even the least one is above
//! the floor again after [`SCORE_FLOOR`] − [`SCORE_LEAST`] heartbeats.

use std::collections::BTreeMap;

/// The least score.
pub const SCORE_LEAST: i32 = -100;

/// The highest score.
pub const SCORE_MOST: i32 = 100;

/// Below this score a peer is not believed to have what it announces, and is not in
/// the mesh.
pub const SCORE_FLOOR: i32 = -20;

/// What one peer is to this node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    pub(crate) connected: bool,
    /// It was grafted and not pruned since; its stream may be down for a moment.
    grafted: bool,
    /// For how many heartbeats its stream is down.
    down: u32,
    /// In the mesh because this node chose it.
    pub(crate) chosen: bool,
    /// Neither end grafts the other before this time.
    pub(crate) backoff_until: u64,
    score: i32,
    /// Copies that it has sent since it came into the mesh.
    pub(crate) delivered: u32,
    /// New messages that came from anybody since.
    pub(crate) passed: u32,
    /// Messages that it got on request since the last heartbeat.
    pub(crate) served: u32,
}

impl Peer {
    pub(crate) fn score(&self) -> i32 {
        self.score
    }

    pub(crate) fn add(&mut self, points: i32) {
        self.score = (self.score + points).clamp(SCORE_LEAST, SCORE_MOST);
    }

    /// It is believed, and may be in the mesh.
    pub(crate) fn is_good(&self) -> bool {
        self.connected && self.score >= SCORE_FLOOR
    }

    /// It can be spoken with. After a short time, which this says, it is where it was.
    pub(crate) fn up(&mut self, fresh: bool, patience: u32) -> bool {
        let short = !fresh && self.down < patience;
        self.connected = true;
        self.grafted &= short;
        self.down = 0;
        short
    }

    /// It is in the mesh, and can be spoken with.
    pub(crate) fn is_in_mesh(&self) -> bool {
        self.connected && self.grafted
    }

    pub(crate) fn enters_mesh(&mut self, chosen: bool) {
        self.grafted = true;
        self.chosen = chosen;
        self.delivered = 0;
        self.passed = 0;
    }

    pub(crate) fn leaves_mesh(&mut self, backoff_until: u64) {
        self.grafted = false;
        self.backoff_until = self.backoff_until.max(backoff_until);
    }

    pub(crate) fn beat(&mut self) {
        if !self.connected {
            self.down = self.down.saturating_add(1);
        }
        self.score -= self.score.signum();
        self.served = 0;
    }
}

/// All peers that were ever met. Scores and backoffs outlive a stream: who comes back
/// is who it was.
pub(crate) type Peers<P> = BTreeMap<P, Peer>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_score_is_out_of_reach() {
        let mut peer = Peer {
            connected: true,
            ..Peer::default()
        };
        for _ in 0..10_000 {
            peer.add(-1);
        }
        assert_eq!(peer.score(), SCORE_LEAST);
        for _ in 0..SCORE_FLOOR - SCORE_LEAST {
            assert!(!peer.is_good());
            peer.beat();
        }
        assert!(peer.is_good());
        for _ in 0..10_000 {
            peer.beat();
        }
        assert_eq!(peer.score(), 0);
    }
}
