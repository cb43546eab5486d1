//! `quorate vote`: hands in a vote at one or several trustees' nodes.

use clap::{Args, ValueEnum};
use futures_util::future::join_all;
use quorate_consensus::choice::MAX_DATA_LEN;
use quorate_wire::v1::{self, SubmitRequest, SubmitResponse, WaitFor, submit_request::Vote};
use serde_json::json;

use super::TxArg;
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::files;
use crate::output::{Out, Tone, choice_text, message_json, print_ballot, state_word};
use crate::remote::{RemoteArgs, Target};

const EXAMPLES: &str = "\
Examples:
  quorate vote --tx-id tx_001 --value 42
  quorate vote tx_001 --value 42 --node node1,node2,node3,node4 --wait confirmed
  quorate vote tx_002 --data @release.sha256
  quorate vote tx_003 --abstain

Repeating the same vote is always safe. A second, different value for the same transaction is
refused by the node's sign guard; `quorate test-byzantine` shows what happens to one that lies.
An aborted ballot is an answer, not an error: the exit code is 0 once the vote is recorded.";

/// Vote on a transaction
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VoteArgs {
    #[command(flatten)]
    tx: TxArg,

    #[command(flatten)]
    choice: ChoiceArgs,

    /// How far to wait
    #[arg(long, value_enum, default_value_t = Wait::Recorded)]
    wait: Wait,

    #[command(flatten)]
    remote: RemoteArgs,
}

#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
struct ChoiceArgs {
    /// Vote for a number, 0 to 18446744073709551615
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = number)]
    value: Option<u64>,

    /// Vote for bytes: hexadecimal, or @FILE for a file's content; at most 1024
    #[arg(long, value_name = "HEX|@FILE")]
    data: Option<String>,

    /// Vote "I cannot tell"
    #[arg(long)]
    abstain: bool,
}

/// How far `vote` waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Wait {
    /// Until the board has recorded the vote
    Recorded,
    /// Until the ballot is submitted or over
    Decided,
    /// Until the chain confirmed it, or the ballot is over
    Confirmed,
}

impl From<Wait> for WaitFor {
    fn from(wait: Wait) -> Self {
        match wait {
            Wait::Recorded => Self::Recorded,
            Wait::Decided => Self::Decided,
            Wait::Confirmed => Self::Confirmed,
        }
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| {
        format!(
            "it must be a whole number, 0 to {}; --data votes for bytes",
            u64::MAX
        )
    })
}

impl ChoiceArgs {
    fn vote(&self) -> Outcome<Vote> {
        if let Some(number) = self.value {
            return Ok(Vote::Number(number));
        }
        let Some(data) = &self.data else {
            return Ok(Vote::Abstention(v1::Abstention {}));
        };
        let bytes = match data.strip_prefix('@') {
            Some(path) => files::read(path.as_ref())?,
            None => hex::decode(data.strip_prefix("0x").unwrap_or(data)).map_err(|e| {
                Failure::usage(format!("--data is not hexadecimal: {e}"))
                    .hint("give pairs of hexadecimal digits, or @FILE for a file's content")
            })?,
        };
        if bytes.is_empty() || bytes.len() > MAX_DATA_LEN {
            let message = format!(
                "--data must be 1 to {MAX_DATA_LEN} bytes, not {}",
                bytes.len()
            );
            return Err(Failure::usage(message).hint("vote on a hash of larger content"));
        }
        Ok(Vote::Data(bytes))
    }
}

pub(crate) async fn run(args: VoteArgs, out: Out) -> Outcome {
    let request = SubmitRequest {
        tx_id: args.tx.tx_id(),
        vote: Some(args.choice.vote()?),
        wait: WaitFor::from(args.wait).into(),
    };
    let targets = args.remote.targets()?;
    // All at once: with --wait, one of them alone would wait for the others.
    let answers = join_all(targets.iter().map(|target| submit(target, request.clone()))).await;
    print(out, &targets, &answers);
    answers
        .into_iter()
        .try_for_each(|answer| answer.map(|_| ()))
}

async fn submit(target: &Target, request: SubmitRequest) -> Outcome<SubmitResponse> {
    Client::connect(target)?.submit(request).await
}

fn print(out: Out, targets: &[Target], answers: &[Outcome<SubmitResponse>]) {
    let votes: Vec<_> = targets
        .iter()
        .zip(answers)
        .map(|(t, a)| vote_json(t, a))
        .collect();
    out.json_pretty(&json!({ "votes": votes }));
    if let [Err(_)] = answers {
        // The error says it all.
        return;
    }
    let mut table = out.table(&["trustee's node", "endpoint", "vote", "ballot"]);
    for (target, answer) in targets.iter().zip(answers) {
        let (tone, vote, ballot) = match answer {
            Err(failure) => (
                Tone::Bad,
                failure.to_string(),
                (Tone::Faint, "-".to_owned()),
            ),
            Ok(answer) => {
                let done = if answer.repeated {
                    "was recorded before"
                } else {
                    "recorded"
                };
                let ballot = answer
                    .ballot
                    .as_ref()
                    .map(v1::Ballot::state)
                    .unwrap_or_default();
                let (word, tone) = state_word(ballot);
                (
                    Tone::Good,
                    format!("{}, {done}", own_choice(answer)),
                    (tone, word.to_owned()),
                )
            }
        };
        table.add_row([
            out.cell(Tone::Plain, &target.name),
            out.cell(Tone::Faint, &target.context.endpoint),
            out.cell(tone, vote),
            out.cell(ballot.0, ballot.1),
        ]);
    }
    out.line(table);
    let latest = answers
        .iter()
        .flatten()
        .filter_map(|answer| answer.ballot.as_ref());
    if let Some(ballot) = latest.max_by_key(|ballot| ballot.revision) {
        print_ballot(out, ballot);
    }
}

/// What the vote on the board says: it may be an earlier one of the same trustee.
fn own_choice(answer: &SubmitResponse) -> String {
    use prost::Message;
    let statement = answer
        .vote
        .as_ref()
        .map(|vote| &*vote.statement)
        .unwrap_or_default();
    let vote = v1::VoteStatement::decode(statement).unwrap_or_default();
    choice_text(vote.choice.as_ref())
}

fn vote_json(target: &Target, answer: &Outcome<SubmitResponse>) -> serde_json::Value {
    let mut json = match answer {
        Ok(answer) => message_json("SubmitResponse", answer),
        Err(failure) => json!({ "error": failure.to_json() }),
    };
    if let Some(map) = json.as_object_mut() {
        map.insert("node".into(), target.name.clone().into());
        map.insert("endpoint".into(), target.context.endpoint.clone().into());
    }
    json
}
