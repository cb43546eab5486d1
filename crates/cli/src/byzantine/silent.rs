//! Says nothing at all, for as long as the ballot lasts.

use std::time::Duration;

use quorate_wire::v1::{Ballot, Standing};

use super::Stage;
use crate::failure::Outcome;
use crate::waiting::{PATIENCE, is_final, until_ballot};

/// What the others vote for.
const HONEST: u64 = 1;

/// The others vote and decide. Gives the ballot when it is over and the deadline has
/// passed, so that the silent one is marked.
///
/// # Errors
/// When that does not happen.
pub(crate) async fn act(stage: &Stage) -> Outcome<Ballot> {
    stage.honest_votes(HONEST).await?;
    let liar = stage.liar.node_id().as_str();
    let patience = PATIENCE + Duration::from_millis(stage.rules.vote_timeout_ms());
    let client = &stage.first()?.client;
    let what = format!("the ballot to end and {liar} to be marked as silent");
    until_ballot(client, stage.tx_id.as_str(), &what, patience, |ballot| {
        let marked = ballot
            .trustees
            .iter()
            .any(|trustee| trustee.node_id == liar && trustee.standing() == Standing::Silent);
        is_final(ballot) && marked
    })
    .await
}
