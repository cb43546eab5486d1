//! Faults that tests, `quorate demo` and `quorate dev` inject. They come in through the
//! library only; no configuration can reach them.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use quorate_engine::Effect;
use tokio::sync::watch;

use crate::health::beats::Loop;
use crate::network::Network;

/// What becomes of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is carried out.
    Go,
    /// The node crashes before it: nothing after this point happens, nothing is
    /// flushed, nobody is told.
    Crash,
}

/// Decides about each effect before it is carried out.
pub type OnEffect = Arc<dyn Fn(&Effect) -> Verdict + Send + Sync>;

/// Stops loops of a node, and lets them go on.
#[derive(Clone, Debug)]
pub struct Freezer(watch::Sender<BTreeSet<Loop>>);

impl Default for Freezer {
    fn default() -> Self {
        Self(watch::Sender::new(BTreeSet::new()))
    }
}

impl Freezer {
    /// A loop stops where it comes round next.
    pub fn freeze(&self, which: Loop) {
        self.0.send_modify(|frozen| {
            frozen.insert(which);
        });
    }

    /// It goes on.
    pub fn thaw(&self, which: Loop) {
        self.0.send_modify(|frozen| {
            frozen.remove(&which);
        });
    }

    async fn pass(&self, which: Loop) {
        let mut changes = self.0.subscribe();
        // The sender is `self`: it lives as long as this.
        let _ = changes.wait_for(|frozen| !frozen.contains(&which)).await;
    }
}

/// The faults of one node; the default is none.
#[derive(Clone, Default)]
pub struct Faults {
    /// Asked before each effect.
    pub on_effect: Option<OnEffect>,
    /// Asked by each loop when it comes round.
    pub freezer: Option<Freezer>,
    /// The node's wall clock is so many milliseconds ahead; behind, if negative.
    pub clock_ahead_ms: i64,
    /// What lies between the node, its peers and the board.
    pub network: Option<Network>,
}

impl Faults {
    /// A node that crashes before the first effect that `is_it` picks.
    pub fn crash_before(is_it: impl Fn(&Effect) -> bool + Send + Sync + 'static) -> Self {
        Self {
            on_effect: Some(Arc::new(move |effect| match is_it(effect) {
                true => Verdict::Crash,
                false => Verdict::Go,
            })),
            ..Self::default()
        }
    }

    /// A loop comes round: it goes on, unless it is frozen.
    pub(crate) async fn pass(&self, which: Loop) {
        if let Some(freezer) = &self.freezer {
            freezer.pass(which).await;
        }
    }

    pub(crate) fn crashes(&self, effect: &Effect) -> bool {
        self.on_effect
            .as_ref()
            .is_some_and(|decide| decide(effect) == Verdict::Crash)
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults")
            .field("on_effect", &self.on_effect.is_some())
            .field("freezer", &self.freezer)
            .field("clock_ahead_ms", &self.clock_ahead_ms)
            .field("network", &self.network)
            .finish()
    }
}
