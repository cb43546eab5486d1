//! Reads rows.

use deadpool_postgres::GenericClient;
use prost::Message;
use quorate_consensus::wire::{BallotState, BanProof, SignedStatement};
use quorate_consensus::words::{accusation_of, violation_of};
use quorate_consensus::{Choice, NodeId, PeerId, TxId};
use quorate_engine::{AuditAsk, Prepared};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql};

use super::columns::{Utc, Wide, joined};
use super::{away, lost};
use crate::fence::{self, Found};
use crate::mark::Mark;
use crate::page::{KeyRow, Page};
use crate::parting::{ACCUSATIONS, BANS, VIOLATIONS, is_lost};
use crate::rows::{
    AccusationRow, BanRow, DecisionRow, Filter, ProofKind, ReputationRow, SubmissionCounts,
    SubmissionRow, SubmissionState, ViolationRow, VoteRow,
};
use crate::seal::Head;
use crate::store::AuditError;

type Read<T> = fn(&Row) -> Result<T, AuditError>;

/// The rows that a batch about these transactions can touch.
pub(super) async fn page(
    client: &impl GenericClient,
    head: Head,
    tx_ids: &[&str],
) -> Result<Page, AuditError> {
    let mut page = Page::new(head);
    for row in reputations(client).await? {
        page.members.load(row.peer_id, row);
    }
    let of = |table: &str| format!("SELECT * FROM {table} WHERE tx_id = ANY($1)");
    let votes = of("vote_history");
    let violations = format!(
        "SELECT * FROM byzantine_violations WHERE tx_id = ANY($1) AND NOT {}",
        is_lost(VIOLATIONS)
    );
    let (decisions, live) = (of("decisions"), of("blockchain_submissions"));
    let archive = of("blockchain_submissions_archive");
    let params: &[&(dyn ToSql + Sync)] = &[&tx_ids];
    // All five are on their way at once.
    let (votes, violations, decisions, live, archive) = tokio::try_join!(
        many(client, &votes, params, vote_row),
        many(client, &violations, params, violation_row),
        many(client, &decisions, params, decision_row),
        many(client, &live, params, submission_row),
        many(client, &archive, params, submission_row),
    )?;
    votes.into_iter().for_each(|row| page.load_vote(row));
    for row in violations {
        if let Some(tx_id) = row.tx_id {
            page.load_violation(tx_id, row.node_id, row.violation_type, row.proof_kind);
        }
    }
    for row in decisions {
        page.decisions.load(row.tx_id.clone(), row);
    }
    for row in live {
        page.submissions.load(row.tx_id.clone(), row);
    }
    for row in archive {
        page.archive.load(row.tx_id.clone(), row);
    }
    Ok(page)
}

/// The rows that tell the answer to an engine.
pub(super) async fn found(
    client: &impl GenericClient,
    ask: &AuditAsk,
) -> Result<Found, AuditError> {
    let tx_id = fence::tx_of(ask);
    let (row, archived, key, lost) = tokio::try_join!(
        one(client, LIVE, tx_id, submission_row),
        one(client, ARCHIVED, tx_id, submission_row),
        one(client, KEY, tx_id, key_row),
        lost::submissions(client, tx_id),
    )?;
    let mut found = Found {
        archived: row.is_none() && archived.is_some(),
        row: row.or(archived),
        final_state: key.map(|key| key.final_state),
        lost,
        ..Found::default()
    };
    match ask {
        AuditAsk::Pending { reservation, .. } => {
            let sql = "SELECT tx_id FROM blockchain_submissions
                       WHERE account = $1 AND nonce = $2
                       UNION ALL SELECT tx_id FROM blockchain_submissions_archive
                       WHERE account = $1 AND nonce = $2";
            let place: &[&(dyn ToSql + Sync)] = &[&reservation.account, &Wide(reservation.nonce)];
            let read = |row: &Row| named(row, "tx_id", |text| TxId::new(text).ok());
            found.holder = many(client, sql, place, read).await?.pop();
        }
        AuditAsk::Variant { prepared, .. } => {
            let sql = "SELECT raw FROM submission_variants WHERE tx_id = $1 AND tx_hash = $2";
            let which: &[&(dyn ToSql + Sync)] = &[&tx_id.as_str(), &prepared.tx_hash];
            found.variant = many(client, sql, which, |row| get(row, "raw")).await?.pop();
        }
        AuditAsk::Variants { .. } | AuditAsk::Attempted { .. } => {}
    }
    Ok(found)
}

/// The variants for the nonce that the row has now: those for a nonce that somebody
/// else took are kept and of no use.
pub(super) async fn variants(
    client: &impl GenericClient,
    tx_id: &TxId,
) -> Result<Vec<(u32, Prepared)>, AuditError> {
    let sql = "SELECT attempt, tx_hash, raw FROM submission_variants AS variant
               WHERE tx_id = $1 AND EXISTS (
                   SELECT 1 FROM blockchain_submissions AS now WHERE now.tx_id = variant.tx_id
                       AND now.account = variant.account AND now.nonce = variant.nonce)
               ORDER BY id";
    many(client, sql, &[&tx_id.as_str()], |row| {
        let prepared = Prepared {
            tx_hash: get(row, "tx_hash")?,
            raw: get(row, "raw")?,
        };
        Ok((small(row, "attempt")?, prepared))
    })
    .await
}

/// Where the projection stands, and the last violation; `lock` keeps other projections away
/// until the transaction ends.
pub(super) async fn cursor(
    client: &impl GenericClient,
    lock: bool,
) -> Result<(Mark, Head), AuditError> {
    let sql = match lock {
        false => "SELECT * FROM audit_cursor",
        true => "SELECT * FROM audit_cursor FOR UPDATE",
    };
    let rows = many(client, sql, &[], |row| {
        let Wide(revision) = get(row, "revision")?;
        let mark = Mark {
            past: count(row, "past")?,
            revision,
            digest: match get::<Option<&[u8]>>(row, "digest")? {
                None => None,
                Some(_) => Some(fixed(row, "digest")?),
            },
        };
        let head = Head {
            id: count(row, "violations")?,
            hash: fixed(row, "violations_hash")?,
        };
        Ok((mark, head))
    });
    let only = rows.await?.pop();
    only.ok_or_else(|| AuditError::Corrupt("audit_cursor is empty".to_owned()))
}

/// The digests over the log up to each revision after `after`.
pub(super) async fn digests(
    client: &impl GenericClient,
    after: u64,
    limit: u32,
) -> Result<Vec<(u64, [u8; 32])>, AuditError> {
    let sql = "SELECT revision, digest FROM projected_entries WHERE revision > $1
               ORDER BY revision LIMIT $2";
    many(client, sql, &[&Wide(after), &i64::from(limit)], |row| {
        let Wide(revision) = get(row, "revision")?;
        Ok((revision, fixed(row, "digest")?))
    })
    .await
}

const LIVE: &str = "SELECT * FROM blockchain_submissions WHERE tx_id = $1";
const ARCHIVED: &str = "SELECT * FROM blockchain_submissions_archive WHERE tx_id = $1";
const KEY: &str = "SELECT * FROM submission_keys WHERE tx_id = $1";

pub(super) async fn submission(
    client: &impl GenericClient,
    tx_id: &TxId,
) -> Result<Option<SubmissionRow>, AuditError> {
    match one(client, LIVE, tx_id, submission_row).await? {
        Some(row) => Ok(Some(row)),
        None => one(client, ARCHIVED, tx_id, submission_row).await,
    }
}

pub(super) async fn submissions(
    client: &impl GenericClient,
    state: Option<SubmissionState>,
    limit: u32,
) -> Result<Vec<SubmissionRow>, AuditError> {
    let sql = "SELECT * FROM blockchain_submissions WHERE $1::text IS NULL OR state = $1
               ORDER BY submitted_at DESC, tx_id DESC LIMIT $2";
    let state = state.map(SubmissionState::as_str);
    many(client, sql, &[&state, &i64::from(limit)], submission_row).await
}

/// How many rows are pending, and how many archived.
pub(super) async fn submission_counts(
    client: &impl GenericClient,
) -> Result<SubmissionCounts, AuditError> {
    let sql = "SELECT (SELECT count(*) FROM blockchain_submissions WHERE state = $1) AS pending,
                      (SELECT count(*) FROM blockchain_submissions_archive) AS archived";
    let pending = SubmissionState::Pending.as_str();
    let mut rows = many(client, sql, &[&pending], counts_row).await?;
    Ok(rows.pop().unwrap_or_default())
}

fn counts_row(row: &Row) -> Result<SubmissionCounts, AuditError> {
    let count = |column| {
        let number: i64 = get(row, column)?;
        Ok(u64::try_from(number).unwrap_or_default())
    };
    Ok(SubmissionCounts {
        pending: count("pending")?,
        archived: count("archived")?,
    })
}

/// Rows by [`Filter`], whose columns are $1 (tx_id), $2 (node) and $3 (limit, NULL for
/// none): the latest, oldest first.
async fn filtered<T>(
    client: &impl GenericClient,
    sql: &str,
    filter: &Filter,
    read: Read<T>,
) -> Result<Vec<T>, AuditError> {
    let tx_id = filter.tx_id.as_ref().map(|tx_id| tx_id.as_str());
    let node_id = filter.node_id.as_ref().map(|node_id| node_id.as_str());
    let limit = filter.limit.map(i64::from);
    let mut rows = many(client, sql, &[&tx_id, &node_id, &limit], read).await?;
    rows.reverse();
    Ok(rows)
}

pub(super) async fn violations(
    client: &impl GenericClient,
    filter: &Filter,
) -> Result<Vec<ViolationRow>, AuditError> {
    let sql = "SELECT * FROM byzantine_violations
               WHERE ($1::text IS NULL OR tx_id = $1) AND ($2::text IS NULL OR node_id = $2)
               ORDER BY id DESC LIMIT $3";
    filtered(client, sql, filter, violation_row).await
}

pub(super) async fn votes(
    client: &impl GenericClient,
    filter: &Filter,
) -> Result<Vec<VoteRow>, AuditError> {
    let sql = "SELECT * FROM vote_history
               WHERE ($1::text IS NULL OR tx_id = $1) AND ($2::text IS NULL OR node_id = $2)
               ORDER BY received_at DESC, tx_id DESC, node_id DESC LIMIT $3";
    filtered(client, sql, filter, vote_row).await
}

pub(super) async fn accusations(
    client: &impl GenericClient,
    filter: &Filter,
) -> Result<Vec<AccusationRow>, AuditError> {
    let sql = format!(
        "SELECT * FROM accusations
         WHERE ($1::text IS NULL OR tx_id = $1) AND ($2::text IS NULL OR accused = $2)
             AND NOT {}
         ORDER BY id DESC LIMIT $3",
        is_lost(ACCUSATIONS)
    );
    filtered(client, &sql, filter, accusation_row).await
}

pub(super) fn accusation_row(row: &Row) -> Result<AccusationRow, AuditError> {
    Ok(AccusationRow {
        accused: node(row, "accused")?,
        by: node(row, "by")?,
        kind: named(row, "kind", accusation_of)?,
        tx_id: tx(row)?,
        accusation: signed(row)?,
        at_ms: utc(row, "at")?,
    })
}

pub(super) async fn bans(
    client: &impl GenericClient,
    node_id: Option<&NodeId>,
) -> Result<Vec<BanRow>, AuditError> {
    let sql = format!(
        "SELECT * FROM bans WHERE ($1::text IS NULL OR node_id = $1) AND NOT {} ORDER BY id",
        is_lost(BANS)
    );
    let node_id = node_id.map(NodeId::as_str);
    many(client, &sql, &[&node_id], ban_row).await
}

pub(super) fn ban_row(row: &Row) -> Result<BanRow, AuditError> {
    let proof: &[u8] = get(row, "proof")?;
    Ok(BanRow {
        peer_id: peer(row)?,
        node_id: node(row, "node_id")?,
        violation_type: named(row, "violation_type", violation_of)?,
        proof_kind: named(row, "proof_kind", ProofKind::parse)?,
        proof: BanProof::decode(proof).map_err(|error| corrupt("proof", error))?,
        banned_at_ms: utc(row, "banned_at")?,
        lifted_at_ms: maybe_utc(row, "lifted_at")?,
    })
}

pub(super) async fn decision(
    client: &impl GenericClient,
    tx_id: &TxId,
) -> Result<Option<DecisionRow>, AuditError> {
    let sql = "SELECT * FROM decisions WHERE tx_id = $1";
    one(client, sql, tx_id, decision_row).await
}

pub(super) async fn reputations(
    client: &impl GenericClient,
) -> Result<Vec<ReputationRow>, AuditError> {
    let sql = "SELECT * FROM node_reputation ORDER BY node_id, peer_id";
    many(client, sql, &[], |row| {
        let score: f64 = get(row, "reputation_score")?;
        Ok(ReputationRow {
            peer_id: PeerId(fixed(row, "peer_id")?),
            node_id: node(row, "node_id")?,
            // Between 0 and 1, says the table's check.
            thousandths: (score * 1000.0).round() as u32,
            total_votes: count(row, "total_votes")?,
            violations_count: count(row, "violations_count")?,
            banned: get(row, "banned")?,
            last_seen_ms: maybe_utc(row, "last_seen")?,
        })
    })
    .await
}

pub(super) async fn final_state(
    client: &impl GenericClient,
    tx_id: &TxId,
) -> Result<Option<BallotState>, AuditError> {
    let row = one(client, KEY, tx_id, key_row).await?;
    Ok(row.map(|row| row.final_state.ballot_state()))
}

pub(super) async fn final_states(
    client: &impl GenericClient,
    after: Option<&TxId>,
    limit: u32,
) -> Result<Vec<(TxId, BallotState)>, AuditError> {
    let sql = "SELECT * FROM submission_keys WHERE $1::text IS NULL OR tx_id > $1
               ORDER BY tx_id LIMIT $2";
    let after = after.map(TxId::as_str);
    many(client, sql, &[&after, &i64::from(limit)], |row| {
        let row = key_row(row)?;
        Ok((row.tx_id, row.final_state.ballot_state()))
    })
    .await
}

fn submission_row(row: &Row) -> Result<SubmissionRow, AuditError> {
    Ok(SubmissionRow {
        tx_id: the_tx(row)?,
        state: named(row, "state", SubmissionState::parse)?,
        value: joined(get(row, "value")?, get(row, "data")?),
        account: get(row, "account")?,
        nonce: wide(row, "nonce")?,
        payload: get(row, "payload")?,
        tx_hash: get(row, "tx_hash")?,
        block_number: wide(row, "block_number")?,
        attempts: small(row, "attempts")?,
        submitted_at_ms: utc(row, "submitted_at")?,
        confirmed_at_ms: maybe_utc(row, "confirmed_at")?,
    })
}

pub(super) fn violation_row(row: &Row) -> Result<ViolationRow, AuditError> {
    Ok(ViolationRow {
        id: count(row, "id")?,
        peer_id: peer(row)?,
        node_id: node(row, "node_id")?,
        tx_id: tx(row)?,
        violation_type: named(row, "violation_type", violation_of)?,
        proof_kind: named(row, "proof_kind", ProofKind::parse)?,
        evidence: get(row, "evidence_json")?,
        detected_at_ms: utc(row, "detected_at")?,
        hash: fixed(row, "hash")?,
    })
}

fn vote_row(row: &Row) -> Result<VoteRow, AuditError> {
    let value = joined(get(row, "value")?, get(row, "data")?);
    Ok(VoteRow {
        tx_id: the_tx(row)?,
        node_id: node(row, "node_id")?,
        peer_id: peer(row)?,
        public_key: get(row, "public_key")?,
        choice: value.map_or(Choice::Abstention, Choice::Value),
        late: get(row, "late")?,
        expired: get(row, "expired")?,
        vote: signed(row)?,
        received_at_ms: utc(row, "received_at")?,
    })
}

fn decision_row(row: &Row) -> Result<DecisionRow, AuditError> {
    let nodes: serde_json::Value = get(row, "participating_nodes")?;
    let nodes: Vec<String> =
        serde_json::from_value(nodes).map_err(|error| corrupt("participating_nodes", error))?;
    let nodes = nodes.iter().map(|node| {
        let node = node.parse();
        node.map_err(|error| corrupt("participating_nodes", error))
    });
    Ok(DecisionRow {
        tx_id: the_tx(row)?,
        value: joined(get(row, "value")?, get(row, "data")?),
        participating_nodes: nodes.collect::<Result<_, _>>()?,
        total_votes: small(row, "total_votes")?,
        threshold_reached: get(row, "threshold_reached")?,
        certificate: get(row, "certificate")?,
    })
}

pub(super) fn key_row(row: &Row) -> Result<KeyRow, AuditError> {
    Ok(KeyRow {
        tx_id: the_tx(row)?,
        final_state: named(row, "final_state", SubmissionState::parse)?,
        at_ms: utc(row, "at")?,
    })
}

async fn one<T>(
    client: &impl GenericClient,
    sql: &str,
    tx_id: &TxId,
    read: Read<T>,
) -> Result<Option<T>, AuditError> {
    Ok(many(client, sql, &[&tx_id.as_str()], read).await?.pop())
}

pub(super) async fn many<T>(
    client: &impl GenericClient,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
    read: Read<T>,
) -> Result<Vec<T>, AuditError> {
    let statement = client.prepare_cached(sql).await.map_err(away)?;
    let rows = client.query(&statement, params).await.map_err(away)?;
    rows.iter().map(read).collect()
}

pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: &str) -> Result<T, AuditError> {
    row.try_get(column)
        .map_err(|error| corrupt(column, super::link::causes(&error)))
}

pub(super) fn named<T>(
    row: &Row,
    column: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, AuditError> {
    let text: &str = get(row, column)?;
    parse(text).ok_or_else(|| corrupt(column, format!("{text:?} is none")))
}

fn node(row: &Row, column: &str) -> Result<NodeId, AuditError> {
    named(row, column, |text| NodeId::new(text).ok())
}

fn the_tx(row: &Row) -> Result<TxId, AuditError> {
    named(row, "tx_id", |text| TxId::new(text).ok())
}

pub(super) fn tx(row: &Row) -> Result<Option<TxId>, AuditError> {
    match get::<Option<&str>>(row, "tx_id")? {
        None => Ok(None),
        Some(_) => the_tx(row).map(Some),
    }
}

fn peer(row: &Row) -> Result<Option<PeerId>, AuditError> {
    match get::<Option<&[u8]>>(row, "peer_id")? {
        None => Ok(None),
        Some(_) => fixed(row, "peer_id").map(|bytes| Some(PeerId(bytes))),
    }
}

fn fixed(row: &Row, column: &str) -> Result<[u8; 32], AuditError> {
    let bytes: &[u8] = get(row, column)?;
    bytes.try_into().map_err(|error| corrupt(column, error))
}

pub(super) fn wide(row: &Row, column: &str) -> Result<Option<u64>, AuditError> {
    Ok(get::<Option<Wide>>(row, column)?.map(|wide| wide.0))
}

pub(super) fn count(row: &Row, column: &str) -> Result<u64, AuditError> {
    let number: i64 = get(row, column)?;
    u64::try_from(number).map_err(|error| corrupt(column, error))
}

fn small(row: &Row, column: &str) -> Result<u32, AuditError> {
    let number: i64 = get(row, column)?;
    u32::try_from(number).map_err(|error| corrupt(column, error))
}

pub(super) fn utc(row: &Row, column: &str) -> Result<u64, AuditError> {
    get(row, column).map(|Utc(ms)| ms)
}

fn maybe_utc(row: &Row, column: &str) -> Result<Option<u64>, AuditError> {
    Ok(get::<Option<Utc>>(row, column)?.map(|utc| utc.0))
}

fn signed(row: &Row) -> Result<SignedStatement, AuditError> {
    Ok(SignedStatement {
        statement: get(row, "statement")?,
        signature: get(row, "signature")?,
    })
}

fn corrupt(column: &str, why: impl std::fmt::Display) -> AuditError {
    AuditError::Corrupt(format!("column {column}: {why}"))
}
