//! Looking at certificates: what one says, and whether a CA stands behind it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use rustls::CertificateError;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use super::PkiError;
use super::authority::{AuthorityKind, AuthorityName, read_certificate};
use crate::identity::{self, Identity, IdentityError, Role, Serial};
use crate::material::{chain_verifier, read_crls};

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertFacts {
    /// Whom it names, or why nobody (a CA names nobody).
    pub identity: Result<Identity, IdentityError>,
    /// Its subject.
    pub subject: String,
    /// Its issuer's subject.
    pub issuer: String,
    /// Its serial number.
    pub serial: Serial,
    /// Valid from: milliseconds since the Unix epoch.
    pub not_before_ms: u64,
    /// Valid until: milliseconds since the Unix epoch.
    pub not_after_ms: u64,
    /// URI names.
    pub uris: Vec<String>,
    /// Host names.
    pub dns: Vec<String>,
    /// Addresses.
    pub ips: Vec<IpAddr>,
    /// Whether it may certify others.
    pub is_ca: bool,
    /// Whether it may be used by a server.
    pub server_auth: bool,
    /// Whether it may be used by a client.
    pub client_auth: bool,
    /// BLAKE3-256 of its DER form: what hellos are bound to.
    pub digest: [u8; 32],
}

/// `quorate certs show`: what the first certificate in this PEM text says. Nothing of
/// it is verified.
///
/// # Errors
/// [`IdentityError::Unreadable`].
pub fn show(pem: &[u8]) -> Result<CertFacts, IdentityError> {
    let der = CertificateDer::from_pem_slice(pem).map_err(|_| IdentityError::Unreadable)?;
    facts(&der)
}

pub(super) fn facts(der: &[u8]) -> Result<CertFacts, IdentityError> {
    let certificate = identity::parse(der)?;
    let (mut dns, mut ips) = (Vec::new(), Vec::new());
    for name in identity::names(&certificate)? {
        match name {
            GeneralName::DNSName(name) => dns.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => ips.extend(ip(bytes)),
            _ => {}
        }
    }
    let usage = certificate
        .extended_key_usage()
        .map_err(|_| IdentityError::Unreadable)?
        .map(|extension| extension.value);
    let validity = certificate.validity();
    Ok(CertFacts {
        identity: Identity::of_parsed(&certificate),
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        serial: serial(&certificate),
        not_before_ms: millis(validity.not_before.timestamp()),
        not_after_ms: millis(validity.not_after.timestamp()),
        uris: identity::uris(&certificate)?
            .into_iter()
            .map(str::to_owned)
            .collect(),
        dns,
        ips,
        is_ca: certificate.is_ca(),
        server_auth: usage.is_some_and(|u| u.server_auth),
        client_auth: usage.is_some_and(|u| u.client_auth),
        digest: *blake3::hash(der).as_bytes(),
    })
}

/// `quorate certs verify`: what is held against what.
#[derive(Clone, Debug)]
pub struct Verify {
    /// The certificate.
    pub cert: PathBuf,
    /// The CA, or several in one file.
    pub ca: PathBuf,
    /// A revocation list, or several in one file.
    pub crl: Option<PathBuf>,
    /// At what time.
    pub now: SystemTime,
}

/// Why a certificate does not verify.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A file.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The chain, the time, or the revocation list.
    #[error("the certificate {}", crate::refused::words(.0))]
    Chain(CertificateError),
    /// The CA is for something else.
    #[error("a {role} certificate must be issued by {wanted}, and this is not that CA")]
    Authority {
        /// The role that the certificate claims.
        role: Role,
        /// Which CA certifies that role.
        wanted: String,
    },
    /// Something else that TLS would refuse.
    #[error("{0}")]
    Tls(String),
}

/// Verifies a node's, client's or operator's certificate as a node would.
///
/// # Errors
/// [`VerifyError`].
pub fn verify(params: &Verify) -> Result<CertFacts, VerifyError> {
    let der = read_certificate(&params.cert)?;
    let refuse = |source| PkiError::Identity {
        path: params.cert.clone(),
        source,
    };
    let facts = facts(&der).map_err(refuse)?;
    let identity = facts.identity.clone().map_err(refuse)?;

    let tls = |e: crate::TlsError| VerifyError::Tls(e.to_string());
    let ca_ders = crate::material::read_certificates(&params.ca).map_err(tls)?;
    let crls = read_crls(params.crl.as_deref()).map_err(tls)?;
    let wanted = AuthorityName {
        cluster: identity.cluster.clone(),
        kind: match identity.role {
            Role::Node => AuthorityKind::Cluster,
            Role::Client | Role::Operator => AuthorityKind::Clients(identity.node_id.clone()),
        },
    };
    // A CA that was not made by us carries no name of ours to compare.
    let fitting: Vec<_> = ca_ders
        .into_iter()
        .filter(|ca| AuthorityName::of_certificate(ca).is_none_or(|name| name == wanted))
        .collect();
    if fitting.is_empty() {
        return Err(VerifyError::Authority {
            role: identity.role,
            wanted: match wanted.kind {
                AuthorityKind::Cluster => format!("the cluster CA of {}", wanted.cluster),
                AuthorityKind::Clients(node_id) => format!("the clients' CA of {node_id}"),
            },
        });
    }
    let since = params
        .now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    chain_verifier(&fitting, &crls)
        .map_err(tls)?
        .verify_client_cert(&der, &[], UnixTime::since_unix_epoch(since))
        .map_err(|error| match error {
            rustls::Error::InvalidCertificate(error) => VerifyError::Chain(error),
            other => VerifyError::Tls(other.to_string()),
        })?;
    Ok(facts)
}

pub(crate) fn serial(certificate: &X509Certificate<'_>) -> Serial {
    Serial::new(certificate.raw_serial())
}

/// Times before 1970 count as 1970.
pub(crate) fn millis(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}
