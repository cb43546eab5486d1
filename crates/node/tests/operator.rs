//! What operators see and do through real nodes, and who may not.

mod common;

use std::time::Duration;

use common::*;
use prost::Message as _;
use quorate_consensus::wire::{
    AccusationKind, BallotState, BanRequest, DrainRequest, GetRulesRequest, InfoRequest,
    InfoResponse, PeersRequest, ReputationRequest, SendRequest, SetLogLevelRequest, UnbanRequest,
    UnbanResponse, ViolationType, ViolationsRequest, ViolationsResponse, WatchRequest,
};
use quorate_consensus::{ClusterId, proof};
use quorate_crypto::CachedVerifier;
use quorate_node::Stopped;
use quorate_proto::v1::operator_service_client::OperatorServiceClient;
use quorate_proto::v1::vote_service_client::VoteServiceClient;
use tonic::Code;
use tonic::transport::Channel;

type Operator = OperatorServiceClient<Channel>;

fn operator(cluster: &Cluster, i: usize) -> Operator {
    OperatorServiceClient::new(cluster.channel(i, &cluster.person(i, "operator")))
}

async fn info(cluster: &Cluster, i: usize) -> InfoResponse {
    let answer = operator(cluster, i).info(InfoRequest {}).await;
    answer.unwrap().into_inner()
}

async fn ban(cluster: &Cluster, by: usize, whom: usize) -> quorate_consensus::wire::BanResponse {
    let node_id = cluster.ids[whom].to_string();
    let answer = operator(cluster, by).ban(BanRequest { node_id }).await;
    answer.unwrap().into_inner()
}

async fn unban(cluster: &Cluster, by: usize, request: UnbanRequest) -> UnbanResponse {
    let answer = operator(cluster, by).unban(request).await;
    answer.unwrap().into_inner()
}

fn of(cluster: &Cluster, whom: usize) -> UnbanRequest {
    UnbanRequest {
        node_id: cluster.ids[whom].to_string(),
        ..UnbanRequest::default()
    }
}

async fn violations(cluster: &Cluster, i: usize) -> ViolationsResponse {
    let request = ViolationsRequest::default();
    let answer = operator(cluster, i).violations(request).await;
    answer.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_this_nodes_operators_may() {
    let mut cluster = Cluster::new(3, 2);
    let nodes = cluster.start_all().await;
    for tls in [cluster.person(0, "client"), cluster.node_tls(1)] {
        let mut other = OperatorServiceClient::new(cluster.channel(0, &tls));
        let node_id = || cluster.ids[2].to_string();
        let wrong = (Code::PermissionDenied, "WRONG_ROLE");
        refused(other.info(InfoRequest {}).await, wrong.0, wrong.1);
        refused(other.peers(PeersRequest {}).await, wrong.0, wrong.1);
        let request = ReputationRequest::default();
        refused(other.reputation(request).await, wrong.0, wrong.1);
        let request = ViolationsRequest::default();
        refused(other.violations(request).await, wrong.0, wrong.1);
        let request = BanRequest { node_id: node_id() };
        refused(other.ban(request).await, wrong.0, wrong.1);
        let request = UnbanRequest::default();
        refused(other.unban(request).await, wrong.0, wrong.1);
        let request = SendRequest {
            node_id: node_id(),
            data: b"x".to_vec(),
        };
        refused(other.send(request).await, wrong.0, wrong.1);
        let level = "debug".to_owned();
        let request = SetLogLevelRequest { level };
        refused(other.set_log_level(request).await, wrong.0, wrong.1);
        refused(other.drain(DrainRequest {}).await, wrong.0, wrong.1);
    }
    // An operator of another node does not even get a connection.
    let stranger = cluster.person(1, "operator");
    let mut stranger = OperatorServiceClient::new(cluster.channel(0, &stranger));
    assert_ne!(
        stranger.info(InfoRequest {}).await.unwrap_err().code(),
        Code::Ok
    );
    assert!(nodes[0].is_in_service());
    assert_eq!(nodes[0].counts().calls_forbidden, 18);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_its_node_and_the_others() {
    let mut cluster = Cluster::new(4, 3);
    let nodes = cluster.start_all().await;
    vote_at(&cluster, 0..3, "tx", 42).await;
    for node in &nodes {
        ballot_in(node, "tx", &[BallotState::Confirmed]).await;
    }
    let ready = nodes[0].until_found(|found| found.is_ready());
    soon("node1 ready", ready).await.unwrap();
    let seen = info(&cluster, 0).await;
    assert_eq!(seen.node_id, "node1");
    assert_eq!(seen.cluster_id, cluster.rules.cluster_id().0);
    let rules = seen.rules.clone().unwrap();
    assert_eq!((rules.total_nodes, rules.threshold), (4, 3));
    assert_eq!(rules.digest, cluster.rules.digest().0);
    assert!(seen.in_service && seen.ready, "{seen:?}");
    assert_eq!((&*seen.signing_stopped, seen.causes.len()), ("", 0));
    assert_eq!((&*seen.chain, seen.generation), ("ledger", 1));
    assert_eq!(seen.listen_addr, cluster.addr(0));
    assert!(seen.server_time_ms.abs_diff(now_ms()) < 60_000);
    assert!(seen.started_ms <= seen.server_time_ms);
    assert!(seen.certificate_not_after_ms > now_ms());
    assert!(seen.board_revision > 0);
    let queues = seen.queues.unwrap();
    assert!(queues.streams >= 3, "{queues:?}");
    let ballots: Vec<_> = seen.ballots.iter().map(|b| (b.state(), b.count)).collect();
    assert_eq!(ballots, [(BallotState::Confirmed, 1)]);

    let answer = operator(&cluster, 0).peers(PeersRequest {}).await;
    let peers = answer.unwrap().into_inner();
    assert_eq!(peers.node_id, "node1");
    let names: Vec<_> = peers.peers.iter().map(|peer| &*peer.node_id).collect();
    assert_eq!(names, ["node2", "node3", "node4"]);
    for peer in &peers.peers {
        assert!(peer.connected && !peer.banned && !peer.refused, "{peer:?}");
        assert_eq!(peer.generation, 1);
        // Who of the two dialled depends on who came first.
        assert!(!peer.remote_addr.is_empty(), "{peer:?}");
    }

    let request = ReputationRequest::default();
    let answer = operator(&cluster, 0).reputation(request).await;
    let trustees = answer.unwrap().into_inner().trustees;
    let votes: Vec<_> = trustees.iter().map(|t| t.total_votes).collect();
    assert_eq!(votes, [1, 1, 1, 0]);
    assert!(trustees.iter().all(|t| t.thousandths == 1_000 && !t.banned));
    let node_id = "node2".to_owned();
    let request = ReputationRequest { node_id };
    let answer = operator(&cluster, 0).reputation(request).await;
    assert_eq!(answer.unwrap().into_inner().trustees.len(), 1);
    let node_id = "nobody".to_owned();
    let request = ReputationRequest { node_id };
    let answer = operator(&cluster, 0).reputation(request).await;
    refused(answer, Code::InvalidArgument, "FIELD_INVALID");
}

#[tokio::test(flavor = "multi_thread")]
async fn violations_come_with_what_a_stranger_can_check() {
    let mut cluster = Cluster::new(4, 3);
    let nodes = cluster.start_all().await;
    vote_at(&cluster, 0..2, "bad", 7).await;
    vote_at(&cluster, [3], "bad", 9).await;
    vote_at(&cluster, [2], "bad", 7).await;
    for node in &nodes {
        ballot_in(node, "bad", &[BallotState::AbortedByzantine]).await;
        banned(node, &cluster.ids[3]).await;
    }
    let found = violations(&cluster, 0).await;
    let [violation] = &*found.violations else {
        panic!("{found:?}");
    };
    assert_eq!(
        (&*violation.node_id, violation.r#type(), &*violation.tx_id),
        ("node4", ViolationType::MinorityVote, "bad")
    );
    let pinned = ClusterId(cluster.rules.cluster_id().0);
    let verifier = CachedVerifier::default();
    let [ban] = &*found.bans else {
        panic!("{found:?}");
    };
    assert_eq!(ban.proof_digest.len(), 32);
    for evidence in [&violation.proof, &ban.proof] {
        let evidence = evidence.clone().expect("there is a proof");
        proof::verify(&evidence.encode_to_vec(), &pinned, None, &verifier).unwrap();
    }
    // The record has it too, and it is told once.
    soon("the record", async {
        loop {
            let info = info(&cluster, 0).await;
            if info.audit_revision >= info.board_revision {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let found = violations(&cluster, 0).await;
    assert!(found.from_record && !found.truncated);
    assert_eq!(found.violations.len(), 1);
    let about = |node_id: &str, tx_id: &str| ViolationsRequest {
        node_id: node_id.to_owned(),
        tx_id: tx_id.to_owned(),
        limit: 1,
    };
    for (request, expected) in [
        (about("node4", ""), 1),
        (about("", "bad"), 1),
        (about("node3", ""), 0),
        (about("", "other"), 0),
    ] {
        let answer = operator(&cluster, 0).violations(request).await;
        assert_eq!(answer.unwrap().into_inner().violations.len(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bans_for_its_own_node_and_t_for_the_cluster_and_t_lift_it() {
    let mut cluster = Cluster::new(4, 3);
    let nodes = cluster.start_all().await;
    let whom = cluster.ids[3].clone();
    let first = ban(&cluster, 0, 3).await;
    assert!(first.accused && !first.banned, "{first:?}");
    assert_eq!(first.accused_by, ["node1"]);
    assert_eq!(first.threshold, 3);
    // Its own refusal, and nobody else's.
    let peers = soon("the stream ends", async {
        loop {
            let answer = operator(&cluster, 0).peers(PeersRequest {}).await;
            let peers = answer.unwrap().into_inner().peers;
            if !peers[2].connected {
                return peers;
            }
        }
    });
    let peers = peers.await;
    assert!(peers[2].refused && !peers[2].banned);
    let refuses = |i: usize| {
        let whom = whom.clone();
        nodes[i].look(move |engine| engine.refuses(&whom))
    };
    let accused = whom.clone();
    let accused = nodes[1].until(move |engine| {
        let member = engine.board().member(&accused)?;
        (!member.accusations.is_empty()).then_some(())
    });
    soon("the second reads the accusation", accused)
        .await
        .unwrap();
    assert_eq!(refuses(1).await, Some(false));
    let found = violations(&cluster, 1).await;
    let accusations: Vec<_> = found
        .accusations
        .iter()
        .map(|a| (&*a.by, a.kind()))
        .collect();
    assert_eq!(accusations, [("node1", AccusationKind::Operator)]);
    // There is nothing to lift yet.
    let early = operator(&cluster, 0).unban(of(&cluster, 3)).await;
    refused(early, Code::FailedPrecondition, "NOT_BANNED");
    let node_id = "node1".to_owned();
    let itself = operator(&cluster, 0).ban(BanRequest { node_id }).await;
    refused(itself, Code::InvalidArgument, "FIELD_INVALID");

    ban(&cluster, 1, 3).await;
    ban(&cluster, 2, 3).await;
    for node in &nodes {
        banned(node, &whom).await;
    }
    let found = violations(&cluster, 0).await;
    let ban = found.bans.first().expect("a ban").clone();
    assert_eq!(ban.r#type(), ViolationType::Operator);
    let evidence = ban.proof.clone().expect("the accusations prove it");
    let pinned = ClusterId(cluster.rules.cluster_id().0);
    let verifier = CachedVerifier::default();
    proof::verify(&evidence.encode_to_vec(), &pinned, None, &verifier).unwrap();
    let banned_vote = cluster.client(3).submit(number("t", 1)).await;
    refused(banned_vote, Code::PermissionDenied, "BANNED");

    // What is pardoned must be the ban in force.
    let wrong = UnbanRequest {
        pardoned: vec![vec![7; 32]],
        ..of(&cluster, 3)
    };
    let wrong = operator(&cluster, 0).unban(wrong).await;
    refused(wrong, Code::InvalidArgument, "FIELD_INVALID");
    let short = UnbanRequest {
        pardoned: vec![vec![7; 31]],
        ..of(&cluster, 3)
    };
    let short = operator(&cluster, 0).unban(short).await;
    refused(short, Code::InvalidArgument, "FIELD_INVALID");

    let named = UnbanRequest {
        pardoned: vec![ban.proof_digest.clone()],
        ..of(&cluster, 3)
    };
    let one = unban(&cluster, 0, named).await;
    assert!(!one.lifted && one.act.is_some());
    assert_eq!(
        (one.acts_by, one.pardoned),
        (vec!["node1".to_owned()], vec![ban.proof_digest])
    );
    // The banned trustee's operator counts, when its act is carried to the others.
    let two = unban(&cluster, 3, of(&cluster, 3)).await;
    assert_eq!(two.acts_by, ["node4"]);
    let with_hers = UnbanRequest {
        acts: vec![two.act.expect("an act")],
        ..of(&cluster, 3)
    };
    let three = unban(&cluster, 1, with_hers).await;
    assert!(three.lifted, "{three:?}");
    for node in &nodes {
        let whom = whom.clone();
        let lifted = node.until(move |engine| (!engine.board().is_banned(&whom)).then_some(()));
        soon("the ban lifted", lifted).await.unwrap();
        connected(node, 3).await;
    }
    // Nothing to lift any more: no act, and no error.
    let again = unban(&cluster, 2, of(&cluster, 3)).await;
    assert!(again.lifted && again.act.is_none());
    vote_at(&cluster, 1..4, "after", 1).await;
    ballot_in(&nodes[0], "after", &[BallotState::Confirmed]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_acknowledged_and_shown_to_those_who_watch() {
    let mut cluster = Cluster::new(2, 2);
    let mut nodes = cluster.start_all().await;
    let mut watcher = VoteServiceClient::new(cluster.channel(1, &cluster.person(1, "client")));
    let request = WatchRequest::default();
    let mut shown = watcher.watch(request).await.unwrap().into_inner();
    let send = |to: &str, data: Vec<u8>| SendRequest {
        node_id: to.to_owned(),
        data,
    };
    let data = vec![9; 64 * 1024];
    let sent = operator(&cluster, 0)
        .send(send("node2", data.clone()))
        .await;
    sent.unwrap();
    let message = soon("the message", async {
        loop {
            let answer = shown.message().await.unwrap().expect("it goes on");
            if let Some(message) = answer.message {
                assert!(answer.event.is_none());
                return message;
            }
        }
    });
    let message = message.await;
    assert_eq!((&*message.node_id, &message.data), ("node1", &data));
    assert!(message.time_ms.abs_diff(now_ms()) < 60_000);

    for (to, data) in [
        ("node2", vec![0; 64 * 1024 + 1]),
        ("node2", Vec::new()),
        ("node1", b"x".to_vec()),
        ("nobody", b"x".to_vec()),
    ] {
        let sent = operator(&cluster, 0).send(send(to, data)).await;
        refused(sent, Code::InvalidArgument, "FIELD_INVALID");
    }
    nodes.pop().expect("node2").shutdown().await;
    soon(
        "the stream to end",
        nodes[0].until(|engine| (engine.connected().count() == 0).then_some(())),
    )
    .await;
    let sent = operator(&cluster, 0)
        .send(send("node2", b"x".to_vec()))
        .await;
    refused(sent, Code::Unavailable, "PEER_AWAY");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_has_the_node_drained() {
    let mut cluster = Cluster::new(1, 1);
    let node = cluster.start(0).await;
    connected(&node, 0).await;
    vote_at(&cluster, [0], "tx", 1).await;
    let answer = operator(&cluster, 0).drain(DrainRequest {}).await;
    assert_eq!(answer.unwrap().into_inner().within_ms, 30_000);
    let began = std::time::Instant::now();
    assert_eq!(soon("the end", node.stopped()).await, Stopped::Shutdown);
    soon("the rest", node.shutdown()).await;
    assert!(began.elapsed() < Duration::from_secs(30));
    let rules = cluster.client(0).get_rules(GetRulesRequest {}).await;
    assert!(rules.is_err(), "it answers still");
    // Its data directory is free, and nothing is lost.
    let node = cluster.start(0).await;
    connected(&node, 0).await;
    ballot_in(&node, "tx", &[BallotState::Confirmed]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_level_of_the_log_is_changed_and_told() {
    let log = quorate_telemetry::init(&quorate_telemetry::LogSettings {
        level: "error".to_owned(),
        ..Default::default()
    });
    let log = log.expect("this process has no log yet");
    let mut cluster = Cluster::new(1, 1);
    let node = cluster
        .start_with(0, |parts| parts.log = Some(log.clone()))
        .await;
    connected(&node, 0).await;
    assert_eq!(info(&cluster, 0).await.log_level, "error");
    let set = |level: &str| SetLogLevelRequest {
        level: level.to_owned(),
    };
    let answer = operator(&cluster, 0).set_log_level(set("off")).await;
    let answer = answer.unwrap().into_inner();
    assert_eq!((&*answer.level, &*answer.previous), ("off", "error"));
    assert_eq!(info(&cluster, 0).await.log_level, "off");
    let bad = operator(&cluster, 0).set_log_level(set("loud")).await;
    refused(bad, Code::InvalidArgument, "FIELD_INVALID");
    assert_eq!(log.level(), "off");
    node.kill().await;
    // Where the process keeps its log to itself.
    let node = cluster.start(0).await;
    connected(&node, 0).await;
    let none = operator(&cluster, 0).set_log_level(set("off")).await;
    refused(none, Code::FailedPrecondition, "NO_LOG");
}
