//! Random, cut and swollen protobuf on every method and on the stream: each call has an
//! error or an answer, each frame is dropped or accused, and nobody falls over.
//!
//! The bytes come from a seed that is printed; a failure is repeated with
//! `QUORATE_TEST_SEED`.

mod common;

use std::num::NonZeroU32;

use bytes::Bytes;
use common::calls::{Callers, DRAIN, METHODS, call};
use common::*;
use prost::Message as _;
use quorate_consensus::Value;
use quorate_consensus::wire::{
    self, BallotState, BanRequest, GetCertificateRequest, ListRequest, ReputationRequest,
    SendRequest, SetLogLevelRequest, StatusRequest, UnbanRequest, ViolationsRequest, WatchRequest,
    frame,
};
use quorate_node::Parts;
use quorate_node::exchange::{MAX_FRAME, RawSession};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tonic::{Code, Status};

fn seeded() -> StdRng {
    let seed = match std::env::var("QUORATE_TEST_SEED") {
        Ok(seed) => seed.parse().expect("a number"),
        Err(_) => rand::random(),
    };
    println!("QUORATE_TEST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// A request of each method that asks for something, as it should be.
fn good(cluster: &Cluster) -> Vec<Vec<u8>> {
    let tx_id = || "tx".to_owned();
    let node_id = |i: usize| cluster.ids[i].to_string();
    let vote = cluster.vote(0, "tx", Value::Number(1), now_ms());
    vec![
        number("tx", 1).encode_to_vec(),
        handed("tx", vote.clone()).encode_to_vec(),
        StatusRequest { tx_id: tx_id() }.encode_to_vec(),
        WatchRequest {
            tx_id: tx_id(),
            from_revision: 1,
        }
        .encode_to_vec(),
        ListRequest {
            page_size: 10,
            ..ListRequest::default()
        }
        .encode_to_vec(),
        GetCertificateRequest { tx_id: tx_id() }.encode_to_vec(),
        ReputationRequest {
            node_id: node_id(1),
        }
        .encode_to_vec(),
        ViolationsRequest {
            node_id: node_id(1),
            tx_id: tx_id(),
            limit: 10,
        }
        .encode_to_vec(),
        BanRequest {
            node_id: node_id(2),
        }
        .encode_to_vec(),
        UnbanRequest {
            node_id: node_id(3),
            pardoned: vec![vec![7; 32]],
            acts: vec![vote],
        }
        .encode_to_vec(),
        SendRequest {
            node_id: node_id(1),
            data: b"hello".to_vec(),
        }
        .encode_to_vec(),
        SetLogLevelRequest {
            level: "info".to_owned(),
        }
        .encode_to_vec(),
    ]
}

/// So many messages within each other, in fields of each number.
fn nested(depth: usize, field: u8) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::new();
    for _ in 0..depth {
        let mut outer = vec![field << 3 | 2];
        prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
        outer.extend(&bytes);
        bytes = outer;
        if bytes.len() > 200 * 1024 {
            break;
        }
    }
    bytes
}

/// Groups that open and never close: what a reader recurses into.
fn opened_groups(depth: usize, field: u8) -> Vec<u8> {
    vec![field << 3 | 3; depth]
}

/// One field, very often.
fn repeated(field: u8, count: usize) -> Vec<u8> {
    [field << 3 | 2, 0].repeat(count)
}

/// Good bytes with a few of them changed, taken away, or doubled.
fn mangled(rng: &mut StdRng, good: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..rng.random_range(1..=4) {
        if bytes.is_empty() {
            break;
        }
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..5) {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << rng.random_range(0..8),
            2 => bytes[at] = 0xff,
            3 => bytes.insert(at, rng.random()),
            _ => bytes.extend_from_within(at..),
        }
    }
    bytes
}

fn random(rng: &mut StdRng, most: usize) -> Vec<u8> {
    let len = rng.random_range(0..most);
    (0..len).map(|_| rng.random()).collect()
}

/// What a caller may be told: never that this node has a bug, or that it is gone.
fn check(
    method: &str,
    bytes: &[u8],
    result: Result<Result<Bytes, Status>, tokio::time::error::Elapsed>,
) {
    // A watch that was understood waits for what comes.
    let Ok(result) = result else {
        assert!(
            method.ends_with("Watch"),
            "{method} hangs: {}",
            hex::encode(bytes)
        );
        return;
    };
    let Err(status) = result else { return };
    // The others' nodes are not there to be sent to.
    if method.ends_with("/Send") && status.code() == Code::Unavailable {
        assert_eq!(reason(&status), "PEER_AWAY");
        return;
    }
    // What has become a vote that wants to wait for the end of a ballot waits in vain.
    if method.ends_with("/Submit") && status.code() == Code::DeadlineExceeded {
        assert_eq!(reason(&status), "DEADLINE_EXCEEDED");
        return;
    }
    let fine = [
        Code::InvalidArgument,
        Code::NotFound,
        Code::FailedPrecondition,
        Code::PermissionDenied,
        Code::ResourceExhausted,
    ];
    let bytes = &bytes[..bytes.len().min(500)];
    assert!(
        fine.contains(&status.code()),
        "{method}: {status:?}: {}",
        hex::encode(bytes)
    );
    let reason = reason(&status);
    assert!(!reason.is_empty() && reason != "RATE_LIMITED", "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_takes_any_bytes() {
    let mut rng = seeded();
    let mut cluster = Cluster::new(4, 3);
    // What is refused for coming too fast is read by no method.
    let plenty = NonZeroU32::new(1_000_000).unwrap();
    let unlimited = |parts: &mut Parts| {
        parts.limits.calls_per_sec = plenty;
        parts.limits.burst = plenty;
    };
    let node = cluster.start_with(0, unlimited).await;
    connected(&node, 0).await;
    vote_at(&cluster, [0], "tx", 1).await;
    let callers = Callers::of(&cluster, 0);
    let good = good(&cluster);
    let mut inputs: Vec<Vec<u8>> = Vec::new();
    for field in 1..=6 {
        inputs.extend([nested(200, field), nested(20_000, field)]);
        inputs.extend([opened_groups(90, field), opened_groups(100_000, field)]);
        inputs.extend([repeated(field, 10), repeated(field, 100_000)]);
        // A length of almost 2^64, and one that is a little too long.
        inputs.push([&[field << 3 | 2][..], &[0xff; 9], &[1]].concat());
        inputs.push(vec![field << 3 | 2, 2, 0]);
    }
    for good in &good {
        inputs.extend((0..good.len()).map(|len| good[..len].to_vec()));
        inputs.extend((0..40).map(|_| mangled(&mut rng, good)));
    }
    inputs.extend((0..40).map(|_| random(&mut rng, 300)));
    // All methods take all of it, several at once. Only `Drain` does not: it asks for
    // nothing, so of these bytes all that can be read would end the node, as they should.
    let methods = METHODS.iter().filter(|method| *method != DRAIN);
    let mut calls = tokio::task::JoinSet::new();
    for bytes in inputs {
        for method in methods.clone() {
            while calls.len() >= 32 {
                calls.join_next().await.unwrap().unwrap();
            }
            let (channel, bytes) = (callers.who_may(method).clone(), bytes.clone());
            calls.spawn(async move {
                // Only a watch is left when it is slow.
                let patience = match method.ends_with("Watch") {
                    true => std::time::Duration::from_millis(20),
                    false => PATIENCE,
                };
                let called = tokio::time::timeout(patience, call(&channel, method, &bytes));
                check(method, &bytes, called.await);
            });
        }
    }
    while let Some(called) = calls.join_next().await {
        called.unwrap();
    }
    let asked = StatusRequest { tx_id: "tx".into() };
    let answer = cluster.client(0).status(asked).await.unwrap();
    let ballot = answer.into_inner().ballot.unwrap();
    assert_eq!(ballot.tally[0].count, 1, "the vote of before is there");
}

/// A frame of each kind, with something in it.
fn frames(cluster: &Cluster) -> Vec<Vec<u8>> {
    let vote = cluster.vote(3, "liar", Value::Number(1), now_ms());
    let traced = wire::TracedVote {
        vote: Some(vote.clone()),
        traceparent: "00-0".to_owned(),
    };
    let batch = |batch: wire::Batch| RawSession::bytes_of(frame::Body::Batch(batch));
    vec![
        batch(wire::Batch {
            votes: vec![traced; 3],
            ..wire::Batch::default()
        }),
        batch(wire::Batch {
            decisions: vec![vote.clone()],
            aborts: vec![vote.clone()],
            observations: vec![vote.clone()],
            accusations: vec![vote],
            ..wire::Batch::default()
        }),
        RawSession::bytes_of(frame::Body::Ping(wire::Ping { token: 7 })),
        RawSession::bytes_of(frame::Body::Goodbye(wire::Goodbye::default())),
        RawSession::bytes_of(frame::Body::Hello(wire::Hello::default())),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_takes_any_bytes() {
    let mut rng = seeded();
    let mut cluster = Cluster::new(4, 3);
    let mut nodes = Vec::new();
    for i in 0..3 {
        nodes.push(cluster.start(i).await);
    }
    for node in &nodes {
        connected(node, 2).await;
    }
    let good = frames(&cluster);
    let mut inputs: Vec<Vec<u8>> = vec![vec![0; MAX_FRAME + 1], vec![0xff; MAX_FRAME]];
    for field in 1..=12 {
        inputs.extend([nested(20_000, field), opened_groups(100_000, field)]);
        inputs.push(repeated(field, 100_000));
    }
    for good in &good {
        inputs.extend((0..30).map(|_| mangled(&mut rng, good)));
    }
    inputs.extend((0..30).map(|_| random(&mut rng, 2000)));
    // Before the hello: nobody is accused for it, so there is always a next stream.
    for bytes in &inputs {
        let session = RawSession::connect(&cluster.target(3, 0)).await.unwrap();
        // The node may have ended it before all is sent.
        let _ = session.send_bytes(bytes.clone()).await;
        if bytes.len() % 3 == 0 {
            drop(session);
        } else {
            let _ =
                tokio::time::timeout(std::time::Duration::from_millis(20), session.ended()).await;
        }
    }
    let liar = cluster.ids[3].clone();
    let look = move |engine: &quorate_engine::Engine| {
        engine
            .board()
            .member(&liar)
            .map_or(0, |m| m.accusations.len())
    };
    assert_eq!(nodes[0].look(look.clone()).await, Some(0));
    // After it: the first that is no frame closes the door; until then all is taken.
    let session = cluster.raw(3, 0).await;
    for bytes in inputs {
        if session.send_bytes(bytes).await.is_err() {
            break;
        }
    }
    let _ = tokio::time::timeout(PATIENCE, session.ended()).await;
    // It is the liar's fault, and nobody else's concern.
    vote_at(&cluster, 0..3, "tx", 1).await;
    for node in &nodes {
        ballot_in(node, "tx", &[BallotState::Confirmed]).await;
    }
    let accused = async {
        while nodes[0].look(look.clone()).await != Some(1) {
            tokio::task::yield_now().await;
        }
    };
    soon("the one accusation", accused).await;
}
