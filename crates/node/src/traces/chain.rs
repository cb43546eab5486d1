//! From the reservation to the chain's word: moves that this node proposes, what it
//! asks the audit store and the chain.

use std::time::Instant;

use quorate_consensus::TxId;
use quorate_consensus::ballot::state_name;
use quorate_consensus::board::Board;
use quorate_consensus::wire::{BoardOp, board_op};
use quorate_engine::{
    AuditAnswer, AuditAsk, ChainAnswer, ChainAsk, ProposeError, Proposed, SendOutcome, Ticket,
};
use quorate_telemetry::Stage;
use quorate_telemetry::span::SpanEvent;

use super::ballot::Submission;
use super::vote::outcome;
use super::{Asked, Question, Traces};

impl Traces {
    fn ask(&mut self, ticket: Ticket, what: Asked) {
        let question = Question {
            span: self.ids.next_id(),
            began: Instant::now(),
            what,
        };
        self.questions.insert(ticket, question);
    }

    /// This node proposes an operation to the board.
    pub(crate) fn proposes(&mut self, ticket: Ticket, op: &BoardOp) {
        use board_op::Op;
        let lock = Stage::SubmissionLock.name();
        let (tx_id, name, step) = match &op.op {
            Some(Op::RecordVote(op)) => {
                if let Some(vote) = &op.vote {
                    self.proposes_vote(ticket, vote);
                }
                return;
            }
            Some(Op::Advance(op)) => (&op.tx_id, "board.advance", state_name(op.to())),
            Some(Op::Reserve(op)) => (&op.tx_id, lock, "reserve"),
            Some(Op::Lease(op)) => (&op.tx_id, lock, "lease"),
            Some(Op::Certify(op)) => (&op.tx_id, "board.certify", ""),
            Some(Op::Conclude(op)) => (&op.tx_id, "board.conclude", ""),
            Some(Op::ProveAbort(op)) => (&op.tx_id, "board.prove_abort", ""),
            Some(Op::MarkSilent(op)) => (&op.tx_id, "board.mark_silent", ""),
            Some(Op::Expire(op)) => (&op.tx_id, "board.expire", ""),
            _ => return,
        };
        if let Ok(tx_id) = TxId::new(tx_id) {
            self.ask(ticket, Asked::Board { tx_id, name, step });
        }
    }

    /// The store has answered a proposal.
    pub(crate) fn proposed(&mut self, ticket: Ticket, result: &Result<Proposed, ProposeError>) {
        let Some(question) = self.questions.remove(&ticket) else {
            return;
        };
        match &question.what {
            Asked::Vote(key) => self.proposed_vote(&question, key, result),
            Asked::Board { tx_id, name, step } => {
                let now = Instant::now();
                if *name == Stage::SubmissionLock.name() {
                    self.measure(Stage::SubmissionLock, question.began, now);
                }
                if !self.is_on() {
                    return;
                }
                let Some(ballot) = self.ballots.get(tx_id) else {
                    return;
                };
                let (root, tx) = (ballot.root, ballot.tx.clone());
                let times = (question.began, now);
                let mut span = self.span(root, &tx, (question.span, name), times);
                if !step.is_empty() {
                    span = span.with("quorate.step", *step);
                }
                self.emit(tx_id, vec![outcome(span, result)]);
            }
            Asked::Audit { .. } | Asked::Chain { .. } => {}
        }
    }

    /// The audit store is asked.
    pub(crate) fn asks_audit(&mut self, ticket: Ticket, ask: &AuditAsk) {
        let (tx_id, step) = match ask {
            AuditAsk::Pending { tx_id, .. } => (tx_id, "pending"),
            AuditAsk::Variant {
                tx_id, prepared, ..
            } => {
                let raw = prepared.raw.clone();
                if let Some(ballot) = self.ballots.get_mut(tx_id)
                    && let Some(submission) = &mut ballot.submission
                {
                    submission.raws.push(raw.clone());
                    self.raws.insert(raw, tx_id.clone());
                }
                (tx_id, "variant")
            }
            AuditAsk::Variants { tx_id } => (tx_id, "variants"),
            AuditAsk::Attempted { tx_id, .. } => (tx_id, "attempted"),
        };
        let tx_id = tx_id.clone();
        self.ask(ticket, Asked::Audit { tx_id, step });
    }

    /// The audit store has answered.
    pub(crate) fn audit_answered(&mut self, ticket: Ticket, answer: &AuditAnswer) {
        let Some(question) = self.questions.remove(&ticket) else {
            return;
        };
        let Asked::Audit { tx_id, step } = &question.what else {
            return;
        };
        let now = Instant::now();
        if let AuditAnswer::Variants(variants) = answer {
            if !variants.is_empty() {
                let raws = variants.iter().map(|(_, prepared)| prepared.raw.clone());
                self.begin_submission(tx_id, now, raws.collect());
            }
            return;
        }
        self.measure(Stage::SubmissionPersist, question.began, now);
        if !self.is_on() {
            return;
        }
        let Some(ballot) = self.ballots.get(tx_id) else {
            return;
        };
        let (root, tx) = (ballot.root, ballot.tx.clone());
        let name = (question.span, Stage::SubmissionPersist.name());
        let span = self
            .span(root, &tx, name, (question.began, now))
            .with("quorate.step", *step);
        let span = match answer {
            AuditAnswer::Conflict(why) | AuditAnswer::Unavailable(why) => span.failed(&**why),
            AuditAnswer::Done | AuditAnswer::Variants(_) => span,
        };
        self.emit(tx_id, vec![span]);
    }

    fn begin_submission(&mut self, tx_id: &TxId, began: Instant, raws: Vec<Vec<u8>>) {
        let ballot = self.ballot(tx_id);
        if ballot.submission.is_none() {
            for raw in &raws {
                self.raws.insert(raw.clone(), tx_id.clone());
            }
            let ballot = self.ballot(tx_id);
            ballot.submission = Some(Submission {
                began,
                events: Vec::new(),
                sent: 0,
                found: raws.len(),
                raws,
            });
        }
    }

    /// The chain is asked.
    pub(crate) fn asks_chain(&mut self, ticket: Ticket, ask: &ChainAsk, board: &Board) {
        let (tx_id, step) = match ask {
            // Every node looks, all the time.
            ChainAsk::Look { .. } => return,
            ChainAsk::Prepare { reservation, .. } => {
                let Some(tx_id) = board.reserved_for(reservation.nonce).cloned() else {
                    return;
                };
                self.begin_submission(&tx_id, Instant::now(), Vec::new());
                (tx_id, "chain.signed")
            }
            ChainAsk::Send { raw } => {
                let Some(tx_id) = self.raws.get(raw).cloned() else {
                    return;
                };
                (tx_id, "chain.sent")
            }
        };
        self.ask(ticket, Asked::Chain { tx_id, step });
    }

    /// The chain has answered.
    pub(crate) fn chain_answered(&mut self, ticket: Ticket, answer: &ChainAnswer) {
        let Some(question) = self.questions.remove(&ticket) else {
            return;
        };
        let Asked::Chain { tx_id, step } = &question.what else {
            return;
        };
        let at_ns = self.ns(Instant::now());
        let outcome = match answer {
            ChainAnswer::Seen(_) | ChainAnswer::Prepared(_) => "done",
            ChainAnswer::Sent(SendOutcome::Accepted) => "accepted",
            ChainAnswer::Sent(SendOutcome::NonceTooLow) => "nonce too low",
            ChainAnswer::Sent(SendOutcome::Underpriced) => "underpriced",
            ChainAnswer::Sent(SendOutcome::Unknown(_)) => "unknown",
            ChainAnswer::Unavailable(_) => "unavailable",
        };
        if let Some(ballot) = self.ballots.get_mut(tx_id)
            && let Some(submission) = &mut ballot.submission
        {
            submission.sent += usize::from(*step == "chain.sent");
            submission.events.push(SpanEvent {
                at_ns,
                name: step,
                attributes: vec![
                    ("quorate.outcome", outcome.into()),
                    ("quorate.attempt", submission.sent.into()),
                ],
            });
        }
    }

    /// The chain's word is on the board.
    pub(super) fn end_submission(&mut self, tx_id: &TxId, state: &'static str) {
        let until = self.handled.ended;
        let Some(ballot) = self.ballots.get_mut(tx_id) else {
            return;
        };
        let Some(submission) = ballot.submission.take() else {
            return;
        };
        let (root, tx) = (ballot.root, ballot.tx.clone());
        for raw in &submission.raws {
            self.raws.remove(raw);
        }
        self.measure(Stage::SubmissionSubmit, submission.began, until);
        if !self.is_on() {
            return;
        }
        let name = (self.ids.next_id(), Stage::SubmissionSubmit.name());
        let mut span = self
            .span(root, &tx, name, (submission.began, until))
            .with("quorate.attempt", submission.sent)
            .with("quorate.state", state)
            .with("quorate.recovered", submission.found > 0);
        span.events = submission.events;
        self.emit(tx_id, vec![span]);
    }
}
