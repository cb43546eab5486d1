//! Dialling a node: as another node, or as one of its clients or operators.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper_util::rt::TokioIo;
use quorate_consensus::NodeId;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{AlertDescription, ClientConfig};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};
use tonic::transport::{Channel, Endpoint};

use crate::connection::{Connection, PeerInfo};
use crate::error::TlsError;
use crate::identity::{Identity, IdentityError};
use crate::material::{H2, OwnCertificate, OwnLeaf, client_side, read_certificates};
use crate::refused::{Refusal, story, words_of};
use crate::registry::{NewConnection, Registry};

/// How long a server may keep silent after the handshake before it is taken to have
/// accepted us.
const FIRST_WORD: Duration = Duration::from_secs(1);

/// `--cacert --cert --key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientPaths {
    /// The cluster CA's certificate.
    pub ca_cert: PathBuf,
    /// Our certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// What we dial with. Every new connection takes what is current.
pub struct ClientTls {
    current: ArcSwap<Side>,
}

struct Side {
    config: Arc<ClientConfig>,
    own: OwnCertificate,
    /// Our own certificate is revoked: nobody is bothered with it.
    revoked: bool,
}

impl ClientTls {
    /// Loads a client's or operator's certificate; one past its time is refused here,
    /// where that can be said clearly. A node takes
    /// [`TlsMaterial::client`](crate::TlsMaterial::client).
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn load(paths: &ClientPaths) -> Result<Arc<Self>, TlsError> {
        let cas = read_certificates(&paths.ca_cert)?;
        let leaf = OwnLeaf::read(&paths.cert, &paths.key)?;
        if leaf.own.not_after_ms < UnixTime::now().as_secs().saturating_mul(1000) {
            return Err(TlsError::OwnCertificate {
                path: paths.cert.clone(),
                reason: "it has expired".into(),
            });
        }
        Ok(Arc::new(client_side(&cas, &[], &leaf, false)?))
    }

    pub(crate) fn new(config: Arc<ClientConfig>, own: OwnCertificate, revoked: bool) -> Self {
        let side = Side {
            config,
            own,
            revoked,
        };
        Self {
            current: ArcSwap::from_pointee(side),
        }
    }

    pub(crate) fn replace(&self, with: Self) {
        self.current.store(with.current.load_full());
    }

    /// What our own certificate says.
    pub fn own(&self) -> OwnCertificate {
        self.current.load().own.clone()
    }
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls")
            .field("own", &self.own())
            .finish_non_exhaustive()
    }
}

/// Who should answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpectedPeer {
    /// The node; any node of our cluster when `None`.
    pub node_id: Option<NodeId>,
    /// The host name or address that its certificate must carry; that of the dialled
    /// address when `None`.
    pub server_name: Option<String>,
}

impl ExpectedPeer {
    /// Any node of our cluster that has the dialled host name.
    pub fn any() -> Self {
        Self::default()
    }

    /// Exactly this node.
    pub fn node(node_id: NodeId) -> Self {
        Self {
            node_id: Some(node_id),
            server_name: None,
        }
    }
}

/// How a connection is made and watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialOptions {
    /// How long name look-up, TCP and TLS may take together.
    pub connect_timeout: Duration,
    /// How often an idle connection is probed.
    pub keep_alive_interval: Duration,
    /// How long the answer to a probe may take.
    pub keep_alive_timeout: Duration,
}

impl Default for DialOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            keep_alive_interval: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(5),
        }
    }
}

/// Why a node could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Not `host:port`.
    #[error("{0:?} is no address: it must be HOST:PORT")]
    Address(String),
    /// No TCP connection.
    #[error("{addr} cannot be reached: {source}")]
    Unreachable {
        /// What was dialled.
        addr: String,
        /// Why.
        source: io::Error,
    },
    /// It took too long.
    #[error("{addr} did not answer within {limit:?}")]
    TimedOut {
        /// What was dialled.
        addr: String,
        /// How long it had.
        limit: Duration,
    },
    /// The server's certificate is not what it must be.
    #[error("{addr} is not who it must be: {refusal}")]
    Refusal {
        /// What was dialled.
        addr: String,
        /// Why.
        refusal: Box<Refusal>,
    },
    /// The server refused us.
    #[error("{addr} refused the connection: {reason}")]
    ByServer {
        /// What was dialled.
        addr: String,
        /// Why, as far as it says.
        reason: &'static str,
    },
    /// The TLS handshake failed.
    #[error("no TLS connection with {addr}: {reason}")]
    Handshake {
        /// What was dialled.
        addr: String,
        /// Why.
        reason: String,
    },
    /// The HTTP/2 connection failed.
    #[error("no HTTP/2 connection with {addr}: {reason}")]
    Http {
        /// What was dialled.
        addr: String,
        /// Why.
        reason: String,
    },
}

/// One connection of its own.
#[derive(Debug)]
pub struct Dialled {
    /// For calls on this connection. It is never made again: when it has ended, every
    /// call fails with UNAVAILABLE.
    pub channel: Channel,
    /// Who answered, and what both ends showed.
    pub peer: PeerInfo,
}

/// A channel that connects when it is first used, and again after a loss, each time
/// with the certificates of that moment. What goes wrong with it shows as UNAVAILABLE
/// at the call: [`explain`] says it in words. Must be called within a runtime.
///
/// # Errors
/// [`DialError::Address`].
pub fn connect(
    tls: &Arc<ClientTls>,
    addr: &str,
    expect: ExpectedPeer,
    options: DialOptions,
) -> Result<Channel, DialError> {
    connect_any(tls, &[addr], expect, options)
}

/// The same with several addresses, which are tried one after the other until one
/// answers; the next connection begins with that one.
///
/// # Errors
/// [`DialError::Address`], also when there is none.
pub fn connect_any(
    tls: &Arc<ClientTls>,
    addrs: &[&str],
    expect: ExpectedPeer,
    options: DialOptions,
) -> Result<Channel, DialError> {
    let target = |addr: &&str| Target::new(tls, addr, expect.clone(), options);
    let targets: Arc<[_]> = addrs.iter().map(target).collect::<Result<_, _>>()?;
    let first = addrs.first().copied().unwrap_or_default();
    let endpoint = endpoint(first, options)?;
    // All of them together may take as long as each.
    let tries = u32::try_from(addrs.len()).unwrap_or(u32::MAX);
    let endpoint = endpoint.connect_timeout(options.connect_timeout.saturating_mul(tries));
    // The registry of one process' own channels; nobody else looks at it.
    let registry = Registry::new();
    let good = Arc::new(AtomicUsize::new(0));
    let connector = tower::service_fn(move |_: http::Uri| {
        let (targets, registry, good) = (targets.clone(), registry.clone(), good.clone());
        async move {
            let begin = good.load(Ordering::Relaxed);
            let mut failed = None;
            for at in (begin..targets.len()).chain(0..begin) {
                match targets[at].open(&registry).await {
                    Ok(connection) => {
                        good.store(at, Ordering::Relaxed);
                        return Ok(TokioIo::new(connection));
                    }
                    Err(error) => failed = Some(error),
                }
            }
            Err(failed.unwrap_or(DialError::Address(String::new())))
        }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// Connects at once, and enters the connection into the registry.
///
/// # Errors
/// [`DialError`], a refusal by the server among them.
pub async fn dial(
    tls: &Arc<ClientTls>,
    addr: &str,
    expect: ExpectedPeer,
    registry: &Registry,
    options: DialOptions,
) -> Result<Dialled, DialError> {
    let endpoint = endpoint(addr, options)?;
    let connection = Target::new(tls, addr, expect, options)?
        .open(registry)
        .await?;
    let peer = connection.peer().clone();
    let once = Mutex::new(Some(connection));
    let connector = tower::service_fn(move |_: http::Uri| {
        let connection = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        let over = || io::Error::new(io::ErrorKind::NotConnected, "the connection has ended");
        std::future::ready(connection.map(TokioIo::new).ok_or_else(over))
    });
    let channel = endpoint
        .connect_with_connector(connector)
        .await
        .map_err(|error| DialError::Http {
            addr: addr.to_owned(),
            reason: story(&error),
        })?;
    Ok(Dialled { channel, peer })
}

/// The scheme is http because TLS is done by our own connector.
fn endpoint(addr: &str, options: DialOptions) -> Result<Endpoint, DialError> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}"))
        .map_err(|_| DialError::Address(addr.to_owned()))?;
    Ok(endpoint
        .connect_timeout(options.connect_timeout)
        .http2_keep_alive_interval(options.keep_alive_interval)
        .keep_alive_timeout(options.keep_alive_timeout)
        .keep_alive_while_idle(true))
}

#[derive(Clone)]
struct Target {
    tls: Arc<ClientTls>,
    addr: String,
    name: ServerName<'static>,
    node_id: Option<NodeId>,
    limit: Duration,
}

impl Target {
    fn new(
        tls: &Arc<ClientTls>,
        addr: &str,
        expect: ExpectedPeer,
        options: DialOptions,
    ) -> Result<Self, DialError> {
        let wrong = || DialError::Address(addr.to_owned());
        let (host, port) = addr.rsplit_once(':').ok_or_else(wrong)?;
        port.parse::<u16>().map_err(|_| wrong())?;
        let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(v6) => v6,
            // Bare IPv6 would leave it open where the port begins.
            None if host.contains(':') => return Err(wrong()),
            None => host,
        };
        let name = expect.server_name.unwrap_or_else(|| host.to_owned());
        Ok(Self {
            tls: Arc::clone(tls),
            addr: addr.to_owned(),
            name: ServerName::try_from(name).map_err(|_| wrong())?,
            node_id: expect.node_id,
            limit: options.connect_timeout,
        })
    }

    async fn open(&self, registry: &Registry) -> Result<Connection, DialError> {
        match tokio::time::timeout(self.limit, self.handshake(registry)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(DialError::TimedOut {
                addr: self.addr.clone(),
                limit: self.limit,
            }),
        }
    }

    async fn handshake(&self, registry: &Registry) -> Result<Connection, DialError> {
        let unreachable = |source| DialError::Unreachable {
            addr: self.addr.clone(),
            source,
        };
        let side = self.tls.current.load_full();
        if side.revoked {
            return Err(self.refused(Refusal::OwnRevoked));
        }
        let stream = TcpStream::connect(&self.addr).await.map_err(unreachable)?;
        let _ = stream.set_nodelay(true);
        let remote_addr = stream.peer_addr().map_err(unreachable)?;
        let stream = TlsConnector::from(Arc::clone(&side.config))
            .connect(self.name.clone(), stream)
            .await
            .map_err(|error| self.failed(&error))?;
        if stream.get_ref().1.alpn_protocol() != Some(H2) {
            return Err(DialError::Handshake {
                addr: self.addr.clone(),
                reason: "the server does not speak HTTP/2 (ALPN h2)".into(),
            });
        }
        let mut stream = TlsStream::Client(stream);
        let new = NewConnection::of(&stream, remote_addr, side.own.digest)
            .map_err(|e: IdentityError| self.refused(e.into()))?;
        self.expect(&new.identity)?;
        let first = self.first_word(&mut stream).await?;
        Ok(Connection::new(stream, first, registry.register(new)))
    }

    /// In TLS 1.3 our side of the handshake is over before the server has judged our
    /// certificate. A node that accepts us speaks first, as HTTP/2 lets it; one that
    /// refuses says so. Whoever says nothing for a while is believed.
    async fn first_word(&self, stream: &mut TlsStream<TcpStream>) -> Result<Vec<u8>, DialError> {
        let mut word = vec![0; 256];
        match tokio::time::timeout(FIRST_WORD, stream.read(&mut word)).await {
            Ok(Ok(0)) => Err(DialError::Handshake {
                addr: self.addr.clone(),
                reason: "the server closed the connection; its log says why".into(),
            }),
            Ok(Ok(len)) => {
                word.truncate(len);
                Ok(word)
            }
            Ok(Err(error)) => Err(self.failed(&error)),
            Err(_) => Ok(Vec::new()),
        }
    }

    /// The chain, the cluster and the role were checked in the handshake.
    fn expect(&self, found: &Identity) -> Result<(), DialError> {
        match &self.node_id {
            Some(node_id) if *node_id != found.node_id => Err(self.refused(Refusal::OtherServer {
                found: found.clone(),
                expected: node_id.to_string(),
            })),
            _ => Ok(()),
        }
    }

    fn refused(&self, refusal: Refusal) -> DialError {
        DialError::Refusal {
            addr: self.addr.clone(),
            refusal: Box::new(refusal),
        }
    }

    fn failed(&self, error: &io::Error) -> DialError {
        let tls = error
            .get_ref()
            .and_then(|e| e.downcast_ref::<rustls::Error>());
        if let Some(refusal) = tls.and_then(Refusal::of) {
            return self.refused(refusal.clone());
        }
        if let Some(rustls::Error::AlertReceived(alert)) = tls {
            return DialError::ByServer {
                addr: self.addr.clone(),
                reason: alert_words(*alert),
            };
        }
        DialError::Handshake {
            addr: self.addr.clone(),
            reason: tls.map_or_else(|| story(error), words_of),
        }
    }
}

/// What a failed call on a [`connect`]ed channel says about the connection, in words;
/// `None` when the connection was not the matter.
pub fn explain(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(dial) = error.downcast_ref::<DialError>() {
            return Some(dial.to_string());
        }
        next = error.source();
    }
    None
}

/// Why a server ends a connection, as it says itself.
fn alert_words(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::CertificateRequired => "it asks for a certificate, and got none",
        AlertDescription::CertificateExpired => {
            "our certificate has expired or is not valid yet, by its clock"
        }
        AlertDescription::CertificateRevoked => "our certificate was revoked",
        AlertDescription::UnknownCA => "it does not trust our certificate's CA, or cannot check it",
        AlertDescription::ProtocolVersion => "it does not speak TLS 1.3",
        AlertDescription::NoApplicationProtocol => "it does not speak HTTP/2",
        AlertDescription::CertificateUnknown
        | AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError => {
            "our certificate is not for this node, or by the wrong CA; its log says which"
        }
        _ => "its log says why",
    }
}
