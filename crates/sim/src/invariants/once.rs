//! "The cluster submits it to a chain exactly once" (section 1): "only with t decision
//! statements in hand does anyone go on"; "store hash and signed bytes, every variant,
//! before any is sent"; "after it nobody sends the payload" (section 7).
//!
//! Whoever holds the chain key could act alone, and strangers do: what they sent is
//! marked foreign, and only what engines sent is judged. Two nonces are judged only
//! where statements bind (see [`super::is_binding`]).

use std::collections::{BTreeMap, BTreeSet};

use quorate_consensus::TxId;
use quorate_consensus::wire::BallotState;
use quorate_consensus::wire::board_event::Event;
use quorate_engine::{ChainAsk, Effect, Prepared};

use super::{Happening, Invariant, Sort, is_binding};
use crate::world::World;
use crate::world::chain::{Mined, read};

/// At most one effective action per transaction.
#[derive(Default)]
pub(super) struct Once {
    /// Payload to transaction, of all reservations ever made.
    payloads: BTreeMap<Vec<u8>, TxId>,
    reserved: BTreeSet<(TxId, u64)>,
    certified: BTreeSet<(TxId, u64)>,
}

impl Invariant for Once {
    fn name(&self) -> &'static str {
        "once"
    }

    fn watches(&self) -> &'static [Sort] {
        &[Sort::Entry, Sort::Effect, Sort::Mined]
    }

    fn sees(&mut self, world: &World, what: &Happening<'_>) -> Result<(), String> {
        match what {
            Happening::Entry { view, entry } => {
                for event in &entry.events {
                    self.on_board(world, *view, &event.tx_id, event.event.as_ref())?;
                }
                Ok(())
            }
            Happening::Mined(mined) => self.mined(world, mined),
            Happening::Effect {
                place,
                effect: Effect::Chain { ask, .. },
            } => asks(world, *place, ask),
            _ => Ok(()),
        }
    }
}

impl Once {
    fn on_board(
        &mut self,
        world: &World,
        view: usize,
        tx_id: &str,
        event: Option<&Event>,
    ) -> Result<(), String> {
        let Ok(tx_id) = TxId::new(tx_id) else {
            return Ok(());
        };
        match event {
            Some(Event::Reserved(reserved)) => {
                let Some(reservation) = &reserved.reservation else {
                    return Err(format!("{tx_id} is reserved without a reservation"));
                };
                let payload = reservation.payload.clone();
                self.payloads.insert(payload, tx_id.clone());
                self.reserved.insert((tx_id, reservation.nonce));
            }
            Some(Event::Certified(_)) => {
                let board = world.store().views()[view].board();
                let ballot = board.ballot(&tx_id);
                let reservation = ballot.and_then(|ballot| ballot.reservation.as_ref());
                if let Some(reservation) = reservation {
                    self.certified.insert((tx_id, reservation.nonce));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn mined(&self, world: &World, mined: &Mined) -> Result<(), String> {
        if mined.foreign {
            return Ok(());
        }
        let nonce = mined.nonce;
        let Some(tx_id) = self.payloads.get(&mined.payload) else {
            return Err(format!("nonce {nonce} is used for what nobody reserved"));
        };
        if !self.reserved.contains(&(tx_id.clone(), nonce)) {
            return Err(format!(
                "{tx_id} is on the chain under nonce {nonce}, not its own"
            ));
        }
        if !self.certified.contains(&(tx_id.clone(), nonce)) {
            return Err(format!("{tx_id} is on the chain and has no certificate"));
        }
        let effective = world.chain().mined().filter(|other| {
            !other.foreign && other.succeeded && self.payloads.get(&other.payload) == Some(tx_id)
        });
        let nonces: Vec<u64> = effective.map(|other| other.nonce).collect();
        match nonces.len() {
            0 | 1 => Ok(()),
            _ if !is_binding(world) => Ok(()),
            _ => Err(format!("{tx_id} takes effect under the nonces {nonces:?}")),
        }
    }
}

/// An engine is about to sign or send a chain transaction.
fn asks(world: &World, place: usize, ask: &ChainAsk) -> Result<(), String> {
    let (nonce, payload) = match ask {
        ChainAsk::Look { .. } => return Ok(()),
        ChainAsk::Prepare { reservation, .. } => (reservation.nonce, &*reservation.payload),
        ChainAsk::Send { raw } => match read(raw) {
            Some((nonce, _, payload)) => (nonce, payload),
            None => return Err("what is sent is no transaction".into()),
        },
    };
    let name = world.node_id(place);
    let engine = world.places()[place].engine();
    let ballot = engine.and_then(|engine| {
        let mut ballots = engine.board().ballots();
        ballots.find(|ballot| {
            let reservation = ballot.reservation.as_ref();
            reservation.is_some_and(|r| r.payload == payload && r.nonce == nonce)
        })
    });
    let Some(ballot) = ballot else {
        return Err(format!(
            "{name} goes to the chain with nonce {nonce}, which is not reserved so"
        ));
    };
    let tx_id = &ballot.tx_id;
    if ballot.certificate.is_none() {
        return Err(format!("{name} submits {tx_id} without a certificate"));
    }
    if ballot.given_up {
        return Err(format!("{name} submits {tx_id}, which was given up"));
    }
    if ballot.state != BallotState::Submitted {
        return Err(format!(
            "{name} submits {tx_id} in state {:?}",
            ballot.state
        ));
    }
    if let ChainAsk::Send { raw } = ask {
        // Of a store that shows two boards the audit store has read one.
        let variants = world.audit().variants().iter();
        let mut variants = variants.filter(|((of, _), _)| of == tx_id);
        let is_it = |(_, prepared): &(u32, Prepared)| prepared.raw == *raw;
        if !variants.any(|(_, variants)| variants.iter().any(is_it)) {
            return Err(format!("{name} sends {tx_id} before it is stored"));
        }
        if !world.audit().rows().contains_key(tx_id) {
            return Err(format!("{name} sends {tx_id} without its row"));
        }
    }
    Ok(())
}
