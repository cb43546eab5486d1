//! Lies that the board shows: what proves them, who is banned for them, and which streams
//! were closed for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_consensus::statement::{self, AccusationBody};
use quorate_consensus::wire::{
    BanProof, Banned, BoardEvent, Goodbye, Misbehaviour, SignedStatement, ViolationFound,
    ban_proof, misbehaviour,
};
use quorate_consensus::words::{goodbye_word, violation_word};
use quorate_consensus::{NodeId, TxId};
use quorate_engine::StreamId;
use quorate_telemetry::span::{Attributes, SpanEvent};
use quorate_telemetry::{Span, Stage};

use super::ballot::Way;
use super::board::Reading;
use super::vote::{shown, votes_of};
use super::{CLOSED, LIES, Traces};

/// A stream that was closed this long before its peer is known as a liar was closed
/// for it.
const CLOSED_FOR_IT: Duration = Duration::from_secs(10);

impl Traces {
    /// The board shows that somebody misbehaved.
    pub(super) fn violation(
        &mut self,
        (index, event): (u64, &BoardEvent),
        tx_id: &TxId,
        found: &ViolationFound,
        reading: &Reading,
    ) {
        let Ok(accused) = NodeId::new(&found.node_id) else {
            return;
        };
        if let Some(proof) = &found.misbehaviour {
            self.lied(&accused, tx_id);
            self.disprove(tx_id, event, &accused, proof, reading);
        }
        if !self.is_on() {
            return;
        }
        self.show(tx_id);
        let kind = violation_word(found.r#type());
        let name = ("violation", event.revision, index);
        let mut span = self
            .common(tx_id, name, (event.time_ms, event.time_ms))
            .with("quorate.accused", self.names.of(&accused))
            .with("quorate.kind", kind)
            .failed(format!("{kind} by {accused}"));
        let evidence = self.evidence(found.misbehaviour.as_ref());
        span.attributes.extend(evidence);
        self.emit(tx_id, vec![span]);
        for (at, reason) in self.closed_lately(&accused) {
            self.stream_closed(tx_id, &accused, at, reason);
        }
    }

    /// What proves a lie: the values in it are evidence, and no secret any more.
    fn evidence(&self, proof: Option<&Misbehaviour>) -> Attributes {
        let mut found = Vec::new();
        let mut add = |name, vote: Option<&SignedStatement>| {
            if let Some((_, _, choice)) = vote.and_then(|vote| self.key(vote)) {
                found.push((name, shown(&choice)));
            }
        };
        match proof.and_then(|proof| proof.kind.as_ref()) {
            Some(misbehaviour::Kind::DoubleVote(lie)) => {
                add("quorate.first_value", lie.first.as_ref());
                add("quorate.second_value", lie.second.as_ref());
            }
            Some(misbehaviour::Kind::MinorityVote(lie)) => {
                add("quorate.value", lie.dissent.as_ref());
                add("quorate.majority_value", lie.majority.first());
            }
            None => {}
        }
        found
    }

    /// The vote that shows the lie, on this node: when it came, from where, and that
    /// the check found it.
    fn disprove(
        &mut self,
        tx_id: &TxId,
        event: &BoardEvent,
        accused: &NodeId,
        proof: &Misbehaviour,
        reading: &Reading,
    ) {
        if !self.live {
            return;
        }
        // The second of two, or the dissent.
        let Some(key) = votes_of(proof).pop().and_then(|vote| self.key(vote)) else {
            return;
        };
        let (_, voter, choice) = &key;
        let second = !self.ballot(tx_id).has(voter, choice);
        if second {
            self.arrive(&key, Way::Board, reading.read, None);
        }
        let times = (reading.handled.began, reading.handled.ended);
        let at_ns = self.ns(times.1);
        let name = self.names.of(accused);
        let mut attributes = self.evidence(Some(proof));
        attributes.push(("quorate.accused", name.clone().into()));
        let revision = event.revision;
        let found = move |span: Span| {
            let mut span = span
                .with("quorate.result", "lie")
                .with("quorate.revision", revision)
                .failed(format!("{name} lied"));
            span.events.push(SpanEvent {
                at_ns,
                name: "violation",
                attributes,
            });
            span
        };
        if let Some(ballot) = self.ballots.get_mut(tx_id)
            && let Some(track) = ballot.track(voter, choice)
        {
            if second {
                track.counted = Some((times.1, event.revision));
                track.failed = Some("a second choice".into());
            }
            self.check(&key, reading, found);
            self.settle(tx_id);
            return;
        }
        // Recorded long before: its own spans are gone.
        self.measure(Stage::ByzantineCheck, times.0, times.1);
        if !self.is_on() {
            return;
        }
        let Some(ballot) = self.ballots.get(tx_id) else {
            return;
        };
        let (root, tx) = (ballot.root, ballot.tx.clone());
        let id = (self.ids.next_id(), Stage::ByzantineCheck.name());
        let span = self.span(root, &tx, id, times);
        let span = found(span).with("quorate.voter", self.names.of(accused));
        self.emit(tx_id, vec![span]);
    }

    /// The board shows a ban.
    pub(super) fn banned(&mut self, event: &BoardEvent, index: u64, banned: &Banned) {
        let Ok(node_id) = NodeId::new(&banned.node_id) else {
            return;
        };
        let Some(tx_id) = banned.proof.as_ref().and_then(|proof| self.tx_of(proof)) else {
            return;
        };
        self.lied(&node_id, &tx_id);
        if !self.is_on() {
            return;
        }
        self.show(&tx_id);
        let kind = violation_word(banned.r#type());
        let name = ("member.banned", event.revision, index);
        let span = self
            .common(&tx_id, name, (event.time_ms, event.time_ms))
            .with("quorate.accused", self.names.of(&node_id))
            .with("quorate.kind", kind)
            .failed(format!("{node_id} is banned for {kind}"));
        self.emit(&tx_id, vec![span]);
        for (at, reason) in self.closed_lately(&node_id) {
            self.stream_closed(&tx_id, &node_id, at, reason);
        }
    }

    /// The transaction that somebody is banned for.
    fn tx_of(&self, proof: &BanProof) -> Option<TxId> {
        match proof.kind.as_ref()? {
            ban_proof::Kind::Misbehaviour(proof) => {
                let vote = votes_of(proof).pop()?;
                self.key(vote).map(|(tx_id, ..)| tx_id)
            }
            ban_proof::Kind::Accusations(list) => list.accusations.iter().find_map(|signed| {
                let parsed = statement::parse::<AccusationBody>(&signed.statement);
                parsed.ok()?.1.tx_id
            }),
            ban_proof::Kind::Silence(_) => None,
        }
    }

    fn lied(&mut self, node_id: &NodeId, tx_id: &TxId) {
        let lies = self.lies.entry(node_id.clone()).or_default();
        if !lies.contains(tx_id) {
            lies.push_back(tx_id.clone());
        }
        if lies.len() > LIES {
            lies.pop_front();
        }
    }

    /// The engine closes a stream.
    pub(crate) fn closes(&mut self, stream: StreamId, goodbye: &Goodbye) {
        self.stream_ended(stream, goodbye_word(goodbye.reason()).into());
    }

    /// A stream has ended.
    pub(crate) fn stream_down(&mut self, stream: StreamId) {
        self.stream_ended(stream, "the other end".into());
    }

    fn stream_ended(&mut self, stream: StreamId, reason: Arc<str>) {
        let Some(peer) = self.streams.remove(&stream) else {
            return;
        };
        let at = Instant::now();
        let lies: Vec<_> = self
            .lies
            .get(&peer)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        for tx_id in &lies {
            self.stream_closed(tx_id, &peer, at, reason.clone());
        }
        if lies.is_empty() {
            self.closed.push_back((at, peer, reason));
            if self.closed.len() > CLOSED {
                self.closed.pop_front();
            }
        }
    }

    /// Streams to a peer that were closed just before it was known as a liar, each once.
    fn closed_lately(&mut self, peer: &NodeId) -> Vec<(Instant, Arc<str>)> {
        let mut found = Vec::new();
        self.closed.retain(|(at, closed, reason)| {
            let its = closed == peer;
            if its && at.elapsed() < CLOSED_FOR_IT {
                found.push((*at, reason.clone()));
            }
            !its
        });
        found
    }

    fn stream_closed(&mut self, tx_id: &TxId, peer: &NodeId, at: Instant, reason: Arc<str>) {
        if !self.is_on() {
            return;
        }
        let Some(ballot) = self.ballots.get(tx_id) else {
            return;
        };
        let (root, tx) = (ballot.root, ballot.tx.clone());
        let id = (self.ids.next_id(), "stream.closed");
        let span = self.span(root, &tx, id, (at, at));
        let span = span
            .with("quorate.peer", self.names.of(peer))
            .with("quorate.reason", reason);
        self.emit(tx_id, vec![span]);
    }
}
