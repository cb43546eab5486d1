//! Certificate authorities: making one, and using one from its files.

use std::path::{Path, PathBuf};

use quorate_consensus::NodeId;
use quorate_consensus::ids::check_cluster_name;
use quorate_crypto::{MemberError, file};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::{PkiError, Validity, cluster_ca_cert, cluster_ca_key};
use crate::identity;

/// What a CA of ours is for, by the single URI name in its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorityKind {
    /// `spiffe://<cluster>`: certifies the nodes.
    Cluster,
    /// `spiffe://<cluster>/clients-ca/<node_id>`: certifies the clients and operators of
    /// one node.
    Clients(NodeId),
}

/// A CA's name: its cluster and what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuthorityName {
    pub(crate) cluster: String,
    pub(crate) kind: AuthorityKind,
}

impl AuthorityName {
    fn uri(&self) -> String {
        match &self.kind {
            AuthorityKind::Cluster => format!("spiffe://{}", self.cluster),
            AuthorityKind::Clients(node_id) => {
                format!("spiffe://{}/clients-ca/{node_id}", self.cluster)
            }
        }
    }

    fn common_name(&self) -> String {
        match &self.kind {
            AuthorityKind::Cluster => format!("{} cluster CA", self.cluster),
            AuthorityKind::Clients(node_id) => {
                format!("{} clients CA of {node_id}", self.cluster)
            }
        }
    }

    /// `None` when the certificate is not one of our CAs.
    pub(crate) fn of_certificate(der: &[u8]) -> Option<Self> {
        let certificate = identity::parse(der).ok()?;
        let uris = identity::uris(&certificate).ok()?;
        let [uri] = uris.as_slice() else {
            return None;
        };
        let mut parts = uri.strip_prefix("spiffe://")?.split('/');
        let cluster = parts.next()?;
        check_cluster_name(cluster).ok()?;
        let kind = match (parts.next(), parts.next(), parts.next()) {
            (None, None, None) => AuthorityKind::Cluster,
            (Some("clients-ca"), Some(node_id), None) => {
                AuthorityKind::Clients(NodeId::new(node_id).ok()?)
            }
            _ => return None,
        };
        certificate.is_ca().then(|| Self {
            cluster: cluster.to_owned(),
            kind,
        })
    }
}

/// `quorate certs init`: what the cluster CA is made from.
#[derive(Clone, Debug)]
pub struct InitCa {
    /// Where `ca.crt` and `ca.key` go; made if missing.
    pub dir: PathBuf,
    /// The cluster's name: `[a-z0-9-]`, 1 to 63 characters.
    pub cluster_name: String,
    /// When the CA is valid.
    pub validity: Validity,
}

/// Makes the cluster CA: `ca.crt` and `ca.key`, in new files. Gives the certificate's
/// path.
///
/// # Errors
/// [`PkiError`], for instance when one of the files exists already.
pub fn init_cluster_ca(params: &InitCa) -> Result<PathBuf, PkiError> {
    check_cluster_name(&params.cluster_name).map_err(MemberError::from)?;
    let name = AuthorityName {
        cluster: params.cluster_name.clone(),
        kind: AuthorityKind::Cluster,
    };
    file::create_private_dir(&params.dir)?;
    let (cert, key) = (cluster_ca_cert(&params.dir), cluster_ca_key(&params.dir));
    refuse_existing([&cert, &key])?;
    make_authority(&name, params.validity, &cert, &key)?;
    Ok(cert)
}

/// Makes a CA in new files.
pub(super) fn make_authority(
    name: &AuthorityName,
    validity: Validity,
    cert_path: &Path,
    key_path: &Path,
) -> Result<(), PkiError> {
    let key = new_key()?;
    let mut params = base(&name.common_name(), validity)?;
    // Two CAs of one name would be one to whoever looks up a revocation list by its
    // issuer's name, and stand beside each other while one replaces the other.
    let unit = blake3::hash(key.der_bytes()).to_hex();
    params
        .distinguished_name
        .push(DnType::OrganizationalUnitName, &unit[..16]);
    params.subject_alt_names = vec![SanType::URI(ia5(&name.uri())?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    write_key(key_path, &key)?;
    Ok(file::write_new(
        cert_path,
        certificate.pem().as_bytes(),
        file::PUBLIC,
    )?)
}

/// A CA that can sign, from its files.
pub(super) struct Authority {
    pub(super) name: AuthorityName,
    pub(super) issuer: Issuer<'static, KeyPair>,
    public_key: Vec<u8>,
}

impl Authority {
    pub(super) fn load(cert_path: &Path, key_path: &Path) -> Result<Self, PkiError> {
        let der = read_certificate(cert_path)?;
        let wrong = |wanted: &str| PkiError::WrongAuthority {
            path: cert_path.to_owned(),
            wanted: wanted.to_owned(),
        };
        let name = AuthorityName::of_certificate(&der)
            .ok_or_else(|| wrong("a CA made by `quorate certs`"))?;
        let key = read_key(key_path)?;
        let parsed = identity::parse(&der).map_err(|_| wrong("a certificate"))?;
        if parsed.public_key().subject_public_key.data != key.der_bytes() {
            return Err(wrong(&format!("the certificate of {}", key_path.display())));
        }
        let public_key = key.der_bytes().to_vec();
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        Ok(Self {
            name,
            issuer,
            public_key,
        })
    }

    /// Whether this CA signed these bytes.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        super::crl::has_signed(&self.public_key, message, signature)
    }

    /// A leaf for this public key.
    pub(super) fn certify(
        &self,
        mut params: CertificateParams,
        public_key: &impl PublicKeyData,
    ) -> Result<Certificate, PkiError> {
        params.use_authority_key_identifier_extension = true;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        Ok(params.signed_by(public_key, &self.issuer)?)
    }
}

/// Subject, validity, and a random serial number of 127 bits.
pub(super) fn base(common_name: &str, validity: Validity) -> Result<CertificateParams, PkiError> {
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).map_err(|e| PkiError::Randomness(e.to_string()))?;
    // Positive, and of one length.
    serial[0] = serial[0] & 0x7f | 0x40;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // 64 is X.509's limit for a common name; who it is stands in the URI.
    let short: String = common_name.chars().take(64).collect();
    params.distinguished_name.push(DnType::CommonName, short);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = validity.not_before.into();
    params.not_after = validity.not_after.into();
    Ok(params)
}

pub(super) fn new_key() -> Result<KeyPair, PkiError> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

pub(super) fn write_key(path: &Path, key: &KeyPair) -> Result<(), PkiError> {
    let pem = Zeroizing::new(key.serialize_pem());
    Ok(file::write_new(path, pem.as_bytes(), file::SECRET)?)
}

fn read_key(path: &Path) -> Result<KeyPair, PkiError> {
    let pem = file::read_secret(path)?;
    std::str::from_utf8(&pem)
        .ok()
        .and_then(|pem| KeyPair::from_pkcs8_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256).ok())
        .ok_or_else(|| PkiError::Holds {
            path: path.to_owned(),
            wanted: "ECDSA P-256 private key in PKCS#8 PEM",
        })
}

pub(super) fn read_certificate(path: &Path) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_slice(&file::read(path)?).map_err(|_| PkiError::Holds {
        path: path.to_owned(),
        wanted: "certificate in PEM",
    })
}

pub(super) fn ia5(text: &str) -> Result<Ia5String, PkiError> {
    Ok(Ia5String::try_from(text)?)
}

/// All or nothing: what would be refused half-way is refused before the start.
pub(super) fn refuse_existing<'a>(
    paths: impl IntoIterator<Item = &'a PathBuf>,
) -> Result<(), PkiError> {
    match paths.into_iter().find(|path| path.exists()) {
        Some(path) => Err(file::FileError::Exists(path.clone()).into()),
        None => Ok(()),
    }
}
