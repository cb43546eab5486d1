//! Where a member's node is reached, by its own word.

use super::bodies::{field, header};
use super::{Body, Header, KeyRole, StatementError};
use crate::address::Address;
use crate::verifier::Domain;
use crate::wire;

/// What a node says of itself: where it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressBody {
    /// Where.
    pub address: Address,
    /// The boot generation that is reached there; at least 1.
    pub generation: u64,
    /// When it was signed: milliseconds since the Unix epoch.
    pub time_ms: u64,
}

impl AddressBody {
    /// Of two statements by one member, the one with the greater order counts: a later
    /// start before a later time, for clocks are set back.
    pub fn order(&self) -> (u64, u64) {
        (self.generation, self.time_ms)
    }
}

impl Body for AddressBody {
    type Wire = wire::AddressStatement;
    const DOMAIN: Domain = Domain::Address;
    const KEY: KeyRole = KeyRole::Node;

    fn from_wire(wire: Self::Wire) -> Result<(Header, Self), StatementError> {
        if wire.generation == 0 {
            return field("generation", Err("must be at least 1"));
        }
        let address = field("address", Address::new(&wire.address))?;
        if address.to_string() != wire.address {
            return field("address", Err("must be written in its one form"));
        }
        let body = Self {
            address,
            generation: wire.generation,
            time_ms: wire.time_ms,
        };
        Ok((
            header(&wire.cluster_id, &wire.rules_digest, &wire.node_id)?,
            body,
        ))
    }

    fn to_wire(&self, header: &Header) -> Self::Wire {
        wire::AddressStatement {
            cluster_id: header.cluster_id.0.to_vec(),
            rules_digest: header.rules_digest.0.to_vec(),
            node_id: header.node_id.to_string(),
            address: self.address.to_string(),
            generation: self.generation,
            time_ms: self.time_ms,
        }
    }
}
