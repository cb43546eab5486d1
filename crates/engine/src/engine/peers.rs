//! The peer protocol: hello, batches, resynchronisation, and what a peer answers
//! for.
//!
//! | stream is | frame | what is done |
//! |---|---|---|
//! | greeting | challenge | sign a hello over both certificates and the challenge |
//! | greeting | hello that answers ours | heard; once our own is said too, established: an earlier stream of the pair is replaced |
//! | greeting | anything else | closed; nobody is accused, for nobody is known yet |
//! | established | batch | every statement verified, then taken in; the first bad one accuses the sender |
//! | established | announcement, request, graft, prune | for the mesh, where there is one |
//! | established | addresses | see [`super::addresses`]; nothing under version 1 |
//! | established | resync | all statements for unfinished ballots again, once a second at most |
//! | established | ping, pong, goodbye | answered, ignored, closed |
//! | established | direct message, its acknowledgement | shown and acknowledged; the operator is told |
//!
//! Both ends speak the greatest protocol version that both have named in their hellos;
//! without one the stream ends, and an operator is told.
//!
//! The sender answers for every signature it sends, its own or relayed: honest nodes
//! verify first, all by one predicate. Only an unknown rules digest is excused.

use quorate_consensus::NodeId;
use quorate_consensus::ballot::is_final;
use quorate_consensus::statement::{self, AccusationBody, HelloBody, StatementError};
use quorate_consensus::wire::{self, AccusationKind, Frame, GoodbyeReason, frame};

use super::intake::Offence;
use super::{Engine, Pending, Timer, addresses, mesh};
use crate::api::{Effect, Now, StreamId};

/// The most statements in one frame that this engine sends; the driver's limit on a
/// frame's bytes (1 MiB) is far above.
const MOST_IN_A_FRAME: usize = 256;

/// How long a hello is waited for, in milliseconds.
const GREETING_MS: u64 = 10_000;

/// How often a peer is sent everything again because it asks, in milliseconds: the
/// question is short, the answer is not.
const RESYNC_MS: u64 = 1_000;

/// How far a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Greeting {
    /// The other end's hello is awaited.
    Awaited,
    /// The other end is a member, and has not heard our own hello yet: whatever we
    /// said before it would end the stream.
    Heard,
    /// Both are known to each other.
    Established,
}

/// One stream.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) peer: NodeId,
    own_certificate: [u8; 32],
    peer_certificate: [u8; 32],
    challenge: [u8; 32],
    answered_challenge: bool,
    said_hello: bool,
    /// The other end's, once its hello is heard.
    generation: u64,
    /// The protocol version that both ends speak; 0 until the hello was heard.
    pub(super) version: u32,
    /// When everything was last sent because the peer asked, on the monotonic clock.
    resynced_mono: Option<u64>,
    greeting: Greeting,
    pub(super) full: bool,
    missed: bool,
}

impl Stream {
    pub(super) fn new(
        peer: NodeId,
        own_certificate: [u8; 32],
        peer_certificate: [u8; 32],
        challenge: [u8; 32],
    ) -> Self {
        Self {
            peer,
            own_certificate,
            peer_certificate,
            challenge,
            answered_challenge: false,
            said_hello: false,
            generation: 0,
            version: 0,
            resynced_mono: None,
            greeting: Greeting::Awaited,
            full: false,
            missed: false,
        }
    }

    /// Whether what is sent now would be lost; it is remembered that something was.
    pub(super) fn misses(&mut self) -> bool {
        self.missed |= self.full;
        self.full
    }
}

impl Engine {
    pub(super) fn stream_up(&mut self, now: Now, id: StreamId, stream: Stream) {
        let peer = stream.peer.clone();
        if self.is_own(&peer) || !self.board.rules().is_member(&peer) {
            self.close(
                id,
                GoodbyeReason::NotAMember,
                "not a member under these rules",
            );
            return;
        }
        if self.board.is_banned(&peer) || self.refused.contains(&peer) {
            self.close(id, GoodbyeReason::Banned, "banned");
            return;
        }
        self.stir_mesh(&stream.challenge);
        let nonce = stream.challenge.to_vec();
        self.streams.insert(id, stream);
        self.wake_at(Timer::Greeting(id), now.mono_ms + GREETING_MS);
        self.send(id, frame::Body::Challenge(wire::Challenge { nonce }));
    }

    /// The time for a hello is over.
    pub(super) fn end_greeting(&mut self, id: StreamId) {
        let late = |stream: &Stream| stream.greeting != Greeting::Established;
        if self.streams.get(&id).is_some_and(late) {
            self.close(id, GoodbyeReason::Protocol, "no hello came");
        }
    }

    pub(super) fn stream_down(&mut self, id: StreamId) {
        self.unset(Timer::Greeting(id));
        self.unset(Timer::Resync(id));
        self.messages_lost(id);
        if let Some(stream) = self.streams.remove(&id)
            && self.peers.get(&stream.peer) == Some(&id)
        {
            self.peers.remove(&stream.peer);
            if let Some(mesh) = &mut self.mesh {
                mesh.peer_down(&stream.peer);
            }
        }
    }

    pub(super) fn queue_full(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.full = true;
            stream.missed = true;
        }
    }

    pub(super) fn drained(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.full = false;
        if std::mem::take(&mut stream.missed) && stream.greeting == Greeting::Established {
            let peer = stream.peer.clone();
            self.resend_everything(id);
            if let Some(mesh) = &mut self.mesh {
                mesh.catch_up(&peer);
            }
        }
    }

    pub(super) fn bad_frame(
        &mut self,
        now: Now,
        id: StreamId,
        subject_digest: [u8; 32],
        why: String,
    ) {
        let offence = Offence {
            kind: AccusationKind::Malformed,
            tx_id: None,
            subject_digest,
            why,
        };
        self.offended(now, id, offence);
    }

    pub(super) fn frame(&mut self, now: Now, id: StreamId, frame: Frame) {
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        let heard = stream.greeting != Greeting::Awaited;
        let established = stream.greeting == Greeting::Established;
        let peer = stream.peer.clone();
        match frame.body {
            Some(frame::Body::Challenge(challenge)) => self.challenged(now, id, &challenge.nonce),
            Some(frame::Body::Hello(hello)) if !heard => self.greeted(now, id, &hello),
            Some(frame::Body::Goodbye(goodbye)) => {
                if goodbye.reason() == GoodbyeReason::Version {
                    let peer = stream.peer.clone();
                    self.without_version(&peer, format!("it says: {:.200}", goodbye.detail));
                }
                self.close(id, GoodbyeReason::Shutdown, "goodbye");
            }
            _ if !heard => {
                self.close(id, GoodbyeReason::Protocol, "a hello must come first");
            }
            Some(frame::Body::Batch(batch)) => match self.batch(now, batch) {
                Ok(heard) => self.relay(now, &peer, heard),
                Err(offence) => self.offended(now, id, *offence),
            },
            Some(frame::Body::Addresses(addresses)) => {
                if self.knows_addresses(id)
                    && let Err(offence) = self.heard_addresses(now, id, &addresses)
                {
                    self.offended(now, id, *offence);
                }
            }
            // Who asks before it heard us gets all that there is once it has.
            Some(
                frame::Body::Ping(_)
                | frame::Body::Resync(_)
                | frame::Body::DirectMessage(_)
                | frame::Body::DirectAcknowledgement(_),
            ) if !established => {}
            Some(frame::Body::Ping(ping)) => {
                let token = ping.token;
                self.send(id, frame::Body::Pong(wire::Pong { token }));
            }
            Some(frame::Body::Resync(_)) => self.resync(now, id),
            Some(frame::Body::DirectMessage(message)) => self.message(id, message),
            Some(frame::Body::DirectAcknowledgement(known)) => self.acknowledged(id, known.token),
            Some(
                body @ (frame::Body::Announcement(_)
                | frame::Body::StatementRequest(_)
                | frame::Body::Graft(_)
                | frame::Body::Prune(_)),
            ) => {
                if let Err(offence) = self.mesh_frame(now, &peer, body) {
                    self.offended(now, id, *offence);
                }
            }
            // A second hello, a pong, or a body of a later version.
            Some(frame::Body::Hello(_) | frame::Body::Pong(_)) | None => {}
        }
    }

    fn challenged(&mut self, now: Now, id: StreamId, nonce: &[u8]) {
        let Ok(challenge) = <[u8; 32]>::try_from(nonce) else {
            self.close(id, GoodbyeReason::Protocol, "a challenge must be 32 bytes");
            return;
        };
        let generation = self.generation;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if std::mem::replace(&mut stream.answered_challenge, true) {
            return;
        }
        let body = HelloBody {
            generation,
            protocol_min: self.speaks.0,
            protocol_max: self.speaks.1,
            own_certificate: stream.own_certificate,
            peer_certificate: stream.peer_certificate,
            challenge,
        };
        let rules = self.board.rules().clone();
        let pending = |statement| Pending::SignHello(id, statement);
        self.sign(now, pending, &rules, &body);
    }

    pub(super) fn hello_signed(&mut self, now: Now, id: StreamId, hello: wire::SignedStatement) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.said_hello = true;
        let hello = Some(hello);
        self.send(id, frame::Body::Hello(wire::Hello { hello }));
        self.establish(now, id);
    }

    fn greeted(&mut self, now: Now, id: StreamId, hello: &wire::Hello) {
        let rules = self.board.rules().clone();
        let opened =
            statement::open_field::<HelloBody>(&hello.hello, &rules, self.verifier.as_ref());
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        let refusal = match &opened {
            Err(StatementError::WrongRules { .. }) => {
                Some((GoodbyeReason::OtherRules, "other rules".to_owned()))
            }
            Err(error) => Some((GoodbyeReason::NotAMember, error.to_string())),
            Ok(hello) if hello.node_id != stream.peer => Some((
                GoodbyeReason::NotAMember,
                "the hello is not by the node in the certificate".to_owned(),
            )),
            Ok(hello)
                if hello.body.challenge != stream.challenge
                    || hello.body.own_certificate != stream.peer_certificate
                    || hello.body.peer_certificate != stream.own_certificate =>
            {
                Some((
                    GoodbyeReason::NotAMember,
                    "the hello was made for another connection".to_owned(),
                ))
            }
            Ok(hello) if self.common_version(&hello.body).is_none() => {
                let (least, greatest) = self.speaks;
                Some((
                    GoodbyeReason::Version,
                    format!(
                        "{} speaks protocol {least} to {greatest} and {} speaks {} to {}: upgrade the older of the two, one version at a time",
                        self.config.node_id,
                        hello.node_id,
                        hello.body.protocol_min,
                        hello.body.protocol_max
                    ),
                ))
            }
            Ok(_) => None,
        };
        if let Some((reason, detail)) = refusal {
            if reason == GoodbyeReason::Version {
                let peer = stream.peer.clone();
                self.without_version(&peer, detail.clone());
            }
            self.close(id, reason, &detail);
            return;
        }
        let Ok(hello) = opened else { return };
        let version = self.common_version(&hello.body);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.greeting = Greeting::Heard;
            stream.generation = hello.body.generation;
            stream.version = version.unwrap_or_default();
        }
        self.establish(now, id);
    }

    /// Whether the other end of a stream knows frames with addresses.
    pub(super) fn knows_addresses(&self, id: StreamId) -> bool {
        let stream = self.streams.get(&id);
        stream.is_some_and(|stream| stream.version >= addresses::SINCE)
    }

    /// Whether a frame can be sent now; else all of it is, when there is room.
    pub(super) fn has_room(&mut self, id: StreamId) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else {
            return false;
        };
        stream.missed |= stream.full;
        !stream.full
    }

    /// Both hellos are said: the stream is the pair's from now on. The other end's may
    /// come while our own is still being signed, and must be the first that it hears.
    fn establish(&mut self, now: Now, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.greeting != Greeting::Heard || !stream.said_hello {
            return;
        }
        stream.greeting = Greeting::Established;
        let peer = stream.peer.clone();
        let (generation, version) = (stream.generation, stream.version);
        self.versionless.remove(&peer);
        self.unset(Timer::Greeting(id));
        if let Some(mesh) = self.mesh.as_mut().filter(|_| version >= mesh::SINCE) {
            let known = self.generations.insert(peer.clone(), generation);
            mesh.peer_up(now.mono_ms, peer.clone(), known != Some(generation));
        }
        if let Some(old) = self.peers.insert(peer, id)
            && old != id
        {
            self.close(
                old,
                GoodbyeReason::Replaced,
                "another stream took its place",
            );
        }
        self.resend_everything(id);
    }

    /// The peer broke the protocol: no more words with it, an alert, an accusation.
    fn offended(&mut self, now: Now, id: StreamId, offence: Offence) {
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        if stream.greeting == Greeting::Awaited {
            self.close(id, GoodbyeReason::Protocol, &offence.why);
            return;
        }
        let peer = stream.peer.clone();
        let body = AccusationBody {
            accused: peer.clone(),
            kind: offence.kind,
            tx_id: offence.tx_id,
            subject_digest: offence.subject_digest,
            time_ms: now.wall_ms,
        };
        self.refuse(&peer, GoodbyeReason::Protocol, &offence.why);
        self.accuse(now, body, &offence.why);
    }

    /// From now on this node neither speaks nor listens to a peer.
    pub(super) fn refuse(&mut self, peer: &NodeId, reason: GoodbyeReason, detail: &str) {
        if self.is_own(peer) {
            let Some(reject) = self.own_ban() else {
                return;
            };
            let waiting: Vec<_> = self.locals.keys().cloned().collect();
            for tx_id in waiting {
                let recorded = self
                    .board
                    .ballot(&tx_id)
                    .is_some_and(|b| b.votes.contains_key(peer));
                if !recorded {
                    self.reject_waiters(&tx_id, &reject);
                }
            }
            return;
        }
        if self.refused.insert(peer.clone()) {
            self.out.push(Effect::Admit {
                node_id: peer.clone(),
                welcome: false,
            });
        }
        let streams: Vec<_> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.peer == *peer)
            .map(|(id, _)| *id)
            .collect();
        for id in streams {
            self.close(id, reason, detail);
        }
    }

    pub(super) fn close(&mut self, id: StreamId, reason: GoodbyeReason, detail: &str) {
        self.stream_down(id);
        self.out.push(Effect::Close {
            stream: id,
            goodbye: wire::Goodbye {
                reason: reason.into(),
                detail: detail.to_owned(),
            },
        });
    }

    pub(super) fn send(&mut self, stream: StreamId, body: frame::Body) {
        let frame = Frame { body: Some(body) };
        self.out.push(Effect::Send { stream, frame });
    }

    /// Sends this node's own statements to every member at once, or, in a large
    /// cluster, on their way through the mesh; there only those that know of no mesh
    /// get them at once. A peer whose queue is full gets everything again when it has
    /// drained.
    pub(super) fn broadcast(&mut self, now: Now, batch: wire::Batch) {
        let meshed = |id: &StreamId| {
            let stream = self.streams.get(id);
            self.mesh.is_some() && stream.is_some_and(|stream| stream.version >= mesh::SINCE)
        };
        let streams: Vec<_> = self
            .peers
            .values()
            .copied()
            .filter(|id| !meshed(id))
            .collect();
        for id in streams {
            match self.streams.get_mut(&id) {
                Some(stream) if stream.full => stream.missed = true,
                Some(_) => self.send(id, frame::Body::Batch(batch.clone())),
                None => {}
            }
        }
        if let Some(mesh) = &mut self.mesh {
            Self::push(mesh, now, &self.config.node_id, batch);
        }
    }

    /// The peer asks for everything again; who asks more often waits.
    pub(super) fn resync(&mut self, now: Now, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        match stream.resynced_mono.map(|last| last + RESYNC_MS) {
            Some(next) if next > now.mono_ms => self.wake_by(Timer::Resync(id), next),
            _ => {
                stream.resynced_mono = Some(now.mono_ms);
                self.resend_everything(id);
            }
        }
    }

    /// Everything that this node has said about unfinished ballots, and where members
    /// are reached, to one peer.
    fn resend_everything(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.full) {
            // What is said now would be lost: all of it when there is room.
            stream.missed = true;
            return;
        }
        self.say_addresses(id);
        let mut batch = wire::Batch::default();
        let mut batches = Vec::new();
        let unfinished = self.locals.iter().filter(|(tx_id, local)| {
            let ballot = self.board.ballot(tx_id);
            ballot.is_none_or(|b| !is_final(b.state) || !b.is_proven() || local.says_undone(b))
        });
        let mut count = 0;
        for (tx_id, local) in unfinished {
            let own = self
                .board
                .ballot(tx_id)
                .and_then(|ballot| ballot.votes.get(&self.config.node_id));
            let votes = own.map(|recorded| &recorded.vote).into_iter();
            let votes = votes.chain(local.held.iter().map(|held| &held.vote));
            batch.votes.extend(votes.map(|vote| wire::TracedVote {
                vote: Some(vote.signed.clone()),
                traceparent: String::new(),
            }));
            local.add_own_statements(&mut batch);
            count += 1;
            if count % (MOST_IN_A_FRAME / 4) == 0 {
                batches.push(std::mem::take(&mut batch));
            }
        }
        for own in self.accusations.values() {
            batch.accusations.extend(own.signed.clone());
        }
        batch.operator_acts.extend(self.acts_to_resend());
        batches.push(batch);
        for batch in batches {
            if batch != wire::Batch::default() {
                self.send(id, frame::Body::Batch(batch));
            }
        }
    }
}
