//! Says nothing at all.

use super::{Cue, Liar, Lie, Stage};

/// Hears everything and says nothing.
#[derive(Debug, Default)]
pub(super) struct Silent;

impl Liar for Silent {
    fn cue(&mut self, _: &Stage<'_>, _: Cue<'_>) -> Vec<Lie> {
        Vec::new()
    }
}
