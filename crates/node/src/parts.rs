//! What a node is assembled from, and how it is assembled from a configuration.

use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use quorate_audit::{AuditError, AuditStore, Lineage};
use quorate_chain::{Chain, ChainError, ChainKey, Ledger, LedgerOptions};
use quorate_consensus::proof::verify_rules;
use quorate_consensus::statement::KeyRole;
use quorate_consensus::{Address, ClusterId, NodeId, Rules, rules, wire};
use quorate_coordinator::{Coordinator, StoreError};
use quorate_crypto::{CachedVerifier, KeyError, SigningKey};
use quorate_telemetry::LogHandle;
use quorate_tls::{TlsError, TlsMaterial, TlsPaths};

use crate::config::{Config, ConfigError, PeerAddress, TelemetrySection};
use crate::faults::Faults;
use crate::health::HealthLimits;
use crate::journal::JournalError;
use crate::stores::{open_audit, open_board};

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The rules file.
    #[error("{}: {reason}", path.display())]
    Rules {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A signing key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A key that the rules do not know as this trustee's.
    #[error(
        "the {key} key is not the one that the rules name for {node_id}: use the key that its member record was made with"
    )]
    WrongKey {
        /// "vote" or "node".
        key: &'static str,
        /// The trustee.
        node_id: NodeId,
    },
    /// This node is not among the members.
    #[error("{0} is not a member under these rules")]
    NotAMember(NodeId),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A certificate of somebody else.
    #[error("the certificate is {found}'s, but this node is {own}: use its own certificate")]
    OtherIdentity {
        /// Whom it names.
        found: String,
        /// Who this is.
        own: String,
    },
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The board's store.
    #[error("board: {0}")]
    Board(#[from] StoreError),
    /// The audit store.
    #[error("audit store: {0}")]
    Audit(#[from] AuditError),
    /// The chain.
    #[error("chain: {0}")]
    Chain(#[from] ChainError),
    /// Somebody else listens there, or the address is not ours.
    #[error("cannot listen on {addr}: {reason}")]
    Listen {
        /// The address.
        addr: String,
        /// Why not.
        reason: String,
    },
    /// A directory.
    #[error("cannot make {}: {reason}; give the user that runs the node write access there, or set another directory", path.display())]
    Directory {
        /// Which one.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The operating system gave no threads.
    #[error("cannot start the node's threads: {0}")]
    Runtime(String),
}

/// How much a caller and a peer may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls of one client identity in a second.
    pub calls_per_sec: NonZeroU32,
    /// Calls beyond that which it may save up.
    pub burst: NonZeroU32,
    /// Frames of one peer in a second; more are left waiting.
    pub frames_per_sec: NonZeroU32,
    /// Ballots that one client may keep open while too few others have voted on them.
    pub unstarted_per_client: NonZeroU32,
    /// How long a request may take to arrive.
    pub request_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let limit = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self {
            calls_per_sec: limit(1000),
            burst: limit(1000),
            frames_per_sec: limit(10_000),
            unstarted_per_client: limit(2_500),
            request_time: Duration::from_secs(10),
        }
    }
}

/// The parts of one node. Tests and demonstrations may exchange any of them.
pub struct Parts {
    /// The trustee it acts for.
    pub node_id: NodeId,
    /// Where the journal lies.
    pub data_dir: PathBuf,
    /// The rules documents from the genesis to the one in force.
    pub rules_chain: wire::RulesChain,
    /// The same, checked; the last is in force.
    pub rules: Vec<Arc<Rules>>,
    /// Signs votes; none if they are signed elsewhere.
    pub vote_key: Option<SigningKey>,
    /// Signs what the node itself says.
    pub node_key: SigningKey,
    /// The node's certificates.
    pub tls: Arc<TlsMaterial>,
    /// A bound, listening socket.
    pub listener: TcpListener,
    /// A bound, listening socket for health and metrics; none if nobody may ask.
    pub health: Option<TcpListener>,
    /// What is well.
    pub health_limits: HealthLimits,
    /// Where some other nodes are; from them it learns where the rest are.
    pub peers: Vec<PeerAddress>,
    /// Where the others reach this node; the listener's address if none is given and it
    /// names one interface.
    pub advertise: Option<Address>,
    /// The protocol versions that it speaks, least and greatest; none for all that it
    /// knows. To try versions against each other.
    pub speaks: Option<(u32, u32)>,
    /// Rate limits.
    pub limits: Limits,
    /// What keeps the board.
    pub coordinator: Arc<dyn Coordinator>,
    /// What keeps the record.
    pub audit: Arc<dyn AuditStore>,
    /// Where decided values go.
    pub chain: Arc<dyn Chain>,
    /// This node submits decided values.
    pub submits: bool,
    /// The node's verifier with its cache.
    pub verifier: Arc<CachedVerifier>,
    /// Where traces go.
    pub telemetry: TelemetrySection,
    /// The log of the process, if operators of this node may change its level.
    pub log: Option<LogHandle>,
    /// Injected faults; none in earnest.
    pub faults: Faults,
}

impl Parts {
    /// Assembles a node as its configuration says: reads keys, certificates and
    /// rules, opens the stores, and binds the address. Blocks: in async code, call it
    /// where blocking is allowed; with etcd it must be within a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`], the first that applies.
    pub fn open(config: &Config) -> Result<Self, StartError> {
        let verifier = Arc::new(CachedVerifier::default());
        let cluster_id = config.consensus.cluster_id;
        let (rules_chain, all) = read_rules(&config.consensus.rules_path, cluster_id, &verifier)?;
        let Some((genesis, rules)) = all.first().zip(all.last()) else {
            return Err(StartError::Rules {
                path: config.consensus.rules_path.clone(),
                reason: "holds no rules document".to_owned(),
            });
        };
        config.check(rules)?;
        let shared = &config.storage.embedded_dir;
        std::fs::create_dir_all(shared).map_err(|e| StartError::Directory {
            path: shared.clone(),
            reason: e.to_string(),
        })?;
        let read_key = |path: &Path| SigningKey::read(path);
        let lineage = Lineage::new(rules_chain.clone(), all.clone())
            .unwrap_or_else(|| genesis.clone().into());
        let chain_key = match &config.chain.key_path {
            Some(path) if config.chain.submit => Some(ChainKey::read(path)?),
            _ => None,
        };
        let coordinator = open_board(&config.storage, genesis, &verifier)?;
        let audit = open_audit(&config.storage, lineage)?;
        let chain = Ledger::open(
            shared.join("ledger.db"),
            LedgerOptions::for_target(rules.chain(), chain_key),
        )?;
        let tls = TlsMaterial::load(TlsPaths {
            ca_cert: config.mtls.ca_cert_path.clone(),
            clients_ca: Some(config.mtls.clients_ca_path.clone()),
            node_cert: config.mtls.node_cert_path.clone(),
            node_key: config.mtls.node_key_path.clone(),
            crl: config.mtls.crl_path.clone(),
        })?;
        let vote_key = config.keys.vote_key_path.as_deref().map(read_key);
        let node_key = read_key(&config.keys.node_key_path)?;
        let bind = |addr: std::net::SocketAddr, key: &str| {
            TcpListener::bind(addr).map_err(|e| StartError::Listen {
                addr: format!("{addr} ({key})"),
                reason: match e.kind() {
                    std::io::ErrorKind::AddrInUse => format!(
                        "{e}: another program, or this node itself, listens there (`ss -ltnp` tells which); end it, or set {key} to another port"
                    ),
                    _ => e.to_string(),
                },
            })
        };
        let listener = bind(config.node.listen_addr, "node.listen_addr")?;
        let health = config.node.health_addr;
        let health = health.map(|addr| bind(addr, "node.health_addr"));
        let network = &config.network;
        let limit = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Ok(Self {
            node_id: config.node.node_id.clone(),
            data_dir: config.node.data_dir.clone(),
            rules_chain,
            rules: all,
            vote_key: vote_key.transpose()?,
            node_key,
            tls,
            listener,
            health: health.transpose()?,
            health_limits: HealthLimits::default(),
            peers: network.bootstrap_peers.clone(),
            advertise: config.node.advertise_addr.clone(),
            speaks: None,
            limits: Limits {
                calls_per_sec: limit(network.rate_limit_votes_per_sec),
                burst: limit(network.rate_limit_burst),
                frames_per_sec: limit(network.rate_limit_frames_per_sec),
                unstarted_per_client: limit(network.max_unstarted_per_client),
                ..Limits::default()
            },
            coordinator,
            audit,
            chain: Arc::new(chain),
            submits: config.chain.submit,
            verifier,
            telemetry: config.telemetry.clone(),
            log: None,
            faults: Faults::default(),
        })
    }

    /// The rules in force.
    ///
    /// # Errors
    /// [`StartError::NotAMember`] when there are none.
    pub fn rules(&self) -> Result<&Arc<Rules>, StartError> {
        self.rules
            .last()
            .ok_or_else(|| StartError::NotAMember(self.node_id.clone()))
    }

    /// Where the others reach this node.
    pub(crate) fn advertised(&self) -> Option<Address> {
        let listens = || default_address(self.listener.local_addr().ok()?);
        self.advertise.clone().or_else(listens)
    }

    /// Whether the parts belong together; warns of rules that are legal and unwise.
    ///
    /// # Errors
    /// [`StartError`] when a key, a certificate or the rules are another trustee's.
    pub fn check(&self) -> Result<(), StartError> {
        let rules = self.rules()?;
        let own = &self.node_id;
        let member = rules
            .member(own)
            .ok_or_else(|| StartError::NotAMember(own.clone()))?;
        let keys = [
            (KeyRole::Node, Some(&self.node_key), "node"),
            (KeyRole::Vote, self.vote_key.as_ref(), "vote"),
        ];
        for (role, key, name) in keys {
            let ruled = match role {
                KeyRole::Node => &member.node_key,
                KeyRole::Vote => &member.vote_key,
            };
            if key.is_some_and(|key| key.public_key() != *ruled) {
                return Err(StartError::WrongKey {
                    key: name,
                    node_id: own.clone(),
                });
            }
        }
        let identity = self.tls.own().identity;
        if identity.node_id != *own || identity.cluster != rules.cluster_name() {
            return Err(StartError::OtherIdentity {
                found: identity.to_string(),
                own: format!("{own} of {}", rules.cluster_name()),
            });
        }
        let (n, t) = (rules.total(), rules.threshold());
        if 2 * t <= n {
            tracing::warn!(
                total = n,
                threshold = t,
                "rules.two_halves: two halves can both reach the threshold"
            );
        } else if 3 * t < 2 * n {
            tracing::warn!(
                total = n,
                threshold = t,
                "rules.low_threshold: below two thirds of the members"
            );
        }
        Ok(())
    }
}

/// What is advertised of a node that listens there unless its configuration says more:
/// 0.0.0.0 is everybody's own machine.
pub(crate) fn default_address(listens: SocketAddr) -> Option<Address> {
    (!listens.ip().is_unspecified()).then(|| Address::new(&listens.to_string()).ok())?
}

/// The rules in force that a configuration names, held against it. Reads the rules file
/// and nothing else.
///
/// # Errors
/// [`StartError::Rules`], or [`StartError::Config`] when they differ.
pub fn configured_rules(config: &Config) -> Result<Arc<Rules>, StartError> {
    let consensus = &config.consensus;
    let verifier = CachedVerifier::default();
    let (_, mut all) = read_rules(&consensus.rules_path, consensus.cluster_id, &verifier)?;
    let rules = all.pop().ok_or_else(|| StartError::Rules {
        path: consensus.rules_path.clone(),
        reason: "holds no rules document".to_owned(),
    })?;
    config.check(&rules)?;
    Ok(rules)
}

/// Reads a rules file: a genesis document, or the chain of documents from the genesis
/// on. Which it is, the pinned cluster id tells.
pub(crate) fn read_rules(
    path: &Path,
    pinned: ClusterId,
    verifier: &CachedVerifier,
) -> Result<(wire::RulesChain, Vec<Arc<Rules>>), StartError> {
    let wrong = |reason: String| StartError::Rules {
        path: path.to_owned(),
        reason,
    };
    let bytes = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
    let is_genesis = rules::digest_of(&bytes).0 == pinned.0;
    let chain = match (is_genesis, Rules::genesis(&bytes, verifier)) {
        (false, Ok(other)) => {
            return Err(wrong(format!(
                "these rules are of cluster {}, but {pinned} is pinned: use the rules of the pinned cluster, or pin this one with `quorate rules accept`",
                other.cluster_id()
            )));
        }
        (true, _) => wire::RulesChain {
            links: vec![wire::RulesLink {
                document: bytes,
                justification: None,
            }],
        },
        (false, Err(_)) => wire::RulesChain::decode(&*bytes)
            .map_err(|_| wrong("holds neither a genesis nor a chain of rules".to_owned()))?,
    };
    let rules = verify_rules(&chain, &pinned, verifier).map_err(|e| wrong(e.to_string()))?;
    Ok((chain, rules))
}
