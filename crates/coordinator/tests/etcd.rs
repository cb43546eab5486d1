//! The etcd backend keeps what every coordinator promises, on real servers: three
//! members, the leading one of which is killed and started again all the while; and
//! through a proxy that loses replies after it has forwarded the requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use async_trait::async_trait;
use quorate_consensus::Rules;
use quorate_coordinator::etcd::{Options, Plain};
use quorate_coordinator::suite::{Builder, Store, run_all};
use quorate_coordinator::{Coordinator, Etcd};
use quorate_testkit::FakeVerifier;
use quorate_testkit::servers;

/// Stores on one cluster of servers, each under a prefix of its own.
struct Prefixes {
    servers: Arc<servers::Etcd>,
    endpoints: Vec<String>,
    trouble: SyncSender<()>,
    made: AtomicU64,
}

struct Prefix {
    servers: Arc<servers::Etcd>,
    endpoints: Vec<String>,
    prefix: String,
    rules: Arc<Rules>,
}

#[async_trait]
impl Builder for Prefixes {
    async fn store(&self, rules: Arc<Rules>) -> Box<dyn Store> {
        // While the check runs on the new store, and only if it is not under way.
        let _ = self.trouble.try_send(());
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        Box::new(Prefix {
            servers: Arc::clone(&self.servers),
            endpoints: self.endpoints.clone(),
            prefix: format!("/suite/{number}/"),
            rules,
        })
    }
}

#[async_trait]
impl Store for Prefix {
    async fn handle(&self) -> Arc<dyn Coordinator> {
        let mut options = Options::new(self.endpoints.clone(), "test");
        options.prefix.clone_from(&self.prefix);
        // A killed leader takes a while to be replaced, on a slow machine longer.
        options.propose_timeout = std::time::Duration::from_secs(60);
        let opened = Etcd::open(
            options,
            Arc::clone(&self.rules),
            Arc::new(FakeVerifier),
            Arc::new(Plain),
        );
        Arc::new(opened.await.expect("etcd opens"))
    }

    async fn restart(&self) {
        let servers = Arc::clone(&self.servers);
        // The others are killed one after the other anyhow.
        let restarted = tokio::task::spawn_blocking(move || servers.wait_healthy());
        restarted.await.expect("etcd is well");
    }
}

/// Kills the leading member and starts it again each time that it is told to, and is
/// not at it already.
fn troubler(servers: Arc<servers::Etcd>) -> (SyncSender<()>, JoinHandle<u32>) {
    let (tell, told) = sync_channel(1);
    let running = thread::spawn(move || {
        let mut kills = 0;
        while told.recv().is_ok() {
            if kills == MOST_KILLS {
                continue;
            }
            let leader = servers.leader();
            servers.kill(leader);
            servers.restart(leader);
            servers.wait_healthy();
            kills += 1;
        }
        kills
    });
    (tell, running)
}

/// Enough for every check of the suite's first half; each costs seconds.
const MOST_KILLS: u32 = 12;

#[tokio::test(flavor = "multi_thread")]
async fn conformance_while_the_leader_is_killed_again_and_again() {
    let servers = tokio::task::spawn_blocking(|| servers::Etcd::of(3)).await;
    let servers = Arc::new(servers.unwrap());
    println!("etcd {}, three members", servers.version());
    let (trouble, running) = troubler(Arc::clone(&servers));
    run_all(&Prefixes {
        endpoints: servers.endpoints(),
        servers,
        trouble,
        made: AtomicU64::new(0),
    })
    .await;
    let kills = tokio::task::spawn_blocking(|| running.join()).await;
    let kills = kills.unwrap().expect("etcd was killed and started");
    println!("the leader was killed {kills} times");
    assert!(kills > 3);
}
