//! Does the audit store say what the board's log says? Who may write to the database
//! can edit, remove and invent rows; here that comes out: the violations are sealed
//! one by the other ([`seal`](mod@crate::seal)), and they, the decisions, the
//! certificates and the submissions are compared with what the log gives.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use quorate_consensus::TxId;
use quorate_consensus::ballot::state_name;
use quorate_consensus::wire::BoardEntry;
use quorate_consensus::wire::board_event::Event;

use crate::aside::said;
use crate::change::Batch;
use crate::lineage::Lineage;
use crate::mark::{self, Mark};
use crate::page::Page;
use crate::parting::{DECISIONS, KEYS, Losses, SUBMISSIONS, VIOLATIONS};
use crate::rows::{DecisionRow, Filter, SubmissionRow, SubmissionState, ViolationRow};
use crate::seal::{Head, seal};
use crate::store::{AuditError, AuditStore};

/// What is wrong with one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingKind {
    /// It differs from what the log says, or from its seal.
    Edited,
    /// It is not there, and must be.
    Removed,
    /// It is there, and nothing in the log explains it.
    Inserted,
}

impl FindingKind {
    /// "edited", "removed", "inserted".
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Edited => "edited",
            Self::Removed => "removed",
            Self::Inserted => "inserted",
        }
    }
}

/// One row that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// What is wrong.
    pub kind: FindingKind,
    /// In which table.
    pub table: &'static str,
    /// The row: its tx_id, or for a violation its number.
    pub row: String,
    /// More about it, for people.
    pub why: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            table,
            row,
            why,
        } = self;
        write!(f, "{} row of {table}, {row}: {why}", kind.as_str())
    }
}

/// What was compared, and how it came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The board's revision up to which the store was compared: its cursor.
    pub revision: u64,
    /// The log's last revision: what comes after `revision` is not projected yet.
    pub head: u64,
    /// Violations that the log gives.
    pub violations: u64,
    /// Transactions that the log gives a decision or a submission for.
    pub transactions: u64,
    /// What is wrong; empty when all is well.
    pub findings: Vec<Finding>,
    /// What was set aside because the board has lost it: not wrong, and not in the log.
    pub losses: Losses,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The audit store.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The board's log cannot be read.
    #[error("the board's log: {0}")]
    Log(String),
    /// The store has seen more of the log than there is.
    #[error(
        "the audit store stands at revision {cursor}, and the board's log ends at {head}: the log is an older one, or another"
    )]
    LogEnds {
        /// The store's cursor.
        cursor: u64,
        /// The log's last revision.
        head: u64,
    },
    /// What the store has projected is not in the log.
    #[error(
        "the audit store stands at revision {cursor} of a past that the board's log does not have: a node that runs sets that aside; repeat it then"
    )]
    OtherPast {
        /// The store's cursor.
        cursor: u64,
    },
}

/// So often rows that differ are looked at again while the projection goes on.
const PASSES: usize = 20;

/// Compares a store with the board's log, of which `log` gives some entries after a
/// revision, none at its end. They must be entries that the caller believes. While
/// somebody projects, what differs is looked at again.
///
/// # Errors
/// [`VerifyError`] when it cannot be told.
pub async fn verify(
    store: &dyn AuditStore,
    lineage: &Lineage,
    mut log: impl AsyncFnMut(u64) -> Result<Vec<BoardEntry>, String>,
) -> Result<Report, VerifyError> {
    let mut expected = Expected {
        page: Page::of_new_store(lineage.cluster_id()),
        reached: 0,
        digest: mark::first(lineage.cluster_id()),
    };
    let mut only = None;
    let mut passes = 0;
    loop {
        passes += 1;
        let mark = store.mark().await?;
        let cursor = mark.revision;
        while expected.reached < cursor {
            let mut entries = log(expected.reached).await.map_err(VerifyError::Log)?;
            entries.retain(|entry| entry.revision <= cursor);
            if entries.is_empty() {
                let head = expected.reached;
                return Err(VerifyError::LogEnds { cursor, head });
            }
            expected.read(&entries, lineage)?;
        }
        if Mark::of(expected.reached, expected.digest).contradicts(&mark) {
            return Err(VerifyError::OtherPast { cursor });
        }
        let losses = store.losses().await?;
        let mut findings = expected
            .compare(store, lineage, &losses, only.as_ref())
            .await?;
        lost_pasts(&mark, &losses, &mut findings);
        let moved = store.mark().await? != mark;
        if findings.is_empty() || !moved || passes == PASSES {
            let (head, reserved) = rest(cursor, &mut log).await?;
            findings.retain(|finding| {
                let new = finding.kind == FindingKind::Inserted && finding.table == SUBMISSIONS;
                !new || !reserved.contains(&finding.row)
            });
            findings.sort();
            return Ok(Report {
                revision: cursor,
                head,
                violations: expected.page.violations.len() as u64,
                transactions: expected.tx_ids().len() as u64,
                findings,
                losses,
            });
        }
        only = Some(findings.into_iter().map(|finding| finding.row).collect());
    }
}

/// What follows in the log: its last revision, and what was reserved. An engine writes
/// a PENDING row when its reservation is on the board, which may be before the
/// projection comes to it.
async fn rest(
    mut after: u64,
    log: &mut impl AsyncFnMut(u64) -> Result<Vec<BoardEntry>, String>,
) -> Result<(u64, BTreeSet<String>), VerifyError> {
    let mut reserved = BTreeSet::new();
    loop {
        let entries = log(after).await.map_err(VerifyError::Log)?;
        let Some(last) = entries.last() else {
            return Ok((after, reserved));
        };
        after = last.revision;
        let events = entries.into_iter().flat_map(|entry| entry.events);
        let reservations = events.filter(|it| matches!(it.event, Some(Event::Reserved(_))));
        reserved.extend(reservations.map(|event| event.tx_id));
    }
}

/// The store says how many pasts were lost; each has its row.
fn lost_pasts(mark: &Mark, losses: &Losses, findings: &mut Vec<Finding>) {
    let there: BTreeSet<_> = losses.pasts.iter().map(|past| past.id).collect();
    for id in (1..=mark.past).filter(|id| !there.contains(id)) {
        findings.push(Finding {
            kind: FindingKind::Removed,
            table: "lost_pasts",
            row: id.to_string(),
            why: "its number is missing".to_owned(),
        });
    }
}

/// What a store must show that has projected the log up to a revision.
struct Expected {
    page: Page,
    reached: u64,
    /// Over the log up to there.
    digest: [u8; 32],
}

impl Expected {
    fn read(&mut self, entries: &[BoardEntry], lineage: &Lineage) -> Result<(), AuditError> {
        let batch = Batch::new(self.reached, entries, lineage)?;
        self.reached = batch.reached;
        if let Some(last) = batch.marked(Some(self.digest)).last() {
            self.digest = last.digest;
        }
        batch.carry_out(&mut self.page)
    }

    fn tx_ids(&self) -> BTreeSet<&TxId> {
        let decisions = self.page.decisions.rows().map(|row| &row.tx_id);
        decisions
            .chain(self.page.submissions.rows().map(|row| &row.tx_id))
            .collect()
    }

    async fn compare(
        &self,
        store: &dyn AuditStore,
        lineage: &Lineage,
        losses: &Losses,
        only: Option<&BTreeSet<String>>,
    ) -> Result<Vec<Finding>, AuditError> {
        let mut out = Findings(Vec::new());
        let (head, rows) = (
            store.head().await?,
            store.violations(&Filter::default()).await?,
        );
        out.seals(Head::before_all(lineage.cluster_id()), head, &rows);
        out.violations(&self.page.violations, &rows, &losses.violations());
        let wanted = |tx_id: &TxId| only.is_none_or(|only| only.contains(tx_id.as_str()));
        for tx_id in self.tx_ids().into_iter().filter(|tx_id| wanted(tx_id)) {
            let found = store.decision(tx_id).await?;
            out.decision(tx_id, self.page.decisions.row(tx_id), found);
            let found = store.submission(tx_id).await?;
            out.submission(tx_id, self.page.submissions.row(tx_id), found);
        }
        for row in store.submissions(None, i32::MAX as u32).await? {
            if wanted(&row.tx_id) && self.page.submissions.row(&row.tx_id).is_none() {
                out.submission(&row.tx_id.clone(), None, Some(row));
            }
        }
        self.compare_keys(store, losses, &wanted, &mut out).await?;
        Ok(out.0)
    }

    async fn compare_keys(
        &self,
        store: &dyn AuditStore,
        losses: &Losses,
        wanted: &(dyn Fn(&TxId) -> bool + Sync),
        out: &mut Findings,
    ) -> Result<(), AuditError> {
        let mut missing: BTreeMap<_, _> = self
            .page
            .keys
            .rows()
            .map(|row| (&row.tx_id, row.final_state))
            .collect();
        let mut after: Option<TxId> = None;
        loop {
            let page = store.final_states(after.as_ref(), 1000).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (tx_id, state) in page {
                let found = state_name(state);
                match missing.remove(&tx_id).filter(|_| wanted(&tx_id)) {
                    None if !wanted(&tx_id) => {}
                    // How something ended is never forgotten.
                    None if SubmissionState::of(state)
                        .is_some_and(|state| losses.ended(&tx_id, state)) => {}
                    None => out.add(
                        FindingKind::Inserted,
                        KEYS,
                        &tx_id,
                        format!("it says {found}, and the log knows no end"),
                    ),
                    Some(expected) if expected.ballot_state() == state => {}
                    Some(expected) => out.add(
                        FindingKind::Edited,
                        KEYS,
                        &tx_id,
                        format!("it says {found}, and the log {}", expected.as_str()),
                    ),
                }
            }
        }
        for (tx_id, state) in missing.into_iter().filter(|(tx_id, _)| wanted(tx_id)) {
            let why = format!("the log says {}", state.as_str());
            out.add(FindingKind::Removed, KEYS, tx_id, why);
        }
        Ok(())
    }
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(
        &mut self,
        kind: FindingKind,
        table: &'static str,
        row: &dyn fmt::Display,
        why: impl Into<String>,
    ) {
        let finding = Finding {
            kind,
            table,
            row: row.to_string(),
            why: why.into(),
        };
        // What the seals show, the log may show again.
        let same =
            |other: &Finding| (other.kind, other.table, &other.row) == (kind, table, &finding.row);
        if !self.0.iter().any(same) {
            self.0.push(finding);
        }
    }

    /// Follows the seals from the first row to the last.
    fn seals(&mut self, mut before: Head, last: Head, rows: &[ViolationRow]) {
        for row in rows {
            self.removed(before.id + 1, row.id);
            let follows = row.id == before.id + 1;
            if follows && row.hash != seal(&before.hash, row) {
                let why = "its hash is not over the row before and this one";
                self.add(FindingKind::Edited, VIOLATIONS, &row.id, why);
            }
            if row.id > last.id {
                let why = format!("the projection wrote {} rows", last.id);
                self.add(FindingKind::Inserted, VIOLATIONS, &row.id, why);
            }
            (before.id, before.hash) = (row.id, row.hash);
        }
        self.removed(before.id + 1, last.id + 1);
        if before.id == last.id && before.hash != last.hash {
            let why = "its hash is not the one that the projection kept";
            self.add(FindingKind::Edited, VIOLATIONS, &last.id, why);
        }
    }

    fn removed(&mut self, first: u64, end: u64) {
        for id in first..end {
            let why = "its number is missing";
            self.add(FindingKind::Removed, VIOLATIONS, &id, why);
        }
    }

    /// Compares with the log, number by number: those of lost pasts have theirs.
    fn violations(
        &mut self,
        expected: &[ViolationRow],
        found: &[ViolationRow],
        lost: &BTreeSet<u64>,
    ) {
        let found = found.iter().filter(|row| !lost.contains(&row.id));
        let mut found: BTreeMap<_, _> = found.map(|row| (row.id, row)).collect();
        let numbers = (1..).filter(|id| !lost.contains(id));
        for (row, id) in expected.iter().zip(numbers) {
            match found.remove(&id) {
                None => {
                    let why = format!("the log has it, against {}", row.node_id);
                    self.add(FindingKind::Removed, VIOLATIONS, &id, why);
                }
                Some(found) if said(found) == said(row) => {}
                Some(_) => {
                    let why = format!("the log says something else, against {}", row.node_id);
                    self.add(FindingKind::Edited, VIOLATIONS, &id, why);
                }
            }
        }
        for (id, row) in found {
            let why = format!("the log has none, against {}", row.node_id);
            self.add(FindingKind::Inserted, VIOLATIONS, &id, why);
        }
    }

    fn decision(
        &mut self,
        tx_id: &TxId,
        expected: Option<&DecisionRow>,
        found: Option<DecisionRow>,
    ) {
        let (expected, found) = match (expected, found) {
            (None, None) => return,
            (Some(_), None) => {
                let why = "the log gives a decision";
                return self.add(FindingKind::Removed, DECISIONS, tx_id, why);
            }
            (None, Some(_)) => {
                let why = "the log gives no decision";
                return self.add(FindingKind::Inserted, DECISIONS, tx_id, why);
            }
            (Some(expected), Some(found)) => (expected, found),
        };
        let mut wrong = Vec::new();
        let mut same = |equal: bool, column: &'static str| {
            if !equal {
                wrong.push(column);
            }
        };
        same(found.value == expected.value, "value");
        same(
            found.participating_nodes == expected.participating_nodes,
            "participating_nodes",
        );
        same(found.total_votes == expected.total_votes, "total_votes");
        let threshold = found.threshold_reached == expected.threshold_reached;
        same(threshold, "threshold_reached");
        same(found.certificate == expected.certificate, "certificate");
        self.columns(DECISIONS, tx_id, &wrong);
    }

    /// Not by what an engine writes beside the log: attempts, and the hash of what was
    /// signed, before the chain has it.
    fn submission(
        &mut self,
        tx_id: &TxId,
        expected: Option<&SubmissionRow>,
        found: Option<SubmissionRow>,
    ) {
        let (expected, found) = match (expected, found) {
            (None, None) => return,
            (Some(_), None) => {
                let why = "the log gives a submission or an end";
                return self.add(FindingKind::Removed, SUBMISSIONS, tx_id, why);
            }
            (None, Some(_)) => {
                let why = "no reservation and no end in the log explains it";
                return self.add(FindingKind::Inserted, SUBMISSIONS, tx_id, why);
            }
            (Some(expected), Some(found)) => (expected, found),
        };
        let mut wrong = Vec::new();
        let mut same = |equal: bool, column: &'static str| {
            if !equal {
                wrong.push(column);
            }
        };
        same(found.state == expected.state, "state");
        same(found.value == expected.value, "value");
        same(found.account == expected.account, "account");
        same(found.nonce == expected.nonce, "nonce");
        same(found.payload == expected.payload, "payload");
        let submitted = found.submitted_at_ms == expected.submitted_at_ms;
        same(submitted, "submitted_at");
        let confirmed = found.confirmed_at_ms == expected.confirmed_at_ms;
        same(confirmed, "confirmed_at");
        same(found.block_number == expected.block_number, "block_number");
        let pending = expected.state == SubmissionState::Pending;
        same(pending || found.tx_hash == expected.tx_hash, "tx_hash");
        self.columns(SUBMISSIONS, tx_id, &wrong);
    }

    fn columns(&mut self, table: &'static str, tx_id: &TxId, wrong: &[&'static str]) {
        if !wrong.is_empty() {
            let why = format!("not as the log says: {}", wrong.join(", "));
            self.add(FindingKind::Edited, table, tx_id, why);
        }
    }
}
