//! The one verification predicate: ZIP-215 for Ed25519. Single and batched checks
//! agree by definition, because both multiply by the cofactor and both accept the
//! same encodings; so no crafted signature is good at one node and bad at the next.

use std::convert::Infallible;

use ed25519_zebra::{Signature, VerificationKeyBytes, batch};
use quorate_consensus::wire::SignatureScheme;
use quorate_consensus::{Domain, PublicKey, Verifier};
use rand_core::{TryCryptoRng, TryRng};

/// The least number of signatures for which a batch is worth its set-up.
const LEAST_BATCH: usize = 4;

/// One signature to be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyItem {
    /// Who is said to have signed.
    pub key: PublicKey,
    /// What for.
    pub domain: Domain,
    /// The bytes signed, without the domain's tag.
    pub statement: Vec<u8>,
    /// The signature.
    pub signature: Vec<u8>,
}

/// Verifies Ed25519 signatures by the rules of ZIP-215; any other scheme is false.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ed25519Verifier;

impl Verifier for Ed25519Verifier {
    fn verify(&self, key: &PublicKey, domain: Domain, statement: &[u8], signature: &[u8]) -> bool {
        prepare(key, domain, statement, signature).is_some_and(|item| item.verify_single().is_ok())
    }

    /// Refuses what is no point, a second encoding of a point, and every point with
    /// a small-order part: with one, several keys would answer for one secret.
    fn is_sound_key(&self, key: &PublicKey) -> bool {
        let Some(bytes) = ed25519_bytes(key) else {
            return false;
        };
        let Ok(point) = ed25519_dalek::VerifyingKey::from_bytes(&bytes) else {
            return false;
        };
        let edwards = point.to_edwards();
        !point.is_weak() && edwards.is_torsion_free() && edwards.compress().to_bytes() == bytes
    }
}

/// Checks many signatures at once; the answers are in the order of the items and the
/// same as [`Ed25519Verifier`] gives one by one. When the whole does not verify, each
/// is checked alone.
pub fn verify_batch(items: &[VerifyItem]) -> Vec<bool> {
    let views: Vec<ItemRef<'_>> = items.iter().map(ItemRef::from).collect();
    verify_refs(&views)
}

/// A [`VerifyItem`] by reference.
#[derive(Clone, Copy)]
pub(crate) struct ItemRef<'a> {
    key: &'a PublicKey,
    domain: Domain,
    statement: &'a [u8],
    signature: &'a [u8],
}

impl<'a> From<&'a VerifyItem> for ItemRef<'a> {
    fn from(item: &'a VerifyItem) -> Self {
        Self {
            key: &item.key,
            domain: item.domain,
            statement: &item.statement,
            signature: &item.signature,
        }
    }
}

pub(crate) fn verify_refs(items: &[ItemRef<'_>]) -> Vec<bool> {
    let prepared: Vec<Option<batch::Item>> = items
        .iter()
        .map(|item| prepare(item.key, item.domain, item.statement, item.signature))
        .collect();
    if prepared.len() >= LEAST_BATCH && whole_batch_verifies(&prepared) {
        return prepared.iter().map(Option::is_some).collect();
    }
    prepared
        .into_iter()
        .map(|item| item.is_some_and(|item| item.verify_single().is_ok()))
        .collect()
}

/// Whether every item that is well-formed verifies.
fn whole_batch_verifies(items: &[Option<batch::Item>]) -> bool {
    let Some(randomness) = BatchRandomness::new() else {
        // Without randomness a batch could be fooled; one by one it cannot.
        return false;
    };
    let mut queue = batch::Verifier::new();
    for item in items.iter().flatten() {
        queue.queue(item.clone());
    }
    queue.verify(randomness).is_ok()
}

/// `None` when the scheme is not Ed25519 or a length is wrong.
fn prepare(
    key: &PublicKey,
    domain: Domain,
    statement: &[u8],
    signature: &[u8],
) -> Option<batch::Item> {
    let key = VerificationKeyBytes::from(ed25519_bytes(key)?);
    let signature = Signature::from_bytes(signature.try_into().ok()?);
    let message = [domain.tag(), statement].concat();
    Some(batch::Item::from((key, signature, &message)))
}

fn ed25519_bytes(key: &PublicKey) -> Option<[u8; 32]> {
    if key.scheme != SignatureScheme::Ed25519 {
        return None;
    }
    (*key.bytes).try_into().ok()
}

/// The coefficients of a batch: a BLAKE3 stream over one seed from the operating
/// system, so that a batch costs one system call whatever its size.
struct BatchRandomness(blake3::OutputReader);

impl BatchRandomness {
    fn new() -> Option<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).ok()?;
        Some(Self(blake3::Hasher::new_keyed(&seed).finalize_xof()))
    }
}

impl TryRng for BatchRandomness {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(out);
        Ok(())
    }
}

impl TryCryptoRng for BatchRandomness {}

#[cfg(test)]
mod tests;
