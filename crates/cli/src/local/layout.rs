//! Where the files of a local cluster lie.

use std::path::{Path, PathBuf};

use quorate_consensus::NodeId;
use quorate_tls::pki::{NodeFiles, PersonFiles};

/// The name under which `dev` certifies the client of each node.
const CLIENT: &str = "client";

/// The same for the operator.
const OPERATOR: &str = "operator";

/// The directory of a local cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// A cluster in this directory.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The genesis document. It is written last: with it the cluster is whole.
    pub(crate) fn genesis(&self) -> PathBuf {
        self.root.join("genesis.rules")
    }

    /// Locked by the process that runs the cluster.
    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// What a cluster with reproducible keys was made from.
    pub(crate) fn seed(&self) -> PathBuf {
        self.root.join("seed")
    }

    /// Where `quorate dev` takes acts while it runs.
    pub(crate) fn control(&self) -> PathBuf {
        self.root.join("control.sock")
    }

    /// The cluster CA.
    pub(crate) fn ca_dir(&self) -> PathBuf {
        self.root.join("ca")
    }

    /// Board, audit store and ledger, which all nodes of the machine share.
    pub(crate) fn shared(&self) -> PathBuf {
        self.root.join("shared")
    }

    /// The audit store, where nodes with an embedded store keep it.
    pub(crate) fn audit(&self) -> PathBuf {
        self.shared().join("audit.db")
    }

    /// The embedded ledger.
    pub(crate) fn ledger(&self) -> PathBuf {
        self.shared().join("ledger.db")
    }

    /// The key that writes to the ledger.
    pub(crate) fn chain_key(&self) -> PathBuf {
        self.root.join("chain.key")
    }

    /// What belongs to one trustee.
    pub(crate) fn node(&self, node_id: &NodeId) -> NodeLayout {
        let dir = self.root.join(node_id.as_str());
        NodeLayout {
            files: NodeFiles::in_dir(&dir, node_id),
            client: PersonFiles::in_dir(&dir, CLIENT),
            operator: PersonFiles::in_dir(&dir, OPERATOR),
            dir,
        }
    }
}

/// The files of one trustee of a local cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeLayout {
    /// Its directory.
    pub(crate) dir: PathBuf,
    /// Keys and certificates.
    pub(crate) files: NodeFiles,
    /// Key and certificate of its client.
    pub(crate) client: PersonFiles,
    /// Key and certificate of its operator.
    pub(crate) operator: PersonFiles,
}

impl NodeLayout {
    /// The client's name in its certificate.
    pub(crate) const CLIENT: &str = CLIENT;

    /// The operator's name in its certificate.
    pub(crate) const OPERATOR: &str = OPERATOR;

    /// The node's configuration.
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join("config.toml")
    }

    /// The node's journal.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The log of a node that is a process of its own.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("node.log")
    }
}

/// The trustees of a local cluster: node1, node2 and so on, padded so that they sort.
pub(crate) fn node_ids(count: usize) -> Vec<NodeId> {
    let width = count.to_string().len();
    (1..=count)
        .filter_map(|number| NodeId::new(&format!("node{number:0width$}")).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_number() {
        let names: Vec<_> = node_ids(12).iter().map(ToString::to_string).collect();
        assert_eq!(names[0], "node01");
        assert_eq!(names[11], "node12");
        assert!(names.is_sorted());
        assert_eq!(node_ids(5)[4].as_str(), "node5");
    }
}
