use std::sync::Mutex;

use quorate_consensus::board::{Board, Outcome};
use quorate_consensus::statement::{VoteBody, bytes_to_sign, parse};
use quorate_consensus::wire::{BallotState, BoardEntry, BoardOp, SignedStatement};
use quorate_engine::{Now, Proposed};
use quorate_testkit::{Cluster, FakeVerifier, NOW, number, ops, tx};

use super::ballot::Way;
use super::*;

#[derive(Default)]
struct Sink(Mutex<Vec<Stage>>);

impl StageSink for Sink {
    fn passed(&self, stage: Stage, _took: Duration) {
        self.0.lock().unwrap().push(stage);
    }
}

/// One node's traces over a board of its own.
struct Bench {
    cluster: Cluster,
    board: Board,
    traces: Traces,
    sink: Arc<Sink>,
    in_service: bool,
    tickets: u64,
}

impl Bench {
    fn new(settings: Option<Settings>) -> Self {
        let cluster = Cluster::new(4, 3);
        let sink = Arc::new(Sink::default());
        let traces = Traces::new(
            cluster.node_id(0),
            cluster.rules().clone(),
            sink.clone(),
            settings,
            7,
        );
        Self {
            board: Board::new(cluster.rules().clone()),
            cluster,
            traces,
            sink,
            in_service: true,
            tickets: 0,
        }
    }

    fn with_ratio(ratio: f64) -> Self {
        Self::new(Some(Settings {
            ratio,
            values: false,
        }))
    }

    fn apply(&mut self, op: &BoardOp) -> BoardEntry {
        match self.board.apply(op, NOW, &FakeVerifier) {
            Ok(Outcome::Applied(entry)) => entry,
            other => panic!("{other:?}"),
        }
    }

    fn believe(&mut self, entry: BoardEntry) {
        let now = Now {
            wall_ms: NOW,
            mono_ms: 0,
        };
        self.traces.entries(Arrival::now());
        self.traces.handled(Instant::now(), Instant::now());
        let (board, in_service) = (&self.board, self.in_service);
        self.traces.believed(&[entry], board, now, in_service);
    }

    fn happens(&mut self, op: &BoardOp) {
        let entry = self.apply(op);
        self.believe(entry);
    }

    fn vote(&self, i: usize, tx_id: &str, value: u64) -> SignedStatement {
        self.cluster.vote(i, &tx(tx_id), number(value), NOW)
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket {
            generation: 1,
            number: self.tickets,
        }
    }

    fn spans(&mut self) -> Vec<Span> {
        self.traces.take_ready().into_iter().flatten().collect()
    }
}

fn names(spans: &[Span]) -> Vec<&'static str> {
    spans.iter().map(|span| span.name).collect()
}

#[test]
fn the_root_goes_first_and_the_whole_vote_after_it() {
    let mut bench = Bench::with_ratio(1.0);
    let vote = bench.vote(0, "a", 1);
    let ticket = bench.ticket();
    let op = ops::record_vote(vote);
    bench.traces.proposes(ticket, &op);
    let entry = bench.apply(&op);
    let revision = entry.revision;
    bench.believe(entry);
    // The store has not answered yet: more is to come.
    assert_eq!(names(&bench.spans()), ["decision"]);
    bench
        .traces
        .proposed(ticket, &Ok(Proposed::Applied(revision)));
    let spans = bench.spans();
    let expected = [
        "vote.receive",
        "vote.store",
        "vote.count",
        "byzantine.check",
        "vote.aggregate",
        "threshold.check",
    ];
    assert_eq!(names(&spans), expected);
    let root = TraceContext::decision(&bench.cluster.rules().cluster_id(), &tx("a"));
    let [receive, rest @ ..] = &*spans else {
        unreachable!("six were expected");
    };
    assert_eq!(receive.parent, Some(root.span_id));
    assert!(rest.iter().all(|span| span.parent == Some(receive.span_id)));
    assert_eq!(receive.attribute("quorate.reported"), Some(&true.into()));
    assert!(receive.attribute("quorate.value").is_none());
    // The same vote again, by another way, is no news.
    let key = bench.traces.key(&bench.vote(0, "a", 1)).unwrap();
    let way = Way::Stream(StreamId(1));
    assert!(!bench.traces.arrive(&key, way, Instant::now(), None));
}

#[test]
fn the_count_hangs_under_the_recording_that_it_follows() {
    let mut bench = Bench::with_ratio(1.0);
    bench.traces.live = true;
    let op = ops::record_vote(bench.vote(0, "a", 1));
    let ticket = bench.ticket();
    bench.traces.proposes(ticket, &op);
    let entry = bench.apply(&op);
    let answer = Ok(Proposed::Applied(entry.revision));
    bench.traces.proposed(ticket, &answer);
    bench.believe(entry);
    let spans = bench.spans();
    let of = |name| spans.iter().find(|span| span.name == name).unwrap();
    assert_eq!(of("vote.count").parent, Some(of("vote.store").span_id));
}

#[test]
fn what_is_not_sampled_is_kept_back_and_shown_when_the_ballot_aborts() {
    let mut bench = Bench::with_ratio(0.0);
    for (i, value) in [(0, 1), (1, 1), (2, 2), (3, 2)] {
        let vote = bench.vote(i, "a", value);
        bench.happens(&ops::record_vote(vote));
    }
    assert!(bench.spans().is_empty());
    bench.happens(&ops::advance(&tx("a"), BallotState::AbortedSplit));
    let spans = bench.spans();
    let count = |name| spans.iter().filter(|span| span.name == name).count();
    assert_eq!(names(&spans)[0], "decision");
    assert_eq!((count("vote.receive"), count("decision.closed")), (4, 1));
    assert_eq!(bench.traces.held, 0);
}

#[test]
fn a_lie_shows_its_ballot_at_once_with_both_values() {
    let mut bench = Bench::with_ratio(0.0);
    for value in [1, 2] {
        let vote = bench.vote(3, "a", value);
        bench.happens(&ops::record_vote(vote));
    }
    let spans = bench.spans();
    let violation = spans.iter().find(|s| s.name == "violation").unwrap();
    for (name, value) in [("quorate.first_value", "1"), ("quorate.second_value", "2")] {
        let value = quorate_telemetry::span::Value::from(value.to_owned());
        assert_eq!(violation.attribute(name), Some(&value));
    }
    assert_eq!(violation.voice, Voice::Cluster);
    let receives = spans.iter().filter(|span| span.name == "vote.receive");
    let failed: Vec<_> = receives.map(|span| span.error.is_some()).collect();
    assert_eq!(failed, [false, true]);
}

#[test]
fn two_nodes_say_the_same_of_the_board() {
    let said = |own: usize, seed| {
        let mut bench = Bench::with_ratio(1.0);
        bench.traces.own = bench.cluster.node_id(own);
        bench.traces.ids = SpanIds::new(seed);
        for value in [1, 2] {
            let vote = bench.vote(3, "a", value);
            bench.happens(&ops::record_vote(vote));
        }
        bench.happens(&ops::advance(&tx("a"), BallotState::AbortedByzantine));
        let spans = bench.spans().into_iter();
        let common = spans.filter(|span| span.voice == Voice::Cluster);
        common.collect::<Vec<_>>()
    };
    let here = said(0, 1);
    assert_eq!(names(&here), ["decision", "violation", "decision.closed"]);
    assert_eq!(here, said(1, 2));
}

#[test]
fn history_is_not_told_again_but_what_is_still_open_has_its_root() {
    let mut bench = Bench::with_ratio(1.0);
    bench.in_service = false;
    for (i, value) in [(0, 1), (1, 1), (2, 2), (3, 2)] {
        let vote = bench.vote(i, "ended", value);
        bench.happens(&ops::record_vote(vote));
    }
    bench.happens(&ops::advance(&tx("ended"), BallotState::AbortedSplit));
    let vote = bench.vote(0, "open", 1);
    bench.happens(&ops::record_vote(vote));
    assert!(bench.spans().is_empty());
    assert!(bench.sink.0.lock().unwrap().is_empty(), "nor measured");
    bench.in_service = true;
    let vote = bench.vote(1, "open", 1);
    bench.happens(&ops::record_vote(vote));
    let spans = bench.spans();
    assert_eq!(names(&spans)[..2], ["decision", "vote.receive"]);
    let root = TraceContext::decision(&bench.cluster.rules().cluster_id(), &tx("open"));
    assert_eq!(spans[0].span_id, root.span_id);
    assert!(spans.iter().all(|span| span.trace_id == root.trace_id));
}

#[test]
fn stages_are_measured_also_when_nothing_is_exported() {
    let mut bench = Bench::new(None);
    let op = ops::record_vote(bench.vote(0, "a", 1));
    let ticket = bench.ticket();
    bench.traces.proposes(ticket, &op);
    let entry = bench.apply(&op);
    let answer = Ok(Proposed::Applied(entry.revision));
    bench.traces.proposed(ticket, &answer);
    bench.believe(entry);
    assert!(bench.spans().is_empty());
    let measured = bench.sink.0.lock().unwrap().clone();
    let expected = [
        Stage::Store,
        Stage::Count,
        Stage::ByzantineCheck,
        Stage::Aggregate,
        Stage::ThresholdCheck,
    ];
    assert_eq!(measured, expected);
    assert!(bench.traces.ballots[&tx("a")].tracks.is_empty());
}

#[test]
fn memory_is_bounded_by_what_is_open() {
    let mut bench = Bench::with_ratio(0.0);
    // Votes for transactions that never come to be.
    for i in 0..2 * UNOPENED {
        let signed = bench.vote(1, &format!("t{i}"), 1);
        let key = bench.traces.key(&signed).unwrap();
        let way = Way::Stream(StreamId(1));
        bench.traces.arrive(&key, way, Instant::now(), None);
    }
    assert_eq!(bench.traces.ballots.len(), UNOPENED);
    // Votes of one trustee that never come to be, in one transaction.
    for value in 0..100 {
        let signed = bench.vote(1, "many", value);
        let key = bench.traces.key(&signed).unwrap();
        bench
            .traces
            .arrive(&key, Way::Stream(StreamId(1)), Instant::now(), None);
    }
    assert!(bench.traces.ballots[&tx("many")].tracks.len() <= 4 + 16);
    // Ballots that ended.
    for i in 0..ENDED + 10 {
        let name = format!("e{i}");
        for (voter, value) in [(0, 1), (1, 1), (2, 2), (3, 2)] {
            let vote = bench.vote(voter, &name, value);
            bench.happens(&ops::record_vote(vote));
        }
        bench.happens(&ops::advance(&tx(&name), BallotState::AbortedSplit));
        bench.spans();
    }
    assert!(bench.traces.ballots.len() <= UNOPENED + ENDED);
    assert_eq!(bench.traces.held, 0);
    assert!(bench.traces.waits.is_empty());
}

#[test]
fn a_stream_that_was_closed_before_the_lie_was_known_is_told_of() {
    let mut bench = Bench::with_ratio(1.0);
    let liar = bench.cluster.node_id(3);
    bench.traces.stream_up(StreamId(1), &liar);
    bench.traces.stream_up(StreamId(2), &liar);
    bench.traces.stream_down(StreamId(1));
    for value in [1, 2] {
        let vote = bench.vote(3, "a", value);
        bench.happens(&ops::record_vote(vote));
    }
    bench.traces.stream_down(StreamId(2));
    let spans = bench.spans();
    let closed = spans.iter().filter(|span| span.name == "stream.closed");
    assert_eq!(closed.count(), 2);
}

#[test]
fn a_statement_of_another_cluster_or_of_nobody_is_not_followed() {
    let bench = Bench::with_ratio(1.0);
    let other = Cluster::new(5, 4).vote(0, &tx("a"), number(1), NOW);
    let body = VoteBody {
        tx_id: tx("a"),
        choice: number(1).into(),
        time_ms: NOW,
    };
    let nobody = NodeId::new("nobody").unwrap();
    let made_up = SignedStatement {
        statement: bytes_to_sign(bench.cluster.rules(), &nobody, &body),
        signature: vec![1; 64],
    };
    for signed in [other, made_up] {
        assert!(parse::<VoteBody>(&signed.statement).is_ok());
        assert!(bench.traces.key(&signed).is_none());
    }
}

#[test]
fn invented_votes_do_not_keep_a_recorded_one_out_of_the_trace() {
    let mut bench = Bench::with_ratio(1.0);
    for value in 10..100 {
        let signed = bench.vote(1, "a", value);
        let key = bench.traces.key(&signed).unwrap();
        let way = Way::Stream(StreamId(1));
        bench.traces.arrive(&key, way, Instant::now(), None);
    }
    let vote = bench.vote(0, "a", 1);
    bench.happens(&ops::record_vote(vote));
    let names = names(&bench.spans());
    assert!(names.contains(&"vote.receive"), "{names:?}");
}
