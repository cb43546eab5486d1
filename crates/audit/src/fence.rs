//! What an engine is answered: the fences of a submission. Pure, and the same for
//! every backend: a backend finds the rows, keeps everybody else from them meanwhile,
//! and writes what is to be written.

use quorate_consensus::wire::Reservation;
use quorate_consensus::{TxId, Value};
use quorate_engine::{AuditAnswer, AuditAsk, Prepared};

use crate::rows::{SubmissionRow, SubmissionState};

/// The rows that tell the answer.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The submission.
    pub(crate) row: Option<SubmissionRow>,
    /// It is in the archive.
    pub(crate) archived: bool,
    /// How the transaction ended.
    pub(crate) final_state: Option<SubmissionState>,
    /// Whose the (account, nonce) of the reservation is; for [`AuditAsk::Pending`].
    pub(crate) holder: Option<TxId>,
    /// The bytes of the variant with the same hash; for [`AuditAsk::Variant`].
    pub(crate) variant: Option<Vec<u8>>,
    /// What a past that the board has lost says of the transaction.
    pub(crate) lost: Vec<LostSubmission>,
}

/// A submission of a lost past, which is not the one of the board. What it reserved may
/// have been sent.
#[derive(Debug)]
pub(crate) struct LostSubmission {
    pub(crate) state: SubmissionState,
    /// Account and nonce; none for an aborted ballot.
    pub(crate) place: Option<(String, u64)>,
    /// Another transaction was confirmed there: the chain takes no second one.
    pub(crate) taken: bool,
}

impl LostSubmission {
    /// Why nothing may be sent for the transaction at this place, if nothing may. At
    /// the place that it had, the chain takes one transaction and no second one.
    fn forbids(&self, tx_id: &TxId, account: &str, nonce: u64) -> Option<AuditAnswer> {
        let state = self.state.as_str();
        let Some((lost_account, lost)) = &self.place else {
            return Some(AuditAnswer::Conflict(format!(
                "{tx_id} ended as {state} in a past that the board has lost: give it up, and use another tx_id"
            )));
        };
        if (lost_account.as_str(), *lost) == (account, nonce) {
            return None;
        }
        let had = format!(
            "{tx_id} has nonce {nonce}, and had nonce {lost} of account {lost_account} in a past that the board has lost"
        );
        match self.state {
            SubmissionState::Pending | SubmissionState::Failed if self.taken => None,
            SubmissionState::Pending | SubmissionState::Failed => {
                Some(AuditAnswer::Conflict(format!(
                    "{had}, and may have been sent with that: it waits until another transaction is confirmed there; if the chain shows that {tx_id} was, give it up"
                )))
            }
            _ => Some(AuditAnswer::Conflict(format!(
                "{had}, where it ended as {state}: give it up"
            ))),
        }
    }
}

/// What is to be written, in one transaction with what was found.
#[derive(Debug, PartialEq)]
pub(crate) struct Write {
    /// The row as it shall be.
    pub(crate) row: SubmissionRow,
    /// A new row of `submission_variants`.
    pub(crate) variant: Option<VariantRow>,
}

/// A row of `submission_variants`, without its number.
#[derive(Debug, PartialEq)]
pub(crate) struct VariantRow {
    pub(crate) tx_id: TxId,
    pub(crate) account: String,
    pub(crate) nonce: u64,
    pub(crate) attempt: u32,
    pub(crate) prepared: Prepared,
    pub(crate) signed_at_ms: u64,
}

/// The answer, and what makes it true: to be given once that is durable.
pub(crate) type Verdict = (AuditAnswer, Option<Write>);

/// The transaction of a question.
pub(crate) fn tx_of(ask: &AuditAsk) -> &TxId {
    match ask {
        AuditAsk::Pending { tx_id, .. }
        | AuditAsk::Variant { tx_id, .. }
        | AuditAsk::Variants { tx_id }
        | AuditAsk::Attempted { tx_id, .. } => tx_id,
    }
}

/// Answers everything but [`AuditAsk::Variants`], which only reads.
pub(crate) fn answer(ask: AuditAsk, found: Found, now_ms: u64) -> Verdict {
    match ask {
        AuditAsk::Pending {
            tx_id,
            value,
            reservation,
        } => pending(tx_id, value, reservation, found, now_ms),
        AuditAsk::Variant {
            tx_id,
            nonce,
            attempt,
            prepared,
        } => variant(tx_id, nonce, attempt, prepared, found, now_ms),
        AuditAsk::Attempted { tx_id, attempts } => match found.row {
            Some(mut row) if !found.archived && row.account.is_some() => {
                row.attempts = row.attempts.max(attempts);
                done(row, None)
            }
            _ => no_row(&tx_id),
        },
        AuditAsk::Variants { .. } => (AuditAnswer::Variants(Vec::new()), None),
    }
}

fn pending(
    tx_id: TxId,
    value: Value,
    reservation: Reservation,
    found: Found,
    now_ms: u64,
) -> Verdict {
    let (account, nonce) = (&reservation.account, reservation.nonce);
    let mut lost = found.lost.iter();
    if let Some(answer) = lost.find_map(|lost| lost.forbids(&tx_id, account, nonce)) {
        return (answer, None);
    }
    if let Some(row) = found.row {
        let same_nonce = row.nonce == Some(reservation.nonce);
        let same_account = row.account.as_ref() == Some(&reservation.account);
        let same_rest = row.payload.as_ref() == Some(&reservation.payload)
            && row.value.as_ref() == Some(&value);
        let later = row.state == SubmissionState::Pending && row.nonce < Some(reservation.nonce);
        return match (same_account, same_nonce) {
            (true, true) if same_rest => (AuditAnswer::Done, None),
            (true, true) => conflict(format!("{tx_id} has a row with another value or payload")),
            // Only the log can say that the first nonce was taken by somebody else.
            (true, false) if later => unavailable(format!(
                "the row of {tx_id} still has nonce {}: the reservation made anew is not projected yet",
                row.nonce.unwrap_or_default()
            )),
            _ => conflict(format!(
                "{tx_id} has a row that is {}, with account {} and nonce {}",
                row.state.as_str(),
                row.account.as_deref().unwrap_or("none"),
                row.nonce.map_or("none".into(), |nonce| nonce.to_string()),
            )),
        };
    }
    if let Some(state) = found.final_state {
        return conflict(format!("{tx_id} ended as {}", state.as_str()));
    }
    if let Some(holder) = found.holder {
        let Reservation { account, nonce, .. } = reservation;
        return conflict(format!("nonce {nonce} of account {account} is {holder}'s"));
    }
    let row = SubmissionRow {
        tx_id,
        state: SubmissionState::Pending,
        value: Some(value),
        account: Some(reservation.account),
        nonce: Some(reservation.nonce),
        payload: Some(reservation.payload),
        tx_hash: None,
        block_number: None,
        attempts: 0,
        submitted_at_ms: now_ms,
        confirmed_at_ms: None,
    };
    done(row, None)
}

fn variant(
    tx_id: TxId,
    nonce: u64,
    attempt: u32,
    prepared: Prepared,
    found: Found,
    now_ms: u64,
) -> Verdict {
    let now = found.row.as_ref().and_then(|row| row.nonce);
    match now {
        None => return no_row(&tx_id),
        Some(now) if now != nonce => {
            return unavailable(format!(
                "the row of {tx_id} has nonce {now}, not {nonce}: read the board again"
            ));
        }
        Some(_) => {}
    }
    let account = found.row.as_ref().and_then(|row| row.account.as_deref());
    let account = account.unwrap_or_default();
    let mut lost = found.lost.iter();
    if let Some(answer) = lost.find_map(|lost| lost.forbids(&tx_id, account, nonce)) {
        return (answer, None);
    }
    match found.variant {
        Some(raw) if raw == prepared.raw => return (AuditAnswer::Done, None),
        Some(_) => {
            return conflict(format!(
                "{tx_id} has a variant of the same hash with other bytes"
            ));
        }
        None => {}
    }
    let (Some(mut row), false) = (found.row, found.archived) else {
        return no_row(&tx_id);
    };
    let Some(account) = row.account.clone() else {
        return no_row(&tx_id);
    };
    if row.state == SubmissionState::Pending {
        row.tx_hash = Some(prepared.tx_hash.clone());
    }
    let variant = VariantRow {
        tx_id,
        account,
        nonce,
        attempt,
        prepared,
        signed_at_ms: now_ms,
    };
    done(row, Some(variant))
}

fn done(row: SubmissionRow, variant: Option<VariantRow>) -> Verdict {
    (AuditAnswer::Done, Some(Write { row, variant }))
}

fn no_row(tx_id: &TxId) -> Verdict {
    conflict(format!("{tx_id} has no PENDING row: it comes first"))
}

fn conflict(why: String) -> Verdict {
    (AuditAnswer::Conflict(why), None)
}

fn unavailable(why: String) -> Verdict {
    (AuditAnswer::Unavailable(why), None)
}
