//! The etcd backend keeps what every coordinator promises, on real servers: three
//! members, the leading one of which is killed and started again all the while; and
//! through a proxy that loses replies after it has forwarded the requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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

/// Kills the leading member and starts it again, over and over.
struct Troubler {
    enough: Arc<AtomicBool>,
    running: Option<JoinHandle<u32>>,
}

impl Troubler {
    fn of(servers: Arc<servers::Etcd>) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&enough);
        let running = thread::spawn(move || {
            let mut kills = 0;
            while !stop.load(Ordering::Relaxed) {
                let leader = servers.leader();
                servers.kill(leader);
                servers.restart(leader);
                servers.wait_healthy();
                kills += 1;
            }
            kills
        });
        Self {
            enough,
            running: Some(running),
        }
    }

    fn end(mut self) -> u32 {
        self.enough.store(true, Ordering::Relaxed);
        let running = self.running.take().expect("it runs");
        running.join().expect("etcd was killed and started")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conformance_while_the_leader_is_killed_over_and_over() {
    let servers = Arc::new(
        tokio::task::spawn_blocking(|| servers::Etcd::of(3))
            .await
            .unwrap(),
    );
    println!("etcd {}, three members", servers.version());
    let troubler = Troubler::of(Arc::clone(&servers));
    run_all(&Prefixes {
        endpoints: servers.endpoints(),
        servers,
        made: AtomicU64::new(0),
    })
    .await;
    let kills = tokio::task::spawn_blocking(|| troubler.end())
        .await
        .unwrap();
    println!("the leader was killed {kills} times");
    assert!(kills > 3);
}
