//! A node's certificates in use: loaded from files, checked as the others will check
//! them, and exchanged while running.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use quorate_crypto::file;
use rustls::client::Resumption;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig};

use crate::client::ClientTls;
use crate::error::TlsError;
use crate::identity::{self, Identity, Role, Serial};
use crate::pki::authority::{AuthorityKind, AuthorityName};
use crate::pki::inspect::{millis, serial};
use crate::refused::words_of;
use crate::stamps::{Stamps, stamps};
use crate::verifier::{PeerVerifier, ServerVerifier};

/// HTTP/2, as ALPN names it.
pub(crate) const H2: &[u8] = b"h2";

/// The files of a node's certificates; the `[mtls]` section of its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPaths {
    /// The cluster CA's certificate, or several while it is being replaced.
    pub ca_cert: PathBuf,
    /// The trustee's own CA's certificate; without it no client and no operator is
    /// taken.
    pub clients_ca: Option<PathBuf>,
    /// The node's certificate.
    pub node_cert: PathBuf,
    /// Its key.
    pub node_key: PathBuf,
    /// Revocation lists by these CAs, one or several in one file. A CA without a list
    /// has revoked nothing; a list past its time refuses all of its CA's certificates.
    pub crl: Option<PathBuf>,
}

/// What a node shows and whom it trusts. Every new connection takes what is current.
pub struct TlsMaterial {
    paths: TlsPaths,
    current: ArcSwap<Current>,
    client: Arc<ClientTls>,
    /// The files as they were when they were last read, whether they were good or not.
    read: Mutex<Stamps>,
}

/// One consistent set.
pub(crate) struct Current {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) verifier: Arc<PeerVerifier>,
    pub(crate) own: OwnCertificate,
    /// Our own certificate is revoked: nobody may rely on what is said with it.
    own_revoked: bool,
    pub(crate) expiries: Expiries,
}

/// Until when what is in use is good: milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiries {
    /// The node's own certificate.
    pub own_ms: u64,
    /// The last of the cluster CA's certificates: while one is being replaced by
    /// another, the new one counts.
    pub cluster_ca_ms: Option<u64>,
    /// The same for the trustee's own CA.
    pub clients_ca_ms: Option<u64>,
    /// The first of the revocation lists; none without a list, or when none names a
    /// time.
    pub crl_ms: Option<u64>,
}

/// What our own certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnCertificate {
    /// Whom it names.
    pub identity: Identity,
    /// BLAKE3-256 of its DER form.
    pub digest: [u8; 32],
    /// Its serial number.
    pub serial: Serial,
    /// Valid until: milliseconds since the Unix epoch.
    pub not_after_ms: u64,
}

impl TlsMaterial {
    /// Loads a node's certificates and checks them: they belong together, name a node,
    /// chain to the cluster CA, and are valid now.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn load(paths: TlsPaths) -> Result<Arc<Self>, TlsError> {
        let read = stamps(&paths);
        let (current, client) = load(&paths)?;
        if current.own_revoked {
            return Err(TlsError::OwnRevoked(paths.node_cert));
        }
        Ok(Arc::new(Self {
            paths,
            current: ArcSwap::from_pointee(current),
            client: Arc::new(client),
            read: Mutex::new(read),
        }))
    }

    /// Whether a file is another than when the files were last read.
    pub fn has_changed(&self) -> bool {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        *read != stamps(&self.paths)
    }

    /// Loads the same files again. Connections that exist go on: give them to
    /// [`Registry::recheck`](crate::Registry::recheck) to end those that would be
    /// refused now.
    ///
    /// # Errors
    /// [`TlsError`]; then what was in use stays in use. But with
    /// [`TlsError::OwnRevoked`] all was exchanged, and everybody is refused from now on,
    /// until a reload brings a certificate that is not revoked.
    pub fn reload(&self) -> Result<(), TlsError> {
        // Held to the end: of two reloads at once, the one that read last must win.
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        // Before they are read: whatever changes meanwhile is another file then.
        *read = stamps(&self.paths);
        let (current, client) = load(&self.paths)?;
        let running = self.own().identity;
        if current.own.identity != running {
            return Err(TlsError::OtherIdentity {
                found: Box::new(current.own.identity),
                expected: Box::new(running),
            });
        }
        let revoked = current.own_revoked;
        self.client.replace(client);
        self.current.store(Arc::new(current));
        match revoked {
            true => Err(TlsError::OwnRevoked(self.paths.node_cert.clone())),
            false => Ok(()),
        }
    }

    /// Whether the certificate in use is on its CA's list, as far as this node knows.
    pub fn own_revoked(&self) -> bool {
        self.current.load().own_revoked
    }

    /// What the node's own certificate says.
    pub fn own(&self) -> OwnCertificate {
        self.current.load().own.clone()
    }

    /// Until when what is in use is good.
    pub fn expiries(&self) -> Expiries {
        self.current.load().expiries
    }

    /// What the node dials with; follows every reload.
    pub fn client(&self) -> Arc<ClientTls> {
        Arc::clone(&self.client)
    }

    pub(crate) fn current(&self) -> Arc<Current> {
        self.current.load_full()
    }
}

impl std::fmt::Debug for TlsMaterial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsMaterial")
            .field("paths", &self.paths)
            .field("own", &self.own())
            .finish_non_exhaustive()
    }
}

fn load(paths: &TlsPaths) -> Result<(Current, ClientTls), TlsError> {
    let cluster_cas = read_certificates(&paths.ca_cert)?;
    let clients_cas = match &paths.clients_ca {
        Some(path) => read_certificates(path)?,
        None => Vec::new(),
    };
    let crls = read_crls(paths.crl.as_deref())?;
    let leaf = OwnLeaf::read(&paths.node_cert, &paths.node_key)?;
    let me = &leaf.own.identity;
    if me.role != Role::Node {
        return Err(TlsError::NotNode {
            path: paths.node_cert.clone(),
            identity: me.clone(),
        });
    }
    check_authorities(paths, me, &cluster_cas, &clients_cas)?;
    if let Some(name) = ambiguous(&crls, &cluster_cas).or_else(|| ambiguous(&crls, &clients_cas)) {
        return Err(TlsError::SameName(name));
    }
    if let (Some(path), Some(issuer)) = (&paths.crl, stray(&crls, &[&cluster_cas, &clients_cas])) {
        let path = path.clone();
        return Err(TlsError::StrayCrl { path, issuer });
    }

    let nodes = chain_verifier(&cluster_cas, &crls)?;
    let refused = |e: rustls::Error| TlsError::OwnCertificate {
        path: paths.node_cert.clone(),
        reason: words_of(&e),
    };
    let (end_entity, intermediates) = leaf.parts();
    let own_revoked = match nodes.verify_client_cert(end_entity, intermediates, UnixTime::now()) {
        Ok(_) => false,
        Err(rustls::Error::InvalidCertificate(CertificateError::Revoked)) => true,
        Err(error) => return Err(refused(error)),
    };
    let clients = match clients_cas.as_slice() {
        [] => None,
        cas => Some(chain_verifier(cas, &crls)?),
    };
    let verifier = Arc::new(PeerVerifier::new(me, own_revoked, nodes, clients));
    let client = client_side(&cluster_cas, &crls, &leaf, own_revoked)?;

    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::clone(&verifier) as Arc<dyn ClientCertVerifier>)
        .with_single_cert(leaf.chain, leaf.key)?;
    server.alpn_protocols = vec![H2.to_vec()];
    // Nothing resumes past a revocation: every connection proves its certificate anew.
    server.send_tls13_tickets = 0;
    server.session_storage = Arc::new(NoServerSessionStorage {});
    let expiries = Expiries {
        own_ms: leaf.own.not_after_ms,
        cluster_ca_ms: last_end(&cluster_cas),
        clients_ca_ms: last_end(&clients_cas),
        crl_ms: first_update(&crls),
    };
    let current = Current {
        server: Arc::new(server),
        verifier,
        own: leaf.own,
        own_revoked,
        expiries,
    };
    Ok((current, client))
}

fn last_end(cas: &[CertificateDer<'_>]) -> Option<u64> {
    let end = |ca: &CertificateDer<'_>| {
        let ca = identity::parse(ca).ok()?;
        Some(millis(ca.validity().not_after.timestamp()))
    };
    cas.iter().filter_map(end).max()
}

fn first_update(crls: &[CertificateRevocationListDer<'_>]) -> Option<u64> {
    let next = |list: &CertificateRevocationListDer<'_>| {
        let (_, list) = x509_parser::parse_x509_crl(list).ok()?;
        list.next_update().map(|time| millis(time.timestamp()))
    };
    crls.iter().filter_map(next).min()
}

/// Finds a CA in the wrong place before it lets the wrong people in.
fn check_authorities(
    paths: &TlsPaths,
    me: &Identity,
    cluster_cas: &[CertificateDer<'_>],
    clients_cas: &[CertificateDer<'_>],
) -> Result<(), TlsError> {
    let wrong = |path: &Path, wanted: String| TlsError::Authority {
        path: path.to_owned(),
        wanted,
    };
    let misplaced = |ca: &CertificateDer<'_>, kind: AuthorityKind| {
        // A CA that was not made by us carries no name of ours to compare.
        AuthorityName::of_certificate(ca)
            .is_some_and(|name| name.cluster != me.cluster || name.kind != kind)
    };
    if cluster_cas
        .iter()
        .any(|ca| misplaced(ca, AuthorityKind::Cluster))
    {
        let wanted = format!("the cluster CA of {}", me.cluster);
        return Err(wrong(&paths.ca_cert, wanted));
    }
    let Some(path) = &paths.clients_ca else {
        return Ok(());
    };
    let of_me = AuthorityKind::Clients(me.node_id.clone());
    if clients_cas.iter().any(|ca| misplaced(ca, of_me.clone())) {
        return Err(wrong(path, format!("the clients' CA of {}", me.node_id)));
    }
    let key = |ca: &CertificateDer<'_>| {
        identity::parse(ca).map(|c| c.public_key().subject_public_key.data.to_vec())
    };
    let cluster_keys: Vec<_> = cluster_cas.iter().filter_map(|ca| key(ca).ok()).collect();
    let shared = |ca: &CertificateDer<'_>| key(ca).is_ok_and(|k| cluster_keys.contains(&k));
    if clients_cas.iter().any(shared) {
        let wanted = "a CA of the trustee's own: the cluster CA must be able to make nobody vote";
        return Err(wrong(path, wanted.into()));
    }
    Ok(())
}

/// Our own certificate chain with its key.
pub(crate) struct OwnLeaf {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    pub(crate) own: OwnCertificate,
}

impl OwnLeaf {
    pub(crate) fn read(cert_path: &Path, key_path: &Path) -> Result<Self, TlsError> {
        let chain = read_certificates(cert_path)?;
        let pem = file::read_secret(key_path)?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| TlsError::Holds {
            path: key_path.to_owned(),
            wanted: "private key",
        })?;
        let refuse = |source| TlsError::Identity {
            path: cert_path.to_owned(),
            source,
        };
        let leaf = chain.first().ok_or_else(|| TlsError::Holds {
            path: cert_path.to_owned(),
            wanted: "certificate",
        })?;
        let parsed = identity::parse(leaf).map_err(refuse)?;
        let own = OwnCertificate {
            identity: Identity::of_parsed(&parsed).map_err(refuse)?,
            digest: *blake3::hash(leaf).as_bytes(),
            serial: serial(&parsed),
            not_after_ms: millis(parsed.validity().not_after.timestamp()),
        };
        rustls::sign::CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider()).map_err(
            |_| TlsError::OtherKey {
                key: key_path.to_owned(),
                cert: cert_path.to_owned(),
            },
        )?;
        Ok(Self { chain, key, own })
    }

    fn parts(&self) -> (&CertificateDer<'static>, &[CertificateDer<'static>]) {
        // `read` refuses an empty chain.
        (&self.chain[0], &self.chain[1..])
    }
}

/// What to dial with: trusts nodes certified by these CAs.
pub(crate) fn client_side(
    cluster_cas: &[CertificateDer<'_>],
    crls: &[CertificateRevocationListDer<'static>],
    leaf: &OwnLeaf,
    own_revoked: bool,
) -> Result<ClientTls, TlsError> {
    let mut builder = WebPkiServerVerifier::builder_with_provider(roots(cluster_cas)?, provider());
    let crls = issued_by(crls, cluster_cas);
    if !crls.is_empty() {
        builder = builder
            .with_crls(crls)
            .allow_unknown_revocation_status()
            .enforce_revocation_expiration();
    }
    let chain = builder
        .build()
        .map_err(|e| TlsError::Rustls(e.to_string()))?;
    let verifier = ServerVerifier::new(leaf.own.identity.cluster.clone(), chain);
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(leaf.chain.clone(), leaf.key.clone_key())?;
    config.alpn_protocols = vec![H2.to_vec()];
    config.resumption = Resumption::disabled();
    let (config, own) = (Arc::new(config), leaf.own.clone());
    Ok(ClientTls::new(config, own, own_revoked))
}

/// The cryptography of every connection: TLS 1.3's suites, and key exchange that a
/// quantum computer of the future cannot undo, where the other end has it too.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        kx_groups: vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
        ],
        ..aws_lc_rs::default_provider()
    })
}

/// Verifies chains to exactly these CAs.
pub(crate) fn chain_verifier(
    cas: &[CertificateDer<'_>],
    crls: &[CertificateRevocationListDer<'static>],
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots(cas)?, provider());
    let crls = issued_by(crls, cas);
    if !crls.is_empty() {
        builder = builder
            .with_crls(crls)
            .allow_unknown_revocation_status()
            .enforce_revocation_expiration();
    }
    builder.build().map_err(|e| TlsError::Rustls(e.to_string()))
}

pub(crate) fn roots(cas: &[CertificateDer<'_>]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for ca in cas {
        roots.add(ca.clone())?;
    }
    Ok(Arc::new(roots))
}

/// All certificates of a PEM file, at least one.
pub(crate) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = file::read(path)?;
    CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or_else(|| TlsError::Holds {
            path: path.to_owned(),
            wanted: "certificate",
        })
}

/// All revocation lists of a PEM file, at least one; none without a file.
pub(crate) fn read_crls(
    path: Option<&Path>,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let Some(path) = path else {
        return Ok(Vec::new());
    };
    let pem = file::read(path)?;
    CertificateRevocationListDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|lists| !lists.is_empty())
        .ok_or_else(|| TlsError::Holds {
            path: path.to_owned(),
            wanted: "certificate revocation list",
        })
}

/// Whether one of these CAs bears the name of the list's issuer; its signature is
/// checked where it is used.
fn names_issuer(list: &CertificateRevocationListDer<'_>, cas: &[CertificateDer<'_>]) -> bool {
    let Ok((_, list)) = x509_parser::parse_x509_crl(list) else {
        return false;
    };
    cas.iter().any(|ca| {
        identity::parse(ca).is_ok_and(|ca| ca.subject().as_raw() == list.issuer().as_raw())
    })
}

fn issued_by(
    crls: &[CertificateRevocationListDer<'static>],
    cas: &[CertificateDer<'_>],
) -> Vec<CertificateRevocationListDer<'static>> {
    crls.iter()
        .filter(|list| names_issuer(list, cas))
        .cloned()
        .collect()
}

/// The name of a list's issuer that several of these CAs with different keys bear: TLS
/// finds a list by its issuer's name, and would hold it against all of them.
fn ambiguous(
    crls: &[CertificateRevocationListDer<'static>],
    cas: &[CertificateDer<'_>],
) -> Option<String> {
    let named: Vec<_> = cas
        .iter()
        .filter_map(|ca| identity::parse(ca).ok())
        .collect();
    let of = |raw: &[u8]| {
        let bear = named.iter().filter(|ca| ca.subject().as_raw() == raw);
        let keys: Vec<_> = bear.map(|ca| ca.public_key().raw).collect();
        keys.iter().any(|key| *key != keys[0])
    };
    crls.iter().find_map(|list| {
        let (_, list) = x509_parser::parse_x509_crl(list).ok()?;
        of(list.issuer().as_raw()).then(|| list.issuer().to_string())
    })
}

/// The issuer of a list that none of these CAs made.
fn stray(
    crls: &[CertificateRevocationListDer<'static>],
    cas: &[&[CertificateDer<'_>]],
) -> Option<String> {
    let list = crls
        .iter()
        .find(|list| !cas.iter().any(|cas| names_issuer(list, cas)))?;
    match x509_parser::parse_x509_crl(list) {
        Ok((_, list)) => Some(list.issuer().to_string()),
        Err(_) => Some("nobody that can be read".into()),
    }
}
