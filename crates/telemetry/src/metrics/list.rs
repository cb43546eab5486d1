//! Every metric of a node: name, type, unit, labels, help. `docs/metrics.md` shows the
//! same list, and a test compares the two.
//!
//! All names begin with `quorate_`; a unit follows the name, and `_total` a counter's.
//! Labels have few values: members of the rules (`node_id`), the endpoints that are
//! configured, and words of this program. Never a transaction.
//!
//! What the board says is counted from the entries of its log that the node believes
//! and that are not older than its start: every node counts the whole cluster, so ask
//! for `max` over nodes, not for `sum`.

use super::kinds::{Counter, Field, Gauge, Histogram, Kind, Many};
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds of durations within the cluster, in seconds. Every limit of
/// [`Stage`](crate::Stage) is among them.
pub(super) const SECONDS: &[f64] = &[
    0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
];

/// Upper bounds of what may wait for people, in seconds.
const LONG: &[f64] = &[
    0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
];

/// Upper bounds of batches.
const SIZES: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0,
];

/// One metric of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its name without prefix, unit and ending.
    pub base: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its unit: `seconds`, `bytes`, or none for plain numbers.
    pub unit: Option<&'static str>,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// One sentence for people.
    pub help: &'static str,
}

impl Described {
    /// The name under which it is exported.
    pub fn name(&self) -> String {
        let unit = self.unit.map(|unit| format!("_{unit}")).unwrap_or_default();
        let ending = match self.kind {
            Kind::Counter => "_total",
            Kind::Gauge | Kind::Histogram => "",
        };
        format!("quorate_{}{unit}{ending}", self.base)
    }
}

macro_rules! unit {
    () => {
        None
    };
    (seconds) => {
        Some(Unit::Seconds)
    };
    (bytes) => {
        Some(Unit::Bytes)
    };
}

macro_rules! unit_name {
    () => {
        None
    };
    ($unit:ident) => {
        Some(stringify!($unit))
    };
}

macro_rules! edges {
    () => {
        &[]
    };
    ($edges:ident) => {
        $edges
    };
}

macro_rules! list {
    ($(
        $field:ident: $type:ty $([$unit:ident])? $({$edges:ident})? = ($($label:literal),*)
        $help:literal;
    )*) => {
        /// Every metric there is, in the order of the list.
        pub const LIST: &[Described] = &[$(Described {
            base: stringify!($field),
            kind: <$type as Field>::KIND,
            unit: unit_name!($($unit)?),
            labels: &[$($label),*],
            help: $help,
        }),*];

        /// The metrics of one node. The fields are the list; a field's labels are given
        /// in the list's order.
        #[derive(Clone, Debug)]
        pub struct Metrics {
            $(#[doc = $help] pub $field: $type,)*
        }

        impl Metrics {
            /// New ones, all at zero, registered under the prefix `quorate`.
            pub(super) fn register(registry: &mut Registry) -> Self {
                let metrics = Self {
                    $($field: {
                        const LABELS: &[&str] = &[$($label),*];
                        const { assert!(LABELS.len() == <$type as Field>::LABELS) }
                        <$type as Field>::new(LABELS, edges!($($edges)?))
                    },)*
                };
                $(metrics.$field.register(registry, stringify!($field), unit!($($unit)?), $help);)*
                metrics
            }

            /// Shows every metric once, with empty labels: for tests.
            #[doc(hidden)]
            pub fn touch_all(&self) {
                $(self.$field.touch();)*
            }
        }
    };
}

list! {
    // Votes and ballots, from the board.
    votes_received: Many<Counter, 1> = ("node_id")
        "Votes that the board recorded, by trustee";
    votes_rejected_byzantine: Many<Counter, 1> = ("type")
        "Votes and frames that proved misbehaviour or were accused of it, by type";
    threshold_reached: Counter = ()
        "Ballots that reached the threshold";
    transactions_aborted_byzantine: Counter = ()
        "Ballots aborted because a trustee lied";
    ballot_moves: Many<Counter, 1> = ("state")
        "Moves of ballots, by the state that was entered";
    ballots: Many<Gauge, 1> = ("state")
        "Ballots on the board, by state";
    ballots_expired: Counter = ()
        "Ballots removed because they never started";
    active_votes: Gauge = ()
        "Ballots that still collect votes or settle";
    ballot_duration: Many<Histogram, 1> [seconds] {LONG} = ("state")
        "From the opening of a ballot to the state that ended it, by the board's time";
    last_vote_timestamp: Many<Gauge, 1> [seconds] = ("node_id")
        "When the board last recorded a vote of this trustee, as seconds since 1970; its age is time() minus this";
    stage_duration: Many<Histogram, 1> [seconds] {SECONDS} = ("stage")
        "How long a vote or a submission was in one stage of the pipeline";

    // Submissions.
    blockchain_submissions: Many<Counter, 1> = ("state")
        "Submissions reserved, confirmed and failed";
    submission_latency: Histogram [seconds] {SECONDS} = ()
        "From the reservation to the confirmation, by the board's time";
    etcd_active_transactions: Gauge = ()
        "Ballots on the board that are not final, whatever keeps the board";
    postgres_active_submissions: Gauge = ()
        "Submissions in the audit store that are PENDING, whatever keeps it";
    postgres_archived_submissions: Gauge = ()
        "Submissions in the audit store's archive, whatever keeps it";

    // Trustees.
    peer_reputation: Many<Gauge, 1> = ("node_id")
        "Reputation of a trustee, 0 to 1";
    member_banned: Many<Gauge, 1> = ("node_id")
        "Whether a trustee is banned: 1 or 0";
    banned_peers: Counter = ()
        "Bans that came into force";
    violations: Many<Counter, 2> = ("node_id", "type")
        "Violations found, by trustee and type";
    accusations: Many<Counter, 2> = ("node_id", "type")
        "Accusations put on the board, by the accused and type";
    sign_guard_refusals: Counter = ()
        "Votes refused because this trustee had made another choice before";

    // Clients of this node.
    client_votes: Many<Counter, 1> = ("result")
        "Votes handed in by clients: accepted, repeated, refused, or unanswered in time";
    calls: Many<Counter, 2> = ("method", "code")
        "gRPC calls, by method and status code";
    call_duration: Many<Histogram, 1> [seconds] {SECONDS} = ("method")
        "How long a call took until its answer began";
    calls_forbidden: Counter = ()
        "Calls refused for want of the right role";
    rate_limited: Many<Counter, 1> = ("what")
        "Calls refused and frames kept waiting by the rate limits, and votes refused because the client's share of unstarted ballots was used up (`unstarted`)";

    // Streams between nodes.
    peer_connected: Many<Gauge, 1> = ("node_id")
        "Whether an established stream leads to this node: 1 or 0";
    streams_opened: Many<Counter, 1> = ("node_id")
        "Streams that came up, by peer";
    stream_reconnects: Many<Counter, 1> = ("node_id")
        "Streams that came up after an earlier one, by peer";
    stream_queue_depth: Many<Gauge, 1> = ("node_id")
        "Frames that wait to be sent to a peer";
    gossip_messages: Many<Counter, 1> = ("direction")
        "Frames on the streams between nodes, sent and received";
    gossip_duplicates_dropped: Counter = ()
        "Votes from peers that were dealt with a short while ago, and dropped";
    gossip_messages_dropped: Counter = ()
        "Frames not sent because a stream's queue was full";
    gossip_messages_malformed: Counter = ()
        "Frames received that were no frames";
    gossip_mesh_peers: Gauge = ()
        "Peers in this node's mesh; 0 in a cluster of 12 nodes or fewer, which needs none";
    gossip_statements: Many<Counter, 1> = ("what")
        "Statements in the mesh, by copy: pushed, served on request, duplicate (received again), announced, requested, unanswered";
    handshakes: Many<Counter, 1> = ("result")
        "TLS handshakes: accepted, or why not";

    // Stores.
    etcd_operation_duration: Many<Histogram, 2> [seconds] {SECONDS} = ("operation", "outcome")
        "How long the keeper of the board took to answer, whichever keeps it";
    audit_operation_duration: Many<Histogram, 2> [seconds] {SECONDS} = ("operation", "outcome")
        "How long the audit store took to answer";
    chain_operation_duration: Many<Histogram, 2> [seconds] {SECONDS} = ("operation", "outcome")
        "How long the chain's endpoint took to answer";
    journal_commit_duration: Histogram [seconds] {SECONDS} = ()
        "How long a commit of the node's journal took";
    store_up: Many<Gauge, 1> = ("store")
        "Whether board, audit and chain answered the last probe: 1 or 0";
    etcd_member_up: Many<Gauge, 1> = ("endpoint")
        "Whether a member of etcd answered the last probe without an alarm: 1 or 0";
    etcd_db_size: Many<Gauge, 1> [bytes] = ("endpoint")
        "What a member of etcd uses of its quota";
    etcd_db_quota: Many<Gauge, 1> [bytes] = ("endpoint")
        "The quota of a member of etcd, as far as it tells";
    board_revision: Gauge = ()
        "The revision of the board that this node believes";
    audit_revision: Gauge = ()
        "The revision that the audit projection has reached, as this node saw it";
    audit_projection_lag: Gauge = ()
        "Revisions that the audit projection is behind the board";
    audit_projecting: Gauge = ()
        "Whether this node projects into the audit store: 1 or 0";
    collection_failures: Counter = ()
        "Times that old rows could not be archived";

    // Inside the node.
    batch_size: Many<Histogram, 1> {SIZES} = ("batch")
        "How many were handled together: messages of the driver, records of the journal, entries of the log, entries projected";
    queue_depth: Many<Gauge, 1> = ("queue")
        "How many wait: messages for the driver, clients, held votes, questions to stores and keys, open transactions, alerts to be sent";
    in_service: Gauge = ()
        "Whether the node has read the board and takes part: 1 or 0";
    signing_stopped: Gauge = ()
        "Whether the node signs nothing at the moment: 1 or 0";
    ready: Gauge = ()
        "Whether the node is ready: 1 or 0";
    not_ready: Many<Gauge, 1> = ("cause")
        "Whether this cause keeps the node from being ready: 1 or 0";
    boot_generation: Gauge = ()
        "The boot generation of this start";
    start_time: Gauge [seconds] = ()
        "When the node started, as seconds since 1970";
    node_info: Many<Gauge, 5> = ("node_id", "version", "board", "audit", "chain")
        "Always 1: who this is, and what keeps board, audit record and chain";
    rules_info: Many<Gauge, 5> = ("cluster", "cluster_id", "digest", "total", "threshold")
        "Always 1: the rules in force";
    rules_epoch: Gauge = ()
        "Epoch of the rules in force";

    // Certificates.
    certificate_expiry: Many<Gauge, 1> [seconds] = ("certificate")
        "Seconds until the node's certificate, or a CA's, runs out; negative afterwards";
    crl_expiry: Gauge [seconds] = ()
        "Seconds until the first revocation list runs out; absent lists count as a year";
    certificate_reload_failures: Counter = ()
        "Times that certificates could not be read again";

    // Alerts.
    alerts: Many<Counter, 1> = ("alert")
        "Alerts raised by this node";
    alerts_delivered: Counter = ()
        "Alerts that the webhook took";
    alerts_dropped: Counter = ()
        "Alerts that did not reach the webhook, for want of room or in time";
    alert_failures: Counter = ()
        "Deliveries to the webhook that failed and were tried again";
    trace_spans_exported: Counter = ()
        "Finished spans that the collector took";
    trace_spans_dropped: Counter = ()
        "Finished spans that the collector did not take in time, or for which there was no room";
    alert_delivery_duration: Histogram [seconds] {SECONDS} = ()
        "From an alert's detection to the webhook's answer";
}
