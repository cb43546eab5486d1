//! The lies that a trustee can be made to tell, by the names that people type.

use clap::ValueEnum;
use quorate_sim::liars::LiarKind;

/// A lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TestType {
    /// Signs two values and tells each half of the nodes another one
    #[value(aliases = ["equivocator", "equivocate"])]
    DoubleVote,
    /// Votes against what the others agree on
    Minority,
    /// Sends everyone votes "from" the others, signed with the wrong key
    #[value(alias = "impersonator")]
    InvalidSignature,
    /// Sends everyone a vote of its own whose signature does not verify
    Forger,
    /// Says nothing until the deadline has passed
    Silent,
    /// Sends bytes that are no frame
    Malformed,
    /// Sends everyone made-up evidence against another trustee
    FalseWitness,
    /// Votes under rules that nobody knows: excused, and counted nowhere
    WrongRules,
    /// Repeats to everyone what it hears: allowed, and without effect
    Replayer,
    /// Votes on a hundred transactions that nobody asked for, in vain
    Flooder,
}

impl TestType {
    /// As people type it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::DoubleVote => "double-vote",
            Self::Minority => "minority",
            Self::InvalidSignature => "invalid-signature",
            Self::Forger => "forger",
            Self::Silent => "silent",
            Self::Malformed => "malformed",
            Self::FalseWitness => "false-witness",
            Self::WrongRules => "wrong-rules",
            Self::Replayer => "replayer",
            Self::Flooder => "flooder",
        }
    }

    /// Who tells it.
    pub(crate) fn liar(self) -> LiarKind {
        match self {
            Self::DoubleVote => LiarKind::Equivocator,
            Self::Minority => LiarKind::Minority,
            Self::InvalidSignature => LiarKind::Impersonator,
            Self::Forger => LiarKind::Forger,
            Self::Silent => LiarKind::Silent,
            Self::Malformed => LiarKind::Malformed,
            Self::FalseWitness => LiarKind::FalseWitness,
            Self::WrongRules => LiarKind::WrongRules,
            Self::Replayer => LiarKind::Replayer,
            Self::Flooder => LiarKind::Flooder,
        }
    }
}

impl std::str::FromStr for TestType {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        <Self as ValueEnum>::from_str(name, true).map_err(|_| {
            let names: Vec<_> = Self::value_variants().iter().map(|t| t.name()).collect();
            format!("there is no lie {name:?}; there are {}", names.join(", "))
        })
    }
}
