//! A PostgreSQL server for tests.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::ground::{Ground, find, free_port, signal};

/// How long a server may take until it answers; the slowest machines are meant.
const PATIENCE: Duration = Duration::from_secs(120);

/// Ends the server that has its data here, if one runs. By its directory, for a number
/// that a killed server left behind may be somebody else's by now.
const LAST_WORDS: &str = r#"
pid=$(head -n 1 data/postmaster.pid 2>/dev/null)
runs() { [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" = "$(pwd -P)/data" ]; }
for signal in QUIT KILL; do
    tries=0
    runs && kill -"$signal" "$pid"
    while runs && [ "$tries" -lt 100 ]; do
        sleep 0.05
        tries=$((tries + 1))
    done
done"#;

/// What a server does before it says that something is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: for tests in which no server dies.
    Fast,
    /// It is on the disk: for tests that kill the server.
    Kept,
}

/// A PostgreSQL server, with a data directory of its own. Whoever connects is believed
/// to be who they say (any password will do); the superuser is `postgres`.
///
/// Every method panics, with the server's log, when the server does not do as asked.
pub struct Postgres {
    ground: Ground,
    binaries: Binaries,
    version: String,
    durability: Durability,
    port: u16,
    running: Mutex<Option<Child>>,
    databases: AtomicU32,
}

impl Postgres {
    /// The server that the tests of one binary share; it starts with the first use.
    /// Each test takes a [`Self::database`] of its own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(Durability::Fast))
    }

    /// A server of one's own, for tests that stop it.
    ///
    /// # Panics
    /// When this machine has no PostgreSQL; the message names the package.
    pub fn start(durability: Durability) -> Self {
        let binaries = Binaries::find();
        let version = text_of(Command::new(binaries.path("postgres")).arg("--version"));
        let version = version.unwrap_or_else(|error| panic!("postgres --version: {error}"));
        let ground = Ground::new("postgres", &["postgres", "nobody"], LAST_WORDS)
            .unwrap_or_else(|error| panic!("no place for a PostgreSQL server: {error}"));
        let mut initdb = ground.command(&binaries.path("initdb"));
        initdb.args("-D data -A trust -U postgres -E UTF8 --locale=C --no-sync".split(' '));
        if let Err(error) = text_of(&mut initdb) {
            panic!("initdb: {error}");
        }
        let server = Self {
            ground,
            binaries,
            version: version.trim().to_owned(),
            durability,
            port: free_port(),
            running: Mutex::new(None),
            databases: AtomicU32::new(0),
        };
        server.start_again();
        eprintln!("{} on port {}", server.version, server.port);
        server
    }

    /// `postgres (PostgreSQL) 15.9` and the like.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Starts the server where it was stopped or killed: same data, same port. Comes
    /// back when it answers.
    pub fn start_again(&self) {
        let mut running = self.running();
        assert!(running.is_none(), "the server runs already");
        let sync = match self.durability {
            Durability::Fast => "off",
            Durability::Kept => "on",
        };
        let log = self.log_file().unwrap_or_else(|error| panic!("{error}"));
        let errors = log.try_clone().unwrap_or_else(|error| panic!("{error}"));
        let socket = self.ground.path().display().to_string();
        let mut command = self.ground.command(&self.binaries.path("postgres"));
        command.args(["-D", "data", "-p", &self.port.to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            &format!("unix_socket_directories={socket}"),
            &format!("fsync={sync}"),
            &format!("synchronous_commit={sync}"),
            &format!("full_page_writes={sync}"),
            "shared_buffers=32MB",
            "max_connections=200",
            "log_line_prefix=%m [%p] %q%u@%d ",
        ] {
            command.args(["-c", setting]);
        }
        command.stdout(log).stderr(errors);
        let child = command.spawn();
        let mut child = child.unwrap_or_else(|error| panic!("postgres does not start: {error}"));
        let begun = Instant::now();
        loop {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("postgres ended at its start ({status}):\n{}", self.log());
            }
            if self.psql("postgres", "SELECT 1").is_ok() {
                break;
            }
            if begun.elapsed() > PATIENCE {
                let _ = child.kill();
                panic!("postgres does not answer:\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(20));
        }
        *running = Some(child);
    }

    /// Stops the server as an operator does: connections are closed, and what was
    /// committed is kept. Comes back when it is gone.
    pub fn stop(&self) {
        let mut child = self.take();
        let mut stop = self.ground.command(&self.binaries.path("pg_ctl"));
        if let Err(error) = text_of(stop.args("stop -D data -m fast -w -t 120".split(' '))) {
            panic!("pg_ctl stop: {error}\n{}", self.log());
        }
        let _ = child.wait();
    }

    /// Kills the server with SIGKILL, with everybody that works for it, as a machine
    /// that loses its power does. Comes back when they are gone.
    pub fn kill(&self) {
        let mut server = self.take();
        let pid = server.id();
        // Halted first, so that it has no more children than are found here.
        signal("STOP", &[pid]);
        let mut all = children(pid);
        all.push(pid);
        signal("KILL", &all);
        let _ = server.wait();
        let begun = Instant::now();
        while all.iter().any(|pid| lives(*pid)) {
            assert!(begun.elapsed() < PATIENCE, "SIGKILL was not enough");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// A fresh, empty database on this server.
    pub fn database(&self) -> Database {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{number}");
        let made = self.psql("postgres", &format!("CREATE DATABASE {name}"));
        made.unwrap_or_else(|error| panic!("{error}"));
        Database {
            name,
            port: self.port,
            psql: self.binaries.path("psql"),
        }
    }

    /// Lets the server speak TLS too, with this certificate and key (PEM). Comes back
    /// when it does.
    pub fn use_tls(&self, certificate: &str, key: &str) {
        let written = self
            .ground
            .write("data/server.crt", certificate)
            .and_then(|()| self.ground.write("data/server.key", key));
        written.unwrap_or_else(|error| panic!("{error}"));
        for sql in ["ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()"] {
            let done = self.psql("postgres", sql);
            done.unwrap_or_else(|error| panic!("{error}"));
        }
        // New sessions find it on when the server has read its settings again.
        let begun = Instant::now();
        while self.psql("postgres", "SHOW ssl").as_deref() != Ok("on\n") {
            assert!(begun.elapsed() < PATIENCE, "no TLS:\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Makes `to` what `from` is now: a backup, or one put back. Nobody may be connected
    /// to either.
    pub fn copy(&self, from: &Database, to: &Database) {
        let (from, to) = (&from.name, &to.name);
        for sql in [
            format!("DROP DATABASE {to} WITH (FORCE)"),
            format!("CREATE DATABASE {to} TEMPLATE {from}"),
        ] {
            let done = self.psql("postgres", &sql);
            done.unwrap_or_else(|error| panic!("{error}"));
        }
    }

    /// What the server has written to its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.ground.path().join("log")).unwrap_or_default()
    }

    fn log_file(&self) -> std::io::Result<File> {
        let path = self.ground.path().join("log");
        OpenOptions::new().create(true).append(true).open(path)
    }

    fn psql(&self, database: &str, sql: &str) -> Result<String, String> {
        psql(&self.binaries.path("psql"), self.port, database, sql)
    }

    fn running(&self) -> MutexGuard<'_, Option<Child>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Child {
        self.running().take().expect("the server runs")
    }
}

/// A database of its own for one test.
pub struct Database {
    name: String,
    port: u16,
    psql: PathBuf,
}

impl Database {
    /// Its name, which no other database of this server has.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is, as the superuser.
    pub fn url(&self) -> String {
        self.url_as("postgres")
    }

    /// Where it is, as somebody else.
    pub fn url_as(&self, role: &str) -> String {
        let Self { name, port, .. } = self;
        format!("postgresql://{role}@127.0.0.1:{port}/{name}")
    }

    /// The port of its server, for who wants to stand between.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs SQL as the superuser; gives what it prints, without headings, columns set
    /// apart by `|`.
    ///
    /// # Errors
    /// What the server says when it refuses.
    pub fn sql(&self, statement: &str) -> Result<String, String> {
        psql(&self.psql, self.port, &self.name, statement)
    }
}

fn psql(program: &Path, port: u16, database: &str, sql: &str) -> Result<String, String> {
    let mut command = Command::new(program);
    let port = port.to_string();
    command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]);
    command.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port]);
    command.args(["-d", database, "-c", sql]);
    text_of(&mut command)
}

/// The programs of one version of PostgreSQL.
struct Binaries(PathBuf);

impl Binaries {
    fn find() -> Self {
        // Debian keeps the versions apart, and puts none of them into PATH.
        let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let version = entry.file_name().to_str()?.parse().ok()?;
                Some((version, entry.path().join("bin")))
            })
            .collect();
        versions.sort();
        let directories: Vec<_> = versions.into_iter().map(|(_, path)| path).collect();
        let initdb = find("initdb", &directories).and_then(|file| file.canonicalize().ok());
        let directory = initdb.as_deref().and_then(Path::parent);
        let directory = directory.unwrap_or_else(|| {
            panic!(
                "this test needs a PostgreSQL server, and there is none in PATH or under \
                 /usr/lib/postgresql: install it (Debian: apt-get install postgresql)"
            )
        });
        Self(directory.to_owned())
    }

    fn path(&self, program: &str) -> PathBuf {
        self.0.join(program)
    }
}

/// What a command prints; or else what it complains of.
fn text_of(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

/// Processes whose parent this is.
fn children(parent: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").into_iter().flatten();
    all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| stat(*pid).is_some_and(|(_, of)| of == parent))
        .collect()
}

fn lives(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

/// State and parent of a process.
fn stat(pid: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_apart_and_outlive_stop_and_kill() {
        let server = Postgres::start(Durability::Kept);
        let (one, other) = (server.database(), server.database());
        one.sql("CREATE TABLE kept (a INTEGER); INSERT INTO kept VALUES (1)")
            .expect("it is made");
        other.sql("SELECT * FROM kept").expect_err("another's");
        server.stop();
        one.sql("SELECT 1").expect_err("it is stopped");
        server.start_again();
        assert_eq!(one.sql("SELECT a FROM kept").as_deref(), Ok("1\n"));
        one.sql("INSERT INTO kept VALUES (2)").expect("it is up");
        server.kill();
        one.sql("SELECT 1").expect_err("it is killed");
        server.start_again();
        let sum = one.sql("SELECT sum(a) FROM kept");
        assert_eq!(sum.as_deref(), Ok("3\n"));
        assert!(server.log().contains("not properly shut down"));
    }

    const CHILD: &str = "QUORATE_TESTKIT_CHILD";

    /// Not a test of its own: what `it_dies_with_its_process` starts and kills.
    #[test]
    fn child_with_a_server() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        let server = Postgres::start(Durability::Fast);
        println!("\nat {}", server.ground.path().display());
        loop {
            thread::park();
        }
    }

    #[test]
    fn it_dies_with_its_process() {
        use std::io::{BufRead, BufReader};
        use std::process::Stdio;

        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "--nocapture"])
            .arg("servers::postgres::tests::child_with_a_server")
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        let path = out.lines().find_map(|line| {
            let line = line.expect("a line");
            line.strip_prefix("at ").map(PathBuf::from)
        });
        let path = path.expect("a path");
        let pid = fs::read_to_string(path.join("data/postmaster.pid")).expect("it runs");
        let pid = pid.lines().next().and_then(|line| line.parse().ok());
        let pid = pid.expect("a number");
        assert!(lives(pid));
        child.kill().expect("SIGKILL");
        let _ = child.wait();
        let begun = Instant::now();
        while lives(pid) || path.exists() {
            assert!(begun.elapsed() < PATIENCE, "the server outlives the test");
            thread::sleep(Duration::from_millis(20));
        }
    }
}
