//! Collects the signatures in what came in, so that they are verified in batches off
//! the reactor before the engine asks for them one by one. Whatever is overlooked
//! here is verified by the engine all the same: this is speed, never safety.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_consensus::statement::{
    self, AbortBody, AccusationBody, Body, BootBody, DecisionBody, HelloBody, KeyRole,
    ObservationBody, OperatorActBody, VoteBody,
};
use quorate_consensus::wire::{
    self, BoardEntry, Frame, Misbehaviour, SignedStatement, ban_proof, board_op, frame,
    misbehaviour,
};
use quorate_consensus::{Rules, RulesDigest};
use quorate_crypto::{CachedVerifier, VerifyItem};

/// Warms the cache of verified signatures.
#[derive(Clone)]
pub(crate) struct Prewarmer {
    rules: Arc<BTreeMap<RulesDigest, Arc<Rules>>>,
    verifier: Arc<CachedVerifier>,
}

/// Signatures found so far.
struct Found<'a> {
    rules: &'a BTreeMap<RulesDigest, Arc<Rules>>,
    items: Vec<VerifyItem>,
}

impl Prewarmer {
    pub(crate) fn new(rules: &[Arc<Rules>], verifier: Arc<CachedVerifier>) -> Self {
        let rules = rules.iter().map(|r| (r.digest(), r.clone())).collect();
        Self {
            rules: Arc::new(rules),
            verifier,
        }
    }

    /// Verifies what is in frames, on a thread where blocking is allowed.
    pub(crate) async fn frames(&self, frames: Vec<Frame>) -> Vec<Frame> {
        self.run(frames, |found, frame| found.frame(frame)).await
    }

    /// The same for entries of the board's log.
    pub(crate) async fn entries(&self, entries: Vec<BoardEntry>) -> Vec<BoardEntry> {
        self.run(entries, |found, entry| found.entry(entry)).await
    }

    async fn run<T: Clone + Send + Sync + 'static>(
        &self,
        things: Vec<T>,
        collect: fn(&mut Found<'_>, &T),
    ) -> Vec<T> {
        let this = self.clone();
        let things = Arc::new(things);
        let shared = things.clone();
        let work = move || {
            let mut found = Found {
                rules: &this.rules,
                items: Vec::new(),
            };
            shared.iter().for_each(|thing| collect(&mut found, thing));
            if !found.items.is_empty() {
                this.verifier.prewarm(found.items);
            }
        };
        // Even if that thread failed, the engine verifies for itself.
        if let Err(error) = tokio::task::spawn_blocking(work).await {
            tracing::warn!(%error, "prewarm.failed");
        }
        Arc::unwrap_or_clone(things)
    }
}

impl Found<'_> {
    fn signed<B: Body>(&mut self, signed: &SignedStatement) {
        let Ok((header, _)) = statement::parse::<B>(&signed.statement) else {
            return;
        };
        let member = self
            .rules
            .get(&header.rules_digest)
            .and_then(|rules| rules.member(&header.node_id));
        if let Some(member) = member {
            let key = match B::KEY {
                KeyRole::Vote => &member.vote_key,
                KeyRole::Node => &member.node_key,
            };
            self.items.push(VerifyItem {
                key: key.clone(),
                domain: B::DOMAIN,
                statement: signed.statement.clone(),
                signature: signed.signature.clone(),
            });
        }
    }

    fn all<'a, B: Body>(&mut self, signed: impl IntoIterator<Item = &'a SignedStatement>) {
        signed.into_iter().for_each(|s| self.signed::<B>(s));
    }

    fn misbehaviour(&mut self, misbehaviour: &Misbehaviour) {
        match &misbehaviour.kind {
            Some(misbehaviour::Kind::DoubleVote(double)) => {
                self.all::<VoteBody>(double.first.iter().chain(&double.second));
            }
            Some(misbehaviour::Kind::MinorityVote(minority)) => {
                self.all::<VoteBody>(minority.dissent.iter().chain(&minority.majority));
            }
            None => {}
        }
    }

    fn frame(&mut self, frame: &Frame) {
        match &frame.body {
            Some(frame::Body::Hello(hello)) => self.all::<HelloBody>(&hello.hello),
            Some(frame::Body::Batch(batch)) => self.batch(batch),
            _ => {}
        }
    }

    fn batch(&mut self, batch: &wire::Batch) {
        self.all::<VoteBody>(batch.votes.iter().filter_map(|v| v.vote.as_ref()));
        self.all::<DecisionBody>(&batch.decisions);
        self.all::<AbortBody>(&batch.aborts);
        self.all::<ObservationBody>(&batch.observations);
        self.all::<AccusationBody>(&batch.accusations);
        self.all::<OperatorActBody>(&batch.operator_acts);
        batch.evidence.iter().for_each(|m| self.misbehaviour(m));
    }

    fn entry(&mut self, entry: &BoardEntry) {
        use board_op::Op;
        let Some(op) = entry.op.as_ref().and_then(|op| op.op.as_ref()) else {
            return;
        };
        match op {
            Op::RecordVote(op) => self.all::<VoteBody>(&op.vote),
            Op::Reserve(op) => self.all::<ObservationBody>(&op.observations),
            Op::Certify(op) => self.all::<DecisionBody>(&op.decisions),
            Op::Conclude(op) => self.all::<ObservationBody>(&op.observations),
            Op::ProveAbort(op) => self.all::<AbortBody>(&op.aborts),
            Op::Ban(op) => match op.proof.as_ref().and_then(|p| p.kind.as_ref()) {
                Some(ban_proof::Kind::Misbehaviour(m)) => self.misbehaviour(m),
                Some(ban_proof::Kind::Accusations(a)) => {
                    self.all::<AccusationBody>(&a.accusations);
                }
                Some(ban_proof::Kind::Silence(_)) | None => {}
            },
            Op::Unban(op) => self.all::<OperatorActBody>(&op.acts),
            Op::GiveUp(op) => self.all::<OperatorActBody>(&op.acts),
            Op::Accuse(op) => self.all::<AccusationBody>(&op.accusation),
            Op::Boot(op) => self.all::<BootBody>(&op.boot),
            Op::Advance(_)
            | Op::MarkSilent(_)
            | Op::Expire(_)
            | Op::Lease(_)
            | Op::Release(_)
            | Op::Collect(_) => {}
        }
    }
}
