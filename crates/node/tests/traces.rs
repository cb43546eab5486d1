//! What a collector gets of a transaction: one trace, in which nothing hangs in the
//! air and the whole story can be read.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::*;
use quorate_consensus::wire::{self, BallotState, SignedStatement, SubmitRequest, WaitFor, frame};
use quorate_consensus::{TxId, Value};
use quorate_node::NodeHandle;
use quorate_node::config::TelemetrySection;
use quorate_telemetry::{Pace, TraceContext, TraceId, otlp};
use quorate_testkit::servers::{Collector, Proxy, Received, Way};
use tonic::Request;

fn to(endpoint: &str) -> TelemetrySection {
    TelemetrySection {
        otlp_endpoint: Some(otlp::endpoint(endpoint).unwrap()),
        pace: Pace {
            gather: Duration::from_millis(10),
            ..Pace::default()
        },
        ..TelemetrySection::default()
    }
}

/// The first so many trustees' nodes, each with its telemetry.
async fn start(cluster: &mut Cluster, telemetry: &[TelemetrySection]) -> Vec<NodeHandle> {
    let mut nodes = Vec::new();
    for (i, telemetry) in telemetry.iter().enumerate() {
        let node = cluster.start_with(i, |parts| parts.telemetry = telemetry.clone());
        nodes.push(node.await);
    }
    for node in &nodes {
        connected(node, telemetry.len() - 1).await;
    }
    nodes
}

fn trace_id(cluster: &Cluster, tx_id: &str) -> String {
    TraceId::of(&cluster.rules.cluster_id(), &TxId::new(tx_id).unwrap()).to_string()
}

/// Waits until the trace of a transaction holds so many spans of each name.
fn trace_with(
    collector: &Collector,
    cluster: &Cluster,
    tx_id: &str,
    wanted: &[(&str, usize)],
) -> Vec<Received> {
    trace_and(collector, cluster, tx_id, wanted, |_| true)
}

/// The same, and something else besides.
fn trace_and(
    collector: &Collector,
    cluster: &Cluster,
    tx_id: &str,
    wanted: &[(&str, usize)],
    besides: impl Fn(&[&Received]) -> bool,
) -> Vec<Received> {
    let trace_id = trace_id(cluster, tx_id);
    let what = format!("{wanted:?} of {tx_id}");
    tokio::task::block_in_place(|| {
        collector.until(&what, |spans| {
            let trace: Vec<_> = spans.iter().filter(|s| s.trace_id == trace_id).collect();
            let count = |name: &str| trace.iter().filter(|span| span.name == name).count();
            let there = wanted.iter().all(|(name, least)| count(name) >= *least);
            (there && besides(&trace)).then(|| trace.into_iter().cloned().collect())
        })
    })
}

/// Every span hangs under the one it should, and the root is there; what several nodes
/// say of the cluster is the same from each.
fn assert_whole(trace: &[Received]) {
    let mut by_id = BTreeMap::new();
    for span in trace {
        if let Some(other) = by_id.insert(&span.span_id, span) {
            assert_eq!(other, span, "two spans with one id");
            assert_eq!(span.service(), "quorate");
        }
    }
    for span in by_id.values() {
        let name = &*span.name;
        let Some(parent) = by_id.get(&span.parent) else {
            assert_eq!(
                (name, &*span.parent),
                ("decision", ""),
                "{span:?} is an orphan"
            );
            continue;
        };
        let allowed: &[&str] = match name {
            "vote.validate" | "vote.store" | "vote.aggregate" | "threshold.check" => {
                &["vote.receive"]
            }
            "vote.count" => &["vote.store", "vote.receive"],
            "byzantine.check" => &["vote.receive", "decision"],
            _ => &["decision"],
        };
        assert!(
            allowed.contains(&&*parent.name),
            "{name} under {}",
            parent.name
        );
        assert!(span.time.0 <= span.time.1, "{span:?} ends before it begins");
        let tx_id = span.attribute("quorate.tx_id");
        assert!(!tx_id.is_empty(), "{span:?} names no transaction");
        if span.service() != "quorate" {
            let node_id = span.attribute("quorate.node_id");
            assert_eq!(span.service(), format!("quorate-{node_id}"));
            assert_eq!(span.resource["service.instance.id"], node_id);
        }
        if span.name != "vote.receive" {
            let within = |link: &(String, String)| by_id.contains_key(&link.1);
            assert!(
                span.links.iter().all(|l| l.0 != span.trace_id || within(l)),
                "{span:?} is linked to nothing"
            );
        }
    }
}

fn named<'a>(trace: &'a [Received], name: &str) -> Vec<&'a Received> {
    trace.iter().filter(|span| span.name == name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_of_five_nodes_is_one_trace_without_orphans() {
    let collector = Collector::new();
    let mut cluster = Cluster::new(5, 4);
    let nodes = start(&mut cluster, &vec![to(&collector.endpoint()); 5]).await;
    const VALUE: u64 = 987_654_321;
    vote_at(&cluster, 0..3, "tx_001", VALUE).await;
    // The last client has a trace of its own.
    let own = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut last = Request::new(SubmitRequest {
        wait: WaitFor::Confirmed.into(),
        ..number("tx_001", VALUE)
    });
    let metadata = last.metadata_mut();
    metadata.insert("traceparent", own.parse().unwrap());
    let answer = cluster.client(3).submit(last).await.unwrap();
    let told = answer.metadata().get("traceparent").unwrap();
    let told: TraceContext = told.to_str().unwrap().parse().unwrap();
    assert_eq!(told.trace_id.to_string(), trace_id(&cluster, "tx_001"));

    let wanted = [
        ("decision", 5),
        ("decision.closed", 5),
        ("vote.receive", 20),
        ("vote.validate", 4),
        ("vote.store", 4),
        ("vote.count", 20),
        ("vote.aggregate", 20),
        ("byzantine.check", 20),
        ("threshold.check", 20),
        ("submission.lock", 2),
        ("submission.submit", 1),
        ("submission.persist", 4),
    ];
    let trace = trace_with(&collector, &cluster, "tx_001", &wanted);
    assert_whole(&trace);
    let services: BTreeSet<_> = trace.iter().map(Received::service).collect();
    let names = ["quorate", "quorate-node1", "quorate-node2", "quorate-node3"];
    let all = names.into_iter().chain(["quorate-node4", "quorate-node5"]);
    assert_eq!(services, all.collect());

    // Who voted when, on each node: each vote once.
    let receives = named(&trace, "vote.receive");
    let seen: BTreeSet<_> = receives
        .iter()
        .map(|s| (s.service(), s.attribute("quorate.voter")))
        .collect();
    assert_eq!((receives.len(), seen.len()), (20, 20));
    let handed = receives.iter().filter(|s| {
        let way = s.attribute("quorate.way");
        (way == "client") == (s.attribute("quorate.voter") == s.attribute("quorate.node_id"))
    });
    assert_eq!(handed.count(), 20, "{receives:#?}");
    // The trustee that has not voted is named.
    let checks = named(&trace, "threshold.check");
    assert!(
        checks
            .iter()
            .all(|s| s.attribute("quorate.missing").contains("node5"))
    );
    let reached = checks
        .iter()
        .filter(|s| s.attribute("quorate.reached") == "true");
    assert!(reached.clone().count() >= 5);
    for check in reached {
        assert_eq!(check.attribute("quorate.threshold"), "4");
        assert_eq!(check.attribute("quorate.count"), "4");
    }
    for closed in named(&trace, "decision.closed") {
        assert_eq!(closed.attribute("quorate.state"), "CONFIRMED");
        let path: Vec<_> = closed.events.iter().map(|(name, _)| &**name).collect();
        let all = [
            "COLLECTING",
            "THRESHOLD_REACHED",
            "SUBMITTED",
            "reserved",
            "certified",
            "lease taken",
            "CONFIRMED",
        ];
        let expected = all.iter().filter(|name| path.contains(name));
        assert_eq!(expected.count(), all.len(), "{path:?}");
        assert_eq!(closed.error, None);
    }
    let submit = named(&trace, "submission.submit")[0];
    assert_eq!(submit.attribute("quorate.attempt"), "1");
    assert_eq!(submit.attribute("quorate.recovered"), "false");
    let steps = named(&trace, "submission.persist");
    let steps: BTreeSet<_> = steps.iter().map(|s| s.attribute("quorate.step")).collect();
    assert_eq!(
        steps,
        ["attempted", "pending", "projected", "variant"].into()
    );
    // The client's trace is linked, and nobody joins it.
    let linked = receives.iter().filter(|span| {
        let link = span.links.first();
        link.is_some_and(|(trace, span)| own.contains(&format!("{trace}-{span}")))
    });
    assert_eq!(linked.count(), 1);
    // What was voted for is nobody's business.
    let text = format!("{trace:?}");
    assert!(!text.contains(&VALUE.to_string()), "the value is shown");
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_equivocation_can_be_read_in_its_trace_alone_also_when_it_is_not_sampled() {
    const LIAR: usize = 4;
    let collector = Collector::new();
    let mut cluster = Cluster::new(5, 4);
    let telemetry = TelemetrySection {
        sample_ratio: 0.0,
        ..to(&collector.endpoint())
    };
    let nodes = start(&mut cluster, &vec![telemetry; 4]).await;
    vote_at(&cluster, 0..4, "quiet", 7).await;
    vote_at(&cluster, 0..2, "tx", 1).await;
    let now = now_ms();
    let one = cluster.vote(LIAR, "tx", Value::Number(1), now);
    let two = cluster.vote(LIAR, "tx", Value::Number(22), now);
    let (first, second) = (cluster.raw(LIAR, 0).await, cluster.raw(LIAR, 1).await);
    first.send(votes([one])).await.unwrap();
    second.send(votes([two])).await.unwrap();
    for node in &nodes {
        ballot_in(node, "tx", &[BallotState::AbortedByzantine]).await;
        banned(node, &cluster.ids[LIAR]).await;
        ballot_in(node, "quiet", &[BallotState::Confirmed]).await;
    }
    let wanted = [
        ("decision", 4),
        ("violation", 4),
        ("member.banned", 4),
        ("decision.closed", 4),
        ("stream.closed", 2),
        // Three votes and the second one of the liar, on four nodes.
        ("vote.receive", 16),
    ];
    let found = |trace: &[&Received]| {
        let checks = trace.iter().filter(|s| s.name == "byzantine.check");
        let found = checks.filter(|s| s.error.is_some());
        found.map(|s| s.service()).collect::<BTreeSet<_>>().len() == 4
    };
    let trace = trace_and(&collector, &cluster, "tx", &wanted, found);
    assert_whole(&trace);
    // Who, and with which two values.
    for violation in named(&trace, "violation") {
        assert_eq!(violation.attribute("quorate.accused"), "node5");
        assert_eq!(violation.attribute("quorate.kind"), "DOUBLE_VOTING");
        let values = ["quorate.first_value", "quorate.second_value"];
        let values: BTreeSet<_> = values.map(|name| violation.attribute(name)).into();
        assert_eq!(values, ["1", "22"].into());
        assert!(violation.error.is_some());
    }
    // Which node saw it first: it had the second vote, and told the board.
    let receives = named(&trace, "vote.receive");
    let lies: Vec<_> = receives.iter().filter(|s| s.error.is_some()).collect();
    assert_eq!(lies.len(), 4);
    assert!(lies.iter().all(|s| s.attribute("quorate.voter") == "node5"));
    let reported = lies
        .iter()
        .filter(|s| s.attribute("quorate.reported") == "true");
    assert_eq!(reported.count(), 1, "{lies:#?}");
    let found = named(&trace, "byzantine.check");
    let found = found.iter().filter(|s| s.error.is_some());
    let found: BTreeSet<_> = found.map(|span| span.service()).collect();
    assert_eq!(found.len(), 4);
    // When each of its streams was closed, and why.
    for closed in named(&trace, "stream.closed") {
        assert_eq!(closed.attribute("quorate.peer"), "node5");
    }
    for closed in named(&trace, "decision.closed") {
        assert_eq!(closed.attribute("quorate.state"), "ABORTED_BYZANTINE");
        let why = closed.error.as_deref();
        assert_eq!(why, Some("node5 signed two choices"));
    }
    // The honest ballot was not sampled. Whatever it had is out by now.
    for node in nodes {
        node.shutdown().await;
    }
    let quiet = trace_id(&cluster, "quiet");
    let spans = collector.spans();
    assert_eq!(spans.iter().filter(|s| s.trace_id == quiet).count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_ballot_says_what_it_waits_for_and_needs_no_single_node() {
    let collector = Collector::new();
    let mut cluster = Cluster::new(5, 4);
    let mut telemetry = vec![to(&collector.endpoint()); 3];
    // The node that opens the ballot exports nothing: it might as well be dead.
    telemetry[0] = TelemetrySection::default();
    let nodes = start(&mut cluster, &telemetry).await;
    vote_at(&cluster, 0..2, "stuck", 1).await;
    let wanted = [("decision", 2), ("ballot.waiting", 2), ("vote.receive", 4)];
    // Where the second vote came late, the ballot waited for that one before.
    let for_the_third =
        |span: &&Received| span.name == "ballot.waiting" && span.attribute("quorate.count") == "2";
    let both = |trace: &[&Received]| {
        let waiting = trace.iter().copied().filter(for_the_third);
        waiting
            .map(Received::service)
            .collect::<BTreeSet<_>>()
            .len()
            == 2
    };
    let trace = trace_and(&collector, &cluster, "stuck", &wanted, both);
    assert_whole(&trace);
    for waiting in trace.iter().filter(for_the_third) {
        assert_eq!(waiting.attribute("quorate.state"), "COLLECTING");
        assert_eq!(waiting.attribute("quorate.waits_for"), "votes");
        assert_eq!(waiting.attribute("quorate.missing"), "node3,node4,node5");
        assert_eq!(waiting.attribute("quorate.unreachable"), "node4,node5");
        assert_eq!(waiting.attribute("quorate.count"), "2");
        assert_eq!(waiting.attribute("quorate.threshold"), "4");
    }
    assert!(nodes[0].span_counts().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_stalls_or_refuses_slows_no_vote_and_what_is_lost_is_counted() {
    let collector = Collector::new();
    let proxy = Proxy::to(collector.addr().port());
    let mut telemetry = to(&proxy.endpoint());
    telemetry.pace = Pace {
        // Enough for one that does answer.
        answer: Duration::from_secs(2),
        give_up: Duration::ZERO,
        ..telemetry.pace
    };
    let mut cluster = Cluster::new(4, 3);
    let nodes = start(&mut cluster, &vec![telemetry; 4]).await;
    for (way, tx_id) in [(Way::Hang, "hangs"), (Way::Refuse, "refuses")] {
        proxy.set(way);
        let before: Vec<_> = nodes.iter().map(dropped).collect();
        vote_at(&cluster, 0..3, tx_id, 1).await;
        for node in &nodes {
            ballot_in(node, tx_id, &[BallotState::Confirmed]).await;
        }
        for (node, before) in nodes.iter().zip(before) {
            let counted = async {
                while dropped(node) == before {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            soon("dropped spans to be counted", counted).await;
        }
    }
    proxy.set(Way::Forward);
    vote_at(&cluster, 0..3, "back", 1).await;
    let wanted = [("decision", 1), ("decision.closed", 1)];
    trace_with(&collector, &cluster, "back", &wanted);
}

fn dropped(node: &NodeHandle) -> u64 {
    node.span_counts().unwrap().dropped
}

fn votes(statements: impl IntoIterator<Item = SignedStatement>) -> frame::Body {
    let traced = |vote| wire::TracedVote {
        vote: Some(vote),
        traceparent: String::new(),
    };
    frame::Body::Batch(wire::Batch {
        votes: statements.into_iter().map(traced).collect(),
        ..wire::Batch::default()
    })
}
