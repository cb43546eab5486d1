//! After `STORE_ROLLBACK`: a node's own copy of the log, the board, the audit store and
//! the chain are compared, what the board has lost is put on it again, and only then
//! may the node sign again.
//!
//! Whatever is put back goes through the board like any operation, with the time that
//! it had: on an older copy to which nobody wrote, the same entries come out with the
//! same revisions, and nothing was ever lost. Where others wrote on, the board refuses
//! what no longer fits; whether the rest is safe to live without, `conflicts` says.

mod chain;
mod log;

use std::sync::Arc;

use quorate_audit::verify::{Finding, verify};
use quorate_chain::{Chain, Ledger, LedgerOptions};
use quorate_consensus::Rules;
use quorate_consensus::board::Board;
use quorate_coordinator::{Coordinator, StoreError};
use quorate_crypto::CachedVerifier;
use quorate_engine::ProposeError;

use crate::clock::wall_ms;
use crate::config::Config;
use crate::journal::{Journal, JournalError};
use crate::kept::Kept;
use crate::parts::StartError;
use crate::record::{Log, blocking, rules_of};
use crate::stores::{open_audit, open_board};

pub use chain::Reserved;

/// What to do beside comparing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Change nothing, neither the board nor this node's data directory, and tell what
    /// would become of it.
    pub dry_run: bool,
    /// Let this node sign again although not everything could be put back. What is
    /// given up stays in its data directory, for people.
    pub accept_loss: bool,
}

/// An entry that this node has believed and that the store no longer had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its revision when it was believed.
    pub revision: u64,
    /// Milliseconds since the Unix epoch, as stamped on it.
    pub time_ms: u64,
    /// What it was, for people: "reserve tx_7".
    pub what: String,
    /// What became of it.
    pub fate: Fate,
}

/// See [`Lost`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// On the board again.
    PutBack,
    /// The board says the same without it.
    Needless,
    /// The board, as it is now, refuses it.
    Refused(String),
}

/// What was compared, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconciliation {
    /// The last revision that the node's journal has seen.
    pub seen: u64,
    /// The last revision of the node's own copy.
    pub kept: u64,
    /// Where the store's log ended before anything was put back.
    pub found: u64,
    /// Up to this revision the store has what the node has believed.
    pub same: u64,
    /// What the store had lost.
    pub lost: Vec<Lost>,
    /// Entries of the store in place of lost ones, which this node never believed.
    pub others: u64,
    /// Why living with the loss would be dangerous; for people.
    pub conflicts: Vec<String>,
    /// Where the audit store stands, or why that is not known.
    pub audit: Result<u64, String>,
    /// Rows of the audit store that are not as the board's log says.
    pub audit_findings: Vec<Finding>,
    /// What the chain shows for the board's reservations.
    pub reserved: Vec<Reserved>,
    /// What the chain shows that no reservation explains.
    pub unexplained: Option<String>,
    /// Nothing keeps this node from signing any more, as far as the board goes.
    pub may_sign: bool,
}

impl Reconciliation {
    /// The store has all that this node has seen, now or from the start.
    pub fn is_whole(&self) -> bool {
        let put_back = |lost: &Lost| matches!(lost.fate, Fate::PutBack | Fate::Needless);
        self.others == 0 && self.seen <= self.kept.max(self.found) && self.lost.iter().all(put_back)
    }
}

/// Why nothing can be said, or nothing more be done.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Something cannot be opened.
    #[error(transparent)]
    Open(#[from] StartError),
    /// The journal or the kept log failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The board's store.
    #[error("board: {0}")]
    Store(#[from] StoreError),
    /// The store's log holds what no board gives.
    #[error("entry {revision} of the board's log is not justified: {why}")]
    Unjustified {
        /// Its revision.
        revision: u64,
        /// Why.
        why: String,
    },
    /// An operation was not carried out: unknown whether it took effect.
    #[error("while entry {revision} was put back: {error}")]
    Refill {
        /// Which entry.
        revision: u64,
        /// What happened.
        error: ProposeError,
    },
    /// Somebody else writes to the board.
    #[error(
        "entry {revision} came back as {found}: somebody writes to the board; stop all nodes, then repeat"
    )]
    Meanwhile {
        /// Which entry.
        revision: u64,
        /// Where it is now.
        found: u64,
    },
}

/// What is compared.
struct Stores {
    genesis: Arc<Rules>,
    verifier: Arc<CachedVerifier>,
    coordinator: Arc<dyn Coordinator>,
    chain: Box<dyn Chain>,
    journal: Journal,
    kept: Kept,
}

/// Compares what a node that does not run has believed with the board, the audit store
/// and the chain, and puts back what the board has lost.
///
/// # Errors
/// [`ReconcileError`], for instance when the node runs; then repeating is safe.
pub async fn reconcile(config: Config, options: Options) -> Result<Reconciliation, ReconcileError> {
    let opened = blocking(move || open(&config)).await?;
    let (mut stores, audit, lineage) = opened;
    let seen = stores.journal.durable()?.seen;
    let kept = stores.kept.last();
    let found = stores.coordinator.head().await?;
    let same = log::same(&stores, found).await?;
    let others = if same < kept { found - same } else { 0 };
    let (lost, board) = log::put_back(&stores, same, others > 0, options.dry_run).await?;

    let mut done = Reconciliation {
        seen,
        kept,
        found,
        same,
        lost,
        others,
        conflicts: Vec::new(),
        audit: Err("not compared".to_owned()),
        audit_findings: Vec::new(),
        reserved: Vec::new(),
        unexplained: None,
        may_sign: false,
    };
    if others > 0 {
        done.conflicts = log::conflicts(&stores, &board)?;
    }
    done.may_sign = done.is_whole();
    if !done.may_sign {
        let harmless = others > 0 && done.conflicts.is_empty() && seen <= kept;
        done.may_sign = harmless || options.accept_loss;
        if done.may_sign && !options.dry_run {
            log::give_up(&mut stores, &board, same, wall_ms()).await?;
        }
    }

    let mut log = Log::new(
        stores.genesis.clone(),
        stores.coordinator.clone(),
        stores.verifier.clone(),
    );
    match verify(audit.as_ref(), &lineage, async |after| {
        log.read(after).await
    })
    .await
    {
        Ok(report) => {
            done.audit = Ok(report.revision);
            done.audit_findings = report.findings;
        }
        Err(error) => done.audit = Err(error.to_string()),
    }
    (done.reserved, done.unexplained) = chain::compare(stores.chain.as_ref(), &board).await;
    Ok(done)
}

type Opened = (
    Stores,
    Arc<dyn quorate_audit::AuditStore>,
    quorate_audit::Lineage,
);

fn open(config: &Config) -> Result<Opened, StartError> {
    let verifier = Arc::new(CachedVerifier::default());
    let (genesis, lineage) = rules_of(config, &verifier)?;
    let node = &config.node;
    // First: it says whether the node runs.
    let journal = Journal::open(&node.data_dir, &node.node_id, &genesis.cluster_id())?;
    let kept = Kept::open(&node.data_dir)?;
    let coordinator = open_board(&config.storage, &genesis, &verifier)?;
    let audit = open_audit(&config.storage, lineage.clone())?;
    let ledger = config.storage.embedded_dir.join("ledger.db");
    let chain = Ledger::open(ledger, LedgerOptions::for_target(genesis.chain(), None))?;
    let stores = Stores {
        genesis,
        verifier,
        coordinator,
        chain: Box::new(chain),
        journal,
        kept,
    };
    Ok((stores, audit, lineage))
}

impl Stores {
    fn empty_board(&self) -> Board {
        Board::new(self.genesis.clone())
    }
}
