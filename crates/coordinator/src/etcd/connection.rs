//! Requests to whichever member of etcd answers.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{
    Client, ConnectOptions, Error, GetOptions, SortOrder, SortTarget, WatchOptions, WatchStream,
};
use quorate_keyspace::{Batch, KeyValue, Past, Step, Write, names};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use super::Options;
use super::translate;
use crate::api::StoreError;

/// Answers with many keys or changes are larger than gRPC's default allows.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// How many keys one answer of the first reading holds.
const PAGE: i64 = 2_000;

/// How many it holds at least, when more are too many to arrive.
const LEAST_PAGE: i64 = 30;

/// A name and a password.
#[derive(Clone)]
pub struct User {
    /// The name.
    pub name: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Opens connections to members of etcd.
pub trait Dial: Send + Sync + 'static {
    /// A channel to this endpoint, which may connect later. `endpoint` comes with
    /// deadlines and keep-alives set and with the scheme `http`; `tls` says whether
    /// `https` was asked for.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], for an endpoint that can never be reached so.
    fn channel(&self, endpoint: Endpoint, tls: bool) -> Result<Channel, StoreError>;
}

/// Connections without TLS.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

impl Dial for Plain {
    fn channel(&self, endpoint: Endpoint, tls: bool) -> Result<Channel, StoreError> {
        match tls {
            false => Ok(endpoint.connect_lazy()),
            true => Err(StoreError::Unavailable(format!(
                "{} is to be reached by TLS: name the CA in storage.etcd_ca_path",
                endpoint.uri()
            ))),
        }
    }
}

/// What became of a transaction.
pub(super) enum Sent {
    /// It was carried out at this revision; for each step whether its guards held.
    Done { revision: u64, held: Vec<bool> },
    /// It had no effect, and repeating it will not help now.
    Refused(String),
    /// Nobody knows.
    Unknown(String),
}

pub(super) struct Connection {
    endpoints: Vec<(String, Channel)>,
    clients: Vec<tokio::sync::OnceCell<Client>>,
    current: AtomicUsize,
    options: ConnectOptions,
    prefix: String,
    timeout: Duration,
    trouble: Mutex<String>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints: Vec<_> = self.endpoints.iter().map(|(at, _)| at).collect();
        f.debug_struct("Connection")
            .field("endpoints", &endpoints)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) fn new(options: &Options, dial: Arc<dyn Dial>) -> Result<Self, StoreError> {
        let mut endpoints = Vec::new();
        for at in &options.endpoints {
            let (tls, host) = match at.split_once("://") {
                Some(("https", host)) => (true, host),
                Some((_, host)) => (false, host),
                None => (false, at.as_str()),
            };
            let endpoint = Endpoint::from_shared(format!("http://{host}")).map_err(|error| {
                StoreError::Unavailable(format!("etcd endpoint {at:?} is no address: {error}"))
            })?;
            let endpoint = endpoint
                .connect_timeout(options.request_timeout)
                .http2_keep_alive_interval(Duration::from_secs(2))
                .keep_alive_timeout(Duration::from_secs(3))
                .keep_alive_while_idle(true)
                .tcp_nodelay(true);
            endpoints.push((at.clone(), dial.channel(endpoint, tls)?));
        }
        if endpoints.is_empty() {
            return Err(StoreError::Unavailable(
                "no etcd endpoint is configured: set storage.etcd_endpoints".into(),
            ));
        }
        let mut connect = ConnectOptions::new()
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some(user) = &options.user {
            connect = connect.with_user(&user.name, &user.password);
        }
        Ok(Self {
            clients: endpoints.iter().map(|_| Default::default()).collect(),
            endpoints,
            current: AtomicUsize::new(0),
            options: connect,
            prefix: options.prefix.clone(),
            timeout: options.request_timeout,
            trouble: Mutex::new("none".into()),
        })
    }

    /// What went wrong last, for people.
    pub(super) fn last_trouble(&self) -> String {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The key as etcd has it.
    pub(super) fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// How many members are configured.
    pub(super) fn count(&self) -> usize {
        self.endpoints.len()
    }

    /// Where a member is, as the configuration names it.
    pub(super) fn endpoint(&self, member: usize) -> &str {
        self.endpoints.get(member).map_or("", |(at, _)| at)
    }

    /// How long one request may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    async fn client(&self) -> Result<(usize, Client), StoreError> {
        let current = self.current.load(Ordering::Relaxed) % self.endpoints.len();
        match self.client_of(current).await {
            Ok(client) => Ok((current, client)),
            Err(error) => Err(self.failed(current, error)),
        }
    }

    /// A client of one member; or why there is none.
    pub(super) async fn client_of(&self, member: usize) -> Result<Client, String> {
        let (Some(cell), Some((_, channel))) =
            (self.clients.get(member), self.endpoints.get(member))
        else {
            return Err("there is no such member".into());
        };
        let make = || async {
            let channel = etcd_client::Channel::Tonic(channel.clone());
            // With a user this asks etcd for a token.
            let made = Client::from_channel(channel, Some(self.options.clone()));
            match tokio::time::timeout(self.timeout, made).await {
                Ok(made) => made.map_err(|error| error.to_string()),
                Err(_) => Err("no answer".into()),
            }
        };
        cell.get_or_try_init(make).await.cloned()
    }

    /// Notes trouble with a member, and turns to the next one.
    fn failed(&self, member: usize, error: impl fmt::Display) -> StoreError {
        let at = self.endpoint(member);
        let told = format!("{at}: {error}");
        tracing::debug!(endpoint = at, %error, "etcd.trouble");
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(&told);
        // Many requests may fail at once: only the first turns.
        let next = (member + 1) % self.endpoints.len();
        // Whoever was first to turn has turned.
        let _ = self
            .current
            .compare_exchange(member, next, Ordering::Relaxed, Ordering::Relaxed);
        StoreError::Unavailable(told)
    }

    /// Turns to the next member, whatever the present one says.
    pub(super) fn turn(&self) {
        let current = self.current.load(Ordering::Relaxed);
        drop(self.failed(current % self.endpoints.len(), "is silent"));
    }

    /// Runs one request, and turns to the next member when it fails.
    async fn run<T, F>(&self, request: impl FnOnce(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let (member, client) = self.client().await.map_err(|error| Failure {
            certain: true,
            lasting: false,
            large: false,
            why: error.to_string(),
        })?;
        let mut failure = match tokio::time::timeout(self.timeout, request(client)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => {
                let lasting = is_lasting(&error);
                Failure {
                    certain: lasting,
                    lasting,
                    large: is_too_large(&error),
                    why: error.to_string(),
                }
            }
            Err(_) => Failure {
                certain: false,
                lasting: false,
                large: true,
                why: format!("no answer within {:?}", self.timeout),
            },
        };
        if !failure.lasting {
            failure.why = self.failed(member, failure.why).to_string();
        }
        Err(failure)
    }

    /// Carries out a batch.
    pub(super) async fn commit(&self, batch: &Batch) -> Sent {
        let leases = match self.leases(batch).await {
            Ok(leases) => leases,
            Err(failure) => return failure.into(),
        };
        let steps = batch.steps.len();
        let txn = translate::batch(batch, &self.prefix, &leases);
        match self
            .run(|mut client| async move { client.txn(txn).await })
            .await
        {
            Ok(answer) => match translate::outcome(&answer, batch.writes.len(), steps) {
                Some((revision, held)) => Sent::Done { revision, held },
                None => Sent::Unknown("etcd answered something else than was asked".into()),
            },
            Err(failure) => failure.into(),
        }
    }

    /// Carries out one step if its guards hold, and says whether they did.
    pub(super) async fn step(&self, step: &Step) -> Result<bool, StoreError> {
        let txn = translate::step(step, &self.prefix, &[]);
        let answer = self
            .run(|mut client| async move { client.txn(txn).await })
            .await?;
        Ok(answer.succeeded())
    }

    async fn leases(&self, batch: &Batch) -> Result<Vec<(String, i64)>, Failure> {
        let mut leases = Vec::new();
        for write in batch.steps.iter().flat_map(|(_, step)| &step.writes) {
            if let Write::Put {
                key,
                ttl_ms: Some(ttl_ms),
                ..
            } = write
            {
                let seconds = i64::try_from(ttl_ms.div_ceil(1_000)).unwrap_or(i64::MAX);
                let granted = self
                    .run(|mut client| async move { client.lease_grant(seconds, None).await })
                    .await?;
                leases.push((key.clone(), granted.id()));
            }
        }
        Ok(leases)
    }

    /// Where the log ends, as of now.
    pub(super) async fn head(&self) -> Result<Head, StoreError> {
        let key = self.full(names::HEAD);
        let answer = self
            .run(|mut client| async move { client.get(key, None).await })
            .await?;
        let kv = answer.kvs().first();
        let store = answer
            .header()
            .map_or(0, |header| unsigned(header.revision()));
        Ok(Head {
            key: kv.and_then(|kv| translate::key_value(kv, &self.prefix)),
            store,
        })
    }

    /// A key as it was at a past revision.
    pub(super) async fn at(&self, key: &str, revision: u64) -> Result<Past, StoreError> {
        let full = self.full(key);
        let options = GetOptions::new().with_revision(i64::try_from(revision).unwrap_or(i64::MAX));
        let asked = self.run(|mut client| async move {
            match client.get(full, Some(options)).await {
                Ok(answer) => Ok(Some(answer)),
                // Compacted away, or not reached yet.
                Err(Error::GRpcStatus(status)) if status.code() == Code::OutOfRange => Ok(None),
                Err(error) => Err(error),
            }
        });
        Ok(match asked.await? {
            None => Past::Gone,
            Some(answer) => {
                let kv = answer.kvs().first();
                Past::Was(kv.and_then(|kv| translate::key_value(kv, &self.prefix)))
            }
        })
    }

    /// Writes the head's key, and gives the revision.
    pub(super) async fn touch_head(&self) -> Result<u64, StoreError> {
        let key = self.full(names::HEAD);
        let answer = self
            .run(|mut client| async move { client.put(key, "", None).await })
            .await?;
        Ok(answer
            .header()
            .map_or(0, |header| unsigned(header.revision())))
    }

    /// All keys of the cluster as they are at one revision.
    pub(super) async fn all(&self) -> Result<(u64, Vec<KeyValue>), StoreError> {
        let end = translate::end_of(&self.prefix);
        let mut from = self.prefix.clone().into_bytes();
        let mut at = 0;
        let mut limit = PAGE;
        let mut all = Vec::new();
        loop {
            let mut options = GetOptions::new()
                .with_range(end.clone())
                .with_limit(limit)
                .with_sort(SortTarget::Key, SortOrder::Ascend);
            if at > 0 {
                options = options.with_revision(at);
            }
            let key = from.clone();
            let page = self
                .run(|client| async move {
                    let mut kv = client.kv_client().max_decoding_message_size(MAX_MESSAGE);
                    kv.get(key, Some(options)).await
                })
                .await;
            let page = match page {
                Ok(page) => page,
                Err(failure) if failure.large && limit > LEAST_PAGE => {
                    limit = (limit / 8).max(LEAST_PAGE);
                    continue;
                }
                Err(failure) => return Err(failure.into()),
            };
            if at == 0 {
                at = page.header().map_or(0, |header| header.revision());
            }
            let keys = page.kvs();
            all.extend(
                keys.iter()
                    .filter_map(|kv| translate::key_value(kv, &self.prefix)),
            );
            let Some(last) = keys.last().filter(|_| page.more()) else {
                return Ok((unsigned(at), all));
            };
            from = last.key().to_vec();
            from.push(0);
        }
    }

    /// The changes from a revision on.
    pub(super) async fn watch(&self, from: u64) -> Result<WatchStream, StoreError> {
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(i64::try_from(from).unwrap_or(i64::MAX));
        let key = self.prefix.clone();
        let stream = self
            .run(|client| async move {
                let mut watch = client.watch_client().max_decoding_message_size(MAX_MESSAGE);
                watch.watch(key, Some(options)).await
            })
            .await?;
        Ok(stream)
    }

    /// The prefix of all keys.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) async fn version(&self) -> Result<String, StoreError> {
        let status = self
            .run(|client| async move { client.maintenance_client().status().await })
            .await?;
        Ok(status.version().to_owned())
    }
}

/// Where the log ends.
pub(super) struct Head {
    /// The key that every node's transaction writes, if there is one.
    pub(super) key: Option<KeyValue>,
    /// The store's own revision.
    pub(super) store: u64,
}

struct Failure {
    /// It certainly had no effect.
    certain: bool,
    /// Another member will say the same.
    lasting: bool,
    /// A smaller answer may arrive.
    large: bool,
    why: String,
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        Self::Unavailable(failure.why)
    }
}

impl From<Failure> for Sent {
    fn from(failure: Failure) -> Self {
        match failure.certain && failure.lasting {
            true => Self::Refused(failure.why),
            false => Self::Unknown(failure.why),
        }
    }
}

/// Whether another member will say the same, and the request had no effect: no room,
/// no permission, or a request that etcd does not understand.
fn is_lasting(error: &Error) -> bool {
    match error {
        Error::GRpcStatus(status) => matches!(
            status.code(),
            Code::ResourceExhausted
                | Code::InvalidArgument
                | Code::PermissionDenied
                | Code::FailedPrecondition
                | Code::Unimplemented
        ),
        _ => false,
    }
}

/// Whether the answer was larger than [`MAX_MESSAGE`].
pub(super) fn is_too_large(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.code() == Code::OutOfRange)
}

fn unsigned(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}
