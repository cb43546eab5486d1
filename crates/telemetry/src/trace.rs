//! W3C trace context (<https://www.w3.org/TR/trace-context/>), as far as Quorate needs
//! it: one trace per transaction, its id derived from the cluster and the
//! transaction, so that every node writes the same one.

use std::fmt;
use std::str::FromStr;

use quorate_consensus::{ClusterId, TxId};

/// The gRPC metadata key (and HTTP header) that a context travels in.
pub const HEADER: &str = "traceparent";

/// Names a trace; never all zeros.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// Names a span; never all zeros.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

/// Which span of which trace something belongs under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The span that is the parent.
    pub span_id: SpanId,
    /// The sender records this trace.
    pub sampled: bool,
}

/// A `traceparent` that is none; the receiver then starts from the derived context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a W3C traceparent: 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, ids not zero")]
pub struct TraceparentError;

fn derive(purpose: &str, cluster_id: &ClusterId, tx_id: &TxId) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(purpose);
    hasher
        .update(cluster_id.as_bytes())
        .update(tx_id.as_str().as_bytes());
    *hasher.finalize().as_bytes()
}

/// The first `N` bytes, with an all-zero result (which W3C forbids) made one.
fn first<const N: usize>(digest: &[u8; 32]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&digest[..N]);
    if bytes == [0; N] {
        bytes[N - 1] = 1;
    }
    bytes
}

impl TraceId {
    /// The trace of a transaction: the first 16 bytes of BLAKE3 over cluster and
    /// transaction, the same on every node.
    pub fn of(cluster_id: &ClusterId, tx_id: &TxId) -> Self {
        Self(first(&derive("quorate 1 trace id", cluster_id, tx_id)))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Whether a trace is among the sampled `ratio` (0 to 1), by its id alone: the same
    /// on every node, and in every program that samples by the ratio of trace ids as
    /// OpenTelemetry's libraries do (the last 63 bits below ratio × 2^63).
    pub fn is_sampled(&self, ratio: f64) -> bool {
        let mut last = [0; 8];
        last.copy_from_slice(&self.0[8..]);
        let bits = u64::from_be_bytes(last) >> 1;
        let bound = ratio.clamp(0.0, 1.0) * (1u64 << 63) as f64;
        ratio >= 1.0 || (bits as f64) < bound
    }
}

impl SpanId {
    /// The root span `decision` of a transaction, derived like the trace id, so that
    /// everything can hang under it before it is exported.
    pub fn decision(cluster_id: &ClusterId, tx_id: &TxId) -> Self {
        Self(first(&derive("quorate 1 decision span", cluster_id, tx_id)))
    }

    /// A span of what the board says at a revision, the same on every node: number
    /// `index` of those that are called `name`.
    pub fn on_board(
        cluster_id: &ClusterId,
        tx_id: &TxId,
        (name, revision, index): (&str, u64, u64),
    ) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("quorate 1 board span");
        hasher
            .update(&derive("quorate 1 decision span", cluster_id, tx_id))
            .update(&revision.to_be_bytes())
            .update(&index.to_be_bytes())
            .update(name.as_bytes());
        Self(first(hasher.finalize().as_bytes()))
    }

    /// None when all are zero.
    pub fn from_bytes(bytes: [u8; 8]) -> Option<Self> {
        (bytes != [0; 8]).then_some(Self(bytes))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl TraceContext {
    /// What hangs directly under the root span of a transaction.
    pub fn decision(cluster_id: &ClusterId, tx_id: &TxId) -> Self {
        Self {
            trace_id: TraceId::of(cluster_id, tx_id),
            span_id: SpanId::decision(cluster_id, tx_id),
            sampled: true,
        }
    }
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(&hex::encode(bytes))
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled);
        write!(f, "00-{}-{}-{flags:02x}", self.trace_id, self.span_id)
    }
}

/// Lower-case hexadecimal only, as the standard asks, and not all zeros.
fn parse_id<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    (bytes != [0; N]).then_some(bytes)
}

impl FromStr for TraceContext {
    type Err = TraceparentError;

    fn from_str(text: &str) -> Result<Self, TraceparentError> {
        let parse = || {
            let mut parts = text.split('-');
            let version = parse_byte(parts.next()?)?;
            let trace_id = parse_id(parts.next()?)?;
            let span_id = parse_id(parts.next()?)?;
            let flags = parse_byte(parts.next()?)?;
            // A later version may append fields; version 00 has exactly four.
            if version == 0xff || (version == 0 && parts.next().is_some()) {
                return None;
            }
            Some(Self {
                trace_id: TraceId(trace_id),
                span_id: SpanId(span_id),
                sampled: flags & 1 == 1,
            })
        };
        parse().ok_or(TraceparentError)
    }
}

/// Unlike an id, a version or a flag may be zero.
fn parse_byte(text: &str) -> Option<u8> {
    let mut byte = [0];
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    hex::decode_to_slice(text, &mut byte).ok()?;
    Some(byte[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(cluster: u8, tx: &str) -> TraceContext {
        TraceContext::decision(&ClusterId([cluster; 32]), &TxId::new(tx).unwrap())
    }

    #[test]
    fn every_node_derives_the_same_trace_and_no_other() {
        assert_eq!(context(1, "a"), context(1, "a"));
        assert_ne!(context(1, "a").trace_id, context(1, "b").trace_id);
        assert_ne!(context(1, "a").trace_id, context(2, "a").trace_id);
        // A promise to whoever derives it elsewhere.
        assert_eq!(
            context(7, "tx_001").to_string(),
            "00-ae7be5deb22ec4e606c3facf93c99286-66573f3ff61f5b55-01"
        );
    }

    #[test]
    fn a_ratio_samples_that_share_of_traces_and_the_same_everywhere() {
        let ids: Vec<_> = (0..10_000)
            .map(|i| context(1, &format!("tx{i}")).trace_id)
            .collect();
        let share = |ratio: f64| ids.iter().filter(|id| id.is_sampled(ratio)).count();
        assert_eq!((share(0.0), share(1.0)), (0, 10_000));
        assert!((50..200).contains(&share(0.01)), "{}", share(0.01));
        assert!((4_500..5_500).contains(&share(0.5)), "{}", share(0.5));
        // Whoever is among the few is among the many.
        assert!(
            ids.iter()
                .all(|id| !id.is_sampled(0.01) || id.is_sampled(0.02))
        );
    }

    #[test]
    fn traceparent_survives() {
        let context = context(1, "a");
        assert_eq!(context.to_string().parse(), Ok(context));
        let unsampled = TraceContext {
            sampled: false,
            ..context
        };
        assert_eq!(unsampled.to_string().parse(), Ok(unsampled));
        let example = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(
            example.parse::<TraceContext>().unwrap().to_string(),
            example
        );
    }

    #[test]
    fn what_is_no_traceparent_is_refused() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "zz-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(bad.parse::<TraceContext>().is_err(), "{bad}");
        }
        // A later version with more fields is understood as far as we know it.
        assert!(
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"
                .parse::<TraceContext>()
                .is_ok()
        );
    }
}
