//! The mapping on the model of etcd: several readers who see each other's work late,
//! and a writer who lies.

mod honest;
mod lies;

use std::sync::Arc;

use quorate_consensus::board::Board;
use quorate_consensus::wire::{BallotState, BoardEntry, BoardOp};
use quorate_consensus::{TxId, Value};
use quorate_testkit::{Cluster, FakeVerifier, NOW, number, ops, tx};

use crate::model::Store;
use crate::{Ask, Finding, OpId, Reader, Reply, Taken, Verdict};

/// A store and some who read it.
struct World {
    cluster: Cluster,
    store: Store,
    readers: Vec<Reader>,
    findings: Vec<Vec<Finding>>,
    replies: Vec<(OpId, Reply)>,
    attempts: u64,
}

impl World {
    fn new(cluster: Cluster, readers: usize) -> Self {
        let mut world = Self {
            store: Store::new(),
            readers: Vec::new(),
            findings: vec![Vec::new(); readers],
            replies: Vec::new(),
            attempts: 0,
            cluster,
        };
        for _ in 0..readers {
            let reader = world.newcomer();
            world.readers.push(reader);
        }
        for i in 0..readers {
            world.read_all(i);
        }
        world.settle();
        world
    }

    fn newcomer(&self) -> Reader {
        Reader::new(Arc::clone(self.cluster.rules()), Arc::new(FakeVerifier))
    }

    /// A reader reads what changed, if that can still be had; else everything. What
    /// it would mend is given, not done.
    fn look(&mut self, i: usize) -> Vec<crate::Step> {
        let mut mending = Vec::new();
        match self.store.changes_after(self.readers[i].revision()) {
            Ok(all) => {
                for (revision, changes) in all {
                    let taken = self.readers[i].take(revision, changes);
                    mending.extend(self.heard(i, taken));
                }
            }
            Err(_) => {
                let taken = self.readers[i].take_all(self.store.revision(), self.store.all());
                mending.extend(self.heard(i, taken));
            }
        }
        mending
    }

    fn heard(&mut self, i: usize, taken: Taken) -> Vec<crate::Step> {
        self.findings[i].extend(taken.findings);
        self.replies.extend(taken.replies);
        taken.mending
    }

    fn read(&mut self, i: usize) {
        for step in self.look(i) {
            self.store.step(&step);
        }
    }

    fn read_all(&mut self, i: usize) {
        let taken = self.readers[i].take_all(self.store.revision(), self.store.all());
        for step in self.heard(i, taken) {
            self.store.step(&step);
        }
    }

    /// All read until nobody has anything to mend any more.
    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 50, "the readers mend each other's work for ever");
            let before = self.store.revision();
            for i in 0..self.readers.len() {
                self.read(i);
            }
            if self.store.revision() == before {
                return;
            }
        }
    }

    fn ask(&mut self, op: BoardOp, now_ms: u64) -> Ask {
        self.attempts += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.attempts.to_be_bytes());
        Ask::new(OpId(id), op, now_ms)
    }

    /// A reader sends operations from where it stands, without reading first; gives
    /// how many were written.
    fn send(&mut self, i: usize, asks: &[Ask]) -> usize {
        let planned = self.readers[i].plan(asks, 64);
        let held = self.store.commit(&planned.batch);
        held.into_iter().filter(|held| *held).count()
    }

    /// What must come out well: sent by reader 0, and everybody reads.
    fn done(&mut self, op: BoardOp, now_ms: u64) {
        self.read(0);
        let ask = self.ask(op, now_ms);
        let planned = self.readers[0].plan(std::slice::from_ref(&ask), 64);
        for (_, verdict) in &planned.settled {
            if let Verdict::Refused(refusal) = verdict {
                panic!("{:?} is refused: {refusal}", ask.op);
            }
        }
        assert_eq!(self.send(0, std::slice::from_ref(&ask)), 1, "{:?}", ask.op);
        self.settle();
    }

    fn vote(&self, i: usize, name: &str, value: Value) -> BoardOp {
        ops::record_vote(self.cluster.vote(i, &tx(name), value, NOW))
    }

    /// t votes and the move: THRESHOLD_REACHED, and when it is settled.
    fn decided(&mut self, name: &str) -> u64 {
        for i in 0..self.cluster.t() {
            let vote = self.vote(i, name, number(1));
            self.done(vote, NOW);
        }
        self.done(ops::advance(&tx(name), BallotState::ThresholdReached), NOW);
        let ballot = self.readers[0]
            .board()
            .ballot(&tx(name))
            .expect("it is open");
        ballot.settled_ms().expect("it reached the threshold")
    }

    /// Decided, and reserved.
    fn submitted(&mut self, name: &str) {
        let settled = self.decided(name);
        let board = self.readers[0].board();
        let ballot = board.ballot(&tx(name)).expect("it is open");
        let reservation = board.next_reservation(ballot).expect("it has a value");
        self.done(ops::reserve(&tx(name), reservation), settled);
    }

    fn entries(&self, i: usize) -> Vec<BoardEntry> {
        let entries = self.readers[i].entries(0, usize::MAX);
        entries.map(|entry| BoardEntry::clone(entry)).collect()
    }

    /// Everybody has the same log, it is one that the pure board gives, and somebody
    /// who comes anew reads the same.
    fn assert_one_log(&mut self) {
        let log = self.entries(0);
        for i in 1..self.readers.len() {
            assert_eq!(self.entries(i), log, "reader {i} has another log");
        }
        let mut board = Board::new(Arc::clone(self.cluster.rules()));
        for entry in &log {
            let derived = board.replay(entry.clone(), &FakeVerifier);
            assert_eq!(derived.as_ref(), Ok(entry));
        }
        let mut newcomer = self.newcomer();
        let taken = newcomer.take_all(self.store.revision(), self.store.all());
        assert_eq!(taken.findings, [], "a newcomer finds fault");
        assert_eq!(taken.mending, [], "a newcomer mends");
        let read: Vec<_> = newcomer
            .entries(0, usize::MAX)
            .map(|e| BoardEntry::clone(e))
            .collect();
        assert_eq!(read, log, "a newcomer reads another log");
    }

    fn state(&self, i: usize, name: &str) -> Option<BallotState> {
        let ballot = self.readers[i].board().ballot(&tx(name));
        ballot.map(|ballot| ballot.state)
    }
}

fn of(cluster: &Cluster, i: usize) -> quorate_consensus::NodeId {
    cluster.node_id(i)
}

fn id(name: &str) -> TxId {
    tx(name)
}
