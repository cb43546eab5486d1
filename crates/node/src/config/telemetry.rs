//! `[telemetry]`: where traces go, and how many of them, and where alerts go.

use quorate_consensus::{NodeId, Rules};
use quorate_telemetry::{Exporter, Pace, Resource};
use tonic::transport::Endpoint;

use crate::alerts::Webhook;
use crate::traces::Settings;

/// `[telemetry]`: where traces go, and how many of them.
#[derive(Clone, Debug)]
pub struct TelemetrySection {
    /// The collector, by OTLP over gRPC; none: no traces are exported.
    pub otlp_endpoint: Option<Endpoint>,
    /// The share of transactions whose traces are exported, 0 to 1; those that are
    /// aborted, and those in which somebody lied, always are.
    pub sample_ratio: f64,
    /// Traces show what was voted for. Values that prove a lie they always show.
    pub trace_values: bool,
    /// Where alerts are sent at once.
    pub alert_webhook: Option<Webhook>,
    /// How patient the export is; not a setting.
    pub pace: Pace,
}

impl Default for TelemetrySection {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            sample_ratio: 1.0,
            trace_values: false,
            alert_webhook: None,
            pace: Pace::default(),
        }
    }
}

impl TelemetrySection {
    /// What is composed; none when nothing is exported.
    pub(crate) fn traces(&self) -> Option<Settings> {
        self.otlp_endpoint.as_ref()?;
        Some(Settings {
            ratio: self.sample_ratio,
            values: self.trace_values,
        })
    }

    /// Starts what takes spans to the collector, on the runtime that this is called in.
    pub(crate) fn exporter(&self, node_id: &NodeId, rules: &Rules) -> Option<Exporter> {
        let endpoint = self.otlp_endpoint.as_ref()?;
        let resource = Resource {
            cluster: rules.cluster_name().to_owned(),
            node_id: node_id.to_string(),
        };
        Some(Exporter::start(endpoint, resource, self.pace))
    }
}
