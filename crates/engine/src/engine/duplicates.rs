//! Statements that were dealt with a short while ago, so that a replay costs a look.

use std::collections::{BTreeSet, VecDeque};

/// How many digests are kept.
const CAPACITY: usize = 10_000;

/// For how long, in milliseconds.
const LIFETIME_MS: u64 = 60_000;

/// A bounded set of digests that forgets.
#[derive(Default)]
pub(super) struct Duplicates {
    known: BTreeSet<[u8; 32]>,
    order: VecDeque<(u64, [u8; 32])>,
    dropped: u64,
}

impl Duplicates {
    /// Whether the digest was remembered and is not forgotten yet.
    pub(super) fn contains(&mut self, mono_ms: u64, digest: &[u8; 32]) -> bool {
        self.forget(mono_ms, CAPACITY);
        self.known.contains(digest)
    }

    /// Remembers a digest. Call it only when its statement was recorded, or dropped
    /// for good: a vote that is forgotten here but not recorded would be lost.
    pub(super) fn remember(&mut self, mono_ms: u64, digest: [u8; 32]) {
        if self.known.insert(digest) {
            self.order.push_back((mono_ms, digest));
            self.forget(mono_ms, CAPACITY);
        }
    }

    /// Counts one that is dropped because it is remembered.
    pub(super) fn drop_one(&mut self) {
        self.dropped += 1;
    }

    /// How many were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How many are remembered.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    fn forget(&mut self, mono_ms: u64, most: usize) {
        while let Some((at, digest)) = self.order.front().copied() {
            if self.order.len() <= most && mono_ms.saturating_sub(at) < LIFETIME_MS {
                break;
            }
            self.order.pop_front();
            self.known.remove(&digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_forgets() {
        let mut duplicates = Duplicates::default();
        duplicates.remember(0, [1; 32]);
        assert!(duplicates.contains(LIFETIME_MS - 1, &[1; 32]));
        assert!(!duplicates.contains(LIFETIME_MS, &[1; 32]));
        for i in 0..=CAPACITY as u64 {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&i.to_be_bytes());
            duplicates.remember(LIFETIME_MS, digest);
        }
        assert!(!duplicates.contains(LIFETIME_MS, &[0; 32]));
        assert_eq!(duplicates.known.len(), CAPACITY);
        assert_eq!(duplicates.order.len(), CAPACITY);
    }
}
