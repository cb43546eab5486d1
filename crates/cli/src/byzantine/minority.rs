//! Votes against what the others are about to agree on.

use quorate_sim::liars::LiarKind;
use quorate_wire::v1::{Ballot, Standing};

use super::Stage;
use crate::failure::Outcome;

/// What the liar is asked to vote for, as the honest trustees do.
const HONEST: u64 = 1;

/// Dissents first, so that it is on the board before the threshold; then the others
/// vote. Gives the ballot when the liar is caught.
///
/// # Errors
/// When it cannot lie, or is not caught.
pub(crate) async fn act(stage: &Stage) -> Outcome<Ballot> {
    let mut player = stage.enter(LiarKind::Minority).await?;
    player.ask(HONEST).await;
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
