//! What operators do: one refuses for its own node, t ban, t lift a ban, and messages
//! go from node to node.

mod world;

use quorate_consensus::detector::proof_digest;
use quorate_consensus::statement::OperatorActBody;
use quorate_consensus::wire::{
    self, AccusationKind, BallotState, GoodbyeReason, OperatorActKind, ViolationType, frame,
};
use quorate_engine::{MAX_MESSAGE, OperatorAct, Reject, Wait};
use quorate_testkit::{Cluster, Options, number, tx};
use world::World;

/// Five, four of whom decide; the first is whom the others have something against.
fn five() -> World {
    World::new(Cluster::with(
        5,
        4,
        Options::default().times(10_000, 100, 1_000),
    ))
}

fn ban(world: &mut World, by: usize, whom: usize) -> u64 {
    let node_id = world.cluster.node_id(whom);
    world.operate(by, OperatorAct::Ban { node_id })
}

fn unban(world: &mut World, by: usize, whom: usize) -> u64 {
    unban_with(world, by, whom, Vec::new(), Vec::new())
}

fn unban_with(
    world: &mut World,
    by: usize,
    whom: usize,
    pardoned: Vec<[u8; 32]>,
    acts: Vec<wire::SignedStatement>,
) -> u64 {
    let node_id = world.cluster.node_id(whom);
    let act = OperatorAct::Unban {
        node_id,
        pardoned,
        acts,
    };
    world.operate(by, act)
}

fn is_banned(world: &World, whom: usize) -> bool {
    world.board.is_banned(&world.cluster.node_id(whom))
}

/// The cluster has banned it, and every node has read that.
fn until_banned(world: &mut World, whom: usize) {
    world.until(|w| is_banned(w, whom));
    world.run(50);
}

#[test]
fn one_operator_refuses_for_its_own_node_and_t_ban() {
    let mut world = five();
    let whom = world.cluster.node_id(0);
    let request = ban(&mut world, 1, 0);
    world.run(100);
    assert_eq!(world.operated[&request], Ok(()));
    let accused = world.board.member(&whom).unwrap();
    let by: Vec<_> = accused.accusations.values().collect();
    assert_eq!(by.len(), 1);
    assert_eq!(by[0].body.kind, AccusationKind::Operator);
    assert!(accused.ban.is_none());
    assert_eq!(accused.reputation, 1_000, "what one says lowers nothing");
    // Its own node refuses it, and the others go on with it.
    assert!(world.engine(1).refuses(&whom));
    let stream = world.tap(1, 0);
    assert_eq!(world.goodbye(stream), Some(GoodbyeReason::Banned));
    let connected: Vec<_> = (1..5)
        .map(|i| world.engine(i).connected().any(|id| *id == whom))
        .collect();
    assert_eq!(connected, [false, true, true, true]);
    // Again: the same act.
    let again = ban(&mut world, 1, 0);
    world.run(100);
    assert_eq!(world.operated[&again], Ok(()));
    assert_eq!(world.board.member(&whom).unwrap().accusations.len(), 1);

    ban(&mut world, 2, 0);
    ban(&mut world, 3, 0);
    world.run(2_000);
    assert!(!is_banned(&world, 0), "three of five do not ban");
    ban(&mut world, 4, 0);
    until_banned(&mut world, 0);
    let member = world.board.member(&whom).unwrap();
    assert_eq!(member.ban.as_ref().unwrap().kind, ViolationType::Operator);
    // The others decide without it.
    let id = tx("tx_001");
    for i in 1..5 {
        world.submit(i, &id, number(1), Wait::Recorded);
    }
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
}

#[test]
fn an_operators_refusal_outlives_a_restart() {
    let mut world = five();
    ban(&mut world, 1, 0);
    world.run(100);
    world.restart(1);
    world.run(100);
    assert!(world.engine(1).refuses(&world.cluster.node_id(0)));
}

#[test]
fn t_operators_lift_a_ban_and_it_stays_lifted() {
    let mut world = five();
    let whom = world.cluster.node_id(0);
    for i in 1..5 {
        ban(&mut world, i, 0);
    }
    until_banned(&mut world, 0);
    for i in 1..4 {
        let request = unban(&mut world, i, 0);
        world.run(50);
        assert_eq!(world.operated[&request], Ok(()));
    }
    world.run(5_000);
    assert!(is_banned(&world, 0), "three of five lift nothing");
    for i in 1..5 {
        let acts = world.engine(i).unban_acts(&whom);
        assert_eq!(acts.len(), 3, "node {i} has heard all");
    }
    unban(&mut world, 4, 0);
    world.until(|w| !is_banned(w, 0));
    world.run(20_000);
    assert!(!is_banned(&world, 0), "what was pardoned bans again");
    assert_eq!(world.board.member(&whom).unwrap().reputation, 500);
    for i in 1..5 {
        assert!(world.engine(i).unban_acts(&whom).is_empty());
        assert!(!world.engine(i).refuses(&whom));
        assert!(!world.nodes[i].refused.contains(&whom));
    }
    // It takes part again.
    for i in 1..5 {
        world.connect(0, i);
    }
    let id = tx("tx_001");
    for i in 0..4 {
        world.submit(i, &id, number(1), Wait::Recorded);
    }
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
}

#[test]
fn who_comes_later_hears_the_acts() {
    let mut world = five();
    let whom = world.cluster.node_id(0);
    for i in 1..5 {
        ban(&mut world, i, 0);
    }
    until_banned(&mut world, 0);
    world.kill(4);
    for i in 1..4 {
        unban(&mut world, i, 0);
    }
    world.run(1_000);
    world.restart(4);
    world.run(1_000);
    assert_eq!(world.engine(4).unban_acts(&whom).len(), 3);
}

#[test]
fn acts_of_banned_trustees_count_when_they_are_carried_by_hand() {
    let mut world = five();
    for i in 1..5 {
        ban(&mut world, i, 0);
    }
    until_banned(&mut world, 0);
    // Three of the others are left, where four would have to speak.
    world.kill(4);
    let whom = world.cluster.node_id(0);
    for i in 0..4 {
        unban(&mut world, i, 0);
    }
    world.run(5_000);
    assert!(is_banned(&world, 0), "no stream carries its act");
    let acts = world.engine(0).unban_acts(&whom);
    let (by, act) = acts.first().expect("its own act").clone();
    assert_eq!(by, whom);
    unban_with(&mut world, 1, 0, Vec::new(), vec![act]);
    world.until(|w| !is_banned(w, 0));
}

#[test]
fn what_cannot_be_is_refused_with_its_reason() {
    let mut world = five();
    let stranger = quorate_consensus::NodeId::new("nobody").unwrap();
    let request = world.operate(1, OperatorAct::Ban { node_id: stranger });
    let own = ban(&mut world, 1, 1);
    let nothing_to_lift = unban(&mut world, 1, 0);
    world.run(50);
    for (request, words) in [(request, "nobody is no trustee"), (own, "own trustee")] {
        let reject = world.operated[&request].clone().unwrap_err();
        assert!(reject.to_string().contains(words), "{reject}");
    }
    assert_eq!(world.operated[&nothing_to_lift], Ok(()));

    for i in 1..5 {
        ban(&mut world, i, 0);
    }
    until_banned(&mut world, 0);
    let whom = world.cluster.node_id(0);
    let member = world.board.member(&whom).unwrap();
    let digest = proof_digest(&member.ban.as_ref().unwrap().proof);
    let other = unban_with(&mut world, 1, 0, vec![[7; 32]], Vec::new());
    let both = unban_with(&mut world, 1, 0, vec![[7; 32], digest], Vec::new());
    let mut forged = world.cluster.say(
        2,
        &OperatorActBody {
            kind: OperatorActKind::Unban,
            subject: whom.to_string(),
            pardoned: vec![digest],
            time_ms: world.wall(),
        },
    );
    forged.signature[0] ^= 1;
    let false_act = unban_with(&mut world, 3, 0, Vec::new(), vec![forged]);
    // A banned trustee's operator bans nobody.
    let by_banned = ban(&mut world, 0, 1);
    world.run(50);
    for (request, field) in [(other, "pardoned"), (false_act, "acts")] {
        match &world.operated[&request] {
            Err(Reject::Invalid { field: found, .. }) => assert_eq!(*found, field),
            answer => panic!("{answer:?}"),
        }
    }
    assert_eq!(world.operated[&both], Ok(()));
    assert!(matches!(
        world.operated[&by_banned],
        Err(Reject::Banned { .. })
    ));
    assert_eq!(world.engine(1).unban_acts(&whom).len(), 1);
    assert!(
        world
            .engine(3)
            .unban_acts(&whom)
            .iter()
            .all(|(by, _)| *by == world.cluster.node_id(1))
    );
}

#[test]
fn messages_are_shown_and_acknowledged_and_their_loss_is_told() {
    let mut world = five();
    let (first, second) = (world.cluster.node_id(0), world.cluster.node_id(1));
    let send = |data: Vec<u8>| OperatorAct::Send {
        node_id: second.clone(),
        data,
    };
    let largest = vec![7; MAX_MESSAGE];
    let request = world.operate(0, send(largest.clone()));
    world.run(50);
    assert_eq!(world.operated[&request], Ok(()));
    assert_eq!(world.messages, [(1, first.clone(), largest)]);

    let empty = world.operate(0, send(Vec::new()));
    let large = world.operate(0, send(vec![0; MAX_MESSAGE + 1]));
    let to_itself = world.operate(1, send(b"me".to_vec()));
    world.run(50);
    for request in [empty, large, to_itself] {
        assert!(matches!(
            world.operated[&request],
            Err(Reject::Invalid { .. })
        ));
    }
    // The frames are lost: nobody says that it came.
    world.cut(0, 1);
    let lost = world.operate(0, send(b"lost".to_vec()));
    world.run(50);
    assert!(!world.operated.contains_key(&lost));
    world.kill(1);
    world.run(50);
    let away = world.operate(0, send(b"away".to_vec()));
    world.run(50);
    for request in [lost, away] {
        match &world.operated[&request] {
            Err(Reject::Unavailable { reason, .. }) => assert_eq!(*reason, "PEER_AWAY"),
            answer => panic!("{answer:?}"),
        }
    }
    assert_eq!(world.messages.len(), 1);
}

#[test]
fn too_large_a_message_ends_the_stream_and_is_not_shown() {
    let mut world = five();
    world.kill(4);
    let stream = world.tap_as_member(0, 4);
    let message = |len| {
        frame::Body::DirectMessage(wire::DirectMessage {
            token: 9,
            data: vec![1; len],
        })
    };
    world.say(0, stream, message(3));
    world.run(10);
    assert_eq!(world.messages.len(), 1);
    let acknowledged = world.tapped[&stream.0].iter().any(|frame| {
        matches!(&frame.body, Some(frame::Body::DirectAcknowledgement(known)) if known.token == 9)
    });
    assert!(acknowledged);
    world.say(0, stream, message(MAX_MESSAGE + 1));
    world.run(10);
    assert_eq!(world.goodbye(stream), Some(GoodbyeReason::Protocol));
    assert_eq!(world.messages.len(), 1);
}

#[test]
fn an_act_for_another_ban_or_from_before_it_counts_for_nothing() {
    let mut world = five();
    for i in 1..5 {
        ban(&mut world, i, 0);
    }
    until_banned(&mut world, 0);
    let whom = world.cluster.node_id(0);
    let member = world.board.member(&whom).unwrap();
    let in_force = member.ban.as_ref().unwrap().clone();
    let digest = proof_digest(&in_force.proof);
    let skew = world.cluster.rules().clock_skew_ms();
    let act = |world: &World, by: usize, digest: [u8; 32], time_ms: u64| {
        let body = OperatorActBody {
            kind: OperatorActKind::Unban,
            subject: whom.to_string(),
            pardoned: vec![digest],
            time_ms,
        };
        world.cluster.say(by, &body)
    };
    let other = act(&world, 2, [7; 32], world.wall());
    let old = act(&world, 3, digest, in_force.since_ms - skew - 1);
    let good = act(&world, 4, digest, in_force.since_ms - skew);
    unban_with(&mut world, 1, 0, Vec::new(), vec![other, old, good]);
    world.run(1_000);
    let acts = world.engine(1).unban_acts(&whom);
    let by: Vec<_> = acts.iter().map(|(by, _)| by.clone()).collect();
    assert_eq!(by, [world.cluster.node_id(1), world.cluster.node_id(4)]);
    // A later act of the same member takes its place, and an earlier one does not.
    let late = act(&world, 2, digest, world.wall());
    let again = act(&world, 4, [7; 32], in_force.since_ms - skew - 1);
    unban_with(&mut world, 1, 0, Vec::new(), vec![late, again]);
    world.run(1_000);
    assert_eq!(world.engine(1).unban_acts(&whom).len(), 3);
    assert!(is_banned(&world, 0));
    assert!(world.refusals.is_empty(), "{:?}", world.refusals);
}
