//! `quorate reputation`: what the board says of the trustees.

use clap::Args;
use quorate_consensus::NodeId;
use quorate_consensus::words::violation_word;
use quorate_wire::v1::{ReputationRequest, TrusteeReputation};

use super::parse_node_id;
use crate::failure::Outcome;
use crate::operator::{Operator, as_operator};
use crate::output::{Out, Tone, ago, clock_ms, message_json};
use crate::remote::RemoteArgs;

const EXAMPLES: &str = "\
Examples:
  quorate reputation
  quorate reputation node3
  quorate reputation --json | jq '.trustees[] | select(.thousandths < 500) | .node_id'";

/// Show what the board says of the trustees: reputation, violations, bans
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReputationArgs {
    /// Only this trustee
    #[arg(value_name = "NODE_ID", value_parser = parse_node_id)]
    trustee: Option<NodeId>,

    #[command(flatten)]
    remote: RemoteArgs,
}

pub(crate) async fn run(args: ReputationArgs, out: Out) -> Outcome {
    let target = as_operator(args.remote.target()?)?;
    let request = ReputationRequest {
        node_id: args.trustee.map(|id| id.to_string()).unwrap_or_default(),
    };
    let said = Operator::connect(&target)?.reputation(request).await?;
    out.json_pretty(&message_json("ReputationResponse", &said));
    let headings = [
        "trustee",
        "reputation",
        "votes",
        "violations",
        "absent",
        "stands",
    ];
    let mut table = out.table(&headings);
    for trustee in &said.trustees {
        let (standing, tone) = standing(trustee);
        table.add_row([
            out.cell(Tone::Plain, &trustee.node_id),
            out.cell(reputation_tone(trustee), reputation_text(trustee)),
            out.cell(Tone::Plain, trustee.total_votes),
            out.cell(Tone::Plain, trustee.violations),
            out.cell(Tone::Faint, trustee.absences),
            out.cell(tone, standing),
        ]);
    }
    out.line(table);
    Ok(())
}

/// 0 to 1, to three places.
pub(crate) fn reputation_text(trustee: &TrusteeReputation) -> String {
    let thousandths = trustee.thousandths;
    format!("{}.{:03}", thousandths / 1000, thousandths % 1000)
}

pub(crate) fn reputation_tone(trustee: &TrusteeReputation) -> Tone {
    match trustee.thousandths {
        0..300 => Tone::Bad,
        300..500 => Tone::Warn,
        _ => Tone::Plain,
    }
}

/// Banned, accused or neither, in words.
pub(crate) fn standing(trustee: &TrusteeReputation) -> (String, Tone) {
    if trustee.banned {
        let word = violation_word(trustee.banned_for());
        let since = ago(trustee.banned_since_ms, clock_ms());
        let acts = match trustee.unban_acts_by.as_slice() {
            [] => String::new(),
            acts => format!("; to be lifted, say {}", acts.join(", ")),
        };
        return (format!("banned for {word} {since}{acts}"), Tone::Bad);
    }
    match trustee.accused_by.as_slice() {
        [] => ("-".into(), Tone::Faint),
        by => (format!("accused by {}", by.join(", ")), Tone::Warn),
    }
}
