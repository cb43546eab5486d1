//! Sets a lost past aside, and reads what was set aside.

use std::collections::BTreeSet;

use quorate_consensus::TxId;
use rusqlite::{Connection, Row, Transaction, params};

use super::columns::{Utc, Wide};
use super::write::{Writer, immediate};
use super::{away, query};
use crate::aside::{Aside, Shown};
use crate::fence::LostSubmission;
use crate::parting::{
    ACCUSATIONS, BANS, Losses, LostPast, LostRow, Parting, SUBMISSIONS, VIOLATIONS,
};
use crate::rows::SubmissionState;
use crate::store::AuditError;

/// Whether a row of a table, numbered by its column id, is of a lost past.
pub(super) fn is_lost(table: &str) -> String {
    format!(
        "EXISTS (SELECT 1 FROM lost_rows WHERE lost_rows.of_table = '{table}'
             AND lost_rows.row_key = CAST({table}.id AS TEXT))"
    )
}

/// Sets aside what is of the past that parts there, in one transaction.
pub(super) fn set_aside(
    connection: &mut Connection,
    parting: &Parting,
    now_ms: u64,
) -> Result<LostPast, AuditError> {
    let all = immediate(connection)?;
    let found = query::mark(&all)?;
    if found != parting.found {
        let found = found.revision;
        return Err(AuditError::CursorMoved { found });
    }
    let mut shown = shown(&all, parting.last.revision)?;
    let aside = shown.set_aside(parting);
    let past = LostPast {
        id: found.past + 1,
        found_at_ms: now_ms,
        parted_at: parting.last.revision,
        reached: found.revision,
    };
    write(&all, &shown, &aside, &past).map_err(away)?;
    let digest = parting.last.digest;
    all.execute(
        "UPDATE audit_cursor SET past = ?1, revision = ?2, digest = ?3",
        params![past.id.cast_signed(), Wide(past.parted_at), digest],
    )
    .map_err(away)?;
    all.commit().map_err(away)?;
    Ok(past)
}

/// The rows that entries after a revision can have touched.
fn shown(all: &Transaction<'_>, after: u64) -> Result<Shown, AuditError> {
    let sql = "SELECT tx_ids FROM projected_entries WHERE revision > ?1";
    let texts: Vec<String> = query::many(all, sql, params![Wide(after)], |row| row.get(0))?;
    let touched = texts.iter().flat_map(|text| text.split_ascii_whitespace());
    let mut tx_ids: BTreeSet<TxId> = touched.filter_map(|text| TxId::new(text).ok()).collect();
    // What an engine wrote before the projection came to it.
    let pending = Some(SubmissionState::Pending);
    let pending = query::submissions(all, pending, i32::MAX as u32)?;
    tx_ids.extend(pending.into_iter().map(|row| row.tx_id));
    let mut page = query::page(all, &tx_ids)?;
    for tx_id in &tx_ids {
        if let Some(row) = query::one(all, query::KEY, tx_id, query::whole_key_row)? {
            page.keys.load(tx_id.clone(), row);
        }
    }
    let of = |table: &str| {
        let lost = is_lost(table);
        format!("SELECT * FROM {table} WHERE NOT {lost} ORDER BY id")
    };
    Ok(Shown {
        tx_ids,
        page,
        violations: query::many(all, &of(VIOLATIONS), [], query::violation_row)?,
        bans: query::many(all, &of(BANS), [], |row| {
            Ok((id(row)?, query::ban_row(row)?))
        })?,
        accusations: query::many(all, &of(ACCUSATIONS), [], |row| {
            Ok((id(row)?, query::accusation_row(row)?))
        })?,
    })
}

fn id(row: &Row<'_>) -> rusqlite::Result<u64> {
    row.get::<_, i64>("id").map(i64::cast_unsigned)
}

fn write(
    all: &Transaction<'_>,
    shown: &Shown,
    aside: &Aside,
    past: &LostPast,
) -> rusqlite::Result<()> {
    all.execute(
        "INSERT INTO lost_pasts (id, found_at, parted_at, reached) VALUES (?1, ?2, ?3, ?4)",
        params![
            past.id.cast_signed(),
            Utc(past.found_at_ms),
            Wide(past.parted_at),
            Wide(past.reached),
        ],
    )?;
    for row in &aside.rows {
        let (account, nonce) = row.place.clone().unzip();
        all.prepare_cached(
            "INSERT INTO lost_rows (past, of_table, row_key, tx_id, state, account, nonce,
                 row_json)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            row.past.cast_signed(),
            row.table,
            row.key,
            row.tx_id.as_ref().map(TxId::as_str),
            row.state.map(SubmissionState::as_str),
            account,
            nonce.map(Wide),
            row.row.as_ref().map(ToString::to_string),
        ])?;
    }
    let writer = Writer { all, told: &|_| {} };
    writer.page(&shown.page)?;
    for (id, lifted) in &aside.lifted {
        all.execute(
            "UPDATE bans SET lifted_at = ?2 WHERE id = ?1",
            params![id.cast_signed(), lifted.map(Utc)],
        )?;
    }
    all.execute(
        "DELETE FROM projected_entries WHERE revision > ?1",
        params![Wide(past.parted_at)],
    )
    .map(drop)
}

/// What lost pasts say of a transaction's submission.
pub(super) fn submissions(
    connection: &Connection,
    tx_id: &TxId,
) -> Result<Vec<LostSubmission>, AuditError> {
    let sql = format!(
        "SELECT state, account, nonce, EXISTS (
             SELECT 1 FROM blockchain_submissions AS now WHERE now.account = lost.account
                 AND now.nonce = lost.nonce AND now.state = 'CONFIRMED'
             UNION ALL SELECT 1 FROM blockchain_submissions_archive AS now
             WHERE now.account = lost.account AND now.nonce = lost.nonce
                 AND now.state = 'CONFIRMED') AS taken
         FROM lost_rows AS lost
         WHERE tx_id = ?1 AND of_table = '{SUBMISSIONS}'
             AND (account IS NOT NULL OR state LIKE 'ABORTED_%')"
    );
    query::many(connection, &sql, [tx_id.as_str()], |row| {
        Ok(LostSubmission {
            state: query::named(row, "state")?,
            place: place(row)?,
            taken: row.get("taken")?,
        })
    })
}

fn place(row: &Row<'_>) -> rusqlite::Result<Option<(String, u64)>> {
    let account: Option<String> = row.get("account")?;
    Ok(account.zip(query::wide(row, "nonce")?))
}

pub(super) fn losses(connection: &Connection) -> Result<Losses, AuditError> {
    let pasts = "SELECT * FROM lost_pasts ORDER BY id";
    let rows = "SELECT * FROM lost_rows ORDER BY id";
    Ok(Losses {
        pasts: query::many(connection, pasts, [], |row| {
            let (Utc(found_at_ms), Wide(parted_at)) = (row.get("found_at")?, row.get("parted_at")?);
            let Wide(reached) = row.get("reached")?;
            Ok(LostPast {
                id: id(row)?,
                found_at_ms,
                parted_at,
                reached,
            })
        })?,
        rows: query::many(connection, rows, [], |row| {
            let json: Option<String> = row.get("row_json")?;
            Ok(LostRow {
                past: row.get::<_, i64>("past")?.cast_unsigned(),
                table: row.get("of_table")?,
                key: row.get("row_key")?,
                tx_id: query::maybe_named(row, "tx_id")?,
                state: query::maybe_named(row, "state")?,
                place: place(row)?,
                row: json.map(|json| query::json(&json)).transpose()?,
            })
        })?,
    })
}
