//! Logs and traces: how a process starts to write its log, and the W3C trace context
//! that lets every trustee's node join the trace of one transaction without asking.
//! Export comes with a collector; names and ids are the same then.

mod log;
mod stage;
pub mod trace;

pub use log::{Format, InitError, LogSettings, init};
pub use stage::{Stage, StageSink};
pub use trace::{TraceContext, TraceId};
