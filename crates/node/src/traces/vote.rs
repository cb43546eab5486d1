//! A vote's way through this node: it comes, is verified, is proposed to the board,
//! and is there.

use std::sync::Arc;
use std::time::Instant;

use quorate_consensus::statement::{self, VoteBody};
use quorate_consensus::wire::{Frame, Misbehaviour, SignedStatement, frame, misbehaviour};
use quorate_consensus::{Choice, NodeId, TxId};
use quorate_engine::{Handed, ProposeError, Proposed, Reject, RequestId, StreamId, Submit, Ticket};
use quorate_telemetry::span::{SpanEvent, Value};
use quorate_telemetry::{Span, Stage, TraceContext};

use super::ballot::{Track, Way};
use super::{Arrival, Asked, Question, Traces, VoteKey};

impl Traces {
    /// Whose vote a statement is, if it is one of this cluster's members. The signature
    /// is not looked at.
    pub(super) fn key(&self, signed: &SignedStatement) -> Option<VoteKey> {
        let (header, body) = statement::parse::<VoteBody>(&signed.statement).ok()?;
        // Names are kept: made-up ones must not be many.
        let is_member = self.rules.member(&header.node_id).is_some();
        let ours = header.cluster_id == self.cluster_id && is_member;
        ours.then_some((body.tx_id, header.node_id, body.choice))
    }

    /// A client handed a vote in; the engine handles it next.
    pub(crate) fn submitted(
        &mut self,
        request: RequestId,
        submit: &Submit,
        arrived: Instant,
        link: Option<TraceContext>,
    ) {
        let key = match (&submit.handed, &submit.tx_id) {
            (Handed::Choice(choice), Some(tx_id)) => {
                Some((tx_id.clone(), self.own.clone(), choice.clone()))
            }
            (Handed::Choice(_), None) => None,
            (Handed::Statement(signed), _) => self.key(signed),
        };
        if let Some(key) = key {
            self.arrive(&key, Way::Client, arrived, link);
            self.requests.insert(request, key);
        }
    }

    /// The engine has checked it as far as it can be without asking anybody.
    pub(crate) fn checked(&mut self, request: RequestId) {
        let (from, until) = (self.handled.began, self.handled.ended);
        self.measure(Stage::Validate, from, until);
        if let Some(key) = self.requests.get(&request).cloned() {
            self.validated(&key, (from, until), 1, None);
        }
    }

    /// The request was answered, or nobody waits for an answer.
    pub(crate) fn answered(&mut self, request: RequestId, reject: Option<&Reject>) {
        let Some((tx_id, voter, choice)) = self.requests.remove(&request) else {
            return;
        };
        let Some(reject) = reject else { return };
        // What was asked of the store may still come about, and then it counts.
        let why: Arc<str> = match reject {
            Reject::Unavailable { reason, .. } => (*reason).into(),
            // The messages of these may name values.
            Reject::SecondChoice { .. } => "this trustee has already chosen otherwise".into(),
            Reject::Refused(_) => "the board refused it".into(),
            other => other.to_string().into(),
        };
        if let Some(ballot) = self.ballots.get_mut(&tx_id)
            && let Some(track) = ballot.track(&voter, &choice)
            && track.counted.is_none()
        {
            track.failed = Some(why);
            self.settle(&tx_id);
        }
    }

    /// What a vote is about to be signed with is durable: the guard holds it.
    pub(crate) fn guarded(&mut self, statement: &[u8]) {
        if !self.is_on() {
            return;
        }
        let at_ns = self.ns(Instant::now());
        let Ok((header, body)) = statement::parse::<VoteBody>(statement) else {
            return;
        };
        if let Some(ballot) = self.ballots.get_mut(&body.tx_id)
            && let Some(track) = ballot.track(&header.node_id, &body.choice)
        {
            track.events.push(SpanEvent {
                at_ns,
                name: "guard.durable",
                attributes: Vec::new(),
            });
        }
    }

    /// A stream to a peer stands.
    pub(crate) fn stream_up(&mut self, stream: StreamId, peer: &NodeId) {
        self.streams.insert(stream, peer.clone());
    }

    /// A frame came on a stream; the engine handles it next.
    pub(crate) fn frame(&mut self, stream: StreamId, frame: &Frame, arrival: Arrival) {
        let Some(frame::Body::Batch(batch)) = &frame.body else {
            return;
        };
        let votes = batch.votes.iter().filter_map(|vote| vote.vote.as_ref());
        for signed in votes.chain(batch.evidence.iter().flat_map(votes_of)) {
            self.measure(Stage::Validate, arrival.read, arrival.checked);
            let Some(key) = self.key(signed) else {
                continue;
            };
            if self.arrive(&key, Way::Stream(stream), arrival.read, None) {
                let times = (arrival.read, arrival.checked);
                let leader = match self.batch {
                    Some((batch, leader)) if batch == arrival.read => Some(leader),
                    _ => None,
                };
                let span = self.validated(&key, times, arrival.together, leader);
                if let (None, Some(first)) = (leader, span) {
                    self.batch = Some((arrival.read, first));
                }
            }
        }
    }

    /// Begins to follow a vote; false if it is followed already, or on the board.
    pub(super) fn arrive(
        &mut self,
        (tx_id, voter, choice): &VoteKey,
        way: Way,
        began: Instant,
        link: Option<TraceContext>,
    ) -> bool {
        let from = match way {
            Way::Stream(stream) => self.streams.get(&stream).cloned(),
            Way::Client | Way::Board => None,
        };
        let from = from.map(|peer| self.names.of(&peer));
        let receive = self.ids.next_id();
        let members = self.rules.total();
        let ballot = self.ballot(tx_id);
        let known = ballot.has(voter, choice) || ballot.track(voter, choice).is_some();
        // What is on the board is no invention.
        if known || (way != Way::Board && !ballot.has_room(members)) {
            return false;
        }
        ballot.tracks.push(Track {
            voter: voter.clone(),
            choice: choice.clone(),
            receive,
            way,
            from,
            began,
            link,
            spans: Vec::new(),
            events: Vec::new(),
            asked: 0,
            answered: None,
            applied: None,
            counted: None,
            failed: None,
        });
        true
    }

    /// Under a vote's `vote.receive`: a finished span, and where it is.
    pub(super) fn under(
        &mut self,
        (tx_id, voter, choice): &VoteKey,
        name: &'static str,
        times: (Instant, Instant),
        add: impl FnOnce(Span) -> Span,
    ) -> Option<TraceContext> {
        if !self.is_on() {
            return None;
        }
        let ballot = self.ballots.get_mut(tx_id)?;
        let (root, tx) = (ballot.root, ballot.tx.clone());
        let parent = TraceContext {
            span_id: ballot.track(voter, choice)?.receive,
            ..root
        };
        let span_id = self.ids.next_id();
        let span = self.span(parent, &tx, (span_id, name), times);
        let span = add(span.with("quorate.voter", self.names.of(voter)));
        self.ballots
            .get_mut(tx_id)?
            .track(voter, choice)?
            .spans
            .push(span);
        Some(TraceContext { span_id, ..root })
    }

    fn validated(
        &mut self,
        key: &VoteKey,
        times: (Instant, Instant),
        together: usize,
        leader: Option<TraceContext>,
    ) -> Option<TraceContext> {
        self.under(key, Stage::Validate.name(), times, |mut span| {
            span.links.extend(leader);
            span.with("quorate.batch", together)
        })
    }

    /// This node proposes a vote to the board.
    pub(super) fn proposes_vote(&mut self, ticket: Ticket, signed: &SignedStatement) {
        let Some(key) = self.key(signed) else { return };
        let began = Instant::now();
        self.arrive(&key, Way::Board, began, None);
        let (tx_id, voter, choice) = &key;
        if let Some(ballot) = self.ballots.get_mut(tx_id)
            && let Some(track) = ballot.track(voter, choice)
        {
            track.asked += 1;
        }
        let span = self.ids.next_id();
        let what = Asked::Vote(key);
        self.questions
            .insert(ticket, Question { span, began, what });
    }

    /// The store has answered.
    pub(super) fn proposed_vote(
        &mut self,
        question: &Question,
        key: &VoteKey,
        result: &Result<Proposed, ProposeError>,
    ) {
        let now = Instant::now();
        self.measure(Stage::Store, question.began, now);
        let (tx_id, voter, choice) = key;
        let is_on = self.is_on();
        let Some(ballot) = self.ballots.get_mut(tx_id) else {
            return;
        };
        let (root, tx) = (ballot.root, ballot.tx.clone());
        let Some(track) = ballot.track(voter, choice) else {
            return;
        };
        track.asked = track.asked.saturating_sub(1);
        track.answered = Some(now);
        if let Ok(Proposed::Applied(revision)) = result {
            track.applied = Some(*revision);
        }
        if is_on {
            let parent = TraceContext {
                span_id: track.receive,
                ..root
            };
            let name = (question.span, Stage::Store.name());
            let span = self.span(parent, &tx, name, (question.began, now));
            let span = outcome(span.with("quorate.voter", self.names.of(voter)), result);
            if let Some(ballot) = self.ballots.get_mut(tx_id)
                && let Some(track) = ballot.track(voter, choice)
            {
                // First, so that the count finds it.
                track.spans.insert(0, span);
            }
        }
        self.settle(tx_id);
    }

    /// Lets the votes of a ballot go of which nothing more is to come.
    pub(super) fn settle(&mut self, tx_id: &TxId) {
        loop {
            let Some(ballot) = self.ballots.get_mut(tx_id) else {
                return;
            };
            let Some(done) = ballot.tracks.iter().position(Track::is_done) else {
                return;
            };
            let track = ballot.tracks.swap_remove(done);
            self.received(tx_id, track);
        }
    }

    /// The whole of one vote.
    fn received(&mut self, tx_id: &TxId, track: Track) {
        let ends = [track.answered, track.counted.map(|(at, _)| at)];
        let end = ends.into_iter().flatten().max();
        let end = end.unwrap_or_else(|| self.handled.ended.max(track.began));
        if track.way != Way::Board && track.counted.is_some() {
            self.measure(Stage::Receive, track.began, end);
        }
        let values = self.shows_values();
        let Some(ballot) = self.ballots.get(tx_id) else {
            return;
        };
        // What never came onto the board hangs under nothing.
        if !self.is_on() || ballot.opened_ms.is_none() {
            return;
        }
        let (root, tx) = (ballot.root, ballot.tx.clone());
        let name = (track.receive, Stage::Receive.name());
        let way = match track.way {
            Way::Client => "client",
            Way::Stream(_) => "stream",
            Way::Board => "board",
        };
        let mut span = self
            .span(root, &tx, name, (track.began, end))
            .with("quorate.voter", self.names.of(&track.voter))
            .with("quorate.way", way);
        if let Some(from) = track.from {
            span = span.with("quorate.from", from);
        }
        if let Some((_, revision)) = track.counted {
            span = span
                .with("quorate.revision", revision)
                .with("quorate.reported", track.applied == Some(revision));
        }
        if values {
            span = span.with("quorate.value", shown(&track.choice));
        }
        span.links.extend(track.link);
        span.events = track.events;
        span.error = track.failed;
        let mut spans = vec![span];
        spans.extend(track.spans);
        self.emit(tx_id, spans);
    }
}

/// The votes that misbehaviour consists in.
pub(super) fn votes_of(misbehaviour: &Misbehaviour) -> Vec<&SignedStatement> {
    match &misbehaviour.kind {
        Some(misbehaviour::Kind::DoubleVote(lie)) => {
            [&lie.first, &lie.second].into_iter().flatten().collect()
        }
        Some(misbehaviour::Kind::MinorityVote(lie)) => lie.dissent.iter().collect(),
        None => Vec::new(),
    }
}

/// With what a proposal came to.
pub(super) fn outcome(span: Span, result: &Result<Proposed, ProposeError>) -> Span {
    match result {
        Ok(Proposed::Applied(revision)) => span
            .with("quorate.outcome", "applied")
            .with("quorate.revision", *revision),
        Ok(Proposed::Unchanged(_)) => span.with("quorate.outcome", "unchanged"),
        // Another was faster, mostly: nothing went wrong.
        Err(ProposeError::Refused(_)) => span.with("quorate.outcome", "refused"),
        Err(error) => {
            let why = error.to_string();
            span.with("quorate.outcome", "unavailable").failed(why)
        }
    }
}

/// A value as people read it, cut where it is long.
pub(super) fn shown(choice: &Choice) -> Value {
    const LONGEST: usize = 66;
    let mut text = choice.to_string();
    if text.len() > LONGEST {
        text.truncate(LONGEST);
        text.push('…');
    }
    Value::from(text)
}
