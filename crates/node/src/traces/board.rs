//! What the board says: ballots open, move and end, votes are there. Lies are in `lies`.

use std::sync::Arc;
use std::time::Instant;

use quorate_consensus::ballot::{is_aborted, is_final, state_name};
use quorate_consensus::board::Board;
use quorate_consensus::wire::{
    BallotState, BoardEntry, BoardEvent, StateChanged, VoteRecorded, board_event,
};
use quorate_consensus::{Choice, NodeId, TxId};
use quorate_engine::Now;
use quorate_telemetry::{Span, Stage};

use super::ballot::Way;
use super::{Arrival, ENDED, Handled, Traces, VoteKey, WAITS_MS};

/// When the entries that are believed now came, and were handled together.
pub(super) struct Reading {
    pub(super) read: Instant,
    pub(super) handled: Handled,
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

    pub(super) fn check(
        &mut self,
        key: &VoteKey,
        reading: &Reading,
        add: impl FnOnce(Span) -> Span,
    ) {
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
}
