//! A collector of traces that keeps what it gets, for tests: OTLP over gRPC.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// Long enough for a machine under load.
const PATIENCE: Duration = Duration::from_secs(120);

/// Names and values, as text.
type Words = BTreeMap<String, String>;

/// A span that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// What its resource says.
    pub resource: Words,
    /// In hexadecimal digits.
    pub trace_id: String,
    /// In hexadecimal digits.
    pub span_id: String,
    /// In hexadecimal digits; empty for a root.
    pub parent: String,
    /// What was done.
    pub name: String,
    /// From when until when: nanoseconds since the Unix epoch.
    pub time: (u64, u64),
    /// More about it; a list's items are separated by commas.
    pub attributes: Words,
    /// Names and attributes of what happened meanwhile.
    pub events: Vec<(String, Words)>,
    /// Trace and span ids.
    pub links: Vec<(String, String)>,
    /// What went wrong.
    pub error: Option<String>,
}

impl Received {
    /// `service.name`.
    pub fn service(&self) -> &str {
        self.resource.get("service.name").map_or("", String::as_str)
    }

    /// An attribute; empty if there is none.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    fn read(resource: &Words, span: Span) -> Self {
        let failed = span.status.filter(|s| s.code() == StatusCode::Error);
        Self {
            resource: resource.clone(),
            trace_id: hex::encode(span.trace_id),
            span_id: hex::encode(span.span_id),
            parent: hex::encode(span.parent_span_id),
            name: span.name,
            time: (span.start_time_unix_nano, span.end_time_unix_nano),
            attributes: words(span.attributes),
            events: span
                .events
                .into_iter()
                .map(|event| (event.name, words(event.attributes)))
                .collect(),
            links: span
                .links
                .into_iter()
                .map(|link| (hex::encode(link.trace_id), hex::encode(link.span_id)))
                .collect(),
            error: failed.map(|status| status.message),
        }
    }
}

fn words(attributes: Vec<KeyValue>) -> Words {
    let pairs = attributes.into_iter();
    pairs.map(|pair| (pair.key, word(pair.value))).collect()
}

fn word(value: Option<AnyValue>) -> String {
    use any_value::Value;
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        Some(Value::ArrayValue(list)) => {
            let items: Vec<_> = list.values.into_iter().map(|v| word(Some(v))).collect();
            items.join(",")
        }
        other => format!("{other:?}"),
    }
}

struct Kept {
    /// Else it only answers.
    keeps: bool,
    spans: Mutex<Vec<Received>>,
    more: Condvar,
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Vec<Received>> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Service(Arc<Kept>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        if !self.0.keeps {
            return Ok(Response::new(ExportTraceServiceResponse::default()));
        }
        let mut spans = self.0.lock();
        for group in request.into_inner().resource_spans {
            let resource = words(group.resource.unwrap_or_default().attributes);
            let found = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(found.map(|span| Received::read(&resource, span)));
        }
        self.0.more.notify_all();
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A running collector, on a thread of its own; it ends when dropped.
pub struct Collector {
    kept: Arc<Kept>,
    addr: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Collector {
    /// Starts one on a free port of 127.0.0.1.
    #[expect(clippy::new_without_default, reason = "it starts something")]
    pub fn new() -> Self {
        Self::start(true)
    }

    /// One that throws away what it gets, to measure the others.
    pub fn discarding() -> Self {
        Self::start(false)
    }

    fn start(keeps: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let kept = Arc::new(Kept {
            keeps,
            spans: Mutex::default(),
            more: Condvar::new(),
        });
        let service = TraceServiceServer::new(Service(kept.clone()));
        std::thread::spawn(move || {
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                tonic::transport::Server::builder()
                    .add_service(service)
                    .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async {
                        let _ = stopped.await;
                    })
                    .await
            })
        });
        Self {
            kept,
            addr,
            _stop: stop,
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The same as an endpoint of OTLP.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Received> {
        self.kept.lock().clone()
    }

    /// Waits, on this thread, until `look` finds something in all spans so far.
    ///
    /// # Panics
    /// When it does not find anything in two minutes; the message shows the spans.
    pub fn until<T>(&self, what: &str, look: impl Fn(&[Received]) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        let mut spans = self.kept.lock();
        loop {
            if let Some(found) = look(&spans) {
                return found;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain: {what}, in {spans:#?}");
            let waited = self.kept.more.wait_timeout(spans, left);
            spans = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
