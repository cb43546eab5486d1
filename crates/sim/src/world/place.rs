//! A machine: the engine that runs on it, its disk, its clock.

use std::collections::BTreeMap;

use quorate_consensus::wire::SignedStatement;
use quorate_consensus::{Domain, NodeId, TxId};
use quorate_engine::{Alert, Durable, Engine, JournalEntry, Record};

use super::store::Handle;
use crate::liars::Liar;
use crate::plan::Disk;

/// What survives a crash: the journal.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    /// What an engine starts from.
    pub durable: Durable,
    /// What it looks up.
    pub entries: BTreeMap<TxId, JournalEntry>,
    /// Where members are reached.
    pub addresses: BTreeMap<NodeId, SignedStatement>,
}

impl Journal {
    /// Writes a record down. Errors name what no engine may ever ask for.
    fn write(&mut self, record: Record) -> Result<(), String> {
        match record {
            Record::Generation {
                generation,
                acknowledged,
            } => {
                self.durable.generation = generation;
                self.durable.acknowledged = acknowledged;
            }
            Record::Guard {
                tx_id,
                choice,
                statement,
            } => {
                let entry = self.entries.entry(tx_id.clone()).or_default();
                if let Some((first, _)) = &entry.guard
                    && *first != choice
                {
                    return Err(format!(
                        "the guard of {tx_id} goes from {first} to {choice}"
                    ));
                }
                entry.guard = Some((choice, statement));
            }
            Record::Verdict {
                tx_id,
                domain,
                statement,
            } => {
                let entry = self.entries.entry(tx_id.clone()).or_default();
                if let Some((first, _)) = &entry.verdict
                    && *first != domain
                {
                    return Err(format!(
                        "the verdict on {tx_id} goes from {first:?} to {domain:?}"
                    ));
                }
                entry.verdict = Some((domain, statement));
            }
            Record::Final { tx_id, state } => {
                self.entries.entry(tx_id).or_default().ended = Some(state);
            }
            Record::Address { node_id, signed } => {
                self.addresses.insert(node_id, signed);
            }
            Record::Seen { revision } => {
                let seen = self.durable.seen;
                if revision < seen {
                    return Err(format!(
                        "the revision seen goes from {seen} back to {revision}"
                    ));
                }
                self.durable.seen = revision;
            }
        }
        Ok(())
    }

    /// What is said of a transaction in this domain, if anything.
    pub fn verdict(&self, tx_id: &TxId) -> Option<Domain> {
        Some(self.entries.get(tx_id)?.verdict.as_ref()?.0)
    }
}

/// Where a process is to die.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doom {
    /// After so many more effects.
    pub(super) effects: u32,
    /// With this left.
    pub(super) disk: Disk,
    /// Down for so long, in milliseconds.
    pub(super) down_ms: u64,
}

/// One machine of one member.
pub struct Place {
    pub(super) member: usize,
    pub(super) node_id: NodeId,
    pub(super) engine: Option<Box<Engine>>,
    pub(super) runs_engine: bool,
    /// Its process's handle on the keys, if the board lies in keys.
    pub(super) handle: Option<Box<Handle>>,
    pub(super) liar: Option<Box<dyn Liar>>,
    /// Counts the starts of its process: what was meant for an earlier one is lost.
    pub(super) life: u64,
    pub(super) journal: Journal,
    pub(super) unsynced: Vec<Record>,
    pub(super) backup: Journal,
    pub(super) doom: Option<Doom>,
    /// How far the wall clock is off, and by how much it jumped.
    pub(super) clock_off_ms: i64,
    pub(super) clock_jump_ms: i64,
    /// When the engine's next tick is scheduled.
    pub(super) tick_at: Option<u64>,
    pub(super) feed_due: bool,
    /// When the liar is woken next; it has one alarm.
    pub(super) wake_at: Option<u64>,
    pub(super) view: usize,
    pub(super) alerts: Vec<Alert>,
    /// All that the liar's engine says to peers and to the store is so late. What it
    /// hears and signs is not, or no greeting would ever be in time.
    pub(super) lag_ms: u64,
    /// Whom the engine does not want to speak with.
    pub(super) unwelcome: std::collections::BTreeSet<NodeId>,
}

impl Place {
    /// Which member's.
    pub fn member(&self) -> usize {
        self.member
    }

    /// The engine, while its process runs.
    pub fn engine(&self) -> Option<&Engine> {
        self.engine.as_deref()
    }

    /// The journal as far as it is durable.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// What it told its operator so far.
    pub fn alerts(&self) -> &[Alert] {
        &self.alerts
    }

    /// Which of the store's boards it is shown.
    pub fn view(&self) -> usize {
        self.view
    }

    /// Whether what its process has read of the keys was whole, as far as it goes.
    pub fn reads_whole(&self) -> bool {
        self.handle.as_ref().is_none_or(|handle| !handle.partial)
    }

    /// Whom its engine does not want to speak with.
    pub fn unwelcome(&self) -> impl Iterator<Item = &NodeId> {
        self.unwelcome.iter()
    }

    /// Makes durable what was written.
    pub(super) fn sync(&mut self) -> Result<(), String> {
        for record in std::mem::take(&mut self.unsynced) {
            self.journal.write(record)?;
        }
        Ok(())
    }

    /// The process is gone; this is left.
    pub(super) fn lose(&mut self, disk: Disk) -> Result<(), String> {
        match disk {
            Disk::Kept => self.sync()?,
            Disk::Unsynced => {}
            Disk::Lost => self.journal = Journal::default(),
            Disk::Restored => self.journal = self.backup.clone(),
        }
        self.unsynced.clear();
        self.engine = None;
        self.handle = None;
        self.life += 1;
        self.doom = None;
        self.tick_at = None;
        self.feed_due = false;
        self.unwelcome.clear();
        Ok(())
    }
}
