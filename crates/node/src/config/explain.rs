//! What is in force, and where it comes from: `quorate config check`.

use std::path::{Path, PathBuf};

use super::reader::{Reader, settings, surroundings};
use super::source::{KEYS, Key, Raw, Settings, is_secret, long_name};
use super::{Config, ConfigError, CoordinatorKind, Place};
use crate::parts::default_address;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was written there.
    Written(Place),
    /// Nobody wrote it, and this is what holds then.
    Default,
    /// Nobody wrote it, and nothing holds.
    Unset,
}

/// One key of the configuration as it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its section.
    pub section: &'static str,
    /// The key.
    pub key: &'static str,
    /// What is in force, as text; a secret is masked.
    pub value: Option<String>,
    /// Where that comes from.
    pub origin: Origin,
    /// It holds a secret.
    pub secret: bool,
    /// Its name in the environment.
    pub variable: String,
    /// A short name there, if it has one.
    pub short_variable: Option<&'static str>,
}

/// A configuration, explained.
#[derive(Clone, Debug)]
pub struct Explained {
    /// What the node would run with.
    pub config: Config,
    /// Every key there is, in the order of the documentation.
    pub settings: Vec<Setting>,
}

impl Explained {
    /// Reads what [`Config::load`] reads, and explains it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load(path: Option<&Path>, flags: &[(String, String)]) -> Result<Self, ConfigError> {
        let (file, environment) = surroundings(path)?;
        let file = file.as_ref().map(|(p, t)| (p.as_str(), t.as_str()));
        let written = settings(file, &environment, flags)?;
        let config = Reader(written.clone()).config()?;
        let settings = KEYS.iter().map(|key| explain(key, &written, &config));
        Ok(Self {
            settings: settings.collect(),
            config,
        })
    }

    /// The files that the configuration names, each with its key; those that the node
    /// makes itself are not among them.
    pub fn files(&self) -> Vec<(String, PathBuf)> {
        let written = self.settings.iter().filter(|setting| {
            setting.key.ends_with("_path") && matches!(setting.origin, Origin::Written(_))
        });
        let file = |setting: &Setting| {
            let path = setting.value.as_ref()?;
            Some((format!("{}.{}", setting.section, setting.key), path.into()))
        };
        written.filter_map(file).collect()
    }
}

fn explain(key: &Key, written: &Settings, config: &Config) -> Setting {
    let (section, name, _, short) = *key;
    let found = written.get(&(section, name));
    // An empty text is how a file or an environment says "not set".
    let found = found.filter(|(raw, _)| !matches!(raw, Raw::Text(text) if text.is_empty()));
    let secret = is_secret(section, name);
    let (value, origin) = match found {
        Some((raw, place)) => (Some(text_of(raw)), Origin::Written(place.clone())),
        None => match default_of(section, name, config) {
            Some(value) => (Some(value), Origin::Default),
            None => (None, Origin::Unset),
        },
    };
    Setting {
        section,
        key: name,
        value: value.map(|value| match secret {
            true => masked(&value),
            // An address of the web may have a password in it, too.
            false if value.contains("://") => without_password(&value),
            false => value,
        }),
        origin,
        secret,
        variable: long_name(section, name),
        short_variable: short,
    }
}

fn text_of(raw: &Raw) -> String {
    match raw {
        Raw::Text(text) => text.clone(),
        Raw::Number(number) => number.to_string(),
        Raw::Flag(flag) => flag.to_string(),
        Raw::Ratio(ratio) => ratio.to_string(),
        Raw::List(items) => items.join(", "),
    }
}

/// A secret as it may be shown: of a URL all but the password, of anything else nothing.
fn masked(secret: &str) -> String {
    match secret.contains("://") {
        true => without_password(secret),
        false => "***".to_owned(),
    }
}

fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    // What stands behind a question mark may be `password=`.
    let path = path.split(['?', '#']).next().unwrap_or_default();
    match authority.rsplit_once('@') {
        None => format!("{scheme}://{authority}{path}"),
        Some((user, host)) => {
            let name = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{name}:***@{host}{path}")
        }
    }
}

/// What holds where nobody wrote anything.
fn default_of(section: &str, key: &str, config: &Config) -> Option<String> {
    let etcd = match &config.storage.coordinator {
        CoordinatorKind::Etcd(etcd) => Some(etcd),
        CoordinatorKind::Embedded => None,
    };
    let network = &config.network;
    Some(match (section, key) {
        ("node", "listen_addr") => config.node.listen_addr.to_string(),
        ("node", "advertise_addr") => default_address(config.node.listen_addr)?.to_string(),
        ("node", "health_addr") => config.node.health_addr?.to_string(),
        ("node", "data_dir") => config.node.data_dir.display().to_string(),
        ("mtls", "tls_version") => "1.3".to_owned(),
        ("network", "rate_limit_votes_per_sec") => network.rate_limit_votes_per_sec.to_string(),
        ("network", "rate_limit_burst") => network.rate_limit_burst.to_string(),
        ("network", "rate_limit_frames_per_sec") => network.rate_limit_frames_per_sec.to_string(),
        ("network", "max_unstarted_per_client") => network.max_unstarted_per_client.to_string(),
        ("storage", "coordinator") => match etcd {
            Some(_) => "etcd".to_owned(),
            None => "embedded".to_owned(),
        },
        ("storage", "etcd_prefix") => {
            etcd?;
            "/quorate/<cluster name>/".to_owned()
        }
        ("storage", "embedded_dir") => config.storage.embedded_dir.display().to_string(),
        ("chain", "submit") => config.chain.submit.to_string(),
        ("logging", "level") => config.logging.level.clone(),
        ("logging", "format") => "human".to_owned(),
        ("telemetry", "sample_ratio") => config.telemetry.sample_ratio.to_string(),
        ("telemetry", "trace_values") => config.telemetry.trace_values.to_string(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What the README's table says about each key.
    fn told() -> BTreeMap<String, String> {
        let readme = include_str!("../../../../README.md");
        let rows = readme.lines().filter(|line| line.starts_with("| `"));
        let cells = rows.filter_map(|row| {
            let mut cells = row.split(" | ");
            Some((cells.next()?.to_owned(), cells.next()?.trim().to_owned()))
        });
        cells
            .flat_map(|(keys, default)| {
                let keys = keys.split('`').skip(1).step_by(2).map(str::to_owned);
                keys.map(move |key| (key, default.clone()))
                    .collect::<Vec<_>>()
            })
            .filter(|(key, _)| key.contains('.'))
            .collect()
    }

    #[test]
    fn the_readme_lists_every_key_and_its_default() {
        let told = told();
        let written = settings(
            Some(("n", super::super::DEFAULT_TOML)),
            &BTreeMap::new(),
            &[],
        );
        let written = written.unwrap();
        let config = Reader(written.clone()).config().unwrap();
        for key in KEYS {
            let name = format!("{}.{}", key.0, key.1);
            let default = told
                .get(&name)
                .unwrap_or_else(|| panic!("{name} is not in README.md"));
            // A default in words is explained there, and not compared.
            let plain = default.trim_matches('`');
            let is_value = default.starts_with('`') || default.parse::<f64>().is_ok();
            if !is_value || key.1 == "etcd_prefix" || default.contains("data_dir") {
                continue;
            }
            let setting = explain(key, &Settings::new(), &config);
            let shown = setting.value.unwrap_or_default();
            let number = |text: &str| text.parse::<f64>().ok();
            let equal = number(&shown).is_some_and(|shown| number(plain) == Some(shown));
            let same = shown == plain || equal;
            assert!(
                same && setting.origin == Origin::Default,
                "{name}: {shown} is not {default}"
            );
        }
    }

    #[test]
    fn no_password_is_shown() {
        for (secret, shown) in [
            ("hunter2", "***"),
            (
                "postgresql://quorate:s3cret@db:5432/quorate",
                "postgresql://quorate:***@db:5432/quorate",
            ),
            (
                "postgresql://db/quorate?password=s3cret",
                "postgresql://db/quorate",
            ),
            ("postgresql://u:p@ss@db/q", "postgresql://u:***@db/q"),
        ] {
            assert_eq!(masked(secret), shown);
        }
        assert_eq!(
            without_password("http://localhost:9093"),
            "http://localhost:9093"
        );
    }
}
