//! What an engine of the version before said, recorded from it: today's engine must
//! understand it, and say nothing that it would not understand.

mod world;

use prost::Message as _;
use quorate_consensus::wire::{Frame, frame};
use quorate_consensus::{Address, Value};
use quorate_testkit::{Cluster, tx};
use world::World;

const PROTOCOL_1: &str = include_str!("recorded/protocol1.txt");

fn bytes(hex: &str) -> Vec<u8> {
    assert_eq!(hex.len() % 2, 0);
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

#[test]
fn what_version_1_said_is_understood() {
    let lines = PROTOCOL_1.lines().filter(|line| !line.starts_with('#'));
    let (mut challenge, mut frames) = (None, Vec::new());
    for line in lines {
        match line.split_once(' ').unwrap() {
            ("challenge", hex) => challenge = Some(bytes(hex).try_into().unwrap()),
            ("frame", hex) => frames.push(bytes(hex)),
            (other, _) => panic!("{other}"),
        }
    }
    // Node 1 itself does not run here; its recorded words stand in for it.
    let mut world = World::silent(Cluster::new(4, 3));
    for i in [0, 2, 3] {
        world.nodes[i].advertises = Some(Address::new("here:9000").unwrap());
        world.start(i);
    }
    world.until(|w| [0, 2, 3].iter().all(|i| w.engine(*i).is_in_service()));
    world.connect_all();
    world.run(50);
    let stream = world.tap_as_recorded(0, 1, challenge.unwrap());
    for bytes in &frames {
        let frame = Frame::decode(&bytes[..]).unwrap();
        // It is also still written as it was.
        assert_eq!(&frame.encode_to_vec(), bytes);
        world.say(0, stream, frame.body.unwrap());
        world.run(5);
    }
    let old = world.cluster.node_id(1);
    assert_eq!(world.engine(0).version_with(&old), Some(1));
    assert_eq!(world.goodbye(stream), None);
    assert!(world.nodes.iter().all(|node| node.alerts.is_empty()));
    // Its vote is recorded by whoever heard it.
    let tx_id = tx("recorded");
    world.until(|w| {
        let ballot = w.board.ballot(&tx_id);
        ballot.is_some_and(|ballot| ballot.votes.contains_key(&old))
    });
    let ballot = world.board.ballot(&tx_id).unwrap();
    let choice = &ballot.votes[&old].vote.body.choice;
    assert_eq!(*choice, Value::Number(7).into());
    // And it hears nothing of what came later.
    world.run(60_000);
    for frame in &world.tapped[&stream.0] {
        assert!(!matches!(
            frame.body,
            Some(frame::Body::Addresses(_)) | None
        ));
    }
}
