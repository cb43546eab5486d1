//! `quorate info`: what a node is, how it is, and what waits in it.

use clap::Args;
use quorate_wire::v1::{InfoRequest, InfoResponse};
use serde_json::json;

use crate::failure::Outcome;
use crate::operator::{Operator, OperatorArgs};
use crate::output::{Out, Tone, ago, clock, clock_ms, short_hex, state_word};
use crate::remote::Target;
use crate::rounds::{Round, each};

const EXAMPLES: &str = "\
Examples:
  quorate info                     the node of the current context
  quorate info --all               every node whose operator certificate the contexts hold
  quorate info --json | jq '.nodes[0].answer.queues'";

/// Show what a node is, how it is, and what waits in it
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InfoArgs {
    #[command(flatten)]
    operator: OperatorArgs,
}

pub(crate) async fn run(args: InfoArgs, out: Out) -> Outcome {
    let ask = async |target: &Target| Operator::connect(target)?.info(InfoRequest {}).await;
    let round = each(args.operator.targets()?, ask).await;
    out.json_pretty(&json!({ "nodes": round.json("InfoResponse") }));
    match round.answers.as_slice() {
        [(_, Ok(info))] => print(info, out),
        _ => print_all(&round, out),
    }
    round.end("answered")
}

fn print(info: &InfoResponse, out: Out) {
    let now = clock_ms();
    let (how, tone) = how_it_is(info);
    let rules = info.rules.clone().unwrap_or_default();
    let queues = info.queues.unwrap_or_default();
    let ballots = info.ballots.iter().map(|ballots| {
        let (state, _) = state_word(ballots.state());
        format!("{} {state}", ballots.count)
    });
    let ballots: Vec<_> = ballots.collect();
    let mut rows = vec![
        ("node", Tone::Plain, info.node_id.clone()),
        ("it is", tone, how),
    ];
    for cause in &info.causes {
        let text = format!("{}: {}. {}", cause.cause, cause.detail, cause.advice);
        rows.push(("cause", Tone::Bad, text));
    }
    rows.extend([
        ("version", Tone::Plain, version(info)),
        (
            "cluster",
            Tone::Plain,
            format!("{}, {}", info.cluster_name, hex::encode(&info.cluster_id)),
        ),
        (
            "rules",
            Tone::Plain,
            format!(
                "epoch {}, N = {}, t = {}, digest {}",
                rules.epoch,
                rules.total_nodes,
                rules.threshold,
                short_hex(&rules.digest)
            ),
        ),
        (
            "clock",
            Tone::Plain,
            format!(
                "{}, {} ms from this machine's",
                clock(info.server_time_ms),
                i128::from(info.server_time_ms) - i128::from(now)
            ),
        ),
        (
            "started",
            Tone::Plain,
            format!(
                "{}, generation {}",
                ago(info.started_ms, info.server_time_ms),
                info.generation
            ),
        ),
        ("listens at", Tone::Plain, listens(info)),
        (
            "certificate",
            Tone::Plain,
            format!("until {}", clock(info.certificate_not_after_ms)),
        ),
        (
            "board",
            Tone::Plain,
            format!("{}, revision {}", info.coordinator, info.board_revision),
        ),
        (
            "audit record",
            Tone::Plain,
            format!("{}, revision {}", info.audit_store, info.audit_revision),
        ),
        ("chain", Tone::Plain, info.chain.clone()),
        ("ballots", Tone::Plain, or_none(&ballots.join(", "))),
        (
            "waiting",
            Tone::Plain,
            format!(
                "{} messages, {} requests, {} own votes, {} held votes, {} questions",
                queues.mailbox,
                queues.requests,
                queues.own_votes,
                queues.held_votes,
                queues.questions
            ),
        ),
        ("logs", Tone::Plain, or_none(&info.log_level)),
    ]);
    out.line(out.pairs(rows));
}

fn print_all(round: &Round<InfoResponse>, out: Out) {
    let headings = [
        "node", "it is", "version", "board", "record", "streams", "clock",
    ];
    let mut table = out.table(&headings);
    let now = clock_ms();
    for (name, answer) in &round.answers {
        match answer {
            Err(failure) => {
                table.add_row([out.cell(Tone::Plain, name), out.cell(Tone::Bad, failure)]);
            }
            Ok(info) => {
                let (how, tone) = how_it_is(info);
                let off = i128::from(info.server_time_ms) - i128::from(now);
                let streams = info.queues.map_or(0, |queues| queues.streams);
                table.add_row([
                    out.cell(Tone::Plain, &info.node_id),
                    out.cell(tone, how),
                    out.cell(Tone::Plain, &info.version),
                    out.cell(Tone::Plain, info.board_revision),
                    out.cell(Tone::Plain, info.audit_revision),
                    out.cell(Tone::Plain, streams),
                    out.cell(Tone::Faint, format!("{off} ms")),
                ]);
            }
        }
    }
    out.line(table);
}

/// In a few words, and their colour.
pub(crate) fn how_it_is(info: &InfoResponse) -> (String, Tone) {
    match (&*info.signing_stopped, info.in_service, info.ready) {
        ("", true, true) => ("in service and ready".into(), Tone::Good),
        ("", true, false) => ("in service, and not ready".into(), Tone::Warn),
        ("", false, _) => ("not in service".into(), Tone::Bad),
        (why, ..) => (format!("signing nothing: {why}"), Tone::Bad),
    }
}

fn version(info: &InfoResponse) -> String {
    format!(
        "{}, protocol {} to {}",
        info.version, info.protocol_min, info.protocol_max
    )
}

fn listens(info: &InfoResponse) -> String {
    match &*info.health_addr {
        "" => info.listen_addr.clone(),
        health => format!("{}, health at http://{health}", info.listen_addr),
    }
}

fn or_none(text: &str) -> String {
    match text {
        "" => "-".into(),
        text => text.into(),
    }
}
