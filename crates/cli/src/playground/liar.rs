//! A liar in a node's place, for as long as it is left there. The lies are the
//! simulator's; here are its streams to the others, and its client, which wants what
//! the others' clients want.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_consensus::statement::{self, VoteBody};
use quorate_consensus::wire::frame;
use quorate_consensus::{Choice, NodeId, Rules, TxId};
use quorate_node::exchange::{RawError, RawSession};
use quorate_sim::liars::{self, Cue, LiarKind, Lie};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::byzantine::Liar;
use crate::output::clock_ms;

/// Each liar tells its plainest lie, so that one run is like the next.
const DICE: u64 = 0;

/// How long a node that is not reached is left alone.
const PAUSE: Duration = Duration::from_millis(500);

/// What may wait on the way to and from one node.
const WAITING: usize = 256;

/// How many transactions the liar remembers having been asked about.
const REMEMBERED: usize = 10_000;

/// Who refused the liar so often goes on refusing it.
const TRIES: usize = 4;

/// A liar at work. It stops when this is dropped.
pub(crate) struct Standing {
    work: JoinHandle<()>,
    settled: watch::Receiver<BTreeSet<NodeId>>,
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.work.abort();
    }
}

impl Standing {
    /// Puts the liar to work among these nodes and their addresses.
    pub(crate) fn start(
        liar: Liar,
        rules: Arc<Rules>,
        nodes: Vec<(NodeId, String)>,
        kind: LiarKind,
    ) -> Self {
        let (report, settled) = watch::channel(BTreeSet::new());
        let work = tokio::spawn(lie(Arc::new(liar), rules, nodes, kind, report));
        Self { work, settled }
    }

    /// Waits until each of these nodes listens to the liar, or refuses to.
    pub(crate) async fn until_settled(&self, with: &[NodeId]) {
        let mut settled = self.settled.clone();
        let all = |settled: &BTreeSet<NodeId>| with.iter().all(|node| settled.contains(node));
        // An end of the liar is an end of the waiting.
        let _ = settled.wait_for(all).await;
    }
}

/// What the liar says to one node.
enum Words {
    Frame(frame::Body),
    Bytes(Vec<u8>),
}

/// What comes from one node.
enum News {
    Met(NodeId),
    Refused(NodeId),
    Heard(NodeId, frame::Body),
}

async fn lie(
    liar: Arc<Liar>,
    rules: Arc<Rules>,
    nodes: Vec<(NodeId, String)>,
    kind: LiarKind,
    report: watch::Sender<BTreeSet<NodeId>>,
) {
    let (tell, mut told) = mpsc::channel(WAITING);
    let mut lines = BTreeMap::new();
    // They end with this set.
    let mut streams = JoinSet::new();
    for (node_id, addr) in nodes {
        let (say, says) = mpsc::channel(WAITING);
        lines.insert(node_id.clone(), say);
        streams.spawn(keep_a_stream(
            liar.clone(),
            node_id,
            addr,
            says,
            tell.clone(),
        ));
    }
    let mut mind = Mind {
        liar,
        rules,
        lies: kind.make(),
        lines,
        asked: BTreeSet::new(),
        since_ms: clock_ms(),
        wake: None,
    };
    mind.cue(Cue::Start);
    loop {
        let wake = mind.wake;
        let woken = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(news) = told.recv() => match news {
                News::Met(peer) => {
                    mind.cue(Cue::Met { peer: &peer });
                    report.send_modify(|settled| {
                        settled.insert(peer);
                    });
                }
                News::Refused(peer) => report.send_modify(|settled| {
                    settled.insert(peer);
                }),
                News::Heard(peer, body) => mind.hear(&peer, &body),
            },
            () = woken => {
                mind.wake = None;
                mind.cue(Cue::Wake);
            }
        }
    }
}

struct Mind {
    liar: Arc<Liar>,
    rules: Arc<Rules>,
    lies: Box<dyn liars::Liar>,
    lines: BTreeMap<NodeId, mpsc::Sender<Words>>,
    asked: BTreeSet<TxId>,
    /// When it took its node's place: what was voted before is none of its business.
    since_ms: u64,
    wake: Option<Instant>,
}

impl Mind {
    /// A vote on a transaction is the first that the liar hears of it: its own client
    /// wants the same.
    fn hear(&mut self, peer: &NodeId, body: &frame::Body) {
        self.cue(Cue::Heard { peer, body });
        for (tx_id, choice) in votes_in(body, self.since_ms) {
            if self.asked.len() >= REMEMBERED {
                self.asked.clear();
            }
            if self.asked.insert(tx_id.clone()) {
                self.cue(Cue::Asked {
                    tx_id: &tx_id,
                    choice: &choice,
                });
            }
        }
    }

    fn cue(&mut self, cue: Cue<'_>) {
        let stage = liars::Stage {
            me: self.liar.node_id(),
            rules: &self.rules,
            now_ms: clock_ms(),
            board: None,
            keys: &*self.liar,
            dice: DICE,
        };
        for lie in self.lies.cue(&stage, cue) {
            let (to, words) = match lie {
                Lie::Say { to, body } => (to, Words::Frame(body)),
                Lie::Garble { to, bytes } => (to, Words::Bytes(bytes)),
                Lie::Wake { in_ms } => {
                    let at = Instant::now() + Duration::from_millis(in_ms);
                    self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
                    continue;
                }
                // Its node owned the store, and the chain key is not a trustee's.
                Lie::Propose { .. } | Lie::Transact { .. } => continue,
            };
            if let Some(line) = self.lines.get(&to) {
                // Who is not reached, or has hung up, misses nothing worth having.
                let _ = line.try_send(words);
            }
        }
    }
}

/// The votes in a frame that were signed since then. Others come when a stream opens, for
/// ballots that are not finished yet.
fn votes_in(body: &frame::Body, since_ms: u64) -> Vec<(TxId, Choice)> {
    let frame::Body::Batch(batch) = body else {
        return Vec::new();
    };
    let signed = batch.votes.iter().filter_map(|vote| vote.vote.as_ref());
    let votes = signed.filter_map(|vote| statement::parse::<VoteBody>(&vote.statement).ok());
    votes
        .filter(|(_, body)| body.time_ms >= since_ms)
        .map(|(_, body)| (body.tx_id.clone(), body.choice.clone()))
        .collect()
}

/// Keeps a stream to one node, for as long as that node talks to the liar.
async fn keep_a_stream(
    liar: Arc<Liar>,
    peer: NodeId,
    addr: String,
    mut says: mpsc::Receiver<Words>,
    tell: mpsc::Sender<News>,
) {
    let mut refused = 0;
    loop {
        if let Ok(mut session) = liar.session(&addr).await {
            refused = 0;
            // What was said before was said to nobody.
            while says.try_recv().is_ok() {}
            if tell.send(News::Met(peer.clone())).await.is_err() {
                return;
            }
            talk(&mut session, &peer, &mut says, &tell).await;
        } else {
            refused += 1;
            if refused == TRIES && tell.send(News::Refused(peer.clone())).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn talk(
    session: &mut RawSession,
    peer: &NodeId,
    says: &mut mpsc::Receiver<Words>,
    tell: &mpsc::Sender<News>,
) {
    loop {
        tokio::select! {
            words = says.recv() => {
                let sent = match words {
                    Some(Words::Frame(body)) => session.send(body).await,
                    Some(Words::Bytes(bytes)) => session.send_bytes(bytes).await,
                    None => return,
                };
                if sent.is_err() {
                    return;
                }
            }
            heard = session.receive() => match heard {
                Ok(body) => {
                    if tell.send(News::Heard(peer.clone(), body)).await.is_err() {
                        return;
                    }
                }
                Err(RawError::TimedOut | RawError::Unexpected(_)) => {}
                Err(_) => return,
            },
        }
    }
}
