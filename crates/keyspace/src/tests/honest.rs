//! Nobody lies, but everybody is late.

use fastrand::Rng;
use quorate_consensus::Choice;
use quorate_testkit::Options;

use quorate_consensus::board::Refusal;
use quorate_consensus::wire::{OperatorActKind, UnbanOp, board_op};

use super::*;
use crate::kv::{Guard, Write};
use crate::{Attempt, Next, Past, What, names};

fn cluster() -> Cluster {
    Cluster::new(5, 4)
}

#[test]
fn a_move_is_refused_when_a_vote_came_since_it_was_derived() {
    let mut world = World::new(cluster(), 2);
    for i in 0..4 {
        let vote = world.vote(i, "a", number(1));
        world.done(vote, NOW);
    }
    // Reader 1 records a dissent that reader 0 has not seen.
    let dissent = world.vote(4, "a", number(2));
    let dissent = world.ask(dissent, NOW);
    assert_eq!(world.send(1, &[dissent]), 1);
    let advance = world.ask(ops::advance(&id("a"), BallotState::ThresholdReached), NOW);
    assert_eq!(world.send(0, std::slice::from_ref(&advance)), 0);
    world.settle();
    assert_eq!(world.state(0, "a"), Some(BallotState::Collecting));
    // Derived anew it is another move.
    let next = world.readers[0]
        .board()
        .next_move(&id("a"), NOW)
        .expect("there is one");
    assert_eq!(next.to, BallotState::AbortedByzantine);
    world.done(ops::advance(&id("a"), next.to), NOW);
    world.assert_one_log();
}

#[test]
fn a_refused_operation_does_not_spoil_its_neighbours() {
    let mut world = World::new(cluster(), 2);
    let taken = world.vote(1, "b", number(1));
    let taken = world.ask(taken, NOW);
    assert_eq!(world.send(1, &[taken]), 1);
    // Reader 0 does not know of it: in the middle of its batch is another vote of the
    // same trustee.
    let votes = [(0, "a", 1), (1, "b", 2), (2, "c", 1)];
    let votes: Vec<_> = votes
        .into_iter()
        .map(|(i, name, value)| world.vote(i, name, number(value)))
        .collect();
    let asks: Vec<_> = votes.into_iter().map(|op| world.ask(op, NOW)).collect();
    assert_eq!(world.send(0, &asks), 2);
    world.settle();
    assert_eq!(world.entries(0).len(), 3);
    world.assert_one_log();
}

#[test]
fn a_repeated_transaction_has_one_effect() {
    let mut world = World::new(cluster(), 1);
    let boot = ops::boot(world.cluster.boot(0, 1, NOW));
    let vote = world.vote(1, "a", number(1));
    let asks = [world.ask(boot, NOW), world.ask(vote, NOW)];
    let planned = world.readers[0].plan(&asks, 64);
    assert_eq!(world.store.commit(&planned.batch), [true, true]);
    // The reply was lost, and the same is sent again.
    assert_eq!(world.store.commit(&planned.batch), [false, false]);
    world.settle();
    assert_eq!(world.entries(0).len(), 2);
    assert_eq!(world.replies.len(), 2);
    world.assert_one_log();
}

#[test]
fn the_version_of_the_counter_is_the_number_of_votes() {
    let mut world = World::new(Cluster::new(12, 8), 3);
    for i in 0..12 {
        let vote = world.vote(i, "a", number(7));
        let ask = world.ask(vote, NOW);
        assert_eq!(world.send(i % 3, &[ask]), 1);
    }
    world.settle();
    let key = names::count(&id("a"), &Choice::from(number(7)));
    assert_eq!(world.store.get(&key).map(|kv| kv.version), Some(12));
}

#[test]
fn an_expired_ballot_makes_room_and_loses_nothing() {
    let options = Options::default().times(2_000, 100, 500);
    let mut world = World::new(Cluster::with(5, 2, options), 2);
    let vote = world.vote(0, "a", number(1));
    world.done(vote, NOW);
    let late = NOW + 10_000;
    world.done(ops::expire(&id("a")), late);
    assert_eq!(world.state(0, "a"), None);
    let key = names::vote(&id("a"), &of(&world.cluster, 0));
    assert!(world.store.get(&key).is_none());
    // The same trustee votes again, and it is another ballot.
    let again = world.cluster.vote(0, &id("a"), number(2), late);
    world.done(ops::record_vote(again), late);
    assert_eq!(world.findings, [[], []]);
    world.assert_one_log();
}

#[test]
fn what_was_compacted_away_is_read_anew() {
    let mut world = World::new(cluster(), 2);
    world.decided("a");
    for i in 0..3 {
        let vote = world.vote(i, "b", number(1));
        let ask = world.ask(vote, NOW);
        assert_eq!(world.send(0, &[ask]), 1);
    }
    world.read(0);
    world.store.compact();
    assert!(
        world
            .store
            .changes_after(world.readers[1].revision())
            .is_err()
    );
    world.settle();
    assert_eq!(world.entries(1).len(), world.entries(0).len());
    assert_eq!(world.findings, [[], []]);
    world.assert_one_log();
}

#[test]
fn what_came_late_and_is_read_twice_before_it_is_removed_is_no_tampering() {
    let options = Options::default().times(2_000, 100, 500);
    let mut world = World::new(Cluster::with(5, 3, options), 2);
    // On its way for so long that the board's time has overtaken it.
    let late = world.vote(0, "a", number(1));
    let late = world.ask(late, NOW);
    let planned = world.readers[0].plan(&[late], 64);
    let other = world.cluster.vote(1, &id("b"), number(1), NOW + 9_000);
    world.done(ops::record_vote(other), NOW + 9_000);
    assert_eq!(world.store.commit(&planned.batch), [true]);
    let removal = world.look(1);
    assert_eq!(removal.len(), 1);
    let taken = world.readers[1].take_all(world.store.revision(), world.store.all());
    assert_eq!(taken.findings, []);
    assert_eq!(taken.mending, removal);
    world.settle();
    assert_eq!(world.findings, [[], []]);
    world.assert_one_log();
}

#[test]
fn what_comes_too_early_because_what_was_before_it_was_refused_is_no_tampering() {
    let options = Options::default().times(2_000, 100, 500);
    let mut world = World::new(Cluster::with(5, 3, options), 2);
    // A clock was ahead, and is right again: the first goes on the board's time, the
    // second was signed by the clock that was ahead.
    let ahead = NOW + 1_000;
    let first = world.cluster.vote(0, &id("a"), number(1), ahead);
    let first = world.ask(ops::record_vote(first), ahead);
    let second = world.cluster.vote(0, &id("b"), number(1), ahead);
    let second = world.ask(ops::record_vote(second), NOW);
    let planned = world.readers[0].plan(&[first, second], 64);
    // Somebody else was first with the first.
    let other = world.cluster.vote(0, &id("a"), number(1), NOW);
    world.done(ops::record_vote(other), NOW);
    assert_eq!(world.store.commit(&planned.batch), [false, true]);
    world.settle();
    assert_eq!(world.findings, [[], []]);
    assert!(world.state(0, "b").is_none());
    world.assert_one_log();
}

#[test]
fn a_ban_that_arrives_after_it_was_lifted_is_refused_by_its_guards() {
    let mut world = World::new(Cluster::new(5, 3), 2);
    for value in [1, 2] {
        let vote = world.vote(4, "l", number(value));
        world.done(vote, NOW);
    }
    world.done(ops::advance(&id("l"), BallotState::AbortedByzantine), NOW);
    let board = world.readers[0].board();
    let lie = board.ballot(&id("l")).unwrap().violations[0].clone();
    let ban = ops::ban_for(&lie.node_id, lie.misbehaviour.unwrap());
    let late = world.ask(ban.clone(), NOW);
    let late = world.readers[1].plan(&[late], 64);
    world.done(ban, NOW);
    let proof = world.readers[0].board().member(&lie.node_id).unwrap();
    let proof = proof.ban.clone().unwrap().proof;
    let pardoned = vec![quorate_consensus::detector::proof_digest(&proof)];
    let acts = (0..3).map(|i| {
        let kind = OperatorActKind::Unban;
        let subject = lie.node_id.as_str();
        world.cluster.act(i, kind, subject, pardoned.clone(), NOW)
    });
    let op = UnbanOp {
        node_id: lie.node_id.to_string(),
        acts: acts.collect(),
    };
    let op = BoardOp {
        op: Some(board_op::Op::Unban(op)),
    };
    world.done(op, NOW);
    assert_eq!(world.store.commit(&late.batch), [false]);
    world.settle();
    assert_eq!(world.findings, [[], []]);
    world.assert_one_log();
}

#[test]
fn a_ban_that_comes_too_late_is_no_tampering() {
    let options = Options::default().ban_silence().times(2_000, 0, 200);
    let mut world = World::new(Cluster::with(5, 3, options), 2);
    // Node 1 is silent in so many ballots that its reputation bans it.
    let silent: Vec<String> = (0..8).map(|i| format!("s{i}")).collect();
    for name in &silent {
        for i in 1..4 {
            let vote = world.vote(i, name, number(1));
            world.done(vote, NOW);
        }
        world.done(ops::advance(&id(name), BallotState::ThresholdReached), NOW);
    }
    let ballot = world.readers[0].board().ballot(&id("s0")).unwrap();
    let now = ballot.deadline_ms().unwrap();
    for name in &silent {
        world.done(ops::mark_silent(&id(name)), now);
    }
    let node_id = world.cluster.node_id(0);
    let ban = world.ask(ops::ban_silent(&node_id), now);
    let late = world.readers[1].plan(&[ban], 64);
    assert_eq!(late.batch.steps.len(), 1, "{:?}", late.settled);
    // By the time it arrives, good votes have raised it again.
    for name in (0..10).map(|i| format!("g{i}")) {
        for i in 0..3 {
            let vote = world.cluster.vote(i, &id(&name), number(1), now);
            world.done(ops::record_vote(vote), now);
        }
        let reached = ops::advance(&id(&name), BallotState::ThresholdReached);
        world.done(reached, now);
        let board = world.readers[0].board();
        let reservation = board.next_reservation(board.ballot(&id(&name)).unwrap());
        world.done(ops::reserve(&id(&name), reservation.unwrap()), now);
    }
    assert_eq!(world.store.commit(&late.batch), [true]);
    world.settle();
    assert!(!world.readers[0].board().is_banned(&node_id));
    assert_eq!(world.findings, [[], []]);
    world.assert_one_log();
}

#[test]
fn rules_that_nobody_has_written_yet_did_not_vanish() {
    let mut early = World::new(cluster(), 0).newcomer();
    let empty = Store::new();
    let taken = early.take_all(empty.revision(), empty.all());
    assert_eq!((taken.findings, taken.mending.len()), (vec![], 1));
    // Somebody writes something else first, and the past is compacted.
    let mut store = Store::new();
    store.write(&[Write::put("elsewhere", "")]);
    let taken = early.take_all(store.revision(), store.all());
    assert_eq!((taken.findings, taken.mending.len()), (vec![], 1));
    // Once they were seen they can vanish.
    assert!(store.step(&taken.mending[0]));
    early.take_all(store.revision(), store.all());
    store.write(&[Write::Delete(names::rules(1))]);
    let taken = early.take_all(store.revision(), store.all());
    assert_eq!(taken.findings[0].what, What::Vanished);
}

#[test]
fn an_attempt_is_answered_by_what_became_of_it_however_often_it_was_sent() {
    let mut world = World::new(Cluster::new(5, 3), 1);
    let vote = world.vote(0, "a", number(1));
    let ask = world.ask(vote, NOW);
    let mut attempt = Attempt::new(ask.clone());
    let planned = world.readers[0].plan(std::slice::from_ref(&ask), 64);
    // It takes effect, and nobody hears of it.
    assert_eq!(world.store.commit(&planned.batch), [true]);
    assert_eq!(attempt.unheard(None), Next::Again);
    // Sent again it has no effect; what is read back says what became of the first.
    assert_eq!(world.store.commit(&planned.batch), [false]);
    world.read(0);
    let (id, reply) = world.replies.pop().expect("it was read back");
    assert_eq!(id, ask.id);
    assert_eq!(
        attempt.carried_out(false, Some(reply)),
        Next::Answer(Reply::Applied(1))
    );
    // Of one that may be on its way still a refusal that can pass says nothing.
    let mut attempt = Attempt::new(ask);
    let banned = Verdict::Refused(Refusal::Banned(of(&world.cluster, 0)));
    assert_eq!(attempt.settled(banned.clone(), 1), Next::Read);
    attempt.was_read();
    let refused = Reply::Refused(Refusal::Banned(of(&world.cluster, 0)));
    assert_eq!(attempt.settled(banned.clone(), 1), Next::Answer(refused));
    assert_eq!(attempt.unheard(None), Next::Again);
    attempt.was_read();
    assert_eq!(attempt.settled(banned, 1), Next::Unknown);
}

#[test]
fn the_model_remembers_what_a_key_was_until_that_is_compacted_away() {
    let mut store = Store::new();
    store.write(&[Write::put("k", "1")]);
    store.write(&[Write::put("other", "")]);
    let older = store.clone();
    store.write(&[Write::Delete("k".into())]);
    store.write(&[Write::put("k", "2")]);
    let was = |store: &Store, at| match store.at("k", at) {
        Past::Gone => "gone".into(),
        Past::Was(kv) => kv.map_or("absent".to_owned(), |kv| {
            String::from_utf8(kv.value).unwrap()
        }),
    };
    let all: Vec<_> = (1..=6).map(|at| was(&store, at)).collect();
    assert_eq!(all, ["absent", "1", "1", "absent", "2", "gone"]);
    assert_eq!(store.older(3).all(), older.all());
    assert_eq!(store.older(3).revision(), 3);
    store.compact();
    assert_eq!(was(&store, 4), "gone");
    assert_eq!(was(&store, 5), "2");
    assert_eq!(store.older(3).revision(), 5);
}

/// What a node would propose for a ballot by what it has read so far.
fn due(world: &World, i: usize, rng: &mut Rng, now_ms: u64) -> BoardOp {
    let cluster = &world.cluster;
    let board = world.readers[i].board();
    let name = ["a", "b", "c"][rng.usize(0..3)];
    let member = rng.usize(0..cluster.n());
    let voted = |rng: &mut Rng| {
        let value = if rng.u8(0..12) == 0 { 2 } else { 1 };
        ops::record_vote(cluster.vote(member, &id(name), number(value), now_ms))
    };
    let Some(ballot) = board.ballot(&id(name)) else {
        return voted(rng);
    };
    if rng.u8(0..20) == 0 {
        return ops::boot(cluster.boot(member, rng.u64(1..9), now_ms));
    }
    if rng.u8(0..4) == 0 {
        return voted(rng);
    }
    if let Some(next) = board.next_move(&id(name), now_ms) {
        return ops::advance(&id(name), next.to);
    }
    let lie = ballot
        .violations
        .iter()
        .find(|violation| violation.misbehaviour.is_some() && !board.is_banned(&violation.node_id));
    if let Some(lie) = lie {
        return ops::ban_for(&lie.node_id, lie.misbehaviour.clone().unwrap_or_default());
    }
    match ballot.state {
        BallotState::Collecting if ballot.is_started() => voted(rng),
        BallotState::Collecting => match rng.bool() {
            true => voted(rng),
            false => ops::expire(&id(name)),
        },
        BallotState::ThresholdReached => {
            let reservation = board.next_reservation(ballot).unwrap_or_default();
            ops::reserve(&id(name), reservation)
        }
        BallotState::Submitted if rng.bool() => ops::lease(&id(name), &of(cluster, member), 1_000),
        BallotState::Submitted => {
            let value = ballot.value.clone().unwrap_or(number(1));
            let reservation = ballot.reservation.clone();
            let say = |c: &Cluster, i| c.decision(i, &id(name), &value, reservation.as_ref());
            ops::certify(&id(name), cluster.of_threshold(say))
        }
        _ => ops::mark_silent(&id(name)),
    }
}

#[test]
fn whoever_is_how_late_all_read_one_log_and_nobody_is_suspected() {
    let clusters = [
        Cluster::with(5, 4, Options::default().times(2_000, 50, 500)),
        Cluster::with(4, 2, Options::default().times(2_000, 50, 500)),
        Cluster::with(5, 3, Options::default().times(2_000, 50, 500).outvote()),
    ];
    let mut written = 0;
    let mut refused = 0;
    for seed in 0..400 {
        let mut rng = Rng::with_seed(seed);
        let mut world = World::new(clusters[seed as usize % clusters.len()].clone(), 3);
        let mut now_ms = NOW;
        for _ in 0..60 {
            now_ms += [0, 5, 60, 700][rng.usize(0..4)];
            let i = rng.usize(0..3);
            let ops: Vec<_> = (0..rng.usize(1..5))
                .map(|_| due(&world, i, &mut rng, now_ms))
                .collect();
            let asks: Vec<_> = ops.into_iter().map(|op| world.ask(op, now_ms)).collect();
            let planned = world.readers[i].plan(&asks, 64);
            let held = world.store.commit(&planned.batch);
            written += held.iter().filter(|held| **held).count();
            refused += held.iter().filter(|held| !**held).count();
            if rng.u8(0..10) == 0 {
                // The reply was lost, and the same transaction is sent again.
                let again = world.store.commit(&planned.batch);
                assert!(
                    again
                        .iter()
                        .zip(&held)
                        .all(|(again, held)| !(*again && *held))
                );
            }
            if rng.u8(0..30) == 0 {
                world.store.compact();
            }
            let reads = rng.usize(0..3);
            if rng.bool() {
                world.read(reads);
            }
        }
        world.settle();
        for (i, findings) in world.findings.iter().enumerate() {
            assert_eq!(findings, &[], "seed {seed}: reader {i} suspects somebody");
        }
        world.assert_one_log();
    }
    assert!(
        written > 10_000 && refused > 300,
        "{written} written, {refused} refused by guards"
    );
}

#[test]
fn no_plan_writes_a_key_twice() {
    // `model::Store::commit` panics at a key that is put twice, as etcd refuses it.
    let mut world = World::new(cluster(), 1);
    let asks: Vec<_> = (0..64)
        .map(|n: u64| {
            let op = world.vote(
                (n % 5) as usize,
                ["a", "b"][(n % 2) as usize],
                number(n % 3),
            );
            world.ask(op, NOW)
        })
        .collect();
    let planned = world.readers[0].plan(&asks, 64);
    assert!(planned.batch.steps.len() > 3 && !planned.waiting.is_empty());
    world.store.commit(&planned.batch);
    world.settle();
    world.assert_one_log();
}

#[test]
fn guards_name_what_an_operation_was_derived_from() {
    let mut world = World::new(cluster(), 1);
    let settled = world.decided("a");
    let board = world.readers[0].board();
    let reservation = board
        .next_reservation(board.ballot(&id("a")).unwrap())
        .unwrap();
    let at = world.readers[0].revision();
    let ask = world.ask(ops::reserve(&id("a"), reservation), settled);
    let planned = world.readers[0].plan(&[ask], 64);
    let (_, step) = &planned.batch.steps[0];
    let account = world.cluster.rules().chain().account.clone();
    for guard in [
        Guard::AllUnchanged(names::votes_of(&id("a")), at),
        Guard::Unchanged(names::status(&id("a")), at),
        Guard::AllUnchanged(names::BANNED.into(), at),
        Guard::Unchanged(names::nonces(&account), at),
    ] {
        assert!(step.guards.contains(&guard), "{guard:?} is missing");
    }
    let keys: Vec<_> = step.writes.iter().map(Write::key).collect();
    assert!(keys.contains(&names::nonces(&account).as_str()));
}
