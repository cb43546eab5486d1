//! The vote ledger.

use quorate_consensus::Choice;
use quorate_consensus::wire::{self, BallotState, ChainOutcome, Standing};
use quorate_testkit::{Options, data, number, ops};

use crate::support::World;

fn standings(view: &wire::Ballot) -> Vec<Standing> {
    view.trustees.iter().map(|t| t.standing()).collect()
}

#[test]
fn a_collecting_ballot_says_what_it_waits_for() {
    let mut w = World::five();
    w.vote(0, number(42));
    let view = w.board.view(&w.tx).unwrap();
    assert!(!view.started && view.deadline_ms == 0);
    assert!(view.reason.contains("has not started"), "{}", view.reason);
    w.vote(2, number(42));
    w.vote(1, number(7));
    let view = w.board.view(&w.tx).unwrap();
    assert_eq!(view.state(), BallotState::Collecting);
    let tally: Vec<_> = view.tally.iter().map(|t| t.count).collect();
    assert_eq!((tally, view.votes_missing), (vec![2, 1], 2));
    assert_eq!(view.tally[0].value, Some((&number(42)).into()));
    assert_eq!(view.reachable, [wire::Choice::from(&number(42))]);
    assert!(!view.any_reachable && view.started && view.deadline_ms > 0);
    assert_eq!(
        standings(&view),
        [
            Standing::Voted,
            Standing::Voted,
            Standing::Voted,
            Standing::Missing,
            Standing::Missing
        ]
    );
    for part in [
        "3 of 5 voted",
        "2 more for 42",
        "not voted: node4, node5",
        "times out at 2026-",
    ] {
        assert!(
            view.reason.contains(part),
            "{part:?} is not in {:?}",
            view.reason
        );
    }
    let rules = view.rules.unwrap();
    assert_eq!(
        (rules.total_nodes, rules.threshold, rules.tolerated),
        (5, 4, 0)
    );
    assert_eq!(view.trustees[0].peer_id.len(), 32);
    w.vote(3, number(42));
    w.vote(4, number(42));
    let view = w.board.view(&w.tx).unwrap();
    assert_eq!(view.state(), BallotState::Collecting);
    assert!(
        view.reason.contains("4 of them for 42, which is enough"),
        "{}",
        view.reason
    );
}

#[test]
fn every_standing() {
    let mut w = World::new(8, 3, Options::default().outvote());
    w.votes([0, 1, 2], data(b"x"));
    w.vote(3, data(b"y"));
    w.vote(4, Choice::Abstention);
    w.vote(5, data(b"x"));
    w.vote(5, data(b"y"));
    w.moves(4, BallotState::ThresholdReached);
    w.reserve();
    let ban = w.ban_op(5, wire::ViolationType::DoubleVoting);
    w.ok(&ban);
    let accusations = w
        .cluster
        .of_threshold(|c, i| c.accusation(i, 7, wire::AccusationKind::Operator, w.now));
    let ban = ops::ban_accused(&w.id(7), accusations);
    w.ok(&ban);
    w.now = w.ballot().deadline_ms().unwrap();
    let missing = w.board.view(&w.tx).unwrap();
    assert_eq!(missing.trustees[6].standing(), Standing::Missing);
    let call = ops::mark_silent(&w.tx);
    w.ok(&call);
    let view = w.board.view(&w.tx).unwrap();
    assert_eq!(
        standings(&view),
        [
            Standing::Agreed,
            Standing::Agreed,
            Standing::Agreed,
            Standing::Dissented,
            Standing::Abstained,
            Standing::Equivocated,
            Standing::Silent,
            Standing::Banned
        ]
    );
    let banned: Vec<_> = view.trustees.iter().map(|t| t.banned).collect();
    assert_eq!(
        banned,
        [false, false, false, false, false, true, false, true]
    );
    assert_eq!(view.violations.iter().filter(|v| v.proven).count(), 3);
    assert_eq!(view.violations.len(), 4);
    w.vote(6, data(b"x"));
    let view = w.board.view(&w.tx).unwrap();
    assert_eq!(view.trustees[6].standing(), Standing::Late);
    assert_eq!(view.tally[0].count, 3);
}

#[test]
fn a_submission_from_reservation_to_block() {
    let mut w = World::five();
    w.submit(number(1));
    let view = w.board.view(&w.tx).unwrap();
    let submission = view.submission.unwrap();
    assert_eq!(submission.reservation.unwrap().nonce, 7);
    assert!(!submission.certified && submission.tx_hash.is_empty());
    assert!(view.reason.contains("decisions of 4"), "{}", view.reason);
    w.certify();
    let lease = ops::lease(&w.tx, &w.id(1), 1_000);
    w.ok(&lease);
    let reason = w.board.view(&w.tx).unwrap().reason;
    assert!(
        reason.contains("certified") && reason.contains("node2 submits"),
        "{reason}"
    );
    w.conclude(ChainOutcome::Confirmed);
    let view = w.board.view(&w.tx).unwrap();
    let submission = view.submission.clone().unwrap();
    assert_eq!(
        (submission.block_number, submission.tx_hash.len()),
        (100, 32)
    );
    assert_eq!(submission.outcome(), ChainOutcome::Confirmed);
    let path: Vec<_> = view.path.iter().map(|p| (p.state(), p.row)).collect();
    assert_eq!(
        path,
        [
            (BallotState::Collecting, 1),
            (BallotState::ThresholdReached, 4),
            (BallotState::Submitted, 10),
            (BallotState::Confirmed, 11)
        ]
    );
    assert_eq!(view.value, Some((&number(1)).into()));
    w.conclude(ChainOutcome::Undone);
    let submission = w.board.view(&w.tx).unwrap().submission.unwrap();
    assert_eq!(
        (submission.outcome(), submission.block_number),
        (ChainOutcome::Undone, 0)
    );
}

#[test]
fn a_long_list_of_missing_trustees_is_cut() {
    let mut w = World::new(50, 34, Options::default());
    w.vote(0, number(1));
    let reason = w.board.view(&w.tx).unwrap().reason;
    assert!(reason.contains("node09 and 41 more"), "{reason}");
}
