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
use quorate_consensus::batch::Said;
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
    kept: Vec<Said>,
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
        for said in said(heard.clone()) {
            let alone: wire::Batch = std::iter::once(said.clone()).collect();
            let digest = *blake3::hash(&alone.encode_to_vec()).as_bytes();
            if self.heard.len() >= MOST_HEARD || !self.heard.insert(digest) {
                continue;
            }
            if self.kept.len() < MOST_KEPT {
                self.kept.push(said.clone());
            }
            said.put_into(&mut fresh);
        }
        fresh
    }

    /// Some of what it has kept, from a place that the dice choose.
    fn old(&self, stage: &Stage<'_>) -> Option<wire::Batch> {
        let from = stage.pick(self.kept.len(), 1);
        let old = self.kept.iter().skip(from).take(STATEMENTS).cloned();
        (!self.kept.is_empty()).then(|| old.collect())
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

/// What a batch says: evidence last, and votes without their traces, which differ from
/// sender to sender.
fn said(batch: wire::Batch) -> impl Iterator<Item = Said> {
    let (evidence, others): (Vec<_>, Vec<_>) =
        Said::all_of(batch).partition(|said| matches!(said, Said::Evidence(_)));
    let bare = |mut said| {
        if let Said::Vote(traced) = &mut said {
            traced.traceparent.clear();
        }
        said
    };
    others.into_iter().map(bare).chain(evidence)
}
