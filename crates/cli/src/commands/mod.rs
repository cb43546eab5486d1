//! One file per command: its arguments, its help with an example, what it does and
//! what it prints.

pub(crate) mod audit;
pub(crate) mod ban;
pub(crate) mod certificate;
pub(crate) mod certs;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod config_check;
pub(crate) mod demo;
pub(crate) mod dev;
pub(crate) mod dev_act;
pub(crate) mod doctor;
pub(crate) mod drain;
pub(crate) mod gc;
pub(crate) mod info;
pub(crate) mod keygen;
pub(crate) mod list;
pub(crate) mod log_level;
pub(crate) mod man;
pub(crate) mod monitor;
pub(crate) mod peers;
pub(crate) mod reconcile;
pub(crate) mod reputation;
pub(crate) mod rules;
pub(crate) mod run;
pub(crate) mod send;
pub(crate) mod sim;
pub(crate) mod status;
pub(crate) mod surface;
pub(crate) mod test_byzantine;
pub(crate) mod trace;
pub(crate) mod unban;
pub(crate) mod verify;
pub(crate) mod version;
pub(crate) mod violations;
pub(crate) mod vote;
pub(crate) mod watch;

use clap::Args;
use quorate_consensus::{NodeId, TxId};

/// A transaction, by position or by flag.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct TxArg {
    /// The transaction
    #[arg(value_name = "TX", value_parser = parse_tx_id)]
    tx: Option<TxId>,

    /// The transaction: A-Z a-z 0-9 . _ : -, 1 to 128 characters
    #[arg(long, value_name = "TX", value_parser = parse_tx_id)]
    tx_id: Option<TxId>,
}

impl TxArg {
    /// The transaction given in one of the two ways.
    pub(crate) fn tx_id(&self) -> String {
        let given = self.tx.as_ref().or(self.tx_id.as_ref());
        // Clap requires exactly one of the two.
        given.map(TxId::to_string).unwrap_or_default()
    }
}

/// The same where a command also makes sense without.
#[derive(Clone, Debug, Args)]
#[group(multiple = false)]
pub(crate) struct OptionalTxArg {
    /// Only this transaction
    #[arg(value_name = "TX", value_parser = parse_tx_id)]
    tx: Option<TxId>,

    /// Only this transaction
    #[arg(long, value_name = "TX", value_parser = parse_tx_id)]
    tx_id: Option<TxId>,
}

impl OptionalTxArg {
    /// The transaction, if one was given.
    pub(crate) fn tx_id(&self) -> Option<String> {
        self.tx
            .as_ref()
            .or(self.tx_id.as_ref())
            .map(TxId::to_string)
    }
}

pub(crate) fn parse_tx_id(text: &str) -> Result<TxId, String> {
    TxId::new(text).map_err(|e| e.to_string())
}

pub(crate) fn parse_node_id(text: &str) -> Result<NodeId, String> {
    NodeId::new(text).map_err(|e| e.to_string())
}
