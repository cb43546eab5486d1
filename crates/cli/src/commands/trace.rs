//! `quorate trace`: where to find a transaction's trace, and the same story without a
//! collector.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use quorate_audit::AuditStore;
use quorate_audit::rows::Filter;
use quorate_consensus::words::{accusation_word, violation_word};
use quorate_consensus::{ClusterId, TxId};
use quorate_node::record::open_record;
use quorate_node::{Config, StartError};
use quorate_telemetry::TraceContext;
use quorate_wire::v1::{Ballot, BoardEvent, Choice, WatchRequest};
use serde_json::{Value, json};
use tokio_stream::StreamExt;

use super::TxArg;
use super::audit::of_store;
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::output::{Out, Tone, choice_text, clock, event_text, state_word};
use crate::remote::{RemoteArgs, Target};

const EXAMPLES: &str = "\
Examples:
  quorate trace tx_001
  quorate trace tx_001 --jaeger-url http://localhost:16686
  quorate trace tx_001 --config /etc/quorate/config.toml     from the audit store itself
  quorate trace tx_001 --json | jq -r .trace_id

The trace id follows from the cluster and the transaction, so it is the same on every node, and
known before anybody has voted. What the table shows comes from the board's log as the node
believes it, or with --config from the audit store, which can be asked when no node answers.";

/// How long to wait for the next event of a log that is there already.
const NEXT: Duration = Duration::from_secs(5);

/// Show where a transaction's trace is, and its story
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TraceArgs {
    #[command(flatten)]
    tx: TxArg,

    /// Where Jaeger's pages are: the trace's address is printed then
    #[arg(long, value_name = "URL", env = "QUORATE_JAEGER_URL")]
    jaeger_url: Option<String>,

    /// Read the audit store of this node's configuration instead of asking a node
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    remote: RemoteArgs,
}

/// One thing that happened.
struct Happened {
    at_ms: u64,
    tone: Tone,
    what: String,
}

/// What is known of a transaction.
struct Story {
    source: String,
    cluster_id: ClusterId,
    state: String,
    /// None where the source does not say.
    missing: Option<Vec<String>>,
    happened: Vec<Happened>,
}

pub(crate) async fn run(args: TraceArgs, out: Out) -> Outcome {
    let tx_id = TxId::new(&args.tx.tx_id()).map_err(Failure::usage)?;
    let story = match &args.config {
        Some(config) => from_record(config.clone(), &tx_id).await?,
        None => from_node(&args.remote.target()?, &tx_id).await?,
    };
    let context = TraceContext::decision(&story.cluster_id, &tx_id);
    let trace_id = context.trace_id.to_string();
    let link = args
        .jaeger_url
        .filter(|url| !url.is_empty())
        .map(|url| format!("{}/trace/{trace_id}", url.trim_end_matches('/')));
    out.line(format!("{}  {}", out.bold(&tx_id), story.state));
    out.line(format!("trace    {trace_id}"));
    if let Some(link) = &link {
        out.line(format!("jaeger   {link}"));
    }
    out.line(format!("source   {}", story.source));
    if let Some(missing) = story.missing.as_ref().filter(|missing| !missing.is_empty()) {
        out.line(format!("missing  {}", missing.join(", ")));
    }
    let began = story.happened.first().map_or(0, |first| first.at_ms);
    let mut table = out.table(&["time", "after", "what happened"]);
    for event in &story.happened {
        let after = format!("{} ms", event.at_ms.saturating_sub(began));
        table.add_row([
            out.cell(Tone::Faint, clock(event.at_ms)),
            out.cell(Tone::Faint, after),
            out.cell(event.tone, &event.what),
        ]);
    }
    out.line(table);
    let events = story.happened.iter().map(|event| {
        json!({
            "time_ms": event.at_ms,
            "after_ms": event.at_ms.saturating_sub(began),
            "what": event.what,
        })
    });
    out.json_pretty(&json!({
        "tx_id": tx_id.as_str(),
        "trace_id": trace_id,
        "root_span_id": context.span_id.to_string(),
        "jaeger": link,
        "source": story.source,
        "state": story.state,
        "missing": story.missing,
        "events": events.collect::<Vec<Value>>(),
    }));
    Ok(())
}

/// The board's log as a node believes it, up to what the ballot shows now.
async fn from_node(target: &Target, tx_id: &TxId) -> Outcome<Story> {
    let client = Client::connect(target)?;
    let ballot = client.status(tx_id.as_str()).await?;
    let rules = client.rules().await?;
    let bytes: [u8; 32] =
        rules.cluster_id.as_slice().try_into().map_err(|_| {
            Failure::failed("the node answered with a cluster id of another length")
        })?;
    let request = WatchRequest {
        tx_id: tx_id.to_string(),
        from_revision: 0,
    };
    let mut events = client.watch(request).await?;
    let mut happened = Vec::new();
    // A collected ballot is but its final state, and has no revision to wait for.
    let mut seen = 0;
    while seen < ballot.revision {
        let next = tokio::time::timeout(NEXT, events.next()).await;
        let Ok(Some(answer)) = next else { break };
        let answer =
            answer.map_err(|status| Failure::from_status(&status, &target.context.endpoint))?;
        let Some(event) = answer.event else { continue };
        seen = event.revision;
        if seen <= ballot.revision {
            happened.push(told(&event));
        }
    }
    Ok(Story {
        source: format!("the board's log, as {} believes it", target.name),
        cluster_id: ClusterId(bytes),
        state: state_word(ballot.state()).0.to_owned(),
        missing: Some(missing(&ballot)),
        happened,
    })
}

fn told(event: &BoardEvent) -> Happened {
    let (tone, what) = event_text(event);
    Happened {
        at_ms: event.time_ms,
        tone,
        what,
    }
}

fn missing(ballot: &Ballot) -> Vec<String> {
    let without = ballot.trustees.iter().filter(|t| t.choice.is_none());
    without.map(|trustee| trustee.node_id.clone()).collect()
}

/// The rows of the audit store, in the order of their times.
async fn from_record(config: PathBuf, tx_id: &TxId) -> Outcome<Story> {
    let config = Config::load(Some(&config), &[]).map_err(|error| {
        Failure::usage(error).hint("`quorate run --print-default-config` explains every key")
    })?;
    let cluster_id = config.consensus.cluster_id;
    let record = open_record(config).await.map_err(|error| match &error {
        StartError::Audit(error) => of_store(error),
        StartError::Rules { .. } => Failure::usage(&error),
        other => Failure::failed(other),
    })?;
    let (happened, state) = rows(record.as_ref(), tx_id)
        .await
        .map_err(|error| of_store(&error))?;
    if happened.is_empty() {
        return Err(
            Failure::failed(format!("the audit store knows nothing of {tx_id}"))
                .hint("quorate list shows the transactions that a node knows"),
        );
    }
    Ok(Story {
        source: "the audit store".to_owned(),
        cluster_id,
        state,
        missing: None,
        happened,
    })
}

async fn rows(
    record: &dyn AuditStore,
    tx_id: &TxId,
) -> Result<(Vec<Happened>, String), quorate_audit::AuditError> {
    let filter = Filter::tx(tx_id);
    let mut happened = Vec::new();
    let mut add = |at_ms, tone, what: String| {
        happened.push(Happened { at_ms, tone, what });
    };
    for vote in record.votes(&filter).await? {
        let choice = choice_text(Some(&Choice::from(&vote.choice)));
        let late = if vote.late { ", late" } else { "" };
        let what = format!("{} voted {choice}{late}", vote.node_id);
        add(vote.received_at_ms, Tone::Plain, what);
    }
    for found in record.violations(&filter).await? {
        let word = violation_word(found.violation_type);
        let kind = found.proof_kind.as_str();
        let what = format!("violation by {}: {word}, {kind}", found.node_id);
        add(found.detected_at_ms, Tone::Bad, what);
    }
    for said in record.accusations(&filter).await? {
        let kind = accusation_word(said.kind);
        let what = format!("{} accuses {} of {kind}", said.by, said.accused);
        add(said.at_ms, Tone::Warn, what);
    }
    let mut state = record
        .final_state(tx_id)
        .await?
        .map_or("not ended", |state| state_word(state).0)
        .to_owned();
    if let Some(row) = record.submission(tx_id).await? {
        let place = match (&row.account, row.nonce) {
            (Some(account), Some(nonce)) => format!("account {account}, nonce {nonce}"),
            _ => "nothing reserved".to_owned(),
        };
        row.state.as_str().clone_into(&mut state);
        add(
            row.submitted_at_ms,
            Tone::Plain,
            format!("recorded: {place}, sent {} times", row.attempts),
        );
        if let Some(at_ms) = row.confirmed_at_ms {
            let block = row.block_number.unwrap_or_default();
            add(at_ms, Tone::Good, format!("{state} in block {block}"));
        }
    }
    happened.sort_by_key(|event| event.at_ms);
    Ok((happened, state))
}
