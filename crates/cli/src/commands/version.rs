//! `quorate version`: which version this is, and what it speaks.

use clap::Args;
use serde_json::json;

use crate::failure::Outcome;
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  quorate version
  quorate version --json";

/// Print the version
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VersionArgs {}

pub(crate) fn run(_args: VersionArgs, out: Out) -> Outcome {
    let version = env!("CARGO_PKG_VERSION");
    out.line(format!("quorate {version} (API quorate.v1)"));
    out.json_pretty(&json!({ "version": version, "api": "quorate.v1" }));
    Ok(())
}
