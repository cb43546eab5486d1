//! Logs, metrics and traces: how a process starts to write its log, the list of a node's
//! metrics, and the W3C trace context that lets every trustee's node join the trace of
//! one transaction without asking, finished spans, and their way to a collector.

mod log;
pub mod metrics;
pub mod otlp;
pub mod span;
mod stage;
pub mod trace;

pub use log::{Format, InitError, LogHandle, LogSettings, init};
pub use metrics::Metrics;
pub use otlp::{ExportCounts, Exporter, Pace, Resource};
pub use span::{Span, SpanIds};
pub use stage::{Stage, StageSink};
pub use trace::{SpanId, TraceContext, TraceId};
