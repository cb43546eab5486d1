//! A real etcd that loses replies, compacts, fills up, falls back to an older copy,
//! and is written to by somebody who is none of us.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, DeleteOptions, GetOptions};
use quorate_consensus::board::Refusal;
use quorate_consensus::wire::{BallotState, BoardEntry, BoardOp};
use quorate_coordinator::etcd::{Options, Plain};
use quorate_coordinator::{Coordinator, Etcd};
use quorate_engine::{ProposeError, Proposed};
use quorate_keyspace::model::Store;
use quorate_keyspace::{Batch, Change, Finding, Guard, Past, Step, What, Write, names};
use quorate_testkit::servers::etcd::EtcdOptions;
use quorate_testkit::servers::{self, Proxy, Way};
use quorate_testkit::{Cluster, FakeVerifier, NOW, number, ops, tx};
use tokio::sync::broadcast;

const PREFIX: &str = "/quorate/test/";

fn options(endpoints: Vec<String>) -> Options {
    let mut options = Options::new(endpoints, "test");
    // For the slowest machines.
    options.propose_timeout = Duration::from_secs(60);
    options
}

async fn open(cluster: &Cluster, options: Options) -> Etcd {
    let rules = Arc::clone(cluster.rules());
    let opened = Etcd::open(options, rules, Arc::new(FakeVerifier), Arc::new(Plain));
    opened.await.expect("etcd opens")
}

/// Runs what blocks.
async fn apart<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(act)
        .await
        .expect("it ends well")
}

async fn start(members: usize) -> Arc<servers::Etcd> {
    Arc::new(apart(move || servers::Etcd::of(members)).await)
}

async fn applied(etcd: &Etcd, op: BoardOp, now_ms: u64) -> u64 {
    match etcd.propose(op.clone(), now_ms).await {
        Ok(Proposed::Applied(revision)) => revision,
        other => panic!("{op:?} gave {other:?}"),
    }
}

async fn log(etcd: &Etcd) -> Vec<BoardEntry> {
    etcd.head().await.expect("a head");
    etcd.entries(0, usize::MAX).await.expect("entries")
}

fn vote(cluster: &Cluster, i: usize, name: &str, value: u64) -> BoardOp {
    ops::record_vote(cluster.vote(i, &tx(name), number(value), NOW))
}

/// A cluster of five with a decided ballot `d`, a liar who is banned, and a started
/// node.
async fn busy(cluster: &Cluster, etcd: &Etcd) {
    applied(etcd, ops::boot(cluster.boot(0, 1, NOW)), NOW).await;
    for i in 0..3 {
        applied(etcd, vote(cluster, i, "d", 1), NOW).await;
    }
    let reached = ops::advance(&tx("d"), BallotState::ThresholdReached);
    applied(etcd, reached, NOW).await;
    applied(etcd, vote(cluster, 4, "l", 1), NOW).await;
    applied(etcd, vote(cluster, 4, "l", 2), NOW).await;
    let aborted = ops::advance(&tx("l"), BallotState::AbortedByzantine);
    applied(etcd, aborted, NOW).await;
    let all = log(etcd).await;
    let lie = all
        .iter()
        .flat_map(|entry| &entry.events)
        .find_map(|event| {
            use quorate_consensus::wire::board_event::Event;
            match &event.event {
                Some(Event::ViolationFound(found)) => found.misbehaviour.clone(),
                _ => None,
            }
        });
    let ban = ops::ban_for(&cluster.node_id(4), lie.expect("a lie was found"));
    applied(etcd, ban, NOW).await;
}

async fn found(findings: &mut broadcast::Receiver<Finding>) -> Finding {
    let limit = Duration::from_secs(60);
    let found = tokio::time::timeout(limit, findings.recv()).await;
    found.expect("it is found").expect("nothing was missed")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_to_nobody_has_one_effect() {
    let servers = start(1).await;
    let proxy = Proxy::to(servers.port(0));
    let cluster = Cluster::new(5, 3);
    let etcd = open(&cluster, options(vec![proxy.endpoint()])).await;
    let other = open(&cluster, options(servers.endpoints())).await;
    for round in 0..6 {
        let name = format!("t{round}");
        // The transaction with this vote takes effect, and its answer is lost.
        proxy.lose_next_reply(format!("votes/{name}/").as_bytes());
        let revision = applied(&etcd, vote(&cluster, round % 5, &name, 1), NOW).await;
        proxy.lose_next_request(format!("votes/{name}/").as_bytes());
        applied(&etcd, vote(&cluster, (round + 1) % 5, &name, 1), NOW).await;
        assert_eq!(revision, 2 * round as u64 + 1);
    }
    assert_eq!(proxy.losses(), 12);
    let boot = ops::boot(cluster.boot(1, 7, NOW));
    proxy.lose_next_reply(b"members/");
    applied(&etcd, boot.clone(), NOW).await;
    assert_eq!(etcd.propose(boot, NOW).await, Ok(Proposed::Unchanged(13)));
    assert_eq!(log(&etcd).await, log(&other).await);
    assert_eq!(other.head().await, Ok(13));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_sleeps_through_a_compaction_reads_everything_anew() {
    let servers = start(1).await;
    let proxy = Proxy::to(servers.port(0));
    let cluster = Cluster::new(5, 3);
    let sleeper = open(&cluster, options(vec![proxy.endpoint()])).await;
    let awake = open(&cluster, options(servers.endpoints())).await;
    busy(&cluster, &awake).await;
    assert_eq!(log(&sleeper).await, log(&awake).await);
    let mut findings = sleeper.findings();
    proxy.set(Way::Refuse);
    proxy.cut();
    for i in 0..3 {
        applied(&awake, vote(&cluster, i, "later", 2), NOW).await;
    }
    let compacting = Arc::clone(&servers);
    apart(move || compacting.compact()).await;
    applied(&awake, vote(&cluster, 3, "later", 2), NOW).await;
    proxy.set(Way::Forward);
    assert_eq!(log(&sleeper).await, log(&awake).await);
    assert!(findings.try_recv().is_err(), "nobody tampered");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_is_acknowledged_and_nothing_is_lost() {
    let servers = start(3).await;
    let cluster = Cluster::new(5, 3);
    let mut impatient = options(servers.endpoints());
    // In this time a majority answers on the slowest machine; none is waited for.
    impatient.propose_timeout = Duration::from_secs(15);
    let etcd = open(&cluster, impatient).await;
    applied(&etcd, vote(&cluster, 0, "a", 1), NOW).await;
    let before = log(&etcd).await;
    let breaking = Arc::clone(&servers);
    apart(move || {
        breaking.kill(0);
        breaking.kill(1);
    })
    .await;
    let answer = etcd.propose(vote(&cluster, 1, "a", 1), NOW).await;
    assert!(
        matches!(answer, Err(ProposeError::Unavailable(_))),
        "{answer:?}"
    );
    assert!(etcd.head().await.is_err());
    let mending = Arc::clone(&servers);
    apart(move || {
        mending.restart(0);
        mending.restart(1);
        mending.wait_healthy();
    })
    .await;
    let patient = open(&cluster, options(servers.endpoints())).await;
    // Unknown means: repeat the same.
    let answer = patient.propose(vote(&cluster, 1, "a", 1), NOW).await;
    assert!(
        matches!(answer, Ok(Proposed::Applied(2) | Proposed::Unchanged(2))),
        "{answer:?}"
    );
    assert_eq!(log(&patient).await[..1], before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_refuses_at_once_and_says_why() {
    let full = EtcdOptions {
        quota_bytes: Some(16 * 1024 * 1024),
        ..EtcdOptions::default()
    };
    let servers = Arc::new(apart(move || servers::Etcd::start(full)).await);
    let cluster = Cluster::new(5, 3);
    let etcd = open(&cluster, options(servers.endpoints())).await;
    applied(&etcd, vote(&cluster, 0, "a", 1), NOW).await;
    let mut client = Client::connect(servers.endpoints(), None)
        .await
        .expect("a client");
    let mut filled = 0;
    while client
        .put(format!("/ballast/{filled}"), vec![7; 1_000_000], None)
        .await
        .is_ok()
    {
        filled += 1;
        assert!(filled < 100, "the quota does not hold");
    }
    let answer = etcd.propose(vote(&cluster, 1, "a", 1), NOW).await;
    match answer {
        Err(ProposeError::Unavailable(why)) => assert!(why.contains("space exceeded"), "{why}"),
        other => panic!("{other:?}"),
    }
    // What is there can still be read.
    assert_eq!(etcd.head().await, Ok(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_the_store_is_found_out() {
    let servers = start(1).await;
    let cluster = Cluster::new(5, 3);
    let etcd = open(&cluster, options(servers.endpoints())).await;
    busy(&cluster, &etcd).await;
    let mut findings = etcd.findings();
    let backing_up = Arc::clone(&servers);
    let backup = apart(move || backing_up.snapshot()).await;
    let before = etcd.head().await.expect("a head");
    for i in 0..3 {
        applied(&etcd, vote(&cluster, i, "later", 1), NOW).await;
    }
    let restoring = Arc::clone(&servers);
    apart(move || restoring.restore_older(&backup)).await;
    assert!(matches!(
        found(&mut findings).await.what,
        What::RolledBack { .. }
    ));
    assert_eq!(
        etcd.head().await,
        Ok(before),
        "the engine sees that it has seen more"
    );
    let answer = etcd.propose(vote(&cluster, 3, "later", 1), NOW).await;
    assert_eq!(answer, Err(ProposeError::OlderStore { head: before }));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_stranger_writes_nobody_believes_and_nothing_is_lost() {
    let servers = start(1).await;
    let cluster = Cluster::new(5, 3);
    let etcd = open(&cluster, options(servers.endpoints())).await;
    busy(&cluster, &etcd).await;
    let honest = log(&etcd).await;
    let mut stranger = Client::connect(servers.endpoints(), None)
        .await
        .expect("a client");
    let account = cluster.rules().chain().account.clone();
    let one = cluster.node_id(0);
    enum Lie {
        Put(String, &'static str),
        Delete(String),
    }
    let lies = [
        (
            "a counter raised",
            Lie::Put(names::count(&tx("d"), &number(1).into()), ""),
        ),
        (
            "a vote of nobody",
            Lie::Put(names::vote(&tx("n"), &one), "forged"),
        ),
        (
            "a vote overwritten",
            Lie::Put(names::vote(&tx("d"), &one), "forged"),
        ),
        ("a vote deleted", Lie::Delete(names::vote(&tx("d"), &one))),
        (
            "a state set back",
            Lie::Put(names::status(&tx("d")), "COLLECTING"),
        ),
        ("a state deleted", Lie::Delete(names::status(&tx("d")))),
        ("a reservation", Lie::Put(names::nonces(&account), "7")),
        (
            "a ban of an honest trustee",
            Lie::Put(names::banned(&one), "{}"),
        ),
        (
            "a ban deleted",
            Lie::Delete(names::banned(&cluster.node_id(4))),
        ),
        (
            "a member",
            Lie::Put(names::member(&one), "{\"generation\":99}"),
        ),
        ("the rules", Lie::Put(names::rules(1), "t = 1")),
    ];
    println!("| what was written | key | what was reported |");
    for (what, lie) in lies {
        let mut findings = etcd.findings();
        let key = match lie {
            Lie::Put(key, value) => {
                let put = stranger.put(format!("{PREFIX}{key}"), value, None).await;
                put.expect("etcd lets him");
                key
            }
            Lie::Delete(key) => {
                let deleted = stranger.delete(format!("{PREFIX}{key}"), None).await;
                deleted.expect("etcd lets him");
                key
            }
        };
        let finding = found(&mut findings).await;
        assert_eq!(finding.key, key, "{what}");
        println!("| {what} | `{key}` | {finding} |");
        assert_eq!(log(&etcd).await, honest, "{what}");
        // The cluster goes on, and whoever comes anew reads the same.
        let newcomer = open(&cluster, options(servers.endpoints())).await;
        assert_eq!(log(&newcomer).await, honest, "{what}");
    }
    let mut findings = etcd.findings();
    let all = Some(DeleteOptions::new().with_prefix());
    stranger.delete(PREFIX, all).await.expect("etcd lets him");
    found(&mut findings).await;
    assert_eq!(log(&etcd).await, honest, "everything deleted");
    // The trustee whose vote was forged can vote.
    applied(&etcd, vote(&cluster, 0, "n", 1), NOW).await;
    let refused = etcd.propose(vote(&cluster, 4, "n", 1), NOW).await;
    let banned = ProposeError::Refused(Refusal::Banned(cluster.node_id(4)));
    assert_eq!(refused, Err(banned));
}

/// Whoever has not read the whole log shows nothing of it: an engine that is told where
/// such a log ends would take it for all that there is.
#[tokio::test(flavor = "multi_thread")]
async fn a_handle_that_has_read_too_little_says_so_to_everybody() {
    let servers = start(1).await;
    let proxy = Proxy::to(servers.port(0));
    let cluster = Cluster::new(5, 3);
    let knows = open(&cluster, options(vec![proxy.endpoint()])).await;
    applied(&knows, vote(&cluster, 0, "a", 1), NOW).await;
    applied(&knows, vote(&cluster, 1, "b", 1), NOW).await;
    let whole = log(&knows).await;
    // While nobody sees it, a stranger deletes a record.
    proxy.set(Way::Refuse);
    proxy.cut();
    let mut stranger = Client::connect(servers.endpoints(), None)
        .await
        .expect("a client");
    let lost = names::vote(&tx("a"), &cluster.node_id(0));
    let deleted = stranger.delete(format!("{PREFIX}{lost}"), None).await;
    deleted.expect("etcd lets him");
    let partial = open(&cluster, options(servers.endpoints())).await;
    assert_eq!(log(&partial).await.len(), 1);
    let mut findings = partial.findings();
    proxy.set(Way::Forward);
    while found(&mut findings).await.what != What::Incomplete {}
    let says_so = |answer: Option<String>| {
        let answer = answer.expect("no answer is given");
        assert!(answer.contains("start this node again"), "{answer}");
    };
    says_so(partial.head().await.err().map(|e| e.to_string()));
    says_so(partial.entries(0, 9).await.err().map(|e| e.to_string()));
    let more = partial.propose(vote(&cluster, 2, "b", 1), NOW).await;
    says_so(more.err().map(|e| e.to_string()));
    // Started again, it reads everything.
    let again = open(&cluster, options(servers.endpoints())).await;
    assert_eq!(log(&again).await, whole);
}

/// What the model of etcd assumes, held against the real one: random batches give the
/// same guards held, the same keys with the same versions, and the same changes.
#[tokio::test(flavor = "multi_thread")]
async fn the_model_of_etcd_does_what_etcd_does() {
    let servers = start(1).await;
    let mut client = Client::connect(servers.endpoints(), None)
        .await
        .expect("a client");
    let mut rng = fastrand::Rng::with_seed(1);
    for round in 0..30 {
        let prefix = format!("/model/{round}/");
        let mut model = Store::new();
        // etcd's revisions run on: the difference is that to the model's.
        let base = client.put("/base", "", None).await.expect("a put");
        let base = base.header().expect("a header").revision() as u64 - model.revision();
        let watch = etcd_client::WatchOptions::new().with_prefix();
        let mut changes = client.watch(&*prefix, Some(watch)).await.expect("a watch");
        for _ in 0..20 {
            let batch = random_batch(&mut rng, model.revision());
            let shifted = shift(&batch, base);
            let before = model.revision();
            let held = model.commit(&batch);
            let txn = quorate_coordinator::etcd::transaction(&shifted, &prefix);
            let answer = client.txn(txn).await.expect("etcd takes it");
            let outcome =
                quorate_coordinator::etcd::outcome(&answer, &shifted).expect("an outcome");
            assert_eq!(outcome.1, held, "{batch:?}");
            assert_eq!(outcome.0, model.revision() + base, "{batch:?}");
            if model.revision() == before {
                continue;
            }
            let expected = model.changes_after(before).expect("nothing is compacted");
            let (revision, expected) = expected.into_iter().next().expect("one revision");
            let mut seen = Vec::new();
            while seen.len() < expected.len() {
                let answer = changes.message().await.expect("a change").expect("more");
                for event in answer.events() {
                    let kv = event.kv().expect("a key");
                    assert_eq!(kv.mod_revision() as u64, revision + base);
                    let key = kv
                        .key_str()
                        .expect("text")
                        .strip_prefix(&prefix)
                        .expect("ours");
                    let is_put = event.event_type() == etcd_client::EventType::Put;
                    seen.push((key.to_owned(), is_put.then(|| kv.version() as u64)));
                }
            }
            let expected = expected.iter().map(|change| match change {
                Change::Put(kv) => (kv.key.clone(), Some(kv.version)),
                Change::Delete(key) => (key.clone(), None),
            });
            assert_eq!(seen, expected.collect::<Vec<_>>(), "{batch:?}");
        }
        // What keys were in the past, until that is compacted away.
        let last = model.revision();
        for key in ["a/1", "b/2", "c", names::HEAD] {
            let at = rng.u64(1..=last);
            let version = version_at(&mut client, &format!("{prefix}{key}"), at + base).await;
            let Past::Was(kv) = model.at(key, at) else {
                panic!("nothing is compacted");
            };
            assert_eq!(version, Ok(kv.map(|kv| kv.version)), "{key} at {at}");
        }
        model.compact();
        let compacted = i64::try_from(last + base).expect("a revision");
        client.compact(compacted, None).await.expect("it compacts");
        for at in [last - 1, last, last + 1] {
            let version = version_at(&mut client, &format!("{prefix}c"), at + base).await;
            let past = match model.at("c", at) {
                Past::Gone => Err(()),
                Past::Was(kv) => Ok(kv.map(|kv| kv.version)),
            };
            assert_eq!(version, past, "{at} of {last}");
        }
    }
}

/// The version of a key at a past revision; an error when etcd cannot say.
async fn version_at(client: &mut Client, key: &str, at: u64) -> Result<Option<u64>, ()> {
    let options = GetOptions::new().with_revision(i64::try_from(at).expect("a revision"));
    let answer = client.get(key, Some(options)).await.map_err(drop)?;
    Ok(answer.kvs().first().map(|kv| kv.version() as u64))
}

fn random_batch(rng: &mut fastrand::Rng, revision: u64) -> Batch {
    let mut free: Vec<String> = ["a/1", "a/2", "a/3", "b/1", "b/2", "c"]
        .map(Into::into)
        .into();
    rng.shuffle(&mut free);
    let mut batch = Batch::default();
    if rng.bool() {
        batch.writes.push(Write::put("head", ""));
    }
    let at = |rng: &mut fastrand::Rng| revision.saturating_sub(rng.u64(0..6));
    let keys = ["a/1", "a/2", "a/3", "b/1", "b/2", "c", "d"];
    for place in 0..rng.usize(1..4) {
        let key = |rng: &mut fastrand::Rng| keys[rng.usize(0..keys.len())].to_owned();
        let guards = (0..rng.usize(0..3)).map(|_| match rng.u8(0..4) {
            0 => Guard::Absent(key(rng)),
            1 => Guard::Unchanged(key(rng), at(rng)),
            2 => Guard::AllUnchanged(["a/", "b/", "x/"][rng.usize(0..3)].into(), at(rng)),
            _ => Guard::At(key(rng), at(rng)),
        });
        let guards = guards.collect();
        let mut writes = Vec::new();
        for _ in 0..rng.usize(1..3) {
            if let Some(key) = free.pop() {
                writes.push(match rng.u8(0..5) {
                    0 => Write::Delete(key),
                    _ => Write::put(key, [rng.u8(..)]),
                });
            }
        }
        if rng.u8(0..8) == 0 && !free.iter().any(|key| key.starts_with("b/")) {
            writes.retain(|write| !write.key().starts_with("b/"));
        }
        batch.steps.push((place, Step { guards, writes }));
    }
    batch
}

fn shift(batch: &Batch, base: u64) -> Batch {
    let mut shifted = batch.clone();
    for guard in shifted
        .steps
        .iter_mut()
        .flat_map(|(_, step)| &mut step.guards)
    {
        match guard {
            Guard::Absent(_) => {}
            Guard::Unchanged(_, at) | Guard::AllUnchanged(_, at) | Guard::At(_, at) => *at += base,
        }
    }
    shifted
}
