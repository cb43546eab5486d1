//! Lies to the store and to the chain: the tamperer, the greedy, the lease hog, the
//! clock liar.

use std::collections::BTreeSet;

use quorate_consensus::statement::{VoteBody, parse};
use quorate_consensus::wire::{AccusationKind, BallotState, board_op::Op};
use quorate_consensus::{Choice, Value};
use quorate_sim::liars::{Cue, LiarKind, Lie};
use quorate_testkit::{FakeVerifier, NOW, number, ops, tx};

use super::kit::{Actor, all_dice, proposed, votes};

/// What the board is but for leases.
fn but_for_leases(actor: &Actor) -> String {
    let states = actor.board.ballots().map(|ballot| {
        format!(
            "{} {:?} {:?} {:?} {:?} {:?}",
            ballot.tx_id,
            ballot.state,
            ballot.votes,
            ballot.reservation,
            ballot.certificate,
            ballot.observed
        )
    });
    let members = (0..actor.cluster.n())
        .map(|i| format!("{:?}", actor.board.member(&actor.cluster.node_id(i))));
    states.chain(members).collect()
}

#[test]
fn a_tamperer_changes_nothing_but_leases() {
    let mut refused = BTreeSet::new();
    let mut leases = 0;
    for dice in all_dice() {
        let mut actor = Actor::new(LiarKind::Tamperer).dice(dice);
        let kind = AccusationKind::Operator;
        let accusations = actor
            .cluster
            .of_threshold(|cluster, i| cluster.accusation(i, 3, kind, NOW));
        let banned = actor.cluster.node_id(3);
        let mut lies = actor.reads(&ops::ban_accused(&banned, accusations), NOW);
        let vote = actor.cluster.vote(0, &tx("open"), number(1), NOW);
        lies.extend(actor.reads(&ops::record_vote(vote), NOW));
        lies.extend(actor.decide(&tx("a"), 1));
        assert!(lies.len() > 6, "{}", lies.len());
        for (op, now_ms) in proposed(&lies) {
            let before = but_for_leases(&actor);
            match (&op.op, actor.board.apply(op, now_ms, &FakeVerifier)) {
                (Some(Op::Lease(_) | Op::Release(_)), answer) => {
                    leases += usize::from(answer.is_ok());
                }
                // Where the board stands already.
                (_, Ok(answer)) => {
                    assert_eq!(
                        answer,
                        quorate_consensus::board::Outcome::Unchanged,
                        "{op:?}"
                    );
                }
                (what, Err(_)) => {
                    let what = format!("{what:?}");
                    refused.insert(what.split('(').nth(1).map(str::to_owned));
                }
            }
            assert_eq!(but_for_leases(&actor), before, "{op:?}");
        }
    }
    assert_eq!(refused.len(), 11, "{refused:?}");
    assert!(leases > 0);
}

#[test]
fn the_greedy_sends_what_nobody_has_certified() {
    let mut actor = Actor::new(LiarKind::Greedy);
    let payload = |actor: &Actor, id: &str, value: u64| {
        let value = Value::Number(value);
        actor.cluster.rules().payload(&tx(id), &value)
    };
    // Before any vote, at the account's next nonce.
    let lies = actor.asked(&tx("a"), number(1));
    let early = Lie::Transact {
        nonce: 7,
        payload: payload(&actor, "a", 1),
    };
    assert_eq!(lies, [early]);
    assert_eq!(actor.asked(&tx("a"), Choice::Abstention), []);
    // As soon as it is reserved.
    let lies = actor.decide(&tx("b"), 2);
    let reserved = Lie::Transact {
        nonce: 7,
        payload: payload(&actor, "b", 2),
    };
    assert_eq!(lies, [reserved]);
    assert!(actor.board.ballot(&tx("b")).unwrap().certificate.is_none());
    let lies = actor.asked(&tx("c"), number(3));
    assert!(matches!(lies[..], [Lie::Transact { nonce: 8, .. }]));
}

#[test]
fn a_lease_hog_takes_the_lease_whenever_it_ends() {
    let mut actor = Actor::new(LiarKind::LeaseHog);
    let id = tx("a");
    let mut lies = actor.decide(&id, 1);
    let mut taken = 0;
    for _ in 0..40 {
        let ops: Vec<_> = proposed(&lies).map(|(op, at)| (op.clone(), at)).collect();
        let mut wake = lies.iter().rev().find_map(|lie| match lie {
            Lie::Wake { in_ms } => Some(*in_ms),
            _ => None,
        });
        for (op, now_ms) in ops {
            taken += 1;
            for lie in actor.reads(&op, now_ms) {
                match lie {
                    Lie::Wake { in_ms } => wake = Some(in_ms),
                    other => panic!("{other:?}"),
                }
            }
            let lease = actor.board.ballot(&id).unwrap().lease.clone().unwrap();
            assert_eq!(lease.holder, actor.me);
            assert_eq!(lease.until_ms, actor.now_ms + 60_000);
        }
        actor.now_ms += wake.unwrap_or(100_000);
        lies = actor.cue(Cue::Wake);
    }
    assert_eq!(taken, 20);
}

#[test]
fn a_lease_hog_lets_what_is_over_be() {
    let mut actor = Actor::new(LiarKind::LeaseHog);
    let id = tx("a");
    let lies = actor.decide(&id, 1);
    assert_eq!(proposed(&lies).count(), 1);
    // Somebody else was faster: it waits for the end.
    let other = actor.cluster.node_id(0);
    let now = actor.now_ms;
    let lies = actor.reads(&ops::lease(&id, &other, 30_000), now);
    assert_eq!(proposed(&lies).count(), 0);
    actor.now_ms += 30_000;
    let lies = actor.cue(Cue::Wake);
    assert_eq!(proposed(&lies).count(), 1);
    // Confirmed: there is nothing to hold back any more.
    let reservation = actor
        .board
        .ballot(&id)
        .unwrap()
        .reservation
        .clone()
        .unwrap();
    let decisions = actor
        .cluster
        .of_threshold(|c, i| c.decision(i, &id, &number(1), Some(&reservation)));
    let now = actor.now_ms;
    actor.reads(&ops::certify(&id, decisions), now);
    let outcome = quorate_consensus::wire::ChainOutcome::Confirmed;
    let seen = actor
        .cluster
        .of_threshold(|c, i| c.observation(i, &id, &reservation, outcome));
    actor.reads(&ops::conclude(&id, seen), now);
    actor.now_ms += 600_000;
    assert_eq!(actor.cue(Cue::Wake), []);
}

#[test]
fn a_clock_liars_votes_lie_at_the_edges_and_beyond() {
    let mut offs = BTreeSet::new();
    let (mut taken, mut not) = (0, 0);
    for dice in all_dice() {
        let mut actor = Actor::new(LiarKind::ClockLiar).dice(dice);
        let lies = actor.asked(&tx("a"), number(1));
        let said: BTreeSet<_> = votes(&lies).into_iter().map(|v| v.statement).collect();
        assert_eq!(said.len(), 1, "one choice, one time");
        let (_, body) = parse::<VoteBody>(said.first().unwrap()).unwrap();
        offs.insert(i128::from(body.time_ms) - i128::from(NOW));
        // At an honest time the board takes what is within the edges.
        let (op, _) = proposed(&lies).next().unwrap();
        let rules = actor.cluster.rules();
        let good = body.time_ms <= NOW + rules.clock_skew_ms()
            && body.time_ms + rules.vote_lifetime_ms() >= NOW;
        let answer = actor.board.apply(op, NOW, &FakeVerifier);
        assert_eq!(answer.is_ok(), good, "{answer:?}");
        *(if good { &mut taken } else { &mut not }) += 1;
    }
    assert_eq!(offs.len(), 7);
    assert!(taken > 50 && not > 50);
}

#[test]
fn a_clock_liar_asks_for_moves_before_their_time() {
    let mut actor = Actor::new(LiarKind::ClockLiar);
    let id = tx("a");
    let mut lies = Vec::new();
    for i in 0..3 {
        let vote = actor.cluster.vote(i, &id, number(i as u64), NOW);
        lies.extend(actor.reads(&ops::record_vote(vote), NOW));
    }
    // Started, and undecided: what the deadline would give, stamped with it.
    let deadline = actor.board.ballot(&id).unwrap().deadline_ms().unwrap();
    let timed_out = ops::advance(&id, BallotState::AbortedTimeout);
    let stamps: Vec<_> = proposed(&lies)
        .filter(|(op, _)| **op == timed_out)
        .map(|(_, at)| at)
        .collect();
    assert!(
        stamps.contains(&(deadline + 1)) && stamps.contains(&1),
        "{stamps:?}"
    );
    let mut early = actor.board.clone();
    assert!(early.apply(&timed_out, NOW, &FakeVerifier).is_err());
    assert!(early.apply(&timed_out, deadline + 1, &FakeVerifier).is_ok());
    // The end of a settle window likewise.
    let lies = actor.decide(&tx("b"), 1);
    let reserves = proposed(&lies).filter(|(op, _)| matches!(op.op, Some(Op::Reserve(_))));
    assert!(reserves.map(|(_, at)| at).any(|at| at > NOW));
    // Nothing is stamped so far ahead that readers would wait for ever.
    assert!(proposed(&lies).all(|(_, at)| at <= actor.now_ms + 600_000));
}
