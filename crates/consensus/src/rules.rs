//! The rules document: who may decide, and how. Epoch 1 certifies itself, for its
//! digest is the cluster id; [`crate::proof::verify_rules`] checks the epochs after
//! it.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;

use crate::choice::Value;
use crate::ids::{ClusterId, NodeId, PeerId, RulesDigest, TxId, check_cluster_name};
use crate::verifier::{Domain, PublicKey, Verifier};
use crate::wire::{
    self, ChainKind, DissentPolicy, PayloadEncoding, RulesDocument, SignatureScheme, SilencePolicy,
};

/// The most members that a cluster may have.
pub const MAX_MEMBERS: usize = 200;

/// The most bytes a rules document may have.
pub const MAX_DOCUMENT_LEN: usize = 256 * 1024;

/// One trustee as the rules know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub node_id: NodeId,
    /// BLAKE3-256 of its vote key.
    pub peer_id: PeerId,
    /// The key that signs its votes.
    pub vote_key: PublicKey,
    /// The key that signs what its node says.
    pub node_key: PublicKey,
}

/// Why a rules document or a member record was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// More bytes than a document may have.
    #[error("a rules document of {0} bytes is too large")]
    TooLarge(usize),
    /// Not a document.
    #[error("the rules document cannot be decoded: {0}")]
    Undecodable(String),
    /// Decodes, but is not what its own re-encoding gives.
    #[error("the rules document's bytes are not canonical")]
    NotCanonical,
    /// A field holds what it must not.
    #[error("{field}: {reason}")]
    Field {
        /// The field's name in the .proto file.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A member record that its own keys did not sign.
    #[error("the record of {0} is not signed by both of its keys")]
    NoPossession(NodeId),
    /// A key under which a signature can fit many messages, or no key at all.
    #[error("a key of {0} is weak or malformed")]
    WeakKey(NodeId),
    /// The genesis does not have the digest that was pinned.
    #[error("these rules belong to cluster {found}, not to the pinned {pinned}")]
    OtherCluster {
        /// The genesis' digest.
        found: ClusterId,
        /// What was expected.
        pinned: ClusterId,
    },
}

fn wrong<T>(field: &'static str, reason: impl Into<String>) -> Result<T, RulesError> {
    let reason = reason.into();
    Err(RulesError::Field { field, reason })
}

fn within(field: &'static str, found: u64, least: u64, most: u64) -> Result<u64, RulesError> {
    if (least..=most).contains(&found) {
        return Ok(found);
    }
    wrong(field, format!("must be {least} to {most}, not {found}"))
}

/// Checks a member record and both of its signatures.
///
/// # Errors
/// [`RulesError`] when it is not canonical, for another cluster, holds a weak key,
/// or is not signed by both keys.
pub fn open_member(
    signed: &wire::SignedMemberRecord,
    cluster_name: &str,
    verifier: &dyn Verifier,
) -> Result<Member, RulesError> {
    let record = wire::MemberRecord::decode(&*signed.record)
        .map_err(|e| RulesError::Undecodable(e.to_string()))?;
    if record.encode_to_vec() != signed.record {
        return Err(RulesError::NotCanonical);
    }
    let node_id = NodeId::new(&record.node_id).or_else(|e| wrong("node_id", e.to_string()))?;
    if record.cluster_name != cluster_name {
        let found = &record.cluster_name;
        return wrong(
            "cluster_name",
            format!("the record of {node_id} is for cluster {found:?}, not {cluster_name:?}"),
        );
    }
    if record.scheme() == SignatureScheme::Unspecified {
        return wrong("scheme", "unknown or unspecified");
    }
    let key = |bytes: &[u8]| PublicKey {
        scheme: record.scheme(),
        bytes: bytes.into(),
    };
    let (vote_key, node_key) = (key(&record.vote_key), key(&record.node_key));
    if !verifier.is_sound_key(&vote_key) || !verifier.is_sound_key(&node_key) {
        return Err(RulesError::WeakKey(node_id));
    }
    let possessed =
        |key, signature: &[u8]| verifier.verify(key, Domain::Member, &signed.record, signature);
    if !possessed(&vote_key, &signed.vote_signature)
        || !possessed(&node_key, &signed.node_signature)
    {
        return Err(RulesError::NoPossession(node_id));
    }
    Ok(Member {
        peer_id: vote_key.peer_id(),
        node_id,
        vote_key,
        node_key,
    })
}

/// The digest of a document: BLAKE3-256 of the rules tag and the bytes.
pub fn digest_of(document: &[u8]) -> RulesDigest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(Domain::Rules.tag()).update(document);
    RulesDigest(*hasher.finalize().as_bytes())
}

/// A rules document that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    cluster_id: ClusterId,
    digest: RulesDigest,
    bytes: Vec<u8>,
    cluster_name: String,
    epoch: u64,
    predecessor: Option<RulesDigest>,
    members: BTreeMap<NodeId, Member>,
    threshold: usize,
    dissent: DissentPolicy,
    silence: SilencePolicy,
    vote_timeout_ms: u64,
    settle_window_ms: u64,
    clock_skew_ms: u64,
    chain: wire::ChainTarget,
}

impl Rules {
    /// Reads a genesis document; its digest is the cluster id.
    ///
    /// # Errors
    /// [`RulesError`], the first that applies.
    pub fn genesis(document: &[u8], verifier: &dyn Verifier) -> Result<Self, RulesError> {
        let rules = Self::read(document, ClusterId(digest_of(document).0), verifier)?;
        within("epoch", rules.epoch, 1, 1)?;
        Ok(rules)
    }

    /// Reads the document of a later epoch. Whether the epoch before decided it is
    /// checked by [`crate::proof::verify_rules`].
    ///
    /// # Errors
    /// [`RulesError`], the first that applies.
    pub fn successor(&self, document: &[u8], verifier: &dyn Verifier) -> Result<Self, RulesError> {
        let next = Self::read(document, self.cluster_id, verifier)?;
        within("epoch", next.epoch, self.epoch + 1, self.epoch + 1)?;
        if next.predecessor != Some(self.digest) {
            return wrong("predecessor", "is not the digest of the epoch before");
        }
        if next.cluster_name != self.cluster_name {
            return wrong("cluster_name", "must not change");
        }
        Ok(next)
    }

    fn read(
        document: &[u8],
        cluster_id: ClusterId,
        verifier: &dyn Verifier,
    ) -> Result<Self, RulesError> {
        if document.len() > MAX_DOCUMENT_LEN {
            return Err(RulesError::TooLarge(document.len()));
        }
        let wire =
            RulesDocument::decode(document).map_err(|e| RulesError::Undecodable(e.to_string()))?;
        if wire.encode_to_vec() != document {
            return Err(RulesError::NotCanonical);
        }
        check_cluster_name(&wire.cluster_name).or_else(|e| wrong("cluster_name", e.to_string()))?;
        let predecessor = match (wire.epoch, &*wire.predecessor) {
            (0, _) => return wrong("epoch", "must be at least 1"),
            (1, []) => None,
            (1, _) => return wrong("predecessor", "a genesis has none"),
            (_, bytes) => Some(
                RulesDigest::try_from(bytes).or_else(|e| wrong("predecessor", e.to_string()))?,
            ),
        };
        let members = read_members(&wire, verifier)?;
        let threshold =
            within("threshold", wire.threshold.into(), 1, members.len() as u64)? as usize;
        if wire.dissent() == DissentPolicy::Unspecified {
            return wrong("dissent", "unknown or unspecified");
        }
        if wire.silence() == SilencePolicy::Unspecified {
            return wrong("silence", "unknown or unspecified");
        }
        Ok(Self {
            cluster_id,
            digest: digest_of(document),
            bytes: document.to_vec(),
            epoch: wire.epoch,
            predecessor,
            members,
            threshold,
            dissent: wire.dissent(),
            silence: wire.silence(),
            vote_timeout_ms: within("vote_timeout_ms", wire.vote_timeout_ms, 100, 86_400_000)?,
            settle_window_ms: within("settle_window_ms", wire.settle_window_ms, 0, 60_000)?,
            clock_skew_ms: within("clock_skew_ms", wire.clock_skew_ms, 100, 300_000)?,
            chain: read_chain(wire.chain.as_ref())?,
            cluster_name: wire.cluster_name,
        })
    }

    /// The cluster these rules belong to.
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    /// The document's digest.
    pub fn digest(&self) -> RulesDigest {
        self.digest
    }

    /// The document's canonical bytes.
    pub fn document(&self) -> &[u8] {
        &self.bytes
    }

    /// The cluster's name.
    pub fn cluster_name(&self) -> &str {
        &self.cluster_name
    }

    /// The epoch; 1 is the genesis.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// A member by its id.
    pub fn member(&self, node_id: &NodeId) -> Option<&Member> {
        self.members.get(node_id)
    }

    /// Whether there is such a member.
    pub fn is_member(&self, node_id: &NodeId) -> bool {
        self.members.contains_key(node_id)
    }

    /// The members, ascending by id.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// N: how many members there are.
    pub fn total(&self) -> usize {
        self.members.len()
    }

    /// t: votes that decide.
    pub fn threshold(&self) -> usize {
        self.threshold
    }

    /// f: Byzantine trustees tolerated, `floor((N - t) / 2)`.
    pub fn tolerated(&self) -> usize {
        (self.total() - self.threshold) / 2
    }

    /// N − t + 1: so many members could block a ballot, and so many start it.
    pub fn starters(&self) -> usize {
        self.total() - self.threshold + 1
    }

    /// What dissent means.
    pub fn dissent(&self) -> DissentPolicy {
        self.dissent
    }

    /// What silence means.
    pub fn silence(&self) -> SilencePolicy {
        self.silence
    }

    /// From the vote that starts a ballot to its deadline, in milliseconds.
    pub fn vote_timeout_ms(&self) -> u64 {
        self.vote_timeout_ms
    }

    /// From the threshold to the reservation, in milliseconds.
    pub fn settle_window_ms(&self) -> u64 {
        self.settle_window_ms
    }

    /// What two clocks may differ by, in milliseconds.
    pub fn clock_skew_ms(&self) -> u64 {
        self.clock_skew_ms
    }

    /// Vote timeout + 2 × skew, in milliseconds: how old a vote may be to be
    /// recorded, how long an unstarted ballot lives, how far apart two choices may
    /// be signed and still be a lie, and how long a node that lost its guard waits.
    pub fn vote_lifetime_ms(&self) -> u64 {
        self.vote_timeout_ms + 2 * self.clock_skew_ms
    }

    /// Where decided values go.
    pub fn chain(&self) -> &wire::ChainTarget {
        &self.chain
    }

    /// Exactly what is sent for a decided value.
    pub fn payload(&self, tx_id: &TxId, value: &Value) -> Vec<u8> {
        wire::Payload {
            cluster_id: self.cluster_id.0.to_vec(),
            tx_id: tx_id.to_string(),
            destination: self.chain.destination.clone(),
            value: Some(value.into()),
        }
        .encode_to_vec()
    }

    /// The same in a few numbers.
    pub fn summary(&self) -> wire::RulesSummary {
        wire::RulesSummary {
            total_nodes: self.total() as u32,
            threshold: self.threshold as u32,
            tolerated: self.tolerated() as u32,
            dissent: self.dissent.into(),
            digest: self.digest.0.to_vec(),
            epoch: self.epoch,
        }
    }
}

fn read_members(
    wire: &RulesDocument,
    verifier: &dyn Verifier,
) -> Result<BTreeMap<NodeId, Member>, RulesError> {
    within("members", wire.members.len() as u64, 1, MAX_MEMBERS as u64)?;
    let mut members = BTreeMap::new();
    let mut keys = BTreeSet::new();
    let mut last: Option<NodeId> = None;
    for signed in &wire.members {
        let member = open_member(signed, &wire.cluster_name, verifier)?;
        let node_id = member.node_id.clone();
        if last.as_ref().is_some_and(|last| *last >= node_id) {
            return wrong("members", "must ascend by node_id without repetition");
        }
        for key in [&member.vote_key, &member.node_key] {
            if !keys.insert(key.clone()) {
                return wrong("members", format!("a key of {node_id} occurs twice"));
            }
        }
        last = Some(node_id.clone());
        members.insert(node_id, member);
    }
    Ok(members)
}

fn read_chain(chain: Option<&wire::ChainTarget>) -> Result<wire::ChainTarget, RulesError> {
    let Some(chain) = chain else {
        return wrong("chain", "is missing");
    };
    if chain.kind() == ChainKind::Unspecified {
        return wrong("chain.kind", "unknown or unspecified");
    }
    if chain.encoding() == PayloadEncoding::Unspecified {
        return wrong("chain.encoding", "unknown or unspecified");
    }
    within("chain.chain_id", chain.chain_id.len() as u64, 1, 64)?;
    within("chain.account", chain.account.len() as u64, 1, 128)?;
    within("chain.destination", chain.destination.len() as u64, 0, 128)?;
    within("chain.confirmations", chain.confirmations.into(), 1, 1000)?;
    Ok(chain.clone())
}
