use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use proptest::prelude::*;
use sha2::{Digest, Sha512};

use super::*;
use crate::SigningKey;

/// A signature by the book, except for the small-order points added to the key and
/// to R: ZIP-215 accepts it, verification without the cofactor mostly does not.
fn torsioned(secret: u64, key_torsion: usize, r_torsion: usize, statement: &[u8]) -> VerifyItem {
    let a = Scalar::from(secret);
    let r = Scalar::from(secret.wrapping_mul(7) ^ 0x5151);
    let key = (ED25519_BASEPOINT_POINT * a + EIGHT_TORSION[key_torsion]).compress();
    let big_r = (ED25519_BASEPOINT_POINT * r + EIGHT_TORSION[r_torsion]).compress();
    let message = [Domain::Vote.tag(), statement].concat();
    let k = challenge(&big_r, &key, &message);
    let s = r + k * a;
    item(key.to_bytes(), big_r, s, statement)
}

fn challenge(r: &CompressedEdwardsY, key: &CompressedEdwardsY, message: &[u8]) -> Scalar {
    let mut hash = Sha512::new();
    for part in [r.as_bytes().as_slice(), key.as_bytes(), message] {
        hash.update(part);
    }
    Scalar::from_bytes_mod_order_wide(&hash.finalize().into())
}

fn item(key: [u8; 32], r: CompressedEdwardsY, s: Scalar, statement: &[u8]) -> VerifyItem {
    VerifyItem {
        key: PublicKey::ed25519(key),
        domain: Domain::Vote,
        statement: statement.to_vec(),
        signature: [r.to_bytes(), s.to_bytes()].concat(),
    }
}

fn honest(seed: u8, statement: &[u8]) -> VerifyItem {
    let key = SigningKey::from_seed([seed; 32]);
    VerifyItem {
        key: key.public_key(),
        domain: Domain::Vote,
        statement: statement.to_vec(),
        signature: key.sign(Domain::Vote, statement),
    }
}

fn single(item: &VerifyItem) -> bool {
    Ed25519Verifier.verify(&item.key, item.domain, &item.statement, &item.signature)
}

/// All encodings, canonical or not, that decode to a point of small order.
fn small_order_encodings() -> Vec<[u8; 32]> {
    let mut found = Vec::new();
    let mut candidates: Vec<[u8; 32]> = EIGHT_TORSION
        .iter()
        .map(|p| p.compress().to_bytes())
        .collect();
    // y + p for the y below 19, which 255 bits have room for.
    for low in 0xed..=0xff_u8 {
        let mut bytes = [0xff; 32];
        bytes[0] = low;
        bytes[31] = 0x7f;
        candidates.push(bytes);
    }
    for mut bytes in candidates {
        for sign in [0, 0x80] {
            bytes[31] = bytes[31] & 0x7f | sign;
            let point = CompressedEdwardsY(bytes).decompress();
            if point.is_some_and(|p| p.is_small_order()) && !found.contains(&bytes) {
                found.push(bytes);
            }
        }
    }
    found
}

#[test]
fn honest_signatures_verify_for_their_purpose_only() {
    let good = honest(1, b"statement");
    assert!(single(&good));
    let otherwise = [
        VerifyItem {
            domain: Domain::Decision,
            ..good.clone()
        },
        VerifyItem {
            statement: b"another".to_vec(),
            ..good.clone()
        },
        VerifyItem {
            key: SigningKey::from_seed([2; 32]).public_key(),
            ..good.clone()
        },
        VerifyItem {
            signature: good.signature[..63].to_vec(),
            ..good.clone()
        },
        VerifyItem {
            signature: [&*good.signature, &[0]].concat(),
            ..good.clone()
        },
        VerifyItem {
            key: PublicKey {
                scheme: SignatureScheme::Unspecified,
                ..good.key.clone()
            },
            ..good.clone()
        },
        VerifyItem {
            key: PublicKey {
                bytes: good.key.bytes[..31].into(),
                ..good.key.clone()
            },
            ..good.clone()
        },
    ];
    for bad in otherwise {
        assert!(!single(&bad), "{bad:?}");
    }
}

#[test]
fn a_scalar_beyond_the_group_order_is_refused() {
    // s + l: the same scalar, written otherwise.
    let order: [u8; 32] = {
        let mut bytes = (-Scalar::ONE).to_bytes();
        bytes[0] += 1;
        bytes
    };
    let mut bad = honest(3, b"malleable");
    let mut carry = 0;
    for (byte, l) in bad.signature[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(l) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    assert!(!single(&bad));
    assert_eq!(verify_batch(&vec![bad; 5]), vec![false; 5]);
}

#[test]
fn every_signature_of_small_order_points_verifies_as_zip_215_says() {
    let points = small_order_encodings();
    assert_eq!(points.len(), 14, "8 points, 6 further encodings");
    let items: Vec<VerifyItem> = points
        .iter()
        .flat_map(|key| {
            points
                .iter()
                .map(|r| item(*key, CompressedEdwardsY(*r), Scalar::ZERO, b"Zcash"))
        })
        .collect();
    assert!(items.iter().all(single));
    assert_eq!(verify_batch(&items), vec![true; items.len()]);
}

#[test]
fn keys_with_a_small_order_part_or_a_second_encoding_are_not_sound() {
    let sound = |bytes| Ed25519Verifier.is_sound_key(&PublicKey::ed25519(bytes));
    for seed in 0..20 {
        let key = SigningKey::from_seed([seed; 32]).public_key();
        assert!(Ed25519Verifier.is_sound_key(&key));
    }
    for bytes in small_order_encodings() {
        assert!(!sound(bytes), "{bytes:02x?}");
    }
    for torsion in EIGHT_TORSION.iter().skip(1) {
        let mixed: EdwardsPoint = ED25519_BASEPOINT_POINT + torsion;
        assert!(!sound(mixed.compress().to_bytes()));
    }
    let no_point = (0..=255)
        .map(|b| [b; 32])
        .find(|bytes| CompressedEdwardsY(*bytes).decompress().is_none());
    assert!(!sound(no_point.unwrap()));
    let good = SigningKey::from_seed([1; 32]).public_key();
    for key in [
        PublicKey {
            bytes: good.bytes[..31].into(),
            ..good.clone()
        },
        PublicKey {
            scheme: SignatureScheme::Unspecified,
            ..good
        },
    ] {
        assert!(!Ed25519Verifier.is_sound_key(&key));
    }
}

#[test]
fn an_empty_batch_has_no_answers() {
    assert!(verify_batch(&[]).is_empty());
}

/// How an item of the property test is made.
#[derive(Clone, Debug)]
enum Craft {
    Honest(u8),
    Torsioned(u64, usize, usize),
    SmallOrder(usize, usize),
    WrongScalar(u64),
    FlippedBit(u8, usize),
    OtherScheme(u8),
    NoSignature(u8),
}

fn crafts() -> impl Strategy<Value = Craft> {
    prop_oneof![
        4 => (0..6_u8).prop_map(Craft::Honest),
        3 => (1..5_u64, 0..8_usize, 0..8_usize).prop_map(|(s, a, r)| Craft::Torsioned(s, a, r)),
        1 => (0..14_usize, 0..14_usize).prop_map(|(a, r)| Craft::SmallOrder(a, r)),
        1 => (1..5_u64).prop_map(Craft::WrongScalar),
        1 => (0..6_u8, 0..512_usize).prop_map(|(s, bit)| Craft::FlippedBit(s, bit)),
        1 => (0..6_u8).prop_map(Craft::OtherScheme),
        1 => (0..6_u8).prop_map(Craft::NoSignature),
    ]
}

/// The item, and whether ZIP-215 accepts it; a flipped bit never leaves it valid.
fn craft(how: &Craft, points: &[[u8; 32]]) -> (VerifyItem, bool) {
    match *how {
        Craft::Honest(seed) => (honest(seed, b"m"), true),
        Craft::Torsioned(secret, a, r) => (torsioned(secret, a, r, b"m"), true),
        Craft::SmallOrder(a, r) => {
            let r = CompressedEdwardsY(points[r]);
            (item(points[a], r, Scalar::ZERO, b"m"), true)
        }
        Craft::WrongScalar(secret) => {
            let mut wrong = torsioned(secret, 0, 0, b"m");
            wrong.statement = b"another".to_vec();
            (wrong, false)
        }
        Craft::FlippedBit(seed, bit) => {
            let mut wrong = honest(seed, b"m");
            wrong.signature[bit / 8] ^= 1 << (bit % 8);
            (wrong, false)
        }
        Craft::OtherScheme(seed) => {
            let mut wrong = honest(seed, b"m");
            wrong.key.scheme = SignatureScheme::Unspecified;
            (wrong, false)
        }
        Craft::NoSignature(seed) => {
            let mut wrong = honest(seed, b"m");
            wrong.signature.clear();
            (wrong, false)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn batch_and_single_agree_on_crafted_signatures(how in prop::collection::vec(crafts(), 0..24)) {
        let points = small_order_encodings();
        let (items, expected): (Vec<_>, Vec<_>) =
            how.iter().map(|how| craft(how, &points)).unzip();
        let singles: Vec<bool> = items.iter().map(single).collect();
        prop_assert_eq!(&singles, &expected);
        prop_assert_eq!(verify_batch(&items), singles);
    }
}

#[test]
fn bad_items_are_found_among_good_ones() {
    let points = small_order_encodings();
    let hows: Vec<Craft> = (0..64)
        .map(|i| match i % 16 {
            5 => Craft::WrongScalar(2),
            11 => Craft::NoSignature(1),
            _ => Craft::Honest(i as u8 % 5),
        })
        .collect();
    let (items, expected): (Vec<_>, Vec<_>) = hows.iter().map(|h| craft(h, &points)).unzip();
    assert_eq!(verify_batch(&items), expected);
}
