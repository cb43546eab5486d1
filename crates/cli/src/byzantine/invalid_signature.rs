//! Sends everyone a vote "from" another trustee, signed with the wrong key.

use quorate_consensus::Value;
use quorate_wire::v1::Ballot;

use super::{Stage, batch, tell};
use crate::failure::Outcome;

/// The value in the forged vote.
pub(crate) const FORGED: u64 = 666;

/// What the honest trustees vote for.
pub(crate) const HONEST: u64 = 1;

/// Forges a vote of the first honest trustee; when every node has hung up, the honest
/// ones vote. Gives the ballot when it is over and the liar banned.
///
/// # Errors
/// When it cannot lie, or is not caught.
pub(crate) async fn act(stage: &Stage) -> Outcome<Ballot> {
    let victim = &stage.first()?.node_id;
    let vote = stage
        .liar
        .vote_of(victim, &stage.tx_id, Value::Number(FORGED).into());
    let sessions = stage.sessions().await?;
    for session in &sessions {
        tell(session, batch([vote.clone()])).await;
    }
    stage.until_hung_up(sessions).await?;
    stage.honest_votes(HONEST).await?;
    stage.until_caught().await
}
