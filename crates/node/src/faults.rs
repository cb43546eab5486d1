//! Faults that tests and `quorate demo` inject. They come in through the library
//! only; no configuration can reach them.

use std::fmt;
use std::sync::Arc;

use quorate_engine::Effect;

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

/// The faults of one node; the default is none.
#[derive(Clone, Default)]
pub struct Faults {
    /// Asked before each effect.
    pub on_effect: Option<OnEffect>,
}

impl Faults {
    /// A node that crashes before the first effect that `is_it` picks.
    pub fn crash_before(is_it: impl Fn(&Effect) -> bool + Send + Sync + 'static) -> Self {
        Self {
            on_effect: Some(Arc::new(move |effect| match is_it(effect) {
                true => Verdict::Crash,
                false => Verdict::Go,
            })),
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
            .finish()
    }
}
