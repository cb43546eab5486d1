//! A statement's bytes have one form: whatever parses is what it encodes to.

use std::fmt::Debug;

use proptest::prelude::*;
use prost::Message;
use quorate_consensus::statement::{
    AbortBody, AccusationBody, AddressBody, Body, BootBody, DecisionBody, Header, HelloBody,
    MAX_STATEMENT_LEN, ObservationBody, OperatorActBody, StatementError, VoteBody, parse,
};
use quorate_consensus::wire::{
    AbortReason, AccusationKind, ChainOutcome, OperatorActKind, Reservation,
};
use quorate_consensus::{Address, Choice, ClusterId, NodeId, RulesDigest, TxId, Value};
use quorate_testkit::{data, number, tx};

type Again = fn(&[u8]) -> Result<Vec<u8>, StatementError>;

/// Parses and encodes again.
fn again<B: Body>(bytes: &[u8]) -> Result<Vec<u8>, StatementError> {
    let (header, body) = parse::<B>(bytes)?;
    Ok(body.to_wire(&header).encode_to_vec())
}

/// Every kind of statement with its reader.
const READERS: [(&str, Again); 9] = [
    ("vote", again::<VoteBody>),
    ("decision", again::<DecisionBody>),
    ("abort", again::<AbortBody>),
    ("observation", again::<ObservationBody>),
    ("accusation", again::<AccusationBody>),
    ("boot", again::<BootBody>),
    ("hello", again::<HelloBody>),
    ("act", again::<OperatorActBody>),
    ("address", again::<AddressBody>),
];

fn digest() -> impl Strategy<Value = [u8; 32]> {
    any::<[u8; 32]>()
}

fn node_id() -> impl Strategy<Value = NodeId> {
    "[a-z0-9_-]{1,63}".prop_map(|text| NodeId::new(&text).unwrap())
}

fn tx_id() -> impl Strategy<Value = TxId> {
    "[A-Za-z0-9._:-]{1,128}".prop_map(|text| TxId::new(&text).unwrap())
}

/// Numbers of every length, the ends included.
fn amount() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(u64::MAX), any::<u64>(), 0..1000u64]
}

fn value() -> impl Strategy<Value = Value> {
    let bytes = prop::collection::vec(any::<u8>(), 1..=1024);
    prop_oneof![
        amount().prop_map(number),
        bytes.prop_map(|bytes| data(&bytes)),
    ]
}

fn choice() -> impl Strategy<Value = Choice> {
    prop_oneof![4 => value().prop_map(Choice::Value), 1 => Just(Choice::Abstention)]
}

fn header() -> impl Strategy<Value = Header> {
    (digest(), digest(), node_id()).prop_map(|(cluster, rules, node_id)| Header {
        cluster_id: ClusterId(cluster),
        rules_digest: RulesDigest(rules),
        node_id,
    })
}

fn vote() -> impl Strategy<Value = VoteBody> {
    (tx_id(), choice(), amount()).prop_map(|(tx_id, choice, time_ms)| VoteBody {
        tx_id,
        choice,
        time_ms,
    })
}

fn decision() -> impl Strategy<Value = DecisionBody> {
    let payload = prop::collection::vec(any::<u8>(), 0..1500);
    let reservation =
        (".{0,40}", amount(), payload).prop_map(|(account, nonce, payload)| Reservation {
            account,
            nonce,
            payload,
        });
    let reservation = prop::option::of(reservation);
    (tx_id(), value(), reservation).prop_map(|(tx_id, value, reservation)| DecisionBody {
        tx_id,
        value,
        reservation,
    })
}

fn abort() -> impl Strategy<Value = AbortBody> {
    use AbortReason::{Byzantine, Split, Timeout};
    let reason = prop::sample::select(vec![Byzantine, Split, Timeout]);
    (tx_id(), reason).prop_map(|(tx_id, reason)| AbortBody { tx_id, reason })
}

fn observation() -> impl Strategy<Value = ObservationBody> {
    use ChainOutcome::{Cancelled, Confirmed, NonceTaken, Reverted, Undone};
    let outcome = vec![Confirmed, Reverted, Cancelled, Undone, NonceTaken];
    let hash = || prop::collection::vec(any::<u8>(), 0..=64);
    let place = (amount(), hash(), hash(), any::<u32>());
    let what = (tx_id(), ".{0,40}", amount(), prop::sample::select(outcome));
    (what, place).prop_map(
        |((tx_id, account, nonce, outcome), place)| ObservationBody {
            tx_id,
            account,
            nonce,
            outcome,
            block_number: place.0,
            tx_hash: place.1,
            block_hash: place.2,
            round: place.3,
        },
    )
}

fn accusation() -> impl Strategy<Value = AccusationBody> {
    use AccusationKind::{InvalidSignature, Malformed, Operator};
    let kind = prop::sample::select(vec![InvalidSignature, Malformed, Operator]);
    let tx_id = prop::option::of(tx_id());
    (node_id(), kind, tx_id, digest(), amount()).prop_map(
        |(accused, kind, tx_id, subject_digest, time_ms)| AccusationBody {
            accused,
            kind,
            tx_id,
            subject_digest,
            time_ms,
        },
    )
}

fn boot() -> impl Strategy<Value = BootBody> {
    (1..=u64::MAX, amount()).prop_map(|(generation, time_ms)| BootBody {
        generation,
        time_ms,
    })
}

fn hello() -> impl Strategy<Value = HelloBody> {
    let versions = (any::<u32>(), any::<u32>());
    (amount(), versions, digest(), digest(), digest()).prop_map(
        |(generation, (a, b), own_certificate, peer_certificate, challenge)| HelloBody {
            generation,
            protocol_min: a.min(b),
            protocol_max: a.max(b),
            own_certificate,
            peer_certificate,
            challenge,
        },
    )
}

fn act() -> impl Strategy<Value = OperatorActBody> {
    use OperatorActKind::{GiveUp, Unban};
    let kind = prop::sample::select(vec![Unban, GiveUp]);
    let pardoned = prop::collection::btree_set(digest(), 0..5);
    (kind, ".{0,40}", pardoned, amount()).prop_map(|(kind, subject, pardoned, time_ms)| {
        OperatorActBody {
            kind,
            subject,
            pardoned: pardoned.into_iter().collect(),
            time_ms,
        }
    })
}

fn address() -> impl Strategy<Value = AddressBody> {
    let host = prop_oneof!["[A-Za-z0-9._-]{1,253}", Just("[2001:db8::1]".to_owned())];
    (host, 1..=u16::MAX, 1..=u64::MAX, amount()).prop_map(|(host, port, generation, time_ms)| {
        AddressBody {
            address: Address::new(&format!("{host}:{port}")).unwrap(),
            generation,
            time_ms,
        }
    })
}

fn bytes_of<B: Body + Debug>(body: impl Strategy<Value = B>) -> impl Strategy<Value = Vec<u8>> {
    (header(), body).prop_map(|(header, body)| body.to_wire(&header).encode_to_vec())
}

/// Good bytes of any kind, with the index of the kind's reader.
fn good() -> impl Strategy<Value = (usize, Vec<u8>)> {
    let of = |index: usize| move |bytes| (index, bytes);
    prop_oneof![
        bytes_of(vote()).prop_map(of(0)),
        bytes_of(decision()).prop_map(of(1)),
        bytes_of(abort()).prop_map(of(2)),
        bytes_of(observation()).prop_map(of(3)),
        bytes_of(accusation()).prop_map(of(4)),
        bytes_of(boot()).prop_map(of(5)),
        bytes_of(hello()).prop_map(of(6)),
        bytes_of(act()).prop_map(of(7)),
        bytes_of(address()).prop_map(of(8)),
    ]
}

fn round_trip<B: Body + PartialEq + Debug>(header: &Header, body: &B) -> Result<(), TestCaseError> {
    let bytes = body.to_wire(header).encode_to_vec();
    let (header_again, body_again) = parse::<B>(&bytes).unwrap();
    prop_assert_eq!(&header_again, header);
    prop_assert_eq!(&body_again, body);
    Ok(())
}

/// Whatever a reader accepts must be what it would write.
fn only_canonical(bytes: &[u8]) -> Result<(), TestCaseError> {
    for (name, again) in READERS {
        if let Ok(encoded) = again(bytes) {
            prop_assert_eq!(&encoded[..], bytes, "as {}", name);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_kind_survives(
        header in header(),
        bodies in (vote(), decision(), abort(), observation()),
        others in (accusation(), boot(), hello(), act(), address()),
    ) {
        round_trip(&header, &bodies.0)?;
        round_trip(&header, &bodies.1)?;
        round_trip(&header, &bodies.2)?;
        round_trip(&header, &bodies.3)?;
        round_trip(&header, &others.0)?;
        round_trip(&header, &others.1)?;
        round_trip(&header, &others.2)?;
        round_trip(&header, &others.3)?;
        round_trip(&header, &others.4)?;
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        only_canonical(&bytes)?;
    }

    #[test]
    fn mended_bytes_are_canonical_or_refused(
        (_, mut bytes) in good(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..4),
    ) {
        for (at, byte, how) in changes {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => {}
            }
        }
        only_canonical(&bytes)?;
    }

    #[test]
    fn fields_unknown_repeated_or_out_of_order((kind, bytes) in good(), key in 12..5_000u32) {
        let (name, again) = READERS[kind];
        let fields = fields(&bytes);
        for unknown in [field(key, Wire::Varint(5)), field(key, Wire::Len(b"x")), field(key, Wire::Len(b""))] {
            // At the end, where order is kept, and at the beginning.
            prop_assert_eq!(again(&[&bytes[..], &unknown].concat()), Err(StatementError::NotCanonical));
            prop_assert_eq!(again(&[&unknown[..], &bytes].concat()), Err(StatementError::NotCanonical));
        }
        for i in 0..fields.len() {
            let mut twice = fields.clone();
            twice.insert(i, fields[i].clone());
            // Only an act has a repeated field, which must ascend.
            prop_assert!(again(&twice.concat()).is_err(), "{} with field {} twice", name, i);
            let mut late = fields.clone();
            late.push(fields[i].clone());
            prop_assert!(again(&late.concat()).is_err(), "{} with field {} again", name, i);
        }
        for (i, pair) in fields.windows(2).enumerate() {
            let mut swapped = fields.clone();
            swapped.swap(i, i + 1);
            let result = again(&swapped.concat());
            if number_of(&pair[0]) == number_of(&pair[1]) {
                prop_assert!(result.is_err());
            } else {
                prop_assert_eq!(result, Err(StatementError::NotCanonical), "{} {}", name, i);
            }
        }
    }

    #[test]
    fn explicit_default_values((kind, bytes) in good()) {
        let (name, again) = READERS[kind];
        let fields = fields(&bytes);
        // Those that are messages or repeated, and so may be there and empty.
        let present: &[u32] = [&[5][..], &[5, 6], &[], &[], &[], &[], &[], &[6], &[]][kind];
        for i in 0..fields.len() {
            let number = number_of(&fields[i]);
            if present.contains(&number) {
                continue;
            }
            let default = match fields[i][0] & 7 {
                0 => field(number, Wire::Varint(0)),
                _ => field(number, Wire::Len(b"")),
            };
            let mut explicit = fields.clone();
            explicit[i] = default;
            let result = again(&explicit.concat());
            prop_assert_eq!(result, Err(StatementError::NotCanonical), "{} field {}", name, number);
        }
    }

    #[test]
    fn numbers_written_longer_than_needed((kind, bytes) in good()) {
        let (name, again) = READERS[kind];
        let fields = fields(&bytes);
        for i in 0..fields.len() {
            // The key, and then the length or the number after it, one byte longer.
            for start in [0, 1] {
                let mut longer = fields.clone();
                let end = start + varint_len(&fields[i][start..]);
                longer[i][end - 1] |= 0x80;
                longer[i].insert(end, 0);
                let result = again(&longer.concat());
                prop_assert!(result.is_err(), "{} field {} from {}", name, i, start);
            }
        }
    }
}

enum Wire<'a> {
    Varint(u64),
    Len(&'a [u8]),
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn varint_len(bytes: &[u8]) -> usize {
    1 + bytes.iter().position(|byte| byte & 0x80 == 0).unwrap()
}

fn read_varint(bytes: &[u8]) -> u64 {
    let number = bytes[..varint_len(bytes)].iter().rev();
    number.fold(0, |number, byte| number << 7 | u64::from(byte & 0x7f))
}

/// One field as it stands on the wire.
fn field(number: u32, content: Wire<'_>) -> Vec<u8> {
    let key = |wire_type| varint(u64::from(number) << 3 | wire_type);
    match content {
        Wire::Varint(value) => [key(0), varint(value)].concat(),
        Wire::Len(bytes) => [key(2), varint(bytes.len() as u64), bytes.to_vec()].concat(),
    }
}

fn number_of(field: &[u8]) -> u32 {
    (read_varint(field) >> 3) as u32
}

/// Splits a message into its fields.
fn fields(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint_len(bytes);
        let second = varint_len(&bytes[key..]);
        let len = match bytes[0] & 7 {
            0 => key + second,
            2 => key + second + read_varint(&bytes[key..]) as usize,
            other => panic!("no statement has wire type {other}"),
        };
        fields.push(bytes[..len].to_vec());
        bytes = &bytes[len..];
    }
    fields
}

/// A vote with this choice, raw, and this time, raw.
fn raw_vote(choice: &[u8], time: &[u8]) -> Result<Vec<u8>, StatementError> {
    let bytes = [
        field(1, Wire::Len(&[1; 32])),
        field(2, Wire::Len(&[2; 32])),
        field(3, Wire::Len(b"a")),
        field(4, Wire::Len(b"node1")),
        field(5, Wire::Len(choice)),
        time.to_vec(),
    ];
    again::<VoteBody>(&bytes.concat())
}

#[test]
fn inside_of_a_choice_too() {
    let one = field(1, Wire::Varint(1));
    let time = field(6, Wire::Varint(1));
    raw_vote(&one, &time).unwrap();
    raw_vote(&field(1, Wire::Varint(0)), &time).unwrap();
    raw_vote(&field(3, Wire::Len(b"")), &time).unwrap();
    for wrong in [
        [&one[..], &one].concat(),
        [&one[..], &field(1, Wire::Varint(2))].concat(),
        [&one[..], &field(2, Wire::Len(b"1"))].concat(),
        [&field(2, Wire::Len(b"1"))[..], &one].concat(),
        [&one[..], &field(3, Wire::Len(b""))].concat(),
        [&one[..], &field(4, Wire::Varint(1))].concat(),
        [&one[..], &field(4, Wire::Len(b""))].concat(),
        field(3, Wire::Len(b"\x08\x01")),
        field(3, Wire::Len(&one)),
        vec![8, 0x81, 0],
    ] {
        let result = raw_vote(&wrong, &time);
        assert_eq!(result, Err(StatementError::NotCanonical), "{wrong:?}");
    }
    for wrong in [
        vec![],
        field(2, Wire::Len(b"")),
        field(2, Wire::Len(&[0; 1025])),
    ] {
        let result = raw_vote(&wrong, &time);
        assert!(
            matches!(
                result,
                Err(StatementError::Field {
                    field: "choice",
                    ..
                })
            ),
            "{result:?}"
        );
    }
}

#[test]
fn inside_of_a_reservation_too() {
    let with = |reservation: &[u8]| {
        let bytes = [
            field(1, Wire::Len(&[1; 32])),
            field(2, Wire::Len(&[2; 32])),
            field(3, Wire::Len(b"a")),
            field(4, Wire::Len(b"node1")),
            field(5, Wire::Len(&field(1, Wire::Varint(1)))),
            field(6, Wire::Len(reservation)),
        ];
        again::<DecisionBody>(&bytes.concat())
    };
    let (account, nonce) = (field(1, Wire::Len(b"x")), field(2, Wire::Varint(7)));
    with(&[&account[..], &nonce].concat()).unwrap();
    for wrong in [
        [&nonce[..], &account].concat(),
        [&account[..], &nonce, &nonce].concat(),
        [&account[..], &nonce, &field(4, Wire::Varint(0))].concat(),
        [&account[..], &field(2, Wire::Varint(0))].concat(),
        [&field(1, Wire::Len(b""))[..], &nonce].concat(),
    ] {
        assert_eq!(with(&wrong), Err(StatementError::NotCanonical), "{wrong:?}");
    }
}

#[test]
fn other_wire_types_and_numbers_out_of_range() {
    let one = field(1, Wire::Varint(1));
    // As fixed 64 bits, as bytes, as a group, too long for 64 bits, cut short.
    for wrong in [
        &[6 << 3 | 1, 1, 0, 0, 0, 0, 0, 0, 0][..],
        &[6 << 3 | 2, 1, 1],
        &[6 << 3 | 3, 6 << 3 | 4],
        &[
            6 << 3,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            2,
        ],
        &[
            6 << 3,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0x81,
            0,
        ],
        &[6 << 3, 0x80],
        &[6 << 3],
        &[7 << 3 | 3, 7 << 3 | 4],
        &[0, 1],
    ] {
        raw_vote(&one, wrong).unwrap_err();
    }
}

#[test]
fn a_version_that_does_not_fit_into_32_bits() {
    let hello = |min: u64| {
        let mut bytes = [
            field(1, Wire::Len(&[1; 32])),
            field(2, Wire::Len(&[2; 32])),
            field(3, Wire::Len(b"node1")),
            field(4, Wire::Varint(1)),
            field(5, Wire::Varint(min)),
            field(6, Wire::Varint(u64::from(u32::MAX))),
        ]
        .concat();
        for number in 7..=9 {
            bytes.extend(field(number, Wire::Len(&[number as u8; 32])));
        }
        again::<HelloBody>(&bytes)
    };
    hello(1).unwrap();
    assert_eq!(hello((1 << 32) + 1), Err(StatementError::NotCanonical));
}

#[test]
fn text_that_is_not_utf8() {
    let bytes = [
        field(1, Wire::Len(&[1; 32])),
        field(2, Wire::Len(&[2; 32])),
        field(3, Wire::Len(b"\xff\xfe")),
        field(4, Wire::Len(b"node1")),
        field(5, Wire::Varint(1)),
    ];
    let result = again::<AbortBody>(&bytes.concat());
    assert!(
        matches!(result, Err(StatementError::Undecodable(_))),
        "{result:?}"
    );
}

#[test]
fn too_many_bytes() {
    for (name, again) in READERS {
        let result = again(&vec![0; MAX_STATEMENT_LEN + 1]);
        assert_eq!(
            result,
            Err(StatementError::TooLarge(MAX_STATEMENT_LEN + 1)),
            "{name}"
        );
        again(&vec![0; MAX_STATEMENT_LEN]).unwrap_err();
        again(&[]).unwrap_err();
    }
}

#[test]
fn the_largest_decision_fits() {
    // A value of 1 KiB, in its payload too, and the longest names.
    let body = DecisionBody {
        tx_id: tx(&"t".repeat(128)),
        value: data(&[0xff; 1024]),
        reservation: Some(Reservation {
            account: "a".repeat(128),
            nonce: u64::MAX,
            payload: vec![0xff; 2048],
        }),
    };
    let header = Header {
        cluster_id: ClusterId([1; 32]),
        rules_digest: RulesDigest([2; 32]),
        node_id: NodeId::new(&"n".repeat(63)).unwrap(),
    };
    let bytes = body.to_wire(&header).encode_to_vec();
    assert!(bytes.len() < MAX_STATEMENT_LEN);
    parse::<DecisionBody>(&bytes).unwrap();
}
