//! What an engine asks before it sends.

use std::sync::Arc;

use quorate_consensus::wire::{BallotState, ChainOutcome, Reservation};
use quorate_consensus::{TxId, Value};
use quorate_engine::{AuditAnswer, AuditAsk, Prepared};
use quorate_testkit::{number, tx};

use super::projection::project;
use super::script::Script;
use super::{Builder, Place};
use crate::mark::Mark;
use crate::rows::SubmissionState;
use crate::store::AuditStore;

pub(super) async fn run_all(builder: &dyn Builder) {
    one_row_per_transaction_and_nonce(&*builder.place().await).await;
    of_many_who_ask_at_once_one_gets_the_nonce(&*builder.place().await).await;
    the_log_and_the_engine_write_in_either_order(&*builder.place().await).await;
    what_is_over_is_not_submitted(&*builder.place().await).await;
    a_reservation_made_anew_waits_for_the_log(&*builder.place().await).await;
    every_variant_is_kept(&*builder.place().await).await;
    attempts_only_grow(&*builder.place().await).await;
    the_log_and_the_engine_may_write_at_once(&*builder.place().await).await;
}

async fn open(place: &dyn Place, script: &Script) -> Arc<dyn AuditStore> {
    let rules = Arc::clone(script.cluster.rules());
    place.open(rules).await.expect("the store opens")
}

pub(super) async fn ask_pending(
    store: &dyn AuditStore,
    tx_id: &TxId,
    value: &Value,
    reservation: &Reservation,
) -> AuditAnswer {
    store
        .ask(AuditAsk::Pending {
            tx_id: tx_id.clone(),
            value: value.clone(),
            reservation: reservation.clone(),
        })
        .await
}

pub(super) fn is_conflict(answer: &AuditAnswer) -> bool {
    matches!(answer, AuditAnswer::Conflict(_))
}

async fn one_row_per_transaction_and_nonce(place: &dyn Place) {
    let script = Script::new();
    let store = open(place, &script).await;
    let (a, b, value) = (tx("a"), tx("b"), number(1));
    let first = script.reservation(&a, &value, 7);
    for _ in 0..2 {
        let answer = ask_pending(&*store, &a, &value, &first).await;
        assert_eq!(answer, AuditAnswer::Done);
    }
    let row = store.submission(&a).await.unwrap().expect("a row");
    assert_eq!((row.state, row.nonce), (SubmissionState::Pending, Some(7)));

    let taken = script.reservation(&b, &value, 7);
    let answer = ask_pending(&*store, &b, &value, &taken).await;
    assert!(is_conflict(&answer), "{answer:?}");
    assert_eq!(store.submission(&b).await.unwrap(), None);

    let mut other = first.clone();
    other.payload.push(0);
    let mut elsewhere = first.clone();
    elsewhere.account = "other".into();
    let lower = script.reservation(&a, &value, 6);
    for wrong in [other, elsewhere, lower] {
        let answer = ask_pending(&*store, &a, &value, &wrong).await;
        assert!(is_conflict(&answer), "{wrong:?}: {answer:?}");
    }
    let answer = ask_pending(&*store, &a, &number(2), &first).await;
    assert!(is_conflict(&answer), "{answer:?}");
    assert_eq!(store.submission(&a).await.unwrap(), Some(row));

    // The same nonce of another account is another nonce.
    let mut elsewhere = script.reservation(&b, &value, 7);
    elsewhere.account = "other".into();
    let answer = ask_pending(&*store, &b, &value, &elsewhere).await;
    assert_eq!(answer, AuditAnswer::Done);
    // Signs of SQL in a name are only signs.
    let mut odd = script.reservation(&tx("c"), &value, 7);
    odd.account = "'; DROP TABLE decisions; --".into();
    let answer = ask_pending(&*store, &tx("c"), &value, &odd).await;
    assert_eq!(answer, AuditAnswer::Done);
    assert_eq!(store.decision(&a).await.unwrap(), None);
}

async fn of_many_who_ask_at_once_one_gets_the_nonce(place: &dyn Place) {
    let script = Script::new();
    let (one, other) = (open(place, &script).await, open(place, &script).await);
    let value = number(1);
    let mut asking = tokio::task::JoinSet::new();
    for i in 0..16 {
        let store = Arc::clone(if i % 2 == 0 { &one } else { &other });
        let (tx_id, value) = (tx(&format!("t{i}")), value.clone());
        let reservation = script.reservation(&tx_id, &value, 7);
        asking.spawn(async move { ask_pending(&*store, &tx_id, &value, &reservation).await });
    }
    let answers = asking.join_all().await;
    let done = answers.iter().filter(|a| **a == AuditAnswer::Done).count();
    let refused = answers.iter().filter(|a| is_conflict(a)).count();
    assert_eq!((done, refused), (1, 15), "{answers:?}");
    assert_eq!(one.submissions(None, 100).await.unwrap().len(), 1);
}

async fn the_log_and_the_engine_write_in_either_order(place: &dyn Place) {
    let mut script = Script::new();
    let store = open(place, &script).await;
    let value = number(1);
    let (early, late) = (tx("early"), tx("late"));
    let of_early = script.reservation(&early, &value, 7);
    let of_late = script.reservation(&late, &value, 8);

    let answer = ask_pending(&*store, &early, &value, &of_early).await;
    assert_eq!(answer, AuditAnswer::Done);
    let prepared = Prepared {
        tx_hash: vec![1],
        raw: vec![2],
    };
    let ask = AuditAsk::Variant {
        tx_id: early.clone(),
        nonce: 7,
        attempt: 0,
        prepared,
    };
    assert_eq!(store.ask(ask).await, AuditAnswer::Done);
    script.decided(&early, &value);
    script.reserved(&early, &value, &of_early, false);
    script.decided(&late, &value);
    script.reserved(&late, &value, &of_late, false);
    project(&*store, &script).await;
    let answer = ask_pending(&*store, &late, &value, &of_late).await;
    assert_eq!(answer, AuditAnswer::Done);

    for (tx_id, nonce) in [(&early, 7), (&late, 8)] {
        let row = store.submission(tx_id).await.unwrap().expect("a row");
        assert_eq!(
            (row.state, row.nonce),
            (SubmissionState::Pending, Some(nonce))
        );
    }
    let row = store.submission(&early).await.unwrap().expect("a row");
    assert_eq!(row.tx_hash, Some(vec![1]), "the log leaves what was signed");

    // The log speaks of another payload than the engine: somebody wrote here.
    let odd = tx("odd");
    let mut wrong = script.reservation(&odd, &value, 9);
    wrong.payload.push(0);
    let answer = ask_pending(&*store, &odd, &value, &wrong).await;
    assert_eq!(answer, AuditAnswer::Done);
    let right = script.reservation(&odd, &value, 9);
    script
        .decided(&odd, &value)
        .reserved(&odd, &value, &right, false);
    let from = store.cursor().await.unwrap();
    let refused = store.project(Mark::at(from), script.after(from)).await;
    assert!(
        matches!(refused, Err(crate::AuditError::Contradiction(_))),
        "{refused:?}"
    );
    assert_eq!(store.cursor().await.unwrap(), from);
}

async fn what_is_over_is_not_submitted(place: &dyn Place) {
    let mut script = Script::new();
    let store = open(place, &script).await;
    let (dead, done, value) = (tx("dead"), tx("done"), number(1));
    script.vote(0, &dead, value.clone());
    let (from, to) = (BallotState::Collecting, BallotState::AbortedTimeout);
    script.moved(&dead, from, to, None);
    let of_done = script.reservation(&done, &value, 7);
    script
        .decided(&done, &value)
        .reserved(&done, &value, &of_done, false);
    script.concluded(&done, ChainOutcome::Confirmed, 3);
    project(&*store, &script).await;

    let of_dead = script.reservation(&dead, &value, 8);
    let answer = ask_pending(&*store, &dead, &value, &of_dead).await;
    assert!(is_conflict(&answer), "{answer:?}");
    // An engine that recovers asks for what another has finished.
    let answer = ask_pending(&*store, &done, &value, &of_done).await;
    assert_eq!(answer, AuditAnswer::Done);
    let again = script.reservation(&done, &value, 8);
    let answer = ask_pending(&*store, &done, &value, &again).await;
    assert!(is_conflict(&answer), "{answer:?}");
    let row = store.submission(&done).await.unwrap().expect("a row");
    assert_eq!(
        (row.state, row.nonce),
        (SubmissionState::Confirmed, Some(7))
    );

    // Archived, it still holds its tx_id and its nonce.
    for statement in [
        "INSERT INTO blockchain_submissions_archive
             SELECT * FROM blockchain_submissions WHERE tx_id = 'done'",
        "DELETE FROM blockchain_submissions WHERE tx_id = 'done'",
    ] {
        place.sql(statement).await.expect("archived");
    }
    assert_eq!(store.submission(&done).await.unwrap(), Some(row));
    let answer = ask_pending(&*store, &done, &value, &again).await;
    assert!(is_conflict(&answer), "{answer:?}");
    let other = script.reservation(&tx("x"), &value, 7);
    let answer = ask_pending(&*store, &tx("x"), &value, &other).await;
    assert!(is_conflict(&answer), "{answer:?}");
    // Undone by the chain, it comes back from the archive.
    script.concluded(&done, ChainOutcome::Undone, 3);
    project(&*store, &script).await;
    let pending = Some(SubmissionState::Pending);
    let rows = store.submissions(pending, 10).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].nonce, Some(7));
}

async fn a_reservation_made_anew_waits_for_the_log(place: &dyn Place) {
    let mut script = Script::new();
    let store = open(place, &script).await;
    let (a, value) = (tx("a"), number(1));
    let first = script.reservation(&a, &value, 7);
    let second = script.reservation(&a, &value, 8);
    script
        .decided(&a, &value)
        .reserved(&a, &value, &first, false);
    project(&*store, &script).await;
    let variant = |nonce, number: u8| AuditAsk::Variant {
        tx_id: a.clone(),
        nonce,
        attempt: 0,
        prepared: Prepared {
            tx_hash: vec![number],
            raw: vec![number],
        },
    };
    assert_eq!(store.ask(variant(7, 1)).await, AuditAnswer::Done);

    let answer = ask_pending(&*store, &a, &value, &second).await;
    assert!(matches!(answer, AuditAnswer::Unavailable(_)), "{answer:?}");
    script.reserved(&a, &value, &second, true);
    project(&*store, &script).await;
    let answer = ask_pending(&*store, &a, &value, &second).await;
    assert_eq!(answer, AuditAnswer::Done);
    let answer = ask_pending(&*store, &a, &value, &first).await;
    assert!(is_conflict(&answer), "{answer:?}");
    let row = store.submission(&a).await.unwrap().expect("a row");
    assert_eq!((row.nonce, row.tx_hash), (Some(8), None));

    // What was signed for the nonce that is gone is not offered any more.
    let ask = AuditAsk::Variants { tx_id: a.clone() };
    assert_eq!(store.ask(ask.clone()).await, AuditAnswer::Variants(vec![]));
    // Nor is what a node signs for it that has not heard of the new one yet.
    let answer = store.ask(variant(7, 3)).await;
    assert!(matches!(answer, AuditAnswer::Unavailable(_)), "{answer:?}");
    assert_eq!(store.ask(ask.clone()).await, AuditAnswer::Variants(vec![]));
    assert_eq!(store.ask(variant(8, 2)).await, AuditAnswer::Done);
    let AuditAnswer::Variants(variants) = store.ask(ask).await else {
        panic!("no variants");
    };
    assert_eq!(variants.len(), 1);
    assert_eq!(variants[0].1.raw, [2]);
}

async fn every_variant_is_kept(place: &dyn Place) {
    let script = Script::new();
    let store = open(place, &script).await;
    let (a, value) = (tx("a"), number(1));
    let variant = |attempt, hash: u8, raw: u8| AuditAsk::Variant {
        tx_id: a.clone(),
        nonce: 7,
        attempt,
        prepared: Prepared {
            tx_hash: vec![hash; 32],
            raw: vec![raw; 200],
        },
    };
    let variants = AuditAsk::Variants { tx_id: a.clone() };
    let nothing = AuditAnswer::Variants(vec![]);
    assert_eq!(store.ask(variants.clone()).await, nothing);
    let answer = store.ask(variant(0, 1, 1)).await;
    assert!(
        is_conflict(&answer),
        "a variant without its row: {answer:?}"
    );

    let reservation = script.reservation(&a, &value, 7);
    let answer = ask_pending(&*store, &a, &value, &reservation).await;
    assert_eq!(answer, AuditAnswer::Done);
    // Two submitters sign the first attempt; the second one comes with a higher fee.
    for (attempt, hash) in [(0, 9), (0, 3), (1, 5), (0, 9)] {
        let answer = store.ask(variant(attempt, hash, hash)).await;
        assert_eq!(answer, AuditAnswer::Done);
    }
    let answer = store.ask(variant(2, 5, 6)).await;
    assert!(is_conflict(&answer), "one hash, two contents: {answer:?}");
    let expected = [(0, 9), (0, 3), (1, 5)].map(|(attempt, hash)| {
        let (tx_hash, raw) = (vec![hash; 32], vec![hash; 200]);
        (attempt, Prepared { tx_hash, raw })
    });
    let other = open(place, &script).await;
    let answer = other.ask(variants).await;
    assert_eq!(answer, AuditAnswer::Variants(expected.to_vec()));
    let row = store.submission(&a).await.unwrap().expect("a row");
    assert_eq!(row.tx_hash, Some(vec![5; 32]));
}

async fn attempts_only_grow(place: &dyn Place) {
    let script = Script::new();
    let store = open(place, &script).await;
    let (a, value) = (tx("a"), number(1));
    let attempted = |attempts| AuditAsk::Attempted {
        tx_id: a.clone(),
        attempts,
    };
    let answer = store.ask(attempted(1)).await;
    assert!(is_conflict(&answer), "{answer:?}");
    let reservation = script.reservation(&a, &value, 7);
    let answer = ask_pending(&*store, &a, &value, &reservation).await;
    assert_eq!(answer, AuditAnswer::Done);
    for (attempts, shown) in [(1, 1), (3, 3), (2, 3), (u32::MAX, u32::MAX)] {
        assert_eq!(store.ask(attempted(attempts)).await, AuditAnswer::Done);
        let row = store.submission(&a).await.unwrap().expect("a row");
        assert_eq!(row.attempts, shown);
    }
}

/// Neither loses what the other wrote.
async fn the_log_and_the_engine_may_write_at_once(place: &dyn Place) {
    const COUNT: u64 = 60;
    const ATTEMPTS: u32 = 4;
    let mut script = Script::new();
    let (store, other) = (open(place, &script).await, open(place, &script).await);
    let value = number(1);
    let tx_of = |i: u64| tx(&format!("t{i:02}"));
    for i in 0..COUNT {
        let reservation = script.reservation(&tx_of(i), &value, i);
        script.reserved(&tx_of(i), &value, &reservation, false);
    }
    let prepared = Prepared {
        tx_hash: vec![9; 32],
        raw: vec![7; 10],
    };
    for i in 0..COUNT {
        let (tx_id, reservation) = (tx_of(i), script.reservation(&tx_of(i), &value, i));
        let asking = async {
            let answer = ask_pending(&*other, &tx_id, &value, &reservation).await;
            assert_eq!(answer, AuditAnswer::Done);
            let variant = AuditAsk::Variant {
                tx_id: tx_id.clone(),
                nonce: i,
                attempt: 0,
                prepared: prepared.clone(),
            };
            assert_eq!(other.ask(variant).await, AuditAnswer::Done);
            for attempts in 1..=ATTEMPTS {
                let tx_id = tx_id.clone();
                let asked = other.ask(AuditAsk::Attempted { tx_id, attempts });
                assert_eq!(asked.await, AuditAnswer::Done);
            }
        };
        let projecting = store.project(Mark::at(i), &script.after(i)[..1]);
        let (projected, ()) = tokio::join!(projecting, asking);
        assert_eq!(projected.expect("projected"), i + 1);
    }
    let pending = Some(SubmissionState::Pending);
    let rows = store.submissions(pending, 1000).await.unwrap();
    assert_eq!(rows.len() as u64, COUNT);
    for row in rows {
        let tx_id = &row.tx_id;
        assert_eq!(row.attempts, ATTEMPTS, "{tx_id}");
        assert_eq!(row.tx_hash, Some(vec![9; 32]), "{tx_id}");
    }
}
