//! "A node never signs two choices for one transaction, ever" (section 4), and where
//! its guard was lost: "Two choices prove DOUBLE_VOTING only when their signed times
//! are within vote timeout + 2 × skew of each other: a trustee that lost its disk is no
//! liar" (section 5).

use std::collections::BTreeMap;

use quorate_consensus::statement::VoteBody;
use quorate_consensus::wire::board_op::Op;
use quorate_consensus::{Choice, Domain, NodeId, TxId};
use quorate_engine::Effect;

use super::parsed::parse;
use super::{Happening, Invariant, Sort, honest_store};
use crate::plan::Disk;
use crate::world::World;

/// One choice that left an honest trustee's node.
struct Uttered {
    choice: Choice,
    time_ms: u64,
    /// A board of the store took it.
    recorded: bool,
}

/// An honest trustee's two choices never lie within the window that convicts.
#[derive(Default)]
pub(super) struct Guard {
    uttered: BTreeMap<(NodeId, TxId), Vec<Uttered>>,
    /// Until when a machine without its disk signs nothing: "a guard that is … missing
    /// where the board or the peers know this node … signs nothing for vote timeout +
    /// 2 × skew" (section 4). Milliseconds from the start.
    quiet_until: BTreeMap<usize, u64>,
}

impl Invariant for Guard {
    fn name(&self) -> &'static str {
        "guard"
    }

    fn watches(&self) -> &'static [Sort] {
        &[Sort::Entry, Sort::Effect, Sort::Died]
    }

    fn sees(&mut self, world: &World, what: &Happening<'_>) -> Result<(), String> {
        match what {
            Happening::Died {
                place,
                disk: disk @ (Disk::Lost | Disk::Restored),
            } => {
                let machine = &world.places()[*place];
                let board = world.store().views()[machine.view()].board();
                let known = board.member(world.node_id(*place));
                // With a backup put back it has a disk again; how old, its generation says.
                self.quiet_until.remove(place);
                if *disk == Disk::Lost && known.is_some_and(|member| member.generation > 0) {
                    let until = world.now_ms() + world.rules().vote_lifetime_ms();
                    self.quiet_until.insert(*place, until);
                }
                Ok(())
            }
            Happening::Effect {
                place,
                effect:
                    Effect::Sign {
                        domain: domain @ (Domain::Vote | Domain::Decision | Domain::Abort),
                        ..
                    },
            } => match self.quiet_until.get(place) {
                Some(until) if *until > world.now_ms() && honest_store(world) => Err(format!(
                    "{} signs a {domain:?} although its disk was lost a moment ago",
                    world.node_id(*place)
                )),
                _ => Ok(()),
            },
            // A vote leaves a node first in the operation that records it; what others
            // propose of it they have heard.
            Happening::Effect {
                effect: Effect::Propose { op, .. },
                ..
            } => self.utters(world, op.op.as_ref(), false),
            Happening::Entry { entry, .. } => {
                let op = entry.op.as_ref();
                self.utters(world, op.and_then(|op| op.op.as_ref()), true)
            }
            _ => Ok(()),
        }
    }
}

impl Guard {
    fn utters(&mut self, world: &World, op: Option<&Op>, recorded: bool) -> Result<(), String> {
        let Some(Op::RecordVote(op)) = op else {
            return Ok(());
        };
        let Some(vote) = &op.vote else { return Ok(()) };
        let Ok((header, body)) = parse::<VoteBody>(&vote.statement) else {
            return Ok(());
        };
        let member = world.cluster().index(&header.node_id);
        let forgot = member.is_some_and(|member| world.has_forgotten(member));
        if world.is_liar_id(&header.node_id) || (forgot && !honest_store(world)) {
            return Ok(());
        }
        let window = world.rules().vote_lifetime_ms();
        let key = (header.node_id, body.tx_id);
        let uttered = self.uttered.entry(key.clone()).or_default();
        let other = uttered.iter().find(|before| {
            before.choice != body.choice
                && before.time_ms.abs_diff(body.time_ms) <= window
                && (before.recorded || !forgot)
        });
        if let Some(before) = other {
            return Err(format!(
                "{} says {} and, {} ms later, {} about {}",
                key.0,
                before.choice,
                body.time_ms.saturating_sub(before.time_ms),
                body.choice,
                key.1
            ));
        }
        let same =
            |known: &&mut Uttered| known.choice == body.choice && known.time_ms == body.time_ms;
        match uttered.iter_mut().find(same) {
            Some(known) => known.recorded |= recorded,
            None => uttered.push(Uttered {
                choice: body.choice,
                time_ms: body.time_ms,
                recorded,
            }),
        }
        Ok(())
    }
}
