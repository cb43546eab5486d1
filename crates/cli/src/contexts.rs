//! Named contexts: where a node listens and which certificate to show it. One TOML
//! file, `~/.config/quorate/contexts.toml` unless `QUORATE_CONFIG` names another.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure, Outcome};
use crate::files::write_atomically;

/// One node as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// host:port of the node; several with commas are tried one after the other.
    pub(crate) endpoint: String,
    /// The cluster CA, which certified the node.
    pub(crate) cacert: PathBuf,
    /// The client's certificate, by the trustee's own CA.
    pub(crate) cert: PathBuf,
    /// The client certificate's private key.
    pub(crate) key: PathBuf,
    /// An operator's certificate, by the trustee's own CA: for what operators do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) operator_cert: Option<PathBuf>,
    /// The operator certificate's private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) operator_key: Option<PathBuf>,
    /// The cluster's id, hexadecimal: for people, who compare it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cluster_id: Option<String>,
}

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    /// The one that is used when nothing else is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    /// All of them by name.
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Context>,
}

impl Contexts {
    /// Where the file is.
    ///
    /// # Errors
    /// When neither QUORATE_CONFIG nor a home directory is known.
    pub(crate) fn path() -> Outcome<PathBuf> {
        if let Some(path) = env_path("QUORATE_CONFIG") {
            return Ok(path);
        }
        let base = env_path("XDG_CONFIG_HOME")
            .or_else(|| env_path("HOME").map(|home| home.join(".config")))
            .ok_or_else(|| {
                Failure::usage("no home directory is known, so there is no contexts file")
                    .hint("set QUORATE_CONFIG to the path of the contexts file")
            })?;
        Ok(base.join("quorate/contexts.toml"))
    }

    /// Reads the file; an absent one is empty.
    ///
    /// # Errors
    /// When it cannot be read or is not what it should be.
    pub(crate) fn load(path: &Path) -> Outcome<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => {
                return Err(Failure::usage(format!(
                    "cannot read {}: {e}",
                    path.display()
                )));
            }
        };
        toml::from_str(&text).map_err(|e| {
            Failure::usage(format!("{} is no contexts file: {e}", path.display()))
                .hint("mend the file, or delete it and let `quorate dev` write it anew")
        })
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn save(&self, path: &Path) -> Outcome {
        let text = toml::to_string(self).map_err(Failure::failed)?;
        write_atomically(path, text.as_bytes())
    }

    /// A context by name.
    ///
    /// # Errors
    /// When there is none, naming those that there are.
    pub(crate) fn named(&self, name: &str) -> Outcome<&Context> {
        self.contexts.get(name).ok_or_else(|| {
            let known: Vec<_> = self.contexts.keys().map(String::as_str).collect();
            let hint = match known.as_slice() {
                [] => "start a local cluster with `quorate dev`, or give --endpoint, --cacert, \
                       --cert and --key"
                    .to_owned(),
                names => format!("the contexts known here are {}", names.join(", ")),
            };
            Failure::new(Exit::Usage, format!("there is no context named {name:?}")).hint(hint)
        })
    }
}

fn env_path(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context {
            endpoint: "localhost:9001".into(),
            cacert: "/x/ca.crt".into(),
            cert: "/x/client.crt".into(),
            key: "/x/client.key".into(),
            operator_cert: Some("/x/operator.crt".into()),
            operator_key: Some("/x/operator.key".into()),
            cluster_id: Some("00".repeat(32)),
        }
    }

    #[test]
    fn the_file_survives_writing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/contexts.toml");
        assert_eq!(Contexts::load(&path).unwrap(), Contexts::default());
        let contexts = Contexts {
            current: Some("node1".into()),
            contexts: [("node1".to_owned(), context())].into(),
        };
        contexts.save(&path).unwrap();
        assert_eq!(Contexts::load(&path).unwrap(), contexts);
    }

    #[test]
    fn a_broken_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("contexts.toml");
        fs::write(&path, "currant = \"node1\"\n").unwrap();
        let failure = Contexts::load(&path).unwrap_err();
        assert_eq!(failure.exit(), Exit::Usage);
        assert!(failure.message().contains("contexts.toml"), "{failure}");
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let contexts = Contexts {
            current: None,
            contexts: [("node1".to_owned(), context())].into(),
        };
        let failure = contexts.named("node9").unwrap_err();
        assert!(failure.advice().unwrap().contains("node1"));
    }
}
