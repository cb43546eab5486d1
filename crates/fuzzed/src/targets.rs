//! Decoders, statements, rules and certificates.

use std::fmt::Debug;
use std::sync::LazyLock;

use prost::Message;
use quorate_consensus::board::subject;
use quorate_consensus::proof::{self, verify_rules};
use quorate_consensus::statement::{
    AbortBody, AccusationBody, Body, BootBody, DecisionBody, HelloBody, ObservationBody,
    OperatorActBody, VoteBody, parse,
};
use quorate_consensus::{ClusterId, Rules, rules as ruling, wire};
use quorate_testkit::{Cluster, FakeVerifier};

use crate::cluster;
use crate::resign;

/// Decodes every message that comes from outside: what was decoded survives its own
/// encoding.
pub fn decoders(bytes: &[u8]) {
    fn one<M: Message + Default + PartialEq + Debug>(bytes: &[u8]) {
        let Ok(message) = M::decode(bytes) else {
            return;
        };
        // Floating numbers are in none of our messages, so equality is exact.
        let again = M::decode(message.encode_to_vec().as_slice());
        assert_eq!(again.as_ref(), Ok(&message));
        // A log line must not be the death of a node either.
        let _ = format!("{message:?}");
    }
    let Some((which, bytes)) = bytes.split_first() else {
        return;
    };
    match which % 13 {
        0 => one::<wire::ExchangeRequest>(bytes),
        1 => one::<wire::SubmitRequest>(bytes),
        2 => one::<wire::StatusRequest>(bytes),
        3 => one::<wire::WatchRequest>(bytes),
        4 => one::<wire::ListRequest>(bytes),
        5 => one::<wire::GetCertificateRequest>(bytes),
        6 => one::<wire::BoardEntry>(bytes),
        7 => one::<wire::Proof>(bytes),
        8 => one::<wire::RulesChain>(bytes),
        9 => one::<wire::RulesDocument>(bytes),
        10 => one::<wire::SubmitResponse>(bytes),
        11 => one::<wire::SignedStatement>(bytes),
        _ => one::<wire::BoardOp>(bytes),
    }
    if let Ok(op) = wire::BoardOp::decode(bytes) {
        let _ = subject(&op);
    }
}

/// Parses statements of every kind: what is accepted says the same bytes again.
pub fn statements(bytes: &[u8]) {
    fn one<B: Body>(bytes: &[u8]) {
        if let Ok((header, body)) = parse::<B>(bytes) {
            assert_eq!(body.to_wire(&header).encode_to_vec(), bytes);
        }
    }
    let Some((which, bytes)) = bytes.split_first() else {
        return;
    };
    match which % 8 {
        0 => one::<VoteBody>(bytes),
        1 => one::<DecisionBody>(bytes),
        2 => one::<AbortBody>(bytes),
        3 => one::<ObservationBody>(bytes),
        4 => one::<AccusationBody>(bytes),
        5 => one::<BootBody>(bytes),
        6 => one::<HelloBody>(bytes),
        _ => one::<OperatorActBody>(bytes),
    }
}

/// Reads rules: a genesis by itself, and chains that claim to begin with their own
/// first document.
pub fn rules(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else {
        return;
    };
    if which % 2 == 0 {
        if let Ok(rules) = Rules::genesis(bytes, &FakeVerifier) {
            assert!(1 <= rules.threshold() && rules.threshold() <= rules.total());
            assert_eq!(rules.cluster_id().0, ruling::digest_of(bytes).0);
            let _ = rules.summary();
        }
        return;
    }
    let Ok(mut chain) = wire::RulesChain::decode(bytes) else {
        return;
    };
    resign::chain(cluster_of_seeds(), &mut chain);
    if let Some(first) = chain.links.first() {
        let id = ClusterId(ruling::digest_of(&first.document).0);
        if let Ok(all) = verify_rules(&chain, &id, &FakeVerifier) {
            assert_eq!(all.len(), chain.links.len());
        }
    }
}

/// Verifies certificates and evidence, as they come and with all signatures put right:
/// what is accepted is a proof of this cluster.
pub fn proofs(bytes: &[u8]) {
    let cluster = cluster_of_seeds();
    let id = cluster.rules().cluster_id();
    // As a stranger gets them.
    let _ = proof::verify(bytes, &id, Some(2), &FakeVerifier);
    let _ = proof::verify(bytes, &id, None, &FakeVerifier);
    let Ok(mut proof) = wire::Proof::decode(bytes) else {
        return;
    };
    resign::proof(cluster, &mut proof);
    if let Ok(verified) = proof::verify(&proof.encode_to_vec(), &id, None, &FakeVerifier) {
        assert_eq!(verified.rules.cluster_id(), id);
        if let proof::Fact::Decided { voters, .. } = verified.fact {
            assert!(voters.len() >= cluster.t(), "fewer than t have decided");
        }
    }
}

/// Made once: signatures are cheap here, and clusters are not.
pub(crate) fn cluster_of_seeds() -> &'static Cluster {
    static CLUSTER: LazyLock<Cluster> = LazyLock::new(cluster);
    &CLUSTER
}
