//! A node as a process of its own, started again when it ends by itself.

use std::fs::OpenOptions;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncWriteExt as _;
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

/// How a node is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Drained.
    Drained,
    /// By SIGKILL: nothing is flushed, nobody is told.
    Killed,
}

/// A node's process and whoever looks after it.
#[derive(Debug)]
pub(crate) struct Supervised {
    pid: watch::Receiver<u32>,
    told: watch::Sender<String>,
    end: oneshot::Sender<End>,
    supervisor: JoinHandle<()>,
}

impl Supervised {
    /// Starts the node and looks after it. The line is the first that it is told.
    ///
    /// # Errors
    /// When it cannot be started at all.
    pub(crate) fn start(node: NodeLayout, line: String) -> Outcome<Self> {
        let running = spawn(&node)?;
        let (report, pid) = watch::channel(running.child.id().unwrap_or_default());
        let (end, ended) = oneshot::channel();
        let (told, mut lines) = watch::channel(line);
        lines.mark_changed();
        let supervisor = tokio::spawn(look_after(node, running, report, lines, ended));
        Ok(Self {
            pid,
            told,
            end,
            supervisor,
        })
    }

    /// The process id, now and whenever it changes.
    pub(crate) fn pid(&self) -> watch::Receiver<u32> {
        self.pid.clone()
    }

    /// Tells the node a line on its standard input, and every process that comes after
    /// this one.
    pub(crate) fn tell(&self, line: String) {
        self.told.send_replace(line);
    }

    /// Stops the process where it stands, or lets it go on.
    ///
    /// # Errors
    /// When there is no such process at the moment.
    pub(crate) fn freeze(&self, frozen: bool) -> Outcome {
        let pid = *self.pid.borrow();
        let signal = match frozen {
            true => Signal::STOP,
            false => Signal::CONT,
        };
        send(pid, signal).map_err(|e| {
            Failure::failed(format!("cannot signal process {pid}: {e}"))
                .hint("it may have ended just now: look with `quorate dev status`")
        })
    }

    /// Lets the node drain, and ends it if it does not.
    pub(crate) async fn stop(self) {
        self.ended(End::Drained).await;
    }

    /// Ends the node at once.
    pub(crate) async fn kill(self) {
        self.ended(End::Killed).await;
    }

    async fn ended(self, how: End) {
        // The supervisor may have given up already.
        let _ = self.end.send(how);
        let _ = self.supervisor.await;
    }
}

fn send(pid: u32, signal: Signal) -> std::io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| std::io::Error::other("it has ended"))?;
    Ok(kill_process(pid, signal)?)
}

async fn look_after(
    node: NodeLayout,
    mut running: Running,
    report: watch::Sender<u32>,
    mut lines: watch::Receiver<String>,
    mut ended: oneshot::Receiver<End>,
) {
    loop {
        tokio::select! {
            how = &mut ended => return end(running, how.unwrap_or(End::Drained)).await,
            Ok(()) = lines.changed() => {
                let line = format!("{}\n", lines.borrow_and_update().clone());
                if let Some(stdin) = &mut running.stdin {
                    // Whoever does not listen has ended, which is seen below.
                    let _ = stdin.write_all(line.as_bytes()).await;
                }
                continue;
            }
            status = running.child.wait() => {
                let how = status.map_or_else(|e| e.to_string(), |status| status.to_string());
                tracing::warn!(node = %node.dir.display(), how, "node.ended: it is started again");
            }
        }
        running = loop {
            tokio::select! {
                _ = &mut ended => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
            match spawn(&node) {
                Ok(running) => break running,
                Err(failure) => tracing::error!(%failure, "node.not_started"),
            }
        };
        lines.mark_changed();
        report.send_replace(running.child.id().unwrap_or_default());
    }
}

/// A node drains when its standard input ends: then it also ends with a parent that
/// was killed. (If it is stopped then, the system wakes it: it has become an orphan.)
async fn end(Running { mut child, stdin }: Running, how: End) {
    if how == End::Killed {
        // It may have ended just now.
        let _ = child.kill().await;
        return;
    }
    drop(stdin);
    // A process that stands still drains nothing.
    if let Some(pid) = child.id() {
        let _ = send(pid, Signal::CONT);
    }
    if tokio::time::timeout(DRAIN, child.wait()).await.is_err() {
        tracing::error!("node.killed: it did not drain in time");
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
        .arg("--network-from-stdin")
        // A local cluster is not to write into the database of another.
        .env_remove("POSTGRES_URL")
        .env_remove("QUORATE_STORAGE_POSTGRES_URL")
        .env_remove("QUORATE_STORAGE_POSTGRES_URL_PATH")
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
