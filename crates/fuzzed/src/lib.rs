//! What is fuzzed: each target is a function of bytes that must neither panic nor break
//! what it states. The fuzzer itself (`make fuzz`, in `fuzz/`) looks for bytes; the tests
//! of this crate run every target over all that was ever kept.

mod frames;
mod resign;
mod seeds;
mod targets;

pub use frames::frames;
pub use seeds::{Seed, seeds};
pub use targets::{decoders, proofs, rules, statements};

use quorate_testkit::Cluster;

/// A target: its name, which is also its corpus directory's, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 5] = [
    ("decoders", decoders),
    ("statements", statements),
    ("rules", rules),
    ("proofs", proofs),
    ("frames", frames),
];

/// The cluster that the seeds are of: four trustees, three decide.
pub fn cluster() -> Cluster {
    Cluster::new(4, 3)
}
