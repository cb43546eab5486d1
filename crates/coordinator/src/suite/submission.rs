//! From threshold to chain: reservations, leases, and one ballot's whole life.

use quorate_consensus::board::{RETENTION_MS, Refusal};
use quorate_consensus::wire::{BallotState, ChainOutcome};
use quorate_engine::{ProposeError, Proposed};
use quorate_testkit::{Cluster, NOW, number, ops, tx};

use super::Builder;
use super::support::{Mirror, all_at_once, applied, refused, settle};

pub(super) async fn one_reservation(builder: &dyn Builder) {
    let cluster = Cluster::new(5, 4);
    let store = builder.store(cluster.rules().clone()).await;
    let handles = [store.handle().await, store.handle().await];
    let mut mirror = Mirror::new(&cluster);
    let settled = settle(&handles[0], &cluster, &mut mirror, &tx("a"), &number(1)).await;
    let ballot = mirror.board.ballot(&tx("a")).expect("it is open");
    let reservation = mirror.board.next_reservation(ballot).expect("one is due");
    let early = ops::reserve(&tx("a"), reservation.clone());
    let refusal = refused(&handles[0], early, settled - 1).await;
    assert_eq!(refusal, Refusal::TooEarly(1));
    // Every node tries it at the same moment.
    let answers = all_at_once((0..16).map(|i| {
        let handle = handles[i % 2].clone();
        let op = ops::reserve(&tx("a"), reservation.clone());
        async move { handle.propose(op, settled).await }
    }))
    .await;
    let revision = mirror.board.revision() + 1;
    let count = |answer| answers.iter().filter(|a| **a == Ok(answer)).count();
    assert_eq!(count(Proposed::Applied(revision)), 1, "{answers:?}");
    assert_eq!(count(Proposed::Unchanged(revision)), 15, "{answers:?}");
    mirror.catch_up(&handles[1]).await;
    assert_eq!(mirror.board.revision(), revision);
    let ballot = mirror.board.ballot(&tx("a")).expect("it is there");
    assert_eq!(ballot.state, BallotState::Submitted);
    assert_eq!(ballot.reservation.as_ref(), Some(&reservation));
}

pub(super) async fn one_ballot_per_nonce(builder: &dyn Builder) {
    let cluster = Cluster::new(5, 4);
    let store = builder.store(cluster.rules().clone()).await;
    let handles = [store.handle().await, store.handle().await];
    let mut mirror = Mirror::new(&cluster);
    let txs: Vec<_> = (0..6).map(|i| tx(&format!("tx{i}"))).collect();
    let mut settled = NOW;
    for tx_id in &txs {
        let at = settle(&handles[0], &cluster, &mut mirror, tx_id, &number(1)).await;
        settled = settled.max(at);
    }
    // All reach for the next nonce at once; one gets it, and again.
    let mut waiting = txs.clone();
    for round in 0..txs.len() as u64 {
        let answers = all_at_once(waiting.iter().enumerate().map(|(i, tx_id)| {
            let ballot = mirror.board.ballot(tx_id).expect("it is open");
            let reservation = mirror.board.next_reservation(ballot).expect("one is due");
            assert_eq!(reservation.nonce, 7 + round);
            let (handle, tx_id) = (handles[i % 2].clone(), tx_id.clone());
            async move {
                let op = ops::reserve(&tx_id, reservation);
                (tx_id, handle.propose(op, settled).await)
            }
        }))
        .await;
        let (won, lost): (Vec<_>, Vec<_>) = answers
            .into_iter()
            .partition(|(_, answer)| matches!(answer, Ok(Proposed::Applied(_))));
        assert_eq!(won.len(), 1, "nonce {} went to {won:?}", 7 + round);
        for (tx_id, answer) in lost {
            let wrong = matches!(
                answer,
                Err(ProposeError::Refused(Refusal::WrongReservation(_)))
            );
            assert!(wrong, "{tx_id}: {answer:?}");
        }
        waiting.retain(|tx_id| *tx_id != won[0].0);
        mirror.catch_up(&handles[0]).await;
    }
    let nonces = txs.iter().map(|tx_id| {
        let ballot = mirror.board.ballot(tx_id).expect("it is there");
        ballot.reservation.as_ref().expect("it is reserved").nonce
    });
    let mut nonces: Vec<_> = nonces.collect();
    nonces.sort_unstable();
    assert_eq!(nonces, (7..13).collect::<Vec<u64>>());
}

pub(super) async fn a_whole_life(builder: &dyn Builder) {
    let cluster = Cluster::new(5, 4);
    let store = builder.store(cluster.rules().clone()).await;
    let handles = [store.handle().await, store.handle().await];
    let mut mirror = Mirror::new(&cluster);
    let (tx_id, value) = (tx("a"), number(42));
    for i in 0..5 {
        let boot = ops::boot(cluster.boot(i, 1, NOW));
        applied(&handles[i % 2], boot, NOW).await;
    }
    let settled = settle(&handles[1], &cluster, &mut mirror, &tx_id, &value).await;
    let ballot = mirror.board.ballot(&tx_id).expect("it is open");
    let reservation = mirror.board.next_reservation(ballot).expect("one is due");
    let reserve = ops::reserve(&tx_id, reservation.clone());
    applied(&handles[0], reserve, settled).await;
    let decisions = cluster.of_threshold(|c, i| c.decision(i, &tx_id, &value, Some(&reservation)));
    let certify = ops::certify(&tx_id, decisions);
    applied(&handles[1], certify.clone(), settled).await;
    let observe = |c: &Cluster, i| c.observation(i, &tx_id, &reservation, ChainOutcome::Confirmed);
    let conclude = ops::conclude(&tx_id, cluster.of_threshold(observe));
    applied(&handles[0], conclude.clone(), settled).await;
    for op in [certify, conclude] {
        let answer = handles[1].propose(op, settled).await;
        assert!(matches!(answer, Ok(Proposed::Unchanged(_))), "{answer:?}");
    }
    mirror.catch_up(&handles[0]).await;
    let ballot = mirror.board.ballot(&tx_id).expect("it is there");
    assert_eq!(ballot.state, BallotState::Confirmed);
    assert!(ballot.certificate.is_some());
    let later = settled + RETENTION_MS;
    applied(&handles[1], ops::collect(&tx_id), later).await;
    let vote = cluster.vote(4, &tx_id, value.clone(), later);
    let refusal = refused(&handles[0], ops::record_vote(vote), later).await;
    assert_eq!(refusal, Refusal::Collected(BallotState::Confirmed));
}

pub(super) async fn leases(builder: &dyn Builder) {
    let cluster = Cluster::new(5, 4);
    let store = builder.store(cluster.rules().clone()).await;
    let handles = [store.handle().await, store.handle().await];
    let mut mirror = Mirror::new(&cluster);
    let settled = settle(&handles[0], &cluster, &mut mirror, &tx("a"), &number(1)).await;
    let ballot = mirror.board.ballot(&tx("a")).expect("it is open");
    let reservation = mirror.board.next_reservation(ballot).expect("one is due");
    let reserve = ops::reserve(&tx("a"), reservation);
    applied(&handles[1], reserve, settled).await;
    // All five reach for it at once; one gets it.
    let answers = all_at_once((0..5).map(|i| {
        let handle = handles[i % 2].clone();
        let op = ops::lease(&tx("a"), &cluster.node_id(i), 30_000);
        async move { handle.propose(op, settled).await }
    }))
    .await;
    mirror.catch_up(&handles[0]).await;
    let ballot = mirror.board.ballot(&tx("a")).expect("it is there");
    let lease = ballot.lease.clone().expect("somebody has it");
    assert_eq!(lease.until_ms, settled + 30_000);
    for (i, answer) in answers.into_iter().enumerate() {
        if cluster.node_id(i) == lease.holder {
            assert!(matches!(answer, Ok(Proposed::Applied(_))), "{answer:?}");
        } else {
            let (holder, until_ms) = (lease.holder.clone(), lease.until_ms);
            let refusal = Refusal::LeaseHeld { holder, until_ms };
            assert_eq!(answer, Err(ProposeError::Refused(refusal)));
        }
    }
    // It ends by itself, and can be given back.
    let holder = cluster.index(&lease.holder).expect("a member");
    let next = cluster.node_id((holder + 1) % 5);
    let take = ops::lease(&tx("a"), &next, 1_000);
    applied(&handles[1], take, lease.until_ms).await;
    let release = ops::release(&tx("a"), &next);
    applied(&handles[0], release, lease.until_ms).await;
    let take = ops::lease(&tx("a"), &cluster.node_id(holder), 1_000);
    applied(&handles[1], take, lease.until_ms).await;
}
