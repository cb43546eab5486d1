//! Starts the log of a process.

use std::fmt;
use std::io::IsTerminal as _;
use std::str::FromStr;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, reload};

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people: one line, with colours on a terminal.
    #[default]
    Human,
    /// For machines: one JSON object to a line.
    Json,
}

impl FromStr for Format {
    type Err = InitError;

    fn from_str(text: &str) -> Result<Self, InitError> {
        match text {
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            _ => Err(InitError::Format(text.to_owned())),
        }
    }
}

/// What a process writes into its log. Everything goes to standard error, so that
/// answers on standard output stay clean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// A level (`error`, `warn`, `info`, `debug`, `trace`) or directives as in
    /// `info,quorate_node=debug`.
    pub level: String,
    /// How a line looks.
    pub format: Format,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: Format::Human,
        }
    }
}

/// Why the log did not start.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// Neither a level nor directives.
    #[error(
        "log level {level:?} is no good ({reason}): use error, warn, info, debug, trace, or directives like info,quorate_node=debug"
    )]
    Level {
        /// What was given.
        level: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Not a format.
    #[error("log format {0:?} is unknown: use \"human\" or \"json\"")]
    Format(String),
    /// The process has a log already.
    #[error("the log was started before: a process has one")]
    Twice,
}

impl LogSettings {
    /// Checks the directives without starting anything.
    ///
    /// # Errors
    /// [`InitError::Level`] with what is wrong.
    pub fn check(&self) -> Result<(), InitError> {
        self.filter().map(|_| ())
    }

    fn filter(&self) -> Result<EnvFilter, InitError> {
        let wrong = |reason: String| InitError::Level {
            level: self.level.clone(),
            reason,
        };
        // The parser takes any word for the name of a target and would then log
        // nothing at all; a bare word is meant as a level.
        for word in self.level.split(',').map(str::trim) {
            let is_target = word.contains(['=', '[', ':']);
            let is_level =
                !word.is_empty() && tracing_subscriber::filter::LevelFilter::from_str(word).is_ok();
            if !is_target && !is_level {
                return Err(wrong(format!("{word:?} is not a level")));
            }
        }
        let trimmed: Vec<&str> = self.level.split(',').map(str::trim).collect();
        EnvFilter::try_new(trimmed.join(",")).map_err(|e| wrong(e.to_string()))
    }
}

/// Changes what the log of this process tells, while it runs.
#[derive(Clone)]
pub struct LogHandle(reload::Handle<EnvFilter, Registry>);

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogHandle")
    }
}

impl LogHandle {
    /// What is told now, as directives.
    pub fn level(&self) -> String {
        self.0.with_current(ToString::to_string).unwrap_or_default()
    }

    /// Tells from now on what `settings.level` says. The format stays as it is.
    ///
    /// # Errors
    /// [`InitError::Level`] when the level is no good; then nothing changes.
    pub fn set_level(&self, settings: &LogSettings) -> Result<(), InitError> {
        let changed = self.0.reload(settings.filter()?);
        changed.map_err(|error| InitError::Level {
            level: settings.level.clone(),
            reason: error.to_string(),
        })
    }
}

/// Starts the log of this process.
///
/// # Errors
/// [`InitError`] when the level is no good or the log was started before.
pub fn init(settings: &LogSettings) -> Result<LogHandle, InitError> {
    let (filter, handle) = reload::Layer::new(settings.filter()?);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match settings.format {
        Format::Human => lines
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .boxed(),
        Format::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .boxed(),
    };
    let started = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init();
    started.map_err(|_| InitError::Twice)?;
    Ok(LogHandle(handle))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_level(level: &str) -> LogSettings {
        LogSettings {
            level: level.to_owned(),
            ..LogSettings::default()
        }
    }

    #[test]
    fn levels_and_directives_are_taken_and_misspelt_ones_refused() {
        for good in [
            "info",
            "DEBUG",
            "off",
            "info,quorate_node=debug",
            "warn, tonic=info",
        ] {
            assert!(with_level(good).check().is_ok(), "{good}");
        }
        for bad in ["", "inof", "info,debgu", "quorate_node=loud"] {
            assert!(with_level(bad).check().is_err(), "{bad}");
        }
    }

    #[test]
    fn formats_are_two() {
        assert_eq!("human".parse::<Format>().unwrap(), Format::Human);
        assert_eq!("json".parse::<Format>().unwrap(), Format::Json);
        assert!("xml".parse::<Format>().is_err());
    }
}
