//! The way to the server: address, TLS, pool, and how long to wait.

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use deadpool_postgres::{
    Client, Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod,
    Runtime, Timeouts,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio_postgres::NoTls;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::Options;
use super::breaker::{Breaker, BreakerState};
use crate::store::AuditError;

/// How long a new connection may take, and waiting for a free one.
const CONNECT: Duration = Duration::from_secs(3);

/// How long the server works on one statement, or waits for a lock. Less than
/// [`LIMIT`]: then it is the server who gives up, and the connection stays good.
const STATEMENT_MS: u32 = 8_000;

/// How long any call takes at most, connecting included.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// How soon an idle connection notices that its server is gone for good.
const IDLE: Duration = Duration::from_secs(15);

/// What a URL must look like; never shown with the one that was given, which may hold
/// a password.
const SHAPE: &str = "postgres_url is not a URL like postgresql://user:password@host:5432/database (in a password write @ as %40, : as %3A, / as %2F, ? as %3F)";

/// A pool of connections behind a breaker.
pub(super) struct Link {
    pool: Pool,
    name: String,
    breaker: Mutex<Breaker>,
}

impl Link {
    /// Connects to nothing yet.
    pub(super) fn new(url: &str, options: &Options) -> Result<Self, AuditError> {
        let mut config: tokio_postgres::Config = url
            .parse()
            .map_err(|_| AuditError::Settings(SHAPE.to_owned()))?;
        if config.get_hosts().is_empty() {
            return Err(AuditError::Settings(SHAPE.to_owned()));
        }
        config.connect_timeout(CONNECT);
        config.keepalives_idle(IDLE);
        config.tcp_user_timeout(LIMIT);
        if config.get_application_name().is_none() {
            config.application_name("quorate");
        }
        let name = name_of(&config);
        let manager = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let manager = match &options.ca_path {
            Some(path) => {
                config.ssl_mode(SslMode::Require);
                Manager::from_config(config, connector(path)?, manager)
            }
            None if config.get_ssl_mode() == SslMode::Require => {
                return Err(AuditError::Settings(
                    "postgres_url asks for TLS, and whom to trust is not said: set postgres_ca_path to the PEM file of the CA that signed the server's certificate".to_owned(),
                ));
            }
            None => {
                if !is_local(&config) {
                    tracing::warn!(server = %name, "audit.no_tls: set postgres_ca_path, or everybody on the way reads the password's exchange and every row");
                }
                config.ssl_mode(SslMode::Disable);
                Manager::from_config(config, NoTls, manager)
            }
        };
        let pool = Pool::builder(manager)
            .max_size(options.connections.get())
            .timeouts(Timeouts {
                wait: Some(CONNECT),
                create: Some(CONNECT),
                recycle: Some(CONNECT),
            })
            .runtime(Runtime::Tokio1)
            .post_create(Hook::async_fn(|client, _| {
                Box::pin(async move {
                    let sql = session();
                    client.batch_execute(&sql).await.map_err(HookError::Backend)
                })
            }))
            .build()
            .map_err(|error| AuditError::Settings(error.to_string()))?;
        Ok(Self {
            pool,
            name,
            breaker: Mutex::new(Breaker::new()),
        })
    }

    pub(super) fn breaker(&self) -> BreakerState {
        self.with_breaker(|breaker| breaker.state())
    }

    /// Works with a connection. Comes back within [`LIMIT`]; at once while the breaker
    /// is open.
    pub(super) async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&mut Client) -> Result<T, AuditError>,
    ) -> Result<T, AuditError> {
        if !self.with_breaker(|breaker| breaker.lets_through(Instant::now(), LIMIT)) {
            return Err(AuditError::Unavailable(format!(
                "{self} did not answer of late; it is tried again soon"
            )));
        }
        let done = self.attempt(work).await;
        let answered = !matches!(done, Err(AuditError::Unavailable(_)));
        let changed = self.with_breaker(|breaker| breaker.came_back(answered, Instant::now()));
        match (changed, &done) {
            (Some(BreakerState::Closed), _) => {
                tracing::info!(server = %self, "audit.breaker_closed: PostgreSQL answers again");
            }
            (Some(_), Err(why)) => {
                tracing::warn!(server = %self, %why, "audit.breaker_open: PostgreSQL does not answer");
            }
            _ => {}
        }
        done
    }

    async fn attempt<T>(
        &self,
        work: impl AsyncFnOnce(&mut Client) -> Result<T, AuditError>,
    ) -> Result<T, AuditError> {
        let end = tokio::time::Instant::now() + LIMIT;
        let mut connection = match tokio::time::timeout_at(end, self.pool.get()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(PoolError::Backend(error))) => return Err(self.named(super::away(error))),
            Ok(Err(error)) => return Err(AuditError::Unavailable(format!("{self}: {error}"))),
            Err(_) => return Err(self.too_slow()),
        };
        match tokio::time::timeout_at(end, work(&mut connection)).await {
            Ok(Err(error @ AuditError::Unavailable(_))) => {
                // Who knows what it is still busy with.
                drop(Object::take(connection));
                Err(self.named(error))
            }
            Ok(done) => done.map_err(|error| self.named(error)),
            Err(_) => {
                drop(Object::take(connection));
                Err(self.too_slow())
            }
        }
    }

    /// Says which server it was.
    fn named(&self, error: AuditError) -> AuditError {
        match error {
            AuditError::Unavailable(why) => AuditError::Unavailable(format!("{self}: {why}")),
            AuditError::Refused(why) => AuditError::Refused(format!("{self}: {why}")),
            other => other,
        }
    }

    fn too_slow(&self) -> AuditError {
        let seconds = LIMIT.as_secs();
        AuditError::Unavailable(format!("{self} did not answer within {seconds} s"))
    }

    fn with_breaker<T>(&self, work: impl FnOnce(&mut Breaker) -> T) -> T {
        work(&mut self.breaker.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The server and the database, without user and password.
impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

fn name_of(config: &tokio_postgres::Config) -> String {
    let hosts = config.get_hosts().iter().enumerate().map(|(i, host)| {
        let port = config.get_ports().get(i).or(config.get_ports().first());
        let port = port.unwrap_or(&5432);
        match host {
            Host::Tcp(name) => format!("{name}:{port}"),
            Host::Unix(path) => format!("{}:{port}", path.display()),
        }
    });
    let hosts: Vec<_> = hosts.collect();
    let database = config
        .get_dbname()
        .or(config.get_user())
        .unwrap_or_default();
    format!("postgresql://{}/{database}", hosts.join(","))
}

fn is_local(config: &tokio_postgres::Config) -> bool {
    config.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            let address: Option<std::net::IpAddr> = name.parse().ok();
            name == "localhost" || address.is_some_and(|address| address.is_loopback())
        }
    })
}

/// TLS 1.3 with a server whose certificate this CA signed for its host name.
fn connector(ca_path: &Path) -> Result<MakeRustlsConnect, AuditError> {
    let wrong = |why: String| {
        let path = ca_path.display();
        AuditError::Settings(format!("postgres_ca_path {path}: {why}"))
    };
    let mut roots = rustls::RootCertStore::empty();
    let all = CertificateDer::pem_file_iter(ca_path).map_err(|error| wrong(error.to_string()))?;
    for certificate in all {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        let added = roots.add(certificate);
        added.map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("holds no certificate".to_owned()));
    }
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| wrong(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// What a new session is told. A server may be set to say "committed" before it is on
/// the disk; here that is not good enough.
fn session() -> String {
    format!(
        "SET statement_timeout = {STATEMENT_MS}; SET lock_timeout = {STATEMENT_MS};
         SET idle_in_transaction_session_timeout = {};
         SELECT set_config('synchronous_commit', 'on', false)
         WHERE current_setting('synchronous_commit') = 'off'",
        LIMIT.as_millis()
    )
}

/// An error with what lies behind it: its own text is often no more than "db error".
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
