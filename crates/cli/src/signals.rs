//! Being told to stop.

use tokio::signal::unix::{SignalKind, signal};

/// Waits for SIGTERM, SIGINT (Ctrl-C) or SIGHUP, and gives its name. Where signals
/// cannot be had, waits for ever.
pub(crate) async fn until_told_to_stop() -> &'static str {
    let wait = async |kind, name| {
        match signal(kind) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
        name
    };
    tokio::select! {
        name = wait(SignalKind::terminate(), "SIGTERM") => name,
        name = wait(SignalKind::interrupt(), "SIGINT") => name,
        name = wait(SignalKind::hangup(), "SIGHUP") => name,
    }
}
