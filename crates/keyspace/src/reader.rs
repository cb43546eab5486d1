//! What was read from the store, and what it means.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use quorate_consensus::board::{Board, Outcome, Refusal};
use quorate_consensus::wire::BoardEntry;
use quorate_consensus::wire::board_op::Op;
use quorate_consensus::{NodeId, Rules, TxId, Verifier};

use crate::kv::{Change, Guard, KeyValue, Step, Write};
use crate::names::{self, Name};
use crate::plan::Moved;
use crate::record::{OpId, Position, Record, Voted};
use crate::view::{self, Says, says};

/// What became of an operation that reached the store.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// It changed the board: its revision in the log.
    Applied(u64),
    /// The board had it already, at this revision.
    Unchanged(u64),
    /// The board refuses it.
    Refused(Refusal),
}

/// What somebody did to the store that no node does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The key, without the cluster's prefix.
    pub key: String,
    /// What was found.
    pub what: What,
}

/// See [`Finding`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A record that is none, or lies where it must not: removed.
    Misplaced,
    /// A record that the board refuses: removed.
    Unjustified(String),
    /// A record that claims a place in the past: removed.
    Backdated,
    /// A record was put back by somebody who knows it, and was not there when this
    /// reader read all that there was: what was read is not the whole log, and a new
    /// reader has to start.
    Incomplete,
    /// A believed record was overwritten: put back.
    Overwritten,
    /// A record was written over something that this reader has not seen: left to those
    /// who have.
    WrittenOver,
    /// A believed record, or a view of what is in force, was deleted: put back.
    Vanished,
    /// A view says what the board does not: put right.
    WrongView,
    /// A counter was raised without a vote. Nobody counts by it; it is left alone.
    Counter,
    /// The store has not what was read from it before: it is an older copy, whatever
    /// was written to it since.
    RolledBack {
        /// The revision up to which it was read before.
        seen: u64,
        /// The revision that the store is at now.
        found: u64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.what {
            What::Misplaced => write!(f, "{key}: no record that may lie there; removed"),
            What::Unjustified(why) => write!(f, "{key}: the board refuses it: {why}; removed"),
            What::Backdated => write!(f, "{key}: claims a place in the past; removed"),
            What::Incomplete => write!(f, "{key}: was missing when the store was read; read anew"),
            What::Overwritten => write!(f, "{key}: was overwritten; put back"),
            What::WrittenOver => write!(f, "{key}: was written over what was there; not believed"),
            What::Vanished => write!(f, "{key}: vanished; put back"),
            What::WrongView => write!(f, "{key}: says what the board does not; put right"),
            What::Counter => write!(f, "{key}: was raised without a vote; nobody counts by it"),
            What::RolledBack { seen, found } => write!(
                f,
                "the store, at revision {found}, has not what was read at revision {seen}: it is an older copy"
            ),
        }
    }
}

/// What taking something in has led to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Taken {
    /// New entries of the log, in order.
    pub entries: Vec<Arc<BoardEntry>>,
    /// What became of operations, by their attempts.
    pub replies: Vec<(OpId, Reply)>,
    /// Tampering.
    pub findings: Vec<Finding>,
    /// What puts it right. Each step is guarded, so that of many nodes one does it;
    /// one that is refused was done, or will be found anew.
    pub mending: Vec<Step>,
}

/// A believed record.
#[derive(Clone, Debug)]
struct Known {
    id: OpId,
    time_ms: u64,
    position: Position,
    /// The key it lies under now.
    key: String,
    /// The entry it became.
    revision: u64,
    /// How often this reader has put it back.
    put_back: u32,
}

/// A record that was not read before.
struct New {
    record: Record,
    voted: Option<Voted>,
    mod_revision: u64,
}

/// What transactions have written beside their records.
#[derive(Default)]
struct Beside {
    /// The counters that votes raised.
    counters: BTreeSet<String>,
    /// The views of bans that came too late: wrong, and in good faith.
    late_bans: BTreeSet<String>,
}

/// How often a reader puts one record back: against somebody who deletes it over and
/// over, or whose honest reading is another one, nothing is won by insisting.
const MOST_PUT_BACK: u32 = 16;

/// Reads the store and believes what the board accepts.
#[derive(Clone)]
pub struct Reader {
    board: Board,
    verifier: Arc<dyn Verifier>,
    entries: Vec<Arc<BoardEntry>>,
    /// The store's revision up to which everything was read.
    at: u64,
    /// [`names::HEAD`] as it was then.
    head: Option<KeyValue>,
    /// Between these revisions, the first left out, it did not read change by change but
    /// all that was there in the end: what was deleted then is not known.
    leaps: Vec<(u64, u64)>,
    known: BTreeMap<Position, Known>,
    by_key: BTreeMap<String, Position>,
    /// Records that were not believed and are being removed: key and revision.
    refused: BTreeSet<(String, u64)>,
    /// The rules were seen in the store. They are written by whoever comes first, so in
    /// the beginning there are none.
    has_rules: bool,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("at", &self.at)
            .field("revision", &self.board.revision())
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// A reader that has read nothing.
    pub fn new(rules: Arc<Rules>, verifier: Arc<dyn Verifier>) -> Self {
        Self {
            board: Board::new(rules),
            verifier,
            entries: Vec::new(),
            at: 0,
            head: None,
            leaps: Vec::new(),
            known: BTreeMap::new(),
            by_key: BTreeMap::new(),
            refused: BTreeSet::new(),
            has_rules: false,
        }
    }

    /// The board as far as it was read.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// The store's revision up to which everything was read; 0 before the first
    /// [`Reader::take_all`].
    pub fn revision(&self) -> u64 {
        self.at
    }

    /// The log's entries after revision `after`, at most `limit`.
    pub fn entries(&self, after: u64, limit: usize) -> impl Iterator<Item = &Arc<BoardEntry>> {
        let skip = usize::try_from(after).unwrap_or(usize::MAX);
        self.entries.iter().skip(skip).take(limit)
    }

    /// Nothing was believed yet.
    pub(crate) fn board_is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn verifier(&self) -> &dyn Verifier {
        self.verifier.as_ref()
    }

    /// Whether a believed record lies under this key.
    pub fn knows(&self, key: &str) -> bool {
        self.by_key.contains_key(key)
    }

    /// [`names::HEAD`] as it was at [`Reader::revision`]. Whoever follows a store on
    /// after a while looks first what it says that this key was then: the store may be
    /// an older copy, in which others have written as much as was lost.
    pub(crate) fn head(&self) -> Option<&KeyValue> {
        self.head.as_ref()
    }

    /// Whether this is the last believed record.
    fn is_tail(&self, kv: &KeyValue) -> bool {
        let known = self.known.values().next_back();
        let both = known.and_then(|known| Some((known, Record::decode(&kv.value)?)));
        both.is_some_and(|(known, record)| {
            record.id == known.id
                && record.origin.unwrap_or(kv.mod_revision) == known.position.revision
        })
    }

    /// The finding that the store, at revision `found`, is an older copy.
    pub fn rolled_back(&self, found: u64) -> Finding {
        let seen = self.at;
        Finding {
            key: String::new(),
            what: What::RolledBack { seen, found },
        }
    }

    /// Whether all these keys can be what the store that was read has become: nothing
    /// that it had is unknown, and the last record is there.
    fn can_follow(&self, revision: u64, all: &[KeyValue]) -> bool {
        if self.at == 0 {
            return true;
        }
        // It may lie under another key by now: an expired ballot's votes make room.
        let mut records = all.iter().filter(|kv| Name::of(&kv.key) == Name::Record);
        let has_tail = self.known.is_empty() || records.any(|kv| self.is_tail(kv));
        let unknown = all.iter().any(|kv| {
            kv.mod_revision <= self.at
                && Name::of(&kv.key) == Name::Record
                && !self.by_key.contains_key(&kv.key)
                && !self.refused.contains(&(kv.key.clone(), kv.mod_revision))
        });
        revision >= self.at && !unknown && has_tail
    }

    /// The records of a ballot's votes, as they make room when it expires.
    pub(crate) fn votes_to_move(&self, tx_id: Option<&TxId>) -> Vec<Moved> {
        let Some(tx_id) = tx_id else {
            return Vec::new();
        };
        let prefix = names::votes_of(tx_id);
        let under = self.by_key.range(prefix.clone()..);
        let under = under.take_while(|(key, _)| key.starts_with(&prefix));
        under
            .filter_map(|(key, position)| {
                let known = self.known.get(position)?;
                Some(Moved {
                    from: key.clone(),
                    to: names::moved(*position),
                    value: self.written_back(known)?,
                })
            })
            .collect()
    }

    /// Takes in all keys of the store as they were at `revision`: at the start, and
    /// whenever the changes since [`Reader::revision`] cannot be had any more.
    ///
    /// A store that is an older copy is not taken in: only the finding says so, and a
    /// new reader has to start. (So is one from which somebody deleted the very last
    /// record while its changes were compacted away: that looks the same, and whoever
    /// can do it can stall the cluster anyhow.)
    pub fn take_all(&mut self, revision: u64, all: Vec<KeyValue>) -> Taken {
        let mut taken = Taken::default();
        if !self.can_follow(revision, &all) {
            taken.findings.push(self.rolled_back(revision));
            return taken;
        }
        let present: BTreeSet<&str> = all.iter().map(|kv| kv.key.as_str()).collect();
        self.refused
            .retain(|(key, _)| present.contains(key.as_str()));
        let gone = |key: &&String| !present.contains(key.as_str());
        let mut deleted: Vec<_> = self.by_key.keys().filter(gone).cloned().collect();
        let mut puts = Vec::new();
        let mut views = Vec::new();
        for kv in all {
            match Name::of(&kv.key) {
                Name::Record => puts.push(kv),
                name => views.push((name, kv)),
            }
        }
        let head = views.iter().find(|(name, _)| *name == Name::Head);
        self.head = head.map(|(_, kv)| kv.clone());
        let first = self.at == 0;
        let beside = self.take_records(first, puts, &mut taken);
        self.leaps.push((self.at, revision));
        for (name, kv) in &views {
            self.check_view(name, kv, &beside, &mut taken);
        }
        // An expired ballot's votes were moved meanwhile.
        deleted.retain(|key| self.by_key.contains_key(key));
        for key in deleted {
            self.vanished(&key, &mut taken);
        }
        let present: BTreeSet<&str> = views.iter().map(|(_, kv)| kv.key.as_str()).collect();
        for (key, value) in view::all(&self.board) {
            if !present.contains(key.as_str()) {
                if self.has_rules || !matches!(Name::of(&key), Name::Rules(_)) {
                    taken.findings.push(Finding {
                        key: key.clone(),
                        what: What::Vanished,
                    });
                }
                taken.mending.push(written_anew(key, value));
            }
        }
        self.at = revision;
        taken
    }

    /// Takes in what one transaction of the store changed: everything that bears
    /// `revision`.
    pub fn take(&mut self, revision: u64, changes: Vec<Change>) -> Taken {
        let mut taken = Taken::default();
        if revision <= self.at {
            return taken;
        }
        let mut puts = Vec::new();
        let mut views = Vec::new();
        let mut deleted = Vec::new();
        for change in changes {
            match &change {
                Change::Put(kv) if kv.key == names::HEAD => self.head = Some(kv.clone()),
                Change::Delete(key) if key == names::HEAD => self.head = None,
                _ => {}
            }
            match change {
                Change::Put(kv) => match Name::of(&kv.key) {
                    Name::Record => puts.push(kv),
                    name => views.push((name, kv)),
                },
                Change::Delete(key) => deleted.push(key),
            }
        }
        let beside = self.take_records(false, puts, &mut taken);
        for (name, kv) in &views {
            match name {
                Name::Count(_) if !beside.counters.contains(&kv.key) => {
                    taken.findings.push(Finding {
                        key: kv.key.clone(),
                        what: What::Counter,
                    })
                }
                name => self.check_view(name, kv, &beside, &mut taken),
            }
        }
        for key in deleted {
            match Name::of(&key) {
                Name::Record => {
                    self.refused.retain(|(refused, _)| *refused != key);
                    if self.by_key.contains_key(&key) {
                        self.vanished(&key, &mut taken);
                    }
                }
                name => {
                    if let Says::Value(value) = says(&self.board, &name) {
                        taken.findings.push(Finding {
                            key: key.clone(),
                            what: What::Vanished,
                        });
                        taken.mending.push(written_anew(key, value));
                    }
                }
            }
        }
        self.at = revision;
        taken
    }

    /// Takes in keys of records, in their order; gives what was written beside them.
    /// On the `first` reading a record may have any place.
    fn take_records(&mut self, first: bool, puts: Vec<KeyValue>, taken: &mut Taken) -> Beside {
        let mut beside = Beside::default();
        // Of two that claim one place, the one that was written there comes first.
        let mut new: BTreeMap<(Position, bool, String), New> = BTreeMap::new();
        for kv in puts {
            if let Some(known) = self.by_key.get(&kv.key).and_then(|p| self.known.get(p)) {
                if !self.is_as_believed(known, &kv.value) {
                    self.overwritten(&known.clone(), &kv, taken);
                }
                continue;
            }
            // Nearly always there are none, and a key need not be copied to be looked up.
            if !self.refused.is_empty() && self.refused.contains(&(kv.key.clone(), kv.mod_revision))
            {
                // Read once more before it was removed.
                taken.mending.push(removal(&kv.key, kv.mod_revision));
                continue;
            }
            let record = Record::decode(&kv.value).and_then(|record| {
                let voted = Voted::of(&record.op);
                let belongs = record.belongs_under(&kv.key, voted.as_ref());
                belongs.then_some((record, voted))
            });
            let Some((record, voted)) = record else {
                self.refused.insert((kv.key.clone(), kv.mod_revision));
                remove(&kv, What::Misplaced, taken);
                continue;
            };
            if record.origin.is_none() && kv.create_revision != kv.mod_revision {
                // A record is created once. What this was written over whoever has read
                // it puts back, or removes where the board refused it; to nobody who has
                // not it says anything.
                let was_refused = (kv.key.clone(), kv.create_revision);
                if self.refused.contains(&was_refused) {
                    taken.mending.push(removal(&kv.key, kv.mod_revision));
                }
                self.refused.insert((kv.key.clone(), kv.mod_revision));
                taken.findings.push(Finding {
                    key: kv.key,
                    what: What::WrittenOver,
                });
                continue;
            }
            let position = Position {
                revision: record.origin.unwrap_or(kv.mod_revision),
                index: record.index,
            };
            if let Some(known) = self.known.get(&position).cloned() {
                // Put back, or moved to make room.
                if self.is_as_believed(&known, &kv.value) {
                    self.by_key.remove(&known.key);
                    self.by_key.insert(kv.key.clone(), position);
                    if let Some(known) = self.known.get_mut(&position) {
                        known.key = kv.key;
                    }
                } else {
                    self.refused.insert((kv.key.clone(), kv.mod_revision));
                    remove(&kv, What::Backdated, taken);
                }
                continue;
            }
            if !first && record.origin.is_some() && self.leapt(position.revision) {
                taken.findings.push(Finding {
                    key: kv.key.clone(),
                    what: What::Incomplete,
                });
                continue;
            }
            if !first && position.revision <= self.at {
                self.refused.insert((kv.key.clone(), kv.mod_revision));
                remove(&kv, What::Backdated, taken);
                continue;
            }
            let key = (position, record.origin.is_some(), kv.key);
            let mod_revision = kv.mod_revision;
            new.insert(
                key,
                New {
                    record,
                    voted,
                    mod_revision,
                },
            );
        }
        for ((position, _, key), found) in new {
            let New {
                record,
                voted,
                mod_revision,
            } = found;
            if self.known.contains_key(&position) {
                taken.findings.push(Finding {
                    key: key.clone(),
                    what: What::Backdated,
                });
                self.refused.insert((key.clone(), mod_revision));
                taken.mending.push(removal(&key, mod_revision));
                continue;
            }
            let reply = match self
                .board
                .apply(&record.op, record.time_ms, self.verifier.as_ref())
            {
                Ok(Outcome::Applied(entry)) => {
                    let revision = entry.revision;
                    self.believe(position, key, &record, entry, taken);
                    Reply::Applied(revision)
                }
                Ok(Outcome::Unchanged) => {
                    self.refused.insert((key.clone(), mod_revision));
                    taken.mending.push(removal(&key, mod_revision));
                    Reply::Unchanged(self.board.revision())
                }
                Err(refusal) => {
                    if can_be_late(&record, &refusal) {
                        beside.late_bans.extend(banned_by(&record));
                    } else {
                        taken.findings.push(Finding {
                            key: key.clone(),
                            what: What::Unjustified(refusal.to_string()),
                        });
                    }
                    self.refused.insert((key.clone(), mod_revision));
                    taken.mending.push(removal(&key, mod_revision));
                    Reply::Refused(refusal)
                }
            };
            beside.counters.extend(voted.map(|vote| vote.counter()));
            taken.replies.push((record.id, reply));
        }
        beside
    }

    /// Whether a record of this revision may have been there, and deleted before it was
    /// read.
    fn leapt(&self, revision: u64) -> bool {
        let mut leaps = self.leaps.iter();
        leaps.any(|(after, to)| *after < revision && revision <= *to)
    }

    fn believe(
        &mut self,
        position: Position,
        key: String,
        record: &Record,
        entry: BoardEntry,
        taken: &mut Taken,
    ) {
        let known = Known {
            id: record.id,
            time_ms: record.time_ms,
            position,
            key: key.clone(),
            revision: entry.revision,
            put_back: 0,
        };
        self.known.insert(position, known);
        self.by_key.insert(key, position);
        let entry = Arc::new(entry);
        self.entries.push(Arc::clone(&entry));
        taken.entries.push(entry);
    }

    /// The believed record, with its place in the order.
    fn rebuilt(&self, known: &Known) -> Option<Record> {
        let index = usize::try_from(known.revision.checked_sub(1)?).ok()?;
        Some(Record {
            id: known.id,
            op: self.entries.get(index)?.op.clone()?,
            time_ms: known.time_ms,
            index: known.position.index,
            origin: Some(known.position.revision),
        })
    }

    fn written_back(&self, known: &Known) -> Option<Vec<u8>> {
        Some(self.rebuilt(known)?.encode())
    }

    fn is_as_believed(&self, known: &Known, value: &[u8]) -> bool {
        let (Some(found), Some(believed)) = (Record::decode(value), self.rebuilt(known)) else {
            return false;
        };
        let origin = found.origin.is_none_or(|o| o == known.position.revision);
        let origin_of = |record: Record| Record {
            origin: None,
            ..record
        };
        origin && origin_of(found) == origin_of(believed)
    }

    /// The record as it is put back, while that is worth trying.
    fn put_back(&mut self, position: Position) -> Option<Vec<u8>> {
        let known = self.known.get_mut(&position)?;
        known.put_back += 1;
        if known.put_back > MOST_PUT_BACK {
            return None;
        }
        let known = known.clone();
        self.written_back(&known)
    }

    fn overwritten(&mut self, known: &Known, kv: &KeyValue, taken: &mut Taken) {
        taken.findings.push(Finding {
            key: kv.key.clone(),
            what: What::Overwritten,
        });
        if let Some(value) = self.put_back(known.position) {
            taken.mending.push(Step {
                guards: vec![Guard::At(kv.key.clone(), kv.mod_revision)],
                writes: vec![Write::put(kv.key.clone(), value)],
            });
        }
    }

    fn vanished(&mut self, key: &str, taken: &mut Taken) {
        taken.findings.push(Finding {
            key: key.into(),
            what: What::Vanished,
        });
        let position = self.by_key.get(key).copied();
        if let Some(value) = position.and_then(|position| self.put_back(position)) {
            taken.mending.push(written_anew(key.into(), value));
        }
    }

    fn check_view(&mut self, name: &Name, kv: &KeyValue, beside: &Beside, taken: &mut Taken) {
        self.has_rules |= matches!(name, Name::Rules(_));
        let write = match says(&self.board, name) {
            Says::Anything => return,
            Says::Value(value) | Says::ValueOrNothing(value) if value == kv.value => return,
            Says::Value(value) | Says::ValueOrNothing(value) => Write::put(kv.key.clone(), value),
            Says::Nothing => Write::Delete(kv.key.clone()),
        };
        if !beside.late_bans.contains(&kv.key) {
            taken.findings.push(Finding {
                key: kv.key.clone(),
                what: What::WrongView,
            });
        }
        taken.mending.push(Step {
            guards: vec![Guard::At(kv.key.clone(), kv.mod_revision)],
            writes: vec![write],
        });
    }
}

/// Whether a record that was written in good faith can be refused: a vote names
/// nothing but its own key, so time, a ban or the ballot's end may overtake it, and what
/// was sent before it, with a later time, may be refused, so that it comes too early. A
/// ban for silence depends on a reputation that other ballots change.
fn can_be_late(record: &Record, refusal: &Refusal) -> bool {
    match &record.op.op {
        Some(Op::RecordVote(_)) => matches!(
            refusal,
            Refusal::TooOld { .. }
                | Refusal::FromFuture { .. }
                | Refusal::TooManyUnstarted(_)
                | Refusal::Banned(_)
                | Refusal::Collected(_)
                | Refusal::OtherChoice { .. }
        ),
        Some(Op::Ban(_)) => matches!(refusal, Refusal::Unproven(_) | Refusal::AdvanceFirst(_)),
        _ => false,
    }
}

/// The view that a ban writes.
fn banned_by(record: &Record) -> Option<String> {
    match &record.op.op {
        Some(Op::Ban(op)) => Some(names::banned(&NodeId::new(&op.node_id).ok()?)),
        _ => None,
    }
}

/// Writes a key that is not there.
fn written_anew(key: String, value: Vec<u8>) -> Step {
    Step {
        guards: vec![Guard::Absent(key.clone())],
        writes: vec![Write::put(key, value)],
    }
}

fn removal(key: &str, mod_revision: u64) -> Step {
    Step {
        guards: vec![Guard::At(key.into(), mod_revision)],
        writes: vec![Write::Delete(key.into())],
    }
}

fn remove(kv: &KeyValue, what: What, taken: &mut Taken) {
    taken.findings.push(Finding {
        key: kv.key.clone(),
        what,
    });
    taken.mending.push(removal(&kv.key, kv.mod_revision));
}
