//! Why certificates cannot be put to use.

use std::path::PathBuf;

use quorate_crypto::FileError;

use crate::identity::{Identity, IdentityError};

/// Why certificates cannot be put to use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file without what should be in it.
    #[error("{} holds no {wanted} in PEM", path.display())]
    Holds {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        wanted: &'static str,
    },
    /// Our own certificate names nobody.
    #[error("{}: {source}", path.display())]
    Identity {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        source: IdentityError,
    },
    /// A node needs a node's certificate.
    #[error("{} is a certificate for {identity}, and a node needs one for /node/", path.display())]
    NotNode {
        /// The certificate's file.
        path: PathBuf,
        /// Whom it names.
        identity: Identity,
    },
    /// Our own certificate would be refused by everybody.
    #[error("{} would be refused: {reason}", path.display())]
    OwnCertificate {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Our own certificate is on its CA's revocation list.
    #[error(
        "{} is revoked, and nobody may rely on this node: make a request with a new key (`quorate certs renew --new-key`) and have the cluster CA sign it",
        .0.display()
    )]
    OwnRevoked(PathBuf),
    /// Several CAs bear the name of a revocation list's issuer.
    #[error(
        "several CAs bear the name {0}, and a revocation list goes by that name: make the new CA with `quorate certs init`, which gives each a name of its own, or leave the list out"
    )]
    SameName(String),
    /// Key and certificate do not belong together.
    #[error("{} is not the key of {}", key.display(), cert.display())]
    OtherKey {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        cert: PathBuf,
    },
    /// A CA file in the place of another.
    #[error("{} must hold {wanted}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What it must hold.
        wanted: String,
    },
    /// A revocation list by a CA that is not trusted here.
    #[error("{} holds a revocation list by {issuer}, which is no CA of this node", path.display())]
    StrayCrl {
        /// The file.
        path: PathBuf,
        /// Who made it.
        issuer: String,
    },
    /// A reload with somebody else's certificate.
    #[error(
        "the certificate now names {found}, and this node runs as {expected}: restart to change that"
    )]
    OtherIdentity {
        /// Whom it names now.
        found: Box<Identity>,
        /// Whom it named at the start.
        expected: Box<Identity>,
    },
    /// Refused by the TLS library.
    #[error("the certificates cannot be used: {0}")]
    Rustls(String),
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self::Rustls(error.to_string())
    }
}
