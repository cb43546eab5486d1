//! Where members are reached, and which protocol versions run together.

mod world;

use quorate_consensus::statement::AddressBody;
use quorate_consensus::wire::{self, BallotState, GoodbyeReason, SignedStatement, frame};
use quorate_consensus::{Address, Value};
use quorate_engine::{Alert, PROTOCOL_MIN, PROTOCOL_VERSION, StreamId, Wait};
use quorate_testkit::{Cluster, NOW, tx};
use world::World;

fn at(text: &str) -> Address {
    Address::new(text).unwrap()
}

/// Nodes that advertise, started, with no streams yet.
fn advertising(n: usize) -> World {
    let mut world = World::silent(Cluster::new(n, n / 2 + 1));
    for i in 0..n {
        world.nodes[i].advertises = Some(at(&format!("node{i}:9000")));
        world.start(i);
    }
    world.until(|w| (0..n).all(|i| w.engine(i).is_in_service()));
    world
}

/// Where node `i` would dial the others, by their place.
fn reaches(world: &World, i: usize) -> Vec<String> {
    let reaches = world.nodes[i].reaches.iter();
    reaches
        .map(|(id, address)| format!("{id} at {address}"))
        .collect()
}

fn address(world: &World, member: usize, text: &str, generation: u64) -> SignedStatement {
    let body = AddressBody {
        address: at(text),
        generation,
        time_ms: NOW,
    };
    world.cluster.say(member, &body)
}

fn say(world: &mut World, i: usize, stream: StreamId, addresses: Vec<SignedStatement>) {
    world.say(
        i,
        stream,
        frame::Body::Addresses(wire::Addresses { addresses }),
    );
    world.run(10);
}

/// The addresses that came out on a tapped stream.
fn heard(world: &World, stream: StreamId) -> Vec<SignedStatement> {
    let addresses = |frame: &wire::Frame| match &frame.body {
        Some(frame::Body::Addresses(said)) => said.addresses.clone(),
        _ => Vec::new(),
    };
    world.tapped[&stream.0].iter().flat_map(addresses).collect()
}

#[test]
fn one_that_all_know_makes_everybody_known_to_everybody() {
    let mut world = advertising(5);
    // All know node 2, and node 2 alone knows all.
    for i in [0, 1, 3, 4] {
        world.connect(2, i);
    }
    world.run(50);
    for i in 0..5 {
        let others = (0..5).filter(|j| *j != i);
        let ids = others.map(|j| format!("{} at node{j}:9000", world.cluster.node_id(j)));
        assert_eq!(reaches(&world, i), ids.collect::<Vec<_>>(), "node {i}");
    }
    // A chain is enough, too: what is learned is passed on.
    let mut chain = advertising(5);
    for i in 0..4 {
        chain.connect(i, i + 1);
    }
    chain.run(50);
    assert_eq!(reaches(&chain, 0).len(), 4);
    assert_eq!(reaches(&chain, 4).len(), 4);
}

#[test]
fn whoever_moves_is_found_where_it_is_now_and_all_is_remembered() {
    let mut world = advertising(4);
    world.connect_all();
    world.run(50);
    let id = world.cluster.node_id(3);
    assert_eq!(world.nodes[0].reaches[&id], at("node3:9000"));
    // It starts elsewhere, and reaches node 1 only.
    world.kill(3);
    world.nodes[3].advertises = Some(at("elsewhere:9009"));
    world.start(3);
    // What it knew before is there with its first effects.
    world.run(1);
    assert_eq!(reaches(&world, 3).len(), 3);
    world.until(|w| w.engine(3).is_in_service());
    world.connect(1, 3);
    world.run(50);
    for i in 0..3 {
        assert_eq!(
            world.nodes[i].reaches[&id],
            at("elsewhere:9009"),
            "node {i}"
        );
    }
    // Node 0 restarts, and knows it all from its journal.
    world.kill(0);
    world.start(0);
    world.run(1);
    assert_eq!(world.nodes[0].reaches[&id], at("elsewhere:9009"));
    assert_eq!(world.engine(0).addresses().count(), 3);
}

#[test]
fn only_a_newer_word_of_the_member_itself_counts() {
    let mut world = advertising(4);
    world.tap_speaks = (1, 2);
    let stream = world.tap_as_member(0, 1);
    let id = world.cluster.node_id(3);
    let newer = address(&world, 3, "new:1", 7);
    say(&mut world, 0, stream, vec![newer.clone()]);
    assert_eq!(world.nodes[0].reaches[&id], at("new:1"));
    let (older, same) = (address(&world, 3, "old:1", 6), newer);
    let own = address(&world, 0, "here:1", 99);
    // Not even verified: the signature of what is old is nobody's business.
    let garbled = SignedStatement {
        signature: vec![0; 64],
        ..address(&world, 3, "old:2", 5)
    };
    say(&mut world, 0, stream, vec![older, same, own]);
    say(&mut world, 0, stream, vec![garbled]);
    assert_eq!(reaches(&world, 0), [format!("{id} at new:1")]);
    assert_eq!(world.goodbye(stream), None);

    // A lie about another member is the liar's own undoing.
    let forged = SignedStatement {
        signature: address(&world, 1, "evil:1", 8).signature,
        ..address(&world, 3, "evil:1", 8)
    };
    say(&mut world, 0, stream, vec![forged]);
    assert_eq!(world.nodes[0].reaches[&id], at("new:1"));
    assert_eq!(world.goodbye(stream), Some(GoodbyeReason::Protocol));
    assert!(world.nodes[0].refused.contains(&world.cluster.node_id(1)));
}

#[test]
fn more_addresses_than_members_are_an_offence() {
    let mut world = advertising(3);
    world.tap_speaks = (1, 2);
    let stream = world.tap_as_member(0, 1);
    let one = address(&world, 2, "a:1", 1);
    say(&mut world, 0, stream, vec![one.clone(); 3]);
    assert_eq!(world.goodbye(stream), None);
    say(&mut world, 0, stream, vec![one; 4]);
    assert_eq!(world.goodbye(stream), Some(GoodbyeReason::Protocol));
}

#[test]
fn whoever_moves_all_day_long_does_not_keep_the_others_busy() {
    let mut world = advertising(3);
    world.tap_speaks = (1, 2);
    let mover = world.tap_as_member(0, 1);
    let listener = world.tap_as_member(0, 2);
    let before = heard(&world, listener).len();
    for generation in 1..=100 {
        let moved = address(&world, 1, &format!("m:{generation}"), generation);
        say(&mut world, 0, mover, vec![moved]);
    }
    let passed_on = heard(&world, listener).len() - before;
    assert!((10..25).contains(&passed_on), "{passed_on}");
    // Later it is heard again, and nothing was held against it.
    world.run(60_000);
    let moved = address(&world, 1, "home:1", 101);
    say(&mut world, 0, mover, vec![moved.clone()]);
    assert_eq!(heard(&world, listener).last(), Some(&moved));
    assert_eq!(world.goodbye(mover), None);
}

#[test]
fn this_version_and_the_one_before_decide_together() {
    let mut world = World::silent(Cluster::new(4, 3));
    for i in 0..4 {
        world.nodes[i].advertises = Some(at(&format!("node{i}:9000")));
        // Two of each.
        let older = (PROTOCOL_MIN, PROTOCOL_MIN);
        world.nodes[i].speaks = (i < 2).then_some(older);
        world.start(i);
    }
    world.until(|w| (0..4).all(|i| w.engine(i).is_in_service()));
    world.connect_all();
    world.run(50);
    for i in 0..4 {
        for j in (0..4).filter(|j| *j != i) {
            let both_new = i >= 2 && j >= 2;
            let wanted = if both_new {
                PROTOCOL_VERSION
            } else {
                PROTOCOL_MIN
            };
            let id = world.cluster.node_id(j);
            assert_eq!(
                world.engine(i).version_with(&id),
                Some(wanted),
                "{i} with {j}"
            );
        }
    }
    // What the older version does not know is said to nobody who speaks it.
    assert_eq!(reaches(&world, 0), Vec::<String>::new());
    assert_eq!(reaches(&world, 2).len(), 1);
    let tx_id = tx("a");
    for i in 0..4 {
        world.submit(i, &tx_id, Value::Number(1), Wait::Recorded);
    }
    world.until(|w| w.state(&tx_id) == Some(BallotState::Confirmed));
    assert!(world.nodes.iter().all(|node| node.alerts.is_empty()));
}

#[test]
fn without_a_common_version_there_is_a_reason_and_one_alert() {
    let mut world = World::silent(Cluster::new(3, 2));
    let later = (PROTOCOL_VERSION + 1, PROTOCOL_VERSION + 2);
    world.nodes[2].speaks = Some(later);
    for i in 0..3 {
        world.start(i);
    }
    world.until(|w| (0..3).all(|i| w.engine(i).is_in_service()));
    // They try again and again.
    for _ in 0..3 {
        world.connect_all();
        world.run(50);
    }
    let (first, last) = (world.cluster.node_id(0), world.cluster.node_id(2));
    assert_eq!(world.engine(2).connected().count(), 0);
    for (i, peer) in [(0, &last), (2, &first)] {
        let told = world.nodes[i]
            .alerts
            .iter()
            .filter_map(|alert| match alert {
                Alert::NoCommonVersion { node_id, detail } if node_id == peer => Some(detail),
                _ => None,
            });
        let told: Vec<_> = told.collect();
        assert_eq!(told.len(), 1, "node {i}: {told:?}");
        assert!(told[0].contains("upgrade the older"), "{told:?}");
    }
    // Upgraded, it is one of them again.
    world.kill(0);
    world.nodes[0].speaks = Some((PROTOCOL_VERSION, PROTOCOL_VERSION + 1));
    world.start(0);
    world.until(|w| w.engine(0).is_in_service());
    world.connect(0, 2);
    world.run(50);
    assert_eq!(
        world.engine(0).version_with(&last),
        Some(PROTOCOL_VERSION + 1)
    );
    // A test's hello that names no common one gets the reason as a goodbye.
    world.tap_speaks = (9, 9);
    let stream = world.tap_as_member(1, 0);
    assert_eq!(world.goodbye(stream), Some(GoodbyeReason::Version));
}
