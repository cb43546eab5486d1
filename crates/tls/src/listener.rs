//! Accepts connections and yields those whose handshake is done and whose certificate
//! is good. One slow or hostile client holds up nobody else.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::mpsc;
use tokio_rustls::{TlsAcceptor, TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::connection::Connection;
use crate::material::{H2, TlsMaterial};
use crate::places::Places;
use crate::refused::{Refusal, Refused, story};
use crate::registry::{NewConnection, Registry, Share};

/// A pause after an accept that failed, so that a process without free file
/// descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often one kind of refusal is told of at most; all are counted.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Limits of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerOptions {
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// How many handshakes may be under way. Beyond that the oldest of the address with
    /// the most is ended.
    pub max_handshakes: usize,
    /// How many of them with one address, or one IPv6 network of 64 bits.
    pub max_handshakes_per_address: usize,
    /// How long the client may take, after the handshake, to begin to speak HTTP/2.
    pub first_words_timeout: Duration,
    /// How many incoming connections one identity may have.
    pub max_per_identity: usize,
    /// How many incoming connections clients and operators may have together. Nodes are
    /// not among them: no crowd of clients keeps a peer out.
    pub max_people: usize,
    /// How many of those from one address, or one IPv6 network of 64 bits.
    pub max_people_per_address: usize,
}

impl Default for ListenerOptions {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(5),
            max_handshakes: 256,
            max_handshakes_per_address: 128,
            first_words_timeout: Duration::from_secs(5),
            max_per_identity: 256,
            max_people: 4096,
            max_people_per_address: 1024,
        }
    }
}

/// What a listener counted since it began.
#[derive(Debug, Default)]
pub struct Counters {
    accepted: AtomicU64,
    refused: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counters {
    /// Connections that were accepted.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections that were refused, by [`Refused::label`].
    pub fn refused(&self) -> BTreeMap<&'static str, u64> {
        self.lock().clone()
    }

    fn count(&self, refused: &Refused) {
        *self.lock().entry(refused.label()).or_default() += 1;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Observer = Arc<dyn Fn(SocketAddr, &Refused) + Send + Sync>;

/// A port that takes TLS 1.3 connections with client certificates only.
pub struct Listener {
    tcp: TcpListener,
    shared: Arc<Shared>,
}

struct Shared {
    material: Arc<TlsMaterial>,
    registry: Registry,
    options: ListenerOptions,
    counters: Arc<Counters>,
    told: Told,
    observer: Option<Observer>,
}

/// When each kind of refusal was told of last.
#[derive(Debug, Default)]
struct Told(Mutex<BTreeMap<&'static str, Instant>>);

impl Told {
    /// Whether a refusal is to be told of now: a line for each connection of a flood
    /// would be a flood.
    fn is_due(&self, label: &'static str, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.get(label).is_none_or(|at| now >= *at + TOLD_EVERY);
        if due {
            last.insert(label, now);
        }
        due
    }
}

impl Listener {
    /// Binds a port; port 0 takes a free one.
    ///
    /// # Errors
    /// The system's, for instance when the port is taken.
    pub async fn bind(
        addr: impl ToSocketAddrs,
        material: Arc<TlsMaterial>,
        registry: Registry,
        options: ListenerOptions,
    ) -> io::Result<Self> {
        let tcp = TcpListener::bind(addr).await?;
        Ok(Self::over(tcp, material, registry, options))
    }

    /// The same on a socket that listens already, so that its address can be told
    /// before the node starts.
    pub fn over(
        tcp: TcpListener,
        material: Arc<TlsMaterial>,
        registry: Registry,
        options: ListenerOptions,
    ) -> Self {
        let shared = Shared {
            material,
            registry,
            options,
            counters: Arc::default(),
            told: Told::default(),
            observer: None,
        };
        Self {
            tcp,
            shared: Arc::new(shared),
        }
    }

    /// Also tells this function of every refusal. It runs on the reactor: it must not
    /// block.
    #[must_use]
    pub fn on_refused(
        self,
        observer: impl Fn(SocketAddr, &Refused) + Send + Sync + 'static,
    ) -> Self {
        let shared = Shared {
            material: Arc::clone(&self.shared.material),
            registry: self.shared.registry.clone(),
            options: self.shared.options,
            counters: Arc::clone(&self.shared.counters),
            told: Told::default(),
            observer: Some(Arc::new(observer)),
        };
        Self {
            tcp: self.tcp,
            shared: Arc::new(shared),
        }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// What it counts.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.shared.counters)
    }

    /// The connections, for `tonic::transport::Server::serve_with_incoming_shutdown`
    /// (without `accept_http1`: a dialler waits for the server's first HTTP/2 frame).
    /// Ends, and closes the port, when `stop` is cancelled or the stream is dropped;
    /// connections that were yielded live on.
    pub fn incoming(self, stop: CancellationToken) -> ReceiverStream<io::Result<Connection>> {
        let (ready, incoming) = mpsc::channel(64);
        tokio::spawn(accept_all(self.tcp, self.shared, ready, stop));
        ReceiverStream::new(incoming)
    }
}

type Ready = mpsc::Sender<io::Result<Connection>>;

async fn accept_all(tcp: TcpListener, shared: Arc<Shared>, ready: Ready, stop: CancellationToken) {
    let options = shared.options;
    let places = Places::new(options.max_handshakes, options.max_handshakes_per_address);
    loop {
        let accepted = tokio::select! {
            accepted = tcp.accept() => accepted,
            () = stop.cancelled() => return,
            () = ready.closed() => return,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "connection.failed: it could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = places.take(from.ip());
        let (shared, ready, stop) = (Arc::clone(&shared), ready.clone(), stop.clone());
        tokio::spawn(async move {
            let outcome = tokio::select! {
                outcome = handshake(&shared, stream, from) => outcome,
                () = place.lost.cancelled() => Err(Refused::Crowded),
                () = stop.cancelled() => Err(Refused::Stopping),
                () = ready.closed() => Err(Refused::Stopping),
            };
            // The place is for the handshake, not for the wait behind it.
            drop(place);
            match outcome {
                Ok(connection) => {
                    shared.counters.accepted.fetch_add(1, Ordering::Relaxed);
                    let peer = connection.peer();
                    tracing::debug!(%from, identity = %peer.identity, "connection.accepted");
                    // Nobody takes it when the server has ended; then it is closed.
                    let _ = ready.send(Ok(connection)).await;
                }
                Err(refused) => shared.refuse(from, &refused),
            }
        });
    }
}

impl Shared {
    fn refuse(&self, from: SocketAddr, refused: &Refused) {
        self.counters.count(refused);
        let (label, reason) = (refused.label(), story(refused));
        if refused.is_noise() || !self.told.is_due(label, Instant::now()) {
            tracing::debug!(%from, label, reason, "connection.refused");
        } else {
            tracing::warn!(%from, label, reason, "connection.refused");
        }
        if let Some(observer) = &self.observer {
            observer(from, refused);
        }
    }
}

async fn handshake(
    shared: &Shared,
    stream: TcpStream,
    from: SocketAddr,
) -> Result<Connection, Refused> {
    // Small frames matter more than full packets here; without it they only wait.
    let _ = stream.set_nodelay(true);
    let current = shared.material.current();
    let limit = shared.options.handshake_timeout;
    let accepting = TlsAcceptor::from(Arc::clone(&current.server)).accept(stream);
    let stream = match tokio::time::timeout(limit, accepting).await {
        Ok(stream) => stream?,
        Err(_) => return Err(Refused::TimedOut(limit)),
    };
    // A client that offers no ALPN at all passes the handshake.
    if stream.get_ref().1.alpn_protocol() != Some(H2) {
        return Err(Refused::NoH2);
    }
    let stream = TlsStream::Server(stream);
    let new = NewConnection::of(&stream, from, current.own.digest)
        .map_err(|e| Refused::Refusal(Refusal::Identity(e)))?;
    let share = Share {
        per_identity: shared.options.max_per_identity,
        people: shared.options.max_people,
        people_per_address: shared.options.max_people_per_address,
    };
    let registration = shared.registry.register_within(new, &share)?;
    let patience = shared.options.first_words_timeout;
    Ok(Connection::incoming(stream, registration, patience))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_of_once_a_second_and_hides_no_other_refusal() {
        let (told, began) = (Told::default(), Instant::now());
        assert!(told.is_due("plaintext", began));
        let soon = began + TOLD_EVERY / 2;
        assert!(!told.is_due("plaintext", soon));
        assert!(told.is_due("expired", soon));
        assert!(told.is_due("plaintext", began + TOLD_EVERY));
    }
}
