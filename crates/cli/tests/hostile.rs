//! What people do to a node by mistake: start it twice, on a port that is taken, or in a
//! directory that it may not write. Each is refused with what to do, and the node that
//! runs goes on.

mod common;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Dev, Home, Run, until, until_gone};

/// Runs `quorate run` for a node of a dev cluster, which must refuse to start.
fn refused(home: &Home, config: &Path, set: &[&str]) -> Run {
    let mut command = home.command();
    command.arg("run").arg("--config").arg(config);
    for setting in set {
        command.args(["--set", setting]);
    }
    ended(command)
}

/// Its output; a node that starts all the same is ended, and the test fails.
fn ended(mut command: Command) -> Run {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    let status = until("it to refuse", || {
        let ended = child.try_wait().expect("a child");
        ended.or_else(|| {
            let started = Path::new(&format!("/proc/{}", child.id())).exists();
            assert!(started, "it is there until it is waited for");
            None
        })
    });
    let output = child.wait_with_output().expect("its output");
    assert_eq!(output.status, status);
    Run {
        code: status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

fn config_of(home: &Home, node: &str) -> PathBuf {
    let config = home.path().join("cluster").join(node).join("config.toml");
    assert!(config.exists(), "{}", config.display());
    config
}

#[test]
fn a_second_start_is_refused_and_the_first_goes_on() {
    let home = Home::new();
    let dev = Dev::start(&home, &["--processes", "--nodes", "3"]);
    let config = config_of(&home, "node1");
    let endpoint = dev.node(1)["endpoint"].as_str().expect("text").to_owned();

    // As it is: the port is taken.
    let again = refused(&home, &config, &[]).expect(1);
    let taken = format!("cannot listen on {endpoint} (node.listen_addr)");
    assert!(again.stderr.contains(&taken), "{}", again.stderr);
    assert!(again.stderr.contains("ss -ltnp"), "{}", again.stderr);
    // The health port, too.
    let free = "node.listen_addr=127.0.0.1:0";
    let again = refused(&home, &config, &[free]).expect(1);
    assert!(
        again.stderr.contains("(node.health_addr)"),
        "{}",
        again.stderr
    );
    // On ports of its own: the data directory is.
    let again = refused(&home, &config, &[free, "node.health_addr=none"]).expect(1);
    let words = "another process is using the data directory";
    assert!(again.stderr.contains(words), "{}", again.stderr);
    assert!(again.stderr.contains("stop the other"), "{}", again.stderr);
    // Another node in its directory, by a slip in a copied file.
    let data = config.with_file_name("data");
    let slip = format!("node.data_dir={}", data.display());
    let other = config_of(&home, "node2");
    let other = refused(&home, &other, &[free, "node.health_addr=none", &slip]).expect(1);
    assert!(other.stderr.contains(words), "{}", other.stderr);

    // The node that runs has not noticed.
    let voted = ["vote", "tx", "--value", "1", "--node", "node1", "--json"];
    home.run(&voted).expect(0);
    let pid = dev.pid(1);
    drop(dev);
    // Nor may another node take the directory over when it is free: a node lets go of its
    // port before it lets go of that.
    until_gone(pid);
    let other = config_of(&home, "node2");
    let other = refused(&home, &other, &[free, "node.health_addr=none", &slip]).expect(1);
    let words = "the journal belongs to node1";
    assert!(other.stderr.contains(words), "{}", other.stderr);
}

/// The binary where another user may run it, and a command that does: nobody, if this is
/// root, who may write everywhere.
fn as_who_may_not_write(home: &Home) -> Command {
    let user = std::fs::metadata("/proc/self").expect("a process").uid();
    if user != 0 {
        return home.command();
    }
    let binary = home.path().join("quorate");
    // By a process of its own: a file that this one has open for writing may be so in a
    // child that another test starts at this moment, too, and could not be run then.
    let copied = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_quorate"))
        .arg(&binary)
        .status();
    assert!(copied.expect("cp runs").success());
    let run = |program: &str, args: &[&str]| {
        let status = Command::new(program)
            .args(args)
            .arg(home.path())
            .status()
            .expect("it runs");
        assert!(status.success(), "{program}");
    };
    run("chown", &["-R", "65534:65534"]);
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(binary)
        .env("HOME", home.path())
        .current_dir(home.path())
        .stdin(Stdio::null());
    command
}

#[test]
fn a_data_directory_that_may_not_be_written_is_named() {
    let home = Home::new();
    let dev = Dev::start(&home, &["--processes", "--nodes", "1", "--threshold", "1"]);
    home.run(&["vote", "tx", "--value", "1", "--wait", "confirmed"])
        .expect(0);
    let pid = dev.pid(1);
    drop(dev);
    until_gone(pid);
    let config = config_of(&home, "node1");
    let data = config.with_file_name("data");
    let run = |set: Option<&str>| {
        let mut command = as_who_may_not_write(&home);
        command.arg("run").arg("--config").arg(&config);
        let free = ["node.listen_addr=127.0.0.1:0", "node.health_addr=none"];
        for setting in free.into_iter().chain(set) {
            command.args(["--set", setting]);
        }
        command
    };
    let mode = |path: &Path, mode: &str| {
        let changed = Command::new("chmod").args(["-R", mode]).arg(path).status();
        assert!(changed.expect("chmod runs").success());
    };
    // What is there, made read-only as a mistaken chmod or mount does.
    mode(&data, "a-w");
    let there = ended(run(None)).expect(1);
    assert!(
        there.stderr.contains("Permission denied"),
        "{}",
        there.stderr
    );
    assert!(there.stderr.contains("write access"), "{}", there.stderr);
    assert!(
        there.stderr.contains(&data.display().to_string()),
        "{}",
        there.stderr
    );
    // One that cannot be made.
    let inside = format!("node.data_dir={}", data.join("inside").display());
    let new = ended(run(Some(&inside))).expect(1);
    assert!(new.stderr.contains("write access"), "{}", new.stderr);
    // Given back, all is as it was.
    mode(&data, "u+w");
    let mut command = run(None);
    let log = std::fs::File::create(home.path().join("run.log")).expect("a log");
    let mut child = command
        .arg("--until-stdin-ends")
        .stdin(Stdio::piped())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .spawn()
        .expect("it runs");
    until("it to start", || {
        let said = std::fs::read_to_string(home.path().join("run.log")).expect("a log");
        let ended = child.try_wait().expect("a child");
        assert!(ended.is_none(), "{said}");
        said.contains("listens at").then_some(())
    });
    drop(child.stdin.take());
    let ended = until("it to end", || child.try_wait().expect("a child"));
    assert!(ended.success());
}
