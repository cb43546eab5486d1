//! Why a connection was refused, in words and as a label to count by.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use quorate_consensus::NodeId;
use rustls::{AlertDescription, CertificateError, InvalidMessage, PeerIncompatible};

use crate::identity::{Identity, IdentityError, Role};

/// Why a certificate was refused although it may well be a good one elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It names nobody.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// For a cluster of another name.
    #[error("{found} is of another cluster, not of {expected}")]
    OtherCluster {
        /// Whom it names.
        found: Identity,
        /// This cluster's name.
        expected: String,
    },
    /// A client or operator of another node.
    #[error("{found} is of another node: only its own node takes it, and this is {here}")]
    OtherNode {
        /// Whom it names.
        found: Identity,
        /// This node.
        here: NodeId,
    },
    /// Somebody certified it who may not.
    #[error("{found} is certified by {by}; a {} is certified by {wanted} only", found.role)]
    Issuer {
        /// Whom it names.
        found: Identity,
        /// Who certified it.
        by: &'static str,
        /// Who should have.
        wanted: &'static str,
    },
    /// This node has no CA for clients.
    #[error("{0} cannot be checked: this node has no CA for clients and operators")]
    NoClients(Identity),
    /// This node's own certificate is revoked.
    #[error(
        "the certificate of this node is revoked: until it has a new one it takes nobody and dials nobody"
    )]
    OwnRevoked,
    /// The server is no node, or not the node that was dialled.
    #[error("the server is {found}, and {expected} was dialled")]
    OtherServer {
        /// Whom it names.
        found: Identity,
        /// Who was wanted.
        expected: String,
    },
}

impl Refusal {
    /// As an error that the TLS library carries through the handshake.
    pub(crate) fn into_rustls(self) -> rustls::Error {
        let shared = std::sync::Arc::new(self);
        rustls::Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(shared)))
    }

    /// The same, back from what the TLS library carried.
    pub(crate) fn of(error: &rustls::Error) -> Option<&Self> {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
                other.0.downcast_ref()
            }
            _ => None,
        }
    }
}

pub(crate) const fn issuer_of(role: Role) -> &'static str {
    match role {
        Role::Node => "the cluster CA",
        Role::Client | Role::Operator => "its trustee's own CA",
    }
}

/// Why a listener refused a connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// What came is not TLS.
    #[error("what came is not TLS: use a client with TLS 1.3 and a certificate")]
    Plaintext,
    /// The client has no TLS 1.3.
    #[error("the client does not offer TLS 1.3")]
    OldTls,
    /// The client showed no certificate.
    #[error("the client showed no certificate")]
    NoCertificate,
    /// The certificate is not for here.
    #[error(transparent)]
    Refusal(Refusal),
    /// The certificate's chain, time, or signature.
    #[error("the client's certificate {}", words(.0))]
    Certificate(CertificateError),
    /// The client does not speak HTTP/2.
    #[error("the client does not offer HTTP/2 (ALPN h2)")]
    NoH2,
    /// The handshake took too long.
    #[error("the handshake took longer than {0:?}")]
    TimedOut(Duration),
    /// One identity with too many connections.
    #[error("{identity} has {limit} connections already")]
    TooMany {
        /// Whose.
        identity: Identity,
        /// How many it may have.
        limit: usize,
    },
    /// Clients and operators have all the connections that there are for them.
    #[error("clients and operators have {limit} connections already: close some of them")]
    TooManyPeople {
        /// How many they may have.
        limit: usize,
    },
    /// Clients and operators of one address have too many connections.
    #[error(
        "clients and operators at {addr} have {limit} connections already: share connections between calls"
    )]
    TooManyFrom {
        /// The address, or the IPv6 network.
        addr: IpAddr,
        /// How many it may have.
        limit: usize,
    },
    /// A handshake that lasted gave its place to another.
    #[error("too many handshakes are under way: the one that had lasted longest gave way")]
    Crowded,
    /// The client refused us.
    #[error("the client refused this node: {0:?}")]
    ByPeer(AlertDescription),
    /// Another error of the TLS protocol.
    #[error("the handshake failed: {0}")]
    Protocol(rustls::Error),
    /// The connection broke.
    #[error("the connection broke during the handshake: {0}")]
    Broken(io::Error),
    /// The node stops.
    #[error("the node is stopping")]
    Stopping,
}

impl Refused {
    /// A short, stable word, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::OldTls => "old_tls",
            Self::NoCertificate => "no_certificate",
            Self::Refusal(Refusal::Issuer { .. }) => "issuer",
            Self::Refusal(Refusal::OtherNode { .. }) => "other_node",
            Self::Refusal(Refusal::OtherCluster { .. }) => "other_cluster",
            Self::Refusal(Refusal::OwnRevoked) => "own_revoked",
            Self::Refusal(_) => "identity",
            Self::Certificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            ) => "expired",
            Self::Certificate(CertificateError::Revoked) => "revoked",
            Self::Certificate(_) => "certificate",
            Self::NoH2 => "no_h2",
            Self::TimedOut(_) => "timed_out",
            Self::TooMany { .. } | Self::TooManyPeople { .. } | Self::TooManyFrom { .. } => {
                "too_many"
            }
            Self::Crowded => "crowded",
            Self::ByPeer(_) => "by_peer",
            Self::Protocol(_) => "protocol",
            Self::Broken(_) => "broken",
            Self::Stopping => "stopping",
        }
    }

    /// Whether it may well be a port scan or a health check, and no one's mistake.
    pub(crate) fn is_noise(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::Stopping | Self::Crowded)
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        let inner = error.get_ref().and_then(|e| e.downcast_ref());
        match inner.cloned() {
            Some(tls) => tls_reason(tls),
            None => Self::Broken(error),
        }
    }
}

fn tls_reason(error: rustls::Error) -> Refused {
    use rustls::Error as E;
    if let Some(refusal) = Refusal::of(&error) {
        return Refused::Refusal(refusal.clone());
    }
    match error {
        E::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => Refused::Plaintext,
        E::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => Refused::OldTls,
        E::NoCertificatesPresented => Refused::NoCertificate,
        E::InvalidCertificate(reason) => Refused::Certificate(reason),
        E::NoApplicationProtocol => Refused::NoH2,
        E::AlertReceived(alert) => Refused::ByPeer(alert),
        other => Refused::Protocol(other),
    }
}

/// What is wrong with a certificate, as the end of a sentence about it.
pub(crate) fn words(error: &CertificateError) -> String {
    use CertificateError as E;
    match error {
        E::Expired | E::ExpiredContext { .. } => "has expired".into(),
        E::NotValidYet | E::NotValidYetContext { .. } => "is not valid yet".into(),
        E::Revoked => "was revoked".into(),
        E::UnknownIssuer | E::BadSignature => "is by a CA that is not trusted here".into(),
        E::ExpiredRevocationList | E::ExpiredRevocationListContext { .. } => {
            "cannot be checked: its CA's revocation list is out of date".into()
        }
        E::NotValidForName | E::NotValidForNameContext { .. } => {
            format!("is for another host: {error}")
        }
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            format!("is for another purpose: {error}")
        }
        other => format!("is refused: {other}"),
    }
}

/// The same for whatever the TLS library says.
pub(crate) fn words_of(error: &rustls::Error) -> String {
    match (Refusal::of(error), error) {
        (Some(refusal), _) => refusal.to_string(),
        (None, rustls::Error::InvalidCertificate(reason)) => {
            format!("the certificate {}", words(reason))
        }
        (None, other) => other.to_string(),
    }
}

/// The whole story of an error: its own text and that of its causes, each once.
pub(crate) fn story(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
