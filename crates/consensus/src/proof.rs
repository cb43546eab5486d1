//! What a stranger can check offline, knowing nothing but the cluster id.

use std::sync::Arc;

use crate::choice::Value;
use crate::detector::{Conviction, DetectorError};
use crate::ids::{ClusterId, NodeId, TxId};
use crate::rules::{Rules, RulesError};
use crate::statement::StatementError;
use crate::verifier::Verifier;
use crate::wire;

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
    /// The transaction is dead.
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

/// Checks a chain of rules documents from the genesis on and gives them all.
///
/// # Errors
/// [`ProofError`] when the genesis is not the cluster's, or a later document is not
/// a decision of the epoch before it.
pub fn verify_rules(
    _chain: &wire::RulesChain,
    _cluster_id: &ClusterId,
    _verifier: &dyn Verifier,
) -> Result<Vec<Arc<Rules>>, ProofError> {
    unimplemented!()
}

/// Checks a proof, given as the bytes of a `quorate.v1.Proof`.
///
/// # Errors
/// [`ProofError`], the first that applies.
pub fn verify(
    _bytes: &[u8],
    _cluster_id: &ClusterId,
    _least_epoch: Option<u64>,
    _verifier: &dyn Verifier,
) -> Result<Verified, ProofError> {
    unimplemented!()
}
