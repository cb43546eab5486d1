//! "Lifting a ban … names the evidence that is pardoned, so that it cannot ban again"
//! (section 5).

use std::collections::{BTreeMap, BTreeSet};

use quorate_consensus::statement::VoteBody;
use quorate_consensus::wire::ban_proof::Kind;
use quorate_consensus::wire::board_event::Event;
use quorate_consensus::wire::{BanProof, misbehaviour};

use super::parsed::parse;
use super::{Happening, Invariant, Sort, honest_store};
use crate::world::World;

/// What was pardoned bans nobody again.
#[derive(Default)]
pub(super) struct Pardoned {
    /// What each member was banned for last.
    bans: BTreeMap<String, BanProof>,
    /// Lies, by who and about what, and accusations, by their bytes.
    pardoned: BTreeSet<Vec<u8>>,
}

impl Invariant for Pardoned {
    fn name(&self) -> &'static str {
        "pardoned"
    }

    fn watches(&self) -> &'static [Sort] {
        &[Sort::Entry]
    }

    fn sees(&mut self, world: &World, what: &Happening<'_>) -> Result<(), String> {
        let Happening::Entry { entry, .. } = what else {
            return Ok(());
        };
        if !honest_store(world) {
            return Ok(());
        }
        for event in &entry.events {
            match &event.event {
                Some(Event::Banned(banned)) => {
                    let proof = banned.proof.clone().unwrap_or_default();
                    if grounds(&proof).any(|ground| self.pardoned.contains(&ground)) {
                        let name = &banned.node_id;
                        return Err(format!("{name} is banned again for what was pardoned"));
                    }
                    self.bans.insert(banned.node_id.clone(), proof);
                }
                Some(Event::Unbanned(unbanned)) => {
                    if let Some(proof) = self.bans.remove(&unbanned.node_id) {
                        self.pardoned.extend(grounds(&proof));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// What a ban is for, so that the same comes out however its evidence is put together.
fn grounds(proof: &BanProof) -> impl Iterator<Item = Vec<u8>> {
    let (lie, accusations) = match &proof.kind {
        Some(Kind::Misbehaviour(lie)) => (lie.kind.as_ref(), Vec::new()),
        Some(Kind::Accusations(list)) => (None, list.accusations.clone()),
        // Silence is no lie, and its pardon is the reputation that it gives.
        Some(Kind::Silence(_)) | None => (None, Vec::new()),
    };
    let vote = lie.and_then(|lie| match lie {
        misbehaviour::Kind::DoubleVote(double) => double.first.as_ref(),
        misbehaviour::Kind::MinorityVote(minority) => minority.dissent.as_ref(),
    });
    let lie = vote.and_then(|vote| {
        let (header, body) = parse::<VoteBody>(&vote.statement).ok()?;
        Some(format!("{} about {}", header.node_id, body.tx_id).into_bytes())
    });
    let accusations = accusations.into_iter().map(|signed| signed.statement);
    lie.into_iter().chain(accusations)
}
