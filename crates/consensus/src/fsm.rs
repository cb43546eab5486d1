//! The ballot's table of moves.
//!
//! `count(v)`: recorded votes for v, without those struck and those that came late.
//! `open`: members who have neither voted nor been banned. A *dissenter* is an
//! unbanned, unstruck trustee whose recorded vote is for another value; an
//! abstention is no dissent. Guards are tried from top to bottom.
//!
//! | # | from | on, guard | to | also |
//! |---|---|---|---|---|
//! | 1 | – | first valid vote | COLLECTING | |
//! | 2 | COLLECTING, THRESHOLD_REACHED | two choices signed by one trustee | ABORTED_BYZANTINE | DOUBLE_VOTING. Under `outvote` its votes are struck; a value that so falls below t goes back to COLLECTING |
//! | 3 | COLLECTING | some count(v) >= t, and a dissenter (under `outvote`: row 4) | ABORTED_BYZANTINE | MINORITY_VOTE |
//! | 4 | COLLECTING | some count(v) >= t | THRESHOLD_REACHED | |
//! | 5 | COLLECTING | no v with count(v) + open >= t | ABORTED_SPLIT | |
//! | 6 | COLLECTING | deadline passed, started | ABORTED_TIMEOUT | |
//! | 7 | COLLECTING | expired, not started | removed | |
//! | 8 | THRESHOLD_REACHED | a dissenter (under `outvote`: unchanged) | ABORTED_BYZANTINE | MINORITY_VOTE |
//! | 9 | THRESHOLD_REACHED | same value, or abstention | unchanged | recorded |
//! | 10 | THRESHOLD_REACHED | settle window over, reservation made | SUBMITTED | |
//! | 11 | SUBMITTED | t observations: good | CONFIRMED | |
//! | 12 | SUBMITTED | t observations: reverted, or given up and cancelled | FAILED | |
//! | 13 | CONFIRMED, FAILED | t observations: undone | SUBMITTED | |
//! | 14 | SUBMITTED and every final state | any further vote | unchanged | recorded as late |
//! | 15 | any | deadline passed | unchanged | SILENT_FAILURE |
//!
//! [`next_move`] gives rows 2 to 6 and 8, which follow from the votes alone. The
//! others are operations of their own on the [board](crate::board), for they need a
//! vote (1, 9, 14), a proof (10 to 13) or a clock and nothing else (7, 15).

use crate::ballot::Ballot;
use crate::choice::Value;
use crate::ids::NodeId;
use crate::wire::{BallotState, DissentPolicy};

/// A move that the table gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Move {
    /// The row of the table.
    pub row: u8,
    /// The new state.
    pub to: BallotState,
    /// The value with t votes, if there is one.
    pub value: Option<Value>,
    /// One sentence for people.
    pub reason: String,
}

/// The move that rows 2 to 6 and 8 give for a ballot's votes at `now_ms`
/// (milliseconds since the Unix epoch), if any.
pub fn next_move(
    ballot: &Ballot,
    is_banned: &dyn Fn(&NodeId) -> bool,
    now_ms: u64,
) -> Option<Move> {
    use BallotState::{
        AbortedByzantine, AbortedSplit, AbortedTimeout, Collecting, ThresholdReached,
    };
    if !ballot.is_open() {
        return None;
    }
    let rules = &ballot.rules;
    let threshold = rules.threshold();
    let outvote = rules.dissent() == DissentPolicy::Outvote;
    let leading = ballot.leading();
    // Once t votes were seen for a value, it is that value's votes that matter,
    // even if (2t <= N, `outvote`) another one gets more.
    let candidate = match (&ballot.value, ballot.state) {
        (Some(value), ThresholdReached) => {
            let count = ballot.counts().get(value).copied().unwrap_or(0);
            Some((value, count))
        }
        _ => leading,
    };
    let reached = candidate.filter(|(_, count)| *count >= threshold);
    let value = reached.map(|(value, _)| value.clone());
    let make = |row, to, reason| {
        let value = value.clone();
        Some(Move {
            row,
            to,
            value,
            reason,
        })
    };
    let dissenters = || match reached {
        Some((value, _)) if !outvote => dissenters(ballot, value, is_banned),
        _ => Vec::new(),
    };

    // Row 2.
    if !outvote && !ballot.second_votes.is_empty() {
        let liars = names(ballot.second_votes.keys());
        return make(2, AbortedByzantine, format!("{liars} signed two choices"));
    }
    match ballot.state {
        // Row 2 under `outvote`.
        ThresholdReached if reached.is_none() => {
            let liars = names(ballot.struck.iter());
            let left = candidate.map_or(0, |(_, count)| count);
            make(
                2,
                Collecting,
                format!(
                    "{liars} signed two choices and lost the vote, which leaves {left} of the {threshold} votes needed"
                ),
            )
        }
        // Row 8. Row 9: none.
        ThresholdReached => match &*dissenters() {
            [] => None,
            found => make(8, AbortedByzantine, against(found, reached)),
        },
        // Rows 3 and 4.
        _ if reached.is_some() => match (&*dissenters(), reached) {
            ([], Some((value, count))) => make(
                4,
                ThresholdReached,
                format!("{count} of {} trustees voted for {value}", rules.total()),
            ),
            (found, _) => make(3, AbortedByzantine, against(found, reached)),
        },
        _ => {
            let open = ballot.without_vote().filter(|id| !is_banned(id)).count();
            let most = leading.map_or(0, |(_, count)| count);
            // Row 5.
            if most + open < threshold {
                return make(
                    5,
                    AbortedSplit,
                    format!(
                        "no value can get {threshold} votes any more: the most is {most}, and {open} can still vote"
                    ),
                );
            }
            // Row 6.
            let deadline = ballot.deadline_ms()?;
            if now_ms < deadline {
                return None;
            }
            let missing = names(ballot.without_vote());
            let missing = match &*missing {
                "" => String::from("everybody voted"),
                names => format!("not voted: {names}"),
            };
            make(
                6,
                AbortedTimeout,
                format!(
                    "the deadline passed with {most} of the {threshold} votes needed; {missing}"
                ),
            )
        }
    }
}

fn dissenters<'a>(
    ballot: &'a Ballot,
    value: &Value,
    is_banned: &dyn Fn(&NodeId) -> bool,
) -> Vec<&'a NodeId> {
    ballot
        .counted_votes()
        .filter(|vote| vote.body.choice.value().is_some_and(|v| v != value))
        .map(|vote| &vote.node_id)
        .filter(|node_id| !is_banned(node_id))
        .collect()
}

fn against(dissenters: &[&NodeId], reached: Option<(&Value, usize)>) -> String {
    let dissenters = names(dissenters.iter().copied());
    match reached {
        Some((value, count)) => {
            format!("{dissenters} voted against {value}, which has {count} votes")
        }
        None => format!("{dissenters} dissented"),
    }
}

/// The first names, and how many more there are: a sentence stays a sentence with
/// 200 members too.
pub(crate) fn names<'a>(ids: impl Iterator<Item = &'a NodeId>) -> String {
    const SHOWN: usize = 8;
    let ids: Vec<&NodeId> = ids.collect();
    let shown: Vec<&str> = ids.iter().take(SHOWN).map(|id| id.as_str()).collect();
    match ids.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
