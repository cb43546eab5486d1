//! The board as a log: the store keeps a pure board and its entries in order, carries
//! each operation out at once, and may lie about all of it.

use quorate_consensus::wire::board_op::Op;
use quorate_consensus::wire::{self, BallotState, BoardEntry, BoardOp};
use quorate_engine::{Event, ProposeError, Proposed, Ticket};
use quorate_testkit::ops;

use super::effects::REPLY_MS;
use super::{Due, World, clients, mix};
use crate::invariants::Happening;
use crate::plan::Forgery;

impl World {
    /// An operation is on its way to the store; without a ticket nobody waits for its
    /// answer.
    pub(super) fn log_propose(
        &mut self,
        place: usize,
        ticket: Option<Ticket>,
        op: BoardOp,
        now_ms: u64,
        wait: u64,
    ) {
        let life = self.places[place].life;
        let op = Box::new(op);
        self.schedule(
            wait,
            Due::Propose {
                place,
                life,
                ticket,
                op,
                now_ms,
            },
        );
    }

    /// What a linearizable read of the log's head gives.
    pub(super) fn log_head(&self, place: usize) -> Result<u64, String> {
        match self.faults.store_away(self.places[place].member, self.now) {
            true => Err("the store is away".into()),
            false => Ok(self.store.views[self.places[place].view].head()),
        }
    }

    pub(super) fn log_feed(&mut self, index: usize, life: u64) {
        let place = &mut self.places[index];
        if place.life != life {
            return;
        }
        place.feed_due = false;
        let Some(engine) = &place.engine else { return };
        if self.faults.store_away(place.member, self.now) {
            // It reads again when the store is back.
            place.feed_due = true;
            self.schedule(500, Due::Feed(index, life));
            return;
        }
        let log = &self.store.views[place.view].log;
        let mut believed = engine.revision();
        if self.faults.re_reads.remove(&index) {
            // What it has believed already it gets once more.
            believed = 0;
        }
        let from = log.partition_point(|entry| entry.revision <= believed);
        let entries = log[from..].to_vec();
        if !entries.is_empty() {
            self.feed(index, Event::Entries { entries });
        }
    }

    pub(super) fn proposed(
        &mut self,
        place: usize,
        life: u64,
        ticket: Option<Ticket>,
        op: &BoardOp,
        now_ms: u64,
    ) {
        let member = self.places[place].member;
        let away =
            self.faults.store_away(member, self.now) || self.chance(self.plan.noise.store_refuses);
        let result = match away {
            true => Err(ProposeError::Unavailable("the store is away".into())),
            false => {
                let view = self.places[place].view;
                self.log_apply(view, op, now_ms)
            }
        };
        let lost = !away
            && (self.faults.replies_lost(self.now) || self.chance(self.plan.noise.reply_lost));
        let Some(ticket) = ticket.filter(|_| self.places[place].life == life) else {
            return;
        };
        let (wait, result) = match lost {
            true => (
                REPLY_MS,
                Err(ProposeError::Unavailable("no reply came".into())),
            ),
            false => (self.span(self.plan.noise.store_ms), result),
        };
        let wait = wait + self.lag(place);
        self.post(wait, place, Event::Proposed { ticket, result });
    }

    /// The store carries an operation out, and tells the news.
    pub(super) fn log_apply(
        &mut self,
        view: usize,
        op: &BoardOp,
        now_ms: u64,
    ) -> Result<Proposed, ProposeError> {
        // A store whose clock is right takes nothing from further in the future than
        // clocks may differ.
        let latest = self.true_wall() + self.rules().clock_skew_ms();
        match self.store.apply(view, op, now_ms.min(latest)) {
            Ok(Some(revision)) => {
                let entry = self.store.views[view].log.last().cloned();
                if let Some(entry) = entry {
                    self.fingerprint = mix(self.fingerprint, entry.time_ms);
                    self.judge(&Happening::Entry {
                        view,
                        entry: &entry,
                    });
                    if !self.faults.audit_away(self.now) && view == 0 {
                        self.audit.project(self.store.views[0].log());
                    }
                    for place in 0..self.places.len() {
                        if self.places[place].view == view {
                            self.news(place);
                            self.cue_entry(place, &entry);
                        }
                    }
                }
                Ok(Proposed::Applied(revision))
            }
            Ok(None) => Ok(Proposed::Unchanged(self.store.views[view].head())),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// The store is put back to an earlier snapshot.
    pub(super) fn log_roll_back(&mut self, entries: usize) {
        let before = self.store.views[0].log.len();
        self.store.roll_back(0, entries);
        self.store.views[0].forged |= self.store.views[0].log.len() < before;
    }

    /// From now on the store keeps two boards.
    pub(super) fn log_fork(&mut self, side: &[usize]) {
        if self.store.views.len() > 1 {
            return;
        }
        let view = self.store.views[0].clone();
        self.store.views.push(view);
        for place in &mut self.places {
            place.view = usize::from(side.contains(&place.member));
        }
    }

    /// The store shows what no board gave.
    pub(super) fn log_forge(&mut self, what: Forgery) {
        let view = &self.store.views[0];
        let Some(last) = view.log.last().cloned() else {
            return;
        };
        let ballot = view.board.ballots().find(|ballot| ballot.is_open());
        let ballot = ballot.or_else(|| view.board.ballots().next());
        let Some(tx_id) = ballot.map(|ballot| ballot.tx_id.clone()) else {
            return;
        };
        let node_id = self.cluster.node_id(0);
        let op = match what {
            Forgery::Vote => {
                let choice = quorate_consensus::Value::Number(666);
                let wall = self.true_wall();
                let mut vote = self.cluster.vote(0, &tx_id, choice, wall);
                vote.signature[0] ^= 1;
                ops::record_vote(vote)
            }
            Forgery::Move => ops::advance(&tx_id, BallotState::ThresholdReached),
            Forgery::Ban => clients::baseless_ban(&node_id),
            Forgery::Reservation => BoardOp {
                op: Some(Op::Reserve(wire::ReserveOp {
                    tx_id: tx_id.to_string(),
                    reservation: Some(wire::Reservation {
                        account: "thief".into(),
                        nonce: self.chain.next_nonce(),
                        payload: b"all of it".to_vec(),
                    }),
                    observations: Vec::new(),
                })),
            },
            Forgery::Certificate => ops::certify(&tx_id, Vec::new()),
            Forgery::Deletion => {
                self.store.roll_back(0, 1);
                self.store.views[0].forged = true;
                return;
            }
            Forgery::Events => {
                // Readers derive the events for themselves: this does no harm.
                let log = &mut self.store.views[0].log;
                if let Some(last) = log.last_mut() {
                    last.events.clear();
                }
                return;
            }
            Forgery::Hole => {
                // Whoever has not read so far yet, and whoever starts from now on,
                // comes upon it.
                let view = &mut self.store.views[0];
                if view.log.len() > 1 {
                    view.log.remove(view.log.len() - 2);
                    view.forged = true;
                }
                return;
            }
            // These are about keys.
            Forgery::Count
            | Forgery::State
            | Forgery::Member
            | Forgery::Rules
            | Forgery::Nonce
            | Forgery::Unban
            | Forgery::Overwrite
            | Forgery::Past
            | Forgery::Head
            | Forgery::Everything => return,
        };
        let view = &mut self.store.views[0];
        view.forged = true;
        view.log.push(BoardEntry {
            revision: last.revision + 1,
            time_ms: last.time_ms,
            op: Some(op),
            events: Vec::new(),
        });
        for place in 0..self.places.len() {
            self.news(place);
        }
    }
}
