//! Watches the paying account for transactions that no reservation explains: whoever
//! sent one has the chain's key. Each node looks for itself, through its own endpoint.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use quorate_chain::{BlockTransaction, Chain};
use quorate_consensus::Rules;
use quorate_coordinator::Coordinator;
use quorate_engine::Engine;
use tokio::sync::watch;

use crate::alerts::{Alerts, Name};
use crate::driver::Pulse;
use crate::mailbox::{Gone, Mailbox};

/// The pause between two looks.
const EVERY: Duration = Duration::from_secs(2);

/// The most blocks that one look reads. Who falls further behind leaves a gap, and says
/// so.
const MOST_BLOCKS: usize = 256;

/// How many transactions are remembered as told of.
const TOLD: usize = 1024;

/// How long this node may take to believe what the board has.
const CATCH_UP: Duration = Duration::from_secs(10);

/// What is needed to tell a stranger's transaction.
pub(crate) struct Watch {
    pub(crate) rules: Arc<Rules>,
    pub(crate) chain: Arc<dyn Chain>,
    pub(crate) coordinator: Arc<dyn Coordinator>,
    pub(crate) mailbox: Mailbox,
    pub(crate) pulse: watch::Receiver<Pulse>,
    pub(crate) alerts: Arc<Alerts>,
}

impl Watch {
    /// Looks for as long as the node runs. It begins with the blocks that are new after
    /// its first look: those before were another node's to see, or this one's before its
    /// start.
    pub(crate) async fn run(mut self) {
        let mut seen: Option<u64> = None;
        let mut told = BTreeSet::new();
        if self.pulse.wait_for(|pulse| pulse.in_service).await.is_err() {
            return;
        }
        loop {
            // A chain that is away is the health monitor's to tell.
            if let Ok(latest) = self.chain.recent_blocks(1).await
                && let Some(head) = latest.first().map(|block| block.number)
            {
                let from = *seen.get_or_insert(head);
                match self.look(from, head, &mut told).await {
                    Ok(reached) => seen = Some(reached),
                    Err(Gone) => return,
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Looks at the blocks after `from`, up to `head`; gives how far it came.
    async fn look(
        &mut self,
        from: u64,
        head: u64,
        told: &mut BTreeSet<Vec<u8>>,
    ) -> Result<u64, Gone> {
        let new = usize::try_from(head.saturating_sub(from)).unwrap_or(usize::MAX);
        if new == 0 {
            // A chain that was rolled back is looked at again from there.
            return Ok(head);
        }
        if new > MOST_BLOCKS {
            tracing::warn!(from, head, "strangers.gap: not all blocks are looked at");
        }
        // Blocks may have come since: what is new by their numbers counts.
        let Ok(blocks) = self.chain.recent_blocks(new.min(MOST_BLOCKS)).await else {
            return Ok(from);
        };
        let target = self.rules.chain().clone();
        let mut reached = from;
        for block in blocks.iter().filter(|block| block.number > from) {
            reached = reached.max(block.number);
            for sent in &block.transactions {
                let ours = sent.account == target.account && sent.nonce >= target.first_nonce;
                if !ours || told.contains(&sent.tx_hash) {
                    continue;
                }
                match self.is_explained(sent).await? {
                    Some(true) => continue,
                    Some(false) => {}
                    // Nobody can tell now: the same blocks once more.
                    None => return Ok(from),
                }
                if told.len() >= TOLD {
                    told.clear();
                }
                told.insert(sent.tx_hash.clone());
                self.tell(sent, block.number);
            }
        }
        Ok(reached)
    }

    /// Whether the board has given this nonce away. The reservation is on the board
    /// before anything is sent; this node may not have read it yet. None while the board
    /// cannot be asked.
    async fn is_explained(&mut self, sent: &BlockTransaction) -> Result<Option<bool>, Gone> {
        let nonce = sent.nonce;
        let reserved = async |mailbox: &Mailbox| {
            mailbox
                .look(move |engine, _| engine.board().reserved_for(nonce).is_some())
                .await
        };
        if reserved(&self.mailbox).await? {
            return Ok(Some(true));
        }
        let Ok(head) = self.coordinator.head().await else {
            return Ok(None);
        };
        let believes = move |engine: &Engine| (engine.board().revision() >= head).then_some(());
        let caught_up = self.mailbox.until(&self.pulse, believes);
        match tokio::time::timeout(CATCH_UP, caught_up).await {
            Ok(caught_up) => caught_up?,
            // It may never believe so much of a store that was tampered with; and what
            // it does not believe explains nothing.
            Err(_) if self.mailbox.look(|engine, _| engine.is_stopped()).await? => {}
            Err(_) => return Ok(None),
        }
        reserved(&self.mailbox).await.map(Some)
    }

    fn tell(&self, sent: &BlockTransaction, block: u64) {
        let tx_hash = hex::encode(&sent.tx_hash);
        tracing::error!(
            account = %sent.account, nonce = sent.nonce, %tx_hash, block,
            "alert.orphan_submission"
        );
        let detail = format!(
            "account {} sent {tx_hash} with nonce {} (block {block}), which no reservation explains",
            sent.account, sent.nonce
        );
        let about = vec![("tx_hash", tx_hash)];
        self.alerts.raise(Name::OrphanSubmission, about, detail);
    }
}
