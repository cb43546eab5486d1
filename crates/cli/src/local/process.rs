//! A node as a process of its own, started again when it ends by itself.

use std::fs::OpenOptions;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::layout::NodeLayout;
use crate::failure::{Failure, Outcome};

/// How long a node that ended by itself stays down.
const PAUSE: Duration = Duration::from_millis(500);

/// How long a node has to drain, by the protocol 30 s, and a little more.
const DRAIN: Duration = Duration::from_secs(35);

/// A process and the end of its standard input that keeps it alive: waiting for a
/// child would close it.
struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
}

/// A node's process and whoever looks after it.
#[derive(Debug)]
pub(crate) struct Supervised {
    pid: watch::Receiver<u32>,
    stop: oneshot::Sender<()>,
    supervisor: JoinHandle<()>,
}

impl Supervised {
    /// Starts the node and looks after it.
    ///
    /// # Errors
    /// When it cannot be started at all.
    pub(crate) fn start(node: NodeLayout) -> Outcome<Self> {
        let running = spawn(&node)?;
        let (report, pid) = watch::channel(running.child.id().unwrap_or_default());
        let (stop, stopped) = oneshot::channel();
        let supervisor = tokio::spawn(look_after(node, running, report, stopped));
        Ok(Self {
            pid,
            stop,
            supervisor,
        })
    }

    /// The process id, now and whenever it changes.
    pub(crate) fn pid(&self) -> watch::Receiver<u32> {
        self.pid.clone()
    }

    /// Lets the node drain, and ends it if it does not.
    pub(crate) async fn stop(self) {
        // The supervisor may have given up already.
        let _ = self.stop.send(());
        let _ = self.supervisor.await;
    }
}

async fn look_after(
    node: NodeLayout,
    mut running: Running,
    report: watch::Sender<u32>,
    mut stopped: oneshot::Receiver<()>,
) {
    loop {
        tokio::select! {
            _ = &mut stopped => return drain(running).await,
            status = running.child.wait() => {
                let how = status.map_or_else(|e| e.to_string(), |status| status.to_string());
                tracing::warn!(node = %node.dir.display(), how, "node.ended: it is started again");
            }
        }
        running = loop {
            tokio::select! {
                _ = &mut stopped => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
            match spawn(&node) {
                Ok(running) => break running,
                Err(failure) => tracing::error!(%failure, "node.not_started"),
            }
        };
        report.send_replace(running.child.id().unwrap_or_default());
    }
}

/// A node drains when its standard input ends: then it also ends with a parent that
/// was killed.
async fn drain(Running { mut child, stdin }: Running) {
    drop(stdin);
    if tokio::time::timeout(DRAIN, child.wait()).await.is_err() {
        tracing::error!("node.killed: it did not drain in time");
        // It may have ended just now.
        let _ = child.kill().await;
    }
}

fn spawn(node: &NodeLayout) -> Outcome<Running> {
    let config = node.config();
    let cannot =
        |e: std::io::Error| Failure::failed(format!("cannot start {}: {e}", config.display()));
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(node.log())
        .map_err(cannot)?;
    let mut child = Command::new(std::env::current_exe().map_err(cannot)?)
        .arg("run")
        .arg("--config")
        .arg(&config)
        .arg("--until-stdin-ends")
        // A local cluster is not to write into the database of another.
        .env_remove("POSTGRES_URL")
        .env_remove("QUORATE_STORAGE_POSTGRES_URL")
        .stdin(Stdio::piped())
        .stdout(log.try_clone().map_err(cannot)?)
        .stderr(log)
        // Ctrl-C on a terminal reaches the parent only, which then stops its children.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(cannot)?;
    let stdin = child.stdin.take();
    Ok(Running { child, stdin })
}
