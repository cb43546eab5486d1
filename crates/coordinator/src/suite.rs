//! One suite for every backend: [`run_all`] says whether a store keeps what
//! [`Coordinator`] promises. The pure board is its oracle throughout.
//!
//! A backend implements [`Builder`] and [`Store`] in its tests and awaits
//! [`run_all`] on a multi-threaded tokio runtime. A check that fails panics; its
//! name is printed before it runs.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use quorate_consensus::Rules;

use crate::api::Coordinator;

mod log;
mod oracle;
mod submission;
mod support;
mod votes;

/// Makes stores.
#[async_trait]
pub trait Builder: Send + Sync {
    /// A fresh, empty store for the cluster that these rules are the genesis of.
    async fn store(&self, rules: Arc<Rules>) -> Box<dyn Store>;
}

/// One store, whatever it is made of.
#[async_trait]
pub trait Store: Send + Sync {
    /// A further handle on it. It verifies with
    /// [`FakeVerifier`](quorate_testkit::FakeVerifier).
    async fn handle(&self) -> Arc<dyn Coordinator>;

    /// Stops the store as roughly as it must bear, and starts it again. The suite
    /// has dropped its handles before.
    async fn restart(&self);
}

/// No single check may take longer: a store that hangs is to fail, not to hang the
/// tests.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs every check.
///
/// # Panics
/// When a check fails.
pub async fn run_all(builder: &dyn Builder) {
    check("empty store", log::empty_store(builder)).await;
    check("order and contiguity", log::order_and_contiguity(builder)).await;
    check(
        "repeats change nothing",
        log::repeats_change_nothing(builder),
    )
    .await;
    check(
        "refusals leave no entry",
        log::refusals_leave_no_entry(builder),
    )
    .await;
    check("one order for all handles", log::one_order_for_all(builder)).await;
    check(
        "the head is linearizable",
        log::head_is_linearizable(builder),
    )
    .await;
    check("watchers wake", log::watchers_wake(builder)).await;
    check("abandoned proposals", log::abandoned_proposals(builder)).await;
    check(
        "a restart keeps everything",
        log::restart_keeps_all(builder),
    )
    .await;
    check("one first vote", votes::one_first_vote(builder)).await;
    check(
        "only_first adopts",
        votes::only_first_refuses_another(builder),
    )
    .await;
    check(
        "two choices are evidence",
        votes::two_choices_are_evidence(builder),
    )
    .await;
    check(
        "64 voters are counted",
        votes::every_voter_is_counted(builder),
    )
    .await;
    check(
        "66 voters make room",
        votes::every_voter_makes_room(builder),
    )
    .await;
    check("one reservation", submission::one_reservation(builder)).await;
    check(
        "one ballot per nonce",
        submission::one_ballot_per_nonce(builder),
    )
    .await;
    check("a whole life", submission::a_whole_life(builder)).await;
    check("leases", submission::leases(builder)).await;
    check(
        "the board is the oracle",
        oracle::same_as_the_board(builder),
    )
    .await;
}

async fn check(name: &str, run: impl Future<Output = ()>) {
    println!("coordinator suite: {name}");
    let ended = tokio::time::timeout(LIMIT, run).await;
    assert!(ended.is_ok(), "{name}: not done after {LIMIT:?}");
}
