//! Projects what this node believes into the audit store. Every node tries; the store
//! compares the cursor, so that of several one wins and none does harm.

use std::sync::Arc;
use std::time::Duration;

use quorate_audit::{AuditError, AuditStore};
use rand::Rng as _;

use crate::feed::{Feed, FeedError};

/// Entries projected in one SQL transaction.
const CHUNK: usize = 256;

/// The pause after another node was faster: 20 to 120 ms, so that they do not meet
/// again and again.
const LEAST_PAUSE_MS: u64 = 20;
const SPREAD_MS: u64 = 100;

/// The pause after an error.
const AWAY: Duration = Duration::from_secs(1);

/// The pause after an error that needs a person.
const BROKEN: Duration = Duration::from_secs(60);

/// Projects for as long as the node runs.
pub(crate) async fn project(feed: Arc<Feed>, audit: Arc<dyn AuditStore>) {
    let mut heads = feed.heads();
    let mut cursor = None;
    let mut away = false;
    loop {
        heads.borrow_and_update();
        match step(&feed, audit.as_ref(), &mut cursor).await {
            Ok(true) => {}
            Ok(false) => {
                if heads.changed().await.is_err() {
                    return;
                }
            }
            Err(Halt::Overtaken) => {
                let jitter = rand::rng().random_range(0..SPREAD_MS);
                tokio::time::sleep(Duration::from_millis(LEAST_PAUSE_MS + jitter)).await;
            }
            Err(Halt::Away(why)) => {
                if !std::mem::replace(&mut away, true) {
                    tracing::warn!(%why, "audit.away: submissions pause, votes are still taken");
                }
                cursor = None;
                tokio::time::sleep(AWAY).await;
                continue;
            }
            Err(Halt::Broken(why)) => {
                tracing::error!(%why, "audit.broken: nothing is projected");
                cursor = None;
                tokio::time::sleep(BROKEN).await;
                continue;
            }
        }
        if std::mem::take(&mut away) {
            tracing::info!("audit.back");
        }
    }
}

/// Why a step did not come about.
enum Halt {
    Overtaken,
    Away(String),
    Broken(String),
}

impl From<FeedError> for Halt {
    fn from(error: FeedError) -> Self {
        match error {
            FeedError::Store(error) => Self::Away(error.to_string()),
            FeedError::Differs(_) => Self::Broken(error.to_string()),
        }
    }
}

impl From<AuditError> for Halt {
    fn from(error: AuditError) -> Self {
        match error {
            AuditError::CursorMoved { .. } => Self::Overtaken,
            AuditError::Unavailable(why) => Self::Away(why),
            other => Self::Broken(other.to_string()),
        }
    }
}

/// One chunk; whether there was any.
async fn step(feed: &Feed, audit: &dyn AuditStore, cursor: &mut Option<u64>) -> Result<bool, Halt> {
    let from = match *cursor {
        Some(from) => from,
        None => audit.cursor().await?,
    };
    let entries = feed.read(from, CHUNK).await?;
    if entries.is_empty() {
        *cursor = Some(from);
        return Ok(false);
    }
    let entries: Vec<_> = entries.into_iter().map(Arc::unwrap_or_clone).collect();
    match audit.project(from, &entries).await {
        Ok(reached) => {
            *cursor = Some(reached);
            Ok(true)
        }
        Err(AuditError::CursorMoved { found }) => {
            *cursor = Some(found);
            Err(Halt::Overtaken)
        }
        Err(error) => Err(error.into()),
    }
}
