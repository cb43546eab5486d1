//! The configuration of a node: a TOML file, over it the environment, over it flags.
//! An unknown key is an error with a suggestion, for a misspelt key that is silently
//! ignored is a setting that somebody believes in.

mod etcd;
mod explain;
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
use quorate_crypto::file;
use quorate_telemetry::{Format, LogSettings, otlp};

pub use etcd::EtcdSection;
pub use explain::{Explained, Origin, Setting};
pub use source::{Name, Place, keys};
use source::{Raw, Settings};
pub use telemetry::TelemetrySection;

/// The documented default configuration, as a file to start from.
pub const DEFAULT_TOML: &str = include_str!("../../config/default.toml");

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {reason}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file is no TOML.
    #[error("{place}: {reason}")]
    Syntax {
        /// Where.
        place: Place,
        /// What the parser says.
        reason: String,
    },
    /// A section or key that does not exist.
    #[error("{place}: there is no {name}{suggestion}")]
    Unknown {
        /// Where.
        place: Place,
        /// What was named.
        name: String,
        /// What was probably meant; empty if nothing is like it.
        suggestion: String,
    },
    /// A key or value that only a later version knows.
    #[error("{place}: {what} is not in this version: remove it")]
    Later {
        /// Where.
        place: Place,
        /// What was named.
        what: String,
    },
    /// A key that must be there and is not.
    #[error("{section}.{key} is missing: set it in the file under [{section}] or as {variable}")]
    Missing {
        /// Its section.
        section: &'static str,
        /// The key.
        key: &'static str,
        /// Its name in the environment.
        variable: String,
    },
    /// A value that is no good.
    #[error("{place}: {key} {reason}")]
    Value {
        /// Where.
        place: Place,
        /// Section and key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A secret on a command line, which everybody on the machine can read.
    #[error(
        "{key} is a secret, and everybody on this machine can read a command line: set it in the file or as {variable}, or name a file with {key}_path"
    )]
    Exposed {
        /// Section and key.
        key: String,
        /// Its name in the environment.
        variable: String,
    },
    /// The configuration says one thing and the rules document another.
    #[error(
        "{place}: {key} is {configured}, but the rules document says {ruled}: correct the configuration, or pin the rules that you mean"
    )]
    Mismatch {
        /// Where.
        place: Place,
        /// Section and key.
        key: &'static str,
        /// The configured value.
        configured: String,
        /// What the rules say.
        ruled: String,
    },
}

/// Where a peer is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Who is there, if it is known before dialling.
    pub node_id: Option<NodeId>,
    /// Name or IP address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl FromStr for PeerAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = "must be host:port or node_id@host:port";
        let (node_id, address) = match text.split_once('@') {
            None => (None, text),
            Some((id, address)) => (Some(NodeId::new(id).map_err(|e| e.to_string())?), address),
        };
        let (host, port) = address
            .rsplit_once(':')
            .ok_or_else(|| format!("{wanted}, not {text:?}"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        match port.parse() {
            Ok(port) if port != 0 && !host.is_empty() => Ok(Self {
                node_id,
                host: host.to_owned(),
                port,
            }),
            _ => Err(format!("{wanted}, not {text:?}")),
        }
    }
}

impl PeerAddress {
    /// A member at an address.
    pub fn at(node_id: &NodeId, address: &Address) -> Self {
        Self {
            node_id: Some(node_id.clone()),
            host: address.host().to_owned(),
            port: address.port(),
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(node_id) = &self.node_id {
            write!(f, "{node_id}@")?;
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

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

/// A file's name and text, if one is named, and the process's environment.
type Surroundings = (Option<(String, String)>, BTreeMap<String, String>);

fn surroundings(path: Option<&Path>) -> Result<Surroundings, ConfigError> {
    let file = match path {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| ConfigError::Unreadable {
                path: path.to_owned(),
                reason: e.to_string(),
            })?;
            Some((path.display().to_string(), text))
        }
    };
    // Names that are not UTF-8 are none of ours.
    let environment = std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .collect();
    Ok((file, environment))
}

fn settings(
    file: Option<(&str, &str)>,
    environment: &BTreeMap<String, String>,
    flags: &[(String, String)],
) -> Result<Settings, ConfigError> {
    let mut settings = Settings::new();
    if let Some((path, text)) = file {
        source::read_file(path, text, &mut settings)?;
    }
    source::read_environment(environment, &mut settings)?;
    source::read_flags(flags, &mut settings)?;
    Ok(settings)
}

/// Takes settings out, checked.
struct Reader(Settings);

impl Reader {
    fn take<T>(
        &self,
        section: &'static str,
        key: &'static str,
        read: impl FnOnce(&Raw) -> Result<T, String>,
    ) -> Result<Option<(T, Place)>, ConfigError> {
        match self.0.get(&(section, key)) {
            // An empty text is how a file or an environment says "not set".
            None => Ok(None),
            Some((Raw::Text(text), _)) if text.is_empty() => Ok(None),
            Some((raw, place)) => match read(raw) {
                Ok(value) => Ok(Some((value, place.clone()))),
                Err(reason) => Err(ConfigError::Value {
                    place: place.clone(),
                    key: format!("{section}.{key}"),
                    reason,
                }),
            },
        }
    }

    fn text<T: FromStr<Err: fmt::Display>>(
        &self,
        section: &'static str,
        key: &'static str,
    ) -> Result<Option<T>, ConfigError> {
        let read = |raw: &Raw| match raw {
            Raw::Text(text) => text.parse().map_err(|e: T::Err| format!("is no good: {e}")),
            _ => Err("must be a text".to_owned()),
        };
        Ok(self.take(section, key, read)?.map(|(value, _)| value))
    }

    /// A secret of `[storage]`, or what is in the file that its sister names, without the
    /// line's end.
    fn secret(
        &self,
        key: &'static str,
        path_key: &'static str,
    ) -> Result<Option<Secret>, ConfigError> {
        let secret = self.text("storage", key)?;
        let file = self.take("storage", path_key, |raw| match raw {
            Raw::Text(path) if secret.is_none() => {
                let bytes = file::read_secret(Path::new(path)).map_err(|e| e.to_string())?;
                let text = std::str::from_utf8(bytes.trim_ascii());
                let text = text.map_err(|_| format!("names {path}, which holds no text"))?;
                Ok(Secret(text.to_owned()))
            }
            Raw::Text(_) => Err(format!("is set beside storage.{key}: keep one of the two")),
            _ => Err("must be a text".to_owned()),
        })?;
        Ok(secret.or(file.map(|(secret, _)| secret)))
    }

    fn number(
        &self,
        section: &'static str,
        key: &'static str,
    ) -> Result<Option<(u64, Place)>, ConfigError> {
        self.take(section, key, |raw| match raw {
            Raw::Number(number) => Ok(*number),
            _ => Err("must be a number".to_owned()),
        })
    }

    /// A limit: 1 to `u32::MAX`.
    fn limit(&self, key: &'static str, default: u32) -> Result<u32, ConfigError> {
        let read = |raw: &Raw| match raw {
            Raw::Number(number) => u32::try_from(*number)
                .ok()
                .filter(|n| *n > 0)
                .ok_or_else(|| format!("must be 1 to {}, not {number}", u32::MAX)),
            _ => Err("must be a number".to_owned()),
        };
        Ok(self.take("network", key, read)?.map_or(default, |(n, _)| n))
    }

    fn need<T>(
        section: &'static str,
        key: &'static str,
        value: Option<T>,
    ) -> Result<T, ConfigError> {
        value.ok_or_else(|| ConfigError::Missing {
            section,
            key,
            variable: source::long_name(section, key),
        })
    }

    fn needed<T: FromStr<Err: fmt::Display>>(
        &self,
        section: &'static str,
        key: &'static str,
    ) -> Result<T, ConfigError> {
        Self::need(section, key, self.text(section, key)?)
    }

    fn place(&self, section: &'static str, key: &'static str) -> Place {
        match self.0.get(&(section, key)) {
            Some((_, place)) => place.clone(),
            None => Place::Missing(format!("{section}.{key}")),
        }
    }

    fn config(&self) -> Result<Config, ConfigError> {
        let votes_per_sec = self.limit("rate_limit_votes_per_sec", 1000)?;
        let data_dir: PathBuf = self
            .text("node", "data_dir")?
            .unwrap_or_else(|| "data".into());
        let chosen = self.take("storage", "coordinator", |raw| match raw {
            Raw::Text(text) => match &**text {
                "embedded" => Ok(Ok(false)),
                "etcd" => Ok(Ok(true)),
                "pbft" => Ok(Err(format!(
                    "storage.coordinator = {text:?} (\"embedded\" and \"etcd\" are)"
                ))),
                _ => Err(format!("must be \"embedded\" or \"etcd\", not {text:?}")),
            },
            _ => Err("must be a text".to_owned()),
        })?;
        let coordinator = match chosen {
            None | Some((Ok(false), _)) => CoordinatorKind::Embedded,
            Some((Ok(true), _)) => CoordinatorKind::Etcd(Box::new(self.etcd()?)),
            Some((Err(what), place)) => return Err(ConfigError::Later { place, what }),
        };
        self.take("mtls", "tls_version", |raw| match raw {
            Raw::Text(text) if text == "1.3" => Ok(()),
            _ => Err("must be \"1.3\": older versions of TLS are not spoken".to_owned()),
        })?;
        let config = Config {
            node: NodeSection {
                node_id: self.needed("node", "node_id")?,
                peer_id: self.text("node", "peer_id")?,
                listen_addr: self
                    .text("node", "listen_addr")?
                    .unwrap_or(SocketAddr::from(([0, 0, 0, 0], 9000))),
                advertise_addr: self.text("node", "advertise_addr")?,
                health_addr: self.health_addr()?,
                data_dir: data_dir.clone(),
            },
            keys: KeysSection {
                vote_key_path: self.text("keys", "vote_key_path")?,
                node_key_path: self.needed("keys", "node_key_path")?,
            },
            mtls: MtlsSection {
                ca_cert_path: self.needed("mtls", "ca_cert_path")?,
                clients_ca_path: self.needed("mtls", "clients_ca_path")?,
                node_cert_path: self.needed("mtls", "node_cert_path")?,
                node_key_path: self.needed("mtls", "node_key_path")?,
                crl_path: self.text("mtls", "crl_path")?,
            },
            network: NetworkSection {
                bootstrap_peers: self.peers()?,
                rate_limit_votes_per_sec: votes_per_sec,
                rate_limit_burst: self.limit("rate_limit_burst", votes_per_sec)?,
                rate_limit_frames_per_sec: self.limit("rate_limit_frames_per_sec", 10_000)?,
                max_unstarted_per_client: self.limit("max_unstarted_per_client", 2_500)?,
            },
            storage: StorageSection {
                coordinator,
                embedded_dir: self.text("storage", "embedded_dir")?.unwrap_or(data_dir),
                postgres_url: self.secret("postgres_url", "postgres_url_path")?,
                postgres_ca_path: self.text("storage", "postgres_ca_path")?,
            },
            consensus: ConsensusSection {
                cluster_id: self.needed("consensus", "cluster_id")?,
                rules_path: self.needed("consensus", "rules_path")?,
                total_nodes: self.number("consensus", "total_nodes")?,
                threshold: self.number("consensus", "threshold")?,
                vote_timeout_secs: self.number("consensus", "vote_timeout_secs")?,
                node_id_place: self.place("node", "node_id"),
                peer_id_place: self.place("node", "peer_id"),
            },
            chain: self.chain()?,
            logging: self.logging()?,
            telemetry: self.telemetry()?,
        };
        Ok(config)
    }

    /// An address, or "none".
    fn health_addr(&self) -> Result<Option<SocketAddr>, ConfigError> {
        let read = |raw: &Raw| match raw {
            Raw::Text(text) if text == "none" => Ok(None),
            Raw::Text(text) => text
                .parse()
                .map(Some)
                .map_err(|_| format!("must be an address with a port, or \"none\", not {text:?}")),
            _ => Err("must be a text".to_owned()),
        };
        let given = self.take("node", "health_addr", read)?;
        let usual = Some(SocketAddr::from(([127, 0, 0, 1], 8080)));
        Ok(given.map_or(usual, |(addr, _)| addr))
    }

    fn peers(&self) -> Result<Vec<PeerAddress>, ConfigError> {
        let read = |raw: &Raw| match raw {
            Raw::List(items) => items.iter().map(|item| item.parse()).collect(),
            _ => Err("must be a list".to_owned()),
        };
        let peers = self.take("network", "bootstrap_peers", read)?;
        Ok(peers.map(|(peers, _)| peers).unwrap_or_default())
    }

    fn chain(&self) -> Result<ChainSection, ConfigError> {
        let key_path: Option<PathBuf> = self.text("chain", "key_path")?;
        let submit = self.take("chain", "submit", |raw| match raw {
            Raw::Flag(flag) => Ok(*flag),
            _ => Err("must be true or false".to_owned()),
        })?;
        let submit = submit.map_or(key_path.is_some(), |(submit, _)| submit);
        if submit {
            Self::need("chain", "key_path", key_path.as_ref())?;
        }
        Ok(ChainSection { submit, key_path })
    }

    fn telemetry(&self) -> Result<TelemetrySection, ConfigError> {
        let default = TelemetrySection::default();
        let endpoint = self.take("telemetry", "otlp_endpoint", |raw| match raw {
            Raw::Text(text) => otlp::endpoint(text).map_err(|e| e.to_string()),
            _ => Err("must be a text".to_owned()),
        })?;
        let ratio = self.take("telemetry", "sample_ratio", |raw| match raw {
            Raw::Ratio(ratio) => Ok(*ratio),
            _ => Err("must be a number from 0 to 1".to_owned()),
        })?;
        let values = self.take("telemetry", "trace_values", |raw| match raw {
            Raw::Flag(flag) => Ok(*flag),
            _ => Err("must be true or false".to_owned()),
        })?;
        Ok(TelemetrySection {
            otlp_endpoint: endpoint.map(|(endpoint, _)| endpoint),
            sample_ratio: ratio.map_or(default.sample_ratio, |(ratio, _)| ratio),
            trace_values: values.map_or(default.trace_values, |(values, _)| values),
            alert_webhook: self.text("telemetry", "alert_webhook")?,
            pace: default.pace,
        })
    }

    fn logging(&self) -> Result<LogSettings, ConfigError> {
        let default = LogSettings::default();
        let level = self.take("logging", "level", |raw| match raw {
            Raw::Text(level) => {
                let settings = LogSettings {
                    level: level.clone(),
                    ..LogSettings::default()
                };
                settings.check().map_err(|e| e.to_string())?;
                Ok(settings.level)
            }
            _ => Err("must be a text".to_owned()),
        })?;
        Ok(LogSettings {
            level: level.map_or(default.level, |(level, _)| level),
            format: self
                .text::<Format>("logging", "format")?
                .unwrap_or_default(),
        })
    }
}
