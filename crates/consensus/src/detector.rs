//! What proves a lie, and what a proof is worth.

use std::collections::BTreeMap;

use prost::Message;

use crate::ballot::Ballot;
use crate::choice::Value;
use crate::ids::NodeId;
use crate::rules::Rules;
use crate::statement::{StatementError, Vote, VoteBody, open, open_field};
use crate::verifier::Verifier;
use crate::wire::misbehaviour::Kind;
use crate::wire::{self, Misbehaviour, SignedStatement, ViolationType};

/// Why a proof of misbehaviour proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DetectorError {
    /// No kind of misbehaviour is set.
    #[error("no misbehaviour is named")]
    Missing,
    /// One of its statements is no good.
    #[error("a statement of the evidence is no good: {0}")]
    Statement(#[from] StatementError),
    /// The statements are good and prove nothing.
    #[error("the statements prove nothing: {0}")]
    ProvesNothing(&'static str),
}

/// Misbehaviour that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conviction {
    /// Whose.
    pub node_id: NodeId,
    /// Which.
    pub kind: ViolationType,
    /// In which ballot.
    pub tx_id: crate::TxId,
}

/// Checks misbehaviour under the rules that its votes were signed under.
///
/// # Errors
/// [`DetectorError`] when it proves nothing.
pub fn convict(
    misbehaviour: &Misbehaviour,
    rules: &Rules,
    verifier: &dyn Verifier,
) -> Result<Conviction, DetectorError> {
    match &misbehaviour.kind {
        None => Err(DetectorError::Missing),
        Some(Kind::DoubleVote(proof)) => convict_double_vote(proof, rules, verifier),
        Some(Kind::MinorityVote(proof)) => convict_minority_vote(proof, rules, verifier),
    }
}

fn proves_nothing<T>(why: &'static str) -> Result<T, DetectorError> {
    Err(DetectorError::ProvesNothing(why))
}

fn convict_double_vote(
    proof: &wire::DoubleVote,
    rules: &Rules,
    verifier: &dyn Verifier,
) -> Result<Conviction, DetectorError> {
    let first: Vote = open_field(&proof.first, rules, verifier)?;
    let second: Vote = open_field(&proof.second, rules, verifier)?;
    if first.node_id != second.node_id {
        return proves_nothing("the two votes are of two trustees");
    }
    if first.body.tx_id != second.body.tx_id {
        return proves_nothing("the two votes are for two transactions");
    }
    if !contradict(&first.body, &second.body, rules) {
        return proves_nothing(
            "the two votes make one choice, or were signed so far apart that the trustee may have lost its memory between them",
        );
    }
    Ok(Conviction {
        node_id: first.node_id,
        kind: ViolationType::DoubleVoting,
        tx_id: first.body.tx_id,
    })
}

/// Whether two votes of one trustee for one transaction prove DOUBLE_VOTING: two
/// choices, signed within [`Rules::vote_lifetime_ms`] of each other, for a trustee
/// that lost its disk is no liar.
pub fn contradict(a: &VoteBody, b: &VoteBody, rules: &Rules) -> bool {
    a.choice != b.choice && a.time_ms.abs_diff(b.time_ms) <= rules.vote_lifetime_ms()
}

fn convict_minority_vote(
    proof: &wire::MinorityVote,
    rules: &Rules,
    verifier: &dyn Verifier,
) -> Result<Conviction, DetectorError> {
    let dissent: Vote = open_field(&proof.dissent, rules, verifier)?;
    let Some(own) = dissent.body.choice.value() else {
        return proves_nothing("an abstention is no dissent");
    };
    if proof.majority.len() != rules.threshold() {
        return proves_nothing("there must be exactly t votes for the other value");
    }
    let mut majority: Option<Vote> = None;
    for signed in &proof.majority {
        let vote: Vote = open(signed, rules, verifier)?;
        if vote.body.tx_id != dissent.body.tx_id {
            return proves_nothing("a vote is for another transaction");
        }
        if vote.node_id == dissent.node_id {
            return proves_nothing("the dissenter's own vote is among the t votes");
        }
        match (vote.body.choice.value(), &majority) {
            (None, _) => return proves_nothing("an abstention is among the t votes"),
            (Some(value), _) if value == own => {
                return proves_nothing("the dissent is a vote for the same value");
            }
            (Some(value), Some(last)) if last.body.choice.value() != Some(value) => {
                return proves_nothing("the t votes are not for one value");
            }
            (_, Some(last)) if last.node_id >= vote.node_id => {
                return proves_nothing("the t votes must ascend by node_id");
            }
            _ => majority = Some(vote),
        }
    }
    Ok(Conviction {
        node_id: dissent.node_id,
        kind: ViolationType::MinorityVote,
        tx_id: dissent.body.tx_id,
    })
}

/// All misbehaviour that a ballot's recorded votes prove, ascending by member.
///
/// Every statement on record is weighed, late and second ones too: what is proven
/// then depends on what was signed, and not on the order of arrival, which a liar
/// may choose.
pub fn misbehaviour_in(ballot: &Ballot) -> Vec<(NodeId, ViolationType, Misbehaviour)> {
    misbehaviour_but(ballot, &|_, _| false)
}

/// [`misbehaviour_in`] without what `known` says is known already.
pub(crate) fn misbehaviour_but(
    ballot: &Ballot,
    known: &dyn Fn(&NodeId, ViolationType) -> bool,
) -> Vec<(NodeId, ViolationType, Misbehaviour)> {
    let mut found = Vec::new();
    if ballot.second_votes.is_empty() && is_of_one_mind(ballot) {
        return found;
    }
    let majorities = majorities(ballot);
    for (node_id, recorded) in &ballot.votes {
        let second = ballot.second_votes.get(node_id);
        let mut add = |violation, kind| {
            let misbehaviour = Misbehaviour { kind: Some(kind) };
            found.push((node_id.clone(), violation, misbehaviour));
        };
        if let Some(second) = second
            && !known(node_id, ViolationType::DoubleVoting)
        {
            let proof = wire::DoubleVote {
                first: Some(recorded.vote.signed.clone()),
                second: Some(second.signed.clone()),
            };
            add(ViolationType::DoubleVoting, Kind::DoubleVote(proof));
        }
        if majorities.is_empty() || known(node_id, ViolationType::MinorityVote) {
            continue;
        }
        let proof = [Some(&recorded.vote), second]
            .into_iter()
            .flatten()
            .find_map(|vote| dissent(vote, &majorities, ballot.rules.threshold()));
        if let Some(proof) = proof {
            add(ViolationType::MinorityVote, Kind::MinorityVote(proof));
        }
    }
    found
}

/// All recorded votes are for one value, abstentions apart: nobody dissents.
fn is_of_one_mind(ballot: &Ballot) -> bool {
    let votes = ballot.votes.values();
    let mut values = votes.filter_map(|recorded| recorded.vote.body.choice.value());
    let first = values.next();
    values.all(|value| Some(value) == first)
}

type Supporters<'a> = BTreeMap<&'a NodeId, &'a SignedStatement>;

/// Values that t trustees signed, most supporters first, the smallest value first
/// among equals.
fn majorities(ballot: &Ballot) -> Vec<(&Value, Supporters<'_>)> {
    let mut supporters: BTreeMap<&Value, Supporters<'_>> = BTreeMap::new();
    let first = ballot.votes.values().map(|recorded| &recorded.vote);
    for vote in first.chain(ballot.second_votes.values()) {
        if let Some(value) = vote.body.choice.value() {
            let of_value = supporters.entry(value).or_default();
            of_value.insert(&vote.node_id, &vote.signed);
        }
    }
    let mut majorities: Vec<_> = supporters
        .into_iter()
        .filter(|(_, of_value)| of_value.len() >= ballot.rules.threshold())
        .collect();
    majorities.sort_by_key(|(_, of_value)| std::cmp::Reverse(of_value.len()));
    majorities
}

fn dissent(
    vote: &Vote,
    majorities: &[(&Value, Supporters<'_>)],
    threshold: usize,
) -> Option<wire::MinorityVote> {
    let own = vote.body.choice.value()?;
    majorities
        .iter()
        .filter(|(value, _)| *value != own)
        .find_map(|(_, supporters)| {
            let majority: Vec<SignedStatement> = supporters
                .iter()
                .filter(|(node_id, _)| **node_id != &vote.node_id)
                .take(threshold)
                .map(|(_, signed)| (*signed).clone())
                .collect();
            (majority.len() == threshold).then(|| wire::MinorityVote {
                dissent: Some(vote.signed.clone()),
                majority,
            })
        })
}

/// Whether proven misbehaviour of this kind bans: DOUBLE_VOTING always,
/// MINORITY_VOTE only if 2t > N, for else the majority may be the smaller half.
pub fn bans(kind: ViolationType, rules: &Rules) -> bool {
    match kind {
        ViolationType::DoubleVoting => true,
        ViolationType::MinorityVote => 2 * rules.threshold() > rules.total(),
        _ => false,
    }
}

/// BLAKE3-256 of a ban proof's canonical bytes: what a pardon names.
pub fn proof_digest(proof: &wire::BanProof) -> [u8; 32] {
    *blake3::hash(&proof.encode_to_vec()).as_bytes()
}

/// The vote that misbehaviour is about: the dissent, or the first of two. Nothing
/// is verified.
pub(crate) fn accused_vote(misbehaviour: &Misbehaviour) -> Option<&SignedStatement> {
    match misbehaviour.kind.as_ref()? {
        Kind::DoubleVote(proof) => proof.first.as_ref(),
        Kind::MinorityVote(proof) => proof.dissent.as_ref(),
    }
}
