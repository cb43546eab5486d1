//! What a cluster for tests is like, and who may do what there.

use crate::servers::certificates::{Certificates, Issued};

/// What [`USER`] may read and write.
pub(super) const PREFIX: &str = "/quorate/";

/// What a cluster is like; the default is one member in plain text without users.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// How many members, 1 to 9.
    pub members: usize,
    /// Clients speak TLS and show a certificate: see [`Etcd::tls`].
    pub tls: bool,
    /// Clients have a name and a password: see [`Etcd::user`].
    pub auth: bool,
    /// Seconds after which an unused login ends (etcd's default: 300). From 3.5 on.
    pub token_ttl_secs: Option<u32>,
    /// Bytes of the store after which etcd takes no more writes (default: 2 GiB).
    pub quota_bytes: Option<u64>,
    /// Further arguments for each member.
    pub arguments: Vec<String>,
}

impl Default for EtcdOptions {
    fn default() -> Self {
        Self {
            members: 1,
            tls: false,
            auth: false,
            token_ttl_secs: None,
            quota_bytes: None,
            arguments: Vec::new(),
        }
    }
}

/// A user of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EtcdUser {
    /// The name.
    pub name: &'static str,
    /// The password.
    pub password: &'static str,
}

pub(super) const ROOT: EtcdUser = EtcdUser {
    name: "root",
    password: "root's password",
};

pub(super) const USER: EtcdUser = EtcdUser {
    name: "quorate",
    password: "quorate's password",
};

/// The files with which a client speaks TLS to the cluster.
pub struct EtcdTls {
    /// The CA of members and clients, to issue more.
    pub certificates: Certificates,
    /// A client that the members accept.
    pub client: Issued,
}
