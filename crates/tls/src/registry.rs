//! All live connections, so that a ban or a revocation ends them at once: TLS looks at
//! a certificate only when a connection begins.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_consensus::NodeId;
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::connection::PeerInfo;
use crate::identity::{self, Identity, IdentityError, Role, Serial};
use crate::material::TlsMaterial;
use crate::pki::inspect::serial;
use crate::places::group;
use crate::refused::Refused;

/// The live connections of a node, incoming and outgoing. Clones share one list.
#[derive(Clone, Debug, Default)]
pub struct Registry(Arc<Mutex<Live>>);

#[derive(Debug, Default)]
struct Live {
    last_id: u64,
    connections: HashMap<u64, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    info: PeerInfo,
    chain: Arc<[CertificateDer<'static>]>,
}

impl Registry {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends all connections of a node, either way. Gives how many.
    pub fn cancel_node(&self, node_id: &NodeId) -> usize {
        self.cancel_where(|peer| {
            peer.identity.role == Role::Node && peer.identity.node_id == *node_id
        })
    }

    /// Ends all connections of this identity. Gives how many.
    pub fn cancel_identity(&self, identity: &Identity) -> usize {
        self.cancel_where(|peer| peer.identity == *identity)
    }

    /// Ends all connections made with the certificate of this serial number. Gives how
    /// many.
    pub fn cancel_serial(&self, serial: &Serial) -> usize {
        self.cancel_where(|peer| peer.serial == *serial)
    }

    /// Ends all connections that fit. Gives how many.
    pub fn cancel_where(&self, fits: impl Fn(&PeerInfo) -> bool) -> usize {
        cancel(self.entries().filter(|entry| fits(&entry.info)))
    }

    /// Ends all connections whose certificate would be refused now: revoked, expired,
    /// or of a CA that is trusted no longer. Call it after a
    /// [`reload`](TlsMaterial::reload), and from time to time; it costs about 0.1 ms a
    /// connection. Gives how many.
    pub fn recheck(&self, material: &TlsMaterial) -> usize {
        let current = material.current();
        let now = UnixTime::now();
        cancel(self.entries().filter(|entry| {
            let Some((leaf, intermediates)) = entry.chain.split_first() else {
                return true;
            };
            current.verifier.check(leaf, intermediates, now).is_err()
        }))
    }

    /// The connections of this moment.
    pub fn connections(&self) -> Vec<PeerInfo> {
        let live = self.lock();
        live.connections.values().map(|e| e.info.clone()).collect()
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.lock().connections.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy, so that nothing is judged or woken under the lock.
    fn entries(&self) -> impl Iterator<Item = Entry> {
        let entries: Vec<Entry> = self.lock().connections.values().cloned().collect();
        entries.into_iter()
    }

    /// Enters a connection whose handshake is done.
    pub(crate) fn register(&self, new: NewConnection) -> Registration {
        self.enter(&mut self.lock(), new)
    }

    /// The same, unless its share of incoming connections is used up.
    pub(crate) fn register_within(
        &self,
        new: NewConnection,
        share: &Share,
    ) -> Result<Registration, Refused> {
        let mut live = self.lock();
        let from = group(new.remote_addr.ip());
        let (mut same, mut people, mut neighbours) = (0, 0, 0);
        for entry in live.connections.values() {
            let info = &entry.info;
            if info.outgoing {
                continue;
            }
            same += usize::from(info.identity == new.identity);
            if info.identity.role != Role::Node {
                people += 1;
                neighbours += usize::from(group(info.remote_addr.ip()) == from);
            }
        }
        let identity = new.identity.clone();
        let is_person = identity.role != Role::Node;
        if same >= share.per_identity {
            let limit = share.per_identity;
            return Err(Refused::TooMany { identity, limit });
        }
        if is_person && neighbours >= share.people_per_address {
            let limit = share.people_per_address;
            return Err(Refused::TooManyFrom { addr: from, limit });
        }
        if is_person && people >= share.people {
            let limit = share.people;
            return Err(Refused::TooManyPeople { limit });
        }
        Ok(self.enter(&mut live, new))
    }

    fn enter(&self, live: &mut Live, new: NewConnection) -> Registration {
        live.last_id += 1;
        let info = PeerInfo {
            connection_id: live.last_id,
            identity: new.identity,
            certificate_digest: new.certificate_digest,
            serial: new.serial,
            local_certificate_digest: new.local_certificate_digest,
            remote_addr: new.remote_addr,
            outgoing: new.outgoing,
            key_exchange: new.key_exchange,
            cancel: CancellationToken::new(),
        };
        let entry = Entry {
            info: info.clone(),
            chain: new.chain.into(),
        };
        live.connections.insert(info.connection_id, entry);
        Registration {
            registry: self.clone(),
            info,
        }
    }

    /// A poisoned lock is taken all the same: each change of the list is one insertion
    /// or one removal.
    fn lock(&self) -> MutexGuard<'_, Live> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cancel(entries: impl Iterator<Item = Entry>) -> usize {
    entries.map(|entry| entry.info.cancel.cancel()).count()
}

/// How many incoming connections there may be.
pub(crate) struct Share {
    /// Of one identity.
    pub(crate) per_identity: usize,
    /// Of clients and operators together.
    pub(crate) people: usize,
    /// Of clients and operators at one address.
    pub(crate) people_per_address: usize,
}

/// What a finished handshake tells.
pub(crate) struct NewConnection {
    pub(crate) identity: Identity,
    certificate_digest: [u8; 32],
    serial: Serial,
    local_certificate_digest: [u8; 32],
    remote_addr: SocketAddr,
    outgoing: bool,
    key_exchange: String,
    chain: Vec<CertificateDer<'static>>,
}

impl NewConnection {
    pub(crate) fn of<S>(
        stream: &TlsStream<S>,
        remote_addr: SocketAddr,
        local_certificate_digest: [u8; 32],
    ) -> Result<Self, IdentityError> {
        let (_, session) = stream.get_ref();
        let chain: Vec<CertificateDer<'static>> = session
            .peer_certificates()
            .unwrap_or_default()
            .iter()
            .map(|certificate| certificate.clone().into_owned())
            .collect();
        let leaf = chain.first().ok_or(IdentityError::Unreadable)?;
        let parsed = identity::parse(leaf)?;
        let group = session.negotiated_key_exchange_group();
        Ok(Self {
            identity: Identity::of_parsed(&parsed)?,
            certificate_digest: *blake3::hash(leaf).as_bytes(),
            serial: serial(&parsed),
            local_certificate_digest,
            remote_addr,
            outgoing: matches!(stream, TlsStream::Client(_)),
            key_exchange: group.map_or_else(String::new, |g| format!("{:?}", g.name())),
            chain,
        })
    }
}

/// A place in the registry, given back when dropped.
pub(crate) struct Registration {
    registry: Registry,
    info: PeerInfo,
}

impl Registration {
    pub(crate) fn info(&self) -> &PeerInfo {
        &self.info
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry
            .lock()
            .connections
            .remove(&self.info.connection_id);
    }
}
