//! Rust types as columns hold them, and back.

use std::error::Error;

use bytes::{Buf, BufMut, BytesMut};
use quorate_consensus::Value;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

use crate::time;

type Failure = Box<dyn Error + Sync + Send>;

/// A `u64` as NUMERIC(20, 0). On the wire: the number of digits to base 10,000, the
/// power of the first, the sign, the decimals to show (none), and the digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wide(pub(super) u64);

/// The sign of numbers that are not negative.
const POSITIVE: u16 = 0;

const BASE: u64 = 10_000;

impl ToSql for Wide {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Failure> {
        let mut digits = [0; 5];
        let mut rest = self.0;
        for digit in digits.iter_mut().rev() {
            *digit = (rest % BASE) as i16;
            rest /= BASE;
        }
        let zeros = digits.iter().take_while(|digit| **digit == 0).count();
        let digits = &digits[zeros..];
        out.put_i16(digits.len() as i16);
        out.put_i16(digits.len().saturating_sub(1) as i16);
        out.put_u16(POSITIVE);
        out.put_i16(0);
        digits.iter().for_each(|digit| out.put_i16(*digit));
        Ok(IsNull::No)
    }

    accepts!(NUMERIC);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Wide {
    fn from_sql(_: &Type, mut raw: &'a [u8]) -> Result<Self, Failure> {
        let count = raw.try_get_i16()?;
        let weight = raw.try_get_i16()?;
        let (sign, _scale) = (raw.try_get_u16()?, raw.try_get_i16()?);
        // Digits behind the last one that is written are zeros.
        if sign != POSITIVE || count > weight + 1 || weight > 4 {
            return Err("not a whole number from 0 to 2^64 - 1".into());
        }
        let mut number: u64 = 0;
        for place in 0..=weight {
            let digit = match place < count {
                true => u64::try_from(raw.try_get_i16()?)?,
                false => 0,
            };
            number = number
                .checked_mul(BASE)
                .and_then(|number| number.checked_add(digit))
                .ok_or("a number above 2^64 - 1")?;
        }
        Ok(Self(number))
    }

    accepts!(NUMERIC);
}

/// A time in milliseconds since the Unix epoch, as TIMESTAMPTZ: on the wire,
/// microseconds since 2000-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Utc(pub(super) u64);

/// 2000-01-01 in milliseconds since the Unix epoch.
const Y2K_MS: i64 = 946_684_800_000;

impl ToSql for Utc {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Failure> {
        let ms = self.0.min(time::LAST_MS).cast_signed();
        ((ms - Y2K_MS) * 1000).to_sql(kind, out)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Utc {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Failure> {
        let us = i64::from_sql(kind, raw)?;
        let ms = us.div_euclid(1000).checked_add(Y2K_MS);
        let ms = ms.and_then(|ms| u64::try_from(ms).ok());
        ms.map(Self).ok_or_else(|| "a time before 1970".into())
    }

    accepts!(TIMESTAMPTZ);
}

/// The columns `value` and `data` of a value.
pub(super) fn split(value: Option<&Value>) -> (Option<Wide>, Option<&[u8]>) {
    match value {
        None => (None, None),
        Some(Value::Number(number)) => (Some(Wide(*number)), None),
        Some(Value::Data(data)) => (None, Some(data)),
    }
}

/// The opposite of [`split`].
pub(super) fn joined(number: Option<Wide>, data: Option<Vec<u8>>) -> Option<Value> {
    match (number, data) {
        (Some(Wide(number)), _) => Some(Value::Number(number)),
        (None, Some(data)) => Some(Value::Data(data.into())),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wire(value: &impl ToSql, kind: &Type) -> BytesMut {
        let mut bytes = BytesMut::new();
        value.to_sql(kind, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_is_no_u64_is_refused() {
        for raw in [
            // -1, 0.5, 10^20, and 2^64.
            &[0, 1, 0, 0, 0x40, 0, 0, 0, 0, 1][..],
            &[0, 1, 0xff, 0xff, 0, 0, 0, 1, 0x13, 0x88],
            &[0, 1, 0, 5, 0, 0, 0, 0, 0, 1],
            &[
                0, 5, 0, 4, 0, 0, 0, 0, 7, 0x34, 0x1a, 0x58, 0x1c, 0x99, 3, 0xbb, 6, 0x50,
            ],
            &[0, 1],
        ] {
            assert!(Wide::from_sql(&Type::NUMERIC, raw).is_err(), "{raw:?}");
        }
    }

    proptest! {
        #[test]
        fn numbers_survive(number in prop_oneof![
            any::<u64>(), 0..100_000_u64, Just(u64::MAX), (0..20_u32).prop_map(|n| 10_u64.pow(n)),
        ]) {
            let bytes = wire(&Wide(number), &Type::NUMERIC);
            prop_assert_eq!(Wide::from_sql(&Type::NUMERIC, &bytes).unwrap(), Wide(number));
        }

        #[test]
        fn times_survive(ms in 0..=time::LAST_MS) {
            let bytes = wire(&Utc(ms), &Type::TIMESTAMPTZ);
            prop_assert_eq!(Utc::from_sql(&Type::TIMESTAMPTZ, &bytes).unwrap(), Utc(ms));
        }
    }
}
