//! Signed statements: parsed from the bytes that were signed, checked against the
//! rules, and never trusted before both.
//!
//! [`open`] is the only way from bytes to a [`Signed`] body, so holding one means
//! that its signer is a member under the rules given, that the bytes are canonical,
//! and that the signature is good.

use prost::Message;
use prost::bytes::Bytes;

use crate::ids::{ClusterId, NodeId, RulesDigest};
use crate::rules::Rules;
use crate::verifier::{Domain, Verifier};
use crate::wire::SignedStatement;

mod address;
mod bodies;

pub use address::AddressBody;
pub use bodies::{
    AbortBody, AccusationBody, BootBody, DecisionBody, HelloBody, ObservationBody, OperatorActBody,
    VoteBody,
};

/// The most bytes a statement may have: a payload of a value of 1 KiB fits well.
pub const MAX_STATEMENT_LEN: usize = 16 * 1024;

/// The most bytes a signature may have; the largest scheme foreseen, ML-DSA-87,
/// needs 4,627.
pub const MAX_SIGNATURE_LEN: usize = 8 * 1024;

/// Why a statement was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// No statement where one is needed.
    #[error("the signed statement is missing")]
    Missing,
    /// Statement or signature longer than allowed.
    #[error("a statement of {0} bytes is too large")]
    TooLarge(usize),
    /// Not the protobuf message it should be.
    #[error("the statement cannot be decoded: {0}")]
    Undecodable(String),
    /// Decodes, but is not what its own re-encoding gives.
    #[error(
        "the statement's bytes are not canonical: fields must be in order, none unknown or repeated, none with its default value"
    )]
    NotCanonical,
    /// A field holds what it must not.
    #[error("field {field}: {reason}")]
    Field {
        /// The field's name in the .proto file.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Signed for another cluster.
    #[error("the statement is for another cluster")]
    WrongCluster,
    /// Signed under other rules.
    #[error("the statement was signed under rules {found}, not {expected}")]
    WrongRules {
        /// The digest in the statement.
        found: RulesDigest,
        /// The digest of the rules it was held against.
        expected: RulesDigest,
    },
    /// Signed by somebody who is no member.
    #[error("{0} is not a member under these rules")]
    UnknownMember(NodeId),
    /// The signature does not verify.
    #[error("the signature of {0} does not verify")]
    BadSignature(NodeId),
}

impl StatementError {
    /// A stable, upper-case reason for machines.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "STATEMENT_MISSING",
            Self::TooLarge(_) => "STATEMENT_TOO_LARGE",
            Self::Undecodable(_) => "STATEMENT_UNDECODABLE",
            Self::NotCanonical => "STATEMENT_NOT_CANONICAL",
            Self::Field { .. } => "STATEMENT_FIELD_INVALID",
            Self::WrongCluster => "WRONG_CLUSTER",
            Self::WrongRules { .. } => "WRONG_RULES",
            Self::UnknownMember(_) => "UNKNOWN_MEMBER",
            Self::BadSignature(_) => "BAD_SIGNATURE",
        }
    }

    /// Whether a peer that sends this breaks the protocol. Only other rules are
    /// excused: a peer may have moved to an epoch that this node has not seen.
    pub fn accuses_sender(&self) -> bool {
        !matches!(self, Self::WrongRules { .. })
    }
}

/// Which of a member's two keys signs a kind of statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyRole {
    /// The vote key.
    Vote,
    /// The node key.
    Node,
}

/// The fields that every statement has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The cluster it is for.
    pub cluster_id: ClusterId,
    /// The rules it was signed under.
    pub rules_digest: RulesDigest,
    /// Who signs.
    pub node_id: NodeId,
}

/// The body of one kind of statement.
pub trait Body: Sized {
    /// The protobuf message whose bytes are signed.
    type Wire: Message + Default;
    /// The domain it is signed in.
    const DOMAIN: Domain;
    /// The key that signs it.
    const KEY: KeyRole;

    /// Checks every field.
    ///
    /// # Errors
    /// [`StatementError::Field`] for the first field that holds what it must not.
    fn from_wire(wire: Self::Wire) -> Result<(Header, Self), StatementError>;

    /// The message to sign.
    fn to_wire(&self, header: &Header) -> Self::Wire;
}

/// A statement that was opened: well-formed, by a member, and verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed<B> {
    /// Who signed.
    pub node_id: NodeId,
    /// What it says.
    pub body: B,
    /// The bytes and signature as they came.
    pub signed: SignedStatement,
}

/// A verified vote.
pub type Vote = Signed<VoteBody>;
/// A verified decision.
pub type Decision = Signed<DecisionBody>;
/// A verified abort statement.
pub type Abort = Signed<AbortBody>;
/// A verified chain observation.
pub type Observation = Signed<ObservationBody>;
/// A verified accusation.
pub type Accusation = Signed<AccusationBody>;
/// A verified boot generation.
pub type Boot = Signed<BootBody>;
/// A verified hello.
pub type Hello = Signed<HelloBody>;
/// A verified address.
pub type SignedAddress = Signed<AddressBody>;
/// A verified operator's act.
pub type OperatorAct = Signed<OperatorActBody>;

/// The canonical bytes that `node_id` signs to say `body` under `rules`.
pub fn bytes_to_sign<B: Body>(rules: &Rules, node_id: &NodeId, body: &B) -> Vec<u8> {
    let header = Header {
        cluster_id: rules.cluster_id(),
        rules_digest: rules.digest(),
        node_id: node_id.clone(),
    };
    body.to_wire(&header).encode_to_vec()
}

/// Decodes a statement's bytes, insisting that they are canonical.
///
/// # Errors
/// [`StatementError`] when they are too many, no such message, or not canonical,
/// or a field is wrong. Nothing about the signer is checked yet.
pub fn parse<B: Body>(statement: &[u8]) -> Result<(Header, B), StatementError> {
    if statement.len() > MAX_STATEMENT_LEN {
        return Err(StatementError::TooLarge(statement.len()));
    }
    // From a copy that its fields can share for a while.
    let wire = B::Wire::decode(Bytes::copy_from_slice(statement))
        .map_err(|e| StatementError::Undecodable(e.to_string()))?;
    if !is_encoded_as(&wire, statement) {
        return Err(StatementError::NotCanonical);
    }
    B::from_wire(wire)
}

/// Whether these bytes are a message's own encoding.
fn is_encoded_as(wire: &impl Message, bytes: &[u8]) -> bool {
    // Every statement but those with a large payload fits here, and nothing is allocated.
    let mut few = [0; 512];
    match few.get_mut(..bytes.len()) {
        Some(few) => {
            let mut left = &mut *few;
            wire.encode(&mut left).is_ok() && left.is_empty() && *few == *bytes
        }
        None => wire.encoded_len() == bytes.len() && wire.encode_to_vec() == bytes,
    }
}

/// Opens a statement under `rules`: parses it, finds its signer among the members,
/// and verifies the signature with the key that this kind of statement needs.
///
/// # Errors
/// [`StatementError`], the first that applies.
pub fn open<B: Body>(
    signed: &SignedStatement,
    rules: &Rules,
    verifier: &dyn Verifier,
) -> Result<Signed<B>, StatementError> {
    let (header, body) = parse::<B>(&signed.statement)?;
    open_parsed(signed, header, body, rules, verifier)
}

/// [`open`] for a statement whose `header` and `body` [`parse`] has just given.
///
/// # Errors
/// [`StatementError`], the first that applies.
pub fn open_parsed<B: Body>(
    signed: &SignedStatement,
    header: Header,
    body: B,
    rules: &Rules,
    verifier: &dyn Verifier,
) -> Result<Signed<B>, StatementError> {
    if signed.signature.len() > MAX_SIGNATURE_LEN {
        return Err(StatementError::TooLarge(signed.signature.len()));
    }
    if header.cluster_id != rules.cluster_id() {
        return Err(StatementError::WrongCluster);
    }
    if header.rules_digest != rules.digest() {
        return Err(StatementError::WrongRules {
            found: header.rules_digest,
            expected: rules.digest(),
        });
    }
    let Some(member) = rules.member(&header.node_id) else {
        return Err(StatementError::UnknownMember(header.node_id));
    };
    let key = match B::KEY {
        KeyRole::Vote => &member.vote_key,
        KeyRole::Node => &member.node_key,
    };
    if !verifier.verify(key, B::DOMAIN, &signed.statement, &signed.signature) {
        return Err(StatementError::BadSignature(header.node_id));
    }
    Ok(Signed {
        node_id: header.node_id,
        body,
        signed: signed.clone(),
    })
}

/// [`open`] for a field that may be absent.
///
/// # Errors
/// [`StatementError::Missing`], or what [`open`] says.
pub fn open_field<B: Body>(
    signed: &Option<SignedStatement>,
    rules: &Rules,
    verifier: &dyn Verifier,
) -> Result<Signed<B>, StatementError> {
    let signed = signed.as_ref().ok_or(StatementError::Missing)?;
    open(signed, rules, verifier)
}
