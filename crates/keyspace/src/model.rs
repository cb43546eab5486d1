//! A model of etcd: revisions, guarded steps, a history that is compacted. What it
//! assumes is held against the real one by a test of the client
//! (`crates/coordinator/tests/keyspace.rs`).

use std::collections::BTreeMap;

use crate::batch::Batch;
use crate::follow::Past;
use crate::kv::{Change, Guard, KeyValue, Step, Write};

/// The changes asked for were compacted away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// The oldest revision whose changes can still be had.
    pub oldest: u64,
}

/// A store.
#[derive(Clone, Debug)]
pub struct Store {
    revision: u64,
    keys: BTreeMap<String, KeyValue>,
    /// The changes of each revision since the last compaction.
    history: BTreeMap<u64, Vec<Change>>,
    compacted: u64,
    /// The keys as they were then.
    base: BTreeMap<String, KeyValue>,
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// An empty store; its revision is 1, as etcd's is.
    pub fn new() -> Self {
        Self {
            revision: 1,
            keys: BTreeMap::new(),
            history: BTreeMap::new(),
            compacted: 0,
            base: BTreeMap::new(),
        }
    }

    /// The latest revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// All keys.
    pub fn all(&self) -> Vec<KeyValue> {
        self.keys.values().cloned().collect()
    }

    /// One key.
    pub fn get(&self, key: &str) -> Option<&KeyValue> {
        self.keys.get(key)
    }

    /// What changed after `revision`, by revision.
    ///
    /// # Errors
    /// [`Compacted`] when some of it was compacted away.
    pub fn changes_after(&self, revision: u64) -> Result<Vec<(u64, Vec<Change>)>, Compacted> {
        if revision < self.compacted {
            return Err(Compacted {
                oldest: self.compacted + 1,
            });
        }
        let after = self.history.range(revision + 1..);
        Ok(after.map(|(at, changes)| (*at, changes.clone())).collect())
    }

    /// Forgets how it came to be as it is.
    pub fn compact(&mut self) {
        self.compacted = self.revision;
        self.history.clear();
        self.base = self.keys.clone();
    }

    /// What a key was at a past revision.
    pub fn at(&self, key: &str, revision: u64) -> Past {
        if revision < self.compacted || revision > self.revision {
            return Past::Gone;
        }
        let before = self.history.range(..=revision).rev();
        let last = before.flat_map(|(_, changes)| changes.iter().rev());
        let mut last = last.filter_map(|change| match change {
            Change::Put(kv) if kv.key == key => Some(Some(kv.clone())),
            Change::Delete(gone) if gone == key => Some(None),
            _ => None,
        });
        Past::Was(last.next().unwrap_or_else(|| self.base.get(key).cloned()))
    }

    /// A copy of the store from when it was at `revision`, or from its last compaction
    /// if that came later: what a backup of that moment holds.
    pub fn older(&self, revision: u64) -> Self {
        let revision = revision.clamp(self.compacted.max(1), self.revision);
        let mut keys = self.base.clone();
        let history: BTreeMap<_, _> = self
            .history
            .range(..=revision)
            .map(|(at, changes)| (*at, changes.clone()))
            .collect();
        for change in history.values().flatten() {
            match change {
                Change::Put(kv) => drop(keys.insert(kv.key.clone(), kv.clone())),
                Change::Delete(key) => drop(keys.remove(key)),
            }
        }
        Self {
            revision,
            keys,
            history,
            compacted: self.compacted,
            base: self.base.clone(),
        }
    }

    /// Carries out a batch; says for each step whether its guards held. Without a
    /// write there is no new revision.
    ///
    /// # Panics
    /// When a key is written twice: etcd refuses that, so no plan may ask for it.
    pub fn commit(&mut self, batch: &Batch) -> Vec<bool> {
        let held: Vec<_> = batch
            .steps
            .iter()
            .map(|(_, step)| self.holds(step))
            .collect();
        let always = batch.writes.iter();
        let steps = batch.steps.iter().zip(&held).filter(|(_, held)| **held);
        let writes: Vec<_> = always
            .chain(steps.flat_map(|((_, step), _)| &step.writes))
            .cloned()
            .collect();
        let all = batch.writes.iter();
        let puts = all.chain(batch.steps.iter().flat_map(|(_, step)| &step.writes));
        let mut seen = std::collections::BTreeSet::new();
        for put in puts.filter(|write| matches!(write, Write::Put { .. })) {
            assert!(seen.insert(put.key()), "{} is put twice", put.key());
        }
        self.write(&writes);
        held
    }

    /// Carries out one step if its guards hold, and says whether they did.
    pub fn step(&mut self, step: &Step) -> bool {
        let held = self.holds(step);
        if held {
            self.write(&step.writes);
        }
        held
    }

    /// Writes as somebody who asks nobody.
    pub fn write(&mut self, writes: &[Write]) {
        let revision = self.revision + 1;
        let mut changes = Vec::new();
        for write in writes {
            match write {
                Write::Put { key, value, .. } => {
                    let kv = match self.keys.get(key) {
                        Some(old) => KeyValue {
                            value: value.clone(),
                            mod_revision: revision,
                            version: old.version + 1,
                            ..old.clone()
                        },
                        None => KeyValue {
                            key: key.clone(),
                            value: value.clone(),
                            create_revision: revision,
                            mod_revision: revision,
                            version: 1,
                        },
                    };
                    self.keys.insert(key.clone(), kv.clone());
                    changes.push(Change::Put(kv));
                }
                Write::Delete(key) => {
                    if self.keys.remove(key).is_some() {
                        changes.push(Change::Delete(key.clone()));
                    }
                }
                Write::DeleteAll(prefix) => {
                    let under = |key: &&String| key.starts_with(prefix.as_str());
                    let keys: Vec<_> = self.keys.keys().filter(under).cloned().collect();
                    for key in keys {
                        self.keys.remove(&key);
                        changes.push(Change::Delete(key));
                    }
                }
            }
        }
        if !changes.is_empty() {
            self.revision = revision;
            self.history.insert(revision, changes);
        }
    }

    fn holds(&self, step: &Step) -> bool {
        step.guards.iter().all(|guard| match guard {
            Guard::Absent(key) => !self.keys.contains_key(key),
            Guard::Unchanged(key, at) => self.keys.get(key).is_none_or(|kv| kv.mod_revision <= *at),
            Guard::AllUnchanged(prefix, at) => self
                .keys
                .range(prefix.clone()..)
                .take_while(|(key, _)| key.starts_with(prefix.as_str()))
                .all(|(_, kv)| kv.mod_revision <= *at),
            Guard::At(key, at) => self.keys.get(key).is_some_and(|kv| kv.mod_revision == *at),
        })
    }
}
