use quorate_consensus::{ClusterId, TxId};
use quorate_testkit::servers::{Collector, Proxy, Way};

use super::*;
use crate::span::{SpanEvent, SpanIds};
use crate::trace::TraceContext;

const QUICK: Pace = Pace {
    gather: Duration::from_millis(1),
    answer: Duration::from_secs(30),
    pause: Duration::from_millis(1),
    give_up: Duration::from_secs(60),
};

fn resource() -> Resource {
    Resource {
        cluster: "c".to_owned(),
        node_id: "node1".to_owned(),
    }
}

fn context() -> TraceContext {
    TraceContext::decision(&ClusterId([1; 32]), &TxId::new("tx").unwrap())
}

fn span(ids: &mut SpanIds) -> Span {
    Span::new(context(), ids.next_id(), "vote.receive", (5, 9_000))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_arrives_with_all_that_is_in_it() {
    let collector = Collector::new();
    let exporter = Exporter::start(&endpoint(&collector.endpoint()).unwrap(), resource(), QUICK);
    let mut ids = SpanIds::new(1);
    let mut full = span(&mut ids)
        .with("quorate.tx_id", "tx")
        .with("quorate.count", 3_u64)
        .with("quorate.late", true)
        .with("quorate.voters", vec!["a".into(), Arc::from("b")])
        .failed("it lied");
    full.links.push(context());
    full.events.push(SpanEvent {
        at_ns: 7,
        name: "violation",
        attributes: vec![("quorate.node_id", Value::from("node5"))],
    });
    let mut common = span(&mut ids);
    common.voice = Voice::Cluster;
    common.parent = None;
    exporter.offer(vec![full.clone(), common]);
    exporter.flush(Duration::from_secs(60)).await;
    let counts = ExportCounts {
        exported: 2,
        dropped: 0,
    };
    assert_eq!(exporter.counts(), counts);
    let spans = collector.spans();
    let [found, common] = &*spans else {
        panic!("{spans:?}");
    };
    assert_eq!(found.service(), "quorate-node1");
    assert_eq!(found.resource["service.instance.id"], "node1");
    assert_eq!(found.resource["service.namespace"], "c");
    assert_eq!(found.trace_id, context().trace_id.to_string());
    assert_eq!(found.span_id, full.span_id.to_string());
    assert_eq!(found.parent, context().span_id.to_string());
    assert_eq!((&*found.name, found.time), ("vote.receive", (5, 9_000)));
    assert_eq!(found.attribute("quorate.count"), "3");
    assert_eq!(found.attribute("quorate.late"), "true");
    assert_eq!(found.attribute("quorate.voters"), "a,b");
    assert_eq!(found.events[0].0, "violation");
    assert_eq!(found.events[0].1["quorate.node_id"], "node5");
    assert_eq!(found.links[0].1, context().span_id.to_string());
    assert_eq!(found.error.as_deref(), Some("it lied"));
    // The same from every node, or a collector keeps as many as there are nodes.
    assert_eq!(common.service(), "quorate");
    assert_eq!(common.resource.len(), 2, "{:?}", common.resource);
    assert_eq!(common.parent, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_hands_over_never_waits_and_what_finds_no_room_is_counted() {
    let collector = Collector::new();
    let proxy = Proxy::to(collector.addr().port());
    proxy.set(Way::Hang);
    let stalled = endpoint(&proxy.endpoint()).unwrap();
    let exporter = Exporter::start(&stalled, resource(), QUICK);
    let mut ids = SpanIds::new(1);
    for _ in 0..QUEUE {
        exporter.offer(vec![span(&mut ids)]);
    }
    assert_eq!(exporter.counts().dropped, 0);
    // A group goes whole or not at all.
    exporter.offer(vec![span(&mut ids), span(&mut ids)]);
    assert_eq!(exporter.counts().dropped, 2);
    // Once the collector moves again, all that found room arrives.
    proxy.set(Way::Forward);
    exporter.flush(Duration::from_secs(60)).await;
    let counts = ExportCounts {
        exported: QUEUE as u64,
        dropped: 2,
    };
    assert_eq!(exporter.counts(), counts);
    assert_eq!(collector.spans().len(), QUEUE);
    // And there is room again.
    exporter.offer(vec![span(&mut ids)]);
    exporter.flush(Duration::from_secs(60)).await;
    assert_eq!(exporter.counts().exported, QUEUE as u64 + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_refuses_for_too_long_costs_the_batch() {
    let collector = Collector::new();
    let proxy = Proxy::to(collector.addr().port());
    proxy.set(Way::Refuse);
    let refusing = endpoint(&proxy.endpoint()).unwrap();
    let pace = Pace {
        give_up: Duration::ZERO,
        ..QUICK
    };
    let exporter = Exporter::start(&refusing, resource(), pace);
    let mut ids = SpanIds::new(1);
    exporter.offer(vec![span(&mut ids)]);
    exporter.flush(Duration::from_secs(60)).await;
    let counts = ExportCounts {
        exported: 0,
        dropped: 1,
    };
    assert_eq!(exporter.counts(), counts);
    proxy.set(Way::Forward);
    exporter.offer(vec![span(&mut ids)]);
    exporter.flush(Duration::from_secs(60)).await;
    assert_eq!(exporter.counts().exported, 1);
}

#[test]
fn an_endpoint_is_plain_and_has_a_port() {
    for good in ["http://127.0.0.1:4317", "http://jaeger:4317/"] {
        assert!(endpoint(good).is_ok(), "{good}");
    }
    for bad in [
        "",
        "127.0.0.1:4317",
        "https://jaeger:4317",
        "http://jaeger",
        "http://jaeger:4317/v1/traces",
        "http://:",
    ] {
        let error = endpoint(bad).unwrap_err().to_string();
        assert!(error.contains("http://127.0.0.1:4317"), "{bad}: {error}");
    }
}
