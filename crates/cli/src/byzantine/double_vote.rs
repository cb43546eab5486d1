//! Signs two values for one transaction and tells one half of the nodes the one and
//! the other half the other.

use quorate_consensus::Value;
use quorate_wire::v1::Ballot;

use super::{Stage, batch, tell};
use crate::failure::Outcome;

/// The two values.
const VALUES: [u64; 2] = [1, 2];

/// Lies, and gives the ballot when the liar is caught.
///
/// # Errors
/// When it cannot lie, or is not caught.
pub(crate) async fn act(stage: &Stage) -> Outcome<Ballot> {
    let votes = VALUES.map(|value| stage.liar.vote(&stage.tx_id, Value::Number(value).into()));
    // A stream that is dropped may take with it what was said last.
    let sessions = stage.sessions().await?;
    for (number, session) in sessions.iter().enumerate() {
        tell(session, batch([votes[number % 2].clone()])).await;
    }
    stage.until_caught().await
}
