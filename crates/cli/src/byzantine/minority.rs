//! Votes against what the others are about to agree on.

use quorate_consensus::Value;
use quorate_wire::v1::{Ballot, Standing};

use super::{Stage, batch, tell};
use crate::failure::Outcome;

/// What the honest trustees vote for.
const HONEST: u64 = 1;

/// What the liar votes for.
const DISSENT: u64 = 2;

/// Dissents first, so that it is on the board before the threshold; then the others
/// vote. Gives the ballot when the liar is caught.
///
/// # Errors
/// When it cannot lie, or is not caught.
pub(crate) async fn act(stage: &Stage) -> Outcome<Ballot> {
    let vote = stage.liar.vote(&stage.tx_id, Value::Number(DISSENT).into());
    let sessions = stage.sessions().await?;
    for session in &sessions {
        tell(session, batch([vote.clone()])).await;
    }
    let liar = stage.liar.node_id().as_str();
    stage
        .until("the dissent to be on the board", |ballot| {
            ballot
                .trustees
                .iter()
                .any(|trustee| trustee.node_id == liar && trustee.standing() == Standing::Voted)
        })
        .await?;
    stage.honest_votes(HONEST).await?;
    stage.until_caught().await
}
