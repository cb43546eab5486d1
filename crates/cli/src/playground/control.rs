//! The control of a running `quorate dev`: a Unix socket in the cluster's directory,
//! for its owner only. One line of JSON asks ([`Act`]), one answers ([`Answer`]).

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::act::{Act, Answer, Report};
use crate::failure::{Exit, Failure, Outcome};

/// The longest line either way.
const MAX_LINE: u64 = 1 << 20;

/// An act and where its answer goes.
pub(crate) type Asked = (Act, oneshot::Sender<Answer>);

/// The listening socket. It goes when this is dropped.
pub(crate) struct Control {
    path: PathBuf,
    asked: mpsc::Receiver<Asked>,
    listening: JoinHandle<()>,
}

impl Control {
    /// Listens. The caller holds the lock of the directory, so that what is there was
    /// left by somebody who is gone.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub(crate) fn listen(path: PathBuf) -> Outcome<Self> {
        let cannot = |e: std::io::Error| {
            Failure::failed(format!("cannot listen at {}: {e}", path.display()))
                .hint("a socket's path has at most 107 bytes: choose a shorter --data-dir")
        };
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(cannot(e)),
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(cannot)?;
        // Until now the directory alone, which is private, kept others out.
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(cannot)?;
        let (ask, asked) = mpsc::channel(1);
        let listening = tokio::spawn(accept(listener, ask));
        Ok(Self {
            path,
            asked,
            listening,
        })
    }

    /// The next act.
    pub(crate) async fn next(&mut self) -> Asked {
        match self.asked.recv().await {
            Some(asked) => asked,
            // The listener is gone: nobody can ask any more.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.listening.abort();
        let _ = fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, ask: mpsc::Sender<Asked>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Too many open files, most likely: that passes.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let ask = ask.clone();
        tokio::spawn(async move {
            // Whoever asked and went away needs no answer.
            let _ = converse(stream, &ask).await;
        });
    }
}

async fn converse(stream: UnixStream, ask: &mpsc::Sender<Asked>) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let mut one = (&mut reader).take(MAX_LINE);
        if one.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let answer = match serde_json::from_slice(&line) {
            Ok(act) => {
                let (reply, answer) = oneshot::channel();
                let gone = || Failure::new(Exit::Unavailable, "the cluster is stopping");
                match ask.send((act, reply)).await {
                    Ok(()) => answer.await.unwrap_or_else(|_| Err(gone()).into()),
                    Err(_) => Err(gone()).into(),
                }
            }
            Err(e) => Err(Failure::usage(format!("this is no act: {e}"))).into(),
        };
        let mut text = serde_json::to_vec(&answer)?;
        text.push(b'\n');
        writer.write_all(&text).await?;
    }
}

/// Asks the cluster that runs in this directory for an act.
///
/// # Errors
/// When none runs there, or the act fails.
pub(crate) async fn ask(path: &Path, act: &Act) -> Outcome<Report> {
    let dir = path.parent().unwrap_or(path).display();
    let cannot = |e: std::io::Error| {
        Failure::new(
            Exit::Unavailable,
            format!("no local cluster runs on {dir}: {e}"),
        )
        .hint("start one with `quorate dev`, or name its directory with --data-dir")
    };
    let stream = UnixStream::connect(path).await.map_err(cannot)?;
    let (reader, mut writer) = stream.into_split();
    let mut line = serde_json::to_vec(act).map_err(Failure::failed)?;
    line.push(b'\n');
    writer.write_all(&line).await.map_err(cannot)?;
    let mut answer = Vec::new();
    let mut reader = BufReader::new(reader).take(MAX_LINE);
    reader
        .read_until(b'\n', &mut answer)
        .await
        .map_err(cannot)?;
    let answer: Answer = serde_json::from_slice(&answer).map_err(|_| {
        Failure::new(Exit::Unavailable, "the cluster stopped before it answered")
            .hint("look at the terminal of `quorate dev`")
    })?;
    answer.into()
}
