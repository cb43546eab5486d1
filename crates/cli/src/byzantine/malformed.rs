//! Sends bytes that are no frame.

use quorate_wire::v1::Ballot;

use super::Stage;
use crate::failure::Outcome;

/// Field 1 announces more bytes than there are, which no reader can take for a frame.
const NO_FRAME: [u8; 4] = [0x0a, 0x7f, 0xff, 0xff];

/// What the honest trustees vote for.
const HONEST: u64 = 1;

/// Talks nonsense; when every node has hung up, the honest ones vote. Gives the ballot
/// when it is over and the liar banned.
///
/// # Errors
/// When it cannot lie, or is not caught.
pub(crate) async fn act(stage: &Stage) -> Outcome<Ballot> {
    let sessions = stage.sessions().await?;
    for session in &sessions {
        // A node that has hung up has heard enough.
        let _ = session.send_bytes(NO_FRAME.to_vec()).await;
    }
    stage.until_hung_up(sessions).await?;
    stage.honest_votes(HONEST).await?;
    stage.until_caught().await
}
