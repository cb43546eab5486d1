//! One ballot, from the first vote to the chain, and the rows of the table that end
//! it otherwise.

mod world;

use quorate_consensus::Choice;
use quorate_consensus::wire::{BallotState, Standing, ViolationType};
use quorate_engine::{Alert, Reject, Wait};
use quorate_testkit::{Cluster, Options, number, tx};
use world::World;

fn five() -> World {
    World::new(Cluster::with(
        5,
        4,
        Options::default().times(10_000, 200, 1_000),
    ))
}

#[test]
fn four_equal_votes_are_confirmed_and_proven() {
    let mut world = five();
    let id = tx("tx_001");
    let requests: Vec<_> = (0..4)
        .map(|i| world.submit(i, &id, number(42), Wait::Confirmed))
        .collect();
    world.until(|w| requests.iter().all(|r| w.answers.contains_key(r)));
    for request in requests {
        let answer = world.answer(request).as_ref().expect("accepted");
        assert_eq!(answer.ballot.state(), BallotState::Confirmed);
    }
    assert_eq!(world.chain.included.len(), 1);
    for i in 0..5 {
        let proof = world.engine(i).proof(&id).expect("certificate");
        let bytes = prost::Message::encode_to_vec(&proof);
        let cluster_id = world.cluster.rules().cluster_id();
        let checked = quorate_consensus::proof::verify(
            &bytes,
            &cluster_id,
            None,
            &quorate_testkit::FakeVerifier,
        );
        checked.expect("the certificate holds");
        assert!(
            world.nodes[i].alerts.is_empty(),
            "{:?}",
            world.nodes[i].alerts
        );
    }
}

#[test]
fn dissent_before_the_threshold_aborts_and_bans() {
    let mut world = five();
    let id = tx("tx_001");
    for i in 0..3 {
        world.submit(i, &id, number(1), Wait::Recorded);
    }
    world.submit(4, &id, number(2), Wait::Recorded);
    world.run(100);
    assert_eq!(world.state(&id), Some(BallotState::Collecting));
    world.submit(3, &id, number(1), Wait::Recorded);
    world.until(|w| w.board.is_banned(&w.cluster.node_id(4)));
    assert_eq!(world.state(&id), Some(BallotState::AbortedByzantine));
    world.until(|w| w.engine(0).proof(&id).is_some());
    assert_eq!(world.engine(0).evidence(&id).len(), 1);
    assert!(world.nodes[0].alerts.iter().any(|alert| matches!(
        alert,
        Alert::Misbehaviour {
            kind: ViolationType::MinorityVote,
            ..
        }
    )));
    // The banned node's streams are gone, and its next vote is refused.
    assert!(world.nodes[0].refused.contains(&world.cluster.node_id(4)));
    let request = world.submit(4, &tx("tx_002"), number(1), Wait::Recorded);
    world.run(100);
    assert!(matches!(world.answer(request), Err(Reject::Banned { .. })));
}

#[test]
fn a_split_ends_without_a_ban() {
    let mut world = five();
    let id = tx("tx_001");
    for (i, value) in [1, 1, 2, 2].into_iter().enumerate() {
        world.submit(i, &id, number(value), Wait::Recorded);
    }
    world.until(|w| w.state(&id) == Some(BallotState::AbortedSplit));
    world.run(1_000);
    assert!((0..5).all(|i| !world.board.is_banned(&world.cluster.node_id(i))));
}

#[test]
fn a_started_ballot_times_out_and_an_outage_is_nobodys_fault() {
    let mut world = five();
    let id = tx("tx_001");
    let request = world.submit(0, &id, number(1), Wait::Decided);
    world.submit(1, &id, number(1), Wait::Recorded);
    world.until(|w| w.answers.contains_key(&request));
    let answer = world
        .answer(request)
        .as_ref()
        .expect("a state, not an error");
    assert_eq!(answer.ballot.state(), BallotState::AbortedTimeout);
    world.run(3_000);
    let ballot = world.board.ballot(&id).unwrap();
    assert!(ballot.roll_called && ballot.silent.is_empty());
    world.until(|w| !w.board.ballot(&id).unwrap().aborts.is_empty());
}

#[test]
fn a_silent_trustee_is_marked_at_the_deadline() {
    let mut world = five();
    let id = tx("tx_001");
    for i in 0..4 {
        world.submit(i, &id, number(1), Wait::Recorded);
    }
    world.until(|w| w.board.ballot(&id).is_some_and(|b| b.roll_called));
    assert_eq!(world.state(&id), Some(BallotState::Confirmed));
    world.run(10);
    let view = world.engine(2).view(&id).unwrap();
    assert_eq!(view.trustees[4].standing(), Standing::Silent);
    let silent = world.board.member(&world.cluster.node_id(4)).unwrap();
    assert_eq!(silent.reputation, 900);
}

#[test]
fn an_unstarted_ballot_expires_and_the_guard_remains() {
    let mut world = five();
    let id = tx("tx_001");
    let request = world.submit(0, &id, number(1), Wait::Decided);
    world.until(|w| w.answers.contains_key(&request));
    assert!(matches!(world.answer(request), Err(Reject::Expired { .. })));
    assert_eq!(world.state(&id), None);
    let second = world.submit(0, &id, number(2), Wait::Recorded);
    world.run(100);
    assert!(
        matches!(world.answer(second), Err(Reject::SecondChoice { first, .. }) if *first == number(1).into())
    );
    let same = world.submit(0, &id, number(1), Wait::Recorded);
    world.run(100);
    assert!(world.answer(same).is_ok());
}

#[test]
fn an_abstention_is_neither_dissent_nor_agreement() {
    let mut world = five();
    let id = tx("tx_001");
    world.submit(4, &id, Choice::Abstention, Wait::Recorded);
    for i in 0..4 {
        world.submit(i, &id, number(1), Wait::Recorded);
    }
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
    assert!(world.board.ballot(&id).unwrap().violations.is_empty());
}

#[test]
fn repeating_is_idempotent_and_a_second_choice_is_refused() {
    let mut world = five();
    let id = tx("tx_001");
    let first = world.submit(0, &id, number(1), Wait::Recorded);
    world.run(100);
    assert!(!world.answer(first).as_ref().unwrap().repeated);
    let again = world.submit(0, &id, number(1), Wait::Recorded);
    let other = world.submit(0, &id, number(2), Wait::Recorded);
    world.run(100);
    assert!(world.answer(again).as_ref().unwrap().repeated);
    assert!(matches!(
        world.answer(other),
        Err(Reject::SecondChoice { .. })
    ));
    assert_eq!(world.board.ballot(&id).unwrap().votes.len(), 1);
    // Before the board has answered, the guard alone holds.
    let id = tx("tx_002");
    let one = world.submit(1, &id, number(1), Wait::Recorded);
    let two = world.submit(1, &id, number(2), Wait::Recorded);
    world.run(100);
    assert!(world.answer(one).is_ok());
    assert!(matches!(
        world.answer(two),
        Err(Reject::SecondChoice { .. })
    ));
}

#[test]
fn many_ballots_at_once_get_their_own_nonces() {
    let mut world = five();
    let ids: Vec<_> = (0..40).map(|n| tx(&format!("tx_{n}"))).collect();
    for id in &ids {
        for i in 0..4 {
            world.submit(i, id, number(7), Wait::Recorded);
        }
    }
    world.until(|w| {
        ids.iter()
            .all(|id| w.state(id) == Some(BallotState::Confirmed))
    });
    assert_eq!(world.chain.included.len(), ids.len());
}

/// Four votes for 1, and then the fifth trustee's while the settle window runs.
fn fifth_vote_in_the_settle_window(options: Options, choice: impl Into<Choice>) -> World {
    let mut world = World::new(Cluster::with(5, 4, options.times(10_000, 2_000, 1_000)));
    let id = tx("tx_001");
    for i in 0..4 {
        world.submit(i, &id, number(1), Wait::Recorded);
    }
    world.until(|w| w.state(&id) == Some(BallotState::ThresholdReached));
    world.submit(4, &id, choice, Wait::Recorded);
    world.until(|w| w.board.ballot(&id).is_some_and(|b| b.votes.len() == 5));
    world.run(5_000);
    world
}

#[test]
fn dissent_in_the_settle_window_aborts() {
    let world = fifth_vote_in_the_settle_window(Options::default(), number(2));
    let ballot = world.board.ballot(&tx("tx_001")).unwrap();
    assert_eq!(ballot.state, BallotState::AbortedByzantine);
    assert_eq!(ballot.path.last().unwrap().row, 8);
    assert!(world.board.is_banned(&world.cluster.node_id(4)));
    assert!(world.chain.included.is_empty());
}

#[test]
fn under_outvote_dissent_in_the_settle_window_changes_nothing_but_bans() {
    let world = fifth_vote_in_the_settle_window(Options::default().outvote(), number(2));
    assert_eq!(world.state(&tx("tx_001")), Some(BallotState::Confirmed));
    assert!(world.board.is_banned(&world.cluster.node_id(4)));
}

#[test]
fn agreement_and_abstention_in_the_settle_window_are_recorded() {
    for choice in [Choice::from(number(1)), Choice::Abstention] {
        let world = fifth_vote_in_the_settle_window(Options::default(), choice);
        let ballot = world.board.ballot(&tx("tx_001")).unwrap();
        assert_eq!(ballot.state, BallotState::Confirmed);
        assert!(ballot.violations.is_empty() && !ballot.votes.values().any(|v| v.late));
    }
}

#[test]
fn late_dissent_changes_no_state_and_is_found_all_the_same() {
    let mut world = five();
    world.chain.refuse = true;
    let id = tx("tx_001");
    for i in 0..4 {
        world.submit(i, &id, number(1), Wait::Recorded);
    }
    world.until(|w| w.state(&id) == Some(BallotState::Submitted));
    world.submit(4, &id, number(2), Wait::Recorded);
    world.until(|w| w.board.is_banned(&w.cluster.node_id(4)));
    assert_eq!(world.state(&id), Some(BallotState::Submitted));
    world.chain.refuse = false;
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
    assert!(world.board.ballot(&id).unwrap().votes[&world.cluster.node_id(4)].late);
}

#[test]
fn any_threshold_works() {
    for n in 1..=4 {
        for t in 1..=n {
            let mut world = World::new(Cluster::with(n, t, Options::default()));
            let id = tx("tx_001");
            for i in 0..t {
                world.submit(i, &id, number(1), Wait::Recorded);
            }
            world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
            assert_eq!(world.chain.included.len(), 1, "{t} of {n}");
        }
    }
}

#[test]
fn two_hundred_members_decide() {
    let mut world = World::silent(Cluster::with(200, 101, Options::default()));
    for i in 0..101 {
        world.start(i);
    }
    world.until(|w| (0..101).all(|i| w.engine(i).is_in_service()));
    // A star is enough: the board carries the votes.
    for i in 1..101 {
        world.connect(0, i);
    }
    world.run(100);
    let id = tx("tx_001");
    for i in 0..101 {
        world.submit(i, &id, number(1), Wait::Recorded);
    }
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
}

#[test]
fn a_node_that_is_down_starves_no_ballot_under_load() {
    let mut world = five();
    world.kill(4);
    let mut ids = Vec::new();
    for k in 0..150 {
        let id = tx(&format!("tx_{k:03}"));
        for i in 0..4 {
            world.submit(i, &id, number(1), Wait::Recorded);
        }
        ids.push(id);
        world.run(40);
    }
    // A second for the settle window, and one for each rank that does not come.
    let waiting: Vec<_> = ids[..100]
        .iter()
        .filter(|id| world.state(id) == Some(BallotState::ThresholdReached))
        .collect();
    assert!(waiting.is_empty(), "{waiting:?}");
}

/// Two of five vote while no frame arrives anywhere: the board times the ballot out
/// and calls the roll, and nobody holds t abort statements.
fn aborted_without_a_proof() -> World {
    let mut world = five();
    for i in 0..5 {
        for j in i + 1..5 {
            world.cut(i, j);
        }
    }
    let id = tx("tx_001");
    for i in 0..2 {
        world.submit(i, &id, number(1), Wait::Recorded);
    }
    world.until(|w| w.board.ballot(&id).is_some_and(|b| b.roll_called));
    world.run(5_000);
    let ballot = world.board.ballot(&id).unwrap();
    assert_eq!(ballot.state, BallotState::AbortedTimeout);
    assert!(!ballot.is_proven());
    world
}

#[test]
fn an_end_is_not_forgotten_before_it_is_proven() {
    let mut world = aborted_without_a_proof();
    world.heal();
    world.until(|w| w.board.ballot(&tx("tx_001")).unwrap().is_proven());
}

#[test]
fn an_end_that_is_not_proven_is_proven_after_a_restart() {
    let mut world = aborted_without_a_proof();
    for i in 0..5 {
        world.restart(i);
    }
    world.heal();
    world.until(|w| w.board.ballot(&tx("tx_001")).unwrap().is_proven());
}

#[test]
fn a_vote_that_the_board_had_not_is_no_repetition() {
    let mut world = five();
    let id = tx("tx_001");
    let first = world.submit(0, &id, number(1), Wait::Recorded);
    world.run(100);
    let repeated = |w: &World, request| w.answer(request).as_ref().unwrap().repeated;
    assert!(!repeated(&world, first));
    let again = world.submit(0, &id, number(1), Wait::Recorded);
    world.run(100);
    assert!(repeated(&world, again));
    // Alone it expires; the guard remains, and the board has nothing.
    world.until(|w| w.state(&id).is_none());
    world.run(100);
    let anew = world.submit(0, &id, number(1), Wait::Recorded);
    world.run(100);
    assert!(!repeated(&world, anew));
    assert!(world.state(&id).is_some());
}
