//! What is wrong with a configuration, with the place and what to write instead.

use std::path::PathBuf;

use super::Place;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {reason}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file is no TOML.
    #[error("{place}: {reason}")]
    Syntax {
        /// Where.
        place: Place,
        /// What the parser says.
        reason: String,
    },
    /// A section or key that does not exist.
    #[error("{place}: there is no {name}{suggestion}")]
    Unknown {
        /// Where.
        place: Place,
        /// What was named.
        name: String,
        /// What was probably meant; empty if nothing is like it.
        suggestion: String,
    },
    /// A key or value that only a later version knows.
    #[error("{place}: {what} is not in this version: remove it")]
    Later {
        /// Where.
        place: Place,
        /// What was named.
        what: String,
    },
    /// A key that must be there and is not.
    #[error("{section}.{key} is missing: set it in the file under [{section}] or as {variable}")]
    Missing {
        /// Its section.
        section: &'static str,
        /// The key.
        key: &'static str,
        /// Its name in the environment.
        variable: String,
    },
    /// A value that is no good.
    #[error("{place}: {key} {reason}")]
    Value {
        /// Where.
        place: Place,
        /// Section and key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A secret on a command line, which everybody on the machine can read.
    #[error(
        "{key} is a secret, and everybody on this machine can read a command line: set it in the file or as {variable}, or name a file with {key}_path"
    )]
    Exposed {
        /// Section and key.
        key: String,
        /// Its name in the environment.
        variable: String,
    },
    /// The configuration says one thing and the rules document another.
    #[error(
        "{place}: {key} is {configured}, but the rules document says {ruled}: correct the configuration, or pin the rules that you mean"
    )]
    Mismatch {
        /// Where.
        place: Place,
        /// Section and key.
        key: &'static str,
        /// The configured value.
        configured: String,
        /// What the rules say.
        ruled: String,
    },
}
