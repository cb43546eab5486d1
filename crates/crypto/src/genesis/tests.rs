use quorate_consensus::NodeId;

use super::*;
use crate::{SigningKey, make_member_record, write_member};

fn record(seed: u8, cluster: &str) -> SignedMemberRecord {
    let node_id = NodeId::new(&format!("node{seed}")).unwrap();
    let (vote, own) = (
        SigningKey::from_seed([seed; 32]),
        SigningKey::from_seed([seed + 100; 32]),
    );
    make_member_record(cluster, &node_id, &vote, &own).unwrap()
}

fn records(seeds: impl IntoIterator<Item = u8>) -> Vec<SignedMemberRecord> {
    seeds.into_iter().map(|seed| record(seed, "demo")).collect()
}

#[test]
fn the_order_of_the_records_does_not_matter() {
    let params = GenesisParams::new("demo", 4);
    let forward = make_genesis(&params, records(1..=5)).unwrap();
    let backward = make_genesis(&params, records((1..=5).rev())).unwrap();
    assert_eq!(forward, backward);
    let rules = Rules::genesis(&forward, &Ed25519Verifier).unwrap();
    assert_eq!((rules.total(), rules.threshold()), (5, 4));
    let ids: Vec<_> = rules.members().map(|m| m.node_id.to_string()).collect();
    assert_eq!(ids, ["node1", "node2", "node3", "node4", "node5"]);
}

/// Keys, signatures and encoding are deterministic, so the same seeds must give the
/// same cluster for ever.
#[test]
fn the_cluster_id_of_known_seeds_does_not_change() {
    let document = make_genesis(&GenesisParams::new("demo", 4), records(1..=5)).unwrap();
    let rules = Rules::genesis(&document, &Ed25519Verifier).unwrap();
    assert_eq!(
        rules.cluster_id().to_string(),
        "585c239875430334834de2a9e9e03e5f3b346686370bcfb9178c8aff3c5da2cc"
    );
}

#[test]
fn unacceptable_members_and_parameters_are_refused() {
    let good = GenesisParams::new("demo", 4);
    let refuse = |params: &GenesisParams, members| make_genesis(params, members).unwrap_err();
    for threshold in [0, 6] {
        let params = GenesisParams {
            threshold,
            ..good.clone()
        };
        assert!(
            refuse(&params, records(1..=5))
                .to_string()
                .starts_with("threshold")
        );
    }
    assert!(refuse(&good, Vec::new()).to_string().starts_with("members"));
    let twice = records([1, 2, 3, 3, 4]);
    assert!(
        refuse(&good, twice)
            .to_string()
            .contains("without repetition")
    );
    let mut foreign = records(1..=4);
    foreign.push(record(5, "other"));
    assert!(refuse(&good, foreign).to_string().contains("cluster"));
    let node6 = NodeId::new("node6").unwrap();
    let (stolen, own) = (
        SigningKey::from_seed([1; 32]),
        SigningKey::from_seed([77; 32]),
    );
    let mut shared = records(1..=5);
    shared.push(make_member_record("demo", &node6, &stolen, &own).unwrap());
    assert!(refuse(&good, shared).to_string().contains("occurs twice"));
    let timeout = GenesisParams {
        vote_timeout_ms: 1,
        ..good
    };
    assert!(
        refuse(&timeout, records(1..=5))
            .to_string()
            .starts_with("vote_timeout_ms")
    );
}

#[test]
fn init_writes_the_document_and_never_over_another() {
    let dir = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = (1..=3)
        .map(|seed| {
            let id = NodeId::new(&format!("node{seed}")).unwrap();
            write_member(dir.path(), &id, &record(seed, "demo")).unwrap()
        })
        .collect();
    let out = dir.path().join("rules.pb");
    let too_high = init_rules(&GenesisParams::new("demo", 4), &files, &out);
    assert!(matches!(too_high, Err(GenesisError::Rules(_))));
    assert!(!out.exists());
    let rules = init_rules(&GenesisParams::new("demo", 2), &files, &out).unwrap();
    assert_eq!(read_genesis(&out).unwrap(), rules);
    let again = init_rules(&GenesisParams::new("demo", 3), &files, &out);
    assert!(matches!(
        again,
        Err(GenesisError::File(FileError::Exists(_)))
    ));
    assert_eq!(read_genesis(&out).unwrap(), rules);
}
