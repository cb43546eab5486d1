//! Believing the board's log: every entry is repeated on this node's own mirror,
//! which refuses what the table does not give.

use quorate_consensus::ballot::is_final;
use quorate_consensus::board::ReplayError;
use quorate_consensus::wire::board_event::Event as Happened;
use quorate_consensus::wire::{self, BoardEntry, BoardEvent};
use quorate_consensus::{NodeId, TxId};

use super::start::Phase;
use super::{Engine, Signing, Timer};
use crate::api::{Alert, Effect, Now, Record};

/// How often the believed revision is made durable on its own, in milliseconds.
/// It also goes with every verdict and every end.
const SEEN_EVERY_MS: u64 = 1_000;

impl Engine {
    /// Believes what the store's log says next, as far as this node's clock allows.
    pub(super) fn entries(&mut self, now: Now, entries: Vec<BoardEntry>) {
        let fed = self.revision();
        self.held
            .extend(entries.into_iter().filter(|entry| entry.revision > fed));
        let latest = now.wall_ms + self.board.rules().clock_skew_ms();
        let mut believed = Vec::new();
        while let Some(entry) = self.held.front() {
            if entry.time_ms > latest {
                let ahead_ms = entry.time_ms - now.wall_ms;
                let wait = entry.time_ms - latest;
                let revision = entry.revision;
                if self.clock_alerted != revision {
                    self.clock_alerted = revision;
                    self.alert(Alert::Clock {
                        detail: format!(
                            "the board's entry {revision} is {ahead_ms} ms ahead of this node's clock"
                        ),
                    });
                }
                self.wake_at(Timer::HeldEntries, now.mono_ms + wait.min(1_000));
                break;
            }
            let Some(entry) = self.held.pop_front() else {
                break;
            };
            match self.board.replay(entry, self.verifier.as_ref()) {
                Ok(derived) => {
                    for event in &derived.events {
                        self.happened(now, event, &derived);
                    }
                    believed.push(derived);
                }
                Err(error) => {
                    self.disbelieve(&error);
                    break;
                }
            }
        }
        if !believed.is_empty() {
            self.out.push(Effect::Believed { entries: believed });
            if now.mono_ms >= self.seen_persisted_mono + SEEN_EVERY_MS {
                self.persist_seen(now);
            }
        }
        self.caught_up(now);
    }

    pub(super) fn persist_seen(&mut self, now: Now) {
        let revision = self.board.revision();
        // A store that is not to be believed has shown nothing.
        if revision > self.seen_persisted && !matches!(self.signing, Signing::Stopped(_)) {
            self.seen_persisted = revision;
            self.seen_persisted_mono = now.mono_ms;
            self.persist(Record::Seen { revision });
        }
    }

    fn disbelieve(&mut self, error: &ReplayError) {
        self.held.clear();
        let detail = error.to_string();
        // Behind an entry that is not justified nothing can be believed.
        if !matches!(self.signing, Signing::Stopped(_)) {
            self.signing = Signing::Stopped(format!("STORE_TAMPERING: {detail}"));
            self.alert(Alert::StoreTampering { detail });
        }
    }

    fn happened(&mut self, now: Now, event: &BoardEvent, entry: &BoardEntry) {
        let tx_id = TxId::new(&event.tx_id).ok();
        match &event.event {
            Some(Happened::Booted(booted)) => {
                if booted.node_id == self.config.node_id.as_str()
                    && let Some(wire::BoardOp {
                        op: Some(wire::board_op::Op::Boot(op)),
                    }) = &entry.op
                    && let Some(boot) = &op.boot
                {
                    self.booted(now, booted.generation, &boot.statement);
                }
            }
            Some(Happened::Banned(banned)) => {
                if let Ok(node_id) = NodeId::new(&banned.node_id) {
                    if !matches!(
                        self.phase,
                        Phase::Fresh | Phase::AskedHead | Phase::CatchingUp(_)
                    ) {
                        self.alert(Alert::Misbehaviour {
                            node_id: node_id.clone(),
                            kind: banned.r#type(),
                            detail: format!("{node_id} is banned"),
                        });
                    }
                    self.refuse(&node_id, wire::GoodbyeReason::Banned, "banned");
                    self.touch_open_ballots();
                    self.wake_by(Timer::Members, now.mono_ms);
                }
            }
            Some(Happened::Unbanned(unbanned)) => {
                if let Ok(node_id) = NodeId::new(&unbanned.node_id) {
                    self.refused.remove(&node_id);
                    self.accusations.remove(&node_id);
                    self.forget_acts(&node_id);
                    // What it said against the others is dissent again.
                    self.touch_open_ballots();
                    self.out.push(Effect::Admit {
                        node_id,
                        welcome: true,
                    });
                }
            }
            Some(Happened::Accused(accused)) => {
                if let (Ok(node_id), Ok(by)) =
                    (NodeId::new(&accused.node_id), NodeId::new(&accused.by))
                {
                    self.heard_accusations.remove(&(node_id, by, accused.kind));
                }
                self.wake_by(Timer::Members, now.mono_ms);
            }
            Some(Happened::ReputationChanged(_)) => self.wake_by(Timer::Members, now.mono_ms),
            Some(Happened::VoteRecorded(recorded)) => {
                if let Some(tx_id) = &tx_id {
                    self.vote_recorded(now, tx_id, recorded);
                }
            }
            Some(Happened::StateChanged(changed)) => {
                if let Some(tx_id) = &tx_id {
                    self.state_changed(now, tx_id, changed, event.revision);
                }
            }
            Some(Happened::Expired(_)) => {
                if let Some(tx_id) = &tx_id {
                    self.expired(tx_id);
                }
            }
            Some(Happened::Collected(collected)) => {
                if let Some(tx_id) = &tx_id {
                    self.collected(tx_id, collected.state());
                }
            }
            Some(Happened::Reserved(reserved)) => {
                if let (Some(tx_id), true) = (&tx_id, reserved.anew) {
                    self.reserved_anew(tx_id);
                }
            }
            _ => {}
        }
        if let Some(tx_id) = tx_id
            && self.is_live()
        {
            if self.board.ballot(&tx_id).is_some() {
                self.local(now, &tx_id);
            }
            self.touch(&tx_id);
        }
    }

    /// The board was read to its head once; what happens from now on is news.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Booting | Phase::InService)
    }

    fn state_changed(
        &mut self,
        now: Now,
        tx_id: &TxId,
        changed: &wire::StateChanged,
        revision: u64,
    ) {
        let state = changed.to();
        if is_final(state) && revision > self.durable.seen {
            let done = self.locals.get(tx_id).is_some_and(|l| l.end_persisted);
            if !done || self.is_live() {
                self.persist(Record::Final {
                    tx_id: tx_id.clone(),
                    state,
                });
                self.persist_seen(now);
            }
            if let Some(local) = self.locals.get_mut(tx_id) {
                local.end_persisted = true;
            }
        }
        let undone = state == wire::BallotState::Submitted && is_final(changed.from());
        if let Some(local) = self.locals.get_mut(tx_id) {
            // A look under way is from before: its answer, taken for what the chain
            // shows now, would undo what was concluded, or confirm what is gone.
            local.looking = None;
            if undone {
                // Looked at seldom since it was concluded.
                local.look_mono = None;
                local.look_after_ms = 0;
            }
        }
        if (state == wire::BallotState::Failed || undone) && self.is_live() {
            self.alert(Alert::Submission {
                tx_id: tx_id.clone(),
                detail: changed.reason.clone(),
            });
        }
    }

    fn touch_open_ballots(&mut self) {
        // A ban, or its end, changes who may still vote and who dissents, so every open ballot is looked at again.
        if self.is_live() {
            let open: Vec<_> = self
                .locals
                .keys()
                .filter(|tx_id| self.board.ballot(tx_id).is_some_and(|b| b.is_open()))
                .cloned()
                .collect();
            self.touched.extend(open);
        }
    }
}
