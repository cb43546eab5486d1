//! The generated messages write what the .proto files mean: a second, reflective
//! implementation reads and writes the same bytes, for every message there is. On
//! this rests that canonical bytes are canonical in every language.

use std::collections::BTreeSet;

use prost::Message;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value,
};
use quorate_proto::FILE_DESCRIPTOR_SET;
use quorate_wire::v1;

fn pool() -> DescriptorPool {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap()
}

type Again = fn(&[u8]) -> Vec<u8>;

fn again<M: Message + Default>(bytes: &[u8]) -> Vec<u8> {
    M::decode(bytes).unwrap().encode_to_vec()
}

macro_rules! messages {
    ($($name:ident),* $(,)?) => {
        [$((concat!("quorate.v1.", stringify!($name)), again::<v1::$name> as Again)),*]
    };
}

/// Every message with the generated code that reads and writes it.
const MESSAGES: [(&str, Again); 132] = messages![
    AbortProof,
    AbortProven,
    AbortStatement,
    Abstention,
    AccusationProof,
    AccusationRecord,
    AccusationStatement,
    Accusations,
    AccuseOp,
    Accused,
    AddressStatement,
    Addresses,
    AdvanceOp,
    Announcement,
    Ballot,
    BallotCount,
    BanOp,
    BanProof,
    BanRecord,
    BanRequest,
    BanResponse,
    Banned,
    Batch,
    BoardEntry,
    BoardEvent,
    BoardOp,
    BootOp,
    BootStatement,
    Booted,
    Certificate,
    Certified,
    CertifyOp,
    ChainTarget,
    Challenge,
    Choice,
    CollectOp,
    Collected,
    ConcludeOp,
    Concluded,
    DecisionProof,
    DecisionStatement,
    DirectAcknowledgement,
    DirectMessage,
    DoubleVote,
    DrainRequest,
    DrainResponse,
    Evidence,
    ExchangeRequest,
    ExchangeResponse,
    ExpireOp,
    Expired,
    Frame,
    GetCertificateRequest,
    GetCertificateResponse,
    GetRulesRequest,
    GetRulesResponse,
    GiveUpOp,
    GivenUp,
    Goodbye,
    Graft,
    Hello,
    HelloStatement,
    InfoRequest,
    InfoResponse,
    LeaseChanged,
    LeaseOp,
    ListRequest,
    ListResponse,
    MarkSilentOp,
    MemberRecord,
    MessageReceived,
    MinorityVote,
    Misbehaviour,
    NotReadyCause,
    ObservationStatement,
    OperatorActStatement,
    Payload,
    PeerNode,
    PeersRequest,
    PeersResponse,
    Ping,
    Pong,
    Proof,
    ProveAbortOp,
    Prune,
    Queues,
    RecordVoteOp,
    ReleaseOp,
    ReputationChanged,
    ReputationRequest,
    ReputationResponse,
    Reservation,
    ReserveOp,
    Reserved,
    Resync,
    RulesChain,
    RulesDocument,
    RulesLink,
    RulesSummary,
    SendRequest,
    SendResponse,
    SetLogLevelRequest,
    SetLogLevelResponse,
    SignedMemberRecord,
    SignedStatement,
    Silence,
    StateChanged,
    StatePassed,
    StatementRequest,
    StatusRequest,
    StatusResponse,
    StoreRecord,
    Submission,
    SubmitRequest,
    SubmitResponse,
    Tally,
    TracedVote,
    TrusteeReputation,
    TrusteeStanding,
    UnbanOp,
    UnbanRequest,
    UnbanResponse,
    Unbanned,
    Violation,
    ViolationFound,
    ViolationRecord,
    ViolationsRequest,
    ViolationsResponse,
    VoteRecorded,
    VoteStatement,
    WatchRequest,
    WatchResponse,
];

#[test]
fn every_message_is_listed() {
    let listed: BTreeSet<String> = MESSAGES.iter().map(|(name, _)| (*name).into()).collect();
    let all: BTreeSet<String> = pool()
        .all_messages()
        .map(|message| message.full_name().to_owned())
        .filter(|name| name.starts_with("quorate.v1."))
        .collect();
    assert_eq!(listed, all);
    assert_eq!(listed.len(), MESSAGES.len());
}

/// The same numbers on every run (xorshift64*).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }

    /// Numbers of every length, the ends often.
    fn number(&mut self) -> u64 {
        match self.below(6) {
            0 => 0,
            1 => u64::MAX,
            _ => self.next() >> self.below(64),
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = [0, 1, 32, 64, 200][self.below(5) as usize];
        (0..len).map(|_| self.next() as u8).collect()
    }

    fn text(&mut self) -> String {
        let words = ["", "a", "tx_001", "0", "ä€😀", "\0", "rules:2:1"];
        words[self.below(7) as usize].repeat(1 + self.below(30) as usize)
    }
}

fn one(field: &FieldDescriptor, chance: &mut Chance) -> Value {
    match field.kind() {
        Kind::Bool => Value::Bool(chance.below(2) == 1),
        Kind::Uint32 => Value::U32(chance.number() as u32),
        Kind::Uint64 => Value::U64(chance.number()),
        Kind::String => Value::String(chance.text()),
        Kind::Bytes => Value::Bytes(chance.bytes().into()),
        // Numbers that no version knows yet must survive too.
        Kind::Enum(_) => Value::EnumNumber([0, 1, 2, 77, -1][chance.below(5) as usize]),
        Kind::Message(message) => Value::Message(random(&message, chance)),
        other => panic!(
            "{} has a kind that this test does not make: {other:?}",
            field.full_name()
        ),
    }
}

fn random(message: &MessageDescriptor, chance: &mut Chance) -> DynamicMessage {
    let mut made = DynamicMessage::new(message.clone());
    for field in message.fields() {
        if chance.below(4) == 0 {
            continue;
        }
        let value = if field.cardinality() == Cardinality::Repeated {
            assert!(
                field.is_list(),
                "{} is a map, whose order is not fixed",
                field.full_name()
            );
            Value::List((0..chance.below(4)).map(|_| one(&field, chance)).collect())
        } else {
            one(&field, chance)
        };
        // Of the fields of a oneof the last one set remains.
        made.set_field(&field, value);
    }
    made
}

#[test]
fn both_implementations_write_the_same_bytes() {
    let pool = pool();
    for (name, again) in MESSAGES {
        let message = pool.get_message_by_name(name).unwrap();
        let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
        let mut sizes = BTreeSet::new();
        for _ in 0..200 {
            let made = random(&message, &mut chance);
            let bytes = made.encode_to_vec();
            assert!(again(&bytes) == bytes, "{name}: {made}");
            let read = DynamicMessage::decode(message.clone(), &*bytes).unwrap();
            assert!(read.encode_to_vec() == bytes, "{name}: {made}");
            sizes.insert(bytes.len());
        }
        let empty = message.fields().len() == 0;
        assert_eq!(sizes.len() == 1, empty, "{name} is always alike");
    }
}

#[test]
fn fields_are_numbered_from_one_without_a_map() {
    // A map's order, floating point numbers and groups have no canonical form; the
    // statements' bytes must have one.
    for message in pool()
        .all_messages()
        .filter(|m| m.full_name().starts_with("quorate.v1."))
    {
        for field in message.fields() {
            assert!(
                !field.is_map() && !field.is_group(),
                "{}",
                field.full_name()
            );
            let real = matches!(field.kind(), Kind::Float | Kind::Double);
            assert!(!real, "{}", field.full_name());
        }
    }
}

mod vectors {
    use serde_json::Value as Json;

    use super::*;

    fn vectors() -> Json {
        serde_json::from_str(include_str!("../../../proto/vectors/statements.json")).unwrap()
    }

    fn text<'a>(json: &'a Json, name: &str) -> &'a str {
        json[name].as_str().unwrap_or_else(|| panic!("no {name}"))
    }

    /// The bytes of a message given in protobuf's JSON mapping, as hexadecimal.
    fn written(message: &str, fields: &Json) -> String {
        let message = pool().get_message_by_name(message).unwrap();
        let made = DynamicMessage::deserialize(message, fields.clone()).unwrap();
        let bytes = made.encode_to_vec();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn fields_and_bytes_of_every_statement_agree() {
        let vectors = vectors();
        let statements = vectors["statements"].as_array().unwrap();
        let mut kinds = BTreeSet::new();
        for vector in statements {
            let message = text(vector, "message");
            let bytes = written(message, &vector["fields"]);
            assert_eq!(bytes, text(vector, "statement"), "{}", text(vector, "name"));
            kinds.insert(message.to_owned());
        }
        let all: BTreeSet<String> = MESSAGES
            .iter()
            .filter(|(name, _)| name.ends_with("Statement") && !name.ends_with("SignedStatement"))
            .map(|(name, _)| (*name).into())
            .collect();
        assert_eq!(kinds, all, "every kind of statement has a vector");
    }

    #[test]
    fn fields_and_bytes_of_the_rules_agree() {
        let vectors = vectors();
        let rules = &vectors["rules"];
        let bytes = written(text(rules, "message"), &rules["message_fields"]);
        assert_eq!(bytes, text(rules, "document"));
    }
}
