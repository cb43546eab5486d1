//! The trait that every chain implements.

use async_trait::async_trait;
use quorate_engine::{ChainAnswer, ChainAsk};

/// A block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its height; 0 is the genesis.
    pub number: u64,
    /// Its hash.
    pub hash: Vec<u8>,
    /// Hash of the block before it.
    pub parent: Vec<u8>,
    /// What is in it, in order.
    pub transactions: Vec<BlockTransaction>,
}

/// A transaction in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockTransaction {
    /// Its hash.
    pub tx_hash: Vec<u8>,
    /// Who paid.
    pub account: String,
    /// The account's nonce.
    pub nonce: u64,
    /// What was sent.
    pub payload: Vec<u8>,
    /// It took effect; false when the chain reverted it.
    pub succeeded: bool,
}

/// Why a chain did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The endpoint is away or refuses. Ask again.
    #[error("the chain is away: {0}")]
    Unavailable(String),
    /// It is another chain than the rules name.
    #[error("this is chain {found:?}, not {expected:?}: check the chain's settings")]
    OtherChain {
        /// The one found.
        found: String,
        /// The one that the rules name.
        expected: String,
    },
    /// Somebody tampered with it.
    #[error("block {block} of the chain is not what it was: {reason}")]
    Tampered {
        /// Height of the first bad block.
        block: u64,
        /// What is wrong.
        reason: String,
    },
    /// The key cannot be used.
    #[error("chain key: {0}")]
    Key(String),
}

/// A chain, through one endpoint. Every handle may be used by many tasks at once.
#[async_trait]
pub trait Chain: Send + Sync + 'static {
    /// Answers an engine: what is there for (account, nonce), at which depth (1 is the
    /// head itself); sign without sending; send. Looking needs no key, and neither a
    /// preparation nor a look changes anything.
    async fn ask(&self, ask: ChainAsk) -> ChainAnswer;

    /// The latest blocks, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`ChainError::Unavailable`].
    async fn recent_blocks(&self, limit: usize) -> Result<Vec<Block>, ChainError>;

    /// Which kind this is: "ledger", "ethereum".
    fn kind(&self) -> &'static str;
}
