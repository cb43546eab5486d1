//! What the diallers must know of the members: where they are reached, and with whom
//! there is a stream already.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use quorate_consensus::{Address, NodeId};
use tokio::sync::watch;

/// What a node knows of the members' whereabouts.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    learned: BTreeMap<NodeId, Address>,
    connected: BTreeSet<NodeId>,
}

impl Roster {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|n| *n += 1);
    }

    /// A member has said where it is reached.
    pub(crate) fn learn(&self, node_id: NodeId, address: Address) {
        tracing::info!(%node_id, %address, "peer.address");
        self.lock().learned.insert(node_id, address);
        self.changed();
    }

    /// Where a member has said that it is reached.
    pub(crate) fn learned(&self, node_id: &NodeId) -> Option<Address> {
        self.lock().learned.get(node_id).cloned()
    }

    /// With these members there is a stream, and with nobody else; ascending by id.
    pub(crate) fn connected<'a>(&self, now: impl Iterator<Item = &'a NodeId> + Clone) {
        let mut state = self.lock();
        if !state.connected.iter().eq(now.clone()) {
            state.connected = now.cloned().collect();
            drop(state);
            self.changed();
        }
    }

    /// Whether there is a stream with this member.
    pub(crate) fn is_connected(&self, node_id: &NodeId) -> bool {
        self.lock().connected.contains(node_id)
    }

    /// With how many members there is a stream.
    pub(crate) fn connections(&self) -> usize {
        self.lock().connected.len()
    }

    /// Wakes when somebody's whereabouts changed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
