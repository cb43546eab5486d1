//! What a liar can do on a stream, and what becomes of it.

mod common;

use common::*;
use quorate_consensus::statement::{self, VoteBody};
use quorate_consensus::wire::{
    self, AccusationKind, BallotState, GoodbyeReason, SignedStatement, frame,
};
use quorate_consensus::{Domain, NodeId, Value};
use quorate_node::NodeHandle;
use quorate_node::exchange::{MAX_FRAME, RawError, RawSession};

/// The trustee that lies; its own node does not run.
const LIAR: usize = 4;

/// Five trustees, four of whom run their nodes.
async fn four_of_five() -> (Cluster, Vec<NodeHandle>) {
    let mut cluster = Cluster::new(5, 4);
    let mut nodes = Vec::new();
    for i in 0..4 {
        nodes.push(cluster.start(i).await);
    }
    for node in &nodes {
        connected(node, 3).await;
    }
    (cluster, nodes)
}

fn votes(statements: impl IntoIterator<Item = SignedStatement>) -> frame::Body {
    let traced = |vote| wire::TracedVote {
        vote: Some(vote),
        traceparent: "nonsense".to_owned(),
    };
    frame::Body::Batch(wire::Batch {
        votes: statements.into_iter().map(traced).collect(),
        ..wire::Batch::default()
    })
}

/// Waits for a goodbye; an end without one is no reason.
async fn goodbye(session: &mut RawSession) -> GoodbyeReason {
    let said = session.receive_until(|body| match body {
        frame::Body::Goodbye(goodbye) => Some(goodbye.reason()),
        _ => None,
    });
    said.await.unwrap()
}

/// Greets in vain: the other end's hello may come before its goodbye.
async fn not_greeted(
    session: &mut RawSession,
    cluster: &Cluster,
    as_node: &NodeId,
    key: &quorate_crypto::SigningKey,
) {
    match session.greet(&cluster.rules, as_node, key, 1).await {
        Ok(_) => assert_eq!(goodbye(session).await, GoodbyeReason::NotAMember),
        Err(error) => assert!(error.to_string().contains("NOT_A_MEMBER"), "{error}"),
    }
}

/// Waits until `node`'s board shows that `by` accuses the liar; gives of what.
async fn accused(node: &NodeHandle, liar: &NodeId, by: &NodeId) -> AccusationKind {
    let (liar, by) = (liar.clone(), by.clone());
    let look = move |engine: &quorate_engine::Engine| {
        let member = engine.board().member(&liar)?;
        Some(member.accusations.get(&by)?.body.kind)
    };
    soon("an accusation", node.until(look)).await.unwrap()
}

async fn accusations(node: &NodeHandle, liar: &NodeId) -> usize {
    let liar = liar.clone();
    let look = move |engine: &quorate_engine::Engine| {
        engine
            .board()
            .member(&liar)
            .map_or(0, |m| m.accusations.len())
    };
    node.look(look).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_vote_bans_its_sender_and_nobody_else() {
    let (mut cluster, mut nodes) = four_of_five().await;
    let liar = cluster.ids[LIAR].clone();
    let mut forged = cluster.vote(0, "tx", Value::Number(666), now_ms());
    forged.signature = cluster.vote_key(LIAR).sign(Domain::Vote, &forged.statement);
    for to in 0..4 {
        let session = cluster.raw(LIAR, to).await;
        session.send(votes([forged.clone()])).await.unwrap();
        session.ended().await.unwrap();
    }
    for node in &nodes {
        banned(node, &liar).await;
    }
    // The victim is untouched, and the ballot decides.
    vote_at(&cluster, 0..4, "tx", 1).await;
    for node in &nodes {
        ballot_in(node, "tx", &[BallotState::Confirmed]).await;
        let victim = cluster.ids[0].clone();
        let banned = node
            .look(move |engine| engine.board().is_banned(&victim))
            .await;
        assert_eq!(banned, Some(false));
    }
    // The ban holds at the door, and after a restart.
    let refused = RawSession::connect(&cluster.target(LIAR, 0)).await;
    assert!(matches!(refused, Err(RawError::Connect(_))));
    nodes.remove(0).kill().await;
    let again = cluster.start(0).await;
    connected(&again, 3).await;
    let refused = RawSession::connect(&cluster.target(LIAR, 0)).await;
    let error = refused.err().expect("refused").to_string();
    assert!(error.contains("banned"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_frame_accuse_their_sender_before_one_node_only() {
    let (cluster, nodes) = four_of_five().await;
    let liar = cluster.ids[LIAR].clone();
    let mut cases: Vec<(usize, Vec<u8>)> = vec![
        (0, vec![0xff; 100]),
        (1, b"\x0a\x7fshort".to_vec()),
        (2, vec![0; MAX_FRAME + 1]),
    ];
    // A statement that is good but for a field that nobody knows.
    let good = cluster.vote(LIAR, "tx", Value::Number(1), now_ms());
    let mut padded = good.statement.clone();
    padded.extend([0xa0, 0x06, 0x01]);
    let padded = SignedStatement {
        signature: cluster.vote_key(LIAR).sign(Domain::Vote, &padded),
        statement: padded,
    };
    cases.push((3, RawSession::bytes_of(votes([padded]))));
    for (to, bytes) in cases {
        for before in 0..to {
            accused(&nodes[to], &liar, &cluster.ids[before]).await;
        }
        assert_eq!(accusations(&nodes[to], &liar).await, to, "so far");
        let session = cluster.raw(LIAR, to).await;
        session.send_bytes(bytes).await.unwrap();
        session.ended().await.unwrap();
        let kind = accused(&nodes[to], &liar, &cluster.ids[to]).await;
        assert_eq!(kind, AccusationKind::Malformed);
        // At once this node has no more words with it.
        let refused = RawSession::connect(&cluster.target(LIAR, to)).await;
        assert!(matches!(refused, Err(RawError::Connect(_))), "node {to}");
    }
    // With the fourth accusation there are t.
    for node in &nodes {
        banned(node, &liar).await;
    }
    let malformed: Vec<_> = nodes.iter().map(|n| n.counts().frames_malformed).collect();
    assert_eq!(malformed, [1, 1, 1, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_is_worth_nothing_on_another_connection() {
    let (cluster, nodes) = four_of_five().await;
    let liar = &cluster.ids[LIAR];
    let key = cluster.node_key(LIAR);
    let mut first = RawSession::connect(&cluster.target(LIAR, 0)).await.unwrap();
    let hello = first.greet(&cluster.rules, liar, &key, 1).await.unwrap();

    // The same hello, on a connection of its own and to another node.
    for to in [0, 1] {
        let mut second = RawSession::connect(&cluster.target(LIAR, to))
            .await
            .unwrap();
        second.say_hello(hello.clone()).await.unwrap();
        assert_eq!(goodbye(&mut second).await, GoodbyeReason::NotAMember);
        second.ended().await.unwrap();
    }
    // A hello by another key, with a good certificate.
    let mut third = RawSession::connect(&cluster.target(LIAR, 0)).await.unwrap();
    let stolen = cluster.vote_key(LIAR);
    not_greeted(&mut third, &cluster, liar, &stolen).await;
    // A member's hello, by somebody else's certificate.
    let mut fourth = RawSession::connect(&cluster.target(3, 0)).await.unwrap();
    not_greeted(&mut fourth, &cluster, liar, &key).await;
    // Anything before the hello.
    let mut fifth = RawSession::connect(&cluster.target(LIAR, 0)).await.unwrap();
    fifth.send(votes([])).await.unwrap();
    assert_eq!(goodbye(&mut fifth).await, GoodbyeReason::Protocol);
    // Bytes that are no frame before the hello.
    let sixth = RawSession::connect(&cluster.target(LIAR, 0)).await.unwrap();
    sixth.send_bytes(vec![0xff; 9]).await.unwrap();
    sixth.ended().await.unwrap();

    // Nobody is accused for what nobody signed, and the first stream goes on.
    first
        .send(frame::Body::Ping(wire::Ping { token: 7 }))
        .await
        .unwrap();
    let token = first.receive_until(|body| match body {
        frame::Body::Pong(pong) => Some(pong.token),
        _ => None,
    });
    assert_eq!(token.await.unwrap(), 7);
    assert_eq!(accusations(&nodes[0], liar).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_excused_or_old_is_dropped_and_changes_nothing() {
    let (cluster, nodes) = four_of_five().await;
    let liar = &cluster.ids[LIAR];
    let mut session = cluster.raw(LIAR, 0).await;
    let good = cluster.vote(LIAR, "tx", Value::Number(1), now_ms());
    let with = |change: &dyn Fn(&mut wire::VoteStatement)| {
        let mut vote: wire::VoteStatement = prost::Message::decode(&*good.statement).unwrap();
        change(&mut vote);
        let statement = prost::Message::encode_to_vec(&vote);
        SignedStatement {
            signature: cluster.vote_key(LIAR).sign(Domain::Vote, &statement),
            statement,
        }
    };
    let dropped = [
        // The sender may know an epoch that this node does not.
        with(&|v| v.rules_digest = vec![9; 32]),
        // A vote of long ago, well signed.
        with(&|v| v.time_ms = 1000),
        // A vote from the future.
        with(&|v| v.time_ms += 3_600_000),
    ];
    session.send(votes(dropped)).await.unwrap();
    // An empty frame, and a body of a later version: field 99 of the frame.
    session.send_bytes(Vec::new()).await.unwrap();
    session
        .send_bytes(b"\x0a\x05\x9a\x06\x02hi".to_vec())
        .await
        .unwrap();
    session
        .send(frame::Body::Ping(wire::Ping { token: 1 }))
        .await
        .unwrap();
    let pong = session.receive_until(|body| match body {
        frame::Body::Pong(_) => Some(()),
        _ => None,
    });
    pong.await.unwrap();
    assert_eq!(accusations(&nodes[0], liar).await, 0);
    let known = nodes[0].look(|engine| engine.board().ballots().count());
    assert_eq!(known.await, Some(0));

    // A good vote on the same stream is recorded by the node that heard it, although
    // its own node does not run.
    session.send(votes([good])).await.unwrap();
    for node in &nodes {
        let ballot = ballot_in(node, "tx", &[BallotState::Collecting]).await;
        assert_eq!(ballot.tally[0].count, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_choices_of_one_trustee_are_evidence() {
    let (cluster, nodes) = four_of_five().await;
    let liar = &cluster.ids[LIAR];
    vote_at(&cluster, 0..2, "tx", 1).await;
    let now = now_ms();
    let one = cluster.vote(LIAR, "tx", Value::Number(1), now);
    let two = cluster.vote(LIAR, "tx", Value::Number(2), now);
    // In different places, as a liar does; a stream that is dropped loses what is on
    // its way, so both are kept.
    let (first, second) = (cluster.raw(LIAR, 0).await, cluster.raw(LIAR, 1).await);
    first.send(votes([one])).await.unwrap();
    second.send(votes([two])).await.unwrap();
    for node in &nodes {
        ballot_in(node, "tx", &[BallotState::AbortedByzantine]).await;
        banned(node, liar).await;
    }
    let evidence = cluster
        .client(2)
        .get_certificate(wire::GetCertificateRequest { tx_id: "tx".into() })
        .await
        .unwrap()
        .into_inner()
        .evidence;
    assert_eq!(evidence.len(), 1);
    let proof = wire::Proof {
        kind: Some(wire::proof::Kind::Evidence(evidence[0].clone())),
    };
    let bytes = prost::Message::encode_to_vec(&proof);
    let verifier = quorate_crypto::verify::Ed25519Verifier;
    let id = cluster.rules.cluster_id();
    quorate_consensus::proof::verify(&bytes, &id, None, &verifier).unwrap();
    let (header, _) =
        statement::parse::<VoteBody>(
            &match evidence[0].misbehaviour.clone().unwrap().kind.unwrap() {
                wire::misbehaviour::Kind::DoubleVote(double) => double.first.unwrap().statement,
                other => panic!("{other:?}"),
            },
        )
        .unwrap();
    assert_eq!(header.node_id, *liar);
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_find_each_other_by_address_alone() {
    let mut cluster = Cluster::new(3, 2);
    let mut nodes = Vec::new();
    for i in 0..3 {
        let node = cluster.start_with(i, |parts| {
            parts.peers.iter_mut().for_each(|peer| peer.node_id = None);
        });
        nodes.push(node.await);
    }
    for node in &nodes {
        connected(node, 2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_two_addresses_keeps_one_stream() {
    let mut cluster = Cluster::new(2, 2);
    let dialler = cluster.start_with(0, |parts| {
        let mut again = parts.peers[0].clone();
        again.node_id = None;
        parts.peers.push(again);
    });
    let dialler = dialler.await;
    // The other knows nobody: were the first slow, it would dial, too.
    let dialled = cluster.start_with(1, |parts| parts.peers.clear()).await;
    let nodes = [dialler, dialled];
    for node in &nodes {
        connected(node, 1).await;
    }
    // One stream stands, and no other is opened while the two decide.
    for tx_id in ["a", "b", "c"] {
        vote_at(&cluster, 0..2, tx_id, 1).await;
        for node in &nodes {
            ballot_in(node, tx_id, &[BallotState::Confirmed]).await;
        }
    }
    assert_eq!(nodes[0].counts().streams_opened, 1);
    assert_eq!(nodes[1].counts().streams_opened, 1);
}
