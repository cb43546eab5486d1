//! The genesis rules document, made from the members' records: `quorate rules init`.

use std::path::{Path, PathBuf};

use prost::Message;
use quorate_consensus::Rules;
use quorate_consensus::rules::RulesError;
use quorate_consensus::wire::{
    ChainKind, ChainTarget, DissentPolicy, MemberRecord, PayloadEncoding, RulesDocument,
    SignedMemberRecord, SilencePolicy,
};

use crate::file::{self, FileError};
use crate::member::{MemberError, read_member};
use crate::verify::Ed25519Verifier;

/// Why a genesis could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    /// A member record.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// The document.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What a genesis says beside its members. Limits are those of
/// [`quorate_consensus::rules`].
#[derive(Clone, Debug, PartialEq)]
pub struct GenesisParams {
    /// The cluster's name: `[a-z0-9-]`, 1 to 63 characters.
    pub cluster_name: String,
    /// t: votes that decide.
    pub threshold: u32,
    /// What dissent means.
    pub dissent: DissentPolicy,
    /// What silence means.
    pub silence: SilencePolicy,
    /// Milliseconds from the vote that starts a ballot to its deadline.
    pub vote_timeout_ms: u64,
    /// Milliseconds between reaching the threshold and reserving.
    pub settle_window_ms: u64,
    /// Milliseconds that two clocks may differ.
    pub clock_skew_ms: u64,
    /// Where decided values go.
    pub chain: ChainTarget,
}

impl GenesisParams {
    /// The defaults: dissent aborts, silence marks, 300 s to vote, 100 ms to settle,
    /// clocks within 30 s, and the embedded ledger.
    pub fn new(cluster_name: impl Into<String>, threshold: u32) -> Self {
        Self {
            cluster_name: cluster_name.into(),
            threshold,
            dissent: DissentPolicy::Abort,
            silence: SilencePolicy::Mark,
            vote_timeout_ms: 300_000,
            settle_window_ms: 100,
            clock_skew_ms: 30_000,
            chain: ChainTarget {
                kind: ChainKind::Ledger.into(),
                chain_id: "ledger".into(),
                account: "quorate".into(),
                destination: String::new(),
                encoding: PayloadEncoding::QuorateV1.into(),
                first_nonce: 0,
                confirmations: 1,
            },
        }
    }
}

/// The canonical bytes of a genesis with these members, in whatever order they come.
/// Their digest is the cluster id: [`Rules::genesis`] gives it.
///
/// # Errors
/// [`RulesError`] when a record or a parameter is not acceptable.
pub fn make_genesis(
    params: &GenesisParams,
    members: Vec<SignedMemberRecord>,
) -> Result<Vec<u8>, RulesError> {
    let mut named = members
        .into_iter()
        .map(|signed| {
            let record = MemberRecord::decode(&*signed.record)
                .map_err(|e| RulesError::Undecodable(e.to_string()))?;
            Ok((record.node_id, signed))
        })
        .collect::<Result<Vec<_>, RulesError>>()?;
    named.sort_by(|(a, _), (b, _)| a.cmp(b));
    let document = RulesDocument {
        cluster_name: params.cluster_name.clone(),
        epoch: 1,
        predecessor: Vec::new(),
        members: named.into_iter().map(|(_, signed)| signed).collect(),
        threshold: params.threshold,
        dissent: params.dissent.into(),
        silence: params.silence.into(),
        vote_timeout_ms: params.vote_timeout_ms,
        settle_window_ms: params.settle_window_ms,
        clock_skew_ms: params.clock_skew_ms,
        chain: Some(params.chain.clone()),
    }
    .encode_to_vec();
    Rules::genesis(&document, &Ed25519Verifier)?;
    Ok(document)
}

/// `quorate rules init`: reads the members' record files, makes the genesis, and
/// writes it to a new file.
///
/// # Errors
/// [`GenesisError`]; then nothing was written.
pub fn init_rules(
    params: &GenesisParams,
    member_files: &[PathBuf],
    out: &Path,
) -> Result<Rules, GenesisError> {
    let members = member_files
        .iter()
        .map(|path| Ok(read_member(path)?.0))
        .collect::<Result<Vec<_>, MemberError>>()?;
    let document = make_genesis(params, members)?;
    let rules = Rules::genesis(&document, &Ed25519Verifier)?;
    file::write_new(out, &document, file::PUBLIC)?;
    Ok(rules)
}

/// Reads and checks a genesis document's file; compare its
/// [`cluster_id`](Rules::cluster_id) with the pinned one.
///
/// # Errors
/// [`GenesisError::File`] or [`GenesisError::Rules`].
pub fn read_genesis(path: &Path) -> Result<Rules, GenesisError> {
    Ok(Rules::genesis(&file::read(path)?, &Ed25519Verifier)?)
}

#[cfg(test)]
mod tests;
