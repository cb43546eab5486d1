//! Certificates in files: what `quorate certs` does, one function a command.
//!
//! The cluster CA certifies nodes. Each trustee has a CA of its own for its clients
//! and operators, so that the cluster CA can make nobody vote. All are ECDSA P-256.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use quorate_consensus::NodeId;
use quorate_crypto::{FileError, KeyError, MemberError};

use crate::identity::{Identity, IdentityError};

pub(crate) mod authority;
mod crl;
mod enroll;
pub(crate) mod inspect;
mod renew;

pub use authority::{AuthorityKind, InitCa, init_cluster_ca};
pub use crl::{CRL_DAYS, CrlFacts, MakeCrl, Revoke, make_crl, revoke, serial_issued_by, show_crls};
pub use enroll::{
    Issue, Request, Requested, SignRequest, default_sans, issue, request, request_with,
    sign_request,
};
pub use inspect::{CertFacts, Verify, VerifyError, show, verify};
pub use renew::{Renew, RequestAgain, renew, request_again};

/// Days that a CA is valid.
pub const AUTHORITY_DAYS: u64 = 3650;

/// Days that a node's, client's or operator's certificate is valid.
pub const LEAF_DAYS: u64 = 365;

/// A certificate starts a little earlier than it was made, for clocks that lag.
const BACKDATED: Duration = Duration::from_secs(300);

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A vote or node key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The member record, or the cluster's name.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// What a certificate names.
    #[error("{}: {source}", path.display())]
    Identity {
        /// Where it was read from.
        path: PathBuf,
        /// What is wrong with it.
        source: IdentityError,
    },
    /// A client's or operator's name.
    #[error(transparent)]
    Name(#[from] IdentityError),
    /// A file that holds something else.
    #[error("{} holds no {wanted}", path.display())]
    Holds {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
    },
    /// A CA certificate that is for something else.
    #[error("{} is not {wanted}, so it may not certify this", path.display())]
    WrongAuthority {
        /// The file.
        path: PathBuf,
        /// What it should be.
        wanted: String,
    },
    /// A certificate that another CA made.
    #[error("{} was not made by {}: name the CA that made it", cert.display(), ca.display())]
    OtherIssuer {
        /// The certificate.
        cert: PathBuf,
        /// The CA that should have made it.
        ca: PathBuf,
    },
    /// A certificate that its CA has revoked is not renewed.
    #[error(
        "{} is revoked, and is not renewed: for a node, `quorate certs renew --new-key` away from the cluster CA's key makes a request with a new key; for a client, `quorate certs issue` makes a new certificate",
        .0.display()
    )]
    Revoked(PathBuf),
    /// A request that its own key did not sign.
    #[error("{} is not signed by the key in it, or not a certificate request", .0.display())]
    RequestSignature(PathBuf),
    /// A request with a key that we do not certify.
    #[error("{} holds a key that is not ECDSA P-256", .0.display())]
    RequestKey(PathBuf),
    /// A request for somebody else.
    #[error("the request is for {found}, not for {expected}")]
    RequestIdentity {
        /// Whom the request names.
        found: String,
        /// Whom it should name.
        expected: Identity,
    },
    /// A request for a name that nobody allowed.
    #[error("the request asks for the name {0:?}: sign with `--san {0}` if that is right")]
    RequestName(String),
    /// A request to become a CA.
    #[error("the request asks for a CA certificate")]
    RequestAuthority,
    /// A name that is neither a host name nor an address.
    #[error("{0:?} is neither a host name nor an IP address")]
    San(String),
    /// The certificate could not be made.
    #[error("the certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness: {0}")]
    Randomness(String),
}

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From then on.
    pub not_before: SystemTime,
    /// Until then.
    pub not_after: SystemTime,
}

impl Validity {
    /// From five minutes ago for so many days.
    pub fn days(now: SystemTime, days: u64) -> Self {
        Self {
            not_before: now - BACKDATED,
            not_after: now + Duration::from_secs(days * 86_400),
        }
    }

    /// From now on for [`AUTHORITY_DAYS`].
    pub fn authority() -> Self {
        Self::days(SystemTime::now(), AUTHORITY_DAYS)
    }

    /// From now on for [`LEAF_DAYS`].
    pub fn leaf() -> Self {
        Self::days(SystemTime::now(), LEAF_DAYS)
    }
}

/// `<dir>/ca.crt`: the cluster CA's certificate.
pub fn cluster_ca_cert(dir: &Path) -> PathBuf {
    dir.join("ca.crt")
}

/// `<dir>/ca.key`: the cluster CA's key.
pub fn cluster_ca_key(dir: &Path) -> PathBuf {
    dir.join("ca.key")
}

/// `<dir>/ca.crl`: the cluster CA's revocation list, once it has revoked something.
pub fn cluster_crl(dir: &Path) -> PathBuf {
    dir.join("ca.crl")
}

/// Where a client's or operator's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonFiles {
    /// `<name>.crt`.
    pub cert: PathBuf,
    /// `<name>.key`.
    pub key: PathBuf,
}

impl PersonFiles {
    /// The names in this directory.
    pub fn in_dir(dir: &Path, name: &str) -> Self {
        Self {
            cert: dir.join(format!("{name}.crt")),
            key: dir.join(format!("{name}.key")),
        }
    }
}

/// Where a node's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFiles {
    /// `<node_id>.crt`: its certificate, by the cluster CA.
    pub cert: PathBuf,
    /// `<node_id>.key`: its TLS key.
    pub key: PathBuf,
    /// `<node_id>.csr`: its request to the cluster CA.
    pub csr: PathBuf,
    /// `<node_id>.member`: its member record.
    pub member: PathBuf,
    /// `<node_id>-vote.key`: signs votes.
    pub vote_key: PathBuf,
    /// `<node_id>-node.key`: signs what the node says.
    pub node_key: PathBuf,
    /// `<node_id>-clients-ca.crt`: the trustee's own CA.
    pub clients_ca_cert: PathBuf,
    /// `<node_id>-clients-ca.key`: its key.
    pub clients_ca_key: PathBuf,
    /// `<node_id>-clients-ca.crl`: its revocation list, once it has revoked something.
    pub clients_ca_crl: PathBuf,
}

impl NodeFiles {
    /// The names in this directory.
    pub fn in_dir(dir: &Path, node_id: &NodeId) -> Self {
        let file = |end: &str| dir.join(format!("{node_id}{end}"));
        Self {
            cert: file(".crt"),
            key: file(".key"),
            csr: file(".csr"),
            member: quorate_crypto::member::member_path(dir, node_id),
            vote_key: file("-vote.key"),
            node_key: file("-node.key"),
            clients_ca_cert: file("-clients-ca.crt"),
            clients_ca_key: file("-clients-ca.key"),
            clients_ca_crl: file("-clients-ca.crl"),
        }
    }
}

#[cfg(test)]
mod tests;
