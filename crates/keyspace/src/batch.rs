//! Which of the waiting operations travel together.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

use quorate_consensus::TxId;
use quorate_consensus::board::{Outcome, Refusal, subject};
use quorate_consensus::statement::{BootBody, parse};
use quorate_consensus::wire::BoardOp;
use quorate_consensus::wire::board_op::Op;

use crate::kv::{Step, Write};
use crate::reader::Reader;
use crate::record::{OpId, Voted};
use crate::{names, plan};

/// An operation that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    pub(crate) id: OpId,
    pub(crate) op: BoardOp,
    pub(crate) now_ms: u64,
    /// The vote that it records, if it does.
    pub(crate) voted: Option<Voted>,
    /// The transaction that it is about, of what is no vote.
    about: Option<TxId>,
}

impl Ask {
    /// The operation `op` of the time `now_ms`, milliseconds since the Unix epoch; `id`
    /// names the attempt. Reads what it is about, once for all plans that it is in.
    pub fn new(id: OpId, op: BoardOp, now_ms: u64) -> Self {
        let voted = Voted::of(&op);
        let about = match voted {
            Some(_) => None,
            None => subject(&op),
        };
        Self {
            id,
            op,
            now_ms,
            voted,
            about,
        }
    }

    /// Names the attempt.
    pub fn id(&self) -> OpId {
        self.id
    }

    /// The transaction that it is about, if it is about one.
    pub(crate) fn about(&self) -> Option<&TxId> {
        let voted = self.voted.as_ref().map(|vote| &vote.tx_id);
        voted.or(self.about.as_ref())
    }
}

/// What the board as far as it was read says without the store's help.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It has it already.
    Unchanged,
    /// It refuses.
    Refused(Refusal),
}

impl Verdict {
    /// Whether it stays so even though a transaction that was sent with this operation
    /// may still be on its way to the store. What names all that it was derived from
    /// is refused now because something of that has changed, so its guards fail; a
    /// vote names only its own key, and what refuses it could pass before the
    /// transaction arrives.
    pub fn is_certain(&self, op: &BoardOp) -> bool {
        match (self, &op.op) {
            (Self::Refused(refusal), Some(Op::RecordVote(_))) => {
                !matches!(refusal, Refusal::Banned(_) | Refusal::TooManyUnstarted(_))
            }
            (Self::Refused(_), Some(Op::Ban(_))) => false,
            _ => true,
        }
    }
}

/// What goes to the store in one transaction: first `writes`, which always happen,
/// then the steps, each if its guards held when the transaction began.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Always written.
    pub writes: Vec<Write>,
    /// One for each operation taken: its place among the asks, and its step.
    pub steps: Vec<(usize, Step)>,
}

/// Why an operation was not taken along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deferred {
    /// It would write a key that another in the batch writes, or depends on one.
    Clashes,
    /// The batch is full.
    Full,
}

/// What becomes of the waiting operations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Planned {
    /// What to send; without steps there is nothing to send.
    pub batch: Batch,
    /// Those that need no sending *if the board was read to the end* after they were
    /// asked: their places among the asks.
    pub settled: Vec<(usize, Verdict)>,
    /// Those that wait on: their places among the asks.
    pub waiting: Vec<(usize, Deferred)>,
}

impl Reader {
    /// Plans a transaction of at most `most` of the waiting operations.
    ///
    /// All guards of a transaction are looked at before any of its writes, so what
    /// depends on another operation of the batch must not be in it: votes on one
    /// ballot go together, anything else about a ballot goes alone with that ballot,
    /// and what bans or pardons goes alone.
    pub fn plan(&self, asks: &[impl Borrow<Ask>], most: usize) -> Planned {
        let mut planned = Planned::default();
        let asks: Vec<&Ask> = asks.iter().map(Borrow::borrow).collect();
        let subjects = asks.iter().map(|ask| (ask.about(), &ask.op));
        let mut board = self.board().excerpt(subjects);
        let mut touched: BTreeMap<TxId, bool> = BTreeMap::new();
        let mut keys: BTreeSet<String> = BTreeSet::new();
        let mut bytes = 0;
        let mut lonely = false;
        for (place, ask) in asks.iter().enumerate() {
            if planned.batch.steps.len() >= most || bytes >= MAX_BYTES {
                planned.waiting.push((place, Deferred::Full));
                continue;
            }
            let is_vote = matches!(ask.op.op, Some(Op::RecordVote(_)));
            let alone = matches!(ask.op.op, Some(Op::Ban(_) | Op::Unban(_) | Op::Accuse(_)));
            let about = ask.about();
            let depends = about
                .and_then(|tx_id| touched.get(tx_id))
                .is_some_and(|only_votes| !(is_vote && *only_votes));
            let is_first = planned.batch.steps.is_empty();
            if depends || lonely || (alone && !is_first) {
                planned.waiting.push((place, Deferred::Clashes));
                continue;
            }
            // Known before it is applied: what the step would write, as far as two
            // operations can clash without sharing a ballot.
            let before = self.clash_keys(ask);
            if before.iter().any(|key| keys.contains(key)) {
                planned.waiting.push((place, Deferred::Clashes));
                continue;
            }
            match board.apply(&ask.op, ask.now_ms, self.verifier()) {
                Ok(Outcome::Applied(_)) => {}
                Ok(Outcome::Unchanged) => {
                    planned.settled.push((place, Verdict::Unchanged));
                    continue;
                }
                Err(refusal) if is_first => {
                    planned.settled.push((place, Verdict::Refused(refusal)));
                    continue;
                }
                // Perhaps too old only because of the time of those before it, which are
                // not in the log yet; an earlier sending of it may come before them.
                Err(_) => {
                    planned.waiting.push((place, Deferred::Clashes));
                    continue;
                }
            }
            let index = planned.batch.steps.len() as u32;
            // Of a vote the first key is the vote's own.
            let second = is_vote && before.first().is_some_and(|key| self.knows(key));
            let moved = match &ask.op.op {
                Some(Op::Expire(_)) => self.votes_to_move(about),
                _ => Vec::new(),
            };
            // `None` only for what the board would have refused.
            let at = self.revision();
            let Some(step) = plan::step(&board, ask, index, at, second, moved) else {
                continue;
            };
            bytes += step.writes.iter().map(size).sum::<usize>();
            keys.extend(before);
            if let Some(tx_id) = about {
                touched
                    .entry(tx_id.clone())
                    .and_modify(|only| *only &= is_vote)
                    .or_insert(is_vote);
            }
            lonely = alone;
            planned.batch.steps.push((place, step));
        }
        let first = planned.batch.steps.first();
        if let Some(ask) = first.and_then(|(place, _)| asks.get(*place)) {
            let head = Write::put(names::HEAD, ask.id.to_string());
            planned.batch.writes.push(head);
        }
        planned
    }

    /// The keys by which operations clash that are not of one ballot's moves.
    fn clash_keys(&self, ask: &Ask) -> Vec<String> {
        if let Some(vote) = &ask.voted {
            return vec![vote.key(), vote.counter()];
        }
        match &ask.op.op {
            Some(Op::Boot(op)) => {
                let parsed = op
                    .boot
                    .as_ref()
                    .map(|boot| parse::<BootBody>(&boot.statement));
                match parsed {
                    Some(Ok((header, _))) => vec![names::member(&header.node_id)],
                    _ => Vec::new(),
                }
            }
            Some(Op::Reserve(_)) => vec![names::nonces(&self.board().rules().chain().account)],
            _ => Vec::new(),
        }
    }
}

/// A transaction is at most 1.5 MiB by default; a batch stays well below.
const MAX_BYTES: usize = 512 * 1024;

fn size(write: &Write) -> usize {
    match write {
        Write::Put { key, value, .. } => key.len() + value.len(),
        Write::Delete(key) | Write::DeleteAll(key) => key.len(),
    }
}
