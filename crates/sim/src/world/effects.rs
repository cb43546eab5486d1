//! Carrying out what engines want: keys, journal, board, chain, audit store.

use quorate_engine::{ChainAnswer, ChainAsk, Effect, Event, SendOutcome};

use super::World;
use super::chain::Change;
use crate::invariants::Happening;

/// A lost reply is noticed after so long.
pub(super) const REPLY_MS: u64 = 2_000;

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
            Effect::Propose { ticket, op, now_ms } => self.ask_board(place, ticket, op, now_ms),
            Effect::ReadHead { ticket } => self.ask_head(place, ticket),
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
                        self.audit.project(self.store.views[0].log());
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
            // Nobody operates here, streams are made by the plan, and nobody advertises
            // an address.
            Effect::Operated { .. }
            | Effect::Message { .. }
            | Effect::Believed { .. }
            | Effect::Reach { .. } => {}
            Effect::Alert(alert) => self.places[place].alerts.push(alert),
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
