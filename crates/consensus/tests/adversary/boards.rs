//! What the board accepts, a stranger must believe: certificates, abort proofs,
//! evidence and accusations as they come off the board hold offline.

use proptest::prelude::*;
use quorate_consensus::ballot::is_aborted;
use quorate_consensus::board::Board;
use quorate_consensus::proof::{self, Fact};
use quorate_consensus::wire::{AbortReason, AccusationKind, BallotState, BoardOp, ban_proof::Kind};
use quorate_consensus::{Choice, TxId};
use quorate_testkit::{Cluster, FakeVerifier, NOW, Options, number, ops, tx};

use crate::kit::*;

struct World {
    cluster: Cluster,
    board: Board,
    now: u64,
    tx_id: TxId,
}

impl World {
    fn new(options: Options) -> Self {
        let cluster = Cluster::with(5, 3, options);
        Self {
            board: Board::new(cluster.rules().clone()),
            cluster,
            now: NOW,
            tx_id: tx("a"),
        }
    }

    /// What the board refuses here, it may refuse.
    fn offer(&mut self, op: &BoardOp) -> bool {
        self.board.apply(op, self.now, &FakeVerifier).is_ok()
    }

    fn vote(&mut self, i: usize, choice: Choice) {
        let vote = self.cluster.vote(i, &self.tx_id, choice, self.now);
        self.offer(&ops::record_vote(vote));
    }

    /// Makes the moves that the table gives, until it gives none.
    fn settle(&mut self) {
        while let Some(next) = self.board.next_move(&self.tx_id, self.now) {
            assert!(self.offer(&ops::advance(&self.tx_id, next.to)));
        }
    }

    /// Goes on to a certificate or an abort proof, whichever it comes to.
    fn finish(&mut self) {
        self.settle();
        self.now += 400_000;
        self.settle();
        let Some(ballot) = self.board.ballot(&self.tx_id).cloned() else {
            return;
        };
        let tx_id = self.tx_id.clone();
        if ballot.state == BallotState::ThresholdReached {
            let reservation = self.board.next_reservation(&ballot).unwrap();
            assert!(self.offer(&ops::reserve(&tx_id, reservation.clone())));
            let value = ballot.value.clone().unwrap();
            let decide = |c: &Cluster, i| c.decision(i, &tx_id, &value, Some(&reservation));
            let decisions = self.cluster.of_threshold(decide);
            assert!(self.offer(&ops::certify(&tx_id, decisions)));
        } else if is_aborted(ballot.state) {
            let reason = match ballot.state {
                BallotState::AbortedByzantine => AbortReason::Byzantine,
                BallotState::AbortedSplit => AbortReason::Split,
                _ => AbortReason::Timeout,
            };
            let aborts = self.cluster.of_threshold(|c, i| c.abort(i, &tx_id, reason));
            assert!(self.offer(&ops::prove_abort(&tx_id, aborts)));
        }
    }

    /// Checks all that the ballot left, and gives whether it was decided.
    fn believe(&self) -> Option<bool> {
        let ballot = self.board.ballot(&self.tx_id)?;
        let rules = || chain(&self.cluster);
        for violation in &ballot.violations {
            let Some(misbehaviour) = violation.misbehaviour.clone() else {
                continue;
            };
            let evidence = proof::evidence(rules(), misbehaviour);
            let Fact::Lied(conviction) = check(&evidence, &self.cluster).unwrap().fact else {
                panic!("no lie")
            };
            assert_eq!(conviction.node_id, violation.node_id);
            assert_eq!(conviction.kind, violation.kind);
            assert_eq!(conviction.tx_id, self.tx_id);
        }
        if let Some(certificate) = ballot.certificate.clone() {
            let certificate = proof::certificate(rules(), certificate);
            let fact = check(&certificate, &self.cluster).unwrap().fact;
            let Fact::Decided {
                tx_id,
                value,
                reservation,
                ..
            } = fact
            else {
                panic!("no decision")
            };
            assert_eq!(tx_id, self.tx_id);
            assert_eq!(Some(value), ballot.value);
            assert_eq!(reservation, ballot.reservation);
            return Some(true);
        }
        if !ballot.aborts.is_empty() {
            let dead = proof::abort_proof(rules(), ballot.aborts.clone());
            let Fact::Dead { tx_id, .. } = check(&dead, &self.cluster).unwrap().fact else {
                panic!("not dead")
            };
            assert_eq!(tx_id, self.tx_id);
            return Some(false);
        }
        None
    }
}

fn choice() -> impl Strategy<Value = Choice> {
    prop_oneof![
        6 => Just(number(1).into()),
        2 => Just(number(2).into()),
        1 => Just(Choice::Abstention),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn whatever_a_ballot_leaves_holds_offline(
        votes in prop::collection::vec((0..5usize, choice(), any::<bool>()), 1..12),
        outvote in any::<bool>(),
    ) {
        let options = Options::default();
        let mut world = World::new(if outvote { options.outvote() } else { options });
        for (i, choice, moves) in votes {
            world.now += 1;
            world.vote(i, choice);
            if moves {
                world.settle();
            }
        }
        world.finish();
        world.believe();
        // Late votes, and what they give away.
        for i in 0..5 {
            world.vote(i, number(3).into());
        }
        world.believe();
    }
}

#[test]
fn a_decision_and_an_abort() {
    let mut world = World::new(Options::default());
    (0..3).for_each(|i| world.vote(i, number(1).into()));
    world.finish();
    assert_eq!(world.believe(), Some(true));

    let mut world = World::new(Options::default());
    (0..3).for_each(|i| world.vote(i, number(1).into()));
    world.vote(4, number(2).into());
    world.finish();
    assert_eq!(world.believe(), Some(false));
}

#[test]
fn a_ban_by_accusations() {
    let mut world = World::new(Options::default());
    let cluster = world.cluster.clone();
    let accuse = |c: &Cluster, i| c.accusation(i, 4, AccusationKind::InvalidSignature, NOW);
    let accusations = cluster.of_threshold(accuse);
    let node_id = cluster.node_id(4);
    assert!(world.offer(&ops::ban_accused(&node_id, accusations)));
    let ban = world.board.member(&node_id).unwrap().ban.clone().unwrap();
    let Some(Kind::Accusations(proof)) = ban.proof.kind else {
        panic!("no accusations")
    };
    let accused = proof::accusation_proof(chain(&cluster), proof.accusations);
    let Fact::Accused { node_id: found, by } = check(&accused, &cluster).unwrap().fact else {
        panic!("not accused")
    };
    assert_eq!(found, node_id);
    assert_eq!(by.len(), 3);
}
