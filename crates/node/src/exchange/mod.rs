//! Exchange streams: one per pair of nodes, dialled by whoever finds the other first.
//! Each has a bounded queue out; a peer that cannot keep up is resynchronised, never
//! waited for.

mod backoff;
mod codec;
mod dial;
mod pack;
mod queue;
mod raw;
mod roster;
mod session;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_consensus::NodeId;
use quorate_engine::StreamId;
use quorate_tls::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::mailbox::Mailbox;
use crate::metrics::Meter;
use crate::network::Network;
use crate::prewarm::Prewarmer;

pub use codec::RawCodec;
pub(crate) use dial::Dialler;
pub use pack::MAX_FRAME;
pub(crate) use queue::{Enqueued, Queue};
pub use raw::{RawError, RawSession, RawTarget, raw_session};
pub(crate) use roster::Roster;
pub(crate) use session::{Ends, serve};

/// The path of the method.
pub(crate) const PATH: &str = "/quorate.v1.VoteService/Exchange";

/// How long a goodbye may take to leave before the connection is cut.
const GOODBYE_TIME: Duration = Duration::from_millis(100);

/// What all sessions of a node share.
pub(crate) struct Sessions {
    pub(crate) own: NodeId,
    pub(crate) mailbox: Mailbox,
    pub(crate) prewarmer: Prewarmer,
    pub(crate) admission: Arc<Admission>,
    pub(crate) meter: Arc<Meter>,
    /// Frames of one peer in a second.
    pub(crate) frames_per_sec: std::num::NonZeroU32,
    /// The node goes down: no new streams.
    pub(crate) stopping: CancellationToken,
    /// Where the members are.
    pub(crate) roster: Arc<Roster>,
    dialled: Dialled,
    next: AtomicU64,
}

impl Sessions {
    pub(crate) fn new(
        own: NodeId,
        mailbox: Mailbox,
        prewarmer: Prewarmer,
        admission: Arc<Admission>,
        meter: Arc<Meter>,
        frames_per_sec: std::num::NonZeroU32,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            own,
            mailbox,
            prewarmer,
            admission,
            meter,
            frames_per_sec,
            stopping,
            roster: Arc::default(),
            dialled: Dialled::default(),
            next: AtomicU64::new(1),
        }
    }

    /// The same with a roster that the driver writes into.
    pub(crate) fn with_roster(mut self, roster: Arc<Roster>) -> Self {
        self.roster = roster;
        self
    }

    /// Whether a stream that this node is about to open to a peer goes before one that
    /// the peer opens now: of two that dial each other at one moment, the one with the
    /// lower id. Else each would end the other's stream for its own.
    pub(crate) fn goes_first(&self, peer: &NodeId) -> bool {
        self.own < *peer && self.dialled.leads_to(peer) && !self.roster.is_connected(peer)
    }

    fn next_stream(&self) -> StreamId {
        StreamId(self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// The peers to whom a dialled stream leads.
#[derive(Clone, Debug, Default)]
struct Dialled(Arc<Mutex<HashSet<NodeId>>>);

/// A peer's place among them, given back when dropped.
#[derive(Debug)]
struct DialledPlace(Dialled, NodeId);

impl Dialled {
    fn lock(&self) -> MutexGuard<'_, HashSet<NodeId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leads_to(&self, node_id: &NodeId) -> bool {
        self.lock().contains(node_id)
    }

    /// None when a stream leads there already.
    fn enter(&self, node_id: &NodeId) -> Option<DialledPlace> {
        let new = self.lock().insert(node_id.clone());
        new.then(|| DialledPlace(self.clone(), node_id.clone()))
    }
}

impl Drop for DialledPlace {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

/// Which nodes are welcome, as the engine said last. Who is not is neither dialled
/// nor heard, and its live connections end.
pub(crate) struct Admission {
    registry: Registry,
    refused: Mutex<HashMap<NodeId, bool>>,
    network: Option<Network>,
    changes: watch::Sender<u64>,
}

impl Admission {
    pub(crate) fn new(registry: Registry) -> Self {
        Self {
            registry,
            refused: Mutex::default(),
            network: None,
            changes: watch::Sender::new(0),
        }
    }

    /// The same behind a network that can be cut.
    pub(crate) fn behind(self, network: Option<Network>) -> Self {
        Self { network, ..self }
    }

    /// Ends the connections of peers that the network cuts off, for as long as the node
    /// runs.
    pub(crate) async fn obey_network(self: Arc<Self>) {
        let Some(network) = &self.network else { return };
        let mut changes = network.changes();
        loop {
            let cut = changes.borrow_and_update().cut.clone();
            for node_id in &cut {
                self.registry.cancel_node(node_id);
            }
            self.changes.send_modify(|n| *n += 1);
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether the network lets nothing through to or from this peer.
    pub(crate) fn is_cut(&self, node_id: &NodeId) -> bool {
        let network = self.network.as_ref();
        network.is_some_and(|network| network.is_cut(node_id))
    }

    /// Waits as long as the network is slow.
    pub(crate) async fn linger(&self) {
        if let Some(network) = &self.network {
            network.linger().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, bool>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries the engine's word out. Connections of a node that is not welcome end
    /// once a goodbye that is on its way could leave.
    pub(crate) fn set(&self, node_id: &NodeId, welcome: bool) {
        let was = self.lock().insert(node_id.clone(), !welcome);
        if was == Some(!welcome) {
            return;
        }
        tracing::info!(%node_id, welcome, "peer.admission");
        self.changes.send_modify(|n| *n += 1);
        if !welcome {
            let (registry, node_id) = (self.registry.clone(), node_id.clone());
            tokio::spawn(async move {
                tokio::time::sleep(GOODBYE_TIME).await;
                registry.cancel_node(&node_id);
            });
        }
    }

    pub(crate) fn is_welcome(&self, node_id: &NodeId) -> bool {
        self.lock().get(node_id) != Some(&true) && !self.is_cut(node_id)
    }

    /// Wakes when somebody's welcome changed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_crypto::CachedVerifier;

    fn id(text: &str) -> NodeId {
        NodeId::new(text).unwrap()
    }

    /// Of two that dial each other, exactly one is let through.
    #[tokio::test]
    async fn of_two_that_dial_each_other_the_lower_id_goes_first() {
        let sessions = |own: &str| {
            let (mailbox, _) = Mailbox::new();
            Sessions::new(
                id(own),
                mailbox,
                Prewarmer::new(&[], Arc::new(CachedVerifier::default())),
                Arc::new(Admission::new(Registry::new())),
                Arc::default(),
                std::num::NonZeroU32::MIN,
                CancellationToken::new(),
            )
        };
        let (a, b) = (sessions("a"), sessions("b"));
        // Nobody dials: everybody is let in.
        assert!(!a.goes_first(&id("b")) && !b.goes_first(&id("a")));
        let (to_b, to_a) = (a.dialled.enter(&id("b")), b.dialled.enter(&id("a")));
        assert!(to_b.is_some() && to_a.is_some());
        assert!(a.goes_first(&id("b")) && !b.goes_first(&id("a")));
        // With a stream that stands, a new one takes its place: the peer may have
        // restarted, and the old one not have ended yet.
        a.roster.connected([id("b")].iter());
        assert!(!a.goes_first(&id("b")));
        a.roster.connected([].iter());
        drop(to_b);
        assert!(!a.goes_first(&id("b")));
    }
}
