//! Lies that nobody is punished for, because an honest trustee may have said the same:
//! statements under rules that others do not know yet, what others said repeated, and
//! more votes than anybody wants. They must come to nothing.

use quorate_sim::liars::LiarKind;
use quorate_wire::v1::Ballot;

use super::Stage;
use crate::failure::{Failure, Outcome};
use crate::waiting::{is_banned, is_final};

/// What all are asked to vote for.
const HONEST: u64 = 1;

/// Lies while the honest trustees vote. Gives the ballot when it is over.
///
/// # Errors
/// When it cannot lie, when the ballot does not end, or when the liar is banned.
pub(crate) async fn act(stage: &Stage, kind: LiarKind) -> Outcome<Ballot> {
    let mut player = stage.enter(kind).await?;
    player.ask(HONEST).await;
    stage.honest_votes(HONEST).await?;
    let ballot = tokio::select! {
        ballot = stage.until("the ballot to end all the same", is_final) => ballot?,
        never = player.listen() => match never {},
    };
    let liar = stage.liar.node_id();
    if is_banned(&ballot, liar.as_str()) {
        return Err(Failure::failed(format!(
            "{liar} was banned for what an honest trustee may say"
        )));
    }
    Ok(ballot)
}
