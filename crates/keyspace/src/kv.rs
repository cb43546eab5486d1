//! What is asked of the store and what it says, in a few plain types. Keys are
//! without the cluster's prefix: the client puts it before them.

/// A key as the store holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
    /// The revision at which it was created last.
    pub create_revision: u64,
    /// The revision at which it was written last.
    pub mod_revision: u64,
    /// How often it was written since it was created: 1 for a new key.
    pub version: u64,
}

/// One thing that happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was written.
    Put(KeyValue),
    /// It was deleted.
    Delete(String),
}

/// What must hold for a step to be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// There is no such key.
    Absent(String),
    /// The key was not written after this revision (an absent key was not).
    Unchanged(String, u64),
    /// No key with this prefix that exists was written after this revision.
    AllUnchanged(String, u64),
    /// The key exists and was written last at exactly this revision.
    At(String, u64),
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Writes a key.
    Put {
        /// The key.
        key: String,
        /// Its value.
        value: Vec<u8>,
        /// How long the key lives unless its writer keeps it alive, in milliseconds;
        /// none for a key that stays.
        ttl_ms: Option<u64>,
    },
    /// Deletes a key if it is there.
    Delete(String),
    /// Deletes all keys with this prefix.
    DeleteAll(String),
}

impl Write {
    /// Writes a key that stays.
    pub fn put(key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self::Put {
            key: key.into(),
            value: value.into(),
            ttl_ms: None,
        }
    }

    /// The key that is written; for [`Write::DeleteAll`] the prefix.
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete(key) | Self::DeleteAll(key) => key,
        }
    }
}

/// What is written together when all guards hold, or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// All must hold.
    pub guards: Vec<Guard>,
    /// Done in this order; no key twice.
    pub writes: Vec<Write>,
}
