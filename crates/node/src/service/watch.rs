//! `Watch`: the events of entries that this node believes, from a revision on, and the
//! direct messages that come meanwhile.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use quorate_consensus::TxId;
use quorate_consensus::wire::{BoardEvent, MessageReceived, WatchResponse};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::shutting_down;
use crate::feed::{Feed, FeedError};
use crate::status::ApiError;

pub(super) type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

/// Entries read at once.
const CHUNK: usize = 256;

/// Events between the reader and the connection: a slow watcher makes its own reader
/// wait, and nobody else.
const BUFFER: usize = 64;

/// Starts a watch; see `WatchRequest` for what 0 means.
pub(super) fn watch(
    feed: &Arc<Feed>,
    ending: &CancellationToken,
    tx_id: Option<TxId>,
    from_revision: u64,
    messages: Option<broadcast::Receiver<MessageReceived>>,
) -> WatchStream {
    let (sender, receiver) = mpsc::channel(BUFFER);
    let (feed, ending) = (feed.clone(), ending.clone());
    // The place is taken now: what happens from this moment on will be seen.
    let head = *feed.heads().borrow();
    let after = match (from_revision, &tx_id) {
        (0, None) => head,
        (0, Some(tx_id)) => feed.first_of(tx_id).map_or(head, |first| first - 1),
        (from, _) => from - 1,
    };
    tokio::spawn(async move {
        let error = tokio::select! {
            error = follow(&feed, after, tx_id, &sender) => error,
            () = show(messages, &sender) => return,
            () = sender.closed() => return,
            () = ending.cancelled() => shutting_down(),
        };
        // A watcher that went away needs no reason.
        let _ = sender.send(Err(error.into())).await;
    });
    Box::pin(ReceiverStream::new(receiver))
}

/// Sends direct messages until the watcher goes away; who is too slow misses some, for
/// they are stored nowhere.
async fn show(
    messages: Option<broadcast::Receiver<MessageReceived>>,
    sender: &mpsc::Sender<Result<WatchResponse, Status>>,
) {
    let Some(mut messages) = messages else {
        return std::future::pending().await;
    };
    loop {
        let message = match messages.recv().await {
            Ok(message) => Some(message),
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "watch.messages_missed");
                continue;
            }
            // The driver is gone; the events' end says so.
            Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
        };
        let event = None;
        let shown = sender.send(Ok(WatchResponse { event, message })).await;
        if shown.is_err() {
            return;
        }
    }
}

/// Sends events until something breaks.
async fn follow(
    feed: &Feed,
    mut after: u64,
    tx_id: Option<TxId>,
    sender: &mpsc::Sender<Result<WatchResponse, Status>>,
) -> ApiError {
    let mut heads = feed.heads();
    loop {
        heads.borrow_and_update();
        let entries = match feed.read(after, CHUNK).await {
            Ok(entries) => entries,
            Err(error) => return broken(error),
        };
        for entry in &entries {
            after = entry.revision;
            for event in entry.events.iter().filter(|e| is_wanted(e, tx_id.as_ref())) {
                let event = Some(event.clone());
                let message = None;
                if sender
                    .send(Ok(WatchResponse { event, message }))
                    .await
                    .is_err()
                {
                    // The caller sees that the channel is closed, and says nothing.
                    return shutting_down();
                }
            }
        }
        if entries.is_empty() && heads.changed().await.is_err() {
            return shutting_down();
        }
    }
}

fn is_wanted(event: &BoardEvent, tx_id: Option<&TxId>) -> bool {
    tx_id.is_none_or(|tx_id| event.tx_id == tx_id.as_str())
}

fn broken(error: FeedError) -> ApiError {
    match error {
        FeedError::Store(error) => ApiError::Unavailable {
            reason: "COORDINATOR_UNAVAILABLE",
            why: error.to_string(),
            retry: Duration::from_secs(1),
        },
        FeedError::Differs(_) => ApiError::Tampering(error.to_string()),
    }
}
