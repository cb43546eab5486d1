//! Reads rows.

use std::collections::BTreeSet;

use prost::Message;
use quorate_consensus::wire::{BallotState, BanProof, SignedStatement};
use quorate_consensus::{NodeId, PeerId, TxId};
use quorate_engine::{AuditAsk, Prepared};
use rusqlite::types::FromSql;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::columns::{Named, Peer, Utc, Wide, choice, joined};
use super::{away, lost};
use crate::fence::{self, Found};
use crate::mark::Mark;
use crate::page::{KeyRow, Page};
use crate::parting::{ACCUSATIONS, BANS, VIOLATIONS, is_lost};
use crate::rows::{
    AccusationRow, BanRow, DecisionRow, Filter, ReputationRow, SubmissionCounts, SubmissionRow,
    SubmissionState, ViolationRow, VoteRow,
};
use crate::seal::Head;
use crate::store::AuditError;

/// The rows that a batch about these transactions can touch.
pub(super) fn page(connection: &Connection, tx_ids: &BTreeSet<TxId>) -> Result<Page, AuditError> {
    let mut page = Page::new(head(connection)?);
    for row in reputations(connection)? {
        page.members.load(row.peer_id, row);
    }
    let all = |table: &str| format!("SELECT * FROM {table} WHERE tx_id = ?1");
    let known = format!(
        "SELECT * FROM byzantine_violations WHERE tx_id = ?1 AND NOT {}",
        is_lost(VIOLATIONS)
    );
    for tx_id in tx_ids {
        let tx = [tx_id.as_str()];
        for vote in many(connection, &all("vote_history"), tx, vote_row)? {
            page.load_vote(vote);
        }
        for row in many(connection, &known, tx, violation_row)? {
            page.load_violation(
                tx_id.clone(),
                row.node_id,
                row.violation_type,
                row.proof_kind,
            );
        }
        if let Some(row) = decision(connection, tx_id)? {
            page.decisions.load(tx_id.clone(), row);
        }
        if let Some(row) = one(connection, LIVE, tx_id, submission_row)? {
            page.submissions.load(tx_id.clone(), row);
        }
        if let Some(row) = one(connection, ARCHIVED, tx_id, submission_row)? {
            page.archive.load(tx_id.clone(), row);
        }
    }
    Ok(page)
}

/// The rows that tell the answer to an engine.
pub(super) fn found(connection: &Connection, ask: &AuditAsk) -> Result<Found, AuditError> {
    let tx_id = fence::tx_of(ask);
    let row = one(connection, LIVE, tx_id, submission_row)?;
    let archived = match &row {
        None => one(connection, ARCHIVED, tx_id, submission_row)?,
        Some(_) => None,
    };
    let mut found = Found {
        archived: archived.is_some(),
        row: row.or(archived),
        final_state: one(connection, KEY, tx_id, |row| named(row, "final_state"))?,
        lost: lost::submissions(connection, tx_id)?,
        ..Found::default()
    };
    match ask {
        AuditAsk::Pending { reservation, .. } => {
            let sql = "SELECT tx_id FROM blockchain_submissions
                       WHERE account = ?1 AND nonce = ?2
                       UNION ALL SELECT tx_id FROM blockchain_submissions_archive
                       WHERE account = ?1 AND nonce = ?2";
            let place = params![reservation.account, Wide(reservation.nonce)];
            let read = |row: &Row<'_>| named(row, "tx_id");
            found.holder = many(connection, sql, place, read)?.pop();
        }
        AuditAsk::Variant { prepared, .. } => {
            let sql = "SELECT raw FROM submission_variants WHERE tx_id = ?1 AND tx_hash = ?2";
            let which = params![tx_id.as_str(), prepared.tx_hash];
            found.variant = many(connection, sql, which, |row| row.get("raw"))?.pop();
        }
        AuditAsk::Variants { .. } | AuditAsk::Attempted { .. } => {}
    }
    Ok(found)
}

/// The variants for the nonce that the row has now: those for a nonce that somebody
/// else took are kept and of no use.
pub(super) fn variants(
    connection: &Connection,
    tx_id: &TxId,
) -> Result<Vec<(u32, Prepared)>, AuditError> {
    let sql = "SELECT attempt, tx_hash, raw FROM submission_variants AS variant
               WHERE tx_id = ?1 AND EXISTS (
                   SELECT 1 FROM blockchain_submissions AS now WHERE now.tx_id = variant.tx_id
                       AND now.account = variant.account AND now.nonce = variant.nonce)
               ORDER BY id";
    many(connection, sql, [tx_id.as_str()], |row| {
        let prepared = Prepared {
            tx_hash: row.get("tx_hash")?,
            raw: row.get("raw")?,
        };
        Ok((row.get("attempt")?, prepared))
    })
}

/// The last violation, as the projection that wrote it says.
pub(super) fn head(connection: &Connection) -> Result<Head, AuditError> {
    let sql = "SELECT violations, violations_hash FROM audit_cursor";
    connection
        .query_row(sql, [], |row| {
            Ok(Head {
                id: row.get::<_, i64>(0)?.cast_unsigned(),
                hash: row.get(1)?,
            })
        })
        .map_err(away)
}

/// Where the projection stands.
pub(super) fn mark(connection: &Connection) -> Result<Mark, AuditError> {
    let sql = "SELECT past, revision, digest FROM audit_cursor";
    connection
        .query_row(sql, [], |row| {
            let Wide(revision) = row.get(1)?;
            Ok(Mark {
                past: row.get::<_, i64>(0)?.cast_unsigned(),
                revision,
                digest: row.get(2)?,
            })
        })
        .map_err(away)
}

/// The digests over the log up to each revision after `after`.
pub(super) fn digests(
    connection: &Connection,
    after: u64,
    limit: u32,
) -> Result<Vec<(u64, [u8; 32])>, AuditError> {
    let sql = "SELECT revision, digest FROM projected_entries WHERE revision > ?1
               ORDER BY revision LIMIT ?2";
    many(connection, sql, params![Wide(after), limit], |row| {
        let Wide(revision) = row.get(0)?;
        Ok((revision, row.get(1)?))
    })
}

pub(super) const KEY: &str = "SELECT * FROM submission_keys WHERE tx_id = ?1";
const LIVE: &str = "SELECT * FROM blockchain_submissions WHERE tx_id = ?1";
const ARCHIVED: &str = "SELECT * FROM blockchain_submissions_archive WHERE tx_id = ?1";

pub(super) fn submission(
    connection: &Connection,
    tx_id: &TxId,
) -> Result<Option<SubmissionRow>, AuditError> {
    match one(connection, LIVE, tx_id, submission_row)? {
        Some(row) => Ok(Some(row)),
        None => one(connection, ARCHIVED, tx_id, submission_row),
    }
}

pub(super) fn submissions(
    connection: &Connection,
    state: Option<SubmissionState>,
    limit: u32,
) -> Result<Vec<SubmissionRow>, AuditError> {
    many(
        connection,
        "SELECT * FROM blockchain_submissions WHERE ?1 IS NULL OR state = ?1
         ORDER BY submitted_at DESC, tx_id DESC LIMIT ?2",
        params![state.map(SubmissionState::as_str), limit],
        submission_row,
    )
}

/// How many rows are pending, and how many archived.
pub(super) fn submission_counts(connection: &Connection) -> Result<SubmissionCounts, AuditError> {
    let sql = "SELECT (SELECT count(*) FROM blockchain_submissions WHERE state = ?1),
                      (SELECT count(*) FROM blockchain_submissions_archive)";
    let pending = SubmissionState::Pending.as_str();
    let read = |row: &Row<'_>| {
        let count = |at| Ok::<_, rusqlite::Error>(row.get::<_, i64>(at)?.cast_unsigned());
        Ok(SubmissionCounts {
            pending: count(0)?,
            archived: count(1)?,
        })
    };
    connection.query_row(sql, [pending], read).map_err(away)
}

fn submission_row(row: &Row<'_>) -> rusqlite::Result<SubmissionRow> {
    Ok(SubmissionRow {
        tx_id: named(row, "tx_id")?,
        state: named(row, "state")?,
        value: joined(row)?,
        account: row.get("account")?,
        nonce: wide(row, "nonce")?,
        payload: row.get("payload")?,
        tx_hash: row.get("tx_hash")?,
        block_number: wide(row, "block_number")?,
        attempts: row.get("attempts")?,
        submitted_at_ms: utc(row, "submitted_at")?,
        confirmed_at_ms: row.get::<_, Option<Utc>>("confirmed_at")?.map(|t| t.0),
    })
}

/// Rows by [`Filter`], whose columns are ?1 (tx_id), ?2 (node) and ?3 (limit, -1 for
/// none): the latest, oldest first.
fn filtered<T>(
    connection: &Connection,
    sql: &str,
    filter: &Filter,
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, AuditError> {
    let mut rows = many(
        connection,
        sql,
        params![
            filter.tx_id.as_ref().map(|tx_id| tx_id.as_str()),
            filter.node_id.as_ref().map(|node_id| node_id.as_str()),
            filter.limit.map_or(-1, i64::from),
        ],
        read,
    )?;
    rows.reverse();
    Ok(rows)
}

pub(super) fn violations(
    connection: &Connection,
    filter: &Filter,
) -> Result<Vec<ViolationRow>, AuditError> {
    let sql = "SELECT * FROM byzantine_violations
               WHERE (?1 IS NULL OR tx_id = ?1) AND (?2 IS NULL OR node_id = ?2)
               ORDER BY id DESC LIMIT ?3";
    filtered(connection, sql, filter, violation_row)
}

pub(super) fn violation_row(row: &Row<'_>) -> rusqlite::Result<ViolationRow> {
    let evidence: String = row.get("evidence_json")?;
    Ok(ViolationRow {
        id: row.get::<_, i64>("id")?.cast_unsigned(),
        peer_id: peer(row)?,
        node_id: named(row, "node_id")?,
        tx_id: maybe_named(row, "tx_id")?,
        violation_type: named(row, "violation_type")?,
        proof_kind: named(row, "proof_kind")?,
        evidence: json(&evidence)?,
        detected_at_ms: utc(row, "detected_at")?,
        hash: row.get::<_, Option<_>>("hash")?.unwrap_or_default(),
    })
}

pub(super) fn votes(connection: &Connection, filter: &Filter) -> Result<Vec<VoteRow>, AuditError> {
    let sql = "SELECT * FROM vote_history
               WHERE (?1 IS NULL OR tx_id = ?1) AND (?2 IS NULL OR node_id = ?2)
               ORDER BY received_at DESC, tx_id DESC, node_id DESC LIMIT ?3";
    filtered(connection, sql, filter, vote_row)
}

fn vote_row(row: &Row<'_>) -> rusqlite::Result<VoteRow> {
    Ok(VoteRow {
        tx_id: named(row, "tx_id")?,
        node_id: named(row, "node_id")?,
        peer_id: peer(row)?,
        public_key: row.get("public_key")?,
        choice: choice(row)?,
        late: row.get("late")?,
        expired: row.get("expired")?,
        vote: signed(row)?,
        received_at_ms: utc(row, "received_at")?,
    })
}

pub(super) fn accusations(
    connection: &Connection,
    filter: &Filter,
) -> Result<Vec<AccusationRow>, AuditError> {
    let sql = format!(
        "SELECT * FROM accusations
         WHERE (?1 IS NULL OR tx_id = ?1) AND (?2 IS NULL OR accused = ?2)
             AND NOT {}
         ORDER BY id DESC LIMIT ?3",
        is_lost(ACCUSATIONS)
    );
    filtered(connection, &sql, filter, accusation_row)
}

pub(super) fn accusation_row(row: &Row<'_>) -> rusqlite::Result<AccusationRow> {
    Ok(AccusationRow {
        accused: named(row, "accused")?,
        by: named(row, "by")?,
        kind: named(row, "kind")?,
        tx_id: maybe_named(row, "tx_id")?,
        accusation: signed(row)?,
        at_ms: utc(row, "at")?,
    })
}

pub(super) fn bans(
    connection: &Connection,
    node_id: Option<&NodeId>,
) -> Result<Vec<BanRow>, AuditError> {
    let sql = format!(
        "SELECT * FROM bans WHERE (?1 IS NULL OR node_id = ?1) AND NOT {} ORDER BY id",
        is_lost(BANS)
    );
    let node_id = node_id.map(NodeId::as_str);
    many(connection, &sql, [node_id], ban_row)
}

pub(super) fn ban_row(row: &Row<'_>) -> rusqlite::Result<BanRow> {
    let proof: Vec<u8> = row.get("proof")?;
    Ok(BanRow {
        peer_id: peer(row)?,
        node_id: named(row, "node_id")?,
        violation_type: named(row, "violation_type")?,
        proof_kind: named(row, "proof_kind")?,
        proof: BanProof::decode(&*proof).map_err(conversion)?,
        banned_at_ms: utc(row, "banned_at")?,
        lifted_at_ms: row.get::<_, Option<Utc>>("lifted_at")?.map(|t| t.0),
    })
}

pub(super) fn decision(
    connection: &Connection,
    tx_id: &TxId,
) -> Result<Option<DecisionRow>, AuditError> {
    let sql = "SELECT * FROM decisions WHERE tx_id = ?1";
    one(connection, sql, tx_id, |row| {
        let nodes: String = row.get("participating_nodes")?;
        let nodes: Vec<String> = json(&nodes)?;
        let nodes = nodes
            .iter()
            .map(|node| node.parse().map_err(conversion))
            .collect::<rusqlite::Result<_>>()?;
        Ok(DecisionRow {
            tx_id: named(row, "tx_id")?,
            value: joined(row)?,
            participating_nodes: nodes,
            total_votes: row.get("total_votes")?,
            threshold_reached: row.get("threshold_reached")?,
            certificate: row.get("certificate")?,
        })
    })
}

pub(super) fn reputations(connection: &Connection) -> Result<Vec<ReputationRow>, AuditError> {
    let sql = "SELECT * FROM node_reputation ORDER BY node_id, peer_id";
    many(connection, sql, [], |row| {
        let Peer(peer_id) = row.get("peer_id")?;
        let score: f64 = row.get("reputation_score")?;
        Ok(ReputationRow {
            peer_id,
            node_id: named(row, "node_id")?,
            // Between 0 and 1, says the table's check.
            thousandths: (score * 1000.0).round() as u32,
            total_votes: row.get::<_, i64>("total_votes")?.cast_unsigned(),
            violations_count: row.get::<_, i64>("violations_count")?.cast_unsigned(),
            banned: row.get("banned")?,
            last_seen_ms: row.get::<_, Option<Utc>>("last_seen")?.map(|t| t.0),
        })
    })
}

pub(super) fn final_state(
    connection: &Connection,
    tx_id: &TxId,
) -> Result<Option<BallotState>, AuditError> {
    one(connection, KEY, tx_id, |row| Ok(key_row(row)?.1))
}

pub(super) fn final_states(
    connection: &Connection,
    after: Option<&TxId>,
    limit: u32,
) -> Result<Vec<(TxId, BallotState)>, AuditError> {
    many(
        connection,
        "SELECT * FROM submission_keys WHERE ?1 IS NULL OR tx_id > ?1 ORDER BY tx_id LIMIT ?2",
        params![after.map(TxId::as_str), limit],
        key_row,
    )
}

fn key_row(row: &Row<'_>) -> rusqlite::Result<(TxId, BallotState)> {
    let state: SubmissionState = named(row, "final_state")?;
    Ok((named(row, "tx_id")?, state.ballot_state()))
}

pub(super) fn whole_key_row(row: &Row<'_>) -> rusqlite::Result<KeyRow> {
    Ok(KeyRow {
        tx_id: named(row, "tx_id")?,
        final_state: named(row, "final_state")?,
        at_ms: utc(row, "at")?,
    })
}

pub(super) fn one<T>(
    connection: &Connection,
    sql: &str,
    tx_id: &TxId,
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>, AuditError> {
    let mut statement = connection.prepare_cached(sql).map_err(away)?;
    let row = statement.query_row([tx_id.as_str()], read);
    row.optional().map_err(away)
}

pub(super) fn many<T>(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, AuditError> {
    let mut statement = connection.prepare_cached(sql).map_err(away)?;
    let rows = statement.query_map(params, read).map_err(away)?;
    rows.collect::<rusqlite::Result<_>>().map_err(away)
}

pub(super) fn named<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<T>
where
    Named<T>: FromSql,
{
    row.get(column).map(|Named(name)| name)
}

pub(super) fn maybe_named<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>>
where
    Named<T>: FromSql,
{
    let name: Option<Named<T>> = row.get(column)?;
    Ok(name.map(|Named(name)| name))
}

fn peer(row: &Row<'_>) -> rusqlite::Result<Option<PeerId>> {
    Ok(row.get::<_, Option<Peer>>("peer_id")?.map(|peer| peer.0))
}

pub(super) fn wide(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<u64>> {
    Ok(row.get::<_, Option<Wide>>(column)?.map(|wide| wide.0))
}

fn utc(row: &Row<'_>, column: &str) -> rusqlite::Result<u64> {
    row.get(column).map(|Utc(ms)| ms)
}

fn signed(row: &Row<'_>) -> rusqlite::Result<SignedStatement> {
    Ok(SignedStatement {
        statement: row.get("statement")?,
        signature: row.get("signature")?,
    })
}

pub(super) fn json<T: serde::de::DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(conversion)
}

fn conversion(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    let kind = rusqlite::types::Type::Text;
    rusqlite::Error::FromSqlConversionFailure(0, kind, Box::new(error))
}
