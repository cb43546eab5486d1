//! Repeats whatever it hears from others, to everybody: at once, and again much later,
//! when the ballots are long over and the rounds of observation gone. What it reads on
//! the board it asks for once more.
//!
//! What must come of it: nothing, for every statement is as true from its mouth as from
//! its signer's. An observation of an earlier round concludes nothing, an old decision
//! does not push out the one that counts, a pardoned accusation bans nobody, a collected
//! ballot stays closed. Only who gives it a bad signature makes it answer for that, too.

use std::collections::BTreeSet;

use prost::Message as _;
use quorate_consensus::wire::{self, BoardOp, frame};

use super::{Cue, Liar, Lie, Stage, batch};

/// Statements that it tells apart; after so many it repeats nothing new.
const MOST_HEARD: usize = 4_096;

/// Statements that it keeps for later.
const MOST_KEPT: usize = 1_024;

/// Operations that it keeps for later.
const MOST_OPS: usize = 256;

/// How often it repeats old things, at most, and how often: milliseconds.
const MOST_WAKES: u32 = 40;
const WAKE_MS: u64 = 3_000;

/// Old statements, and old operations, at a time.
const STATEMENTS: usize = 32;
const OPS: usize = 4;

/// Remembers everything and keeps nothing to itself.
#[derive(Debug, Default)]
pub(super) struct Replayer {
    /// Digests of what it has repeated.
    heard: BTreeSet<[u8; 32]>,
    /// Statements, each in a batch of its own.
    kept: Vec<wire::Batch>,
    ops: Vec<BoardOp>,
    wakes: u32,
}

impl Liar for Replayer {
    fn cue(&mut self, stage: &Stage<'_>, cue: Cue<'_>) -> Vec<Lie> {
        match cue {
            Cue::Start => vec![Lie::Wake { in_ms: WAKE_MS }],
            Cue::Heard {
                body: frame::Body::Batch(heard),
                ..
            } => {
                let fresh = self.fresh(heard);
                match fresh == wire::Batch::default() {
                    true => Vec::new(),
                    false => stage.to_all(&batch(fresh)),
                }
            }
            Cue::Met { peer } => match self.old(stage) {
                Some(old) => vec![Lie::Say {
                    to: peer.clone(),
                    body: batch(old),
                }],
                None => Vec::new(),
            },
            Cue::Entries(entries) => {
                let left = MOST_OPS - self.ops.len();
                let ops = entries.iter().filter_map(|entry| entry.op.clone());
                self.ops.extend(ops.take(left));
                Vec::new()
            }
            Cue::Wake => self.again(stage),
            _ => Vec::new(),
        }
    }
}

impl Replayer {
    /// What it has not repeated yet.
    fn fresh(&mut self, heard: &wire::Batch) -> wire::Batch {
        let mut fresh = wire::Batch::default();
        for piece in pieces(heard) {
            let digest = *blake3::hash(&piece.encode_to_vec()).as_bytes();
            if self.heard.len() >= MOST_HEARD || !self.heard.insert(digest) {
                continue;
            }
            if self.kept.len() < MOST_KEPT {
                self.kept.push(piece.clone());
            }
            add(&mut fresh, piece);
        }
        fresh
    }

    /// Some of what it has kept, from a place that the dice choose.
    fn old(&self, stage: &Stage<'_>) -> Option<wire::Batch> {
        let mut old = wire::Batch::default();
        let from = stage.pick(self.kept.len(), 1);
        for piece in self.kept.iter().skip(from).take(STATEMENTS) {
            add(&mut old, piece.clone());
        }
        (!self.kept.is_empty()).then_some(old)
    }

    fn again(&mut self, stage: &Stage<'_>) -> Vec<Lie> {
        let mut lies = match self.old(stage) {
            Some(old) => stage.to_all(&batch(old)),
            None => Vec::new(),
        };
        let from = stage.pick(self.ops.len(), 2);
        let ops = self.ops.iter().skip(from).take(OPS).cloned();
        lies.extend(ops.map(|op| stage.propose(op)));
        self.wakes += 1;
        if self.wakes < MOST_WAKES {
            lies.push(Lie::Wake { in_ms: WAKE_MS });
        }
        lies
    }
}

/// Each statement in a batch of its own.
fn pieces(whole: &wire::Batch) -> Vec<wire::Batch> {
    let none = wire::Batch::default;
    let mut pieces = Vec::new();
    for traced in &whole.votes {
        let traced = wire::TracedVote {
            vote: traced.vote.clone(),
            traceparent: String::new(),
        };
        pieces.push(wire::Batch {
            votes: vec![traced],
            ..none()
        });
    }
    for signed in &whole.decisions {
        pieces.push(wire::Batch {
            decisions: vec![signed.clone()],
            ..none()
        });
    }
    for signed in &whole.aborts {
        pieces.push(wire::Batch {
            aborts: vec![signed.clone()],
            ..none()
        });
    }
    for signed in &whole.observations {
        pieces.push(wire::Batch {
            observations: vec![signed.clone()],
            ..none()
        });
    }
    for signed in &whole.accusations {
        pieces.push(wire::Batch {
            accusations: vec![signed.clone()],
            ..none()
        });
    }
    for signed in &whole.operator_acts {
        pieces.push(wire::Batch {
            operator_acts: vec![signed.clone()],
            ..none()
        });
    }
    for evidence in &whole.evidence {
        pieces.push(wire::Batch {
            evidence: vec![evidence.clone()],
            ..none()
        });
    }
    pieces
}

fn add(whole: &mut wire::Batch, piece: wire::Batch) {
    whole.votes.extend(piece.votes);
    whole.decisions.extend(piece.decisions);
    whole.aborts.extend(piece.aborts);
    whole.observations.extend(piece.observations);
    whole.accusations.extend(piece.accusations);
    whole.operator_acts.extend(piece.operator_acts);
    whole.evidence.extend(piece.evidence);
}
