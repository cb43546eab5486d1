//! Answers an engine: the fences of a submission.

use quorate_consensus::wire::Reservation;
use quorate_consensus::{TxId, Value};
use quorate_engine::{AuditAnswer, AuditAsk, Prepared};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::columns::{Utc, Wide, split};
use super::{away, is_constraint, query};
use crate::rows::SubmissionState;
use crate::store::AuditError;

pub(super) fn answer(
    connection: &mut Connection,
    ask: &AuditAsk,
    now_ms: u64,
) -> Result<AuditAnswer, AuditError> {
    if let AuditAsk::Variants { tx_id } = ask {
        return Ok(AuditAnswer::Variants(
            variants(connection, tx_id).map_err(away)?,
        ));
    }
    let all = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(away)?;
    let answer = match ask {
        AuditAsk::Pending {
            tx_id,
            value,
            reservation,
        } => pending(&all, tx_id, value, reservation, now_ms)?,
        AuditAsk::Variant {
            tx_id,
            nonce,
            attempt,
            prepared,
        } => variant(&all, tx_id, *nonce, *attempt, prepared, now_ms)?,
        AuditAsk::Attempted { tx_id, attempts } => {
            let rows = all
                .execute(
                    "UPDATE blockchain_submissions SET attempts = max(attempts, ?2)
                     WHERE tx_id = ?1 AND account IS NOT NULL",
                    params![tx_id.as_str(), attempts],
                )
                .map_err(away)?;
            match rows {
                0 => no_row(tx_id),
                _ => AuditAnswer::Done,
            }
        }
        AuditAsk::Variants { tx_id } => AuditAnswer::Variants(variants(&all, tx_id).map_err(away)?),
    };
    // Whatever is not done is rolled back by the drop.
    if answer == AuditAnswer::Done {
        all.commit().map_err(away)?;
    }
    Ok(answer)
}

fn pending(
    all: &Transaction<'_>,
    tx_id: &TxId,
    value: &Value,
    reservation: &Reservation,
    now_ms: u64,
) -> Result<AuditAnswer, AuditError> {
    if let Some(row) = query::submission(all, tx_id)? {
        let same_nonce = row.nonce == Some(reservation.nonce);
        let same_account = row.account.as_ref() == Some(&reservation.account);
        let same_rest =
            row.payload.as_ref() == Some(&reservation.payload) && row.value.as_ref() == Some(value);
        let later = row.state == SubmissionState::Pending && row.nonce < Some(reservation.nonce);
        return Ok(match (same_account, same_nonce) {
            (true, true) if same_rest => AuditAnswer::Done,
            (true, true) => {
                AuditAnswer::Conflict(format!("{tx_id} has a row with another value or payload"))
            }
            // Only the log can say that the first nonce was taken by somebody else.
            (true, false) if later => AuditAnswer::Unavailable(format!(
                "the row of {tx_id} still has nonce {}: the reservation made anew is not projected yet",
                row.nonce.unwrap_or_default()
            )),
            _ => AuditAnswer::Conflict(format!(
                "{tx_id} has a row that is {}, with account {} and nonce {}",
                row.state.as_str(),
                row.account.as_deref().unwrap_or("none"),
                row.nonce.map_or("none".into(), |nonce| nonce.to_string()),
            )),
        });
    }
    if let Some(state) = query::final_state(all, tx_id)? {
        let state = state.as_str_name();
        return Ok(AuditAnswer::Conflict(format!("{tx_id} ended as {state}")));
    }
    let holder: Option<String> = all
        .query_row(
            "SELECT tx_id FROM blockchain_submissions WHERE account = ?1 AND nonce = ?2
             UNION ALL
             SELECT tx_id FROM blockchain_submissions_archive WHERE account = ?1 AND nonce = ?2",
            params![reservation.account, Wide(reservation.nonce)],
            |row| row.get(0),
        )
        .optional()
        .map_err(away)?;
    if let Some(holder) = holder {
        return Ok(AuditAnswer::Conflict(format!(
            "nonce {} of account {} is {holder}'s",
            reservation.nonce, reservation.account
        )));
    }
    let (number, data) = split(Some(value));
    let inserted = all.execute(
        "INSERT INTO blockchain_submissions (tx_id, value, data, state, account, nonce, payload,
             submitted_at)
         VALUES (?1, ?2, ?3, 'PENDING', ?4, ?5, ?6, ?7)",
        params![
            tx_id.as_str(),
            number,
            data,
            reservation.account,
            Wide(reservation.nonce),
            reservation.payload,
            Utc(now_ms),
        ],
    );
    done(inserted)
}

fn variant(
    all: &Transaction<'_>,
    tx_id: &TxId,
    nonce: u64,
    attempt: u32,
    prepared: &Prepared,
    now_ms: u64,
) -> Result<AuditAnswer, AuditError> {
    let row = query::submission(all, tx_id)?;
    let Some(now) = row.and_then(|row| row.nonce) else {
        return Ok(no_row(tx_id));
    };
    if now != nonce {
        return Ok(AuditAnswer::Unavailable(format!(
            "the row of {tx_id} has nonce {now}, not {nonce}: read the board again"
        )));
    }
    let stored: Option<Vec<u8>> = all
        .query_row(
            "SELECT raw FROM submission_variants WHERE tx_id = ?1 AND tx_hash = ?2",
            params![tx_id.as_str(), prepared.tx_hash],
            |row| row.get(0),
        )
        .optional()
        .map_err(away)?;
    match stored {
        Some(raw) if raw == prepared.raw => return Ok(AuditAnswer::Done),
        Some(_) => {
            return Ok(AuditAnswer::Conflict(format!(
                "{tx_id} has a variant of the same hash with other bytes"
            )));
        }
        None => {}
    }
    let inserted = all.execute(
        "INSERT INTO submission_variants (tx_id, account, nonce, attempt, tx_hash, raw, signed_at)
         SELECT tx_id, account, nonce, ?2, ?3, ?4, ?5
         FROM blockchain_submissions WHERE tx_id = ?1 AND account IS NOT NULL",
        params![
            tx_id.as_str(),
            attempt,
            prepared.tx_hash,
            prepared.raw,
            Utc(now_ms)
        ],
    );
    if matches!(inserted, Ok(0)) {
        return Ok(no_row(tx_id));
    }
    let shown = inserted.and_then(|_| {
        all.execute(
            "UPDATE blockchain_submissions SET tx_hash = ?2
             WHERE tx_id = ?1 AND state = 'PENDING'",
            params![tx_id.as_str(), prepared.tx_hash],
        )
    });
    done(shown)
}

/// The variants for the nonce that the row has now: those for a nonce that somebody
/// else took are kept and of no use.
fn variants(connection: &Connection, tx_id: &TxId) -> rusqlite::Result<Vec<(u32, Prepared)>> {
    let mut all = connection.prepare_cached(
        "SELECT attempt, tx_hash, raw FROM submission_variants AS variant
         WHERE tx_id = ?1 AND EXISTS (
             SELECT 1 FROM blockchain_submissions AS now WHERE now.tx_id = variant.tx_id
                 AND now.account = variant.account AND now.nonce = variant.nonce)
         ORDER BY id",
    )?;
    all.query_map([tx_id.as_str()], |row| {
        let prepared = Prepared {
            tx_hash: row.get(1)?,
            raw: row.get(2)?,
        };
        Ok((row.get(0)?, prepared))
    })?
    .collect()
}

fn no_row(tx_id: &TxId) -> AuditAnswer {
    AuditAnswer::Conflict(format!("{tx_id} has no PENDING row: it comes first"))
}

fn done(result: rusqlite::Result<usize>) -> Result<AuditAnswer, AuditError> {
    match result {
        Ok(_) => Ok(AuditAnswer::Done),
        Err(error) if is_constraint(&error) => Ok(AuditAnswer::Conflict(error.to_string())),
        Err(error) => Err(away(error)),
    }
}
