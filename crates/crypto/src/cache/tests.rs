use std::sync::Arc;

use super::*;
use crate::SigningKey;

fn item(seed: u8, statement: &[u8]) -> VerifyItem {
    let key = SigningKey::from_seed([seed; 32]);
    VerifyItem {
        key: key.public_key(),
        domain: Domain::Vote,
        statement: statement.to_vec(),
        signature: key.sign(Domain::Vote, statement),
    }
}

fn verify(cache: &CachedVerifier, item: &VerifyItem) -> bool {
    cache.verify(&item.key, item.domain, &item.statement, &item.signature)
}

fn digest_of(item: &VerifyItem) -> Digest {
    digest(&item.key, item.domain, &item.statement, &item.signature)
}

#[test]
fn good_signatures_are_remembered_and_bad_ones_are_not() {
    let cache = CachedVerifier::default();
    let good = item(1, b"a");
    let mut bad = good.clone();
    bad.signature[0] ^= 1;
    assert!(verify(&cache, &good) && verify(&cache, &good));
    assert!(!verify(&cache, &bad) && !verify(&cache, &bad));
    assert_eq!(cache.len(), 1);
}

#[test]
fn a_remembered_signature_is_not_checked_again() {
    let cache = CachedVerifier::default();
    let mut bad = item(1, b"a");
    bad.signature[0] ^= 1;
    // Only a look-up can call this one good.
    cache.remember(digest_of(&bad));
    assert!(verify(&cache, &bad));
    assert_eq!(cache.prewarm(vec![bad]), [true]);
}

#[test]
fn prewarming_answers_in_order_and_remembers() {
    let cache = Arc::new(CachedVerifier::default());
    let mut items: Vec<VerifyItem> = (0..20).map(|i| item(i % 5, &[i])).collect();
    items[3].statement.push(0);
    items[7].signature.clear();
    items[9] = items[8].clone();
    verify(&cache, &items[0]);
    let answers = cache.prewarm(items.clone());
    let expected: Vec<bool> = (0..20).map(|i| i != 3 && i != 7).collect();
    assert_eq!(answers, expected);
    assert_eq!(cache.len(), 17, "20 less two bad ones and one repetition");
    for (item, good) in items.iter().zip(expected) {
        assert_eq!(cache.knows(&digest_of(item)), good);
    }
}

#[test]
fn memory_is_bounded_and_what_is_used_stays() {
    let cache = CachedVerifier::new(128);
    let used = *blake3::hash(b"used").as_bytes();
    cache.remember(used);
    for i in 0..10_000_u32 {
        cache.remember(*blake3::hash(&i.to_le_bytes()).as_bytes());
        assert!(cache.knows(&used), "asked for before every {i}");
        assert!(cache.len() <= 128);
    }
    let first = *blake3::hash(&0_u32.to_le_bytes()).as_bytes();
    assert!(!cache.knows(&first), "nobody asked for it");
}

#[test]
fn the_least_capacity_still_works() {
    let cache = CachedVerifier::new(0);
    for i in 0..100 {
        assert!(verify(&cache, &item(1, &[i])));
    }
    assert!(cache.len() <= 32);
}

#[test]
fn no_part_can_pass_for_another() {
    let base = item(1, b"statement");
    let mut seen = std::collections::HashSet::from([digest_of(&base)]);
    let mut moved = base.clone();
    // The same bytes one after the other, split elsewhere.
    let last = moved.statement.pop().unwrap();
    moved.signature.insert(0, last);
    let other_domain = VerifyItem {
        domain: Domain::Abort,
        ..base.clone()
    };
    let mut other_scheme = base.clone();
    other_scheme.key.scheme = quorate_consensus::wire::SignatureScheme::Unspecified;
    let other_key = VerifyItem {
        key: item(2, b"").key,
        ..base
    };
    for item in [moved, other_domain, other_scheme, other_key] {
        assert!(seen.insert(digest_of(&item)), "{item:?}");
    }
}
