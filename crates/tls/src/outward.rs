//! Connections to servers that are none of ours, such as etcd: their certificate must
//! come from a CA that the operator names and bear the host's name, as everywhere on
//! the web; ours, if they want one, is any that they know.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use hyper_util::rt::TokioIo;
use quorate_crypto::file;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::error::TlsError;
use crate::material::{H2, provider, read_certificates, roots};

/// Where the certificates for such a server are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutwardPaths {
    /// The CA of the server's certificate.
    pub ca_cert: PathBuf,
    /// Our certificate and its key, if the server asks for one.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// What we connect with: TLS 1.3 only.
#[derive(Clone)]
pub struct OutwardTls(Arc<ClientConfig>);

impl fmt::Debug for OutwardTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutwardTls").finish_non_exhaustive()
    }
}

impl OutwardTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn load(paths: &OutwardPaths) -> Result<Self, TlsError> {
        let cas = read_certificates(&paths.ca_cert)?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots(&cas)?);
        let mut config = match &paths.own {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let chain = read_certificates(cert)?;
                builder.with_client_auth_cert(chain, read_key(key)?)?
            }
        };
        config.alpn_protocols = vec![H2.to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// A channel that connects when it is first used, and again after a loss. The
    /// endpoint's scheme must be `http`: TLS is done here. Must be called within a
    /// runtime.
    ///
    /// # Errors
    /// [`TlsError::Rustls`] when the endpoint has no host that a certificate can name.
    pub fn channel(&self, endpoint: Endpoint) -> Result<Channel, TlsError> {
        let uri = endpoint.uri().clone();
        let no_host = || TlsError::Rustls(format!("{uri} names no host"));
        let host = uri.host().ok_or_else(no_host)?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| no_host())?;
        let address = format!("{host}:{}", uri.port_u16().unwrap_or(443));
        let connector = TlsConnector::from(Arc::clone(&self.0));
        let connect = tower::service_fn(move |_: http::Uri| {
            let (connector, name, address) = (connector.clone(), name.clone(), address.clone());
            async move {
                let stream = TcpStream::connect(&address).await?;
                let _ = stream.set_nodelay(true);
                let stream = connector.connect(name, stream).await?;
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        });
        Ok(endpoint.connect_with_connector_lazy(connect))
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = file::read_secret(path)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| TlsError::Holds {
        path: path.to_owned(),
        wanted: "private key",
    })
}
