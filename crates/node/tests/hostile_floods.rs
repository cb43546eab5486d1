//! A client that calls without end: no more of its calls reach the service than its
//! limit gives, the others are refused with a time to wait, and the client beside it is
//! answered all the same. How fast is printed, and held by nothing: on a machine that
//! does other things too that says nothing about the node.

mod common;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::*;
use quorate_consensus::wire::{ListRequest, StatusRequest};
use quorate_node::Limits;
use quorate_proto::v1::vote_service_client::VoteServiceClient;
use tokio::task::JoinSet;
use tonic::Code;
use tonic_types::StatusExt as _;

/// The honest client has enough for its 30 votes and 200 questions without waiting; the
/// flood uses up its own.
const BURST: u32 = 300;

/// Tasks of a flood, each with one call at a time.
const TASKS: u32 = 32;

/// A refusal comes after so long at the earliest, so that there are not too many.
const REFUSED_AFTER: Duration = Duration::from_millis(100);

/// What everybody gets beside that.
const CALLS_PER_SEC: u32 = 20;

/// Calls of one kind without end, from many tasks at once.
struct Flood {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    tasks: JoinSet<()>,
    began: Instant,
}

impl Flood {
    /// The operator of node `at` asks it for everything, again and again.
    fn at(cluster: &Cluster, at: usize) -> Self {
        let channel = cluster.channel(at, &cluster.person(at, "operator"));
        let mut flood = Self {
            stop: Arc::default(),
            served: Arc::default(),
            refused: Arc::default(),
            tasks: JoinSet::new(),
            began: Instant::now(),
        };
        for _ in 0..TASKS {
            let mut client = VoteServiceClient::new(channel.clone());
            let stop = flood.stop.clone();
            let (served, refused) = (flood.served.clone(), flood.refused.clone());
            flood.tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let all = ListRequest {
                        page_size: 1000,
                        ..ListRequest::default()
                    };
                    match client.list(all).await {
                        Ok(_) => served.fetch_add(1, Ordering::Relaxed),
                        Err(status) => {
                            assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
                            assert_eq!(reason(&status), "RATE_LIMITED");
                            let retry = status.get_details_retry_info().unwrap().retry_delay;
                            assert!(retry.unwrap() > Duration::ZERO);
                            refused.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                }
            });
        }
        flood
    }

    async fn until_refused(&self, calls: u64) {
        let refused = async {
            while self.refused.load(Ordering::Relaxed) < calls {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        soon("the flood is refused", refused).await;
    }

    /// How many calls were served and how many refused. Neither may be more than the limit
    /// and the delay of refusals give for the time that it took.
    async fn end(mut self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(task) = self.tasks.join_next().await {
            task.unwrap();
        }
        let served = self.served.load(Ordering::Relaxed);
        let most = u64::from(BURST) + self.began.elapsed().as_secs() * u64::from(CALLS_PER_SEC);
        let most = most + u64::from(CALLS_PER_SEC);
        assert!(served <= most, "{served} served, where {most} are the most");
        let refused = self.refused.load(Ordering::Relaxed);
        let each = self.began.elapsed().as_millis() / REFUSED_AFTER.as_millis() + 1;
        let most = each * u128::from(TASKS);
        assert!(
            u128::from(refused) <= most,
            "{refused} refused, where {most} are the most"
        );
        (served, refused)
    }
}

/// How long a question of an honest client at node 0 takes, in the middle.
async fn honest(cluster: &Cluster) -> Duration {
    let mut client = cluster.client(0);
    let mut took = Vec::new();
    for _ in 0..100 {
        let asked = StatusRequest {
            tx_id: "list0".to_owned(),
        };
        let began = Instant::now();
        client.status(asked).await.unwrap();
        took.push(began.elapsed());
    }
    took.sort_unstable();
    took[took.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_refused_and_the_client_beside_it_is_answered() {
    let mut cluster = Cluster::new(2, 2);
    let mut nodes = Vec::new();
    for i in 0..2 {
        let node = cluster.start_with(i, |parts| {
            parts.limits = Limits {
                calls_per_sec: NonZeroU32::new(CALLS_PER_SEC).unwrap(),
                burst: NonZeroU32::new(BURST).unwrap(),
                ..Limits::default()
            };
        });
        nodes.push(node.await);
    }
    for node in &nodes {
        connected(node, 1).await;
    }
    for i in 0..60 {
        vote_at(&cluster, [i % 2], &format!("list{i}"), 1).await;
    }
    // The same flood at the other node: so the machine is as busy in both.
    let flood = Flood::at(&cluster, 1);
    flood.until_refused(300).await;
    let beside = honest(&cluster).await;
    flood.end().await;
    let flood = Flood::at(&cluster, 0);
    flood.until_refused(300).await;
    // None of its questions is refused: `honest` would fail.
    let before = flood.refused.load(Ordering::Relaxed);
    let through = honest(&cluster).await;
    // It went on all the while.
    flood.until_refused(before + 1).await;
    let (served, refused) = flood.end().await;
    println!(
        "median: {beside:?} beside a flood, {through:?} in it; {served} served, {refused} refused"
    );
    assert!(nodes[0].counts().calls_limited >= refused);
}
