//! `quorate run`: one node, from its configuration.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use clap::Args;
use futures_util::future::{self, Either};
use quorate_node::{Config, Network, Node, Parts, StartError, Stopped};
use quorate_telemetry::LogHandle;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines, Stdin};

use crate::failure::{Failure, Outcome};
use crate::local::hurt_from_line;
use crate::output::Out;
use crate::signals;

const EXAMPLES: &str = "\
Examples:
  quorate run --config /etc/quorate/config.toml
  quorate run --config config.toml --set node.listen_addr=0.0.0.0:9001
  quorate run --print-default-config > config.toml

The environment lies over the file and --set over both: every key is also
QUORATE_<SECTION>_<KEY>. SIGTERM and Ctrl-C drain the node and end it within 30 s. SIGHUP makes it
read logging.level again, unless it was started from a terminal, whose end it then is.";

/// Run one node
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunArgs {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Sets one key over file and environment; may be repeated
    #[arg(long, value_name = "SECTION.KEY=VALUE", value_parser = parse_setting)]
    set: Vec<(String, String)>,

    /// Where to listen: the same as --set node.listen_addr
    #[arg(long, value_name = "HOST:PORT")]
    listen_addr: Option<String>,

    /// What to log: the same as --set logging.level
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,

    /// Print a configuration with every key explained, and end
    #[arg(long)]
    print_default_config: bool,

    /// Drain and end when standard input ends: for a parent that may be killed
    #[arg(long, hide = true)]
    until_stdin_ends: bool,

    /// Take the state of the network from standard input: for `quorate dev`
    #[arg(long, hide = true, requires = "until_stdin_ends")]
    network_from_stdin: bool,
}

/// `SECTION.KEY=VALUE`.
pub(crate) fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if key.contains('.') => Ok((key.trim().into(), value.trim().into())),
        _ => Err("must be SECTION.KEY=VALUE, for example node.listen_addr=0.0.0.0:9001".into()),
    }
}

pub(crate) async fn run(args: RunArgs, out: Out) -> Outcome {
    if args.print_default_config {
        out.raw(quorate_node::config::DEFAULT_TOML);
        return Ok(());
    }
    let mut flags = args.set;
    for (key, value) in [
        ("node.listen_addr", args.listen_addr),
        ("logging.level", args.log_level),
    ] {
        flags.extend(value.map(|value| (key.to_owned(), value)));
    }
    let config = Config::load(args.config.as_deref(), &flags).map_err(|e| {
        Failure::usage(e).hint("`quorate run --print-default-config` explains every key")
    })?;
    let log = quorate_telemetry::init(&config.logging).map_err(Failure::usage)?;
    let handle = log.clone();
    let reread = move || reread(&log, args.config.as_deref(), &flags);
    let node_id = config.node.node_id.clone();
    let opened = tokio::task::spawn_blocking(move || Parts::open(&config)).await;
    let mut parts = opened
        .map_err(Failure::failed)?
        .map_err(|e| not_started(&e))?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    if args.network_from_stdin {
        let network = Network::default();
        // How it is at the start, before anybody is dialled.
        take(&network, lines.next_line().await.ok().flatten());
        parts.faults.network = Some(network);
    }
    let network = parts.faults.network.clone();
    parts.log = Some(handle);
    // From here on SIGTERM drains: whoever sees that it listens may send one.
    let (told_to_stop, rereading) = match std::io::stdin().is_terminal() {
        true => (
            Either::Left(signals::until_told_to_stop()),
            Either::Left(future::pending()),
        ),
        false => (
            Either::Right(signals::until_terminated()),
            Either::Right(signals::at_every_hangup(reread)),
        ),
    };
    let node = Node::start(parts).await.map_err(|e| not_started(&e))?;
    out.note(format!("{node_id} listens at {}", node.addr()));
    tokio::select! {
        signal = told_to_stop => out.note(format!("{node_id}: {signal}, draining")),
        () = until_stdin_ends(lines, network), if args.until_stdin_ends => {}
        () = rereading => {}
        stopped = node.stopped() => {
            let why = match stopped {
                Stopped::Shutdown => None,
                Stopped::Failed(why) => Some(why),
                Stopped::Crash => Some("it ended by itself".into()),
            };
            if let Some(why) = why {
                return Err(Failure::failed(format!("{node_id} stopped: {why}"))
                    .hint("mend that and start it again: nothing acknowledged is lost"));
            }
            out.note(format!("{node_id}: an operator has it drained"));
        }
    }
    node.shutdown().await;
    out.note(format!("{node_id} ended"));
    Ok(())
}

/// Reads the configuration again, for the level of the log alone: all else belongs to a
/// start.
fn reread(log: &LogHandle, path: Option<&Path>, flags: &[(String, String)]) {
    let level = Config::load(path, flags)
        .map_err(|error| error.to_string())
        .and_then(|config| {
            let changed = log.set_level(&config.logging);
            changed.map_err(|error| error.to_string())?;
            Ok(config.logging.level)
        });
    match level {
        Ok(level) => tracing::warn!(level, "config.read_again: the level of the log is in force"),
        Err(error) => tracing::error!(%error, "config.not_read_again: nothing has changed"),
    }
}

fn not_started(error: &StartError) -> Failure {
    match error {
        StartError::Config(_)
        | StartError::Rules { .. }
        | StartError::Key(_)
        | StartError::WrongKey { .. }
        | StartError::NotAMember(_)
        | StartError::Tls(_)
        | StartError::OtherIdentity { .. } => {
            Failure::usage(error).hint("`quorate run --print-default-config` explains every key")
        }
        other => Failure::failed(other),
    }
}

async fn until_stdin_ends(mut lines: Lines<BufReader<Stdin>>, network: Option<Network>) {
    // An error is an end too.
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(network) = &network {
            take(network, Some(line));
        }
    }
}

fn take(network: &Network, line: Option<String>) {
    if let Some(hurt) = line.as_deref().and_then(hurt_from_line) {
        network.set(hurt);
    }
}
