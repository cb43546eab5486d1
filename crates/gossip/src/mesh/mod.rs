//! The machine of one node. It is fed what comes ([`Mesh::peer_up`], [`Mesh::arrived`],
//! [`Mesh::announced`] …), is woken at [`Mesh::next_wake`], and says through
//! [`Mesh::take_outputs`] what is to be sent.
//!
//! | heard | done |
//! |---|---|
//! | a new message, from anybody | kept; pushed to the mesh, but not to those that have it (one of this node's own to some others too); announced in each round to a few that are not in the mesh |
//! | a known one | its sender is known to have it |
//! | an announcement | what is not known is waited for a moment, then requested of the announcer with the best score, then of the next one |
//! | a request | what is kept is sent, up to a quota |
//! | a graft | taken into the mesh, and told of the latest messages; pruned at once when the score is below the floor, the backoff not over, or the mesh full of peers that are of use |
//! | a prune | out of the mesh for as long as it says |
//! | a heartbeat | scores one step nearer to nothing; who is below the floor, or says nothing while others do, is pruned; one peer is grafted while there are too few |

mod tend;

use std::collections::{BTreeMap, BTreeSet};

use crate::cache::{Cache, New};
use crate::params::{MessageId, Params};
use crate::peers::{Peer, Peers};
use crate::rng::Rng;
use crate::wants::Wants;

/// For a message that this peer brought first.
const FIRST: i32 = 1;

/// For a message that it announced and has not delivered when it was asked.
const BROKEN_PROMISE: i32 = -1;

/// The least share of an author in what is kept.
const SHARE_LEAST: usize = 16;

/// What is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output<P, M> {
    /// Messages.
    Send {
        /// To whom.
        to: P,
        /// In this order.
        messages: Vec<M>,
    },
    /// "I have these."
    Announce {
        /// To whom.
        to: P,
        /// Their ids.
        ids: Vec<MessageId>,
    },
    /// "Send me these."
    Request {
        /// Of whom.
        to: P,
        /// Their ids.
        ids: Vec<MessageId>,
    },
    /// "You are in my mesh: push to me what is new, as I do to you."
    Graft {
        /// To whom.
        to: P,
    },
    /// "You are not in my mesh any more."
    Prune {
        /// To whom.
        to: P,
        /// Not to graft for so long, in milliseconds.
        backoff_ms: u64,
    },
}

/// What was said and heard since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Copies of messages that were pushed to the mesh.
    pub pushed: u64,
    /// Messages that were sent on request.
    pub served: u64,
    /// Copies that came of messages that were known.
    pub duplicates: u64,
    /// Ids that were announced, to each peer.
    pub announced: u64,
    /// Ids that were requested.
    pub requested: u64,
    /// Requests that were not answered in time.
    pub unanswered: u64,
}

/// How much a mesh holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Peers in the mesh.
    pub degree: usize,
    /// Messages that may be requested.
    pub kept: usize,
    /// Their bytes.
    pub kept_bytes: usize,
    /// Ids that are remembered.
    pub seen: usize,
    /// Ids that were announced and have not come.
    pub wanted: usize,
}

/// One node's part in the mesh. `P` names peers, `M` is a message.
#[derive(Clone, Debug)]
pub struct Mesh<P, M> {
    params: Params,
    rng: Rng,
    peers: Peers<P>,
    cache: Cache<P, M>,
    wants: Wants<P>,
    heartbeat_ms: Option<u64>,
    /// How many messages of each author went on since the last heartbeat.
    relayed: BTreeMap<P, u32>,
    /// What is to be sent, put together for each peer.
    sends: BTreeMap<P, Vec<M>>,
    outputs: Vec<Output<P, M>>,
    counts: Counts,
}

impl<P: Clone + Ord, M: Clone> Mesh<P, M> {
    /// A node that knows nobody yet. The seed decides whom it picks, and need not be
    /// secret: it should differ from node to node.
    pub fn new(params: Params, seed: u64) -> Self {
        Self {
            params,
            rng: Rng::new(seed),
            peers: Peers::new(),
            cache: Cache::new(),
            wants: Wants::new(),
            heartbeat_ms: None,
            relayed: BTreeMap::new(),
            sends: BTreeMap::new(),
            outputs: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Mixes chance that nobody else knows into what is picked from now on.
    pub fn stir(&mut self, chance: u64) {
        self.rng.stir(chance);
    }

    /// A peer can be spoken with. Call it for members only: what is known of a peer
    /// stays when its stream ends. A `fresh` one knows nothing of this node: it has
    /// started anew. One that was away for a short time has its place in the mesh still.
    /// Whoever may have missed something is told of the latest messages: a peer in the
    /// mesh, and anybody who was away for long.
    pub fn peer_up(&mut self, now_ms: u64, peer: P, fresh: bool) {
        let known = self.peers.entry(peer.clone()).or_default();
        let short = known.up(fresh, self.params.patience);
        if known.is_in_mesh() || !short {
            self.catch_up(&peer);
        }
        let small = self.degree() < self.params.degree_least;
        let hurry = small.then_some(now_ms + self.params.tick_ms);
        let soon = now_ms + self.params.heartbeat_ms;
        let beats = [self.heartbeat_ms, hurry, Some(soon)];
        self.heartbeat_ms = beats.into_iter().flatten().min();
    }

    /// A peer can be spoken with no more.
    pub fn peer_down(&mut self, peer: &P) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.connected = false;
        }
        self.sends.remove(peer);
    }

    /// A message came from a peer; whether it is any good is not known yet. True when
    /// it was seen before. Call it for each one that comes, before [`Self::accept`], [`Self::remember`] or [`Self::postpone`].
    pub fn arrived(&mut self, from: &P, id: &MessageId) -> bool {
        let known = self.cache.has_seen(id);
        if let Some(peer) = self.peers.get_mut(from) {
            peer.delivered = peer.delivered.saturating_add(1);
        }
        if known {
            self.counts.duplicates += 1;
            self.cache.known_by(&self.params, id, from);
        }
        known
    }

    /// A message was found good and is to go on: one of this node's own, or one that
    /// came from a peer. One that was seen before goes nowhere; nor does, until the next
    /// heartbeat, one of an author that has sent too many.
    pub fn accept(
        &mut self,
        now_ms: u64,
        from: Option<&P>,
        id: MessageId,
        author: P,
        message: M,
        bytes: usize,
    ) {
        if self.cache.has_seen(&id) {
            return;
        }
        if from.is_some() {
            let relayed = self.relayed.entry(author.clone()).or_default();
            if *relayed >= self.params.relayed_of_author {
                self.postpone(&id);
                return;
            }
            *relayed += 1;
        }
        self.settle(now_ms, from, id);
        let mut known_by: BTreeSet<P> = self.wants.came(&id).into_iter().collect();
        known_by.extend(from.cloned());
        known_by.insert(author.clone());
        for to in self.eager(from.is_none()) {
            if !known_by.contains(&to) {
                self.counts.pushed += 1;
                self.sends.entry(to).or_default().push(message.clone());
            }
        }
        let share = self.share();
        let new = New {
            id,
            author,
            message,
            bytes,
            known_by,
        };
        self.cache.keep(&self.params, now_ms, share, new);
    }

    /// A message was found good, but nobody needs it any more: it is not asked for
    /// again, and goes nowhere.
    pub fn remember(&mut self, now_ms: u64, from: &P, id: MessageId) {
        if !self.cache.has_seen(&id) {
            self.settle(now_ms, Some(from), id);
            self.wants.came(&id);
        }
    }

    /// A message cannot be judged yet: it is not asked for until it is announced again.
    pub fn postpone(&mut self, id: &MessageId) {
        self.wants.came(id);
    }

    fn settle(&mut self, now_ms: u64, from: Option<&P>, id: MessageId) {
        self.cache.see(&self.params, now_ms, id);
        if let Some(from) = from {
            for peer in self.peers.values_mut().filter(|peer| peer.is_in_mesh()) {
                peer.passed = peer.passed.saturating_add(1);
            }
            if let Some(peer) = self.peers.get_mut(from) {
                peer.add(FIRST);
            }
        }
    }

    /// Announces messages that still matter, however old, at once to the mesh and to a
    /// few others. What is kept no more is kept anew.
    pub fn remind(&mut self, now_ms: u64, messages: Vec<(MessageId, P, M, usize)>) {
        if messages.is_empty() {
            return;
        }
        let share = self.share();
        let mut ids = Vec::with_capacity(messages.len());
        for (id, author, message, bytes) in messages {
            self.cache.see(&self.params, now_ms, id);
            let known_by = BTreeSet::from([author.clone()]);
            let new = New {
                id,
                author,
                message,
                bytes,
                known_by,
            };
            self.cache.keep(&self.params, now_ms, share, new);
            if self.cache.message(&id).is_some() {
                ids.push(id);
            }
        }
        let mut to = self.mesh_peers();
        to.extend(self.lazy(self.params.lazy_most));
        for peer in to {
            self.announce(peer, &ids);
        }
    }

    /// A peer may have missed what was sent to it: it is told of the latest messages.
    pub fn catch_up(&mut self, peer: &P) {
        let latest = self.cache.latest(self.params.ids_in_frame);
        let unknown = |id: &MessageId| !self.cache.is_known_by(id, peer);
        let ids: Vec<_> = latest.into_iter().filter(unknown).collect();
        if self.peers.get(peer).is_some_and(|peer| peer.connected) {
            self.announce(peer.clone(), &ids);
        }
    }

    /// A peer says that it has these.
    pub fn announced(&mut self, now_ms: u64, from: &P, ids: &[MessageId]) {
        let Some(peer) = self.peers.get(from) else {
            return;
        };
        let believed = peer.is_good();
        for id in ids.iter().take(self.params.ids_in_frame) {
            if self.cache.has_seen(id) {
                self.cache.known_by(&self.params, id, from);
            } else if believed {
                let peers = &self.peers;
                let score = |peer: &P| peers.get(peer).map_or(0, Peer::score);
                self.wants.announced(&self.params, now_ms, *id, from, score);
            }
        }
    }

    /// A peer asks for these. What it gets between two heartbeats is bounded.
    pub fn requested(&mut self, from: &P, ids: &[MessageId]) {
        let most = self.params.served_to_peer;
        let Some(peer) = self.peers.get_mut(from).filter(|peer| peer.connected) else {
            return;
        };
        for id in ids.iter().take(self.params.ids_in_frame) {
            if peer.served >= most {
                break;
            }
            if let Some(message) = self.cache.message(id) {
                peer.served += 1;
                self.counts.served += 1;
                let sends = self.sends.entry(from.clone()).or_default();
                sends.push(message.clone());
            }
        }
    }

    /// When to come back with [`Self::tick`]; none while nobody is there and nothing is
    /// kept.
    pub fn next_wake(&self) -> Option<u64> {
        let due = [
            self.heartbeat_ms,
            self.cache.next_due(),
            self.wants.next_due(),
        ];
        due.into_iter().flatten().min()
    }

    /// Time passed.
    pub fn tick(&mut self, now_ms: u64) {
        self.pull(now_ms);
        let ids = self.cache.due(now_ms);
        if !ids.is_empty() {
            self.announce_news(&ids);
        }
        if self.heartbeat_ms.is_some_and(|at| at <= now_ms) {
            self.heartbeat(now_ms);
        }
    }

    /// What is to be sent since the last call, in order; what goes to one peer is put
    /// together.
    pub fn take_outputs(&mut self) -> Vec<Output<P, M>> {
        let sends = std::mem::take(&mut self.sends).into_iter();
        let sends = sends.map(|(to, messages)| Output::Send { to, messages });
        let mut outputs: Vec<_> = sends.collect();
        outputs.append(&mut self.outputs);
        outputs
    }

    /// What was said and heard since the start.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How much is held now.
    pub fn load(&self) -> Load {
        Load {
            degree: self.degree(),
            kept: self.cache.len(),
            kept_bytes: self.cache.bytes(),
            seen: self.cache.seen(),
            wanted: self.wants.len(),
        }
    }

    /// The peers in the mesh, ascending.
    pub fn mesh_peers(&self) -> Vec<P> {
        self.those(Peer::is_in_mesh)
    }

    /// The score of a peer; 0 for one that was never met.
    pub fn score(&self, peer: &P) -> i32 {
        self.peers.get(peer).map_or(0, Peer::score)
    }

    fn those(&self, which: impl Fn(&Peer) -> bool) -> Vec<P> {
        let those = self.peers.iter().filter(|(_, peer)| which(peer));
        those.map(|(peer, _)| peer.clone()).collect()
    }

    fn degree(&self) -> usize {
        self.peers.values().filter(|peer| peer.is_in_mesh()).count()
    }

    /// An author's share in what is kept.
    fn share(&self) -> usize {
        let authors = self.peers.len() + 1;
        (self.params.cache_most / authors).max(SHARE_LEAST)
    }

    /// Whom news is pushed to: the mesh, and others while that is too small. What is
    /// this node's own goes to others too, lest a mesh of liars keep it back.
    fn eager(&mut self, own: bool) -> Vec<P> {
        let mut to = self.mesh_peers();
        let wanted = if own {
            self.params.degree_most
        } else if to.len() < self.params.degree_least {
            self.params.degree
        } else {
            0
        };
        to.extend(self.lazy(wanted.saturating_sub(to.len())));
        to
    }

    /// So many peers outside the mesh.
    fn lazy(&mut self, count: usize) -> Vec<P> {
        let others = self.those(|peer| peer.connected && !peer.is_in_mesh());
        self.rng.pick(others, count)
    }

    /// Tells a few peers what is new: the more there is to tell, the more peers, so
    /// that a lone message costs one announcement in each round.
    fn announce_news(&mut self, ids: &[MessageId]) {
        let count = 1 + ids.len() / self.params.ids_per_peer.max(1);
        let mut to = self.lazy(count.min(self.params.lazy_most));
        if to.is_empty() {
            to = self.mesh_peers();
        }
        for peer in to {
            let unknown = |id: &&MessageId| !self.cache.is_known_by(id, &peer);
            let mut news: Vec<_> = ids.iter().filter(unknown).copied().collect();
            if !news.is_empty() {
                let room = self.params.recent_in_frame.saturating_sub(news.len());
                let older = self.cache.recent().filter(|id| !ids.contains(id));
                news.extend(
                    older
                        .filter(unknown)
                        .copied()
                        .take(room)
                        .collect::<Vec<_>>(),
                );
            }
            self.announce(peer, &news);
        }
        self.cache.announced(&self.params, ids);
    }

    fn announce(&mut self, to: P, ids: &[MessageId]) {
        self.counts.announced += ids.len() as u64;
        for ids in ids.chunks(self.params.ids_in_frame.max(1)) {
            self.outputs.push(Output::Announce {
                to: to.clone(),
                ids: ids.to_vec(),
            });
        }
    }

    /// Requests what was announced and has not come.
    fn pull(&mut self, now_ms: u64) {
        let mut requests: BTreeMap<P, Vec<MessageId>> = BTreeMap::new();
        loop {
            let peers = &self.peers;
            let score = |peer: &P| {
                let peer = peers.get(peer).filter(|peer| peer.is_good());
                peer.map(Peer::score)
            };
            let Some(ask) = self.wants.due(&self.params, now_ms, score) else {
                break;
            };
            if let Some(peer) = ask.broken_by {
                self.counts.unanswered += 1;
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.add(BROKEN_PROMISE);
                }
            }
            if let Some(peer) = ask.of {
                requests.entry(peer).or_default().push(ask.id);
            }
        }
        for (to, ids) in requests {
            self.counts.requested += ids.len() as u64;
            for ids in ids.chunks(self.params.ids_in_frame.max(1)) {
                self.outputs.push(Output::Request {
                    to: to.clone(),
                    ids: ids.to_vec(),
                });
            }
        }
    }
}
