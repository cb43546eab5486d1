//! From the three sources to a configuration: settings are laid over each other, taken
//! out and checked.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use quorate_crypto::file;
use quorate_telemetry::{Format, LogSettings, otlp};

use super::source::{self, Raw, Settings};
use super::{
    ChainSection, Config, ConfigError, ConsensusSection, CoordinatorKind, KeysSection, MtlsSection,
    NetworkSection, NodeSection, PeerAddress, Place, Secret, StorageSection, TelemetrySection,
};

/// A file's name and text, if one is named, and the process's environment.
pub(super) type Surroundings = (Option<(String, String)>, BTreeMap<String, String>);

pub(super) fn surroundings(path: Option<&Path>) -> Result<Surroundings, ConfigError> {
    let file = match path {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| ConfigError::Unreadable {
                path: path.to_owned(),
                reason: e.to_string(),
            })?;
            Some((path.display().to_string(), text))
        }
    };
    // Names that are not UTF-8 are none of ours.
    let environment = std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .collect();
    Ok((file, environment))
}

pub(super) fn settings(
    file: Option<(&str, &str)>,
    environment: &BTreeMap<String, String>,
    flags: &[(String, String)],
) -> Result<Settings, ConfigError> {
    let mut settings = Settings::new();
    if let Some((path, text)) = file {
        source::read_file(path, text, &mut settings)?;
    }
    source::read_environment(environment, &mut settings)?;
    source::read_flags(flags, &mut settings)?;
    Ok(settings)
}

/// Takes settings out, checked.
pub(super) struct Reader(pub(super) Settings);

impl Reader {
    pub(super) fn take<T>(
        &self,
        section: &'static str,
        key: &'static str,
        read: impl FnOnce(&Raw) -> Result<T, String>,
    ) -> Result<Option<(T, Place)>, ConfigError> {
        match self.0.get(&(section, key)) {
            // An empty text is how a file or an environment says "not set".
            None => Ok(None),
            Some((Raw::Text(text), _)) if text.is_empty() => Ok(None),
            Some((raw, place)) => match read(raw) {
                Ok(value) => Ok(Some((value, place.clone()))),
                Err(reason) => Err(ConfigError::Value {
                    place: place.clone(),
                    key: format!("{section}.{key}"),
                    reason,
                }),
            },
        }
    }

    pub(super) fn text<T: FromStr<Err: fmt::Display>>(
        &self,
        section: &'static str,
        key: &'static str,
    ) -> Result<Option<T>, ConfigError> {
        let read = |raw: &Raw| match raw {
            Raw::Text(text) => text.parse().map_err(|e: T::Err| format!("is no good: {e}")),
            _ => Err("must be a text".to_owned()),
        };
        Ok(self.take(section, key, read)?.map(|(value, _)| value))
    }

    /// A secret of `[storage]`, or what is in the file that its sister names, without the
    /// line's end.
    pub(super) fn secret(
        &self,
        key: &'static str,
        path_key: &'static str,
    ) -> Result<Option<Secret>, ConfigError> {
        let secret = self.text("storage", key)?;
        let file = self.take("storage", path_key, |raw| match raw {
            Raw::Text(path) if secret.is_none() => {
                let bytes = file::read_secret(Path::new(path)).map_err(|e| e.to_string())?;
                let text = std::str::from_utf8(bytes.trim_ascii());
                let text = text.map_err(|_| format!("names {path}, which holds no text"))?;
                Ok(Secret(text.to_owned()))
            }
            Raw::Text(_) => Err(format!("is set beside storage.{key}: keep one of the two")),
            _ => Err("must be a text".to_owned()),
        })?;
        Ok(secret.or(file.map(|(secret, _)| secret)))
    }

    pub(super) fn number(
        &self,
        section: &'static str,
        key: &'static str,
    ) -> Result<Option<(u64, Place)>, ConfigError> {
        self.take(section, key, |raw| match raw {
            Raw::Number(number) => Ok(*number),
            _ => Err("must be a number".to_owned()),
        })
    }

    /// A limit: 1 to `u32::MAX`.
    pub(super) fn limit(&self, key: &'static str, default: u32) -> Result<u32, ConfigError> {
        let read = |raw: &Raw| match raw {
            Raw::Number(number) => u32::try_from(*number)
                .ok()
                .filter(|n| *n > 0)
                .ok_or_else(|| format!("must be 1 to {}, not {number}", u32::MAX)),
            _ => Err("must be a number".to_owned()),
        };
        Ok(self.take("network", key, read)?.map_or(default, |(n, _)| n))
    }

    pub(super) fn need<T>(
        section: &'static str,
        key: &'static str,
        value: Option<T>,
    ) -> Result<T, ConfigError> {
        value.ok_or_else(|| ConfigError::Missing {
            section,
            key,
            variable: source::long_name(section, key),
        })
    }

    pub(super) fn needed<T: FromStr<Err: fmt::Display>>(
        &self,
        section: &'static str,
        key: &'static str,
    ) -> Result<T, ConfigError> {
        Self::need(section, key, self.text(section, key)?)
    }

    pub(super) fn place(&self, section: &'static str, key: &'static str) -> Place {
        match self.0.get(&(section, key)) {
            Some((_, place)) => place.clone(),
            None => Place::Missing(format!("{section}.{key}")),
        }
    }

    pub(super) fn config(&self) -> Result<Config, ConfigError> {
        let votes_per_sec = self.limit("rate_limit_votes_per_sec", 1000)?;
        let data_dir: PathBuf = self
            .text("node", "data_dir")?
            .unwrap_or_else(|| "data".into());
        let chosen = self.take("storage", "coordinator", |raw| match raw {
            Raw::Text(text) => match &**text {
                "embedded" => Ok(Ok(false)),
                "etcd" => Ok(Ok(true)),
                "pbft" => Ok(Err(format!(
                    "storage.coordinator = {text:?} (\"embedded\" and \"etcd\" are)"
                ))),
                _ => Err(format!("must be \"embedded\" or \"etcd\", not {text:?}")),
            },
            _ => Err("must be a text".to_owned()),
        })?;
        let coordinator = match chosen {
            None | Some((Ok(false), _)) => CoordinatorKind::Embedded,
            Some((Ok(true), _)) => CoordinatorKind::Etcd(Box::new(self.etcd()?)),
            Some((Err(what), place)) => return Err(ConfigError::Later { place, what }),
        };
        self.take("mtls", "tls_version", |raw| match raw {
            Raw::Text(text) if text == "1.3" => Ok(()),
            _ => Err("must be \"1.3\": older versions of TLS are not spoken".to_owned()),
        })?;
        let config = Config {
            node: NodeSection {
                node_id: self.needed("node", "node_id")?,
                peer_id: self.text("node", "peer_id")?,
                listen_addr: self
                    .text("node", "listen_addr")?
                    .unwrap_or(SocketAddr::from(([0, 0, 0, 0], 9000))),
                advertise_addr: self.text("node", "advertise_addr")?,
                health_addr: self.health_addr()?,
                data_dir: data_dir.clone(),
            },
            keys: KeysSection {
                vote_key_path: self.text("keys", "vote_key_path")?,
                node_key_path: self.needed("keys", "node_key_path")?,
            },
            mtls: MtlsSection {
                ca_cert_path: self.needed("mtls", "ca_cert_path")?,
                clients_ca_path: self.needed("mtls", "clients_ca_path")?,
                node_cert_path: self.needed("mtls", "node_cert_path")?,
                node_key_path: self.needed("mtls", "node_key_path")?,
                crl_path: self.text("mtls", "crl_path")?,
            },
            network: NetworkSection {
                bootstrap_peers: self.peers()?,
                rate_limit_votes_per_sec: votes_per_sec,
                rate_limit_burst: self.limit("rate_limit_burst", votes_per_sec)?,
                rate_limit_frames_per_sec: self.limit("rate_limit_frames_per_sec", 10_000)?,
                max_unstarted_per_client: self.limit("max_unstarted_per_client", 2_500)?,
            },
            storage: StorageSection {
                coordinator,
                embedded_dir: self.text("storage", "embedded_dir")?.unwrap_or(data_dir),
                postgres_url: self.secret("postgres_url", "postgres_url_path")?,
                postgres_ca_path: self.text("storage", "postgres_ca_path")?,
            },
            consensus: ConsensusSection {
                cluster_id: self.needed("consensus", "cluster_id")?,
                rules_path: self.needed("consensus", "rules_path")?,
                total_nodes: self.number("consensus", "total_nodes")?,
                threshold: self.number("consensus", "threshold")?,
                vote_timeout_secs: self.number("consensus", "vote_timeout_secs")?,
                node_id_place: self.place("node", "node_id"),
                peer_id_place: self.place("node", "peer_id"),
            },
            chain: self.chain()?,
            logging: self.logging()?,
            telemetry: self.telemetry()?,
        };
        Ok(config)
    }

    /// An address, or "none".
    fn health_addr(&self) -> Result<Option<SocketAddr>, ConfigError> {
        let read = |raw: &Raw| match raw {
            Raw::Text(text) if text == "none" => Ok(None),
            Raw::Text(text) => text
                .parse()
                .map(Some)
                .map_err(|_| format!("must be an address with a port, or \"none\", not {text:?}")),
            _ => Err("must be a text".to_owned()),
        };
        let given = self.take("node", "health_addr", read)?;
        let usual = Some(SocketAddr::from(([127, 0, 0, 1], 8080)));
        Ok(given.map_or(usual, |(addr, _)| addr))
    }

    fn peers(&self) -> Result<Vec<PeerAddress>, ConfigError> {
        let read = |raw: &Raw| match raw {
            Raw::List(items) => items.iter().map(|item| item.parse()).collect(),
            _ => Err("must be a list".to_owned()),
        };
        let peers = self.take("network", "bootstrap_peers", read)?;
        Ok(peers.map(|(peers, _)| peers).unwrap_or_default())
    }

    fn chain(&self) -> Result<ChainSection, ConfigError> {
        let key_path: Option<PathBuf> = self.text("chain", "key_path")?;
        let submit = self.take("chain", "submit", |raw| match raw {
            Raw::Flag(flag) => Ok(*flag),
            _ => Err("must be true or false".to_owned()),
        })?;
        let submit = submit.map_or(key_path.is_some(), |(submit, _)| submit);
        if submit {
            Self::need("chain", "key_path", key_path.as_ref())?;
        }
        Ok(ChainSection { submit, key_path })
    }

    fn telemetry(&self) -> Result<TelemetrySection, ConfigError> {
        let default = TelemetrySection::default();
        let endpoint = self.take("telemetry", "otlp_endpoint", |raw| match raw {
            Raw::Text(text) => otlp::endpoint(text).map_err(|e| e.to_string()),
            _ => Err("must be a text".to_owned()),
        })?;
        let ratio = self.take("telemetry", "sample_ratio", |raw| match raw {
            Raw::Ratio(ratio) => Ok(*ratio),
            _ => Err("must be a number from 0 to 1".to_owned()),
        })?;
        let values = self.take("telemetry", "trace_values", |raw| match raw {
            Raw::Flag(flag) => Ok(*flag),
            _ => Err("must be true or false".to_owned()),
        })?;
        Ok(TelemetrySection {
            otlp_endpoint: endpoint.map(|(endpoint, _)| endpoint),
            sample_ratio: ratio.map_or(default.sample_ratio, |(ratio, _)| ratio),
            trace_values: values.map_or(default.trace_values, |(values, _)| values),
            alert_webhook: self.text("telemetry", "alert_webhook")?,
            pace: default.pace,
        })
    }

    fn logging(&self) -> Result<LogSettings, ConfigError> {
        let default = LogSettings::default();
        let level = self.take("logging", "level", |raw| match raw {
            Raw::Text(level) => {
                let settings = LogSettings {
                    level: level.clone(),
                    ..LogSettings::default()
                };
                settings.check().map_err(|e| e.to_string())?;
                Ok(settings.level)
            }
            _ => Err("must be a text".to_owned()),
        })?;
        Ok(LogSettings {
            level: level.map_or(default.level, |(level, _)| level),
            format: self
                .text::<Format>("logging", "format")?
                .unwrap_or_default(),
        })
    }
}
