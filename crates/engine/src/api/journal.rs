//! What a node remembers by itself.

use quorate_consensus::wire::{BallotState, SignedStatement};
use quorate_consensus::{Choice, Domain, NodeId, TxId};

/// A journal entry. Each kind has one slot per key; a later one replaces the
/// earlier.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// The boot generation in use, and the last one that the board acknowledged.
    /// One slot.
    Generation {
        /// In use.
        generation: u64,
        /// Acknowledged by the board; 0 for none.
        acknowledged: u64,
    },
    /// The sign guard: the vote that is about to be signed, or that was adopted. One
    /// slot per transaction, never overwritten with another choice, never pruned.
    Guard {
        /// The transaction.
        tx_id: TxId,
        /// The choice.
        choice: Choice,
        /// The statement's canonical bytes.
        statement: Vec<u8>,
    },
    /// The decision or abort that is about to be signed: never both for one
    /// transaction. One slot per transaction.
    Verdict {
        /// The transaction.
        tx_id: TxId,
        /// [`Domain::Decision`] or [`Domain::Abort`].
        domain: Domain,
        /// The statement's canonical bytes.
        statement: Vec<u8>,
    },
    /// The ballot ended so. One slot per transaction, for good.
    Final {
        /// The transaction.
        tx_id: TxId,
        /// The state.
        state: BallotState,
    },
    /// Where a member is reached, by its own signed word. One slot per member.
    Address {
        /// The member.
        node_id: NodeId,
        /// An `AddressStatement`.
        signed: SignedStatement,
    },
    /// The board's revision that this node has believed so far. One slot.
    Seen {
        /// The revision.
        revision: u64,
    },
}

/// What the journal holds about one transaction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JournalEntry {
    /// The guard: choice and statement bytes.
    pub guard: Option<(Choice, Vec<u8>)>,
    /// The verdict: domain and statement bytes.
    pub verdict: Option<(Domain, Vec<u8>)>,
    /// The final state.
    pub ended: Option<BallotState>,
}

/// What an engine starts from: what the journal holds beside the transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// From [`Record::Generation`]; 0 when there is no journal.
    pub generation: u64,
    /// From [`Record::Generation`].
    pub acknowledged: u64,
    /// From [`Record::Seen`].
    pub seen: u64,
}
