//! One process's handle on the keys: what it has read, and what it has asked and not
//! been answered yet. What it decides it asks of [`quorate_keyspace`], as the real client
//! does; when things happen is the world's business.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use quorate_consensus::Rules;
use quorate_consensus::wire::BoardOp;
use quorate_engine::{ProposeError, Proposed, Ticket};
use quorate_keyspace::{
    Ask, Attempt, Batch, Next, OpId, Past, Reader, Reply, Resume, Taken, names,
};
use quorate_testkit::FakeVerifier;

use super::Keys;

/// So many transactions are on their way at once, at most.
const FLIGHTS: usize = 4;

/// So many operations go in one transaction, at most.
const BATCH: usize = 64;

/// How often a store that is being tampered with is read before a node starts on it.
const READINGS: u32 = 5;

/// How far a handle has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::world) enum State {
    /// Everything is read for the first time; so often it was.
    Opening(u32),
    /// It follows.
    Open,
    /// The store is an older copy, which ends at this revision of the log.
    Older(u64),
    /// The first reading was not whole: the process has to start again.
    Incomplete,
}

/// An operation that an engine waits for.
#[derive(Debug)]
pub(in crate::world) struct Job {
    attempt: Attempt,
    /// The name that it was given when it was asked for.
    id: OpId,
    /// None when its engine does not wait any more.
    ticket: Option<Ticket>,
    /// What was read back of it.
    heard: Option<Reply>,
}

/// Who wants the board to be read to the end.
#[derive(Clone, Copy, Debug)]
pub(in crate::world) enum Wants {
    /// The engine, which asked for the log's head.
    Head(Ticket),
    /// Operations that need no sending, by the number of their group.
    Jobs(u64),
}

/// What waits until the store was read up to a revision.
#[derive(Debug)]
enum Waits {
    Flight { number: u64, held: Vec<bool> },
    For(Wants),
}

/// What an engine is to be told.
#[derive(Debug)]
pub(in crate::world) enum Say {
    /// What became of an operation, and under which name.
    Proposed(Ticket, OpId, Result<Reply, ProposeError>),
    /// Where the log ends.
    Head(Ticket, u64),
    /// Nothing: a group of jobs must read the board to the end.
    Read(u64),
}

/// See the module's head.
pub(in crate::world) struct Handle {
    pub(in crate::world) reader: Reader,
    pub(in crate::world) state: State,
    /// It was cut off, or is to read once more what it has read.
    pub(in crate::world) cut: bool,
    /// The store that it watches.
    incarnation: u64,
    /// So often it has read all that there is, and not taken it in.
    pub(in crate::world) readings: u32,
    /// What it read was not all that there was.
    pub(in crate::world) partial: bool,
    /// The engine's question where the log ends, asked before it was open.
    pub(in crate::world) first: Option<Ticket>,
    /// A look at the queue is due.
    pub(in crate::world) due: bool,
    name: [u8; 8],
    number: u64,
    queue: VecDeque<Job>,
    flights: BTreeMap<u64, Vec<Job>>,
    reading: BTreeMap<u64, Vec<Job>>,
    waits: Vec<(u64, Waits)>,
}

/// As the engine hears it.
pub(in crate::world) fn proposed(reply: Reply) -> Result<Proposed, ProposeError> {
    match reply {
        Reply::Applied(revision) => Ok(Proposed::Applied(revision)),
        Reply::Unchanged(revision) => Ok(Proposed::Unchanged(revision)),
        Reply::Refused(refusal) => Err(refusal.into()),
    }
}

impl Handle {
    /// Of a process in one of its lives.
    pub(in crate::world) fn new(rules: Arc<Rules>, place: usize, life: u64) -> Self {
        let mut name = [0; 8];
        name[..2].copy_from_slice(&(place as u16).to_be_bytes());
        name[2..].copy_from_slice(&life.to_be_bytes()[2..]);
        Self {
            reader: Reader::new(rules, Arc::new(FakeVerifier)),
            state: State::Opening(0),
            cut: false,
            incarnation: 0,
            readings: 0,
            partial: false,
            first: None,
            due: false,
            name,
            number: 0,
            queue: VecDeque::new(),
            flights: BTreeMap::new(),
            reading: BTreeMap::new(),
            waits: Vec::new(),
        }
    }

    fn next(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    pub(in crate::world) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Why nothing is taken any more.
    pub(in crate::world) fn done_for(&self) -> Option<ProposeError> {
        match self.state {
            State::Opening(_) | State::Open => None,
            State::Older(head) => Some(ProposeError::OlderStore { head }),
            State::Incomplete => Some(ProposeError::Unavailable("start this node again".into())),
        }
    }

    // ---- reading

    /// Reads everything as if for the first time; it is open unless that has to be done
    /// again.
    pub(in crate::world) fn read_first(&mut self, rules: Arc<Rules>, keys: &Keys) -> Taken {
        let State::Opening(readings) = self.state else {
            return Taken::default();
        };
        self.reader = Reader::new(rules, Arc::new(FakeVerifier));
        let taken = self
            .reader
            .take_all(keys.model.revision(), keys.model.all());
        self.state = match taken.findings.is_empty() || readings + 1 >= READINGS {
            true => State::Open,
            false => State::Opening(readings + 1),
        };
        self.incarnation = keys.incarnation;
        self.partial = !keys.missing.is_empty();
        taken
    }

    /// Reads what changed, or what there is. `again` says that the watch begins a little
    /// earlier than it was asked to. Gives what was taken in, and whether that was
    /// change by change.
    pub(in crate::world) fn follow(&mut self, keys: &Keys, again: bool) -> (Vec<Taken>, bool) {
        if !self.is_open() {
            return (Vec::new(), false);
        }
        if self.cut || self.incarnation != keys.incarnation {
            let mark = self.reader.mark();
            let then = keys.model.at(names::HEAD, mark.revision());
            if let Some(taken) = self.resume(mark.resume(&then), keys) {
                return (vec![taken], false);
            }
            self.incarnation = keys.incarnation;
            self.cut = false;
        }
        let from = self
            .reader
            .revision()
            .saturating_sub(if again { 3 } else { 0 });
        let changes = keys.model.changes_after(from);
        let changes = changes.or_else(|_| keys.model.changes_after(self.reader.revision()));
        let Ok(changes) = changes else {
            let resume = self.reader.mark().resume(&Past::Gone);
            return (self.resume(resume, keys).into_iter().collect(), false);
        };
        let mut all = Vec::new();
        for (revision, changes) in changes {
            let mut taken = self.reader.take(revision, changes);
            if taken.is_incomplete() {
                self.state = State::Incomplete;
                taken.mending.clear();
            }
            all.push(taken);
            if !self.is_open() {
                break;
            }
        }
        (all, true)
    }

    /// Goes on after an interruption; none when that is by watching.
    fn resume(&mut self, how: Resume, keys: &Keys) -> Option<Taken> {
        let revision = keys.model.revision();
        let taken = match how {
            Resume::Watch => return None,
            Resume::ReadAll => {
                let mut reader = self.reader.clone();
                let mut taken = reader.take_all(revision, keys.model.all());
                let again = taken.is_doubtful() && !taken.is_rolled_back();
                if again && self.readings + 1 < READINGS {
                    self.readings += 1;
                    self.cut = true;
                    return Some(Taken {
                        mending: taken.written_back(),
                        ..Taken::default()
                    });
                }
                if !taken.is_rolled_back() {
                    self.partial |= !keys.missing.is_empty();
                    self.reader = reader;
                }
                if taken.is_incomplete() {
                    self.state = State::Incomplete;
                    taken.mending.clear();
                }
                taken
            }
            Resume::OlderCopy => Taken {
                findings: vec![self.reader.rolled_back(revision)],
                ..Taken::default()
            },
        };
        self.incarnation = keys.incarnation;
        self.cut = false;
        self.readings = 0;
        if taken.is_rolled_back() {
            let rules = self.reader.board().rules().clone();
            let mut older = Reader::new(rules, Arc::new(FakeVerifier));
            drop(older.take_all(revision, keys.model.all()));
            self.state = State::Older(older.board().revision());
        }
        Some(taken)
    }

    // ---- asking

    /// An engine asks for an operation.
    pub(in crate::world) fn ask(&mut self, ticket: Ticket, op: BoardOp, now_ms: u64) {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.name);
        id[8..].copy_from_slice(&self.next().to_be_bytes());
        let id = OpId(id);
        self.queue.push_back(Job {
            attempt: Attempt::new(Ask::new(id, op, now_ms)),
            id,
            ticket: Some(ticket),
            heard: None,
        });
    }

    /// Whether anything waits to be sent, and may be.
    pub(in crate::world) fn may_send(&self) -> bool {
        self.is_open() && !self.queue.is_empty() && self.flights.len() < FLIGHTS
    }

    /// What goes to the store next, with its number, and what needs no sending.
    pub(in crate::world) fn plan(&mut self, say: &mut Vec<Say>) -> Option<(u64, Batch)> {
        let mut queue = VecDeque::new();
        for mut job in std::mem::take(&mut self.queue) {
            match job.heard.take() {
                Some(reply) => say.extend(job.tell(Ok(reply))),
                None if job.ticket.is_none() => {}
                None => queue.push_back(job),
            }
        }
        let asks: Vec<Ask> = queue.iter().map(|job| job.attempt.ask().clone()).collect();
        let planned = self.reader.plan(&asks, BATCH);
        let head = self.reader.board().revision();
        let mut jobs: Vec<Option<Job>> = queue.into_iter().map(Some).collect();
        let mut stale = Vec::new();
        for (place, verdict) in planned.settled {
            if let Some(job) = jobs.get_mut(place).and_then(Option::take) {
                let next = job.attempt.settled(verdict, head);
                stale.extend(job.go_on(next, say));
            }
        }
        let mut sent = Vec::new();
        for (place, _) in &planned.batch.steps {
            sent.extend(jobs.get_mut(*place).and_then(Option::take));
        }
        self.queue = jobs.into_iter().flatten().collect();
        if !stale.is_empty() {
            let group = self.next();
            self.reading.insert(group, stale);
            say.push(Say::Read(group));
        }
        if sent.is_empty() {
            return None;
        }
        let number = self.next();
        self.flights.insert(number, sent);
        Some((number, planned.batch))
    }

    /// The store carried a transaction out, up to this revision.
    pub(in crate::world) fn carried_out(&mut self, number: u64, revision: u64, held: Vec<bool>) {
        self.waits.push((revision, Waits::Flight { number, held }));
    }

    /// The store did not say what became of a transaction.
    pub(in crate::world) fn unheard(&mut self, number: u64, say: &mut Vec<Say>) {
        for mut job in self.flights.remove(&number).unwrap_or_default() {
            let heard = job.heard.take();
            let next = job.attempt.unheard(heard);
            self.queue.extend(job.go_on(next, say));
        }
    }

    /// The store was put back, which takes longer than anybody waits: gives what its
    /// engine is not told any more.
    pub(in crate::world) fn give_up(&mut self) -> Vec<Ticket> {
        let flying = std::mem::take(&mut self.flights).into_values().flatten();
        let reading = std::mem::take(&mut self.reading).into_values().flatten();
        let queue = std::mem::take(&mut self.queue).into_iter();
        let jobs = queue.chain(flying).chain(reading);
        jobs.filter_map(|job| job.ticket).collect()
    }

    /// Somebody waits until the store was read up to a revision.
    pub(in crate::world) fn wait(&mut self, revision: u64, wants: Wants) {
        self.waits.push((revision, Waits::For(wants)));
    }

    /// What was read back of attempts.
    pub(in crate::world) fn hear(&mut self, replies: Vec<(OpId, Reply)>) {
        for (id, reply) in replies {
            if id.0[..8] != self.name {
                continue;
            }
            let flying = self.flights.values_mut().flatten();
            let reading = self.reading.values_mut().flatten();
            let mut jobs = self.queue.iter_mut().chain(flying).chain(reading);
            if let Some(job) = jobs.find(|job| job.attempt.ask().id() == id) {
                // A later sending says nothing of the one that took effect.
                job.heard.get_or_insert(reply);
            }
        }
    }

    /// Whoever waited for what is read by now goes on; everybody, when nothing is read
    /// any more.
    pub(in crate::world) fn go_on(&mut self, say: &mut Vec<Say>) {
        if let Some(error) = self.done_for() {
            self.end(&error, say);
            return;
        }
        let read = self.reader.revision();
        let head = self.reader.board().revision();
        let (ready, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waits)
            .into_iter()
            .partition(|(revision, _)| *revision <= read);
        self.waits = waiting;
        for (_, waits) in ready {
            match waits {
                Waits::For(Wants::Head(ticket)) => say.push(Say::Head(ticket, head)),
                Waits::For(Wants::Jobs(group)) => {
                    for mut job in self.reading.remove(&group).unwrap_or_default() {
                        job.attempt.was_read();
                        self.queue.push_back(job);
                    }
                }
                Waits::Flight { number, held } => {
                    let jobs = self.flights.remove(&number).unwrap_or_default();
                    for (mut job, held) in jobs.into_iter().zip(held) {
                        let heard = job.heard.take();
                        let next = job.attempt.carried_out(held, heard);
                        self.queue.extend(job.go_on(next, say));
                    }
                }
            }
        }
    }

    fn end(&mut self, error: &ProposeError, say: &mut Vec<Say>) {
        let flying = std::mem::take(&mut self.flights).into_values().flatten();
        let reading = std::mem::take(&mut self.reading).into_values().flatten();
        let queue = std::mem::take(&mut self.queue).into_iter();
        for job in queue.chain(flying).chain(reading) {
            say.extend(job.tell(Err(error.clone())));
        }
        for (_, waits) in std::mem::take(&mut self.waits) {
            if let (Waits::For(Wants::Head(ticket)), State::Older(head)) = (waits, self.state) {
                say.push(Say::Head(ticket, head));
            }
        }
    }

    /// An operation has waited for long enough: its engine is told that nobody knows
    /// what becomes of it. It may be on its way still.
    pub(in crate::world) fn expire(&mut self, ticket: Ticket) -> bool {
        let flying = self.flights.values_mut().flatten();
        let reading = self.reading.values_mut().flatten();
        let mut jobs = self.queue.iter_mut().chain(flying).chain(reading);
        let job = jobs.find(|job| job.ticket == Some(ticket));
        job.map(|job| job.ticket = None).is_some()
    }
}

impl Job {
    fn tell(self, reply: Result<Reply, ProposeError>) -> Option<Say> {
        Some(Say::Proposed(self.ticket?, self.id, reply))
    }

    /// Answers it, or gives it back.
    fn go_on(self, next: Next, say: &mut Vec<Say>) -> Option<Self> {
        match next {
            Next::Answer(reply) => say.extend(self.tell(Ok(reply))),
            Next::Unknown => say.extend(self.tell(Err(ProposeError::Unavailable(
                "it was sent before, and nobody knows what became of it".into(),
            )))),
            Next::Read | Next::Again => return Some(self),
        }
        None
    }
}
