//! Member records: what a trustee tells the cluster about itself, signed by both of
//! its keys, and the files they travel in.

use std::path::{Path, PathBuf};

use prost::Message;
use quorate_consensus::ids::{NameError, check_cluster_name};
use quorate_consensus::rules::{self, Member, RulesError};
use quorate_consensus::wire::{MemberRecord, SignatureScheme, SignedMemberRecord};
use quorate_consensus::{Domain, NodeId};

use crate::file::{self, FileError};
use crate::key::SigningKey;
use crate::verify::Ed25519Verifier;

/// The file name's end.
pub const EXTENSION: &str = "member";

/// Why a member record could not be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The cluster's name.
    #[error("cluster name: {0}")]
    ClusterName(#[from] NameError),
    /// One key for two purposes.
    #[error("vote key and node key of {0} are the same: make one key for each")]
    SameKey(NodeId),
    /// The record.
    #[error("{}: {source}", path.display())]
    Record {
        /// Where it was read from.
        path: PathBuf,
        /// What is wrong with it.
        source: RulesError,
    },
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Makes a member record, signed by both keys.
///
/// # Errors
/// [`MemberError::ClusterName`] or [`MemberError::SameKey`].
pub fn make_member_record(
    cluster_name: &str,
    node_id: &NodeId,
    vote_key: &SigningKey,
    node_key: &SigningKey,
) -> Result<SignedMemberRecord, MemberError> {
    check_cluster_name(cluster_name)?;
    let (vote, node) = (vote_key.public_key(), node_key.public_key());
    if vote == node {
        return Err(MemberError::SameKey(node_id.clone()));
    }
    let record = MemberRecord {
        cluster_name: cluster_name.to_owned(),
        node_id: node_id.to_string(),
        scheme: SignatureScheme::Ed25519.into(),
        vote_key: vote.bytes.into(),
        node_key: node.bytes.into(),
    }
    .encode_to_vec();
    Ok(SignedMemberRecord {
        vote_signature: vote_key.sign(Domain::Member, &record),
        node_signature: node_key.sign(Domain::Member, &record),
        record,
    })
}

/// `<dir>/<node_id>.member`.
pub fn member_path(dir: &Path, node_id: &NodeId) -> PathBuf {
    dir.join(format!("{node_id}.{EXTENSION}"))
}

/// Writes a record to a new file, [`member_path`].
///
/// # Errors
/// [`FileError::Exists`] or another [`FileError`].
pub fn write_member(
    dir: &Path,
    node_id: &NodeId,
    record: &SignedMemberRecord,
) -> Result<PathBuf, MemberError> {
    let path = member_path(dir, node_id);
    file::write_new(&path, &record.encode_to_vec(), file::PUBLIC)?;
    Ok(path)
}

/// Reads a record and checks it: canonical, sound keys, both signatures. The cluster
/// it is for is its own word.
///
/// # Errors
/// [`MemberError::Record`] or [`MemberError::File`].
pub fn read_member(path: &Path) -> Result<(SignedMemberRecord, Member), MemberError> {
    let bytes = file::read(path)?;
    let refuse = |source| MemberError::Record {
        path: path.to_owned(),
        source,
    };
    let undecodable = |e: prost::DecodeError| refuse(RulesError::Undecodable(e.to_string()));
    let signed = SignedMemberRecord::decode(&*bytes).map_err(undecodable)?;
    let record = MemberRecord::decode(&*signed.record).map_err(undecodable)?;
    let member =
        rules::open_member(&signed, &record.cluster_name, &Ed25519Verifier).map_err(refuse)?;
    Ok((signed, member))
}

/// The record files of a directory, in the order of their names.
///
/// # Errors
/// [`MemberError::File`] when the directory cannot be read.
pub fn member_files(dir: &Path) -> Result<Vec<PathBuf>, MemberError> {
    let failed = |source| FileError::Io {
        action: "list",
        path: dir.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|e| e == EXTENSION) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests;
