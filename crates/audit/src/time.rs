//! UTC times as text: `2026-11-21T12:59:00.123Z`, which sorts, compares with a date
//! alone, and means the same to SQLite's date functions and to PostgreSQL.

/// 9999-12-31T23:59:59.999Z, the last time that has four digits of a year.
pub(crate) const LAST_MS: u64 = 253_402_300_799_999;

const DAY_MS: u64 = 86_400_000;

/// Milliseconds since the Unix epoch as text; later than the year 9999 is its end.
pub(crate) fn to_text(ms: u64) -> String {
    let ms = ms.min(LAST_MS);
    let (year, month, day) = civil(ms / DAY_MS);
    let rest = ms % DAY_MS;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        rest / 3_600_000,
        rest / 60_000 % 60,
        rest / 1_000 % 60,
        rest % 1_000,
    )
}

/// The opposite of [`to_text`]; none for any other text.
pub(crate) fn from_text(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let ms = days(year, month, day) * DAY_MS
        + number(11, 13)? * 3_600_000
        + number(14, 16)? * 60_000
        + number(17, 19)? * 1_000
        + number(20, 23)?;
    (to_text(ms) == text).then_some(ms)
}

/// Days from 1970-01-01 to a date (the Gregorian calendar's rules). Years are counted from March, so that the leap day
/// is the last of its year; 153 days are the five months from March to July and again
/// from August to December.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let before = 365 * year + year / 4 - year / 100 + year / 400;
    before + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// The date that lies so many days after 1970-01-01.
fn civil(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468;
    let era = day / 146_097;
    let of_era = day % 146_097;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_times() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_164_799_999, "2024-02-28T23:59:59.999Z"),
            (1_795_000_000_123, "2026-11-18T11:06:40.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (LAST_MS, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(to_text(ms), text);
            assert_eq!(from_text(text), Some(ms));
        }
        assert_eq!(to_text(u64::MAX), to_text(LAST_MS));
    }

    #[test]
    fn other_texts_are_no_times() {
        for text in [
            "",
            "2026-11-18",
            "2026-13-18T09:46:40.123Z",
            "2026-02-30T00:00:00.000Z",
            "2026-11-18T24:00:00.000Z",
            "2026-11-18T09:46:40.123+",
            "1969-12-31T23:59:59.999Z",
            "äääääääääääää",
        ] {
            assert_eq!(from_text(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn times_survive_and_sort(a in 0..=LAST_MS, b in 0..=LAST_MS) {
            prop_assert_eq!(from_text(&to_text(a)), Some(a));
            prop_assert_eq!(a.cmp(&b), to_text(a).cmp(&to_text(b)));
        }
    }
}
