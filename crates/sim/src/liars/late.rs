//! Says everything that an honest trustee says, seconds late: rows 14 and 15. The
//! lateness is the world's, which holds back what the engine does
//! ([`super::Beside::LateEngine`]); the liar itself adds nothing.
//!
//! What must come of it: its votes are counted while the ballot is open, recorded as
//! late after the reservation, and not recorded any more when they are too old; if the
//! deadline has passed, it is marked as silent. No late word changes a decided ballot.

use super::{Cue, Liar, Lie, Stage};

/// How late: milliseconds. Less than the 10 s that a greeting may take, or it would
/// have no streams to be late on.
pub(super) const LATE_MS: u64 = 7_000;

/// Takes its time.
#[derive(Debug, Default)]
pub(super) struct Late;

impl Liar for Late {
    fn cue(&mut self, _: &Stage<'_>, _: Cue<'_>) -> Vec<Lie> {
        Vec::new()
    }
}
