//! Sets a lost past aside, and reads what was set aside.

use quorate_consensus::TxId;
use rusqlite::{Connection, Row, Transaction, params};

use super::columns::{Utc, Wide};
use super::write::{Writer, immediate};
use super::{away, query};
use crate::aside::{Aside, Shown, touched};
use crate::fence::LostSubmission;
use crate::parting::{
    ACCUSATIONS, BANS, Losses, LostPast, LostRow, Parting, VIOLATIONS, all_but_lost, submissions_of,
};
use crate::rows::SubmissionState;
use crate::store::AuditError;

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
    let past = parting.past(now_ms);
    let aside = shown.set_aside(parting, &past);
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
    let entries: Vec<String> = query::many(all, sql, params![Wide(after)], |row| row.get(0))?;
    let pending = Some(SubmissionState::Pending);
    let pending = query::submissions(all, pending, i32::MAX as u32)?;
    let tx_ids = touched(&entries, pending);
    let mut page = query::page(all, &tx_ids)?;
    for tx_id in &tx_ids {
        if let Some(row) = query::one(all, query::KEY, tx_id, query::whole_key_row)? {
            page.keys.load(tx_id.clone(), row);
        }
    }
    Ok(Shown {
        tx_ids,
        page,
        violations: query::many(all, &all_but_lost(VIOLATIONS), [], query::violation_row)?,
        bans: query::many(all, &all_but_lost(BANS), [], |row| {
            Ok((id(row)?, query::ban_row(row)?))
        })?,
        accusations: query::many(all, &all_but_lost(ACCUSATIONS), [], |row| {
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
    let sql = submissions_of("?1");
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
