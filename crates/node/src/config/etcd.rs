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
        let user = match (name, password) {
            (None, None) => None,
            (name, password) => Some((
                Self::need("storage", "etcd_user", name)?,
                Self::need("storage", "etcd_password", password)?,
            )),
        };
        let certificate: Option<PathBuf> = self.text("storage", "etcd_cert_path")?;
        let key: Option<PathBuf> = self.text("storage", "etcd_key_path")?;
        let ca_path: Option<PathBuf> = self.text("storage", "etcd_ca_path")?;
        let own = match (certificate, key) {
            (None, None) => None,
            (certificate, key) => Some((
                Self::need("storage", "etcd_cert_path", certificate)?,
                Self::need("storage", "etcd_key_path", key)?,
            )),
        };
        let endpoints = Self::need("storage", "etcd_endpoints", endpoints)?;
        let is_secured = |at: &String| at.starts_with("https://");
        // What says how to encrypt must not be passed over in silence.
        if (ca_path.is_some() || own.is_some()) && !endpoints.iter().all(is_secured) {
            return Err(self.wrong_endpoints(
                "must all begin with https://, for etcd_ca_path or etcd_cert_path is set",
            ));
        }
        if endpoints.iter().any(is_secured) {
            Self::need("storage", "etcd_ca_path", ca_path.as_ref())?;
        }
        if let Some(other) = endpoints.iter().find(|at| !is_known(at)) {
            return Err(self.wrong_endpoints(format!(
                "has {other:?}: write host:port, http://host:port or https://host:port"
            )));
        }
        Ok(EtcdSection {
            endpoints,
            prefix: self.text("storage", "etcd_prefix")?,
            user,
            ca_path,
            own,
        })
    }

    fn wrong_endpoints(&self, reason: impl Into<String>) -> ConfigError {
        ConfigError::Value {
            place: self.place("storage", "etcd_endpoints"),
            key: "storage.etcd_endpoints".to_owned(),
            reason: reason.into(),
        }
    }
}

/// Whether an endpoint is written in one of the three ways.
fn is_known(endpoint: &str) -> bool {
    match endpoint.split_once("://") {
        Some((scheme, _)) => ["http", "https"].contains(&scheme),
        None => true,
    }
}
