//! An operation as a key holds it.

use std::fmt;

use prost::Message as _;
use quorate_consensus::statement::{VoteBody, parse};
use quorate_consensus::wire::board_op::Op;
use quorate_consensus::wire::{BoardOp, StoreRecord};
use quorate_consensus::{Choice, NodeId, TxId};

use crate::names;

/// `StoreRecord.op`: the first field.
const OP_FIELD: u32 = 1;

/// Bytes before a field, at most.
const MOST_PREFIX: usize = 10;

/// Names one attempt to get an operation onto the board, however often its
/// transaction is repeated: 16 bytes that no other attempt has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub [u8; 16]);

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 32];
        hex::encode_to_slice(self.0, &mut digits).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&digits).map_err(|_| fmt::Error)?)
    }
}

/// A record's place in the order of all records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The store's revision at which it was written first.
    pub revision: u64,
    /// Its place in that transaction.
    pub index: u32,
}

/// An operation as a key holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Names the attempt that wrote it.
    pub id: OpId,
    /// The operation.
    pub op: BoardOp,
    /// Its time: milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Its place in its transaction.
    pub index: u32,
    /// The revision at which it was written first, if that is not the one at which
    /// its key was: it was put back, or moved.
    pub origin: Option<u64>,
}

impl Record {
    /// The value of its key.
    pub fn encode(&self) -> Vec<u8> {
        encode(self.id, &self.op, self.time_ms, self.index, self.origin)
    }

    /// Reads a key's value; none if it is no record.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let record = StoreRecord::decode(value).ok()?;
        Some(Self {
            id: OpId(record.op_id.try_into().ok()?),
            op: record.op?,
            time_ms: record.time_ms,
            index: record.index,
            origin: Some(record.origin).filter(|revision| *revision != 0),
        })
    }

    /// Whether its operation may lie under this key; `voted` is what it records, if it
    /// records a vote. Somebody else's vote under a trustee's key would keep that
    /// trustee's own away.
    pub(crate) fn belongs_under(&self, key: &str, voted: Option<&Voted>) -> bool {
        if let Some(revision) = self.origin {
            let position = Position {
                revision,
                index: self.index,
            };
            if key == names::moved(position) {
                return true;
            }
        }
        match voted {
            Some(vote) => key == vote.key() || key == vote.second_key(),
            None => key == names::operation(self.id),
        }
    }
}

/// The value of a [`Record`]'s key.
pub(crate) fn encode(
    id: OpId,
    op: &BoardOp,
    time_ms: u64,
    index: u32,
    origin: Option<u64>,
) -> Vec<u8> {
    let rest = StoreRecord {
        op: None,
        time_ms,
        op_id: id.0.to_vec(),
        index,
        origin: origin.unwrap_or(0),
    };
    let most = op.encoded_len() + rest.encoded_len() + 2 * MOST_PREFIX;
    let mut value = Vec::with_capacity(most);
    // A message is its fields one after the other: the operation, which may be
    // large, need not be cloned to be written.
    prost::encoding::message::encode(OP_FIELD, op, &mut value);
    value.extend(rest.encode_to_vec());
    value
}

/// The vote that an operation records. To read it costs as much as anything else that
/// is done with one, so it is read once and handed on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Voted {
    pub(crate) tx_id: TxId,
    pub(crate) node_id: NodeId,
    choice: Choice,
}

impl Voted {
    /// Of an operation that records a vote which can be read; nothing is verified.
    pub(crate) fn of(op: &BoardOp) -> Option<Self> {
        let Some(Op::RecordVote(op)) = &op.op else {
            return None;
        };
        let (header, body) = parse::<VoteBody>(&op.vote.as_ref()?.statement).ok()?;
        Some(Self {
            tx_id: body.tx_id,
            node_id: header.node_id,
            choice: body.choice,
        })
    }

    /// Where it lies if it is its trustee's first.
    pub(crate) fn key(&self) -> String {
        names::vote(&self.tx_id, &self.node_id)
    }

    /// Where it lies otherwise.
    pub(crate) fn second_key(&self) -> String {
        names::second_vote(&self.tx_id, &self.node_id)
    }

    /// The counter that it raises.
    pub(crate) fn counter(&self) -> String {
        names::count(&self.tx_id, &self.choice)
    }
}

#[cfg(test)]
mod tests {
    use quorate_consensus::wire::AdvanceOp;

    use super::*;

    #[test]
    fn a_value_is_what_any_protobuf_library_writes() {
        let op = BoardOp {
            op: Some(Op::Advance(AdvanceOp {
                tx_id: "tx".into(),
                to: 3,
            })),
        };
        for (time_ms, origin) in [(0, None), (7, Some(9))] {
            let record = Record {
                id: OpId([5; 16]),
                op: op.clone(),
                time_ms,
                index: 0,
                origin,
            };
            let whole = StoreRecord {
                op: Some(op.clone()),
                time_ms,
                op_id: vec![5; 16],
                index: 0,
                origin: origin.unwrap_or(0),
            };
            assert_eq!(record.encode(), whole.encode_to_vec());
            assert_eq!(Record::decode(&record.encode()), Some(record));
        }
    }
}
