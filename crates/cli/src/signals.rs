//! Being told to stop, or to look at the configuration again.

use tokio::signal::unix::{SignalKind, signal};

/// Waits for SIGTERM, SIGINT (Ctrl-C) or SIGHUP, and gives its name. Where signals
/// cannot be had, waits for ever.
pub(crate) async fn until_told_to_stop() -> &'static str {
    tokio::select! {
        name = until_terminated() => name,
        () = until(SignalKind::hangup()) => "SIGHUP",
    }
}

/// The same without SIGHUP.
pub(crate) async fn until_terminated() -> &'static str {
    tokio::select! {
        () = until(SignalKind::terminate()) => "SIGTERM",
        () = until(SignalKind::interrupt()) => "SIGINT",
    }
}

async fn until(kind: SignalKind) {
    match signal(kind) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}

/// Calls `act` for each SIGHUP, for as long as it is polled.
pub(crate) async fn at_every_hangup(mut act: impl FnMut()) {
    let Ok(mut hangups) = signal(SignalKind::hangup()) else {
        return std::future::pending().await;
    };
    while hangups.recv().await.is_some() {
        act();
    }
}
