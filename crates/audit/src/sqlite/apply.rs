//! Carries the changes of the projection out.

use quorate_consensus::wire::{BoardEntry, Reservation};
use quorate_consensus::{NodeId, TxId, Value};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::columns::{Utc, Wide, split};
use super::{away, is_constraint, query};
use crate::change::{Change, changes, last_revision};
use crate::evidence::{accusation_word, violation_word};
use crate::lineage::Lineage;
use crate::rows::{ProofKind, SubmissionState};
use crate::store::AuditError;

/// How far a projection is, for tests that stop it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code))]
pub(super) enum Step {
    /// So many changes were carried out; nothing is durable.
    Changed(usize),
    /// The cursor was moved; nothing is durable.
    CursorMoved,
    /// Everything is durable.
    Committed,
}

/// Writes what the entries mean and the revision reached, in one transaction.
pub(super) fn project(
    connection: &mut Connection,
    lineage: &Lineage,
    from: u64,
    entries: &[BoardEntry],
    told: &dyn Fn(Step),
) -> Result<u64, AuditError> {
    let reached = last_revision(from, entries)?;
    let all = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(away)?;
    let found = query::cursor(&all)?;
    if found != from {
        return Err(AuditError::CursorMoved { found });
    }
    let mut count = 0;
    for entry in entries {
        for change in changes(entry, lineage)? {
            apply(&all, &change, entry.time_ms, entry.revision)?;
            count += 1;
            told(Step::Changed(count));
        }
    }
    all.execute("UPDATE audit_cursor SET revision = ?1", [Wide(reached)])
        .map_err(away)?;
    told(Step::CursorMoved);
    all.commit().map_err(away)?;
    told(Step::Committed);
    Ok(reached)
}

fn apply(all: &Transaction<'_>, change: &Change, at: u64, revision: u64) -> Result<(), AuditError> {
    match carry_out(all, change, at) {
        Ok(None) => Ok(()),
        Ok(Some(wrong)) => Err(AuditError::Contradiction(format!(
            "revision {revision}: {wrong}"
        ))),
        Err(error) if is_constraint(&error) => Err(AuditError::Contradiction(format!(
            "revision {revision}: {error}"
        ))),
        Err(error) => Err(away(error)),
    }
}

/// What contradicts the rows that are there, if anything.
type Wrong = Option<String>;

fn carry_out(all: &Transaction<'_>, change: &Change, at: u64) -> rusqlite::Result<Wrong> {
    match change {
        Change::Vote {
            tx_id,
            node_id,
            key,
            choice,
            late,
            vote,
        } => {
            let peer_id = key.as_ref().map(|key| key.peer_id.0);
            let (value, data) = split(choice.value());
            // A ballot that expired may open again; its trustees then sign the same
            // choice with another time.
            let new = all.execute(
                "INSERT INTO vote_history (tx_id, node_id, peer_id, public_key, value, data,
                     abstained, late, statement, signature, received_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
                 ON CONFLICT (tx_id, node_id) DO UPDATE SET
                     peer_id = excluded.peer_id, public_key = excluded.public_key,
                     value = excluded.value, data = excluded.data,
                     abstained = excluded.abstained, late = excluded.late, expired = 0,
                     statement = excluded.statement, signature = excluded.signature,
                     received_at = excluded.received_at
                 WHERE expired = 1",
                params![
                    tx_id.as_str(),
                    node_id.as_str(),
                    peer_id,
                    key.as_ref().map(|key| &key.public_key),
                    value,
                    data,
                    choice.value().is_none(),
                    late,
                    vote.statement,
                    vote.signature,
                    Utc(at),
                ],
            )?;
            all.execute(
                "UPDATE node_reputation SET total_votes = total_votes + ?2, last_seen = ?3
                 WHERE peer_id = ?1",
                params![peer_id, new > 0, Utc(at)],
            )?;
        }
        Change::Expired { tx_id } => {
            all.execute(
                "UPDATE vote_history SET expired = 1 WHERE tx_id = ?1",
                [tx_id.as_str()],
            )?;
        }
        Change::Threshold { tx_id, value } => came_out(all, tx_id, Some(value))?,
        Change::BelowThreshold { tx_id } => {
            all.execute("DELETE FROM decisions WHERE tx_id = ?1", [tx_id.as_str()])?;
        }
        Change::Reserved {
            tx_id,
            value,
            reservation,
        } => return reserved(all, tx_id, value, reservation, at),
        Change::Certified { tx_id, proof } => {
            all.execute(
                "UPDATE decisions SET certificate = ?2 WHERE tx_id = ?1",
                params![tx_id.as_str(), proof],
            )?;
        }
        Change::Seen {
            tx_id,
            tx_hash,
            block_number,
        } => {
            all.execute(
                "UPDATE blockchain_submissions SET tx_hash = ?2, block_number = ?3
                 WHERE tx_id = ?1",
                params![tx_id.as_str(), tx_hash, Wide(*block_number)],
            )?;
        }
        Change::Ended { tx_id, state } => return ended(all, tx_id, *state, at),
        Change::Undone { tx_id } => undone(all, tx_id)?,
        Change::Aborted {
            tx_id,
            state,
            value,
        } => {
            let (number, data) = split(value.as_ref());
            all.execute(
                "INSERT INTO blockchain_submissions (tx_id, value, data, state, submitted_at)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![tx_id.as_str(), number, data, state.as_str(), Utc(at)],
            )?;
            came_out(all, tx_id, value.as_ref())?;
            keep_key(all, tx_id, *state, at)?;
        }
        Change::Violation {
            peer_id,
            node_id,
            tx_id,
            kind,
            proof_kind,
            evidence,
        } => {
            let tx_id = tx_id.as_ref().map(TxId::as_str);
            let word = violation_word(*kind);
            // A ban names the violation that was found before it.
            let known: bool = all.query_row(
                "SELECT EXISTS (SELECT 1 FROM byzantine_violations WHERE proof_kind = 'proven'
                     AND node_id = ?1 AND tx_id = ?2 AND violation_type = ?3)",
                params![node_id.as_str(), tx_id, word],
                |row| row.get(0),
            )?;
            if known && *proof_kind == ProofKind::Proven {
                return Ok(None);
            }
            all.execute(
                "INSERT INTO byzantine_violations (peer_id, node_id, tx_id, violation_type,
                     proof_kind, evidence_json, detected_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    peer_id.map(|peer_id| peer_id.0),
                    node_id.as_str(),
                    tx_id,
                    word,
                    proof_kind.as_str(),
                    evidence.to_string(),
                    Utc(at),
                ],
            )?;
            all.execute(
                "UPDATE node_reputation SET violations_count = violations_count + 1
                 WHERE node_id = ?1",
                [node_id.as_str()],
            )?;
        }
        Change::Banned {
            peer_id,
            node_id,
            kind,
            proof_kind,
            proof,
        } => {
            all.execute(
                "INSERT INTO bans (peer_id, node_id, violation_type, proof_kind, proof, banned_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    peer_id.map(|peer_id| peer_id.0),
                    node_id.as_str(),
                    violation_word(*kind),
                    proof_kind.as_str(),
                    proof,
                    Utc(at),
                ],
            )?;
            set_banned(all, node_id, true)?;
        }
        Change::Unbanned { node_id } => {
            all.execute(
                "UPDATE bans SET lifted_at = ?2 WHERE node_id = ?1 AND lifted_at IS NULL",
                params![node_id.as_str(), Utc(at)],
            )?;
            set_banned(all, node_id, false)?;
        }
        Change::Accused {
            accused,
            by,
            kind,
            tx_id,
            accusation,
        } => {
            all.execute(
                "INSERT INTO accusations (accused, \"by\", kind, tx_id, statement, signature, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    accused.as_str(),
                    by.as_str(),
                    accusation_word(*kind),
                    tx_id.as_ref().map(TxId::as_str),
                    accusation.statement,
                    accusation.signature,
                    Utc(at),
                ],
            )?;
        }
        Change::Reputation {
            node_id,
            thousandths,
        } => {
            all.execute(
                "UPDATE node_reputation SET reputation_score = ?2 WHERE node_id = ?1",
                params![node_id.as_str(), f64::from(*thousandths) / 1000.0],
            )?;
        }
        Change::Heard { node_id } => {
            all.execute(
                "UPDATE node_reputation SET last_seen = ?2 WHERE node_id = ?1",
                params![node_id.as_str(), Utc(at)],
            )?;
        }
    }
    Ok(None)
}

fn set_banned(all: &Transaction<'_>, node_id: &NodeId, banned: bool) -> rusqlite::Result<()> {
    all.execute(
        "UPDATE node_reputation SET banned = ?2 WHERE node_id = ?1",
        params![node_id.as_str(), banned],
    )?;
    Ok(())
}

/// Writes how the votes came out: for the value with t votes, whose they are (without
/// those struck for a double vote); without one, whoever voted.
fn came_out(all: &Transaction<'_>, tx_id: &TxId, value: Option<&Value>) -> rusqlite::Result<()> {
    let (number, data) = split(value);
    all.execute(
        "INSERT INTO decisions (tx_id, value, data, participating_nodes, total_votes,
             threshold_reached)
         SELECT ?1, ?2, ?3,
             json_group_array(node_id ORDER BY node_id) FILTER (WHERE NOT ?4
                 OR (value IS ?2 AND data IS ?3 AND node_id NOT IN
                     (SELECT node_id FROM byzantine_violations
                      WHERE tx_id = ?1 AND violation_type = 'DOUBLE_VOTING'))),
             count(*), ?4
         FROM vote_history WHERE tx_id = ?1 AND late = 0 AND expired = 0
         ON CONFLICT (tx_id) DO UPDATE SET
             value = excluded.value, data = excluded.data,
             participating_nodes = excluded.participating_nodes,
             total_votes = excluded.total_votes,
             threshold_reached = excluded.threshold_reached",
        params![tx_id.as_str(), number, data, value.is_some()],
    )?;
    Ok(())
}

/// The row may be there already: an engine writes it before it sends.
fn reserved(
    all: &Transaction<'_>,
    tx_id: &TxId,
    value: &Value,
    reservation: &Reservation,
    at: u64,
) -> rusqlite::Result<Wrong> {
    let (number, data) = split(Some(value));
    let found: Option<(SubmissionState, bool)> = all
        .query_row(
            "SELECT state, account IS ?2 AND nonce IS ?3 AND
                 (payload IS NOT ?4 OR value IS NOT ?5 OR data IS NOT ?6)
             FROM blockchain_submissions WHERE tx_id = ?1",
            params![
                tx_id.as_str(),
                reservation.account,
                Wide(reservation.nonce),
                reservation.payload,
                number,
                data,
            ],
            |row| {
                let super::columns::Named(state) = row.get(0)?;
                Ok((state, row.get(1)?))
            },
        )
        .optional()?;
    match found {
        None | Some((SubmissionState::Pending, false)) => {}
        Some((SubmissionState::Pending, true)) => {
            return Ok(Some(format!(
                "the row of {tx_id} has the reserved account and nonce, and another value or payload"
            )));
        }
        Some((state, _)) => {
            let state = state.as_str();
            return Ok(Some(format!("{tx_id} is reserved, and its row is {state}")));
        }
    }
    all.execute(
        "INSERT INTO blockchain_submissions (tx_id, value, data, state, account, nonce, payload,
             submitted_at)
         VALUES (?1, ?2, ?3, 'PENDING', ?4, ?5, ?6, ?7)
         ON CONFLICT (tx_id) DO UPDATE SET
             value = excluded.value, data = excluded.data, payload = excluded.payload,
             tx_hash = CASE WHEN account = excluded.account AND nonce = excluded.nonce
                 THEN tx_hash END,
             account = excluded.account, nonce = excluded.nonce,
             submitted_at = excluded.submitted_at",
        params![
            tx_id.as_str(),
            number,
            data,
            reservation.account,
            Wide(reservation.nonce),
            reservation.payload,
            Utc(at),
        ],
    )?;
    // Votes may have come in since the threshold was reached.
    came_out(all, tx_id, Some(value))?;
    Ok(None)
}

fn ended(
    all: &Transaction<'_>,
    tx_id: &TxId,
    state: SubmissionState,
    at: u64,
) -> rusqlite::Result<Wrong> {
    let confirmed_at = (state == SubmissionState::Confirmed).then_some(Utc(at));
    let rows = all.execute(
        "UPDATE blockchain_submissions SET state = ?2, confirmed_at = ?3
         WHERE tx_id = ?1 AND state = 'PENDING'",
        params![tx_id.as_str(), state.as_str(), confirmed_at],
    )?;
    // A change of rules needs no chain and has no submission.
    if rows == 0 && !tx_id.is_rules() {
        return Ok(Some(format!(
            "{tx_id} ended as {}, and has no row that is PENDING",
            state.as_str()
        )));
    }
    keep_key(all, tx_id, state, at)?;
    Ok(None)
}

fn undone(all: &Transaction<'_>, tx_id: &TxId) -> rusqlite::Result<()> {
    let tx = [tx_id.as_str()];
    all.execute(
        "INSERT INTO blockchain_submissions
         SELECT * FROM blockchain_submissions_archive WHERE tx_id = ?1",
        tx,
    )?;
    all.execute(
        "DELETE FROM blockchain_submissions_archive WHERE tx_id = ?1",
        tx,
    )?;
    all.execute(
        "UPDATE blockchain_submissions
         SET state = 'PENDING', confirmed_at = NULL, block_number = NULL WHERE tx_id = ?1",
        tx,
    )?;
    all.execute("DELETE FROM submission_keys WHERE tx_id = ?1", tx)?;
    Ok(())
}

fn keep_key(
    all: &Transaction<'_>,
    tx_id: &TxId,
    state: SubmissionState,
    at: u64,
) -> rusqlite::Result<()> {
    all.execute(
        "INSERT INTO submission_keys (tx_id, final_state, at) VALUES (?1, ?2, ?3)
         ON CONFLICT (tx_id) DO UPDATE SET final_state = excluded.final_state, at = excluded.at",
        params![tx_id.as_str(), state.as_str(), Utc(at)],
    )?;
    Ok(())
}
