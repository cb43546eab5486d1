//! Holds this node's clock against its peers'. A node whose clock is far off would sign
//! times that nobody believes, and write times on the board that everybody has to wait
//! for; so it takes no votes and proposes nothing until its clock is set, and says so.
//!
//! One peer's clock proves nothing: the node's own is off when more than half of the
//! clocks that it could read say so, and it could read two of them, or that of everybody
//! else in a cluster of two.

use std::collections::{BTreeMap, BTreeSet};
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
use crate::exchange::Roster;

/// Every answer of a node carries its wall clock under this name: milliseconds since the
/// Unix epoch, in decimal.
pub(crate) const HEADER: &str = "quorate-time-ms";

/// How often each peer's clock is read.
const EVERY: Duration = Duration::from_secs(60);

/// How soon a clock that could not be read is tried again when somebody has moved.
const SOON: Duration = Duration::from_millis(200);

/// How long one reading may take.
const READING: Duration = Duration::from_secs(5);

/// How long after the start proposals wait for a first reading.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// How long after the start they wait for a second reading when the first one says that
/// this clock is off.
const SECOND_LOOK: Duration = Duration::from_secs(5);

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

/// Where the peers are.
pub(crate) struct Whereabouts {
    /// All members but this node.
    pub(crate) members: Vec<NodeId>,
    /// As configured.
    pub(crate) bootstrap: Vec<PeerAddress>,
    /// As learned.
    pub(crate) roster: Arc<Roster>,
}

/// What was read from the peers.
#[derive(Debug)]
pub(crate) struct PeerClocks {
    clock: Clock,
    allowed_ms: u64,
    /// All members but this node.
    members: BTreeSet<NodeId>,
    /// So many clocks must have been read before they are believed.
    least: usize,
    readings: Mutex<BTreeMap<NodeId, Reading>>,
    /// Configured peers that were not looked at yet; none once a clock was read.
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

impl Reading {
    /// How far this clock is ahead of the peer's by now, when its base is this.
    fn now_ms(&self, base_ms: i64) -> i64 {
        self.ahead_ms + (base_ms - self.base_ms)
    }
}

impl PeerClocks {
    /// Begins to read the clocks of these peers.
    pub(crate) fn start(
        clock: Clock,
        allowed_ms: u64,
        tls: &Arc<ClientTls>,
        peers: Whereabouts,
        stopping: &CancellationToken,
    ) -> Arc<Self> {
        let Whereabouts {
            members,
            bootstrap,
            roster,
        } = peers;
        let unseen = bootstrap.len();
        let clocks = Arc::new(Self::new(
            clock,
            allowed_ms,
            members.iter().cloned(),
            unseen,
        ));
        for member in members {
            let of_member = |peer: &&PeerAddress| peer.node_id.as_ref() == Some(&member);
            let configured = bootstrap.iter().find(of_member).cloned();
            let reads = clocks
                .clone()
                .follow(tls.clone(), member, configured, roster.clone());
            tokio::spawn(stopping.clone().run_until_cancelled_owned(reads));
        }
        for peer in bootstrap.into_iter().filter(|peer| peer.node_id.is_none()) {
            let reads = clocks.clone().ask(tls.clone(), peer);
            tokio::spawn(stopping.clone().run_until_cancelled_owned(reads));
        }
        clocks
    }

    fn new(
        clock: Clock,
        allowed_ms: u64,
        members: impl IntoIterator<Item = NodeId>,
        unseen: usize,
    ) -> Self {
        let members: BTreeSet<_> = members.into_iter().collect();
        Self {
            clock,
            allowed_ms,
            least: members.len().min(2),
            members,
            readings: Mutex::default(),
            unseen: watch::Sender::new(unseen),
        }
    }

    /// Reads a member's clock again and again, wherever it is.
    async fn follow(
        self: Arc<Self>,
        tls: Arc<ClientTls>,
        member: NodeId,
        configured: Option<PeerAddress>,
        roster: Arc<Roster>,
    ) {
        let mut changes = roster.changes();
        let mut is_first = configured.is_some();
        loop {
            changes.borrow_and_update();
            let learned = roster.learned(&member);
            let learned = learned.map(|at| PeerAddress::at(&member, &at));
            let is_read = match learned.as_ref().or(configured.as_ref()) {
                Some(address) => self.look(&tls, address).await,
                None => false,
            };
            if std::mem::take(&mut is_first) {
                self.seen();
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                // The roster outlives whoever reads it.
                _ = changes.changed(), if !is_read => tokio::time::sleep(SOON).await,
            }
        }
    }

    /// Reads the clock of whoever answers at an address, again and again.
    async fn ask(self: Arc<Self>, tls: Arc<ClientTls>, address: PeerAddress) {
        self.look(&tls, &address).await;
        self.seen();
        loop {
            tokio::time::sleep(EVERY).await;
            self.look(&tls, &address).await;
        }
    }

    /// One of the configured peers was looked at.
    fn seen(&self) {
        self.unseen.send_modify(|n| *n = n.saturating_sub(1));
    }

    /// Reads one peer's clock; one that cannot be read says nothing.
    async fn look(&self, tls: &Arc<ClientTls>, peer: &PeerAddress) -> bool {
        match tokio::time::timeout(READING, self.read(tls, peer)).await {
            Ok(Ok(())) => return true,
            Ok(Err(why)) => tracing::debug!(%peer, why, "peer.clock_unread"),
            Err(_) => tracing::debug!(%peer, "peer.clock_unread"),
        }
        false
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
        self.note(node_id, signed(middle) - signed(theirs))
    }

    /// Believes a clock, if it is another member's: an address may lead to this node
    /// itself, and a clock agrees with itself.
    fn note(&self, node_id: NodeId, ahead_ms: i64) -> Result<(), String> {
        if !self.members.contains(&node_id) {
            return Err(format!("{node_id} is no other member"));
        }
        let base_ms = self.base_ms();
        let reading = Reading { ahead_ms, base_ms };
        self.readings().insert(node_id, reading);
        self.unseen.send_replace(0);
        Ok(())
    }

    fn base_ms(&self) -> i64 {
        let now = self.clock.now();
        signed(now.wall_ms) - signed(now.mono_ms)
    }

    /// Waits until some peer's clock was read, or none can be, and for another one where
    /// that says that this clock is off; but not for long.
    pub(crate) async fn looked(&self) {
        if self.left(SECOND_LOOK).is_zero() {
            // Every proposal comes by here, and nothing is waited for any more.
            return;
        }
        let mut unseen = self.unseen.subscribe();
        // Who cannot be reached says nothing.
        let first = unseen.wait_for(|unseen| *unseen == 0);
        let _ = tokio::time::timeout(self.left(FIRST_LOOK), first).await;
        let second = unseen.wait_for(|_| !self.is_doubtful());
        let _ = tokio::time::timeout(self.left(SECOND_LOOK), second).await;
    }

    /// What is left of a time since the start.
    fn left(&self, of: Duration) -> Duration {
        of.saturating_sub(Duration::from_millis(self.clock.now().mono_ms))
    }

    /// Too few clocks were read to be believed, and one says that this one is off.
    fn is_doubtful(&self) -> bool {
        let readings = self.readings();
        let base_ms = self.base_ms();
        let mut readings_off = readings.values().filter(|r| self.is_off(r.now_ms(base_ms)));
        readings.len() < self.least && readings_off.next().is_some()
    }

    fn is_off(&self, ahead_ms: i64) -> bool {
        ahead_ms.unsigned_abs() > self.allowed_ms
    }

    /// How far off this clock is, if more than half of the peers' say so.
    pub(crate) fn off(&self) -> Option<ClockOff> {
        let base_ms = self.base_ms();
        let readings = self.readings();
        let mut off: Vec<(i64, &NodeId)> = readings
            .iter()
            .map(|(peer, reading)| (reading.now_ms(base_ms), peer))
            .filter(|(ahead, _)| self.is_off(*ahead))
            .collect();
        if readings.len() < self.least || off.len() * 2 <= readings.len() {
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

    fn id(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    /// Of a node that has so many others beside it.
    fn clocks(others: usize, readings: &[(&str, i64)]) -> PeerClocks {
        let members = ["a", "b", "c", "d"].map(id);
        let members = members.into_iter().take(others);
        let clocks = PeerClocks::new(Clock::start(0), 30_000, members, 0);
        for (peer, ahead) in readings {
            clocks.note(id(peer), *ahead).unwrap();
        }
        clocks
    }

    #[tokio::test]
    async fn an_own_clock_and_a_strangers_say_nothing() {
        let clocks = clocks(1, &[]);
        for stranger in ["self", "b"] {
            clocks.note(id(stranger), 0).unwrap_err();
        }
        clocks.note(id("a"), 300_000).unwrap();
        assert!(clocks.off().is_some(), "two agree with this clock");
    }

    #[tokio::test]
    async fn more_than_half_of_the_clocks_must_disagree_with_ours() {
        let minutes = 300_000;
        let tried: [(&[(&str, i64)], bool); 7] = [
            (&[], false),
            (&[("a", 5_000), ("b", -5_000)], false),
            // One alone proves nothing.
            (&[("a", minutes)], false),
            // Two that say opposite things, or one liar among three.
            (&[("a", minutes), ("b", 0)], false),
            (&[("a", minutes), ("b", 0), ("c", 10)], false),
            (&[("a", minutes), ("b", minutes), ("c", 0)], true),
            (&[("a", -minutes), ("b", -minutes)], true),
        ];
        for (readings, off) in tried {
            assert_eq!(clocks(4, readings).off().is_some(), off, "{readings:?}");
        }
        assert!(
            clocks(1, &[("a", minutes)]).off().is_some(),
            "there is no other"
        );
        let ahead = clocks(4, &[("a", minutes), ("b", minutes + 100), ("c", 0)]);
        let told = ahead.off().unwrap().to_string();
        assert!(
            told.starts_with("this node's clock is 300.1 s ahead of a's and b's, and 30 s"),
            "{told}"
        );
        let behind = clocks(1, &[("a", -minutes)]).off().unwrap().to_string();
        assert!(behind.contains("300.0 s behind a's"), "{behind}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_proposed_waits_for_a_first_and_a_second_look_and_never_later() {
        let waits = async |clocks: &PeerClocks| {
            let began = tokio::time::Instant::now();
            clocks.looked().await;
            began.elapsed().as_millis()
        };
        // Nobody was looked at yet; and of a second look there is no need.
        let members = ["a", "b", "c", "d"].map(id);
        let unseen = PeerClocks::new(Clock::start(0), 30_000, members, 1);
        assert!((1_000..1_010).contains(&waits(&unseen).await));
        // One was, and its clock says that ours is off.
        unseen.note(id("a"), 300_000).unwrap();
        assert!((3_900..4_010).contains(&waits(&unseen).await));
        assert!(unseen.is_doubtful());
        assert_eq!(waits(&unseen).await, 0);
        // In time: a second one that agrees with ours.
        let doubtful = clocks(4, &[("a", 300_000)]);
        let second = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            doubtful.note(id("b"), 0).unwrap();
        };
        let (waited, ()) = tokio::join!(waits(&doubtful), second);
        assert!((2_000..2_010).contains(&waited));
        assert_eq!(waits(&doubtful).await, 0);
    }

    #[tokio::test]
    async fn a_clock_that_is_set_is_seen_without_a_new_reading() {
        let clocks = clocks(4, &[("a", 300_000), ("b", 300_000)]);
        assert!(clocks.off().is_some());
        // As if this clock had been set back by five minutes since.
        for reading in clocks.readings().values_mut() {
            reading.base_ms += 300_000;
        }
        assert!(clocks.off().is_none());
    }
}
