//! Which root must stand behind which certificate: the cluster CA behind nodes, this
//! trustee's own CA behind its clients and operators. The certificate's role picks the
//! root, and no other root will do.

use std::sync::Arc;

use quorate_consensus::NodeId;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::identity::{Identity, Role};
use crate::refused::{Refusal, issuer_of};

type Roots = Arc<dyn ClientCertVerifier>;

/// Checks whoever connects to a node.
#[derive(Debug)]
pub(crate) struct PeerVerifier {
    cluster: String,
    here: NodeId,
    own_revoked: bool,
    nodes: Roots,
    clients: Option<Roots>,
    hints: Vec<DistinguishedName>,
}

impl PeerVerifier {
    /// `nodes` trusts the cluster CA, `clients` the trustee's own CA. A node whose own
    /// certificate is revoked takes nobody.
    pub(crate) fn new(
        here: &Identity,
        own_revoked: bool,
        nodes: Roots,
        clients: Option<Roots>,
    ) -> Self {
        let mut hints = nodes.root_hint_subjects().to_vec();
        if let Some(clients) = &clients {
            hints.extend_from_slice(clients.root_hint_subjects());
        }
        Self {
            cluster: here.cluster.clone(),
            here: here.node_id.clone(),
            own_revoked,
            nodes,
            clients,
            hints,
        }
    }

    /// Whom the certificate names, once everything about it is checked.
    pub(crate) fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Identity, Error> {
        let refuse = |refusal: Refusal| refusal.into_rustls();
        if self.own_revoked {
            return Err(refuse(Refusal::OwnRevoked));
        }
        let identity = Identity::of_certificate(leaf).map_err(|e| refuse(e.into()))?;
        if identity.cluster != self.cluster {
            return Err(refuse(Refusal::OtherCluster {
                found: identity,
                expected: self.cluster.clone(),
            }));
        }
        let (right, wrong) = match identity.role {
            Role::Node => (&self.nodes, self.clients.as_ref()),
            Role::Client | Role::Operator => {
                if identity.node_id != self.here {
                    return Err(refuse(Refusal::OtherNode {
                        found: identity,
                        here: self.here.clone(),
                    }));
                }
                let Some(clients) = &self.clients else {
                    return Err(refuse(Refusal::NoClients(identity)));
                };
                (clients, Some(&self.nodes))
            }
        };
        match right.verify_client_cert(leaf, intermediates, now) {
            Ok(_) => Ok(identity),
            Err(error) if is_other_issuer(&error) => {
                // Only to say it more clearly; nothing is accepted here.
                let by_other =
                    wrong.is_some_and(|w| w.verify_client_cert(leaf, intermediates, now).is_ok());
                let by = match (by_other, identity.role) {
                    (false, _) => "a CA that this node does not know",
                    (true, Role::Node) => "the trustee's own CA",
                    (true, Role::Client | Role::Operator) => "the cluster CA",
                };
                Err(refuse(Refusal::Issuer {
                    wanted: issuer_of(identity.role),
                    found: identity,
                    by,
                }))
            }
            Err(other) => Err(other),
        }
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates, now)
            .map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.nodes.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.nodes.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.nodes.supported_verify_schemes()
    }
}

/// Whether no CA that is trusted here stands behind the certificate. One of another
/// cluster of the same name has the right name and another key, so that only the
/// signature does not fit.
fn is_other_issuer(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)
    )
}

/// Checks the node that is dialled: chain to the cluster CA, host name, and a node of
/// our own cluster.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    cluster: String,
    chain: Arc<WebPkiServerVerifier>,
}

impl ServerVerifier {
    pub(crate) fn new(cluster: String, chain: Arc<WebPkiServerVerifier>) -> Self {
        Self { cluster, chain }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.chain.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        let refuse = |refusal: Refusal| refusal.into_rustls();
        let found = Identity::of_certificate(end_entity);
        let verified = match (verified, &found) {
            (Err(error), Ok(found)) if is_other_issuer(&error) => {
                return Err(refuse(Refusal::Issuer {
                    found: found.clone(),
                    by: "a CA that is not the one given here",
                    wanted: issuer_of(Role::Node),
                }));
            }
            (verified, _) => verified?,
        };
        let found = found.map_err(|e| refuse(e.into()))?;
        if found.cluster != self.cluster {
            let expected = self.cluster.clone();
            return Err(refuse(Refusal::OtherCluster { found, expected }));
        }
        if found.role != Role::Node {
            let expected = "a node".to_owned();
            return Err(refuse(Refusal::OtherServer { found, expected }));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
