//! `quorate unban`: a node's part of lifting a ban; t of them lift it.

use clap::Args;
use quorate_consensus::NodeId;
use quorate_wire::v1::{SignedStatement, UnbanRequest, UnbanResponse};
use serde_json::json;

use super::parse_node_id;
use crate::failure::Outcome;
use crate::operator::{Operator, OperatorArgs};
use crate::output::Out;
use crate::remote::Target;
use crate::rounds::in_turn;

const EXAMPLES: &str = "\
Examples:
  quorate unban node3                    the part of the current context's trustee
  quorate unban node3 --all              of every trustee whose operator certificate is held here
  quorate unban node3 --pardon <digest>  only if the ban rests on this proof

Lifting a ban takes t trustees, banned ones included: their acts are handed from node to node here.
What is pardoned cannot ban again; `quorate violations` shows a ban's digest.";

/// Say that a trustee's ban be lifted; t who say so lift it
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct UnbanArgs {
    /// The trustee
    #[arg(value_name = "NODE_ID", value_parser = parse_node_id)]
    trustee: NodeId,

    /// Digest of the ban's proof, 64 hexadecimal digits; may be repeated [default: that of
    /// the ban in force]
    #[arg(long, value_name = "DIGEST", value_parser = parse_digest)]
    pardon: Vec<Digest>,

    #[command(flatten)]
    operator: OperatorArgs,
}

type Digest = [u8; 32];

fn parse_digest(text: &str) -> Result<Digest, String> {
    let bytes = hex::decode(text).ok();
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| "must be 64 hexadecimal digits, as `quorate violations` shows them".into())
}

pub(crate) async fn run(args: UnbanArgs, out: Out) -> Outcome {
    let node_id = args.trustee.to_string();
    let mut acts: Vec<SignedStatement> = Vec::new();
    let act = async |target: &Target| {
        let request = UnbanRequest {
            node_id: node_id.clone(),
            pardoned: args.pardon.iter().map(|digest| digest.to_vec()).collect(),
            acts: acts.clone(),
        };
        let answer = Operator::connect(target)?.unban(request).await?;
        acts.extend(answer.act.clone());
        Ok(answer)
    };
    let round = in_turn(args.operator.targets()?, act).await;
    out.json_pretty(&json!({
        "trustee": node_id,
        "lifted": round.good().any(|answer| answer.lifted),
        "nodes": round.json("UnbanResponse"),
    }));
    let was_banned = round.good().any(|answer| !answer.lifted);
    let lifted = was_banned && round.good().any(|answer| answer.lifted);
    let shown = round.shown(out, told);
    if lifted {
        out.line(format!("the ban of {node_id} is lifted"));
    }
    shown
}

fn told(answer: &UnbanResponse) -> String {
    if answer.lifted {
        return format!("{} is not banned (any more)", answer.node_id);
    }
    format!(
        "said so; {} of {} have: {}",
        answer.acts_by.len(),
        answer.threshold,
        answer.acts_by.join(", ")
    )
}
