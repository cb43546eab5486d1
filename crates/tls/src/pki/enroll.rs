//! Enrolment: a trustee makes its keys itself, the cluster CA certifies its node, and
//! the trustee its clients and operators.

use std::net::IpAddr;
use std::path::PathBuf;

use quorate_consensus::NodeId;
use quorate_crypto::{SigningKey, file, make_member_record, write_member};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use rustls::pki_types::DnsName;

use super::authority::{
    Authority, AuthorityKind, AuthorityName, base, ia5, make_authority, new_key, refuse_existing,
    write_key,
};
use super::{NodeFiles, PersonFiles, PkiError, Validity, cluster_ca_cert, cluster_ca_key};
use crate::identity::{Identity, PersonRole, Role};

/// `quorate certs request`: what a trustee's keys and request are made from.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where the files of [`NodeFiles`] go; made if missing.
    pub dir: PathBuf,
    /// The cluster it wants to join.
    pub cluster_name: String,
    /// Its id.
    pub node_id: NodeId,
    /// Host names and addresses beside [`default_sans`].
    pub sans: Vec<String>,
    /// When the trustee's own CA is valid.
    pub authority_validity: Validity,
}

/// What [`request`] made. The CSR goes to the cluster CA, the member record to whoever
/// makes the rules; nothing else leaves the trustee.
#[derive(Clone, Debug)]
pub struct Requested {
    /// All files; `cert` comes with [`sign_request`].
    pub files: NodeFiles,
    /// The names that the request asks for.
    pub sans: Vec<String>,
}

/// localhost, 127.0.0.1, ::1, and the node's id where it can be a host name.
pub fn default_sans(node_id: &NodeId) -> Vec<String> {
    let mut sans: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(String::from).into();
    if DnsName::try_from(node_id.as_str()).is_ok() {
        sans.push(node_id.to_string());
    }
    sans
}

/// Makes vote key, node key, TLS key, request, member record and the trustee's own CA,
/// in new files.
///
/// # Errors
/// [`PkiError`]; when one of the files exists already, nothing was written.
pub fn request(params: &Request) -> Result<Requested, PkiError> {
    request_with(params, SigningKey::generate()?, SigningKey::generate()?)
}

/// The same with a vote key and a node key that are there already.
///
/// # Errors
/// As [`request`].
pub fn request_with(
    params: &Request,
    vote_key: SigningKey,
    node_key: SigningKey,
) -> Result<Requested, PkiError> {
    let Request {
        dir,
        cluster_name,
        node_id,
        ..
    } = params;
    let sans = merged(node_id, &params.sans);
    let mut csr = CertificateParams::default();
    csr.distinguished_name = common_name(node_id);
    csr.subject_alt_names = vec![uri(&Identity::node(cluster_name, node_id.clone()))?];
    for name in &sans {
        csr.subject_alt_names.push(san(name)?);
    }
    let member = make_member_record(cluster_name, node_id, &vote_key, &node_key)?;
    let tls_key = new_key()?;
    let csr = csr.serialize_request(&tls_key)?.pem()?;

    file::create_private_dir(dir)?;
    let files = NodeFiles::in_dir(dir, node_id);
    refuse_existing([
        &files.key,
        &files.csr,
        &files.member,
        &files.vote_key,
        &files.node_key,
        &files.clients_ca_cert,
        &files.clients_ca_key,
    ])?;
    vote_key.write_new(&files.vote_key)?;
    node_key.write_new(&files.node_key)?;
    write_key(&files.key, &tls_key)?;
    file::write_new(&files.csr, csr.as_bytes(), file::PUBLIC)?;
    write_member(dir, node_id, &member)?;
    let name = AuthorityName {
        cluster: cluster_name.clone(),
        kind: AuthorityKind::Clients(node_id.clone()),
    };
    make_authority(
        &name,
        params.authority_validity,
        &files.clients_ca_cert,
        &files.clients_ca_key,
    )?;
    Ok(Requested { files, sans })
}

/// `quorate certs sign`: what the cluster CA certifies.
#[derive(Clone, Debug)]
pub struct SignRequest {
    /// Where the cluster CA's `ca.crt` and `ca.key` are.
    pub ca_dir: PathBuf,
    /// The request's file.
    pub csr: PathBuf,
    /// The node that it must be for.
    pub node_id: NodeId,
    /// Names that it may ask for beside [`default_sans`].
    pub sans: Vec<String>,
    /// Where the certificate goes; a certificate that is there already is replaced.
    pub out: PathBuf,
    /// When the certificate is valid.
    pub validity: Validity,
}

/// Certifies a node. The request must be signed by its own key, name exactly the node
/// expected, and ask for no name that was not allowed.
///
/// # Errors
/// [`PkiError`]; then nothing was written.
pub fn sign_request(params: &SignRequest) -> Result<(), PkiError> {
    let ca_cert = cluster_ca_cert(&params.ca_dir);
    let authority = Authority::load(&ca_cert, &cluster_ca_key(&params.ca_dir))?;
    if authority.name.kind != AuthorityKind::Cluster {
        return Err(PkiError::WrongAuthority {
            path: ca_cert,
            wanted: "a cluster CA".into(),
        });
    }
    let identity = Identity::node(&authority.name.cluster, params.node_id.clone());

    let pem = file::read(&params.csr)?;
    let csr = std::str::from_utf8(&pem)
        .ok()
        .and_then(|pem| CertificateSigningRequestParams::from_pem(pem).ok())
        .ok_or_else(|| PkiError::RequestSignature(params.csr.clone()))?;
    let p256 = csr.public_key.algorithm() == &PKCS_ECDSA_P256_SHA256;
    // An uncompressed point of P-256: the signature's algorithm does not tell the curve.
    if !p256 || csr.public_key.der_bytes().len() != 65 {
        return Err(PkiError::RequestKey(params.csr.clone()));
    }
    if !matches!(csr.params.is_ca, IsCa::NoCa | IsCa::ExplicitNoCa) {
        return Err(PkiError::RequestAuthority);
    }
    check_names(&csr.params.subject_alt_names, &identity, &params.sans)?;

    // Of the request, only the key and the names that were checked are used.
    let mut leaf = base(params.node_id.as_str(), params.validity)?;
    leaf.subject_alt_names = csr.params.subject_alt_names;
    leaf.extended_key_usages = usages(Role::Node);
    let certificate = authority.certify(leaf, &csr.public_key)?;
    Ok(file::write_atomic(
        &params.out,
        certificate.pem().as_bytes(),
        file::PUBLIC,
    )?)
}

fn check_names(found: &[SanType], expected: &Identity, more: &[String]) -> Result<(), PkiError> {
    let uris: Vec<&str> = found
        .iter()
        .filter_map(|name| match name {
            SanType::URI(uri) => Some(uri.as_str()),
            _ => None,
        })
        .collect();
    if uris != [expected.to_string()] {
        return Err(PkiError::RequestIdentity {
            found: match uris.as_slice() {
                [] => "nobody".into(),
                uris => uris.join(" and "),
            },
            expected: expected.clone(),
        });
    }
    let allowed = merged(&expected.node_id, more)
        .iter()
        .map(|name| san(name))
        .collect::<Result<Vec<_>, _>>()?;
    for name in found {
        if !matches!(name, SanType::URI(_)) && !allowed.contains(name) {
            return Err(PkiError::RequestName(match name {
                SanType::DnsName(dns) => dns.to_string(),
                SanType::IpAddress(ip) => ip.to_string(),
                other => format!("{other:?}"),
            }));
        }
    }
    Ok(())
}

/// `quorate certs issue`: what a trustee certifies with its own CA.
#[derive(Clone, Debug)]
pub struct Issue {
    /// Where the trustee's files are.
    pub trustee_dir: PathBuf,
    /// The trustee.
    pub node_id: NodeId,
    /// What the certificate's holder may be.
    pub role: PersonRole,
    /// Its name: 1 to 63 characters of `A-Z a-z 0-9 . _ -`.
    pub name: String,
    /// Where `<name>.crt` and `<name>.key` go; made if missing.
    pub out_dir: PathBuf,
    /// When the certificate is valid.
    pub validity: Validity,
}

/// Makes a key and a certificate for a client or an operator, in new files.
///
/// # Errors
/// [`PkiError`], for instance when one of the files exists already.
pub fn issue(params: &Issue) -> Result<PersonFiles, PkiError> {
    let node_files = NodeFiles::in_dir(&params.trustee_dir, &params.node_id);
    let authority = Authority::load(&node_files.clients_ca_cert, &node_files.clients_ca_key)?;
    if authority.name.kind != AuthorityKind::Clients(params.node_id.clone()) {
        return Err(PkiError::WrongAuthority {
            path: node_files.clients_ca_cert,
            wanted: format!("the clients' CA of {}", params.node_id),
        });
    }
    let identity = Identity::person(
        &authority.name.cluster,
        params.role,
        params.node_id.clone(),
        &params.name,
    )?;
    let mut leaf = base(&params.name, params.validity)?;
    leaf.subject_alt_names = vec![uri(&identity)?];
    leaf.extended_key_usages = usages(identity.role);
    let key = new_key()?;
    let certificate = authority.certify(leaf, &key)?;

    file::create_private_dir(&params.out_dir)?;
    let files = PersonFiles::in_dir(&params.out_dir, &params.name);
    refuse_existing([&files.cert, &files.key])?;
    write_key(&files.key, &key)?;
    file::write_new(&files.cert, certificate.pem().as_bytes(), file::PUBLIC)?;
    Ok(files)
}

/// What a certificate of this role may be used for.
pub(super) fn usages(role: Role) -> Vec<ExtendedKeyUsagePurpose> {
    match role {
        Role::Node => vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ],
        Role::Client | Role::Operator => vec![ExtendedKeyUsagePurpose::ClientAuth],
    }
}

pub(super) fn common_name(node_id: &NodeId) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, node_id.as_str());
    name
}

pub(super) fn uri(identity: &Identity) -> Result<SanType, PkiError> {
    Ok(SanType::URI(ia5(&identity.to_string())?))
}

/// A host name or an address.
pub(super) fn san(name: &str) -> Result<SanType, PkiError> {
    if let Ok(ip) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(ip));
    }
    // A wildcard is a name of many hosts, and a node is one.
    match DnsName::try_from(name) {
        Ok(_) => Ok(SanType::DnsName(ia5(name)?)),
        Err(_) => Err(PkiError::San(name.to_owned())),
    }
}

/// The defaults and these, each once.
fn merged(node_id: &NodeId, more: &[String]) -> Vec<String> {
    let mut names = default_sans(node_id);
    for name in more {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}
