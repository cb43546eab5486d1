//! How many votes the embedded board records in a second, beside what SQLite
//! itself commits on the same disk in the same run.
//!
//! ```text
//! cargo run --release -p quorate-coordinator --example embedded [seconds per line]
//! ```

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quorate_coordinator::{Coordinator, Embedded};
use quorate_testkit::{Cluster, FakeVerifier, NOW, number, ops, tx};
use rusqlite::Connection;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let seconds = std::env::args().nth(1).map_or(Ok(2.0), |text| text.parse());
    let each = Duration::from_secs_f64(seconds?);
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);

    let raw = raw_commits(&path("raw.db"), 1, each)?;
    println!("raw SQLite, 1 row a commit    {raw:>8.0} rows/s   1.00");
    let grouped = raw_commits(&path("grouped.db"), 64, each)?;
    let ratio = grouped / raw;
    println!("raw SQLite, 64 rows a commit  {grouped:>8.0} rows/s   {ratio:.2}");

    for in_flight in [1, 4, 64] {
        let board = Arc::new(open(&path(&format!("board{in_flight}.db")))?);
        let handles = vec![board];
        let (rate, _) = votes(&handles, in_flight, each).await?;
        let ratio = rate / raw;
        println!("votes, {in_flight:>2} in flight          {rate:>8.0} votes/s  {ratio:.2}");
    }

    let shared = path("shared.db");
    let handles = (0..5)
        .map(|_| open(&shared).map(Arc::new))
        .collect::<Result<Vec<_>, _>>()?;
    let (rate, shares) = votes(&handles, 20, each).await?;
    let ratio = rate / raw;
    println!("votes, 5 handles with 4 each  {rate:>8.0} votes/s  {ratio:.2}");
    println!("  of which each got {shares:?}");
    drop(handles);

    let began = Instant::now();
    let entries = open(&shared)?.head().await?;
    let took = began.elapsed();
    println!("a start with {entries} entries takes {took:.0?}");
    Ok(())
}

fn open(path: &Path) -> Result<Embedded, Box<dyn Error>> {
    let rules = Arc::clone(Cluster::new(5, 4).rules());
    Ok(Embedded::open(path, rules, Arc::new(FakeVerifier))?)
}

/// Rows of a vote's size, so many in a commit; rows per second.
fn raw_commits(path: &Path, rows: u64, each: Duration) -> Result<f64, rusqlite::Error> {
    let connection = Connection::open(path)?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch("CREATE TABLE log (n INTEGER PRIMARY KEY, op BLOB, events BLOB)")?;
    let blob = [7_u8; 300];
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < each {
        let transaction = connection.unchecked_transaction()?;
        for _ in 0..rows {
            transaction
                .prepare_cached("INSERT INTO log (op, events) VALUES (?1, ?1)")?
                .execute([&blob[..]])?;
        }
        transaction.commit()?;
        count += rows;
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

/// Votes per second with so many in flight, and how many each handle recorded.
async fn votes(
    handles: &[Arc<Embedded>],
    in_flight: usize,
    each: Duration,
) -> Result<(f64, Vec<u64>), Box<dyn Error>> {
    let cluster = Arc::new(Cluster::new(5, 4));
    let shares: Arc<Vec<AtomicU64>> = Arc::new(handles.iter().map(|_| 0.into()).collect());
    let began = Instant::now();
    let mut tasks = Vec::new();
    for task in 0..in_flight {
        let nth = task % handles.len();
        let (board, cluster, shares) = (
            Arc::clone(&handles[nth]),
            Arc::clone(&cluster),
            Arc::clone(&shares),
        );
        tasks.push(tokio::spawn(async move {
            let mut i = 0;
            while began.elapsed() < each {
                let ballot = tx(&format!("tx{task}.{}", i / 5));
                let vote = cluster.vote(i % 5, &ballot, number(1), NOW);
                board.propose(ops::record_vote(vote), NOW).await?;
                shares[nth].fetch_add(1, Ordering::Relaxed);
                i += 1;
            }
            Ok::<_, quorate_engine::ProposeError>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    let elapsed = began.elapsed().as_secs_f64();
    let shares: Vec<u64> = shares.iter().map(|n| n.load(Ordering::Relaxed)).collect();
    Ok((shares.iter().sum::<u64>() as f64 / elapsed, shares))
}
