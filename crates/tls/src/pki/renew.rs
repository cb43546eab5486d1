//! Renewal: another certificate for who has one already, with the same names.

use std::path::{Path, PathBuf};

use quorate_crypto::file;
use rcgen::{CertificateParams, KeyPair, SanType, SubjectPublicKeyInfo};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::X509Certificate;

use super::authority::{Authority, AuthorityKind, base, new_key, read_certificate, write_key};
use super::crl::show_crls;
use super::enroll::{common_name, san, uri, usages};
use super::inspect::{facts, serial};
use super::{CertFacts, PkiError, Validity};
use crate::identity::{self, Identity, Role};

/// `quorate certs renew`: what a renewed certificate is made from.
#[derive(Clone, Debug)]
pub struct Renew {
    /// The certificate that is renewed; it may have expired.
    pub cert: PathBuf,
    /// The certificate of the CA that made it.
    pub ca_cert: PathBuf,
    /// That CA's key.
    pub ca_key: PathBuf,
    /// That CA's revocation list, if there is one: who is on it is not renewed.
    pub crl: Option<PathBuf>,
    /// Where a new key goes, in the place of the old one; none keeps the key.
    pub new_key: Option<PathBuf>,
    /// Where the certificate goes; one that is there already is replaced.
    pub out: PathBuf,
    /// When it is valid.
    pub validity: Validity,
}

/// Makes another certificate for the same identity and names.
///
/// # Errors
/// [`PkiError`], for instance when another CA made the certificate, or revoked it;
/// then nothing was written.
pub fn renew(params: &Renew) -> Result<CertFacts, PkiError> {
    let authority = Authority::load(&params.ca_cert, &params.ca_key)?;
    let der = read_certificate(&params.cert)?;
    let old = Old::read(&params.cert, &der)?;
    let signature = &old.parsed.signature_value.data;
    if !authority.has_signed(old.parsed.tbs_certificate.as_ref(), signature) {
        return Err(PkiError::OtherIssuer {
            cert: params.cert.clone(),
            ca: params.ca_cert.clone(),
        });
    }
    let wanted = match old.identity.role {
        Role::Node => AuthorityKind::Cluster,
        Role::Client | Role::Operator => AuthorityKind::Clients(old.identity.node_id.clone()),
    };
    if authority.name.kind != wanted || authority.name.cluster != old.identity.cluster {
        return Err(PkiError::WrongAuthority {
            path: params.ca_cert.clone(),
            wanted: format!("the CA of {}", old.identity),
        });
    }
    let own = serial(&old.parsed);
    if let Some(crl) = &params.crl
        && show_crls(crl)?
            .iter()
            .any(|list| list.revoked.iter().any(|(revoked, _)| *revoked == own))
    {
        return Err(PkiError::Revoked(params.cert.clone()));
    }

    let name = old.identity.name.as_deref();
    let mut leaf = base(
        name.unwrap_or(old.identity.node_id.as_str()),
        params.validity,
    )?;
    leaf.subject_alt_names = old.names()?;
    leaf.extended_key_usages = usages(old.identity.role);
    let (certificate, key) = match &params.new_key {
        None => {
            let key = SubjectPublicKeyInfo::from_der(old.parsed.public_key().raw)?;
            (authority.certify(leaf, &key)?, None)
        }
        Some(path) => {
            let key = new_key()?;
            (authority.certify(leaf, &key)?, Some((path, key)))
        }
    };
    if let Some((path, key)) = key {
        replace_key(path, &key)?;
    }
    let pem = certificate.pem();
    file::write_atomic(&params.out, pem.as_bytes(), file::PUBLIC)?;
    let unreadable = |source| PkiError::Identity {
        path: params.out.clone(),
        source,
    };
    facts(certificate.der()).map_err(unreadable)
}

/// `quorate certs renew --new-key` away from the cluster CA: what a request for a new
/// key is made from.
#[derive(Clone, Debug)]
pub struct RequestAgain {
    /// The node's certificate.
    pub cert: PathBuf,
    /// Where the new key goes; nothing is replaced.
    pub key: PathBuf,
    /// Where the request goes; nothing is replaced.
    pub csr: PathBuf,
}

/// Makes a new TLS key for a node and a request to the cluster CA, with the names of
/// the certificate that it has. Gives these names.
///
/// # Errors
/// [`PkiError`], for instance when one of the files exists already.
pub fn request_again(params: &RequestAgain) -> Result<Vec<String>, PkiError> {
    let der = read_certificate(&params.cert)?;
    let old = Old::read(&params.cert, &der)?;
    if old.identity.role != Role::Node {
        return Err(PkiError::Holds {
            path: params.cert.clone(),
            wanted: "certificate of a node",
        });
    }
    let mut csr = CertificateParams::default();
    csr.distinguished_name = common_name(&old.identity.node_id);
    csr.subject_alt_names = old.names()?;
    let key = new_key()?;
    let pem = csr.serialize_request(&key)?.pem()?;
    super::authority::refuse_existing([&params.key, &params.csr])?;
    write_key(&params.key, &key)?;
    file::write_new(&params.csr, pem.as_bytes(), file::PUBLIC)?;
    Ok(old.hosts)
}

/// What a certificate says that is renewed.
struct Old<'a> {
    parsed: X509Certificate<'a>,
    identity: Identity,
    hosts: Vec<String>,
}

impl<'a> Old<'a> {
    fn read(path: &Path, der: &'a CertificateDer<'_>) -> Result<Self, PkiError> {
        let unreadable = |source| PkiError::Identity {
            path: path.to_owned(),
            source,
        };
        let parsed = identity::parse(der).map_err(unreadable)?;
        let facts = facts(der).map_err(unreadable)?;
        let ips = facts.ips.iter().map(ToString::to_string);
        Ok(Self {
            identity: facts.identity.map_err(unreadable)?,
            hosts: facts.dns.iter().cloned().chain(ips).collect(),
            parsed,
        })
    }

    fn names(&self) -> Result<Vec<SanType>, PkiError> {
        let mut names = vec![uri(&self.identity)?];
        for host in &self.hosts {
            names.push(san(host)?);
        }
        Ok(names)
    }
}

fn replace_key(path: &Path, key: &KeyPair) -> Result<(), PkiError> {
    let pem = zeroize::Zeroizing::new(key.serialize_pem());
    Ok(file::write_atomic(path, pem.as_bytes(), file::SECRET)?)
}
