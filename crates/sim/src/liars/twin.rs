//! One trustee's keys on two machines, with two sign guards that know nothing of each
//! other. The lie is the world's, which runs two honest engines with the same keys
//! ([`super::Beside::Twins`]); the liar itself adds nothing.
//!
//! What must come of it: the engine that sees the newer boot generation stops signing
//! and says so. Until then two clients may make the two sign two values, which is
//! DOUBLE_VOTING like any other.

use super::{Cue, Liar, Lie, Stage};

/// There are two of it.
#[derive(Debug, Default)]
pub(super) struct Twin;

impl Liar for Twin {
    fn cue(&mut self, _: &Stage<'_>, _: Cue<'_>) -> Vec<Lie> {
        Vec::new()
    }
}
