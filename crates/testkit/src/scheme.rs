//! A signature scheme without secrets.

use quorate_consensus::{Domain, PublicKey, Verifier};

/// Accepts what [`fake_signature`] makes, and nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub struct FakeVerifier;

/// The public key that belongs to a name.
pub fn fake_key(name: &str) -> PublicKey {
    PublicKey::ed25519(*blake3::hash(name.as_bytes()).as_bytes())
}

/// `key`'s signature, 32 bytes: BLAKE3, keyed by the public key, of tag and
/// statement.
///
/// # Panics
/// Unless the key has 32 bytes.
pub fn fake_signature(key: &PublicKey, domain: Domain, statement: &[u8]) -> Vec<u8> {
    let key: &[u8; 32] = (*key.bytes).try_into().expect("fake keys have 32 bytes");
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(domain.tag()).update(statement);
    hasher.finalize().as_bytes().to_vec()
}

impl Verifier for FakeVerifier {
    fn verify(&self, key: &PublicKey, domain: Domain, statement: &[u8], signature: &[u8]) -> bool {
        self.is_sound_key(key) && fake_signature(key, domain, statement) == signature
    }

    fn is_sound_key(&self, key: &PublicKey) -> bool {
        key.bytes.len() == 32 && key.bytes.iter().any(|byte| *byte != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_fits_one_key_domain_and_statement() {
        let (a, b) = (fake_key("a"), fake_key("b"));
        let signature = fake_signature(&a, Domain::Vote, b"x");
        assert!(FakeVerifier.verify(&a, Domain::Vote, b"x", &signature));
        assert!(!FakeVerifier.verify(&b, Domain::Vote, b"x", &signature));
        assert!(!FakeVerifier.verify(&a, Domain::Boot, b"x", &signature));
        assert!(!FakeVerifier.verify(&a, Domain::Vote, b"y", &signature));
    }
}
