//! `quorate ban`: a node's refusal and accusation of a trustee; t of them ban.

use clap::Args;
use quorate_consensus::NodeId;
use quorate_wire::v1::{BanRequest, BanResponse};
use serde_json::json;

use super::parse_node_id;
use crate::failure::Outcome;
use crate::operator::{Operator, OperatorArgs};
use crate::output::Out;
use crate::remote::Target;
use crate::rounds::each;

const EXAMPLES: &str = "\
Examples:
  quorate ban node3                refused and accused by the node of the current context
  quorate ban node3 --all          by every node whose operator certificate the contexts hold
  quorate ban node3 --node node1,node2

An operator acts on its own node: that refuses the trustee at once, and puts its signed accusation
on the board. The cluster bans when t trustees accuse. Agree with the other operators first: you
cannot take it back alone. Your node refuses the trustee until t have banned it and t have lifted
the ban. Repeating it is safe.";

/// Refuse and accuse a trustee; t accusations ban it
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BanArgs {
    /// The trustee
    #[arg(value_name = "NODE_ID", value_parser = parse_node_id)]
    trustee: NodeId,

    #[command(flatten)]
    operator: OperatorArgs,
}

pub(crate) async fn run(args: BanArgs, out: Out) -> Outcome {
    let mut targets = args.operator.targets()?;
    if args.operator.all {
        // Its own node would refuse to ban itself.
        targets.retain(|target| target.name != args.trustee.as_str());
    }
    let node_id = args.trustee.to_string();
    let act = async |target: &Target| {
        let node_id = node_id.clone();
        Operator::connect(target)?.ban(BanRequest { node_id }).await
    };
    let round = each(targets, act).await;
    out.json_pretty(&json!({
        "trustee": node_id,
        "banned": round.good().any(|answer| answer.banned),
        "nodes": round.json("BanResponse"),
    }));
    round.shown(out, told)
}

fn told(answer: &BanResponse) -> String {
    let count = format!(
        "{} of {} accuse it",
        answer.accused_by.len(),
        answer.threshold
    );
    match (answer.banned, answer.accused) {
        (true, _) => format!("{} is banned by the cluster", answer.node_id),
        (false, true) => format!("refused and accused; {count}"),
        (false, false) => {
            format!("refused; the accusation is not on the board yet, and follows; {count}")
        }
    }
}
