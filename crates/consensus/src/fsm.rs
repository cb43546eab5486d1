//! The ballot's table of moves (design §5): the table goes here, row by row.

use crate::ballot::Ballot;
use crate::choice::Value;
use crate::ids::NodeId;
use crate::wire::BallotState;

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
    _ballot: &Ballot,
    _is_banned: &dyn Fn(&NodeId) -> bool,
    _now_ms: u64,
) -> Option<Move> {
    unimplemented!()
}
