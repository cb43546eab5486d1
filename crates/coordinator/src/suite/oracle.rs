//! Random operations, one after the other through several handles: the store must
//! answer each as the pure board does, and end with the same board.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};
use quorate_consensus::ballot::is_final;
use quorate_consensus::board::{Board, RETENTION_MS};
use quorate_consensus::detector::proof_digest;
use quorate_consensus::wire::{
    AbortReason, AccusationKind, BallotState, BoardOp, ChainOutcome, OperatorActKind, Reservation,
    SignedStatement,
};
use quorate_consensus::{Choice, TxId};
use quorate_testkit::{Cluster, NOW, Options, number, ops, tx};

use super::support::{Handle, Mirror, expected};
use super::{Builder, LIMIT, Store};

/// Sequences tried; each takes a store of its own.
const CASES: u32 = 48;

/// Handles that a sequence goes through.
const HANDLES: usize = 3;

/// One operation, still to be filled in from what the board then says.
#[derive(Clone, Debug)]
enum Step {
    Vote {
        member: usize,
        tx: usize,
        choice: u8,
        first: bool,
        forged: bool,
        off_ms: i64,
    },
    /// Whatever a ballot needs next on its way to CONFIRMED, when it is due; so that
    /// sequences get far.
    Further(usize),
    /// What the table gives now, or any state.
    Advance(usize, Option<i32>),
    /// The right reservation, or one with a wrong nonce.
    Reserve(usize, bool),
    /// So many decisions more or less than t.
    Certify(usize, isize),
    Conclude(usize, i32),
    ReserveAnew(usize),
    ProveAbort(usize, i32),
    Accuse(usize, usize),
    BanAccused(usize),
    BanProven(usize),
    BanSilent(usize),
    Unban(usize),
    GiveUp(usize),
    MarkSilent(usize),
    Expire(usize),
    Collect(usize),
    Boot(usize, u64),
    Lease(usize, usize, u64),
    Release(usize, usize),
    /// An operation proposed before.
    Again(usize),
    Empty,
}

/// A step, the handle it goes through, and the milliseconds that pass before it;
/// negative ones are a proposer whose clock is behind, for this operation only.
type Timed = (Step, usize, i64);

pub(super) async fn same_as_the_board(builder: &dyn Builder) {
    let variants = variants();
    let config = Config {
        cases: CASES,
        max_shrink_iters: 400,
        failure_persistence: None,
        ..Config::default()
    };
    let steps = prop::collection::vec(timed(), 1..120);
    let runtime = tokio::runtime::Handle::current();
    let result = tokio::task::block_in_place(|| {
        TestRunner::new(config).run(&(0..variants.len(), steps), |(variant, steps)| {
            let cluster = &variants[variant];
            let case = async {
                let store = builder.store(cluster.rules().clone()).await;
                run(&*store, cluster, &steps).await;
            };
            let ended = runtime.block_on(async { tokio::time::timeout(LIMIT, case).await });
            prop_assert!(ended.is_ok(), "the store hangs");
            Ok(())
        })
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(why, (variant, steps))) => {
            panic!("{why}\nwith rules {variant} and {steps:#?}")
        }
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

/// Rules that take different rows of the table; times short, so that they end.
fn variants() -> Vec<Cluster> {
    let options = Options::default().times(2_000, 100, 500);
    vec![
        Cluster::with(5, 4, options.clone()),
        Cluster::with(4, 2, options.clone()),
        Cluster::with(5, 3, options.clone().outvote()),
        Cluster::with(3, 2, options.ban_silence()),
    ]
}

fn timed() -> impl Strategy<Value = Timed> {
    let passing = prop_oneof![
        8 => Just(0_i64),
        6 => 1..60_i64,
        2 => Just(100_i64),
        1 => 500..3_000_i64,
        1 => -200..0_i64,
    ];
    (step(), 0..HANDLES, passing)
}

fn step() -> impl Strategy<Value = Step> {
    let (member, tx) = (0..5_usize, 0..4_usize);
    let vote = (
        member.clone(),
        tx.clone(),
        // Mostly one value, so that ballots decide.
        prop_oneof![12 => Just(0_u8), 2 => Just(1), 1 => Just(2)],
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.03),
        prop_oneof![8 => Just(0_i64), 1 => -4_000..1_000_i64],
    );
    let vote = vote.prop_map(|(member, tx, choice, first, forged, off_ms)| Step::Vote {
        member,
        tx,
        choice,
        first,
        forged,
        off_ms,
    });
    let about = |weight, make: fn(usize) -> Step| (weight, tx.clone().prop_map(make).boxed());
    let of = |weight, make: fn(usize) -> Step| (weight, member.clone().prop_map(make).boxed());
    let mut all = vec![
        (40, vote.boxed()),
        (
            12,
            tx.clone().prop_map(|tx| Step::Advance(tx, None)).boxed(),
        ),
        (
            2,
            (tx.clone(), 0..10_i32)
                .prop_map(|(tx, to)| Step::Advance(tx, Some(to)))
                .boxed(),
        ),
        (
            3,
            (tx.clone(), prop::bool::weighted(0.7))
                .prop_map(|(tx, right)| Step::Reserve(tx, right))
                .boxed(),
        ),
        (
            6,
            (
                tx.clone(),
                prop_oneof![9 => Just(0_isize), 1 => -1..2_isize],
            )
                .prop_map(|(tx, more)| Step::Certify(tx, more))
                .boxed(),
        ),
        (
            4,
            (tx.clone(), prop_oneof![3 => Just(1_i32), 2 => 2..7_i32])
                .prop_map(|(tx, outcome)| Step::Conclude(tx, outcome))
                .boxed(),
        ),
        (
            3,
            (tx.clone(), 0..4_i32)
                .prop_map(|(tx, reason)| Step::ProveAbort(tx, reason))
                .boxed(),
        ),
        (
            6,
            (member.clone(), member.clone())
                .prop_map(|(by, of)| Step::Accuse(by, of))
                .boxed(),
        ),
        (
            2,
            (member.clone(), 0..4_u64)
                .prop_map(|(member, generation)| Step::Boot(member, generation))
                .boxed(),
        ),
        (
            4,
            (tx.clone(), member.clone(), 0..2_000_u64)
                .prop_map(|(tx, member, ttl)| Step::Lease(tx, member, ttl))
                .boxed(),
        ),
        (
            2,
            (tx.clone(), member.clone())
                .prop_map(|(tx, member)| Step::Release(tx, member))
                .boxed(),
        ),
        (10, (0..200_usize).prop_map(Step::Again).boxed()),
        (1, Just(Step::Empty).boxed()),
    ];
    all.extend([
        about(60, Step::Further),
        about(1, Step::ReserveAnew),
        about(1, Step::GiveUp),
        about(3, Step::MarkSilent),
        about(3, Step::Expire),
        about(2, Step::Collect),
        of(1, Step::BanAccused),
        of(3, Step::BanProven),
        of(2, Step::BanSilent),
        of(2, Step::Unban),
    ]);
    prop::strategy::Union::new_weighted(all)
}

/// Runs a sequence through the store and through the oracle.
async fn run(store: &dyn Store, cluster: &Cluster, steps: &[Timed]) {
    let mut handles: Vec<Handle> = Vec::new();
    for _ in 0..HANDLES {
        handles.push(store.handle().await);
    }
    let mut oracle = Mirror::new(cluster);
    let mut proposed = Vec::new();
    let mut clock = NOW;
    for (step, handle, passed) in steps {
        clock += u64::try_from(*passed).unwrap_or(0);
        let now_ms = clock.saturating_add_signed((*passed).min(0));
        let (op, now_ms) = fill_in(step, cluster, &oracle.board, &proposed, now_ms);
        clock = clock.max(now_ms);
        let (answer, entry) = expected(&mut oracle.board, &op, now_ms);
        oracle.entries.extend(entry);
        let found = handles[*handle].propose(op.clone(), now_ms).await;
        assert_eq!(found, answer, "the answer to {op:?}");
        proposed.push(op);
    }
    for handle in &handles {
        let mirror = Mirror::of(cluster, handle).await;
        assert_eq!(mirror.entries, oracle.entries);
        assert_eq!(mirror.board, oracle.board);
        for i in 0..4 {
            let view = mirror.board.view(&ballot_of(i));
            assert_eq!(view, oracle.board.view(&ballot_of(i)));
        }
    }
    drop(handles);
    store.restart().await;
    let handle = store.handle().await;
    assert_eq!(Mirror::of(cluster, &handle).await.board, oracle.board);
}

fn ballot_of(i: usize) -> TxId {
    tx(&format!("tx{i}"))
}

fn choice_of(number_or_none: u8) -> Choice {
    match number_or_none {
        2 => Choice::Abstention,
        i => number(i.into()).into(),
    }
}

/// The operation that a step means on this board, and its time.
fn fill_in(
    step: &Step,
    cluster: &Cluster,
    board: &Board,
    proposed: &[BoardOp],
    now_ms: u64,
) -> (BoardOp, u64) {
    let member = |i: &usize| i % cluster.n();
    let id = |i: &usize| cluster.node_id(i % cluster.n());
    let op = match step {
        Step::Vote {
            member: i,
            tx,
            choice,
            first,
            forged,
            off_ms,
        } => {
            let time_ms = now_ms.saturating_add_signed(*off_ms);
            let mut vote = cluster.vote(member(i), &ballot_of(*tx), choice_of(*choice), time_ms);
            if *forged {
                vote.signature[0] ^= 1;
            }
            match first {
                true => ops::record_first_vote(vote),
                false => ops::record_vote(vote),
            }
        }
        Step::Further(tx) => return further(cluster, board, *tx, now_ms),
        Step::Advance(tx, to) => {
            let tx_id = ballot_of(*tx);
            let due = || board.next_move(&tx_id, now_ms).map(|next| next.to);
            let to = to.map_or_else(due, |to| BallotState::try_from(to).ok());
            ops::advance(&tx_id, to.unwrap_or_default())
        }
        Step::Reserve(tx, right) => {
            let mut reservation = due_reservation(board, *tx);
            reservation.nonce += u64::from(!right);
            ops::reserve(&ballot_of(*tx), reservation)
        }
        Step::Certify(tx, more) => {
            let count = cluster.t().saturating_add_signed(*more);
            ops::certify(&ballot_of(*tx), decided(cluster, board, *tx, count))
        }
        Step::Conclude(tx, outcome) => {
            let outcome = ChainOutcome::try_from(*outcome).unwrap_or_default();
            ops::conclude(&ballot_of(*tx), observed(cluster, board, *tx, outcome))
        }
        Step::ReserveAnew(tx) => {
            let seen = observed(cluster, board, *tx, ChainOutcome::NonceTaken);
            ops::reserve_anew(&ballot_of(*tx), due_reservation(board, *tx), seen)
        }
        Step::ProveAbort(tx, reason) => {
            let tx_id = ballot_of(*tx);
            let reason = match board.ballot(&tx_id).map(|ballot| ballot.state) {
                Some(BallotState::AbortedByzantine) => AbortReason::Byzantine,
                Some(BallotState::AbortedSplit) => AbortReason::Split,
                Some(BallotState::AbortedTimeout) => AbortReason::Timeout,
                _ => AbortReason::try_from(*reason).unwrap_or_default(),
            };
            ops::prove_abort(
                &tx_id,
                cluster.of_threshold(|c, i| c.abort(i, &tx_id, reason)),
            )
        }
        Step::Accuse(by, of) => {
            let kind = AccusationKind::Malformed;
            ops::accuse(cluster.accusation(member(by), member(of), kind, now_ms))
        }
        Step::BanAccused(of) => {
            let accusations = board.member(&id(of)).map(|state| &state.accusations);
            let accusations = accusations.into_iter().flat_map(|all| all.values());
            let signed = accusations.map(|accusation| accusation.signed.clone());
            ops::ban_accused(&id(of), signed.take(cluster.t()).collect())
        }
        Step::BanProven(of) => {
            let found = board.ballots().flat_map(|ballot| &ballot.violations);
            let mut proofs = found
                .filter(|violation| violation.node_id == id(of))
                .filter_map(|violation| violation.misbehaviour.clone());
            ops::ban_for(&id(of), proofs.next().unwrap_or_default())
        }
        Step::BanSilent(of) => ops::ban_silent(&id(of)),
        Step::Unban(of) => {
            let ban = board.member(&id(of)).and_then(|state| state.ban.as_ref());
            let pardoned: Vec<_> = ban
                .map(|ban| proof_digest(&ban.proof))
                .into_iter()
                .collect();
            let kind = OperatorActKind::Unban;
            let acts = cluster
                .of_threshold(|c, i| c.act(i, kind, id(of).as_str(), pardoned.clone(), now_ms));
            ops::unban(&id(of), acts)
        }
        Step::GiveUp(tx) => {
            let tx_id = ballot_of(*tx);
            let kind = OperatorActKind::GiveUp;
            let acts = cluster.of_threshold(|c, i| c.act(i, kind, tx_id.as_str(), vec![], now_ms));
            ops::give_up(&tx_id, acts)
        }
        Step::MarkSilent(tx) => ops::mark_silent(&ballot_of(*tx)),
        Step::Expire(tx) => ops::expire(&ballot_of(*tx)),
        Step::Collect(tx) => {
            let ended = board.ballot(&ballot_of(*tx)).filter(|b| is_final(b.state));
            let due = ended.map(|ballot| ballot.since_ms + RETENTION_MS);
            return (ops::collect(&ballot_of(*tx)), due.unwrap_or(now_ms));
        }
        Step::Boot(i, generation) => {
            // Generation 0 is refused: it is none.
            ops::boot(cluster.boot(member(i), *generation, now_ms))
        }
        Step::Lease(tx, i, ttl_ms) => ops::lease(&ballot_of(*tx), &id(i), *ttl_ms),
        Step::Release(tx, i) => ops::release(&ballot_of(*tx), &id(i)),
        Step::Again(i) => match proposed.len() {
            0 => BoardOp::default(),
            len => proposed[i % len].clone(),
        },
        Step::Empty => BoardOp::default(),
    };
    (op, now_ms)
}

/// The next step of a ballot's life, at the time when it is due.
fn further(cluster: &Cluster, board: &Board, tx: usize, now_ms: u64) -> (BoardOp, u64) {
    let tx_id = ballot_of(tx);
    let Some(ballot) = board.ballot(&tx_id) else {
        return (ops::expire(&tx_id), now_ms);
    };
    if let Some(next) = board.next_move(&tx_id, now_ms) {
        return (ops::advance(&tx_id, next.to), now_ms);
    }
    let op = match ballot.state {
        BallotState::Collecting => {
            let voted = |i: &usize| ballot.votes.contains_key(&cluster.node_id(*i));
            let next = (0..cluster.n()).find(|i| !voted(i)).unwrap_or_default();
            ops::record_vote(cluster.vote(next, &tx_id, number(0), now_ms))
        }
        BallotState::ThresholdReached => {
            let due = ballot.settled_ms().unwrap_or_default().max(now_ms);
            return (ops::reserve(&tx_id, due_reservation(board, tx)), due);
        }
        BallotState::Submitted if ballot.lease.is_none() => {
            ops::lease(&tx_id, &cluster.node_id(tx % cluster.n()), 1_000)
        }
        BallotState::Submitted if ballot.certificate.is_none() => {
            ops::certify(&tx_id, decided(cluster, board, tx, cluster.t()))
        }
        BallotState::Submitted => ops::conclude(
            &tx_id,
            observed(cluster, board, tx, ChainOutcome::Confirmed),
        ),
        _ => ops::mark_silent(&tx_id),
    };
    (op, now_ms)
}

/// Decisions of so many members, as the board has the ballot.
fn decided(cluster: &Cluster, board: &Board, tx: usize, count: usize) -> Vec<SignedStatement> {
    let tx_id = ballot_of(tx);
    let ballot = board.ballot(&tx_id);
    let value = ballot.and_then(|b| b.value.clone()).unwrap_or(number(0));
    let reservation = made_reservation(board, tx);
    let signers = (0..count).map(|i| i % cluster.n());
    signers
        .map(|i| cluster.decision(i, &tx_id, &value, Some(&reservation)))
        .collect()
}

fn due_reservation(board: &Board, tx: usize) -> Reservation {
    let ballot = board.ballot(&ballot_of(tx));
    let due = ballot.and_then(|ballot| board.next_reservation(ballot));
    due.unwrap_or_default()
}

fn made_reservation(board: &Board, tx: usize) -> Reservation {
    let ballot = board.ballot(&ballot_of(tx));
    let made = ballot.and_then(|ballot| ballot.reservation.clone());
    made.unwrap_or_default()
}

fn observed(
    cluster: &Cluster,
    board: &Board,
    tx: usize,
    outcome: ChainOutcome,
) -> Vec<SignedStatement> {
    let (tx_id, reservation) = (ballot_of(tx), made_reservation(board, tx));
    let round = board.ballot(&tx_id).map_or(0, |ballot| ballot.round);
    cluster.of_threshold(|c, i| c.observation_in_round(i, &tx_id, &reservation, outcome, round))
}
