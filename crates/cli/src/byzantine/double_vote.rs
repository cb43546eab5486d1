//! Signs two values for one transaction and tells one half of the nodes the one and
//! the other half the other.

use quorate_sim::liars::LiarKind;
use quorate_wire::v1::Ballot;

use super::Stage;
use crate::failure::Outcome;

/// The first value; the other one is the next number.
const FIRST: u64 = 1;

/// Lies, and gives the ballot when the liar is caught.
///
/// # Errors
/// When it cannot lie, or is not caught.
pub(crate) async fn act(stage: &Stage) -> Outcome<Ballot> {
    // A stream that is dropped may take with it what was said last.
    let mut player = stage.enter(LiarKind::Equivocator).await?;
    player.ask(FIRST).await;
    stage.until_caught().await
}
