//! Sends bytes that are no frame, and frames with statements that are none: MALFORMED.
//!
//! What must come of it: each node that hears it closes the stream, refuses the liar and
//! accuses it, and t accusations ban. No byte of it is taken in, nor of what comes in
//! one frame after it.

use quorate_consensus::statement::{KeyRole, MAX_STATEMENT_LEN};
use quorate_consensus::wire::{self, SignedStatement, TracedVote};
use quorate_consensus::{Choice, Domain, TxId};

use super::{Cue, Liar, Lie, Stage, batch, votes};

/// Field 1 announces more bytes than there are, which no reader can take for a frame.
const NO_FRAME: [u8; 4] = [0x0a, 0x7f, 0xff, 0xff];

/// Talks nonsense whenever it is asked.
#[derive(Debug, Default)]
pub(super) struct Malformed;

impl Liar for Malformed {
    fn cue(&mut self, stage: &Stage<'_>, cue: Cue<'_>) -> Vec<Lie> {
        let Cue::Asked { tx_id, choice } = cue else {
            return Vec::new();
        };
        let Some(body) = nonsense(stage, tx_id, choice) else {
            let garble = |to: &quorate_consensus::NodeId| Lie::Garble {
                to: to.clone(),
                bytes: NO_FRAME.to_vec(),
            };
            return stage.others().map(garble).collect();
        };
        stage.to_all(&body)
    }
}

/// A frame with a statement that breaks the protocol; none for bytes that are no frame.
/// All signatures are good.
fn nonsense(stage: &Stage<'_>, tx_id: &TxId, choice: &Choice) -> Option<wire::frame::Body> {
    let vote = stage.vote(tx_id, choice.clone());
    let with = |statement: Vec<u8>| SignedStatement {
        signature: stage.keys.sign(KeyRole::Vote, Domain::Vote, &statement),
        statement,
    };
    let body = match stage.pick(7, 1) {
        0 => return None,
        // An unknown field at the end: two readers could see two meanings.
        1 => {
            let mut bytes = vote.statement;
            bytes.extend([0x98, 0x06, 0x01]);
            votes([with(bytes)])
        }
        // A field twice.
        2 => {
            let mut bytes = vote.statement;
            bytes.extend([0x30, 0x01]);
            votes([with(bytes)])
        }
        // Cut off.
        3 => {
            let half = vote.statement.len() / 2;
            votes([with(vote.statement[..half].to_vec())])
        }
        // No vote in a vote.
        4 => batch(wire::Batch {
            votes: vec![TracedVote::default()],
            ..wire::Batch::default()
        }),
        // Too long for any statement.
        5 => votes([with(vec![0x0a; MAX_STATEMENT_LEN + 1])]),
        // A vote where decisions are; a good vote beside it does not mend it.
        _ => batch(wire::Batch {
            decisions: vec![vote],
            ..wire::Batch::default()
        }),
    };
    Some(body)
}
