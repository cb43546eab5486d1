//! The steps to the chain (docs/protocol.md, section 6).
//!
//! | step here | asks | goes on when |
//! |---|---|---|---|
//! | Lease | the board | the lease is ours, or 60 s have passed: it is advice, never a right |
//! | Row | audit: the PENDING row | it is durable |
//! | Variants | audit: what was signed before | answered |
//! | FirstLook | chain | nothing is there: sign; ours is there: watch |
//! | Preparing | chain: sign, do not send | signed |
//! | Storing | audit: hash and bytes | durable |
//! | Head | the board's head, linearizably | the mirror has reached it |
//! | LastLook | chain | nothing is there: send; no answer: Head |
//! | Sending | chain | taken: watch; fee too low → Preparing, else → Head, at most 5 times, never a new nonce |
//! | Watching | – | t observations conclude it; gone from the chain → Head |
//!
//! A crash after any step starts again at Lease: each step is safe to repeat, for
//! the reservation fixes account, nonce and payload. The step is entered only with
//! the certificate on the board: without t decisions nothing is signed or sent.

use quorate_consensus::TxId;
use quorate_consensus::wire::{self, BallotState, Reservation, board_op::Op};

use super::{Engine, Pending};
use crate::api::{
    Alert, AuditAnswer, AuditAsk, ChainAnswer, ChainAsk, Effect, Now, Prepared, SendOutcome,
    Sighting, Ticket,
};

/// How long the lease is asked for, in milliseconds.
const LEASE_MS: u64 = 30_000;

/// After this long a lease that somebody else holds is no reason to wait.
const LEASE_PATIENCE_MS: u64 = 60_000;

/// How long an answer is waited for before the step is taken again.
pub(super) const ANSWER_MS: u64 = 10_000;

/// Sendings in a row, and the first pause between them, which doubles.
const TRIES: u32 = 5;
const FIRST_PAUSE_MS: u64 = 100;

/// After all tries were in vain.
const LONG_PAUSE_MS: u64 = 10_000;

/// First and longest pause between two looks at the chain.
pub(super) const LOOK_MS: (u64, u64) = (50, 2_000);

/// How long a transaction that was taken may be invisible before it is sent again.
const INVISIBLE_MS: u64 = 2_000;

/// The step that a submission is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Idle,
    Lease,
    Row,
    Variants,
    FirstLook,
    Preparing,
    Storing,
    Head,
    /// The mirror must reach this revision.
    Awaiting(u64),
    LastLook,
    Sending,
    Watching,
}

/// One submission, as far as this process has come with it.
#[derive(Clone, Debug, Default)]
pub(super) struct Submission {
    step: Step,
    /// The question under way, and when it is asked again.
    asked: Option<(Ticket, u64)>,
    /// Nothing is done before this monotonic time.
    pause_until: u64,
    begun_mono: u64,
    watching_since: u64,
    tries: u32,
    /// How often this process sent it.
    pub(super) attempts: u32,
    fee: u32,
    variants: Vec<(u32, Prepared)>,
}

impl Submission {
    /// Hash of the latest variant; empty before one is signed.
    pub(super) fn tx_hash(&self) -> Vec<u8> {
        let latest = self.variants.last();
        latest
            .map(|(_, prepared)| prepared.tx_hash.clone())
            .unwrap_or_default()
    }

    /// Whether this is the question under way.
    fn is_asked(&self, ticket: Ticket) -> bool {
        self.asked.is_some_and(|(asked, _)| asked == ticket)
    }

    fn go(&mut self, step: Step) {
        self.step = step;
        self.asked = None;
    }

    fn pause(&mut self, now: Now, ms: u64, then: Step) {
        self.go(then);
        self.pause_until = now.mono_ms + ms;
    }

    /// The chain shows nothing: dropped, or undone by a reorganisation. The same bytes
    /// again.
    pub(super) fn not_seen(&mut self, now: Now) {
        if self.step == Step::Watching && now.mono_ms >= self.watching_since + INVISIBLE_MS {
            self.go(Step::Head);
        }
    }

    /// Another try from this step on, a longer pause each time.
    fn try_again(&mut self, now: Now, from: Step) {
        self.tries += 1;
        if self.tries >= TRIES {
            self.tries = 0;
            self.pause(now, LONG_PAUSE_MS, from);
        } else {
            self.pause(now, FIRST_PAUSE_MS << (self.tries - 1), from);
        }
    }
}

impl Engine {
    /// Takes the steps that can be taken now.
    pub(super) fn walk_submission(&mut self, now: Now, tx_id: &TxId) -> Option<u64> {
        let ballot = self.board.ballot(tx_id)?;
        let go_on = self.config.submits
            && self.is_in_service()
            && ballot.state == BallotState::Submitted
            && ballot.certificate.is_some()
            && !ballot.given_up;
        if !go_on {
            if let Some(local) = self.locals.get_mut(tx_id)
                && local.submission.step != Step::Idle
            {
                local.submission.go(Step::Idle);
            }
            return None;
        }
        let submission = &self.locals.get(tx_id)?.submission;
        if submission.step == Step::Watching && submission.pause_until <= now.mono_ms {
            // The observers say when there is something to do again.
            return None;
        }
        // Mostly an answer is waited for: nothing is copied for that.
        if submission.pause_until > now.mono_ms {
            return Some(submission.pause_until);
        }
        if let Some((_, again)) = submission.asked
            && submission.step != Step::Lease
            && again > now.mono_ms
        {
            return Some(again);
        }
        let reservation = ballot.reservation.clone()?;
        let value = ballot.value.clone()?;
        let lease = ballot.lease.clone();
        let revision = self.board.revision();
        loop {
            let submission = &mut self.locals.get_mut(tx_id)?.submission;
            if submission.pause_until > now.mono_ms {
                return Some(submission.pause_until);
            }
            if let Some((_, again)) = submission.asked
                && submission.step != Step::Lease
            {
                if again > now.mono_ms {
                    return Some(again);
                }
                submission.asked = None;
                // No answer: what was read of the board before may be old by now.
                if matches!(submission.step, Step::LastLook | Step::Sending) {
                    submission.go(Step::Head);
                }
            }
            match submission.step {
                Step::Idle => {
                    let delay = self.rank_in(tx_id) * self.stagger_ms();
                    let submission = &mut self.locals.get_mut(tx_id)?.submission;
                    // The rank tells those apart, too, who lose patience with a lease.
                    submission.begun_mono = now.mono_ms + delay;
                    submission.pause_until = submission.begun_mono;
                    submission.go(Step::Lease);
                }
                Step::Lease => {
                    let patience = submission.begun_mono + LEASE_PATIENCE_MS;
                    let held = lease.as_ref().filter(|lease| lease.until_ms > now.wall_ms);
                    match held {
                        Some(lease) if lease.holder == self.config.node_id => {
                            submission.go(Step::Row);
                        }
                        _ if patience <= now.mono_ms => submission.go(Step::Row),
                        Some(lease) => {
                            let free = now.mono_ms + (lease.until_ms - now.wall_ms);
                            return Some(free.min(patience));
                        }
                        None => {
                            if let Some((_, again)) = submission.asked
                                && again > now.mono_ms
                            {
                                return Some(again);
                            }
                            let op = wire::LeaseOp {
                                tx_id: tx_id.to_string(),
                                node_id: self.config.node_id.to_string(),
                                ttl_ms: LEASE_MS,
                            };
                            let ticket = self.ask(now, Pending::ProposeDuty(None));
                            self.out.push(Effect::Propose {
                                ticket,
                                op: wire::BoardOp {
                                    op: Some(Op::Lease(op)),
                                },
                                now_ms: now.wall_ms,
                            });
                            let again = now.mono_ms + 1_000;
                            self.locals.get_mut(tx_id)?.submission.asked = Some((ticket, again));
                            return Some(again.min(patience));
                        }
                    }
                }
                Step::Row => {
                    let ask = AuditAsk::Pending {
                        tx_id: tx_id.clone(),
                        value: value.clone(),
                        reservation: reservation.clone(),
                    };
                    return self.ask_audit(now, tx_id, ask);
                }
                Step::Variants => {
                    let ask = AuditAsk::Variants {
                        tx_id: tx_id.clone(),
                    };
                    return self.ask_audit(now, tx_id, ask);
                }
                Step::FirstLook | Step::LastLook => {
                    let ask = look(&reservation);
                    return self.ask_chain(now, tx_id, ask);
                }
                Step::Preparing => {
                    let attempt = submission.fee;
                    let ask = ChainAsk::Prepare {
                        reservation: reservation.clone(),
                        attempt,
                    };
                    return self.ask_chain(now, tx_id, ask);
                }
                Step::Storing => {
                    let Some((attempt, prepared)) = submission.variants.last().cloned() else {
                        submission.go(Step::Preparing);
                        continue;
                    };
                    let ask = AuditAsk::Variant {
                        tx_id: tx_id.clone(),
                        nonce: reservation.nonce,
                        attempt,
                        prepared,
                    };
                    return self.ask_audit(now, tx_id, ask);
                }
                Step::Head => {
                    let ticket = self.ask(now, Pending::SubmissionHead(tx_id.clone()));
                    self.out.push(Effect::ReadHead { ticket });
                    let again = now.mono_ms + ANSWER_MS;
                    self.locals.get_mut(tx_id)?.submission.asked = Some((ticket, again));
                    return Some(again);
                }
                Step::Awaiting(head) => {
                    if revision < head {
                        // Entries touch the transaction only when they are about
                        // it, so look again soon.
                        return Some(now.mono_ms + 10);
                    }
                    submission.go(Step::LastLook);
                }
                Step::Sending => {
                    let Some((_, prepared)) = submission.variants.last() else {
                        submission.go(Step::Preparing);
                        continue;
                    };
                    let raw = prepared.raw.clone();
                    return self.ask_chain(now, tx_id, ChainAsk::Send { raw });
                }
                Step::Watching => return None,
            }
        }
    }

    fn ask_audit(&mut self, now: Now, tx_id: &TxId, ask: AuditAsk) -> Option<u64> {
        let ticket = self.ask(now, Pending::Submission(tx_id.clone()));
        self.out.push(Effect::Audit { ticket, ask });
        let again = now.mono_ms + ANSWER_MS;
        self.locals.get_mut(tx_id)?.submission.asked = Some((ticket, again));
        Some(again)
    }

    fn ask_chain(&mut self, now: Now, tx_id: &TxId, ask: ChainAsk) -> Option<u64> {
        let ticket = self.ask(now, Pending::Submission(tx_id.clone()));
        self.out.push(Effect::Chain { ticket, ask });
        let again = now.mono_ms + ANSWER_MS;
        self.locals.get_mut(tx_id)?.submission.asked = Some((ticket, again));
        Some(again)
    }

    pub(super) fn submission_head(
        &mut self,
        now: Now,
        ticket: Ticket,
        tx_id: &TxId,
        head: Result<u64, String>,
    ) {
        // An answer that was waited for in vain may be old by now; it was asked again.
        if let Some(local) = self.locals.get_mut(tx_id)
            && local.submission.is_asked(ticket)
        {
            match head {
                Ok(head) => local.submission.go(Step::Awaiting(head)),
                Err(_) => local.submission.pause(now, 1_000, Step::Head),
            }
            self.touch(tx_id);
        }
    }

    pub(super) fn audit_answered(&mut self, now: Now, ticket: Ticket, answer: AuditAnswer) {
        let Some(Pending::Submission(tx_id)) = self.answered(ticket).map(|asked| asked.what) else {
            return;
        };
        let mut alert = None;
        if let Some(local) = self.locals.get_mut(&tx_id)
            && local.submission.is_asked(ticket)
        {
            let submission = &mut local.submission;
            let step = submission.step;
            match (step, answer) {
                (Step::Row, AuditAnswer::Done) => submission.go(Step::Variants),
                (Step::Variants, AuditAnswer::Variants(variants)) => {
                    submission.fee = variants.last().map_or(0, |(attempt, _)| *attempt);
                    submission.variants = variants;
                    submission.go(Step::FirstLook);
                }
                (Step::Storing, AuditAnswer::Done) => submission.go(Step::Head),
                (_, AuditAnswer::Conflict(detail)) => {
                    submission.pause(now, LONG_PAUSE_MS, step);
                    alert = Some(format!("the audit store refuses the submission: {detail}"));
                }
                // Away: submissions pause, votes are still taken.
                _ => submission.pause(now, 1_000, step),
            }
        }
        if let Some(detail) = alert {
            let tx_id = tx_id.clone();
            self.alert(Alert::Submission { tx_id, detail });
        }
        self.touch(&tx_id);
    }

    pub(super) fn chain_answered(&mut self, now: Now, ticket: Ticket, answer: ChainAnswer) {
        match self.answered(ticket).map(|asked| asked.what) {
            Some(Pending::ObserverLook(tx_id)) => {
                self.looked(now, ticket, &tx_id, answer);
                self.touch(&tx_id);
            }
            Some(Pending::Submission(tx_id)) => {
                self.submission_chain(now, ticket, &tx_id, answer);
                self.touch(&tx_id);
            }
            _ => {}
        }
    }

    fn submission_chain(&mut self, now: Now, ticket: Ticket, tx_id: &TxId, answer: ChainAnswer) {
        let Some(ballot) = self.board.ballot(tx_id) else {
            return;
        };
        let payload = ballot.reservation.as_ref().map(|r| r.payload.clone());
        let Some(local) = self.locals.get_mut(tx_id) else {
            return;
        };
        if !local.submission.is_asked(ticket) {
            return;
        }
        let submission = &mut local.submission;
        let step = submission.step;
        match (step, answer) {
            (Step::FirstLook, ChainAnswer::Seen(Sighting::Nothing)) => {
                let signed = !submission.variants.is_empty();
                submission.go(if signed { Step::Head } else { Step::Preparing });
            }
            (Step::LastLook, ChainAnswer::Seen(Sighting::Nothing)) => submission.go(Step::Sending),
            (Step::FirstLook | Step::LastLook, ChainAnswer::Seen(seen)) => {
                let there = match &seen {
                    Sighting::Pending { payload, .. } | Sighting::Included { payload, .. } => {
                        Some(payload)
                    }
                    Sighting::Nothing => None,
                };
                // Ours or foreign, there is nothing to send: the observers say what
                // it is once it is deep enough. A foreign one that waits may still
                // drop out.
                let foreign = there != payload.as_ref();
                if foreign && matches!(seen, Sighting::Pending { .. }) {
                    submission.pause(now, LONG_PAUSE_MS, step);
                } else {
                    submission.watching_since = now.mono_ms;
                    submission.go(Step::Watching);
                }
                local.look_mono = Some(now.mono_ms);
            }
            (Step::Preparing, ChainAnswer::Prepared(prepared)) => {
                let known = submission
                    .variants
                    .iter()
                    .any(|(_, known)| *known == prepared);
                if !known {
                    submission.variants.push((submission.fee, prepared));
                }
                submission.go(Step::Storing);
            }
            (Step::Sending, ChainAnswer::Sent(outcome)) => {
                submission.attempts += 1;
                let attempts = submission.attempts;
                match outcome {
                    SendOutcome::Accepted => {
                        submission.tries = 0;
                        submission.watching_since = now.mono_ms;
                        submission.go(Step::Watching);
                        local.look_mono = Some(now.mono_ms);
                        local.look_after_ms = LOOK_MS.0;
                    }
                    // Never a new nonce: look who used it.
                    SendOutcome::NonceTooLow | SendOutcome::Unknown(_) => {
                        submission.try_again(now, Step::Head);
                    }
                    SendOutcome::Underpriced => {
                        submission.fee += 1;
                        submission.try_again(now, Step::Preparing);
                    }
                }
                let ask = AuditAsk::Attempted {
                    tx_id: tx_id.clone(),
                    attempts,
                };
                // Nobody waits for this one; its answer finds no question.
                let ticket = self.ask(now, Pending::ProposeDuty(None));
                self.out.push(Effect::Audit { ticket, ask });
            }
            (Step::Sending, _) => submission.try_again(now, Step::Head),
            (Step::LastLook, _) => submission.pause(now, 1_000, Step::Head),
            // The endpoint is away.
            _ => submission.pause(now, 1_000, step),
        }
    }

    /// The nonce was somebody else's and another one is reserved: what was said and
    /// signed about the old one is of no use.
    pub(super) fn reserved_anew(&mut self, tx_id: &TxId) {
        if let Some(local) = self.locals.get_mut(tx_id) {
            local.decisions.clear();
            local.observations.clear();
            local.own_observation = None;
            local.submission = Submission::default();
            local.look_mono = None;
            // The answer under way is about the old nonce: taken for the new one's, it
            // would say that this one was taken too, and leave a gap that nothing fills.
            local.looking = None;
        }
    }
}

pub(super) fn look(reservation: &Reservation) -> ChainAsk {
    ChainAsk::Look {
        account: reservation.account.clone(),
        nonce: reservation.nonce,
    }
}
