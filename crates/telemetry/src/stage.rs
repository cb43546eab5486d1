//! The stages that one vote and one submission pass. A stage is a span in the trace of
//! its transaction and a bucket of a histogram: one name for both.

use std::fmt;
use std::time::Duration;

/// A stage on the way from a vote to the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// The whole of one vote on one node: from its arrival to the board's answer.
    Receive,
    /// Form, signature and time of a vote.
    Validate,
    /// The board records a vote.
    Store,
    /// The board's count of a value moves.
    Count,
    /// Recorded votes of a ballot are taken together.
    Aggregate,
    /// A vote is held against all that its trustee has signed.
    ByzantineCheck,
    /// Whether t trustees have signed one value.
    ThresholdCheck,
    /// The lease of a submission, and the reservation.
    SubmissionLock,
    /// From the first signed bytes to the chain's word.
    SubmissionSubmit,
    /// Hash, block and time into the audit store.
    SubmissionPersist,
}

impl Stage {
    /// All of them, in the order in which they are passed.
    pub const ALL: [Self; 10] = [
        Self::Receive,
        Self::Validate,
        Self::Store,
        Self::Count,
        Self::Aggregate,
        Self::ByzantineCheck,
        Self::ThresholdCheck,
        Self::SubmissionLock,
        Self::SubmissionSubmit,
        Self::SubmissionPersist,
    ];

    /// The name of its span, and the value of the label `stage`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Receive => "vote.receive",
            Self::Validate => "vote.validate",
            Self::Store => "vote.store",
            Self::Count => "vote.count",
            Self::Aggregate => "vote.aggregate",
            Self::ByzantineCheck => "byzantine.check",
            Self::ThresholdCheck => "threshold.check",
            Self::SubmissionLock => "submission.lock",
            Self::SubmissionSubmit => "submission.submit",
            Self::SubmissionPersist => "submission.persist",
        }
    }

    /// What 99 of 100 must not exceed within one machine room.
    pub const fn limit(self) -> Duration {
        Duration::from_millis(match self {
            Self::Receive | Self::ThresholdCheck => 10,
            Self::Validate | Self::Count | Self::Aggregate | Self::ByzantineCheck => 5,
            Self::Store | Self::SubmissionLock | Self::SubmissionPersist => 20,
            Self::SubmissionSubmit => 500,
        })
    }
}

/// Takes how long the stages take: the histogram of a node. Called on the node's main
/// loop, whether traces are exported or not, so it must neither wait nor lock for long.
pub trait StageSink: Send + Sync {
    /// A stage was passed, after this long.
    fn passed(&self, stage: Stage, took: Duration);
}

/// Nobody wants to know.
impl StageSink for () {
    fn passed(&self, _stage: Stage, _took: Duration) {}
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
