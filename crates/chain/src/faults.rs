//! What goes wrong with chains, on demand: for tests.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use quorate_engine::{ChainAnswer, ChainAsk, SendOutcome};

use crate::api::{Block, Chain, ChainError};

/// Faults of the chain itself, that all its endpoints show. For tests.
#[async_trait]
pub trait Faults: Send + Sync {
    /// Whether transactions wait from now on, instead of going into a block at once.
    ///
    /// # Errors
    /// [`ChainError::Unavailable`].
    async fn hold(&self, hold: bool) -> Result<(), ChainError>;

    /// Makes so many blocks; what waits goes into the first, held or not.
    ///
    /// # Errors
    /// [`ChainError::Unavailable`].
    async fn mine(&self, blocks: u32) -> Result<(), ChainError>;

    /// Forgets all transactions that wait.
    ///
    /// # Errors
    /// [`ChainError::Unavailable`].
    async fn drop_waiting(&self) -> Result<(), ChainError>;

    /// Undoes the latest `depth` blocks. Their transactions wait again if they are to
    /// `keep`, else they are gone.
    ///
    /// # Errors
    /// [`ChainError::Unavailable`].
    async fn reorganise(&self, depth: u32, keep: bool) -> Result<(), ChainError>;

    /// Somebody else who holds the account's key uses a nonce.
    ///
    /// # Errors
    /// [`ChainError::Unavailable`], also when the nonce cannot be had.
    async fn take_nonce(&self, account: &str, nonce: u64, payload: &[u8])
    -> Result<(), ChainError>;

    /// The next transaction that goes into a block has no effect.
    ///
    /// # Errors
    /// [`ChainError::Unavailable`].
    async fn revert_next(&self) -> Result<(), ChainError>;
}

/// An endpoint that loses things: a wrapper around any chain. For tests.
#[derive(Debug)]
pub struct FaultyChain<C> {
    inner: C,
    away: AtomicBool,
    lost_requests: AtomicU64,
    lost_replies: AtomicU64,
    sends: AtomicU64,
}

impl<C> FaultyChain<C> {
    /// An endpoint without faults so far.
    pub fn new(inner: C) -> Self {
        Self {
            inner,
            away: AtomicBool::new(false),
            lost_requests: AtomicU64::new(0),
            lost_replies: AtomicU64::new(0),
            sends: AtomicU64::new(0),
        }
    }

    /// The chain behind it.
    pub fn inner(&self) -> &C {
        &self.inner
    }

    /// Whether nothing can be asked from now on.
    pub fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    /// The next so many sendings are lost on their way to the chain, which the sender
    /// cannot know.
    pub fn lose_requests(&self, count: u64) {
        self.lost_requests.store(count, Ordering::SeqCst);
    }

    /// The next so many sendings take effect, and the chain's answer is lost.
    pub fn lose_replies(&self, count: u64) {
        self.lost_replies.store(count, Ordering::SeqCst);
    }

    /// How many sendings came to the chain.
    pub fn sends(&self) -> u64 {
        self.sends.load(Ordering::SeqCst)
    }

    /// Takes one from a counter; false when there is none.
    fn take(counter: &AtomicU64) -> bool {
        let less = |count: u64| count.checked_sub(1);
        let taken = counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        taken.is_ok()
    }
}

#[async_trait]
impl<C: Chain> Chain for FaultyChain<C> {
    async fn ask(&self, ask: ChainAsk) -> ChainAnswer {
        if self.away.load(Ordering::SeqCst) {
            return ChainAnswer::Unavailable("away for a test".into());
        }
        if !matches!(ask, ChainAsk::Send { .. }) {
            return self.inner.ask(ask).await;
        }
        let lost = || ChainAnswer::Sent(SendOutcome::Unknown("lost for a test".into()));
        if Self::take(&self.lost_requests) {
            return lost();
        }
        self.sends.fetch_add(1, Ordering::SeqCst);
        let answer = self.inner.ask(ask).await;
        match Self::take(&self.lost_replies) {
            true => lost(),
            false => answer,
        }
    }

    async fn recent_blocks(&self, limit: usize) -> Result<Vec<Block>, ChainError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(ChainError::Unavailable("away for a test".into()));
        }
        self.inner.recent_blocks(limit).await
    }

    fn kind(&self) -> &'static str {
        self.inner.kind()
    }
}
