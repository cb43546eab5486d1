//! The second board: a model of etcd, and an omniscient reader of it that follows every
//! revision at once. What it derives is the truth about the board, whatever the
//! machines have read so far.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use quorate_consensus::Rules;
use quorate_consensus::wire::{BoardEntry, BoardOp};
use quorate_keyspace::model::Store as Model;
use quorate_keyspace::names::Name;
use quorate_keyspace::{Ask, Batch, Change, OpId, Reader, Reply, What, Write};
use quorate_testkit::FakeVerifier;

use super::View;

/// Something that a plain writer did, past all rules.
#[derive(Clone, Debug)]
pub struct Lie {
    /// The store's revision of it.
    pub revision: u64,
    /// The keys that every reader must find.
    pub keys: Vec<String>,
    /// What the keys said then, where they say anything.
    pub said: BTreeMap<String, Vec<u8>>,
}

/// The keys.
pub struct Keys {
    pub(in crate::world) model: Model,
    truth: Reader,
    /// The store's revision of each entry of the log.
    marks: Vec<u64>,
    /// Counts how often the store was put back: whoever watched another one has to come
    /// anew.
    pub(in crate::world) incarnation: u64,
    pub(in crate::world) lies: Vec<Lie>,
    /// Records that are not in the store, or not as they were believed.
    pub(in crate::world) missing: BTreeSet<String>,
    /// Steps on their way that put something right.
    pub(in crate::world) mending: usize,
    /// Attempts of nobody's: operators' and liars'.
    attempts: u64,
    /// An older copy was put into the store's place in which something was missing: what
    /// is true now nobody can say.
    pub(in crate::world) lost: bool,
    /// What was read and not told yet.
    news: VecDeque<News>,
}

/// Something new about the truth.
#[derive(Debug)]
pub(in crate::world) enum News {
    /// The log's next entry.
    Entry(BoardEntry),
    /// An operation's record is in the log, at this revision.
    Recorded(OpId, u64),
}

impl Keys {
    pub(super) fn new(rules: Arc<Rules>) -> Self {
        let model = Model::new();
        Self {
            truth: Self::reader(&model, rules),
            model,
            marks: Vec::new(),
            incarnation: 0,
            lies: Vec::new(),
            missing: BTreeSet::new(),
            mending: 0,
            attempts: 0,
            lost: false,
            news: VecDeque::new(),
        }
    }

    fn reader(model: &Model, rules: Arc<Rules>) -> Reader {
        let mut reader = Reader::new(rules, Arc::new(FakeVerifier));
        // What it would put right others do.
        drop(reader.take_all(model.revision(), model.all()));
        reader
    }

    /// The store.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What a plain writer has done so far.
    pub fn lies(&self) -> &[Lie] {
        &self.lies
    }

    /// Believed records that are not where they were.
    pub fn missing(&self) -> &BTreeSet<String> {
        &self.missing
    }

    /// How often the store was put back to an older copy.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Whether a record under this key was believed.
    pub(in crate::world) fn knows(&self, key: &str) -> bool {
        self.truth.knows(key)
    }

    /// The next news of what the store has become: an entry is in the view then, and no
    /// later one is.
    ///
    /// # Errors
    /// When the reader believes what the pure board does not.
    pub(super) fn read_on(&mut self, view: &mut View) -> Result<Option<News>, String> {
        if self.news.is_empty() && self.truth.revision() < self.model.revision() {
            self.read();
        }
        let Some(news) = self.news.pop_front() else {
            return Ok(None);
        };
        let News::Entry(entry) = news else {
            return Ok(Some(news));
        };
        let derived = view.board.replay(entry, &FakeVerifier);
        let derived = derived.map_err(|why| format!("a reader believes {why}"))?;
        view.log.push(derived.clone());
        Ok(Some(News::Entry(derived)))
    }

    fn read(&mut self) {
        // It reads after each change, so nothing can have been compacted away.
        let changes = self.model.changes_after(self.truth.revision());
        for (revision, changes) in changes.unwrap_or_default() {
            let written: Vec<String> = changes.iter().filter_map(record_put).collect();
            let taken = self.truth.take(revision, changes);
            self.lost |= taken.is_incomplete();
            for finding in &taken.findings {
                let lost = matches!(finding.what, What::Vanished | What::Overwritten);
                if lost && Name::of(&finding.key) == Name::Record {
                    self.missing.insert(finding.key.clone());
                }
            }
            for key in written {
                if !taken.findings.iter().any(|finding| finding.key == key) {
                    self.missing.remove(&key);
                }
            }
            for (id, reply) in taken.replies {
                if let Reply::Applied(at) = reply {
                    self.news.push_back(News::Recorded(id, at));
                }
            }
            for entry in taken.entries {
                self.marks.push(revision);
                self.news.push_back(News::Entry((*entry).clone()));
            }
        }
    }

    /// An operation of somebody who has read everything; without effect where the board
    /// has no need of it, or refuses it.
    pub(in crate::world) fn carry_out(&mut self, op: &BoardOp, now_ms: u64) -> Batch {
        self.attempts += 1;
        let mut id = [0xff; 16];
        id[8..].copy_from_slice(&self.attempts.to_be_bytes());
        let ask = Ask::new(OpId(id), op.clone(), now_ms);
        let planned = self.truth.plan(&[ask], 1);
        if !planned.batch.steps.is_empty() {
            self.model.commit(&planned.batch);
        }
        planned.batch
    }

    /// Writes past all rules.
    pub(in crate::world) fn lie(&mut self, writes: &[Write], keys: Vec<String>) {
        let before = self.model.revision();
        self.model.write(writes);
        let revision = self.model.revision();
        if revision == before {
            return;
        }
        let said = keys.iter().filter_map(|key| {
            let kv = self.model.get(key)?;
            Some((key.clone(), kv.value.clone()))
        });
        let said = said.collect();
        self.lies.push(Lie {
            revision,
            keys,
            said,
        });
    }

    /// Puts an older copy into the store's place; its log lacks so many entries, or as
    /// many as were not compacted yet.
    pub(super) fn roll_back(&mut self, view: &mut View, entries: usize) {
        let left = view.log.len().saturating_sub(entries);
        let revision = left.checked_sub(1).map_or(1, |last| self.marks[last]);
        let rules = view.board.rules().clone();
        self.model = self.model.older(revision);
        self.incarnation += 1;
        // What was being put right was the other store.
        self.mending = 0;
        self.missing.clear();
        self.news.clear();
        self.lies.clear();
        self.truth = Self::reader(&self.model, rules);
        view.board = self.truth.board().clone();
        view.log = self
            .truth
            .entries(0, usize::MAX)
            .map(|entry| BoardEntry::clone(entry))
            .collect();
        self.marks.resize(view.log.len(), self.model.revision());
    }
}

fn record_put(change: &Change) -> Option<String> {
    match change {
        Change::Put(kv) if Name::of(&kv.key) == Name::Record => Some(kv.key.clone()),
        _ => None,
    }
}
