//! Statements in clusters of more than 12 nodes: relayed, announced, requested.

mod world;

use quorate_consensus::wire::{self, BallotState, GoodbyeReason, SignedStatement, frame};
use quorate_engine::{PROTOCOL_MIN, PROTOCOL_VERSION, StreamId, Wait};
use quorate_testkit::{Cluster, number, tx};
use world::World;

/// All started and in service; each has a stream to the next one only.
fn line(n: usize, t: usize) -> World {
    let mut world = World::silent(Cluster::new(n, t));
    (0..n).for_each(|i| world.start(i));
    world.until(|w| (0..n).all(|i| w.engine(i).is_in_service()));
    (1..n).for_each(|i| world.connect(i - 1, i));
    world.run(3_000);
    world
}

fn all_vote(world: &mut World, tx_id: &str) {
    for i in 0..world.nodes.len() {
        world.submit(i, &tx(tx_id), number(1), Wait::Recorded);
    }
}

/// The votes that came out of a tapped stream.
fn votes_heard(world: &World, stream: StreamId) -> Vec<SignedStatement> {
    let frames = world.tapped[&stream.0].iter();
    let votes = frames.flat_map(|frame| match &frame.body {
        Some(frame::Body::Batch(batch)) => batch.votes.clone(),
        _ => Vec::new(),
    });
    votes.filter_map(|traced| traced.vote).collect()
}

fn ids_said(world: &World, stream: StreamId) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let (mut announced, mut requested) = (Vec::new(), Vec::new());
    for frame in &world.tapped[&stream.0] {
        match &frame.body {
            Some(frame::Body::Announcement(said)) => announced.extend(said.ids.clone()),
            Some(frame::Body::StatementRequest(said)) => requested.extend(said.ids.clone()),
            _ => {}
        }
    }
    (announced, requested)
}

fn digest(signed: &SignedStatement) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(signed.statement.len() as u64).to_be_bytes());
    hasher.update(&signed.statement);
    hasher.update(&signed.signature);
    hasher.finalize().as_bytes().to_vec()
}

/// Thirteen, of whom the last two are the test's own: one that talks, and one that
/// listens and is in node 0's mesh.
fn with_two_of_the_tests_own() -> (World, StreamId, StreamId) {
    let mut world = World::new(Cluster::new(13, 9));
    world.tap_speaks = (PROTOCOL_VERSION, PROTOCOL_VERSION);
    world.kill(11);
    world.kill(12);
    let listener = world.tap_as_member(0, 11);
    world.say(0, listener, frame::Body::Graft(wire::Graft {}));
    let talker = world.tap_as_member(0, 12);
    world.run(100);
    (world, talker, listener)
}

#[test]
fn who_speaks_a_version_without_a_mesh_hears_each_statement_from_its_author() {
    let mut world = World::new(Cluster::new(13, 9));
    world.tap_speaks = (PROTOCOL_MIN, PROTOCOL_MIN);
    world.kill(12);
    let old = world.tap_as_member(0, 12);
    world.run(100);
    world.submit(0, &tx("tx_001"), number(1), Wait::Recorded);
    world.run(1_000);
    assert_eq!(votes_heard(&world, old).len(), 1);
    let (announced, requested) = ids_said(&world, old);
    assert!(announced.is_empty() && requested.is_empty());
}

#[test]
fn thirteen_decide_and_each_has_a_mesh() {
    let mut world = World::new(Cluster::new(13, 9));
    world.run(5_000);
    for i in 0..13 {
        let degree = world.engine(i).load().mesh_peers;
        assert!((4..=12).contains(&degree), "node {i} has {degree}");
    }
    all_vote(&mut world, "tx_001");
    world.until(|w| w.state(&tx("tx_001")) == Some(BallotState::Confirmed));
    world.run(5_000);
    let wanted = |i: usize| world.engine(i).load().mesh_wanted;
    assert_eq!((0..13).map(wanted).sum::<usize>(), 0);
}

#[test]
fn what_one_says_reaches_the_other_end_of_a_line() {
    // Nobody has a stream to nine others, and nine decisions make a certificate.
    let mut world = line(13, 9);
    all_vote(&mut world, "tx_001");
    world.until(|w| w.state(&tx("tx_001")) == Some(BallotState::Confirmed));
    let twelve = world.engine(12).load().mesh;
    assert_eq!(twelve.pushed, 3, "its own vote, decision and observation");
    // Each statement went over each stream once: votes and decisions of thirteen, and
    // the observations that were of use.
    let pushed: u64 = (0..13).map(|i| world.engine(i).load().mesh.pushed).sum();
    assert!((2 * 13 * 12..=3 * 13 * 12).contains(&pushed), "{pushed}");
}

#[test]
fn a_node_that_lost_its_memory_finds_what_was_said_at_its_neighbours() {
    // All must decide, and one reads nothing: the question stays open.
    let mut world = line(13, 13);
    all_vote(&mut world, "tx_001");
    world.run(20);
    world.nodes[12].frozen = true;
    world.run(200_000);
    assert_eq!(world.state(&tx("tx_001")), Some(BallotState::Submitted));
    world.kill(6);
    world.start(6);
    world.connect(5, 6);
    world.connect(6, 7);
    world.run(60_000);
    // The eleven that decided and are not itself.
    let kept = world.engine(6).load().mesh_kept;
    assert!(kept >= 11, "{kept}");
    world.nodes[12].frozen = false;
    world.run(100);
    world.until(|w| w.state(&tx("tx_001")) == Some(BallotState::Confirmed));
}

#[test]
fn a_verified_vote_goes_on_once() {
    let (mut world, talker, listener) = with_two_of_the_tests_own();
    let vote = world
        .cluster
        .vote(12, &tx("tx_001"), number(1), world.wall());
    for _ in 0..3 {
        world.say_votes(0, talker, vec![vote.clone()]);
        world.run(20);
    }
    assert_eq!(votes_heard(&world, listener), [vote]);
}

#[test]
fn nothing_of_a_frame_with_a_forged_vote_goes_on() {
    let (mut world, talker, listener) = with_two_of_the_tests_own();
    let good = world
        .cluster
        .vote(12, &tx("tx_001"), number(1), world.wall());
    let mut forged = world
        .cluster
        .vote(3, &tx("tx_001"), number(2), world.wall());
    forged.signature[3] ^= 1;
    world.say_votes(0, talker, vec![good.clone(), forged]);
    world.run(30);
    assert_eq!(world.goodbye(talker), Some(GoodbyeReason::Protocol));
    assert_eq!(votes_heard(&world, listener), []);
    let (announced, _) = ids_said(&world, listener);
    assert!(!announced.contains(&digest(&good)));
}

#[test]
fn a_vote_that_the_board_can_take_no_more_goes_nowhere() {
    let (mut world, talker, listener) = with_two_of_the_tests_own();
    let lifetime = world.cluster.rules().vote_lifetime_ms();
    let old = world.wall() - lifetime - 1;
    let vote = world.cluster.vote(12, &tx("tx_001"), number(1), old);
    world.say_votes(0, talker, vec![vote.clone()]);
    world.run(5_000);
    assert_eq!(votes_heard(&world, listener), []);
    // Nor is it asked for again.
    let ids = vec![digest(&vote)];
    let announcement = wire::Announcement { ids };
    world.say(0, listener, frame::Body::Announcement(announcement));
    world.run(5_000);
    assert_eq!(ids_said(&world, listener).1, Vec::<Vec<u8>>::new());
}

#[test]
fn what_is_announced_is_requested_and_what_is_requested_is_sent() {
    let (mut world, talker, listener) = with_two_of_the_tests_own();
    let vote = world
        .cluster
        .vote(12, &tx("tx_001"), number(1), world.wall());
    let ids = vec![digest(&vote)];
    let announcement = wire::Announcement { ids: ids.clone() };
    world.say(0, talker, frame::Body::Announcement(announcement));
    world.run(200);
    assert_eq!(ids_said(&world, talker).1, ids);
    world.say_votes(0, talker, vec![vote.clone()]);
    world.run(20);
    // The listener has it from a push; it asks all the same.
    let request = wire::StatementRequest { ids };
    world.say(0, listener, frame::Body::StatementRequest(request));
    world.run(20);
    assert_eq!(votes_heard(&world, listener), [vote.clone(), vote]);
}

#[test]
fn an_id_of_another_length_is_malformed() {
    let (mut world, talker, _) = with_two_of_the_tests_own();
    let ids = vec![vec![7; 31]];
    let announcement = wire::Announcement { ids };
    world.say(0, talker, frame::Body::Announcement(announcement));
    world.run(20);
    assert_eq!(world.goodbye(talker), Some(GoodbyeReason::Protocol));
    world.run(2_000);
    let accused = world.board.member(&world.cluster.node_id(12)).unwrap();
    assert_eq!(accused.accusations.len(), 1);
}

#[test]
fn twelve_need_no_mesh() {
    let mut world = World::new(Cluster::new(12, 8));
    world.kill(11);
    let talker = world.tap_as_member(0, 11);
    let ids = vec![vec![7; 32], vec![8; 31]];
    for body in [
        frame::Body::Announcement(wire::Announcement { ids: ids.clone() }),
        frame::Body::StatementRequest(wire::StatementRequest { ids }),
        frame::Body::Graft(wire::Graft {}),
        frame::Body::Prune(wire::Prune { backoff_ms: 1 }),
    ] {
        world.say(0, talker, body);
    }
    let before = world.tapped[&talker.0].len();
    world.run(5_000);
    assert_eq!(world.tapped[&talker.0].len(), before);
    assert_eq!(world.engine(0).load().mesh_peers, 0);
}
