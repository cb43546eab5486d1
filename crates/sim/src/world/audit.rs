//! The audit store: rows with two fences, the signed variants, and the projection of
//! the board's log.

use std::collections::BTreeMap;

use quorate_consensus::TxId;
use quorate_consensus::wire::board_event::Event as Happened;
use quorate_consensus::wire::{BoardEntry, Reservation};
use quorate_engine::{AuditAnswer, AuditAsk, Prepared};

/// The audit store.
#[derive(Debug, Default)]
pub struct Audit {
    rows: BTreeMap<TxId, Reservation>,
    /// By transaction and nonce: those for a nonce that somebody else took are of no
    /// use any more.
    variants: BTreeMap<(TxId, u64), Vec<(u32, Prepared)>>,
    attempts: BTreeMap<TxId, u32>,
    projected: u64,
}

impl Audit {
    /// The PENDING row of each reservation.
    pub fn rows(&self) -> &BTreeMap<TxId, Reservation> {
        &self.rows
    }

    /// Every signed variant by transaction and nonce, oldest first.
    pub fn variants(&self) -> &BTreeMap<(TxId, u64), Vec<(u32, Prepared)>> {
        &self.variants
    }

    /// How many of the log's entries it has taken in.
    pub fn projected(&self) -> u64 {
        self.projected
    }

    /// Takes in what the log says since it was last read, up to what contradicts a row.
    pub(super) fn project(&mut self, log: &[BoardEntry]) {
        let from = usize::try_from(self.projected).unwrap_or(usize::MAX);
        for (index, entry) in log.iter().enumerate().skip(from) {
            for event in &entry.events {
                if let Some(Happened::Reserved(reserved)) = &event.event
                    && let (Some(reservation), Ok(tx_id)) =
                        (&reserved.reservation, TxId::new(&event.tx_id))
                {
                    let row = self
                        .rows
                        .entry(tx_id)
                        .or_insert_with(|| reservation.clone());
                    if has_same_nonce(row, reservation) && row != reservation {
                        self.projected = index as u64;
                        return;
                    }
                    *row = reservation.clone();
                }
            }
        }
        self.projected = log.len() as u64;
    }

    /// Answers an engine.
    pub(super) fn answer(&mut self, ask: AuditAsk) -> AuditAnswer {
        match ask {
            AuditAsk::Pending {
                tx_id, reservation, ..
            } => {
                let mut others = self.rows.iter().filter(|(other, _)| **other != tx_id);
                if others.any(|(_, row)| has_same_nonce(row, &reservation)) {
                    return AuditAnswer::Conflict("another row has this nonce".into());
                }
                let row = self.rows.entry(tx_id);
                let row = row.or_insert_with(|| reservation.clone());
                if !has_same_nonce(row, &reservation) {
                    // One made anew takes effect here only through the log.
                    AuditAnswer::Unavailable("the reservation is not projected yet".into())
                } else if *row == reservation {
                    AuditAnswer::Done
                } else {
                    AuditAnswer::Conflict("the row has another payload".into())
                }
            }
            AuditAsk::Variant {
                tx_id,
                nonce,
                attempt,
                prepared,
            } => {
                match self.rows.get(&tx_id).map(|row| row.nonce) {
                    None => return AuditAnswer::Conflict("there is no row".into()),
                    Some(now) if now != nonce => {
                        return AuditAnswer::Unavailable("the row has another nonce".into());
                    }
                    Some(_) => {}
                }
                let variants = self.variants.entry((tx_id, nonce)).or_default();
                if !variants.contains(&(attempt, prepared.clone())) {
                    variants.push((attempt, prepared));
                }
                AuditAnswer::Done
            }
            AuditAsk::Variants { tx_id } => {
                let nonce = self.rows.get(&tx_id).map_or(0, |row| row.nonce);
                let variants = self.variants.get(&(tx_id, nonce));
                AuditAnswer::Variants(variants.cloned().unwrap_or_default())
            }
            AuditAsk::Attempted { tx_id, attempts } => {
                self.attempts.insert(tx_id, attempts);
                AuditAnswer::Done
            }
        }
    }
}

fn has_same_nonce(a: &Reservation, b: &Reservation) -> bool {
    (&a.account, a.nonce) == (&b.account, b.nonce)
}
