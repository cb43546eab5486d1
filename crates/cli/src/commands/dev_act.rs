//! `quorate dev ACT`: what is done to the nodes of a cluster that `quorate dev` runs.

use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

use crate::byzantine::TestType;
use crate::failure::{Failure, Outcome};
use crate::local::Layout;
use crate::output::{Out, Tone};
use crate::playground::{Act, NodeReport, Report, ask, parse_delay};

/// What can be done to a cluster that runs.
#[derive(Debug, Subcommand)]
pub(crate) enum DevAct {
    /// Show what was done to each node, and which are in service
    #[command(after_help = "Example:\n  quorate dev status")]
    Status,
    /// Let a node drain and keep it down
    #[command(after_help = "Example:\n  quorate dev stop node2")]
    Stop {
        /// The node
        node: String,
    },
    /// Start a node that is down, or an honest one in a liar's place
    #[command(after_help = "Example:\n  quorate dev start node2")]
    Start {
        /// The node
        node: String,
    },
    /// Let a node stand still: it keeps its connections and does nothing
    #[command(after_help = "Example:\n  quorate dev pause node2")]
    Pause {
        /// The node
        node: String,
    },
    /// Let a node that was paused go on
    #[command(after_help = "Example:\n  quorate dev resume node2")]
    Resume {
        /// The node
        node: String,
    },
    /// End a node as kill -9 does, and keep it down
    #[command(after_help = "Example:\n  quorate dev kill node2")]
    Kill {
        /// The node
        node: String,
    },
    /// Cut the network into parts; the largest keeps the board
    #[command(after_help = "\
Examples:
  quorate dev partition node1,node2 node3,node4,node5
  quorate dev partition 'node1,node2|node3,node4,node5'
  quorate dev partition node5                 against all the others")]
    Partition {
        /// Nodes with commas between them; a part for each argument. Who is named in none
        /// is in one part with all such
        #[arg(required = true, value_name = "NODES")]
        parts: Vec<String>,
    },
    /// Slow a node down: each frame and each request to the board waits so long
    #[command(
        after_help = "Examples:\n  quorate dev delay node2 200ms\n  quorate dev delay node2 0"
    )]
    Delay {
        /// The node
        node: String,
        /// From 0 to 2s
        #[arg(value_parser = parse_delay)]
        delay: Duration,
    },
    /// One network again, and no delays; who is down stays down
    #[command(after_help = "Example:\n  quorate dev heal")]
    Heal,
    /// Put a liar in a node's place: it has the trustee's keys, and lies whenever the
    /// others vote
    #[command(after_help = "\
Examples:
  quorate dev lie node5 double-vote
  quorate dev lie node5 silent
  quorate dev start node5                     an honest node again")]
    Lie {
        /// The node
        node: String,
        /// The lie, as with `quorate test-byzantine`
        #[arg(value_enum)]
        liar: TestType,
    },
}

impl From<DevAct> for Act {
    fn from(act: DevAct) -> Self {
        match act {
            DevAct::Status => Self::Status {},
            DevAct::Stop { node } => Self::Stop { node },
            DevAct::Start { node } => Self::Start { node },
            DevAct::Pause { node } => Self::Pause { node },
            DevAct::Resume { node } => Self::Resume { node },
            DevAct::Kill { node } => Self::Kill { node },
            DevAct::Partition { parts } => Self::Partition {
                parts: split(&parts),
            },
            DevAct::Delay { node, delay } => Self::Delay {
                node,
                delay_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            },
            DevAct::Heal => Self::Heal {},
            DevAct::Lie { node, liar } => Self::Lie {
                node,
                liar: liar.name().to_owned(),
            },
        }
    }
}

/// Parts by arguments or by `|`, nodes by commas.
fn split(parts: &[String]) -> Vec<Vec<String>> {
    let names = |part: &str| {
        let names = part.split(',').map(str::trim);
        let names = names.filter(|name| !name.is_empty());
        names.map(str::to_owned).collect()
    };
    parts
        .iter()
        .flat_map(|parts| parts.split('|'))
        .map(names)
        .collect()
}

pub(crate) async fn run(act: DevAct, layout: &Layout, out: Out) -> Outcome {
    let report = ask(&layout.control(), &act.into()).await?;
    print(out, &report);
    Ok(())
}

fn print(out: Out, report: &Report) {
    let json = serde_json::to_value(report).map_err(Failure::failed);
    out.json_pretty(&json.unwrap_or_else(|e| json!({ "error": e.to_string() })));
    out.line(&report.done);
    let mut table = out.table(&["node", "state", "in service", "network", "board", "delay"]);
    let cut = report.nodes.iter().any(|node| node.part > 1);
    for node in &report.nodes {
        let (state, tone) = state_of(node);
        let yes = |is: bool| match is {
            true => out.cell(Tone::Good, "yes"),
            false => out.cell(Tone::Bad, "no"),
        };
        let network = match cut {
            true => format!("part {}", node.part),
            false => "whole".to_owned(),
        };
        let delay = match node.delay_ms {
            0 => String::new(),
            ms => format!("{ms} ms"),
        };
        table.add_row([
            out.cell(Tone::Plain, &node.node_id),
            out.cell(tone, state),
            yes(node.in_service),
            out.cell(if cut { Tone::Warn } else { Tone::Plain }, network),
            match node.board {
                true => out.cell(Tone::Plain, "reached"),
                false => out.cell(Tone::Bad, "cut off"),
            },
            out.cell(Tone::Warn, delay),
        ]);
    }
    out.line(table);
}

fn state_of(node: &NodeReport) -> (String, Tone) {
    match &node.liar {
        Some(liar) => (format!("{} ({liar})", node.state), Tone::Bad),
        None if node.state == "running" => (node.state.clone(), Tone::Good),
        None => (node.state.clone(), Tone::Warn),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_by_arguments_or_bars() {
        let one = split(&["a,b|c, d".to_owned()]);
        let two = split(&["a,b".to_owned(), "c,d".to_owned()]);
        assert_eq!(one, two);
        assert_eq!(one, [["a", "b"], ["c", "d"]]);
    }
}
