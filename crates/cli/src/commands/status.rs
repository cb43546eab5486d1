//! `quorate status`: the vote ledger of one transaction.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::TxArg;
use super::certificate::save_proof;
use crate::client::Client;
use crate::failure::Outcome;
use crate::output::{Out, message_json, print_ballot};
use crate::remote::RemoteArgs;

const EXAMPLES: &str = "\
Examples:
  quorate status tx_001
  quorate status --tx-id tx_001 --json | jq .state
  quorate status tx_001 --node node1,node5          what two nodes know
  quorate status tx_001 --save-certificate tx_001.proof";

/// Show the vote ledger of a transaction: who voted, what it waits for, what became of it
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    tx: TxArg,

    /// Save the certificate or abort proof too, for `quorate verify`
    #[arg(long, value_name = "FILE")]
    save_certificate: Option<PathBuf>,

    #[command(flatten)]
    remote: RemoteArgs,
}

pub(crate) async fn run(args: StatusArgs, out: Out) -> Outcome {
    let tx_id = args.tx.tx_id();
    let targets = args.remote.targets()?;
    let mut found = Vec::new();
    for target in &targets {
        let ballot = Client::connect(target)?.status(&tx_id).await?;
        if targets.len() > 1 {
            out.line(out.bold(format!("as {} knows it:", target.name)));
        }
        print_ballot(out, &ballot);
        found.push((target.name.clone(), message_json("Ballot", &ballot)));
    }
    // One node's answer is the ballot itself, so that `.state` works.
    match found.as_slice() {
        [(_, ballot)] => out.json_pretty(ballot),
        several => {
            let nodes: Vec<Value> = several
                .iter()
                .map(|(node, ballot)| json!({ "node": node, "ballot": ballot }))
                .collect();
            out.json_pretty(&json!({ "nodes": nodes }));
        }
    }
    if let (Some(file), Some(target)) = (&args.save_certificate, targets.first()) {
        let answer = Client::connect(target)?.certificate(&tx_id).await?;
        let saved = save_proof(&tx_id, &answer, file)?;
        out.line(format!("{saved} saved to {}", file.display()));
    }
    Ok(())
}
