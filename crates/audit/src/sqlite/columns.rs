//! Rust types as columns hold them, and back.

use quorate_consensus::{Choice, NodeId, PeerId, TxId, Value, words};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Result, Row};

use crate::time;

/// A `u64` as 20 decimal digits: exact, and sorted like the number.
pub(super) struct Wide(pub(super) u64);

impl ToSql for Wide {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(format!("{:020}", self.0).into())
    }
}

impl FromSql for Wide {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = value.as_str()?;
        let digits = text.len() == 20 && text.bytes().all(|b| b.is_ascii_digit());
        let number = digits.then(|| text.parse().ok()).flatten();
        number
            .map(Self)
            .ok_or_else(|| bad("not a number of 20 digits", text))
    }
}

/// A time, in milliseconds since the Unix epoch, as UTC text.
pub(super) struct Utc(pub(super) u64);

impl ToSql for Utc {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(time::to_text(self.0).into())
    }
}

impl FromSql for Utc {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = value.as_str()?;
        time::from_text(text)
            .map(Self)
            .ok_or_else(|| bad("not a time", text))
    }
}

/// Text that is a name of a kind.
pub(super) struct Named<T>(pub(super) T);

macro_rules! named {
    ($type:ty, $parse:expr, $what:literal) => {
        impl FromSql for Named<$type> {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                let text = value.as_str()?;
                let parse: fn(&str) -> Option<$type> = $parse;
                parse(text).map(Self).ok_or_else(|| bad($what, text))
            }
        }
    };
}

named!(TxId, |text| TxId::new(text).ok(), "not a tx_id");
named!(NodeId, |text| NodeId::new(text).ok(), "not a node_id");
named!(
    crate::rows::SubmissionState,
    crate::rows::SubmissionState::parse,
    "not a state"
);
named!(
    crate::rows::ProofKind,
    crate::rows::ProofKind::parse,
    "not a proof kind"
);
named!(
    quorate_consensus::wire::ViolationType,
    words::violation_of,
    "not a violation type"
);
named!(
    quorate_consensus::wire::AccusationKind,
    words::accusation_of,
    "not an accusation kind"
);

/// A peer id, 32 bytes.
pub(super) struct Peer(pub(super) PeerId);

impl FromSql for Peer {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        PeerId::try_from(value.as_blob()?)
            .map(Self)
            .map_err(|error| FromSqlError::Other(error.into()))
    }
}

/// The columns `value` and `data` of a value.
pub(super) fn split(value: Option<&Value>) -> (Option<Wide>, Option<&[u8]>) {
    match value {
        None => (None, None),
        Some(Value::Number(number)) => (Some(Wide(*number)), None),
        Some(Value::Data(data)) => (None, Some(data)),
    }
}

/// The opposite of [`split`], from the columns called `value` and `data`.
pub(super) fn joined(row: &Row<'_>) -> Result<Option<Value>> {
    let number: Option<Wide> = row.get("value")?;
    let data: Option<Vec<u8>> = row.get("data")?;
    Ok(match (number, data) {
        (Some(Wide(number)), _) => Some(Value::Number(number)),
        (None, Some(data)) => Some(Value::Data(data.into())),
        (None, None) => None,
    })
}

/// The choice in the columns `value`, `data` and `abstained`.
pub(super) fn choice(row: &Row<'_>) -> Result<Choice> {
    Ok(joined(row)?.map_or(Choice::Abstention, Choice::Value))
}

fn bad(what: &'static str, text: &str) -> FromSqlError {
    FromSqlError::Other(format!("{what}: {text:?}").into())
}
