//! Ed25519 signing keys and the files they live in: PKCS#8 in PEM, mode 0600.

use std::path::{Path, PathBuf};

use ed25519_dalek::Signer;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes};
use quorate_consensus::{Domain, PublicKey};
use zeroize::{Zeroize, Zeroizing};

use crate::file::{self, FileError};

/// Why a key could not be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is there, but holds no such key.
    #[error(
        "{} holds no Ed25519 private key in PKCS#8 PEM: `openssl pkey -in FILE -noout -text` shows what it holds",
        .0.display()
    )]
    Malformed(PathBuf),
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness: {0}")]
    Randomness(getrandom::Error),
}

/// A vote key or a node key. Wiped from memory when dropped; its `Debug` shows the
/// public key only.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// A new key from the operating system's randomness.
    ///
    /// # Errors
    /// [`KeyError::Randomness`].
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).map_err(KeyError::Randomness)?;
        Ok(Self(ed25519_dalek::SigningKey::from_bytes(&seed)))
    }

    /// The key of a seed: for tests and reproducible development clusters. Whoever
    /// knows the seed has the key.
    pub fn from_seed(mut seed: [u8; 32]) -> Self {
        let key = ed25519_dalek::SigningKey::from_bytes(&seed);
        seed.zeroize();
        Self(key)
    }

    /// Its public key.
    pub fn public_key(&self) -> PublicKey {
        PublicKey::ed25519(self.0.verifying_key().to_bytes())
    }

    /// The signature, 64 bytes, over `domain.tag() || statement`.
    pub fn sign(&self, domain: Domain, statement: &[u8]) -> Vec<u8> {
        let message = [domain.tag(), statement].concat();
        self.0.sign(&message).to_bytes().to_vec()
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// [`FileError::Exposed`] when others than its owner can reach it, with the
    /// command that mends it; [`KeyError::Malformed`] when it holds something else.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let pem = file::read_secret(path)?;
        std::str::from_utf8(&pem)
            .ok()
            .and_then(|pem| ed25519_dalek::SigningKey::from_pkcs8_pem(pem).ok())
            .map(Self)
            .ok_or_else(|| KeyError::Malformed(path.to_owned()))
    }

    /// Writes a new key file, for its owner only; never over an old one.
    ///
    /// # Errors
    /// [`FileError::Exists`] or another [`FileError`].
    pub fn write_new(&self, path: &Path) -> Result<(), KeyError> {
        let pem = self
            .pem()
            .ok_or_else(|| KeyError::Malformed(path.to_owned()))?;
        Ok(file::write_new(path, pem.as_bytes(), file::SECRET)?)
    }

    /// Without the public key in it: version 1 of PKCS#8 is what every tool reads.
    fn pem(&self) -> Option<Zeroizing<String>> {
        let mut pair = KeypairBytes {
            secret_key: self.0.to_bytes(),
            public_key: None,
        };
        let pem = pair.to_pkcs8_pem(LineEnding::LF).ok();
        pair.secret_key.zeroize();
        pem
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SigningKey")
            .field(&self.public_key().peer_id())
            .finish()
    }
}

/// Makes a key and writes it to a new file: `quorate keygen`.
///
/// # Errors
/// [`KeyError`], for instance when the file exists already.
pub fn keygen(path: &Path) -> Result<PublicKey, KeyError> {
    let key = SigningKey::generate()?;
    key.write_new(path)?;
    Ok(key.public_key())
}

#[cfg(test)]
mod tests;
