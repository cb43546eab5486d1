//! The state of a node's network as a line of JSON: how `quorate dev --processes` tells
//! its nodes, on their standard input.

use std::time::Duration;

use quorate_consensus::NodeId;
use quorate_node::Hurt;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    cut: Vec<String>,
    board_away: bool,
    delay_ms: u64,
}

/// The line.
pub(crate) fn line_of(hurt: &Hurt) -> String {
    let line = Line {
        cut: hurt.cut.iter().map(NodeId::to_string).collect(),
        board_away: hurt.board_away,
        delay_ms: u64::try_from(hurt.delay.as_millis()).unwrap_or(u64::MAX),
    };
    serde_json::to_string(&line).unwrap_or_default()
}

/// What a line says; none for a line that is not one of these.
pub(crate) fn hurt_from_line(line: &str) -> Option<Hurt> {
    let line: Line = serde_json::from_str(line).ok()?;
    let cut = line.cut.iter().map(|name| NodeId::new(name).ok());
    Some(Hurt {
        cut: cut.collect::<Option<_>>()?,
        board_away: line.board_away,
        delay: Duration::from_millis(line.delay_ms),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_was_meant() {
        let hurt = Hurt {
            cut: [NodeId::new("node2").unwrap(), NodeId::new("node4").unwrap()].into(),
            board_away: true,
            delay: Duration::from_millis(200),
        };
        let line = line_of(&hurt);
        assert!(!line.contains('\n'));
        assert_eq!(hurt_from_line(&line), Some(hurt));
        assert_eq!(
            hurt_from_line(&line_of(&Hurt::default())),
            Some(Hurt::default())
        );
        assert_eq!(hurt_from_line("{}"), None);
        assert_eq!(hurt_from_line("drain"), None);
    }
}
