//! The metrics of one node, typed, in a registry of its own: several nodes in one
//! process do not mix. `list` has every metric; what feeds them is the node's.

mod kinds;
mod list;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use crate::Stage;
pub use kinds::{Counter, Gauge, Histogram, Kind, Many, Value};
pub use list::{Described, LIST, Metrics};

/// The content type of [`Exporter::export`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Writes metrics as text.
#[derive(Clone, Debug)]
pub struct Exporter(Arc<Registry>);

impl Metrics {
    /// The metrics of one node, all at zero, and what exports them.
    pub fn new() -> (Self, Exporter) {
        let mut registry = Registry::with_prefix("quorate");
        let metrics = Self::register(&mut registry);
        for stage in Stage::ALL {
            metrics.stage_duration.of([stage.name()]);
        }
        (metrics, Exporter(Arc::new(registry)))
    }

    /// Notes how long something was in one stage of the pipeline.
    pub fn stage(&self, stage: Stage, duration: Duration) {
        self.stage_duration.of([stage.name()]).took(duration);
    }
}

impl Exporter {
    /// All metrics as OpenMetrics text. Metrics by labels appear once they have a
    /// value.
    pub fn export(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = text::encode(&mut text, &self.0);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_of_a_stage_is_an_edge() {
        for stage in Stage::ALL {
            let limit = stage.limit().as_secs_f64();
            assert!(list::SECONDS.contains(&limit), "{stage}: {limit} s");
        }
    }

    #[test]
    fn a_stage_is_counted_under_its_name() {
        let (metrics, exporter) = Metrics::new();
        metrics.stage(Stage::Store, Duration::from_millis(7));
        let text = exporter.export();
        for line in [
            "quorate_stage_duration_seconds_bucket{le=\"0.005\",stage=\"vote.store\"} 0",
            "quorate_stage_duration_seconds_bucket{le=\"0.01\",stage=\"vote.store\"} 1",
            "quorate_stage_duration_seconds_count{stage=\"vote.store\"} 1",
            "quorate_stage_duration_seconds_count{stage=\"submission.lock\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
    }

    #[test]
    fn what_is_cleared_is_not_exported() {
        let (metrics, exporter) = Metrics::new();
        metrics.peer_connected.of(["node2"]).set(1.0);
        assert!(exporter.export().contains("node_id=\"node2\""));
        metrics.peer_connected.clear();
        assert!(!exporter.export().contains("node_id=\"node2\""));
    }
}
