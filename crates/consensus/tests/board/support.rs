//! A board under test. Whatever a test does, it also checks on every operation that
//! a refusal changes nothing and that a repetition has no effect, and at the end
//! that the log, replayed on a fresh board, gives the same board.

use quorate_consensus::ballot::Ballot;
use quorate_consensus::board::{Board, Outcome, Refusal};
use quorate_consensus::wire::board_event::Event;
use quorate_consensus::wire::{
    BallotState, BoardEntry, BoardOp, ChainOutcome, OperatorActKind, Reservation, ViolationType,
};
use quorate_consensus::{Choice, NodeId, TxId};
use quorate_testkit::{Cluster, FakeVerifier, NOW, Options, ops, tx};

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) board: Board,
    pub(crate) log: Vec<BoardEntry>,
    pub(crate) now: u64,
    /// The transaction that the short methods are about.
    pub(crate) tx: TxId,
}

impl World {
    pub(crate) fn new(n: usize, t: usize, options: Options) -> Self {
        let cluster = Cluster::with(n, t, options);
        Self {
            board: Board::new(cluster.rules().clone()),
            cluster,
            log: Vec::new(),
            now: NOW,
            tx: tx("a"),
        }
    }

    /// Five trustees, t = 4, dissent aborts.
    pub(crate) fn five() -> Self {
        Self::new(5, 4, Options::default())
    }

    /// Five trustees, t = 3, under both policies.
    pub(crate) fn both() -> [Self; 2] {
        [
            Self::new(5, 3, Options::default()),
            Self::new(5, 3, Options::default().outvote()),
        ]
    }

    pub(crate) fn apply(&mut self, op: &BoardOp) -> Result<Outcome, Refusal> {
        let before = self.board.clone();
        let result = self.board.apply(op, self.now, &FakeVerifier);
        match &result {
            Ok(Outcome::Applied(entry)) => {
                assert_eq!(entry.revision, before.revision() + 1);
                self.log.push(entry.clone());
                let after = self.board.clone();
                let again = self.board.apply(op, self.now, &FakeVerifier);
                assert_eq!(again, Ok(Outcome::Unchanged), "{op:?}");
                assert!(
                    self.board == after,
                    "a repetition changed the board: {op:?}"
                );
            }
            Ok(Outcome::Unchanged) => assert!(self.board == before, "{op:?}"),
            Err(refusal) => {
                assert!(self.board == before, "{refusal} changed the board: {op:?}");
                assert!(!refusal.reason().is_empty() && !refusal.to_string().is_empty());
            }
        }
        result
    }

    /// Applies what must change the board, and gives its events.
    #[track_caller]
    pub(crate) fn ok(&mut self, op: &BoardOp) -> Vec<Event> {
        match self.apply(op) {
            Ok(Outcome::Applied(entry)) => {
                entry.events.into_iter().map(|e| e.event.unwrap()).collect()
            }
            other => panic!("{other:?} instead of a change by {op:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn unchanged(&mut self, op: &BoardOp) {
        assert_eq!(self.apply(op), Ok(Outcome::Unchanged));
    }

    /// The stable reason of a refusal.
    #[track_caller]
    pub(crate) fn refused(&mut self, op: &BoardOp) -> &'static str {
        match self.apply(op) {
            Err(refusal) => refusal.reason(),
            other => panic!("{other:?} instead of a refusal of {op:?}"),
        }
    }

    pub(crate) fn id(&self, i: usize) -> NodeId {
        self.cluster.node_id(i)
    }

    pub(crate) fn vote_op(&self, i: usize, choice: impl Into<Choice>) -> BoardOp {
        ops::record_vote(self.cluster.vote(i, &self.tx, choice, self.now))
    }

    /// Records a vote that must change the board, and gives its events.
    #[track_caller]
    pub(crate) fn vote(&mut self, i: usize, choice: impl Into<Choice>) -> Vec<Event> {
        let op = self.vote_op(i, choice);
        self.ok(&op)
    }

    /// The same vote by several.
    #[track_caller]
    pub(crate) fn votes(
        &mut self,
        who: impl IntoIterator<Item = usize>,
        choice: impl Into<Choice>,
    ) {
        let choice = choice.into();
        for i in who {
            self.vote(i, choice.clone());
        }
    }

    pub(crate) fn ballot(&self) -> &Ballot {
        self.board.ballot(&self.tx).unwrap()
    }

    pub(crate) fn state(&self) -> BallotState {
        self.ballot().state
    }

    /// Row and target of the move that the table gives now.
    pub(crate) fn next(&self) -> Option<(u8, BallotState)> {
        let next = self.board.next_move(&self.tx, self.now)?;
        Some((next.row, next.to))
    }

    /// Makes the move that the table gives; it must be this one.
    #[track_caller]
    pub(crate) fn moves(&mut self, row: u8, to: BallotState) -> Vec<Event> {
        assert_eq!(self.next(), Some((row, to)));
        let op = ops::advance(&self.tx, to);
        let events = self.ok(&op);
        assert_eq!(self.state(), to);
        let last = self.ballot().path.last().unwrap();
        assert_eq!((last.state(), last.row), (to, u32::from(row)));
        assert!(!self.ballot().reason.is_empty());
        events
    }

    pub(crate) fn settle(&mut self) {
        self.now = self.now.max(self.ballot().settled_ms().unwrap());
    }

    pub(crate) fn reservation(&self) -> Reservation {
        let current = self.ballot().reservation.clone();
        current.unwrap_or_else(|| self.board.next_reservation(self.ballot()).unwrap())
    }

    /// From THRESHOLD_REACHED to SUBMITTED.
    #[track_caller]
    pub(crate) fn reserve(&mut self) -> Vec<Event> {
        self.settle();
        let op = ops::reserve(&self.tx, self.reservation());
        self.ok(&op)
    }

    /// t votes for `value`, and on to SUBMITTED.
    #[track_caller]
    pub(crate) fn submit(&mut self, value: impl Into<Choice>) {
        let t = self.cluster.t();
        self.votes(0..t, value);
        self.moves(4, BallotState::ThresholdReached);
        self.reserve();
        assert_eq!(self.state(), BallotState::Submitted);
    }

    pub(crate) fn certify_op(&self) -> BoardOp {
        let reservation = self.reservation();
        let value = self.ballot().value.clone().unwrap();
        let decisions = self
            .cluster
            .of_threshold(|c, i| c.decision(i, &self.tx, &value, Some(&reservation)));
        ops::certify(&self.tx, decisions)
    }

    #[track_caller]
    pub(crate) fn certify(&mut self) {
        let op = self.certify_op();
        self.ok(&op);
    }

    pub(crate) fn conclude_op(&self, outcome: ChainOutcome) -> BoardOp {
        let reservation = self.reservation();
        let round = self.ballot().round;
        let observations = self
            .cluster
            .of_threshold(|c, i| c.observation_in_round(i, &self.tx, &reservation, outcome, round));
        ops::conclude(&self.tx, observations)
    }

    #[track_caller]
    pub(crate) fn conclude(&mut self, outcome: ChainOutcome) -> Vec<Event> {
        let op = self.conclude_op(outcome);
        self.ok(&op)
    }

    #[track_caller]
    pub(crate) fn give_up(&mut self) {
        let acts = self.cluster.of_threshold(|c, i| {
            c.act(
                i,
                OperatorActKind::GiveUp,
                self.tx.as_str(),
                Vec::new(),
                self.now,
            )
        });
        let op = ops::give_up(&self.tx, acts);
        self.ok(&op);
    }

    /// Bans by the first evidence of this kind in the ballot.
    pub(crate) fn ban_op(&self, i: usize, kind: ViolationType) -> BoardOp {
        let node_id = self.id(i);
        let mut violations = self.ballot().violations.iter();
        let found = violations.find(|v| v.node_id == node_id && v.kind == kind);
        ops::ban_for(&node_id, found.unwrap().misbehaviour.clone().unwrap())
    }

    /// Violations in the ballot: who, and which.
    pub(crate) fn violations(&self) -> Vec<(NodeId, ViolationType)> {
        let of = |v: &quorate_consensus::ballot::Violation| (v.node_id.clone(), v.kind);
        let mut violations: Vec<_> = self.ballot().violations.iter().map(of).collect();
        violations.sort();
        violations
    }

    fn check_replay(&self) {
        let mut mirror = Board::new(self.cluster.rules().clone());
        for entry in &self.log {
            let mut bare = entry.clone();
            bare.events.clear();
            assert_eq!(mirror.replay(bare, &FakeVerifier).as_ref(), Ok(entry));
        }
        assert!(mirror == self.board, "a replay gave another board");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.check_replay();
        }
    }
}

/// Kinds of the events, for short comparisons.
pub(crate) fn kinds(events: &[Event]) -> Vec<&'static str> {
    let kind = |event: &Event| match event {
        Event::VoteRecorded(_) => "vote",
        Event::StateChanged(_) => "state",
        Event::Reserved(_) => "reserved",
        Event::Certified(_) => "certified",
        Event::Concluded(_) => "concluded",
        Event::AbortProven(_) => "abort",
        Event::ViolationFound(_) => "violation",
        Event::Banned(_) => "banned",
        Event::Unbanned(_) => "unbanned",
        Event::GivenUp(_) => "given up",
        Event::Accused(_) => "accused",
        Event::ReputationChanged(_) => "reputation",
        Event::Expired(_) => "expired",
        Event::Booted(_) => "booted",
        Event::LeaseChanged(_) => "lease",
        Event::Collected(_) => "collected",
    };
    events.iter().map(kind).collect()
}
