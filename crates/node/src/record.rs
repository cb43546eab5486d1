//! Opens the audit store of a node's configuration, and compares it with the board's log, which is
//! repeated from the genesis on: what the log says is believed only so far as it is
//! justified.

use std::sync::Arc;

use quorate_audit::verify::{Report, VerifyError, verify};
use quorate_audit::{AuditStore, Lineage};
use quorate_consensus::Rules;
use quorate_consensus::board::Board;
use quorate_consensus::wire::BoardEntry;
use quorate_coordinator::Coordinator;
use quorate_crypto::CachedVerifier;

use crate::config::Config;
use crate::feed::Feed;
use crate::parts::{StartError, read_rules};
use crate::stores::{open_audit, open_board};

/// Entries read at once.
const CHUNK: usize = 512;

/// Why the record cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The stores cannot be opened.
    #[error(transparent)]
    Open(#[from] StartError),
    /// They cannot be read, or do not belong together.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

/// Compares the audit store with the board's log; nodes may be running.
///
/// # Errors
/// [`CheckError`] when it cannot be told.
pub async fn check_record(config: Config) -> Result<Report, CheckError> {
    let opened = blocking(move || {
        let verifier = Arc::new(CachedVerifier::default());
        let (genesis, lineage) = rules_of(&config, &verifier)?;
        let coordinator = open_board(&config.storage, &genesis, &verifier)?;
        let audit = open_audit(&config.storage, lineage.clone())?;
        let log = Log::new(genesis, coordinator, verifier);
        Ok((log, audit, lineage))
    });
    let (mut log, audit, lineage) = opened.await?;
    let report = verify(audit.as_ref(), &lineage, async |after| {
        log.read(after).await
    });
    Ok(report.await?)
}

/// Opens the audit store of a node's configuration; nodes may be running.
///
/// # Errors
/// [`StartError`].
pub async fn open_record(config: Config) -> Result<Arc<dyn AuditStore>, StartError> {
    blocking(move || {
        let (_, lineage) = rules_of(&config, &CachedVerifier::default())?;
        Ok(open_audit(&config.storage, lineage)?)
    })
    .await
}

/// What keeps the board, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoardLook {
    /// "embedded", "etcd".
    pub backend: &'static str,
    /// The board's head.
    pub head: u64,
    /// What is wrong with members of it, each in one sentence.
    pub trouble: Vec<String>,
}

/// Asks what keeps the board where it ends and how its members are; nodes may be
/// running.
///
/// # Errors
/// [`StartError`] when it cannot be had.
pub async fn look_at_board(config: Config) -> Result<BoardLook, StartError> {
    let opened = blocking(move || {
        let verifier = Arc::new(CachedVerifier::default());
        let (genesis, _) = rules_of(&config, &verifier)?;
        open_board(&config.storage, &genesis, &verifier)
    });
    let board = opened.await?;
    let members = board.members().await.into_iter();
    let trouble = members.filter_map(|m| Some(format!("{}: {}", m.endpoint, m.trouble?)));
    Ok(BoardLook {
        backend: board.backend(),
        head: board.head().await?,
        trouble: trouble.collect(),
    })
}

pub(crate) async fn blocking<T: Send + 'static>(
    open: impl FnOnce() -> Result<T, StartError> + Send + 'static,
) -> Result<T, StartError> {
    let opened = tokio::task::spawn_blocking(open).await;
    opened.unwrap_or_else(|error| Err(StartError::Runtime(error.to_string())))
}

/// The genesis, and the rules documents from it on.
pub(crate) fn rules_of(
    config: &Config,
    verifier: &CachedVerifier,
) -> Result<(Arc<Rules>, Lineage), StartError> {
    let consensus = &config.consensus;
    let (chain, all) = read_rules(&consensus.rules_path, consensus.cluster_id, verifier)?;
    let genesis = all.first().cloned().ok_or_else(|| StartError::Rules {
        path: consensus.rules_path.clone(),
        reason: "holds no rules document".to_owned(),
    })?;
    let lineage = Lineage::new(chain, all).unwrap_or_else(|| genesis.clone().into());
    Ok((genesis, lineage))
}

/// The board's log as this program derives it.
pub(crate) struct Log {
    board: Board,
    feed: Feed,
    coordinator: Arc<dyn Coordinator>,
    verifier: Arc<CachedVerifier>,
}

impl Log {
    pub(crate) fn new(
        genesis: Arc<Rules>,
        coordinator: Arc<dyn Coordinator>,
        verifier: Arc<CachedVerifier>,
    ) -> Self {
        Self {
            feed: Feed::new(coordinator.clone(), genesis.cluster_id()),
            board: Board::new(genesis),
            coordinator,
            verifier,
        }
    }

    /// Some believed entries after a revision; none at the log's end.
    pub(crate) async fn read(&mut self, after: u64) -> Result<Vec<BoardEntry>, String> {
        if after >= self.board.revision() {
            self.go_on().await?;
        }
        let entries = self.feed.read(after, CHUNK).await;
        let entries = entries.map_err(|error| error.to_string())?;
        Ok(entries.into_iter().map(Arc::unwrap_or_clone).collect())
    }

    /// Repeats more of the log.
    async fn go_on(&mut self) -> Result<(), String> {
        let entries = self.coordinator.entries(self.board.revision(), CHUNK).await;
        let mut believed = Vec::new();
        for entry in entries.map_err(|error| error.to_string())? {
            let revision = entry.revision;
            let entry = self.board.replay(entry, self.verifier.as_ref());
            believed.push(entry.map_err(|error| format!("entry {revision}: {error}"))?);
        }
        self.feed.push(believed);
        Ok(())
    }
}
