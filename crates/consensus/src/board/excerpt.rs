//! A small board on which a few operations come out as they would on the whole one:
//! for whoever has to know that before they are ordered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::board::Board;
use crate::detector::accused_vote;
use crate::ids::TxId;
use crate::statement::{VoteBody, parse};
use crate::wire::ban_proof::Kind;
use crate::wire::board_op::Op;
use crate::wire::{BoardOp, SignedStatement};

/// The transaction whose ballot an operation reads or changes, if it is about one;
/// for a ban, the one that its evidence is about. Nothing is verified.
pub fn subject(op: &BoardOp) -> Option<TxId> {
    let voted = |vote: &SignedStatement| {
        let parsed = parse::<VoteBody>(&vote.statement);
        parsed.ok().map(|(_, body)| body.tx_id)
    };
    let named = |tx_id: &str| TxId::new(tx_id).ok();
    match op.op.as_ref()? {
        Op::RecordVote(op) => voted(op.vote.as_ref()?),
        Op::Advance(op) => named(&op.tx_id),
        Op::Reserve(op) => named(&op.tx_id),
        Op::Certify(op) => named(&op.tx_id),
        Op::Conclude(op) => named(&op.tx_id),
        Op::ProveAbort(op) => named(&op.tx_id),
        Op::GiveUp(op) => named(&op.tx_id),
        Op::MarkSilent(op) => named(&op.tx_id),
        Op::Expire(op) => named(&op.tx_id),
        Op::Lease(op) => named(&op.tx_id),
        Op::Release(op) => named(&op.tx_id),
        Op::Collect(op) => named(&op.tx_id),
        Op::Ban(op) => match op.proof.as_ref()?.kind.as_ref()? {
            Kind::Misbehaviour(misbehaviour) => voted(accused_vote(misbehaviour)?),
            Kind::Accusations(_) | Kind::Silence(_) => None,
        },
        Op::Unban(_) | Op::Accuse(_) | Op::Boot(_) => None,
    }
}

impl Board {
    /// A board of what these operations read, each of which comes with its
    /// [`subject`]: applied to it, each comes out as it would here. Costs as much as the
    /// members and the ballots in question, and for a reservation as the list of all
    /// nonces, not as the whole board.
    pub fn excerpt<'a>(
        &self,
        ops: impl IntoIterator<Item = (Option<&'a TxId>, &'a BoardOp)>,
    ) -> Self {
        let mut excerpt = Self {
            rules: Arc::clone(&self.rules),
            revision: self.revision,
            time_ms: self.time_ms,
            ballots: BTreeMap::new(),
            collected: BTreeMap::new(),
            members: self.members.clone(),
            reserved: BTreeMap::new(),
            pardoned: BTreeSet::new(),
            pardoned_lies: BTreeSet::new(),
        };
        for (about, op) in ops {
            if let Some(tx_id) = about
                && !excerpt.ballots.contains_key(tx_id)
            {
                if let Some(ballot) = self.ballots.get(tx_id) {
                    excerpt.ballots.insert(tx_id.clone(), ballot.clone());
                } else if let Some(state) = self.collected.get(tx_id) {
                    excerpt.collected.insert(tx_id.clone(), *state);
                }
            }
            match &op.op {
                Some(Op::Reserve(_)) if excerpt.reserved.is_empty() => {
                    excerpt.reserved.clone_from(&self.reserved);
                }
                Some(Op::Ban(_) | Op::Unban(_) | Op::Accuse(_)) => {
                    excerpt.pardoned.clone_from(&self.pardoned);
                    excerpt.pardoned_lies.clone_from(&self.pardoned_lies);
                }
                _ => {}
            }
        }
        excerpt
    }
}
