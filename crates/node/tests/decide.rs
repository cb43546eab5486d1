//! The main road: five nodes decide, submit once, and prove it.

mod common;

use common::*;
use prost::Message as _;
use quorate_chain::{Chain as _, Ledger, LedgerOptions};
use quorate_consensus::proof::{Fact, verify};
use quorate_consensus::wire::{
    BallotState, GetCertificateRequest, GetRulesRequest, ListRequest, Standing, StatusRequest,
    SubmitRequest, WaitFor, WatchRequest, board_event, proof,
};
use quorate_consensus::{TxId, Value};
use quorate_crypto::verify::Ed25519Verifier;
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn four_equal_votes_are_confirmed_once_and_proven() {
    let mut cluster = Cluster::new(5, 4);
    let nodes = cluster.start_all().await;
    vote_at(&cluster, 0..3, "tx_001", 42).await;
    let last = SubmitRequest {
        wait: WaitFor::Confirmed.into(),
        ..number("tx_001", 42)
    };
    let answer = soon("confirmed", async {
        cluster.client(3).submit(last.clone()).await
    });
    let answer = answer.await.unwrap();
    assert!(answer.metadata().contains_key("traceparent"));
    let answer = answer.into_inner();
    let ballot = answer.ballot.unwrap();
    assert_eq!(ballot.state(), BallotState::Confirmed);
    assert!(!answer.repeated);
    let path: Vec<_> = ballot.path.iter().map(|p| p.state()).collect();
    assert_eq!(
        path,
        [
            BallotState::Collecting,
            BallotState::ThresholdReached,
            BallotState::Submitted,
            BallotState::Confirmed
        ]
    );
    // Repeating is idempotent.
    let again = cluster.client(3).submit(last).await.unwrap().into_inner();
    assert!(again.repeated);
    assert_eq!(again.vote, answer.vote);

    // Every node tells the same.
    for (i, node) in nodes.iter().enumerate() {
        ballot_in(node, "tx_001", &[BallotState::Confirmed]).await;
        let request = StatusRequest {
            tx_id: "tx_001".into(),
        };
        let status = cluster.client(i).status(request).await.unwrap();
        let ballot = status.into_inner().ballot.unwrap();
        let standing: Vec<_> = ballot.trustees.iter().map(|t| t.standing()).collect();
        assert_eq!(standing[..4], [Standing::Agreed; 4]);
        assert_eq!(standing[4], Standing::Missing);
        assert_eq!(ballot.tally[0].count, 4);
    }

    // A stranger can check it, knowing the cluster id alone.
    let request = GetCertificateRequest {
        tx_id: "tx_001".into(),
    };
    let certificate = cluster.client(4).get_certificate(request).await.unwrap();
    let certificate = certificate.into_inner().proof.unwrap();
    assert!(matches!(
        certificate.kind,
        Some(proof::Kind::Certificate(_))
    ));
    let bytes = certificate.encode_to_vec();
    let verified = verify(&bytes, &cluster.rules.cluster_id(), None, &Ed25519Verifier).unwrap();
    match verified.fact {
        Fact::Decided { tx_id, value, .. } => {
            assert_eq!(tx_id, TxId::new("tx_001").unwrap());
            assert_eq!(value, Value::Number(42));
        }
        other => panic!("{other:?}"),
    }

    // One entry on the ledger, one row in the record.
    let options = LedgerOptions::for_target(cluster.rules.chain(), None);
    let ledger = Ledger::open(cluster.shared().join("ledger.db"), options).unwrap();
    let blocks = ledger.recent_blocks(100).await.unwrap();
    let entries: Vec<_> = blocks.iter().flat_map(|b| &b.transactions).collect();
    assert_eq!(entries.len(), 1);
    let audit = cluster.audit();
    let tx_id = TxId::new("tx_001").unwrap();
    soon("the audit row", async {
        while audit.final_state(&tx_id).await.unwrap() != Some(BallotState::Confirmed) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vote_signed_elsewhere_counts_like_one_that_the_node_signs() {
    let mut cluster = Cluster::new(4, 3);
    let mut nodes = Vec::new();
    for i in 0..4 {
        // Node 1 does not hold its vote key at all.
        let node = cluster.start_with(i, |parts| {
            if i == 0 {
                parts.vote_key = None;
            }
        });
        nodes.push(node.await);
    }
    for node in &nodes {
        connected(node, 3).await;
    }
    let rules = cluster
        .client(0)
        .get_rules(GetRulesRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(rules.cluster_id, cluster.rules.cluster_id().0);
    assert_eq!(rules.rules_digest, cluster.rules.digest().0);
    assert_eq!(rules.node_id, "node1");
    let own = refused(
        cluster.client(0).submit(number("tx", 7)).await,
        Code::InvalidArgument,
        "FIELD_INVALID",
    );
    assert!(own.message().contains("vote key"), "{own}");
    let vote = cluster.vote(0, "tx", Value::Number(7), rules.server_time_ms);
    let handed = handed("", vote.clone());
    let answer = cluster.client(0).submit(handed).await.unwrap().into_inner();
    assert_eq!(answer.vote, Some(vote));
    vote_at(&cluster, [1, 2], "tx", 7).await;
    for node in &nodes {
        ballot_in(node, "tx", &[BallotState::Confirmed]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_see_everything_in_order_from_any_revision() {
    let mut cluster = Cluster::new(4, 3);
    let nodes = cluster.start_all().await;
    let request = |tx_id: &str, from_revision| WatchRequest {
        tx_id: tx_id.to_owned(),
        from_revision,
    };
    let mut live = cluster
        .client(3)
        .watch(request("", 0))
        .await
        .unwrap()
        .into_inner();
    vote_at(&cluster, 0..3, "a", 1).await;
    vote_at(&cluster, 0..1, "b", 2).await;
    ballot_in(&nodes[3], "a", &[BallotState::Confirmed]).await;
    ballot_in(&nodes[3], "b", &[BallotState::Collecting]).await;

    // Until the ballot is confirmed, in the order of the board.
    let mut seen = Vec::new();
    soon("the live watch", async {
        while let Some(response) = live.message().await.unwrap() {
            let event = response.event.unwrap();
            let done = matches!(&event.event, Some(board_event::Event::StateChanged(change))
                if change.to() == BallotState::Confirmed);
            seen.push(event);
            if done {
                break;
            }
        }
    })
    .await;
    assert!(seen.is_sorted_by_key(|event| event.revision));

    // Afterwards, the same from the first revision on, and for one transaction only.
    let mut all = cluster
        .client(0)
        .watch(request("", 1))
        .await
        .unwrap()
        .into_inner();
    let mut one = cluster
        .client(0)
        .watch(request("a", 0))
        .await
        .unwrap()
        .into_inner();
    let first = soon("the log", all.message()).await.unwrap().unwrap();
    assert_eq!(first.event.unwrap().revision, 1);
    let wanted: Vec<_> = seen.iter().filter(|event| event.tx_id == "a").collect();
    for event in wanted {
        let found = soon("the ballot's events", one.message())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(found.event.as_ref(), Some(event));
    }
    // A watch ends with a reason when the node goes.
    let mut nodes = nodes.into_iter();
    let node = nodes.next().unwrap();
    let ending = async {
        loop {
            match all.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("ended without a reason"),
                Err(status) => return status,
            }
        }
    };
    let (status, ()) = tokio::join!(soon("the end", ending), node.shutdown());
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ballots_are_listed_page_by_page_newest_first() {
    let mut cluster = Cluster::new(4, 3);
    let _nodes = cluster.start_all().await;
    for name in ["a", "b", "c", "d", "e"] {
        vote_at(&cluster, [0], name, 1).await;
    }
    let mut client = cluster.client(0);
    let mut request = ListRequest {
        page_size: 2,
        ..ListRequest::default()
    };
    let mut names = Vec::new();
    loop {
        let page = client.list(request.clone()).await.unwrap().into_inner();
        assert!(page.ballots.len() <= 2);
        assert!(page.ballots.is_sorted_by(|a, b| a.opened_ms >= b.opened_ms));
        names.extend(page.ballots.into_iter().map(|b| b.tx_id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    names.sort();
    assert_eq!(names, ["a", "b", "c", "d", "e"], "each once");
    request.page_token.clear();
    request.states = vec![BallotState::Confirmed.into()];
    let none = client.list(request).await.unwrap().into_inner();
    assert!(none.ballots.is_empty() && none.next_page_token.is_empty());
}
