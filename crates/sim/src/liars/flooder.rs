//! Votes on many transactions that nobody asked for, and asks its peers for pongs and
//! resynchronisation without end.
//!
//! What must come of it: each of its votes opens a ballot that never starts and is
//! removed (row 7); it fills its own share of every queue and nobody else's, the others'
//! ballots go on, and memory and timers shrink again when the flood is over. A resync is
//! answered once a second at most.

use quorate_consensus::wire::{self, frame};
use quorate_consensus::{Choice, TxId, Value};

use super::{Cue, Liar, Lie, Stage, votes};

/// Votes at a time, and in all.
const VOTES: u32 = 100;
const MOST_VOTES: u32 = 400;

/// Pings and resyncs at a time, to each peer, and floods of them in all.
const PINGS: u64 = 40;
const MOST_PINGED: u32 = 40;

/// Makes noise beside an honest engine.
#[derive(Debug, Default)]
pub(super) struct Flooder {
    voted: u32,
    pinged: u32,
}

impl Liar for Flooder {
    fn cue(&mut self, stage: &Stage<'_>, cue: Cue<'_>) -> Vec<Lie> {
        match cue {
            Cue::Asked { .. } => self.vote(stage),
            Cue::Met { peer } if self.pinged < MOST_PINGED => {
                self.pinged += 1;
                let say = |token| Lie::Say {
                    to: peer.clone(),
                    body: match token % 4 {
                        0 => frame::Body::Resync(wire::Resync {}),
                        _ => frame::Body::Ping(wire::Ping { token }),
                    },
                };
                (0..PINGS).map(say).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Flooder {
    fn vote(&mut self, stage: &Stage<'_>) -> Vec<Lie> {
        let from = self.voted;
        self.voted = (from + VOTES).min(MOST_VOTES);
        let flood = |number: u32| {
            let tx_id = TxId::new(&format!("flood-{}-{number}", stage.me)).ok()?;
            Some(stage.vote(&tx_id, Choice::from(Value::Number(number.into()))))
        };
        let flood: Vec<_> = (from..self.voted).filter_map(flood).collect();
        match flood.is_empty() {
            true => Vec::new(),
            false => stage.to_all(&votes(flood)),
        }
    }
}
