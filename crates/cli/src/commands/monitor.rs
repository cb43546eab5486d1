//! `quorate monitor`: a live view of one node: ballots, trustees, bans, queues.

use std::io::Read as _;
use std::time::Duration;

use clap::Args;
use quorate_wire::v1::{
    Ballot, InfoRequest, InfoResponse, ListRequest, PeerNode, PeersRequest, ReputationRequest,
    TrusteeReputation,
};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::info::how_it_is;
use super::peers::stream_word;
use super::reputation::{reputation_text, reputation_tone, standing};
use crate::client::Client;
use crate::failure::Outcome;
use crate::operator::{Operator, as_operator};
use crate::output::{Out, Tone, ago, choice_text, clock, clock_ms, message_json, state_word};
use crate::remote::RemoteArgs;
use crate::screen::Screen;
use crate::signals;

const EXAMPLES: &str = "\
Examples:
  quorate monitor
  quorate monitor --interval 10 --node node2
  quorate monitor --count 1 --json | jq .info.queues
  quorate monitor --interval 60 >> node1.log     one line a minute

On a terminal the view is drawn anew every time; q or Ctrl-C ends it. Anywhere else each look is one
line, with --json one object.";

/// Ballots in the view.
const BALLOTS: u32 = 12;

/// Watch a node: its ballots, trustees, bans and queues
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct MonitorArgs {
    /// Seconds between two looks
    #[arg(long, value_name = "SECS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    interval: u64,

    /// End after so many looks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    #[command(flatten)]
    remote: RemoteArgs,
}

/// What one look found.
struct Look {
    info: InfoResponse,
    peers: Vec<PeerNode>,
    trustees: Vec<TrusteeReputation>,
    ballots: Vec<Ballot>,
}

pub(crate) async fn run(args: MonitorArgs, out: Out) -> Outcome {
    let target = as_operator(args.remote.target()?)?;
    let (operator, client) = (Operator::connect(&target)?, Client::connect(&target)?);
    // The first look may fail as every command does; later ones are shown.
    let mut look = Ok(look(&operator, &client).await?);
    let screen = match out.is_live() {
        true => Some(Screen::enter()?),
        false => None,
    };
    let told_to_stop = signals::until_terminated();
    tokio::pin!(told_to_stop);
    let mut keys = match screen.is_some() {
        true => Keys::read(),
        false => Keys(None),
    };
    let mut looks = 1;
    loop {
        match &screen {
            Some(screen) => screen.draw(&view(&target.name, &look, args.interval, out))?,
            None => print(&target.name, &look, out),
        }
        if args.count.is_some_and(|count| looks >= count) {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(args.interval)) => {}
            _ = &mut told_to_stop => return Ok(()),
            () = keys.until_end() => return Ok(()),
        }
        look = self::look(&operator, &client).await;
        looks += 1;
    }
}

async fn look(operator: &Operator, client: &Client) -> Outcome<Look> {
    let list = ListRequest {
        page_size: BALLOTS,
        ..ListRequest::default()
    };
    let (info, peers, said, page) = tokio::try_join!(
        operator.info(InfoRequest {}),
        operator.peers(PeersRequest {}),
        operator.reputation(ReputationRequest::default()),
        client.list(list),
    )?;
    Ok(Look {
        info,
        peers: peers.peers,
        trustees: said.trustees,
        ballots: page.ballots,
    })
}

/// The key that ends the view, where a terminal gives keys one by one.
struct Keys(Option<oneshot::Receiver<()>>);

impl Keys {
    /// Reads keys in a thread of its own: a read cannot be taken back, and ends with the
    /// process.
    fn read() -> Self {
        let (end, ended) = oneshot::channel();
        std::thread::spawn(move || {
            for key in std::io::stdin().lock().bytes() {
                // 3 is Ctrl-C, 4 is Ctrl-D.
                if matches!(key, Ok(b'q' | b'Q' | 3 | 4) | Err(_)) {
                    break;
                }
            }
            // Who drew the view may have ended already.
            let _ = end.send(());
        });
        Self(Some(ended))
    }

    /// Waits for q, Ctrl-C or the end of the input.
    async fn until_end(&mut self) {
        match &mut self.0 {
            // Sent or dropped, it is the end.
            Some(ended) => drop(ended.await),
            None => std::future::pending().await,
        }
    }
}

fn print(name: &str, look: &Outcome<Look>, out: Out) {
    match look {
        Ok(look) => {
            out.line(line(look));
            out.json(&object(name, look));
        }
        Err(failure) => {
            let time_ms = clock_ms();
            out.line(format!("{}  {name}  {failure}", clock(time_ms)));
            out.json(&json!({ "time_ms": time_ms, "node": name, "error": failure.to_json() }));
        }
    }
}

fn object(name: &str, look: &Look) -> Value {
    let list = |values: Vec<Value>| Value::Array(values);
    json!({
        "time_ms": look.info.server_time_ms,
        "node": name,
        "info": message_json("InfoResponse", &look.info),
        "peers": list(look.peers.iter().map(|p| message_json("PeerNode", p)).collect()),
        "trustees": list(look.trustees.iter().map(|t| message_json("TrusteeReputation", t)).collect()),
        "ballots": list(look.ballots.iter().map(|b| message_json("Ballot", b)).collect()),
    })
}

/// One look in one line.
fn line(look: &Look) -> String {
    let info = &look.info;
    let (how, _) = how_it_is(info);
    let banned = look.trustees.iter().filter(|trustee| trustee.banned);
    let banned: Vec<_> = banned.map(|trustee| &*trustee.node_id).collect();
    format!(
        "{}  {}  {how}  revision {}  {}  streams {}/{}  banned {}  {}",
        clock(info.server_time_ms),
        info.node_id,
        info.board_revision,
        counts(info),
        look.peers.iter().filter(|peer| peer.connected).count(),
        look.peers.len(),
        match banned.as_slice() {
            [] => "-".to_owned(),
            names => names.join(","),
        },
        queues(info),
    )
}

fn counts(info: &InfoResponse) -> String {
    let counts = info.ballots.iter();
    let counts = counts.map(|b| format!("{} {}", state_word(b.state()).0, b.count));
    match counts.collect::<Vec<_>>().as_slice() {
        [] => "no ballots".to_owned(),
        counts => counts.join(" "),
    }
}

fn queues(info: &InfoResponse) -> String {
    let queues = info.queues.unwrap_or_default();
    format!(
        "queues: mailbox {} requests {} own {} held {} questions {} record -{}",
        queues.mailbox,
        queues.requests,
        queues.own_votes,
        queues.held_votes,
        queues.questions,
        queues.audit_lag
    )
}

/// One look as a screen.
fn view(name: &str, look: &Outcome<Look>, interval: u64, out: Out) -> Vec<String> {
    let foot = format!("every {interval} s; q ends it");
    let look = match look {
        Ok(look) => look,
        Err(failure) => {
            let mut lines = vec![
                format!("{}  {}", out.bold(name), out.paint(Tone::Bad, failure)),
                String::new(),
            ];
            lines.extend(failure.advice().map(|advice| format!("try: {advice}")));
            lines.push(out.paint(Tone::Faint, foot));
            return lines;
        }
    };
    let info = &look.info;
    let (how, tone) = how_it_is(info);
    let mut lines = vec![format!(
        "{}  {}  {}  revision {}",
        out.bold(&info.node_id),
        out.paint(tone, how),
        out.paint(Tone::Faint, clock(info.server_time_ms)),
        info.board_revision
    )];
    for cause in &info.causes {
        let text = format!("  {}: {}", cause.cause, cause.detail);
        lines.push(out.paint(Tone::Warn, text));
    }
    lines.push(queues(info));
    lines.push(String::new());
    lines.push(out.bold("trustees"));
    for trustee in &look.trustees {
        lines.push(trustee_line(look, trustee, out));
    }
    lines.push(String::new());
    lines.push(format!("{}  {}", out.bold("ballots"), counts(info)));
    for ballot in &look.ballots {
        lines.push(ballot_line(ballot, info.server_time_ms, out));
    }
    lines.push(String::new());
    lines.push(out.paint(Tone::Faint, foot));
    lines
}

fn trustee_line(look: &Look, trustee: &TrusteeReputation, out: Out) -> String {
    let peer = look
        .peers
        .iter()
        .find(|peer| peer.node_id == trustee.node_id);
    let (stream, tone) = peer.map_or(("this node", Tone::Faint), stream_word);
    let (stands, stands_tone) = standing(trustee);
    format!(
        "  {:<16} {}  {}  {:>6} votes  {}",
        trustee.node_id,
        out.paint(reputation_tone(trustee), reputation_text(trustee)),
        out.paint(tone, format!("{stream:<20}")),
        trustee.total_votes,
        out.paint(stands_tone, stands),
    )
}

fn ballot_line(ballot: &Ballot, now_ms: u64, out: Out) -> String {
    let (state, tone) = state_word(ballot.state());
    let leading = ballot.tally.first();
    let needed = ballot.rules.as_ref().map_or(0, |rules| rules.threshold);
    format!(
        "  {:<24} {}  {} of {needed} for {}  {}",
        ballot.tx_id,
        out.paint(tone, format!("{state:<17}")),
        leading.map_or(0, |tally| tally.count),
        choice_text(leading.and_then(|tally| tally.value.as_ref())),
        out.paint(Tone::Faint, ago(ballot.opened_ms, now_ms)),
    )
}

#[cfg(test)]
mod tests {
    use quorate_wire::v1::{BallotCount, BallotState, ViolationType};

    use super::*;

    fn found() -> Look {
        Look {
            info: InfoResponse {
                node_id: "node1".into(),
                in_service: true,
                ready: true,
                board_revision: 7,
                ballots: vec![BallotCount {
                    state: BallotState::Confirmed.into(),
                    count: 2,
                }],
                ..InfoResponse::default()
            },
            peers: vec![PeerNode {
                node_id: "node2".into(),
                connected: true,
                ..PeerNode::default()
            }],
            trustees: vec![TrusteeReputation {
                node_id: "node3".into(),
                banned: true,
                banned_for: ViolationType::DoubleVoting.into(),
                ..TrusteeReputation::default()
            }],
            ballots: vec![Ballot {
                tx_id: "tx_001".into(),
                state: BallotState::Confirmed.into(),
                ..Ballot::default()
            }],
        }
    }

    #[test]
    fn a_look_is_one_line_without_a_terminal() {
        let line = line(&found());
        for part in [
            "node1",
            "revision 7",
            "CONFIRMED 2",
            "streams 1/1",
            "banned node3",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert!(!line.contains('\n'));
    }

    #[test]
    fn a_screen_shows_ballots_trustees_bans_and_queues() {
        let out = Out::new(false);
        let screen = view("node1", &Ok(found()), 2, out).join("\n");
        let parts = [
            "tx_001",
            "node3",
            "banned for DOUBLE_VOTING",
            "mailbox 0",
            "q ends it",
        ];
        for part in parts {
            assert!(screen.contains(part), "{part}: {screen}");
        }
        let failure = crate::failure::Failure::failed("gone").hint("start it");
        let screen = view("node1", &Err(failure), 2, out).join("\n");
        assert!(
            screen.contains("gone") && screen.contains("try: start it"),
            "{screen}"
        );
    }
}
