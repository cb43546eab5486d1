//! What the coordinator, the chain and the audit store are asked, and what they
//! answer.

use quorate_consensus::board::Refusal;
use quorate_consensus::{TxId, wire};

/// Why the coordinator did not carry out an operation.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ProposeError {
    /// The board refused it; nothing changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store is away: unknown whether it took effect.
    #[error("the coordinator is away: {0}")]
    Unavailable(String),
    /// The store is an older copy of itself: it takes nothing any more.
    #[error("STORE_ROLLBACK: the store is an older copy, which ends at revision {head}")]
    OlderStore {
        /// Where the older copy's log ends.
        head: u64,
    },
}

/// What became of an operation. An answer from before a revision that the engine had
/// believed when it asked shows that the store was put back to an earlier state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proposed {
    /// It is in the log at this revision.
    Applied(u64),
    /// The board had it already; the log's head when that was seen.
    Unchanged(u64),
}

/// What a chain endpoint shows for (account, nonce).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// Nothing.
    Nothing,
    /// A transaction that waits for a block.
    Pending {
        /// Its hash.
        tx_hash: Vec<u8>,
        /// Its payload.
        payload: Vec<u8>,
    },
    /// A transaction in a block.
    Included {
        /// Its hash.
        tx_hash: Vec<u8>,
        /// Its payload.
        payload: Vec<u8>,
        /// It took effect; false when the chain reverted it.
        succeeded: bool,
        /// Height of its block.
        block_number: u64,
        /// Hash of its block.
        block_hash: Vec<u8>,
        /// How deep the block lies: 1 is the head itself.
        depth: u64,
    },
}

/// A signed chain transaction, not sent yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Its hash, known before it is sent.
    pub tx_hash: Vec<u8>,
    /// Its signed bytes.
    pub raw: Vec<u8>,
}

/// What the chain answered to a transaction sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// Taken.
    Accepted,
    /// The nonce is used: look who used it.
    NonceTooLow,
    /// The fee is too low for the chain now.
    Underpriced,
    /// No answer: unknown whether it was taken.
    Unknown(String),
}

/// A question to the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainAsk {
    /// What is there for (account, nonce)? Read-only.
    Look {
        /// The account.
        account: String,
        /// The nonce.
        nonce: u64,
    },
    /// Sign a transaction without sending it.
    Prepare {
        /// What was reserved.
        reservation: wire::Reservation,
        /// 0 for the first; a higher number pays a higher fee.
        attempt: u32,
    },
    /// Send signed bytes.
    Send {
        /// The bytes.
        raw: Vec<u8>,
    },
}

/// The chain's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainAnswer {
    /// To a look.
    Seen(Sighting),
    /// To a preparation.
    Prepared(Prepared),
    /// To a sending.
    Sent(SendOutcome),
    /// The endpoint could not be asked.
    Unavailable(String),
}

/// A question to the audit store about a submission. The rest of the audit record is
/// a projection of the board's log and not the engine's business.
#[derive(Clone, Debug, PartialEq)]
pub enum AuditAsk {
    /// Write the PENDING row of a reservation; one that is there already with the
    /// same account and nonce is success.
    Pending {
        /// The transaction.
        tx_id: TxId,
        /// The value decided.
        value: quorate_consensus::Value,
        /// What was reserved.
        reservation: wire::Reservation,
    },
    /// Store a signed variant before it is sent; the same again is success.
    Variant {
        /// The transaction.
        tx_id: TxId,
        /// The nonce that was signed: a row that meanwhile has another one, reserved
        /// anew, does not take the variant, for it would be sent as the new nonce's.
        nonce: u64,
        /// Which attempt.
        attempt: u32,
        /// Hash and bytes.
        prepared: Prepared,
    },
    /// Give back all stored variants of a transaction, oldest first.
    Variants {
        /// The transaction.
        tx_id: TxId,
    },
    /// Count one sending.
    Attempted {
        /// The transaction.
        tx_id: TxId,
        /// How often it was sent in all.
        attempts: u32,
    },
}

/// The audit store's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditAnswer {
    /// Durable.
    Done,
    /// To [`AuditAsk::Variants`].
    Variants(Vec<(u32, Prepared)>),
    /// Another row holds the tx_id or the (account, nonce): a fence that must never
    /// be met.
    Conflict(String),
    /// The store could not be asked.
    Unavailable(String),
}
