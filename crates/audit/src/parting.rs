//! When the board went on without its latest past: it was put back to an older copy,
//! and others wrote on (`quorate reconcile --accept-loss`). What was projected of the
//! lost past is then set aside, never deleted, and the log is projected on from where
//! the two part.
//!
//! What is set aside still counts at the fences of a submission, for what was
//! reserved in a lost past may have been sent, and the chain forgets nothing.

use std::collections::{BTreeMap, BTreeSet};

use quorate_consensus::TxId;
use quorate_consensus::wire::board_event::Event;
use quorate_consensus::wire::{BoardEntry, Reservation};

use crate::change::Batch;
use crate::lineage::Lineage;
use crate::mark::{self, Mark};
use crate::page::Page;
use crate::rows::{ReputationRow, SubmissionState};
use crate::store::AuditStore;
use crate::verify::VerifyError;

/// Digests read at once.
const CHUNK: u32 = 4096;

/// A past that was lost: a row of `lost_pasts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostPast {
    /// 1 for the first.
    pub id: u64,
    /// When its rows were set aside: milliseconds since the Unix epoch.
    pub found_at_ms: u64,
    /// The last revision that the log has, too.
    pub parted_at: u64,
    /// The last revision of it that was projected.
    pub reached: u64,
}

/// What was set aside: a row of `lost_rows`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostRow {
    /// The [`LostPast`] that it is of.
    pub past: u64,
    /// The table in which it was, or still is.
    pub table: String,
    /// Which row of it: a tx_id, a tx_id and a node_id, a peer_id, or a number.
    pub key: String,
    /// The transaction that it is about, if about one.
    pub tx_id: Option<TxId>,
    /// The state that it shows: of a submission, or how a transaction ended.
    pub state: Option<SubmissionState>,
    /// Account and nonce of a reservation that the log does not have.
    pub place: Option<(String, u64)>,
    /// The row as it was, with bytes in hexadecimal; none where it lies in its table
    /// still.
    pub row: Option<serde_json::Value>,
}

/// Where a store's past and the log part, and what the store showed there.
#[derive(Debug)]
pub struct Parting {
    /// Where the store stands.
    pub(crate) found: Mark,
    /// The last revision that both have.
    pub(crate) last: Mark,
    /// The rows that the log gives up to there.
    pub(crate) page: Page,
    /// What the log reserves after it: the first reservation of each transaction.
    pub(crate) ahead: BTreeMap<TxId, Reservation>,
}

impl Parting {
    /// The past that is lost by it.
    pub(crate) fn past(&self, now_ms: u64) -> LostPast {
        LostPast {
            id: self.found.past + 1,
            found_at_ms: now_ms,
            parted_at: self.last.revision,
            reached: self.found.revision,
        }
    }

    /// The last revision that the store's past and the log both have.
    pub fn parted_at(&self) -> u64 {
        self.last.revision
    }
}

/// Finds out whether a store is a projection of another log than the one that `log`
/// gives, some entries after a revision, none at its end; they must be entries that the
/// caller believes. None when what was projected is in the log. Holds all rows that the
/// log gives in memory.
///
/// # Errors
/// [`VerifyError`] when it cannot be told.
pub async fn find<Read>(
    store: &dyn AuditStore,
    mut log: impl FnMut(u64) -> Read,
) -> Result<Option<Parting>, VerifyError>
where
    Read: Future<Output = Result<Vec<BoardEntry>, String>>,
{
    let lineage = store.lineage();
    let found = store.mark().await?;
    let Some(last) = last_common(store, lineage, &found, &mut log).await? else {
        return Ok(None);
    };
    let mut page = Page::of_new_store(lineage.cluster_id());
    for member in lineage.members() {
        let row = ReputationRow {
            peer_id: member.peer_id,
            node_id: member.node_id.clone(),
            thousandths: 1000,
            total_votes: 0,
            violations_count: 0,
            banned: false,
            last_seen_ms: None,
        };
        page.members.load(member.peer_id, row);
    }
    let mut ahead = BTreeMap::new();
    let mut after = 0;
    loop {
        let mut entries = log(after).await.map_err(VerifyError::Log)?;
        let common = entries.partition_point(|entry| entry.revision <= last.revision);
        let rest = entries.split_off(common);
        if let Some(end) = entries.last() {
            let batch = Batch::new(after, &entries, lineage)?;
            after = end.revision;
            batch.carry_out(&mut page)?;
        }
        let Some(end) = rest.last() else {
            if common == 0 {
                break;
            }
            continue;
        };
        after = end.revision;
        for event in rest.iter().flat_map(|entry| &entry.events) {
            if let (Some(Event::Reserved(reserved)), Ok(tx_id)) =
                (&event.event, TxId::new(&event.tx_id))
                && let Some(reservation) = &reserved.reservation
            {
                ahead.entry(tx_id).or_insert_with(|| reservation.clone());
            }
        }
    }
    Ok(Some(Parting {
        found,
        last,
        page,
        ahead,
    }))
}

/// The last revision that the store's past and the log have both, unless that is where
/// the store stands or the log ends.
async fn last_common<Read>(
    store: &dyn AuditStore,
    lineage: &Lineage,
    found: &Mark,
    log: &mut impl FnMut(u64) -> Read,
) -> Result<Option<Mark>, VerifyError>
where
    Read: Future<Output = Result<Vec<BoardEntry>, String>>,
{
    let mut digest = mark::first(lineage.cluster_id());
    let mut last = Mark::of(0, digest);
    let mut known: BTreeMap<u64, [u8; 32]> = BTreeMap::new();
    let mut asked = 0;
    loop {
        let entries = log(last.revision).await.map_err(VerifyError::Log)?;
        if entries.is_empty() {
            return Ok(None);
        }
        for entry in entries {
            if last.revision >= found.revision {
                return Ok(None);
            }
            if entry.revision > asked {
                known = store
                    .digests(last.revision, CHUNK)
                    .await?
                    .into_iter()
                    .collect();
                // Those that are missing up to the last one are not known at all.
                asked = known
                    .last_key_value()
                    .map_or(u64::MAX, |(revision, _)| *revision);
            }
            digest = mark::next(&digest, &entry);
            let other = known.get(&entry.revision);
            if other.is_some_and(|other| *other != digest) {
                return Ok(Some(last));
            }
            last = Mark::of(entry.revision, digest);
        }
    }
}

/// What was lost, past by past, as a store keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Every past that was lost, oldest first.
    pub pasts: Vec<LostPast>,
    /// What was set aside, in that order.
    pub rows: Vec<LostRow>,
}

impl Losses {
    /// The numbers of the violations that are of a lost past.
    pub(crate) fn violations(&self) -> BTreeSet<u64> {
        let rows = self.rows.iter().filter(|row| row.table == VIOLATIONS);
        rows.filter_map(|row| row.key.parse().ok()).collect()
    }

    /// Whether a lost past says that a transaction ended so.
    pub(crate) fn ended(&self, tx_id: &TxId, state: SubmissionState) -> bool {
        self.rows.iter().any(|row| {
            row.table == KEYS && row.tx_id.as_ref() == Some(tx_id) && row.state == Some(state)
        })
    }

    /// Submissions and ends that the board has lost: what people have to look at.
    pub fn submissions(&self) -> impl Iterator<Item = &LostRow> {
        let tables = [SUBMISSIONS, KEYS];
        self.rows
            .iter()
            .filter(move |row| tables.contains(&&*row.table))
    }
}

/// Says in SQL, as both databases understand it, that a row of a table which is numbered by
/// its column id is of a lost past.
pub(crate) fn is_lost(table: &str) -> String {
    format!(
        "EXISTS (SELECT 1 FROM lost_rows WHERE lost_rows.of_table = '{table}'
             AND lost_rows.row_key = CAST({table}.id AS TEXT))"
    )
}

/// Asks in SQL for all such rows that are of no lost past.
pub(crate) fn all_but_lost(table: &str) -> String {
    format!(
        "SELECT * FROM {table} WHERE NOT {} ORDER BY id",
        is_lost(table)
    )
}

/// Asks in SQL for what lost pasts say of a transaction's submission; `tx_id` is the
/// parameter that names it.
pub(crate) fn submissions_of(tx_id: &str) -> String {
    format!(
        "SELECT state, account, nonce, EXISTS (
             SELECT 1 FROM blockchain_submissions AS now WHERE now.account = lost.account
                 AND now.nonce = lost.nonce AND now.state = 'CONFIRMED'
             UNION ALL SELECT 1 FROM blockchain_submissions_archive AS now
             WHERE now.account = lost.account AND now.nonce = lost.nonce
                 AND now.state = 'CONFIRMED') AS taken
         FROM lost_rows AS lost
         WHERE tx_id = {tx_id} AND of_table = '{SUBMISSIONS}'
             AND (account IS NOT NULL OR state LIKE 'ABORTED_%')"
    )
}

pub(crate) const VIOLATIONS: &str = "byzantine_violations";
pub(crate) const DECISIONS: &str = "decisions";
pub(crate) const SUBMISSIONS: &str = "blockchain_submissions";
pub(crate) const KEYS: &str = "submission_keys";
pub(crate) const VOTES: &str = "vote_history";
pub(crate) const MEMBERS: &str = "node_reputation";
pub(crate) const BANS: &str = "bans";
pub(crate) const ACCUSATIONS: &str = "accusations";
