//! `quorate drain`: a node drains and ends, as with SIGTERM.

use clap::Args;
use quorate_wire::v1::DrainRequest;
use serde_json::json;

use crate::failure::Outcome;
use crate::operator::{Operator, OperatorArgs};
use crate::output::Out;
use crate::remote::Target;
use crate::rounds::each;

const EXAMPLES: &str = "\
Examples:
  quorate drain --node node2
  quorate drain --all              ends every node whose operator certificate the contexts hold

The node takes nothing new, answers those who wait, and ends within 30 s. Whether it is started
again is its service manager's to say.";

/// Have a node drain and end
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    operator: OperatorArgs,
}

pub(crate) async fn run(args: DrainArgs, out: Out) -> Outcome {
    let act = async |target: &Target| Operator::connect(target)?.drain(DrainRequest {}).await;
    let round = each(args.operator.targets()?, act).await;
    out.json_pretty(&json!({ "nodes": round.json("DrainResponse") }));
    round.shown(out, |answer| {
        format!("drains, and has ended within {} s", answer.within_ms / 1000)
    })
}
