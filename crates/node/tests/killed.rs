//! A process that dies at every numbered step of a submission, is started again, and
//! leaves exactly one entry on the ledger and a CONFIRMED row in the audit store.

mod common;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use common::*;
use quorate_audit::rows::SubmissionState;
use quorate_chain::{Chain as _, Ledger, LedgerOptions};
use quorate_consensus::TxId;
use quorate_consensus::wire::{BallotState, SubmitRequest, WaitFor, board_op::Op};
use quorate_engine::{AuditAsk, ChainAsk, Effect, Record};
use quorate_node::{Config, Faults, Node, Parts};

/// Names the configuration file for the child process.
const CONFIG: &str = "QUORATE_TEST_CONFIG";

/// Names the step that the child process dies at; empty for none.
const STEP: &str = "QUORATE_TEST_STEP";

type IsStep = fn(&Effect) -> bool;

/// The steps, each as the effect that begins it: the process dies before it.
const STEPS: [(&str, IsStep); 15] = [
    // First: later starts look at what is confirmed already.
    ("look", |e| {
        asks_chain(e, |ask| matches!(ask, ChainAsk::Look { .. }))
    }),
    ("guard", |e| {
        matches!(e, Effect::Persist(Record::Guard { .. }))
    }),
    ("vote", |e| {
        proposes(e, |op| matches!(op, Op::RecordVote(_)))
    }),
    ("threshold", |e| {
        proposes(e, |op| matches!(op, Op::Advance(_)))
    }),
    ("reserve", |e| {
        proposes(e, |op| matches!(op, Op::Reserve(_)))
    }),
    ("verdict", |e| {
        matches!(e, Effect::Persist(Record::Verdict { .. }))
    }),
    ("certify", |e| {
        proposes(e, |op| matches!(op, Op::Certify(_)))
    }),
    ("lease", |e| proposes(e, |op| matches!(op, Op::Lease(_)))),
    ("pending", |e| {
        asks_audit(e, |ask| matches!(ask, AuditAsk::Pending { .. }))
    }),
    ("prepare", |e| {
        asks_chain(e, |ask| matches!(ask, ChainAsk::Prepare { .. }))
    }),
    ("variant", |e| {
        asks_audit(e, |ask| matches!(ask, AuditAsk::Variant { .. }))
    }),
    ("send", |e| {
        asks_chain(e, |ask| matches!(ask, ChainAsk::Send { .. }))
    }),
    ("attempted", |e| {
        asks_audit(e, |ask| matches!(ask, AuditAsk::Attempted { .. }))
    }),
    ("conclude", |e| {
        proposes(e, |op| matches!(op, Op::Conclude(_)))
    }),
    ("final", |e| {
        matches!(e, Effect::Persist(Record::Final { .. }))
    }),
];

fn proposes(effect: &Effect, is_it: fn(&Op) -> bool) -> bool {
    matches!(effect, Effect::Propose { op, .. } if op.op.as_ref().is_some_and(is_it))
}

fn asks_chain(effect: &Effect, is_it: fn(&ChainAsk) -> bool) -> bool {
    matches!(effect, Effect::Chain { ask, .. } if is_it(ask))
}

fn asks_audit(effect: &Effect, is_it: fn(&AuditAsk) -> bool) -> bool {
    matches!(effect, Effect::Audit { ask, .. } if is_it(ask))
}

/// Not a test: what the child process runs. It does nothing in the parent.
#[tokio::test(flavor = "multi_thread")]
async fn the_child_process() {
    let Ok(path) = std::env::var(CONFIG) else {
        return;
    };
    let step = std::env::var(STEP).unwrap();
    let config = Config::load(Some(Path::new(&path)), &[]).unwrap();
    let mut parts = tokio::task::block_in_place(|| Parts::open(&config)).unwrap();
    if let Some((_, is_step)) = STEPS.into_iter().find(|(name, _)| *name == step) {
        parts.faults = Faults {
            on_effect: Some(Arc::new(move |effect| {
                if is_step(effect) {
                    // Nothing is flushed, unwound or answered, as with kill -9.
                    std::process::abort();
                }
                quorate_node::Verdict::Go
            })),
            ..Faults::default()
        };
    }
    let node = Node::start(parts).await.unwrap();
    assert!(node.in_service().await);
    println!("\nready");
    node.stopped().await;
}

/// Starts the child and waits until it is in service.
fn spawn(config: &Path, step: &str) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_child_process", "--nocapture"])
        .env(CONFIG, config)
        .env(STEP, step)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.map_while(Result::ok).any(|line| line == "ready");
    assert!(ready, "the child did not come into service before {step}");
    child
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_at_any_step_submits_exactly_once() {
    let mut cluster = Cluster::new(1, 1);
    let config = cluster.shared().with_file_name("killed.toml");
    std::fs::write(&config, cluster.hand_over(0)).unwrap();
    for (step, _) in STEPS {
        // With a deadline of its own: the usual one is short for a slow machine.
        let request = || {
            let mut request = tonic::Request::new(SubmitRequest {
                wait: WaitFor::Confirmed.into(),
                ..number(step, 1)
            });
            request.set_timeout(PATIENCE);
            request
        };
        let mut child = spawn(&config, step);
        // It dies in the middle of this; only the last steps come after an answer.
        let submitted = soon(step, cluster.client(0).submit(request())).await;
        if let Ok(answer) = submitted {
            let state = answer.into_inner().ballot.unwrap().state();
            assert_eq!(state, BallotState::Confirmed, "{step}");
        }
        let ended = tokio::task::spawn_blocking(move || child.wait().unwrap());
        let status = soon(step, ended).await.unwrap();
        assert!(!status.success(), "{step} was never reached");

        let mut child = spawn(&config, "");
        let answer = soon(step, cluster.client(0).submit(request())).await;
        let ballot = answer.unwrap_or_else(|status| panic!("{step}: {status:?}"));
        let state = ballot.into_inner().ballot.unwrap().state();
        assert_eq!(state, BallotState::Confirmed, "{step}");
        confirmed_in_audit(&cluster, step).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let options = LedgerOptions::for_target(cluster.rules.chain(), None);
    let ledger = Ledger::open(cluster.shared().join("ledger.db"), options).unwrap();
    let blocks = ledger.recent_blocks(1000).await.unwrap();
    let entries: Vec<_> = blocks
        .iter()
        .flat_map(|block| &block.transactions)
        .collect();
    assert_eq!(entries.len(), STEPS.len(), "one entry for each transaction");
    let mut payloads: Vec<_> = entries.iter().map(|entry| &entry.payload).collect();
    payloads.sort();
    payloads.dedup();
    assert_eq!(payloads.len(), STEPS.len(), "and none twice");
}

/// Waits until the projection shows the submission as CONFIRMED.
async fn confirmed_in_audit(cluster: &Cluster, tx_id: &str) {
    let audit = cluster.audit();
    let tx_id = TxId::new(tx_id).unwrap();
    let confirmed = async {
        loop {
            let row = audit.submission(&tx_id).await.unwrap();
            if row.is_some_and(|row| row.state == SubmissionState::Confirmed) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    soon("a CONFIRMED audit row", confirmed).await;
}
