//! A network that can be hurt: which peers a node reaches, whether it reaches the board,
//! and how slowly. `quorate dev` holds one for each of its nodes; a node in earnest has
//! none.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::NodeId;
use quorate_consensus::wire::{BoardEntry, BoardOp};
use quorate_coordinator::{Coordinator, MemberStatus, StoreError, Tampering};
use quorate_engine::{ProposeError, Proposed};
use tokio::sync::{broadcast, watch};

/// What is wrong with a node's network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hurt {
    /// The peers that it neither reaches nor hears.
    pub cut: BTreeSet<NodeId>,
    /// The board's store is out of reach.
    pub board_away: bool,
    /// How long each frame of a peer, either way, and each request to the board's store
    /// waits. More than a third of the 10 s that a greeting may take lets no stream
    /// stand.
    pub delay: Duration,
}

/// A node's network. Clones are the same network.
#[derive(Clone, Debug)]
pub struct Network(Arc<watch::Sender<Hurt>>);

impl Default for Network {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Hurt::default())))
    }
}

impl Network {
    /// From now on it is so.
    pub fn set(&self, hurt: Hurt) {
        self.0.send_replace(hurt);
    }

    /// How it is now.
    pub fn hurt(&self) -> Hurt {
        self.0.borrow().clone()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<Hurt> {
        self.0.subscribe()
    }

    pub(crate) fn is_cut(&self, peer: &NodeId) -> bool {
        self.0.borrow().cut.contains(peer)
    }

    /// Waits as long as the network is slow.
    pub(crate) async fn linger(&self) {
        let delay = self.0.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }
}

/// The board's store, seen through such a network.
pub(crate) struct Distant {
    inner: Arc<dyn Coordinator>,
    network: Network,
}

impl Distant {
    /// The store as it is, where there is no such network.
    pub(crate) fn over(
        inner: Arc<dyn Coordinator>,
        network: Option<&Network>,
    ) -> Arc<dyn Coordinator> {
        match network.cloned() {
            None => inner,
            Some(network) => Arc::new(Self { inner, network }),
        }
    }

    async fn pass(&self) -> Result<(), StoreError> {
        self.network.linger().await;
        match self.network.0.borrow().board_away {
            true => Err(StoreError::Unavailable("the network is cut".to_owned())),
            false => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl Coordinator for Distant {
    async fn propose(&self, op: BoardOp, now_ms: u64) -> Result<Proposed, ProposeError> {
        self.pass().await?;
        self.inner.propose(op, now_ms).await
    }

    async fn entries(&self, after: u64, limit: usize) -> Result<Vec<BoardEntry>, StoreError> {
        self.pass().await?;
        self.inner.entries(after, limit).await
    }

    async fn head(&self) -> Result<u64, StoreError> {
        self.pass().await?;
        self.inner.head().await
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.inner.watch()
    }

    fn tampering(&self) -> Option<broadcast::Receiver<Tampering>> {
        self.inner.tampering()
    }

    fn backend(&self) -> &'static str {
        self.inner.backend()
    }

    async fn members(&self) -> Vec<MemberStatus> {
        self.inner.members().await
    }
}
