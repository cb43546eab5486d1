//! The test vectors for clients in other languages, with real signatures; and
//! proofs with real signatures, of which no bit may change.

use quorate_consensus::proof::{Fact, verify};
use quorate_consensus::{ClusterId, Domain, PublicKey, Rules, Verifier};
use quorate_crypto::{CachedVerifier, Ed25519Verifier, SigningKey};
use serde_json::Value as Json;

fn vectors() -> Json {
    serde_json::from_str(include_str!("../../../proto/vectors/statements.json")).unwrap()
}

fn text<'a>(json: &'a Json, name: &str) -> &'a str {
    json[name].as_str().unwrap_or_else(|| panic!("no {name}"))
}

fn bytes(json: &Json, name: &str) -> Vec<u8> {
    let digits = text(json, name);
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn array(json: &Json, name: &str) -> [u8; 32] {
    bytes(json, name).try_into().unwrap()
}

fn cluster_id(vectors: &Json) -> ClusterId {
    ClusterId(array(&vectors["rules"], "digest"))
}

/// A member's key in a role ("vote" or "node"), from its seed.
fn key(vectors: &Json, node_id: &str, role: &str) -> SigningKey {
    let keys = vectors["keys"].as_array().unwrap();
    let member = keys.iter().find(|k| text(k, "node_id") == node_id);
    let member = member.expect("a member");
    let key = SigningKey::from_seed(array(member, &format!("{role}_seed")));
    let public = PublicKey::ed25519(array(member, &format!("{role}_key")));
    assert_eq!(key.public_key(), public);
    key
}

fn domain(tag: &str) -> Domain {
    let all = [
        Domain::Vote,
        Domain::Decision,
        Domain::Abort,
        Domain::Observation,
        Domain::Accusation,
        Domain::Boot,
        Domain::Hello,
        Domain::Address,
        Domain::Act,
    ];
    let found = all.into_iter().find(|d| d.tag() == tag.as_bytes());
    found.expect("a known tag")
}

#[test]
fn every_statement_is_signed_alike() {
    let vectors = vectors();
    for vector in vectors["statements"].as_array().unwrap() {
        let name = text(vector, "name");
        let key = key(&vectors, text(vector, "signed_by"), text(vector, "key"));
        let domain = domain(text(vector, "domain_tag"));
        let statement = bytes(vector, "statement");
        let signature = bytes(vector, "signature");
        // Ed25519 leaves the signer no choice.
        assert_eq!(key.sign(domain, &statement), signature, "{name}");
        let public = key.public_key();
        assert!(
            Ed25519Verifier.verify(&public, domain, &statement, &signature),
            "{name}"
        );
    }
}

#[test]
fn the_rules_are_a_genesis() {
    let vectors = vectors();
    let document = bytes(&vectors["rules"], "document");
    let rules = Rules::genesis(&document, &Ed25519Verifier).unwrap();
    assert_eq!(rules.cluster_id(), cluster_id(&vectors));
}

/// A proof of the file, by its place.
fn proof(vectors: &Json, index: usize) -> Vec<u8> {
    bytes(&vectors["proofs"][index], "proof")
}

#[test]
fn every_proof_holds() {
    let vectors = vectors();
    let id = cluster_id(&vectors);
    let fact = |index| {
        let proof = proof(&vectors, index);
        verify(&proof, &id, Some(1), &Ed25519Verifier).unwrap().fact
    };
    assert!(matches!(fact(0), Fact::Decided { .. }));
    assert!(matches!(fact(1), Fact::Dead { .. }));
    assert!(matches!(fact(2), Fact::Lied(_)));
    assert_eq!(vectors["proofs"].as_array().unwrap().len(), 3);
}

#[test]
fn no_bit_of_a_proof_may_change() {
    let vectors = vectors();
    let id = cluster_id(&vectors);
    // What did not change need not be verified anew for each of the bits.
    let verifier = CachedVerifier::default();
    for index in 0..3 {
        let mut bytes = proof(&vectors, index);
        verify(&bytes, &id, None, &verifier).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                let passes = verify(&bytes, &id, None, &verifier).is_ok();
                assert!(!passes, "proof {index}: bit {bit} of byte {at} may change");
                bytes[at] ^= 1 << bit;
            }
        }
    }
}
