//! What can be done to the nodes of a playground, and what is told about it: one line
//! of JSON either way.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use quorate_consensus::NodeId;
use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure};

/// The longest delay: a greeting of four frames must still fit into its 10 s.
pub(crate) const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// One act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Act {
    /// Look only.
    Status {},
    /// Drain a node and keep it down.
    Stop { node: String },
    /// Start a node that is down, or an honest one in a liar's place.
    Start { node: String },
    /// Let a node stand still: it keeps its connections and does nothing.
    Pause { node: String },
    /// Let it go on.
    Resume { node: String },
    /// End a node as a crash does, and keep it down.
    Kill { node: String },
    /// Cut the network into parts. Who is in none is in one with all such.
    Partition { parts: Vec<Vec<String>> },
    /// Slow down what a node says and hears.
    Delay { node: String, delay_ms: u64 },
    /// One network again, and no delays.
    Heal {},
    /// Put a liar in a node's place.
    Lie { node: String, liar: String },
}

/// How the playground stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// What was done.
    pub(crate) done: String,
    /// The directory of the cluster.
    pub(crate) data_dir: PathBuf,
    /// "tasks" of one process, or "processes".
    pub(crate) mode: String,
    /// "file" or "etcd".
    pub(crate) board: String,
    /// The nodes, ascending.
    pub(crate) nodes: Vec<NodeReport>,
}

/// How one node stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeReport {
    /// The trustee.
    pub(crate) node_id: String,
    /// running, paused, stopped, killed, lying.
    pub(crate) state: String,
    /// The liar in its place.
    pub(crate) liar: Option<String>,
    /// What it says of itself.
    pub(crate) in_service: bool,
    /// The number of its part of the network, from 1.
    pub(crate) part: usize,
    /// It reaches the board.
    pub(crate) board: bool,
    /// How slow it is.
    pub(crate) delay_ms: u64,
    /// Its process, if it runs.
    pub(crate) pid: Option<u32>,
}

/// The answer to an act.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// It was done.
    Ok(Report),
    /// It was not.
    Error {
        /// As the exit code of the command.
        exit_code: u8,
        /// Why.
        message: String,
        /// What to try.
        hint: Option<String>,
    },
}

impl From<Result<Report, Failure>> for Answer {
    fn from(done: Result<Report, Failure>) -> Self {
        match done {
            Ok(report) => Self::Ok(report),
            Err(failure) => Self::Error {
                exit_code: failure.exit() as u8,
                message: failure.to_string(),
                hint: failure.advice().map(str::to_owned),
            },
        }
    }
}

impl From<Answer> for Result<Report, Failure> {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Ok(report) => Ok(report),
            Answer::Error {
                exit_code,
                message,
                hint,
            } => {
                let exit = match exit_code {
                    2 => Exit::Usage,
                    3 => Exit::Unavailable,
                    5 => Exit::Deadline,
                    _ => Exit::Failed,
                };
                let failure = Failure::new(exit, message);
                Err(match hint {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                })
            }
        }
    }
}

/// The parts of the network that these names mean, largest first is not needed: the
/// board stays with the largest, and of those of one size with the one named first.
///
/// # Errors
/// When a name is unknown or named twice.
pub(crate) fn parts(
    named: &[Vec<String>],
    all: &[NodeId],
) -> Result<(Vec<BTreeSet<NodeId>>, usize), Failure> {
    let mut rest: BTreeSet<NodeId> = all.iter().cloned().collect();
    let mut parts = Vec::new();
    for names in named {
        let mut part = BTreeSet::new();
        for name in names {
            let node_id = known(name, all)?;
            if !rest.remove(&node_id) {
                return Err(Failure::usage(format!("{node_id} is named twice")).hint(
                    "each node is in one part: dev partition node1,node2 node3,node4,node5",
                ));
            }
            part.insert(node_id);
        }
        if !part.is_empty() {
            parts.push(part);
        }
    }
    if !rest.is_empty() {
        parts.push(rest);
    }
    let board = (0..parts.len()).rev().max_by_key(|at| parts[*at].len());
    Ok((parts, board.unwrap_or_default()))
}

/// The node of this name.
///
/// # Errors
/// When there is none, naming those that there are.
pub(crate) fn known(name: &str, all: &[NodeId]) -> Result<NodeId, Failure> {
    let found = all.iter().find(|node_id| node_id.as_str() == name);
    found.cloned().ok_or_else(|| {
        let names: Vec<_> = all.iter().map(NodeId::as_str).collect();
        Failure::usage(format!("there is no node {name:?}"))
            .hint(format!("the nodes are {}", names.join(", ")))
    })
}

/// "200ms", "1.5s" or "0".
///
/// # Errors
/// For people.
pub(crate) fn parse_delay(text: &str) -> Result<Duration, String> {
    let wrong = || format!("must be a time from 0 to 2s, such as 200ms or 1.5s, not {text:?}");
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    // A bare number other than 0 could mean either.
    if text.trim_end().ends_with(|c: char| c.is_ascii_digit()) && number != 0.0 {
        return Err(wrong());
    }
    let delay = Duration::try_from_secs_f64(number * unit).map_err(|_| wrong())?;
    match delay <= LONGEST_DELAY {
        true => Ok(delay),
        false => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes() -> Vec<NodeId> {
        let ids = (1..=5).map(|n| NodeId::new(&format!("node{n}")).unwrap());
        ids.collect()
    }

    fn named(parts: &[&[&str]]) -> Vec<Vec<String>> {
        let names = |part: &&[&str]| part.iter().map(|name| (*name).to_owned()).collect();
        parts.iter().map(names).collect()
    }

    #[test]
    fn the_board_stays_with_the_largest_part() {
        let all = nodes();
        let of = |text: &[&[&str]]| {
            let (parts, board) = parts(&named(text), &all).unwrap();
            (parts.iter().map(BTreeSet::len).collect::<Vec<_>>(), board)
        };
        assert_eq!(of(&[]), (vec![5], 0));
        // Who is not named is with all others who are not.
        assert_eq!(of(&[&["node1"]]), (vec![1, 4], 1));
        assert_eq!(of(&[&["node1", "node2"], &["node3"]]), (vec![2, 1, 2], 0));
        assert_eq!(
            of(&[&["node1", "node2", "node3"], &["node4", "node5"]]),
            (vec![3, 2], 0)
        );
    }

    #[test]
    fn nobody_is_in_two_parts_and_strangers_in_none() {
        let all = nodes();
        let twice = parts(&named(&[&["node1"], &["node1"]]), &all).unwrap_err();
        assert!(twice.message().contains("named twice"));
        let stranger = parts(&named(&[&["node9"]]), &all).unwrap_err();
        assert!(stranger.advice().unwrap().contains("node1, node2"));
    }

    #[test]
    fn delays_have_a_unit_and_an_end() {
        for (text, ms) in [("200ms", 200), ("1.5s", 1500), ("0", 0), ("2s", 2000)] {
            assert_eq!(parse_delay(text).unwrap(), Duration::from_millis(ms));
        }
        for text in ["", "200", "3s", "-1s", "fast", "1m"] {
            assert!(parse_delay(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_line_of_the_protocol_is_stable() {
        let act = Act::Delay {
            node: "node4".into(),
            delay_ms: 200,
        };
        let line = serde_json::to_string(&act).unwrap();
        assert_eq!(line, r#"{"act":"delay","node":"node4","delay_ms":200}"#);
        let heal: Act = serde_json::from_str(r#"{"act":"heal"}"#).unwrap();
        assert_eq!(heal, Act::Heal {});
        assert!(serde_json::from_str::<Act>(r#"{"act":"explode"}"#).is_err());
    }
}
