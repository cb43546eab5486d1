//! Signatures that were found good are not checked again: a vote arrives by many
//! peers, and is judged by several readers of one node.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use quorate_consensus::{Domain, PublicKey, Verifier};

use crate::verify::{Ed25519Verifier, ItemRef, VerifyItem, verify_refs};

/// How many good signatures are remembered unless told otherwise.
pub const DEFAULT_CAPACITY: usize = 65_536;

/// Locks, so that readers on several threads seldom wait for each other.
const SHARDS: usize = 16;

type Digest = [u8; 32];

/// An [`Ed25519Verifier`] that remembers what it found good. Bad signatures are
/// not remembered: whoever sends them could push the good ones out.
///
/// Share it in an `Arc`. Memory is bounded by the capacity, about 80 bytes each.
pub struct CachedVerifier {
    shards: Vec<Mutex<Shard>>,
    /// Entries in one generation of one shard.
    generation: usize,
}

/// Two generations: new entries go to the young one; when it is full, it becomes
/// the old one, and what nobody asked for since is forgotten.
#[derive(Default)]
struct Shard {
    young: HashSet<Digest>,
    old: HashSet<Digest>,
}

impl Default for CachedVerifier {
    fn default() -> Self {
        Self::new(DEFAULT_CAPACITY)
    }
}

impl CachedVerifier {
    /// Remembers at most `capacity` signatures, rounded down to a multiple of 32 but
    /// at least 32.
    pub fn new(capacity: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            generation: (capacity / (2 * SHARDS)).max(1),
        }
    }

    /// Checks those items that are not yet known to be good, as one batch, and
    /// remembers the good ones. The answers are in the order of the items.
    pub fn prewarm(&self, items: Vec<VerifyItem>) -> Vec<bool> {
        let digests: Vec<Digest> = items
            .iter()
            .map(|i| digest(&i.key, i.domain, &i.statement, &i.signature))
            .collect();
        let mut answers: Vec<bool> = digests.iter().map(|d| self.knows(d)).collect();
        let misses: Vec<usize> = (0..items.len()).filter(|&i| !answers[i]).collect();
        let views: Vec<ItemRef<'_>> = misses.iter().map(|&i| ItemRef::from(&items[i])).collect();
        for (index, good) in misses.into_iter().zip(verify_refs(&views)) {
            answers[index] = good;
            if good {
                self.remember(digests[index]);
            }
        }
        answers
    }

    /// How many signatures are remembered now.
    pub fn len(&self) -> usize {
        let count = |shard: &Mutex<Shard>| {
            let shard = lock(shard);
            shard.young.len() + shard.old.len()
        };
        self.shards.iter().map(count).sum()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, digest: &Digest) -> MutexGuard<'_, Shard> {
        lock(&self.shards[usize::from(digest[0]) % SHARDS])
    }

    fn knows(&self, digest: &Digest) -> bool {
        let mut shard = self.shard(digest);
        if shard.young.contains(digest) {
            return true;
        }
        if !shard.old.remove(digest) {
            return false;
        }
        shard.insert(*digest, self.generation);
        true
    }

    fn remember(&self, digest: Digest) {
        let mut shard = self.shard(&digest);
        if !shard.old.contains(&digest) {
            shard.insert(digest, self.generation);
        }
    }
}

impl Shard {
    fn insert(&mut self, digest: Digest, generation: usize) {
        if self.young.len() >= generation {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest);
    }
}

impl Verifier for CachedVerifier {
    fn verify(&self, key: &PublicKey, domain: Domain, statement: &[u8], signature: &[u8]) -> bool {
        let digest = digest(key, domain, statement, signature);
        if self.knows(&digest) {
            return true;
        }
        let good = Ed25519Verifier.verify(key, domain, statement, signature);
        if good {
            self.remember(digest);
        }
        good
    }

    fn is_sound_key(&self, key: &PublicKey) -> bool {
        Ed25519Verifier.is_sound_key(key)
    }
}

impl std::fmt::Debug for CachedVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CachedVerifier")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// A poisoned lock is taken all the same: a set of digests has no half-done state
/// that could turn a bad signature into a good one.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Each part goes in with its length before it, so that no two different quadruples
/// feed the same bytes to the hash.
fn digest(key: &PublicKey, domain: Domain, statement: &[u8], signature: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.scheme as i32).to_le_bytes());
    for part in [&key.bytes, domain.tag(), statement, signature] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests;
