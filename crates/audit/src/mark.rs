//! Of which log the store is a projection: a digest over each entry and all before it.
//! Two logs with the same digest at a revision are the same up to there; so a store
//! can tell whether the log that it is to go on with is the one it knows.

use prost::Message;
use quorate_consensus::ClusterId;
use quorate_consensus::wire::{BoardEntry, BoardOp};

use crate::store::AuditError;

/// Says what is hashed, and in which version.
const TAG: &[u8] = b"quorate.audit.log.v1\0";

/// A place in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// How many pasts were lost before: see `lost_pasts`.
    pub past: u64,
    /// The revision; 0 before the first entry.
    pub revision: u64,
    /// Over everything up to that revision; none where that is not known: the store was
    /// filled by a version that kept no digests.
    pub digest: Option<[u8; 32]>,
}

impl Mark {
    /// A revision of whose past nothing is said.
    pub fn at(revision: u64) -> Self {
        Self {
            past: 0,
            revision,
            digest: None,
        }
    }

    /// A revision with the digest over everything up to it.
    pub fn of(revision: u64, digest: [u8; 32]) -> Self {
        Self {
            digest: Some(digest),
            ..Self::at(revision)
        }
    }

    /// The digest at which a projection goes on from this, where the store stands.
    ///
    /// # Errors
    /// [`AuditError::CursorMoved`] when it does not go on from here;
    /// [`AuditError::OtherPast`] when what it goes on with has another past.
    pub(crate) fn followed_by(&self, from: &Self) -> Result<Option<[u8; 32]>, AuditError> {
        if self.revision != from.revision {
            let found = self.revision;
            return Err(AuditError::CursorMoved { found });
        }
        if self.contradicts(from) {
            let revision = self.revision;
            return Err(AuditError::OtherPast { revision });
        }
        Ok(self.digest.or(from.digest))
    }

    /// Whether these are marks of two different logs at one revision. What is not known
    /// contradicts nothing.
    pub fn contradicts(&self, other: &Self) -> bool {
        let both = self.digest.zip(other.digest);
        self.revision == other.revision && both.is_some_and(|(one, other)| one != other)
    }
}

/// The digest before the first entry.
pub fn first(cluster_id: ClusterId) -> [u8; 32] {
    cluster_id.0
}

/// The digest over an entry and all before it. By what was ordered, and when, for that
/// makes the log; the events in an entry are derived from it.
pub fn next(before: &[u8; 32], entry: &BoardEntry) -> [u8; 32] {
    after(before, &link(entry))
}

/// The digest over one entry alone.
pub(crate) fn link(entry: &BoardEntry) -> [u8; 32] {
    let op = entry.op.as_ref().map(BoardOp::encode_to_vec);
    let mut hasher = blake3::Hasher::new();
    hasher.update(&entry.revision.to_be_bytes());
    hasher.update(&entry.time_ms.to_be_bytes());
    hasher.update(&op.unwrap_or_default());
    *hasher.finalize().as_bytes()
}

/// The digest over what was before, and one entry more.
pub(crate) fn after(before: &[u8; 32], link: &[u8; 32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(TAG);
    hasher.update(before);
    hasher.update(link);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use quorate_consensus::wire::{ReleaseOp, board_op::Op};

    use super::*;

    fn entry(revision: u64, tx_id: &str) -> BoardEntry {
        let op = Op::Release(ReleaseOp {
            tx_id: tx_id.to_owned(),
            ..ReleaseOp::default()
        });
        BoardEntry {
            revision,
            time_ms: 1000 * revision,
            op: Some(BoardOp { op: Some(op) }),
            events: Vec::new(),
        }
    }

    #[test]
    fn every_entry_and_its_past_are_in_the_digest() {
        let start = first(ClusterId([7; 32]));
        let one = next(&start, &entry(1, "a"));
        let mut later = entry(1, "a");
        later.time_ms += 1;
        let others = [
            next(&first(ClusterId([8; 32])), &entry(1, "a")),
            next(&start, &entry(2, "a")),
            next(&start, &entry(1, "b")),
            next(&start, &later),
        ];
        assert!(others.iter().all(|other| *other != one));
        // The same entry on another past.
        let (two, other) = (next(&one, &entry(2, "c")), next(&others[2], &entry(2, "c")));
        assert!(Mark::of(2, two).contradicts(&Mark::of(2, other)));
        assert!(!Mark::of(2, two).contradicts(&Mark::of(2, two)));
        assert!(!Mark::of(2, two).contradicts(&Mark::of(1, one)));
        assert!(!Mark::of(2, two).contradicts(&Mark::at(2)));
    }

    /// A digest that changes makes every store look as if its past was lost.
    #[test]
    fn the_digest_of_a_known_entry() {
        let known = "c5fd4dc07432dee609fadb0ef5b7f3f4e83fda7c38fec2735d5ae0d7785b1c6a";
        assert_eq!(hex::encode(next(&[9; 32], &entry(7, "tx_1"))), known);
    }
}
