//! Who a certificate names: its single URI name, in one of three forms.
//!
//! | form | who |
//! |---|---|
//! | `spiffe://<cluster>/node/<node_id>` | a node |
//! | `spiffe://<cluster>/client/<node_id>/<name>` | a client of that node |
//! | `spiffe://<cluster>/operator/<node_id>/<name>` | an operator of that node |

use std::fmt;

use quorate_consensus::NodeId;
use quorate_consensus::ids::check_cluster_name;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

/// Characters that are shown of a name that is none of ours.
const SHOWN: usize = 200;

/// What somebody may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A trustee's node; certified by the cluster CA.
    Node,
    /// Hands in votes and asks; certified by its trustee's own CA.
    Client,
    /// Runs a node; certified by its trustee's own CA.
    Operator,
}

impl Role {
    /// The word in the identity: "node", "client", "operator".
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Client => "client",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who a certificate names. `Display` gives the URI.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The cluster's name. Two clusters may bear one name: this is no cluster id.
    pub cluster: String,
    /// What it may be.
    pub role: Role,
    /// The node itself, or the node that it is a client or operator of.
    pub node_id: NodeId,
    /// The client's or operator's name; `None` for a node.
    pub name: Option<String>,
}

/// Why a certificate names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not an X.509 certificate, or one whose names cannot be read.
    #[error("the certificate cannot be parsed")]
    Unreadable,
    /// No URI name at all.
    #[error("the certificate names nobody: it has no URI name")]
    NoUri,
    /// More than one URI name: which one counts would be a guess.
    #[error("the certificate has {0} URI names, and must have exactly one")]
    SeveralUris(usize),
    /// A URI name that is none of ours.
    #[error(
        "{0:?} is no identity: it must be spiffe://CLUSTER/node/NODE_ID, /client/NODE_ID/NAME or /operator/NODE_ID/NAME"
    )]
    Foreign(String),
    /// A client's or operator's name with a wrong length or character.
    #[error("the name {0:?} must have 1 to 63 characters of A-Z a-z 0-9 . _ -")]
    Name(String),
}

impl Identity {
    /// A node.
    pub fn node(cluster: impl Into<String>, node_id: NodeId) -> Self {
        Self {
            cluster: cluster.into(),
            role: Role::Node,
            node_id,
            name: None,
        }
    }

    /// A client or operator of a node.
    ///
    /// # Errors
    /// [`IdentityError::Name`].
    pub fn person(
        cluster: impl Into<String>,
        role: PersonRole,
        node_id: NodeId,
        name: &str,
    ) -> Result<Self, IdentityError> {
        check_name(name)?;
        Ok(Self {
            cluster: cluster.into(),
            role: role.into(),
            node_id,
            name: Some(name.to_owned()),
        })
    }

    /// Reads an identity's URI.
    ///
    /// # Errors
    /// [`IdentityError::Foreign`].
    pub fn parse(uri: &str) -> Result<Self, IdentityError> {
        Self::from_parts(uri).ok_or_else(|| IdentityError::Foreign(shortened(uri)))
    }

    fn from_parts(uri: &str) -> Option<Self> {
        let mut parts = uri.strip_prefix("spiffe://")?.split('/');
        let cluster = parts.next()?;
        check_cluster_name(cluster).ok()?;
        let role = parts.next()?;
        let node_id = NodeId::new(parts.next()?).ok()?;
        let name = parts.next();
        if parts.next().is_some() {
            return None;
        }
        match (role, name) {
            ("node", None) => Some(Self::node(cluster, node_id)),
            ("client", Some(name)) => Self::person(cluster, PersonRole::Client, node_id, name).ok(),
            ("operator", Some(name)) => {
                Self::person(cluster, PersonRole::Operator, node_id, name).ok()
            }
            _ => None,
        }
    }

    /// Reads the identity of a certificate (DER). It proves nothing by itself: the
    /// certificate's chain must be verified.
    ///
    /// # Errors
    /// [`IdentityError`] unless there is exactly one URI name, of one of our forms.
    pub fn of_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        Self::of_parsed(&parse(der)?)
    }

    pub(crate) fn of_parsed(certificate: &X509Certificate<'_>) -> Result<Self, IdentityError> {
        match uris(certificate)?.as_slice() {
            [] => Err(IdentityError::NoUri),
            [uri] => Self::parse(uri),
            several => Err(IdentityError::SeveralUris(several.len())),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "spiffe://{}/{}/{}",
            self.cluster, self.role, self.node_id
        )?;
        match &self.name {
            Some(name) => write!(f, "/{name}"),
            None => Ok(()),
        }
    }
}

/// The roles that a trustee's own CA certifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PersonRole {
    /// See [`Role::Client`].
    Client,
    /// See [`Role::Operator`].
    Operator,
}

impl From<PersonRole> for Role {
    fn from(role: PersonRole) -> Self {
        match role {
            PersonRole::Client => Self::Client,
            PersonRole::Operator => Self::Operator,
        }
    }
}

impl std::str::FromStr for PersonRole {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "client" => Ok(Self::Client),
            "operator" => Ok(Self::Operator),
            _ => Err(format!("{text:?} must be client or operator")),
        }
    }
}

/// A certificate's serial number, big-endian without leading zeros; its issuer gives
/// it once. `Display` gives lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(Box<[u8]>);

impl Serial {
    /// From big-endian bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let zeros = bytes.iter().take_while(|b| **b == 0).count();
        Self(bytes[zeros..].into())
    }

    /// From hex, with or without colons, as `openssl x509 -serial` prints it.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits: Vec<u8> = text
            .chars()
            .filter(|c| *c != ':')
            .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
            .collect::<Option<_>>()?;
        if digits.is_empty() {
            return None;
        }
        // An odd first digit stands alone.
        let (first, pairs) = digits.split_at(digits.len() % 2);
        let pairs = pairs.chunks(2).map(|pair| pair[0] << 4 | pair[1]);
        Some(Self::new(
            &first.iter().copied().chain(pairs).collect::<Vec<_>>(),
        ))
    }

    /// Big-endian bytes without leading zeros.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Enough of a text to recognise it: what a stranger wrote goes into the log.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

fn check_name(name: &str) -> Result<(), IdentityError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    // A name becomes a file name too, where "." and ".." are directories.
    let dots = name.chars().all(|c| c == '.');
    if !dots && name.len() <= 63 && name.chars().all(allowed) {
        return Ok(());
    }
    Err(IdentityError::Name(shortened(name)))
}

pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, IdentityError> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(IdentityError::Unreadable),
    }
}

pub(crate) fn names<'a>(
    certificate: &'a X509Certificate<'_>,
) -> Result<&'a [GeneralName<'a>], IdentityError> {
    let extension = certificate
        .subject_alternative_name()
        .map_err(|_| IdentityError::Unreadable)?;
    Ok(extension.map_or(&[], |e| &e.value.general_names))
}

pub(crate) fn uris<'a>(
    certificate: &'a X509Certificate<'_>,
) -> Result<Vec<&'a str>, IdentityError> {
    let uri = |name: &'a GeneralName<'a>| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    };
    Ok(names(certificate)?.iter().filter_map(uri).collect())
}

#[cfg(test)]
mod tests;
