//! The bytes that are signed, for good: `proto/vectors/statements.json` was made
//! once, by another implementation, and clients in other languages test against it.
//! A change that fails here breaks every signature made before it.

use quorate_consensus::proof::{Fact, verify};
use quorate_consensus::rules::digest_of;
use quorate_consensus::statement::{
    AbortBody, AccusationBody, AddressBody, Body, BootBody, DecisionBody, HelloBody, KeyRole,
    ObservationBody, OperatorActBody, VoteBody, bytes_to_sign, parse,
};
use quorate_consensus::wire::{
    AbortReason, AccusationKind, ChainOutcome, OperatorActKind, Reservation,
};
use quorate_consensus::{Address, Choice, Domain, NodeId, PublicKey, Rules, TxId, Value, Verifier};
use quorate_testkit::{NOW, data, number, tx};
use serde_json::Value as Json;

/// Here the bytes are in question; the crypto crate's tests check the signatures.
struct AnySignature;

impl Verifier for AnySignature {
    fn verify(&self, _: &PublicKey, _: Domain, _: &[u8], signature: &[u8]) -> bool {
        signature.len() == 64
    }

    fn is_sound_key(&self, key: &PublicKey) -> bool {
        key.bytes.len() == 32
    }
}

fn vectors() -> Json {
    serde_json::from_str(include_str!("../../../proto/vectors/statements.json")).unwrap()
}

fn text<'a>(json: &'a Json, name: &str) -> &'a str {
    json[name].as_str().unwrap_or_else(|| panic!("no {name}"))
}

fn bytes(json: &Json, name: &str) -> Vec<u8> {
    let digits = text(json, name);
    assert_eq!(digits.len() % 2, 0);
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn rules() -> Rules {
    let document = bytes(&vectors()["rules"], "document");
    Rules::genesis(&document, &AnySignature).unwrap()
}

#[test]
fn the_rules_and_their_digest() {
    let vectors = vectors();
    let rules = rules();
    assert_eq!(
        text(&vectors["rules"], "domain_tag").as_bytes(),
        Domain::Rules.tag()
    );
    assert_eq!(
        rules.digest().to_string(),
        text(&vectors["rules"], "digest")
    );
    assert_eq!(rules.cluster_id().0, rules.digest().0);
    assert_eq!(digest_of(rules.document()), rules.digest());
    let keys = vectors["keys"].as_array().unwrap();
    assert_eq!(rules.total(), keys.len());
    for (member, key) in rules.members().zip(keys) {
        assert_eq!(member.node_id.as_str(), text(key, "node_id"));
        assert_eq!(*member.vote_key.bytes, bytes(key, "vote_key"));
        assert_eq!(*member.node_key.bytes, bytes(key, "node_key"));
        assert_eq!(member.peer_id.to_string(), text(key, "peer_id"));
    }
}

#[test]
fn the_payload() {
    let payload = rules().payload(&tx("tx_001"), &number(42));
    assert_eq!(hex(&payload), text(&vectors()["payload"], "payload"));
}

/// Walks the file's statements in order.
struct Walk {
    rules: Rules,
    left: std::vec::IntoIter<Json>,
}

impl Walk {
    /// The next statement must be this one, in every respect.
    fn next<B: Body + PartialEq + std::fmt::Debug>(&mut self, node_id: &str, body: &B) {
        let vector = self.left.next().expect("one more vector");
        let name = text(&vector, "name");
        assert_eq!(
            text(&vector, "domain_tag").as_bytes(),
            B::DOMAIN.tag(),
            "{name}"
        );
        let role = match text(&vector, "key") {
            "vote" => KeyRole::Vote,
            "node" => KeyRole::Node,
            other => panic!("{other}"),
        };
        assert_eq!(role, B::KEY, "{name}");
        assert_eq!(text(&vector, "signed_by"), node_id, "{name}");
        let node_id = NodeId::new(node_id).unwrap();
        let made = bytes_to_sign(&self.rules, &node_id, body);
        assert_eq!(hex(&made), text(&vector, "statement"), "{name}");
        let (header, read) = parse::<B>(&bytes(&vector, "statement")).unwrap();
        assert_eq!(header.cluster_id, self.rules.cluster_id(), "{name}");
        assert_eq!(header.rules_digest, self.rules.digest(), "{name}");
        assert_eq!(header.node_id, node_id, "{name}");
        assert_eq!(read, *body, "{name}");
    }

    fn vote(&mut self, node_id: &str, tx_id: &str, choice: impl Into<Choice>, time_ms: u64) {
        let body = VoteBody {
            tx_id: tx(tx_id),
            choice: choice.into(),
            time_ms,
        };
        self.next(node_id, &body);
    }

    fn decision(&mut self, node_id: &str, tx_id: TxId, value: Value, nonce: Option<u64>) {
        let reservation = nonce.map(|nonce| Reservation {
            account: "treasury".into(),
            nonce,
            payload: self.rules.payload(&tx_id, &value),
        });
        let body = DecisionBody {
            tx_id,
            value,
            reservation,
        };
        self.next(node_id, &body);
    }
}

fn hash(text: &str) -> [u8; 32] {
    *blake3::hash(text.as_bytes()).as_bytes()
}

#[test]
fn every_statement() {
    let Json::Array(statements) = vectors()["statements"].take() else {
        panic!("no list")
    };
    let mut walk = Walk {
        rules: rules(),
        left: statements.into_iter(),
    };

    walk.vote("alice", "tx_001", number(42), NOW);
    walk.vote("alice", "tx_001", number(0), NOW);
    walk.vote("bob", "tx_001", number(u64::MAX), NOW + 1);
    walk.vote("bob", "release:1.2.3-rc.1", data(b"1"), NOW);
    let long: Vec<u8> = (0..200).collect();
    walk.vote("bob", "tx_001", data(&long), NOW);
    walk.vote("carol", "tx_001", Choice::Abstention, NOW);
    walk.vote("carol", "tx_001", number(42), 0);

    walk.decision("alice", tx("tx_001"), number(42), Some(7));
    walk.decision("bob", tx("tx_002"), data(&[0, 0xff]), Some(1 << 40));
    let digest: Vec<u8> = (0..32).collect();
    walk.decision("carol", TxId::rules(2, 1), data(&digest), None);

    for reason in [
        AbortReason::Byzantine,
        AbortReason::Split,
        AbortReason::Timeout,
    ] {
        let tx_id = tx("tx_003");
        walk.next("alice", &AbortBody { tx_id, reason });
    }

    let confirmed = ObservationBody {
        tx_id: tx("tx_001"),
        account: "treasury".into(),
        nonce: 7,
        outcome: ChainOutcome::Confirmed,
        tx_hash: hash("tx").into(),
        block_number: 100,
        block_hash: hash("block").into(),
        round: 0,
    };
    walk.next("alice", &confirmed);
    let taken = ObservationBody {
        outcome: ChainOutcome::NonceTaken,
        tx_hash: Vec::new(),
        block_number: 0,
        block_hash: Vec::new(),
        ..confirmed
    };
    walk.next("bob", &taken);

    let forged = AccusationBody {
        accused: NodeId::new("carol").unwrap(),
        kind: AccusationKind::InvalidSignature,
        tx_id: Some(tx("tx_001")),
        subject_digest: hash("offending bytes"),
        time_ms: NOW,
    };
    walk.next("alice", &forged);
    let malformed = AccusationBody {
        kind: AccusationKind::Malformed,
        tx_id: None,
        ..forged
    };
    walk.next("bob", &malformed);

    let (generation, time_ms) = (3, NOW);
    walk.next(
        "alice",
        &BootBody {
            generation,
            time_ms,
        },
    );
    let hello = HelloBody {
        generation,
        protocol_min: 1,
        protocol_max: 2,
        own_certificate: hash("own"),
        peer_certificate: hash("peer"),
        challenge: [7; 32],
    };
    walk.next("alice", &hello);
    let address = AddressBody {
        address: Address::new("alice.example.org:9000").unwrap(),
        generation,
        time_ms,
    };
    walk.next("alice", &address);

    let mut pardoned = vec![hash("one"), hash("two")];
    pardoned.sort_unstable();
    let unban = OperatorActBody {
        kind: OperatorActKind::Unban,
        subject: "carol".into(),
        pardoned,
        time_ms,
    };
    walk.next("alice", &unban);
    let give_up = OperatorActBody {
        kind: OperatorActKind::GiveUp,
        subject: "tx_001".into(),
        pardoned: Vec::new(),
        time_ms,
    };
    walk.next("bob", &give_up);

    assert_eq!(walk.left.len(), 0, "vectors that nobody checks");
}

#[test]
fn every_proof() {
    let vectors = vectors();
    let id = rules().cluster_id();
    let mut facts = vectors["proofs"].as_array().unwrap().iter().map(|vector| {
        let proof = bytes(vector, "proof");
        verify(&proof, &id, Some(1), &AnySignature).unwrap().fact
    });
    let Some(Fact::Decided { tx_id, value, .. }) = facts.next() else {
        panic!("no certificate")
    };
    assert_eq!((tx_id, value), (tx("tx_001"), number(42)));
    let Some(Fact::Dead { tx_id, reasons }) = facts.next() else {
        panic!("no abort proof")
    };
    assert_eq!((tx_id, reasons.len()), (tx("tx_003"), 2));
    let Some(Fact::Lied(conviction)) = facts.next() else {
        panic!("no evidence")
    };
    assert_eq!(conviction.node_id.as_str(), "carol");
    assert_eq!(facts.next(), None);
}
