//! Bad days at the chain: lost answers, foreign transactions, reorganisations, a
//! lease whose holder does nothing.

mod world;

use std::cell::RefCell;
use std::rc::Rc;

use quorate_consensus::Domain;
use quorate_consensus::wire::{BallotState, OperatorActKind};
use quorate_engine::{Alert, AuditAsk, Effect, Wait};
use quorate_testkit::{Cluster, Options, number, ops, tx};
use world::{OnChain, World};

fn four() -> World {
    World::new(Cluster::with(
        4,
        3,
        Options::default().times(60_000, 100, 1_000),
    ))
}

fn decide(world: &mut World, id: &str) -> quorate_consensus::TxId {
    let id = tx(id);
    for i in 0..3 {
        world.submit(i, &id, number(42), Wait::Recorded);
    }
    id
}

#[test]
fn an_answer_lost_after_sending_costs_no_second_action() {
    let mut world = four();
    world.chain.lose_answers = 3;
    let id = decide(&mut world, "tx_001");
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
    assert_eq!(world.chain.included.len(), 1);
}

#[test]
fn a_chain_that_is_away_is_waited_for() {
    let mut world = four();
    world.chain.refuse = true;
    let id = decide(&mut world, "tx_001");
    world.run(40_000);
    assert_eq!(world.state(&id), Some(BallotState::Submitted));
    world.chain.refuse = false;
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
    assert_eq!(world.chain.included.len(), 1);
}

#[test]
fn a_fee_that_is_too_low_is_raised_five_times_and_then_rests() {
    let mut world = four();
    world.chain.least_attempt = 7;
    let id = decide(&mut world, "tx_001");
    let stored = |w: &World| w.variants.get(&id).map_or(0, Vec::len);
    world.until(|w| stored(w) > 0);
    world.run(10_000);
    assert_eq!(stored(&world), 5);
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
    assert_eq!(stored(&world), 8);
}

#[test]
fn a_taken_nonce_is_an_alarm_and_reserved_anew() {
    let mut world = four();
    let first = world.cluster.rules().chain().first_nonce;
    world.chain.head = 1;
    let foreign = OnChain {
        payload: b"foreign".to_vec(),
        tx_hash: vec![9; 32],
        block: 1,
        succeeded: true,
    };
    world.chain.included.insert(first, foreign);
    let id = decide(&mut world, "tx_001");
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
    let ballot = world.board.ballot(&id).unwrap();
    assert_eq!(ballot.reservation.as_ref().unwrap().nonce, first + 1);
    assert!(world.nodes.iter().all(|node| {
        node.alerts
            .iter()
            .any(|alert| matches!(alert, Alert::NonceTaken { .. }))
    }));
    assert_eq!(world.chain.included.len(), 2);
}

#[test]
fn a_reorganisation_undoes_and_the_same_bytes_go_again() {
    let mut world = four();
    let id = decide(&mut world, "tx_001");
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
    world.run(1_000);
    let nonce = *world.chain.included.keys().next().unwrap();
    let before = world.chain.included.remove(&nonce).unwrap();
    world.until(|w| w.state(&id) == Some(BallotState::Submitted));
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
    let after = &world.chain.included[&nonce];
    assert_eq!(
        (&after.payload, &after.tx_hash),
        (&before.payload, &before.tx_hash)
    );
}

#[test]
fn after_a_reorganisation_it_is_looked_at_often_again() {
    let mut world = four();
    let id = decide(&mut world, "tx_001");
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
    world.run(1_000);
    let nonce = *world.chain.included.keys().next().unwrap();
    world.chain.included.remove(&nonce);
    world.until(|w| w.state(&id) == Some(BallotState::Submitted));
    let undone = world.wall();
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
    let took = world.wall() - undone;
    assert!(took < 5_000, "{took} ms");
}

#[test]
fn a_reverted_transaction_fails_the_ballot() {
    let mut world = four();
    let id = decide(&mut world, "tx_001");
    world.until(|w| !w.chain.included.is_empty());
    world
        .chain
        .included
        .values_mut()
        .for_each(|sent| sent.succeeded = false);
    world.until(|w| w.state(&id) == Some(BallotState::Failed));
    world.run(10);
    assert!(
        world.nodes[0]
            .alerts
            .iter()
            .any(|a| matches!(a, Alert::Submission { .. }))
    );
}

#[test]
fn a_lease_is_advice_and_never_a_right() {
    let mut world = four();
    let id = tx("tx_001");
    let hog = world.cluster.node_id(3);
    world.kill(3);
    for i in 0..3 {
        world.submit(i, &id, number(42), Wait::Recorded);
    }
    world.until(|w| w.state(&id) == Some(BallotState::Submitted));
    // The dead node's lease is renewed again and again.
    for _ in 0..8 {
        let _ = world.write(&ops::lease(&id, &hog, 60_000));
        world.run(10_000);
    }
    let lease = world.board.ballot(&id).unwrap().lease.clone();
    assert!(lease.is_some_and(|lease| lease.until_ms > world.wall()));
    assert_eq!(world.state(&id), Some(BallotState::Confirmed));
    assert_eq!(world.chain.included.len(), 1);
}

#[test]
fn who_loses_patience_with_a_lease_goes_by_rank() {
    let mut world = four();
    let id = tx("tx_001");
    let hog = world.cluster.node_id(3);
    world.kill(3);
    let walkers = Rc::new(RefCell::new(Vec::new()));
    let seen = walkers.clone();
    world.crash = Some(Box::new(move |node, effect| {
        if let Effect::Audit {
            ask: AuditAsk::Pending { .. },
            ..
        } = effect
        {
            seen.borrow_mut().push(node);
        }
        false
    }));
    for i in 0..3 {
        world.submit(i, &id, number(42), Wait::Recorded);
    }
    world.until(|w| w.state(&id) == Some(BallotState::Submitted));
    let mut waited = 0;
    while walkers.borrow().is_empty() {
        if waited % 10_000 == 0 {
            world.write(&ops::lease(&id, &hog, 60_000)).unwrap();
        }
        world.run(1);
        waited += 1;
        assert!(waited < 70_000, "nobody loses patience");
    }
    assert!(waited >= 60_000, "after {waited} ms");
    world.run(200);
    assert_eq!(walkers.borrow().len(), 1, "{walkers:?}");
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
}

#[test]
fn nothing_is_sent_without_t_decisions() {
    let mut world = four();
    // Two of four come to the decision and die there: two decisions are less than t.
    let mut killed = Vec::new();
    world.crash = Some(Box::new(move |node, effect| {
        let decides = matches!(
            effect,
            Effect::Sign {
                domain: Domain::Decision,
                ..
            }
        );
        let dies = decides && killed.len() < 2 && !killed.contains(&node);
        if dies {
            killed.push(node);
        }
        dies
    }));
    let id = decide(&mut world, "tx_001");
    world.until(|w| w.state(&id) == Some(BallotState::Submitted));
    world.run(200_000);
    assert_eq!(world.state(&id), Some(BallotState::Submitted));
    assert!(world.chain.included.is_empty());
    assert!(world.variants.is_empty(), "nothing is even signed");
    for i in 0..4 {
        if world.nodes[i].engine.is_none() {
            world.restart(i);
        }
    }
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
}

#[test]
fn a_submission_that_was_given_up_is_sent_by_nobody() {
    let mut world = four();
    world.chain.refuse = true;
    let id = decide(&mut world, "tx_001");
    world.until(|w| w.board.ballot(&id).is_some_and(|b| b.certificate.is_some()));
    let acts = (0..3)
        .map(|i| {
            let now = world.wall();
            world
                .cluster
                .act(i, OperatorActKind::GiveUp, id.as_str(), Vec::new(), now)
        })
        .collect();
    world.write(&ops::give_up(&id, acts)).unwrap();
    world.chain.refuse = false;
    world.run(60_000);
    assert!(world.chain.included.is_empty());
    // The cancellation that an operator sent at the same nonce carries nothing.
    let nonce = world
        .board
        .ballot(&id)
        .unwrap()
        .reservation
        .as_ref()
        .unwrap()
        .nonce;
    world.chain.head += 1;
    let cancelled = OnChain {
        payload: Vec::new(),
        tx_hash: vec![1; 32],
        block: world.chain.head,
        succeeded: true,
    };
    world.chain.included.insert(nonce, cancelled);
    world.until(|w| w.state(&id) == Some(BallotState::Failed));
}
