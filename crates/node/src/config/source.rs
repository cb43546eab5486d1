//! Where settings come from: a TOML file, over it the environment, over it flags.
//! Each setting remembers its place, so that an error can name it.

use std::collections::BTreeMap;
use std::fmt;

use toml::de::{DeTable, DeValue};

use super::ConfigError;

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Flag,
    /// A number from 0 to 1.
    Ratio,
    List,
}

/// A key of the configuration: section, key, kind, and a short environment name that
/// people know, beside `QUORATE_<SECTION>_<KEY>`.
pub(super) type Key = (&'static str, &'static str, Kind, Option<&'static str>);

/// Every key there is.
pub(super) const KEYS: &[Key] = &[
    ("node", "node_id", Kind::Text, Some("NODE_ID")),
    ("node", "peer_id", Kind::Text, Some("PEER_ID")),
    ("node", "listen_addr", Kind::Text, Some("LISTEN_ADDR")),
    ("node", "advertise_addr", Kind::Text, None),
    ("node", "health_addr", Kind::Text, None),
    ("node", "data_dir", Kind::Text, None),
    ("keys", "vote_key_path", Kind::Text, None),
    ("keys", "node_key_path", Kind::Text, None),
    ("mtls", "ca_cert_path", Kind::Text, None),
    ("mtls", "clients_ca_path", Kind::Text, None),
    ("mtls", "node_cert_path", Kind::Text, None),
    ("mtls", "node_key_path", Kind::Text, None),
    ("mtls", "crl_path", Kind::Text, None),
    ("mtls", "tls_version", Kind::Text, None),
    (
        "network",
        "bootstrap_peers",
        Kind::List,
        Some("BOOTSTRAP_PEERS"),
    ),
    ("network", "rate_limit_votes_per_sec", Kind::Number, None),
    ("network", "rate_limit_burst", Kind::Number, None),
    ("network", "rate_limit_frames_per_sec", Kind::Number, None),
    ("network", "max_unstarted_per_client", Kind::Number, None),
    ("storage", "coordinator", Kind::Text, None),
    (
        "storage",
        "etcd_endpoints",
        Kind::List,
        Some("ETCD_ENDPOINTS"),
    ),
    ("storage", "etcd_prefix", Kind::Text, None),
    ("storage", "etcd_user", Kind::Text, None),
    ("storage", "etcd_password", Kind::Text, None),
    ("storage", "etcd_password_path", Kind::Text, None),
    ("storage", "etcd_ca_path", Kind::Text, None),
    ("storage", "etcd_cert_path", Kind::Text, None),
    ("storage", "etcd_key_path", Kind::Text, None),
    ("storage", "embedded_dir", Kind::Text, None),
    ("storage", "postgres_url", Kind::Text, Some("POSTGRES_URL")),
    ("storage", "postgres_url_path", Kind::Text, None),
    ("storage", "postgres_ca_path", Kind::Text, None),
    ("consensus", "cluster_id", Kind::Text, None),
    ("consensus", "rules_path", Kind::Text, None),
    (
        "consensus",
        "total_nodes",
        Kind::Number,
        Some("TOTAL_NODES"),
    ),
    ("consensus", "threshold", Kind::Number, Some("THRESHOLD")),
    (
        "consensus",
        "vote_timeout_secs",
        Kind::Number,
        Some("VOTE_TIMEOUT_SECS"),
    ),
    ("chain", "submit", Kind::Flag, None),
    ("chain", "key_path", Kind::Text, None),
    ("logging", "level", Kind::Text, Some("RUST_LOG")),
    ("logging", "format", Kind::Text, None),
    ("telemetry", "otlp_endpoint", Kind::Text, None),
    ("telemetry", "sample_ratio", Kind::Ratio, None),
    ("telemetry", "trace_values", Kind::Flag, None),
    ("telemetry", "alert_webhook", Kind::Text, None),
];

/// A key's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Its section.
    pub section: &'static str,
    /// The key.
    pub key: &'static str,
    /// Its name in the environment.
    pub variable: String,
    /// A short name there, if it has one.
    pub short_variable: Option<&'static str>,
}

/// The names of every key there is, in the order of the documentation.
pub fn keys() -> impl Iterator<Item = Name> {
    KEYS.iter().map(|(section, key, _, short)| Name {
        section,
        key,
        variable: long_name(section, key),
        short_variable: *short,
    })
}

/// The keys that hold a secret. Each has a sister `<key>_path`, which names a file with
/// it in.
pub(super) const SECRETS: &[(&str, &str)] =
    &[("storage", "etcd_password"), ("storage", "postgres_url")];

/// Whether a key holds a secret.
pub(super) fn is_secret(section: &str, key: &str) -> bool {
    SECRETS.contains(&(section, key))
}

/// Where a setting stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file, at this line and column, both from 1.
    File {
        /// The file's path.
        path: String,
        /// The line.
        line: usize,
        /// The column, in characters.
        column: usize,
    },
    /// In an environment variable of this name.
    Environment(String),
    /// On the command line.
    Flag(String),
    /// Nowhere: it is missing.
    Missing(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => write!(f, "{path}:{line}:{column}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag for {name}"),
            Self::Missing(name) => write!(f, "{name}"),
        }
    }
}

/// A setting as it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raw {
    Text(String),
    Number(u64),
    Flag(bool),
    Ratio(f64),
    List(Vec<String>),
}

/// All settings, each with its place.
pub(super) type Settings = BTreeMap<(&'static str, &'static str), (Raw, Place)>;

fn find(section: &str, key: &str) -> Option<&'static Key> {
    KEYS.iter().find(|k| k.0 == section && k.1 == key)
}

/// The name most like `name`, if one is like it at all.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    known
        .map(|k| (strsim::damerau_levenshtein(name, k), k))
        .filter(|(distance, k)| *distance <= 1 + k.len() / 4)
        .min()
        .map(|(_, k)| k.to_owned())
}

fn unknown(place: Place, section: Option<&str>, name: &str) -> ConfigError {
    let suggestion = match section {
        None => nearest(name, KEYS.iter().map(|k| k.0)).map(|s| format!("[{s}]")),
        Some(section) => {
            let here = KEYS.iter().filter(|k| k.0 == section).map(|k| k.1);
            let elsewhere = KEYS.iter().find(|k| k.1 == name);
            nearest(name, here).or_else(|| elsewhere.map(|k| format!("{} in [{}]", k.1, k.0)))
        }
    };
    ConfigError::Unknown {
        place,
        name: match section {
            None => format!("section [{name}]"),
            Some(section) => format!("key {name} in [{section}]"),
        },
        suggestion: suggestion
            .map(|s| format!(": did you mean {s}?"))
            .unwrap_or_default(),
    }
}

fn place_in(path: &str, text: &str, offset: usize) -> Place {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    Place::File {
        path: path.to_owned(),
        line: 1 + before.matches('\n').count(),
        column: 1 + before[line_start..].chars().count(),
    }
}

/// Reads a TOML file's text into `settings`.
pub(super) fn read_file(
    path: &str,
    text: &str,
    settings: &mut Settings,
) -> Result<(), ConfigError> {
    let at = |offset| place_in(path, text, offset);
    let root = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        place: at(error.span().map_or(0, |s| s.start)),
        reason: error.message().to_owned(),
    })?;
    for (section, table) in root.get_ref() {
        let name = section.get_ref().as_ref();
        let place = at(section.span().start);
        let Some(table) = table.get_ref().as_table() else {
            return Err(match KEYS.iter().find(|k| k.1 == name) {
                Some(key) => ConfigError::Unknown {
                    place,
                    name: format!("key {name} outside of a section"),
                    suggestion: format!(": put it under [{}]", key.0),
                },
                None => unknown(place, None, name),
            });
        };
        if !KEYS.iter().any(|k| k.0 == name) {
            return Err(unknown(place, None, name));
        }
        for (key, value) in table {
            let place = at(key.span().start);
            let key = key.get_ref().as_ref();
            let known = find(name, key).ok_or_else(|| unknown(place, Some(name), key))?;
            let place = at(value.span().start);
            let raw = read_value(known, value.get_ref())
                .ok_or_else(|| wrong_kind(known, place.clone(), value.get_ref().type_str()))?;
            settings.insert((known.0, known.1), (raw, place));
        }
    }
    Ok(())
}

fn read_value(key: &Key, value: &DeValue<'_>) -> Option<Raw> {
    match key.2 {
        Kind::Text => value.as_str().map(|s| Raw::Text(s.to_owned())),
        Kind::Number => {
            let number = value.as_integer()?;
            u64::from_str_radix(number.as_str(), number.radix())
                .ok()
                .map(Raw::Number)
        }
        Kind::Flag => value.as_bool().map(Raw::Flag),
        Kind::Ratio => match (value.as_float(), value.as_integer()) {
            (Some(float), _) => ratio(float.as_str()),
            (None, Some(whole)) => ratio(whole.as_str()),
            (None, None) => None,
        },
        Kind::List => value
            .as_array()?
            .iter()
            .map(|item| item.get_ref().as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .map(Raw::List),
    }
}

fn ratio(text: &str) -> Option<Raw> {
    let ratio: f64 = text.trim().parse().ok()?;
    (0.0..=1.0).contains(&ratio).then_some(Raw::Ratio(ratio))
}

fn wrong_kind(key: &Key, place: Place, found: &str) -> ConfigError {
    let wanted = match key.2 {
        Kind::Text => "a text in quotes",
        Kind::Number => "a whole number, not negative",
        Kind::Flag => "true or false",
        Kind::Ratio => "a number from 0 to 1",
        Kind::List => "a list of texts",
    };
    ConfigError::Value {
        place,
        key: format!("{}.{}", key.0, key.1),
        reason: format!("must be {wanted}, not this {found}"),
    }
}

/// Reads a setting that comes as text: from the environment or a flag. A list is
/// separated by commas.
fn read_text(key: &Key, text: &str, place: Place) -> Result<(Raw, Place), ConfigError> {
    let raw = match key.2 {
        Kind::Text => Some(Raw::Text(text.to_owned())),
        Kind::Number => text.trim().parse().ok().map(Raw::Number),
        Kind::Flag => text.trim().parse().ok().map(Raw::Flag),
        Kind::Ratio => ratio(text),
        Kind::List => Some(Raw::List(
            text.split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(str::to_owned)
                .collect(),
        )),
    };
    match raw {
        Some(raw) => Ok((raw, place)),
        None => Err(wrong_kind(key, place, &format!("{text:?}"))),
    }
}

/// Lays the environment over `settings`. A variable named after one of our sections
/// that names no key is an error, as it would be in the file; the short, well-known
/// names give way to the long ones.
pub(super) fn read_environment(
    variables: &BTreeMap<String, String>,
    settings: &mut Settings,
) -> Result<(), ConfigError> {
    for key in KEYS {
        let long = long_name(key.0, key.1);
        for name in [key.3, Some(&*long)].into_iter().flatten() {
            if let Some(text) = variables.get(name) {
                let place = Place::Environment(name.to_owned());
                settings.insert((key.0, key.1), read_text(key, text, place)?);
            }
        }
    }
    for name in variables.keys() {
        let place = || Place::Environment(name.clone());
        let Some(rest) = name.strip_prefix("QUORATE_") else {
            continue;
        };
        let lower = rest.to_ascii_lowercase();
        let section = KEYS
            .iter()
            .map(|k| k.0)
            .find(|s| lower.starts_with(&format!("{s}_")));
        // Other QUORATE_ names are the command line's (QUORATE_ENDPOINT and the like).
        if let Some(section) = section {
            let key = &lower[section.len() + 1..];
            if find(section, key).is_none() {
                return Err(unknown(place(), Some(section), key));
            }
        }
    }
    Ok(())
}

/// The environment name that every key has.
pub(super) fn long_name(section: &str, key: &str) -> String {
    format!("QUORATE_{section}_{key}").to_ascii_uppercase()
}

/// Lays flags over `settings`: pairs of `section.key` and text.
pub(super) fn read_flags(
    flags: &[(String, String)],
    settings: &mut Settings,
) -> Result<(), ConfigError> {
    for (name, text) in flags {
        let place = Place::Flag(name.clone());
        let (section, key) = name.split_once('.').unwrap_or(("", name));
        let known = find(section, key).ok_or_else(|| unknown(place.clone(), Some(section), key))?;
        if is_secret(section, key) {
            return Err(ConfigError::Exposed {
                key: name.clone(),
                variable: long_name(section, key),
            });
        }
        settings.insert((known.0, known.1), read_text(known, text, place)?);
    }
    Ok(())
}
