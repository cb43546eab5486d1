//! The board went back to an older copy and on in another way: what was projected of
//! the lost past is set aside, stands in nobody's way, and is not forgotten.

use std::sync::Arc;

use quorate_consensus::wire::{BallotState, ChainOutcome, Silence, ViolationType, ban_proof};
use quorate_consensus::{TxId, Value};
use quorate_engine::{AuditAnswer, AuditAsk, Prepared};
use quorate_testkit::{number, tx};

use super::fences::{ask_pending, is_conflict};
use super::projection::project;
use super::script::Script;
use super::tampering::check;
use super::{Builder, Place};
use crate::parting::{LostPast, LostRow, Parting, find};
use crate::rows::{Filter, SubmissionState};
use crate::store::{AuditError, AuditStore};
use crate::verify::VerifyError;

pub(super) async fn run_all(builder: &dyn Builder) {
    the_store_knows_of_which_log_it_is(&*builder.place().await).await;
    a_lost_reservation_gives_its_nonce_back(&*builder.place().await).await;
    rows_are_as_if_the_lost_past_had_never_been(builder).await;
    what_was_or_may_have_been_sent_is_not_sent_again(&*builder.place().await).await;
    a_reservation_that_both_pasts_have_stays(&*builder.place().await).await;
    what_is_over_in_a_lost_past_stays_over(&*builder.place().await).await;
    evidence_stays_and_may_be_found_again(&*builder.place().await).await;
    a_past_may_be_lost_more_than_once(&*builder.place().await).await;
    of_two_who_set_aside_one_does(&*builder.place().await).await;
    a_store_from_before_the_digests_goes_on(&*builder.place().await).await;
    what_was_set_aside_stays_as_it_is(&*builder.place().await).await;
}

async fn open(place: &dyn Place, script: &Script) -> Arc<dyn AuditStore> {
    let rules = Arc::clone(script.cluster.rules());
    place.open(rules).await.expect("the store opens")
}

async fn parting(store: &dyn AuditStore, script: &Script) -> Option<Arc<Parting>> {
    let log = |after| {
        let rest = script.after(u64::min(after, script.head()));
        std::future::ready(Ok(rest[..rest.len().min(3)].to_vec()))
    };
    find(store, log)
        .await
        .expect("it can be told")
        .map(Arc::new)
}

/// What a projector does that finds the log another one.
async fn set_aside(store: &dyn AuditStore, script: &Script) -> LostPast {
    let parting = parting(store, script).await.expect("another past");
    let past = store.set_aside(parting).await.expect("set aside");
    project(store, script).await;
    past
}

async fn holds(store: &dyn AuditStore, script: &Script) {
    let report = check(store, script).await.expect("it can be told");
    assert_eq!(report.findings, []);
}

async fn lost_rows(store: &dyn AuditStore, table: &str) -> Vec<LostRow> {
    let mut rows = store.losses().await.unwrap().rows;
    rows.retain(|row| row.table == table);
    rows
}

/// Decided, reserved at a nonce, and certified.
fn reserved(script: &mut Script, tx_id: &TxId, value: &Value, nonce: u64) {
    let reservation = script.reservation(tx_id, value, nonce);
    script
        .decided(tx_id, value)
        .reserved(tx_id, value, &reservation, false)
        .certified(tx_id, value, &reservation);
}

fn confirmed(script: &mut Script, tx_id: &TxId, value: &Value, nonce: u64) {
    reserved(script, tx_id, value, nonce);
    script.concluded(tx_id, ChainOutcome::Confirmed, nonce);
}

fn silence() -> ban_proof::Kind {
    ban_proof::Kind::Silence(Silence {})
}

/// A log with one confirmed transaction, `kept` at nonce 7, and one that is open.
fn common() -> Script {
    let mut script = Script::new();
    confirmed(&mut script, &tx("kept"), &number(1), 7);
    script.vote(0, &tx("open"), number(5));
    script
}

/// What an engine does before it sends: the row, and the bytes.
async fn signed(store: &dyn AuditStore, script: &Script, tx_id: &TxId, value: &Value, nonce: u64) {
    let reservation = script.reservation(tx_id, value, nonce);
    let answer = ask_pending(store, tx_id, value, &reservation).await;
    assert_eq!(answer, AuditAnswer::Done);
    let ask = variant(tx_id, nonce);
    assert_eq!(store.ask(ask).await, AuditAnswer::Done);
}

fn variant(tx_id: &TxId, nonce: u64) -> AuditAsk {
    let raw = format!("{tx_id} {nonce}").into_bytes();
    AuditAsk::Variant {
        tx_id: tx_id.clone(),
        nonce,
        attempt: 0,
        prepared: Prepared {
            tx_hash: blake3::hash(&raw).as_bytes().to_vec(),
            raw,
        },
    }
}

async fn the_store_knows_of_which_log_it_is(place: &dyn Place) {
    let mut was = common();
    let store = open(place, &was).await;
    assert_eq!(store.mark().await.unwrap(), was.mark(0));
    project(&*store, &was).await;
    let parted = was.head();
    was.vote(1, &tx("open"), number(5));
    let mut is = was.parted(parted);
    is.vote(1, &tx("open"), number(6))
        .vote(2, &tx("open"), number(6));

    // As long as the log is the one that is known, nothing parts.
    assert!(parting(&*store, &was).await.is_none());
    assert!(parting(&*store, &is).await.is_none());
    project(&*store, &was).await;
    assert_eq!(store.mark().await.unwrap(), was.mark(parted + 1));
    let digests = store.digests(parted - 1, 10).await.unwrap();
    let expected = [parted, parted + 1].map(|at| (at, was.mark(at).digest.unwrap()));
    assert_eq!(digests, expected);
    // A log that is too short says nothing.
    assert!(parting(&*store, &was.parted(parted)).await.is_none());

    let refused = store
        .project(is.mark(parted + 1), is.after(parted + 1))
        .await;
    let Err(AuditError::OtherPast { revision }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(revision, parted + 1);
    let told = check(&*store, &is).await;
    assert!(
        matches!(told, Err(VerifyError::OtherPast { cursor }) if cursor == parted + 1),
        "{told:?}"
    );
    let found = parting(&*store, &is).await.expect("another past");
    assert_eq!(found.parted_at(), parted);
    assert_eq!(store.mark().await.unwrap(), was.mark(parted + 1));
}

async fn a_lost_reservation_gives_its_nonce_back(place: &dyn Place) {
    let mut was = common();
    let store = open(place, &was).await;
    let (lost, other, value) = (tx("lost"), tx("other"), number(2));
    let parted = was.head();
    reserved(&mut was, &lost, &value, 8);
    project(&*store, &was).await;
    signed(&*store, &was, &lost, &value, 8).await;

    let mut is = was.parted(parted);
    reserved(&mut is, &other, &value, 8);
    let reservation = is.reservation(&other, &value, 8);
    let answer = ask_pending(&*store, &other, &value, &reservation).await;
    assert!(is_conflict(&answer), "before it was set aside: {answer:?}");
    let past = set_aside(&*store, &is).await;
    assert_eq!(
        (past.id, past.parted_at, past.reached),
        (1, parted, was.head())
    );
    let answer = ask_pending(&*store, &other, &value, &reservation).await;
    assert_eq!(answer, AuditAnswer::Done);
    assert_eq!(store.ask(variant(&other, 8)).await, AuditAnswer::Done);
    is.concluded(&other, ChainOutcome::Confirmed, 9);
    project(&*store, &is).await;
    let row = store.submission(&other).await.unwrap().expect("a row");
    assert_eq!(
        (row.state, row.nonce),
        (SubmissionState::Confirmed, Some(8))
    );
    assert_eq!(store.submission(&lost).await.unwrap(), None);
    holds(&*store, &is).await;

    // What was lost is there to be found.
    let losses = store.losses().await.unwrap();
    assert_eq!(losses.pasts, [past]);
    let [row] = &*lost_rows(&*store, "blockchain_submissions").await else {
        panic!("{:?}", losses.rows);
    };
    assert_eq!((row.past, &row.tx_id), (1, &Some(lost.clone())));
    let account = reservation.account.clone();
    assert_eq!(row.place, Some((account, 8)));
    assert_eq!(row.state, Some(SubmissionState::Pending));
    let was = row.row.as_ref().expect("the row as it was");
    let payload = is.reservation(&lost, &value, 8).payload;
    assert_eq!(was["payload"], hex::encode(payload));
    assert!(was["tx_hash"].is_string(), "it was signed: {was}");
    let sql = "INSERT INTO submission_variants (tx_id, account, nonce, attempt, tx_hash, raw,
                   signed_at)
               SELECT tx_id, account, nonce, attempt, tx_hash, raw, signed_at
               FROM submission_variants WHERE tx_id = 'lost'";
    place.sql(sql).await.expect_err("its bytes are still there");
}

/// Compares every table with that of a store that never knew of the lost past.
async fn rows_are_as_if_the_lost_past_had_never_been(builder: &dyn Builder) {
    let (place, other) = (builder.place().await, builder.place().await);
    let mut was = common();
    let (a, b, split) = (tx("a"), tx("b"), tx("split"));
    was.vote(1, &a, number(1)).expired(&tx("open"));
    was.booted(2).reputation(1, 990);
    was.banned(3, ViolationType::SilentFailure, silence());
    let store = open(&*place, &was).await;
    let parted = was.head();
    // Of everything something is touched.
    was.vote(0, &tx("open"), number(5))
        .vote(4, &tx("kept"), number(1));
    was.unbanned(3).reputation(1, 500).booted(1);
    was.accused(0, 4);
    was.concluded(&tx("kept"), ChainOutcome::Undone, 7);
    was.concluded(&tx("kept"), ChainOutcome::Reverted, 9);
    confirmed(&mut was, &a, &number(1), 8);
    let (from, to) = (BallotState::Collecting, BallotState::AbortedSplit);
    was.vote(2, &split, number(3)).moved(&split, from, to, None);
    was.banned(4, ViolationType::SilentFailure, silence());
    was.vote(2, &b, number(4));
    project(&*store, &was).await;

    let mut is = was.parted(parted);
    is.vote(1, &b, number(9)).vote(0, &a, number(1));
    let accusation = is.accused(1, 4);
    confirmed(&mut is, &b, &number(9), 8);
    set_aside(&*store, &is).await;
    holds(&*store, &is).await;

    let fresh = open(&*other, &is).await;
    project(&*fresh, &is).await;
    for tx_id in [&a, &b, &split, &tx("kept"), &tx("open")] {
        let filter = Filter::tx(tx_id);
        let shown = store.votes(&filter).await.unwrap();
        assert_eq!(shown, fresh.votes(&filter).await.unwrap(), "{tx_id}");
        let shown = store.decision(tx_id).await.unwrap();
        assert_eq!(shown, fresh.decision(tx_id).await.unwrap(), "{tx_id}");
        let shown = store.submission(tx_id).await.unwrap();
        assert_eq!(shown, fresh.submission(tx_id).await.unwrap(), "{tx_id}");
    }
    let shown = store.reputations().await.unwrap();
    assert_eq!(shown, fresh.reputations().await.unwrap());
    let shown = store.bans(None).await.unwrap();
    assert_eq!(shown, fresh.bans(None).await.unwrap());
    let shown = store.accusations(&Filter::default()).await.unwrap();
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0].accusation, accusation);
    // And nothing was thrown away.
    let votes = lost_rows(&*store, "vote_history").await;
    let keys: Vec<_> = votes.iter().map(|row| &*row.key).collect();
    for key in [
        "a node1",
        "b node3",
        "split node3",
        "kept node5",
        "open node1",
    ] {
        assert!(keys.contains(&key), "{key}: {keys:?}");
    }
    for (table, count) in [
        ("blockchain_submissions", 3),
        ("submission_keys", 3),
        ("decisions", 2),
        ("bans", 1),
        ("accusations", 1),
    ] {
        let rows = lost_rows(&*store, table).await;
        assert_eq!(rows.len(), count, "{table}: {rows:?}");
    }
}

/// The transaction was reserved in the lost past, and the log reserves it at another
/// nonce. With both it could be paid twice.
async fn what_was_or_may_have_been_sent_is_not_sent_again(place: &dyn Place) {
    let mut was = common();
    let store = open(place, &was).await;
    let (twice, other, value) = (tx("twice"), tx("other"), number(2));
    let (done, third) = (tx("done"), tx("third"));
    let parted = was.head();
    reserved(&mut was, &twice, &value, 8);
    project(&*store, &was).await;
    signed(&*store, &was, &twice, &value, 8).await;
    confirmed(&mut was, &done, &value, 9);
    project(&*store, &was).await;

    let mut is = was.parted(parted);
    reserved(&mut is, &other, &value, 8);
    reserved(&mut is, &twice, &value, 9);
    reserved(&mut is, &third, &value, 10);
    reserved(&mut is, &done, &value, 11);
    set_aside(&*store, &is).await;
    holds(&*store, &is).await;
    let ask = async |tx_id: &TxId, nonce| {
        let reservation = is.reservation(tx_id, &value, nonce);
        ask_pending(&*store, tx_id, &value, &reservation).await
    };
    let answer = ask(&twice, 9).await;
    let AuditAnswer::Conflict(why) = &answer else {
        panic!("{answer:?}");
    };
    assert!(why.contains("nonce 8") && why.contains("lost"), "{why}");
    let answer = store.ask(variant(&twice, 9)).await;
    assert!(is_conflict(&answer), "nothing is signed either: {answer:?}");
    let answer = ask(&done, 11).await;
    assert!(is_conflict(&answer), "it was paid: {answer:?}");
    let ended = store.final_state(&done).await.unwrap();
    assert_eq!(ended, Some(BallotState::Confirmed));
    for (tx_id, nonce) in [(&other, 8), (&third, 10)] {
        assert_eq!(ask(tx_id, nonce).await, AuditAnswer::Done);
        assert_eq!(store.ask(variant(tx_id, nonce)).await, AuditAnswer::Done);
    }

    // Once another has the nonce for good, what was sent with it is worth nothing.
    is.concluded(&other, ChainOutcome::Confirmed, 20);
    is.concluded(&third, ChainOutcome::Reverted, 21);
    project(&*store, &is).await;
    assert_eq!(ask_again(&*store, &is, &twice, 9).await, AuditAnswer::Done);
    assert_eq!(store.ask(variant(&twice, 9)).await, AuditAnswer::Done);
    let answer = ask_again(&*store, &is, &done, 11).await;
    assert!(is_conflict(&answer), "{answer:?}");
    // Also from the archive.
    for statement in [
        "INSERT INTO blockchain_submissions_archive
             SELECT * FROM blockchain_submissions WHERE tx_id = 'other'",
        "DELETE FROM blockchain_submissions WHERE tx_id = 'other'",
    ] {
        place.sql(statement).await.expect("archived");
    }
    assert_eq!(ask_again(&*store, &is, &twice, 9).await, AuditAnswer::Done);
    is.concluded(&other, ChainOutcome::Undone, 20);
    project(&*store, &is).await;
    let answer = ask_again(&*store, &is, &twice, 9).await;
    assert!(is_conflict(&answer), "the nonce is free again: {answer:?}");
}

async fn ask_again(
    store: &dyn AuditStore,
    script: &Script,
    tx_id: &TxId,
    nonce: u64,
) -> AuditAnswer {
    let value = number(2);
    let reservation = script.reservation(tx_id, &value, nonce);
    ask_pending(store, tx_id, &value, &reservation).await
}

async fn a_reservation_that_both_pasts_have_stays(place: &dyn Place) {
    let mut was = common();
    let store = open(place, &was).await;
    let (a, early, value) = (tx("a"), tx("early"), number(2));
    let parted = was.head();
    confirmed(&mut was, &a, &value, 8);
    project(&*store, &was).await;
    signed(&*store, &was, &a, &value, 8).await;

    // `early` is of the log that goes on: its engine was faster than the projection.
    let mut is = was.parted(parted);
    is.booted(1);
    reserved(&mut is, &a, &value, 8);
    reserved(&mut is, &early, &value, 9);
    signed(&*store, &is, &early, &value, 9).await;
    let past = set_aside(&*store, &is).await;
    assert_eq!(past.parted_at, parted);
    holds(&*store, &is).await;
    let row = store.submission(&early).await.unwrap().expect("a row");
    assert!(row.tx_hash.is_some(), "what was signed stays");
    let row = store.submission(&a).await.unwrap().expect("a row");
    assert_eq!((row.state, row.nonce), (SubmissionState::Pending, Some(8)));
    // The bytes are the ones of the lost past; the nonce lets one of them through.
    let AuditAnswer::Variants(variants) = store.ask(AuditAsk::Variants { tx_id: a.clone() }).await
    else {
        panic!("no variants");
    };
    assert_eq!(variants.len(), 1);
    assert_eq!(ask_again(&*store, &is, &a, 8).await, AuditAnswer::Done);
    // When t saw a stranger's there, it is reserved anew as ever.
    let anew = is.reservation(&a, &value, 10);
    is.reserved(&a, &value, &anew, true);
    project(&*store, &is).await;
    assert_eq!(ask_again(&*store, &is, &a, 10).await, AuditAnswer::Done);
}

async fn what_is_over_in_a_lost_past_stays_over(place: &dyn Place) {
    let mut was = common();
    let store = open(place, &was).await;
    let (dead, value) = (tx("dead"), number(2));
    let parted = was.head();
    was.vote(0, &dead, value.clone());
    let (from, to) = (BallotState::Collecting, BallotState::AbortedTimeout);
    was.moved(&dead, from, to, None);
    project(&*store, &was).await;
    let mut is = was.parted(parted);
    reserved(&mut is, &dead, &value, 8);
    set_aside(&*store, &is).await;
    holds(&*store, &is).await;
    let ended = store.final_state(&dead).await.unwrap();
    assert_eq!(ended, Some(BallotState::AbortedTimeout));
    // Whoever relied on the abort may have paid under another tx_id.
    let answer = ask_again(&*store, &is, &dead, 8).await;
    assert!(is_conflict(&answer), "{answer:?}");
}

async fn evidence_stays_and_may_be_found_again(place: &dyn Place) {
    let mut was = common();
    let kind = ViolationType::DoubleVoting;
    let lie = was.double_vote(4, &tx("kept"));
    was.violation(4, &tx("kept"), kind, Some(lie));
    let store = open(place, &was).await;
    let parted = was.head();
    let lies = [tx("a"), tx("b")].map(|tx_id| (was.double_vote(3, &tx_id), tx_id));
    for (lie, tx_id) in &lies {
        was.violation(3, tx_id, kind, Some(lie.clone()));
        was.violation(2, tx_id, ViolationType::SilentFailure, None);
    }
    project(&*store, &was).await;
    let before = store.violations(&Filter::default()).await.unwrap();
    assert_eq!(before.len(), 5);

    let mut is = was.parted(parted);
    let (lie, a) = &lies[0];
    is.violation(2, a, ViolationType::SilentFailure, None);
    is.violation(3, a, kind, Some(lie.clone()));
    let new = is.double_vote(3, &tx("new"));
    is.violation(3, &tx("new"), kind, Some(new));
    set_aside(&*store, &is).await;
    holds(&*store, &is).await;
    // One that was struck in this past is struck in a later batch, too.
    is.decided(a, &number(1)).vote(3, a, number(1));
    project(&*store, &is).await;
    let reservation = is.reservation(a, &number(1), 8);
    is.reserved(a, &number(1), &reservation, false);
    project(&*store, &is).await;
    holds(&*store, &is).await;
    let decision = store.decision(a).await.unwrap().expect("a row");
    let liar = is.cluster.node_id(3);
    assert!(!decision.participating_nodes.contains(&liar));
    let after = store.violations(&Filter::default()).await.unwrap();
    assert_eq!(after[..5], before, "nothing was edited or deleted");
    let new: Vec<_> = after[5..].iter().map(|row| row.violation_type).collect();
    assert_eq!(new, [ViolationType::SilentFailure, kind, kind]);
    let marked = lost_rows(&*store, "byzantine_violations").await;
    let marked: Vec<_> = marked.iter().map(|row| &*row.key).collect();
    assert_eq!(marked, ["2", "3", "4", "5"]);
    let members = store.reputations().await.unwrap();
    let counted: Vec<_> = members.iter().map(|row| row.violations_count).collect();
    assert_eq!(counted, [0, 0, 1, 2, 1]);

    // What is edited or taken out is still found.
    place.unlock().await;
    let edit = "UPDATE byzantine_violations SET node_id = 'node1' WHERE id = 3";
    place.sql(edit).await.expect("edited");
    let report = check(&*store, &is).await.expect("it can be told");
    assert!(!report.findings.is_empty());
    for statement in [
        "UPDATE byzantine_violations SET node_id = 'node3' WHERE id = 3",
        "DELETE FROM byzantine_violations WHERE id = 6",
    ] {
        place.sql(statement).await.expect(statement);
    }
    let report = check(&*store, &is).await.expect("it can be told");
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    assert_eq!(report.findings[0].row, "6");
}

/// The second time the first past comes back: a newer copy was found after all.
async fn a_past_may_be_lost_more_than_once(place: &dyn Place) {
    let mut was = common();
    let store = open(place, &was).await;
    let (a, b, value) = (tx("a"), tx("b"), number(2));
    let parted = was.head();
    reserved(&mut was, &a, &value, 8);
    let lie = was.double_vote(4, &a);
    was.violation(4, &a, ViolationType::DoubleVoting, Some(lie));
    project(&*store, &was).await;
    signed(&*store, &was, &a, &value, 8).await;
    let mut is = was.parted(parted);
    confirmed(&mut is, &b, &value, 8);
    assert_eq!(set_aside(&*store, &is).await.id, 1);
    holds(&*store, &is).await;

    was.concluded(&a, ChainOutcome::Confirmed, 9);
    let past = set_aside(&*store, &was).await;
    assert_eq!(
        (past.id, past.parted_at, past.reached),
        (2, parted, is.head())
    );
    holds(&*store, &was).await;
    assert_eq!(store.mark().await.unwrap().past, 2);
    let row = store.submission(&a).await.unwrap().expect("a row");
    assert_eq!(row.state, SubmissionState::Confirmed);
    let pasts = store.losses().await.unwrap().pasts;
    assert_eq!(pasts.iter().map(|past| past.id).collect::<Vec<_>>(), [1, 2]);
    // b is not forgotten, and nobody takes it for paid at another nonce.
    let reservation = was.reservation(&b, &value, 9);
    let answer = ask_pending(&*store, &b, &value, &reservation).await;
    assert!(is_conflict(&answer), "{answer:?}");
}

async fn of_two_who_set_aside_one_does(place: &dyn Place) {
    let mut was = common();
    let (store, other) = (open(place, &was).await, open(place, &was).await);
    let parted = was.head();
    was.vote(1, &tx("open"), number(5));
    project(&*store, &was).await;
    let mut is = was.parted(parted);
    is.vote(2, &tx("open"), number(5));
    let found = parting(&*store, &is).await.expect("another past");
    let (one, two) = tokio::join!(store.set_aside(found.clone()), other.set_aside(found));
    let done = [&one, &two].iter().filter(|done| done.is_ok()).count();
    assert_eq!(done, 1, "{one:?} {two:?}");
    let moved = |done: &Result<_, _>| matches!(done, Err(AuditError::CursorMoved { .. }));
    assert!(moved(&one) || moved(&two), "{one:?} {two:?}");
    assert_eq!(store.losses().await.unwrap().pasts.len(), 1);
    project(&*other, &is).await;
    holds(&*store, &is).await;
}

async fn a_store_from_before_the_digests_goes_on(place: &dyn Place) {
    let mut was = common();
    let store = open(place, &was).await;
    project(&*store, &was).await;
    for statement in [
        "UPDATE audit_cursor SET digest = NULL",
        "DELETE FROM projected_entries",
    ] {
        place.sql(statement).await.expect(statement);
    }
    let unknown = store.mark().await.unwrap();
    assert_eq!((unknown.revision, unknown.digest), (was.head(), None));
    assert!(parting(&*store, &was).await.is_none());
    holds(&*store, &was).await;
    was.vote(1, &tx("open"), number(5));
    let parted = was.head();
    project(&*store, &was).await;
    assert_eq!(store.mark().await.unwrap(), was.mark(parted));
    was.vote(2, &tx("open"), number(5));
    project(&*store, &was).await;
    let mut is = was.parted(parted);
    is.vote(3, &tx("open"), number(5));
    assert_eq!(set_aside(&*store, &is).await.parted_at, parted);
    holds(&*store, &is).await;
}

async fn what_was_set_aside_stays_as_it_is(place: &dyn Place) {
    let mut was = common();
    let store = open(place, &was).await;
    let parted = was.head();
    reserved(&mut was, &tx("lost"), &number(2), 8);
    project(&*store, &was).await;
    let mut is = was.parted(parted);
    is.booted(1);
    set_aside(&*store, &is).await;
    for statement in [
        "UPDATE lost_rows SET nonce = NULL, account = NULL",
        "DELETE FROM lost_rows",
        "UPDATE lost_pasts SET parted_at = reached",
        "DELETE FROM lost_pasts",
    ] {
        let refused = place.sql(statement).await.expect_err(statement);
        assert!(refused.contains("insert only"), "{statement}: {refused}");
    }
    holds(&*store, &is).await;
    // Who takes more than a row away is found out.
    place
        .sql("UPDATE audit_cursor SET past = 2")
        .await
        .expect("done");
    let report = check(&*store, &is).await.expect("it can be told");
    let [finding] = &*report.findings else {
        panic!("{:?}", report.findings);
    };
    assert_eq!((finding.table, &*finding.row), ("lost_pasts", "2"));
}
