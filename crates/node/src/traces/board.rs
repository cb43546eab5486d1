//! What the board says: ballots open, move and end, votes are there, lies are found.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_consensus::ballot::{is_aborted, is_final, state_name};
use quorate_consensus::board::Board;
use quorate_consensus::statement::{self, AccusationBody};
use quorate_consensus::wire::{
    BallotState, BanProof, Banned, BoardEntry, BoardEvent, Goodbye, Misbehaviour, SignedStatement,
    StateChanged, ViolationFound, VoteRecorded, ban_proof, board_event, misbehaviour,
};
use quorate_consensus::words::{goodbye_word, violation_word};
use quorate_consensus::{Choice, NodeId, TxId};
use quorate_engine::{Alert, Engine, Now, StreamId};
use quorate_telemetry::span::{Attributes, SpanEvent};
use quorate_telemetry::{Span, Stage, TraceContext};

use super::ballot::Way;
use super::vote::{shown, votes_of};
use super::{Arrival, CLOSED, ENDED, Handled, LIES, Traces, VoteKey, WAITS_LONGEST_MS, WAITS_MS};

/// A stream that was closed this long before its peer is known as a liar was closed
/// for it.
const CLOSED_FOR_IT: Duration = Duration::from_secs(10);

/// When the entries that are believed now came, and were handled together.
struct Reading {
    read: Instant,
    handled: Handled,
    together: usize,
}

impl Traces {
    /// The engine believes these entries: its mirror holds what they say.
    pub(crate) fn believed(
        &mut self,
        entries: &[BoardEntry],
        board: &Board,
        now: Now,
        in_service: bool,
    ) {
        if in_service && !self.live {
            self.live = true;
            // What is open from before this start has lost its root if the collector
            // began anew too; the same again does no harm.
            let open: Vec<_> = self.ballots.keys().cloned().collect();
            for tx_id in open {
                self.root(&tx_id, board);
            }
        }
        let handled = self.handled;
        let arrival = self.entries.take().unwrap_or(Arrival {
            read: handled.began,
            checked: handled.began,
            together: 1,
        });
        let reading = Reading {
            read: arrival.read,
            handled,
            together: entries.len(),
        };
        self.batch = None;
        for entry in entries {
            for (index, event) in (0..).zip(&entry.events) {
                self.happened((index, event), board, now, &reading);
            }
        }
    }

    fn happened(
        &mut self,
        (index, event): (u64, &BoardEvent),
        board: &Board,
        now: Now,
        reading: &Reading,
    ) {
        use board_event::Event as E;
        if let Some(E::Banned(banned)) = &event.event {
            self.banned(event, index, banned);
            return;
        }
        let Ok(tx_id) = TxId::new(&event.tx_id) else {
            return;
        };
        match &event.event {
            Some(E::StateChanged(changed)) => self.moved(&tx_id, event, changed, board, now),
            Some(E::VoteRecorded(vote)) => self.recorded(&tx_id, event, vote, board, now, reading),
            Some(E::ViolationFound(found)) => {
                self.violation((index, event), &tx_id, found, reading);
            }
            Some(E::Reserved(_)) => self.passes(&tx_id, event, "reserved", None),
            Some(E::Certified(_)) => self.passes(&tx_id, event, "certified", None),
            Some(E::GivenUp(_)) => self.passes(&tx_id, event, "given up", None),
            Some(E::LeaseChanged(lease)) => {
                let holder = NodeId::new(&lease.node_id).ok();
                let name = match holder {
                    Some(_) => "lease taken",
                    None => "lease given back",
                };
                self.passes(&tx_id, event, name, holder);
            }
            Some(E::Expired(_)) => {
                self.closed(&tx_id, event, "EXPIRED", None, 0);
                self.forget(&tx_id);
            }
            Some(E::Collected(_)) => self.forget(&tx_id),
            _ => {}
        }
    }

    /// The board says one more thing of a ballot's way to the chain.
    fn passes(
        &mut self,
        tx_id: &TxId,
        event: &BoardEvent,
        name: &'static str,
        who: Option<NodeId>,
    ) {
        let who = who.map(|who| ("quorate.submitter", self.names.of(&who).into()));
        if let Some(ballot) = self.ballots.get_mut(tx_id) {
            ballot.passes(event.time_ms, name, who.into_iter().collect());
        }
    }

    /// The root, exported by every node as soon as the ballot is open.
    fn root(&mut self, tx_id: &TxId, board: &Board) {
        let Some(on_board) = board.ballot(tx_id) else {
            return;
        };
        let Some(ballot) = self.ballots.get(tx_id) else {
            return;
        };
        let Some(opened_ms) = ballot.opened_ms.filter(|_| !is_final(ballot.state)) else {
            return;
        };
        let context = ballot.root;
        let rules = &on_board.rules;
        let mut span = self
            .common(tx_id, ("decision", 0, 0), (opened_ms, opened_ms))
            .with("quorate.threshold", rules.threshold())
            .with("quorate.total", rules.total())
            .with("quorate.state", state_name(BallotState::Collecting));
        span.span_id = context.span_id;
        span.parent = None;
        self.emit(tx_id, vec![span]);
    }

    fn moved(
        &mut self,
        tx_id: &TxId,
        event: &BoardEvent,
        changed: &StateChanged,
        board: &Board,
        now: Now,
    ) {
        let is_on = self.is_on();
        let ballot = self.ballot(tx_id);
        let state = changed.to();
        ballot.state = state;
        ballot.since_ms = event.time_ms;
        ballot.passes(event.time_ms, state_name(state), Vec::new());
        let opens = changed.from() == BallotState::Unspecified;
        if opens {
            ballot.opened_ms = Some(event.time_ms);
            if is_on {
                self.root(tx_id, board);
            }
        } else if ballot.opened_ms.is_none() {
            // It was forgotten here, and goes on after all.
            ballot.opened_ms = board.ballot(tx_id).map(|ballot| ballot.opened_ms);
        }
        self.wait_from(tx_id, now, (!is_final(state)).then_some(WAITS_MS));
        if is_final(state) {
            self.end_submission(tx_id, state_name(state));
            let round = board.ballot(tx_id).map_or(0, |ballot| ballot.round);
            let reason = is_aborted(state) || state == BallotState::Failed;
            let reason = reason.then(|| changed.reason.as_str().into());
            self.closed(tx_id, event, state_name(state), reason, round);
            self.ended.push_back(tx_id.clone());
            while self.ended.len() > ENDED {
                let Some(oldest) = self.ended.pop_front() else {
                    break;
                };
                let over = |b: &super::Ballot| is_final(b.state);
                if self.ballots.get(&oldest).is_some_and(over) {
                    self.forget(&oldest);
                }
            }
        }
    }

    /// The whole of a ballot, when it ended.
    fn closed(
        &mut self,
        tx_id: &TxId,
        event: &BoardEvent,
        state: &'static str,
        failed: Option<Arc<str>>,
        round: u32,
    ) {
        if !self.is_on() {
            return;
        }
        let Some(ballot) = self.ballots.get(tx_id) else {
            return;
        };
        let Some(opened_ms) = ballot.opened_ms else {
            return;
        };
        let events = ballot.path.clone();
        let count = ballot.voters.len();
        let voters: Vec<_> = ballot.voters.keys().cloned().collect();
        let times = (opened_ms, event.time_ms);
        let mut span = self
            .common(tx_id, ("decision.closed", event.revision, 0), times)
            .with("quorate.state", state)
            .with("quorate.votes", count)
            .with("quorate.voters", self.names.list(voters.iter()))
            .with("quorate.round", u64::from(round))
            .with("quorate.took_ms", event.time_ms.saturating_sub(opened_ms));
        span.events = events;
        let ill = failed.is_some();
        span.error = failed;
        if ill {
            self.show(tx_id);
        }
        self.emit(tx_id, vec![span]);
    }

    fn recorded(
        &mut self,
        tx_id: &TxId,
        event: &BoardEvent,
        recorded: &VoteRecorded,
        board: &Board,
        now: Now,
        reading: &Reading,
    ) {
        let choice = recorded.choice.as_ref().map(Choice::try_from);
        let (Ok(voter), Some(Ok(choice))) = (NodeId::new(&recorded.node_id), choice) else {
            return;
        };
        let key = (tx_id.clone(), voter, choice);
        let live = self.live;
        let ballot = self.ballot(tx_id);
        if ballot.opened_ms.is_none() {
            // It ended so long ago that it was forgotten here.
            ballot.opened_ms = board.ballot(tx_id).map(|ballot| ballot.opened_ms);
        }
        if live {
            self.arrive(&key, Way::Board, reading.read, None);
        }
        let (_, voter, choice) = &key;
        let ballot = self.ballot(tx_id);
        ballot.voters.insert(voter.clone(), choice.clone());
        if !live {
            ballot
                .tracks
                .retain(|t| t.voter != *voter || t.choice != *choice);
            return;
        }
        if let Some(track) = ballot.track(voter, choice) {
            track.counted = Some((reading.handled.ended, event.revision));
            // A client that was told otherwise was told too early.
            track.failed = None;
        }
        self.count(&key, event.revision, reading);
        self.check(&key, reading, |span| span.with("quorate.result", "clean"));
        self.look(&key, board, now);
        self.settle(tx_id);
    }

    fn count(&mut self, key: &VoteKey, revision: u64, reading: &Reading) {
        let (tx_id, voter, choice) = key;
        let times = (reading.read, reading.handled.ended);
        self.measure(Stage::Count, times.0, times.1);
        let leader = self.batch.map(|(_, leader)| leader);
        let together = reading.together;
        let span = self.under(key, Stage::Count.name(), times, |mut span| {
            span.links.extend(leader);
            span.with("quorate.revision", revision)
                .with("quorate.batch", together)
        });
        if let (None, Some(first)) = (leader, span) {
            self.batch = Some((reading.read, first));
        }
        // It belongs to the recording, where this node did that.
        if let Some(ballot) = self.ballots.get_mut(tx_id)
            && let Some(track) = ballot.track(voter, choice)
        {
            let store = |span: &&Span| span.name == Stage::Store.name();
            if let Some(store) = track.spans.iter().find(store).map(|span| span.span_id)
                && let Some(count) = track.spans.last_mut()
                && count.name == Stage::Count.name()
            {
                count.parent = Some(store);
            }
        }
    }

    fn check(&mut self, key: &VoteKey, reading: &Reading, add: impl FnOnce(Span) -> Span) {
        let times = (reading.handled.began, reading.handled.ended);
        self.measure(Stage::ByzantineCheck, times.0, times.1);
        self.under(key, Stage::ByzantineCheck.name(), times, add);
    }

    /// Looks at the ballot as the engine does after each vote: counts by value, and
    /// asks the table for the next move.
    fn look(&mut self, key: &VoteKey, board: &Board, now: Now) {
        let (tx_id, ..) = key;
        let Some(ballot) = board.ballot(tx_id) else {
            return;
        };
        let began = Instant::now();
        let (values, count) = {
            let counts = ballot.counts();
            (counts.len(), counts.values().copied().max().unwrap_or(0))
        };
        let counted = Instant::now();
        let next = board.next_move(tx_id, now.wall_ms);
        let judged = Instant::now();
        self.measure(Stage::Aggregate, began, counted);
        self.measure(Stage::ThresholdCheck, counted, judged);
        if !self.is_on() {
            return;
        }
        let threshold = ballot.rules.threshold();
        let state = state_name(ballot.state);
        let voters = self.names.list(ballot.votes.keys());
        let missing = self.names.list(ballot.without_vote());
        let recorded = ballot.votes.len();
        self.under(key, Stage::Aggregate.name(), (began, counted), |span| {
            span.with("quorate.count", count)
                .with("quorate.votes", recorded)
                .with("quorate.values", values)
        });
        let times = (counted, judged);
        self.under(key, Stage::ThresholdCheck.name(), times, |span| {
            let span = span
                .with("quorate.state", state)
                .with("quorate.count", count)
                .with("quorate.threshold", threshold)
                .with("quorate.reached", count >= threshold)
                .with("quorate.voters", voters)
                .with("quorate.missing", missing);
            match next {
                Some(next) => span.with("quorate.next", state_name(next.to)),
                None => span,
            }
        });
    }

    fn violation(
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

    fn banned(&mut self, event: &BoardEvent, index: u64, banned: &Banned) {
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

    /// An operator must hear of something about a transaction.
    pub(crate) fn alerted(&mut self, alert: &Alert) {
        let (tx_id, why): (_, Arc<str>) = match alert {
            Alert::NonceTaken { tx_id, nonce } => {
                (tx_id, format!("nonce {nonce} was taken").into())
            }
            Alert::Submission { tx_id, detail } => (tx_id, detail.as_str().into()),
            _ => return,
        };
        if !self.is_on() {
            return;
        }
        let Some(ballot) = self.ballots.get(tx_id) else {
            return;
        };
        let (root, tx) = (ballot.root, ballot.tx.clone());
        let now = Instant::now();
        let id = (self.ids.next_id(), "submission.alert");
        let span = self.span(root, &tx, id, (now, now)).failed(why);
        self.show(tx_id);
        self.emit(tx_id, vec![span]);
    }

    /// When to come back with [`Traces::waiting`], on the monotonic clock.
    pub(crate) fn next_wake(&self) -> Option<u64> {
        self.waits.first().map(|(at, _)| *at)
    }

    fn wait_from(&mut self, tx_id: &TxId, now: Now, pause_ms: Option<u64>) {
        if self.settings.is_none() {
            return;
        }
        let Some(ballot) = self.ballots.get_mut(tx_id) else {
            return;
        };
        let next = pause_ms.map(|pause| (now.mono_ms + pause, pause));
        if let Some((at, _)) = std::mem::replace(&mut ballot.waits, next) {
            self.waits.remove(&(at, tx_id.clone()));
        }
        if let Some((at, _)) = next {
            self.waits.insert((at, tx_id.clone()));
        }
    }

    /// Says of each ballot in which nothing has moved for a while what it waits for, as
    /// this node sees it.
    pub(crate) fn waiting(&mut self, engine: &Engine, now: Now) {
        while let Some((at, tx_id)) = self.waits.first().cloned()
            && at <= now.mono_ms
        {
            let pause = self.ballots.get(&tx_id).and_then(|ballot| ballot.waits);
            self.waits.pop_first();
            let Some((_, pause)) = pause else { continue };
            let next = (pause * 4).min(WAITS_LONGEST_MS);
            self.wait_from(&tx_id, now, Some(next));
            if self.is_on() {
                self.waits_for(&tx_id, engine);
            }
        }
    }

    fn waits_for(&mut self, tx_id: &TxId, engine: &Engine) {
        let board = engine.board();
        let (Some(ballot), Some(on_board)) = (self.ballots.get(tx_id), board.ballot(tx_id)) else {
            return;
        };
        let (root, tx): (TraceContext, _) = (ballot.root, ballot.tx.clone());
        let since_ms = ballot.since_ms;
        let missing = self.names.list(on_board.without_vote());
        let own = engine.node_id();
        let connected: Vec<_> = engine.connected().collect();
        let members = on_board.rules.members().map(|member| &member.node_id);
        let away = members.filter(|id| *id != own && !connected.contains(id));
        let away = self.names.list(away);
        let count = on_board.leading().map_or(0, |(_, count)| count);
        let state = on_board.state;
        let step = match state {
            BallotState::Collecting => "votes",
            BallotState::ThresholdReached => "its reservation",
            _ if on_board.certificate.is_none() => "t trustees' decisions",
            _ => "the chain, and t trustees who see it there",
        };
        let now = Instant::now();
        let id = (self.ids.next_id(), "ballot.waiting");
        let mut span = self
            .span(root, &tx, id, (now, now))
            .with("quorate.state", state_name(state))
            .with("quorate.waits_for", step)
            .with("quorate.count", count)
            .with("quorate.threshold", on_board.rules.threshold())
            .with("quorate.missing", missing)
            .with("quorate.unreachable", away);
        span.start_ns = span.start_ns.min(since_ms.saturating_mul(1_000_000));
        if let Some(deadline_ms) = on_board.deadline_ms() {
            span = span.with("quorate.deadline_ms", deadline_ms);
        }
        if let Some(lease) = &on_board.lease {
            span = span.with("quorate.submitter", self.names.of(&lease.holder));
        }
        self.emit(tx_id, vec![span]);
    }
}
