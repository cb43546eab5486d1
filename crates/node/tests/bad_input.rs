//! Bad input over the wire: each is a typed error, or dropped and counted; none
//! changes a ballot, none stops a node.

mod common;

use std::sync::Arc;

use common::calls::{Callers, METHODS, call, truncated};
use common::*;
use prost::Message as _;
use quorate_consensus::wire::{
    self, AdvanceOp, BallotState, BoardEntry, BoardOp, CertifyOp, ConcludeOp,
    GetCertificateRequest, ListRequest, RulesChain, RulesDocument, RulesLink, SignedStatement,
    StatusRequest, SubmitRequest, WatchRequest, board_event, board_op, submit_request,
};
use quorate_consensus::{Domain, Value, rules};
use quorate_coordinator::{Coordinator, StoreError};
use quorate_engine::{ProposeError, Proposed};
use quorate_node::{Parts, StartError};
use tonic::Code;

async fn revision(node: &quorate_node::NodeHandle) -> u64 {
    node.look(|engine| engine.board().revision()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_typed_errors_and_change_nothing() {
    let mut cluster = Cluster::new(4, 3);
    let nodes = cluster.start_all().await;
    vote_at(&cluster, [0], "open", 1).await;
    ballot_in(&nodes[0], "open", &[BallotState::Collecting]).await;
    let before = revision(&nodes[0]).await;

    let channel = cluster.channel(0, &cluster.person(0, "client"));
    let mut client = cluster.client(0);
    let data = |bytes: usize| SubmitRequest {
        vote: Some(submit_request::Vote::Data(vec![7; bytes])),
        ..number("t", 0)
    };
    // Names and values.
    for request in [
        number("", 1),
        number("with space", 1),
        number("ümlaut", 1),
        number(&"x".repeat(129), 1),
        data(0),
        data(1025),
        SubmitRequest {
            vote: None,
            ..number("t", 0)
        },
        SubmitRequest {
            wait: 99,
            ..number("t", 0)
        },
    ] {
        refused(
            client.submit(request).await,
            Code::InvalidArgument,
            "FIELD_INVALID",
        );
    }
    let tx_id = "no/such".to_owned();
    let status = StatusRequest {
        tx_id: tx_id.clone(),
    };
    refused(
        client.status(status).await,
        Code::InvalidArgument,
        "FIELD_INVALID",
    );
    let watch = WatchRequest {
        tx_id: tx_id.clone(),
        from_revision: 0,
    };
    refused(
        client.watch(watch).await,
        Code::InvalidArgument,
        "FIELD_INVALID",
    );
    let certificate = GetCertificateRequest { tx_id };
    let certificate = client.get_certificate(certificate).await;
    refused(certificate, Code::InvalidArgument, "FIELD_INVALID");
    let list = ListRequest {
        page_size: 5000,
        ..ListRequest::default()
    };
    refused(
        client.list(list).await,
        Code::InvalidArgument,
        "FIELD_INVALID",
    );
    let unknown = StatusRequest {
        tx_id: "unknown".into(),
    };
    refused(
        client.status(unknown).await,
        Code::NotFound,
        "UNKNOWN_TRANSACTION",
    );
    let unknown = GetCertificateRequest {
        tx_id: "unknown".into(),
    };
    let unknown = client.get_certificate(unknown).await;
    refused(unknown, Code::NotFound, "UNKNOWN_TRANSACTION");

    // Random, truncated and oversized bytes on every method.
    let callers = Callers::of(&cluster, 0);
    for method in METHODS.iter() {
        let channel = callers.who_may(method);
        for garbage in [&[0xff; 40][..], b"\x0a\x7fshort", b"not protobuf at all"] {
            let result = call(channel, method, garbage).await;
            refused(result, Code::InvalidArgument, "MALFORMED_REQUEST");
        }
        let large = vec![0; 300 * 1024];
        let result = call(channel, method, &large).await;
        refused(result, Code::InvalidArgument, "REQUEST_TOO_LARGE");
        let status = truncated(channel, method).await;
        assert_eq!(reason(&status), "MALFORMED_REQUEST", "{method}: {status:?}");
    }
    let missing = call(&channel, "/quorate.v1.VoteService/NoSuch", b"").await;
    assert_eq!(missing.unwrap_err().code(), Code::Unimplemented);

    // Statements.
    let good = cluster.vote(0, "signed", Value::Number(1), now_ms());
    let sign = |statement: Vec<u8>| SignedStatement {
        signature: cluster.vote_key(0).sign(Domain::Vote, &statement),
        statement,
    };
    let with = |change: &dyn Fn(&mut wire::VoteStatement)| {
        let mut vote = wire::VoteStatement::decode(&*good.statement).unwrap();
        change(&mut vote);
        sign(vote.encode_to_vec())
    };
    let mut padded = good.statement.clone();
    padded.extend([0xa0, 0x06, 0x01]); // an unknown field 100
    let mut forged = good.clone();
    forged.signature[10] ^= 1;
    let other_domain = SignedStatement {
        signature: cluster.vote_key(0).sign(Domain::Decision, &good.statement),
        ..good.clone()
    };
    for (statement, why) in [
        (sign(padded), "STATEMENT_NOT_CANONICAL"),
        (sign(b"\xff\xff".to_vec()), "STATEMENT_UNDECODABLE"),
        (sign(vec![0; 20_000]), "STATEMENT_TOO_LARGE"),
        (sign(Vec::new()), "STATEMENT_FIELD_INVALID"),
        (SignedStatement::default(), "STATEMENT_FIELD_INVALID"),
        (with(&|v| v.cluster_id = vec![9; 32]), "WRONG_CLUSTER"),
        (with(&|v| v.rules_digest = vec![9; 32]), "WRONG_RULES"),
        (with(&|v| v.choice = None), "STATEMENT_FIELD_INVALID"),
        (with(&|v| v.tx_id = "a b".into()), "STATEMENT_FIELD_INVALID"),
        (forged, "BAD_SIGNATURE"),
        (other_domain, "BAD_SIGNATURE"),
        // More than the skew of 30 s, also when this has taken a while.
        (with(&|v| v.time_ms -= 31_000), "CLOCK_OFF"),
        (with(&|v| v.time_ms += 300_000), "CLOCK_OFF"),
        (with(&|v| v.time_ms = u64::MAX), "CLOCK_OFF"),
        (with(&|v| v.time_ms = 1), "CLOCK_OFF"),
    ] {
        let result = client.submit(handed("", statement)).await;
        refused(result, Code::InvalidArgument, why);
    }
    let foreign = cluster.vote(1, "signed", Value::Number(1), now_ms());
    let result = client.submit(handed("", foreign)).await;
    refused(result, Code::PermissionDenied, "OTHER_TRUSTEE");
    let mismatch = client.submit(handed("other", good.clone())).await;
    refused(mismatch, Code::InvalidArgument, "FIELD_INVALID");

    // A replay of what is on the board already is the same vote.
    let status = StatusRequest {
        tx_id: "open".into(),
    };
    let ballot = client
        .status(status)
        .await
        .unwrap()
        .into_inner()
        .ballot
        .unwrap();
    let again = cluster
        .client(0)
        .submit(number("open", 1))
        .await
        .unwrap()
        .into_inner();
    assert!(again.repeated);
    let replayed = client
        .submit(handed("", again.vote.unwrap()))
        .await
        .unwrap();
    assert_eq!(replayed.into_inner().ballot.unwrap(), ballot);

    assert_eq!(
        revision(&nodes[0]).await,
        before,
        "nothing may reach the board"
    );
    // And the node still does its work.
    vote_at(&cluster, 1..3, "open", 1).await;
    for node in &nodes {
        ballot_in(node, "open", &[BallotState::Confirmed]).await;
    }
    // Who votes after the end and before the deadline is told how it ended.
    let late = cluster.client(3).submit(number("open", 1)).await;
    let late = late.unwrap().into_inner();
    let ballot = late.ballot.unwrap();
    assert_eq!(ballot.state(), BallotState::Confirmed);
    assert!(!late.repeated, "{ballot:?}");
    assert_eq!(ballot.trustees[3].standing(), wire::Standing::Late);
    // The first choice stands, whatever the second.
    let second = client.submit(number("open", 2)).await;
    let second = refused(second, Code::FailedPrecondition, "SECOND_CHOICE");
    assert!(second.message().contains('1'), "{second}");
    let counts = nodes[0].counts();
    assert!(counts.submits_rejected >= 20, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_vote_after_the_deadline_of_a_finished_ballot_is_refused() {
    let mut cluster = Cluster::with(2, 2, |params| params.vote_timeout_ms = 300);
    let nodes = cluster.start_all().await;
    vote_at(&cluster, [0], "tx", 1).await;
    ballot_in(&nodes[1], "tx", &[BallotState::AbortedTimeout]).await;
    let late = cluster.client(1).submit(number("tx", 1)).await;
    let late = refused(late, Code::FailedPrecondition, "BALLOT_CLOSED");
    assert!(late.message().contains("ABORTED_TIMEOUT"), "{late}");
}

#[tokio::test(flavor = "multi_thread")]
async fn moves_and_proofs_without_their_statements_are_refused_by_the_board() {
    let mut cluster = Cluster::new(4, 3);
    let parts = cluster.parts(0);
    let coordinator = parts.coordinator.clone();
    let node = quorate_node::Node::start(parts).await.unwrap();
    connected(&node, 0).await;
    vote_at(&cluster, [0], "tx", 1).await;
    ballot_in(&node, "tx", &[BallotState::Collecting]).await;
    let before = coordinator.head().await.unwrap();
    let tx_id = || "tx".to_owned();
    let advance = |to: BallotState| {
        board_op::Op::Advance(AdvanceOp {
            tx_id: tx_id(),
            to: to.into(),
        })
    };
    let decisions = vec![cluster.vote(0, "tx", Value::Number(1), now_ms())];
    for op in [
        advance(BallotState::ThresholdReached),
        advance(BallotState::AbortedByzantine),
        advance(BallotState::Confirmed),
        board_op::Op::Certify(CertifyOp {
            tx_id: tx_id(),
            decisions: Vec::new(),
        }),
        board_op::Op::Certify(CertifyOp {
            tx_id: tx_id(),
            decisions,
        }),
        board_op::Op::Conclude(ConcludeOp {
            tx_id: tx_id(),
            observations: Vec::new(),
        }),
    ] {
        let op = BoardOp { op: Some(op) };
        let proposed = coordinator.propose(op.clone(), now_ms()).await;
        assert!(
            matches!(proposed, Err(ProposeError::Refused(_))),
            "{op:?}: {proposed:?}"
        );
    }
    assert_eq!(coordinator.head().await.unwrap(), before);
    node.kill().await;
}

/// Rewrites the rules file and pins what it is now.
fn open_with_rules(cluster: &Cluster, chain: &RulesChain) -> Result<Parts, StartError> {
    let mut config = cluster.config(0);
    let path = cluster.home(0).join("changed.rules");
    let genesis = &chain.links[0].document;
    let bytes = match chain.links.len() {
        1 => genesis.clone(),
        _ => chain.encode_to_vec(),
    };
    std::fs::write(&path, bytes).unwrap();
    config.consensus.cluster_id = quorate_consensus::ClusterId(rules::digest_of(genesis).0);
    config.consensus.rules_path = path;
    Parts::open(&config)
}

#[test]
fn unlawful_rules_stop_the_start() {
    let cluster = Cluster::new(3, 2);
    let genesis = RulesDocument::decode(cluster.rules.document()).unwrap();
    let link = |document: &RulesDocument| RulesLink {
        document: document.encode_to_vec(),
        justification: None,
    };
    let reason = |links: Vec<RulesLink>| match open_with_rules(&cluster, &RulesChain { links }) {
        Err(StartError::Rules { reason, .. }) => reason,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("started"),
    };
    for threshold in [0, 4] {
        let changed = RulesDocument {
            threshold,
            ..genesis.clone()
        };
        let reason = reason(vec![link(&changed)]);
        assert!(reason.contains("threshold: must be 1 to 3"), "{reason}");
    }
    // A later epoch that the epoch before did not decide.
    let next = RulesDocument {
        epoch: 2,
        predecessor: cluster.rules.digest().0.to_vec(),
        threshold: 1,
        ..genesis.clone()
    };
    let reason = reason(vec![link(&genesis), link(&next)]);
    assert!(reason.contains("lack their justification"), "{reason}");
    // Rules of another cluster than the pinned one.
    let mut config = cluster.config(0);
    config.consensus.cluster_id = quorate_consensus::ClusterId([1; 32]);
    let error = Parts::open(&config).err().unwrap().to_string();
    assert!(error.contains("is pinned"), "{error}");
}

/// A store that shows an entry which the board never gave.
struct Liar(Arc<dyn Coordinator>);

#[tonic::async_trait]
impl Coordinator for Liar {
    async fn propose(&self, op: BoardOp, now_ms: u64) -> Result<Proposed, ProposeError> {
        self.0.propose(op, now_ms).await
    }

    async fn entries(&self, after: u64, limit: usize) -> Result<Vec<BoardEntry>, StoreError> {
        let mut entries = self.0.entries(after, limit).await?;
        let voted = |entry: &BoardEntry| {
            let op = entry.op.as_ref().and_then(|op| op.op.as_ref());
            matches!(op, Some(board_op::Op::RecordVote(_)))
        };
        if let Some(last) = entries.last().filter(|entry| voted(entry)) {
            let advance = AdvanceOp {
                tx_id: "tx".into(),
                to: BallotState::Confirmed.into(),
            };
            entries.push(BoardEntry {
                revision: last.revision + 1,
                time_ms: last.time_ms,
                op: Some(BoardOp {
                    op: Some(board_op::Op::Advance(advance)),
                }),
                events: Vec::new(),
            });
        }
        Ok(entries)
    }

    async fn head(&self) -> Result<u64, StoreError> {
        self.0.head().await
    }

    fn watch(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.watch()
    }

    fn backend(&self) -> &'static str {
        self.0.backend()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_the_store_made_up_is_not_believed() {
    let mut cluster = Cluster::new(3, 2);
    let node = cluster.start_with(0, |parts| {
        parts.coordinator = Arc::new(Liar(parts.coordinator.clone()));
    });
    let node = node.await;
    connected(&node, 0).await;
    vote_at(&cluster, [0], "tx", 1).await;
    let mut counts = node.counts();
    soon("an alert", async {
        while counts.alerts == 0 {
            tokio::task::yield_now().await;
            counts = node.counts();
        }
    })
    .await;
    let mut client = cluster.client(0);
    let status = StatusRequest { tx_id: "tx".into() };
    let ballot = client
        .status(status)
        .await
        .unwrap()
        .into_inner()
        .ballot
        .unwrap();
    assert_eq!(ballot.state(), BallotState::Collecting);
    // Watchers see what this node believes, and no more.
    let watch = WatchRequest {
        tx_id: "tx".into(),
        from_revision: 1,
    };
    let mut events = client.watch(watch).await.unwrap().into_inner();
    let mut states = Vec::new();
    for _ in 0..2 {
        let event = soon("an event", events.message())
            .await
            .unwrap()
            .unwrap()
            .event
            .unwrap();
        if let Some(board_event::Event::StateChanged(change)) = event.event {
            states.push(change.to());
        }
    }
    assert_eq!(states, [BallotState::Collecting]);
}
