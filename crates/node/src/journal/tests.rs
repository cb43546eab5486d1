use quorate_consensus::Value;

use super::*;

fn node() -> NodeId {
    NodeId::new("node1").unwrap()
}

fn tx() -> TxId {
    TxId::new("tx_1").unwrap()
}

const CLUSTER: ClusterId = ClusterId([7; 32]);

fn open(dir: &Path) -> Journal {
    Journal::open(dir, &node(), &CLUSTER).unwrap()
}

fn guard(choice: impl Into<Choice>, statement: &[u8]) -> Record {
    Record::Guard {
        tx_id: tx(),
        choice: choice.into(),
        statement: statement.to_vec(),
    }
}

fn verdict(domain: Domain, statement: &[u8]) -> Record {
    Record::Verdict {
        tx_id: tx(),
        domain,
        statement: statement.to_vec(),
    }
}

#[test]
fn records_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    assert_eq!(journal.durable().unwrap(), Durable::default());
    assert_eq!(journal.lookup(&tx()).unwrap(), JournalEntry::default());
    journal
        .commit(&[
            Record::Generation {
                generation: 3,
                acknowledged: 2,
            },
            guard(Value::Number(u64::MAX), b"vote"),
            verdict(Domain::Abort, b"abort"),
            Record::Final {
                tx_id: tx(),
                state: BallotState::AbortedSplit,
            },
            Record::Seen { revision: 9 },
        ])
        .unwrap();
    drop(journal);
    let journal = open(dir.path());
    let durable = Durable {
        generation: 3,
        acknowledged: 2,
        seen: 9,
    };
    assert_eq!(journal.durable().unwrap(), durable);
    let entry = JournalEntry {
        guard: Some((Value::Number(u64::MAX).into(), b"vote".to_vec())),
        verdict: Some((Domain::Abort, b"abort".to_vec())),
        ended: Some(BallotState::AbortedSplit),
    };
    assert_eq!(journal.lookup(&tx()).unwrap(), entry);
}

#[test]
fn a_guard_never_takes_another_choice() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    journal.commit(&[guard(Value::Number(1), b"a")]).unwrap();
    // The same choice at another time is the same vote.
    journal.commit(&[guard(Value::Number(1), b"b")]).unwrap();
    for other in [
        Choice::Abstention,
        Value::Number(2).into(),
        Value::data(b"1").unwrap().into(),
    ] {
        let seen = Record::Seen { revision: 5 };
        let error = journal.commit(&[seen, guard(other, b"c")]).unwrap_err();
        assert!(
            error.to_string().contains("holds another choice"),
            "{error}"
        );
    }
    let kept = journal.lookup(&tx()).unwrap().guard;
    assert_eq!(kept, Some((Value::Number(1).into(), b"b".to_vec())));
    assert_eq!(journal.durable().unwrap().seen, 0, "all or nothing");
    let deleted = journal.connection.execute("DELETE FROM guard", []);
    assert!(deleted.is_err());
}

#[test]
fn a_decision_and_an_abort_exclude_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    journal.commit(&[verdict(Domain::Decision, b"a")]).unwrap();
    // A reservation made anew is decided anew.
    journal.commit(&[verdict(Domain::Decision, b"b")]).unwrap();
    assert!(journal.commit(&[verdict(Domain::Abort, b"c")]).is_err());
    assert!(journal.commit(&[verdict(Domain::Vote, b"c")]).is_err());
    let kept = journal.lookup(&tx()).unwrap().verdict;
    assert_eq!(kept, Some((Domain::Decision, b"b".to_vec())));
    assert!(
        journal
            .connection
            .execute("DELETE FROM verdict", [])
            .is_err()
    );
}

#[test]
fn a_data_directory_is_used_by_one_process_of_one_node() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let second = Journal::open(dir.path(), &node(), &CLUSTER).err().unwrap();
    assert!(matches!(second, JournalError::InUse(_)), "{second}");
    drop(journal);
    let other = NodeId::new("node2").unwrap();
    let foreign = Journal::open(dir.path(), &other, &CLUSTER).err().unwrap();
    assert!(matches!(foreign, JournalError::Foreign { .. }), "{foreign}");
    let foreign = Journal::open(dir.path(), &node(), &ClusterId([8; 32]));
    assert!(matches!(foreign, Err(JournalError::Foreign { .. })));
    open(dir.path());
}

#[test]
fn a_newer_journal_and_a_bad_directory_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    journal
        .connection
        .pragma_update(None, "user_version", 9)
        .unwrap();
    drop(journal);
    let newer = Journal::open(dir.path(), &node(), &CLUSTER);
    assert!(matches!(newer, Err(JournalError::NewerSchema(9))));
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let bad = Journal::open(&file, &node(), &CLUSTER);
    assert!(matches!(bad, Err(JournalError::Io { .. })));
}

#[test]
fn what_was_seen_of_the_audit_store_never_falls() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let seen = |past, revision| Reached { past, revision };
    assert_eq!(journal.audit_seen().unwrap(), seen(0, 0));
    for (told, kept) in [
        (seen(0, 5), seen(0, 5)),
        (seen(0, 3), seen(0, 5)),
        (seen(0, 9), seen(0, 9)),
        // A past was lost: what was seen of it is no measure any more.
        (seen(1, 2), seen(1, 2)),
        (seen(1, 1), seen(1, 2)),
        // A backup from before that, which has caught up.
        (seen(0, 2), seen(1, 2)),
        (seen(0, 7), seen(0, 7)),
    ] {
        journal.keep_audit_seen(told).unwrap();
        assert_eq!(journal.audit_seen().unwrap(), kept, "{told:?}");
    }
    drop(journal);
    assert_eq!(open(dir.path()).audit_seen().unwrap(), seen(0, 7));
}

#[test]
fn a_journal_of_version_1_is_brought_to_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    journal.commit(&[verdict(Domain::Decision, b"a")]).unwrap();
    journal
        .connection
        .execute_batch("DROP TABLE audit_seen; DROP TABLE address; PRAGMA user_version = 1")
        .unwrap();
    drop(journal);
    let mut journal = open(dir.path());
    let seen = Reached {
        past: 1,
        revision: 1,
    };
    journal.keep_audit_seen(seen).unwrap();
    assert_eq!(journal.audit_seen().unwrap(), seen);
    let kept = journal.lookup(&tx()).unwrap().verdict;
    assert_eq!(kept, Some((Domain::Decision, b"a".to_vec())));
    assert_eq!(journal.addresses().unwrap(), []);
}

#[test]
fn addresses_of_members_are_kept_and_of_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let said = |text: &str| wire::SignedStatement {
        statement: text.into(),
        signature: b"s".to_vec(),
    };
    let id = |n: u32| NodeId::new(&format!("node{n}")).unwrap();
    let record = |n: u32, text: &str| Record::Address {
        node_id: id(n),
        signed: said(text),
    };
    journal
        .commit(&[record(2, "old"), record(3, "three"), record(2, "new")])
        .unwrap();
    drop(journal);
    let mut journal = open(dir.path());
    assert_eq!(journal.addresses().unwrap(), [said("new"), said("three")]);
    journal.keep_addresses_of(&[id(3), id(4)]).unwrap();
    assert_eq!(journal.addresses().unwrap(), [said("three")]);
}
