//! `quorate watch`: what happens on the board, as it happens.

use clap::Args;
use quorate_wire::v1::board_event::Event;
use quorate_wire::v1::{BallotState, BoardEvent, WatchRequest};
use serde_json::json;
use tokio_stream::StreamExt;

use super::OptionalTxArg;
use crate::client::Client;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{Out, event_line, message_json, message_line};
use crate::remote::RemoteArgs;

const EXAMPLES: &str = "\
Examples:
  quorate watch                           everything from now on
  quorate watch tx_001                    one transaction, from its first event on
  quorate watch --from 1 --json           the whole board, one JSON object a line
  quorate watch tx_001 --until-final      ends when the ballot is over

Messages that other operators send to this node (`quorate send`) are shown too, unless a transaction
is named; with --json each is an object with the one field \"message\".

Runs until Ctrl-C, whatever --timeout says, and waits for a transaction that nobody has voted on
yet.";

/// Watch what happens on the board
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    tx: OptionalTxArg,

    /// From this revision of the board on
    #[arg(
        long,
        value_name = "REV",
        default_value_t = 0,
        hide_default_value = true
    )]
    from: u64,

    /// End when the transaction is CONFIRMED, FAILED, aborted or expired
    #[arg(long)]
    until_final: bool,

    #[command(flatten)]
    remote: RemoteArgs,
}

pub(crate) async fn run(args: WatchArgs, out: Out) -> Outcome {
    let tx_id = args.tx.tx_id();
    if args.until_final && tx_id.is_none() {
        return Err(Failure::usage("--until-final needs a transaction")
            .hint("quorate watch tx_001 --until-final"));
    }
    let target = args.remote.target()?;
    let request = WatchRequest {
        tx_id: tx_id.unwrap_or_default(),
        from_revision: args.from,
    };
    let mut events = Client::connect(&target)?.watch(request).await?;
    while let Some(answer) = events.next().await {
        let answer =
            answer.map_err(|status| Failure::from_status(&status, &target.context.endpoint))?;
        if let Some(message) = &answer.message {
            out.line(message_line(out, message));
            out.json(&json!({ "message": message_json("MessageReceived", message) }));
        }
        let Some(event) = answer.event else { continue };
        out.line(event_line(out, &event));
        out.json(&message_json("BoardEvent", &event));
        if args.until_final && is_end(&event) {
            return Ok(());
        }
    }
    // A watch has no end of its own: the node stopped.
    Err(Failure::new(
        Exit::Unavailable,
        format!("{} ended the watch", target.name),
    )
    .hint("watch again with --from one more than the last revision shown"))
}

fn is_end(event: &BoardEvent) -> bool {
    match &event.event {
        Some(Event::StateChanged(change)) => matches!(
            change.to(),
            BallotState::Confirmed
                | BallotState::Failed
                | BallotState::AbortedByzantine
                | BallotState::AbortedSplit
                | BallotState::AbortedTimeout
        ),
        Some(Event::Expired(_)) => true,
        _ => false,
    }
}
