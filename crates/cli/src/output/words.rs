//! The protocol's words as people read them.

use std::time::{SystemTime, UNIX_EPOCH};

use quorate_consensus::ballot::state_name;
use quorate_wire::v1::{self, BallotState, Standing, choice::Kind};

use super::Tone;

/// A state without its prefix, and its colour.
pub(crate) fn state_word(state: BallotState) -> (&'static str, Tone) {
    let word = state_name(state);
    let tone = match state {
        BallotState::Confirmed => Tone::Good,
        BallotState::ThresholdReached | BallotState::Submitted => Tone::Warn,
        BallotState::Collecting | BallotState::Unspecified => Tone::Plain,
        _ => Tone::Bad,
    };
    (word, tone)
}

/// A standing in lower case, and its colour.
pub(crate) fn standing_word(standing: Standing) -> (&'static str, Tone) {
    match standing {
        Standing::Unspecified => ("unknown", Tone::Plain),
        Standing::Voted => ("voted", Tone::Plain),
        Standing::Agreed => ("agreed", Tone::Good),
        Standing::Dissented => ("dissented", Tone::Bad),
        Standing::Abstained => ("abstained", Tone::Plain),
        Standing::Equivocated => ("equivocated", Tone::Bad),
        Standing::Late => ("late", Tone::Faint),
        Standing::Missing => ("missing", Tone::Warn),
        Standing::Silent => ("silent", Tone::Warn),
        Standing::Banned => ("banned", Tone::Bad),
    }
}

/// A choice; a dash where there is none.
pub(crate) fn choice_text(choice: Option<&v1::Choice>) -> String {
    match choice.and_then(|choice| choice.kind.as_ref()) {
        None => "-".into(),
        Some(Kind::Number(number)) => number.to_string(),
        Some(Kind::Data(data)) => format!("0x{}", short_hex(data)),
        Some(Kind::Abstention(_)) => "abstains".into(),
    }
}

/// Hexadecimal, shortened in the middle past 16 bytes: three of them fit beside a
/// node_id in 80 columns.
pub(crate) fn short_hex(bytes: &[u8]) -> String {
    if bytes.len() <= 16 {
        return hex::encode(bytes);
    }
    let (head, tail) = (&bytes[..6], &bytes[bytes.len() - 3..]);
    format!("{}…{}", hex::encode(head), hex::encode(tail))
}

/// Milliseconds since the Unix epoch, by this machine's clock.
pub(crate) fn clock_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
        .unwrap_or_default()
}

/// A moment in UTC, to the millisecond; a dash for 0.
pub(crate) fn clock(ms: u64) -> String {
    if ms == 0 {
        return "-".into();
    }
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    match time::OffsetDateTime::from_unix_timestamp(seconds) {
        Err(_) => format!("{ms} ms"),
        Ok(moment) => format!(
            "{}-{:02}-{:02} {:02}:{:02}:{:02}.{:03}Z",
            moment.year(),
            u8::from(moment.month()),
            moment.day(),
            moment.hour(),
            moment.minute(),
            moment.second(),
            ms % 1000
        ),
    }
}

/// How long ago (or ahead) a moment is, in the unit that suits it.
pub(crate) fn ago(ms: u64, now_ms: u64) -> String {
    let text = span(now_ms.abs_diff(ms));
    if ms > now_ms {
        format!("in {text}")
    } else {
        format!("{text} ago")
    }
}

fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        60_000..3_600_000 => format!("{} min", ms / 60_000),
        3_600_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} days", ms / 86_400_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lose_their_prefixes() {
        assert_eq!(
            state_word(BallotState::AbortedByzantine).0,
            "ABORTED_BYZANTINE"
        );
    }

    #[test]
    fn moments_are_readable() {
        assert_eq!(clock(0), "-");
        assert_eq!(clock(1_700_000_000_123), "2023-11-14 22:13:20.123Z");
        assert_eq!(ago(1_000, 3_500), "2.5 s ago");
        assert_eq!(ago(63_000, 3_000), "in 1 min");
    }

    #[test]
    fn long_bytes_are_shortened() {
        assert_eq!(short_hex(&[1, 2]), "0102");
        assert_eq!(short_hex(&[0xab; 32]), "abababababab…ababab");
    }
}
