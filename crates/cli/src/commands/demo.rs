//! `quorate demo`: seven scenarios, told and checked.

use std::path::PathBuf;

use clap::Args;

use crate::demo;
use crate::failure::Outcome;
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  quorate demo
  quorate demo --scenario 2                  the double vote only
  quorate demo --keep proofs/                keeps the certificate and the evidence
  quorate demo --json | jq .holds

Every scenario runs on five nodes with their own keys, certificates and mTLS streams, in a
directory that is removed afterwards. The exit code is 0 only if every outcome is as told.";

/// Show what a cluster of five trustees does: seven scenarios, each checked
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DemoArgs {
    /// Only this scenario; may be repeated
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=7))]
    scenario: Vec<u8>,

    /// Keep the certificate and the evidence in this directory
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,

    /// What the nodes log, on standard error
    #[arg(
        long,
        value_name = "LEVEL",
        env = "RUST_LOG",
        default_value = "off",
        hide_default_value = true
    )]
    log_level: String,
}

pub(crate) async fn run(args: DemoArgs, out: Out) -> Outcome {
    demo::run(&args.scenario, args.keep.as_deref(), &args.log_level, out).await
}
