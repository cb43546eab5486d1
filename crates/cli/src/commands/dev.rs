//! `quorate dev`: a cluster on this machine.

use std::path::{Path, PathBuf};

use clap::Args;
use futures_util::stream::{FuturesUnordered, StreamExt};
use quorate_telemetry::LogSettings;
use serde_json::json;

use super::dev_act::{self, DevAct};
use crate::contexts::Contexts;
use crate::failure::{Failure, Outcome};
use crate::files::absolute;
use crate::local::{Cluster, Layout, LocalEtcd, Mode, Plan, check_not_running, clean};
use crate::output::{Out, Tone, clock, clock_ms};
use crate::playground::{Act, Control, Playground};
use crate::signals;

const EXAMPLES: &str = "\
Examples:
  quorate dev
  quorate dev --nodes 7 --threshold 5 --base-port 9101
  quorate dev --vote-timeout 5 --data-dir /tmp/try    short deadlines, to see a silent trustee
  quorate dev --processes --ready-file ready.json     each node a process of its own
  quorate dev --clean --seed 7                        a new cluster with the keys of seed 7
  quorate dev status                                  while it runs, in another terminal
  quorate dev lie node5 double-vote

While it runs, the commands above hurt it: docs/playground.md has a session.

Runs until Ctrl-C or SIGTERM. Started again with the same --data-dir it goes on with the same
cluster, whose rules no flag can change; --clean starts anew. Without --data-dir it is ~/.local/share/quorate/dev.
Writes one context per node, so that the other commands find the cluster without flags.";

/// Run a cluster on this machine, or hurt the one that runs
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DevArgs {
    #[command(subcommand)]
    act: Option<DevAct>,

    /// Where the cluster's files lie
    #[arg(long, value_name = "DIR", env = "QUORATE_DEV_DIR", global = true)]
    data_dir: Option<PathBuf>,

    #[command(flatten)]
    start: StartArgs,
}

/// What a cluster is started with.
#[derive(Debug, Args)]
struct StartArgs {
    /// Trustees (N) [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=200))]
    nodes: Option<u16>,

    /// Votes that decide (t) [default: two thirds of N, rounded up]
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u16).range(1..=200))]
    threshold: Option<u16>,

    /// The first node's port, the others follow, and those for health and metrics a
    /// hundred above; 0 for any that are free [default: 9001]
    #[arg(long, value_name = "PORT")]
    base_port: Option<u16>,

    /// Seconds from the vote that starts a ballot to its deadline [default: 300]
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    vote_timeout: Option<u64>,

    /// Milliseconds between reaching the threshold and reserving [default: 100]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(0..=60_000))]
    settle_window: Option<u64>,

    /// Written when all nodes are in service: a JSON file with endpoints, certificates
    /// and keys
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,

    /// Keep the board in etcd: in those that are named, or else in one that is started
    /// here and ends with the cluster
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', num_args = 0..)]
    etcd: Option<Vec<String>>,

    /// Run each node as a process of its own, and start it again when it ends by itself
    #[arg(long)]
    processes: bool,

    /// Delete the cluster that is there, with all that it decided, and start anew
    #[arg(long)]
    clean: bool,

    /// Make a new cluster's signing keys from this text, the same ones each time:
    /// whoever knows the text has the keys, so they are worth nothing
    #[arg(long, value_name = "TEXT")]
    seed: Option<String>,

    /// What the nodes log: to their node.log with --processes, else to standard error
    /// [default: warn with --processes, else error]
    #[arg(long, value_name = "LEVEL", env = "RUST_LOG")]
    log_level: Option<String>,
}

/// Where `dev` keeps its cluster unless told otherwise.
///
/// # Errors
/// When no home directory is known.
pub(crate) fn default_dir() -> Outcome<PathBuf> {
    let path = |name| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let base = path("XDG_DATA_HOME").or_else(|| path("HOME").map(|home| home.join(".local/share")));
    let base = base.ok_or_else(|| {
        Failure::usage("no home directory is known").hint("say where with --data-dir DIR")
    })?;
    Ok(base.join("quorate/dev"))
}

impl StartArgs {
    /// A flag that says how to start a cluster.
    fn given(&self) -> Option<&'static str> {
        let flags = [
            ("--nodes", self.nodes.is_some()),
            ("--threshold", self.threshold.is_some()),
            ("--base-port", self.base_port.is_some()),
            ("--vote-timeout", self.vote_timeout.is_some()),
            ("--settle-window", self.settle_window.is_some()),
            ("--ready-file", self.ready_file.is_some()),
            ("--etcd", self.etcd.is_some()),
            ("--processes", self.processes),
            ("--clean", self.clean),
            ("--seed", self.seed.is_some()),
        ];
        let mut given = flags.into_iter().filter(|(_, given)| *given);
        given.next().map(|(flag, _)| flag)
    }
}

pub(crate) async fn run(args: DevArgs, out: Out) -> Outcome {
    let dir = absolute(&match &args.data_dir {
        Some(dir) => dir.clone(),
        None => default_dir()?,
    });
    match (args.act, args.start.given()) {
        (None, _) => start(args.start, dir, out).await,
        (Some(act), None) => dev_act::run(act, &Layout::new(dir), out).await,
        (Some(_), Some(flag)) => Err(Failure::usage(format!(
            "{flag} is for starting a cluster, not for one that runs"
        ))
        .hint("leave it out, or leave the act out")),
    }
}

async fn start(args: StartArgs, dir: PathBuf, out: Out) -> Outcome {
    let (mode, usual_level) = match args.processes {
        true => (Mode::Processes, "warn"),
        false => (Mode::Inside, "error"),
    };
    let log_level = args.log_level.unwrap_or_else(|| usual_level.into());
    let log = LogSettings {
        level: log_level.clone(),
        ..LogSettings::default()
    };
    let log = quorate_telemetry::init(&log).map_err(Failure::usage)?;
    let mut plan = Plan {
        dir,
        nodes: args.nodes.map(usize::from),
        threshold: args.threshold.map(usize::from),
        base_port: args.base_port.unwrap_or(9001),
        vote_timeout_ms: args.vote_timeout.map(|seconds| seconds * 1000),
        settle_window_ms: args.settle_window,
        seed: args.seed,
        log: Some(log),
        log_level,
        etcd: args.etcd.clone(),
    };
    if args.clean {
        clean(&plan.dir)?;
    }
    if let Some(file) = &args.ready_file {
        remove(file)?;
    }
    // From here on Ctrl-C means: stop what was started.
    let told_to_stop = signals::until_told_to_stop();
    tokio::pin!(told_to_stop);
    let own_etcd = match &mut plan.etcd {
        Some(endpoints) if endpoints.is_empty() => {
            check_not_running(&plan.dir)?;
            let dir = plan.dir.join("etcd");
            let etcd = tokio::select! {
                etcd = LocalEtcd::start(&dir) => etcd?,
                _ = &mut told_to_stop => return Ok(()),
            };
            endpoints.push(etcd.endpoint().to_owned());
            Some(etcd)
        }
        _ => None,
    };
    let mut playground = tokio::select! {
        playground = Playground::start(&plan, mode) => playground?,
        _ = &mut told_to_stop => return Ok(()),
    };
    let served = serve(&args.ready_file, &mut playground, out, &mut told_to_stop).await;
    if let Some(file) = &args.ready_file {
        remove(file)?;
    }
    remove(&standing_ready_file(&plan.dir))?;
    playground.stop().await;
    if let Some(etcd) = own_etcd {
        etcd.stop().await;
    }
    out.line("stopped; the cluster goes on with the next `quorate dev` on the same data");
    served
}

/// Beside the cluster's files, for commands that look for it.
pub(crate) fn standing_ready_file(dir: &Path) -> PathBuf {
    dir.join("ready.json")
}

async fn serve(
    ready_file: &Option<PathBuf>,
    playground: &mut Playground,
    out: Out,
    told_to_stop: &mut (impl Future<Output = &'static str> + Unpin),
) -> Outcome {
    let contexts = write_contexts(playground.cluster())?;
    let mut control = Control::listen(playground.cluster().layout().control())?;
    let write_ready = |cluster: &Cluster| -> Outcome {
        let ready = cluster.ready();
        ready.write(&standing_ready_file(cluster.layout().root()))?;
        ready_file.as_ref().map_or(Ok(()), |file| ready.write(file))
    };
    // The content is what the file promises: all nodes are in service.
    write_ready(playground.cluster())?;
    print(playground.cluster(), &contexts, out);
    loop {
        let cluster = playground.cluster();
        let ids = cluster.node_ids();
        let mut pids: Vec<_> = ids.iter().filter_map(|id| cluster.pid(id)).collect();
        let mut changes: FuturesUnordered<_> = pids.iter_mut().map(|pid| pid.changed()).collect();
        let asked = tokio::select! {
            name = &mut *told_to_stop => {
                out.note(format!("{name}: draining"));
                return Ok(());
            }
            asked = control.next() => Some(asked),
            // A node came back as another process.
            Some(_) = changes.next() => None,
        };
        if let Some((act, answer)) = asked {
            let looks = act == Act::Status {};
            let done = tokio::select! {
                done = playground.act(act) => done,
                name = &mut *told_to_stop => {
                    out.note(format!("{name}: draining"));
                    return Ok(());
                }
            };
            if let Ok(report) = &done
                && !looks
            {
                out.json(&json!({ "event": "act", "report": report }));
                out.line(format!("{}  {}", clock(clock_ms()), report.done));
            }
            // Whoever asked may have gone.
            let _ = answer.send(done.into());
        }
        write_ready(playground.cluster())?;
    }
}

fn remove(file: &Path) -> Outcome {
    match std::fs::remove_file(file) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Failure::failed(format!(
            "cannot remove {}: {e}",
            file.display()
        ))),
        _ => Ok(()),
    }
}

/// One context per node; see [`Contexts::take_in`].
fn write_contexts(cluster: &Cluster) -> Outcome<PathBuf> {
    let path = Contexts::path()?;
    let mut contexts = Contexts::load(&path)?;
    let local = cluster.node_ids().into_iter();
    let local = local.map(|id| (id.to_string(), cluster.context(&id)));
    contexts.take_in(local.collect())?;
    contexts.save(&path)?;
    Ok(path)
}

fn print(cluster: &Cluster, contexts: &Path, out: Out) {
    let ready = cluster.ready();
    out.json(&json!({ "event": "ready", "contexts": contexts, "cluster": ready }));
    let rules = cluster.rules();
    out.line(format!(
        "{} cluster: N = {} trustees, t = {} equal votes decide, {} may be away",
        if cluster.continued() {
            "continuing a"
        } else {
            "a new"
        },
        rules.total(),
        rules.threshold(),
        rules.total() - rules.threshold()
    ));
    if cluster.seeded() {
        out.note(
            "WARNING: these keys come from a seed. Whoever knows it can sign for every trustee: \
             they are worth nothing, and must never guard anything",
        );
    }
    out.line(format!("cluster id  {}", out.bold(rules.cluster_id())));
    out.line(format!("data        {}", cluster.layout().root().display()));
    out.line(format!("contexts    {}", contexts.display()));
    if let Some(endpoints) = cluster.etcd() {
        out.line(format!(
            "board       in etcd at {}: etcdctl --endpoints {} get --prefix /quorate/{}/",
            endpoints.join(", "),
            endpoints.join(","),
            rules.cluster_name()
        ));
    }
    let mut table = out.table(&[
        "node",
        "endpoint",
        "health and metrics",
        "client certificate and key",
    ]);
    for node in &ready.nodes {
        table.add_row([
            out.cell(Tone::Plain, &node.node_id),
            out.cell(Tone::Plain, &node.endpoint),
            out.cell(Tone::Plain, format!("http://{}", node.health)),
            out.cell(Tone::Faint, format!("{}, .key", node.cert.display())),
        ]);
    }
    out.line(table);
    let voters: Vec<_> = ready
        .nodes
        .iter()
        .take(rules.threshold())
        .map(|node| node.node_id.as_str())
        .collect();
    out.line("\nTry, in another terminal:");
    out.line(format!(
        "  quorate vote --tx-id tx_001 --value 42 --node {} --wait confirmed",
        voters.join(",")
    ));
    out.line("  quorate status tx_001");
    out.line("  quorate certificate tx_001 -o tx_001.proof");
    out.line(format!(
        "  quorate verify tx_001.proof --cluster-id {}",
        rules.cluster_id()
    ));
    out.line("  quorate watch --from 1");
    if let Some(node) = ready.nodes.first() {
        out.line(format!(
            "  curl -s http://{0}/ready; curl -s http://{0}/metrics",
            node.health
        ));
    }
    let root = cluster.layout().root();
    let usual = default_dir().is_ok_and(|dir| dir == root);
    let where_it_is = match usual {
        true => String::new(),
        false => format!(" --data-dir {}", quoted(root)),
    };
    out.line("  quorate info --all; quorate peers; quorate reputation; quorate monitor");
    out.line(format!(
        "  quorate test-byzantine --test-type double-vote{where_it_is}"
    ));
    out.line(format!(
        "  quorate dev lie node5 double-vote{where_it_is}       then vote, and see docs/playground.md"
    ));
    if let Some(node) = ready.nodes.first() {
        out.line(format!(
            "\nThe same with grpcurl:\n  grpcurl -cacert {} \\\n    -cert {} \\\n    -key {} \\\n    \
             -d '{{\"tx_id\": \"tx_002\", \"number\": 42}}' {} quorate.v1.VoteService/Submit",
            quoted(&node.cacert),
            quoted(&node.cert),
            quoted(&node.key),
            node.endpoint
        ));
    }
    out.line("\nCtrl-C stops it.");
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_a_shell() {
        assert_eq!(quoted(Path::new("/a/b-1.crt")), "/a/b-1.crt");
        assert_eq!(quoted(Path::new("/a b/it's")), "'/a b/it'\\''s'");
    }
}
