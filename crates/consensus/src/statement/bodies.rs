//! What each kind of statement says, and how its fields are checked.

use super::{Body, Header, KeyRole, StatementError};
use crate::choice::{Choice, ChoiceError, Value};
use crate::ids::{NodeId, TxId};
use crate::verifier::Domain;
use crate::wire;

pub(super) fn field<T, E: ToString>(
    field: &'static str,
    result: Result<T, E>,
) -> Result<T, StatementError> {
    result.map_err(|e| StatementError::Field {
        field,
        reason: e.to_string(),
    })
}

pub(super) fn header(cluster: &[u8], rules: &[u8], node: &str) -> Result<Header, StatementError> {
    Ok(Header {
        cluster_id: field("cluster_id", cluster.try_into())?,
        rules_digest: field("rules_digest", rules.try_into())?,
        node_id: field("node_id", NodeId::new(node))?,
    })
}

fn digest(name: &'static str, bytes: &[u8]) -> Result<[u8; 32], StatementError> {
    field(name, bytes.try_into().map_err(|_| "must be 32 bytes"))
}

fn enumeration<E: TryFrom<i32> + PartialEq + Default>(
    name: &'static str,
    number: i32,
) -> Result<E, StatementError> {
    match E::try_from(number) {
        Ok(known) if known != E::default() => Ok(known),
        _ => field(name, Err("unknown or unspecified")),
    }
}

fn choice(wire: &Option<wire::Choice>) -> Result<Choice, StatementError> {
    let wire = wire.as_ref().ok_or(ChoiceError::Missing);
    field("choice", wire.and_then(Choice::try_from))
}

/// What a vote says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoteBody {
    /// The transaction.
    pub tx_id: TxId,
    /// What its trustee says.
    pub choice: Choice,
    /// When it was signed: milliseconds since the Unix epoch.
    pub time_ms: u64,
}

impl Body for VoteBody {
    type Wire = wire::VoteStatement;
    const DOMAIN: Domain = Domain::Vote;
    const KEY: KeyRole = KeyRole::Vote;

    fn from_wire(wire: Self::Wire) -> Result<(Header, Self), StatementError> {
        let body = Self {
            tx_id: field("tx_id", TxId::new(&wire.tx_id))?,
            choice: choice(&wire.choice)?,
            time_ms: wire.time_ms,
        };
        Ok((
            header(&wire.cluster_id, &wire.rules_digest, &wire.node_id)?,
            body,
        ))
    }

    fn to_wire(&self, header: &Header) -> Self::Wire {
        wire::VoteStatement {
            cluster_id: header.cluster_id.0.to_vec(),
            rules_digest: header.rules_digest.0.to_vec(),
            tx_id: self.tx_id.to_string(),
            node_id: header.node_id.to_string(),
            choice: Some((&self.choice).into()),
            time_ms: self.time_ms,
        }
    }
}

/// What a decision says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionBody {
    /// The transaction.
    pub tx_id: TxId,
    /// The value decided.
    pub value: Value,
    /// The reservation; none for a change of rules.
    pub reservation: Option<wire::Reservation>,
}

impl Body for DecisionBody {
    type Wire = wire::DecisionStatement;
    const DOMAIN: Domain = Domain::Decision;
    const KEY: KeyRole = KeyRole::Node;

    fn from_wire(wire: Self::Wire) -> Result<(Header, Self), StatementError> {
        let value = wire.value.as_ref().ok_or(ChoiceError::Missing);
        let body = Self {
            tx_id: field("tx_id", TxId::new(&wire.tx_id))?,
            value: field("value", value.and_then(Value::try_from))?,
            reservation: wire.reservation,
        };
        Ok((
            header(&wire.cluster_id, &wire.rules_digest, &wire.node_id)?,
            body,
        ))
    }

    fn to_wire(&self, header: &Header) -> Self::Wire {
        wire::DecisionStatement {
            cluster_id: header.cluster_id.0.to_vec(),
            rules_digest: header.rules_digest.0.to_vec(),
            tx_id: self.tx_id.to_string(),
            node_id: header.node_id.to_string(),
            value: Some((&self.value).into()),
            reservation: self.reservation.clone(),
        }
    }
}

/// What an abort statement says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbortBody {
    /// The transaction.
    pub tx_id: TxId,
    /// Why it is dead.
    pub reason: wire::AbortReason,
}

impl Body for AbortBody {
    type Wire = wire::AbortStatement;
    const DOMAIN: Domain = Domain::Abort;
    const KEY: KeyRole = KeyRole::Node;

    fn from_wire(wire: Self::Wire) -> Result<(Header, Self), StatementError> {
        let body = Self {
            tx_id: field("tx_id", TxId::new(&wire.tx_id))?,
            reason: enumeration("reason", wire.reason)?,
        };
        Ok((
            header(&wire.cluster_id, &wire.rules_digest, &wire.node_id)?,
            body,
        ))
    }

    fn to_wire(&self, header: &Header) -> Self::Wire {
        wire::AbortStatement {
            cluster_id: header.cluster_id.0.to_vec(),
            rules_digest: header.rules_digest.0.to_vec(),
            tx_id: self.tx_id.to_string(),
            node_id: header.node_id.to_string(),
            reason: self.reason.into(),
        }
    }
}

/// What an observation says. Two observations agree when their bodies are equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObservationBody {
    /// The transaction.
    pub tx_id: TxId,
    /// The reserved account.
    pub account: String,
    /// The reserved nonce.
    pub nonce: u64,
    /// What was seen, at the depth that the rules ask for.
    pub outcome: wire::ChainOutcome,
    /// Hash of the chain's transaction, at most 64 bytes.
    pub tx_hash: Vec<u8>,
    /// Height of its block.
    pub block_number: u64,
    /// Hash of its block, at most 64 bytes.
    pub block_hash: Vec<u8>,
    /// How often the board has concluded this submission before.
    pub round: u32,
}

impl Body for ObservationBody {
    type Wire = wire::ObservationStatement;
    const DOMAIN: Domain = Domain::Observation;
    const KEY: KeyRole = KeyRole::Node;

    fn from_wire(wire: Self::Wire) -> Result<(Header, Self), StatementError> {
        for (name, bytes) in [("tx_hash", &wire.tx_hash), ("block_hash", &wire.block_hash)] {
            if bytes.len() > 64 {
                return field(name, Err("must be at most 64 bytes"));
            }
        }
        let body = Self {
            tx_id: field("tx_id", TxId::new(&wire.tx_id))?,
            account: wire.account,
            nonce: wire.nonce,
            outcome: enumeration("outcome", wire.outcome)?,
            tx_hash: wire.tx_hash,
            block_number: wire.block_number,
            block_hash: wire.block_hash,
            round: wire.round,
        };
        Ok((
            header(&wire.cluster_id, &wire.rules_digest, &wire.node_id)?,
            body,
        ))
    }

    fn to_wire(&self, header: &Header) -> Self::Wire {
        wire::ObservationStatement {
            cluster_id: header.cluster_id.0.to_vec(),
            rules_digest: header.rules_digest.0.to_vec(),
            tx_id: self.tx_id.to_string(),
            node_id: header.node_id.to_string(),
            account: self.account.clone(),
            nonce: self.nonce,
            outcome: self.outcome.into(),
            tx_hash: self.tx_hash.clone(),
            block_number: self.block_number,
            block_hash: self.block_hash.clone(),
            round: self.round,
        }
    }
}

/// What an accusation says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccusationBody {
    /// Who is accused.
    pub accused: NodeId,
    /// Of what.
    pub kind: wire::AccusationKind,
    /// The transaction it was about, if any.
    pub tx_id: Option<TxId>,
    /// BLAKE3-256 of the offending bytes.
    pub subject_digest: [u8; 32],
    /// When: milliseconds since the Unix epoch.
    pub time_ms: u64,
}

impl Body for AccusationBody {
    type Wire = wire::AccusationStatement;
    const DOMAIN: Domain = Domain::Accusation;
    const KEY: KeyRole = KeyRole::Node;

    fn from_wire(wire: Self::Wire) -> Result<(Header, Self), StatementError> {
        let tx_id = match wire.tx_id.as_str() {
            "" => None,
            text => Some(field("tx_id", TxId::new(text))?),
        };
        let body = Self {
            accused: field("accused", NodeId::new(&wire.accused))?,
            kind: enumeration("kind", wire.kind)?,
            tx_id,
            subject_digest: digest("subject_digest", &wire.subject_digest)?,
            time_ms: wire.time_ms,
        };
        Ok((
            header(&wire.cluster_id, &wire.rules_digest, &wire.node_id)?,
            body,
        ))
    }

    fn to_wire(&self, header: &Header) -> Self::Wire {
        wire::AccusationStatement {
            cluster_id: header.cluster_id.0.to_vec(),
            rules_digest: header.rules_digest.0.to_vec(),
            node_id: header.node_id.to_string(),
            accused: self.accused.to_string(),
            kind: self.kind.into(),
            tx_id: self.tx_id.as_ref().map(TxId::to_string).unwrap_or_default(),
            subject_digest: self.subject_digest.to_vec(),
            time_ms: self.time_ms,
        }
    }
}

/// What a boot statement says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootBody {
    /// The boot generation; 1 is the first.
    pub generation: u64,
    /// When: milliseconds since the Unix epoch.
    pub time_ms: u64,
}

impl Body for BootBody {
    type Wire = wire::BootStatement;
    const DOMAIN: Domain = Domain::Boot;
    const KEY: KeyRole = KeyRole::Node;

    fn from_wire(wire: Self::Wire) -> Result<(Header, Self), StatementError> {
        if wire.generation == 0 {
            return field("generation", Err("must be at least 1"));
        }
        let body = Self {
            generation: wire.generation,
            time_ms: wire.time_ms,
        };
        Ok((
            header(&wire.cluster_id, &wire.rules_digest, &wire.node_id)?,
            body,
        ))
    }

    fn to_wire(&self, header: &Header) -> Self::Wire {
        wire::BootStatement {
            cluster_id: header.cluster_id.0.to_vec(),
            rules_digest: header.rules_digest.0.to_vec(),
            node_id: header.node_id.to_string(),
            generation: self.generation,
            time_ms: self.time_ms,
        }
    }
}

/// What a hello says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloBody {
    /// The sender's boot generation.
    pub generation: u64,
    /// Least protocol version it speaks.
    pub protocol_min: u32,
    /// Greatest protocol version it speaks.
    pub protocol_max: u32,
    /// BLAKE3-256 of the sender's certificate.
    pub own_certificate: [u8; 32],
    /// BLAKE3-256 of the receiver's certificate.
    pub peer_certificate: [u8; 32],
    /// The receiver's challenge.
    pub challenge: [u8; 32],
}

impl Body for HelloBody {
    type Wire = wire::HelloStatement;
    const DOMAIN: Domain = Domain::Hello;
    const KEY: KeyRole = KeyRole::Node;

    fn from_wire(wire: Self::Wire) -> Result<(Header, Self), StatementError> {
        if wire.protocol_min > wire.protocol_max {
            return field("protocol_min", Err("must not exceed protocol_max"));
        }
        let body = Self {
            generation: wire.generation,
            protocol_min: wire.protocol_min,
            protocol_max: wire.protocol_max,
            own_certificate: digest("own_certificate", &wire.own_certificate)?,
            peer_certificate: digest("peer_certificate", &wire.peer_certificate)?,
            challenge: digest("challenge", &wire.challenge)?,
        };
        Ok((
            header(&wire.cluster_id, &wire.rules_digest, &wire.node_id)?,
            body,
        ))
    }

    fn to_wire(&self, header: &Header) -> Self::Wire {
        wire::HelloStatement {
            cluster_id: header.cluster_id.0.to_vec(),
            rules_digest: header.rules_digest.0.to_vec(),
            node_id: header.node_id.to_string(),
            generation: self.generation,
            protocol_min: self.protocol_min,
            protocol_max: self.protocol_max,
            own_certificate: self.own_certificate.to_vec(),
            peer_certificate: self.peer_certificate.to_vec(),
            challenge: self.challenge.to_vec(),
        }
    }
}

/// What an operator's act says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorActBody {
    /// What is done.
    pub kind: wire::OperatorActKind,
    /// The member or transaction it is about.
    pub subject: String,
    /// BLAKE3-256 of each ban proof that is pardoned, ascending.
    pub pardoned: Vec<[u8; 32]>,
    /// When: milliseconds since the Unix epoch.
    pub time_ms: u64,
}

impl Body for OperatorActBody {
    type Wire = wire::OperatorActStatement;
    const DOMAIN: Domain = Domain::Act;
    const KEY: KeyRole = KeyRole::Node;

    fn from_wire(wire: Self::Wire) -> Result<(Header, Self), StatementError> {
        let pardoned = wire
            .pardoned
            .iter()
            .map(|bytes| digest("pardoned", bytes))
            .collect::<Result<Vec<_>, _>>()?;
        if !pardoned.is_sorted_by(|a, b| a < b) {
            return field("pardoned", Err("must ascend without repetition"));
        }
        let body = Self {
            kind: enumeration("kind", wire.kind)?,
            subject: wire.subject,
            pardoned,
            time_ms: wire.time_ms,
        };
        Ok((
            header(&wire.cluster_id, &wire.rules_digest, &wire.node_id)?,
            body,
        ))
    }

    fn to_wire(&self, header: &Header) -> Self::Wire {
        wire::OperatorActStatement {
            cluster_id: header.cluster_id.0.to_vec(),
            rules_digest: header.rules_digest.0.to_vec(),
            node_id: header.node_id.to_string(),
            kind: self.kind.into(),
            subject: self.subject.clone(),
            pardoned: self.pardoned.iter().map(|d| d.to_vec()).collect(),
            time_ms: self.time_ms,
        }
    }
}
