//! The key that signs transactions on the embedded ledger.

use std::fmt;
use std::path::Path;

use quorate_crypto::file;
use zeroize::Zeroize;

use crate::api::ChainError;

/// Whoever holds it can write to the ledger: 32 secret bytes. In a file they are 64
/// hexadecimal digits and a line's end.
#[derive(Clone)]
pub struct ChainKey([u8; 32]);

impl ChainKey {
    /// From the bytes themselves.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A new key from the operating system's randomness.
    ///
    /// # Errors
    /// [`ChainError::Key`] when there is no randomness to be had.
    pub fn generate() -> Result<Self, ChainError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)
            .map_err(|error| ChainError::Key(format!("no randomness: {error}")))?;
        Ok(Self(bytes))
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// [`ChainError::Key`] when it cannot be read, holds no key, or is open to others
    /// than its owner; the text names the command that mends it.
    pub fn read(path: &Path) -> Result<Self, ChainError> {
        let text = file::read_secret(path).map_err(|error| ChainError::Key(error.to_string()))?;
        let mut key = Self([0; 32]);
        hex::decode_to_slice(text.trim_ascii(), &mut key.0).map_err(|_| {
            ChainError::Key(format!(
                "{} must hold 64 hexadecimal digits",
                path.display()
            ))
        })?;
        Ok(key)
    }

    /// Writes the key to a new file that only its owner may read.
    ///
    /// # Errors
    /// [`ChainError::Key`] when there is such a file or it cannot be written.
    pub fn write_new(&self, path: &Path) -> Result<(), ChainError> {
        let mut text = hex::encode(self.0);
        text.push('\n');
        let written = file::write_new(path, text.as_bytes(), file::SECRET);
        text.zeroize();
        written.map_err(|error| ChainError::Key(error.to_string()))
    }

    /// The tag that this key puts on bytes: keyed BLAKE3.
    pub(crate) fn tag(&self, bytes: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.0, bytes)
    }
}

impl Drop for ChainKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for ChainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChainKey(secret)")
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_survives_its_file_and_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("chain.key");
        let key = ChainKey::generate().unwrap();
        key.write_new(&path).unwrap();
        assert_eq!(ChainKey::read(&path).unwrap().tag(b"x"), key.tag(b"x"));
        assert_ne!(ChainKey::generate().unwrap().tag(b"x"), key.tag(b"x"));
        assert!(key.write_new(&path).is_err());
        assert_eq!(format!("{key:?}"), "ChainKey(secret)");
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_with_what_mends_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("chain.key");
        ChainKey::from_bytes([7; 32]).write_new(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let error = ChainKey::read(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn other_files_hold_no_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("chain.key");
        assert!(ChainKey::read(&path).is_err());
        fs::write(&path, "ff".repeat(31)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let error = ChainKey::read(&path).unwrap_err().to_string();
        assert!(error.contains("64 hexadecimal digits"), "{error}");
    }
}
