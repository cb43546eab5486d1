//! Who is in the mesh: grafts and prunes, heard and said.

use super::{Mesh, Output};
use crate::peers::Peer;

/// For a graft within the backoff.
const RUDE_GRAFT: i32 = -10;

/// A graft is not rude when it comes so little before the end of the backoff, in
/// milliseconds: the two ends count from the sending and from the coming of the prune.
const RUDE_SLACK_MS: u64 = 5_000;

/// The longest backoff that another node can impose, in milliseconds.
const BACKOFF_MOST_MS: u64 = 600_000;

impl<P: Clone + Ord, M: Clone> Mesh<P, M> {
    /// A peer wants to be in the mesh.
    pub fn grafted(&mut self, now_ms: u64, from: &P) {
        let Some(peer) = self.peers.get_mut(from).filter(|peer| peer.connected) else {
            return;
        };
        if peer.is_in_mesh() {
            return;
        }
        let early = now_ms < peer.backoff_until;
        let rude = now_ms + 2 * self.params.heartbeat_ms + RUDE_SLACK_MS < peer.backoff_until;
        if rude {
            peer.add(RUDE_GRAFT);
        }
        if early || !peer.is_good() || !self.makes_room(now_ms) {
            self.prune(now_ms, from);
            return;
        }
        if let Some(peer) = self.peers.get_mut(from) {
            peer.enters_mesh(false);
        }
        self.catch_up(from);
    }

    /// Whether there is room in the mesh for one more that grafts. In a full one a peer
    /// that has brought nothing yet gives its place up: or whoever grafts first, and
    /// brings nothing, would keep the others out.
    fn makes_room(&mut self, now_ms: u64) -> bool {
        let room = self.params.degree_most - self.params.degree_own;
        let guests = self.those(|peer| peer.is_in_mesh() && !peer.chosen);
        if guests.len() < room && self.degree() < self.params.degree_most {
            return true;
        }
        let idle = self.those(|peer| peer.is_in_mesh() && !peer.chosen && peer.delivered == 0);
        let Some(idle) = self.rng.pick(idle, 1).pop() else {
            return false;
        };
        self.prune(now_ms, &idle);
        true
    }

    /// A peer wants to be in the mesh no more.
    pub fn pruned(&mut self, now_ms: u64, from: &P, backoff_ms: u64) {
        let backoff_ms = backoff_ms.clamp(self.params.heartbeat_ms, BACKOFF_MOST_MS);
        if let Some(peer) = self.peers.get_mut(from) {
            peer.leaves_mesh(now_ms + backoff_ms);
        }
    }

    /// Looks after scores and mesh.
    pub(super) fn heartbeat(&mut self, now_ms: u64) {
        let full_beat = self.params.heartbeat_ms;
        self.cache.forget(&self.params, now_ms);
        self.relayed.clear();
        for peer in self.peers.values_mut() {
            peer.beat();
        }
        let silent_after = self.params.silent_after;
        let useless = |peer: &Peer| {
            let silent = peer.delivered == 0 && peer.passed >= silent_after;
            peer.is_in_mesh() && (silent || !peer.is_good())
        };
        for peer in self.those(useless) {
            self.prune(now_ms, &peer);
        }
        let mut degree = self.degree();
        let chosen = self.those(|peer| peer.is_in_mesh() && peer.chosen).len();
        let wants_own = chosen < self.params.degree_own && degree < self.params.degree_most;
        if degree + 1 < self.params.degree || wants_own {
            // One at a time: others graft too, and two for each missing one would be
            // too many.
            let able =
                |peer: &Peer| !peer.is_in_mesh() && peer.is_good() && now_ms >= peer.backoff_until;
            let mut able = self.those(able);
            // Who was of use before whom nobody knows, and both before who was not.
            let used: Vec<_> = able
                .iter()
                .filter(|p| self.score(p) >= 0)
                .cloned()
                .collect();
            if !used.is_empty() {
                able = used;
            }
            for to in self.rng.pick(able, 1) {
                if let Some(peer) = self.peers.get_mut(&to) {
                    peer.enters_mesh(true);
                    degree += 1;
                }
                self.outputs.push(Output::Graft { to: to.clone() });
                self.catch_up(&to);
            }
        }
        let hurry = degree < self.params.degree_least;
        let beat = if hurry {
            self.params.tick_ms
        } else {
            full_beat
        };
        let idle = self.cache.seen() == 0 && !self.peers.values().any(|peer| peer.connected);
        self.heartbeat_ms = (!idle).then_some(now_ms + beat);
    }

    fn prune(&mut self, now_ms: u64, to: &P) {
        let backoff_ms = self.params.backoff_ms;
        // Longer than what the other end is told, lest a graft of this node be rude.
        let slack_ms = 2 * self.params.heartbeat_ms;
        if let Some(peer) = self.peers.get_mut(to) {
            peer.leaves_mesh(now_ms + backoff_ms + slack_ms);
        }
        let to = to.clone();
        self.outputs.push(Output::Prune { to, backoff_ms });
    }
}
