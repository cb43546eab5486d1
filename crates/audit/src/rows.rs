//! What the tables hold, as Rust types. The same for every backend.

use quorate_consensus::wire::{
    AccusationKind, BallotState, BanProof, SignedStatement, ViolationType,
};
use quorate_consensus::{Choice, NodeId, PeerId, TxId, Value};

/// State of a row of `blockchain_submissions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SubmissionState {
    /// Reserved, and not yet concluded.
    Pending,
    /// t members saw it take effect.
    Confirmed,
    /// The chain refused it, or it was given up.
    Failed,
    /// Never submitted: a trustee lied.
    AbortedByzantine,
    /// Never submitted: the deadline passed.
    AbortedTimeout,
    /// Never submitted: no value could reach the threshold.
    AbortedSplit,
}

impl SubmissionState {
    /// The word in the `state` column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Confirmed => "CONFIRMED",
            Self::Failed => "FAILED",
            Self::AbortedByzantine => "ABORTED_BYZANTINE",
            Self::AbortedTimeout => "ABORTED_TIMEOUT",
            Self::AbortedSplit => "ABORTED_SPLIT",
        }
    }

    /// The state that a word in the `state` column stands for.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "PENDING" => Self::Pending,
            "CONFIRMED" => Self::Confirmed,
            "FAILED" => Self::Failed,
            "ABORTED_BYZANTINE" => Self::AbortedByzantine,
            "ABORTED_TIMEOUT" => Self::AbortedTimeout,
            "ABORTED_SPLIT" => Self::AbortedSplit,
            _ => return None,
        })
    }

    /// The state of a ballot's row; none while the ballot has no row.
    pub fn of(state: BallotState) -> Option<Self> {
        Some(match state {
            BallotState::Submitted => Self::Pending,
            BallotState::Confirmed => Self::Confirmed,
            BallotState::Failed => Self::Failed,
            BallotState::AbortedByzantine => Self::AbortedByzantine,
            BallotState::AbortedTimeout => Self::AbortedTimeout,
            BallotState::AbortedSplit => Self::AbortedSplit,
            BallotState::Unspecified | BallotState::Collecting | BallotState::ThresholdReached => {
                return None;
            }
        })
    }

    /// The ballot's state.
    pub fn ballot_state(self) -> BallotState {
        match self {
            Self::Pending => BallotState::Submitted,
            Self::Confirmed => BallotState::Confirmed,
            Self::Failed => BallotState::Failed,
            Self::AbortedByzantine => BallotState::AbortedByzantine,
            Self::AbortedTimeout => BallotState::AbortedTimeout,
            Self::AbortedSplit => BallotState::AbortedSplit,
        }
    }
}

/// A row of `blockchain_submissions`, or of its archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubmissionRow {
    /// The transaction.
    pub tx_id: TxId,
    /// Its state.
    pub state: SubmissionState,
    /// The value decided; none for a ballot aborted without one.
    pub value: Option<Value>,
    /// The reserved account; none for an aborted ballot.
    pub account: Option<String>,
    /// The reserved nonce; none for an aborted ballot.
    pub nonce: Option<u64>,
    /// What is sent; none for an aborted ballot.
    pub payload: Option<Vec<u8>>,
    /// Hash of the last variant signed, and once concluded of the one that the chain
    /// has.
    pub tx_hash: Option<Vec<u8>>,
    /// Height of its block, once concluded.
    pub block_number: Option<u64>,
    /// How often it was sent.
    pub attempts: u32,
    /// When it was reserved, or aborted: milliseconds since the Unix epoch.
    pub submitted_at_ms: u64,
    /// When it was confirmed: milliseconds since the Unix epoch.
    pub confirmed_at_ms: Option<u64>,
}

/// How many submissions there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubmissionCounts {
    /// Reserved, and not yet concluded.
    pub pending: u64,
    /// In the archive.
    pub archived: u64,
}

/// How sure a stranger can be of a violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProofKind {
    /// Signed statements of the liar itself prove it.
    Proven,
    /// t members accuse it.
    Accused,
    /// Every reader of the board can count it.
    Counted,
}

impl ProofKind {
    /// The word in the `proof_kind` column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Accused => "accused",
            Self::Counted => "counted",
        }
    }

    /// The kind that a word in the `proof_kind` column stands for.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "proven" => Self::Proven,
            "accused" => Self::Accused,
            "counted" => Self::Counted,
            _ => return None,
        })
    }
}

/// A row of `byzantine_violations`.
#[derive(Clone, Debug, PartialEq)]
pub struct ViolationRow {
    /// Ascends in the order of detection.
    pub id: u64,
    /// BLAKE3-256 of the member's vote key; none when the store does not know it.
    pub peer_id: Option<PeerId>,
    /// Whose.
    pub node_id: NodeId,
    /// In which ballot, if in one.
    pub tx_id: Option<TxId>,
    /// Which.
    pub violation_type: ViolationType,
    /// How sure.
    pub proof_kind: ProofKind,
    /// The evidence. Where a stranger can check it, `proof` is the hexadecimal form of
    /// a `quorate.v1.Proof`, which `quorate verify` reads.
    pub evidence: serde_json::Value,
    /// When the board saw it: milliseconds since the Unix epoch.
    pub detected_at_ms: u64,
    /// Over the row before and this one; see [`seal`](crate::seal).
    pub hash: [u8; 32],
}

/// A row of `vote_history`.
#[derive(Clone, Debug, PartialEq)]
pub struct VoteRow {
    /// The transaction.
    pub tx_id: TxId,
    /// Whose.
    pub node_id: NodeId,
    /// BLAKE3-256 of its vote key; none when the store does not know the member.
    pub peer_id: Option<PeerId>,
    /// Its vote key; none when the store does not know the member.
    pub public_key: Option<Vec<u8>>,
    /// What it says.
    pub choice: Choice,
    /// It came after the point of no return or the end.
    pub late: bool,
    /// Its ballot expired since; if that opens again, the trustee votes anew.
    pub expired: bool,
    /// The vote itself.
    pub vote: SignedStatement,
    /// When the board recorded it: milliseconds since the Unix epoch.
    pub received_at_ms: u64,
}

/// A row of `decisions`: how the votes of one ballot came out.
#[derive(Clone, Debug, PartialEq)]
pub struct DecisionRow {
    /// The transaction.
    pub tx_id: TxId,
    /// The value with t votes, if there was one.
    pub value: Option<Value>,
    /// Whose votes made it; without a value, whoever voted.
    pub participating_nodes: Vec<NodeId>,
    /// All votes recorded when the ballot came out.
    pub total_votes: u32,
    /// Some value had t votes.
    pub threshold_reached: bool,
    /// Bytes of a `quorate.v1.Proof` that holds the certificate, or the abort proof, once
    /// it is on the board.
    pub certificate: Option<Vec<u8>>,
}

/// A row of `node_reputation`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReputationRow {
    /// BLAKE3-256 of the vote key.
    pub peer_id: PeerId,
    /// The member.
    pub node_id: NodeId,
    /// Thousandths, 0 to 1000; the column holds them as 0 to 1.
    pub thousandths: u32,
    /// Votes recorded.
    pub total_votes: u64,
    /// Violations found.
    pub violations_count: u64,
    /// It is banned.
    pub banned: bool,
    /// When the board last heard of it: milliseconds since the Unix epoch.
    pub last_seen_ms: Option<u64>,
}

/// A row of `accusations`.
#[derive(Clone, Debug, PartialEq)]
pub struct AccusationRow {
    /// Who is accused.
    pub accused: NodeId,
    /// By whom.
    pub by: NodeId,
    /// Of what.
    pub kind: AccusationKind,
    /// In which ballot, if in one.
    pub tx_id: Option<TxId>,
    /// The accusation itself.
    pub accusation: SignedStatement,
    /// When it came to the board: milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// A row of `bans`.
#[derive(Clone, Debug, PartialEq)]
pub struct BanRow {
    /// BLAKE3-256 of the member's vote key; none when the store does not know it.
    pub peer_id: Option<PeerId>,
    /// Who.
    pub node_id: NodeId,
    /// For what.
    pub violation_type: ViolationType,
    /// How sure.
    pub proof_kind: ProofKind,
    /// The proof, as the board has it.
    pub proof: BanProof,
    /// Since when: milliseconds since the Unix epoch.
    pub banned_at_ms: u64,
    /// When it was lifted, if it was: milliseconds since the Unix epoch.
    pub lifted_at_ms: Option<u64>,
}

/// Which rows to read; everything that is set must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this transaction.
    pub tx_id: Option<TxId>,
    /// About this member.
    pub node_id: Option<NodeId>,
    /// At most so many, the latest ones; none for all.
    pub limit: Option<u32>,
}

impl Filter {
    /// Rows of one transaction.
    pub fn tx(tx_id: &TxId) -> Self {
        Self {
            tx_id: Some(tx_id.clone()),
            ..Self::default()
        }
    }

    /// Rows about one member.
    pub fn node(node_id: &NodeId) -> Self {
        Self {
            node_id: Some(node_id.clone()),
            ..Self::default()
        }
    }
}
