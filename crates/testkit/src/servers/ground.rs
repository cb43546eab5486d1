//! What every server stands on: a directory that goes with the test process, a free
//! port, and a user who may run it.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

/// Where free ports are looked for: below what systems give to outgoing connections,
/// so that a server which is down for a while finds its port free again.
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 12_000;

/// A user of this machine, as whom a server runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct User {
    uid: u32,
    gid: u32,
}

/// A directory for one server, and the watch that ends the server and removes the
/// directory when this process is gone.
pub(super) struct Ground {
    path: PathBuf,
    /// None: as whoever runs the test.
    user: Option<User>,
    /// Its standard input ends with this process; then it acts.
    _watch: Child,
}

impl Ground {
    /// A new directory. If the test runs as root, who must not run some servers, it
    /// belongs to the first of `users` that this machine has (none named: to root). At
    /// the end, `last_words` (lines for `sh`) are run there, by whoever runs the test.
    pub(super) fn new(name: &str, users: &[&str], last_words: &str) -> io::Result<Self> {
        let path = tempfile::Builder::new()
            .prefix(&format!("quorate-{name}-"))
            .tempdir()?
            .keep();
        let user = match fs::metadata(&path)?.uid() {
            0 if !users.is_empty() => Some(first_user(users)?),
            _ => None,
        };
        if let Some(User { uid, gid }) = user {
            chown(&path, Some(uid), Some(gid))?;
        }
        let mut watch = Command::new("sh");
        let script = format!("cat >/dev/null\n{last_words}\ncd /\nrm -rf \"$1\"");
        watch.args(["-c", &script, "watch"]).arg(&path);
        // Not as the server's user, who cannot remove the directory from its parent.
        in_background(&mut watch, &path);
        let watch = watch
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self {
            path,
            user,
            _watch: watch,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file here that only the server's user may read.
    pub(super) fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let path = self.path.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        match self.user {
            Some(User { uid, gid }) => chown(&path, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }

    /// A command that runs here, as the server's user.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some(User { uid, gid }) = self.user {
            command.gid(gid).uid(uid);
        }
        command.env("LC_ALL", "C");
        in_background(&mut command, &self.path);
        command.stdin(Stdio::null());
        command
    }
}

/// Apart from the terminal: Ctrl-C ends the test, and then the watch acts.
fn in_background(command: &mut Command, at: &Path) {
    command.current_dir(at).process_group(0);
}

fn first_user(names: &[&str]) -> io::Result<User> {
    let all = fs::read_to_string("/etc/passwd")?;
    let find = |name: &&str| {
        all.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == *name).then_some(())?;
            let (uid, gid) = (fields.nth(1)?, fields.next()?);
            Some(User {
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
            })
        })
    };
    names.iter().find_map(find).ok_or_else(|| {
        let names = names.join(" nor ");
        io::Error::other(format!("this machine has no user {names} to run it as"))
    })
}

/// A port of 127.0.0.1 where nobody listens now.
pub(super) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes that start together begin at different places.
    let begin = std::process::id().wrapping_mul(37) % u32::from(PORTS);
    for _ in 0..PORTS {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = FIRST_PORT + ((begin + step) % u32::from(PORTS)) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!(
        "no free port between {FIRST_PORT} and {}",
        FIRST_PORT + PORTS
    );
}

/// Sends a signal; some of the processes may be gone by themselves.
pub(super) fn signal(name: &str, pids: &[u32]) {
    if pids.is_empty() {
        return;
    }
    let mut kill = Command::new("kill");
    kill.arg(format!("-{name}"));
    kill.args(pids.iter().map(u32::to_string));
    if let Err(error) = kill.output() {
        panic!("the command kill: {error} (Debian: procps)");
    }
}

/// A program that `tools/setup` may have installed: in `$QUORATE_TOOLS_DIR`, else in
/// the workspace's `target/tools`, else in PATH.
pub(super) fn find_tool(program: &str) -> Option<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools");
    let cache = std::env::var_os("QUORATE_TOOLS_DIR").map(PathBuf::from);
    let installed = cache.into_iter().chain([workspace]);
    let mut installed = installed.map(|tools| tools.join("bin").join(program));
    installed
        .find(|file| file.is_file())
        .or_else(|| find(program, &[]))
}

/// A program by its name: in PATH, or else in the last of the directories given (the
/// newest version).
pub(super) fn find(program: &str, elsewhere: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|dir| dir.join(program));
    let mut all = in_path.chain(elsewhere.iter().rev().map(|dir| dir.join(program)));
    all.find(|file| file.is_file())
}
