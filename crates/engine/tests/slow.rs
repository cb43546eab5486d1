//! Keys and journals that are slow or away, and what a liar wants kept from the board
//! or asked of it for ever.

mod world;

use quorate_consensus::Domain;
use quorate_consensus::statement::{self, AbortBody, ObservationBody};
use quorate_consensus::wire::{
    self, AbortReason, AccusationKind, BallotState, ChainOutcome, frame,
};
use quorate_engine::{Alert, Handed, Reject, Submit, Wait};
use quorate_testkit::{Cluster, Options, number, ops, tx};
use world::World;

fn five() -> World {
    let options = Options::default().times(20_000, 100, 1_000);
    World::new(Cluster::with(5, 4, options))
}

fn nobody_is_blamed(world: &World) {
    for i in 0..world.nodes.len() {
        let member = world.board.member(&world.cluster.node_id(i)).unwrap();
        assert!(member.ban.is_none(), "node {i} is banned");
        assert!(member.accusations.is_empty(), "node {i} is accused");
    }
}

#[test]
fn a_signature_that_comes_late_is_not_joined_to_later_words() {
    let mut world = five();
    let id = tx("tx_001");
    for i in 0..4 {
        world.submit(i, &id, number(1), Wait::Recorded);
    }
    world.until(|w| !w.chain.included.is_empty());
    world.sign_ms = 400;
    world.run(300);
    // Its block is replaced while the first observations are being signed.
    world.chain.head += 1;
    let head = world.chain.head;
    for found in world.chain.included.values_mut() {
        found.block = head;
    }
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
    world.run(5_000);
    nobody_is_blamed(&world);
    let observed = world.board.ballot(&id).unwrap().observed.clone().unwrap();
    assert_eq!(observed.block_number, head);
}

#[test]
fn another_reason_does_not_keep_an_abort_from_being_proven() {
    // The liar's id comes before all others.
    let options = Options::default().times(20_000, 100, 1_000);
    let mut world = World::silent(Cluster::with(5, 4, options));
    (1..5).for_each(|i| world.start(i));
    world.until(|w| (1..5).all(|i| w.engine(i).is_in_service()));
    world.connect_all();
    let id = tx("tx_001");
    let streams: Vec<_> = (1..5).map(|i| (i, world.tap_as_member(i, 0))).collect();
    for i in 1..5 {
        world.submit(i, &id, number(i as u64 % 2), Wait::Recorded);
    }
    world.sign_ms = 100;
    world.until(|w| w.state(&id) == Some(BallotState::AbortedSplit));
    let body = AbortBody {
        tx_id: id.clone(),
        reason: AbortReason::Timeout,
    };
    let abort = world.cluster.say(0, &body);
    for (i, stream) in streams {
        let batch = wire::Batch {
            aborts: vec![abort.clone()],
            ..wire::Batch::default()
        };
        world.say(i, stream, frame::Body::Batch(batch));
    }
    world.until(|w| !w.board.ballot(&id).unwrap().aborts.is_empty());
}

#[test]
fn a_key_that_was_away_signs_the_verdict_later() {
    let mut world = five();
    let id = tx("tx_001");
    for i in 0..4 {
        world.submit(i, &id, number(i as u64 % 2), Wait::Recorded);
    }
    // The votes are signed by now, the abort statements are not.
    world.until(|w| w.board.ballot(&id).is_some_and(|b| b.votes.len() == 4));
    world.failing_signatures = 5;
    world.until(|w| !w.board.ballot(&id).unwrap().aborts.is_empty());
    assert_eq!(world.failing_signatures, 0);
    let took = world.wall() - world.board.ballot(&id).unwrap().since_ms;
    assert!(took < 5_000, "{took} ms");
}

fn four() -> World {
    let options = Options::default().times(20_000, 100, 1_000);
    World::new(Cluster::with(4, 3, options))
}

/// A ballot that one vote opened, 200 ms before it expires, and node 0 just started
/// with a journal that takes half a second to answer.
fn about_to_expire(world: &mut World) -> quorate_consensus::TxId {
    let id = tx("tx_001");
    world.submit(1, &id, number(1), Wait::Recorded);
    world.run(21_800);
    world.restart(0);
    world.lookup_ms = 500;
    world.run(100);
    assert!(world.engine(0).is_in_service());
    assert!(world.state(&id).is_some());
    id
}

#[test]
fn who_waits_for_the_journal_is_answered_although_the_ballot_expires() {
    let mut world = four();
    let id = about_to_expire(&mut world);
    let request = world.submit(0, &id, number(42), Wait::Recorded);
    world.run(350);
    assert_eq!(world.state(&id), None);
    world.run(2_000);
    assert!(world.answer(request).is_ok(), "{:?}", world.answer(request));
}

#[test]
fn an_older_answer_of_the_journal_does_not_forget_the_guard() {
    let mut world = four();
    let id = about_to_expire(&mut world);
    world.until(|w| w.state(&id).is_none());
    world.run(20);
    world.board_away = true;
    world.submit(0, &id, number(42), Wait::Recorded);
    world.run(30_000);
    let other = world.submit(0, &id, number(43), Wait::Recorded);
    world.run(1_000);
    let answer = world.answer(other);
    assert!(
        matches!(answer, Err(Reject::SecondChoice { .. })),
        "{answer:?}"
    );
}

#[test]
fn what_the_board_refuses_is_not_proposed_for_ever() {
    let mut world = five();
    let stream = world.tap_as_member(0, 4);
    let now = world.wall();
    let vote = world.cluster.vote(4, &tx("rules:9:1"), number(1), now);
    world.say_votes(0, stream, vec![vote]);
    world.run(15_000);
    assert_eq!(world.refusals.len(), 1, "{:?}", world.refusals);
}

#[test]
fn an_undone_submission_is_told_to_whoever_was_cut_off() {
    let mut world = four();
    let id = tx("tx_001");
    for i in 0..3 {
        world.submit(i, &id, number(1), Wait::Recorded);
    }
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
    world.run(1_000);
    // Nobody watches from memory: all were started anew.
    for i in 0..4 {
        world.restart(i);
    }
    world.run(1_000);
    for (i, j) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        world.cut(i, j);
    }
    let nonce = *world.chain.included.keys().next().unwrap();
    let undone = world.chain.included.remove(&nonce).unwrap();
    world.run(15_000);
    assert_eq!(world.state(&id), Some(BallotState::Confirmed));
    world.heal();
    let passed = |w: &World| w.board.ballot(&id).unwrap().path.len();
    let before = passed(&world);
    world.until(|w| passed(w) > before);
    world.run(10);
    for node in &world.nodes {
        let told = |alert: &Alert| matches!(alert, Alert::Submission { .. });
        assert!(node.alerts.iter().any(told), "{:?}", node.alerts);
    }
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
    assert_eq!(world.chain.included[&nonce].payload, undone.payload);
}

#[test]
fn an_accusation_by_a_banned_member_is_not_proposed_for_ever() {
    let mut world = five();
    let stream = world.tap_as_member(0, 3);
    let now = world.wall();
    let accusations: Vec<_> = (0..4)
        .map(|i| {
            world
                .cluster
                .accusation(i, 4, AccusationKind::Malformed, now)
        })
        .collect();
    let banned = world.cluster.node_id(4);
    world
        .write(&ops::ban_accused(&banned, accusations))
        .unwrap();
    world.run(50);
    let accusation = world
        .cluster
        .accusation(4, 1, AccusationKind::Malformed, now);
    let batch = wire::Batch {
        accusations: vec![accusation],
        ..wire::Batch::default()
    };
    world.say(0, stream, frame::Body::Batch(batch));
    world.run(10_000);
    assert!(world.refusals.is_empty(), "{:?}", world.refusals);
    let accused = world.board.member(&world.cluster.node_id(1)).unwrap();
    assert!(accused.accusations.is_empty());
}

#[test]
fn a_store_put_back_under_a_running_node_sends_nothing() {
    let mut world = four();
    world.chain.refuse = true;
    let id = tx("tx_001");
    for i in 0..3 {
        world.submit(i, &id, number(1), Wait::Recorded);
    }
    world.until(|w| w.board.ballot(&id).is_some_and(|b| b.certificate.is_some()));
    // The tries are used up, and the next one comes in a while.
    world.run(3_000);
    world.put_back_store(4);
    world.chain.refuse = false;
    world.run(30_000);
    assert!(world.chain.included.is_empty());
    let why = (0..4).filter_map(|i| world.engine(i).signing_stopped(world.now(i)));
    let why: Vec<_> = why.collect();
    assert!(
        why.iter().any(|why| why.contains("STORE_ROLLBACK")),
        "{why:?}"
    );
}

fn stopped_for_rollback(world: &World, i: usize) -> bool {
    let why = world.engine(i).signing_stopped(world.now(i));
    why.is_some_and(|why| why.contains("STORE_ROLLBACK"))
}

#[test]
fn a_store_put_back_is_noticed_by_whoever_asks_it_for_anything() {
    let mut world = four();
    let id = tx("tx_001");
    for i in 0..3 {
        world.submit(i, &id, number(1), Wait::Recorded);
    }
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
    world.run(1_000);
    world.put_back_store(4);
    world.submit(1, &tx("tx_002"), number(1), Wait::Recorded);
    world.run(100);
    for i in 0..4 {
        assert_eq!(stopped_for_rollback(&world, i), i == 1, "node {i}");
    }
    let alerts = &world.nodes[1].alerts;
    assert!(
        alerts
            .iter()
            .any(|alert| matches!(alert, Alert::StoreRollback { .. })),
        "{alerts:?}"
    );
    // What it had believed by then is durable: the next start finds the same.
    world.restart(1);
    world.run(1_000);
    assert!(stopped_for_rollback(&world, 1));
}

#[test]
fn a_store_put_back_is_noticed_when_it_has_a_vote_already() {
    let mut world = four();
    let id = tx("tx_001");
    for i in 0..3 {
        world.submit(i, &id, number(1), Wait::Recorded);
    }
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
    world.run(1_000);
    let vote = world
        .cluster
        .vote(0, &tx("tx_002"), number(1), world.wall());
    world.put_back_store(4);
    world.write(&ops::record_vote(vote.clone())).unwrap();
    let submit = Submit {
        tx_id: None,
        handed: Handed::Statement(vote),
        wait: Wait::Recorded,
    };
    world.hand_in(0, submit);
    world.run(100);
    assert!(stopped_for_rollback(&world, 0));
}

#[test]
fn entries_by_others_between_question_and_answer_are_no_rollback() {
    let mut world = four();
    // Ballots by all at once, so that answers come when later entries are known.
    for n in 0..20 {
        for i in 0..4 {
            world.submit(i, &tx(&format!("tx_{n}")), number(1), Wait::Recorded);
        }
    }
    world.until(|w| {
        (0..20).all(|n| w.state(&tx(&format!("tx_{n}"))) == Some(BallotState::Confirmed))
    });
    for i in 0..4 {
        assert!(
            world.nodes[i].alerts.is_empty(),
            "{:?}",
            world.nodes[i].alerts
        );
    }
}

/// What was observed so far: outcome and round of each, by whomever.
fn observed(world: &World) -> Vec<(ChainOutcome, u32)> {
    let bodies = world.signed.iter().filter_map(|(_, domain, bytes)| {
        let parse = || statement::parse::<ObservationBody>(bytes).unwrap().1;
        (*domain == Domain::Observation).then(parse)
    });
    bodies.map(|body| (body.outcome, body.round)).collect()
}

#[test]
fn a_look_from_before_the_end_undoes_nothing() {
    let mut world = four();
    let id = tx("tx_001");
    for i in 0..3 {
        world.submit(i, &id, number(1), Wait::Recorded);
    }
    // Node 3 hears that there is nothing when the others have concluded all.
    world.look_ms[3] = 2_000;
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
    world.run(5_000);
    let undone = |(outcome, _): &(ChainOutcome, u32)| *outcome == ChainOutcome::Undone;
    let said = observed(&world);
    assert!(!said.iter().any(undone), "{said:?}");
}

#[test]
fn a_look_from_before_a_reorganisation_confirms_nothing_after_it() {
    let mut world = four();
    let id = tx("tx_001");
    for i in 0..3 {
        world.submit(i, &id, number(1), Wait::Recorded);
    }
    // All look while it is there; node 3 hears of it when it is gone again.
    world.until(|w| !w.chain.included.is_empty());
    world.look_ms = vec![1_000, 1_000, 1_000, 9_000];
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
    world.chain.included.clear();
    world.chain.refuse = true;
    world.look_ms = vec![1; 4];
    for i in 0..3 {
        world.restart(i);
    }
    world.until(|w| w.state(&id) == Some(BallotState::Submitted));
    world.run(9_000);
    let said = observed(&world);
    let after =
        |(outcome, round): &(ChainOutcome, u32)| *outcome == ChainOutcome::Confirmed && *round > 0;
    assert!(!said.iter().any(after), "{said:?}");
}

#[test]
fn an_answer_that_was_given_up_is_not_taken_for_the_one_asked_again() {
    let mut world = four();
    let id = tx("tx_001");
    world.head_ms = 12_000;
    for i in 0..3 {
        world.submit(i, &id, number(1), Wait::Recorded);
    }
    world.until(|w| !w.variants.is_empty());
    world.run(5_000);
    // The second question, after 10 s; its answer comes at 15 s.
    world.head_ms = 5_000;
    world.run(8_000);
    assert!(world.chain.included.is_empty(), "sent on an old answer");
    world.run(3_000);
    assert_eq!(world.chain.included.len(), 1);
}

#[test]
fn an_answer_to_an_earlier_try_does_not_turn_a_recorded_vote_away() {
    let mut world = four();
    let id = tx("tx_001");
    world.board_away = true;
    world.propose_ms = 1_500;
    let waiting = world.submit(0, &id, number(1), Wait::Confirmed);
    world.run(100);
    world.board_away = false;
    world.propose_ms = 1;
    world.run(2_000);
    for i in 1..3 {
        world.submit(i, &id, number(1), Wait::Recorded);
    }
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
    world.run(10);
    let answer = world.answer(waiting);
    assert!(answer.is_ok(), "{answer:?}");
}

#[test]
fn who_asked_for_another_choice_than_the_board_has_is_told_so() {
    let mut world = four();
    let id = tx("tx_001");
    world.sign_ms = 500;
    let waiting = world.submit(0, &id, number(1), Wait::Recorded);
    world.run(100);
    // The vote key is used elsewhere meanwhile.
    let vote = world.cluster.vote(0, &id, number(2), world.wall());
    world.write(&ops::record_vote(vote)).unwrap();
    world.run(1_000);
    let answer = world.answer(waiting);
    assert!(
        matches!(answer, Err(Reject::SecondChoice { first, .. }) if *first == number(2).into()),
        "{answer:?}"
    );
}

#[test]
fn a_statement_that_has_become_too_old_must_be_signed_again() {
    let options = Options::default().times(20_000, 100, 1_000);
    let mut world = World::new(Cluster::with(2, 1, options));
    let id = tx("tx_001");
    // It ends without having started, so no deadline closes it.
    world.submit(1, &id, number(1), Wait::Recorded);
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
    world.run(100);
    let vote = world.cluster.vote(0, &id, number(1), world.wall());
    let hand_in = |world: &mut World, signed| {
        let submit = Submit {
            tx_id: None,
            handed: Handed::Statement(signed),
            wait: Wait::Recorded,
        };
        let request = world.hand_in(0, submit);
        world.run(100);
        world.answer(request).clone()
    };
    world.board_away = true;
    let first = hand_in(&mut world, vote.clone());
    assert!(
        matches!(first, Err(Reject::Unavailable { .. })),
        "{first:?}"
    );
    world.run(30_000);
    world.board_away = false;
    // The guard holds its choice; but no repetition brings this one onto the board.
    let again = hand_in(&mut world, vote);
    assert!(matches!(again, Err(Reject::ClockOff { .. })), "{again:?}");
    let fresh = world.cluster.vote(0, &id, number(1), world.wall());
    assert!(hand_in(&mut world, fresh).is_ok());
}

#[test]
fn who_waits_is_answered_although_the_board_forgets_the_ballot_at_once() {
    let options = Options::default().times(20_000, 100, 1_000);
    let mut world = World::new(Cluster::with(2, 1, options));
    let id = tx("tx_001");
    // It ends without having started, so no deadline closes it.
    world.submit(1, &id, number(1), Wait::Recorded);
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
    world.run(quorate_consensus::board::RETENTION_MS);
    // Node 0 hears of its vote and of the collection in one go.
    world.nodes[0].frozen = true;
    let waiting = world.submit(0, &id, number(1), Wait::Recorded);
    world.until(|w| w.board.ballot(&id).is_some_and(|b| b.votes.len() == 2));
    world.nodes[0].frozen = false;
    world.write(&ops::collect(&id)).unwrap();
    world.run(100);
    assert_eq!(world.state(&id), None);
    let answer = world.answer(waiting);
    assert!(
        matches!(answer, Err(Reject::BallotClosed { .. })),
        "{answer:?}"
    );
}
