//! Feeds the engine the board's log, strictly in order, with the signatures in it
//! verified beforehand, and held against what this node believed in earlier lives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_consensus::wire::BoardEntry;
use quorate_coordinator::{Coordinator, Tampering};
use quorate_engine::{Alert, Event};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::faults::Faults;
use crate::health::beats::{Beats, Loop};
use crate::kept::Kept;
use crate::mailbox::{Gone, Mailbox, Message};
use crate::prewarm::Prewarmer;
use crate::traces::Arrival;

/// Entries read and fed together.
const CHUNK: usize = 256;

/// How long to wait for a sign of change before looking all the same.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How long to wait after an error, or when the engine does not take an entry.
const PAUSE: Duration = Duration::from_millis(500);

/// Follows the log until the driver is gone.
pub(crate) async fn follow(
    coordinator: Arc<dyn Coordinator>,
    prewarmer: Prewarmer,
    mailbox: Mailbox,
    kept: Arc<Kept>,
    (beats, faults): (Arc<Beats>, Faults),
) {
    let mut changes = coordinator.watch();
    // The engine's mirror of the board begins empty with each start.
    let mut after = 0;
    let mut away = false;
    let mut refused = false;
    // What is kept after that is what this life believes.
    let mut known = kept.last();
    loop {
        faults.pass(Loop::Follower).await;
        beats.moves(Loop::Follower);
        changes.borrow_and_update();
        let entries = match coordinator.entries(after, CHUNK).await {
            Ok(entries) => entries,
            Err(error) => {
                if !std::mem::replace(&mut away, true) {
                    tracing::warn!(%error, "coordinator.away");
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if std::mem::take(&mut away) {
            tracing::info!("coordinator.back");
        }
        let Some(last) = entries.last().map(|entry| entry.revision) else {
            beats.waits(Loop::Follower, LOOK_AGAIN);
            let changed = tokio::time::timeout(LOOK_AGAIN, changes.changed()).await;
            if matches!(changed, Ok(Err(_))) {
                // Nobody will say when there is more; look from time to time.
                tokio::time::sleep(PAUSE).await;
            }
            continue;
        };
        if after < known {
            match first_other(&kept, &entries).await {
                Ok(None) => {}
                Ok(Some(revision)) => {
                    kept.freeze();
                    known = 0;
                    if mailbox.event(Event::Rewritten { revision }).await.is_err() {
                        return;
                    }
                }
                Err(why) => {
                    // As with the journal: a node that cannot remember stops.
                    let _ = mailbox.send(Message::Fatal(why)).await;
                    return;
                }
            }
        }
        let mut arrival = Arrival::now();
        arrival.together = entries.len();
        let entries = prewarmer.entries(entries).await;
        arrival.checked = Instant::now();
        let fed = mailbox.ask(|fed| Message::Entries(entries, arrival, fed));
        match fed.await {
            Ok(stands) => {
                if stands < last {
                    if !std::mem::replace(&mut refused, true) {
                        tracing::error!(
                            stands,
                            last,
                            "follower.refused: the engine does not take an entry"
                        );
                    }
                    beats.waits(Loop::Follower, LOOK_AGAIN);
                    tokio::time::sleep(LOOK_AGAIN).await;
                } else {
                    refused = false;
                }
                after = stands;
            }
            Err(Gone) => return,
        }
    }
}

/// The first of these entries that is not as it was believed.
async fn first_other(kept: &Arc<Kept>, entries: &[BoardEntry]) -> Result<Option<u64>, String> {
    let (kept, entries) = (Arc::clone(kept), entries.to_vec());
    let compared = tokio::task::spawn_blocking(move || kept.first_other(&entries)).await;
    let compared = compared.map_err(|error| error.to_string())?;
    compared.map_err(|error| format!("the kept log: {error}"))
}

/// Raises an alert for whatever somebody did to the store, until the driver is gone.
pub(crate) async fn watch_tampering(mut found: broadcast::Receiver<Tampering>, mailbox: Mailbox) {
    loop {
        let detail = match found.recv().await {
            Ok(tampering) => tampering.detail,
            Err(RecvError::Lagged(missed)) => format!("{missed} more findings in the store"),
            Err(RecvError::Closed) => return,
        };
        let alert = Alert::StoreTampering { detail };
        if mailbox.send(Message::Alert(alert)).await.is_err() {
            return;
        }
    }
}
