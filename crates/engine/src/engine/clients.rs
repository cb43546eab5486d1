//! Votes that clients hand in, the sign guard, and who waits for what.

use quorate_consensus::ballot::is_final;
use quorate_consensus::board::Refusal;
use quorate_consensus::statement::{self, KeyRole, Vote, VoteBody};
use quorate_consensus::wire::{self, BallotState, VoteRecorded};
use quorate_consensus::words::violation_word;
use quorate_consensus::{Choice, Domain, NodeId, TxId};

use super::local::{Held, Journal, Local};
use super::verdicts::digest_of;
use super::{Engine, Pending, Signing, Timer, Waiting};
use crate::api::{
    Answer, Effect, Handed, Now, ProposeError, Proposed, Record, Reject, RequestId, Submit, Wait,
};

/// When a client should try again, in milliseconds.
const RETRY_MS: u64 = 1_000;

impl Engine {
    /// What this node alone knows about a transaction; the journal is asked when it
    /// is new.
    pub(super) fn local(&mut self, now: Now, tx_id: &TxId) -> &mut Local {
        let asked = self
            .locals
            .get(tx_id)
            .is_some_and(|local| local.journal != Journal::NotAsked);
        let ticket = (!asked).then(|| self.ask(now, Pending::Lookup(tx_id.clone())));
        let local = self.locals.entry(tx_id.clone()).or_default();
        if let Some(ticket) = ticket {
            let tx_id = tx_id.clone();
            self.out.push(Effect::Lookup { ticket, tx_id });
            local.journal = Journal::Asked(ticket);
        }
        local
    }

    pub(super) fn submit(&mut self, now: Now, request: RequestId, submit: Submit) {
        match self.try_submit(now, request, submit) {
            Ok(()) => {}
            Err(reject) => self.answer(request, Err(reject)),
        }
    }

    fn try_submit(&mut self, now: Now, request: RequestId, submit: Submit) -> Result<(), Reject> {
        if !self.is_in_service() {
            let stopped = matches!(self.signing, Signing::Stopped(_));
            let why = self.not_signing(now).filter(|_| stopped);
            return Err(
                why.unwrap_or_else(|| unavailable("STARTING", "this node is still starting"))
            );
        }
        // A statement is checked before anything is looked up for it, so that one
        // that is no good leaves no trace.
        let handed = match &submit.handed {
            Handed::Choice(choice) => (choice.clone(), None),
            Handed::Statement(signed) => {
                let vote = self.open_own(submit.tx_id.as_ref(), signed)?;
                (vote.body.choice.clone(), Some(vote))
            }
        };
        let tx_id = match (&submit.tx_id, &handed.1) {
            (Some(tx_id), _) => tx_id.clone(),
            (None, Some(vote)) => vote.body.tx_id.clone(),
            (None, None) => {
                return Err(Reject::Invalid {
                    field: "tx_id",
                    detail: "is missing".into(),
                });
            }
        };
        if tx_id.is_rules() {
            return Err(Reject::Invalid {
                field: "tx_id",
                detail:
                    "\"rules:\" is kept for changes of the rules, which this version does not take"
                        .into(),
            });
        }
        let (choice, vote) = handed;
        match self.first_choice(&tx_id) {
            Some(first) if first != choice => return Err(Reject::SecondChoice { tx_id, first }),
            Some(_) => {}
            None => self.may_start(now, &tx_id, vote.as_ref())?,
        }
        // A guard alone is no vote on the board: it expired, or never came there.
        let repeated = self.own_recorded(&tx_id).is_some();
        let waiting = Waiting {
            tx_id: tx_id.clone(),
            choice: choice.clone(),
            wait: submit.wait,
            repeated,
        };
        let local = self.local(now, &tx_id);
        if local.journal != Journal::Known {
            local.parked.insert(request, submit);
            self.requests.insert(request, waiting);
            return Ok(());
        }
        if !repeated && let Some(ban) = self.own_ban() {
            return Err(ban);
        }
        let signing = self
            .locals
            .get(&tx_id)
            .is_some_and(|l| l.signing_vote || l.own_vote.is_some());
        if !repeated && !signing {
            self.begin_vote(now, &tx_id, choice, vote)?;
        }
        self.requests.insert(request, waiting);
        self.local(now, &tx_id).waiters.insert(request);
        self.touch(&tx_id);
        Ok(())
    }

    /// Opens a statement that a client signed, which must be this node's trustee's.
    fn open_own(
        &self,
        tx_id: Option<&TxId>,
        signed: &wire::SignedStatement,
    ) -> Result<Vote, Reject> {
        let (header, body) = statement::parse::<VoteBody>(&signed.statement)?;
        if header.node_id != self.config.node_id {
            return Err(Reject::OtherTrustee {
                own: self.config.node_id.clone(),
                found: header.node_id,
            });
        }
        if tx_id.is_some_and(|tx_id| *tx_id != body.tx_id) {
            return Err(Reject::Invalid {
                field: "tx_id",
                detail: format!("differs from the statement's, {}", body.tx_id),
            });
        }
        let rules = self.rules_of(&body.tx_id);
        let verifier = self.verifier.as_ref();
        Ok(statement::open_parsed(
            signed, header, body, &rules, verifier,
        )?)
    }

    /// What this trustee has already chosen, as far as it is in memory.
    fn first_choice(&self, tx_id: &TxId) -> Option<Choice> {
        // What the board has was signed first, whatever a guard says that was written
        // before this node knew of it.
        let recorded = self.own_recorded(tx_id).map(|vote| &vote.body.choice);
        let guard = self.locals.get(tx_id).and_then(|l| l.guard.as_ref());
        recorded.or(guard.map(|(choice, _)| choice)).cloned()
    }

    /// This trustee's vote on the board.
    pub(super) fn own_recorded(&self, tx_id: &TxId) -> Option<&Vote> {
        let ballot = self.board.ballot(tx_id)?;
        let recorded = ballot.votes.get(&self.config.node_id)?;
        Some(&recorded.vote)
    }

    pub(super) fn own_ban(&self) -> Option<Reject> {
        let ban = self.board.member(&self.config.node_id)?.ban.as_ref()?;
        Some(Reject::Banned {
            node_id: self.config.node_id.clone(),
            reason: violation_word(ban.kind).to_owned(),
        })
    }

    /// Whether a first vote for this transaction may be begun now.
    fn may_start(&self, now: Now, tx_id: &TxId, vote: Option<&Vote>) -> Result<(), Reject> {
        if let Some(ban) = self.own_ban() {
            return Err(ban);
        }
        let ended = match self.board.ballot(tx_id) {
            // Until the roll is due a first vote is recorded, late or not: whoever is
            // slow must not be marked silent for that.
            Some(ballot) => {
                let due = ballot.deadline_ms().is_some_and(|at| at <= now.wall_ms);
                Some(ballot.state).filter(|state| is_final(*state) && (ballot.roll_called || due))
            }
            None => self.board.collected(tx_id),
        };
        if let Some(state) = ended {
            let tx_id = tx_id.clone();
            return Err(Reject::BallotClosed { tx_id, state });
        }
        if let Some(vote) = vote {
            let off_ms = i64::try_from(i128::from(vote.body.time_ms) - i128::from(now.wall_ms))
                .unwrap_or(i64::MAX);
            let limit_ms = self.board.rules().clock_skew_ms();
            if off_ms.unsigned_abs() > limit_ms {
                return Err(Reject::ClockOff { off_ms, limit_ms });
            }
        }
        self.not_signing(now).map_or(Ok(()), Err)
    }

    /// What a client is told while nothing is signed.
    fn not_signing(&self, now: Now) -> Option<Reject> {
        let why = self.signing_stopped(now)?;
        Some(Reject::Unavailable {
            reason: match self.signing {
                Signing::Stopped(_) => "SIGNING_STOPPED",
                _ => "QUARANTINE",
            },
            why,
            retry_ms: match self.signing {
                Signing::Quarantined { wall_ms, mono_ms } => wall_ms
                    .saturating_sub(now.wall_ms)
                    .max(mono_ms.saturating_sub(now.mono_ms)),
                _ => 60_000,
            },
        })
    }

    /// Makes the choice durable, then signs it or takes the signature handed in.
    fn begin_vote(
        &mut self,
        now: Now,
        tx_id: &TxId,
        choice: Choice,
        handed: Option<Vote>,
    ) -> Result<(), Reject> {
        // The guard may have come from the journal only now.
        if let Some(first) = self.first_choice(tx_id)
            && first != choice
        {
            let tx_id = tx_id.clone();
            return Err(Reject::SecondChoice { tx_id, first });
        }
        self.may_start(now, tx_id, handed.as_ref())?;
        if let Some(vote) = handed {
            self.guard(tx_id, choice, vote.signed.statement.clone());
            let local = self.local(now, tx_id);
            local.own_vote = Some(vote.signed);
            local.own_vote_mono = now.mono_ms;
            return Ok(());
        }
        if !self.config.signs_votes {
            return Err(Reject::Invalid {
                field: "vote",
                detail: "this node does not hold its trustee's vote key: hand in a statement signed by it".into(),
            });
        }
        let body = VoteBody {
            tx_id: tx_id.clone(),
            choice: choice.clone(),
            time_ms: now.wall_ms,
        };
        let statement =
            statement::bytes_to_sign(&self.rules_of(tx_id), &self.config.node_id, &body);
        self.guard(tx_id, choice, statement.clone());
        self.local(now, tx_id).signing_vote = true;
        let pending = Pending::SignVote(tx_id.clone(), statement.clone());
        self.sign_bytes(now, pending, KeyRole::Vote, Domain::Vote, statement);
        Ok(())
    }

    fn guard(&mut self, tx_id: &TxId, choice: Choice, statement: Vec<u8>) {
        self.persist(Record::Guard {
            tx_id: tx_id.clone(),
            choice: choice.clone(),
            statement: statement.clone(),
        });
        if let Some(local) = self.locals.get_mut(tx_id) {
            local.guard = Some((choice, statement));
        }
    }

    /// The vote key has signed, or has not.
    pub(super) fn vote_signed(
        &mut self,
        now: Now,
        tx_id: &TxId,
        statement: Vec<u8>,
        result: Result<Vec<u8>, String>,
    ) {
        let Some(local) = self.locals.get_mut(tx_id) else {
            return;
        };
        // The ballot may have expired and begun again meanwhile, with a fresh
        // statement in the guard: this signature is of no use any more.
        if local
            .guard
            .as_ref()
            .is_none_or(|(_, guarded)| *guarded != statement)
        {
            return;
        }
        local.signing_vote = false;
        match result {
            Ok(signature) => {
                local.own_vote = Some(wire::SignedStatement {
                    statement,
                    signature,
                });
                local.own_vote_mono = now.mono_ms;
                self.touch(tx_id);
            }
            Err(why) => {
                let why = format!("the vote key could not sign: {why}");
                self.reject_waiters(tx_id, &unavailable("VOTE_KEY_AWAY", &why));
                // Nobody waits any more: there may be nothing left to know about it.
                self.touch(tx_id);
            }
        }
    }

    /// Hands the own vote to the board while the board does not show it.
    pub(super) fn record_own_vote(&mut self, now: Now, tx_id: &TxId) -> Option<u64> {
        self.locals.get(tx_id)?.own_vote.as_ref()?;
        let recorded = self.own_recorded(tx_id).is_some();
        let again = now.mono_ms + RETRY_MS.max(2 * self.stagger_ms());
        let lifetime = self.board.rules().vote_lifetime_ms();
        let local = self.locals.get_mut(tx_id)?;
        let vote = local.own_vote.as_ref()?;
        if recorded {
            local.own_vote = None;
            return None;
        }
        let signed_ms = statement::parse::<VoteBody>(&vote.statement).map_or(0, |(_, b)| b.time_ms);
        if now.wall_ms > signed_ms.saturating_add(lifetime) {
            // Too old to be recorded: the choice stays guarded, and the client that
            // repeats it gets a fresh statement.
            local.own_vote = None;
            self.reject_waiters(
                tx_id,
                &unavailable("VOTE_TOO_OLD", "the board was away too long for this vote"),
            );
            return None;
        }
        if now.mono_ms >= local.own_vote_mono {
            let vote = vote.clone();
            local.own_vote_mono = again;
            let pending = Pending::ProposeOwnVote(tx_id.clone(), digest_of(&vote));
            let op = wire::RecordVoteOp {
                vote: Some(vote),
                only_first: true,
            };
            self.propose(now, pending, wire::board_op::Op::RecordVote(op));
            return Some(again);
        }
        Some(local.own_vote_mono)
    }

    /// The board's answer to the own vote.
    pub(super) fn own_vote_proposed(
        &mut self,
        tx_id: &TxId,
        digest: [u8; 32],
        result: Result<Proposed, ProposeError>,
    ) {
        // The board has a vote by now, or another one is on its way: nobody waits for
        // this answer.
        let awaited = self.locals.get(tx_id).and_then(|l| l.own_vote.as_ref());
        if awaited.is_none_or(|vote| digest_of(vote) != digest) {
            return;
        }
        let reject = match result {
            // The entry itself is what counts; it comes through the log.
            Ok(_) => return,
            Err(ProposeError::Unavailable(why)) => {
                // The vote is tried again; the client hears that it is unknown.
                let reject = unavailable("COORDINATOR_UNAVAILABLE", &why);
                self.reject_waiters(tx_id, &reject);
                return;
            }
            Err(error @ ProposeError::OlderStore { .. }) => {
                let reject = unavailable("COORDINATOR_UNAVAILABLE", &error.to_string());
                self.reject_waiters(tx_id, &reject);
                return;
            }
            Err(ProposeError::Refused(refusal)) => match refusal {
                Refusal::OtherChoice { choice } => {
                    // Adopt what the board has: this signature is never used again.
                    if let Some(local) = self.locals.get_mut(tx_id) {
                        local.guard = Some((choice.clone(), Vec::new()));
                    }
                    Reject::SecondChoice {
                        tx_id: tx_id.clone(),
                        first: choice,
                    }
                }
                Refusal::Banned(node_id) => Reject::Banned {
                    node_id,
                    reason: "see the violations of this trustee".into(),
                },
                Refusal::Collected(state) => Reject::BallotClosed {
                    tx_id: tx_id.clone(),
                    state,
                },
                other => Reject::Refused(other),
            },
        };
        if let Some(local) = self.locals.get_mut(tx_id) {
            local.own_vote = None;
        }
        self.reject_waiters(tx_id, &reject);
        self.touch(tx_id);
    }

    /// The board shows a vote: the own one leaves the node now, and not before.
    pub(super) fn vote_recorded(&mut self, now: Now, tx_id: &TxId, recorded: &VoteRecorded) {
        let Some(signed) = &recorded.vote else { return };
        if let Some(local) = self.locals.get_mut(tx_id) {
            let recorded = |held: &mut Held| held.vote.signed == *signed;
            let gone: Vec<_> = local.held.extract_if(.., recorded).collect();
            self.let_go(gone.iter());
        }
        if recorded.node_id != self.config.node_id.as_str() || !self.is_live() {
            return;
        }
        self.broadcast(
            now,
            wire::Batch {
                votes: vec![wire::TracedVote {
                    vote: Some(signed.clone()),
                    traceparent: String::new(),
                }],
                ..wire::Batch::default()
            },
        );
        let local = self.local(now, tx_id);
        local.own_vote = None;
    }

    /// Adopts an own vote that the board shows and the guard does not hold.
    pub(super) fn adopt_own_vote(&mut self, tx_id: &TxId) {
        let known = self
            .locals
            .get(tx_id)
            .is_none_or(|l| l.journal != Journal::Known || l.guard.is_some());
        if known {
            return;
        }
        if let Some(vote) = self.own_recorded(tx_id).cloned() {
            self.guard(tx_id, vote.body.choice, vote.signed.statement);
        }
    }

    /// Answers whoever waits for what the ballot has reached.
    pub(super) fn answer_waiters(&mut self, tx_id: &TxId) {
        let Some(local) = self.locals.get(tx_id) else {
            return;
        };
        if local.waiters.is_empty() {
            return;
        }
        let Some(ballot) = self.board.ballot(tx_id) else {
            return;
        };
        let Some(vote) = self.own_recorded(tx_id).cloned() else {
            return;
        };
        let first = vote.body.choice;
        let state = ballot.state;
        let reached = |waiting: &Waiting| match waiting.wait {
            _ if waiting.choice != first => true,
            Wait::Recorded => true,
            Wait::Decided => !matches!(
                state,
                BallotState::Collecting | BallotState::ThresholdReached
            ),
            Wait::Confirmed => is_final(state),
        };
        let ready: Vec<_> = local
            .waiters
            .iter()
            .filter(|request| self.requests.get(request).is_none_or(reached))
            .copied()
            .collect();
        for request in ready {
            if let Some(local) = self.locals.get_mut(tx_id) {
                local.waiters.remove(&request);
            }
            let (Some(waiting), Some(view)) = (self.requests.remove(&request), self.view(tx_id))
            else {
                continue;
            };
            let result = match waiting.choice == first {
                true => Ok(Answer {
                    ballot: view,
                    vote: vote.signed.clone(),
                    repeated: waiting.repeated,
                }),
                // It was signed elsewhere while this one waited.
                false => Err(Reject::SecondChoice {
                    tx_id: tx_id.clone(),
                    first: first.clone(),
                }),
            };
            self.answer(request, result);
        }
    }

    pub(super) fn reject_waiters(&mut self, tx_id: &TxId, reject: &Reject) {
        let Some(local) = self.locals.get_mut(tx_id) else {
            return;
        };
        for request in std::mem::take(&mut local.waiters) {
            self.requests.remove(&request);
            self.answer(request, Err(reject.clone()));
        }
    }

    pub(super) fn reject_closed(&mut self, request: RequestId, tx_id: &TxId, state: BallotState) {
        let tx_id = tx_id.clone();
        self.answer(request, Err(Reject::BallotClosed { tx_id, state }));
    }

    /// The ballot never started and was removed; the guards remain.
    pub(super) fn expired(&mut self, tx_id: &TxId) {
        let reject = Reject::Expired {
            tx_id: tx_id.clone(),
        };
        self.reject_waiters(tx_id, &reject);
        // Who asks only now waits for the journal's answer, which goes on.
        let parked = self.locals.get(tx_id).is_some_and(|l| !l.parked.is_empty());
        if self.is_live() && !parked {
            self.drop_local(tx_id);
        }
    }

    /// The board forgot a ballot that ended; what it had of this trustee, too.
    pub(super) fn collected(&mut self, tx_id: &TxId, state: BallotState) {
        if let Some(local) = self.locals.get_mut(tx_id) {
            local.own_vote = None;
        }
        let reject = Reject::BallotClosed {
            tx_id: tx_id.clone(),
            state,
        };
        self.reject_waiters(tx_id, &reject);
    }

    pub(super) fn abandon(&mut self, request: RequestId) {
        if let Some(waiting) = self.requests.remove(&request) {
            if let Some(local) = self.locals.get_mut(&waiting.tx_id) {
                local.waiters.remove(&request);
                local.parked.remove(&request);
            }
            self.touch(&waiting.tx_id);
        }
    }

    /// Whether the accused is this node's own trustee.
    pub(super) fn is_own(&self, node_id: &NodeId) -> bool {
        *node_id == self.config.node_id
    }

    /// Sets when a transaction is evaluated again.
    pub(super) fn nap(&mut self, now: Now, tx_id: &TxId, at: Option<u64>) {
        let timer = Timer::Transaction(tx_id.clone());
        match at {
            Some(at) => {
                let at = at.clamp(now.mono_ms + 1, now.mono_ms + super::LONGEST_NAP_MS);
                self.wake_at(timer, at);
            }
            None => self.unset(timer),
        }
    }
}

pub(super) fn unavailable(reason: &'static str, why: &str) -> Reject {
    Reject::Unavailable {
        reason,
        why: why.to_owned(),
        retry_ms: RETRY_MS,
    }
}
