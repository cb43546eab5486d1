//! Liars on streams, and blame that goes to the sender, never to the name on a
//! forged message.

mod world;

use prost::Message as _;
use quorate_consensus::Domain;
use quorate_consensus::statement::KeyRole;
use quorate_consensus::wire::{
    self, AccusationKind, BallotState, DissentPolicy, GoodbyeReason, ViolationType, frame,
};
use quorate_engine::{Alert, Event, Handed, Reject, Submit, Wait};
use quorate_testkit::{Cluster, Options, number, ops, tx};
use world::World;

fn options() -> Options {
    Options::default().times(10_000, 100, 1_000)
}

/// Five, of whom the last is a liar and runs no engine.
fn with_liar(options: Options) -> World {
    let mut world = World::new(Cluster::with(5, 4, options));
    world.kill(4);
    world
}

#[test]
fn a_forged_vote_condemns_its_sender() {
    let mut world = with_liar(options());
    let id = tx("tx_001");
    let mut forged = world.cluster.vote(0, &id, number(9), world.wall());
    forged.signature[3] ^= 1;
    for i in 0..4 {
        let stream = world.tap_as_member(i, 4);
        world.say_votes(i, stream, vec![forged.clone()]);
        world.run(20);
        assert_eq!(world.goodbye(stream), Some(GoodbyeReason::Protocol));
    }
    world.run(2_000);
    assert!(world.board.is_banned(&world.cluster.node_id(4)));
    let ban = world
        .board
        .member(&world.cluster.node_id(4))
        .unwrap()
        .ban
        .clone()
        .unwrap();
    assert_eq!(ban.kind, ViolationType::InvalidSignature);
    let victim = world.board.member(&world.cluster.node_id(0)).unwrap();
    assert_eq!((victim.reputation, victim.violations), (1_000, 0));
    for i in 0..4 {
        world.submit(i, &id, number(1), Wait::Recorded);
    }
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
    // Refused at once, before the cluster's ban, and after a restart.
    world.restart(0);
    world.run(100);
    let stream = world.tap(0, 4);
    assert_eq!(world.goodbye(stream), Some(GoodbyeReason::Banned));
}

#[test]
fn three_accusers_of_five_do_not_ban() {
    let mut world = with_liar(options());
    let mut forged = world
        .cluster
        .vote(0, &tx("tx_001"), number(9), world.wall());
    forged.signature[3] ^= 1;
    for i in 0..3 {
        let stream = world.tap_as_member(i, 4);
        world.say_votes(i, stream, vec![forged.clone()]);
    }
    world.run(5_000);
    let accused = world.board.member(&world.cluster.node_id(4)).unwrap();
    assert_eq!(accused.accusations.len(), 3);
    assert!(accused.ban.is_none());
}

#[test]
fn two_choices_to_two_peers_are_evidence() {
    for dissent in [DissentPolicy::Abort, DissentPolicy::Outvote] {
        let mut world = match dissent {
            DissentPolicy::Outvote => with_liar(options().outvote()),
            _ => with_liar(options()),
        };
        let id = tx("tx_001");
        let one = world.cluster.vote(4, &id, number(1), world.wall());
        let two = world.cluster.vote(4, &id, number(2), world.wall() + 1);
        let (a, b) = (world.tap_as_member(0, 4), world.tap_as_member(1, 4));
        world.say_votes(0, a, vec![one]);
        world.say_votes(1, b, vec![two]);
        world.until(|w| w.board.is_banned(&w.cluster.node_id(4)));
        let ban = world
            .board
            .member(&world.cluster.node_id(4))
            .unwrap()
            .ban
            .clone()
            .unwrap();
        assert_eq!(ban.kind, ViolationType::DoubleVoting);
        if dissent == DissentPolicy::Abort {
            assert_eq!(world.state(&id), Some(BallotState::AbortedByzantine));
        } else {
            for i in 0..4 {
                world.submit(i, &id, number(1), Wait::Recorded);
            }
            world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
        }
        assert_eq!(world.engine(2).evidence(&id).len(), 1);
    }
}

#[test]
fn a_vote_that_its_origin_keeps_from_the_board_is_recorded_by_others() {
    let mut world = with_liar(options());
    let id = tx("tx_001");
    let vote = world.cluster.vote(4, &id, number(1), world.wall());
    let stream = world.tap_as_member(2, 4);
    world.say_votes(2, stream, vec![vote]);
    world.until(|w| w.state(&id).is_some());
    assert_eq!(world.board.ballot(&id).unwrap().votes.len(), 1);
}

#[test]
fn under_outvote_dissent_is_outvoted_and_banned() {
    let mut world = with_liar(options().outvote());
    let id = tx("tx_001");
    let vote = world.cluster.vote(4, &id, number(2), world.wall());
    let stream = world.tap_as_member(0, 4);
    world.say_votes(0, stream, vec![vote]);
    for i in 0..4 {
        world.submit(i, &id, number(1), Wait::Recorded);
    }
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
    world.until(|w| w.board.is_banned(&w.cluster.node_id(4)));
}

#[test]
fn what_is_only_foreign_or_old_accuses_nobody() {
    let mut world = with_liar(options());
    let stream = world.tap_as_member(0, 4);
    // Another rules digest: an epoch that this node has not seen.
    let later = world.cluster.successor(5, 4, options());
    let epoch2 = later.vote(4, &tx("tx_001"), number(1), world.wall());
    // Too old and too far in the future.
    let old = world
        .cluster
        .vote(4, &tx("tx_002"), number(1), world.wall() - 60_000);
    let early = world
        .cluster
        .vote(4, &tx("tx_003"), number(1), world.wall() + 60_000);
    world.say_votes(0, stream, vec![epoch2, old, early]);
    world.run(3_000);
    assert_eq!(world.goodbye(stream), None);
    assert_eq!(world.board.ballots().count(), 0);
    assert!(world.nodes[0].alerts.is_empty());
}

#[test]
fn malformed_statements_and_frames_are_accused() {
    let other = Cluster::with(
        5,
        4,
        Options {
            name: "other".into(),
            ..options()
        },
    );
    let mut world = with_liar(options());
    let id = tx("tx_001");
    let good = world.cluster.vote(4, &id, number(1), world.wall());
    let mut padded = good.statement.clone();
    padded.extend([0x78, 0x01]);
    let not_canonical = world.cluster.sign(4, KeyRole::Vote, Domain::Vote, padded);
    let foreign = other.vote(4, &id, number(1), world.wall());
    let empty = wire::SignedStatement::default();
    for (i, bad) in [not_canonical, foreign, empty].into_iter().enumerate() {
        let stream = world.tap_as_member(i, 4);
        world.say_votes(i, stream, vec![bad]);
        world.run(50);
        if i == 1 {
            // Another cluster means other rules, which are excused like all unknown.
            assert_eq!(world.goodbye(stream), None);
            continue;
        }
        assert_eq!(
            world.goodbye(stream),
            Some(GoodbyeReason::Protocol),
            "case {i}"
        );
    }
    let stream = world.tap_as_member(3, 4);
    let nodes = &mut world.nodes;
    let now = quorate_engine::Now {
        wall_ms: quorate_testkit::NOW,
        mono_ms: 10_000,
    };
    let event = Event::BadFrame {
        stream,
        subject_digest: [7; 32],
        why: "truncated".into(),
    };
    let effects = nodes[3].engine.as_mut().unwrap().handle(now, event);
    assert!(effects.iter().any(|effect| matches!(
        effect,
        quorate_engine::Effect::Alert(Alert::Misbehaviour {
            kind: ViolationType::Malformed,
            ..
        })
    )));
    assert_eq!(world.board.ballots().count(), 0);
}

#[test]
fn only_a_fresh_hello_by_the_members_node_key_opens_a_stream() {
    let mut world = with_liar(options());
    let vote = world
        .cluster
        .vote(4, &tx("tx_001"), number(1), world.wall());
    // No hello at all.
    let silent = world.tap(0, 4);
    world.say_votes(0, silent, vec![vote]);
    world.run(10);
    assert_eq!(world.goodbye(silent), Some(GoodbyeReason::Protocol));
    // Another member's signature under this certificate.
    let stranger = world.tap(0, 4);
    let hello = world.hello(0, 3, stranger);
    world.say(0, stranger, frame::Body::Hello(hello));
    world.run(10);
    assert_eq!(world.goodbye(stranger), Some(GoodbyeReason::NotAMember));
    // A good hello, replayed on another connection.
    let first = world.tap(0, 4);
    let hello = world.hello(0, 4, first);
    world.say(0, first, frame::Body::Hello(hello.clone()));
    world.run(10);
    assert_eq!(world.goodbye(first), None);
    let second = world.tap(0, 4);
    world.say(0, second, frame::Body::Hello(hello));
    world.run(10);
    assert_eq!(world.goodbye(second), Some(GoodbyeReason::NotAMember));
    // The vote key is not the node key.
    let third = world.tap(0, 4);
    let mut hello = world.hello(0, 4, third);
    let signed = hello.hello.as_mut().unwrap();
    *signed = world
        .cluster
        .sign(4, KeyRole::Vote, Domain::Hello, signed.statement.clone());
    world.say(0, third, frame::Body::Hello(hello));
    world.run(10);
    assert_eq!(world.goodbye(third), Some(GoodbyeReason::NotAMember));
    assert!(
        world.nodes[0].alerts.is_empty(),
        "nobody is accused before a hello"
    );
    assert_eq!(world.board.ballots().count(), 0);
}

#[test]
fn a_new_stream_of_a_pair_replaces_the_old() {
    let mut world = with_liar(options());
    let first = world.tap_as_member(0, 4);
    let second = world.tap_as_member(0, 4);
    assert_eq!(world.goodbye(first), Some(GoodbyeReason::Replaced));
    assert_eq!(world.goodbye(second), None);
}

#[test]
fn an_unjustified_entry_in_the_store_is_tampering() {
    let mut world = with_liar(options());
    let id = tx("tx_001");
    world.submit(0, &id, number(1), Wait::Recorded);
    world.run(100);
    let mut forged = world.log.last().unwrap().clone();
    forged.revision += 1;
    forged.op = Some(ops::advance(&id, BallotState::ThresholdReached));
    world.log.push(forged.clone());
    let entries = vec![forged];
    let now = world.now(0);
    let engine = world.nodes[0].engine.as_mut().unwrap();
    let effects = engine.handle(now, Event::Entries { entries });
    assert!(effects.iter().any(|effect| matches!(
        effect,
        quorate_engine::Effect::Alert(Alert::StoreTampering { .. })
    )));
    assert_eq!(
        engine.board().ballot(&id).unwrap().state,
        BallotState::Collecting
    );
    assert!(engine.signing_stopped(now).is_some());
}

#[test]
fn an_entry_from_the_future_waits_for_the_clock() {
    let mut world = with_liar(options());
    world.nodes[0].clock_off_ms = -5_000;
    let id = tx("tx_001");
    world.submit(1, &id, number(1), Wait::Recorded);
    world.run(100);
    assert!(world.engine(0).board().ballot(&id).is_none());
    assert!(
        world.nodes[0]
            .alerts
            .iter()
            .any(|alert| matches!(alert, Alert::Clock { .. }))
    );
    world.run(5_000);
    assert!(world.engine(0).board().ballot(&id).is_some());
}

#[test]
fn statements_signed_elsewhere_are_checked() {
    let mut world = with_liar(options());
    let id = tx("tx_001");
    let now = world.wall();
    let hand_in = |world: &mut World, signed, tx_id| {
        let submit = Submit {
            tx_id,
            handed: Handed::Statement(signed),
            wait: Wait::Recorded,
        };
        let request = world.hand_in(0, submit);
        world.run(50);
        world.answer(request).clone()
    };
    let others = world.cluster.vote(1, &id, number(1), now);
    assert!(matches!(
        hand_in(&mut world, others, None),
        Err(Reject::OtherTrustee { .. })
    ));
    let mut forged = world.cluster.vote(0, &id, number(1), now);
    forged.signature[0] ^= 1;
    assert!(matches!(
        hand_in(&mut world, forged, None),
        Err(Reject::Statement(_))
    ));
    let old = world.cluster.vote(0, &id, number(1), now - 5_000);
    assert!(matches!(
        hand_in(&mut world, old, None),
        Err(Reject::ClockOff { .. })
    ));
    let good = world.cluster.vote(0, &id, number(1), now);
    let mismatch = hand_in(&mut world, good.clone(), Some(tx("tx_002")));
    assert!(matches!(
        mismatch,
        Err(Reject::Invalid { field: "tx_id", .. })
    ));
    assert_eq!(
        world.board.ballots().count(),
        0,
        "bad input leaves no trace"
    );
    let answer = hand_in(&mut world, good.clone(), None).unwrap();
    assert_eq!(answer.vote, good);
    let second = world.cluster.vote(0, &id, number(2), world.wall());
    assert!(matches!(
        hand_in(&mut world, second, None),
        Err(Reject::SecondChoice { .. })
    ));
    let rules = hand_in(&mut world, good, Some(tx("rules:2:1")));
    assert!(rules.is_err());
}

#[test]
fn a_first_vote_after_the_end_and_before_the_deadline_is_recorded_late() {
    for aborted in [false, true] {
        let mut world = World::new(Cluster::with(5, 4, options()));
        let id = tx("tx_001");
        for i in 0..4 {
            let value = if aborted { i as u64 % 2 } else { 1 };
            world.submit(i, &id, number(value), Wait::Recorded);
        }
        let end = match aborted {
            true => BallotState::AbortedSplit,
            false => BallotState::Confirmed,
        };
        world.until(|w| w.state(&id) == Some(end));
        world.run(1_000);
        // Whoever waits for the end of a ballot that ended is answered at once.
        let late = world.submit(4, &id, number(1), Wait::Confirmed);
        world.run(100);
        let answer = world.answer(late).as_ref().expect("taken");
        assert_eq!((answer.ballot.state(), answer.repeated), (end, false));
        let slow = world.cluster.node_id(4);
        assert!(world.board.ballot(&id).unwrap().votes[&slow].late);
        world.until(|w| w.board.ballot(&id).unwrap().roll_called);
        assert!(world.board.ballot(&id).unwrap().silent.is_empty());
        assert_eq!(world.board.member(&slow).unwrap().violations, 0);
    }
}

#[test]
fn a_ballot_is_closed_to_first_votes_once_its_deadline_has_passed() {
    // The roll is called; and the store is away, so that it cannot be.
    for away in [false, true] {
        let mut world = World::new(Cluster::with(5, 4, options()));
        let id = tx("tx_001");
        for i in 0..4 {
            world.submit(i, &id, number(1), Wait::Recorded);
        }
        world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
        world.run(50);
        world.board_away = away;
        world.run(11_000);
        assert_eq!(world.board.ballot(&id).unwrap().roll_called, !away);
        let late = world.submit(4, &id, number(1), Wait::Recorded);
        world.run(100);
        assert!(matches!(
            world.answer(late),
            Err(Reject::BallotClosed {
                state: BallotState::Confirmed,
                ..
            })
        ));
        let again = world.submit(0, &id, number(1), Wait::Confirmed);
        world.run(100);
        assert!(world.answer(again).as_ref().unwrap().repeated);
    }
}

#[test]
fn a_peer_that_could_not_keep_up_gets_everything_again() {
    let mut world = with_liar(options());
    let stream = world.tap_as_member(0, 4);
    let now = world.now(0);
    let engine = world.nodes[0].engine.as_mut().unwrap();
    engine.handle(now, Event::QueueFull { stream });
    world.submit(0, &tx("tx_001"), number(1), Wait::Recorded);
    world.run(100);
    let votes = |world: &World| {
        let frames = world.tapped[&stream.0].iter();
        frames
            .filter_map(|frame| match &frame.body {
                Some(frame::Body::Batch(batch)) => Some(batch.votes.len()),
                _ => None,
            })
            .sum::<usize>()
    };
    assert_eq!(votes(&world), 0);
    let now = world.now(0);
    let effects = world.nodes[0]
        .engine
        .as_mut()
        .unwrap()
        .handle(now, Event::Drained { stream });
    let sent = effects.iter().filter_map(|effect| match effect {
        quorate_engine::Effect::Send { frame, .. } => match &frame.body {
            Some(frame::Body::Batch(batch)) => Some(batch.votes.len()),
            _ => None,
        },
        _ => None,
    });
    assert_eq!(sent.sum::<usize>(), 1);
}

#[test]
fn an_unknown_accuser_or_kind_is_refused() {
    let mut world = with_liar(options());
    let stream = world.tap_as_member(0, 4);
    let accusation = world
        .cluster
        .accusation(4, 1, AccusationKind::Malformed, world.wall());
    let batch = wire::Batch {
        accusations: vec![accusation],
        ..wire::Batch::default()
    };
    assert!(batch.encoded_len() > 0);
    world.say(0, stream, frame::Body::Batch(batch));
    world.run(5_000);
    // A false accusation is the accuser's word and nothing more.
    let accused = world.board.member(&world.cluster.node_id(1)).unwrap();
    assert_eq!(
        (accused.accusations.len(), accused.ban.is_none()),
        (1, true)
    );
    assert_eq!(accused.reputation, 1_000);
}

#[test]
fn a_stream_without_a_hello_is_closed_in_time() {
    let mut world = with_liar(options());
    let silent = world.tap(0, 4);
    let member = world.tap_as_member(1, 4);
    world.run(11_000);
    assert_eq!(world.goodbye(silent), Some(GoodbyeReason::Protocol));
    assert_eq!(world.goodbye(member), None);
}

#[test]
fn a_hello_is_the_first_that_a_peer_hears() {
    let mut world = with_liar(options());
    let id = tx("tx_001");
    // Something to send as soon as the peer is known.
    world.submit(0, &id, number(1), Wait::Recorded);
    world.run(1_000);
    let stream = world.tap(0, 4);
    // Both frames are there before the engine's own hello is signed.
    world.greet(0, 4, stream);
    world.run(20);
    let bodies: Vec<_> = world.tapped[&stream.0]
        .iter()
        .map(|frame| frame.body.clone().unwrap())
        .collect();
    use wire::frame::Body;
    assert!(
        matches!(
            bodies[..3],
            [Body::Challenge(_), Body::Hello(_), Body::Batch(_)]
        ),
        "{bodies:?}"
    );
}

#[test]
fn who_waits_for_a_vote_of_a_banned_trustee_is_told_of_the_ban() {
    let mut world = with_liar(options());
    // Node 0's own vote waits for its key while two others by it turn up.
    world.sign_ms = 10_000;
    let waiting = world.submit(0, &tx("tx_002"), number(1), Wait::Recorded);
    let (id, now) = (tx("tx_001"), world.wall());
    let one = world.cluster.vote(0, &id, number(1), now);
    let two = world.cluster.vote(0, &id, number(2), now + 1);
    let stream = world.tap(1, 4);
    let hello = world.hello(1, 4, stream);
    world.say(1, stream, frame::Body::Hello(hello));
    world.say_votes(1, stream, vec![one, two]);
    world.until(|w| w.board.is_banned(&w.cluster.node_id(0)));
    world.run(100);
    let told = match world.answer(waiting) {
        Err(reject @ Reject::Banned { .. }) => reject.to_string(),
        other => panic!("{other:?}"),
    };
    let liar = world.cluster.node_id(0);
    assert_eq!(told, format!("trustee {liar} is banned for DOUBLE_VOTING"));
}

#[test]
fn a_short_question_does_not_get_a_long_answer_each_time() {
    let mut world = with_liar(options());
    world.submit(0, &tx("tx_001"), number(1), Wait::Recorded);
    world.run(1_000);
    let stream = world.tap_as_member(0, 4);
    let batches = |world: &World| {
        let frames = world.tapped[&stream.0].iter();
        let is_batch = |f: &&wire::Frame| matches!(f.body, Some(frame::Body::Batch(_)));
        frames.filter(is_batch).count()
    };
    let before = batches(&world);
    for _ in 0..100 {
        world.say(0, stream, frame::Body::Resync(wire::Resync {}));
    }
    world.run(20);
    assert_eq!(batches(&world), before + 1);
    // The last question is answered, too, when its time has come.
    world.run(1_000);
    assert_eq!(batches(&world), before + 2);
    world.run(3_000);
    assert_eq!(batches(&world), before + 2);
}
