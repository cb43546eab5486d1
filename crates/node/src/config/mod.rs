//! The configuration of a node: a TOML file, over it the environment, over it flags.
//! An unknown key is an error with a suggestion, for a misspelt key that is silently
//! ignored is a setting that somebody believes in.

mod error;
mod etcd;
mod explain;
mod peer_address;
mod reader;
mod source;
mod telemetry;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use quorate_consensus::{Address, ClusterId, NodeId, PeerId, Rules};
use quorate_telemetry::LogSettings;

pub use error::ConfigError;
pub use etcd::EtcdSection;
pub use explain::{Explained, Origin, Setting};
pub use peer_address::PeerAddress;
pub use source::{Name, Place, keys};
pub use telemetry::TelemetrySection;

use reader::{Reader, settings, surroundings};

/// The documented default configuration, as a file to start from.
pub const DEFAULT_TOML: &str = include_str!("../../config/default.toml");

/// `[node]`: who this is and where.
#[derive(Clone, Debug)]
pub struct NodeSection {
    /// The trustee.
    pub node_id: NodeId,
    /// Its peer id, checked against the rules if it is given.
    pub peer_id: Option<PeerId>,
    /// Where to listen for gRPC.
    pub listen_addr: SocketAddr,
    /// Where others reach this node, which it tells them; the listening address if it
    /// is not given and names one interface.
    pub advertise_addr: Option<Address>,
    /// Where to serve health and metrics; none for nowhere.
    pub health_addr: Option<SocketAddr>,
    /// Where the journal lies. One process at a time.
    pub data_dir: PathBuf,
}

/// `[keys]`: the files of the two signing keys.
#[derive(Clone, Debug)]
pub struct KeysSection {
    /// Signs votes; none if votes are signed elsewhere.
    pub vote_key_path: Option<PathBuf>,
    /// Signs what the node itself says.
    pub node_key_path: PathBuf,
}

/// `[mtls]`: certificates.
#[derive(Clone, Debug)]
pub struct MtlsSection {
    /// The cluster CA, which certifies nodes.
    pub ca_cert_path: PathBuf,
    /// This trustee's own CA, which certifies its clients and operators.
    pub clients_ca_path: PathBuf,
    /// This node's certificate.
    pub node_cert_path: PathBuf,
    /// The key of that certificate.
    pub node_key_path: PathBuf,
    /// Revoked certificates; none if it is not given.
    pub crl_path: Option<PathBuf>,
}

/// `[network]`: peers and limits.
#[derive(Clone, Debug)]
pub struct NetworkSection {
    /// Where some other nodes are; from them it learns where the rest are.
    pub bootstrap_peers: Vec<PeerAddress>,
    /// Calls of one client identity in a second.
    pub rate_limit_votes_per_sec: u32,
    /// Calls beyond that which it may save up.
    pub rate_limit_burst: u32,
    /// Frames of one peer in a second; more are left waiting, not lost.
    pub rate_limit_frames_per_sec: u32,
    /// Ballots that one client identity may keep open while too few other trustees have
    /// voted on them.
    pub max_unstarted_per_client: u32,
}

/// What keeps the board.
#[derive(Clone, Debug)]
pub enum CoordinatorKind {
    /// A file shared by the processes of one machine.
    Embedded,
    /// An etcd cluster.
    Etcd(Box<EtcdSection>),
}

/// Text that no log and no message may show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// `[storage]`: what keeps the board and the audit record.
#[derive(Clone, Debug)]
pub struct StorageSection {
    /// What keeps the board.
    pub coordinator: CoordinatorKind,
    /// Where the embedded board, audit store and ledger lie, shared by all nodes of
    /// the machine. The data directory if it is not given.
    pub embedded_dir: PathBuf,
    /// Where the audit store is, if on PostgreSQL:
    /// `postgresql://user:password@host:5432/database`.
    pub postgres_url: Option<Secret>,
    /// The CA that signed PostgreSQL's certificate; with it TLS is used, and nothing
    /// else.
    pub postgres_ca_path: Option<PathBuf>,
}

/// `[consensus]`: which cluster, checked against its rules document.
#[derive(Clone, Debug)]
pub struct ConsensusSection {
    /// The pinned cluster id.
    pub cluster_id: ClusterId,
    /// The file of the rules documents from the genesis on.
    pub rules_path: PathBuf,
    total_nodes: Option<(u64, Place)>,
    threshold: Option<(u64, Place)>,
    vote_timeout_secs: Option<(u64, Place)>,
    node_id_place: Place,
    peer_id_place: Place,
}

/// `[chain]`: whether this node submits.
#[derive(Clone, Debug)]
pub struct ChainSection {
    /// This node submits decided values; needs the key.
    pub submit: bool,
    /// The key of the paying account; without one this node only looks.
    pub key_path: Option<PathBuf>,
}

/// The configuration of one node.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[node]`
    pub node: NodeSection,
    /// `[keys]`
    pub keys: KeysSection,
    /// `[mtls]`
    pub mtls: MtlsSection,
    /// `[network]`
    pub network: NetworkSection,
    /// `[storage]`
    pub storage: StorageSection,
    /// `[consensus]`
    pub consensus: ConsensusSection,
    /// `[chain]`
    pub chain: ChainSection,
    /// `[logging]`
    pub logging: LogSettings,
    /// `[telemetry]`
    pub telemetry: TelemetrySection,
}

impl Config {
    /// Reads the file, if one is named, lays the process's environment over it, and
    /// the flags (pairs of `section.key` and text) over both.
    ///
    /// # Errors
    /// [`ConfigError`], the first that applies.
    pub fn load(path: Option<&Path>, flags: &[(String, String)]) -> Result<Self, ConfigError> {
        let (file, environment) = surroundings(path)?;
        let file = file.as_ref().map(|(p, t)| (p.as_str(), t.as_str()));
        Self::from_parts(file, &environment, flags)
    }

    /// The same from a file's name and text and an environment.
    ///
    /// # Errors
    /// [`ConfigError`], the first that applies.
    pub fn from_parts(
        file: Option<(&str, &str)>,
        environment: &BTreeMap<String, String>,
        flags: &[(String, String)],
    ) -> Result<Self, ConfigError> {
        Reader(settings(file, environment, flags)?).config()
    }

    /// Holds the configuration against the rules document in force.
    ///
    /// # Errors
    /// [`ConfigError::Mismatch`] with both values, the first that differs.
    pub fn check(&self, rules: &Rules) -> Result<(), ConfigError> {
        let differs = |place: &Place, key, configured: String, ruled: String| {
            Err(ConfigError::Mismatch {
                place: place.clone(),
                key,
                configured,
                ruled,
            })
        };
        let consensus = &self.consensus;
        let numbers = [
            (
                &consensus.total_nodes,
                "consensus.total_nodes",
                rules.total() as u64 * 1000,
            ),
            (
                &consensus.threshold,
                "consensus.threshold",
                rules.threshold() as u64 * 1000,
            ),
            (
                &consensus.vote_timeout_secs,
                "consensus.vote_timeout_secs",
                rules.vote_timeout_ms(),
            ),
        ];
        for (configured, key, ruled_thousandths) in numbers {
            if let Some((number, place)) = configured
                && number.saturating_mul(1000) != ruled_thousandths
            {
                let ruled = match ruled_thousandths % 1000 {
                    0 => (ruled_thousandths / 1000).to_string(),
                    rest => format!("{}.{rest:03}", ruled_thousandths / 1000),
                };
                return differs(place, key, number.to_string(), ruled);
            }
        }
        let Some(member) = rules.member(&self.node.node_id) else {
            let members: Vec<_> = rules.members().map(|m| m.node_id.as_str()).collect();
            return differs(
                &consensus.node_id_place,
                "node.node_id",
                self.node.node_id.to_string(),
                format!("the members are {}", members.join(", ")),
            );
        };
        match self.node.peer_id {
            Some(peer_id) if peer_id != member.peer_id => differs(
                &consensus.peer_id_place,
                "node.peer_id",
                peer_id.to_string(),
                member.peer_id.to_string(),
            ),
            _ => Ok(()),
        }
    }
}
