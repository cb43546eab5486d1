//! Ballots in which nothing moves: what each waits for, and what an operator must hear of.

use std::sync::Arc;
use std::time::Instant;

use quorate_consensus::TxId;
use quorate_consensus::ballot::state_name;
use quorate_consensus::wire::BallotState;
use quorate_engine::{Alert, Engine, Now};
use quorate_telemetry::TraceContext;

use super::{Traces, WAITS_LONGEST_MS};

impl Traces {
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

    /// Comes back after this pause, if nothing moves before; never without one.
    pub(super) fn wait_from(&mut self, tx_id: &TxId, now: Now, pause_ms: Option<u64>) {
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
