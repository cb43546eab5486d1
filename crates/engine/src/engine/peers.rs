//! The peer protocol: hello, batches, resynchronisation, and what a peer answers
//! for.
//!
//! | stream is | frame | what is done |
//! |---|---|---|
//! | greeting | challenge | sign a hello over both certificates and the challenge |
//! | greeting | hello that answers ours | established; an earlier stream of the pair is replaced |
//! | greeting | anything else | closed; nobody is accused, for nobody is known yet |
//! | established | batch | every statement verified, then taken in; the first bad one accuses the sender |
//! | established | resync | all statements for unfinished ballots again |
//! | established | ping, pong, goodbye | answered, ignored, closed |
//!
//! The sender answers for every signature it sends, its own or relayed: honest nodes
//! verify first, all by one predicate. Only an unknown rules digest is excused.

use quorate_consensus::ballot::is_final;
use quorate_consensus::statement::{
    self, AbortBody, AccusationBody, Body, DecisionBody, HelloBody, ObservationBody, Signed,
    StatementError, Vote, VoteBody,
};
use quorate_consensus::wire::{self, AccusationKind, Frame, GoodbyeReason, frame};
use quorate_consensus::{NodeId, TxId};

use super::clients::unavailable;
use super::local::Held;
use super::verdicts::digest_of;
use super::{Engine, PROTOCOL_VERSION, Pending};
use crate::api::{Effect, Now, StreamId};

/// The most statements in one frame that this engine sends; the driver's limit on a
/// frame's bytes (1 MiB) is far above.
const MOST_IN_A_FRAME: usize = 256;

/// The most votes that are held although the board does not show them. Each trustee
/// has an equal share, so that a liar fills its own and nobody else's.
const MOST_HELD: usize = 65_536;

/// How far a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Greeting {
    /// The other end's hello is awaited.
    Awaited,
    /// The other end is a member.
    Established,
}

/// One stream.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    peer: NodeId,
    own_certificate: [u8; 32],
    peer_certificate: [u8; 32],
    challenge: [u8; 32],
    answered_challenge: bool,
    greeting: Greeting,
    full: bool,
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
            greeting: Greeting::Awaited,
            full: false,
            missed: false,
        }
    }
}

/// Why a batch ends its stream.
struct Offence {
    kind: AccusationKind,
    tx_id: Option<TxId>,
    subject_digest: [u8; 32],
    why: String,
}

impl Engine {
    pub(super) fn stream_up(&mut self, id: StreamId, stream: Stream) {
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
        let nonce = stream.challenge.to_vec();
        self.streams.insert(id, stream);
        self.send(id, frame::Body::Challenge(wire::Challenge { nonce }));
    }

    pub(super) fn stream_down(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.remove(&id)
            && self.peers.get(&stream.peer) == Some(&id)
        {
            self.peers.remove(&stream.peer);
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
            self.resend_everything(id);
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
        let established = stream.greeting == Greeting::Established;
        match frame.body {
            Some(frame::Body::Challenge(challenge)) => self.challenged(now, id, &challenge.nonce),
            Some(frame::Body::Hello(hello)) if !established => self.greeted(id, &hello),
            Some(frame::Body::Goodbye(_)) => self.close(id, GoodbyeReason::Shutdown, "goodbye"),
            _ if !established => {
                self.close(id, GoodbyeReason::Protocol, "a hello must come first");
            }
            Some(frame::Body::Batch(batch)) => {
                if let Err(offence) = self.batch(now, &batch) {
                    self.offended(now, id, *offence);
                }
            }
            Some(frame::Body::Ping(ping)) => {
                let token = ping.token;
                self.send(id, frame::Body::Pong(wire::Pong { token }));
            }
            Some(frame::Body::Resync(_)) => self.resend_everything(id),
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
            protocol_min: PROTOCOL_VERSION,
            protocol_max: PROTOCOL_VERSION,
            own_certificate: stream.own_certificate,
            peer_certificate: stream.peer_certificate,
            challenge,
        };
        let rules = self.board.rules().clone();
        let pending = |statement| Pending::SignHello(id, statement);
        self.sign(now, pending, &rules, &body);
    }

    pub(super) fn hello_signed(&mut self, id: StreamId, hello: wire::SignedStatement) {
        if self.streams.contains_key(&id) {
            let hello = Some(hello);
            self.send(id, frame::Body::Hello(wire::Hello { hello }));
        }
    }

    fn greeted(&mut self, id: StreamId, hello: &wire::Hello) {
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
            Ok(hello)
                if hello.body.protocol_min > PROTOCOL_VERSION
                    || hello.body.protocol_max < PROTOCOL_VERSION =>
            {
                Some((
                    GoodbyeReason::Version,
                    format!("this node speaks protocol {PROTOCOL_VERSION}"),
                ))
            }
            Ok(_) => None,
        };
        if let Some((reason, detail)) = refusal {
            self.close(id, reason, &detail);
            return;
        }
        let peer = stream.peer.clone();
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.greeting = Greeting::Established;
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

    /// Takes a batch in, statement by statement. All of it was in one frame of one
    /// sender, so the first bad one condemns the rest.
    fn batch(&mut self, now: Now, batch: &wire::Batch) -> Result<(), Box<Offence>> {
        for traced in &batch.votes {
            let signed = traced.vote.clone().unwrap_or_default();
            self.peer_vote(now, &signed)?;
        }
        for misbehaviour in &batch.evidence {
            self.peer_evidence(now, misbehaviour)?;
        }
        for signed in &batch.decisions {
            if let Some(decision) = self.open_peer::<DecisionBody>(signed)? {
                self.take_decision(now, decision);
            }
        }
        for signed in &batch.aborts {
            if let Some(abort) = self.open_peer::<AbortBody>(signed)? {
                self.take_abort(now, abort);
            }
        }
        for signed in &batch.observations {
            if let Some(observation) = self.open_peer::<ObservationBody>(signed)? {
                self.take_observation(now, observation);
            }
        }
        for signed in &batch.accusations {
            if let Some(accusation) = self.open_peer::<AccusationBody>(signed)? {
                self.take_accusation(now, accusation);
            }
        }
        Ok(())
    }

    /// Opens a peer's statement under the rules that it names. None when those rules
    /// are unknown, which is excused.
    fn open_peer<B: Body>(
        &self,
        signed: &wire::SignedStatement,
    ) -> Result<Option<Signed<B>>, Box<Offence>> {
        let offence = |error: &StatementError, tx_id| {
            Box::new(Offence {
                kind: match error {
                    StatementError::BadSignature(_) => AccusationKind::InvalidSignature,
                    _ => AccusationKind::Malformed,
                },
                tx_id,
                subject_digest: digest_of(signed),
                why: error.to_string(),
            })
        };
        let (header, _) = match statement::parse::<B>(&signed.statement) {
            Ok(parsed) => parsed,
            Err(error) => return Err(offence(&error, None)),
        };
        let Some(rules) = self.board.rules_by_digest(&header.rules_digest) else {
            return Ok(None);
        };
        match statement::open::<B>(signed, rules, self.verifier.as_ref()) {
            Ok(opened) => Ok(Some(opened)),
            Err(error) if !error.accuses_sender() => Ok(None),
            Err(error) => {
                let tx_id = statement::parse::<VoteBody>(&signed.statement)
                    .ok()
                    .map(|(_, vote)| vote.tx_id);
                Err(offence(&error, tx_id))
            }
        }
    }

    fn peer_vote(&mut self, now: Now, signed: &wire::SignedStatement) -> Result<(), Box<Offence>> {
        let digest = digest_of(signed);
        if self.duplicates.contains(now.mono_ms, &digest) {
            return Ok(());
        }
        let Some(vote) = self.open_peer::<VoteBody>(signed)? else {
            return Ok(());
        };
        if !self.is_in_service() {
            // The sender's board has it or will have it; this node reads it there.
            return Ok(());
        }
        if self.wants(now, &vote) {
            self.hold(now, vote);
        } else if !self.is_from_future(now, &vote) {
            self.duplicates.remember(now.mono_ms, digest);
        }
        Ok(())
    }

    /// Signed further ahead of this node's clock than the skew: not now, but perhaps
    /// when it comes again.
    pub(super) fn is_from_future(&self, now: Now, vote: &Vote) -> bool {
        vote.body.time_ms > now.wall_ms + self.board.rules().clock_skew_ms()
    }

    /// Counts votes that are held no more.
    pub(super) fn let_go<'a>(&mut self, gone: impl IntoIterator<Item = &'a Held>) {
        for held in gone {
            if let Some(count) = self.held_votes.get_mut(&held.vote.node_id) {
                *count -= 1;
                if *count == 0 {
                    self.held_votes.remove(&held.vote.node_id);
                }
            }
        }
    }

    /// Whether the board may still need this vote from this node.
    pub(super) fn wants(&self, now: Now, vote: &Vote) -> bool {
        let rules = self.board.rules();
        let body = &vote.body;
        if self.board.is_banned(&vote.node_id)
            || self.board.collected(&body.tx_id).is_some()
            || self.is_from_future(now, vote)
            || now.wall_ms > body.time_ms.saturating_add(rules.vote_lifetime_ms())
        {
            return false;
        }
        let Some(ballot) = self.board.ballot(&body.tx_id) else {
            return true;
        };
        match ballot.votes.get(&vote.node_id) {
            None => true,
            Some(recorded) => {
                recorded.vote.body.choice != body.choice
                    && !ballot.second_votes.contains_key(&vote.node_id)
                    && recorded.vote.body.time_ms.abs_diff(body.time_ms) <= rules.vote_lifetime_ms()
            }
        }
    }

    /// Keeps a vote that the board does not show, to record it when its turn comes.
    fn hold(&mut self, now: Now, vote: Vote) {
        let tx_id = vote.body.tx_id.clone();
        let conflict = self
            .board
            .ballot(&tx_id)
            .and_then(|ballot| ballot.votes.get(&vote.node_id))
            .map(|recorded| recorded.vote.signed.clone());
        let held_by_trustee = self.locals.get(&tx_id).map_or(0, |local| {
            let same = |held: &&Held| held.vote.node_id == vote.node_id;
            local.held.iter().filter(same).count()
        });
        let known = self
            .locals
            .get(&tx_id)
            .is_some_and(|local| local.held.iter().any(|h| h.vote.signed == vote.signed));
        // Two choices of one trustee are all that evidence needs.
        let of_trustee = self.held_votes.get(&vote.node_id).copied();
        let share = MOST_HELD / self.board.rules().total();
        if known || held_by_trustee >= 2 || of_trustee.unwrap_or(0) >= share {
            return;
        }
        let step = self.stagger_ms();
        let rank = self.rank(tx_id.as_str());
        // A lie is put on the board at once by the first in rank; an ordinary vote
        // is left to its origin for a while.
        let turns = if conflict.is_some() { rank } else { rank + 1 };
        let jitter = u64::from(digest_of(&vote.signed)[0]) * step / 1024;
        let record_mono = now.mono_ms + turns * step + jitter;
        if let Some(first) = conflict {
            let evidence = wire::Misbehaviour {
                kind: Some(wire::misbehaviour::Kind::DoubleVote(wire::DoubleVote {
                    first: Some(first),
                    second: Some(vote.signed.clone()),
                })),
            };
            self.broadcast(wire::Batch {
                evidence: vec![evidence],
                ..wire::Batch::default()
            });
        }
        *self.held_votes.entry(vote.node_id.clone()).or_default() += 1;
        let local = self.local(now, &tx_id);
        local.held.push(Held { vote, record_mono });
        self.touch(&tx_id);
    }

    /// Evidence is worth the votes in it: they go the way of all votes.
    fn peer_evidence(
        &mut self,
        now: Now,
        misbehaviour: &wire::Misbehaviour,
    ) -> Result<(), Box<Offence>> {
        use wire::misbehaviour::Kind;
        let votes: Vec<_> = match &misbehaviour.kind {
            Some(Kind::DoubleVote(double)) => [&double.first, &double.second]
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
            Some(Kind::MinorityVote(minority)) => {
                let dissent = minority.dissent.iter();
                dissent.chain(&minority.majority).cloned().collect()
            }
            None => Vec::new(),
        };
        votes
            .iter()
            .try_for_each(|signed| self.peer_vote(now, signed))
    }

    /// The peer broke the protocol: no more words with it, an alert, an accusation.
    fn offended(&mut self, now: Now, id: StreamId, offence: Offence) {
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        if stream.greeting != Greeting::Established {
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
            let own = peer.to_string();
            let reject = unavailable("BANNED", &format!("{own} was banned meanwhile"));
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

    fn close(&mut self, id: StreamId, reason: GoodbyeReason, detail: &str) {
        self.stream_down(id);
        self.out.push(Effect::Close {
            stream: id,
            goodbye: wire::Goodbye {
                reason: reason.into(),
                detail: detail.to_owned(),
            },
        });
    }

    fn send(&mut self, stream: StreamId, body: frame::Body) {
        let frame = Frame { body: Some(body) };
        self.out.push(Effect::Send { stream, frame });
    }

    /// Sends a batch to every member at once. A peer whose queue is full gets
    /// everything again when it has drained.
    pub(super) fn broadcast(&mut self, batch: wire::Batch) {
        let streams: Vec<_> = self.peers.values().copied().collect();
        for id in streams {
            match self.streams.get_mut(&id) {
                Some(stream) if stream.full => stream.missed = true,
                Some(_) => self.send(id, frame::Body::Batch(batch.clone())),
                None => {}
            }
        }
    }

    /// Everything that this node has said about unfinished ballots, to one peer.
    fn resend_everything(&mut self, id: StreamId) {
        let mut batch = wire::Batch::default();
        let mut batches = Vec::new();
        let unfinished = self.locals.iter().filter(|(tx_id, local)| {
            let ballot = self.board.ballot(tx_id);
            ballot.is_none_or(|b| {
                !is_final(b.state)
                    || (b.certificate.is_none() && b.aborts.is_empty())
                    || local.says_undone(b)
            })
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
        batches.push(batch);
        for batch in batches {
            if batch != wire::Batch::default() {
                self.send(id, frame::Body::Batch(batch));
            }
        }
    }
}
