//! An etcd cluster for tests: members that are killed, halted, started again, and put
//! back to an older state of their data.
//!
//! All methods block: an async test on one thread calls them by `spawn_blocking`, or
//! its own tasks stand still meanwhile.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::certificates::Certificates;
use super::ground::{Ground, find_tool, free_port, signal};

mod gateway;
mod launch;
mod options;
mod process;
mod users;

pub use options::{EtcdOptions, EtcdTls, EtcdUser};

use launch::LAST_WORDS;
use options::{PREFIX, ROOT, USER};
use process::{all_halted, copy_directory};

/// How long a member may take until it answers; the slowest machines are meant.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often a state is looked at that one waits for.
const LOOK: Duration = Duration::from_millis(20);

/// A copy of all members' data; goes with the cluster that it is of.
pub struct Snapshot(PathBuf);

/// One or more etcd members on this machine.
///
/// Members are numbered from 0. Every method panics, with a member's log, when etcd
/// does not do as asked within two minutes.
pub struct Etcd {
    ground: Ground,
    options: EtcdOptions,
    binary: PathBuf,
    version: String,
    ports: Vec<Ports>,
    tls: Option<EtcdTls>,
    processes: Mutex<Vec<Process>>,
    snapshots: AtomicU32,
    prefixes: AtomicU32,
}

#[derive(Clone, Copy)]
struct Ports {
    /// For clients.
    client: u16,
    /// For this module: always plain text.
    gateway: u16,
    /// For the other members.
    peer: u16,
}

enum Process {
    Gone,
    Running(Child),
    /// By SIGSTOP.
    Paused(Child),
}

impl Etcd {
    /// The one-member cluster that the tests of one binary share; it starts with the
    /// first use. Each test takes a [`Self::fresh_prefix`], and kills nobody.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Etcd> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(EtcdOptions::default()))
    }

    /// A cluster of so many members, in plain text and without users.
    pub fn of(members: usize) -> Self {
        Self::start(EtcdOptions {
            members,
            ..EtcdOptions::default()
        })
    }

    /// Starts a cluster; comes back when every member answers.
    ///
    /// # Panics
    /// When this machine has no etcd; the message says how to get one.
    pub fn start(options: EtcdOptions) -> Self {
        assert!((1..=9).contains(&options.members), "1 to 9 members");
        let binary = find_tool("etcd").unwrap_or_else(|| {
            panic!(
                "this test needs an etcd, and there is none in $QUORATE_TOOLS_DIR/bin, in \
                 target/tools/bin or in PATH: run tools/setup test, which builds one with Go, \
                 or install one (Debian: apt-get install etcd-server)"
            )
        });
        let version = version(&binary);
        let ground = Ground::new("etcd", &[], LAST_WORDS)
            .unwrap_or_else(|error| panic!("no place for etcd: {error}"));
        let tls = options.tls.then(|| {
            let certificates = Certificates::new(&ground.path().join("tls"));
            certificates.server("etcd");
            let client = certificates.client(USER.name);
            EtcdTls {
                certificates,
                client,
            }
        });
        let ports = std::iter::repeat_with(|| Ports {
            client: free_port(),
            gateway: free_port(),
            peer: free_port(),
        });
        let cluster = Self {
            ports: ports.take(options.members).collect(),
            processes: Mutex::new((0..options.members).map(|_| Process::Gone).collect()),
            ground,
            options,
            binary,
            version,
            tls,
            snapshots: AtomicU32::new(0),
            prefixes: AtomicU32::new(0),
        };
        eprintln!("etcd {} at {:?}", cluster.version, cluster.endpoints());
        for member in 0..cluster.options.members {
            cluster.launch(&mut cluster.processes(), member);
        }
        cluster.wait_healthy();
        if cluster.options.auth {
            cluster.enable_auth();
        }
        cluster
    }

    /// `3.6.8` and the like.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where clients find the members, as URLs.
    pub fn endpoints(&self) -> Vec<String> {
        (0..self.ports.len()).map(|at| self.endpoint(at)).collect()
    }

    /// Where clients find one member, as a URL.
    pub fn endpoint(&self, member: usize) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port(member))
    }

    /// A member's port for clients, for who wants to stand between.
    pub fn port(&self, member: usize) -> u16 {
        self.ports[member].client
    }

    /// With which files clients speak to the members; `None` in plain text.
    pub fn tls(&self) -> Option<&EtcdTls> {
        self.tls.as_ref()
    }

    /// The user who may read and write what is below `/quorate/`; `None` without users.
    pub fn user(&self) -> Option<EtcdUser> {
        self.options.auth.then_some(USER)
    }

    /// The user who may do everything; `None` without users.
    pub fn root(&self) -> Option<EtcdUser> {
        self.options.auth.then_some(ROOT)
    }

    /// A prefix below `/quorate/` that this cluster has not given before.
    pub fn fresh_prefix(&self) -> String {
        let number = self.prefixes.fetch_add(1, Ordering::Relaxed);
        format!("{PREFIX}test-{number}")
    }

    /// Kills a member with SIGKILL, as a machine that loses its power does. Comes back
    /// when it is gone.
    pub fn kill(&self, member: usize) {
        Self::end(&mut self.processes()[member]);
    }

    /// Ends a member as an operator does, who lets it finish. Comes back when it is gone.
    pub fn stop(&self, member: usize) {
        let mut processes = self.processes();
        let mut child = match std::mem::replace(&mut processes[member], Process::Gone) {
            Process::Running(child) => child,
            _ => panic!("member {member} does not run"),
        };
        signal("TERM", &[child.id()]);
        let _ = child.wait();
    }

    /// Starts a member that was killed or stopped, with its data and ports. Comes back
    /// when all members that run answer; at once, if they are too few to answer.
    pub fn restart(&self, member: usize) {
        let mut processes = self.processes();
        self.launch(&mut processes, member);
        let running = processes.iter().filter(|p| p.child().is_some()).count();
        drop(processes);
        if running > self.options.members / 2 {
            self.wait_healthy();
        }
    }

    /// Halts a member with SIGSTOP: its connections stay, and it answers nothing.
    pub fn pause(&self, member: usize) {
        let process = &mut self.processes()[member];
        *process = match std::mem::replace(process, Process::Gone) {
            Process::Running(child) => {
                halt(&[child.id()]);
                Process::Paused(child)
            }
            _ => panic!("member {member} does not run"),
        };
    }

    /// Lets a halted member go on.
    pub fn resume(&self, member: usize) {
        let process = &mut self.processes()[member];
        *process = match std::mem::replace(process, Process::Gone) {
            Process::Paused(child) => {
                signal("CONT", &[child.id()]);
                Process::Running(child)
            }
            _ => panic!("member {member} is not halted"),
        };
    }

    /// Whether a member's process is there; one that gave up by itself is not.
    pub fn runs(&self, member: usize) -> bool {
        match &mut self.processes()[member] {
            Process::Gone => false,
            Process::Running(child) | Process::Paused(child) => {
                matches!(child.try_wait(), Ok(None))
            }
        }
    }

    /// Waits until every member that runs answers with a quorum behind it.
    pub fn wait_healthy(&self) {
        self.wait_until("it does not answer", |member| {
            gateway::healthy(self.ports[member].gateway)
        });
    }

    /// The member that leads: a majority says so, and itself.
    pub fn leader(&self) -> usize {
        let begun = Instant::now();
        loop {
            if let Some(leader) = self.find_leader() {
                return leader;
            }
            self.patient(begun, self.answering().first().copied(), "nobody leads");
        }
    }

    /// Copies all members' data as it is at one moment, at which all are halted.
    pub fn snapshot(&self) -> Snapshot {
        let number = self.snapshots.fetch_add(1, Ordering::Relaxed);
        let to = self.ground.path().join(format!("snapshot{number}"));
        let processes = self.processes();
        let running: Vec<u32> = processes.iter().filter_map(Process::child).collect();
        halt(&running);
        for member in 0..self.options.members {
            let copied = copy_directory(&self.data(member), &to.join(member.to_string()));
            copied.unwrap_or_else(|error| panic!("the data of member {member}: {error}"));
        }
        signal("CONT", &running);
        drop(processes);
        if running.len() > self.options.members / 2 {
            self.wait_healthy();
        }
        Snapshot(to)
    }

    /// Puts an older state of the whole cluster back, as an operator does with a
    /// backup: all members are killed and started with that data. Comes back when they
    /// answer.
    pub fn restore_older(&self, snapshot: &Snapshot) {
        for member in 0..self.options.members {
            self.put_back(snapshot, member);
        }
        let mut processes = self.processes();
        for member in 0..self.options.members {
            self.launch(&mut processes, member);
        }
        drop(processes);
        self.wait_healthy();
    }

    /// Puts an older state of one member back and starts it. Comes back at once: an
    /// etcd that finds that it has lost entries which it had acknowledged may give up
    /// (see [`Self::runs`]), and may be led into worse.
    pub fn restore_older_member(&self, snapshot: &Snapshot, member: usize) {
        self.put_back(snapshot, member);
        self.launch(&mut self.processes(), member);
    }

    /// Forgets all revisions before the current one, as an operator's compaction does;
    /// gives that revision. Comes back when the old ones are gone from the disk.
    pub fn compact(&self) -> u64 {
        let leader = self.leader();
        let status = self.ask(leader, "/v3/maintenance/status", json!({}));
        let revision = status["header"]["revision"].as_str();
        let revision = revision.and_then(|text| text.parse().ok());
        let revision: u64 = revision.unwrap_or_else(|| panic!("no revision in {status}"));
        let body = json!({"revision": revision.to_string(), "physical": true});
        self.ask(leader, "/v3/kv/compaction", body);
        revision
    }

    /// Writes a key past everybody, as somebody who has access and asks nobody.
    pub fn put(&self, key: &str, value: &[u8]) {
        let body = json!({
            "key": gateway::base64(key.as_bytes()),
            "value": gateway::base64(value),
        });
        self.ask(self.leader(), "/v3/kv/put", body);
    }

    /// Asks a member's JSON gateway, as root when there are users:
    /// `ask(0, "/v3/maintenance/status", json!({}))`. Bytes are Base64 there.
    pub fn ask(&self, member: usize, path: &str, body: Value) -> Value {
        self.try_ask(member, path, &body)
            .unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.log(member)))
    }

    /// Where the members have their data, logs and numbers (`member0/pid`).
    pub fn directory(&self) -> &Path {
        self.ground.path()
    }

    /// What a member has written to its log so far.
    pub fn log(&self, member: usize) -> String {
        fs::read_to_string(self.place(member).join("log")).unwrap_or_default()
    }
}

/// The parts.
impl Etcd {
    fn place(&self, member: usize) -> PathBuf {
        self.ground.path().join(format!("member{member}"))
    }

    fn data(&self, member: usize) -> PathBuf {
        self.place(member).join("data")
    }

    fn processes(&self) -> MutexGuard<'_, Vec<Process>> {
        self.processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn end(process: &mut Process) {
        match std::mem::replace(process, Process::Gone) {
            Process::Gone => {}
            Process::Running(mut child) | Process::Paused(mut child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }

    fn put_back(&self, snapshot: &Snapshot, member: usize) {
        self.kill(member);
        let data = self.data(member);
        let copied = fs::remove_dir_all(&data)
            .and_then(|()| copy_directory(&snapshot.0.join(member.to_string()), &data));
        copied.unwrap_or_else(|error| panic!("the data of member {member}: {error}"));
    }

    /// The members that run and are not halted.
    fn answering(&self) -> Vec<usize> {
        let processes = self.processes();
        let answering = |member: &usize| processes[*member].child().is_some();
        (0..processes.len()).filter(answering).collect()
    }

    fn wait_until(&self, otherwise: &str, is: impl Fn(usize) -> bool) {
        let begun = Instant::now();
        for member in self.answering() {
            while !is(member) {
                assert!(self.runs(member), "etcd gave up:\n{}", self.log(member));
                self.patient(begun, Some(member), otherwise);
            }
        }
    }

    fn patient(&self, begun: Instant, member: Option<usize>, otherwise: &str) {
        if begun.elapsed() > PATIENCE {
            let log = member.map_or(String::new(), |member| self.log(member));
            panic!("etcd: {otherwise}\n{log}");
        }
        thread::sleep(LOOK);
    }

    fn find_leader(&self) -> Option<usize> {
        let mut says = Vec::new();
        for member in self.answering() {
            let status = self.try_ask(member, "/v3/maintenance/status", &json!({}));
            let Ok(status) = status else { continue };
            // Who knows of no leader leaves the field out.
            if let Some(leader) = status["leader"].as_str() {
                let own = status["header"]["member_id"].as_str().unwrap_or_default();
                says.push((member, own.to_owned(), leader.to_owned()));
            }
        }
        let (leader, id, _) = says.iter().find(|(_, own, leader)| own == leader)?;
        let followers = says.iter().filter(|(_, _, leader)| leader == id).count();
        (followers > self.options.members / 2).then_some(*leader)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.processes().iter_mut().for_each(Self::end);
    }
}

impl Process {
    /// The process's number, if it runs and is not halted.
    fn child(&self) -> Option<u32> {
        match self {
            Self::Running(child) => Some(child.id()),
            Self::Gone | Self::Paused(_) => None,
        }
    }
}

fn halt(pids: &[u32]) {
    signal("STOP", pids);
    let begun = Instant::now();
    while !all_halted(pids) {
        assert!(begun.elapsed() < PATIENCE, "SIGSTOP was not enough");
        thread::sleep(Duration::from_millis(1));
    }
}

fn version(binary: &Path) -> String {
    let output = Command::new(binary).arg("--version").output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
    let text = String::from_utf8_lossy(&output.stdout);
    let first = text.lines().next().unwrap_or_default();
    first.rsplit(' ').next().unwrap_or_default().to_owned()
}
