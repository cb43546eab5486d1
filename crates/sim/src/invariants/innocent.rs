//! "No single person, certificate, CA, node or store may be able to decide, to pay
//! twice, to ban, to lower t, or to make an honest trustee look guilty" (section 1).
//!
//! Two policies hit honest trustees, and say so: an honest minority is banned where
//! dissent is, and a trustee long absent where silence is. Such schedules tell themselves
//! apart: honest clients asked for different values, or the policy bans for silence.
//!
//! A trustee that lost its disk while the store lost the board is reminded by nobody of
//! what it signed (as in `guard`): it may be found voting twice.

use quorate_consensus::wire::board_event::Event;
use quorate_consensus::wire::{SilencePolicy, ViolationType};
use quorate_consensus::{NodeId, TxId};
use quorate_engine::{Alert, Effect};

use super::{Happening, Invariant, Sort, honest_store};
use crate::world::World;

/// No honest trustee looks guilty.
#[derive(Default)]
pub(super) struct Innocent;

impl Invariant for Innocent {
    fn name(&self) -> &'static str {
        "innocent"
    }

    fn watches(&self) -> &'static [Sort] {
        &[Sort::Entry, Sort::Effect]
    }

    fn sees(&mut self, world: &World, what: &Happening<'_>) -> Result<(), String> {
        match what {
            Happening::Entry { entry, .. } => {
                for event in &entry.events {
                    let (name, kind, banned) = match &event.event {
                        Some(Event::ViolationFound(found)) => {
                            (&found.node_id, found.r#type(), false)
                        }
                        Some(Event::Banned(banned)) => (&banned.node_id, banned.r#type(), true),
                        _ => continue,
                    };
                    let Ok(node_id) = NodeId::new(name) else {
                        continue;
                    };
                    let member = world.cluster().index(&node_id);
                    let forgot = member.is_some_and(|member| world.has_forgotten(member));
                    let twice = kind == ViolationType::DoubleVoting;
                    if world.is_liar_id(&node_id) || (twice && forgot && !honest_store(world)) {
                        continue;
                    }
                    judge(world, &event.tx_id, kind, banned).map_err(|why| {
                        format!("{name}, which is honest, is found {kind:?}: {why}")
                    })?;
                }
                Ok(())
            }
            Happening::Effect {
                place,
                effect:
                    Effect::Alert(Alert::Misbehaviour {
                        node_id,
                        kind: kind @ (ViolationType::InvalidSignature | ViolationType::Malformed),
                        detail,
                    }),
            } if !world.is_liar_id(node_id) => Err(format!(
                "{} accuses {node_id}, which is honest, of {kind:?}: {detail}",
                world.node_id(*place)
            )),
            _ => Ok(()),
        }
    }
}

fn judge(
    world: &World,
    tx_id: &str,
    kind: ViolationType,
    banned: bool,
) -> Result<(), &'static str> {
    match kind {
        ViolationType::DoubleVoting => Err("no honest trustee signs two choices"),
        ViolationType::InvalidSignature | ViolationType::Malformed => {
            Err("honest trustees do not accuse each other")
        }
        // Its ban names no ballot; the violation, which comes first, did.
        ViolationType::MinorityVote if banned || are_split(world, tx_id) => Ok(()),
        ViolationType::MinorityVote => Err("all honest clients asked for one value"),
        ViolationType::SilentFailure if banned && world.rules().silence() != SilencePolicy::Ban => {
            Err("the rules do not ban for silence")
        }
        _ => Ok(()),
    }
}

/// Clients of honest trustees asked for different values.
fn are_split(world: &World, tx_id: &str) -> bool {
    let Ok(tx_id) = TxId::new(tx_id) else {
        return false;
    };
    let clients = world.clients().iter();
    let clients = clients.filter(|client| !world.is_liar_member(client.node));
    let clients = clients.filter(|client| client.tx.id() == tx_id);
    let mut values = clients.filter_map(|client| client.choice.value());
    let first = values.next();
    values.any(|value| Some(value) != first)
}
