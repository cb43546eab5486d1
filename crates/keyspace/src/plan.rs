//! One operation as a step: what it compares, and what it puts.

use quorate_consensus::board::Board;
use quorate_consensus::statement::{AccusationBody, BootBody, parse};
use quorate_consensus::wire::board_op::Op;
use quorate_consensus::{NodeId, TxId};

use crate::batch::Ask;
use crate::kv::{Guard, Step, Write};
use crate::names::{self, Name};
use crate::record::encode;
use crate::view::{Says, says};

/// An expired ballot's vote that makes room: its key, and the record as it lies on.
pub(crate) struct Moved {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) value: Vec<u8>,
}

/// The step that puts the record of `ask` on the board, at the place `index` of its
/// transaction. `after` is a board on which it took effect; `at` the store's revision
/// that this was derived from; `second` says that a vote is its trustee's second one.
pub(crate) fn step(
    after: &Board,
    ask: &Ask,
    index: u32,
    at: u64,
    second: bool,
    moved: Vec<Moved>,
) -> Option<Step> {
    let mut plan = Plan {
        after,
        at,
        step: Step::default(),
    };
    let value = encode(ask.id, &ask.op, ask.now_ms, index, None);
    match ask.op.op.as_ref()? {
        Op::RecordVote(_) => {
            let voted = ask.voted.as_ref()?;
            plan.guard(Guard::Absent(names::banned(&voted.node_id)));
            if second {
                plan.record(voted.second_key(), value);
                // The first must be the one that this was held against.
                plan.guard(Guard::Unchanged(voted.key(), at));
            } else {
                plan.record(voted.key(), value);
                plan.write(Write::put(voted.counter(), ""));
            }
        }
        Op::Boot(op) => {
            let (header, _) = parse::<BootBody>(&op.boot.as_ref()?.statement).ok()?;
            plan.record(names::operation(ask.id), value);
            plan.guard(Guard::Unchanged(names::member(&header.node_id), at));
            plan.view(names::member(&header.node_id));
        }
        Op::Accuse(op) => {
            let signed = op.accusation.as_ref()?;
            let (header, body) = parse::<AccusationBody>(&signed.statement).ok()?;
            plan.record(names::operation(ask.id), value);
            plan.guard(Guard::AllUnchanged(names::BANNED.into(), at));
            let key = names::accusation(&body.accused, &header.node_id);
            plan.guard(Guard::Unchanged(key.clone(), at));
            plan.view(key);
        }
        Op::Ban(op) => {
            let node_id = NodeId::new(&op.node_id).ok()?;
            plan.record(names::operation(ask.id), value);
            plan.guard(Guard::AllUnchanged(names::BANNED.into(), at));
            if let Some(tx_id) = ask.about() {
                plan.ballot_unchanged(tx_id);
            }
            plan.view(names::banned(&node_id));
        }
        Op::Unban(op) => {
            let node_id = NodeId::new(&op.node_id).ok()?;
            plan.record(names::operation(ask.id), value);
            plan.guard(Guard::AllUnchanged(names::BANNED.into(), at));
            plan.guard(Guard::AllUnchanged(names::accusations_of(&node_id), at));
            plan.view(names::banned(&node_id));
            plan.write(Write::put(names::LIFTED, ask.id.to_string()));
            plan.write(Write::DeleteAll(names::accusations_of(&node_id)));
        }
        of_ballot => {
            let tx_id = ask.about()?;
            plan.record(names::operation(ask.id), value);
            plan.ballot_unchanged(tx_id);
            // A ban turns dissent into none, in every open ballot.
            plan.guard(Guard::AllUnchanged(names::BANNED.into(), at));
            plan.view(names::status(tx_id));
            plan.of_ballot(of_ballot, tx_id, moved);
        }
    }
    Some(plan.step)
}

struct Plan<'a> {
    after: &'a Board,
    at: u64,
    step: Step,
}

impl Plan<'_> {
    fn guard(&mut self, guard: Guard) {
        self.step.guards.push(guard);
    }

    fn write(&mut self, write: Write) {
        self.step.writes.push(write);
    }

    /// A record is created once.
    fn record(&mut self, key: String, value: Vec<u8>) {
        self.guard(Guard::Absent(key.clone()));
        self.write(Write::put(key, value));
    }

    /// Neither a vote nor a move of the ballot came since.
    fn ballot_unchanged(&mut self, tx_id: &TxId) {
        self.guard(Guard::AllUnchanged(names::votes_of(tx_id), self.at));
        self.guard(Guard::Unchanged(names::status(tx_id), self.at));
    }

    /// Writes a view as the board will say it.
    fn view(&mut self, key: String) {
        let write = match says(self.after, &Name::of(&key)) {
            Says::Value(value) | Says::ValueOrNothing(value) => Write::put(key, value),
            Says::Nothing => Write::Delete(key),
            Says::Anything => return,
        };
        self.write(write);
    }

    fn of_ballot(&mut self, op: &Op, tx_id: &TxId, moved: Vec<Moved>) {
        match op {
            Op::Reserve(_) => {
                let key = names::nonces(&self.after.rules().chain().account);
                self.guard(Guard::Unchanged(key.clone(), self.at));
                self.view(key);
                // Reserved anew: the certificate for the lost nonce is none.
                self.view(names::certificate(tx_id));
                self.view(names::observations(tx_id));
            }
            Op::Certify(_) => self.view(names::certificate(tx_id)),
            Op::Conclude(_) => {
                self.view(names::observations(tx_id));
                self.write(Write::Delete(names::lock(tx_id)));
            }
            Op::Lease(lease) => self.write(Write::Put {
                key: names::lock(tx_id),
                value: lease.node_id.clone().into_bytes(),
                ttl_ms: Some(lease.ttl_ms),
            }),
            Op::Release(_) => self.write(Write::Delete(names::lock(tx_id))),
            Op::Expire(_) => {
                for vote in moved {
                    self.write(Write::Delete(vote.from));
                    self.write(Write::put(vote.to, vote.value));
                }
                self.write(Write::DeleteAll(names::counts_of(tx_id)));
            }
            Op::Collect(_) => {
                self.write(Write::Delete(names::certificate(tx_id)));
                self.write(Write::Delete(names::observations(tx_id)));
                self.write(Write::DeleteAll(names::counts_of(tx_id)));
            }
            _ => {}
        }
    }
}
