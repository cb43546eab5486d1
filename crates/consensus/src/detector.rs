//! What proves a lie, and what a proof is worth.

use crate::ballot::Ballot;
use crate::ids::NodeId;
use crate::rules::Rules;
use crate::statement::StatementError;
use crate::verifier::Verifier;
use crate::wire::{Misbehaviour, ViolationType};

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
    _misbehaviour: &Misbehaviour,
    _rules: &Rules,
    _verifier: &dyn Verifier,
) -> Result<Conviction, DetectorError> {
    unimplemented!()
}

/// All misbehaviour that a ballot's recorded votes prove, ascending by member.
pub fn misbehaviour_in(_ballot: &Ballot) -> Vec<(NodeId, ViolationType, Misbehaviour)> {
    unimplemented!()
}

/// Whether proven misbehaviour of this kind bans: DOUBLE_VOTING always,
/// MINORITY_VOTE only if 2t > N, for else the majority may be the smaller half.
pub fn bans(_kind: ViolationType, _rules: &Rules) -> bool {
    unimplemented!()
}

/// BLAKE3-256 of a ban proof's canonical bytes: what a pardon names.
pub fn proof_digest(_proof: &crate::wire::BanProof) -> [u8; 32] {
    unimplemented!()
}
