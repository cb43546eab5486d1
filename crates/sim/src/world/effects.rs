//! Carrying out what engines want: keys, journal, store, chain, audit store.

use quorate_consensus::wire::BoardOp;
use quorate_engine::{
    ChainAnswer, ChainAsk, Effect, Event, ProposeError, Proposed, SendOutcome, Ticket,
};

use super::chain::Change;
use super::{Due, World, mix};
use crate::invariants::Happening;

/// A lost reply is noticed after so long.
const REPLY_MS: u64 = 2_000;

impl World {
    pub(super) fn carry_out(&mut self, place: usize, effect: Effect) {
        let lag = self.lag(place);
        match effect {
            Effect::Persist(record) => self.places[place].unsynced.push(record),
            Effect::Lookup { ticket, tx_id } => {
                let entry = self.places[place].journal.entries.get(&tx_id).cloned();
                let entry = entry.unwrap_or_default();
                let wait = self.span(self.plan.noise.answer_ms);
                self.post(wait, place, Event::Found { ticket, entry });
            }
            Effect::Sign {
                ticket,
                key,
                domain,
                statement,
            } => {
                let member = self.places[place].member;
                let result = if self.faults.keys_away(member, self.now) {
                    Err("the key is away".into())
                } else {
                    Ok(self.cluster.sign(member, key, domain, statement).signature)
                };
                let wait = self.span(self.plan.noise.answer_ms) + lag;
                self.post(wait, place, Event::Signed { ticket, result });
            }
            Effect::Propose { ticket, op, now_ms } => {
                let late = self.places[place].lag_ms;
                let wait = self.span(self.plan.noise.store_ms) + lag + late;
                let life = self.places[place].life;
                self.schedule(
                    wait,
                    Due::Propose {
                        place,
                        life,
                        ticket: Some(ticket),
                        op: Box::new(op),
                        now_ms,
                    },
                );
            }
            Effect::ReadHead { ticket } => {
                let wait = 2 * self.span(self.plan.noise.store_ms) + lag;
                let away = self.faults.store_away(self.places[place].member, self.now);
                let view = self.places[place].view;
                let result = match away {
                    true => Err("the store is away".into()),
                    false => Ok(self.store.views[view].head()),
                };
                self.post(wait, place, Event::Head { ticket, result });
                self.news(place);
            }
            Effect::Chain { ticket, ask } => {
                let answer = self.ask_chain(place, ask);
                let wait = match answer {
                    ChainAnswer::Sent(SendOutcome::Unknown(_)) => REPLY_MS,
                    _ => self.span(self.plan.noise.answer_ms),
                };
                self.post(wait + lag, place, Event::Chain { ticket, answer });
            }
            Effect::Audit { ticket, ask } => {
                let answer = match self.faults.audit_away(self.now) {
                    true => quorate_engine::AuditAnswer::Unavailable("away".into()),
                    false => {
                        self.audit.project(&self.store.views[0].log);
                        self.audit.answer(ask)
                    }
                };
                let wait = self.span(self.plan.noise.answer_ms) + lag;
                self.post(wait, place, Event::Audit { ticket, answer });
            }
            Effect::Send { stream, frame } => self.send(place, stream, frame),
            Effect::Close { stream, goodbye } => self.close(place, stream, goodbye),
            Effect::Admit { node_id, welcome } => self.admit(place, node_id, welcome),
            Effect::Answer { request, result } => self.answered(request, *result),
            Effect::Believed { .. } => {}
            Effect::Alert(alert) => self.places[place].alerts.push(alert),
        }
    }

    /// A machine will read the log on.
    pub(super) fn news(&mut self, place: usize) {
        if self.places[place].feed_due || self.places[place].engine.is_none() {
            return;
        }
        self.places[place].feed_due = true;
        let late = self.faults.watch_late(self.places[place].member, self.now);
        let wait = self.span(self.plan.noise.watch_ms) + self.lag(place) + late;
        let life = self.places[place].life;
        self.schedule(wait, Due::Feed(place, life));
    }

    pub(super) fn read_log(&mut self, index: usize, life: u64) {
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
                self.apply(view, op, now_ms)
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
    pub(super) fn apply(
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
                        self.audit.project(&self.store.views[0].log);
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

    pub(super) fn advance_chain(&mut self) {
        for change in self.chain.advance(self.now) {
            self.tell_change(&change);
        }
    }

    pub(super) fn tell_change(&mut self, change: &Change) {
        match change {
            Change::Mined(mined) => self.judge(&Happening::Mined(mined)),
            Change::Undone(mined) => self.judge(&Happening::Undone(mined)),
        }
    }

    pub(super) fn ask_chain(&mut self, place: usize, ask: ChainAsk) -> ChainAnswer {
        self.advance_chain();
        let member = self.places[place].member;
        let sends = matches!(ask, ChainAsk::Send { .. });
        let prepares = matches!(ask, ChainAsk::Prepare { .. });
        if !prepares && self.faults.chain_away(member, self.now) {
            return ChainAnswer::Unavailable("the endpoint is away".into());
        }
        if let ChainAsk::Prepare { reservation, .. } = &ask {
            self.mark_reverts(&reservation.payload);
        }
        let answer = self.chain.answer(ask);
        if sends && self.chance(self.plan.noise.chain_lost) {
            return ChainAnswer::Sent(SendOutcome::Unknown("no answer came".into()));
        }
        answer
    }
}
