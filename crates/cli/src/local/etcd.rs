//! An etcd of one member for a local cluster, started here and ended with it.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use quorate_crypto::file;
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep};

use crate::failure::{Failure, Outcome};

/// How long it may take to answer; the slowest machines are meant.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often to look whether it does.
const LOOK: Duration = Duration::from_millis(20);

/// Ends etcd when its own standard input does: so etcd does not outlive this process,
/// however that ends.
const KEEPER: &str =
    r#"exec 3<&0; "$@" </dev/null & pid=$!; cat <&3 >/dev/null; kill -9 "$pid"; wait"#;

/// A running etcd.
#[derive(Debug)]
pub(crate) struct LocalEtcd {
    endpoint: String,
    keeper: Child,
    // Its end is etcd's end.
    stdin: Option<ChildStdin>,
}

impl LocalEtcd {
    /// Starts one that keeps its data in `dir`, and waits until it answers.
    ///
    /// # Errors
    /// When there is no etcd on this machine, or it does not start.
    pub(crate) async fn start(dir: &Path) -> Outcome<Self> {
        let binary = find().ok_or_else(|| {
            Failure::failed("there is no etcd on this machine").hint(
                "in a checkout run tools/setup test, which builds one; or install it (Debian: \
                 etcd-server); or name a running one: --etcd HOST:PORT",
            )
        })?;
        let cannot = |what: &dyn std::fmt::Display| {
            Failure::failed(format!("etcd does not start in {}: {what}", dir.display()))
        };
        file::create_private_dir(dir).map_err(|e| cannot(&e))?;
        let path = dir.join("etcd.log");
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.map_err(|e| cannot(&e))?;
        let [client, peer] = free_ports().map_err(|e| cannot(&e))?;
        let endpoint = format!("127.0.0.1:{client}");
        let mut keeper = command(&binary, dir, client, peer, log)
            .map_err(|e| cannot(&e))?
            .spawn()
            .map_err(|e| cannot(&e))?;
        let started = Self {
            endpoint: endpoint.clone(),
            stdin: keeper.stdin.take(),
            keeper,
        };
        let begun = Instant::now();
        while TcpStream::connect(&endpoint).await.is_err() {
            if begun.elapsed() > PATIENCE {
                started.stop().await;
                let words = std::fs::read_to_string(&path).unwrap_or_default();
                let last = words.lines().last().unwrap_or("it says nothing").to_owned();
                return Err(cannot(&last).hint(format!("{} has all it said", path.display())));
            }
            sleep(LOOK).await;
        }
        Ok(started)
    }

    /// Where it answers: `host:port`.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Ends it. What it answered is on its disk.
    pub(crate) async fn stop(mut self) {
        drop(self.stdin.take());
        // The keeper has nothing to wait for but etcd's end.
        let _ = self.keeper.wait().await;
    }
}

fn command(
    binary: &Path,
    dir: &Path,
    client: u16,
    peer: u16,
    log: File,
) -> std::io::Result<Command> {
    let (here, others) = (
        format!("http://127.0.0.1:{client}"),
        format!("http://127.0.0.1:{peer}"),
    );
    let mut command = Command::new("sh");
    command.args(["-c", KEEPER, "sh"]).arg(binary);
    command.args(["--name", "dev", "--log-level", "warn"]);
    command.arg("--data-dir").arg(dir.join("data"));
    command.args([
        "--listen-client-urls",
        &here,
        "--advertise-client-urls",
        &here,
    ]);
    command.args([
        "--listen-peer-urls",
        &others,
        "--initial-advertise-peer-urls",
        &others,
    ]);
    command.args(["--initial-cluster", &format!("dev={others}")]);
    // What a shell has exported for another etcd is not meant for this one.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ETCD_") {
            command.env_remove(name);
        }
    }
    let again = log.try_clone()?;
    command.stdin(Stdio::piped()).stdout(log).stderr(again);
    // Ctrl-C is for the nodes first: they drain with their board at hand.
    command.process_group(0);
    Ok(command)
}

fn find() -> Option<PathBuf> {
    let named = std::env::var_os("QUORATE_TOOLS_DIR").map(|dir| PathBuf::from(dir).join("bin"));
    // A checkout's tools lie beside what was built in it.
    let beside = std::env::current_exe().ok();
    let beside = beside.and_then(|exe| Some(exe.parent()?.parent()?.join("tools/bin")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs = named
        .into_iter()
        .chain(beside)
        .chain(std::env::split_paths(&path));
    dirs.find_map(|dir| Some(dir.join("etcd")).filter(|binary| binary.is_file()))
}

/// Both held at once, so that they differ.
fn free_ports() -> std::io::Result<[u16; 2]> {
    let any = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let (one, other) = (any()?, any()?);
    Ok([one.local_addr()?.port(), other.local_addr()?.port()])
}
