//! The kinds of metrics that the list is made of, on top of `prometheus-client`.

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram as Inner;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Metric, Registry, Unit};

/// A number that only grows. Exported with `_total` at the end of its name.
pub type Counter = prometheus_client::metrics::counter::Counter;

/// A number that goes up and down.
pub type Gauge = prometheus_client::metrics::gauge::Gauge<f64, AtomicU64>;

/// Counts observations in buckets.
#[derive(Clone, Debug)]
pub struct Histogram(Inner);

impl Histogram {
    /// Takes in one observation, in the metric's unit.
    pub fn observe(&self, value: f64) {
        self.0.observe(value);
    }

    /// Takes in a duration; the metric's unit must be seconds.
    pub fn took(&self, duration: Duration) {
        self.0.observe(duration.as_secs_f64());
    }
}

/// What a metric is, for the list, for people and for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

/// A metric of one number, or of one histogram.
pub(super) trait Single: Clone + Metric + TypedMetric + TypedSingle {}

/// The part of [`Single`] that names it.
pub trait TypedSingle: 'static {
    /// Which kind it is.
    const KIND: Kind;

    /// A new one, at zero. `edges` are a histogram's upper bounds, ascending.
    fn make(edges: &'static [f64]) -> Self;
}

impl TypedSingle for Counter {
    const KIND: Kind = Kind::Counter;

    fn make(_: &'static [f64]) -> Self {
        Self::default()
    }
}

impl TypedSingle for Gauge {
    const KIND: Kind = Kind::Gauge;

    fn make(_: &'static [f64]) -> Self {
        Self::default()
    }
}

impl TypedSingle for Histogram {
    const KIND: Kind = Kind::Histogram;

    fn make(edges: &'static [f64]) -> Self {
        Self(Inner::new(edges.iter().copied()))
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        self.0.metric_type()
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl Single for Counter {}
impl Single for Gauge {}
impl Single for Histogram {}

/// The value of a label.
pub type Value = Cow<'static, str>;

type Labels<const N: usize> = [(&'static str, Value); N];

/// Makes the members of a family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Make(&'static [f64]);

impl<M: TypedSingle> MetricConstructor<M> for Make {
    fn new_metric(&self) -> M {
        M::make(self.0)
    }
}

/// One metric for each set of values of its N labels.
#[derive(Clone, Debug)]
pub struct Many<M, const N: usize> {
    names: [&'static str; N],
    family: Family<Labels<N>, M, Make>,
}

impl<M: TypedSingle + Clone, const N: usize> Many<M, N> {
    /// The one with these values, in the order of the list's labels; new at zero.
    pub fn of<V: Into<Value>>(&self, values: [V; N]) -> M {
        self.family.get_or_create_owned(&self.labels(values))
    }

    /// Takes all away.
    pub fn clear(&self) {
        self.family.clear();
    }

    fn labels<V: Into<Value>>(&self, values: [V; N]) -> Labels<N> {
        let mut names = self.names.into_iter();
        // As many names as values, by the type.
        values.map(|value| (names.next().unwrap_or_default(), value.into()))
    }
}

/// A field of the list: a single metric, or many by labels.
pub(super) trait Field: Clone {
    const KIND: Kind;
    const LABELS: usize;
    /// Values to show its labels with, for a test that touches every metric.
    fn touch(&self);
    fn new(labels: &'static [&'static str], edges: &'static [f64]) -> Self;
    fn register(&self, registry: &mut Registry, name: &str, unit: Option<Unit>, help: &str);
}

impl<M: Single> Field for M {
    const KIND: Kind = <M as TypedSingle>::KIND;
    const LABELS: usize = 0;

    fn touch(&self) {}

    fn new(_: &'static [&'static str], edges: &'static [f64]) -> Self {
        M::make(edges)
    }

    fn register(&self, registry: &mut Registry, name: &str, unit: Option<Unit>, help: &str) {
        register(registry, name, unit, help, self.clone());
    }
}

impl<M: Single, const N: usize> Field for Many<M, N> {
    const KIND: Kind = <M as TypedSingle>::KIND;
    const LABELS: usize = N;

    fn touch(&self) {
        self.of([""; N]);
    }

    fn new(labels: &'static [&'static str], edges: &'static [f64]) -> Self {
        let mut names = [""; N];
        for (name, label) in names.iter_mut().zip(labels) {
            *name = label;
        }
        Self {
            names,
            family: Family::new_with_constructor(Make(edges)),
        }
    }

    fn register(&self, registry: &mut Registry, name: &str, unit: Option<Unit>, help: &str) {
        register(registry, name, unit, help, self.family.clone());
    }
}

fn register(
    registry: &mut Registry,
    name: &str,
    unit: Option<Unit>,
    help: &str,
    metric: impl Metric,
) {
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, metric),
        None => registry.register(name, help, metric),
    }
}
