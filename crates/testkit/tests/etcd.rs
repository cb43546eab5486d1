//! That real etcd members do as the tests of others will ask them to.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::{Client, ConnectOptions, Error, GetOptions, WatchOptions};
use quorate_testkit::servers::Etcd;
use quorate_testkit::servers::etcd::{EtcdOptions, EtcdTls, EtcdUser};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::task::block_in_place;
use tonic::transport::Endpoint;

/// Longer than anything takes; only a hang reaches it.
const GUARD: Duration = Duration::from_secs(120);

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(GUARD, work).await.expect("it hangs")
}

async fn client(etcd: &Etcd, member: usize) -> Client {
    let client = Client::connect([etcd.endpoint(member)], None);
    within(client).await.expect("it connects")
}

async fn put(client: &mut Client, key: &str, value: &str) -> Result<i64, Error> {
    let put = within(client.put(key, value, None)).await?;
    Ok(put.header().expect("a header").revision())
}

async fn get(client: &mut Client, key: &str) -> Option<String> {
    let got = within(client.get(key, None)).await.expect("it answers");
    let kv = got.kvs().first()?;
    Some(kv.value_str().expect("text").to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_survive_the_loss_of_their_leader() {
    let etcd = block_in_place(|| Etcd::of(3));
    assert_eq!(etcd.endpoints().len(), 3);
    let leader = block_in_place(|| etcd.leader());
    let mut survivor = client(&etcd, (leader + 1) % 3).await;
    put(&mut survivor, "a", "1").await.expect("all run");

    etcd.kill(leader);
    assert!(!etcd.runs(leader));
    let mut dead = Client::connect([etcd.endpoint(leader)], None)
        .await
        .expect("it connects with its first call");
    put(&mut dead, "a", "2").await.expect_err("it is dead");
    let next = block_in_place(|| etcd.leader());
    assert_ne!(next, leader);
    put(&mut survivor, "a", "3").await.expect("two run");

    etcd.kill(next);
    block_in_place(|| etcd.restart(leader));
    let mut back = client(&etcd, leader).await;
    assert_eq!(get(&mut back, "a").await.as_deref(), Some("3"));

    // Alone it answers nobody who wants to know for sure, but still says what it has.
    etcd.kill(3 - leader - next);
    let stale = Some(GetOptions::new().with_serializable());
    let mut alone = client(&etcd, leader).await;
    let got = within(alone.get("a", stale)).await.expect("its own copy");
    assert_eq!(got.kvs().len(), 1);
    let asked = tokio::time::timeout(Duration::from_millis(200), alone.get("a", None));
    assert!(!matches!(asked.await, Ok(Ok(_))));
    block_in_place(|| {
        etcd.restart(next);
        etcd.stop(next);
        etcd.restart(next);
        etcd.leader();
    });
    put(&mut back, "a", "4").await.expect("two run again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_halted_member_keeps_its_callers_waiting() {
    let etcd = block_in_place(|| Etcd::of(1));
    let mut caller = client(&etcd, 0).await;
    put(&mut caller, "a", "1").await.expect("it runs");
    etcd.pause(0);
    assert!(etcd.runs(0));
    let mut waiting = tokio::spawn({
        let mut caller = caller.clone();
        async move { put(&mut caller, "a", "2").await }
    });
    let answer = tokio::time::timeout(Duration::from_millis(300), &mut waiting);
    answer.await.expect_err("it is halted");
    etcd.resume(0);
    waiting.await.expect("no panic").expect("it goes on");
    assert_eq!(get(&mut caller, "a").await.as_deref(), Some("2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn users_reach_their_prefix_with_their_password() {
    let etcd = block_in_place(|| {
        Etcd::start(EtcdOptions {
            auth: true,
            ..EtcdOptions::default()
        })
    });
    let key = format!("{}/a", etcd.fresh_prefix());
    assert_ne!(etcd.fresh_prefix(), etcd.fresh_prefix());
    let mut nobody = client(&etcd, 0).await;
    put(&mut nobody, &key, "1").await.expect_err("without name");

    let as_user = |EtcdUser { name, password }| {
        let options = ConnectOptions::new().with_user(name, password);
        Client::connect([etcd.endpoint(0)], Some(options))
    };
    let user = etcd.user().expect("users");
    let mut login = within(as_user(user)).await.expect("it connects");
    put(&mut login, &key, "2").await.expect("its own prefix");
    assert_eq!(get(&mut login, &key).await.as_deref(), Some("2"));
    put(&mut login, "/elsewhere", "3")
        .await
        .expect_err("not its prefix");
    let wrong = EtcdUser {
        password: "wrong",
        ..user
    };
    assert!(within(as_user(wrong)).await.is_err(), "a wrong password");
    let root = etcd.root().expect("users");
    let mut root = within(as_user(root)).await.expect("it connects");
    put(&mut root, "/elsewhere", "4").await.expect("root");
    block_in_place(|| etcd.compact());
}

/// A client of ours over TLS, with these files.
async fn over_tls(etcd: &Etcd, tls: &EtcdTls, with_certificate: bool) -> Client {
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(tls.certificates.ca()).expect("PEM");
    roots.add(ca).expect("a CA");
    let config = rustls::ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_root_certificates(roots);
    let mut config = if with_certificate {
        let cert = CertificateDer::from_pem_file(&tls.client.cert).expect("PEM");
        let key = PrivateKeyDer::from_pem_file(&tls.client.key).expect("PEM");
        let with = config.with_client_auth_cert(vec![cert], key);
        with.expect("they belong together")
    } else {
        config.with_no_client_auth()
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config));
    let port = etcd.port(0);
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let tls = tls.clone();
        async move {
            let name = ServerName::try_from("localhost").expect("a name");
            let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
            let stream = tls.connect(name, tcp).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    });
    let channel = Endpoint::from_static("http://etcd").connect_with_connector_lazy(connector);
    let channel = etcd_client::Channel::Tonic(channel);
    let client = Client::from_channel(channel, None).await;
    client.expect("it connects with its first call")
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tls_clients_show_a_certificate() {
    let etcd = block_in_place(|| {
        Etcd::start(EtcdOptions {
            tls: true,
            ..EtcdOptions::default()
        })
    });
    let tls = etcd.tls().expect("TLS");
    assert!(etcd.endpoint(0).starts_with("https://"));
    let mut known = over_tls(&etcd, tls, true).await;
    put(&mut known, "a", "1").await.expect("it is known");
    let mut unknown = over_tls(&etcd, tls, false).await;
    put(&mut unknown, "a", "2")
        .await
        .expect_err("no certificate");
    let plain = etcd.endpoint(0).replace("https", "http");
    let mut plain = Client::connect([plain], None).await.expect("lazy");
    put(&mut plain, "a", "3").await.expect_err("no TLS");
    assert_eq!(get(&mut known, "a").await.as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_put_back_shows_the_old_value() {
    for members in [1, 3] {
        let etcd = block_in_place(|| Etcd::of(members));
        let mut before = client(&etcd, 0).await;
        let old = put(&mut before, "a", "old").await.expect("it runs");
        let snapshot = block_in_place(|| etcd.snapshot());
        let new = put(&mut before, "a", "new").await.expect("it goes on");
        assert!(new > old);
        block_in_place(|| etcd.restore_older(&snapshot));
        let mut after = client(&etcd, members - 1).await;
        assert_eq!(get(&mut after, "a").await.as_deref(), Some("old"));
        let again = put(&mut after, "a", "other").await.expect("it goes on");
        assert_eq!(again, new, "the revision of the lost entry is given again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_member_with_an_older_state_leaves_the_others_working() {
    let etcd = block_in_place(|| Etcd::of(3));
    let leader = block_in_place(|| etcd.leader());
    let mut other = client(&etcd, leader).await;
    put(&mut other, "a", "old").await.expect("all run");
    let snapshot = block_in_place(|| etcd.snapshot());
    let leader = block_in_place(|| etcd.leader());
    let mut other = client(&etcd, leader).await;
    put(&mut other, "a", "new").await.expect("all run");
    etcd.restore_older_member(&snapshot, (leader + 1) % 3);
    put(&mut other, "a", "newer").await.expect("two run");
    assert_eq!(get(&mut other, "a").await.as_deref(), Some("newer"));
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_forgets_and_the_quota_ends_writes() {
    let etcd = block_in_place(|| {
        Etcd::start(EtcdOptions {
            quota_bytes: Some(4 << 20),
            ..EtcdOptions::default()
        })
    });
    let mut client = client(&etcd, 0).await;
    let first = put(&mut client, "a", "1").await.expect("it runs");
    put(&mut client, "a", "2").await.expect("it runs");
    let revision = block_in_place(|| etcd.compact());
    assert_eq!(revision, first as u64 + 1);
    let from = WatchOptions::new().with_start_revision(first);
    let mut watch = within(client.watch("a", Some(from)))
        .await
        .expect("it runs");
    let told = loop {
        let told = within(watch.message()).await.expect("a message");
        let told = told.expect("not the end");
        if !told.created() || told.canceled() {
            break told;
        }
    };
    assert_eq!(told.compact_revision(), revision as i64);

    // Etcd measures its store now and then, and takes writes meanwhile.
    let big = "x".repeat(1 << 20);
    let refusal = within(async {
        loop {
            if let Err(refusal) = put(&mut client, "big", &big).await {
                break refusal.to_string();
            }
        }
    });
    let refusal = refusal.await;
    assert!(refusal.contains("database space exceeded"), "{refusal}");
}

const CHILD: &str = "QUORATE_TESTKIT_CHILD";

/// Not a test of its own: what `members_die_with_their_process` starts and kills.
#[test]
fn child_with_a_cluster() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let etcd = Etcd::of(3);
    etcd.pause(1);
    println!("\nat {}", etcd.directory().display());
    loop {
        std::thread::park();
    }
}

#[test]
fn members_die_with_their_process() {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "--nocapture", "child_with_a_cluster"])
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
    let pids: Vec<String> = (0..3)
        .map(|member| std::fs::read_to_string(path.join(format!("member{member}/pid"))))
        .map(|pid| pid.expect("a number").trim().to_owned())
        .collect();
    let lives = |pid: &String| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "etcd")
    };
    assert!(pids.iter().all(lives));
    child.kill().expect("SIGKILL");
    let _ = child.wait();
    let begun = Instant::now();
    while pids.iter().any(lives) || path.exists() {
        assert!(begun.elapsed() < GUARD, "a member outlives the test");
        std::thread::sleep(Duration::from_millis(20));
    }
}
