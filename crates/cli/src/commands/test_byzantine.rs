//! `quorate test-byzantine`: lies on purpose, with a trustee's own keys, and shows what
//! the cluster does about it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use quorate_consensus::words::violation_word;
use quorate_consensus::{NodeId, TxId};
use quorate_crypto::genesis::read_genesis;
use quorate_wire::v1::{Ballot, GetCertificateResponse};
use serde_json::json;

use super::dev::{default_dir, standing_ready_file};
use super::parse_tx_id;
use crate::byzantine::{
    Honest, Liar, Stage, TestType, double_vote, minority, offence, silent, tolerated,
};
use crate::client::Client;
use crate::contexts::Context;
use crate::failure::{Exit, Failure, Outcome};
use crate::files;
use crate::local::{Layout, Ready, ReadyNode};
use crate::output::{
    Out, Tone, clock_ms, message_json, path_text, print_ballot, standing_word, state_word,
};
use crate::remote::Target;

const EXAMPLES: &str = "\
Examples:
  quorate test-byzantine --test-type double-vote
  quorate test-byzantine --test-type invalid-signature --node node4
  quorate dev --vote-timeout 5            then, in another terminal:
  quorate test-byzantine --test-type silent

Needs a cluster that `quorate dev` started on this machine, because it takes the trustee's keys
from its files. The trustee is banned for good (but not for silence, wrong-rules, replayer and
flooder, which prove nothing): with one banned, five trustees still decide with four votes; for
more, delete the data directory and start anew. The simulator has these liars and more.";

/// Lie on purpose, and see what the cluster does about it
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TestByzantineArgs {
    /// The lie
    #[arg(long, value_enum)]
    test_type: TestType,

    /// The trustee that lies [default: the last one]
    #[arg(long, short = 'n', value_name = "NAME")]
    node: Option<NodeId>,

    /// The transaction to lie about [default: a new one]
    #[arg(long, value_name = "TX", value_parser = parse_tx_id)]
    tx_id: Option<TxId>,

    /// Where the files of the local cluster lie
    #[arg(long, value_name = "DIR", env = "QUORATE_DEV_DIR")]
    data_dir: Option<PathBuf>,
}

pub(crate) async fn run(args: TestByzantineArgs, out: Out) -> Outcome {
    let dir = match &args.data_dir {
        Some(dir) => files::absolute(dir),
        None => default_dir()?,
    };
    let ready = ready(&dir)?;
    let stage = stage(&args, &dir, &ready)?;
    if args.test_type == TestType::Silent {
        let seconds = Duration::from_millis(stage.rules.vote_timeout_ms()).as_secs();
        out.note(format!(
            "the deadline is {seconds} s after the vote that starts the ballot; `quorate dev \
             --vote-timeout 5` on a new --data-dir has a shorter one"
        ));
    }
    let began = Instant::now();
    let ballot = act(args.test_type, &stage).await.map_err(|failure| {
        // Most often because earlier lies have used the trustees up.
        match (failure.exit(), failure.advice()) {
            (Exit::Deadline, None) => failure.hint(format!(
                "t = {} trustees besides the liar must not be banned: `quorate status {}` names \
                 who is; for more, delete the data directory and start anew",
                stage.rules.threshold(),
                stage.tx_id
            )),
            _ => failure,
        }
    })?;
    let took = began.elapsed();
    let proofs = stage
        .first()?
        .client
        .certificate(stage.tx_id.as_str())
        .await?;
    print(out, args.test_type, &stage, &ballot, &proofs, took);
    Ok(())
}

/// Puts the lie on the stage. Gives the ballot when it is over.
async fn act(test_type: TestType, stage: &Stage) -> Outcome<Ballot> {
    match test_type {
        TestType::DoubleVote => double_vote::act(stage).await,
        TestType::Minority => minority::act(stage).await,
        TestType::Silent => silent::act(stage).await,
        TestType::InvalidSignature
        | TestType::Forger
        | TestType::Malformed
        | TestType::FalseWitness => offence::act(stage, test_type.liar()).await,
        TestType::WrongRules | TestType::Replayer | TestType::Flooder => {
            tolerated::act(stage, test_type.liar()).await
        }
    }
}

fn ready(dir: &std::path::Path) -> Outcome<Ready> {
    let path = standing_ready_file(dir);
    if !path.exists() {
        return Err(Failure::new(
            Exit::Unavailable,
            format!("no local cluster runs on {}", dir.display()),
        )
        .hint("start one with `quorate dev`, or name its directory with --data-dir"));
    }
    serde_json::from_slice(&files::read(&path)?).map_err(|e| {
        Failure::usage(format!("{} is no ready file: {e}", path.display()))
            .hint("stop `quorate dev` and start it again")
    })
}

fn stage(args: &TestByzantineArgs, dir: &std::path::Path, ready: &Ready) -> Outcome<Stage> {
    let layout = Layout::new(dir.to_owned());
    let rules = Arc::new(read_genesis(&layout.genesis()).map_err(Failure::usage)?);
    let ids: Vec<_> = rules
        .members()
        .map(|member| member.node_id.clone())
        .collect();
    let last = || ids.last().cloned();
    let node_id = args
        .node
        .clone()
        .or_else(last)
        .unwrap_or_else(|| ids[0].clone());
    if !rules.is_member(&node_id) {
        let names: Vec<_> = ids.iter().map(ToString::to_string).collect();
        return Err(
            Failure::usage(format!("{node_id} is not a trustee of this cluster"))
                .hint(format!("its trustees are {}", names.join(", "))),
        );
    }
    let others = ready
        .nodes
        .iter()
        .filter(|node| node.node_id != node_id.as_str());
    let honest = others.map(honest).collect::<Outcome<Vec<_>>>()?;
    let ca_cert = quorate_tls::pki::cluster_ca_cert(&layout.ca_dir());
    let tx_id = match &args.tx_id {
        Some(tx_id) => tx_id.clone(),
        None => TxId::new(&format!(
            "byzantine-{}-{}",
            args.test_type.name(),
            clock_ms()
        ))
        .map_err(Failure::usage)?,
    };
    Ok(Stage {
        liar: Liar::load(&node_id, rules.clone(), &layout.node(&node_id), &ca_cert)?,
        honest,
        rules,
        tx_id,
    })
}

fn honest(node: &ReadyNode) -> Outcome<Honest> {
    let client = Client::connect(&Target {
        name: node.node_id.clone(),
        context: Context {
            endpoint: node.endpoint.clone(),
            cacert: node.cacert.clone(),
            cert: node.cert.clone(),
            key: node.key.clone(),
            operator_cert: None,
            operator_key: None,
            cluster_id: None,
        },
        timeout: Duration::from_secs(30),
    })?;
    Ok(Honest {
        node_id: NodeId::new(&node.node_id).map_err(Failure::usage)?,
        endpoint: node.endpoint.clone(),
        client,
    })
}

fn print(
    out: Out,
    test_type: TestType,
    stage: &Stage,
    ballot: &Ballot,
    proofs: &GetCertificateResponse,
    took: Duration,
) {
    let liar = stage.liar.node_id().as_str();
    let trustee = ballot
        .trustees
        .iter()
        .find(|trustee| trustee.node_id == liar);
    let standing = trustee
        .map(|t| standing_word(t.standing()).0)
        .unwrap_or_default();
    let banned = trustee.is_some_and(|trustee| trustee.banned);
    let charges: Vec<_> = ballot
        .violations
        .iter()
        .filter(|violation| violation.node_id == liar)
        .map(|violation| violation_word(violation.r#type()))
        .collect();
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    out.json_pretty(&json!({
        "test_type": test_type.name(),
        "node_id": liar,
        "tx_id": ballot.tx_id,
        "standing": standing,
        "banned": banned,
        "charges": charges,
        "evidence": proofs.evidence.len(),
        "took_ms": took_ms,
        "ballot": message_json("Ballot", ballot),
    }));
    let charges = match charges.as_slice() {
        [] if banned => "accused by the others".to_owned(),
        [] => "none".to_owned(),
        charges => charges.join(", "),
    };
    let evidence = match proofs.evidence.len() {
        0 => "none that would convince a stranger".to_owned(),
        count => format!(
            "{count}: quorate certificate {} --evidence-dir lies/",
            ballot.tx_id
        ),
    };
    let (state, tone) = state_word(ballot.state());
    let mut table = out.table(&["what the cluster did", ""]);
    let rows = [
        (
            "the lie",
            Tone::Plain,
            format!("{} by {liar}", test_type.name()),
        ),
        ("charge", Tone::Bad, charges),
        ("evidence", Tone::Plain, evidence),
        (
            "the liar",
            if banned { Tone::Bad } else { Tone::Warn },
            match (standing, banned) {
                ("banned", _) => "banned".to_owned(),
                (_, true) => format!("{standing}, banned"),
                (_, false) => format!("{standing}, not banned"),
            },
        ),
        ("the ballot", tone, state.to_owned()),
        ("path", Tone::Plain, path_text(ballot)),
        ("reason", Tone::Plain, ballot.reason.clone()),
        (
            "time",
            Tone::Plain,
            format!("{took_ms} ms from the lie to the outcome"),
        ),
    ];
    for (name, tone, text) in rows {
        table.add_row([out.cell(Tone::Faint, name), out.cell(tone, text)]);
    }
    out.line(table);
    print_ballot(out, ballot);
}
