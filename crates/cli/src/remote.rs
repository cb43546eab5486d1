//! Which node a command talks to: flags as with etcdctl, `QUORATE_*` variables, or a
//! named context.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Command};

use crate::contexts::{Context, Contexts};
use crate::failure::{Failure, Outcome};
use crate::files::absolute;

/// The flags of every command that talks to a node.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Which node")]
pub(crate) struct RemoteArgs {
    /// Node to talk to, by the name of its context; may be repeated, or a list with
    /// commas, where several make sense; wins over --endpoint
    #[arg(long = "node", short = 'n', value_name = "NAME", value_delimiter = ',')]
    pub(crate) nodes: Vec<String>,

    /// Node to talk to, by its address; several with commas are tried one after the
    /// other. Needs --cacert, --cert and --key, or a --context that has them
    #[arg(long, value_name = "HOST:PORT", env = "QUORATE_ENDPOINT")]
    pub(crate) endpoint: Option<String>,

    /// The context that gives the address and the files not given here
    #[arg(long, value_name = "NAME", env = "QUORATE_CONTEXT")]
    pub(crate) context: Option<String>,

    /// The cluster CA, which certified the node
    #[arg(long, value_name = "FILE", env = "QUORATE_CACERT")]
    pub(crate) cacert: Option<PathBuf>,

    /// The client certificate, by the CA of the node's own trustee
    #[arg(long, value_name = "FILE", env = "QUORATE_CERT")]
    pub(crate) cert: Option<PathBuf>,

    /// The private key of the client certificate
    #[arg(long, value_name = "FILE", env = "QUORATE_KEY")]
    pub(crate) key: Option<PathBuf>,

    /// Seconds to wait for an answer
    #[arg(long, value_name = "SECS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,
}

/// The command line with the options that name a node behind the command, where clap
/// knows them: people also write them in front of it, as with other such tools.
pub(crate) fn node_options_last(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let known = RemoteArgs::augment_args(Command::new(""));
    let written: Vec<_> = args.into_iter().collect();
    let mut args = written.iter().cloned().peekable();
    // The name of the program comes first.
    let mut line: Vec<_> = args.next().into_iter().collect();
    let mut early = Vec::new();
    while let Some(arg) = args.next_if(|arg| arg.as_encoded_bytes().starts_with(b"-")) {
        match node_option(&known, &arg) {
            None => line.push(arg),
            Some(has_value) => {
                early.push(arg);
                if !has_value {
                    early.extend(args.next());
                }
            }
        }
    }
    if args.peek().is_none() {
        // No command follows: clap says so, about the line as it was written.
        return written;
    }
    line.extend(args);
    // Behind a bare `--` nothing is an option.
    let end = line.iter().position(|arg| arg == "--");
    let end = end.unwrap_or(line.len());
    line.splice(end..end, early);
    line
}

/// Whether an argument is an option of [`RemoteArgs`], and if so, whether its value is
/// in it already, as in `--node=node2` and `-nnode2`.
fn node_option(known: &Command, arg: &OsStr) -> Option<bool> {
    let arg = arg.to_str()?;
    known.get_arguments().find_map(|option| {
        let long = option.get_long().map(|long| format!("--{long}"));
        let short = option.get_short().map(|short| format!("-{short}"));
        if let Some(rest) = long.and_then(|long| arg.strip_prefix(&long)) {
            return (rest.is_empty() || rest.starts_with('=')).then_some(!rest.is_empty());
        }
        let rest = short.and_then(|short| arg.strip_prefix(&short))?;
        Some(!rest.is_empty())
    })
}

/// A node to talk to.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The context's name, or the endpoint.
    pub(crate) name: String,
    /// Where and how.
    pub(crate) context: Context,
    /// How long to wait for an answer.
    pub(crate) timeout: Duration,
}

impl RemoteArgs {
    /// The nodes that the flags, the environment or the current context name.
    ///
    /// # Errors
    /// When they name none.
    pub(crate) fn targets(&self) -> Outcome<Vec<Target>> {
        let timeout = Duration::from_secs(self.timeout);
        // Often from the environment, and then meant for when nothing else is said.
        if let Some(endpoint) = self.endpoint.as_ref().filter(|_| self.nodes.is_empty()) {
            let context = self.by_flags(endpoint)?;
            let name = endpoint.clone();
            return Ok(vec![Target {
                name,
                context,
                timeout,
            }]);
        }
        let contexts = Contexts::load(&Contexts::path()?)?;
        let mut names = self.nodes.clone();
        if names.is_empty() {
            names.extend(self.context.clone().or_else(|| contexts.current.clone()));
        }
        if names.is_empty() {
            return Err(Failure::usage("no node was named and there is no current context").hint(
                "start a local cluster with `quorate dev`, choose a context with `quorate config \
                 use-context NAME`, or give --endpoint, --cacert, --cert and --key",
            ));
        }
        let target = |name: String| {
            let context = contexts.named(&name)?.clone();
            Ok(Target {
                name,
                context,
                timeout,
            })
        };
        names.into_iter().map(target).collect()
    }

    /// The one node that a command with a single answer asks.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub(crate) fn target(&self) -> Outcome<Target> {
        let mut targets = self.targets()?;
        match (targets.pop(), targets.is_empty()) {
            (Some(target), true) => Ok(target),
            _ => Err(Failure::usage(
                "this command asks one node: give --node once",
            )),
        }
    }

    fn by_flags(&self, endpoint: &str) -> Outcome<Context> {
        let context = match &self.context {
            None => None,
            Some(name) => Some(Contexts::load(&Contexts::path()?)?.named(name)?.clone()),
        };
        let file = |flag: &str, given: &Option<PathBuf>, known: Option<&PathBuf>| {
            let given = given.as_deref().map(absolute);
            given.or_else(|| known.cloned()).ok_or_else(|| {
                Failure::usage(format!("--endpoint needs --{flag} too")).hint(format!(
                    "give --{flag} FILE, set QUORATE_{}, or name a --context that has it",
                    flag.to_uppercase()
                ))
            })
        };
        let known = context.as_ref();
        let cert = file("cert", &self.cert, known.map(|c| &c.cert))?;
        let key = file("key", &self.key, known.map(|c| &c.key))?;
        // Whose a certificate is that was given by hand, the node tells.
        let (operator_cert, operator_key) = match (&self.cert, known) {
            (None, Some(known)) => (known.operator_cert.clone(), known.operator_key.clone()),
            _ => (Some(cert.clone()), Some(key.clone())),
        };
        Ok(Context {
            endpoint: endpoint.to_owned(),
            cacert: file("cacert", &self.cacert, known.map(|c| &c.cacert))?,
            cert,
            key,
            operator_cert,
            operator_key,
            cluster_id: known.and_then(|c| c.cluster_id.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn moved(line: &str, expected: &str) {
        let line = node_options_last(line.split(' ').map(OsString::from));
        let line: Vec<_> = line.iter().map(|arg| arg.to_string_lossy()).collect();
        assert_eq!(line.join(" "), expected);
    }

    #[test]
    fn options_before_the_command_are_moved_behind_it() {
        moved("q --node b vote t --value 1", "q vote t --value 1 --node b");
        moved("q --json -n b list", "q --json list -n b");
        moved("q --node=b -nc list", "q list --node=b -nc");
        moved(
            "q --endpoint h:1 --cert c --key k --cacert a --timeout 3 rules show",
            "q rules show --endpoint h:1 --cert c --key k --cacert a --timeout 3",
        );
        moved("q --node b status -- t", "q status --node b -- t");
    }

    #[test]
    fn everything_else_stays_as_it_was_written() {
        for line in [
            "q",
            "q list --node b",
            "q --json list",
            "q --nodes 3 dev",
            "q --unknown --node",
            "q --node b",
        ] {
            moved(line, line);
        }
    }
}
