use super::*;

fn keys(seed: u8) -> (SigningKey, SigningKey) {
    (
        SigningKey::from_seed([seed; 32]),
        SigningKey::from_seed([seed + 100; 32]),
    )
}

fn node(id: &str) -> NodeId {
    NodeId::new(id).unwrap()
}

#[test]
fn a_record_goes_to_its_file_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let (vote, own) = keys(1);
    let record = make_member_record("demo", &node("node1"), &vote, &own).unwrap();
    let path = write_member(dir.path(), &node("node1"), &record).unwrap();
    assert_eq!(path, dir.path().join("node1.member"));
    let (read, member) = read_member(&path).unwrap();
    assert_eq!(read, record);
    assert_eq!(member.node_id, node("node1"));
    assert_eq!(member.vote_key, vote.public_key());
    assert_eq!(member.node_key, own.public_key());
    let again = write_member(dir.path(), &node("node1"), &record).unwrap_err();
    assert!(matches!(again, MemberError::File(FileError::Exists(_))));
}

#[test]
fn wrong_names_and_one_key_for_both_are_refused() {
    let (vote, own) = keys(1);
    let upper = make_member_record("Demo", &node("node1"), &vote, &own).unwrap_err();
    assert!(matches!(upper, MemberError::ClusterName(_)));
    let same = make_member_record("demo", &node("node1"), &vote, &vote).unwrap_err();
    assert!(matches!(same, MemberError::SameKey(_)));
}

#[test]
fn every_flipped_bit_of_a_record_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node1.member");
    let (vote, own) = keys(1);
    let record = make_member_record("demo", &node("node1"), &vote, &own).unwrap();
    let bytes = record.encode_to_vec();
    for bit in (0..bytes.len() * 8).step_by(7) {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, &flipped).unwrap();
        let error = read_member(&path).expect_err(&format!("bit {bit}"));
        assert!(error.to_string().starts_with(&path.display().to_string()));
    }
}

#[test]
fn both_keys_must_have_signed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node1.member");
    let (vote, own) = keys(1);
    let mut record = make_member_record("demo", &node("node1"), &vote, &own).unwrap();
    record.node_signature = record.vote_signature.clone();
    std::fs::write(&path, record.encode_to_vec()).unwrap();
    let error = read_member(&path).unwrap_err();
    assert!(matches!(
        error,
        MemberError::Record {
            source: RulesError::NoPossession(_),
            ..
        }
    ));
}

#[test]
fn record_files_are_listed_in_order() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["b.member", "a.member", "a.key", "member"] {
        std::fs::write(dir.path().join(name), b"").unwrap();
    }
    let files = member_files(dir.path()).unwrap();
    assert_eq!(files, ["a.member", "b.member"].map(|n| dir.path().join(n)));
}
