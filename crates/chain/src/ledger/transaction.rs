//! A transaction of the ledger, as bytes:
//!
//! ```text
//! tag of the format ‖ len chain_id ‖ len account ‖ nonce ‖ attempt ‖ len payload ‖ key's tag
//! ```
//!
//! Lengths and the attempt have 4 bytes, the nonce 8, big-endian; the key's tag is
//! keyed BLAKE3 over everything before it. The hash of a transaction is BLAKE3 of all
//! of its bytes, so it is known before it is sent, and the same reservation and
//! attempt always give the same bytes.

use quorate_engine::Prepared;

use crate::key::ChainKey;

const FORMAT: &[u8] = b"quorate.ledger.transaction.v1\0";

const TAG_LEN: usize = 32;

/// The most bytes that a transaction may have.
pub(super) const MAX_LEN: usize = 64 * 1024;

/// What a transaction says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Transaction {
    pub(super) chain_id: String,
    pub(super) account: String,
    pub(super) nonce: u64,
    /// A higher one replaces a lower one that still waits, as a higher fee would.
    pub(super) attempt: u32,
    pub(super) payload: Vec<u8>,
}

impl Transaction {
    /// Signs it. None when it would have more than [`MAX_LEN`] bytes.
    pub(super) fn sign(&self, key: &ChainKey) -> Option<Prepared> {
        let mut raw = FORMAT.to_vec();
        put(&mut raw, self.chain_id.as_bytes())?;
        put(&mut raw, self.account.as_bytes())?;
        raw.extend(self.nonce.to_be_bytes());
        raw.extend(self.attempt.to_be_bytes());
        put(&mut raw, &self.payload)?;
        let tag = key.tag(&raw);
        raw.extend(tag.as_bytes());
        (raw.len() <= MAX_LEN).then(|| Prepared {
            tx_hash: hash(&raw),
            raw,
        })
    }

    /// Reads one; its tag is not checked. None for any other bytes.
    pub(super) fn decode(raw: &[u8]) -> Option<Self> {
        if raw.len() > MAX_LEN {
            return None;
        }
        let mut rest = raw.strip_prefix(FORMAT)?;
        let transaction = Self {
            chain_id: String::from_utf8(take(&mut rest)?).ok()?,
            account: String::from_utf8(take(&mut rest)?).ok()?,
            nonce: u64::from_be_bytes(*array(&mut rest)?),
            attempt: u32::from_be_bytes(*array(&mut rest)?),
            payload: take(&mut rest)?,
        };
        (rest.len() == TAG_LEN).then_some(transaction)
    }
}

/// Whether the key's tag on a transaction's bytes is right.
pub(super) fn is_tagged(raw: &[u8], key: &ChainKey) -> bool {
    // Hashes compare in constant time.
    raw.split_last_chunk::<TAG_LEN>()
        .is_some_and(|(signed, tag)| key.tag(signed) == *tag)
}

/// The hash of a transaction.
pub(super) fn hash(raw: &[u8]) -> Vec<u8> {
    blake3::hash(raw).as_bytes().to_vec()
}

fn put(to: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    to.extend(u32::try_from(bytes.len()).ok()?.to_be_bytes());
    to.extend(bytes);
    Some(())
}

fn take(from: &mut &[u8]) -> Option<Vec<u8>> {
    let len = u32::from_be_bytes(*array(from)?);
    let (bytes, rest) = from.split_at_checked(usize::try_from(len).ok()?)?;
    *from = rest;
    Some(bytes.to_vec())
}

fn array<'a, const N: usize>(from: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (bytes, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn transaction()(
            chain_id in ".{0,20}",
            account in ".{0,20}",
            nonce: u64,
            attempt: u32,
            payload in proptest::collection::vec(any::<u8>(), 0..200),
        ) -> Transaction {
            Transaction { chain_id, account, nonce, attempt, payload }
        }
    }

    proptest! {
        #[test]
        fn bytes_say_one_thing(transaction in transaction(), other in transaction()) {
            let key = ChainKey::from_bytes([1; 32]);
            let prepared = transaction.sign(&key).unwrap();
            prop_assert_eq!(transaction.sign(&key).unwrap(), prepared.clone());
            prop_assert_eq!(Transaction::decode(&prepared.raw), Some(transaction.clone()));
            prop_assert!(is_tagged(&prepared.raw, &key));
            prop_assert!(!is_tagged(&prepared.raw, &ChainKey::from_bytes([2; 32])));
            if other != transaction {
                prop_assert_ne!(other.sign(&key).unwrap().tx_hash, prepared.tx_hash);
            }
        }

        #[test]
        fn a_changed_bit_breaks_the_tag(transaction in transaction(), at: prop::sample::Index) {
            let key = ChainKey::from_bytes([1; 32]);
            let mut raw = transaction.sign(&key).unwrap().raw;
            let bit = at.index(raw.len() * 8);
            raw[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!is_tagged(&raw, &key));
        }

        #[test]
        fn random_bytes_are_no_transaction(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Transaction::decode(&bytes), None);
            bytes.splice(0..0, FORMAT.iter().copied());
            // Whatever it is, it is read without a panic.
            let _ = Transaction::decode(&bytes);
        }
    }

    #[test]
    fn a_transaction_has_a_limit() {
        let key = ChainKey::from_bytes([1; 32]);
        let mut transaction = Transaction {
            chain_id: "c".into(),
            account: "a".into(),
            nonce: 0,
            attempt: 0,
            payload: vec![0; MAX_LEN - 200],
        };
        assert!(transaction.sign(&key).is_some());
        transaction.payload = vec![0; MAX_LEN];
        assert!(transaction.sign(&key).is_none());
    }
}
