//! PostgreSQL passes the suite on a real server, makes its tables once, gives a node's
//! role no more than it needs, and is away for a bounded time.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use quorate_consensus::Rules;
use quorate_testkit::servers::{Database, Postgres};
use quorate_testkit::{Cluster, tx};

use super::*;
use crate::suite::{Builder, Place, run_all};

struct Databases;

#[async_trait]
impl Builder for Databases {
    async fn place(&self) -> Box<dyn Place> {
        Box::new(Postgres::shared().database())
    }
}

#[async_trait]
impl Place for Database {
    async fn open(&self, rules: Arc<Rules>) -> Result<Arc<dyn AuditStore>, AuditError> {
        Ok(Arc::new(open(&self.url(), rules).await?))
    }

    async fn sql(&self, statement: &str) -> Result<(), String> {
        Database::sql(self, statement).map(drop)
    }

    async fn unlock(&self) {
        let sql = "ALTER TABLE byzantine_violations DISABLE TRIGGER ALL";
        Database::sql(self, sql).unwrap();
    }
}

async fn open(url: &str, rules: Arc<Rules>) -> Result<PostgresAudit, AuditError> {
    PostgresAudit::open(url, rules, &Options::default()).await
}

fn rules() -> Arc<Rules> {
    Arc::clone(Cluster::new(5, 4).rules())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_the_suite() {
    run_all(&Databases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_processes_may_make_the_store_at_once() {
    let database = Postgres::shared().database();
    let mut opening = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let url = database.url();
        opening.spawn(async move { open(&url, rules()).await.map(drop) });
    }
    for opened in opening.join_all().await {
        opened.expect("it opens");
    }
    let members = database.sql("SELECT count(*) FROM node_reputation");
    assert_eq!(members.as_deref(), Ok("5\n"));
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let database = Postgres::shared().database();
    open(&database.url(), rules()).await.expect("it opens");
    database
        .sql("UPDATE audit_schema SET version = 99")
        .unwrap();
    let refused = open(&database.url(), rules()).await.err().unwrap();
    let AuditError::NewerSchema { found: 99, known } = refused else {
        panic!("{refused}");
    };
    assert!(known < 99);
}

#[tokio::test]
async fn a_nodes_role_can_neither_change_nor_delete_a_violation() {
    let database = Postgres::shared().database();
    let role = format!("node_{}", database.name());
    database.sql(&format!("CREATE ROLE {role} LOGIN")).unwrap();
    let url = database.url_as(&role);
    let early = open(&url, rules()).await.err().unwrap();
    assert!(
        matches!(early, AuditError::OldSchema { found: 0, .. }),
        "{early}"
    );
    let options = Options::default();
    let migrated = PostgresAudit::migrate(&database.url(), Some(&role), &options).await;
    migrated.expect("the owner may");

    // What the owner would get past, the role does not.
    let disable = "ALTER TABLE byzantine_violations DISABLE TRIGGER ALL;
                   INSERT INTO byzantine_violations VALUES (1, NULL, 'node1', NULL,
                       'SILENT_FAILURE', 'counted', '{}', now(), sha256(''))";
    database.sql(disable).unwrap();
    let store = open(&url, rules()).await.expect("it opens");
    for statement in [
        "UPDATE byzantine_violations SET node_id = 'node2'",
        "DELETE FROM byzantine_violations",
        "TRUNCATE byzantine_violations",
        "ALTER TABLE byzantine_violations ENABLE TRIGGER ALL",
        "DELETE FROM accusations",
        "UPDATE submission_variants SET raw = ''",
        "DROP TABLE decisions",
        "CREATE TABLE more (a INTEGER)",
    ] {
        let refused = store
            .run(async |client| client.batch_execute(statement).await.map_err(away))
            .await;
        let Err(AuditError::Refused(why)) = refused else {
            panic!("{statement}: {refused:?}");
        };
        let wanted = ["permission denied", "must be owner"];
        assert!(wanted.iter().any(|text| why.contains(text)), "{why}");
    }

    // And it can do all that a node does.
    for sql in [
        "ALTER TABLE byzantine_violations ENABLE TRIGGER ALL",
        "ALTER TABLE byzantine_violations DISABLE TRIGGER byzantine_violations_insert_only",
        "DELETE FROM byzantine_violations",
        "ALTER TABLE byzantine_violations ENABLE TRIGGER byzantine_violations_insert_only",
    ] {
        database.sql(sql).unwrap();
    }
    struct AsRole(Database, String);
    #[async_trait]
    impl Place for AsRole {
        async fn open(&self, rules: Arc<Rules>) -> Result<Arc<dyn AuditStore>, AuditError> {
            Ok(Arc::new(open(&self.0.url_as(&self.1), rules).await?))
        }
        async fn sql(&self, statement: &str) -> Result<(), String> {
            self.0.sql(statement).map(drop)
        }
        async fn unlock(&self) {
            Place::unlock(&self.0).await;
        }
    }
    struct Roles(String);
    #[async_trait]
    impl Builder for Roles {
        async fn place(&self) -> Box<dyn Place> {
            let database = Postgres::shared().database();
            let (url, options) = (database.url(), Options::default());
            let migrated = PostgresAudit::migrate(&url, Some(&self.0), &options).await;
            migrated.expect("the owner may");
            Box::new(AsRole(database, self.0.clone()))
        }
    }
    run_all(&Roles(role)).await;
}

#[tokio::test]
async fn whoever_may_only_read_can_read() {
    let database = Postgres::shared().database();
    open(&database.url(), rules()).await.expect("it opens");
    let role = format!("auditor_{}", database.name());
    let made = format!("CREATE ROLE {role} LOGIN; GRANT pg_read_all_data TO {role}");
    database.sql(&made).unwrap();
    let store = open(&database.url_as(&role), rules()).await;
    let store = store.expect("it opens");
    assert_eq!(store.cursor().await.unwrap(), 0);
    assert!(
        store
            .violations(&Filter::default())
            .await
            .unwrap()
            .is_empty()
    );
    let ttl = Duration::from_secs(1);
    let refused = store.lease(&NodeId::new("node1").unwrap(), ttl).await;
    assert!(
        matches!(refused, Err(AuditError::Refused(_))),
        "{refused:?}"
    );
}

/// A port where somebody takes connections and never says a word.
fn silent_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut std::io::sink()));
        }
    });
    port
}

#[tokio::test]
async fn a_server_that_is_away_is_not_waited_for() {
    for port in [1, silent_port()] {
        let url = format!("postgresql://quorate:secret@127.0.0.1:{port}/audit");
        let store = PostgresAudit::new(&url, rules(), &Options::default()).unwrap();
        let begun = Instant::now();
        let mut tries = 0;
        while store.breaker() == BreakerState::Closed {
            let Err(error) = store.cursor().await else {
                panic!("it answered");
            };
            assert!(matches!(error, AuditError::Unavailable(_)), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
            tries += 1;
        }
        assert_eq!(tries, 3);
        let each = Duration::from_secs(10);
        assert!(begun.elapsed() < 3 * each, "each is bounded");
        let ask = AuditAsk::Variants { tx_id: tx("a") };
        // The breaker lets one try from time to time.
        let mut refused = 0;
        while refused < 100 {
            let AuditAnswer::Unavailable(why) = store.ask(ask.clone()).await else {
                panic!("it answered");
            };
            refused += usize::from(why.contains("did not answer of late"));
        }
    }
}

#[tokio::test]
async fn settings_that_cannot_be_right_are_told_without_the_password() {
    let rules = rules();
    for url in [
        "not a url",
        "postgresql://quorate:secret@host:notaport/audit",
        "postgresql://quorate:secret@host/audit?sslmode=require",
        "postgresql://quorate:secret@host/audit?ssl=secret",
    ] {
        let error = PostgresAudit::new(url, Arc::clone(&rules), &Options::default());
        let error = error.err().expect(url);
        assert!(matches!(error, AuditError::Settings(_)), "{url}: {error}");
        assert!(!error.to_string().contains("sec"), "{url}: {error}");
    }
}

/// A CA of that name, and a certificate of its for a server on this machine.
fn authority(name: &str) -> (rcgen::Certificate, rcgen::Certificate, rcgen::KeyPair) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let common_name = rcgen::DnType::CommonName;
    params.distinguished_name.push(common_name, name);
    let key = rcgen::KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::new(params, key);
    let server_key = rcgen::KeyPair::generate().unwrap();
    let server = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let server = server.signed_by(&server_key, &issuer).unwrap();
    (ca, server, server_key)
}

#[tokio::test]
async fn with_a_ca_only_its_servers_are_talked_to_and_by_tls_1_3() {
    let server = Postgres::start(quorate_testkit::servers::Durability::Fast);
    let database = server.database();
    let directory = tempfile::tempdir().unwrap();
    let (ca, certificate, key) = authority("right");
    let (other, ..) = authority("other");
    let options = |name: &str, ca: &rcgen::Certificate| {
        let path = directory.path().join(name);
        std::fs::write(&path, ca.pem()).unwrap();
        Options {
            ca_path: Some(path),
            ..Options::default()
        }
    };
    let right = options("right.pem", &ca);
    let refused = PostgresAudit::open(&database.url(), rules(), &right).await;
    refused.err().expect("the server speaks no TLS");

    server.use_tls(&certificate.pem(), &key.serialize_pem());
    let store = PostgresAudit::open(&database.url(), rules(), &right).await;
    let store = store.expect("it opens");
    let sql = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let version = store.run(async |client| client.query_one(sql, &[]).await.map_err(away));
    let version: String = version.await.unwrap().get(0);
    assert_eq!(version, "TLSv1.3");
    let wrong = options("other.pem", &other);
    let refused = PostgresAudit::open(&database.url(), rules(), &wrong).await;
    refused.err().expect("another CA's");
    let by_name = database.url().replace("127.0.0.1", "localhost");
    let refused = PostgresAudit::open(&by_name, rules(), &right).await;
    refused.err().expect("another host's");
    let nothing = Options {
        ca_path: Some(directory.path().join("nothing.pem")),
        ..Options::default()
    };
    let refused = PostgresAudit::open(&database.url(), rules(), &nothing).await;
    let refused = refused.err().expect("no file").to_string();
    assert!(refused.contains("nothing.pem"), "{refused}");
}
