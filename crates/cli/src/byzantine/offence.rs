//! Lies that each node sees on its own stream and answers at once: it hangs up, refuses
//! the liar, and accuses it.

use quorate_sim::liars::LiarKind;
use quorate_wire::v1::Ballot;

use super::Stage;
use crate::failure::Outcome;

/// The value in forged votes.
pub(crate) const FORGED: u64 = 666;

/// What the honest trustees vote for.
const HONEST: u64 = 1;

/// Offends every node; when all have hung up, the honest trustees vote. Gives the ballot
/// when it is over and the liar banned.
///
/// # Errors
/// When it cannot lie, or is not caught.
pub(crate) async fn act(stage: &Stage, kind: LiarKind) -> Outcome<Ballot> {
    let mut player = stage.enter(kind).await?;
    player.ask(FORGED).await;
    player.until_hung_up().await?;
    stage.honest_votes(HONEST).await?;
    stage.until_caught().await
}
