//! The binary as a user runs it, and a `quorate dev` in a process of its own. Nothing
//! here sleeps for a fixed time: conditions are looked at until they hold.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Long enough for a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a run of the binary gave.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }

    /// It ended so.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self
    }

    /// Its answer.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("no JSON: {e}\n{}\n{}", self.stdout, self.stderr))
    }

    /// Its error, as `--json` gives it.
    #[track_caller]
    pub(crate) fn error(&self) -> Value {
        let line = self.stderr.lines().last().unwrap_or_default();
        let json: Value = serde_json::from_str(line)
            .unwrap_or_else(|e| panic!("no JSON error: {e}\n{}", self.stderr));
        json["error"].clone()
    }
}

/// A home directory of a user who has never run the binary.
pub(crate) struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self { dir }
    }

    /// One with what [`enrol`] makes in it.
    pub(crate) fn enrolled() -> Self {
        let home = Self::new();
        enrol(&home);
        home
    }

    /// What a certificate says.
    pub(crate) fn certificate(&self, file: &str) -> Value {
        let show = ["certs", "show", file, "--json"];
        self.run(&show).expect(0).json()
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The binary, in this home, with nothing of the surroundings' settings.
    pub(crate) fn command(&self) -> Command {
        self.command_of(env!("CARGO_BIN_EXE_quorate"))
    }

    /// The same for another program.
    pub(crate) fn command_of(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("QUORATE_") || name.starts_with("XDG_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command
            .env("HOME", self.path())
            .current_dir(self.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs the binary to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Run {
        Run::of(self.command().args(args).output().expect("the binary runs"))
    }

    pub(crate) fn contexts(&self) -> PathBuf {
        self.path().join(".config/quorate/contexts.toml")
    }
}

/// Looks until something is there.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A `quorate dev` in a process of its own.
pub(crate) struct Dev {
    child: Child,
    ready: PathBuf,
}

impl Dev {
    /// Starts it and waits until all nodes are in service.
    pub(crate) fn start(home: &Home, args: &[&str]) -> Self {
        let ready = home.path().join("ready.json");
        // Of an earlier one.
        let _ = std::fs::remove_file(&ready);
        let log = std::fs::File::create(home.path().join("dev.log")).expect("a log");
        let child = home
            .command()
            .args(["dev", "--data-dir", "cluster", "--base-port", "0"])
            .arg("--ready-file")
            .arg(&ready)
            .args(args)
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("the binary runs");
        let mut dev = Self { child, ready };
        until("the ready file", || {
            if let Some(status) = dev.child.try_wait().expect("a child") {
                let log = std::fs::read_to_string(home.path().join("dev.log"));
                panic!("dev ended with {status}: {}", log.unwrap_or_default());
            }
            dev.ready.exists().then_some(())
        });
        dev
    }

    /// What the ready file says now.
    pub(crate) fn ready(&self) -> Value {
        let text = std::fs::read_to_string(&self.ready).expect("a ready file");
        serde_json::from_str(&text).expect("a whole ready file")
    }

    /// A node in the ready file.
    pub(crate) fn node(&self, number: usize) -> Value {
        self.ready()["nodes"][number - 1].clone()
    }

    /// The process of a node.
    pub(crate) fn pid(&self, number: usize) -> u64 {
        self.node(number)["pid"].as_u64().expect("a pid")
    }

    /// The process of `dev` itself.
    pub(crate) fn own_pid(&self) -> u64 {
        self.child.id().into()
    }

    /// Asks it to stop and gives its exit code.
    pub(crate) fn terminate(mut self) -> i32 {
        signal(self.child.id().into(), "TERM");
        let status = until("dev to end", || self.child.try_wait().expect("a child"));
        status.code().unwrap_or(-1)
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Its nodes end with it: they watch their standard input.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to one process.
pub(crate) fn signal(pid: u64, name: &str) {
    let status = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(pid.to_string())
        .status()
        .expect("kill runs");
    assert!(status.success(), "no signal to {pid}");
}

/// Whether there is such a process. One that has ended and that nobody has waited for
/// yet is none: it holds nothing any more.
pub(crate) fn is_alive(pid: u64) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // Its name stands in brackets, and may hold some itself.
    let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    !state.starts_with(['Z', 'X'])
}

/// Waits until a process has ended: its files and its ports are free then.
#[track_caller]
pub(crate) fn until_gone(pid: u64) {
    let what = format!("process {pid} to be gone");
    until(&what, || (!is_alive(pid)).then_some(()));
}

/// What a node says of a ballot, once it is as wanted.
#[track_caller]
pub(crate) fn until_status(
    home: &Home,
    node: &str,
    tx_id: &str,
    is_so: impl Fn(&Value) -> bool,
) -> Value {
    until(&format!("{tx_id} to be as wanted at {node}"), || {
        let run = home.run(&["status", tx_id, "--node", node, "--json"]);
        let ballot = (run.code == 0).then(|| run.json())?;
        is_so(&ballot).then_some(ballot)
    })
}

/// Waits until a node has a stream to each of the others.
#[track_caller]
pub(crate) fn until_streams(home: &Home, node: &str) -> Value {
    until(&format!("{node} to have all streams"), || {
        let run = home.run(&["peers", "--node", node, "--json"]);
        let peers = (run.code == 0).then(|| run.json())?;
        let mut all = peers["peers"].as_array()?.iter();
        all.all(|peer| peer["connected"] == true).then_some(peers)
    })
}

/// CA, request, certificate, client, rules: in `certs/` and `genesis.rules`, for one
/// trustee. Gives the cluster id.
pub(crate) fn enrol(home: &Home) -> String {
    home.run(&["certs", "init", "--cluster", "solo"]).expect(0);
    let request = [
        "certs",
        "request",
        "--cluster",
        "solo",
        "--node-id",
        "alone",
    ];
    let made = home
        .run(&[&request[..], &["--json"]].concat())
        .expect(0)
        .json();
    assert_eq!(made["csr"], "certs/alone.csr");
    // Keys are never overwritten.
    home.run(&request).expect(1);
    home.run(&["certs", "sign", "--node-id", "alone"]).expect(0);
    home.run(&["certs", "issue", "--node-id", "alone", "--name", "app"])
        .expect(0);
    let init = [
        "rules",
        "init",
        "--cluster",
        "solo",
        "--threshold",
        "1",
        "--members",
        "certs",
        "-o",
        "genesis.rules",
    ];
    let rules = home
        .run(&[&init[..], &["--json"]].concat())
        .expect(0)
        .json();
    assert_eq!(rules["threshold"], 1);
    assert_eq!(rules["members"][0]["node_id"], "alone");
    rules["cluster_id"].as_str().expect("an id").to_owned()
}

/// An address where nobody listens. No port that was free a moment ago: others who ask
/// the system for a free one may be given it.
pub(crate) const NOBODY: &str = "127.0.0.1:1";
