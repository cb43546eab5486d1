//! The words that people read: the names in the .proto files without the prefix that
//! protobuf wants of them, `DOUBLE_VOTING` for `VIOLATION_TYPE_DOUBLE_VOTING`. Messages,
//! logs, spans, metrics and SQL have them; proto JSON keeps the whole names. A ballot's
//! states: [`crate::ballot::state_name`].

use crate::wire::{AbortReason, AccusationKind, ChainOutcome, GoodbyeReason, ViolationType};

const VIOLATION: &str = "VIOLATION_TYPE_";
const ACCUSATION: &str = "ACCUSATION_KIND_";

pub(crate) fn without(prefix: &str, name: &'static str) -> &'static str {
    name.strip_prefix(prefix).unwrap_or(name)
}

/// `DOUBLE_VOTING` and the like.
pub fn violation_word(kind: ViolationType) -> &'static str {
    without(VIOLATION, kind.as_str_name())
}

/// The opposite of [`violation_word`]; none when there is no such violation.
pub fn violation_of(word: &str) -> Option<ViolationType> {
    ViolationType::from_str_name(&format!("{VIOLATION}{word}"))
}

/// `INVALID_SIGNATURE` and the like.
pub fn accusation_word(kind: AccusationKind) -> &'static str {
    without(ACCUSATION, kind.as_str_name())
}

/// The opposite of [`accusation_word`]; none when nobody is accused of that.
pub fn accusation_of(word: &str) -> Option<AccusationKind> {
    AccusationKind::from_str_name(&format!("{ACCUSATION}{word}"))
}

/// `CONFIRMED` and the like, of what the chain did.
pub fn outcome_word(outcome: ChainOutcome) -> &'static str {
    without("CHAIN_OUTCOME_", outcome.as_str_name())
}

/// `BYZANTINE` and the like, of why a ballot is aborted.
pub fn abort_word(reason: AbortReason) -> &'static str {
    without("ABORT_REASON_", reason.as_str_name())
}

/// `SHUTDOWN` and the like, of why a stream ends.
pub fn goodbye_word(reason: GoodbyeReason) -> &'static str {
    without("GOODBYE_REASON_", reason.as_str_name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::Refusal;
    use crate::wire::BallotState;

    /// Every value of an enum.
    fn all<E: TryFrom<i32>>() -> impl Iterator<Item = E> {
        (0..64).filter_map(|number| E::try_from(number).ok())
    }

    #[test]
    fn words_have_no_prefix() {
        let violations = all::<ViolationType>().map(violation_word);
        let accusations = all::<AccusationKind>().map(accusation_word);
        let outcomes = all::<ChainOutcome>().map(outcome_word);
        let aborts = all::<AbortReason>().map(abort_word);
        let goodbyes = all::<GoodbyeReason>().map(goodbye_word);
        let words = violations.chain(accusations).chain(outcomes);
        for word in words.chain(aborts).chain(goodbyes) {
            for prefix in ["TYPE_", "KIND_", "OUTCOME_", "REASON_"] {
                assert!(!word.contains(prefix), "{word}");
            }
        }
        assert_eq!(violation_word(ViolationType::DoubleVoting), "DOUBLE_VOTING");
        assert_eq!(accusation_word(AccusationKind::Malformed), "MALFORMED");
        assert_eq!(outcome_word(ChainOutcome::Confirmed), "CONFIRMED");
        assert_eq!(abort_word(AbortReason::Byzantine), "BYZANTINE");
        assert_eq!(goodbye_word(GoodbyeReason::Shutdown), "SHUTDOWN");
    }

    #[test]
    fn messages_have_the_words() {
        let (from, to) = (BallotState::Submitted, BallotState::AbortedSplit);
        assert_eq!(
            Refusal::IllegalMove { from, to }.to_string(),
            "the table does not move SUBMITTED to ABORTED_SPLIT"
        );
        let collected = Refusal::Collected(BallotState::Confirmed).to_string();
        assert_eq!(collected, "the ballot ended as CONFIRMED");
    }

    #[test]
    fn words_are_read_back() {
        for kind in all::<ViolationType>() {
            assert_eq!(violation_of(violation_word(kind)), Some(kind));
        }
        for kind in all::<AccusationKind>() {
            assert_eq!(accusation_of(accusation_word(kind)), Some(kind));
        }
        for whole in ["VIOLATION_TYPE_DOUBLE_VOTING", "", "LATE"] {
            assert_eq!(violation_of(whole), None, "{whole}");
        }
        assert_eq!(accusation_of("ACCUSATION_KIND_MALFORMED"), None);
    }
}
