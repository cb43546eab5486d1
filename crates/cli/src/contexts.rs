//! Named contexts: where a node listens and which certificate to show it. One TOML
//! file, `~/.config/quorate/contexts.toml` unless `QUORATE_CONFIG` names another.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
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

impl Context {
    /// Whether it leads to this machine alone, as those of a local cluster do.
    fn is_local(&self) -> bool {
        let is_local = |endpoint: &str| {
            let host = endpoint.trim().rsplit_once(':').map(|(host, _)| host);
            let host = host.unwrap_or_default().trim_matches(['[', ']']);
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        };
        self.endpoint.split(',').all(is_local)
    }
}

impl Contexts {
    /// Takes in the contexts of a cluster on this machine, and makes its first the current
    /// one unless that leads elsewhere: nobody who tries something may find later that a
    /// payment went another way.
    ///
    /// # Errors
    /// When one of the names is that of a context that leads elsewhere.
    pub(crate) fn take_in(&mut self, local: Vec<(String, Context)>) -> Outcome {
        let elsewhere = |name: &String| {
            let known = self.contexts.get(name);
            known.is_some_and(|known| !known.is_local())
        };
        if let Some((name, _)) = local.iter().find(|(name, _)| elsewhere(name)) {
            return Err(Failure::failed(format!(
                "the context {name:?} leads to another machine, and is not written over"
            ))
            .hint(
                "give this cluster a contexts file of its own: QUORATE_CONFIG=dev.toml quorate dev",
            ));
        }
        if !self.current.as_ref().is_some_and(elsewhere) {
            self.current = local.first().map(|(name, _)| name.clone());
        }
        self.contexts.extend(local);
        Ok(())
    }

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
    fn a_cluster_on_this_machine_takes_no_other_clusters_place() {
        let at = |endpoint: &str| Context {
            endpoint: endpoint.into(),
            ..context()
        };
        let here = |port: u16| vec![("node1".to_owned(), at(&format!("127.0.0.1:{port}")))];
        let mut contexts = Contexts::default();
        contexts.take_in(here(1)).unwrap();
        assert_eq!(contexts.current.as_deref(), Some("node1"));
        // Another one of this machine.
        for known in ["localhost:9", "[::1]:9", "127.0.0.1:9,127.0.0.1:10"] {
            contexts.contexts.insert("node1".into(), at(known));
            contexts.take_in(here(2)).unwrap();
            assert_eq!(contexts.contexts["node1"], at("127.0.0.1:2"));
        }
        // What is chosen leads elsewhere: it stays chosen.
        let production = at("node1.example.org:9000");
        contexts.contexts.insert("prod".into(), production.clone());
        contexts.current = Some("prod".into());
        contexts.take_in(here(3)).unwrap();
        assert_eq!(contexts.current.as_deref(), Some("prod"));
        for elsewhere in ["node1.example.org:9000", "127.0.0.1:1,10.0.0.1:1", ""] {
            contexts.contexts.insert("node1".into(), at(elsewhere));
            let before = contexts.clone();
            let failure = contexts.take_in(here(4)).unwrap_err();
            assert!(failure.message().contains("not written over"), "{failure}");
            assert_eq!(contexts, before);
        }
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
