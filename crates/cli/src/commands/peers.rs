//! `quorate peers`: the other trustees' nodes as one node sees them.

use clap::Args;
use quorate_wire::v1::{PeerNode, PeersRequest};

use crate::failure::Outcome;
use crate::operator::{Operator, as_operator};
use crate::output::{Out, Tone, message_json, short_hex};
use crate::remote::RemoteArgs;

const EXAMPLES: &str = "\
Examples:
  quorate peers
  quorate peers --node node2
  quorate peers --json | jq '.peers[] | select(.connected | not) | .node_id'";

/// Show the other trustees' nodes as a node sees them
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PeersArgs {
    #[command(flatten)]
    remote: RemoteArgs,
}

pub(crate) async fn run(args: PeersArgs, out: Out) -> Outcome {
    let target = as_operator(args.remote.target()?)?;
    let seen = Operator::connect(&target)?.peers(PeersRequest {}).await?;
    out.json_pretty(&message_json("PeersResponse", &seen));
    let mut table = out.table(&["node", "stream", "address", "generation", "peer id"]);
    for peer in &seen.peers {
        let (stream, tone) = stream_word(peer);
        table.add_row([
            out.cell(Tone::Plain, &peer.node_id),
            out.cell(tone, stream),
            out.cell(Tone::Plain, address(peer)),
            out.cell(Tone::Faint, peer.generation),
            out.cell(Tone::Faint, short_hex(&peer.peer_id)),
        ]);
    }
    out.line(format!("as {} sees them", out.bold(&seen.node_id)));
    out.line(table);
    Ok(())
}

/// How it stands between the two, and its colour.
pub(crate) fn stream_word(peer: &PeerNode) -> (&'static str, Tone) {
    match (peer.banned, peer.refused, peer.connected) {
        (true, ..) => ("banned", Tone::Bad),
        (_, true, _) => ("refused by this node", Tone::Bad),
        (_, _, true) => ("up", Tone::Good),
        _ if peer.generation == 0 => ("never seen", Tone::Warn),
        _ => ("down", Tone::Warn),
    }
}

fn address(peer: &PeerNode) -> String {
    match (&*peer.remote_addr, peer.outgoing) {
        ("", _) => "-".into(),
        (addr, true) => format!("to {addr}"),
        (addr, false) => format!("from {addr}"),
    }
}
