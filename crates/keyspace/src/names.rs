//! The keys, all under `/quorate/<cluster>/`; what lies behind each is in
//! docs/operations.md.

use quorate_consensus::{Choice, NodeId, TxId, Value};

use crate::record::{OpId, Position};

/// Every vote.
pub const VOTES: &str = "votes/";
/// Every other operation.
pub const LOG: &str = "log/";
/// Every ban in force.
pub const BANNED: &str = "banned/";
/// Written by whoever lifts a ban. What a ban was derived from names all keys of bans, and
/// a key that was deleted says nothing any more.
pub(crate) const LIFTED: &str = "banned/.lifted";
/// Written by every transaction: who has read this key's last revision has read
/// everything that was answered before. Its value, which no other transaction
/// writes, tells two pasts apart that have the same revisions.
pub const HEAD: &str = "head";
/// t, for people.
pub const THRESHOLD: &str = "config/threshold";
/// N, for people.
pub const TOTAL_NODES: &str = "config/total_nodes";

const STATUS: &str = "transaction_status/";
const COUNTS: &str = "vote_counts/";
const MEMBERS: &str = "members/";
const CERTIFICATES: &str = "certificates/";
const OBSERVATIONS: &str = "observations/";
const ACCUSATIONS: &str = "accusations/";
const RULES: &str = "rules/";
const NONCES: &str = "nonces/";

/// What kind of key this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// A vote or another operation.
    Record,
    /// A ballot's state.
    Status(TxId),
    /// Who is banned.
    Banned(NodeId),
    /// A member's boot generation.
    Member(NodeId),
    /// t decisions.
    Certificate(TxId),
    /// What t members observed last.
    Observations(TxId),
    /// An accusation: of whom, by whom.
    Accusation(NodeId, NodeId),
    /// A rules document.
    Rules(u64),
    /// The next nonce of an account.
    Nonces(String),
    /// The counter of a value's votes.
    Count(TxId),
    /// [`HEAD`].
    Head,
    /// Advice, or nothing of ours: nobody derives anything from it.
    Other,
}

impl Name {
    /// Reads a key's name.
    pub fn of(key: &str) -> Self {
        let tx = |text: &str| TxId::new(text).ok();
        let node = |text: &str| NodeId::new(text).ok();
        let found = if key == HEAD {
            Some(Self::Head)
        } else if key.starts_with(VOTES) || key.starts_with(LOG) {
            Some(Self::Record)
        } else if let Some(rest) = key.strip_prefix(STATUS) {
            tx(rest).map(Self::Status)
        } else if let Some(rest) = key.strip_prefix(COUNTS) {
            rest.split_once('/')
                .and_then(|(id, _)| tx(id))
                .map(Self::Count)
        } else if let Some(rest) = key.strip_prefix(BANNED) {
            node(rest).map(Self::Banned)
        } else if let Some(rest) = key.strip_prefix(MEMBERS) {
            node(rest).map(Self::Member)
        } else if let Some(rest) = key.strip_prefix(CERTIFICATES) {
            tx(rest).map(Self::Certificate)
        } else if let Some(rest) = key.strip_prefix(OBSERVATIONS) {
            tx(rest).map(Self::Observations)
        } else if let Some(rest) = key.strip_prefix(ACCUSATIONS) {
            rest.split_once('/')
                .and_then(|(accused, by)| Some(Self::Accusation(node(accused)?, node(by)?)))
        } else if let Some(rest) = key.strip_prefix(RULES) {
            rest.parse().ok().map(Self::Rules)
        } else {
            key.strip_prefix(NONCES)
                .map(|rest| Self::Nonces(rest.into()))
        };
        found.unwrap_or(Self::Other)
    }
}

/// A trustee's first vote.
pub fn vote(tx_id: &TxId, node_id: &NodeId) -> String {
    format!("{VOTES}{tx_id}/{node_id}")
}

/// A trustee's second, other vote: evidence.
pub fn second_vote(tx_id: &TxId, node_id: &NodeId) -> String {
    format!("{VOTES}{tx_id}/{node_id}/second")
}

/// All votes of a ballot.
pub fn votes_of(tx_id: &TxId) -> String {
    format!("{VOTES}{tx_id}/")
}

/// An operation that is no vote.
pub fn operation(id: OpId) -> String {
    format!("{LOG}{id}")
}

/// Where the record of an expired ballot's vote goes, so that the vote's own key is
/// free again.
pub fn moved(position: Position) -> String {
    format!("{LOG}{:020}-{:03}", position.revision, position.index)
}

/// A ballot's state.
pub fn status(tx_id: &TxId) -> String {
    format!("{STATUS}{tx_id}")
}

/// The votes for a choice; the key's own version counts them.
pub fn count(tx_id: &TxId, choice: &Choice) -> String {
    match choice {
        Choice::Abstention => format!("{COUNTS}{tx_id}/abstentions"),
        Choice::Value(Value::Number(number)) => format!("{COUNTS}{tx_id}/{number}"),
        Choice::Value(Value::Data(data)) => {
            format!("{COUNTS}{tx_id}/b:{}", blake3::hash(data).to_hex())
        }
    }
}

/// All counters of a ballot.
pub fn counts_of(tx_id: &TxId) -> String {
    format!("{COUNTS}{tx_id}/")
}

/// The submission lease of a ballot.
pub fn lock(tx_id: &TxId) -> String {
    format!("locks/submission/{tx_id}")
}

/// A ban.
pub fn banned(node_id: &NodeId) -> String {
    format!("{BANNED}{node_id}")
}

/// A member.
pub fn member(node_id: &NodeId) -> String {
    format!("{MEMBERS}{node_id}")
}

/// An accusation.
pub fn accusation(accused: &NodeId, by: &NodeId) -> String {
    format!("{ACCUSATIONS}{accused}/{by}")
}

/// All accusations of a member.
pub fn accusations_of(accused: &NodeId) -> String {
    format!("{ACCUSATIONS}{accused}/")
}

/// A certificate.
pub fn certificate(tx_id: &TxId) -> String {
    format!("{CERTIFICATES}{tx_id}")
}

/// What was observed on the chain.
pub fn observations(tx_id: &TxId) -> String {
    format!("{OBSERVATIONS}{tx_id}")
}

/// The rules of an epoch.
pub fn rules(epoch: u64) -> String {
    format!("{RULES}{epoch}")
}

/// The next nonce of an account.
pub fn nonces(account: &str) -> String {
    format!("{NONCES}{account}")
}
