//! Certificate revocation lists: making one, adding to one, showing one.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use quorate_crypto::file;
use rcgen::{
    CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::CertificateRevocationList;

use super::authority::{Authority, read_certificate};
use super::inspect::{millis, serial};
use super::{PkiError, Validity};
use crate::identity::{self, Serial};

/// How a list ends in a file.
const END: &str = "-----END X509 CRL-----";

/// Days that a revocation list may be relied on.
pub const CRL_DAYS: u64 = 90;

/// What a revocation list is made from.
#[derive(Clone, Debug)]
pub struct MakeCrl {
    /// The CA's certificate.
    pub ca_cert: PathBuf,
    /// The CA's key.
    pub ca_key: PathBuf,
    /// All serial numbers that are revoked, with the time since when.
    pub revoked: Vec<(Serial, SystemTime)>,
    /// Grows with every list.
    pub number: u64,
    /// When the list was made, and until when it may be relied on: after that the CA's
    /// certificates are refused.
    pub validity: Validity,
    /// Where it goes (PEM); an older list is replaced.
    pub out: PathBuf,
}

/// Makes a revocation list.
///
/// # Errors
/// [`PkiError`].
pub fn make_crl(params: &MakeCrl) -> Result<(), PkiError> {
    let authority = Authority::load(&params.ca_cert, &params.ca_key)?;
    let pem = sign(&authority, &params.revoked, params.number, params.validity)?;
    Ok(file::write_atomic(
        &params.out,
        pem.as_bytes(),
        file::PUBLIC,
    )?)
}

fn sign(
    authority: &Authority,
    revoked: &[(Serial, SystemTime)],
    number: u64,
    validity: Validity,
) -> Result<String, PkiError> {
    let revoked = revoked.iter().map(|(serial, since)| RevokedCertParams {
        serial_number: SerialNumber::from_slice(serial.as_bytes()),
        revocation_time: (*since).into(),
        reason_code: Some(RevocationReason::Unspecified),
        invalidity_date: None,
    });
    let list = CertificateRevocationListParams {
        this_update: validity.not_before.into(),
        next_update: validity.not_after.into(),
        crl_number: number.into(),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    }
    .signed_by(&authority.issuer)?;
    Ok(list.pem()?)
}

/// What a revocation list says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrlFacts {
    /// The subject of the CA that made it.
    pub issuer: String,
    /// Its number, which grows with every list; 0 if it has none.
    pub number: u64,
    /// When it was made: milliseconds since the Unix epoch.
    pub this_update_ms: u64,
    /// Until when it may be relied on; none if it does not say.
    pub next_update_ms: Option<u64>,
    /// What is revoked, and since when: milliseconds since the Unix epoch.
    pub revoked: Vec<(Serial, u64)>,
}

/// `quorate certs crl`: what the lists of a file say. Nothing of it is verified.
///
/// # Errors
/// [`PkiError`].
pub fn show_crls(path: &Path) -> Result<Vec<CrlFacts>, PkiError> {
    let lists = read_lists(path)?;
    lists
        .iter()
        .map(|list| Ok(facts(&list.parsed(path)?)))
        .collect()
}

/// `quorate certs revoke` and `quorate certs crl --renew`: what is added to a list.
#[derive(Clone, Debug)]
pub struct Revoke {
    /// The CA's certificate.
    pub ca_cert: PathBuf,
    /// The CA's key.
    pub ca_key: PathBuf,
    /// What is revoked from now on, beside what the list holds; nothing to sign the
    /// list anew.
    pub serials: Vec<Serial>,
    /// The list; made if missing. The lists of other CAs in the file stay as they are.
    pub crl: PathBuf,
    /// When the new list is made, and until when it may be relied on.
    pub validity: Validity,
}

/// Adds to a CA's revocation list and signs it anew, under the next number.
///
/// # Errors
/// [`PkiError`]; then the old list is untouched.
pub fn revoke(params: &Revoke) -> Result<CrlFacts, PkiError> {
    let authority = Authority::load(&params.ca_cert, &params.ca_key)?;
    let lists = match params.crl.exists() {
        true => read_lists(&params.crl)?,
        false => Vec::new(),
    };
    let (mut others, mut own) = (String::new(), None);
    for list in &lists {
        let parsed = list.parsed(&params.crl)?;
        let made = facts(&parsed);
        if !authority.has_signed(parsed.tbs_cert_list.as_ref(), &parsed.signature_value.data) {
            others.push_str(&list.text);
            others.push('\n');
        } else if own
            .as_ref()
            .is_none_or(|o: &CrlFacts| o.number < made.number)
        {
            own = Some(made);
        }
    }
    let number = own.as_ref().map_or(1, |own| own.number.saturating_add(1));
    let mut revoked: Vec<_> = own
        .map(|own| own.revoked)
        .unwrap_or_default()
        .into_iter()
        .map(|(serial, since)| {
            (
                serial,
                SystemTime::UNIX_EPOCH + Duration::from_millis(since),
            )
        })
        .collect();
    for serial in &params.serials {
        if !revoked.iter().any(|(known, _)| known == serial) {
            revoked.push((serial.clone(), SystemTime::now()));
        }
    }
    let pem = sign(&authority, &revoked, number, params.validity)?;
    let made = Pem::new(&pem).ok_or_else(|| unreadable(&params.crl))?;
    let made = facts(&made.parsed(&params.crl)?);
    let file = format!("{pem}{others}");
    file::write_atomic(&params.crl, file.as_bytes(), file::PUBLIC)?;
    Ok(made)
}

/// The serial number of a certificate that this CA has made.
///
/// # Errors
/// [`PkiError::OtherIssuer`] when another CA made it.
pub fn serial_issued_by(cert: &Path, ca_cert: &Path) -> Result<Serial, PkiError> {
    let (der, ca) = (read_certificate(cert)?, read_certificate(ca_cert)?);
    let holds = |path: &Path| PkiError::Holds {
        path: path.to_owned(),
        wanted: "certificate",
    };
    let parsed = identity::parse(&der).map_err(|_| holds(cert))?;
    let ca = identity::parse(&ca).map_err(|_| holds(ca_cert))?;
    let key = &ca.public_key().subject_public_key.data;
    let signature = &parsed.signature_value.data;
    match has_signed(key, parsed.tbs_certificate.as_ref(), signature) {
        true => Ok(serial(&parsed)),
        false => Err(PkiError::OtherIssuer {
            cert: cert.to_owned(),
            ca: ca_cert.to_owned(),
        }),
    }
}

/// Whether this ECDSA P-256 key signed these bytes.
pub(super) fn has_signed(public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    use rustls::pki_types::alg_id::{ECDSA_P256, ECDSA_SHA256};
    let known = crate::material::provider().signature_verification_algorithms;
    known
        .all
        .iter()
        .filter(|alg| {
            alg.public_key_alg_id() == ECDSA_P256 && alg.signature_alg_id() == ECDSA_SHA256
        })
        .any(|alg| alg.verify_signature(public_key, message, signature).is_ok())
}

/// One list of a file.
struct Pem {
    der: CertificateRevocationListDer<'static>,
    /// As it stands in the file.
    text: String,
}

impl Pem {
    fn new(text: &str) -> Option<Self> {
        let der = CertificateRevocationListDer::from_pem_slice(text.as_bytes()).ok()?;
        let text = text.trim_start().to_owned();
        Some(Self { der, text })
    }

    fn parsed(&self, path: &Path) -> Result<CertificateRevocationList<'_>, PkiError> {
        match x509_parser::parse_x509_crl(&self.der) {
            Ok((_, list)) => Ok(list),
            Err(_) => Err(unreadable(path)),
        }
    }
}

fn unreadable(path: &Path) -> PkiError {
    PkiError::Holds {
        path: path.to_owned(),
        wanted: "certificate revocation list in PEM",
    }
}

/// All lists of a file, at least one.
fn read_lists(path: &Path) -> Result<Vec<Pem>, PkiError> {
    let pem = file::read(path)?;
    let text = String::from_utf8(pem).map_err(|_| unreadable(path))?;
    text.split_inclusive(END)
        .filter(|block| block.contains("-----BEGIN"))
        .map(Pem::new)
        .collect::<Option<Vec<_>>>()
        .filter(|lists| !lists.is_empty())
        .ok_or_else(|| unreadable(path))
}

fn facts(list: &CertificateRevocationList<'_>) -> CrlFacts {
    CrlFacts {
        issuer: list.issuer().to_string(),
        number: list
            .crl_number()
            .and_then(|number| number.to_string().parse().ok())
            .unwrap_or(0),
        this_update_ms: millis(list.last_update().timestamp()),
        next_update_ms: list.next_update().map(|time| millis(time.timestamp())),
        revoked: list
            .iter_revoked_certificates()
            .map(|revoked| {
                let since = millis(revoked.revocation_date.timestamp());
                (Serial::new(revoked.raw_serial()), since)
            })
            .collect(),
    }
}
