//! Where a node is reached: a name or address, and a port.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// The most characters of a host's name, by the rules of DNS.
const MAX_HOST: usize = 253;

/// `host:port`; an IPv6 address stands in brackets. What it names is found out on every
/// dial.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    host: String,
    port: u16,
}

/// A text that is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be host:port with a port from 1 to 65535, and an IPv6 address in brackets, not {0:?}"
)]
pub struct AddressError(String);

impl Address {
    /// Reads `host:port`.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn new(text: &str) -> Result<Self, AddressError> {
        Self::read(text).ok_or_else(|| AddressError(text.chars().take(300).collect()))
    }

    fn read(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(v6) => v6.parse::<Ipv6Addr>().ok()?.to_string(),
            None => {
                let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
                let fine = !host.is_empty() && host.len() <= MAX_HOST && host.chars().all(known);
                fine.then(|| host.to_owned())?
            }
        };
        // One address has one form, without signs and leading zeros.
        let port = port
            .parse()
            .ok()
            .filter(|number: &u16| *number != 0 && number.to_string() == port)?;
        Some(Self { host, port })
    }

    /// The name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, 1 to 65535.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::new(text)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_written_one_way() {
        for text in [
            "node1:9000",
            "127.0.0.1:1",
            "[::1]:65535",
            "a.b-c_d.example:80",
        ] {
            assert_eq!(Address::new(text).unwrap().to_string(), text);
        }
        let long = format!("{}:1", "a".repeat(254));
        for text in [
            "",
            ":",
            "node1",
            "node1:",
            ":9000",
            "node1:0",
            "node1:65536",
            "node1:+1",
            "node1:01",
            "::1:9000",
            "[node1]:9000",
            "[::1:9000",
            "no de:1",
            "n/1:1",
            "n@1:1",
            "n\n:1",
            &long,
        ] {
            assert!(Address::new(text).is_err(), "{text:?}");
        }
        let v6 = Address::new("[0:0::1]:9").unwrap();
        assert_eq!((v6.host(), v6.port()), ("::1", 9));
    }
}
