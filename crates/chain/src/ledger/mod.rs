//! The embedded ledger: for development and tests. Hash-chained blocks in one SQLite
//! file, which the nodes and processes of one machine may share; nonces count up per
//! account, as on Ethereum.
//!
//! A transaction goes into a block as soon as it comes, if its nonce is the account's
//! next one; else it waits. So that depth grows without a clock,
//! [`LedgerOptions::auto_blocks`] empty blocks follow each block with transactions,
//! and [`Ledger::tick`] makes one more.
//!
//! The file is trusted by who reads it. [`Ledger::verify_integrity`] finds what was
//! edited in it; it cannot know of blocks that were cut off at the end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use quorate_consensus::wire::{ChainTarget, Reservation};
use quorate_engine::{ChainAnswer, ChainAsk, SendOutcome};
use rusqlite::{
    Connection, ErrorCode, OptionalExtension, Transaction as Sql, TransactionBehavior, params,
};
use tokio::sync::Mutex;

use crate::api::{Block, Chain, ChainError};
use crate::faults::Faults;
use crate::key::ChainKey;

mod integrity;
mod store;
#[cfg(test)]
mod tests;
mod transaction;

pub use integrity::Head;
use store::{Identity, Wide};
use transaction::{Transaction, hash, is_tagged};

/// How long to wait while another process holds the file.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// What a ledger is, and how this handle uses it.
#[derive(Clone, Debug)]
pub struct LedgerOptions {
    /// The chain's name; all handles on one file must agree.
    pub chain_id: String,
    /// The nonce of every account's first transaction; all handles on one file must
    /// agree.
    pub first_nonce: u64,
    /// Empty blocks behind each block with transactions. 0 leaves a transaction at
    /// depth 1.
    pub auto_blocks: u32,
    /// The key that signs; without it this handle looks and cannot submit. All handles
    /// on one file that have one must have the same.
    pub key: Option<ChainKey>,
}

impl LedgerOptions {
    /// For the chain that the rules name: enough empty blocks that each transaction is
    /// as deep as they ask.
    pub fn for_target(target: &ChainTarget, key: Option<ChainKey>) -> Self {
        Self {
            chain_id: target.chain_id.clone(),
            first_nonce: target.first_nonce,
            auto_blocks: target.confirmations.saturating_sub(1),
            key,
        }
    }
}

/// A handle on the embedded ledger.
#[derive(Clone)]
pub struct Ledger {
    connection: Arc<Mutex<Connection>>,
    identity: Arc<Identity>,
    auto_blocks: u32,
    key: Option<ChainKey>,
    path: PathBuf,
    /// Told how far a sending is, before and after it is durable.
    #[cfg(test)]
    step: Option<Arc<dyn Fn(Step) + Send + Sync>>,
}

/// How far a sending is, for tests that stop it there.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Enqueued,
    Mined,
    Committed,
}

impl Ledger {
    /// Opens the ledger at `path`, and makes it if there is none.
    ///
    /// Blocks on the disk: in async code, call it where blocking is allowed.
    ///
    /// # Errors
    /// [`ChainError::OtherChain`], [`ChainError::Key`] when the ledger was made with
    /// another key, or [`ChainError::Unavailable`].
    pub fn open(path: impl AsRef<Path>, options: LedgerOptions) -> Result<Self, ChainError> {
        let path = path.as_ref();
        let mut connection = connect(path).map_err(|error| {
            ChainError::Unavailable(format!("{} cannot be opened: {error}", path.display()))
        })?;
        let identity = Identity {
            chain_id: options.chain_id,
            first_nonce: options.first_nonce,
        };
        found_or_make(&mut connection, &identity, options.key.as_ref())?;
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
            identity: Arc::new(identity),
            auto_blocks: options.auto_blocks,
            key: options.key,
            path: path.to_owned(),
            #[cfg(test)]
            step: None,
        })
    }

    /// Where the ledger lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes one block of what waits, an empty one if nothing does.
    ///
    /// # Errors
    /// [`ChainError::Unavailable`].
    pub async fn tick(&self) -> Result<(), ChainError> {
        self.mine(1).await
    }

    /// Walks the ledger from its genesis, computes every hash anew, and with the key
    /// checks every transaction's tag; gives the latest block.
    ///
    /// # Errors
    /// [`ChainError::Tampered`] names the first bad block; [`ChainError::Unavailable`].
    pub async fn verify_integrity(&self) -> Result<Head, ChainError> {
        let (identity, key) = (Arc::clone(&self.identity), self.key.clone());
        self.run(move |connection| {
            // One view of the file, whatever others append meanwhile.
            let all = connection.transaction().map_err(away)?;
            integrity::verify(&all, &identity, key.as_ref())
        })
        .await
    }

    /// Works with the connection where blocking is allowed. What has begun is finished
    /// even if nobody waits for it any more.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, ChainError> + Send + 'static,
    ) -> Result<T, ChainError> {
        let mut connection = Arc::clone(&self.connection).lock_owned().await;
        let done = tokio::task::spawn_blocking(move || work(&mut connection)).await;
        done.unwrap_or_else(|error| Err(ChainError::Unavailable(error.to_string())))
    }

    /// Changes the file in one transaction.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Sql<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ChainError> {
        self.run(move |connection| {
            let all = begin(connection)?;
            let made = change(&all).map_err(away)?;
            all.commit().map_err(away)?;
            Ok(made)
        })
        .await
    }

    fn prepare(&self, reservation: &Reservation, attempt: u32) -> ChainAnswer {
        let Some(key) = &self.key else {
            return no_key();
        };
        let transaction = Transaction {
            chain_id: self.identity.chain_id.clone(),
            account: reservation.account.clone(),
            nonce: reservation.nonce,
            attempt,
            payload: reservation.payload.clone(),
        };
        match transaction.sign(key) {
            Some(prepared) => ChainAnswer::Prepared(prepared),
            None => ChainAnswer::Unavailable(format!(
                "a transaction of more than {} bytes is refused",
                transaction::MAX_LEN
            )),
        }
    }

    async fn send(&self, raw: Vec<u8>) -> Result<ChainAnswer, ChainError> {
        let Some(key) = &self.key else {
            return Ok(no_key());
        };
        let refused = |why: &str| {
            let why = format!("the ledger refuses these bytes: {why}");
            Ok(ChainAnswer::Sent(SendOutcome::Unknown(why)))
        };
        let Some(transaction) = Transaction::decode(&raw) else {
            return refused("they are no transaction");
        };
        if transaction.chain_id != self.identity.chain_id {
            return refused("they are for another chain");
        }
        if !is_tagged(&raw, key) {
            return refused("the chain key did not sign them");
        }
        let (identity, auto_blocks) = (Arc::clone(&self.identity), self.auto_blocks);
        #[cfg(test)]
        let step = self.step.clone();
        let outcome = self
            .run(move |connection| {
                #[cfg(test)]
                let told = |now| step.iter().for_each(|step| step(now));
                let all = begin(connection)?;
                let outcome = store::enqueue(&all, &identity, &transaction, &hash(&raw), &raw)
                    .map_err(away)?;
                #[cfg(test)]
                told(Step::Enqueued);
                if outcome == SendOutcome::Accepted && !is_held(&all).map_err(away)? {
                    mine_all(&all, &identity, auto_blocks).map_err(away)?;
                }
                #[cfg(test)]
                told(Step::Mined);
                all.commit().map_err(away)?;
                #[cfg(test)]
                told(Step::Committed);
                Ok(outcome)
            })
            .await?;
        Ok(ChainAnswer::Sent(outcome))
    }
}

fn no_key() -> ChainAnswer {
    ChainAnswer::Unavailable("this node has no chain key: one that has it submits".into())
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_WAIT)?;
    // Turning the log on needs the whole file for a moment, and SQLite does not always
    // wait for that by itself.
    let begun = Instant::now();
    while let Err(error) = connection.pragma_update(None, "journal_mode", "WAL") {
        let busy = error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy);
        if !busy || begun.elapsed() > BUSY_WAIT {
            return Err(error);
        }
        thread::sleep(Duration::from_millis(10));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(connection)
}

fn begin(connection: &mut Connection) -> Result<Sql<'_>, ChainError> {
    connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(away)
}

/// Checks that the file is this chain's and has this key, or makes it so.
fn found_or_make(
    connection: &mut Connection,
    own: &Identity,
    key: Option<&ChainKey>,
) -> Result<(), ChainError> {
    let all = begin(connection)?;
    let version: u32 = all
        .query_row("SELECT user_version FROM pragma_user_version", [], |row| {
            row.get(0)
        })
        .map_err(away)?;
    match version {
        0 => all
            .execute_batch(store::SCHEMA)
            .and_then(|()| all.pragma_update(None, "user_version", store::VERSION))
            .map_err(away)?,
        store::VERSION => {}
        newer => {
            return Err(ChainError::Unavailable(format!(
                "the ledger has version {newer}; this software knows {}: upgrade it",
                store::VERSION
            )));
        }
    }
    // Tells the key without giving it away.
    let check = key.map(|key| key.tag(b"quorate.ledger.key.v1\0").as_bytes().to_vec());
    let found = all
        .query_row(
            "SELECT chain_id, first_nonce, key_check FROM ledger",
            [],
            |row| {
                let Wide(first_nonce) = row.get(1)?;
                let chain_id = row.get(0)?;
                let identity = Identity {
                    chain_id,
                    first_nonce,
                };
                Ok((identity, row.get::<_, Option<Vec<u8>>>(2)?))
            },
        )
        .optional()
        .map_err(away)?;
    match found {
        None => {
            all.execute(
                "INSERT INTO ledger (only_row, chain_id, first_nonce) VALUES (1, ?1, ?2)",
                params![own.chain_id, Wide(own.first_nonce)],
            )
            .and_then(|_| store::write_genesis(&all, own))
            .map_err(away)?;
        }
        Some((found, _)) if found != *own => {
            let name = |it: &Identity| format!("{}, first nonce {}", it.chain_id, it.first_nonce);
            return Err(ChainError::OtherChain {
                found: name(&found),
                expected: name(own),
            });
        }
        Some((_, Some(other))) if check.as_ref().is_some_and(|check| *check != other) => {
            return Err(ChainError::Key(
                "the ledger was made with another one".into(),
            ));
        }
        Some(_) => {}
    }
    if check.is_some() {
        all.execute("UPDATE ledger SET key_check = ?1", [check])
            .map_err(away)?;
    }
    all.commit().map_err(away)
}

fn is_held(all: &Sql<'_>) -> rusqlite::Result<bool> {
    all.query_row("SELECT held FROM ledger", [], |row| row.get(0))
}

/// A block of what may go in, and the empty ones behind it.
fn mine_all(all: &Sql<'_>, identity: &Identity, auto_blocks: u32) -> rusqlite::Result<()> {
    if store::mine(all, identity, false)? {
        for _ in 0..auto_blocks {
            store::mine(all, identity, true)?;
        }
    }
    Ok(())
}

fn away(error: rusqlite::Error) -> ChainError {
    ChainError::Unavailable(error.to_string())
}

#[async_trait]
impl Chain for Ledger {
    async fn ask(&self, ask: ChainAsk) -> ChainAnswer {
        let answer = match ask {
            ChainAsk::Look { account, nonce } => {
                let look = self
                    .run(move |connection| store::look(connection, &account, nonce).map_err(away));
                look.await.map(ChainAnswer::Seen)
            }
            ChainAsk::Prepare {
                reservation,
                attempt,
            } => Ok(self.prepare(&reservation, attempt)),
            ChainAsk::Send { raw } => self.send(raw).await,
        };
        answer.unwrap_or_else(|error| ChainAnswer::Unavailable(error.to_string()))
    }

    async fn recent_blocks(&self, limit: usize) -> Result<Vec<Block>, ChainError> {
        self.run(move |connection| store::recent(connection, limit).map_err(away))
            .await
    }

    fn kind(&self) -> &'static str {
        "ledger"
    }
}

#[async_trait]
impl Faults for Ledger {
    async fn hold(&self, hold: bool) -> Result<(), ChainError> {
        self.change(move |all| all.execute("UPDATE ledger SET held = ?1", [hold]).map(drop))
            .await
    }

    async fn mine(&self, blocks: u32) -> Result<(), ChainError> {
        let identity = Arc::clone(&self.identity);
        self.change(move |all| {
            for _ in 0..blocks {
                store::mine(all, &identity, true)?;
            }
            Ok(())
        })
        .await
    }

    async fn drop_waiting(&self) -> Result<(), ChainError> {
        self.change(|all| all.execute("DELETE FROM waiting", []).map(drop))
            .await
    }

    async fn reorganise(&self, depth: u32, keep: bool) -> Result<(), ChainError> {
        self.change(move |all| store::undo(all, depth, keep)).await
    }

    async fn take_nonce(
        &self,
        account: &str,
        nonce: u64,
        payload: &[u8],
    ) -> Result<(), ChainError> {
        let reservation = Reservation {
            account: account.into(),
            nonce,
            payload: payload.to_vec(),
        };
        // A stranger pays whatever it takes.
        let raw = match self.prepare(&reservation, u32::MAX) {
            ChainAnswer::Prepared(prepared) => prepared.raw,
            other => return Err(ChainError::Unavailable(format!("{other:?}"))),
        };
        match self.send(raw).await? {
            ChainAnswer::Sent(SendOutcome::Accepted) => Ok(()),
            other => Err(ChainError::Unavailable(format!("{other:?}"))),
        }
    }

    async fn revert_next(&self) -> Result<(), ChainError> {
        self.change(|all| {
            all.execute("UPDATE ledger SET revert_next = 1", [])
                .map(drop)
        })
        .await
    }
}
