//! A liar on a stage of its own.

use quorate_consensus::board::{Board, Outcome};
use quorate_consensus::statement::KeyRole;
use quorate_consensus::wire::{BoardEntry, BoardOp, SignedStatement, frame};
use quorate_consensus::{Choice, Domain, NodeId, TxId};
use quorate_sim::liars::{Cue, Keys, Liar, LiarKind, Lie, Stage};
use quorate_testkit::{Cluster, FakeVerifier, NOW, number, ops};

/// The last of five, or whoever it is.
pub(crate) struct Actor {
    pub(crate) cluster: Cluster,
    pub(crate) member: usize,
    pub(crate) me: NodeId,
    liar: Box<dyn Liar>,
    pub(crate) dice: u64,
    pub(crate) now_ms: u64,
    pub(crate) board: Board,
}

struct FakeKeys<'a>(&'a Cluster, usize);

impl Keys for FakeKeys<'_> {
    fn sign(&self, role: KeyRole, domain: Domain, statement: &[u8]) -> Vec<u8> {
        let signed = self.0.sign(self.1, role, domain, statement.to_vec());
        signed.signature
    }
}

impl Actor {
    /// Five members, t = 3, the last one lies.
    pub(crate) fn new(kind: LiarKind) -> Self {
        Self::of(kind, Cluster::new(5, 3), 4)
    }

    pub(crate) fn of(kind: LiarKind, cluster: Cluster, member: usize) -> Self {
        Self {
            me: cluster.node_id(member),
            board: Board::new(cluster.rules().clone()),
            cluster,
            member,
            liar: kind.make(),
            dice: 0,
            now_ms: NOW,
        }
    }

    pub(crate) fn dice(mut self, dice: u64) -> Self {
        self.dice = dice;
        self
    }

    pub(crate) fn cue(&mut self, cue: Cue<'_>) -> Vec<Lie> {
        let keys = FakeKeys(&self.cluster, self.member);
        let stage = Stage {
            me: &self.me,
            rules: self.cluster.rules(),
            now_ms: self.now_ms,
            board: Some(&self.board),
            keys: &keys,
            dice: self.dice,
        };
        self.liar.cue(&stage, cue)
    }

    pub(crate) fn asked(&mut self, tx_id: &TxId, choice: impl Into<Choice>) -> Vec<Lie> {
        let choice = &choice.into();
        self.cue(Cue::Asked { tx_id, choice })
    }

    pub(crate) fn hears(&mut self, peer: usize, body: &frame::Body) -> Vec<Lie> {
        let peer = &self.cluster.node_id(peer);
        self.cue(Cue::Heard { peer, body })
    }

    /// The board goes on so, and the liar reads it.
    pub(crate) fn reads(&mut self, op: &BoardOp, now_ms: u64) -> Vec<Lie> {
        let entry = self.write(op, now_ms);
        self.cue(Cue::Entries(&[entry]))
    }

    /// The board goes on so.
    pub(crate) fn write(&mut self, op: &BoardOp, now_ms: u64) -> BoardEntry {
        match self.board.apply(op, now_ms, &FakeVerifier) {
            Ok(Outcome::Applied(entry)) => entry,
            other => panic!("{op:?}: {other:?}"),
        }
    }

    /// t votes for `value`, the threshold, and the reservation, which the liar reads.
    pub(crate) fn decide(&mut self, tx_id: &TxId, value: u64) -> Vec<Lie> {
        let mut lies = Vec::new();
        for i in 0..self.cluster.t() {
            let vote = self.cluster.vote(i, tx_id, number(value), NOW);
            lies.extend(self.reads(&ops::record_vote(vote), NOW));
        }
        let to = quorate_consensus::wire::BallotState::ThresholdReached;
        lies.extend(self.reads(&ops::advance(tx_id, to), NOW));
        let ballot = self.board.ballot(tx_id).expect("a ballot");
        let reservation = self.board.next_reservation(ballot).expect("a reservation");
        let settled = ballot.settled_ms().expect("a threshold");
        self.now_ms = self.now_ms.max(settled);
        lies.extend(self.reads(&ops::reserve(tx_id, reservation), settled));
        lies
    }
}

/// Enough different dice for every variant of every liar.
pub(crate) fn all_dice() -> impl Iterator<Item = u64> {
    let mut rng = fastrand::Rng::with_seed(7);
    std::iter::once(0).chain(std::iter::repeat_with(move || rng.u64(..)).take(300))
}

/// What was said, with to whom.
pub(crate) fn said(lies: &[Lie]) -> impl Iterator<Item = (&NodeId, &frame::Body)> {
    lies.iter().filter_map(|lie| match lie {
        Lie::Say { to, body } => Some((to, body)),
        _ => None,
    })
}

/// What was asked of the board.
pub(crate) fn proposed(lies: &[Lie]) -> impl Iterator<Item = (&BoardOp, u64)> {
    lies.iter().filter_map(|lie| match lie {
        Lie::Propose { op, now_ms } => Some((op, *now_ms)),
        _ => None,
    })
}

/// The batches among what was said.
pub(crate) fn batches(lies: &[Lie]) -> impl Iterator<Item = &quorate_consensus::wire::Batch> {
    said(lies).filter_map(|(_, body)| match body {
        frame::Body::Batch(batch) => Some(batch),
        _ => None,
    })
}

/// The votes that were said.
pub(crate) fn votes(lies: &[Lie]) -> Vec<SignedStatement> {
    let votes = batches(lies).flat_map(|batch| &batch.votes);
    votes.filter_map(|traced| traced.vote.clone()).collect()
}
