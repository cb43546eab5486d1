//! `quorate doctor`: what is wrong with nodes and their surroundings, and what to do.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::doctor::{Findings, Level, machine, nodes};
use crate::failure::{Failure, Outcome};
use crate::operator::OperatorArgs;
use crate::output::{Out, Tone};

const EXAMPLES: &str = "\
Examples:
  quorate doctor                              every node whose operator certificate is held
  quorate doctor --config config.toml         one node, on its own machine
  quorate doctor --config config.toml --all   both
  quorate doctor --json | jq '.findings[] | select(.level != \"good\")'

Asked by their operators, nodes tell whether they are ready, and are held against each other:
clocks, versions, rules. From its configuration a node's keys, certificate and names, ports,
directories, stores and peers are looked at, whether it runs or not. Nothing is changed. Ends with
1 if something is bad.";

/// Look for what is wrong with nodes, and say what to do
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DoctorArgs {
    /// Look at the node of this configuration, from its own machine; nodes are asked
    /// besides only if some are named
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Show what is as it should be, too
    #[arg(short, long)]
    verbose: bool,

    #[command(flatten)]
    operator: OperatorArgs,
}

pub(crate) async fn run(mut args: DoctorArgs, out: Out) -> Outcome {
    let mut findings = Findings::default();
    if let Some(config) = &args.config {
        machine::examine(config, &mut findings).await;
    }
    let remote = &args.operator.remote;
    let named = args.operator.all || !remote.nodes.is_empty() || remote.endpoint.is_some();
    if named || args.config.is_none() {
        args.operator.all |= !named;
        nodes::examine(args.operator.targets()?, &mut findings).await;
    }
    // The worst first; what belongs together stays so.
    findings
        .0
        .sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let (bad, warnings) = (findings.count(Level::Bad), findings.count(Level::Warn));
    let good = findings.count(Level::Good);
    let listed = findings.0.iter().map(|finding| {
        json!({
            "level": finding.level.word(),
            "check": finding.check,
            "subject": finding.subject,
            "found": finding.found,
            "advice": finding.advice,
        })
    });
    out.json_pretty(&json!({
        "bad": bad,
        "warnings": warnings,
        "good": good,
        "findings": listed.collect::<Vec<_>>(),
    }));
    for finding in &findings.0 {
        let tone = match finding.level {
            Level::Good if !args.verbose => continue,
            Level::Good => Tone::Good,
            Level::Warn => Tone::Warn,
            Level::Bad => Tone::Bad,
        };
        let level = out.paint(tone, format!("{:<5}", finding.level.word()));
        out.line(format!(
            "{level} {}: {}: {}",
            finding.check, finding.subject, finding.found
        ));
        if !finding.advice.is_empty() {
            out.line(format!("      do: {}", finding.advice));
        }
    }
    let sum = format!("{bad} bad, {warnings} to look at, {good} as they should be");
    out.line(&sum);
    match bad {
        0 => Ok(()),
        _ => Err(Failure::failed(sum).hint("each finding says what to do about it")),
    }
}
