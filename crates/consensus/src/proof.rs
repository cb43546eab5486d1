//! What a stranger can check offline, knowing nothing but the cluster id.
//!
//! A proof is accepted only in the one form that its content has: canonical bytes,
//! exactly t statements of each kind, ascending by node_id, every one of them
//! verified. So no bit of it can change and leave a proof.
//!
//! | proof | under the last rules of its chain |
//! |---|---|
//! | rules chain | the genesis' digest is the cluster id; every later document was decided by the epoch before as `rules:<epoch>:<try>` |
//! | certificate | t votes for one value, t decisions for that value and one reservation |
//! | abort proof | t abort statements for one transaction |
//! | evidence | what [`convict`] accepts |
//! | accusation proof | t members accuse one other member |

use std::sync::Arc;

use prost::Message;

use crate::choice::{Choice, Value};
use crate::detector::{Conviction, DetectorError, convict};
use crate::ids::{ClusterId, NodeId, RulesDigest, TxId};
use crate::rules::{Rules, RulesError, digest_of};
use crate::statement::{
    AbortBody, AccusationBody, Body, Decision, DecisionBody, Signed, StatementError, Vote,
    VoteBody, open,
};
use crate::verifier::Verifier;
use crate::wire::{self, SignedStatement, proof::Kind};

/// Why a proof does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Not a proof, or its bytes are not canonical.
    #[error("these bytes are no proof: {0}")]
    Undecodable(String),
    /// A rules document is no good.
    #[error("rules of epoch {epoch}: {error}")]
    Rules {
        /// Which epoch.
        epoch: u64,
        /// Why.
        error: RulesError,
    },
    /// A later rules document that the epoch before did not decide.
    #[error("the rules of epoch {epoch} lack their justification: {reason}")]
    Unjustified {
        /// Which epoch.
        epoch: u64,
        /// What is missing.
        reason: String,
    },
    /// Its rules are of an epoch before the least that was asked for.
    #[error("the proof stands under epoch {found}, before the least epoch {least}")]
    OldEpoch {
        /// The proof's.
        found: u64,
        /// The least that was asked for.
        least: u64,
    },
    /// A statement is no good.
    #[error("a statement is no good: {0}")]
    Statement(#[from] StatementError),
    /// Evidence proves nothing.
    #[error(transparent)]
    Evidence(#[from] DetectorError),
    /// The statements are good and do not make the proof.
    #[error("the statements do not make the proof: {0}")]
    Incomplete(String),
}

/// What a proof proves.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// The transaction was decided for this value and reserved so.
    Decided {
        /// The transaction.
        tx_id: TxId,
        /// The value.
        value: Value,
        /// The reservation; none for a change of rules.
        reservation: Option<wire::Reservation>,
        /// Whose votes.
        voters: Vec<NodeId>,
    },
    /// The transaction is dead: no certificate for it can exist, as long as t is more
    /// than half of the members and fewer than 2t − N of them lie.
    Dead {
        /// The transaction.
        tx_id: TxId,
        /// Why, and who says so.
        reasons: Vec<(NodeId, wire::AbortReason)>,
    },
    /// A trustee lied.
    Lied(Conviction),
    /// t members accuse one.
    Accused {
        /// Who.
        node_id: NodeId,
        /// By whom.
        by: Vec<NodeId>,
    },
}

/// A proof that holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// What it proves.
    pub fact: Fact,
    /// Under which rules.
    pub rules: Arc<Rules>,
}

/// A decision that was checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided {
    /// The transaction.
    pub tx_id: TxId,
    /// The value.
    pub value: Value,
    /// The reservation; none for a change of rules.
    pub reservation: Option<wire::Reservation>,
    /// Whose votes, ascending.
    pub voters: Vec<NodeId>,
}

/// Checks a proof, given as the bytes of a `quorate.v1.Proof`. Without
/// `least_epoch`, keys that were rotated out long ago could still have signed it.
///
/// # Errors
/// [`ProofError`], the first that applies.
pub fn verify(
    bytes: &[u8],
    cluster_id: &ClusterId,
    least_epoch: Option<u64>,
    verifier: &dyn Verifier,
) -> Result<Verified, ProofError> {
    let kind = decode(bytes)?;
    let chain = match &kind {
        Kind::Certificate(proof) => &proof.rules,
        Kind::Abort(proof) => &proof.rules,
        Kind::Evidence(proof) => &proof.rules,
        Kind::Accusation(proof) => &proof.rules,
    };
    let Some(rules) = verify_rules(required(chain, "rules")?, cluster_id, verifier)?.pop() else {
        return incomplete("it holds no rules document");
    };
    if let Some(least) = least_epoch.filter(|least| rules.epoch() < *least) {
        let found = rules.epoch();
        return Err(ProofError::OldEpoch { found, least });
    }
    let fact = match &kind {
        Kind::Certificate(certificate) => {
            let proof = required(&certificate.proof, "votes and decisions")?;
            let decided = verify_decision_proof(proof, &rules, verifier)?;
            Fact::Decided {
                tx_id: decided.tx_id,
                value: decided.value,
                reservation: decided.reservation,
                voters: decided.voters,
            }
        }
        Kind::Abort(proof) => {
            let (tx_id, reasons) = verify_aborts(&proof.aborts, &rules, verifier)?;
            Fact::Dead { tx_id, reasons }
        }
        Kind::Evidence(evidence) => {
            let misbehaviour = evidence.misbehaviour.as_ref();
            let misbehaviour = misbehaviour.ok_or(DetectorError::Missing)?;
            Fact::Lied(convict(misbehaviour, &rules, verifier)?)
        }
        Kind::Accusation(proof) => {
            let (node_id, by) = verify_accusations(&proof.accusations, &rules, verifier)?;
            Fact::Accused { node_id, by }
        }
    };
    Ok(Verified { fact, rules })
}

/// Checks a chain of rules documents from the genesis on and gives them all,
/// oldest first.
///
/// # Errors
/// [`ProofError`] when the chain is empty, the genesis is not the cluster's, or a
/// later document is not a decision of the epoch before it.
pub fn verify_rules(
    chain: &wire::RulesChain,
    cluster_id: &ClusterId,
    verifier: &dyn Verifier,
) -> Result<Vec<Arc<Rules>>, ProofError> {
    let Some((genesis, later)) = chain.links.split_first() else {
        return incomplete("it holds no rules document");
    };
    let mut last = Arc::new(verify_genesis(genesis, cluster_id, verifier)?);
    let mut all = vec![last.clone()];
    for link in later {
        last = Arc::new(verify_successor(&last, link, verifier)?);
        all.push(last.clone());
    }
    Ok(all)
}

fn verify_genesis(
    link: &wire::RulesLink,
    cluster_id: &ClusterId,
    verifier: &dyn Verifier,
) -> Result<Rules, ProofError> {
    // Before the document is read: one that is not pinned is not worth a look.
    let found = ClusterId(digest_of(&link.document).0);
    let genesis = if found == *cluster_id {
        Rules::genesis(&link.document, verifier)
    } else {
        let pinned = *cluster_id;
        Err(RulesError::OtherCluster { found, pinned })
    };
    let genesis = genesis.map_err(|error| ProofError::Rules { epoch: 1, error })?;
    if link.justification.is_some() {
        return unjustified(1, "a genesis certifies itself and carries none");
    }
    Ok(genesis)
}

/// Checks the document of the epoch after `rules` together with its justification:
/// `rules`' own members decided it.
///
/// # Errors
/// [`ProofError::Unjustified`] when they did not, [`ProofError::Rules`] when the
/// document is no good all the same.
pub fn verify_successor(
    rules: &Rules,
    link: &wire::RulesLink,
    verifier: &dyn Verifier,
) -> Result<Rules, ProofError> {
    let epoch = rules.epoch() + 1;
    let Some(justification) = &link.justification else {
        return unjustified(epoch, "it is missing");
    };
    let decided = verify_decision_proof(justification, rules, verifier)
        .or_else(|error| unjustified(epoch, error.to_string()))?;
    if !decided.tx_id.is_rules() {
        return unjustified(epoch, format!("{} is no change of rules", decided.tx_id));
    }
    if decided.value != rules_value(digest_of(&link.document)) {
        return unjustified(epoch, "another document was decided");
    }
    rules
        .successor(&link.document, verifier)
        .map_err(|error| ProofError::Rules { epoch, error })
}

/// Checks t votes and t decisions under the rules that the ballot opened under:
/// every statement is good, all are for one transaction and value, and the one
/// reservation is what the rules give for them.
///
/// # Errors
/// [`ProofError::Statement`] or [`ProofError::Incomplete`].
pub fn verify_decision_proof(
    proof: &wire::DecisionProof,
    rules: &Rules,
    verifier: &dyn Verifier,
) -> Result<Decided, ProofError> {
    let votes: Vec<Vote> = exactly_t::<VoteBody>("votes", &proof.votes, rules, verifier)?;
    let decisions: Vec<Decision> =
        exactly_t::<DecisionBody>("decisions", &proof.decisions, rules, verifier)?;
    let Some(Signed { body: decided, .. }) = decisions.first() else {
        return incomplete("it holds no decision");
    };
    if decisions.iter().any(|decision| decision.body != *decided) {
        return incomplete("the decisions differ in transaction, value or reservation");
    }
    let choice = Choice::Value(decided.value.clone());
    for vote in &votes {
        if vote.body.tx_id != decided.tx_id {
            return incomplete(format!(
                "the vote of {} is for another transaction",
                vote.node_id
            ));
        }
        if vote.body.choice != choice {
            let (node_id, found) = (&vote.node_id, &vote.body.choice);
            return incomplete(format!("{node_id} voted {found}, but {choice} is decided"));
        }
    }
    check_reservation(decided, rules)?;
    Ok(Decided {
        tx_id: decided.tx_id.clone(),
        value: decided.value.clone(),
        reservation: decided.reservation.clone(),
        voters: votes.into_iter().map(|vote| vote.node_id).collect(),
    })
}

fn check_reservation(decided: &DecisionBody, rules: &Rules) -> Result<(), ProofError> {
    let DecisionBody {
        tx_id,
        value,
        reservation,
    } = decided;
    if tx_id.is_rules() {
        let next = rules.epoch() + 1;
        if tx_id.rules_change().is_none_or(|(epoch, _)| epoch != next) {
            return incomplete(format!(
                "{tx_id} cannot be decided in epoch {}: a change of rules is rules:{next}:<try>",
                rules.epoch()
            ));
        }
        if !matches!(value, Value::Data(digest) if digest.len() == 32) {
            return incomplete("a change of rules is for the digest of a document");
        }
        return match reservation {
            None => Ok(()),
            Some(_) => incomplete("a change of rules needs no chain, and no reservation"),
        };
    }
    let Some(reservation) = reservation else {
        return incomplete("the decisions name no reservation");
    };
    if reservation.account != rules.chain().account {
        return incomplete("the reservation is of another account than the rules'");
    }
    if reservation.nonce < rules.chain().first_nonce {
        return incomplete("the reservation's nonce is before the rules' first");
    }
    if reservation.payload != rules.payload(tx_id, value) {
        return incomplete("the reservation's payload is not what the rules give for the value");
    }
    Ok(())
}

/// Checks t abort statements for one transaction, and gives it with who says why.
///
/// # Errors
/// [`ProofError::Statement`] or [`ProofError::Incomplete`].
pub fn verify_aborts(
    aborts: &[SignedStatement],
    rules: &Rules,
    verifier: &dyn Verifier,
) -> Result<(TxId, Vec<(NodeId, wire::AbortReason)>), ProofError> {
    let aborts = exactly_t::<AbortBody>("abort statements", aborts, rules, verifier)?;
    let tx_id = one_of_all("transaction", &aborts, |abort| &abort.tx_id)?;
    let reasons = aborts
        .into_iter()
        .map(|abort| (abort.node_id, abort.body.reason));
    Ok((tx_id, reasons.collect()))
}

/// Checks that t members accuse one other member, and gives it with its accusers.
/// They need not accuse it of the same.
///
/// # Errors
/// [`ProofError::Statement`] or [`ProofError::Incomplete`].
pub fn verify_accusations(
    accusations: &[SignedStatement],
    rules: &Rules,
    verifier: &dyn Verifier,
) -> Result<(NodeId, Vec<NodeId>), ProofError> {
    let accusations = exactly_t::<AccusationBody>("accusations", accusations, rules, verifier)?;
    let accused = one_of_all("accused", &accusations, |accusation| &accusation.accused)?;
    if !rules.is_member(&accused) {
        return incomplete(format!("{accused} is not a member under these rules"));
    }
    let by: Vec<_> = accusations.into_iter().map(|a| a.node_id).collect();
    if by.contains(&accused) {
        return incomplete(format!("{accused} cannot accuse itself"));
    }
    Ok((accused, by))
}

/// What is voted for to make a document the rules: its digest.
pub fn rules_value(document: RulesDigest) -> Value {
    Value::Data(Box::new(document.0))
}

/// The chain that ends with the genesis.
pub fn genesis_chain(genesis: &Rules) -> wire::RulesChain {
    wire::RulesChain {
        links: vec![wire::RulesLink {
            document: genesis.document().to_vec(),
            justification: None,
        }],
    }
}

/// A certificate to hand out; `rules` goes up to the epoch of the ballot.
pub fn certificate(rules: wire::RulesChain, proof: wire::DecisionProof) -> wire::Proof {
    wrap(Kind::Certificate(wire::Certificate {
        rules: Some(rules),
        proof: Some(proof),
    }))
}

/// An abort proof to hand out; `rules` goes up to the epoch of the ballot.
pub fn abort_proof(rules: wire::RulesChain, aborts: Vec<SignedStatement>) -> wire::Proof {
    let rules = Some(rules);
    wrap(Kind::Abort(wire::AbortProof { rules, aborts }))
}

/// Evidence to hand out; `rules` goes up to the epoch of its votes.
pub fn evidence(rules: wire::RulesChain, misbehaviour: wire::Misbehaviour) -> wire::Proof {
    wrap(Kind::Evidence(wire::Evidence {
        rules: Some(rules),
        misbehaviour: Some(misbehaviour),
    }))
}

/// An accusation proof to hand out; `rules` goes up to the epoch of the accusations.
pub fn accusation_proof(rules: wire::RulesChain, accusations: Vec<SignedStatement>) -> wire::Proof {
    let rules = Some(rules);
    wrap(Kind::Accusation(wire::AccusationProof {
        rules,
        accusations,
    }))
}

fn wrap(kind: Kind) -> wire::Proof {
    wire::Proof { kind: Some(kind) }
}

fn decode(bytes: &[u8]) -> Result<Kind, ProofError> {
    let proof = wire::Proof::decode(bytes).map_err(|e| ProofError::Undecodable(e.to_string()))?;
    // The re-encoding lacks whatever this version does not know, at any depth.
    if proof.encoded_len() != bytes.len() || proof.encode_to_vec() != bytes {
        let reason = "they are not canonical, or something was added to them";
        return Err(ProofError::Undecodable(reason.into()));
    }
    let kind = proof.kind;
    kind.ok_or_else(|| ProofError::Undecodable("they are of no known kind".into()))
}

/// Opens every statement of a list that must hold exactly t of them, by members
/// strictly ascending.
fn exactly_t<B: Body>(
    what: &'static str,
    list: &[SignedStatement],
    rules: &Rules,
    verifier: &dyn Verifier,
) -> Result<Vec<Signed<B>>, ProofError> {
    let (found, needed) = (list.len(), rules.threshold());
    if found != needed {
        return incomplete(format!("{found} {what} where {needed} are needed"));
    }
    let mut opened: Vec<Signed<B>> = Vec::with_capacity(found);
    for signed in list {
        let next = open::<B>(signed, rules, verifier)?;
        if let Some(last) = opened.last().filter(|last| last.node_id >= next.node_id) {
            let (before, after) = (&last.node_id, &next.node_id);
            return incomplete(format!(
                "the {what} must ascend by member without repetition, not {before}, {after}"
            ));
        }
        opened.push(next);
    }
    Ok(opened)
}

/// What all of the statements name, if it is one and the same.
fn one_of_all<B, T: Clone + PartialEq>(
    what: &'static str,
    statements: &[Signed<B>],
    of: impl Fn(&B) -> &T,
) -> Result<T, ProofError> {
    let mut all = statements.iter().map(|signed| of(&signed.body));
    match all.next() {
        Some(first) if all.all(|other| other == first) => Ok(first.clone()),
        _ => incomplete(format!("the statements name more than one {what}")),
    }
}

fn required<'a, T>(part: &'a Option<T>, what: &str) -> Result<&'a T, ProofError> {
    match part {
        Some(part) => Ok(part),
        None => incomplete(format!("it holds no {what}")),
    }
}

fn incomplete<T>(reason: impl Into<String>) -> Result<T, ProofError> {
    Err(ProofError::Incomplete(reason.into()))
}

fn unjustified<T>(epoch: u64, reason: impl Into<String>) -> Result<T, ProofError> {
    let reason = reason.into();
    Err(ProofError::Unjustified { epoch, reason })
}
