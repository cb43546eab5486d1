//! The ready file: what a program that drives a local cluster needs to know.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Outcome};
use crate::files::write_atomically;

/// The content of the ready file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// 64 hexadecimal digits.
    pub(crate) cluster_id: String,
    /// The directory of the cluster.
    pub(crate) data_dir: PathBuf,
    /// The nodes, ascending by id.
    pub(crate) nodes: Vec<ReadyNode>,
}

/// One node in the ready file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReadyNode {
    /// Its trustee.
    pub(crate) node_id: String,
    /// host:port.
    pub(crate) endpoint: String,
    /// host:port of health and metrics.
    pub(crate) health: String,
    /// The cluster CA.
    pub(crate) cacert: PathBuf,
    /// The certificate of its client.
    pub(crate) cert: PathBuf,
    /// The key of that certificate.
    pub(crate) key: PathBuf,
    /// The certificate of its operator.
    pub(crate) operator_cert: PathBuf,
    /// The key of that certificate.
    pub(crate) operator_key: PathBuf,
    /// The key that signs its votes.
    pub(crate) vote_key: PathBuf,
    /// The key that signs what the node says.
    pub(crate) node_key: PathBuf,
    /// Its configuration.
    pub(crate) config: PathBuf,
    /// Its process.
    pub(crate) pid: u32,
}

impl Ready {
    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Outcome {
        let text = serde_json::to_string_pretty(self).map_err(Failure::failed)?;
        write_atomically(path, text.as_bytes())
    }
}
