//! Walks the ledger from its genesis and computes every hash anew.

use std::collections::BTreeMap;

use rusqlite::{Connection, Statement};

use super::store::{Identity, NO_PARENT, Wide, block_hash};
use super::transaction::{Transaction, hash, is_tagged};
use crate::api::ChainError;
use crate::key::ChainKey;

/// The latest block of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its height.
    pub number: u64,
    /// Its hash.
    pub hash: Vec<u8>,
}

/// A row of `blocks`.
struct BlockRow {
    number: i64,
    hash: Vec<u8>,
    parent: Vec<u8>,
    fork: i64,
}

/// A row of `transactions`.
struct TransactionRow {
    position: i64,
    tx_hash: Vec<u8>,
    account: String,
    nonce: u64,
    payload: Vec<u8>,
    succeeded: bool,
    raw: Vec<u8>,
}

/// Checks every block; with the key, every transaction's tag too.
pub(super) fn verify(
    connection: &Connection,
    identity: &Identity,
    key: Option<&ChainKey>,
) -> Result<Head, ChainError> {
    let mut blocks = connection
        .prepare("SELECT number, hash, parent, fork FROM blocks ORDER BY number")
        .map_err(super::away)?;
    let mut inside = connection
        .prepare(
            "SELECT position, tx_hash, account, nonce, payload, succeeded, raw
             FROM transactions WHERE block = ?1 ORDER BY position",
        )
        .map_err(super::away)?;
    let rows = blocks
        .query_map([], |row| {
            Ok(BlockRow {
                number: row.get(0)?,
                hash: row.get(1)?,
                parent: row.get(2)?,
                fork: row.get(3)?,
            })
        })
        .map_err(super::away)?;

    let mut next_nonces = BTreeMap::new();
    let mut parent = NO_PARENT.to_vec();
    let (mut number, mut count) = (0, 0);
    for row in rows {
        let row = row.map_err(super::away)?;
        let tampered = |reason: &str| ChainError::Tampered {
            block: u64::try_from(number).unwrap_or_default(),
            reason: reason.into(),
        };
        if row.number != number {
            return Err(tampered("it is missing"));
        }
        if row.parent != parent {
            return Err(tampered("it does not follow the block before it"));
        }
        let transactions = read(&mut inside, number).map_err(super::away)?;
        for (position, transaction) in (0..).zip(&transactions) {
            if transaction.position != position {
                return Err(tampered("a transaction is missing"));
            }
            check(transaction, identity, key, &mut next_nonces).map_err(tampered)?;
        }
        count += transactions.len();
        let found = transactions.iter().map(|t| (&*t.tx_hash, t.succeeded));
        let expected = block_hash(identity, number, row.fork, &row.parent, found);
        if row.hash != expected {
            return Err(tampered("its hash is not that of what it holds"));
        }
        parent = row.hash;
        number += 1;
    }
    let stray = |reason: &str| ChainError::Tampered {
        block: u64::try_from(number).unwrap_or_default(),
        reason: reason.into(),
    };
    if number == 0 {
        return Err(stray("the genesis is missing"));
    }
    let all: i64 = connection
        .query_row("SELECT count(*) FROM transactions", [], |row| row.get(0))
        .map_err(super::away)?;
    if usize::try_from(all).ok() != Some(count) {
        return Err(stray("there are transactions of a block that is not there"));
    }
    Ok(Head {
        number: u64::try_from(number - 1).unwrap_or_default(),
        hash: parent,
    })
}

fn read(inside: &mut Statement<'_>, number: i64) -> rusqlite::Result<Vec<TransactionRow>> {
    inside
        .query_map([number], |row| {
            let Wide(nonce) = row.get(3)?;
            Ok(TransactionRow {
                position: row.get(0)?,
                tx_hash: row.get(1)?,
                account: row.get(2)?,
                nonce,
                payload: row.get(4)?,
                succeeded: row.get(5)?,
                raw: row.get(6)?,
            })
        })?
        .collect()
}

/// Checks that the columns say what the signed bytes say, and that the account's nonces
/// follow each other.
fn check(
    row: &TransactionRow,
    identity: &Identity,
    key: Option<&ChainKey>,
    next_nonces: &mut BTreeMap<String, Option<u64>>,
) -> Result<(), &'static str> {
    let Some(signed) = Transaction::decode(&row.raw) else {
        return Err("it holds bytes that are no transaction");
    };
    if signed.chain_id != identity.chain_id {
        return Err("it holds a transaction of another chain");
    }
    if key.is_some_and(|key| !is_tagged(&row.raw, key)) {
        return Err("it holds a transaction that the chain key did not sign");
    }
    let same =
        (&signed.account, signed.nonce, &signed.payload) == (&row.account, row.nonce, &row.payload);
    if row.tx_hash != hash(&row.raw) || !same {
        return Err("a transaction does not say what was signed");
    }
    let next = next_nonces
        .entry(signed.account)
        .or_insert(Some(identity.first_nonce));
    if *next != Some(signed.nonce) {
        return Err("an account's nonces do not follow each other");
    }
    *next = signed.nonce.checked_add(1);
    Ok(())
}
