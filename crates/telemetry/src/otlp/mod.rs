//! Takes finished spans to a collector, by OTLP over gRPC. Whoever hands spans over
//! never waits: what the collector does not take in time is dropped, and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value,
};
use opentelemetry_proto::tonic::resource::v1::Resource as WireResource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as WireSpan, Status};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

use crate::span::{Attributes, Span, Value, Voice};

/// The most spans that wait for the collector: at half a kilobyte each, 8 MB.
pub const QUEUE: usize = 16_384;

/// With so many spans a request goes out; what was handed over together stays together, so
/// it may have more.
const BATCH: usize = 1_024;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long the first span of a batch waits for others.
    pub gather: Duration,
    /// How long the collector may take for a request.
    pub answer: Duration,
    /// The pause after a request that failed.
    pub pause: Duration,
    /// How long a batch is sent again and again before it is dropped.
    pub give_up: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            gather: Duration::from_millis(50),
            answer: Duration::from_secs(3),
            pause: Duration::from_secs(1),
            give_up: Duration::from_secs(15),
        }
    }
}

/// Whose spans they are, in the words of OpenTelemetry's resource attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The cluster's name: `service.namespace`.
    pub cluster: String,
    /// The trustee's: `service.instance.id`; `service.name` is `quorate-<node_id>`, for
    /// Jaeger shows nothing else beside a span.
    pub node_id: String,
}

/// What became of spans since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportCounts {
    /// The collector took them.
    pub exported: u64,
    /// They found no room in the queue, or the collector did not take them.
    pub dropped: u64,
}

#[derive(Debug, Default)]
struct Counts {
    exported: AtomicU64,
    dropped: AtomicU64,
    waiting: AtomicUsize,
}

enum Handed {
    Spans(Vec<Span>),
    Flush(oneshot::Sender<()>),
}

/// Takes spans; see the module's head. Clones lead to the same queue.
#[derive(Clone, Debug)]
pub struct Exporter {
    queue: mpsc::UnboundedSender<Handed>,
    counts: Arc<Counts>,
}

/// An endpoint that nobody can connect to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no good ({reason}): use http://host:port, for instance http://127.0.0.1:4317")]
pub struct EndpointError {
    reason: String,
}

/// Reads an endpoint: `http://host:port`.
///
/// # Errors
/// [`EndpointError`] with what is wrong with it.
pub fn endpoint(text: &str) -> Result<Endpoint, EndpointError> {
    let wrong = |reason: &str| EndpointError {
        reason: reason.to_owned(),
    };
    let Some(rest) = text.strip_prefix("http://") else {
        return Err(wrong("spans go out without TLS, to a collector close by"));
    };
    if rest.trim_end_matches('/').contains('/') {
        return Err(wrong("gRPC takes no path"));
    }
    let endpoint = Endpoint::from_shared(text.to_owned()).map_err(|e| wrong(&e.to_string()))?;
    if endpoint.uri().port_u16().is_none() {
        return Err(wrong("the port is missing"));
    }
    Ok(endpoint.connect_timeout(Pace::default().answer))
}

impl Exporter {
    /// Starts a task that takes spans to the collector, on the runtime that this is
    /// called in. It connects when there is something to send, and ends when the last
    /// clone is gone.
    pub fn start(endpoint: &Endpoint, resource: Resource, pace: Pace) -> Self {
        let (queue, handed) = mpsc::unbounded_channel();
        let counts = Arc::new(Counts::default());
        let sender = Sender {
            client: TraceServiceClient::new(endpoint.connect_lazy()),
            resource,
            counts: counts.clone(),
            pace,
            away: false,
        };
        tokio::spawn(sender.run(handed));
        Self { queue, counts }
    }

    /// Hands spans over that belong together: all of them go, or none.
    pub fn offer(&self, spans: Vec<Span>) {
        let more = spans.len();
        if more == 0 {
            return;
        }
        // The queue is bounded by this number, not by its channel: it counts spans.
        let room = |waiting: usize| (waiting + more <= QUEUE).then_some(waiting + more);
        let waiting = &self.counts.waiting;
        let taken = waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room);
        if taken.is_err() || self.queue.send(Handed::Spans(spans)).is_err() {
            self.counts
                .dropped
                .fetch_add(more as u64, Ordering::Relaxed);
        }
    }

    /// Waits until everything that was handed over before has left or was given up,
    /// but not longer than `within`.
    pub async fn flush(&self, within: Duration) {
        let (done, flushed) = oneshot::channel();
        if self.queue.send(Handed::Flush(done)).is_ok() {
            // Too late is the same as lost: both are said by the counts.
            let _ = tokio::time::timeout(within, flushed).await;
        }
    }

    /// What became of spans so far.
    pub fn counts(&self) -> ExportCounts {
        ExportCounts {
            exported: self.counts.exported.load(Ordering::Relaxed),
            dropped: self.counts.dropped.load(Ordering::Relaxed),
        }
    }
}

struct Sender {
    client: TraceServiceClient<Channel>,
    resource: Resource,
    counts: Arc<Counts>,
    pace: Pace,
    away: bool,
}

impl Sender {
    async fn run(mut self, mut handed: mpsc::UnboundedReceiver<Handed>) {
        let mut batch = Vec::new();
        let mut flushed = Vec::new();
        while let Some(first) = handed.recv().await {
            take(first, &mut batch, &mut flushed);
            let gathered = tokio::time::sleep(self.pace.gather);
            tokio::pin!(gathered);
            while batch.len() < BATCH && flushed.is_empty() {
                tokio::select! {
                    more = handed.recv() => match more {
                        Some(more) => take(more, &mut batch, &mut flushed),
                        None => break,
                    },
                    () = &mut gathered => break,
                }
            }
            if !batch.is_empty() {
                self.send(std::mem::take(&mut batch)).await;
            }
            for done in flushed.drain(..) {
                // Whoever waited may have given up.
                let _ = done.send(());
            }
        }
    }

    async fn send(&mut self, spans: Vec<Span>) {
        let total = spans.len();
        let pace = self.pace;
        let began = Instant::now();
        let exported = loop {
            // Made anew for each try, of which there is mostly one.
            let request = request(&self.resource, &spans);
            let asked = tokio::time::timeout(pace.answer, self.client.export(request));
            let error = match asked.await {
                Ok(Ok(answer)) => {
                    let partial = answer.into_inner().partial_success;
                    let rejected = partial.map_or(0, |partial| partial.rejected_spans);
                    break total - usize::try_from(rejected).unwrap_or(0).min(total);
                }
                Ok(Err(status)) => status.to_string(),
                Err(_) => format!("no answer in {:?}", pace.answer),
            };
            if !std::mem::replace(&mut self.away, true) {
                tracing::warn!(
                    %error,
                    "telemetry.collector_away: spans wait for it, and are dropped before they are too many"
                );
            }
            if began.elapsed() + pace.pause >= pace.give_up {
                break 0;
            }
            tokio::time::sleep(pace.pause).await;
        };
        if exported > 0 && std::mem::take(&mut self.away) {
            tracing::info!("telemetry.collector_back");
        }
        let counts = &self.counts;
        counts.waiting.fetch_sub(total, Ordering::Relaxed);
        counts
            .exported
            .fetch_add(exported as u64, Ordering::Relaxed);
        counts
            .dropped
            .fetch_add((total - exported) as u64, Ordering::Relaxed);
    }
}

fn take(handed: Handed, batch: &mut Vec<Span>, flushed: &mut Vec<oneshot::Sender<()>>) {
    match handed {
        Handed::Spans(spans) => batch.extend(spans),
        Handed::Flush(done) => flushed.push(done),
    }
}

/// One request: what the node says, and what the cluster says.
fn request(resource: &Resource, spans: &[Span]) -> ExportTraceServiceRequest {
    let (node, cluster): (Vec<_>, Vec<_>) =
        spans.iter().partition(|span| span.voice == Voice::Node);
    let text = |key, value: String| key_value(key, &Value::from(value));
    let namespace = || text("service.namespace", resource.cluster.clone());
    let own = vec![
        text("service.name", format!("quorate-{}", resource.node_id)),
        namespace(),
        text("service.instance.id", resource.node_id.clone()),
        text("service.version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    // Nothing of a node in it: it must be the same from each.
    let common = vec![text("service.name", "quorate".to_owned()), namespace()];
    let groups = [(own, node), (common, cluster)];
    let resource_spans = groups
        .into_iter()
        .filter(|(_, spans)| !spans.is_empty())
        .map(|(attributes, spans)| resource_spans(attributes, spans));
    ExportTraceServiceRequest {
        resource_spans: resource_spans.collect(),
    }
}

fn resource_spans(attributes: Vec<KeyValue>, spans: Vec<&Span>) -> ResourceSpans {
    ResourceSpans {
        resource: Some(WireResource {
            attributes,
            ..WireResource::default()
        }),
        scope_spans: vec![ScopeSpans {
            scope: Some(InstrumentationScope {
                name: "quorate".to_owned(),
                ..InstrumentationScope::default()
            }),
            spans: spans.into_iter().map(wire).collect(),
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    }
}

fn wire(span: &Span) -> WireSpan {
    WireSpan {
        trace_id: span.trace_id.as_bytes().to_vec(),
        span_id: span.span_id.as_bytes().to_vec(),
        parent_span_id: span
            .parent
            .map_or_else(Vec::new, |id| id.as_bytes().to_vec()),
        // W3C: sampled.
        flags: 1,
        name: span.name.to_owned(),
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: span.start_ns,
        end_time_unix_nano: span.end_ns,
        attributes: key_values(&span.attributes),
        events: span
            .events
            .iter()
            .map(|event| Event {
                time_unix_nano: event.at_ns,
                name: event.name.to_owned(),
                attributes: key_values(&event.attributes),
                ..Event::default()
            })
            .collect(),
        links: span
            .links
            .iter()
            .map(|link| Link {
                trace_id: link.trace_id.as_bytes().to_vec(),
                span_id: link.span_id.as_bytes().to_vec(),
                ..Link::default()
            })
            .collect(),
        status: span.error.as_ref().map(|why| Status {
            message: why.to_string(),
            code: StatusCode::Error.into(),
        }),
        ..WireSpan::default()
    }
}

fn key_values(attributes: &Attributes) -> Vec<KeyValue> {
    let pairs = attributes.iter();
    pairs.map(|(key, value)| key_value(key, value)).collect()
}

fn key_value(key: &str, value: &Value) -> KeyValue {
    use any_value::Value as Wire;
    let text = |text: &str| Wire::StringValue(text.to_owned());
    let value = match value {
        Value::Word(word) => text(word),
        Value::Text(found) => text(found),
        // Nothing that is counted here comes near.
        Value::Number(number) => Wire::IntValue(i64::try_from(*number).unwrap_or(i64::MAX)),
        Value::Flag(flag) => Wire::BoolValue(*flag),
        Value::List(names) => Wire::ArrayValue(ArrayValue {
            values: names
                .iter()
                .map(|name| AnyValue {
                    value: Some(text(name)),
                })
                .collect(),
        }),
    };
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

#[cfg(test)]
mod tests;
