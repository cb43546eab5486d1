//! Where signatures come in: the pure crates know a trait, not an algorithm.

use crate::ids::PeerId;
use crate::wire::SignatureScheme;

/// What a signature is for. Its tag precedes the signed bytes, so that bytes
/// signed for one purpose are worth nothing for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Domain {
    /// A vote, by a vote key.
    Vote,
    /// A decision, by a node key.
    Decision,
    /// An abort, by a node key.
    Abort,
    /// A chain observation, by a node key.
    Observation,
    /// An accusation, by a node key.
    Accusation,
    /// A boot generation, by a node key.
    Boot,
    /// A hello, by a node key.
    Hello,
    /// Where a node is reached, by a node key.
    Address,
    /// An operator's act, by a node key.
    Act,
    /// A member record, by both keys.
    Member,
    /// The digest of a rules document; nothing is signed in this domain.
    Rules,
}

impl Domain {
    /// The bytes that precede the statement, closing zero included.
    pub const fn tag(self) -> &'static [u8] {
        match self {
            Self::Vote => b"quorate.vote.v1\0",
            Self::Decision => b"quorate.decision.v1\0",
            Self::Abort => b"quorate.abort.v1\0",
            Self::Observation => b"quorate.observation.v1\0",
            Self::Accusation => b"quorate.accusation.v1\0",
            Self::Boot => b"quorate.boot.v1\0",
            Self::Hello => b"quorate.hello.v1\0",
            Self::Address => b"quorate.address.v1\0",
            Self::Act => b"quorate.act.v1\0",
            Self::Member => b"quorate.member.v1\0",
            Self::Rules => b"quorate.rules.v1\0",
        }
    }
}

/// A public key with the scheme it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey {
    /// How signatures by this key are made.
    pub scheme: SignatureScheme,
    /// The key as the scheme encodes it; Ed25519: 32 bytes.
    pub bytes: Box<[u8]>,
}

impl PublicKey {
    /// An Ed25519 key from its 32 bytes.
    pub fn ed25519(bytes: [u8; 32]) -> Self {
        Self {
            scheme: SignatureScheme::Ed25519,
            bytes: Box::new(bytes),
        }
    }

    /// BLAKE3-256 of the key's bytes.
    pub fn peer_id(&self) -> PeerId {
        PeerId(*blake3::hash(&self.bytes).as_bytes())
    }
}

/// Checks signatures. There is one predicate for the whole cluster: two
/// implementations that disagree about one signature break agreement.
pub trait Verifier: Send + Sync {
    /// Whether `signature` is `key`'s over `domain.tag() || statement`.
    fn verify(&self, key: &PublicKey, domain: Domain, statement: &[u8], signature: &[u8]) -> bool;

    /// Whether the key may be enrolled: well-formed, and not one of the weak keys
    /// under which a signature can fit many messages.
    fn is_sound_key(&self, key: &PublicKey) -> bool;
}
