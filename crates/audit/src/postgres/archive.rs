//! Moves old rows to the archive.

use deadpool_postgres::{Client, GenericClient, Transaction};

use super::columns::Utc;
use super::write::{begin, lock};
use super::{away, query};
use crate::archive::{Archived, Horizon, SUBMISSION_COLUMNS, VOTE_COLUMNS};
use crate::store::AuditError;

/// Old submissions, by $1.
const SUBMISSIONS: &str =
    "FROM blockchain_submissions WHERE state = 'CONFIRMED' AND confirmed_at < $1";

/// Old votes, by $1: of transactions that have ended.
const VOTES: &str = "FROM vote_history WHERE received_at < $1
    AND EXISTS (SELECT 1 FROM submission_keys WHERE submission_keys.tx_id = vote_history.tx_id)";

pub(super) async fn archivable(client: &Client, horizon: Horizon) -> Result<Archived, AuditError> {
    let count = async |which: &str, before: u64| {
        let sql = format!("SELECT count(*) {which}");
        let row = client.query_one(&sql, &[&Utc(before)]).await;
        row.map(|row| row.get::<_, i64>(0).cast_unsigned())
            .map_err(away)
    };
    Ok(Archived {
        submissions: count(SUBMISSIONS, horizon.confirmed_before_ms).await?,
        votes: count(VOTES, horizon.voted_before_ms).await?,
    })
}

pub(super) async fn archive(
    client: &mut Client,
    horizon: Horizon,
    limit: u32,
) -> Result<Archived, AuditError> {
    let all = begin(client).await?;
    let submissions = moved(
        &all,
        ("blockchain_submissions", SUBMISSIONS, SUBMISSION_COLUMNS),
        horizon.confirmed_before_ms,
        limit,
    )
    .await?;
    let votes = ("vote_history", VOTES, VOTE_COLUMNS);
    let votes = moved(&all, votes, horizon.voted_before_ms, limit).await?;
    all.commit().await.map_err(away)?;
    Ok(Archived { submissions, votes })
}

/// Moves the rows of one table, of at most `limit` transactions.
async fn moved(
    all: &Transaction<'_>,
    (table, which, columns): (&str, &str, &str),
    before: u64,
    limit: u32,
) -> Result<u64, AuditError> {
    let before = Utc(before);
    let sql = format!("SELECT DISTINCT tx_id {which} ORDER BY tx_id LIMIT $2");
    let rows = all.query(&sql, &[&before, &i64::from(limit)]).await;
    let rows = rows.map_err(away)?;
    let tx_ids: Vec<&str> = rows
        .iter()
        .map(|row| query::get(row, "tx_id"))
        .collect::<Result<_, _>>()?;
    // Whoever has one of these rows in his hands writes it first; then it is looked at
    // again.
    lock(all, &tx_ids).await?;
    let sql = format!(
        "WITH gone AS (DELETE {which} AND tx_id = ANY($2) RETURNING *)
         INSERT INTO {table}_archive ({columns}) SELECT {columns} FROM gone"
    );
    all.execute(&sql, &[&before, &tx_ids]).await.map_err(away)
}
