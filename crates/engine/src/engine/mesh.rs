//! Statements in a large cluster: pushed along a mesh, announced, and requested. Up to
//! [`FULL_MESH`] nodes there is no mesh, and everybody hears each statement from its
//! author.
//!
//! | statement | what is done with it |
//! |---|---|
//! | this node's own | pushed |
//! | another's, new, verified, and of use to the board or to a proof | pushed on, once, when the whole frame was found good |
//! | verified, and no longer of use | remembered, so that nobody is asked for it |
//! | cannot be judged yet: the ballot, or the rules, are not known here | neither; it comes again when somebody announces it |
//!
//! Of use is what the engine takes in: a vote that the board shows, or that is held for
//! it; a decision, abort, observation, accusation
//! or operator's act that a proof may still need. So an
//! author that signs more and more statements is relayed as far as one ballot can take
//! them, and no further.
//!
//! What this node holds for an open question is announced again as long as the question
//! is open (`duties`), so a node that has lost its memory finds it at its neighbours.

use quorate_consensus::batch::Said;
use quorate_consensus::wire::{self, AccusationKind, Frame, frame};
use quorate_consensus::{NodeId, Rules, TxId};
use quorate_gossip::{FULL_MESH, Mesh, MessageId, Output, Params};

use super::intake::Offence;
use super::verdicts::digest_of;
use super::{Engine, Timer};
use crate::api::{Effect, Now};

/// The first protocol version with these frames: who speaks an older one hears each
/// statement from its author, and says its own to everybody.
pub(super) const SINCE: u32 = 2;

/// What a peer's verified statement is worth to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worth {
    /// It goes on.
    New,
    /// Nobody needs it any more.
    Spent,
    /// Not known yet.
    Unclear,
}

/// A peer's statement that was found good, or that stands under unknown rules.
pub(super) struct Heard {
    said: Said,
    /// Not there when it goes nowhere.
    author: Option<NodeId>,
    worth: Worth,
}

impl Heard {
    /// With its author and worth, when it was opened.
    pub(super) fn new(said: Said, opened: Option<(NodeId, Worth)>) -> Self {
        let (author, worth) = opened.map_or((None, Worth::Unclear), |(a, w)| (Some(a), w));
        Self {
            said,
            author,
            worth,
        }
    }

    /// One that was dealt with a short while ago.
    pub(super) fn dealt_with(said: Said) -> Self {
        Self {
            said,
            author: None,
            worth: Worth::Spent,
        }
    }
}

/// A mesh holds statements by their digest.
pub(super) type Statements = Mesh<NodeId, Said>;

/// The mesh of a large cluster. The seed is not secret: see [`Engine::stir_mesh`].
pub(super) fn mesh_for(rules: &Rules, node_id: &NodeId, generation: u64) -> Option<Statements> {
    if rules.total() <= FULL_MESH {
        return None;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(node_id.as_str().as_bytes());
    hasher.update(&generation.to_be_bytes());
    Some(Mesh::new(
        Params::default(),
        first_u64(hasher.finalize().as_bytes()),
    ))
}

fn first_u64(bytes: &[u8; 32]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&bytes[..8]);
    u64::from_be_bytes(first)
}

fn id_of(signed: &wire::SignedStatement) -> MessageId {
    MessageId(digest_of(signed))
}

fn len_of(signed: &wire::SignedStatement) -> usize {
    signed.statement.len() + signed.signature.len()
}

impl Engine {
    /// The challenge of a new stream is the one thing here that nobody can know
    /// before: with it nobody can tell whom this node will pick.
    pub(super) fn stir_mesh(&mut self, challenge: &[u8; 32]) {
        if let Some(mesh) = &mut self.mesh {
            mesh.stir(first_u64(challenge));
        }
    }

    /// This node's own statements set out on their way through the mesh. Evidence stays:
    /// the votes in it are on their way by themselves, and whoever sees two that differ
    /// needs no other evidence.
    pub(super) fn push(mesh: &mut Statements, now: Now, own: &NodeId, batch: wire::Batch) {
        for said in Said::all_of(batch) {
            if let Some(signed) = said.signed() {
                let (id, len) = (id_of(signed), len_of(signed));
                mesh.accept(now.mono_ms, None, id, own.clone(), said, len);
            }
        }
    }

    /// A whole frame of a peer was found good: what is new in it goes on.
    pub(super) fn relay(&mut self, now: Now, from: &NodeId, heard: Vec<Heard>) {
        let Some(mesh) = &mut self.mesh else { return };
        for heard in heard {
            let Some(signed) = heard.said.signed() else {
                continue;
            };
            let (id, len) = (id_of(signed), len_of(signed));
            if mesh.arrived(from, &id) {
                continue;
            }
            match (heard.worth, heard.author) {
                (Worth::New, Some(author)) => {
                    mesh.accept(now.mono_ms, Some(from), id, author, heard.said, len);
                }
                (Worth::Spent, _) => mesh.remember(now.mono_ms, from, id),
                (Worth::Unclear | Worth::New, _) => mesh.postpone(&id),
            }
        }
    }

    /// Announces again what this node holds for a ballot whose question is open, its
    /// own word included. False without a mesh.
    pub(super) fn remind(&mut self, now: Now, tx_id: &TxId) -> bool {
        let Some(mesh) = &mut self.mesh else {
            return false;
        };
        let Some(local) = self.locals.get(tx_id) else {
            return true;
        };
        let mut held = Vec::new();
        let mut hold = |author: &NodeId, said: Said| {
            if let Some(signed) = said.signed() {
                held.push((id_of(signed), author.clone(), said.clone(), len_of(signed)));
            }
        };
        let ballot = self.board.ballot(tx_id);
        if ballot.is_some_and(|ballot| ballot.certificate.is_none()) {
            for (author, decision) in &local.decisions {
                hold(author, Said::Decision(decision.signed.clone()));
            }
        }
        if ballot.is_some_and(|ballot| ballot.aborts.is_empty()) {
            for (author, abort) in &local.aborts {
                hold(author, Said::Abort(abort.signed.clone()));
            }
        }
        for (author, observation) in &local.observations {
            hold(author, Said::Observation(observation.signed.clone()));
        }
        mesh.remind(now.mono_ms, held);
        true
    }

    /// A frame that only a large cluster knows.
    pub(super) fn mesh_frame(
        &mut self,
        now: Now,
        from: &NodeId,
        body: frame::Body,
    ) -> Result<(), Box<Offence>> {
        let Some(mesh) = &mut self.mesh else {
            return Ok(());
        };
        match body {
            frame::Body::Announcement(announcement) => {
                mesh.announced(now.mono_ms, from, &ids(&announcement.ids)?);
            }
            frame::Body::StatementRequest(request) => {
                mesh.requested(from, &ids(&request.ids)?);
            }
            frame::Body::Graft(_) => mesh.grafted(now.mono_ms, from),
            frame::Body::Prune(prune) => mesh.pruned(now.mono_ms, from, prune.backoff_ms),
            _ => {}
        }
        Ok(())
    }

    /// Lets the mesh do what is due.
    pub(super) fn tick_mesh(&mut self, now: Now) {
        if let Some(mesh) = &mut self.mesh {
            mesh.tick(now.mono_ms);
        }
    }

    /// Sends what the mesh has to say, and sets its alarm.
    pub(super) fn flush_mesh(&mut self) {
        let Some(mesh) = &mut self.mesh else { return };
        let outputs = mesh.take_outputs();
        let wake = mesh.next_wake();
        match wake {
            Some(at) => self.wake_at(Timer::Mesh, at),
            None => self.unset(Timer::Mesh),
        }
        for output in outputs {
            let (to, body) = match output {
                Output::Send { to, messages } => {
                    (to, frame::Body::Batch(messages.into_iter().collect()))
                }
                Output::Announce { to, ids } => {
                    let ids = ids.into_iter().map(|id| id.0.to_vec()).collect();
                    let announcement = wire::Announcement { ids };
                    (to, frame::Body::Announcement(announcement))
                }
                Output::Request { to, ids } => {
                    let ids = ids.into_iter().map(|id| id.0.to_vec()).collect();
                    let request = wire::StatementRequest { ids };
                    (to, frame::Body::StatementRequest(request))
                }
                Output::Graft { to } => (to, frame::Body::Graft(wire::Graft {})),
                Output::Prune { to, backoff_ms } => {
                    (to, frame::Body::Prune(wire::Prune { backoff_ms }))
                }
            };
            self.send_to(&to, body);
        }
    }

    /// Sends a frame to a peer, unless its queue is full: then the peer is told what
    /// there is when it has drained.
    fn send_to(&mut self, to: &NodeId, body: frame::Body) {
        let Some(id) = self.peers.get(to).copied() else {
            return;
        };
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.misses()
        {
            let frame = Frame { body: Some(body) };
            self.out.push(Effect::Send { stream: id, frame });
        }
    }
}

/// Reads ids. Honest nodes send no others.
fn ids(ids: &[Vec<u8>]) -> Result<Vec<MessageId>, Box<Offence>> {
    let most = Params::default().ids_in_frame;
    let read = |id: &Vec<u8>| {
        let id = <[u8; 32]>::try_from(id.as_slice()).map(MessageId);
        id.map_err(|_| {
            Box::new(Offence {
                kind: AccusationKind::Malformed,
                tx_id: None,
                subject_digest: *blake3::hash(&ids.concat()).as_bytes(),
                why: "a statement's id must be 32 bytes".to_owned(),
            })
        })
    };
    ids.iter().take(most).map(read).collect()
}
