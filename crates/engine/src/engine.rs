//! The engine itself.

use std::sync::Arc;

use quorate_consensus::board::Board;
use quorate_consensus::{NodeId, Rules, TxId, Verifier, wire};

use crate::api::{Durable, Effect, Event, Now};

/// What an engine is told about itself.
#[derive(Clone, Debug)]
pub struct Config {
    /// The trustee that it acts for.
    pub node_id: NodeId,
    /// The rules documents from the genesis to the one in force.
    pub rules_chain: wire::RulesChain,
    /// The rules in force.
    pub rules: Arc<Rules>,
    /// The node holds the vote key; without it only statements signed elsewhere are
    /// taken.
    pub signs_votes: bool,
    /// The node holds the chain key and submits decided values.
    pub submits: bool,
}

/// One trustee.
pub struct Engine {
    board: Board,
}

impl Engine {
    /// An engine after a start, with what its journal kept. The first effects come
    /// from the first [`Event::Tick`].
    pub fn restore(_config: Config, _durable: Durable, _verifier: Arc<dyn Verifier>) -> Self {
        unimplemented!()
    }

    /// Takes one event and gives what is to be done, in order.
    pub fn handle(&mut self, _now: Now, _event: Event) -> Vec<Effect> {
        unimplemented!()
    }

    /// When to come back with [`Event::Tick`], on the monotonic clock.
    pub fn next_wake(&self) -> Option<u64> {
        unimplemented!()
    }

    /// The revision of the board up to which entries were fed.
    pub fn revision(&self) -> u64 {
        self.board.revision()
    }

    /// The mirror of the board that this engine has derived and believes.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// The vote ledger of one transaction, with this node's own knowledge in it.
    pub fn view(&self, _tx_id: &TxId) -> Option<wire::Ballot> {
        unimplemented!()
    }

    /// The certificate or abort proof of a transaction, once there is one.
    pub fn proof(&self, _tx_id: &TxId) -> Option<wire::Proof> {
        unimplemented!()
    }

    /// Evidence of every proven lie in a transaction's ballot.
    pub fn evidence(&self, _tx_id: &TxId) -> Vec<wire::Evidence> {
        unimplemented!()
    }

    /// The board was read up to its head and the boot generation is on it: the node
    /// is in service.
    pub fn is_in_service(&self) -> bool {
        unimplemented!()
    }

    /// Why the engine signs nothing at this wall time, if it does not.
    pub fn signing_stopped(&self, _now: Now) -> Option<String> {
        unimplemented!()
    }
}
