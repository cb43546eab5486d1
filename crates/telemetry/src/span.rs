//! A finished span, in few bytes: many of them wait in memory, and few are exported.

use std::sync::Arc;

use crate::trace::{SpanId, TraceContext, TraceId};

/// Who says what a span says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    /// This node: what happened on it.
    Node,
    /// The cluster: what the board says, the same on every node, byte for byte. Every
    /// node exports such a span, so that none is missing when a node dies, and a
    /// collector that stores spans by what is in them keeps one.
    Cluster,
}

/// What an attribute holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A word that the program knows.
    Word(&'static str),
    /// Any text.
    Text(Arc<str>),
    /// A number.
    Number(u64),
    /// Yes or no.
    Flag(bool),
    /// Names, in order.
    List(Vec<Arc<str>>),
}

impl From<&'static str> for Value {
    fn from(word: &'static str) -> Self {
        Self::Word(word)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<Arc<str>> for Value {
    fn from(text: Arc<str>) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Number(number as u64)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<Vec<Arc<str>>> for Value {
    fn from(names: Vec<Arc<str>>) -> Self {
        Self::List(names)
    }
}

/// Names and values.
pub type Attributes = Vec<(&'static str, Value)>;

/// Something that happened at one moment of a span.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanEvent {
    /// When: nanoseconds since the Unix epoch.
    pub at_ns: u64,
    /// What.
    pub name: &'static str,
    /// More about it.
    pub attributes: Attributes,
}

/// A finished span.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Who says it.
    pub voice: Voice,
    /// Its trace.
    pub trace_id: TraceId,
    /// Its own name in the trace.
    pub span_id: SpanId,
    /// What it belongs under; none for the root.
    pub parent: Option<SpanId>,
    /// What was done.
    pub name: &'static str,
    /// From when: nanoseconds since the Unix epoch.
    pub start_ns: u64,
    /// Until when: nanoseconds since the Unix epoch.
    pub end_ns: u64,
    /// More about it.
    pub attributes: Attributes,
    /// What happened meanwhile.
    pub events: Vec<SpanEvent>,
    /// Spans of this or other traces that it has to do with.
    pub links: Vec<TraceContext>,
    /// What went wrong, if something did.
    pub error: Option<Arc<str>>,
}

impl Span {
    /// A span with nothing in it yet. It lasts a microsecond at least, which is as
    /// exact as Jaeger is: of none at all it would warn.
    pub fn new(
        parent: TraceContext,
        span_id: SpanId,
        name: &'static str,
        (start_ns, end_ns): (u64, u64),
    ) -> Self {
        Self {
            voice: Voice::Node,
            trace_id: parent.trace_id,
            span_id,
            parent: Some(parent.span_id),
            name,
            start_ns,
            end_ns: end_ns.max(start_ns.saturating_add(1_000)),
            attributes: Vec::new(),
            events: Vec::new(),
            links: Vec::new(),
            error: None,
        }
    }

    /// With one more attribute.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push((name, value.into()));
        self
    }

    /// Gone wrong.
    #[must_use]
    pub fn failed(mut self, why: impl Into<Arc<str>>) -> Self {
        self.error = Some(why.into());
        self
    }

    /// The value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&Value> {
        let found = self.attributes.iter().find(|(own, _)| *own == name);
        found.map(|(_, value)| value)
    }
}

/// Gives spans their ids: no two the same in a process, and by chance the same in two
/// processes only once in 2^64 pairs.
#[derive(Clone, Debug)]
pub struct SpanIds(u64);

impl SpanIds {
    /// Begins somewhere: the seed should be random.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next one: a counter, mixed so that two runs of it that overlap look nothing
    /// alike (the output function of SplitMix64, which maps no two numbers to one).
    pub fn next_id(&mut self) -> SpanId {
        loop {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            if let Some(id) = SpanId::from_bytes((mixed ^ (mixed >> 31)).to_be_bytes()) {
                return id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_differ_and_are_never_zero() {
        // The state from which the next output would be zero.
        let mut before_zero = SpanIds::new(0u64.wrapping_sub(0x9e37_79b9_7f4a_7c15));
        assert_ne!(before_zero.next_id().as_bytes(), &[0; 8]);
        let mut ids = SpanIds::new(7);
        let all: HashSet<_> = (0..10_000).map(|_| ids.next_id()).collect();
        assert_eq!(all.len(), 10_000);
    }
}
