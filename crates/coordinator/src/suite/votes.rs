//! Votes from many sides at once.

use quorate_consensus::Choice;
use quorate_consensus::board::Refusal;
use quorate_consensus::wire::{BallotState, ViolationType};
use quorate_engine::{ProposeError, Proposed};
use quorate_testkit::{Cluster, NOW, number, ops, tx};

use super::Builder;
use super::support::{Mirror, all_at_once, applied, refused};

pub(super) async fn one_first_vote(builder: &dyn Builder) {
    let cluster = Cluster::new(5, 4);
    let store = builder.store(cluster.rules().clone()).await;
    let handles = [store.handle().await, store.handle().await];
    for round in 0..20 {
        let tx_id = tx(&format!("tx{round}"));
        // Sixteen choices of one trustee, each asked to be the only one.
        let answers = all_at_once((0..16).map(|i| {
            let handle = handles[i % 2].clone();
            let vote = cluster.vote(round % 5, &tx_id, number(i as u64), NOW);
            async move { handle.propose(ops::record_first_vote(vote), NOW).await }
        }))
        .await;
        let mirror = Mirror::of(&cluster, &handles[0]).await;
        let ballot = mirror.board.ballot(&tx_id).expect("it is open");
        let winner = &ballot.votes[&cluster.node_id(round % 5)].vote.body.choice;
        assert!(ballot.second_votes.is_empty());
        for (i, answer) in answers.into_iter().enumerate() {
            if Choice::Value(number(i as u64)) == *winner {
                let revision = round as u64 + 1;
                assert_eq!(answer, Ok(Proposed::Applied(revision)));
            } else {
                let choice = winner.clone();
                let refusal = Refusal::OtherChoice { choice };
                assert_eq!(answer, Err(ProposeError::Refused(refusal)));
            }
        }
    }
    assert_eq!(handles[1].head().await, Ok(20));
}

pub(super) async fn only_first_refuses_another(builder: &dyn Builder) {
    let cluster = Cluster::new(5, 4);
    let store = builder.store(cluster.rules().clone()).await;
    let (one, other) = (store.handle().await, store.handle().await);
    let vote = |choice: Choice, late| cluster.vote(0, &tx("a"), choice, NOW + late);
    let first = vote(number(1).into(), 0);
    applied(&one, ops::record_first_vote(first), NOW).await;
    let second = ops::record_first_vote(vote(Choice::Abstention, 1));
    let refusal = refused(&other, second, NOW).await;
    let choice = number(1).into();
    assert_eq!(refusal, Refusal::OtherChoice { choice });
    let same = ops::record_first_vote(vote(number(1).into(), 2));
    let answer = other.propose(same, NOW).await;
    assert_eq!(answer, Ok(Proposed::Unchanged(1)));
}

pub(super) async fn two_choices_are_evidence(builder: &dyn Builder) {
    let cluster = Cluster::new(5, 4);
    let store = builder.store(cluster.rules().clone()).await;
    let handles = [store.handle().await, store.handle().await];
    // Both nodes hold one of the two: which comes first is open, that both are
    // kept is not.
    let answers = all_at_once((0..2).map(|i| {
        let handle = handles[i].clone();
        let vote = cluster.vote(3, &tx("a"), number(i as u64), NOW);
        async move { handle.propose(ops::record_vote(vote), NOW).await }
    }))
    .await;
    assert!(answers.contains(&Ok(Proposed::Applied(1))), "{answers:?}");
    assert!(answers.contains(&Ok(Proposed::Applied(2))), "{answers:?}");
    let mut mirror = Mirror::of(&cluster, &handles[1]).await;
    let liar = cluster.node_id(3);
    let ballot = mirror.board.ballot(&tx("a")).expect("it is open");
    let first = &ballot.votes[&liar].vote.body.choice;
    let second = &ballot.second_votes[&liar].body.choice;
    assert_ne!(first, second);
    mirror.move_on(&handles[0], &tx("a"), NOW).await;
    let ballot = mirror.board.ballot(&tx("a")).expect("it is there");
    assert_eq!(ballot.state, BallotState::AbortedByzantine);
    let violation = &ballot.violations[0];
    assert_eq!(violation.node_id, liar);
    assert_eq!(violation.kind, ViolationType::DoubleVoting);
    // The evidence bans, through either handle, once.
    let proof = violation.misbehaviour.clone().expect("it is proven");
    let revision = mirror.board.revision();
    if mirror.board.is_banned(&liar) {
        let answer = handles[1].propose(ops::ban_for(&liar, proof), NOW).await;
        assert_eq!(answer, Ok(Proposed::Unchanged(revision)));
    } else {
        applied(&handles[1], ops::ban_for(&liar, proof), NOW).await;
    }
    mirror.catch_up(&handles[0]).await;
    assert!(mirror.board.is_banned(&liar));
    let vote = cluster.vote(3, &tx("b"), number(1), NOW);
    let refusal = refused(&handles[0], ops::record_vote(vote), NOW).await;
    assert_eq!(refusal, Refusal::Banned(liar));
}

pub(super) async fn every_voter_is_counted(builder: &dyn Builder) {
    let cluster = Cluster::new(64, 43);
    let store = builder.store(cluster.rules().clone()).await;
    let handles = [store.handle().await, store.handle().await];
    let (a, b) = (tx("a"), tx("b"));
    // Two ballots of 64 voters each: one agrees, one is divided in two.
    let mut answers = all_at_once((0..128).map(|i| {
        let handle = handles[i % 2].clone();
        let member = i / 2;
        let vote = if i % 2 == 0 {
            cluster.vote(member, &a, number(7), NOW)
        } else {
            cluster.vote(member, &b, number(member as u64 % 2), NOW)
        };
        async move { applied(&handle, ops::record_vote(vote), NOW).await }
    }))
    .await;
    answers.sort_unstable();
    assert_eq!(answers, (1..=128).collect::<Vec<u64>>());
    for handle in &handles {
        let mirror = Mirror::of(&cluster, handle).await;
        let ballot = mirror.board.ballot(&a).expect("it is open");
        assert_eq!(ballot.votes.len(), 64);
        assert_eq!(ballot.counts()[&number(7)], 64);
        let ballot = mirror.board.ballot(&b).expect("it is open");
        assert_eq!(ballot.counts()[&number(0)], 32);
        assert_eq!(ballot.counts()[&number(1)], 32);
    }
}

/// Far more than one transaction of a store may take at once.
pub(super) async fn every_voter_makes_room(builder: &dyn Builder) {
    let cluster = Cluster::new(200, 134);
    let store = builder.store(cluster.rules().clone()).await;
    let handle = store.handle().await;
    let a = tx("a");
    // One more, and it would have started.
    let unstarted = cluster.rules().starters() - 1;
    all_at_once((0..unstarted).map(|i| {
        let (handle, vote) = (handle.clone(), cluster.vote(i, &a, number(7), NOW));
        async move { applied(&handle, ops::record_vote(vote), NOW).await }
    }))
    .await;
    let mirror = Mirror::of(&cluster, &handle).await;
    let ballot = mirror.board.ballot(&a).expect("it is open");
    assert_eq!(ballot.votes.len(), unstarted);
    let end = ballot.expires_ms();
    // Beside as many others as travel with it.
    let votes = (0..100).map(|i| {
        let name = tx(&format!("beside-{i}"));
        ops::record_vote(cluster.vote(i, &name, number(7), end))
    });
    let all = votes.chain([ops::expire(&a)]).map(|op| {
        let handle = handle.clone();
        async move { applied(&handle, op, end).await }
    });
    all_at_once(all).await;
    let mirror = Mirror::of(&cluster, &handle).await;
    assert!(mirror.board.ballot(&a).is_none(), "it is open still");
    let vote = cluster.vote(0, &a, number(8), end);
    applied(&handle, ops::record_vote(vote), end).await;
}
