//! `quorate dev`: a cluster on this machine.

use std::path::{Path, PathBuf};

use clap::Args;
use futures_util::stream::{FuturesUnordered, StreamExt};
use quorate_telemetry::LogSettings;
use serde_json::json;

use crate::contexts::Contexts;
use crate::failure::{Failure, Outcome};
use crate::files::absolute;
use crate::local::{Cluster, LocalEtcd, Mode, Plan, check_not_running};
use crate::output::{Out, Tone};
use crate::signals;

const EXAMPLES: &str = "\
Examples:
  quorate dev
  quorate dev --nodes 7 --threshold 5 --base-port 9101
  quorate dev --vote-timeout 5 --data-dir /tmp/try    short deadlines, to see a silent trustee
  quorate dev --processes --ready-file ready.json     each node a process of its own

Runs until Ctrl-C or SIGTERM. Started again with the same --data-dir it goes on with the same
cluster, whose rules no flag can change; delete the directory to start anew. Without --data-dir it is ~/.local/share/quorate/dev.
Writes one context per node, so that the other commands find the cluster without flags.";

/// Run a cluster on this machine: each node with its own port, keys and certificate
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DevArgs {
    /// Trustees (N) [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=200))]
    nodes: Option<u16>,

    /// Votes that decide (t) [default: two thirds of N, rounded up]
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u16).range(1..=200))]
    threshold: Option<u16>,

    /// The first node's port, the others follow, and those for health and metrics a
    /// hundred above; 0 for any that are free
    #[arg(long, value_name = "PORT", default_value_t = 9001)]
    base_port: u16,

    /// Where the cluster's files lie
    #[arg(long, value_name = "DIR", env = "QUORATE_DEV_DIR")]
    data_dir: Option<PathBuf>,

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

pub(crate) async fn run(args: DevArgs, out: Out) -> Outcome {
    let (mode, usual_level) = match args.processes {
        true => (Mode::Processes, "warn"),
        false => (Mode::Inside, "error"),
    };
    let log_level = args.log_level.unwrap_or_else(|| usual_level.into());
    let log = LogSettings {
        level: log_level.clone(),
        ..LogSettings::default()
    };
    quorate_telemetry::init(&log).map_err(Failure::usage)?;
    let mut plan = Plan {
        dir: absolute(&match &args.data_dir {
            Some(dir) => dir.clone(),
            None => default_dir()?,
        }),
        nodes: args.nodes.map(usize::from),
        threshold: args.threshold.map(usize::from),
        base_port: args.base_port,
        vote_timeout_ms: args.vote_timeout.map(|seconds| seconds * 1000),
        settle_window_ms: args.settle_window,
        log_level,
        etcd: args.etcd.clone(),
    };
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
    let cluster = tokio::select! {
        cluster = Cluster::start(&plan, mode) => cluster?,
        _ = &mut told_to_stop => return Ok(()),
    };
    let served = serve(&args.ready_file, &cluster, out, &mut told_to_stop).await;
    if let Some(file) = &args.ready_file {
        remove(file)?;
    }
    remove(&standing_ready_file(&plan.dir))?;
    cluster.stop().await;
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
    cluster: &Cluster,
    out: Out,
    told_to_stop: &mut (impl Future<Output = &'static str> + Unpin),
) -> Outcome {
    let contexts = write_contexts(cluster)?;
    let write_ready = || -> Outcome {
        let ready = cluster.ready();
        ready.write(&standing_ready_file(cluster.layout().root()))?;
        ready_file.as_ref().map_or(Ok(()), |file| ready.write(file))
    };
    // The content is what the file promises: all nodes are in service.
    write_ready()?;
    print(cluster, &contexts, out);
    let mut pids: Vec<_> = cluster
        .node_ids()
        .iter()
        .filter_map(|node_id| cluster.pid(node_id))
        .collect();
    loop {
        let mut changes: FuturesUnordered<_> = pids.iter_mut().map(|pid| pid.changed()).collect();
        tokio::select! {
            name = &mut *told_to_stop => {
                out.note(format!("{name}: draining"));
                return Ok(());
            }
            Some(_) = changes.next() => {}
        }
        drop(changes);
        // A node came back as another process.
        write_ready()?;
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

/// One context per node; the first becomes the current one.
fn write_contexts(cluster: &Cluster) -> Outcome<PathBuf> {
    let path = Contexts::path()?;
    let mut contexts = Contexts::load(&path)?;
    let node_ids = cluster.node_ids();
    for node_id in &node_ids {
        contexts
            .contexts
            .insert(node_id.to_string(), cluster.context(node_id));
    }
    contexts.current = node_ids.first().map(ToString::to_string);
    contexts.save(&path)?;
    Ok(path)
}

fn print(cluster: &Cluster, contexts: &Path, out: Out) {
    let ready = cluster.ready();
    out.json(&json!({ "event": "ready", "contexts": contexts, "cluster": ready }));
    let rules = cluster.rules();
    out.line(format!(
        "{} cluster: N = {} trustees, t = {} equal votes decide, f = {} liars tolerated",
        if cluster.continued() {
            "continuing a"
        } else {
            "a new"
        },
        rules.total(),
        rules.threshold(),
        rules.tolerated()
    ));
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
    out.line(format!(
        "  quorate test-byzantine --test-type double-vote{where_it_is}"
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
