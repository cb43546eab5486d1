//! `quorate send`: a message to another trustee's node.

use std::io::Read as _;
use std::path::Path;

use clap::Args;
use quorate_consensus::NodeId;
use quorate_wire::v1::SendRequest;
use serde_json::json;

use super::parse_node_id;
use crate::failure::{Failure, Outcome};
use crate::files;
use crate::operator::{Operator, as_operator};
use crate::output::Out;
use crate::remote::RemoteArgs;

const EXAMPLES: &str = "\
Examples:
  quorate send node2 'restarting at 14:00'
  quorate send node2 @notice.txt
  echo hello | quorate send node2 -
  quorate watch --node node2             shows it there

At most 64 KiB. The other node acknowledges it and shows it to whoever watches; nobody stores it.";

/// Send a message to another trustee's node
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SendArgs {
    /// The trustee whose node it is for
    #[arg(value_name = "NODE_ID", value_parser = parse_node_id)]
    to: NodeId,

    /// What to send: text, @FILE, or - for standard input
    #[arg(value_name = "TEXT|@FILE|-", allow_hyphen_values = true)]
    message: String,

    #[command(flatten)]
    remote: RemoteArgs,
}

pub(crate) async fn run(args: SendArgs, out: Out) -> Outcome {
    let target = as_operator(args.remote.target()?)?;
    let data = read(&args.message)?;
    let bytes = data.len();
    let request = SendRequest {
        node_id: args.to.to_string(),
        data,
    };
    let answer = Operator::connect(&target)?.send(request).await?;
    let took_ms = answer.round_trip_ms;
    out.line(format!(
        "{} has acknowledged {bytes} bytes after {took_ms} ms",
        args.to
    ));
    out.json_pretty(&json!({
        "to": args.to.as_str(),
        "bytes": bytes,
        "round_trip_ms": took_ms,
    }));
    Ok(())
}

fn read(message: &str) -> Outcome<Vec<u8>> {
    // One byte more than may be sent tells that it is too much.
    const LIMIT: usize = quorate_engine::MAX_MESSAGE;
    let data = match (message, message.strip_prefix('@')) {
        ("-", _) => {
            let mut data = Vec::new();
            let mut input = std::io::stdin().lock().take(LIMIT as u64 + 1);
            input
                .read_to_end(&mut data)
                .map_err(|e| Failure::failed(format!("cannot read standard input: {e}")))?;
            data
        }
        (_, Some(path)) => files::read(Path::new(path))?,
        (text, None) => text.as_bytes().to_vec(),
    };
    if data.is_empty() || data.len() > LIMIT {
        return Err(Failure::usage(format!(
            "a message has 1 to {LIMIT} bytes, and this one has {}",
            if data.is_empty() { "none" } else { "more" }
        ))
        .hint("send a part of it, or where it can be found"));
    }
    Ok(data)
}
