//! What every call passes before its method: who calls and may it, how often, and a
//! span for the log. One tower layer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use quorate_consensus::NodeId;
use quorate_telemetry::{TraceContext, trace};
use quorate_tls::{Identity, PeerInfo, Role};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::Instrument as _;

use crate::clock::Clock;
use crate::exchange::Admission;
use crate::metrics::Meter;
use crate::parts::Limits;
use crate::peer_clocks;
use crate::status::{ApiError, refine};

use super::patience;

/// Every so many calls, identities that have not called for long are forgotten.
const FORGET_EVERY: u32 = 4096;

/// Who may call what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Allowed {
    /// Nodes.
    Nodes,
    /// Clients and operators of this node.
    OwnPeople,
    /// Operators of this node.
    OwnOperators,
    /// Whoever has a certificate: health and reflection, and what does not exist.
    Anybody,
}

fn allowed(path: &str) -> Allowed {
    if path.starts_with("/quorate.v1.OperatorService/") {
        return Allowed::OwnOperators;
    }
    match path.strip_prefix("/quorate.v1.VoteService/") {
        Some("Exchange") => Allowed::Nodes,
        Some(_) => Allowed::OwnPeople,
        None => Allowed::Anybody,
    }
}

/// What the gate knows.
pub(crate) struct Rules {
    own: NodeId,
    cluster: String,
    admission: Arc<Admission>,
    limiter: DefaultKeyedRateLimiter<Identity>,
    calls: AtomicU32,
    meter: Arc<Meter>,
    clock: Clock,
    patience: Duration,
}

impl Rules {
    pub(crate) fn new(
        own: NodeId,
        cluster: String,
        admission: Arc<Admission>,
        limits: &Limits,
        meter: Arc<Meter>,
        clock: Clock,
    ) -> Self {
        let quota = Quota::per_second(limits.calls_per_sec).allow_burst(limits.burst);
        Self {
            own,
            cluster,
            admission,
            limiter: RateLimiter::keyed(quota),
            calls: AtomicU32::new(0),
            meter,
            clock,
            patience: limits.request_time,
        }
    }

    /// Says on an answer what time it is here.
    fn stamp(&self, answer: &mut http::Response<Body>) {
        let now = self.clock.wall_ms().into();
        answer.headers_mut().insert(peer_clocks::HEADER, now);
    }

    /// Whether this caller may make this call now.
    fn admit(&self, path: &str, peer: Option<&PeerInfo>) -> Result<(), ApiError> {
        let peer = peer.ok_or(ApiError::NoIdentity)?;
        self.admit_identity(path, &peer.identity)
    }

    fn admit_identity(&self, path: &str, caller: &Identity) -> Result<(), ApiError> {
        // Nodes too, and before anything is refused: a refusal costs a line in the log.
        self.limit(caller)?;
        let forbidden = self.judge(allowed(path), caller);
        if forbidden.is_err() {
            self.meter.calls_forbidden.inc();
            return forbidden;
        }
        Ok(())
    }

    fn judge(&self, allowed: Allowed, caller: &Identity) -> Result<(), ApiError> {
        let wrong = |needed| ApiError::WrongRole {
            caller: caller.to_string(),
            needed,
        };
        match allowed {
            _ if caller.cluster != self.cluster => Err(wrong("this cluster's")),
            Allowed::Anybody => Ok(()),
            Allowed::Nodes if caller.role != Role::Node => Err(wrong("nodes")),
            Allowed::Nodes if self.admission.is_cut(&caller.node_id) => {
                Err(ApiError::Unavailable {
                    reason: "NETWORK_CUT",
                    why: format!(
                        "the network between {} and {} is cut",
                        self.own, caller.node_id
                    ),
                    retry: std::time::Duration::from_secs(1),
                })
            }
            Allowed::Nodes if !self.admission.is_welcome(&caller.node_id) => {
                Err(ApiError::Rejected(quorate_engine::Reject::Banned {
                    node_id: caller.node_id.clone(),
                    reason: "misbehaviour: see GetCertificate and List for the evidence".into(),
                }))
            }
            Allowed::Nodes => Ok(()),
            Allowed::OwnOperators if caller.role != Role::Operator => {
                Err(wrong("operators of this node"))
            }
            Allowed::OwnPeople if caller.role == Role::Node => {
                Err(wrong("clients and operators of this node"))
            }
            Allowed::OwnPeople | Allowed::OwnOperators if caller.node_id != self.own => {
                Err(ApiError::OtherNodesClient {
                    caller: caller.to_string(),
                    own: self.own.to_string(),
                })
            }
            Allowed::OwnPeople | Allowed::OwnOperators => Ok(()),
        }
    }

    fn limit(&self, caller: &Identity) -> Result<(), ApiError> {
        if self.calls.fetch_add(1, Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(caller).map_err(|not_until| {
            self.meter.rate_limited.of(["calls"]).inc();
            let retry = not_until.wait_time_from(DefaultClock::default().now());
            // There may be room by the time that this is computed; zero would mean "at once".
            let retry = retry.max(Duration::from_millis(1));
            ApiError::RateLimited { retry }
        })
    }
}

/// Whoever calls too often hears of it after this time. A caller without manners calls
/// again at once: a timer costs less than its next refusal.
const REFUSED_AFTER: Duration = Duration::from_millis(100);

/// Puts the gate before a service.
#[derive(Clone)]
pub(crate) struct GateLayer(pub(crate) Arc<Rules>);

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate {
            rules: self.0.clone(),
            inner,
        }
    }
}

/// A service behind the gate.
#[derive(Clone)]
pub(crate) struct Gate<S> {
    rules: Arc<Rules>,
    inner: S,
}

impl<S> Service<http::Request<Body>> for Gate<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<PeerInfo>();
        let span = span(&request, peer);
        let method = method(request.uri().path());
        if let Err(error) = self.rules.admit(request.uri().path(), peer) {
            let too_many = matches!(error, ApiError::RateLimited { .. });
            let status = Status::from(error);
            self.rules.meter.called(method, status.code());
            let reason = status.message();
            span.in_scope(|| match too_many {
                // One line for each call of a flood would be a flood; it is counted.
                true => tracing::debug!(code = ?status.code(), reason, "call.refused"),
                false => tracing::info!(code = ?status.code(), reason, "call.refused"),
            });
            let mut answer = status.into_http();
            self.rules.stamp(&mut answer);
            return Box::pin(async move {
                if too_many {
                    tokio::time::sleep(REFUSED_AFTER).await;
                }
                Ok(answer)
            });
        }
        let began = Instant::now();
        let request = patience::within(self.rules.patience, request);
        let answer = self.inner.call(request);
        let rules = self.rules.clone();
        let call = async move {
            let meter = &rules.meter;
            let mut response = refine(answer.await?);
            rules.stamp(&mut response);
            let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            meter.call_duration.of([method]).took(began.elapsed());
            let status = Status::from_header_map(response.headers());
            let code = status.as_ref().map_or(tonic::Code::Ok, Status::code);
            meter.called(method, code);
            match status {
                Some(status) if status.code() != tonic::Code::Ok => {
                    tracing::debug!(micros, code = ?status.code(), message = status.message(), "call.failed");
                }
                _ => tracing::debug!(micros, "call.answered"),
            }
            Ok(response)
        };
        Box::pin(call.instrument(span))
    }
}

/// The methods that are measured by name; whatever else is called is one.
const METHODS: [&str; 17] = [
    "Exchange",
    "Submit",
    "Status",
    "Watch",
    "List",
    "GetCertificate",
    "GetRules",
    "Check",
    "Info",
    "Peers",
    "Reputation",
    "Violations",
    "Ban",
    "Unban",
    "Send",
    "SetLogLevel",
    "Drain",
];

/// A method's name as a label: callers may ask for any path.
fn method(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or_default();
    let known = METHODS.iter().find(|known| **known == name);
    known.copied().unwrap_or("other")
}

/// A call's span, with the caller's trace if it sent one.
fn span(request: &http::Request<Body>, peer: Option<&PeerInfo>) -> tracing::Span {
    let span = tracing::info_span!(
        "call",
        method = request.uri().path(),
        caller = tracing::field::Empty,
        trace_id = tracing::field::Empty,
        parent_span_id = tracing::field::Empty,
    );
    if let Some(peer) = peer {
        span.record("caller", tracing::field::display(&peer.identity));
    }
    let context = request.headers().get(trace::HEADER);
    let context = context.and_then(|value| value.to_str().ok());
    if let Some(context) = context.and_then(|text| text.parse::<TraceContext>().ok()) {
        span.record("trace_id", tracing::field::display(context.trace_id));
        span.record("parent_span_id", tracing::field::display(context.span_id));
    }
    span
}

#[cfg(test)]
mod tests {
    use quorate_tls::Registry;
    use quorate_tls::identity::PersonRole;

    use super::*;

    fn rules(per_second: u32) -> Rules {
        let limit = std::num::NonZeroU32::new(per_second).unwrap();
        let limits = Limits {
            calls_per_sec: limit,
            burst: limit,
            ..Limits::default()
        };
        Rules::new(
            id("node1"),
            "c".into(),
            Arc::new(Admission::new(Registry::new())),
            &limits,
            Arc::default(),
            Clock::start(0),
        )
    }

    fn id(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn person(role: PersonRole, node: &str) -> Identity {
        Identity::person("c", role, id(node), "alice").unwrap()
    }

    fn code(result: Result<(), ApiError>) -> tonic::Code {
        result.map_or_else(|e| Status::from(e).code(), |()| tonic::Code::Ok)
    }

    #[tokio::test]
    async fn each_method_has_its_role() {
        use tonic::Code::{Ok, PermissionDenied};
        let rules = rules(1000);
        let node = Identity::node("c", id("node2"));
        let client = person(PersonRole::Client, "node1");
        let operator = person(PersonRole::Operator, "node1");
        let other = person(PersonRole::Client, "node2");
        let foreign = Identity::node("d", id("node2"));
        for (method, caller, expected) in [
            ("Exchange", &node, Ok),
            ("Exchange", &client, PermissionDenied),
            ("Exchange", &operator, PermissionDenied),
            ("Exchange", &foreign, PermissionDenied),
            ("Submit", &node, PermissionDenied),
            ("Submit", &client, Ok),
            ("Submit", &operator, Ok),
            ("Submit", &other, PermissionDenied),
            ("Status", &other, PermissionDenied),
            ("GetRules", &node, PermissionDenied),
            ("FromALaterVersion", &node, PermissionDenied),
        ] {
            let path = format!("/quorate.v1.VoteService/{method}");
            let judged = rules.judge(allowed(&path), caller);
            assert_eq!(code(judged), expected, "{method} by {caller}");
        }
        let other_operator = person(PersonRole::Operator, "node2");
        for (caller, expected) in [
            (&operator, Ok),
            (&client, PermissionDenied),
            (&node, PermissionDenied),
            (&other_operator, PermissionDenied),
        ] {
            for method in ["Info", "Ban", "Drain", "FromALaterVersion"] {
                let path = format!("/quorate.v1.OperatorService/{method}");
                let judged = rules.judge(allowed(&path), caller);
                assert_eq!(code(judged), expected, "{method} by {caller}");
            }
        }
        for caller in [&node, &client, &other] {
            let path = "/grpc.health.v1.Health/Check";
            assert_eq!(code(rules.judge(allowed(path), caller)), Ok);
        }
        rules.admission.set(&id("node2"), false);
        assert_eq!(code(rules.judge(Allowed::Nodes, &node)), PermissionDenied);
        rules.admission.set(&id("node2"), true);
        assert_eq!(code(rules.judge(Allowed::Nodes, &node)), Ok);
    }

    #[tokio::test]
    async fn one_identity_cannot_use_up_anothers_limit() {
        let rules = rules(2);
        let (alice, operator) = (
            person(PersonRole::Client, "node1"),
            person(PersonRole::Operator, "node1"),
        );
        assert_eq!(code(rules.limit(&alice)), tonic::Code::Ok);
        assert_eq!(code(rules.limit(&alice)), tonic::Code::Ok);
        assert_eq!(code(rules.limit(&alice)), tonic::Code::ResourceExhausted);
        assert_eq!(code(rules.limit(&operator)), tonic::Code::Ok);
        assert_eq!(rules.meter.counts().calls_limited, 1);
    }

    #[tokio::test]
    async fn nobody_may_call_without_limit_and_be_it_in_vain() {
        use tonic::Code::{Ok, PermissionDenied, ResourceExhausted};
        let rules = rules(1);
        let (node, client) = (
            Identity::node("c", id("node2")),
            person(PersonRole::Client, "node1"),
        );
        for (caller, method, first) in [
            (node, "grpc.health.v1.Health/Check", Ok),
            (client, "quorate.v1.VoteService/Exchange", PermissionDenied),
        ] {
            let path = format!("/{method}");
            assert_eq!(code(rules.admit_identity(&path, &caller)), first);
            assert_eq!(
                code(rules.admit_identity(&path, &caller)),
                ResourceExhausted
            );
        }
    }
}
