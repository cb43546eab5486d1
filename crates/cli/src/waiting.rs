//! Waiting for something to become true: looked at often, given up after a while,
//! never slept for.

use std::time::{Duration, Instant};

use quorate_wire::v1::{Ballot, BallotState};

use crate::client::Client;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{standing_word, state_word};

/// Long enough for a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Looks until something is there.
///
/// # Errors
/// What looking gives, or, after `patience`, that it was not there.
pub(crate) async fn until_some<T>(
    what: &str,
    patience: Duration,
    mut look: impl AsyncFnMut() -> Outcome<Option<T>>,
) -> Outcome<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            let waited = patience.as_secs();
            return Err(Failure::new(
                Exit::Deadline,
                format!("waited {waited} s for {what}"),
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Looks at a ballot through one node until it is as wanted.
///
/// # Errors
/// When the node fails otherwise than by not knowing the ballot yet, or, after
/// `patience`, with what was seen last.
pub(crate) async fn until_ballot(
    client: &Client,
    tx_id: &str,
    what: &str,
    patience: Duration,
    is_so: impl Fn(&Ballot) -> bool,
) -> Outcome<Ballot> {
    let mut seen = "nothing".to_owned();
    let found = until_some(what, patience, async || match client.status(tx_id).await {
        Ok(ballot) if is_so(&ballot) => Ok(Some(ballot)),
        Ok(ballot) => {
            seen = describe(&ballot);
            Ok(None)
        }
        Err(failure) if matches!(failure.exit(), Exit::NotFound | Exit::Unavailable) => {
            seen = failure.to_string();
            Ok(None)
        }
        Err(failure) => Err(failure),
    })
    .await;
    found.map_err(|failure| match failure.exit() {
        Exit::Deadline => Failure::new(Exit::Deadline, format!("{failure}; seen last: {seen}")),
        _ => failure,
    })
}

/// Whether nothing will move this ballot any more, reorganisations of the chain aside.
pub(crate) fn is_final(ballot: &Ballot) -> bool {
    !matches!(
        ballot.state(),
        BallotState::Unspecified
            | BallotState::Collecting
            | BallotState::ThresholdReached
            | BallotState::Submitted
    )
}

/// Whether a trustee is banned, as a ballot shows it.
pub(crate) fn is_banned(ballot: &Ballot, node_id: &str) -> bool {
    ballot
        .trustees
        .iter()
        .any(|trustee| trustee.node_id == node_id && trustee.banned)
}

fn describe(ballot: &Ballot) -> String {
    let trustees: Vec<_> = ballot
        .trustees
        .iter()
        .map(|trustee| {
            let banned = if trustee.banned { " (banned)" } else { "" };
            format!(
                "{} {}{banned}",
                trustee.node_id,
                standing_word(trustee.standing()).0
            )
        })
        .collect();
    format!(
        "{} ({}); {}",
        state_word(ballot.state()).0,
        ballot.reason,
        trustees.join(", ")
    )
}
