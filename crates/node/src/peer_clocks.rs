//! Holds this node's clock against its peers'. A node whose clock is far off would sign
//! times that nobody believes, and write times on the board that everybody has to wait
//! for; so it takes no votes and proposes nothing until its clock is set, and says so.
//!
//! One peer's clock proves nothing: the node's own is off when more than half of the
//! clocks that it could read say so.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_consensus::NodeId;
use quorate_consensus::wire::{BoardEntry, BoardOp};
use quorate_coordinator::{Coordinator, MemberStatus, StoreError, Tampering};
use quorate_engine::{ProposeError, Proposed};
use quorate_tls::{ClientTls, DialOptions, ExpectedPeer, Registry, dial};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::clock::Clock;
use crate::config::PeerAddress;

/// Every answer of a node carries its wall clock under this name: milliseconds since the
/// Unix epoch, in decimal.
pub(crate) const HEADER: &str = "quorate-time-ms";

/// How often each peer's clock is read.
const EVERY: Duration = Duration::from_secs(60);

/// How long one reading may take.
const READING: Duration = Duration::from_secs(5);

/// How long the first proposal waits for a first reading.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// This node's clock is too far from its peers'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClockOff {
    /// Ahead of the peers' in the middle, in milliseconds; negative when behind.
    ahead_ms: i64,
    /// Whose clocks say so.
    peers: Vec<NodeId>,
    allowed_ms: u64,
}

impl fmt::Display for ClockOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = self.ahead_ms.unsigned_abs() / 100;
        let side = match self.ahead_ms < 0 {
            true => "behind",
            false => "ahead of",
        };
        let peers: Vec<&str> = self.peers.iter().map(NodeId::as_str).collect();
        write!(
            f,
            "this node's clock is {}.{} s {side} {}'s, and {} s are allowed: set it (NTP, chrony)",
            tenths / 10,
            tenths % 10,
            peers.join("'s and "),
            self.allowed_ms / 1000
        )
    }
}

/// What was read from the peers.
#[derive(Debug)]
pub(crate) struct PeerClocks {
    clock: Clock,
    allowed_ms: u64,
    readings: Mutex<BTreeMap<NodeId, Reading>>,
    /// Peers that were not looked at yet; none once a clock was read.
    unseen: watch::Sender<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    /// This clock less the peer's, in milliseconds.
    ahead_ms: i64,
    /// This wall clock less this monotonic one, when that was read: so it shows when
    /// this clock is set.
    base_ms: i64,
}

impl PeerClocks {
    /// Begins to read the clocks of these peers.
    pub(crate) fn start(
        clock: Clock,
        allowed_ms: u64,
        tls: &Arc<ClientTls>,
        peers: &[PeerAddress],
        stopping: &CancellationToken,
    ) -> Arc<Self> {
        let clocks = Arc::new(Self::new(clock, allowed_ms, peers.len()));
        for peer in peers {
            let (clocks, tls, peer) = (clocks.clone(), tls.clone(), peer.clone());
            tokio::spawn(stopping.clone().run_until_cancelled_owned(async move {
                clocks.look(&tls, &peer).await;
                clocks.unseen.send_modify(|n| *n = n.saturating_sub(1));
                loop {
                    tokio::time::sleep(EVERY).await;
                    clocks.look(&tls, &peer).await;
                }
            }));
        }
        clocks
    }

    fn new(clock: Clock, allowed_ms: u64, peers: usize) -> Self {
        Self {
            clock,
            allowed_ms,
            readings: Mutex::default(),
            unseen: watch::Sender::new(peers),
        }
    }

    /// Reads one peer's clock; one that cannot be read says nothing.
    async fn look(&self, tls: &Arc<ClientTls>, peer: &PeerAddress) {
        match tokio::time::timeout(READING, self.read(tls, peer)).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => tracing::debug!(%peer, why, "peer.clock_unread"),
            Err(_) => tracing::debug!(%peer, "peer.clock_unread"),
        }
    }

    async fn read(&self, tls: &Arc<ClientTls>, peer: &PeerAddress) -> Result<(), String> {
        let host_port = PeerAddress {
            node_id: None,
            ..peer.clone()
        };
        let expected = ExpectedPeer {
            node_id: peer.node_id.clone(),
            server_name: None,
        };
        let (registry, options) = (Registry::new(), DialOptions::default());
        let host_port = host_port.to_string();
        let dialled = dial(tls, &host_port, expected, &registry, options).await;
        let dialled = dialled.map_err(|e| e.to_string())?;
        let node_id = dialled.peer.identity.node_id.clone();
        let asked = self.clock.wall_ms();
        let answer = HealthClient::new(dialled.channel)
            .check(HealthCheckRequest::default())
            .await;
        let answered = self.clock.wall_ms();
        dialled.peer.cancel.cancel();
        // Also a refusal says what time it is.
        let metadata = match &answer {
            Ok(answer) => answer.metadata(),
            Err(status) => status.metadata(),
        };
        let theirs = metadata.get(HEADER).and_then(|value| value.to_str().ok());
        let theirs: u64 = theirs
            .and_then(|text| text.parse().ok())
            .ok_or("it does not tell its time")?;
        let middle = asked / 2 + answered / 2;
        self.note(node_id, signed(middle) - signed(theirs));
        Ok(())
    }

    fn note(&self, node_id: NodeId, ahead_ms: i64) {
        let base_ms = self.base_ms();
        let reading = Reading { ahead_ms, base_ms };
        self.readings().insert(node_id, reading);
        self.unseen.send_replace(0);
    }

    fn base_ms(&self) -> i64 {
        let now = self.clock.now();
        signed(now.wall_ms) - signed(now.mono_ms)
    }

    /// Waits until some peer's clock was read, or none can be, but not for long.
    pub(crate) async fn looked(&self) {
        let mut unseen = self.unseen.subscribe();
        let left = FIRST_LOOK.saturating_sub(Duration::from_millis(self.clock.now().mono_ms));
        let seen = unseen.wait_for(|unseen| *unseen == 0);
        // Who cannot be reached says nothing.
        let _ = tokio::time::timeout(left, seen).await;
    }

    /// How far off this clock is, if more than half of the peers' say so.
    pub(crate) fn off(&self) -> Option<ClockOff> {
        let base_ms = self.base_ms();
        let readings = self.readings();
        let ahead = |reading: &Reading| reading.ahead_ms + (base_ms - reading.base_ms);
        let mut off: Vec<(i64, &NodeId)> = readings
            .iter()
            .map(|(peer, reading)| (ahead(reading), peer))
            .filter(|(ahead, _)| ahead.unsigned_abs() > self.allowed_ms)
            .collect();
        if off.len() * 2 <= readings.len() {
            return None;
        }
        off.sort_unstable();
        let (ahead_ms, _) = *off.get(off.len() / 2)?;
        let peers = off.into_iter().map(|(_, peer)| peer.clone()).collect();
        Some(ClockOff {
            ahead_ms,
            peers,
            allowed_ms: self.allowed_ms,
        })
    }

    fn readings(&self) -> MutexGuard<'_, BTreeMap<NodeId, Reading>> {
        // A panic leaves whole readings.
        self.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX / 4)
}

/// A coordinator to which nothing is proposed while this node's clock is off: the
/// board's time never runs backwards, so one wrong time holds up everybody.
pub(crate) struct InTime {
    pub(crate) inner: Arc<dyn Coordinator>,
    pub(crate) clocks: Arc<PeerClocks>,
}

#[tonic::async_trait]
impl Coordinator for InTime {
    async fn propose(&self, op: BoardOp, now_ms: u64) -> Result<Proposed, ProposeError> {
        self.clocks.looked().await;
        match self.clocks.off() {
            Some(off) => Err(ProposeError::Unavailable(off.to_string())),
            None => self.inner.propose(op, now_ms).await,
        }
    }

    async fn entries(&self, after: u64, limit: usize) -> Result<Vec<BoardEntry>, StoreError> {
        self.inner.entries(after, limit).await
    }

    async fn head(&self) -> Result<u64, StoreError> {
        self.inner.head().await
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.inner.watch()
    }

    fn backend(&self) -> &'static str {
        self.inner.backend()
    }

    fn tampering(&self) -> Option<broadcast::Receiver<Tampering>> {
        self.inner.tampering()
    }

    async fn members(&self) -> Vec<MemberStatus> {
        self.inner.members().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clocks(readings: &[(&str, i64)]) -> PeerClocks {
        let clocks = PeerClocks::new(Clock::start(0), 30_000, 0);
        for (peer, ahead) in readings {
            clocks.note(NodeId::new(peer).unwrap(), *ahead);
        }
        clocks
    }

    #[tokio::test]
    async fn more_than_half_of_the_clocks_must_disagree_with_ours() {
        let minutes = 300_000;
        let tried: [(&[(&str, i64)], bool); 7] = [
            (&[], false),
            (&[("a", 5_000), ("b", -5_000)], false),
            (&[("a", minutes)], true),
            // Two that say opposite things, or one liar among three.
            (&[("a", minutes), ("b", 0)], false),
            (&[("a", minutes), ("b", 0), ("c", 10)], false),
            (&[("a", minutes), ("b", minutes), ("c", 0)], true),
            (&[("a", -minutes), ("b", -minutes)], true),
        ];
        for (readings, off) in tried {
            assert_eq!(clocks(readings).off().is_some(), off, "{readings:?}");
        }
        let ahead = clocks(&[("a", minutes), ("b", minutes + 100), ("c", 0)]);
        let told = ahead.off().unwrap().to_string();
        assert!(
            told.starts_with("this node's clock is 300.1 s ahead of a's and b's, and 30 s"),
            "{told}"
        );
        let behind = clocks(&[("a", -minutes)]).off().unwrap().to_string();
        assert!(behind.contains("300.0 s behind a's"), "{behind}");
    }

    #[tokio::test]
    async fn a_clock_that_is_set_is_seen_without_a_new_reading() {
        let clocks = clocks(&[("a", 300_000), ("b", 300_000)]);
        assert!(clocks.off().is_some());
        // As if this clock had been set back by five minutes since.
        for reading in clocks.readings().values_mut() {
            reading.base_ms += 300_000;
        }
        assert!(clocks.off().is_none());
    }
}
