//! Moves old rows to the archive.

use rusqlite::{Connection, params};

use super::away;
use super::columns::Utc;
use super::write::immediate;
use crate::archive::{Archived, Horizon, SUBMISSION_COLUMNS, VOTE_COLUMNS};
use crate::store::AuditError;

/// Old submissions, by ?1.
const SUBMISSIONS: &str =
    "FROM blockchain_submissions WHERE state = 'CONFIRMED' AND confirmed_at < ?1";

/// Old votes, by ?1: of transactions that have ended.
const VOTES: &str = "FROM vote_history WHERE received_at < ?1
    AND EXISTS (SELECT 1 FROM submission_keys WHERE submission_keys.tx_id = vote_history.tx_id)";

pub(super) fn archivable(
    connection: &Connection,
    horizon: Horizon,
) -> Result<Archived, AuditError> {
    let count = |which: &str, before: u64| {
        let sql = format!("SELECT count(*) {which}");
        let count = connection.query_row(&sql, [Utc(before)], |row| row.get::<_, i64>(0));
        count.map(i64::cast_unsigned).map_err(away)
    };
    Ok(Archived {
        submissions: count(SUBMISSIONS, horizon.confirmed_before_ms)?,
        votes: count(VOTES, horizon.voted_before_ms)?,
    })
}

pub(super) fn archive(
    connection: &mut Connection,
    horizon: Horizon,
    limit: u32,
) -> Result<Archived, AuditError> {
    let all = immediate(connection)?;
    let moved = |table: &str, which: &str, columns: &str, before: u64| {
        let old = format!("SELECT DISTINCT tx_id {which} ORDER BY tx_id LIMIT ?2");
        let before = Utc(before);
        let copy = format!(
            "INSERT INTO {table}_archive ({columns}) SELECT {columns} {which} AND tx_id IN ({old})"
        );
        all.execute(&copy, params![before, limit]).map_err(away)?;
        let delete = format!("DELETE {which} AND tx_id IN ({old})");
        let gone = all.execute(&delete, params![before, limit]);
        gone.map(|gone| gone as u64).map_err(away)
    };
    let submissions = moved(
        "blockchain_submissions",
        SUBMISSIONS,
        SUBMISSION_COLUMNS,
        horizon.confirmed_before_ms,
    )?;
    let votes = moved("vote_history", VOTES, VOTE_COLUMNS, horizon.voted_before_ms)?;
    all.commit().map_err(away)?;
    Ok(Archived { submissions, votes })
}
