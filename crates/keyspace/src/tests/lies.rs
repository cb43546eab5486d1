//! Somebody writes to the store past all rules: whatever it is, nobody believes it,
//! it is found, and nothing that was believed is lost.

use quorate_testkit::Options;

use super::*;
use crate::kv::Write;
use crate::record::Record;
use crate::{What, names};

/// A world with a decided ballot, a submitted one, and a banned trustee.
fn busy() -> World {
    let mut world = World::new(Cluster::new(5, 3), 2);
    let boot = ops::boot(world.cluster.boot(0, 1, NOW));
    world.done(boot, NOW);
    world.submitted("s");
    let twice = world.vote(4, "l", number(1));
    world.done(twice, NOW);
    let other = world.vote(4, "l", number(2));
    world.done(other, NOW);
    world.done(ops::advance(&id("l"), BallotState::AbortedByzantine), NOW);
    let lie = world.readers[0]
        .board()
        .ballot(&id("l"))
        .unwrap()
        .violations[0]
        .clone();
    world.done(ops::ban_for(&lie.node_id, lie.misbehaviour.unwrap()), NOW);
    world.decided("d");
    assert_eq!(world.findings, [[], []]);
    world.assert_one_log();
    world
}

/// Lies to the store, lets everybody read, and says what was found; insists that
/// nobody's log has changed and that a newcomer reads it too.
fn after(world: &mut World, writes: &[Write]) -> Vec<What> {
    let log = world.entries(0);
    world.store.write(writes);
    world.settle();
    assert_eq!(world.entries(0), log, "the log has changed");
    world.assert_one_log();
    let mut found = std::mem::take(&mut world.findings[1]);
    found.dedup();
    world.findings[0].clear();
    found.into_iter().map(|finding| finding.what).collect()
}

fn forged(op: BoardOp, origin: Option<u64>) -> Vec<u8> {
    let record = Record {
        id: OpId([9; 16]),
        op,
        time_ms: NOW,
        index: 0,
        origin,
    };
    record.encode()
}

#[test]
fn a_forged_counter_counts_for_nothing() {
    let mut world = busy();
    for i in 0..2 {
        let vote = world.vote(i, "c", number(1));
        world.done(vote, NOW);
    }
    let key = names::count(&id("c"), &number(1).into());
    let raise = [Write::put(key, "")];
    for _ in 0..3 {
        assert_eq!(after(&mut world, &raise), [What::Counter]);
    }
    assert_eq!(world.store.get(raise[0].key()).unwrap().version, 5);
    assert_eq!(world.readers[0].board().next_move(&id("c"), NOW), None);
}

#[test]
fn a_forged_vote_is_removed_and_the_trustee_can_vote() {
    let mut world = busy();
    let mut vote = world.cluster.vote(1, &id("n"), number(1), NOW);
    vote.signature[0] ^= 1;
    let key = names::vote(&id("n"), &of(&world.cluster, 1));
    let value = forged(ops::record_vote(vote), None);
    let found = after(&mut world, &[Write::put(key.clone(), value)]);
    assert!(
        matches!(found.as_slice(), [What::Unjustified(_)]),
        "{found:?}"
    );
    assert!(world.store.get(&key).is_none());
    let vote = world.vote(1, "n", number(1));
    world.done(vote, NOW);
}

#[test]
fn a_vote_under_another_trustees_key_is_removed() {
    let mut world = busy();
    let vote = world.cluster.vote(1, &id("n"), number(1), NOW);
    let key = names::vote(&id("n"), &of(&world.cluster, 2));
    let value = forged(ops::record_vote(vote), None);
    assert_eq!(
        after(&mut world, &[Write::put(key, value)]),
        [What::Misplaced]
    );
}

#[test]
fn bytes_that_are_no_record_are_removed() {
    let mut world = busy();
    let writes = [Write::put("log/ffff", "nonsense")];
    assert_eq!(after(&mut world, &writes), [What::Misplaced]);
    assert!(world.store.get("log/ffff").is_none());
}

#[test]
fn a_move_without_its_votes_is_removed() {
    let mut world = busy();
    let vote = world.vote(0, "n", number(1));
    world.done(vote, NOW);
    let op = ops::advance(&id("n"), BallotState::ThresholdReached);
    let value = forged(op, None);
    let key = names::operation(OpId([9; 16]));
    let found = after(&mut world, &[Write::put(key, value)]);
    assert!(
        matches!(found.as_slice(), [What::Unjustified(_)]),
        "{found:?}"
    );
    assert_eq!(world.state(1, "n"), Some(BallotState::Collecting));
}

#[test]
fn a_deleted_vote_is_put_back_in_its_place() {
    let mut world = busy();
    let key = names::vote(&id("d"), &of(&world.cluster, 0));
    assert_eq!(
        after(&mut world, &[Write::Delete(key.clone())]),
        [What::Vanished]
    );
    assert!(world.store.get(&key).is_some());
    // Even while nobody could see the change itself.
    world.store.write(&[Write::Delete(key.clone())]);
    world.store.compact();
    world.settle();
    assert!(world.store.get(&key).is_some());
    world.assert_one_log();
}

#[test]
fn an_overwritten_vote_is_put_back() {
    let mut world = busy();
    let key = names::vote(&id("d"), &of(&world.cluster, 0));
    // A vote of the same trustee, properly signed: it has voted otherwise.
    let vote = world.cluster.vote(0, &id("d"), number(9), NOW);
    let value = forged(ops::record_vote(vote), None);
    assert_eq!(
        after(&mut world, &[Write::put(key, value)]),
        [What::Overwritten]
    );
    assert_eq!(world.state(1, "d"), Some(BallotState::ThresholdReached));
}

#[test]
fn a_state_set_back_is_put_right() {
    let mut world = busy();
    let key = names::status(&id("s"));
    let before = world.store.get(&key).unwrap().value.clone();
    let writes = [Write::put(
        key.clone(),
        r#"{"state":"BALLOT_STATE_COLLECTING"}"#,
    )];
    assert_eq!(after(&mut world, &writes), [What::WrongView]);
    assert_eq!(world.store.get(&key).unwrap().value, before);
    assert_eq!(
        after(&mut world, &[Write::Delete(key.clone())]),
        [What::Vanished]
    );
    assert_eq!(world.store.get(&key).unwrap().value, before);
}

#[test]
fn a_forged_reservation_gives_no_nonce_away() {
    let mut world = busy();
    let account = world.cluster.rules().chain().account.clone();
    let found = after(&mut world, &[Write::put(names::nonces(&account), "99")]);
    assert_eq!(found, [What::WrongView]);
    let board = world.readers[0].board();
    let mut reservation = board
        .next_reservation(board.ballot(&id("d")).unwrap())
        .unwrap();
    reservation.nonce += 5;
    let value = forged(ops::reserve(&id("d"), reservation), None);
    let key = names::operation(OpId([9; 16]));
    let found = after(&mut world, &[Write::put(key, value)]);
    assert!(
        matches!(found.as_slice(), [What::Unjustified(_)]),
        "{found:?}"
    );
}

#[test]
fn a_forged_ban_bans_nobody_and_a_deleted_one_comes_back() {
    let mut world = busy();
    let innocent = names::banned(&of(&world.cluster, 1));
    let writes = [Write::put(innocent.clone(), r#"{"reason":"because"}"#)];
    assert_eq!(after(&mut world, &writes), [What::WrongView]);
    assert!(world.store.get(&innocent).is_none());
    assert!(!world.readers[1].board().is_banned(&of(&world.cluster, 1)));
    let banned = names::banned(&of(&world.cluster, 4));
    assert_eq!(
        after(&mut world, &[Write::Delete(banned.clone())]),
        [What::Vanished]
    );
    assert!(world.store.get(&banned).is_some());
}

#[test]
fn forged_members_and_rules_are_put_right() {
    let mut world = busy();
    for key in [names::member(&of(&world.cluster, 0)), names::rules(1)] {
        let before = world.store.get(&key).unwrap().value.clone();
        let found = after(&mut world, &[Write::put(key.clone(), "another")]);
        assert_eq!(found, [What::WrongView]);
        assert_eq!(world.store.get(&key).unwrap().value, before);
    }
}

#[test]
fn a_record_that_claims_a_place_in_the_past_is_removed() {
    let mut world = busy();
    let vote = world.cluster.vote(3, &id("d"), number(7), NOW);
    let key = names::vote(&id("d"), &of(&world.cluster, 3));
    // After everybody first read: nobody can have missed it then.
    let value = forged(ops::record_vote(vote), Some(5));
    assert_eq!(
        after(&mut world, &[Write::put(key, value)]),
        [What::Backdated]
    );
}

#[test]
fn who_first_reads_what_was_written_over_a_record_does_not_believe_it() {
    let mut world = busy();
    let key = names::vote(&id("d"), &of(&world.cluster, 0));
    // Properly signed: the trustee itself lies, and holds etcd's password.
    let vote = world.cluster.vote(0, &id("d"), number(9), NOW);
    let value = forged(ops::record_vote(vote), None);
    world.store.write(&[Write::put(key.clone(), value)]);
    let mut newcomer = world.newcomer();
    let taken = newcomer.take_all(world.store.revision(), world.store.all());
    assert!(taken.is_doubtful(), "{:?}", taken.findings);
    assert!(!newcomer.knows(&key));
    assert!(taken.findings.iter().any(|f| f.what == What::WrittenOver));
    // It is put back by who knows it.
    world.settle();
    world.assert_one_log();
}

#[test]
fn what_is_written_over_a_refused_record_is_removed_by_who_refused_it() {
    let options = Options::default().times(2_000, 100, 500);
    let mut world = World::new(Cluster::with(5, 3, options), 2);
    // A vote that came too late, and is to be removed.
    let late = world.vote(0, "a", number(1));
    let late = world.ask(late, NOW);
    let planned = world.readers[0].plan(&[late], 64);
    let other = world.cluster.vote(1, &id("b"), number(1), NOW + 9_000);
    world.done(ops::record_vote(other), NOW + 9_000);
    assert_eq!(world.store.commit(&planned.batch), [true]);
    for i in 0..2 {
        assert_eq!(world.look(i).len(), 1);
    }
    // Before it is, somebody writes over it.
    let key = names::vote(&id("a"), &of(&world.cluster, 0));
    let vote = world.cluster.vote(0, &id("a"), number(9), NOW + 9_000);
    let found = after(
        &mut world,
        &[Write::put(
            key.clone(),
            forged(ops::record_vote(vote), None),
        )],
    );
    assert_eq!(found, [What::WrittenOver]);
    assert_eq!(world.store.get(&key), None);
}

#[test]
fn who_first_reads_while_something_is_missing_finds_out_when_it_is_put_back() {
    let mut world = busy();
    let key = names::vote(&id("d"), &of(&world.cluster, 0));
    world.store.write(&[Write::Delete(key.clone())]);
    let mut newcomer = world.newcomer();
    newcomer.take_all(world.store.revision(), world.store.all());
    assert_ne!(
        newcomer.board().revision(),
        world.readers[0].board().revision()
    );
    world.settle();
    assert!(world.store.get(&key).is_some());
    let mut found = Vec::new();
    for (revision, changes) in world.store.changes_after(newcomer.revision()).unwrap() {
        let taken = newcomer.take(revision, changes);
        assert_eq!(taken.mending, [], "who knows less mends nothing");
        found.extend(taken.findings);
    }
    assert!(
        found
            .iter()
            .any(|f| f.what == What::Incomplete && f.key == key),
        "{found:?}"
    );
}

#[test]
fn who_reads_everything_anew_while_something_is_missing_finds_out_when_it_is_put_back() {
    let mut world = busy();
    // Reader 1 sleeps through a vote, its deletion and the compaction of both.
    let vote = world.vote(3, "d", number(1));
    let vote = world.ask(vote, NOW);
    assert_eq!(world.send(0, &[vote]), 1);
    world.read(0);
    let key = names::vote(&id("d"), &of(&world.cluster, 3));
    world.store.write(&[Write::Delete(key.clone())]);
    let back = world.look(0);
    world.store.compact();
    assert_eq!(world.look(1), [], "nobody can see what was deleted");
    for step in back {
        world.store.step(&step);
    }
    assert!(world.store.get(&key).is_some());
    assert_eq!(world.look(1), [], "who knows less mends nothing");
    let found = world.findings[1].last().expect("it found something");
    assert_eq!((found.what.clone(), &found.key), (What::Incomplete, &key));
}

#[test]
fn what_makes_no_sense_without_a_missing_record_is_doubted_before_it_is_taken_in() {
    let mut world = busy();
    let log = world.entries(1);
    for i in 0..3 {
        let vote = world.vote(i, "n", number(1));
        let vote = world.ask(vote, NOW);
        assert_eq!(world.send(0, &[vote]), 1);
    }
    world.read(0);
    let op = ops::advance(&id("n"), BallotState::ThresholdReached);
    let op = world.ask(op, NOW);
    assert_eq!(world.send(0, &[op]), 1);
    world.read(0);
    let key = names::vote(&id("n"), &of(&world.cluster, 0));
    // A record that reader 1 knows vanishes as well.
    let known = names::vote(&id("d"), &of(&world.cluster, 0));
    world
        .store
        .write(&[Write::Delete(key), Write::Delete(known.clone())]);
    world.store.compact();
    let mut trial = world.readers[1].clone();
    let taken = trial.take_all(world.store.revision(), world.store.all());
    assert!(taken.is_doubtful() && !taken.is_rolled_back());
    let back = taken.written_back();
    assert!(back.iter().any(|step| step.writes[0].key() == known));
    for step in back {
        assert!(world.store.step(&step), "it takes nothing away");
    }
    // Once it was put back by who knows it the reading is whole.
    world.read(0);
    world.read(1);
    let taken = world.readers[1].take_all(world.store.revision(), world.store.all());
    assert!(!taken.is_doubtful(), "{:?}", taken.findings);
    assert_eq!(world.entries(1).len(), log.len() + 4);
    world.assert_one_log();
}

#[test]
fn an_older_copy_of_the_store_is_not_taken_in() {
    let mut world = busy();
    let older = world.store.clone();
    let vote = world.vote(3, "d", number(1));
    world.done(vote, NOW);
    let log = world.entries(1);
    world.store = older;
    let taken = world.readers[1].take_all(world.store.revision(), world.store.all());
    assert!(matches!(taken.findings[0].what, What::RolledBack { .. }));
    assert_eq!(world.entries(1), log);
}

#[test]
fn an_older_copy_in_which_others_wrote_on_is_not_taken_in() {
    let mut world = busy();
    let older = world.store.clone();
    let vote = world.vote(3, "d", number(1));
    world.done(vote, NOW);
    let log = world.entries(1);
    let seen = world.readers[1].revision();
    world.store = older;
    let mut other = world.newcomer();
    other.take_all(world.store.revision(), world.store.all());
    while world.store.revision() <= seen {
        let vote = world.vote(0, "other", number(world.store.revision()));
        let ask = world.ask(vote, NOW);
        let planned = other.plan(&[ask], 64);
        world.store.commit(&planned.batch);
        world.store.write(&[Write::put("elsewhere", "")]);
    }
    let all = world.store.all();
    let head = all.iter().find(|kv| kv.key == names::HEAD);
    assert_ne!(head, world.readers[1].head());
    let taken = world.readers[1].take_all(world.store.revision(), world.store.all());
    assert!(matches!(taken.findings[0].what, What::RolledBack { .. }));
    assert_eq!(world.entries(1), log);
}

#[test]
fn all_keys_deleted_at_once_come_back() {
    let mut world = busy();
    let log = world.entries(0);
    world.store.write(&[Write::DeleteAll(String::new())]);
    world.settle();
    assert_eq!(world.entries(0), log);
    world.assert_one_log();
}
