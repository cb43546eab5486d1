//! What a trustee can say: a value, or that it cannot tell.

use std::fmt;

use crate::wire;

/// The most bytes a value may have.
pub const MAX_DATA_LEN: usize = 1024;

/// What is voted for. `Number(1)` and `Data(b"1")` are two values.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// A number.
    Number(u64),
    /// 1 to [`MAX_DATA_LEN`] opaque bytes.
    Data(Box<[u8]>),
}

/// What a trustee says about a transaction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Choice {
    /// "It is this."
    Value(Value),
    /// "I cannot tell": final, neither silence nor dissent.
    Abstention,
}

/// Why a choice was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// Neither number, bytes nor abstention.
    #[error("a choice must be a number, bytes or an abstention")]
    Missing,
    /// No bytes, or too many.
    #[error("data must be 1 to {MAX_DATA_LEN} bytes long, not {0}")]
    DataLength(usize),
    /// An abstention where only a value will do.
    #[error("an abstention is not a value")]
    NotAValue,
}

impl Value {
    /// Checks and takes bytes.
    ///
    /// # Errors
    /// [`ChoiceError::DataLength`] unless there are 1 to [`MAX_DATA_LEN`].
    pub fn data(bytes: &[u8]) -> Result<Self, ChoiceError> {
        if bytes.is_empty() || bytes.len() > MAX_DATA_LEN {
            return Err(ChoiceError::DataLength(bytes.len()));
        }
        Ok(Self::Data(bytes.into()))
    }
}

impl Choice {
    /// The value, unless it is an abstention.
    pub fn value(&self) -> Option<&Value> {
        match self {
            Self::Value(value) => Some(value),
            Self::Abstention => None,
        }
    }
}

impl From<Value> for Choice {
    fn from(value: Value) -> Self {
        Self::Value(value)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Data(data) => {
                f.write_str("0x")?;
                data.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => value.fmt(f),
            Self::Abstention => f.write_str("abstention"),
        }
    }
}

impl TryFrom<&wire::Choice> for Choice {
    type Error = ChoiceError;

    fn try_from(choice: &wire::Choice) -> Result<Self, ChoiceError> {
        use wire::choice::Kind;
        match &choice.kind {
            None => Err(ChoiceError::Missing),
            Some(Kind::Number(number)) => Ok(Value::Number(*number).into()),
            Some(Kind::Data(data)) => Value::data(data).map(Self::Value),
            Some(Kind::Abstention(_)) => Ok(Self::Abstention),
        }
    }
}

impl TryFrom<&wire::Choice> for Value {
    type Error = ChoiceError;

    fn try_from(choice: &wire::Choice) -> Result<Self, ChoiceError> {
        match Choice::try_from(choice)? {
            Choice::Value(value) => Ok(value),
            Choice::Abstention => Err(ChoiceError::NotAValue),
        }
    }
}

impl From<&Value> for wire::Choice {
    fn from(value: &Value) -> Self {
        use wire::choice::Kind;
        Self {
            kind: Some(match value {
                Value::Number(number) => Kind::Number(*number),
                Value::Data(data) => Kind::Data(data.to_vec()),
            }),
        }
    }
}

impl From<&Choice> for wire::Choice {
    fn from(choice: &Choice) -> Self {
        match choice {
            Choice::Value(value) => value.into(),
            Choice::Abstention => Self {
                kind: Some(wire::choice::Kind::Abstention(wire::Abstention {})),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_and_byte_are_two_values() {
        assert_ne!(Value::Number(1), Value::data(b"1").unwrap());
    }

    #[test]
    fn data_has_limits() {
        assert_eq!(Value::data(b""), Err(ChoiceError::DataLength(0)));
        assert!(Value::data(&[0; MAX_DATA_LEN]).is_ok());
        assert!(Value::data(&[0; MAX_DATA_LEN + 1]).is_err());
    }

    #[test]
    fn wire_form_survives() {
        for choice in [
            Choice::from(Value::Number(u64::MAX)),
            Choice::from(Value::Number(0)),
            Choice::from(Value::data(b"\0").unwrap()),
            Choice::Abstention,
        ] {
            assert_eq!(Choice::try_from(&wire::Choice::from(&choice)), Ok(choice));
        }
        assert!(Choice::try_from(&wire::Choice { kind: None }).is_err());
    }
}
