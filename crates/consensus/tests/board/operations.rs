//! What operations refuse, and what they answer to a repetition.

use quorate_consensus::board::Board;
use quorate_consensus::board::{MAX_UNSTARTED, Outcome, Refusal, ReplayError};
use quorate_consensus::statement::KeyRole;
use quorate_consensus::wire::board_event::Event;
use quorate_consensus::wire::{
    AbortReason, BallotState, BoardEntry, BoardOp, ChainOutcome, Reservation, SignedStatement,
};
use quorate_consensus::{Choice, Domain};
use quorate_testkit::{Cluster, FakeVerifier, NOW, Options, data, number, ops, tx};

use crate::support::{World, kinds};
use BallotState::{AbortedSplit, Collecting, Confirmed, Submitted, ThresholdReached};

#[test]
fn empty_and_malformed_operations() {
    let mut w = World::five();
    assert_eq!(w.refused(&BoardOp::default()), "MALFORMED_OPERATION");
    let bad = SignedStatement {
        statement: vec![0xff; 40],
        signature: vec![0; 32],
    };
    assert_eq!(
        w.refused(&ops::record_vote(bad.clone())),
        "STATEMENT_UNDECODABLE"
    );
    assert_eq!(w.refused(&ops::accuse(bad)), "STATEMENT_UNDECODABLE");
    let mut vote = w.cluster.vote(0, &w.tx, number(1), w.now);
    vote.signature[0] ^= 1;
    assert_eq!(w.refused(&ops::record_vote(vote)), "BAD_SIGNATURE");
    let mut padded = w.cluster.vote(0, &w.tx, number(1), w.now).statement;
    padded.extend([0xf8, 0x07, 0x01]);
    let padded = w.cluster.sign(0, KeyRole::Vote, Domain::Vote, padded);
    assert_eq!(
        w.refused(&ops::record_vote(padded)),
        "STATEMENT_NOT_CANONICAL"
    );
    let other = Cluster::new(4, 3).vote(0, &w.tx, number(1), w.now);
    assert_eq!(w.refused(&ops::record_vote(other)), "WRONG_CLUSTER");
    let next = w.cluster.successor(6, 5, Options::default());
    let later = next.vote(0, &w.tx, number(1), w.now);
    assert_eq!(w.refused(&ops::record_vote(later)), "WRONG_RULES");
    let to = ops::advance(&w.tx, BallotState::Unspecified);
    assert_eq!(w.refused(&to), "MALFORMED_OPERATION");
}

#[test]
fn votes_have_an_age() {
    let mut w = World::five();
    let at = |w: &World, i, time| ops::record_vote(w.cluster.vote(i, &w.tx, number(1), time));
    let op = at(&w, 0, NOW + 30_001);
    assert_eq!(w.refused(&op), "VOTE_FROM_FUTURE");
    let op = at(&w, 0, NOW + 30_000);
    w.ok(&op);
    let op = at(&w, 1, NOW - 360_001);
    assert_eq!(w.refused(&op), "VOTE_TOO_OLD");
    let op = at(&w, 1, NOW - 360_000);
    w.ok(&op);
    // Known choices are answered whatever their age.
    w.now += 1_000_000;
    w.unchanged(&op);
}

#[test]
fn time_never_runs_backwards() {
    let mut w = World::five();
    w.vote(0, number(1));
    w.now -= 50_000;
    w.vote(1, number(1));
    assert_eq!(w.log[1].time_ms, NOW);
    assert_eq!(w.board.time_ms(), NOW);
}

#[test]
fn only_first_refuses_what_else_would_be_evidence() {
    let mut w = World::five();
    w.vote(0, number(1));
    let second = w.cluster.vote(0, &w.tx, number(2), w.now);
    let refusal = w.apply(&ops::record_first_vote(second.clone()));
    let choice = Choice::from(number(1));
    assert_eq!(refusal, Err(Refusal::OtherChoice { choice }));
    assert_eq!(w.violations(), []);
    w.ok(&ops::record_vote(second));
    // A third choice adds nothing to the proof.
    let third = w.vote_op(0, number(3));
    w.unchanged(&third);
}

#[test]
fn choices_signed_far_apart_prove_nothing() {
    let mut w = World::five();
    let early = w.cluster.vote(0, &w.tx, number(1), NOW - 350_000);
    w.ok(&ops::record_vote(early));
    w.now += 10_001;
    let op = w.vote_op(0, number(2));
    w.unchanged(&op);
    let op = ops::record_vote(w.cluster.vote(0, &w.tx, number(2), NOW + 10_000));
    w.ok(&op);
}

#[test]
fn a_banned_trustee_does_not_vote() {
    let mut w = World::five();
    let first = w.vote_op(0, number(1));
    let second = w.vote_op(0, number(2));
    w.ok(&first);
    w.ok(&second);
    w.moves(2, BallotState::AbortedByzantine);
    let ban = w.ban_op(0, quorate_consensus::wire::ViolationType::DoubleVoting);
    w.ok(&ban);
    // Replies get lost: what the board has, it has.
    w.unchanged(&first);
    w.unchanged(&second);
    let third = w.vote_op(0, number(3));
    assert_eq!(w.refused(&third), "BANNED");
    w.tx = tx("b");
    let elsewhere = w.vote_op(0, number(1));
    assert_eq!(w.refused(&elsewhere), "BANNED");
}

#[test]
fn unstarted_ballots_are_limited() {
    let cluster = Cluster::new(5, 4);
    let mut board = Board::new(cluster.rules().clone());
    let mut vote = |i: usize, name: &str| {
        let vote = cluster.vote(i, &tx(name), number(1), NOW);
        board.apply(&ops::record_vote(vote), NOW, &FakeVerifier)
    };
    for i in 0..MAX_UNSTARTED {
        assert!(matches!(vote(0, &format!("t{i}")), Ok(Outcome::Applied(_))));
    }
    let node_id = cluster.node_id(0);
    let refusal = Err(Refusal::TooManyUnstarted(node_id.clone()));
    assert_eq!(vote(0, "more"), refusal);
    // Others may; joining one that another opened starts it, so that is allowed.
    assert!(vote(1, "more").is_ok());
    assert!(vote(0, "more").is_ok());
    // A started one makes room.
    assert!(vote(1, "t0").is_ok());
    assert!(vote(0, "yet-more").is_ok());
    assert!(vote(0, "too-many").is_err());
    assert_eq!(board.member(&node_id).unwrap().unstarted, MAX_UNSTARTED);
    assert_eq!(board.member(&cluster.node_id(1)).unwrap().unstarted, 0);
}

#[test]
fn changes_of_rules_are_voted_on_for_the_next_epoch_only() {
    let mut w = World::five();
    let digest = data(&[7; 32]);
    for (name, value) in [
        ("rules:1:1", digest.clone()),
        ("rules:3:1", digest.clone()),
        ("rules:2:", digest.clone()),
        ("rules:2:01", digest.clone()),
        ("rules:2:1:1", digest.clone()),
        ("rules:2", digest.clone()),
        ("rules:2:1", data(&[7; 31])),
        ("rules:2:1", number(1)),
    ] {
        w.tx = tx(name);
        let op = w.vote_op(0, value);
        assert_eq!(w.refused(&op), "MALFORMED_OPERATION", "{name}");
    }
    w.tx = tx("rules:2:1");
    w.vote(4, Choice::Abstention);
    w.votes(0..4, digest);
    w.moves(4, ThresholdReached);
    assert_eq!(w.board.next_reservation(w.ballot()), None);
    w.now += 10_000;
    let invented = Reservation {
        account: "treasury".into(),
        nonce: 7,
        payload: Vec::new(),
    };
    let op = ops::reserve(&w.tx, invented);
    assert_eq!(w.refused(&op), "WRONG_RESERVATION");
}

#[test]
fn a_reservation_needs_the_threshold() {
    let mut w = World::five();
    w.votes(0..4, number(1));
    let asked = Reservation {
        account: "treasury".into(),
        nonce: 7,
        payload: w.cluster.rules().payload(&w.tx, &number(1)),
    };
    let op = ops::reserve(&w.tx, asked);
    assert_eq!(w.refused(&op), "ILLEGAL_MOVE");
    let op = ops::reserve(&tx("b"), Reservation::default());
    assert_eq!(w.refused(&op), "UNKNOWN_BALLOT");
}

#[test]
fn a_taken_nonce_is_reserved_anew() {
    let mut w = World::five();
    w.submit(number(1));
    w.certify();
    let old = w.reservation();
    let anew = w.board.next_reservation(w.ballot()).unwrap();
    assert_eq!((old.nonce, anew.nonce), (7, 8));
    let seen = |w: &World, outcome| {
        w.cluster
            .of_threshold(|c, i| c.observation(i, &w.tx, &old, outcome))
    };
    let tx = w.tx.clone();
    assert_eq!(w.refused(&ops::reserve(&tx, anew.clone())), "UNPROVEN");
    let op = ops::reserve_anew(&tx, anew.clone(), seen(&w, ChainOutcome::Reverted));
    assert_eq!(w.refused(&op), "UNPROVEN");
    let taken = seen(&w, ChainOutcome::NonceTaken);
    let op = ops::reserve_anew(
        &tx,
        Reservation {
            nonce: 9,
            ..anew.clone()
        },
        taken.clone(),
    );
    assert_eq!(w.refused(&op), "WRONG_RESERVATION");
    let certify_old = w.certify_op();
    let op = ops::reserve_anew(&tx, anew.clone(), taken.clone());
    let events = w.ok(&op);
    let [Event::Reserved(reserved)] = &*events else {
        panic!("{events:?}");
    };
    assert!(reserved.anew && w.ballot().certificate.is_none());
    assert_eq!((w.state(), w.reservation()), (Submitted, anew.clone()));
    // Decisions for the old reservation certify nothing; nor does the old proof
    // give a third one.
    assert_eq!(w.refused(&certify_old), "UNPROVEN");
    let third = w.board.next_reservation(w.ballot()).unwrap();
    assert_eq!(w.refused(&ops::reserve_anew(&tx, third, taken)), "UNPROVEN");
    w.certify();
    w.conclude(ChainOutcome::Confirmed);
    assert_eq!(w.state(), Confirmed);
}

#[test]
fn proofs_need_exactly_t_ascending_agreeing_statements() {
    let mut w = World::five();
    w.submit(number(1));
    let (tx, reservation) = (w.tx.clone(), w.reservation());
    let c = w.cluster.clone();
    let good: Vec<_> = (0..5)
        .map(|i| c.decision(i, &tx, &number(1), Some(&reservation)))
        .collect();
    let other = c.decision(3, &tx, &number(2), Some(&reservation));
    let free = c.decision(3, &tx, &number(1), None);
    let of = |list: &[usize]| list.iter().map(|i| good[*i].clone()).collect::<Vec<_>>();
    let with = |last: &SignedStatement| [of(&[0, 1, 2]), vec![last.clone()]].concat();
    for wrong in [
        vec![],
        of(&[0, 1, 2]),
        of(&[0, 1, 2, 3, 4]),
        of(&[0, 1, 3, 2]),
        of(&[0, 1, 2, 2]),
        with(&other),
        with(&free),
    ] {
        assert_eq!(w.refused(&ops::certify(&tx, wrong)), "UNPROVEN");
    }
    let vote = c.vote(3, &tx, number(1), w.now);
    assert!(w.apply(&ops::certify(&tx, with(&vote))).is_err());
    let events = w.ok(&ops::certify(&tx, of(&[0, 2, 3, 4])));
    let [Event::Certified(certified)] = &*events else {
        panic!("{events:?}");
    };
    let proof = certified.proof.as_ref().unwrap();
    assert_eq!((proof.votes.len(), proof.decisions.len()), (4, 4));

    let saw = |i, outcome| c.observation(i, &tx, &reservation, outcome);
    let mut mixed: Vec<_> = (0..3).map(|i| saw(i, ChainOutcome::Confirmed)).collect();
    mixed.push(saw(3, ChainOutcome::Reverted));
    assert_eq!(w.refused(&ops::conclude(&tx, mixed)), "UNPROVEN");
    let elsewhere = Reservation {
        nonce: 8,
        ..reservation.clone()
    };
    let elsewhere =
        c.of_threshold(|c, i| c.observation(i, &tx, &elsewhere, ChainOutcome::Confirmed));
    assert_eq!(w.refused(&ops::conclude(&tx, elsewhere)), "UNPROVEN");
}

#[test]
fn abort_statements_prove_the_end() {
    let mut w = World::new(3, 2, Options::default());
    let of = |w: &World, reason| w.cluster.of_threshold(|c, i| c.abort(i, &w.tx, reason));
    for i in 0..3 {
        w.vote(i, number(i as u64));
    }
    let tx = w.tx.clone();
    let good = ops::prove_abort(&tx, of(&w, AbortReason::Split));
    assert_eq!(w.refused(&good), "UNPROVEN");
    w.moves(5, AbortedSplit);
    let wrong = ops::prove_abort(&tx, of(&w, AbortReason::Timeout));
    assert_eq!(w.refused(&wrong), "UNPROVEN");
    assert_eq!(kinds(&w.ok(&good)), ["abort"]);
    assert_eq!(w.ballot().aborts.len(), 2);
}

#[test]
fn giving_up_takes_t_unbanned_members() {
    use quorate_consensus::wire::OperatorActKind::{GiveUp, Unban};
    let mut w = World::new(5, 3, Options::default());
    w.votes(0..5, number(1));
    w.moves(4, ThresholdReached);
    let act = |w: &World, i, kind, subject: &str| w.cluster.act(i, kind, subject, vec![], w.now);
    let tx = w.tx.clone();
    let good: Vec<_> = (0..3).map(|i| act(&w, i, GiveUp, "a")).collect();
    assert_eq!(w.refused(&ops::give_up(&tx, good.clone())), "UNPROVEN");
    w.reserve();
    for wrong in [act(&w, 2, Unban, "a"), act(&w, 2, GiveUp, "b")] {
        let list = vec![good[0].clone(), good[1].clone(), wrong];
        assert_eq!(w.refused(&ops::give_up(&tx, list)), "UNPROVEN");
    }
    w.vote(0, number(2));
    let ban = w.ban_op(0, quorate_consensus::wire::ViolationType::DoubleVoting);
    w.ok(&ban);
    assert_eq!(w.refused(&ops::give_up(&tx, good.clone())), "UNPROVEN");
    let four = [good, vec![act(&w, 3, GiveUp, "a")]].concat();
    assert_eq!(kinds(&w.ok(&ops::give_up(&tx, four))), ["given up"]);
    assert!(w.ballot().given_up);
}

#[test]
fn leases_are_free_own_or_held() {
    let mut w = World::five();
    w.votes(0..4, number(1));
    let (tx, a, b) = (w.tx.clone(), w.id(0), w.id(1));
    assert_eq!(w.refused(&ops::lease(&tx, &a, 100)), "UNPROVEN");
    w.moves(4, ThresholdReached);
    w.reserve();
    assert_eq!(w.refused(&ops::lease(&tx, &a, 0)), "MALFORMED_OPERATION");
    assert_eq!(
        w.refused(&ops::lease(&tx, &a, 60_001)),
        "MALFORMED_OPERATION"
    );
    w.ok(&ops::lease(&tx, &a, 30_000));
    w.now += 29_999;
    assert_eq!(w.refused(&ops::lease(&tx, &b, 30_000)), "LEASE_HELD");
    w.unchanged(&ops::release(&tx, &b));
    w.ok(&ops::lease(&tx, &a, 1_000));
    w.now += 1_000;
    w.ok(&ops::lease(&tx, &b, 30_000));
    w.ok(&ops::release(&tx, &b));
    w.unchanged(&ops::release(&tx, &b));
    w.ok(&ops::lease(&tx, &a, 30_000));
}

#[test]
fn what_is_collected_leaves_its_final_state() {
    let mut w = World::five();
    w.submit(number(1));
    w.certify();
    let collect = ops::collect(&w.tx);
    w.now += 1_000;
    assert_eq!(w.refused(&collect), "UNPROVEN");
    w.conclude(ChainOutcome::Confirmed);
    let lost_reply = w.vote_op(0, number(1));
    w.now += 24 * 3_600_000 - 1;
    assert_eq!(w.refused(&collect), "TOO_EARLY");
    w.now += 1;
    assert_eq!(kinds(&w.ok(&collect)), ["collected"]);
    assert_eq!(w.board.collected(&w.tx), Some(Confirmed));
    assert!(w.board.ballot(&w.tx).is_none() && w.board.view(&w.tx).is_none());
    assert_eq!(w.apply(&lost_reply), Err(Refusal::Collected(Confirmed)));
    let fresh = w.vote_op(4, number(9));
    assert_eq!(w.refused(&fresh), "BALLOT_COLLECTED");
    let op = ops::mark_silent(&w.tx);
    assert_eq!(w.refused(&op), "BALLOT_COLLECTED");
    // Its nonce stays used.
    w.tx = tx("b");
    w.submit(number(1));
    assert_eq!(w.reservation().nonce, 8);
}

#[test]
fn a_log_that_lies_is_not_believed() {
    let mut w = World::five();
    w.votes(0..3, number(1));
    let mut mirror = Board::new(w.cluster.rules().clone());
    let mut replay = |entry: &BoardEntry| mirror.replay(entry.clone(), &FakeVerifier);
    let gap = ReplayError::Gap {
        revision: 0,
        found: 2,
    };
    assert_eq!(replay(&w.log[1]), Err(gap));
    assert!(replay(&w.log[0]).is_ok());
    let back = BoardEntry {
        time_ms: NOW - 1,
        ..w.log[1].clone()
    };
    assert_eq!(replay(&back), Err(ReplayError::Backwards { revision: 2 }));
    let repeated = BoardEntry {
        revision: 2,
        ..w.log[0].clone()
    };
    assert_eq!(
        replay(&repeated),
        Err(ReplayError::NoChange { revision: 2 })
    );
    let made_up = BoardEntry {
        op: Some(ops::advance(&w.tx, ThresholdReached)),
        ..w.log[1].clone()
    };
    let refusal = Refusal::IllegalMove {
        from: Collecting,
        to: ThresholdReached,
    };
    let unjustified = ReplayError::Unjustified {
        revision: 2,
        refusal,
    };
    assert_eq!(replay(&made_up), Err(unjustified));
    let mut events = w.log[1].clone();
    events.events.truncate(0);
    assert_eq!(replay(&events).as_ref(), Ok(&w.log[1]));
}

#[test]
fn two_hundred_members() {
    let mut w = World::new(200, 134, Options::default());
    w.vote(199, Choice::Abstention);
    w.votes(0..134, number(1));
    w.moves(4, ThresholdReached);
    w.reserve();
    w.certify();
    w.conclude(ChainOutcome::Confirmed);
    assert_eq!(w.ballot().deciding_votes().len(), 134);
    assert_eq!(w.board.view(&w.tx).unwrap().trustees.len(), 200);
}
