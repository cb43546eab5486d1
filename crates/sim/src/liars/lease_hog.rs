//! Takes every submission lease as soon as it can, for as long as it may last and again
//! whenever it ends, and does nothing with it.
//!
//! What must come of it: the lease is advice and no right, so after 60 s another
//! submitter goes on all the same, and the transaction is sent once. Nobody is
//! punished for holding a lease.

use std::collections::BTreeMap;

use quorate_consensus::board::MAX_LEASE_MS;
use quorate_consensus::wire::{BallotState, board_event::Event};
use quorate_consensus::{NodeId, TxId};
use quorate_testkit::ops;

use super::{Cue, Liar, Lie, Stage, told};

/// Leases for one transaction, at most.
const MOST_TAKEN: u32 = 20;

#[derive(Debug, Default)]
struct Hogged {
    /// When the lease on the board ends: milliseconds since the Unix epoch.
    until_ms: u64,
    /// Leases asked for.
    taken: u32,
}

/// First come, nobody served.
#[derive(Debug, Default)]
pub(super) struct LeaseHog {
    submissions: BTreeMap<TxId, Hogged>,
    /// When it will be woken next.
    wake_ms: Option<u64>,
}

impl Liar for LeaseHog {
    fn cue(&mut self, stage: &Stage<'_>, cue: Cue<'_>) -> Vec<Lie> {
        match cue {
            Cue::Entries(entries) => {
                for (tx_id, event) in told(entries) {
                    self.read(stage.me, tx_id, event);
                }
            }
            Cue::Wake => self.wake_ms = None,
            _ => return Vec::new(),
        }
        self.take(stage)
    }
}

impl LeaseHog {
    fn read(&mut self, me: &NodeId, tx_id: TxId, event: &Event) {
        match event {
            Event::StateChanged(changed) if changed.to() == BallotState::Submitted => {
                self.submissions.entry(tx_id).or_default();
            }
            Event::StateChanged(_) => {
                self.submissions.remove(&tx_id);
            }
            Event::LeaseChanged(changed) => {
                if let Some(hogged) = self.submissions.get_mut(&tx_id) {
                    // Its own it renews a little before the end.
                    let early = match changed.node_id == me.as_str() {
                        true => MAX_LEASE_MS / 10,
                        false => 0,
                    };
                    hogged.until_ms = changed.until_ms.saturating_sub(early);
                }
            }
            _ => {}
        }
    }

    /// Asks for what is free, and wants to be woken when the next one is.
    fn take(&mut self, stage: &Stage<'_>) -> Vec<Lie> {
        let mut lies = Vec::new();
        let open = self.submissions.iter_mut();
        for (tx_id, hogged) in open.filter(|(_, hogged)| hogged.taken < MOST_TAKEN) {
            if hogged.until_ms <= stage.now_ms {
                hogged.taken += 1;
                // Asked again if no answer shows.
                hogged.until_ms = stage.now_ms + 1_000;
                lies.push(stage.propose(ops::lease(tx_id, stage.me, MAX_LEASE_MS)));
            }
            let at = hogged.until_ms;
            if self.wake_ms.is_none_or(|wake| at < wake) {
                self.wake_ms = Some(at);
                let in_ms = (at - stage.now_ms).max(1);
                lies.push(Lie::Wake { in_ms });
            }
        }
        lies
    }
}
