//! Certificate revocation lists.

use std::path::PathBuf;
use std::time::SystemTime;

use quorate_crypto::file;
use rcgen::{
    CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber,
};

use super::authority::Authority;
use super::{PkiError, Validity};
use crate::identity::Serial;

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
    let revoked = params
        .revoked
        .iter()
        .map(|(serial, since)| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial.as_bytes()),
            revocation_time: (*since).into(),
            reason_code: Some(RevocationReason::Unspecified),
            invalidity_date: None,
        });
    let list = CertificateRevocationListParams {
        this_update: params.validity.not_before.into(),
        next_update: params.validity.not_after.into(),
        crl_number: params.number.into(),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    }
    .signed_by(&authority.issuer)?;
    Ok(file::write_atomic(
        &params.out,
        list.pem()?.as_bytes(),
        file::PUBLIC,
    )?)
}
