//! "How sure a stranger can be decides what happens": proven misbehaviour bans with the
//! evidence in the ban, accusations when t members accuse, silence below 0.3 where that
//! is the policy (section 5).

use std::collections::BTreeSet;

use quorate_consensus::NodeId;
use quorate_consensus::detector::convict;
use quorate_consensus::statement::{AccusationBody, OperatorActBody};
use quorate_consensus::wire::board_event::Event;
use quorate_consensus::wire::board_op::Op;
use quorate_consensus::wire::{
    Banned, BoardEntry, OperatorActKind, SilencePolicy, ViolationType, ban_proof::Kind,
};
use quorate_testkit::FakeVerifier;

use super::ledger::{Ledger, Ledgers};
use super::{Happening, Invariant, Sort, verified};
use crate::world::World;

/// Every ban carries what the design asks for, and so does its end.
#[derive(Default)]
pub(super) struct ProvenBans {
    ledgers: Ledgers,
}

impl Invariant for ProvenBans {
    fn name(&self) -> &'static str {
        "proven_bans"
    }

    fn watches(&self) -> &'static [Sort] {
        &[Sort::Entry]
    }

    fn sees(&mut self, world: &World, what: &Happening<'_>) -> Result<(), String> {
        let Happening::Entry { view, entry } = what else {
            return Ok(());
        };
        let Some(ledger) = self.ledgers.before(world, *view) else {
            return Ok(());
        };
        for event in &entry.events {
            match &event.event {
                Some(Event::Banned(banned)) => {
                    let fine = judge(world, ledger, banned);
                    fine.map_err(|why| format!("{} is banned, but {why}", banned.node_id))?;
                }
                Some(Event::Unbanned(unbanned)) => {
                    let fine = judge_pardon(world, entry, &unbanned.node_id);
                    fine.map_err(|why| {
                        format!("the ban of {} is lifted, but {why}", unbanned.node_id)
                    })?;
                }
                _ => {}
            }
        }
        ledger.take_all(world.rules(), entry);
        Ok(())
    }
}

fn judge(world: &World, ledger: &Ledger, banned: &Banned) -> Result<(), String> {
    let rules = world.rules();
    let proof = banned.proof.as_ref().and_then(|proof| proof.kind.as_ref());
    let Some(proof) = proof else {
        return Err("there is no proof".into());
    };
    match proof {
        Kind::Misbehaviour(lie) => {
            let found = convict(lie, rules, &FakeVerifier).map_err(|error| error.to_string())?;
            if found.node_id.as_str() != banned.node_id || found.kind != banned.r#type() {
                return Err(format!(
                    "the evidence shows {:?} of {}",
                    found.kind, found.node_id
                ));
            }
            let small = 2 * rules.threshold() <= rules.total();
            if found.kind == ViolationType::MinorityVote && small {
                return Err("a minority vote bans only if 2t > N".into());
            }
        }
        Kind::Accusations(list) => {
            let mut by = BTreeSet::new();
            for signed in &list.accusations {
                let (one, body) = verified::<AccusationBody>(world, signed)?;
                let banned_too = ledger.banned.contains(one.as_str());
                if body.accused.as_str() == banned.node_id
                    && one.as_str() != banned.node_id
                    && !banned_too
                {
                    by.insert(one);
                }
            }
            if by.len() < rules.threshold() {
                return Err(format!("only {} members accuse it", by.len()));
            }
        }
        Kind::Silence(_) if rules.silence() != SilencePolicy::Ban => {
            return Err("the rules do not ban for silence".into());
        }
        Kind::Silence(_) => {
            let left = ledger.reputation(&banned.node_id);
            if left >= 300 {
                return Err(format!("its reputation is {left} thousandths"));
            }
        }
    }
    Ok(())
}

fn judge_pardon(world: &World, entry: &BoardEntry, name: &str) -> Result<(), String> {
    let op = entry.op.as_ref().and_then(|op| op.op.as_ref());
    let Some(Op::Unban(op)) = op else {
        return Err("no operator asked for it".into());
    };
    let mut by: BTreeSet<NodeId> = BTreeSet::new();
    for signed in &op.acts {
        let (one, act) = verified::<OperatorActBody>(world, signed)?;
        let pardons = !act.pardoned.is_empty();
        if act.kind == OperatorActKind::Unban && act.subject == name && pardons {
            by.insert(one);
        }
    }
    match by.len() >= world.rules().threshold() {
        true => Ok(()),
        false => Err(format!("only {} operators act", by.len())),
    }
}
