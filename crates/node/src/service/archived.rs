//! What the board has forgotten, from the audit store.

use std::time::Duration;

use prost::Message as _;
use quorate_audit::rows::Filter;
use quorate_audit::{AuditError, AuditStore};
use quorate_consensus::TxId;
use quorate_consensus::wire::{Evidence, GetCertificateResponse, Proof, proof::Kind};

use crate::status::ApiError;

/// When to ask again while the audit store is away.
const RETRY: Duration = Duration::from_secs(1);

/// The proof of a collected ballot, and the evidence in it. Proofs prove themselves: a
/// store that changed one shows what `verify` refuses.
pub(super) async fn certificate(
    audit: &dyn AuditStore,
    tx_id: &TxId,
) -> Result<GetCertificateResponse, ApiError> {
    let decision = audit.decision(tx_id).await.map_err(away)?;
    let proof = decision.and_then(|row| row.certificate);
    let proof = proof.map(|bytes| Proof::decode(&*bytes)).transpose();
    let violations = audit.violations(&Filter::tx(tx_id)).await.map_err(away)?;
    let evidence = violations.iter().filter_map(|row| {
        let proof = hex::decode(row.evidence.get("proof")?.as_str()?).ok()?;
        evidence_in(&proof)
    });
    Ok(GetCertificateResponse {
        proof: proof.map_err(|error| ApiError::Internal(format!("the record's proof: {error}")))?,
        evidence: evidence.collect(),
    })
}

fn evidence_in(proof: &[u8]) -> Option<Evidence> {
    match Proof::decode(proof).ok()?.kind? {
        Kind::Evidence(evidence) => Some(evidence),
        _ => None,
    }
}

fn away(error: AuditError) -> ApiError {
    ApiError::Unavailable {
        reason: "AUDIT_UNAVAILABLE",
        why: format!("this transaction is in the audit store alone: {error}"),
        retry: RETRY,
    }
}
