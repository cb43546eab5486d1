//! The last step of a submission: the audit store has the rows that say how it ended.
//! The projector writes them, beside the driver.

use std::sync::Arc;
use std::time::Instant;

use quorate_consensus::ballot::{is_aborted, is_final, state_name};
use quorate_consensus::wire::{BoardEntry, board_event};
use quorate_consensus::{ClusterId, NodeId, TxId};
use quorate_telemetry::{Exporter, Span, SpanIds, Stage, StageSink, TraceContext};

use super::{Settings, wall_ns};

/// See the module's head.
pub(crate) struct Rows {
    own: Arc<str>,
    cluster_id: ClusterId,
    stages: Arc<dyn StageSink>,
    output: Option<(Settings, Exporter)>,
    ids: SpanIds,
}

impl Rows {
    pub(crate) fn new(
        own: &NodeId,
        cluster_id: ClusterId,
        stages: Arc<dyn StageSink>,
        output: Option<(Settings, Exporter)>,
        seed: u64,
    ) -> Self {
        Self {
            own: own.as_str().into(),
            cluster_id,
            stages,
            output,
            ids: SpanIds::new(seed),
        }
    }

    /// These entries were projected, beginning at this time.
    pub(crate) fn projected(&mut self, entries: &[BoardEntry], began: Instant) {
        let took = began.elapsed();
        let end_ns = wall_ns();
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let times = (end_ns.saturating_sub(nanos), end_ns);
        // One transaction writes them all: whoever comes later is linked to the first.
        let mut first: Option<TraceContext> = None;
        for event in entries.iter().flat_map(|entry| &entry.events) {
            let Some(board_event::Event::StateChanged(changed)) = &event.event else {
                continue;
            };
            let (state, Ok(tx_id)) = (changed.to(), TxId::new(&event.tx_id)) else {
                continue;
            };
            if !is_final(state) {
                continue;
            }
            self.stages.passed(Stage::SubmissionPersist, took);
            let Some((settings, exporter)) = &self.output else {
                continue;
            };
            let root = TraceContext::decision(&self.cluster_id, &tx_id);
            if !is_aborted(state) && !root.trace_id.is_sampled(settings.ratio) {
                continue;
            }
            let span_id = self.ids.next_id();
            let mut span = Span::new(root, span_id, Stage::SubmissionPersist.name(), times)
                .with("quorate.tx_id", tx_id.to_string())
                .with("quorate.node_id", self.own.clone())
                .with("quorate.step", "projected")
                .with("quorate.state", state_name(state))
                .with("quorate.revision", event.revision)
                .with("quorate.batch", entries.len());
            span.links.extend(first);
            first.get_or_insert(TraceContext { span_id, ..root });
            exporter.offer(vec![span]);
        }
    }
}
