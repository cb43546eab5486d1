//! Projects the log, answers engines, and writes rows: a transaction at a time.

use std::time::Duration;

use prost::Message;
use quorate_consensus::wire::BoardEntry;
use quorate_consensus::words::{accusation_word, violation_word};
use quorate_consensus::{NodeId, PeerId, TxId};
use quorate_engine::{AuditAnswer, AuditAsk};
use rusqlite::{Connection, Params, Transaction, TransactionBehavior, params};

use super::columns::{Utc, Wide, split};
use super::{away, is_constraint, query};
use crate::change::{Batch, Marked};
use crate::fence::{self, Write};
use crate::lineage::Lineage;
use crate::mark::Mark;
use crate::page::{Page, Table};
use crate::rows::{ReputationRow, SubmissionRow, ViolationRow, VoteRow};
use crate::store::AuditError;

/// How far a projection is, for tests that stop it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code))]
pub(super) enum Step {
    /// So many rows were written; nothing is durable.
    Written(usize),
    /// The cursor was moved; nothing is durable.
    CursorMoved,
    /// Everything is durable.
    Committed,
}

/// Writes what the entries mean and the revision reached, in one transaction.
pub(super) fn project(
    connection: &mut Connection,
    lineage: &Lineage,
    from: &Mark,
    entries: &[BoardEntry],
    told: &dyn Fn(Step),
) -> Result<u64, AuditError> {
    let batch = Batch::new(from.revision, entries, lineage)?;
    let reached = batch.reached;
    let all = immediate(connection)?;
    let digest = query::mark(&all)?.followed_by(from)?;
    let marked = batch.marked(digest);
    let mut page = query::page(&all, &batch.tx_ids())?;
    batch.carry_out(&mut page)?;
    let writer = Writer { all: &all, told };
    writer
        .page(&page)
        .map_err(|error| match is_constraint(&error) {
            true => {
                let first = from.revision.saturating_add(1);
                AuditError::Contradiction(format!("revisions {first} to {reached}: {error}"))
            }
            false => away(error),
        })?;
    writer.marked(&marked).map_err(away)?;
    let digest = marked.last().map_or(digest, |last| Some(last.digest));
    all.execute(
        "UPDATE audit_cursor SET revision = ?1, violations = ?2, violations_hash = ?3,
             digest = ?4",
        params![
            Wide(reached),
            page.head.id.cast_signed(),
            page.head.hash,
            digest
        ],
    )
    .map_err(away)?;
    told(Step::CursorMoved);
    all.commit().map_err(away)?;
    told(Step::Committed);
    Ok(reached)
}

/// Takes the lease on the projection or prolongs it, unless somebody else has it. One
/// that lasts longer than anybody asks for is of a clock that ran ahead.
pub(super) fn lease(
    connection: &Connection,
    holder: &NodeId,
    ttl: Duration,
    now_ms: u64,
) -> Result<bool, AuditError> {
    let until = now_ms.saturating_add(ttl.as_millis() as u64);
    let rows = connection
        .execute(
            "INSERT INTO projector_lease (only_row, holder, until) VALUES (1, ?1, ?3)
             ON CONFLICT (only_row) DO UPDATE
                 SET holder = excluded.holder, until = excluded.until
             WHERE holder = excluded.holder OR until NOT BETWEEN ?2 AND ?3",
            params![holder.as_str(), Utc(now_ms), Utc(until)],
        )
        .map_err(away)?;
    Ok(rows > 0)
}

/// Answers an engine; what is [`AuditAnswer::Done`] is durable.
pub(super) fn answer(
    connection: &mut Connection,
    ask: AuditAsk,
    now_ms: u64,
) -> Result<AuditAnswer, AuditError> {
    if let AuditAsk::Variants { tx_id } = &ask {
        return query::variants(connection, tx_id).map(AuditAnswer::Variants);
    }
    let all = immediate(connection)?;
    let found = query::found(&all, &ask)?;
    let (answer, write) = fence::answer(ask, found, now_ms);
    let Some(Write { row, variant }) = write else {
        return Ok(answer);
    };
    let writer = Writer {
        all: &all,
        told: &|_| {},
    };
    let mut written = writer.submission(&row);
    if let Some(variant) = variant {
        written = written.and_then(|()| {
            writer.run(
                "INSERT INTO submission_variants
                     (tx_id, account, nonce, attempt, tx_hash, raw, signed_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    variant.tx_id.as_str(),
                    variant.account,
                    Wide(variant.nonce),
                    variant.attempt,
                    variant.prepared.tx_hash,
                    variant.prepared.raw,
                    Utc(variant.signed_at_ms),
                ],
            )
        });
    }
    match written {
        Ok(()) => all.commit().map_err(away)?,
        Err(error) if is_constraint(&error) => return Ok(AuditAnswer::Conflict(error.to_string())),
        Err(error) => return Err(away(error)),
    }
    Ok(answer)
}

pub(super) fn immediate(connection: &mut Connection) -> Result<Transaction<'_>, AuditError> {
    connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(away)
}

/// How many pasts were lost.
const PAST: &str = "SELECT past FROM audit_cursor";

/// Writes rows inside of one transaction.
pub(super) struct Writer<'a> {
    pub(super) all: &'a Transaction<'a>,
    pub(super) told: &'a dyn Fn(Step),
}

impl Writer<'_> {
    fn run(&self, sql: &str, params: impl Params) -> rusqlite::Result<()> {
        self.all.prepare_cached(sql)?.execute(params).map(drop)
    }

    /// Writes what changed on a page.
    pub(super) fn page(&self, page: &Page) -> rusqlite::Result<()> {
        let mut count = 0;
        let mut one = |done: rusqlite::Result<()>| {
            count += 1;
            (self.told)(Step::Written(count));
            done
        };
        for (tx_id, node_id) in page.removed_votes() {
            let which = [tx_id.as_str(), node_id.as_str()];
            let sql = "DELETE FROM vote_history WHERE tx_id = ?1 AND node_id = ?2";
            one(self.run(sql, which))?;
        }
        page.written_votes()
            .try_for_each(|row| one(self.vote(row)))?;
        for tx_id in page.decisions.removed() {
            one(self.delete("decisions", tx_id))?;
        }
        for row in page.decisions.written() {
            let (number, data) = split(row.value.as_ref());
            let nodes: Vec<_> = row
                .participating_nodes
                .iter()
                .map(|id| id.as_str())
                .collect();
            one(self.run(
                "INSERT INTO decisions (tx_id, value, data, participating_nodes, total_votes,
                     threshold_reached, certificate)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (tx_id) DO UPDATE SET
                     value = excluded.value, data = excluded.data,
                     participating_nodes = excluded.participating_nodes,
                     total_votes = excluded.total_votes,
                     threshold_reached = excluded.threshold_reached,
                     certificate = excluded.certificate",
                params![
                    row.tx_id.as_str(),
                    number,
                    data,
                    serde_json::Value::from(nodes).to_string(),
                    row.total_votes,
                    row.threshold_reached,
                    row.certificate,
                ],
            ))?;
        }
        for tx_id in page.archive.removed() {
            one(self.delete("blockchain_submissions_archive", tx_id))?;
        }
        for tx_id in page.submissions.removed() {
            one(self.delete("blockchain_submissions", tx_id))?;
        }
        for row in page.submissions.written() {
            one(self.submission(row))?;
        }
        for tx_id in page.keys.removed() {
            one(self.delete("submission_keys", tx_id))?;
        }
        for row in page.keys.written() {
            one(self.run(
                "INSERT INTO submission_keys (tx_id, final_state, at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (tx_id) DO UPDATE SET
                     final_state = excluded.final_state, at = excluded.at",
                params![row.tx_id.as_str(), row.final_state.as_str(), Utc(row.at_ms)],
            ))?;
        }
        let past = match page.violations.is_empty() {
            true => 0,
            false => self.all.query_row(PAST, [], |row| row.get(0))?,
        };
        page.violations
            .iter()
            .try_for_each(|row| one(self.violation(row, past)))?;
        for (node_id, at) in &page.lifted {
            one(self.run(
                "UPDATE bans SET lifted_at = ?2 WHERE node_id = ?1 AND lifted_at IS NULL",
                params![node_id.as_str(), Utc(*at)],
            ))?;
        }
        for row in &page.bans {
            one(self.run(
                "INSERT INTO bans (peer_id, node_id, violation_type, proof_kind, proof,
                     banned_at, lifted_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    row.peer_id.map(|peer_id| peer_id.0),
                    row.node_id.as_str(),
                    violation_word(row.violation_type),
                    row.proof_kind.as_str(),
                    row.proof.encode_to_vec(),
                    Utc(row.banned_at_ms),
                    row.lifted_at_ms.map(Utc),
                ],
            ))?;
        }
        for row in &page.accusations {
            one(self.run(
                "INSERT INTO accusations (accused, \"by\", kind, tx_id, statement, signature, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    row.accused.as_str(),
                    row.by.as_str(),
                    accusation_word(row.kind),
                    row.tx_id.as_ref().map(TxId::as_str),
                    row.accusation.statement,
                    row.accusation.signature,
                    Utc(row.at_ms),
                ],
            ))?;
        }
        self.members(&page.members, &mut one)
    }

    /// Writes which entries were projected.
    fn marked(&self, entries: &[Marked]) -> rusqlite::Result<()> {
        entries.iter().try_for_each(|entry| {
            self.run(
                "INSERT INTO projected_entries (revision, digest, tx_ids) VALUES (?1, ?2, ?3)",
                params![Wide(entry.revision), entry.digest, entry.tx_ids],
            )
        })
    }

    fn vote(&self, row: &VoteRow) -> rusqlite::Result<()> {
        let (value, data) = split(row.choice.value());
        self.run(
            "INSERT INTO vote_history (tx_id, node_id, peer_id, public_key, value, data,
                 abstained, late, expired, statement, signature, received_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
             ON CONFLICT (tx_id, node_id) DO UPDATE SET
                 peer_id = excluded.peer_id, public_key = excluded.public_key,
                 value = excluded.value, data = excluded.data,
                 abstained = excluded.abstained, late = excluded.late,
                 expired = excluded.expired, statement = excluded.statement,
                 signature = excluded.signature, received_at = excluded.received_at",
            params![
                row.tx_id.as_str(),
                row.node_id.as_str(),
                row.peer_id.map(|peer_id| peer_id.0),
                row.public_key,
                value,
                data,
                row.choice.value().is_none(),
                row.late,
                row.expired,
                row.vote.statement,
                row.vote.signature,
                Utc(row.received_at_ms),
            ],
        )
    }

    fn submission(&self, row: &SubmissionRow) -> rusqlite::Result<()> {
        let (value, data) = split(row.value.as_ref());
        self.run(
            "INSERT INTO blockchain_submissions (tx_id, value, data, state, account, nonce,
                 tx_hash, payload, submitted_at, confirmed_at, block_number, attempts)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
             ON CONFLICT (tx_id) DO UPDATE SET
                 value = excluded.value, data = excluded.data, state = excluded.state,
                 account = excluded.account, nonce = excluded.nonce,
                 tx_hash = excluded.tx_hash, payload = excluded.payload,
                 submitted_at = excluded.submitted_at, confirmed_at = excluded.confirmed_at,
                 block_number = excluded.block_number, attempts = excluded.attempts",
            params![
                row.tx_id.as_str(),
                value,
                data,
                row.state.as_str(),
                row.account,
                row.nonce.map(Wide),
                row.tx_hash,
                row.payload,
                Utc(row.submitted_at_ms),
                row.confirmed_at_ms.map(Utc),
                row.block_number.map(Wide),
                row.attempts,
            ],
        )
    }

    fn violation(&self, row: &ViolationRow, past: i64) -> rusqlite::Result<()> {
        self.run(
            "INSERT INTO byzantine_violations (id, peer_id, node_id, tx_id, violation_type,
                 proof_kind, evidence_json, detected_at, hash, past)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                row.id.cast_signed(),
                row.peer_id.map(|peer_id| peer_id.0),
                row.node_id.as_str(),
                row.tx_id.as_ref().map(TxId::as_str),
                violation_word(row.violation_type),
                row.proof_kind.as_str(),
                row.evidence.to_string(),
                Utc(row.detected_at_ms),
                row.hash,
                past,
            ],
        )
    }

    fn members(
        &self,
        members: &Table<PeerId, ReputationRow>,
        one: &mut dyn FnMut(rusqlite::Result<()>) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        members.written().try_for_each(|row| {
            one(self.run(
                "UPDATE node_reputation SET reputation_score = ?2, total_votes = ?3,
                     violations_count = ?4, banned = ?5, last_seen = ?6
                 WHERE peer_id = ?1",
                params![
                    row.peer_id.0,
                    f64::from(row.thousandths) / 1000.0,
                    row.total_votes.cast_signed(),
                    row.violations_count.cast_signed(),
                    row.banned,
                    row.last_seen_ms.map(Utc),
                ],
            ))
        })
    }

    fn delete(&self, table: &str, tx_id: &TxId) -> rusqlite::Result<()> {
        let sql = format!("DELETE FROM {table} WHERE tx_id = ?1");
        self.run(&sql, [tx_id.as_str()])
    }
}
