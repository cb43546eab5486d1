//! `quorate log-level`: what a node's process logs, while it runs.

use clap::Args;
use quorate_wire::v1::SetLogLevelRequest;
use serde_json::json;

use crate::failure::Outcome;
use crate::operator::{Operator, OperatorArgs};
use crate::output::Out;
use crate::remote::Target;
use crate::rounds::each;

const EXAMPLES: &str = "\
Examples:
  quorate log-level debug
  quorate log-level info,quorate_node=debug --all

It holds until the process is started again, or told by SIGHUP to read its configuration.";

/// Change what a node logs, while it runs
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LogLevelArgs {
    /// error, warn, info, debug, trace, off, or directives
    #[arg(value_name = "LEVEL")]
    level: String,

    #[command(flatten)]
    operator: OperatorArgs,
}

pub(crate) async fn run(args: LogLevelArgs, out: Out) -> Outcome {
    let act = async |target: &Target| {
        let level = args.level.clone();
        let request = SetLogLevelRequest { level };
        Operator::connect(target)?.set_log_level(request).await
    };
    let round = each(args.operator.targets()?, act).await;
    out.json_pretty(&json!({ "nodes": round.json("SetLogLevelResponse") }));
    round.shown(out, |answer| {
        format!("logs {}, before {}", answer.level, answer.previous)
    })
}
