//! A cluster's certificates in a temporary directory, odd certificates that our own
//! functions would not make, and a node that serves gRPC health.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod blunt;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use quorate_consensus::NodeId;
use quorate_tls::identity::PersonRole;
use quorate_tls::pki::{
    self, InitCa, Issue, MakeCrl, NodeFiles, PersonFiles, Request, SignRequest, Validity,
};
use quorate_tls::{
    ClientPaths, ClientTls, Counters, Listener, ListenerOptions, PeerInfo, Registry, Serial,
    TlsMaterial, TlsPaths,
};
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, SanType,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Server};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

pub const CLUSTER: &str = "demo";

/// Longer than anything takes; only a hang reaches it.
pub const GUARD: Duration = Duration::from_secs(60);

pub fn node(id: &str) -> NodeId {
    NodeId::new(id).unwrap()
}

/// Certificates of one cluster.
pub struct World {
    pub dir: tempfile::TempDir,
    pub cluster: String,
}

impl World {
    /// A cluster CA, and each node enrolled.
    pub fn new(node_ids: &[&str]) -> Self {
        Self::named(CLUSTER, node_ids)
    }

    pub fn named(cluster: &str, node_ids: &[&str]) -> Self {
        let world = Self {
            dir: tempfile::tempdir().unwrap(),
            cluster: cluster.into(),
        };
        pki::init_cluster_ca(&InitCa {
            dir: world.path().into(),
            cluster_name: cluster.into(),
            validity: Validity::authority(),
        })
        .unwrap();
        for id in node_ids {
            world.enrol(id);
        }
        world
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn enrol(&self, id: &str) -> NodeFiles {
        let requested = pki::request(&Request {
            dir: self.path().into(),
            cluster_name: self.cluster.clone(),
            node_id: node(id),
            sans: Vec::new(),
            authority_validity: Validity::authority(),
        })
        .unwrap();
        self.certify(id, Validity::leaf());
        requested.files
    }

    pub fn certify(&self, id: &str, validity: Validity) {
        let files = self.files(id);
        pki::sign_request(&SignRequest {
            ca_dir: self.path().into(),
            csr: files.csr,
            node_id: node(id),
            sans: Vec::new(),
            out: files.cert,
            validity,
        })
        .unwrap();
    }

    pub fn files(&self, id: &str) -> NodeFiles {
        NodeFiles::in_dir(self.path(), &node(id))
    }

    pub fn ca(&self) -> (PathBuf, PathBuf) {
        (
            pki::cluster_ca_cert(self.path()),
            pki::cluster_ca_key(self.path()),
        )
    }

    pub fn clients_ca(&self, id: &str) -> (PathBuf, PathBuf) {
        let files = self.files(id);
        (files.clients_ca_cert, files.clients_ca_key)
    }

    pub fn issue(&self, id: &str, role: PersonRole, name: &str) -> PersonFiles {
        pki::issue(&Issue {
            trustee_dir: self.path().into(),
            node_id: node(id),
            role,
            name: name.into(),
            out_dir: self.path().into(),
            validity: Validity::leaf(),
        })
        .unwrap()
    }

    pub fn paths(&self, id: &str) -> TlsPaths {
        let files = self.files(id);
        TlsPaths {
            ca_cert: self.ca().0,
            clients_ca: Some(files.clients_ca_cert),
            node_cert: files.cert,
            node_key: files.key,
            crl: None,
        }
    }

    pub fn material(&self, id: &str) -> Arc<TlsMaterial> {
        TlsMaterial::load(self.paths(id)).unwrap()
    }

    /// Dials as this person.
    pub fn person(&self, files: &PersonFiles) -> Arc<ClientTls> {
        ClientTls::load(&ClientPaths {
            ca_cert: self.ca().0,
            cert: files.cert.clone(),
            key: files.key.clone(),
        })
        .unwrap()
    }

    /// Certifies whatever is asked for, as a CA does that went wrong.
    pub fn forge(&self, ca: &(PathBuf, PathBuf), odd: Odd) -> PersonFiles {
        let key = std::fs::read_to_string(&ca.1).unwrap();
        let key = KeyPair::from_pem(&key).unwrap();
        let cert = std::fs::read_to_string(&ca.0).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&cert, key).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = odd.sans;
        params.extended_key_usages = odd.usages;
        params.not_before = odd.validity.not_before.into();
        params.not_after = odd.validity.not_after.into();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let cert = params.signed_by(&key, &issuer).unwrap();
        let name = format!("odd-{}", std::fs::read_dir(self.path()).unwrap().count());
        let files = PersonFiles::in_dir(self.path(), &name);
        quorate_crypto::file::write_new(&files.key, key.serialize_pem().as_bytes(), 0o600).unwrap();
        std::fs::write(&files.cert, cert.pem()).unwrap();
        files
    }

    /// A revocation list of this CA; gives its path.
    pub fn crl(&self, ca: &(PathBuf, PathBuf), revoked: &[Serial], validity: Validity) -> PathBuf {
        let out = self.path().join("revoked.crl");
        pki::make_crl(&MakeCrl {
            ca_cert: ca.0.clone(),
            ca_key: ca.1.clone(),
            revoked: revoked
                .iter()
                .map(|serial| (serial.clone(), SystemTime::now()))
                .collect(),
            number: 1,
            validity,
            out: out.clone(),
        })
        .unwrap();
        out
    }
}

pub fn serial_of(cert: &Path) -> Serial {
    pki::show(&std::fs::read(cert).unwrap()).unwrap().serial
}

/// A certificate with any names, usages and times.
pub struct Odd {
    pub sans: Vec<SanType>,
    pub usages: Vec<ExtendedKeyUsagePurpose>,
    pub validity: Validity,
}

impl Odd {
    /// Good but for the URI names.
    pub fn uris(uris: &[&str]) -> Self {
        let uri = |uri: &&str| SanType::URI((*uri).try_into().unwrap());
        Self {
            sans: uris.iter().map(uri).collect(),
            usages: vec![
                ExtendedKeyUsagePurpose::ClientAuth,
                ExtendedKeyUsagePurpose::ServerAuth,
            ],
            validity: Validity::leaf(),
        }
    }

    pub fn and_dns(mut self, name: &str) -> Self {
        self.sans.push(SanType::DnsName(name.try_into().unwrap()));
        self
    }

    pub fn valid(mut self, validity: Validity) -> Self {
        self.validity = validity;
        self
    }

    pub fn usages(mut self, usages: Vec<ExtendedKeyUsagePurpose>) -> Self {
        self.usages = usages;
        self
    }
}

/// Ended an hour ago.
pub fn past() -> Validity {
    let hour = Duration::from_secs(3600);
    Validity {
        not_before: SystemTime::now() - 48 * hour,
        not_after: SystemTime::now() - hour,
    }
}

/// Begins in an hour.
pub fn future() -> Validity {
    let hour = Duration::from_secs(3600);
    Validity {
        not_before: SystemTime::now() + hour,
        not_after: SystemTime::now() + 48 * hour,
    }
}

/// A node that serves gRPC health, and tells what it refused and who called.
pub struct Node {
    pub addr: SocketAddr,
    pub registry: Registry,
    pub counters: Arc<Counters>,
    pub material: Arc<TlsMaterial>,
    pub stop: CancellationToken,
    refusals: mpsc::UnboundedReceiver<(&'static str, String)>,
    callers: mpsc::UnboundedReceiver<PeerInfo>,
}

impl Node {
    pub async fn start(material: Arc<TlsMaterial>) -> Self {
        Self::start_with(material, ListenerOptions::default()).await
    }

    pub async fn start_with(material: Arc<TlsMaterial>, options: ListenerOptions) -> Self {
        let registry = Registry::new();
        let (refused, refusals) = mpsc::unbounded_channel();
        let (called, callers) = mpsc::unbounded_channel();
        let listener = Listener::bind(
            "127.0.0.1:0",
            Arc::clone(&material),
            registry.clone(),
            options,
        )
        .await
        .unwrap()
        .on_refused(move |_, why| {
            let _ = refused.send((why.label(), why.to_string()));
        });
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter
            .set_service_status("", tonic_health::ServingStatus::Serving)
            .await;
        let health = tonic::service::interceptor::InterceptedService::new(
            health,
            move |request: tonic::Request<()>| {
                let peer = request.extensions().get::<PeerInfo>().cloned();
                let _ = called.send(peer.ok_or_else(|| tonic::Status::internal("no peer"))?);
                Ok(request)
            },
        );
        let node = Self {
            addr: listener.local_addr().unwrap(),
            registry,
            counters: listener.counters(),
            material,
            stop: CancellationToken::new(),
            refusals,
            callers,
        };
        let incoming = listener.incoming(node.stop.clone());
        tokio::spawn(
            Server::builder()
                .add_service(health)
                .serve_with_incoming(incoming),
        );
        node
    }

    pub fn dial_addr(&self) -> String {
        self.addr.to_string()
    }

    /// The next refusal: label and text.
    pub async fn refusal(&mut self) -> (&'static str, String) {
        let next = tokio::time::timeout(GUARD, self.refusals.recv()).await;
        next.expect("the node refuses").unwrap()
    }

    /// Who made the next call.
    pub async fn caller(&mut self) -> PeerInfo {
        let next = tokio::time::timeout(GUARD, self.callers.recv()).await;
        next.expect("a call arrives").unwrap()
    }
}

pub async fn check(channel: &Channel) -> Result<(), tonic::Status> {
    let mut client = HealthClient::new(channel.clone());
    let call = client.check(HealthCheckRequest::default());
    let reply = tokio::time::timeout(GUARD, call)
        .await
        .expect("an answer")?;
    assert_eq!(reply.into_inner().status(), ServingStatus::Serving);
    Ok(())
}
