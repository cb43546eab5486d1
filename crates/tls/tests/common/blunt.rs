//! A client that does not mind what its own side would refuse.

use std::sync::Arc;

use quorate_tls::pki::PersonFiles;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{GUARD, Node, World};

/// A client that shows whatever certificate it has, and asks no questions of itself.
pub struct Blunt<'a> {
    pub world: &'a World,
    pub shows: Option<&'a PersonFiles>,
    pub alpn: &'a [&'a [u8]],
    pub groups: Vec<&'static dyn SupportedKxGroup>,
}

impl<'a> Blunt<'a> {
    pub fn new(world: &'a World, shows: Option<&'a PersonFiles>) -> Self {
        Self {
            world,
            shows,
            alpn: &[b"h2"],
            groups: vec![
                aws_lc_rs::kx_group::X25519MLKEM768,
                aws_lc_rs::kx_group::X25519,
            ],
        }
    }

    pub fn config(&self) -> ClientConfig {
        let provider = CryptoProvider {
            kx_groups: self.groups.clone(),
            ..aws_lc_rs::default_provider()
        };
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(self.world.ca().0).unwrap())
            .unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match self.shows {
            None => builder.with_no_client_auth(),
            Some(files) => {
                // Without a look at the certificate: it may be one that cannot be read.
                let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
                let key = aws_lc_rs::sign::any_ecdsa_type(&key).unwrap();
                let certificate = CertificateDer::from_pem_file(&files.cert).unwrap();
                let shown = CertifiedKey::new(vec![certificate], key);
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown)))
            }
        };
        config.alpn_protocols = self.alpn.iter().map(|p| p.to_vec()).collect();
        config
    }

    /// Connects, and does nothing more.
    pub async fn connected(&self, node: &Node) -> TlsStream<TcpStream> {
        let tcp = TcpStream::connect(node.addr).await.unwrap();
        self.over(tcp).await.unwrap()
    }

    /// Makes the handshake on a connection that stands.
    pub async fn over(&self, tcp: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(self.config()));
        connector.connect(name, tcp).await
    }

    /// Connects, and reads until the node closes.
    pub async fn knock(&self, node: &Node) {
        let tcp = TcpStream::connect(node.addr).await.unwrap();
        if let Ok(mut stream) = self.over(tcp).await {
            let mut end = Vec::new();
            let read = tokio::time::timeout(GUARD, stream.read_to_end(&mut end)).await;
            let _ = read.expect("the node closes");
        }
    }
}
