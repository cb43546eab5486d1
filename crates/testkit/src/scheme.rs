//! A signature scheme without secrets.

use std::cell::RefCell;

use quorate_consensus::{Domain, PublicKey, Verifier};

/// How many signatures each thread remembers: every node of a cluster in one process
/// verifies the same ones.
const REMEMBERED: usize = 4_096;

/// Longer statements are rare, and not remembered.
const LONGEST: usize = 1_024;

thread_local! {
    /// Each in the place that its digest gives it, the latest one there.
    static KNOWN: RefCell<Vec<Option<Known>>> = const { RefCell::new(Vec::new()) };
}

/// A signature that was made.
struct Known {
    key: [u8; 32],
    domain: Domain,
    statement: Vec<u8>,
    signature: [u8; 32],
}

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
    remembered(key, domain, statement).to_vec()
}

/// [`fake_signature`], made once for each of those that were asked for lately.
fn remembered(key: &PublicKey, domain: Domain, statement: &[u8]) -> [u8; 32] {
    let key: &[u8; 32] = (*key.bytes).try_into().expect("fake keys have 32 bytes");
    if statement.len() > LONGEST {
        return made(key, domain, statement);
    }
    KNOWN.with_borrow_mut(|all| {
        if all.is_empty() {
            all.resize_with(REMEMBERED, || None);
        }
        let place = &mut all[place(key, domain, statement)];
        if let Some(known) = place
            && known.key == *key
            && known.domain == domain
            && known.statement == statement
        {
            return known.signature;
        }
        let signature = made(key, domain, statement);
        *place = Some(Known {
            key: *key,
            domain,
            statement: statement.to_vec(),
            signature,
        });
        signature
    })
}

fn made(key: &[u8; 32], domain: Domain, statement: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(domain.tag()).update(statement);
    *hasher.finalize().as_bytes()
}

/// Where a signature is remembered, if it is.
fn place(key: &[u8; 32], domain: Domain, statement: &[u8]) -> usize {
    let stirred = |digest: u64, number: u64| {
        let stirred = (digest ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        stirred ^ (stirred >> 29)
    };
    let (words, rest) = statement.as_chunks();
    let words = key.as_chunks().0.iter().chain(words);
    let digest = words.fold(domain as u64, |digest, word| {
        stirred(digest, u64::from_le_bytes(*word))
    });
    let digest = rest
        .iter()
        .fold(digest, |digest, byte| stirred(digest, u64::from(*byte)));
    digest as usize % REMEMBERED
}

impl Verifier for FakeVerifier {
    fn verify(&self, key: &PublicKey, domain: Domain, statement: &[u8], signature: &[u8]) -> bool {
        self.is_sound_key(key) && remembered(key, domain, statement) == signature
    }

    fn is_sound_key(&self, key: &PublicKey) -> bool {
        key.bytes.len() == 32 && key.bytes.iter().any(|byte| *byte != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_what_is_made() {
        let keys = [fake_key("a"), fake_key("b")];
        // More than are remembered, each of them twice, some too long.
        for _ in 0..2 {
            for number in 0..3 * REMEMBERED as u64 {
                let key = &keys[number as usize % 2];
                let mut statement = number.to_be_bytes().to_vec();
                statement.resize(number as usize % (LONGEST + 50), 7);
                let domain = [Domain::Vote, Domain::Boot][number as usize / 2 % 2];
                let bytes: &[u8; 32] = (*key.bytes).try_into().expect("32 bytes");
                let signature = made(bytes, domain, &statement);
                assert_eq!(fake_signature(key, domain, &statement), signature);
                assert!(FakeVerifier.verify(key, domain, &statement, &signature));
            }
        }
    }

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
