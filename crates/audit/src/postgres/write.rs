//! Projects the log, answers engines, and writes rows: a transaction at a time, the
//! rows of one table in one statement.

use std::time::Duration;

use deadpool_postgres::{Client, GenericClient, Transaction};
use prost::Message;
use quorate_consensus::TxId;
use quorate_consensus::words::{accusation_word, violation_word};
use quorate_engine::{AuditAnswer, AuditAsk};
use tokio_postgres::types::ToSql;

use super::columns::{Utc, Wide, split};
use super::{away, is_constraint, query};
use crate::change::{Batch, Marked};
use crate::fence::{self, VariantRow, Write};
use crate::mark::Mark;
use crate::page::{KeyRow, Page};
use crate::rows::{
    AccusationRow, BanRow, DecisionRow, ReputationRow, SubmissionRow, ViolationRow, VoteRow,
};
use crate::store::AuditError;

/// Writes what a batch means and the revision reached, in one transaction.
pub(super) async fn project(
    client: &mut Client,
    from: &Mark,
    batch: Batch,
) -> Result<u64, AuditError> {
    let reached = batch.reached;
    let all = begin(client).await?;
    // Others who project wait here; then they find the cursor moved.
    let (found, head) = query::cursor(&all, true).await?;
    let digest = found.followed_by(from)?;
    let marked = batch.marked(digest);
    let tx_ids = batch.tx_ids();
    let tx_ids: Vec<_> = tx_ids.iter().map(TxId::as_str).collect();
    lock(&all, &tx_ids).await?;
    let mut page = query::page(&all, head, &tx_ids).await?;
    batch.carry_out(&mut page)?;
    write(&all, &page)
        .await
        .map_err(|error| match is_constraint(&error) {
            true => {
                let (first, why) = (from.revision.saturating_add(1), super::link::causes(&error));
                AuditError::Contradiction(format!("revisions {first} to {reached}: {why}"))
            }
            false => away(error),
        })?;
    projected(&all, &marked).await.map_err(away)?;
    let digest = marked.last().map_or(digest, |last| Some(last.digest));
    let sql = "UPDATE audit_cursor SET revision = $1, violations = $2, violations_hash = $3,
                   digest = $4";
    let (last, digest) = (page.head, digest.as_ref().map(|digest| &digest[..]));
    let params: &[&(dyn ToSql + Sync)] = &[
        &Wide(reached),
        &last.id.cast_signed(),
        &&last.hash[..],
        &digest,
    ];
    run(&all, sql, params).await.map_err(away)?;
    all.commit().await.map_err(away)?;
    Ok(reached)
}

/// Takes the lease on the projection or prolongs it, unless somebody else has it. One
/// that lasts longer than anybody asks for is of a clock that ran ahead.
pub(super) async fn lease(
    client: &Client,
    holder: &str,
    ttl: Duration,
) -> Result<bool, AuditError> {
    let sql = "INSERT INTO projector_lease AS lease (only_row, holder, until)
               VALUES (1, $1, clock_timestamp() + $2 * interval '1 millisecond')
               ON CONFLICT (only_row) DO UPDATE
                   SET holder = excluded.holder, until = excluded.until
               WHERE lease.holder = excluded.holder
                   OR lease.until NOT BETWEEN clock_timestamp() AND excluded.until";
    let statement = client.prepare_cached(sql).await.map_err(away)?;
    let ms = ttl.as_millis() as f64;
    let rows = client.execute(&statement, &[&holder, &ms]).await;
    rows.map(|rows| rows > 0).map_err(away)
}

/// Answers an engine; what is [`AuditAnswer::Done`] is durable.
pub(super) async fn answer(
    client: &mut Client,
    ask: AuditAsk,
    now_ms: u64,
) -> Result<AuditAnswer, AuditError> {
    if let AuditAsk::Variants { tx_id } = &ask {
        let all = query::variants(client, tx_id).await?;
        return Ok(AuditAnswer::Variants(all));
    }
    let all = begin(client).await?;
    lock(&all, &[fence::tx_of(&ask).as_str()]).await?;
    let found = query::found(&all, &ask).await?;
    let (answer, write) = fence::answer(ask, found, now_ms);
    let Some(Write { row, variant }) = write else {
        return Ok(answer);
    };
    let mut written = submissions(&all, &[&row]).await;
    if let (Ok(()), Some(row)) = (&written, &variant) {
        written = new_variant(&all, row).await;
    }
    match written {
        Ok(()) => all.commit().await.map_err(away)?,
        Err(error) if is_constraint(&error) => {
            return Ok(AuditAnswer::Conflict(super::link::causes(&error)));
        }
        Err(error) => return Err(away(error)),
    }
    Ok(answer)
}

/// A transaction whose statements each see what was committed before them: so what is
/// read after [`lock`] is what is there.
pub(super) async fn begin(client: &mut Client) -> Result<Transaction<'_>, AuditError> {
    let level = tokio_postgres::IsolationLevel::ReadCommitted;
    let begun = client.build_transaction().isolation_level(level).start();
    begun.await.map_err(away)
}

/// Half of an advisory lock's number: ours.
const LOCK_CLASS: i32 = 0x5175_6f72;

/// Keeps everybody else from the rows of these transactions, those too that are not
/// there yet, until this one ends. In one order for all, so that nobody waits in a
/// circle.
pub(super) async fn lock(all: &Transaction<'_>, tx_ids: &[&str]) -> Result<(), AuditError> {
    let number = |tx_id: &&str| {
        let [a, b, c, d, ..] = *blake3::hash(tx_id.as_bytes()).as_bytes();
        i32::from_be_bytes([a, b, c, d])
    };
    let mut numbers: Vec<_> = tx_ids.iter().map(number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let sql = "SELECT pg_advisory_xact_lock($1, number) FROM unnest($2::int4[]) AS number";
    run(all, sql, &[&LOCK_CLASS, &numbers]).await.map_err(away)
}

pub(super) type Done = Result<(), tokio_postgres::Error>;

pub(super) async fn run(all: &Transaction<'_>, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Done {
    let statement = all.prepare_cached(sql).await?;
    all.execute(&statement, params).await.map(drop)
}

/// One column of some rows.
pub(super) fn column<'a, R, C>(rows: &'a [&'a R], of: impl Fn(&'a R) -> C) -> Vec<C> {
    rows.iter().map(|row| of(row)).collect()
}

/// Writes what changed on a page.
pub(super) async fn write(all: &Transaction<'_>, page: &Page) -> Done {
    removed_votes(all, page).await?;
    votes(all, &page.written_votes().collect::<Vec<_>>()).await?;
    delete(all, "decisions", page.decisions.removed()).await?;
    decisions(all, &page.decisions.written().collect::<Vec<_>>()).await?;
    let archive = "blockchain_submissions_archive";
    delete(all, archive, page.archive.removed()).await?;
    delete(all, "blockchain_submissions", page.submissions.removed()).await?;
    submissions(all, &page.submissions.written().collect::<Vec<_>>()).await?;
    delete(all, "submission_keys", page.keys.removed()).await?;
    keys(all, &page.keys.written().collect::<Vec<_>>()).await?;
    violations(all, &page.violations.iter().collect::<Vec<_>>()).await?;
    for (node_id, at) in &page.lifted {
        let sql = "UPDATE bans SET lifted_at = $2 WHERE node_id = $1 AND lifted_at IS NULL";
        run(all, sql, &[&node_id.as_str(), &Utc(*at)]).await?;
    }
    bans(all, &page.bans.iter().collect::<Vec<_>>()).await?;
    accusations(all, &page.accusations.iter().collect::<Vec<_>>()).await?;
    members(all, &page.members.written().collect::<Vec<_>>()).await
}

async fn delete(all: &Transaction<'_>, table: &str, tx_ids: impl Iterator<Item = &TxId>) -> Done {
    let tx_ids: Vec<_> = tx_ids.map(TxId::as_str).collect();
    if tx_ids.is_empty() {
        return Ok(());
    }
    let sql = format!("DELETE FROM {table} WHERE tx_id = ANY($1)");
    run(all, &sql, &[&tx_ids]).await
}

/// Writes which entries were projected.
async fn projected(all: &Transaction<'_>, entries: &[Marked]) -> Done {
    if entries.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO projected_entries (revision, digest, tx_ids)
               SELECT * FROM unnest($1::numeric[], $2::bytea[], $3::text[])";
    let revisions: Vec<_> = entries.iter().map(|entry| Wide(entry.revision)).collect();
    let digests: Vec<_> = entries.iter().map(|entry| &entry.digest[..]).collect();
    let tx_ids: Vec<_> = entries.iter().map(|entry| &*entry.tx_ids).collect();
    run(all, sql, &[&revisions, &digests, &tx_ids]).await
}

async fn votes(all: &Transaction<'_>, rows: &[&VoteRow]) -> Done {
    if rows.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO vote_history (tx_id, node_id, peer_id, public_key, value, data,
                   abstained, late, expired, statement, signature, received_at)
               SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[],
                   $5::numeric[], $6::bytea[], $7::bool[], $8::bool[], $9::bool[],
                   $10::bytea[], $11::bytea[], $12::timestamptz[])
               ON CONFLICT (tx_id, node_id) DO UPDATE SET
                   peer_id = excluded.peer_id, public_key = excluded.public_key,
                   value = excluded.value, data = excluded.data,
                   abstained = excluded.abstained, late = excluded.late,
                   expired = excluded.expired, statement = excluded.statement,
                   signature = excluded.signature, received_at = excluded.received_at";
    let (values, data): (Vec<_>, Vec<_>) = rows.iter().map(|row| split(row.choice.value())).unzip();
    let params: &[&(dyn ToSql + Sync)] = &[
        &column(rows, |row| row.tx_id.as_str()),
        &column(rows, |row| row.node_id.as_str()),
        &column(rows, |row| {
            row.peer_id.as_ref().map(|peer_id| &peer_id.0[..])
        }),
        &column(rows, |row| row.public_key.as_deref()),
        &values,
        &data,
        &column(rows, |row| row.choice.value().is_none()),
        &column(rows, |row| row.late),
        &column(rows, |row| row.expired),
        &column(rows, |row| &row.vote.statement[..]),
        &column(rows, |row| &row.vote.signature[..]),
        &column(rows, |row| Utc(row.received_at_ms)),
    ];
    run(all, sql, params).await
}

async fn removed_votes(all: &Transaction<'_>, page: &Page) -> Done {
    let removed = page.removed_votes();
    let (tx_ids, node_ids): (Vec<_>, Vec<_>) = removed
        .map(|(tx_id, node_id)| (tx_id.as_str(), node_id.as_str()))
        .unzip();
    if tx_ids.is_empty() {
        return Ok(());
    }
    let sql = "DELETE FROM vote_history AS vote
               USING unnest($1::text[], $2::text[]) AS gone (tx_id, node_id)
               WHERE vote.tx_id = gone.tx_id AND vote.node_id = gone.node_id";
    run(all, sql, &[&tx_ids, &node_ids]).await
}

async fn decisions(all: &Transaction<'_>, rows: &[&DecisionRow]) -> Done {
    if rows.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO decisions (tx_id, value, data, participating_nodes, total_votes,
                   threshold_reached, certificate)
               SELECT * FROM unnest($1::text[], $2::numeric[], $3::bytea[], $4::jsonb[],
                   $5::bigint[], $6::bool[], $7::bytea[])
               ON CONFLICT (tx_id) DO UPDATE SET
                   value = excluded.value, data = excluded.data,
                   participating_nodes = excluded.participating_nodes,
                   total_votes = excluded.total_votes,
                   threshold_reached = excluded.threshold_reached,
                   certificate = excluded.certificate";
    let (values, data): (Vec<_>, Vec<_>) = rows.iter().map(|row| split(row.value.as_ref())).unzip();
    let nodes = column(rows, |row| {
        let nodes = row.participating_nodes.iter().map(|id| id.as_str());
        serde_json::Value::from(nodes.collect::<Vec<_>>())
    });
    let params: &[&(dyn ToSql + Sync)] = &[
        &column(rows, |row| row.tx_id.as_str()),
        &values,
        &data,
        &nodes,
        &column(rows, |row| i64::from(row.total_votes)),
        &column(rows, |row| row.threshold_reached),
        &column(rows, |row| row.certificate.as_deref()),
    ];
    run(all, sql, params).await
}

async fn submissions(all: &Transaction<'_>, rows: &[&SubmissionRow]) -> Done {
    if rows.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO blockchain_submissions (tx_id, value, data, state, account, nonce,
                   tx_hash, payload, submitted_at, confirmed_at, block_number, attempts)
               SELECT * FROM unnest($1::text[], $2::numeric[], $3::bytea[], $4::text[],
                   $5::text[], $6::numeric[], $7::bytea[], $8::bytea[], $9::timestamptz[],
                   $10::timestamptz[], $11::numeric[], $12::bigint[])
               ON CONFLICT (tx_id) DO UPDATE SET
                   value = excluded.value, data = excluded.data, state = excluded.state,
                   account = excluded.account, nonce = excluded.nonce,
                   tx_hash = excluded.tx_hash, payload = excluded.payload,
                   submitted_at = excluded.submitted_at, confirmed_at = excluded.confirmed_at,
                   block_number = excluded.block_number, attempts = excluded.attempts";
    let (values, data): (Vec<_>, Vec<_>) = rows.iter().map(|row| split(row.value.as_ref())).unzip();
    let params: &[&(dyn ToSql + Sync)] = &[
        &column(rows, |row| row.tx_id.as_str()),
        &values,
        &data,
        &column(rows, |row| row.state.as_str()),
        &column(rows, |row| row.account.as_deref()),
        &column(rows, |row| row.nonce.map(Wide)),
        &column(rows, |row| row.tx_hash.as_deref()),
        &column(rows, |row| row.payload.as_deref()),
        &column(rows, |row| Utc(row.submitted_at_ms)),
        &column(rows, |row| row.confirmed_at_ms.map(Utc)),
        &column(rows, |row| row.block_number.map(Wide)),
        &column(rows, |row| i64::from(row.attempts)),
    ];
    run(all, sql, params).await
}

async fn new_variant(all: &Transaction<'_>, row: &VariantRow) -> Done {
    let sql = "INSERT INTO submission_variants
                   (tx_id, account, nonce, attempt, tx_hash, raw, signed_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let params: &[&(dyn ToSql + Sync)] = &[
        &row.tx_id.as_str(),
        &row.account,
        &Wide(row.nonce),
        &i64::from(row.attempt),
        &row.prepared.tx_hash,
        &row.prepared.raw,
        &Utc(row.signed_at_ms),
    ];
    run(all, sql, params).await
}

async fn keys(all: &Transaction<'_>, rows: &[&KeyRow]) -> Done {
    if rows.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO submission_keys (tx_id, final_state, at)
               SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[])
               ON CONFLICT (tx_id) DO UPDATE SET
                   final_state = excluded.final_state, at = excluded.at";
    let params: &[&(dyn ToSql + Sync)] = &[
        &column(rows, |row| row.tx_id.as_str()),
        &column(rows, |row| row.final_state.as_str()),
        &column(rows, |row| Utc(row.at_ms)),
    ];
    run(all, sql, params).await
}

async fn violations(all: &Transaction<'_>, rows: &[&ViolationRow]) -> Done {
    if rows.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO byzantine_violations (id, peer_id, node_id, tx_id, violation_type,
                   proof_kind, evidence_json, detected_at, hash, past)
               SELECT row.*, (SELECT past FROM audit_cursor)
               FROM unnest($1::bigint[], $2::bytea[], $3::text[], $4::text[],
                   $5::text[], $6::text[], $7::jsonb[], $8::timestamptz[], $9::bytea[]) AS row";
    let params: &[&(dyn ToSql + Sync)] = &[
        &column(rows, |row| row.id.cast_signed()),
        &column(rows, |row| {
            row.peer_id.as_ref().map(|peer_id| &peer_id.0[..])
        }),
        &column(rows, |row| row.node_id.as_str()),
        &column(rows, |row| row.tx_id.as_ref().map(TxId::as_str)),
        &column(rows, |row| violation_word(row.violation_type)),
        &column(rows, |row| row.proof_kind.as_str()),
        &column(rows, |row| &row.evidence),
        &column(rows, |row| Utc(row.detected_at_ms)),
        &column(rows, |row| &row.hash[..]),
    ];
    run(all, sql, params).await
}

async fn bans(all: &Transaction<'_>, rows: &[&BanRow]) -> Done {
    if rows.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO bans (peer_id, node_id, violation_type, proof_kind, proof,
                   banned_at, lifted_at)
               SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::text[],
                   $5::bytea[], $6::timestamptz[], $7::timestamptz[])";
    let params: &[&(dyn ToSql + Sync)] = &[
        &column(rows, |row| {
            row.peer_id.as_ref().map(|peer_id| &peer_id.0[..])
        }),
        &column(rows, |row| row.node_id.as_str()),
        &column(rows, |row| violation_word(row.violation_type)),
        &column(rows, |row| row.proof_kind.as_str()),
        &column(rows, |row| row.proof.encode_to_vec()),
        &column(rows, |row| Utc(row.banned_at_ms)),
        &column(rows, |row| row.lifted_at_ms.map(Utc)),
    ];
    run(all, sql, params).await
}

async fn accusations(all: &Transaction<'_>, rows: &[&AccusationRow]) -> Done {
    if rows.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO accusations (accused, by, kind, tx_id, statement, signature, at)
               SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[],
                   $5::bytea[], $6::bytea[], $7::timestamptz[])";
    let params: &[&(dyn ToSql + Sync)] = &[
        &column(rows, |row| row.accused.as_str()),
        &column(rows, |row| row.by.as_str()),
        &column(rows, |row| accusation_word(row.kind)),
        &column(rows, |row| row.tx_id.as_ref().map(TxId::as_str)),
        &column(rows, |row| &row.accusation.statement[..]),
        &column(rows, |row| &row.accusation.signature[..]),
        &column(rows, |row| Utc(row.at_ms)),
    ];
    run(all, sql, params).await
}

async fn members(all: &Transaction<'_>, rows: &[&ReputationRow]) -> Done {
    if rows.is_empty() {
        return Ok(());
    }
    let sql = "UPDATE node_reputation AS member
               SET reputation_score = new.score, total_votes = new.votes,
                   violations_count = new.violations, banned = new.banned,
                   last_seen = new.last_seen
               FROM unnest($1::bytea[], $2::float8[], $3::bigint[], $4::bigint[], $5::bool[],
                   $6::timestamptz[])
                   AS new (peer_id, score, votes, violations, banned, last_seen)
               WHERE member.peer_id = new.peer_id";
    let params: &[&(dyn ToSql + Sync)] = &[
        &column(rows, |row| &row.peer_id.0[..]),
        &column(rows, |row| f64::from(row.thousandths) / 1000.0),
        &column(rows, |row| row.total_votes.cast_signed()),
        &column(rows, |row| row.violations_count.cast_signed()),
        &column(rows, |row| row.banned),
        &column(rows, |row| row.last_seen_ms.map(Utc)),
    ];
    run(all, sql, params).await
}
