//! What an operator must hear of: logged, counted, and, if a webhook is configured, sent
//! at once. Nothing here waits: a queue that is full drops the alert and counts it.

mod webhook;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use quorate_consensus::wire::{BallotState, BoardEntry, ViolationType, board_event};
use quorate_consensus::words::violation_word;
use quorate_consensus::{ClusterId, NodeId, Rules};
use quorate_engine::Alert;
use tokio::sync::mpsc;

use crate::metrics::Meter;
use crate::told::trace_of;
pub use webhook::{BadWebhook, Webhook};

/// How many alerts wait to be sent.
pub(crate) const CAPACITY: usize = 256;

/// How much an alert matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// Somebody must look now.
    Critical,
    /// Somebody must look soon.
    Warning,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
        }
    }
}

macro_rules! names {
    ($($(#[doc = $doc:literal])* $name:ident, $word:literal, $alertname:literal, $severity:ident;)*) => {
        /// The alerts that a node raises by itself.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Name {
            $($(#[doc = $doc])* $name,)*
        }

        impl Name {
            /// All of them.
            pub(crate) const ALL: &[Self] = &[$(Self::$name),*];

            /// The value of the label `alert`.
            pub(crate) fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// Its name at Alertmanager: the one of the rule in docker/prometheus.
            pub(crate) fn alertname(self) -> &'static str {
                match self { $(Self::$name => $alertname,)* }
            }

            /// How much it matters.
            pub(crate) fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }
        }
    };
}

names! {
    /// A trustee was caught.
    Misbehaviour, "misbehaviour", "QuorateMisbehaviour", Critical;
    /// A ballot ended as ABORTED_BYZANTINE.
    TransactionAborted, "transaction_aborted", "QuorateTransactionAborted", Critical;
    /// Somebody wrote to the board's store past all nodes.
    StoreTampering, "store_tampering", "QuorateStoreTampering", Critical;
    /// A store is older than what this node has seen.
    StoreRollback, "store_rollback", "QuorateStoreRollback", Critical;
    /// Two processes run one trustee.
    NewerSelf, "newer_self", "QuorateNewerSelf", Critical;
    /// The journal was lost or is old: nothing is signed for a while.
    Quarantine, "quarantine", "QuorateQuarantine", Warning;
    /// Somebody else's transaction took a reserved nonce.
    NonceTaken, "nonce_taken", "QuorateNonceTaken", Critical;
    /// A submission failed, or a confirmed one was undone.
    SubmissionFailed, "submission_failed", "QuorateSubmissionFailed", Critical;
    /// A transaction of the account that no reservation explains.
    OrphanSubmission, "orphan_submission", "QuorateOrphanSubmission", Critical;
    /// Two clocks are further apart than the rules allow.
    Clock, "clock", "QuorateClockSkew", Warning;
    /// Certificates on the disk are no good, or this node's own is revoked.
    CertificatesNotTaken, "certificates_not_taken", "QuorateCertificatesNotTaken", Warning;
    /// A peer speaks no version of the protocol that this node speaks.
    NoCommonVersion, "no_common_version", "QuorateNoCommonVersion", Warning;
    /// What keeps the board does not answer.
    BoardUnavailable, "board_unavailable", "QuorateEtcdUnhealthy", Critical;
    /// The audit store does not answer.
    AuditUnavailable, "audit_unavailable", "QuoratePostgresDown", Critical;
    /// Old rows could not be archived.
    CollectionFailed, "collection_failed", "QuorateCollectionFailed", Warning;
}

/// One alert on its way out.
#[derive(Clone, Debug)]
pub(crate) struct Raised {
    name: Name,
    /// Whom or what it is about, beside the cluster: equal labels are one alert.
    about: Vec<(&'static str, String)>,
    detail: String,
    at: SystemTime,
    detected: Instant,
}

/// Raises alerts.
#[derive(Debug)]
pub(crate) struct Alerts {
    meter: Arc<Meter>,
    own: NodeId,
    cluster_id: ClusterId,
    queue: Option<mpsc::Sender<Raised>>,
}

impl Alerts {
    /// Alerts of one node. With a webhook, a task sends them for as long as the node
    /// runs; this must be called within its runtime then.
    pub(crate) fn new(
        meter: Arc<Meter>,
        own: NodeId,
        rules: &Rules,
        webhook: Option<Webhook>,
    ) -> Self {
        for name in Name::ALL {
            meter.alerts.of([name.word()]);
        }
        let queue = webhook.map(|webhook| {
            let (sender, waiting) = mpsc::channel(CAPACITY);
            let identity = webhook::Identity {
                cluster: rules.cluster_name().to_owned(),
                node_id: own.to_string(),
            };
            tokio::spawn(webhook::send(webhook, identity, waiting, meter.clone()));
            sender
        });
        Self {
            meter,
            own,
            cluster_id: rules.cluster_id(),
            queue,
        }
    }

    /// Raises one: counts it, and lets it leave at once. Whoever calls has logged it.
    pub(crate) fn raise(
        &self,
        name: Name,
        about: Vec<(&'static str, String)>,
        detail: impl Into<String>,
    ) {
        self.meter.alerts.of([name.word()]).inc();
        let Some(queue) = &self.queue else { return };
        let raised = Raised {
            name,
            about,
            detail: detail.into(),
            at: SystemTime::now(),
            detected: Instant::now(),
        };
        if queue.try_send(raised).is_err() {
            self.meter.alerts_dropped.inc();
        }
    }

    /// The label that says which node it is about: this one.
    pub(crate) fn this_node(&self) -> Vec<(&'static str, String)> {
        vec![("node_id", self.own.to_string())]
    }

    /// How many wait to be sent.
    pub(crate) fn waiting(&self) -> usize {
        self.queue
            .as_ref()
            .map_or(0, |queue| queue.max_capacity() - queue.capacity())
    }

    /// What the engine wants an operator to hear.
    pub(crate) fn engine(&self, alert: &Alert) {
        match alert {
            Alert::Misbehaviour {
                node_id,
                kind,
                detail,
            } => {
                tracing::warn!(%node_id, kind = violation_word(*kind), %detail, "alert.misbehaviour");
                self.misbehaviour(node_id, *kind, detail);
            }
            Alert::StoreTampering { detail } => {
                tracing::error!(%detail, "alert.store_tampering");
                self.raise(
                    Name::StoreTampering,
                    vec![("store", "board".into())],
                    detail,
                );
            }
            Alert::StoreRollback { detail } => {
                tracing::error!(%detail, "alert.store_rollback");
                self.raise(Name::StoreRollback, vec![("store", "board".into())], detail);
            }
            Alert::NewerSelf { generation } => {
                tracing::error!(generation, "alert.newer_self");
                let detail = format!(
                    "another process with this trustee's keys has started (generation {generation}); this one signs nothing any more"
                );
                self.raise(Name::NewerSelf, self.this_node(), detail);
            }
            Alert::Quarantine { until_ms } => {
                tracing::warn!(until_ms, "alert.quarantine");
                let detail = format!(
                    "the journal was lost or is old: nothing is signed until {until_ms} ms since 1970"
                );
                self.raise(Name::Quarantine, self.this_node(), detail);
            }
            Alert::NonceTaken { tx_id, nonce } => {
                let trace_id = trace_of(&self.cluster_id, tx_id.as_str());
                tracing::error!(%tx_id, trace_id, nonce, "alert.nonce_taken");
                let detail =
                    format!("nonce {nonce}, reserved for {tx_id}, was taken by a stranger");
                self.raise(Name::NonceTaken, vec![("tx_id", tx_id.to_string())], detail);
            }
            Alert::Submission { tx_id, detail } => {
                let trace_id = trace_of(&self.cluster_id, tx_id.as_str());
                tracing::error!(%tx_id, trace_id, %detail, "alert.submission");
                let about = vec![("tx_id", tx_id.to_string())];
                self.raise(Name::SubmissionFailed, about, detail);
            }
            Alert::NoCommonVersion { node_id, detail } => {
                tracing::warn!(%node_id, %detail, "alert.no_common_version");
                let about = vec![("node_id", node_id.to_string())];
                self.raise(Name::NoCommonVersion, about, detail);
            }
            Alert::Clock { detail } => {
                tracing::warn!(%detail, "alert.clock");
                self.raise(Name::Clock, self.this_node(), detail);
            }
        }
    }

    fn misbehaviour(&self, node_id: &NodeId, kind: ViolationType, detail: &str) {
        let about = vec![
            ("node_id", node_id.to_string()),
            ("type", violation_word(kind).to_owned()),
        ];
        self.raise(Name::Misbehaviour, about, detail);
    }

    /// Looks through entries that the engine believes for what is an alert by itself.
    pub(crate) fn believed(&self, entries: &[BoardEntry]) {
        use board_event::Event as E;
        for entry in entries.iter().filter(|entry| self.meter.is_news(entry)) {
            for event in &entry.events {
                if let Some(E::StateChanged(change)) = &event.event
                    && change.to() == BallotState::AbortedByzantine
                {
                    let about = vec![("tx_id", event.tx_id.clone())];
                    self.raise(Name::TransactionAborted, about, &change.reason);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_told_apart() {
        let words: BTreeSet<_> = Name::ALL.iter().map(|name| name.word()).collect();
        let names: BTreeSet<_> = Name::ALL.iter().map(|name| name.alertname()).collect();
        assert_eq!(
            (words.len(), names.len()),
            (Name::ALL.len(), Name::ALL.len())
        );
    }

    /// The rules of Prometheus are about the same alerts, under the same names.
    #[test]
    fn every_alert_has_its_rule() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../docker/prometheus/alerts.yml"
        );
        let rules = std::fs::read_to_string(path).unwrap();
        for name in Name::ALL {
            let (alert, severity) = (name.alertname(), name.severity().as_str());
            let rule = rules
                .split("- alert: ")
                .find(|r| r.lines().next() == Some(alert));
            let rule = rule.unwrap_or_else(|| panic!("no rule {alert}"));
            assert!(rule.contains(&format!("severity: {severity}")), "{alert}");
        }
        for word in rules.split("alert=\"").skip(1) {
            let word = word.split('"').next().unwrap_or_default();
            assert!(Name::ALL.iter().any(|name| name.word() == word), "{word}");
        }
    }

    #[test]
    fn who_has_no_room_is_dropped_and_counted() {
        let meter = Arc::new(Meter::default());
        let (sender, mut waiting) = mpsc::channel(1);
        let alerts = Alerts {
            meter: meter.clone(),
            own: NodeId::new("node1").unwrap(),
            cluster_id: ClusterId([0; 32]),
            queue: Some(sender),
        };
        for _ in 0..3 {
            alerts.raise(Name::Clock, alerts.this_node(), "off");
        }
        assert_eq!(alerts.waiting(), 1);
        assert_eq!(meter.alerts.of(["clock"]).get(), 3);
        assert_eq!(meter.alerts_dropped.get(), 2);
        assert_eq!(waiting.try_recv().unwrap().name, Name::Clock);
    }
}
