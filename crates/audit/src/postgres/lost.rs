//! Sets a lost past aside, and reads what was set aside.

use deadpool_postgres::{Client, GenericClient, Transaction};
use quorate_consensus::TxId;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::columns::{Utc, Wide};
use super::write::{self, Done, begin, column, lock, run};
use super::{away, query};
use crate::aside::{Aside, Shown, touched};
use crate::fence::LostSubmission;
use crate::parting::{
    ACCUSATIONS, BANS, Losses, LostPast, LostRow, Parting, VIOLATIONS, all_but_lost, submissions_of,
};
use crate::rows::SubmissionState;
use crate::seal::Head;
use crate::store::AuditError;

/// Sets aside what is of the past that parts there, in one transaction.
pub(super) async fn set_aside(
    client: &mut Client,
    parting: &Parting,
    now_ms: u64,
) -> Result<LostPast, AuditError> {
    let all = begin(client).await?;
    let (found, head) = query::cursor(&all, true).await?;
    if found != parting.found {
        let found = found.revision;
        return Err(AuditError::CursorMoved { found });
    }
    let mut shown = shown(&all, head, parting.last.revision).await?;
    let past = parting.past(now_ms);
    let aside = shown.set_aside(parting, &past);
    write(&all, &shown, &aside, &past).await.map_err(away)?;
    let sql = "UPDATE audit_cursor SET past = $1, revision = $2, digest = $3";
    let digest = parting.last.digest.as_ref().map(|digest| &digest[..]);
    let params: &[&(dyn ToSql + Sync)] = &[&past.id.cast_signed(), &Wide(past.parted_at), &digest];
    run(&all, sql, params).await.map_err(away)?;
    all.commit().await.map_err(away)?;
    Ok(past)
}

/// The rows that entries after a revision can have touched.
async fn shown(all: &Transaction<'_>, head: Head, after: u64) -> Result<Shown, AuditError> {
    let sql = "SELECT tx_ids FROM projected_entries WHERE revision > $1";
    let entries: Vec<String> =
        query::many(all, sql, &[&Wide(after)], |row| query::get(row, "tx_ids")).await?;
    let pending = Some(SubmissionState::Pending);
    let pending = query::submissions(all, pending, i32::MAX as u32).await?;
    let tx_ids = touched(&entries, pending);
    let names: Vec<_> = tx_ids.iter().map(TxId::as_str).collect();
    lock(all, &names).await?;
    let mut page = query::page(all, head, &names).await?;
    let sql = "SELECT * FROM submission_keys WHERE tx_id = ANY($1)";
    for row in query::many(all, sql, &[&names], query::key_row).await? {
        page.keys.load(row.tx_id.clone(), row);
    }
    Ok(Shown {
        page,
        violations: query::many(all, &all_but_lost(VIOLATIONS), &[], query::violation_row).await?,
        bans: query::many(all, &all_but_lost(BANS), &[], |row| {
            Ok((query::count(row, "id")?, query::ban_row(row)?))
        })
        .await?,
        accusations: query::many(all, &all_but_lost(ACCUSATIONS), &[], |row| {
            Ok((query::count(row, "id")?, query::accusation_row(row)?))
        })
        .await?,
        tx_ids,
    })
}

async fn write(all: &Transaction<'_>, shown: &Shown, aside: &Aside, past: &LostPast) -> Done {
    let sql = "INSERT INTO lost_pasts (id, found_at, parted_at, reached) VALUES ($1, $2, $3, $4)";
    let params: &[&(dyn ToSql + Sync)] = &[
        &past.id.cast_signed(),
        &Utc(past.found_at_ms),
        &Wide(past.parted_at),
        &Wide(past.reached),
    ];
    run(all, sql, params).await?;
    let rows: Vec<_> = aside.rows.iter().collect();
    let sql = "INSERT INTO lost_rows (past, of_table, row_key, tx_id, state, account, nonce,
                   row_json)
               SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[],
                   $5::text[], $6::text[], $7::numeric[], $8::jsonb[])";
    let params: &[&(dyn ToSql + Sync)] = &[
        &column(&rows, |row| row.past.cast_signed()),
        &column(&rows, |row| &*row.table),
        &column(&rows, |row| &*row.key),
        &column(&rows, |row| row.tx_id.as_ref().map(TxId::as_str)),
        &column(&rows, |row| row.state.map(SubmissionState::as_str)),
        &column(&rows, |row| {
            row.place.as_ref().map(|(account, _)| &**account)
        }),
        &column(&rows, |row| {
            row.place.as_ref().map(|(_, nonce)| Wide(*nonce))
        }),
        &column(&rows, |row| row.row.as_ref()),
    ];
    run(all, sql, params).await?;
    write::write(all, &shown.page).await?;
    for (id, lifted) in &aside.lifted {
        let sql = "UPDATE bans SET lifted_at = $2 WHERE id = $1";
        run(all, sql, &[&id.cast_signed(), &lifted.map(Utc)]).await?;
    }
    let sql = "DELETE FROM projected_entries WHERE revision > $1";
    run(all, sql, &[&Wide(past.parted_at)]).await
}

/// What lost pasts say of a transaction's submission.
pub(super) async fn submissions(
    client: &impl GenericClient,
    tx_id: &TxId,
) -> Result<Vec<LostSubmission>, AuditError> {
    let sql = submissions_of("$1");
    query::many(client, &sql, &[&tx_id.as_str()], |row| {
        Ok(LostSubmission {
            state: query::named(row, "state", SubmissionState::parse)?,
            place: place(row)?,
            taken: query::get(row, "taken")?,
        })
    })
    .await
}

fn place(row: &Row) -> Result<Option<(String, u64)>, AuditError> {
    let account: Option<String> = query::get(row, "account")?;
    Ok(account.zip(query::wide(row, "nonce")?))
}

pub(super) async fn losses(client: &impl GenericClient) -> Result<Losses, AuditError> {
    let pasts = "SELECT * FROM lost_pasts ORDER BY id";
    let pasts = query::many(client, pasts, &[], |row| {
        let Wide(parted_at) = query::get(row, "parted_at")?;
        let Wide(reached) = query::get(row, "reached")?;
        Ok(LostPast {
            id: query::count(row, "id")?,
            found_at_ms: query::utc(row, "found_at")?,
            parted_at,
            reached,
        })
    });
    let rows = "SELECT * FROM lost_rows ORDER BY id";
    let rows = query::many(client, rows, &[], |row| {
        let state = match query::get::<Option<&str>>(row, "state")? {
            None => None,
            Some(_) => Some(query::named(row, "state", SubmissionState::parse)?),
        };
        Ok(LostRow {
            past: query::count(row, "past")?,
            table: query::get(row, "of_table")?,
            key: query::get(row, "row_key")?,
            tx_id: query::tx(row)?,
            state,
            place: place(row)?,
            row: query::get(row, "row_json")?,
        })
    });
    let (pasts, rows) = tokio::try_join!(pasts, rows)?;
    Ok(Losses { pasts, rows })
}
