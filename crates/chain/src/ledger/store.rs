//! The ledger's file: blocks, the transactions in them, and those that wait.

use quorate_engine::{SendOutcome, Sighting};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Transaction as Sql, params};

use super::transaction::Transaction;
use crate::api::{Block, BlockTransaction};

/// `user_version` of the file.
pub(super) const VERSION: u32 = 1;

/// `nonce` and `first_nonce` are `u64`s as 20 decimal digits, for SQLite's own
/// integers end at 2^63 - 1.
pub(super) const SCHEMA: &str = "
CREATE TABLE ledger (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    chain_id TEXT NOT NULL,
    first_nonce TEXT NOT NULL CHECK (length(first_nonce) = 20),
    key_check BLOB,
    fork INTEGER NOT NULL DEFAULT 0,
    held INTEGER NOT NULL DEFAULT 0,
    revert_next INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE blocks (
    number INTEGER PRIMARY KEY NOT NULL,
    hash BLOB NOT NULL UNIQUE,
    parent BLOB NOT NULL,
    fork INTEGER NOT NULL
) STRICT;
CREATE TABLE transactions (
    block INTEGER NOT NULL REFERENCES blocks (number),
    position INTEGER NOT NULL,
    tx_hash BLOB NOT NULL UNIQUE,
    account TEXT NOT NULL,
    nonce TEXT NOT NULL CHECK (length(nonce) = 20),
    payload BLOB NOT NULL,
    succeeded INTEGER NOT NULL CHECK (succeeded IN (0, 1)),
    raw BLOB NOT NULL,
    PRIMARY KEY (block, position),
    UNIQUE (account, nonce)
) STRICT;
CREATE TABLE waiting (
    tx_hash BLOB PRIMARY KEY NOT NULL,
    account TEXT NOT NULL,
    nonce TEXT NOT NULL CHECK (length(nonce) = 20),
    attempt INTEGER NOT NULL,
    raw BLOB NOT NULL,
    UNIQUE (account, nonce)
) STRICT;
";

/// A `u64` as 20 decimal digits: exact, and sorted like the number.
pub(super) struct Wide(pub(super) u64);

impl ToSql for Wide {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(format!("{:020}", self.0).into())
    }
}

impl FromSql for Wide {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = value.as_str()?.parse();
        number.map(Self).map_err(|_| FromSqlError::InvalidType)
    }
}

/// What a ledger is, for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) chain_id: String,
    pub(super) first_nonce: u64,
}

/// The hash of a block.
pub(super) fn block_hash<'a>(
    identity: &Identity,
    number: i64,
    fork: i64,
    parent: &[u8],
    transactions: impl Iterator<Item = (&'a [u8], bool)>,
) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(b"quorate.ledger.block.v1\0")
        .update(&(identity.chain_id.len() as u64).to_be_bytes())
        .update(identity.chain_id.as_bytes())
        .update(&identity.first_nonce.to_be_bytes())
        .update(&number.to_be_bytes())
        .update(&fork.to_be_bytes())
        .update(&(parent.len() as u64).to_be_bytes())
        .update(parent);
    for (tx_hash, succeeded) in transactions {
        hasher.update(tx_hash).update(&[u8::from(succeeded)]);
    }
    hasher.finalize().as_bytes().to_vec()
}

/// The parent of the genesis.
pub(super) const NO_PARENT: [u8; 32] = [0; 32];

/// Writes block 0.
pub(super) fn write_genesis(all: &Sql<'_>, identity: &Identity) -> rusqlite::Result<()> {
    let hash = block_hash(identity, 0, 0, &NO_PARENT, std::iter::empty());
    all.execute(
        "INSERT INTO blocks (number, hash, parent, fork) VALUES (0, ?1, ?2, 0)",
        params![hash, NO_PARENT],
    )?;
    Ok(())
}

/// Height and hash of the latest block.
pub(super) fn head(connection: &Connection) -> rusqlite::Result<(i64, Vec<u8>)> {
    connection.query_row(
        "SELECT number, hash FROM blocks ORDER BY number DESC LIMIT 1",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
}

/// The nonce that the account's next transaction must have; none after the last one.
fn next_nonce(
    connection: &Connection,
    identity: &Identity,
    account: &str,
) -> rusqlite::Result<Option<u64>> {
    let last: Option<Wide> = connection.query_row(
        "SELECT max(nonce) FROM transactions WHERE account = ?1",
        [account],
        |row| row.get(0),
    )?;
    Ok(match last {
        None => Some(identity.first_nonce),
        Some(Wide(last)) => last.checked_add(1),
    })
}

/// What is there for (account, nonce).
pub(super) fn look(
    connection: &Connection,
    account: &str,
    nonce: u64,
) -> rusqlite::Result<Sighting> {
    let included = connection
        .query_row(
            "SELECT tx_hash, payload, succeeded, number, hash,
                 (SELECT max(number) FROM blocks) - number + 1
             FROM transactions JOIN blocks ON number = block
             WHERE account = ?1 AND nonce = ?2",
            params![account, Wide(nonce)],
            |row| {
                Ok(Sighting::Included {
                    tx_hash: row.get(0)?,
                    payload: row.get(1)?,
                    succeeded: row.get(2)?,
                    block_number: row.get::<_, i64>(3)?.unsigned_abs(),
                    block_hash: row.get(4)?,
                    depth: row.get::<_, i64>(5)?.unsigned_abs(),
                })
            },
        )
        .optional()?;
    if let Some(included) = included {
        return Ok(included);
    }
    let waiting: Option<(Vec<u8>, Vec<u8>)> = connection
        .query_row(
            "SELECT tx_hash, raw FROM waiting WHERE account = ?1 AND nonce = ?2",
            params![account, Wide(nonce)],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    Ok(match waiting {
        None => Sighting::Nothing,
        Some((tx_hash, raw)) => Sighting::Pending {
            tx_hash,
            payload: Transaction::decode(&raw).map_or_else(Vec::new, |found| found.payload),
        },
    })
}

/// Lets a transaction wait for a block, as a chain's pool does.
pub(super) fn enqueue(
    all: &Sql<'_>,
    identity: &Identity,
    transaction: &Transaction,
    tx_hash: &[u8],
    raw: &[u8],
) -> rusqlite::Result<SendOutcome> {
    let (account, nonce) = (&transaction.account, transaction.nonce);
    let next = next_nonce(all, identity, account)?;
    if next.is_none_or(|next| nonce < next) {
        return Ok(SendOutcome::NonceTooLow);
    }
    let other: Option<(Vec<u8>, u32)> = all
        .query_row(
            "SELECT tx_hash, attempt FROM waiting WHERE account = ?1 AND nonce = ?2",
            params![account, Wide(nonce)],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    match other {
        Some((known, _)) if known == tx_hash => return Ok(SendOutcome::Accepted),
        Some((_, attempt)) if transaction.attempt <= attempt => {
            return Ok(SendOutcome::Underpriced);
        }
        _ => {}
    }
    forget_waiting(all, account, nonce)?;
    all.execute(
        "INSERT INTO waiting (tx_hash, account, nonce, attempt, raw) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![tx_hash, account, Wide(nonce), transaction.attempt, raw],
    )?;
    Ok(SendOutcome::Accepted)
}

fn forget_waiting(all: &Sql<'_>, account: &str, nonce: u64) -> rusqlite::Result<()> {
    all.execute(
        "DELETE FROM waiting WHERE account = ?1 AND nonce = ?2",
        params![account, Wide(nonce)],
    )?;
    Ok(())
}

/// A transaction that may go into the next block.
struct Ready {
    tx_hash: Vec<u8>,
    signed: Transaction,
    raw: Vec<u8>,
}

/// The waiting transactions that may go into the next block, in order.
fn ready(all: &Sql<'_>, identity: &Identity) -> rusqlite::Result<Vec<Ready>> {
    let mut statement =
        all.prepare_cached("SELECT tx_hash, raw FROM waiting ORDER BY account, nonce")?;
    let waiting = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<Vec<(Vec<u8>, Vec<u8>)>>>()?;
    let mut ready: Vec<Ready> = Vec::new();
    for (tx_hash, raw) in waiting {
        let Some(signed) = Transaction::decode(&raw) else {
            continue;
        };
        let before = ready.last().map(|last| &last.signed);
        let next = match before.filter(|last| last.account == signed.account) {
            Some(last) => last.nonce.checked_add(1),
            None => next_nonce(all, identity, &signed.account)?,
        };
        if next == Some(signed.nonce) {
            ready.push(Ready {
                tx_hash,
                signed,
                raw,
            });
        }
    }
    Ok(ready)
}

/// Makes a block of what waits and may go in; with nothing to put in, an empty one if
/// `empty` is allowed. Whether it made one.
pub(super) fn mine(all: &Sql<'_>, identity: &Identity, empty: bool) -> rusqlite::Result<bool> {
    let ready = ready(all, identity)?;
    if ready.is_empty() && !empty {
        return Ok(false);
    }
    let (fork, mut revert): (i64, bool) =
        all.query_row("SELECT fork, revert_next FROM ledger", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let (last, parent) = head(all)?;
    let number = last + 1;
    let outcomes: Vec<bool> = ready.iter().map(|_| !std::mem::take(&mut revert)).collect();
    let included = ready.iter().map(|ready| &*ready.tx_hash);
    let included = included.zip(outcomes.iter().copied());
    let hash = block_hash(identity, number, fork, &parent, included);
    all.execute(
        "INSERT INTO blocks (number, hash, parent, fork) VALUES (?1, ?2, ?3, ?4)",
        params![number, hash, parent, fork],
    )?;
    for (position, (ready, succeeded)) in (0_i64..).zip(ready.iter().zip(outcomes)) {
        let signed = &ready.signed;
        forget_waiting(all, &signed.account, signed.nonce)?;
        all.execute(
            "INSERT INTO transactions (block, position, tx_hash, account, nonce, payload,
                 succeeded, raw)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                number,
                position,
                ready.tx_hash,
                signed.account,
                Wide(signed.nonce),
                signed.payload,
                succeeded,
                ready.raw,
            ],
        )?;
    }
    all.execute("UPDATE ledger SET revert_next = ?1", [revert])?;
    Ok(true)
}

/// Undoes the latest `depth` blocks, never the genesis. What was in them waits again,
/// or is gone.
pub(super) fn undo(all: &Sql<'_>, depth: u32, keep: bool) -> rusqlite::Result<()> {
    let (last, _) = head(all)?;
    let stays = (last - i64::from(depth)).max(0);
    if keep {
        let mut statement =
            all.prepare_cached("SELECT tx_hash, raw FROM transactions WHERE block > ?1")?;
        let undone = statement
            .query_map([stays], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<Vec<(Vec<u8>, Vec<u8>)>>>()?;
        for (tx_hash, raw) in undone {
            if let Some(found) = Transaction::decode(&raw) {
                all.execute(
                    "INSERT INTO waiting (tx_hash, account, nonce, attempt, raw)
                     VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
                    params![
                        tx_hash,
                        found.account,
                        Wide(found.nonce),
                        found.attempt,
                        raw
                    ],
                )?;
            }
        }
    }
    all.execute("DELETE FROM transactions WHERE block > ?1", [stays])?;
    all.execute("DELETE FROM blocks WHERE number > ?1", [stays])?;
    // So that the same transactions make another block.
    all.execute("UPDATE ledger SET fork = fork + 1", [])?;
    Ok(())
}

/// The latest blocks, newest first.
pub(super) fn recent(connection: &Connection, limit: usize) -> rusqlite::Result<Vec<Block>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut blocks = connection
        .prepare_cached("SELECT number, hash, parent FROM blocks ORDER BY number DESC LIMIT ?1")?;
    let mut transactions = connection.prepare_cached(
        "SELECT tx_hash, account, nonce, payload, succeeded FROM transactions
         WHERE block = ?1 ORDER BY position",
    )?;
    blocks
        .query_map([limit], |row| {
            let number: i64 = row.get(0)?;
            let found = transactions.query_map([number], |row| {
                let Wide(nonce) = row.get(2)?;
                Ok(BlockTransaction {
                    tx_hash: row.get(0)?,
                    account: row.get(1)?,
                    nonce,
                    payload: row.get(3)?,
                    succeeded: row.get(4)?,
                })
            })?;
            Ok(Block {
                number: number.unsigned_abs(),
                hash: row.get(1)?,
                parent: row.get(2)?,
                transactions: found.collect::<rusqlite::Result<_>>()?,
            })
        })?
        .collect()
}
