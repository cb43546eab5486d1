//! `quorate list`: ballots, newest first.

use clap::{Args, ValueEnum};
use comfy_table::ColumnConstraint;
use quorate_wire::v1::{Ballot, BallotState, ListRequest};

use crate::client::Client;
use crate::failure::Outcome;
use crate::output::{Out, Tone, ago, choice_text, clock_ms, message_json, state_word};
use crate::remote::RemoteArgs;

const EXAMPLES: &str = "\
Examples:
  quorate list
  quorate list --state collecting,submitted       what is not over yet
  quorate list --limit 10 --json | jq '.ballots[].tx_id'";

/// List ballots, newest first
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ListArgs {
    /// Only in this state; may be repeated, or a list with commas
    #[arg(long, value_enum, value_delimiter = ',', ignore_case = true)]
    state: Vec<State>,

    /// At most this many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,

    /// Go on where an earlier list ended
    #[arg(
        long,
        value_name = "TOKEN",
        default_value = "",
        hide_default_value = true
    )]
    page_token: String,

    #[command(flatten)]
    remote: RemoteArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum State {
    Collecting,
    #[value(alias = "threshold_reached")]
    ThresholdReached,
    Submitted,
    Confirmed,
    Failed,
    #[value(alias = "aborted_byzantine")]
    AbortedByzantine,
    #[value(alias = "aborted_split")]
    AbortedSplit,
    #[value(alias = "aborted_timeout")]
    AbortedTimeout,
}

impl From<State> for BallotState {
    fn from(state: State) -> Self {
        match state {
            State::Collecting => Self::Collecting,
            State::ThresholdReached => Self::ThresholdReached,
            State::Submitted => Self::Submitted,
            State::Confirmed => Self::Confirmed,
            State::Failed => Self::Failed,
            State::AbortedByzantine => Self::AbortedByzantine,
            State::AbortedSplit => Self::AbortedSplit,
            State::AbortedTimeout => Self::AbortedTimeout,
        }
    }
}

pub(crate) async fn run(args: ListArgs, out: Out) -> Outcome {
    let request = ListRequest {
        states: args
            .state
            .iter()
            .map(|state| BallotState::from(*state).into())
            .collect(),
        page_size: args.limit,
        page_token: args.page_token,
    };
    let page = Client::connect(&args.remote.target()?)?
        .list(request)
        .await?;
    out.json_pretty(&message_json("ListResponse", &page));
    if page.ballots.is_empty() {
        out.line("no ballots: open one with `quorate vote --tx-id tx_001 --value 42`");
        return Ok(());
    }
    let now = clock_ms();
    let mut table = out.table(&[
        "transaction",
        "state",
        "value",
        "votes",
        "opened",
        "violations",
    ]);
    // One word; a long tx_id beside it gives way.
    if let Some(states) = table.column_mut(1) {
        states.set_constraint(ColumnConstraint::ContentWidth);
    }
    for ballot in &page.ballots {
        let (state, tone) = state_word(ballot.state());
        table.add_row([
            out.cell(Tone::Plain, &ballot.tx_id),
            out.cell(tone, state),
            out.cell(Tone::Plain, choice_text(ballot.value.as_ref())),
            out.cell(Tone::Plain, votes(ballot)),
            out.cell(Tone::Faint, ago(ballot.opened_ms, now)),
            out.cell(Tone::Bad, violators(ballot)),
        ]);
    }
    out.line(table);
    if !page.next_page_token.is_empty() {
        out.line(format!(
            "more: quorate list --page-token {}",
            page.next_page_token
        ));
    }
    Ok(())
}

fn votes(ballot: &Ballot) -> String {
    let leading = ballot.tally.first().map_or(0, |tally| tally.count);
    match &ballot.rules {
        Some(rules) => format!("{leading} of {} needed", rules.threshold),
        None => leading.to_string(),
    }
}

fn violators(ballot: &Ballot) -> String {
    let mut nodes: Vec<_> = ballot
        .violations
        .iter()
        .map(|v| v.node_id.as_str())
        .collect();
    nodes.dedup();
    nodes.join(", ")
}
