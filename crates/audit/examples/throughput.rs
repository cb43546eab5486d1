//! How many entries of the board's log each audit store projects in a second, in
//! batches as a node makes them, and how many questions of engines it answers.
//!
//! ```text
//! cargo run --release -p quorate-audit --example throughput [seconds per line]
//! ```

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_audit::postgres::{Options, PostgresAudit};
use quorate_audit::{AuditStore, Mark, SqliteAudit};
use quorate_consensus::Rules;
use quorate_consensus::wire::{BoardEntry, BoardEvent, VoteRecorded, board_event::Event};
use quorate_engine::{AuditAnswer, AuditAsk};
use quorate_testkit::servers::{Durability, Postgres};
use quorate_testkit::{Cluster, NOW, number, tx};

/// Entries in one batch.
const BATCH: u64 = 256;

/// Engines that ask at once.
const ASKING: u64 = 8;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let seconds = std::env::args().nth(1).map_or(Ok(2.0), |text| text.parse());
    let each = Duration::from_secs_f64(seconds?);
    let cluster = Cluster::new(5, 4);
    let rules = || -> Arc<Rules> { Arc::clone(cluster.rules()) };
    let directory = tempfile::tempdir()?;
    let sqlite = SqliteAudit::open(directory.path().join("audit.db"), rules())?;
    let server = Postgres::start(Durability::Kept);
    let database = server.database();
    let postgres = PostgresAudit::open(&database.url(), rules(), &Options::default()).await?;
    let stores: [Arc<dyn AuditStore>; 2] = [Arc::new(sqlite), Arc::new(postgres)];
    for store in stores {
        let rate = projected(store.as_ref(), &cluster, each).await?;
        println!(
            "{:<9} votes projected       {rate:>8.0} /s",
            store.backend()
        );
        let rate = asked(&store, &cluster, each).await;
        println!(
            "{:<9} PENDING rows, 8 at once {rate:>6.0} /s",
            store.backend()
        );
    }
    Ok(())
}

async fn projected(
    store: &dyn AuditStore,
    cluster: &Cluster,
    each: Duration,
) -> Result<f64, Box<dyn Error>> {
    let (mut at, mut spent) = (0, Duration::ZERO);
    while spent < each {
        let batch: Vec<_> = (at + 1..=at + BATCH).map(|n| vote(cluster, n)).collect();
        let begun = Instant::now();
        at = store.project(Mark::at(at), &batch).await?;
        spent += begun.elapsed();
    }
    Ok(at as f64 / spent.as_secs_f64())
}

/// One vote of one of five, five for a transaction.
fn vote(cluster: &Cluster, revision: u64) -> BoardEntry {
    let (tx_id, value) = (tx(&format!("t{}", revision / 5)), number(revision / 5));
    let i = (revision % 5) as usize;
    let event = Event::VoteRecorded(VoteRecorded {
        node_id: cluster.node_id(i).to_string(),
        choice: Some((&value).into()),
        late: false,
        vote: Some(cluster.vote(i, &tx_id, value, NOW)),
    });
    BoardEntry {
        revision,
        time_ms: NOW + revision,
        op: None,
        events: vec![BoardEvent {
            revision,
            time_ms: NOW + revision,
            tx_id: tx_id.to_string(),
            event: Some(event),
        }],
    }
}

async fn asked(store: &Arc<dyn AuditStore>, cluster: &Cluster, each: Duration) -> f64 {
    let begun = Instant::now();
    let mut asking = tokio::task::JoinSet::new();
    for engine in 0..ASKING {
        let store = Arc::clone(store);
        let rules = Arc::clone(cluster.rules());
        asking.spawn(async move {
            let mut done = 0;
            while begun.elapsed() < each {
                let nonce = done * ASKING + engine;
                let (tx_id, value) = (tx(&format!("asked{nonce}")), number(nonce));
                let reservation = quorate_consensus::wire::Reservation {
                    account: rules.chain().account.clone(),
                    nonce,
                    payload: rules.payload(&tx_id, &value),
                };
                let ask = AuditAsk::Pending {
                    tx_id,
                    value,
                    reservation,
                };
                assert_eq!(store.ask(ask).await, AuditAnswer::Done);
                done += 1;
            }
            done
        });
    }
    let sum: u64 = asking.join_all().await.into_iter().sum();
    sum as f64 / begun.elapsed().as_secs_f64()
}
