//! The tables, as versioned migrations; and what a node's role may do with them.

use tokio_postgres::Transaction;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use super::away;
use crate::lineage::Lineage;
use crate::mark;
use crate::seal::Head;
use crate::store::AuditError;

/// One script per version; what was released is never edited, only added to.
const MIGRATIONS: &[&str] = &[include_str!("V1.sql"), include_str!("V2.sql")];

/// "Quorate" in bytes: an advisory lock of this number is held while the tables are
/// made, so that of many processes that start at once one makes them.
const LOCK: i64 = 0x0051_756f_7261_7465;

/// What a role may do that projects and answers engines. Not among it: to change or
/// delete a violation, an accusation or a signed variant, and to make tables.
const GRANTS: &[(&str, &str)] = &[
    ("audit_schema", "SELECT"),
    ("audit_cursor", "SELECT, INSERT, UPDATE"),
    ("projector_lease", "SELECT, INSERT, UPDATE"),
    ("blockchain_submissions", "SELECT, INSERT, UPDATE, DELETE"),
    ("blockchain_submissions_archive", "SELECT, INSERT, DELETE"),
    ("submission_variants", "SELECT, INSERT"),
    ("submission_keys", "SELECT, INSERT, UPDATE, DELETE"),
    ("byzantine_violations", "SELECT, INSERT"),
    ("vote_history", "SELECT, INSERT, UPDATE, DELETE"),
    ("vote_history_archive", "SELECT, INSERT"),
    ("node_reputation", "SELECT, INSERT, UPDATE"),
    ("reputation_scores", "SELECT"),
    ("accusations", "SELECT, INSERT"),
    ("bans", "SELECT, INSERT"),
    ("decisions", "SELECT, INSERT, UPDATE, DELETE"),
    ("projected_entries", "SELECT, INSERT, DELETE"),
    ("lost_pasts", "SELECT, INSERT"),
    ("lost_rows", "SELECT, INSERT"),
];

/// Brings the tables to the newest version, all or nothing, and gives that version.
pub(super) async fn migrate(all: &Transaction<'_>) -> Result<u32, AuditError> {
    apply(all, MIGRATIONS).await
}

async fn apply(all: &Transaction<'_>, migrations: &[&str]) -> Result<u32, AuditError> {
    let known = migrations.len() as u32;
    let mut found = version(all).await?;
    if found < known {
        all.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK])
            .await
            .map_err(away)?;
        // Somebody else may have been faster.
        found = version(all).await?;
    }
    if found > known {
        return Err(AuditError::NewerSchema { found, known });
    }
    if found == known {
        return Ok(known);
    }
    let refused = |error: tokio_postgres::Error| match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => AuditError::OldSchema { found, known },
        _ => away(error),
    };
    if found == 0 {
        let sql = "CREATE TABLE audit_schema (
                       only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
                       version INTEGER NOT NULL);
                   INSERT INTO audit_schema VALUES (1, 0)";
        all.batch_execute(sql).await.map_err(refused)?;
    }
    for script in migrations.iter().skip(found as usize) {
        all.batch_execute(script).await.map_err(refused)?;
    }
    let version = known.cast_signed();
    all.execute("UPDATE audit_schema SET version = $1", &[&version])
        .await
        .map_err(refused)?;
    tracing::info!(from = found, to = known, "audit.schema_migrated");
    Ok(known)
}

async fn version(all: &Transaction<'_>) -> Result<u32, AuditError> {
    // Not by to_regclass: that remembers from before the lock that there is none.
    let sql = "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_class
                   WHERE relname = 'audit_schema' AND pg_table_is_visible(oid))";
    let there: bool = all.query_one(sql, &[]).await.map_err(away)?.get(0);
    if !there {
        return Ok(0);
    }
    let sql = "SELECT version FROM audit_schema";
    let row = all.query_opt(sql, &[]).await.map_err(away)?;
    Ok(row.map_or(0, |row| row.get::<_, i32>(0).cast_unsigned()))
}

/// Lets a role do what a node does, and no more.
pub(super) async fn grant(all: &Transaction<'_>, role: &str) -> Result<(), AuditError> {
    let role = format!("\"{}\"", role.replace('"', "\"\""));
    for (table, rights) in GRANTS {
        let sql = format!(
            "REVOKE ALL ON {table} FROM {role}, PUBLIC; GRANT {rights} ON {table} TO {role}"
        );
        all.batch_execute(&sql).await.map_err(away)?;
    }
    // To say when a ban was lifted.
    let sql = format!("GRANT UPDATE (lifted_at) ON bans TO {role}");
    all.batch_execute(&sql).await.map_err(away)
}

/// Binds the store to the cluster and gives every member its row. Writes only what is
/// not there: whoever may only read can open a store that is in use.
pub(super) async fn enrol(all: &Transaction<'_>, lineage: &Lineage) -> Result<(), AuditError> {
    let own = lineage.cluster_id();
    let cluster = "SELECT cluster_id FROM audit_cursor";
    let mut row = all.query_opt(cluster, &[]).await.map_err(away)?;
    if row.is_none() {
        let before = Head::before_all(own).hash;
        let sql = "INSERT INTO audit_cursor (only_row, revision, cluster_id, violations,
                       violations_hash, digest)
                   VALUES (1, 0, $1, 0, $2, $3) ON CONFLICT DO NOTHING";
        let digest = mark::first(own);
        let params: [&(dyn ToSql + Sync); 3] = [&&own.0[..], &&before[..], &&digest[..]];
        all.execute(sql, &params).await.map_err(away)?;
        row = all.query_opt(cluster, &[]).await.map_err(away)?;
    }
    let found: &[u8] = row.as_ref().map_or(&[], |row| row.get(0));
    if found != own.as_bytes() {
        let found = hex::encode(found);
        return Err(AuditError::OtherCluster { found, own });
    }
    let (peers, nodes): (Vec<_>, Vec<_>) = lineage
        .members()
        .map(|member| (member.peer_id.0.to_vec(), member.node_id.as_str()))
        .unzip();
    let missing = "SELECT EXISTS (SELECT unnest($1::bytea[]) EXCEPT
                       SELECT peer_id FROM node_reputation)";
    let row = all.query_one(missing, &[&peers]).await.map_err(away)?;
    if row.get(0) {
        let sql = "INSERT INTO node_reputation (peer_id, node_id, reputation_score)
                   SELECT peer_id, node_id, 1 FROM unnest($1::bytea[], $2::text[])
                       AS member (peer_id, node_id)
                   ON CONFLICT (peer_id) DO NOTHING";
        all.execute(sql, &[&peers, &nodes]).await.map_err(away)?;
    }
    Ok(())
}
