//! Being told to stop, or to look at the configuration again. Signals are caught from the
//! call on, not from when its future is first polled: what a command prints before it
//! waits may be the word to somebody who then sends one, and it would end the process.

use tokio::signal::unix::{SignalKind, signal};

/// Waits for SIGTERM, SIGINT (Ctrl-C) or SIGHUP, and gives its name. Where signals
/// cannot be had, waits for ever.
pub(crate) fn until_told_to_stop() -> impl Future<Output = &'static str> {
    let (terminated, hangup) = (until_terminated(), until(SignalKind::hangup()));
    async {
        tokio::select! {
            name = terminated => name,
            () = hangup => "SIGHUP",
        }
    }
}

/// The same without SIGHUP.
pub(crate) fn until_terminated() -> impl Future<Output = &'static str> {
    let (terminate, interrupt) = (
        until(SignalKind::terminate()),
        until(SignalKind::interrupt()),
    );
    async {
        tokio::select! {
            () = terminate => "SIGTERM",
            () = interrupt => "SIGINT",
        }
    }
}

fn until(kind: SignalKind) -> impl Future<Output = ()> {
    let signal = signal(kind);
    async {
        match signal {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    }
}

/// Calls `act` for each SIGHUP, for as long as it is polled.
pub(crate) fn at_every_hangup(mut act: impl FnMut()) -> impl Future<Output = ()> {
    let hangups = signal(SignalKind::hangup());
    async move {
        let Ok(mut hangups) = hangups else {
            return std::future::pending().await;
        };
        while hangups.recv().await.is_some() {
            act();
        }
    }
}
