//! Says nothing at all: SILENT_FAILURE, row 15.
//!
//! What must come of it: the others decide without it; after the deadline it is marked
//! and loses reputation, unless more than N − t are absent. A ban comes by the silence
//! policy alone.

use super::{Cue, Liar, Lie, Stage};

/// Hears everything and says nothing.
#[derive(Debug, Default)]
pub(super) struct Silent;

impl Liar for Silent {
    fn cue(&mut self, _: &Stage<'_>, _: Cue<'_>) -> Vec<Lie> {
        Vec::new()
    }
}
