//! "A node never signs two choices for one transaction, ever" (section 4), and where
//! its guard was lost: "Two choices prove DOUBLE_VOTING only when their signed times
//! are within vote timeout + 2 × skew of each other: a trustee that lost its disk is no
//! liar" (section 5).

use std::collections::{BTreeMap, BTreeSet};

use quorate_consensus::statement::{VoteBody, parse};
use quorate_consensus::wire::board_op::Op;
use quorate_consensus::{Choice, NodeId, TxId};
use quorate_engine::Effect;

use super::{Happening, Invariant, honest_store};
use crate::plan::Disk;
use crate::world::World;

/// An honest trustee's two choices never lie within the window that convicts.
#[derive(Default)]
pub(super) struct Guard {
    uttered: BTreeMap<(NodeId, TxId), Vec<(Choice, u64)>>,
    /// Members that lost what they had written. Where the store has lost it, too,
    /// nobody can remind them.
    forgetful: BTreeSet<usize>,
}

impl Invariant for Guard {
    fn name(&self) -> &'static str {
        "guard"
    }

    fn sees(&mut self, world: &World, what: &Happening<'_>) -> Result<(), String> {
        if let Happening::Died {
            place,
            disk: Disk::Lost | Disk::Restored,
        } = what
        {
            self.forgetful.insert(world.places()[*place].member());
        }
        // A vote leaves a node first in the operation that records it; what others
        // propose of it they have heard.
        let Happening::Effect {
            effect: Effect::Propose { op, .. },
            ..
        } = what
        else {
            return Ok(());
        };
        let Some(Op::RecordVote(op)) = &op.op else {
            return Ok(());
        };
        let Some(vote) = &op.vote else { return Ok(()) };
        let Ok((header, body)) = parse::<VoteBody>(&vote.statement) else {
            return Ok(());
        };
        let member = world.cluster().index(&header.node_id);
        let forgot = member.is_some_and(|member| self.forgetful.contains(&member));
        if world.is_liar_id(&header.node_id) || (forgot && !honest_store(world)) {
            return Ok(());
        }
        let window = world.rules().vote_lifetime_ms();
        let key = (header.node_id, body.tx_id);
        let before = self.uttered.entry(key.clone()).or_default();
        let other = before
            .iter()
            .find(|(choice, at)| *choice != body.choice && at.abs_diff(body.time_ms) <= window);
        if let Some((choice, at)) = other {
            return Err(format!(
                "{} says {choice} and, {} ms later, {} about {}",
                key.0,
                body.time_ms.saturating_sub(*at),
                body.choice,
                key.1
            ));
        }
        before.push((body.choice, body.time_ms));
        Ok(())
    }
}
