//! The log of a real board: what the store shows is what the board knows.

use std::sync::Arc;

use quorate_consensus::board::{Board, Outcome};
use quorate_consensus::detector::proof_digest;
use quorate_consensus::wire::{
    AccusationKind, BallotState, BoardEntry, BoardOp, ChainOutcome, DissentPolicy, OperatorActKind,
    Reservation, SignedStatement,
};
use quorate_consensus::{Choice, NodeId, TxId};
use quorate_testkit::{Cluster, FakeVerifier, NOW, Options, number, ops, tx};

use super::{Builder, Place};
use crate::mark::Mark;
use crate::rows::{Filter, SubmissionState};
use crate::store::AuditStore;

pub(super) async fn run_all(builder: &dyn Builder) {
    the_store_shows_what_the_board_knows(&*builder.place().await).await;
    struck_votes_make_no_decision(&*builder.place().await).await;
}

const DAY: u64 = 24 * 3_600_000;

/// A board of five, four of whom decide, and its log.
struct Log {
    cluster: Cluster,
    board: Board,
    now: u64,
    entries: Vec<BoardEntry>,
}

impl Log {
    fn new(options: Options) -> Self {
        let cluster = Cluster::with(5, 4, options);
        Self {
            board: Board::new(Arc::clone(cluster.rules())),
            cluster,
            now: NOW,
            entries: Vec::new(),
        }
    }

    fn apply(&mut self, op: BoardOp) {
        self.now += 10;
        match self.board.apply(&op, self.now, &FakeVerifier) {
            Ok(Outcome::Applied(entry)) => self.entries.push(entry),
            Ok(Outcome::Unchanged) => panic!("nothing changed: {op:?}"),
            Err(refusal) => panic!("{refusal}"),
        }
    }

    fn wait(&mut self, ms: u64) {
        self.now += ms;
    }

    fn vote(&mut self, i: usize, tx_id: &TxId, choice: impl Into<Choice>) {
        let vote = self.cluster.vote(i, tx_id, choice, self.now);
        self.apply(ops::record_vote(vote));
    }

    /// Four equal votes, the threshold, the settle window, the reservation.
    fn reserved(&mut self, tx_id: &TxId, of: u64) -> Reservation {
        for i in 0..4 {
            self.vote(i, tx_id, number(of));
        }
        self.apply(ops::advance(tx_id, BallotState::ThresholdReached));
        self.wait(1_000);
        let ballot = self.board.ballot(tx_id).expect("a ballot");
        let reservation = self.board.next_reservation(ballot).expect("a reservation");
        self.apply(ops::reserve(tx_id, reservation.clone()));
        reservation
    }

    fn certify(&mut self, tx_id: &TxId, of: u64, reservation: &Reservation) {
        let decisions = self
            .cluster
            .of_threshold(|cluster, i| cluster.decision(i, tx_id, &number(of), Some(reservation)));
        self.apply(ops::certify(tx_id, decisions));
    }

    fn observed(
        &self,
        tx_id: &TxId,
        reservation: &Reservation,
        outcome: ChainOutcome,
    ) -> Vec<SignedStatement> {
        let round = self.board.ballot(tx_id).map_or(0, |ballot| ballot.round);
        self.cluster.of_threshold(|cluster, i| {
            cluster.observation_in_round(i, tx_id, reservation, outcome, round)
        })
    }

    fn conclude(&mut self, tx_id: &TxId, reservation: &Reservation, outcome: ChainOutcome) {
        let observations = self.observed(tx_id, reservation, outcome);
        self.apply(ops::conclude(tx_id, observations));
    }

    fn act(
        &self,
        kind: OperatorActKind,
        subject: &str,
        pardoned: &[[u8; 32]],
    ) -> Vec<SignedStatement> {
        let now = self.now;
        self.cluster
            .of_threshold(|cluster, i| cluster.act(i, kind, subject, pardoned.to_vec(), now))
    }

    /// Confirmed, undone by the chain, confirmed again; nobody heard of the fifth.
    fn confirmed(&mut self) {
        let a = tx("confirmed");
        let reservation = self.reserved(&a, 1);
        self.certify(&a, 1, &reservation);
        for outcome in [
            ChainOutcome::Confirmed,
            ChainOutcome::Undone,
            ChainOutcome::Confirmed,
        ] {
            self.conclude(&a, &reservation, outcome);
        }
        self.wait(400_000);
        self.apply(ops::mark_silent(&a));
    }

    /// Confirmed, and undone by the chain.
    fn undone(&mut self) {
        let a = tx("undone");
        let reservation = self.reserved(&a, 1);
        self.certify(&a, 1, &reservation);
        for outcome in [ChainOutcome::Confirmed, ChainOutcome::Undone] {
            self.conclude(&a, &reservation, outcome);
        }
    }

    /// A stranger took the nonce, another one was reserved; then it was given up.
    fn failed(&mut self) {
        let b = tx("failed");
        let first = self.reserved(&b, 2);
        let taken = self.observed(&b, &first, ChainOutcome::NonceTaken);
        let ballot = self.board.ballot(&b).expect("a ballot");
        let second = self.board.next_reservation(ballot).expect("a reservation");
        assert_ne!(first.nonce, second.nonce);
        self.apply(ops::reserve_anew(&b, second.clone(), taken));
        let acts = self.act(OperatorActKind::GiveUp, b.as_str(), &[]);
        self.apply(ops::give_up(&b, acts));
        self.conclude(&b, &second, ChainOutcome::Cancelled);
        self.vote(4, &b, number(2));
    }

    /// A double vote, the ban for it, and its pardon.
    fn double_vote(&mut self) {
        let c = tx("double");
        self.vote(3, &c, number(1));
        self.vote(3, &c, number(2));
        self.apply(ops::advance(&c, BallotState::AbortedByzantine));
        let ballot = self.board.ballot(&c).expect("a ballot");
        let lie = ballot.violations[0].misbehaviour.clone().expect("proven");
        let liar = self.cluster.node_id(3);
        self.apply(ops::ban_for(&liar, lie));
        let ban = self.board.member(&liar).and_then(|m| m.ban.clone());
        let pardoned = [proof_digest(&ban.expect("banned").proof)];
        let acts = self.act(OperatorActKind::Unban, liar.as_str(), &pardoned);
        self.apply(ops::unban(&liar, acts));
    }

    fn minority(&mut self) {
        let d = tx("minority");
        self.vote(4, &d, number(2));
        for i in 0..4 {
            self.vote(i, &d, number(1));
        }
        self.apply(ops::advance(&d, BallotState::AbortedByzantine));
    }

    fn split(&mut self) {
        let e = tx("split");
        for i in 0..4 {
            self.vote(i, &e, number(i as u64 / 2));
        }
        self.apply(ops::advance(&e, BallotState::AbortedSplit));
    }

    /// A ballot that never started, opened again.
    fn expired(&mut self) {
        let f = tx("expired");
        self.vote(0, &f, number(1));
        self.wait(400_000);
        self.apply(ops::expire(&f));
        self.vote(0, &f, number(1));
    }

    fn accused(&mut self) {
        let accused = self.cluster.node_id(4);
        let now = self.now;
        let accusations: Vec<_> = (0..4)
            .map(|by| {
                self.cluster
                    .accusation(by, 4, AccusationKind::Malformed, now)
            })
            .collect();
        for accusation in &accusations {
            self.apply(ops::accuse(accusation.clone()));
        }
        self.apply(ops::ban_accused(&accused, accusations));
    }
}

async fn the_store_shows_what_the_board_knows(place: &dyn Place) {
    let mut log = Log::new(Options::default());
    let rules = Arc::clone(log.cluster.rules());
    let store = place.open(rules).await.expect("the store opens");
    log.apply(ops::boot(log.cluster.boot(0, 1, NOW)));
    log.confirmed();
    log.undone();
    log.failed();
    log.double_vote();
    log.minority();
    log.split();
    log.expired();
    log.accused();
    let head = store
        .project(Mark::at(0), &log.entries)
        .await
        .expect("projected");
    assert_eq!(head, log.board.revision());
    same_members(&*store, &log.board).await;
    same_ballots(&*store, &log.board).await;

    // What the board forgets, the store keeps.
    log.wait(DAY);
    log.apply(ops::collect(&tx("confirmed")));
    let rest = &log.entries[head as usize..];
    store
        .project(Mark::at(head), rest)
        .await
        .expect("projected");
    let (a, ended) = (tx("confirmed"), Some(BallotState::Confirmed));
    assert_eq!(log.board.collected(&a), ended);
    assert_eq!(store.final_state(&a).await.unwrap(), ended);
    assert_eq!(store.votes(&Filter::tx(&a)).await.unwrap().len(), 4);
}

/// Where a liar's votes are struck, it has no part in what the others decide.
async fn struck_votes_make_no_decision(place: &dyn Place) {
    let mut log = Log::new(Options {
        dissent: DissentPolicy::Outvote,
        ..Options::default()
    });
    let rules = Arc::clone(log.cluster.rules());
    let store = place.open(rules).await.expect("the store opens");
    let a = tx("a");
    log.vote(4, &a, number(1));
    log.vote(4, &a, number(2));
    log.reserved(&a, 1);
    store
        .project(Mark::at(0), &log.entries)
        .await
        .expect("projected");
    let decision = store.decision(&a).await.unwrap().expect("a decision");
    let honest: Vec<_> = (0..4).map(|i| log.cluster.node_id(i)).collect();
    assert_eq!(decision.participating_nodes, honest);
    assert_eq!(decision.total_votes, 5);
}

async fn same_members(store: &dyn AuditStore, board: &Board) {
    let rows = store.reputations().await.unwrap();
    assert_eq!(rows.len(), board.rules().total());
    for row in &rows {
        let member = board.member(&row.node_id).expect("a member");
        assert_eq!(row.thousandths, member.reputation, "{}", row.node_id);
        assert_eq!(row.total_votes, member.total_votes, "{}", row.node_id);
        assert_eq!(row.violations_count, member.violations, "{}", row.node_id);
        assert_eq!(row.banned, member.ban.is_some(), "{}", row.node_id);
        let about = Filter::node(&row.node_id);
        let violations = store.violations(&about).await.unwrap();
        assert_eq!(violations.len() as u64, member.violations);
        let bans = store.bans(Some(&row.node_id)).await.unwrap();
        let standing = bans.iter().find(|ban| ban.lifted_at_ms.is_none());
        let standing = standing.map(|ban| (ban.violation_type, ban.banned_at_ms, &ban.proof));
        let ban = member.ban.as_ref();
        assert_eq!(
            standing,
            ban.map(|ban| (ban.kind, ban.since_ms, &ban.proof))
        );
    }
    let pardoned: Vec<_> = store.bans(None).await.unwrap();
    assert_eq!(
        pardoned.iter().filter(|b| b.lifted_at_ms.is_some()).count(),
        1
    );
    assert!(rows[0].last_seen_ms.is_some());
}

async fn same_ballots(store: &dyn AuditStore, board: &Board) {
    let mut states = Vec::new();
    for ballot in board.ballots() {
        let tx_id = &ballot.tx_id;
        states.push(ballot.state);
        let row = store.submission(tx_id).await.unwrap();
        assert_eq!(
            row.as_ref().map(|row| row.state),
            SubmissionState::of(ballot.state),
            "{tx_id}"
        );
        let row = row.as_ref();
        let nonce = ballot.reservation.as_ref().map(|r| r.nonce);
        assert_eq!(row.and_then(|row| row.nonce), nonce, "{tx_id}");
        let value = row.and_then(|row| row.value.as_ref());
        assert_eq!(value, ballot.value.as_ref(), "{tx_id}");
        let confirmed = ballot.state == BallotState::Confirmed;
        let confirmed_at = confirmed.then_some(ballot.since_ms);
        assert_eq!(row.and_then(|row| row.confirmed_at_ms), confirmed_at);

        let votes = store.votes(&Filter::tx(tx_id)).await.unwrap();
        assert_eq!(votes.len(), ballot.votes.len(), "{tx_id}");
        for vote in &votes {
            let recorded = &ballot.votes[&vote.node_id];
            assert_eq!(vote.vote, recorded.vote.signed);
            assert_eq!(vote.choice, recorded.vote.body.choice);
            assert_eq!(vote.late, recorded.late);
        }
        let found = store.violations(&Filter::tx(tx_id)).await.unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|v| (&v.node_id, v.violation_type, v.detected_at_ms))
            .collect();
        let known: Vec<_> = ballot
            .violations
            .iter()
            .map(|v| (&v.node_id, v.kind, v.detected_ms))
            .collect();
        assert_eq!(found, known, "{tx_id}");

        let decision = store.decision(tx_id).await.unwrap();
        let certificate = decision.as_ref().and_then(|d| d.certificate.as_ref());
        assert_eq!(
            certificate.is_some(),
            ballot.certificate.is_some(),
            "{tx_id}"
        );
        if let (Some(decision), Some(value)) = (&decision, &ballot.value) {
            let voters: Vec<NodeId> = ballot
                .votes
                .values()
                .filter(|v| !v.late && v.vote.body.choice.value() == Some(value))
                .map(|v| v.vote.node_id.clone())
                .collect();
            assert_eq!(decision.participating_nodes, voters, "{tx_id}");
        }
    }
    // The log led everywhere it should.
    for state in [
        BallotState::Collecting,
        BallotState::Submitted,
        BallotState::Confirmed,
        BallotState::Failed,
        BallotState::AbortedByzantine,
        BallotState::AbortedSplit,
    ] {
        assert!(states.contains(&state), "{state:?}");
    }
}
