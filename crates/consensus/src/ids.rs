//! Names that could be confused get types; their constructors check them, so that
//! what is parsed at the edge is trusted inside.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not between the least and the greatest length.
    #[error("{what} must be 1 to {max} characters long, not {len}")]
    Length {
        /// Which name.
        what: &'static str,
        /// The greatest length in bytes.
        max: usize,
        /// The length found.
        len: usize,
    },
    /// A character that the name may not hold.
    #[error("{what} may hold {allowed} only, not {found:?}")]
    Character {
        /// Which name.
        what: &'static str,
        /// The characters allowed.
        allowed: &'static str,
        /// The first other one.
        found: char,
    },
}

/// `ok` is asked about bytes: the characters allowed are ASCII, and no byte of another
/// one is.
fn check(
    what: &'static str,
    text: &str,
    max: usize,
    allowed: &'static str,
    ok: impl Fn(u8) -> bool,
) -> Result<(), NameError> {
    if text.is_empty() || text.len() > max {
        let len = text.len();
        return Err(NameError::Length { what, max, len });
    }
    let wrong = text.bytes().position(|byte| !ok(byte));
    match wrong.and_then(|at| text[at..].chars().next()) {
        Some(found) => Err(NameError::Character {
            what,
            allowed,
            found,
        }),
        None => Ok(()),
    }
}

/// How many characters a [`Name`] compares at once.
const HEAD: usize = size_of::<u64>();

/// A name that was checked. Engines and boards look everything up by names, so those
/// that are short, as most are, are compared as one number.
#[derive(Clone)]
struct Name {
    /// The first characters, the first one highest, zeros behind a shorter name: no
    /// name holds a zero, so names are in the order of their heads.
    head: u64,
    text: Arc<str>,
}

impl Name {
    fn new(text: &str) -> Self {
        let mut head = [0; HEAD];
        for (to, from) in head.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        Self {
            head: u64::from_be_bytes(head),
            text: text.into(),
        }
    }

    /// What the head does not hold.
    #[inline]
    fn rest(&self) -> &[u8] {
        self.text.as_bytes().get(HEAD..).unwrap_or_default()
    }
}

impl PartialEq for Name {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.head == other.head
            && (Arc::ptr_eq(&self.text, &other.text) || self.rest() == other.rest())
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        match self.head.cmp(&other.head) {
            Ordering::Equal if Arc::ptr_eq(&self.text, &other.text) => Ordering::Equal,
            Ordering::Equal => self.rest().cmp(other.rest()),
            order => order,
        }
    }
}

/// As its text's, for it can be looked up by that.
impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Name);

        impl $type {
            /// The name as text.
            #[inline]
            pub fn as_str(&self) -> &str {
                &self.0.text
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0.text)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0.text, f)
            }
        }

        impl std::str::FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0.text
            }
        }
    };
}

name! {
    /// A transaction's id: `[A-Za-z0-9._:-]`, 1 to 128 characters.
    TxId
}

name! {
    /// A trustee's id: `[a-z0-9_-]`, 1 to 63 characters.
    NodeId
}

impl TxId {
    /// Checks and takes the text.
    ///
    /// # Errors
    /// [`NameError`] when it is empty, too long, or holds another character.
    pub fn new(text: &str) -> Result<Self, NameError> {
        check("tx_id", text, 128, "A-Z a-z 0-9 . _ : -", |byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-')
        })?;
        Ok(Self(Name::new(text)))
    }

    /// Whether it names a change of rules: `rules:<epoch>:<try>`.
    pub fn is_rules(&self) -> bool {
        self.as_str().starts_with("rules:")
    }

    /// The id of a ballot on the rules of an epoch, for the given try.
    pub fn rules(epoch: u64, attempt: u64) -> Self {
        Self(Name::new(&format!("rules:{epoch}:{attempt}")))
    }

    /// The epoch and the try, if it is a well-formed change of rules: both decimal,
    /// without leading zeros.
    pub fn rules_change(&self) -> Option<(u64, u64)> {
        let (epoch, attempt) = self.as_str().strip_prefix("rules:")?.split_once(':')?;
        let (epoch, attempt) = (epoch.parse().ok()?, attempt.parse().ok()?);
        // The way back refuses what parsing tolerates: leading zeros and a plus sign.
        (Self::rules(epoch, attempt) == *self).then_some((epoch, attempt))
    }
}

impl NodeId {
    /// Checks and takes the text.
    ///
    /// # Errors
    /// [`NameError`] when it is empty, too long, or holds another character.
    pub fn new(text: &str) -> Result<Self, NameError> {
        check("node_id", text, 63, "a-z 0-9 _ -", |byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-')
        })?;
        Ok(Self(Name::new(text)))
    }
}

/// Checks a cluster's name: `[a-z0-9-]`, 1 to 63 characters, because it is the
/// trust domain of SPIFFE ids.
///
/// # Errors
/// [`NameError`] when it is empty, too long, or holds another character.
pub fn check_cluster_name(text: &str) -> Result<(), NameError> {
    check("cluster name", text, 63, "a-z 0-9 -", |byte| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
    })
}

/// Why 32 bytes were not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be 32 bytes (64 hexadecimal digits)")]
pub struct DigestError {
    what: &'static str,
}

macro_rules! digest {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(pub [u8; 32]);

        impl $type {
            /// The bytes.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }
        }

        impl TryFrom<&[u8]> for $type {
            type Error = DigestError;
            fn try_from(bytes: &[u8]) -> Result<Self, DigestError> {
                bytes.try_into().map(Self).map_err(|_| DigestError { what: $what })
            }
        }

        impl std::str::FromStr for $type {
            type Err = DigestError;
            fn from_str(text: &str) -> Result<Self, DigestError> {
                parse_hex(text).map(Self).ok_or(DigestError { what: $what })
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

digest! {
    /// The digest of a cluster's genesis rules document: the root of every proof.
    ClusterId, "cluster id"
}

digest! {
    /// The digest of a rules document.
    RulesDigest, "rules digest"
}

digest! {
    /// BLAKE3-256 of a trustee's public vote key.
    PeerId, "peer id"
}

fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert!(TxId::new("tx_001").is_ok());
        assert!(TxId::new(&"a".repeat(128)).is_ok());
        assert!(TxId::new(&"a".repeat(129)).is_err());
        assert!(TxId::new("").is_err());
        assert!(TxId::new("tx 1").is_err());
        assert!(TxId::new("tx/1").is_err());
        assert!(NodeId::new("node1").is_ok());
        assert!(NodeId::new("Node1").is_err());
        assert!(NodeId::new(&"a".repeat(64)).is_err());
    }

    #[test]
    fn the_first_wrong_character_is_named_whole() {
        for (text, wrong) in [("tx 1/", ' '), ("zwölf", 'ö'), ("tx€", '€'), ("\0", '\0')] {
            let Err(NameError::Character { found, .. }) = TxId::new(text) else {
                panic!("{text:?} is a name");
            };
            assert_eq!(found, wrong);
        }
    }

    #[test]
    fn names_are_in_the_order_of_their_texts() {
        let mut texts = vec!["rules:1:1", "rules:1:2", "rules:1:10", "Z", "a.b", "a-b"];
        let long = "0123456789abcdefghij";
        texts.extend((1..=long.len()).map(|end| &long[..end]));
        texts.extend(["01234567", "01234568", "012345678", "01234567x9"]);
        let hash = |value: &dyn Fn(&mut std::hash::DefaultHasher)| {
            let mut hasher = std::hash::DefaultHasher::new();
            value(&mut hasher);
            hasher.finish()
        };
        for a in &texts {
            for b in &texts {
                let (one, other) = (TxId::new(a).unwrap(), TxId::new(b).unwrap());
                assert_eq!(one.cmp(&other), a.cmp(b), "{a} {b}");
                assert_eq!(one == other, a == b, "{a} {b}");
            }
            let id = TxId::new(a).unwrap();
            assert_eq!(id, id.clone());
            assert_eq!(hash(&|h| id.hash(h)), hash(&|h| a.hash(h)));
        }
        // Maps are looked up by texts.
        let ids: std::collections::BTreeSet<TxId> =
            texts.iter().map(|text| TxId::new(text).unwrap()).collect();
        assert!(texts.iter().all(|text| ids.contains(*text)));
    }

    #[test]
    fn a_change_of_rules_is_written_one_way() {
        let change = |text| TxId::new(text).unwrap().rules_change();
        assert_eq!(change("rules:2:1"), Some((2, 1)));
        assert_eq!(change("rules:2:0"), Some((2, 0)));
        assert_eq!(TxId::rules(2, 1).as_str(), "rules:2:1");
        for wrong in [
            "rules:",
            "rules:2",
            "rules:2:",
            "rules::1",
            "rules:02:1",
            "rules:2:01",
            "rules:2:1:1",
            "rules:2:x",
            "rules:-2:1",
            "rules:18446744073709551616:1",
            "x:2:1",
        ] {
            assert_eq!(change(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn digests_survive_hexadecimal() {
        let id = ClusterId([0xa7; 32]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("a7".parse::<ClusterId>().is_err());
        assert!("+7".repeat(32).parse::<ClusterId>().is_err());
    }
}
