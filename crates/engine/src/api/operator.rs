//! What an operator does through its own node.

use quorate_consensus::NodeId;
use quorate_consensus::wire::SignedStatement;

/// The most bytes that a direct message may have.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// An act of this node's operator.
#[derive(Clone, Debug, PartialEq)]
pub enum OperatorAct {
    /// Refuse a trustee's node from now on, and accuse it.
    Ban {
        /// Whom.
        node_id: NodeId,
    },
    /// Say, in this trustee's name, that a ban be lifted.
    Unban {
        /// Whose.
        node_id: NodeId,
        /// Digests of the ban proofs that are pardoned; empty for that of the ban in
        /// force.
        pardoned: Vec<[u8; 32]>,
        /// Acts that others signed, carried here by hand.
        acts: Vec<SignedStatement>,
    },
    /// Hand a message to another trustee's node.
    Send {
        /// Whose node.
        node_id: NodeId,
        /// 1 to [`MAX_MESSAGE`] bytes.
        data: Vec<u8>,
    },
}
