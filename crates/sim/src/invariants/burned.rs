//! "No smaller number of liars can burn a tx_id by voting early and staying away"; "under
//! dissent = abort each liar can, once before its ban, abort the ballots it has voted in:
//! that is what the policy means, and outvote is for those who prefer liveness"
//! (section 5).

use std::collections::BTreeSet;

use quorate_consensus::ballot::Ballot;
use quorate_consensus::wire::{BallotState, DissentPolicy};
use quorate_consensus::{Choice, NodeId, Value};

use super::{Happening, Invariant, Sort, banned_by, honest_store};
use crate::world::World;

/// Fewer than N − t + 1 liars burn nothing but what the policy gives them.
#[derive(Default)]
pub(super) struct Burned {
    /// Who was ever banned.
    banned: BTreeSet<String>,
}

impl Invariant for Burned {
    fn name(&self) -> &'static str {
        "burned"
    }

    fn watches(&self) -> &'static [Sort] {
        &[Sort::Entry]
    }

    fn sees(&mut self, _world: &World, what: &Happening<'_>) -> Result<(), String> {
        if let Happening::Entry { entry, .. } = what {
            self.banned.extend(banned_by(entry).map(str::to_owned));
        }
        Ok(())
    }

    fn ends(&mut self, world: &World) -> Result<(), String> {
        let (n, t) = (world.rules().total(), world.rules().threshold());
        let honest: Vec<NodeId> = world.honest().map(|i| world.cluster().node_id(i)).collect();
        let all_there = honest.len() >= t;
        let banned = honest.iter().any(|id| self.banned.contains(id.as_str()));
        if !honest_store(world) || !all_there || banned || 2 * t <= n {
            return Ok(());
        }
        for ballot in world.store().views()[0].board().ballots() {
            let lost = matches!(
                ballot.state,
                BallotState::AbortedByzantine | BallotState::AbortedSplit
            );
            if !lost || !agree(world, ballot) {
                continue;
            }
            let by_policy = ballot.state == BallotState::AbortedByzantine
                && world.rules().dissent() == DissentPolicy::Abort
                && ballot.votes.keys().any(|id| world.is_liar_id(id));
            if !by_policy {
                return Err(format!(
                    "{} is burned: {:?}, although all honest trustees agree: {}",
                    ballot.tx_id, ballot.state, ballot.reason
                ));
            }
        }
        Ok(())
    }
}

/// All honest clients that asked, asked for one value.
fn agree(world: &World, ballot: &Ballot) -> bool {
    let clients = world.clients().iter();
    let clients = clients.filter(|client| !world.is_liar_member(client.node));
    let clients = clients.filter(|client| client.tx.id() == ballot.tx_id);
    let mut first: Option<&Value> = None;
    for client in clients {
        let Choice::Value(value) = &client.choice else {
            return false;
        };
        if *first.get_or_insert(value) != value {
            return false;
        }
    }
    first.is_some()
}
