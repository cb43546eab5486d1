//! `quorate violations`: what trustees did, and how that is known.

use std::path::{Path, PathBuf};

use clap::Args;
use prost::Message as _;
use quorate_consensus::NodeId;
use quorate_consensus::words::{accusation_word, violation_word};
use quorate_wire::v1::{Proof, ViolationsRequest, ViolationsResponse};

use super::{OptionalTxArg, parse_node_id};
use crate::failure::Outcome;
use crate::files::write_atomically;
use crate::operator::{Operator, as_operator};
use crate::output::{Out, Tone, clock, message_json};
use crate::remote::RemoteArgs;

const EXAMPLES: &str = "\
Examples:
  quorate violations
  quorate violations --trustee node3
  quorate violations tx_001 --save evidence     each proof in a file
  quorate verify evidence/node3-DOUBLE_VOTING-tx_001.proof --cluster-id <64 hex digits>

A ban's digest is what `quorate unban --pardon` names.";

/// Show violations with their evidence, accusations, and bans
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ViolationsArgs {
    #[command(flatten)]
    tx: OptionalTxArg,

    /// Only of this trustee
    #[arg(long, value_name = "NODE_ID", value_parser = parse_node_id)]
    trustee: Option<NodeId>,

    /// At most this many of each kind, the latest
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,

    /// Write what a stranger can check into this directory, for `quorate verify`
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,

    #[command(flatten)]
    remote: RemoteArgs,
}

pub(crate) async fn run(args: ViolationsArgs, out: Out) -> Outcome {
    let target = as_operator(args.remote.target()?)?;
    let request = ViolationsRequest {
        node_id: args.trustee.map(|id| id.to_string()).unwrap_or_default(),
        tx_id: args.tx.tx_id().unwrap_or_default(),
        limit: args.limit,
    };
    let found = Operator::connect(&target)?.violations(request).await?;
    if let Some(dir) = &args.save {
        save(dir, &found, out)?;
    }
    out.json_pretty(&message_json("ViolationsResponse", &found));
    print(&found, out);
    Ok(())
}

fn print(found: &ViolationsResponse, out: Out) {
    if found.violations.is_empty() && found.accusations.is_empty() && found.bans.is_empty() {
        out.line("none");
    }
    if !found.violations.is_empty() {
        let headings = [
            "found",
            "trustee",
            "violation",
            "transaction",
            "a stranger can check",
        ];
        let mut table = out.table(&headings);
        for violation in &found.violations {
            table.add_row([
                out.cell(Tone::Faint, clock(violation.detected_ms)),
                out.cell(Tone::Plain, &violation.node_id),
                out.cell(Tone::Bad, violation_word(violation.r#type())),
                out.cell(Tone::Plain, or_dash(&violation.tx_id)),
                out.cell(Tone::Plain, yes(violation.proof.is_some())),
            ]);
        }
        out.line(table);
    }
    if !found.accusations.is_empty() {
        let mut table = out.table(&["accused", "trustee", "by", "of", "transaction"]);
        for accusation in &found.accusations {
            let kind = accusation_word(accusation.kind());
            table.add_row([
                out.cell(Tone::Faint, clock(accusation.time_ms)),
                out.cell(Tone::Plain, &accusation.node_id),
                out.cell(Tone::Plain, &accusation.by),
                out.cell(Tone::Warn, kind),
                out.cell(Tone::Plain, or_dash(&accusation.tx_id)),
            ]);
        }
        out.line(table);
    }
    if !found.bans.is_empty() {
        let mut table = out.table(&["banned", "trustee", "for", "digest of the proof"]);
        for ban in &found.bans {
            table.add_row([
                out.cell(Tone::Faint, clock(ban.since_ms)),
                out.cell(Tone::Plain, &ban.node_id),
                out.cell(Tone::Bad, violation_word(ban.r#type())),
                out.cell(Tone::Plain, hex::encode(&ban.proof_digest)),
            ]);
        }
        out.line(table);
    }
    if found.truncated {
        out.line("there are more: ask for one --trustee or transaction, or for more with --limit");
    }
    if !found.from_record {
        out.line("the audit store did not answer: ballots collected from the board are missing");
    }
}

fn save(dir: &Path, found: &ViolationsResponse, out: Out) -> Outcome {
    let violations = found.violations.iter().filter_map(|violation| {
        let word = violation_word(violation.r#type());
        let name = format!("{}-{word}-{}", violation.node_id, violation.tx_id);
        Some((name, violation.proof.as_ref()?))
    });
    let bans = found.bans.iter().filter_map(|ban| {
        let word = violation_word(ban.r#type());
        let name = format!("{}-ban-{word}", ban.node_id);
        Some((name, ban.proof.as_ref()?))
    });
    let proofs: Vec<(String, &Proof)> = violations.chain(bans).collect();
    for (name, proof) in &proofs {
        let path = dir.join(format!("{name}.proof"));
        write_atomically(&path, &proof.encode_to_vec())?;
        out.note(format!("wrote {}", path.display()));
    }
    if proofs.is_empty() {
        out.note("nothing of it can be checked by a stranger, so nothing was written");
    }
    Ok(())
}

fn or_dash(text: &str) -> &str {
    match text {
        "" => "-",
        text => text,
    }
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}
