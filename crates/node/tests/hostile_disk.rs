//! A disk without room, under a process of its own: votes are refused, nothing that was
//! acknowledged is lost, and the node goes on by itself when there is room.
//!
//! The limit on file sizes stands for the disk: to a process it is the same, every
//! write fails, and it needs no privileges.

mod common;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use common::*;
use quorate_consensus::wire::{BallotState, DrainRequest, StatusRequest, SubmitRequest, WaitFor};
use quorate_node::{Config, Node, Parts};
use quorate_proto::v1::operator_service_client::OperatorServiceClient;
use tonic::Code;
use tonic_types::StatusExt as _;

/// Names the configuration file for the child process.
const CONFIG: &str = "QUORATE_TEST_CONFIG";

/// Not a test: what the child process runs. It does nothing in the parent.
#[tokio::test(flavor = "multi_thread")]
async fn the_child_process() {
    let Ok(path) = std::env::var(CONFIG) else {
        return;
    };
    let config = Config::load(Some(Path::new(&path)), &[]).unwrap();
    let parts = tokio::task::block_in_place(|| Parts::open(&config)).unwrap();
    let node = Node::start(parts).await.unwrap();
    assert!(node.in_service().await);
    println!("\nready {}", node.health_addr().unwrap());
    println!("\nstopped {:?}", node.stopped().await);
}

/// A child that dies with its test.
struct Process {
    child: Child,
    health: std::net::SocketAddr,
    says: Receiver<String>,
}

impl Process {
    /// Starts it, deaf to the signal that a write beyond the limit gives, and waits
    /// until it is in service.
    fn start(config: &Path) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "the_child_process", "--nocapture"])
            .env(CONFIG, config)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        let health = lines.find_map(|line| line.strip_prefix("ready ")?.parse().ok());
        let health = health.expect("it did not come into service");
        // Whoever writes to a pipe that nobody reads waits, or dies.
        let (tell, says) = channel();
        std::thread::spawn(move || {
            for line in lines {
                // The test may have ended.
                let _ = tell.send(line);
            }
        });
        Self {
            child,
            health,
            says,
        }
    }

    /// How the node has ended, by its own words.
    fn ended(&self) -> String {
        loop {
            let line = self.says.recv_timeout(Duration::from_secs(60));
            if let Some(how) = line.expect("it ends").strip_prefix("stopped ") {
                return how.to_owned();
            }
        }
    }

    /// From now on no file of its may grow beyond so many bytes.
    fn limit_files(&self, bytes: &str) {
        let limited = Command::new("prlimit")
            .arg(format!("--pid={}", self.child.id()))
            .arg(format!("--fsize={bytes}:unlimited"))
            .status();
        assert!(limited.expect("prlimit runs").success());
    }

    fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn confirmed(cluster: &Cluster, tx_id: &str) -> Result<(), tonic::Status> {
    let request = SubmitRequest {
        wait: WaitFor::Confirmed.into(),
        ..number(tx_id, 1)
    };
    let answer = cluster.client(0).submit(request).await?.into_inner();
    assert_eq!(answer.ballot.unwrap().state(), BallotState::Confirmed);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_votes_loses_nothing_and_passes() {
    let mut cluster = Cluster::new(1, 1);
    let config = cluster.shared().with_file_name("full.toml");
    std::fs::write(&config, cluster.hand_over(0)).unwrap();
    let mut node = Process::start(&config);
    confirmed(&cluster, "before").await.unwrap();

    node.limit_files("0");
    // The first meets the journal as it fails, the others are refused at once.
    for tx_id in ["full1", "full2", "full3"] {
        let status = cluster.client(0).submit(number(tx_id, 1)).await;
        let status = refused(status, Code::Unavailable, "NO_ROOM");
        assert!(status.message().contains("make room"), "{status}");
        assert!(status.get_details_retry_info().is_some());
    }
    // It says so, and answers questions.
    let told = soon("it says what is wrong", async {
        loop {
            let (status, body) = scrape::get(node.health, "/ready").await;
            if status == 503 && body.contains("no_room") {
                return body;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(told.await.contains("make room"));
    let status = StatusRequest {
        tx_id: "before".into(),
    };
    let ballot = cluster.client(0).status(status).await.unwrap().into_inner();
    assert_eq!(ballot.ballot.unwrap().state(), BallotState::Confirmed);
    assert!(node.is_alive(), "a full disk is no crash");

    node.limit_files("unlimited");
    // The same vote again, as it was told to.
    let again = soon("there is room", async {
        while let Err(status) = confirmed(&cluster, "full1").await {
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    again.await;
    assert!(node.is_alive());
    // Killed and started again, it knows all that it acknowledged.
    drop(node);
    let _again = Process::start(&config);
    for tx_id in ["before", "full1"] {
        let other = cluster.client(0).submit(number(tx_id, 2)).await;
        refused(other, Code::FailedPrecondition, "SECOND_CHOICE");
        confirmed(&cluster, tx_id).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_room_drains_like_any_other() {
    let mut cluster = Cluster::new(1, 1);
    let config = cluster.shared().with_file_name("full.toml");
    std::fs::write(&config, cluster.hand_over(0)).unwrap();
    let node = Process::start(&config);
    node.limit_files("0");
    let status = cluster.client(0).submit(number("full", 1)).await;
    refused(status, Code::Unavailable, "NO_ROOM");
    let operator = cluster.channel(0, &cluster.person(0, "operator"));
    let mut operator = OperatorServiceClient::new(operator);
    operator.drain(DrainRequest {}).await.unwrap();
    let ended = tokio::task::spawn_blocking(move || node.ended());
    assert_eq!(ended.await.unwrap(), "Shutdown");
}
