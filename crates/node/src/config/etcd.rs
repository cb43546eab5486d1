//! The part of `[storage]` that is about etcd.

use std::path::PathBuf;

use super::reader::Reader;
use super::source::Raw;
use super::{ConfigError, Secret};

/// Where etcd is, and who we are to it.
#[derive(Clone, Debug)]
pub struct EtcdSection {
    /// Its members: `host:port`, `http://host:port` or `https://host:port`.
    pub endpoints: Vec<String>,
    /// What all keys begin with; `/quorate/<cluster name>/` if it is not given.
    pub prefix: Option<String>,
    /// Name and password, if etcd asks for them.
    pub user: Option<(String, Secret)>,
    /// The CA of the members' certificates, for `https`.
    pub ca_path: Option<PathBuf>,
    /// Our certificate for etcd and its key, if it asks for one.
    pub own: Option<(PathBuf, PathBuf)>,
}

impl Reader {
    /// The keys about etcd, which are needed when it keeps the board.
    pub(super) fn etcd(&self) -> Result<EtcdSection, ConfigError> {
        let read = |raw: &Raw| match raw {
            Raw::List(items) if !items.is_empty() => {
                let trimmed = items.iter().map(|item| item.trim().to_owned());
                Ok(trimmed.collect::<Vec<_>>())
            }
            _ => Err("must be a list of at least one host:port".to_owned()),
        };
        let endpoints = self.take("storage", "etcd_endpoints", read)?;
        let endpoints = endpoints.map(|(endpoints, _)| endpoints);
        let name: Option<String> = self.text("storage", "etcd_user")?;
        let password: Option<Secret> = self.secret("etcd_password", "etcd_password_path")?;
        let user = match name {
            Some(name) => {
                let password = Self::need("storage", "etcd_password", password)?;
                Some((name, password))
            }
            None => None,
        };
        let certificate: Option<PathBuf> = self.text("storage", "etcd_cert_path")?;
        let own = match certificate {
            Some(certificate) => Some((certificate, self.needed("storage", "etcd_key_path")?)),
            None => None,
        };
        Ok(EtcdSection {
            endpoints: Self::need("storage", "etcd_endpoints", endpoints)?,
            prefix: self.text("storage", "etcd_prefix")?,
            user,
            ca_path: self.text("storage", "etcd_ca_path")?,
            own,
        })
    }
}
