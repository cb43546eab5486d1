//! What must hold for any votes in any order, and for any sequence of operations.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use quorate_consensus::board::{Board, Outcome};
use quorate_consensus::detector::{bans, convict};
use quorate_consensus::wire::board_event::Event;
use quorate_consensus::wire::{
    AccusationKind, BallotState, BoardOp, ChainOutcome, DissentPolicy, OperatorActKind,
    SignedStatement, ViolationType,
};
use quorate_consensus::{Choice, NodeId, TxId, Value};
use quorate_testkit::{Cluster, FakeVerifier, NOW, Options, number, ops, tx};

use crate::support::World;

fn choice(k: u8) -> Choice {
    match k {
        0 => Choice::Abstention,
        k => number(k.into()).into(),
    }
}

fn options(outvote: bool) -> Options {
    match outvote {
        true => Options::default().outvote(),
        false => Options::default(),
    }
}

/// One vote: whose, which choice, milliseconds after [`NOW`].
type Said = (usize, u8, u64);

/// A cluster in which no two majorities can be, and at most two choices of each
/// trustee in two random orders.
#[derive(Clone, Debug)]
struct Case {
    n: usize,
    t: usize,
    outvote: bool,
    one: Vec<Said>,
    other: Vec<Said>,
}

fn cases() -> impl Strategy<Value = Case> {
    (1usize..=7, any::<bool>())
        .prop_flat_map(|(n, outvote)| {
            let votes = prop::collection::vec(
                (
                    prop::option::weighted(0.9, 0u8..4),
                    prop::option::weighted(0.2, 0u8..4),
                    0u64..20_000,
                ),
                n,
            );
            (Just(n), n / 2 + 1..=n, Just(outvote), votes)
        })
        .prop_flat_map(|(n, t, outvote, votes)| {
            let mut said: Vec<Said> = Vec::new();
            for (i, (first, second, at)) in votes.into_iter().enumerate() {
                said.extend([first, second].into_iter().flatten().map(|k| (i, k, at)));
            }
            let shuffled = Just(said.clone()).prop_shuffle();
            (Just((n, t, outvote, said)), shuffled)
        })
        .prop_map(|((n, t, outvote, one), other)| Case {
            n,
            t,
            outvote,
            one,
            other,
        })
}

/// Records the votes in this order and makes every move as soon as it is given.
fn run(cluster: &Cluster, said: &[Said]) -> Board {
    let mut board = Board::new(cluster.rules().clone());
    let a = tx("a");
    for (i, k, at) in said {
        let vote = cluster.vote(*i, &a, choice(*k), NOW + at);
        board
            .apply(&ops::record_vote(vote), NOW + 20_000, &FakeVerifier)
            .unwrap();
        while let Some(next) = board.next_move(&a, NOW + 20_000) {
            let moved = board.apply(&ops::advance(&a, next.to), NOW + 20_000, &FakeVerifier);
            assert!(matches!(moved, Ok(Outcome::Applied(_))));
        }
    }
    board
}

fn found(board: &Board) -> BTreeSet<(NodeId, ViolationType)> {
    let violations = board.ballots().flat_map(|b| &b.violations);
    violations.map(|v| (v.node_id.clone(), v.kind)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_order_of_arrival_changes_neither_state_nor_violations(case in cases()) {
        let cluster = Cluster::with(case.n, case.t, options(case.outvote));
        let (one, other) = (run(&cluster, &case.one), run(&cluster, &case.other));
        prop_assert_eq!(found(&one), found(&other));
        let (Some(one), Some(other)) = (one.ballot(&tx("a")), other.ballot(&tx("a"))) else {
            prop_assert!(case.one.is_empty());
            return Ok(());
        };
        prop_assert_eq!(one.violations.len(), other.violations.len());
        for violation in one.violations.iter().chain(&other.violations) {
            let evidence = violation.misbehaviour.as_ref().unwrap();
            let conviction = convict(evidence, cluster.rules(), &FakeVerifier).unwrap();
            prop_assert_eq!(&conviction.node_id, &violation.node_id);
            prop_assert_eq!(conviction.kind, violation.kind);
            prop_assert!(bans(conviction.kind, cluster.rules()));
        }
        // Under `abort` two choices end a ballot that may have split before: rows 5
        // against 2 and 3 are what the design lets depend on the order.
        let ends = |state| {
            matches!(state, BallotState::AbortedByzantine | BallotState::AbortedSplit)
        };
        if !case.outvote && !one.second_votes.is_empty() {
            prop_assert!(ends(one.state) && ends(other.state));
        } else {
            prop_assert_eq!(one.state, other.state);
            prop_assert_eq!(&one.value, &other.value);
        }
        prop_assert_eq!(one.deadline_ms(), other.deadline_ms());
    }

    #[test]
    fn nothing_is_decided_under_t_identical_votes(case in cases()) {
        let cluster = Cluster::with(case.n, case.t, options(case.outvote));
        let mut board = Board::new(cluster.rules().clone());
        let a = tx("a");
        // The obvious way: every vote in a list, counted anew each time.
        let mut votes: Vec<(usize, Choice)> = Vec::new();
        let mut liars = BTreeSet::new();
        for (i, k, at) in &case.one {
            let vote = cluster.vote(*i, &a, choice(*k), NOW + at);
            board.apply(&ops::record_vote(vote), NOW + 20_000, &FakeVerifier).unwrap();
            match votes.iter().find(|(j, _)| j == i) {
                Some((_, first)) if *first != choice(*k) => { liars.insert(*i); }
                Some(_) => {}
                None => votes.push((*i, choice(*k))),
            }
            let slow = |value: &Value| {
                let counts = |(i, choice): &&(usize, Choice)| {
                    choice.value() == Some(value) && !(case.outvote && liars.contains(i))
                };
                votes.iter().filter(counts).count()
            };
            if let Some(next) = board.next_move(&a, NOW + 20_000) {
                if next.to == BallotState::ThresholdReached {
                    prop_assert!(slow(next.value.as_ref().unwrap()) >= case.t);
                }
                board.apply(&ops::advance(&a, next.to), NOW + 20_000, &FakeVerifier).unwrap();
            }
            let ballot = board.ballot(&a).unwrap();
            let reached = (1..4).any(|k| slow(&number(k)) >= case.t);
            if ballot.state == BallotState::Collecting {
                // Struck back, it may have one more move to make; never the reverse.
                prop_assert!(!reached || board.next_move(&a, NOW + 20_000).is_some());
            }
            if ballot.state == BallotState::ThresholdReached {
                let value = ballot.value.as_ref().unwrap();
                prop_assert!(slow(value) >= case.t);
                prop_assert_eq!(ballot.counts()[value], slow(value));
                prop_assert_eq!(ballot.deciding_votes().len(), case.t);
            }
        }
    }

    #[test]
    fn a_second_choice_is_evidence_unless_memory_may_have_been_lost(
        first in 0u8..4,
        second in 0u8..4,
        apart in 0u64..400_000,
        outvote in any::<bool>(),
    ) {
        prop_assume!(first != second);
        let cluster = Cluster::with(5, 4, options(outvote));
        let mut board = Board::new(cluster.rules().clone());
        let a = tx("a");
        let op = |k, at| ops::record_vote(cluster.vote(2, &a, choice(k), at));
        board.apply(&op(first, NOW), NOW, &FakeVerifier).unwrap();
        let outcome = board.apply(&op(second, NOW + apart), NOW + apart, &FakeVerifier).unwrap();
        let ballot = board.ballot(&a).unwrap();
        if apart <= cluster.rules().vote_lifetime_ms() {
            prop_assert!(matches!(outcome, Outcome::Applied(_)));
            let evidence = ballot.violations[0].misbehaviour.as_ref().unwrap();
            let conviction = convict(evidence, cluster.rules(), &FakeVerifier).unwrap();
            prop_assert_eq!(conviction.node_id, cluster.node_id(2));
            prop_assert_eq!(conviction.kind, ViolationType::DoubleVoting);
        } else {
            prop_assert_eq!(outcome, Outcome::Unchanged);
            prop_assert!(ballot.violations.is_empty());
        }
    }
}

/// Something that somebody asks of the board, sensible or not.
#[derive(Clone, Debug)]
enum Ask {
    Vote {
        tx: u8,
        i: usize,
        k: u8,
        back: u64,
        only_first: bool,
    },
    Advance {
        tx: u8,
        to: i32,
    },
    Follow {
        tx: u8,
    },
    Reserve {
        tx: u8,
        nonce: Option<u64>,
        taken: bool,
    },
    Certify {
        tx: u8,
        right: bool,
    },
    Conclude {
        tx: u8,
        outcome: i32,
    },
    ProveAbort {
        tx: u8,
    },
    Ban {
        tx: u8,
        which: usize,
    },
    BanAccused {
        i: usize,
        from: usize,
    },
    BanSilent {
        i: usize,
    },
    Unban {
        i: usize,
    },
    GiveUp {
        tx: u8,
    },
    Accuse {
        i: usize,
        accused: usize,
        kind: i32,
    },
    MarkSilent {
        tx: u8,
    },
    Expire {
        tx: u8,
    },
    Boot {
        i: usize,
        generation: u64,
    },
    Lease {
        tx: u8,
        i: usize,
        ttl: u64,
    },
    Release {
        tx: u8,
        i: usize,
    },
    Collect {
        tx: u8,
    },
    Wait {
        ms: u64,
    },
}

fn asks() -> impl Strategy<Value = Ask> {
    let tx = || 0u8..3;
    let i = || 0usize..5;
    prop_oneof![
        12 => (tx(), i(), 0u8..3, prop_oneof![9 => 0u64..2_000, 1 => 0u64..400_000], any::<bool>())
            .prop_map(|(tx, i, k, back, only_first)| {
                // Mostly one value, or nothing would ever be decided.
                let k = if back % 4 == 0 { k } else { 1 };
                Ask::Vote { tx, i, k, back, only_first }
            }),
        2 => (tx(), 0i32..10).prop_map(|(tx, to)| Ask::Advance { tx, to }),
        6 => tx().prop_map(|tx| Ask::Follow { tx }),
        4 => (tx(), prop::option::weighted(0.1, 0u64..12), any::<bool>())
            .prop_map(|(tx, nonce, taken)| Ask::Reserve { tx, nonce, taken }),
        3 => (tx(), prop::bool::weighted(0.8)).prop_map(|(tx, right)| Ask::Certify { tx, right }),
        4 => (tx(), 1i32..6).prop_map(|(tx, outcome)| Ask::Conclude { tx, outcome }),
        1 => tx().prop_map(|tx| Ask::ProveAbort { tx }),
        2 => (tx(), 0usize..4).prop_map(|(tx, which)| Ask::Ban { tx, which }),
        1 => (i(), i()).prop_map(|(i, from)| Ask::BanAccused { i, from }),
        1 => i().prop_map(|i| Ask::BanSilent { i }),
        1 => i().prop_map(|i| Ask::Unban { i }),
        1 => tx().prop_map(|tx| Ask::GiveUp { tx }),
        1 => (i(), i(), 1i32..4).prop_map(|(i, accused, kind)| Ask::Accuse { i, accused, kind }),
        1 => tx().prop_map(|tx| Ask::MarkSilent { tx }),
        1 => tx().prop_map(|tx| Ask::Expire { tx }),
        1 => (i(), 0u64..4).prop_map(|(i, generation)| Ask::Boot { i, generation }),
        1 => (tx(), i(), 0u64..70_000).prop_map(|(tx, i, ttl)| Ask::Lease { tx, i, ttl }),
        1 => (tx(), i()).prop_map(|(tx, i)| Ask::Release { tx, i }),
        1 => tx().prop_map(|tx| Ask::Collect { tx }),
        4 => prop_oneof![
            8 => 0u64..3_000,
            2 => 0u64..400_000,
            1 => Just(90_000_000u64),
        ].prop_map(|ms| Ask::Wait { ms }),
    ]
}

fn name(k: u8) -> TxId {
    tx(&format!("t{k}"))
}

fn build(w: &mut World, ask: &Ask) -> Option<BoardOp> {
    let c = w.cluster.clone();
    let now = w.now;
    let statements = |say: &dyn Fn(&Cluster, usize) -> SignedStatement| c.of_threshold(say);
    Some(match *ask {
        Ask::Wait { ms } => {
            w.now += ms;
            return None;
        }
        Ask::Vote {
            tx,
            i,
            k,
            back,
            only_first,
        } => {
            let vote = c.vote(i, &name(tx), choice(k), now - back);
            if only_first {
                ops::record_first_vote(vote)
            } else {
                ops::record_vote(vote)
            }
        }
        Ask::Advance { tx, to } => {
            ops::advance(&name(tx), BallotState::try_from(to).unwrap_or_default())
        }
        Ask::Follow { tx } => ops::advance(&name(tx), w.board.next_move(&name(tx), now)?.to),
        Ask::Reserve { tx, nonce, taken } => {
            let tx = name(tx);
            let ballot = w.board.ballot(&tx)?;
            let mut reservation = w.board.next_reservation(ballot)?;
            reservation.nonce = nonce.unwrap_or(reservation.nonce);
            let observations = match &ballot.reservation {
                Some(current) if taken => {
                    statements(&|c, i| c.observation(i, &tx, current, ChainOutcome::NonceTaken))
                }
                _ => Vec::new(),
            };
            ops::reserve_anew(&tx, reservation, observations)
        }
        Ask::Certify { tx, right } => {
            let tx = name(tx);
            let ballot = w.board.ballot(&tx)?;
            let value = if right {
                ballot.value.clone()?
            } else {
                number(99)
            };
            let reservation = ballot.reservation.clone();
            ops::certify(
                &tx,
                statements(&|c, i| c.decision(i, &tx, &value, reservation.as_ref())),
            )
        }
        Ask::Conclude { tx, outcome } => {
            let tx = name(tx);
            let ballot = w.board.ballot(&tx)?;
            let (reservation, round) = (ballot.reservation.clone()?, ballot.round);
            let outcome = ChainOutcome::try_from(outcome).ok()?;
            let saw = |c: &Cluster, i| c.observation_in_round(i, &tx, &reservation, outcome, round);
            ops::conclude(&tx, statements(&saw))
        }
        Ask::ProveAbort { tx } => {
            let tx = name(tx);
            let reason = quorate_consensus::wire::AbortReason::Byzantine;
            ops::prove_abort(&tx, statements(&|c, i| c.abort(i, &tx, reason)))
        }
        Ask::Ban { tx, which } => {
            let violation = w.board.ballot(&name(tx))?.violations.get(which)?;
            ops::ban_for(&violation.node_id, violation.misbehaviour.clone()?)
        }
        Ask::BanAccused { i, from } => {
            let by = (0..5).filter(|by| *by != from).take(c.t());
            let list = by
                .map(|by| c.accusation(by, i, AccusationKind::Malformed, NOW))
                .collect();
            ops::ban_accused(&c.node_id(i), list)
        }
        Ask::BanSilent { i } => ops::ban_silent(&c.node_id(i)),
        Ask::Unban { i } => {
            let id = c.node_id(i);
            let ban = w.board.member(&id)?.ban.as_ref()?;
            let digest = quorate_consensus::detector::proof_digest(&ban.proof);
            ops::unban(
                &id,
                statements(&|c, i| {
                    c.act(i, OperatorActKind::Unban, id.as_str(), vec![digest], now)
                }),
            )
        }
        Ask::GiveUp { tx } => {
            let tx = name(tx);
            ops::give_up(
                &tx,
                statements(&|c, i| c.act(i, OperatorActKind::GiveUp, tx.as_str(), vec![], now)),
            )
        }
        Ask::Accuse { i, accused, kind } => {
            let kind = AccusationKind::try_from(kind).ok()?;
            ops::accuse(c.accusation(i, accused, kind, NOW))
        }
        Ask::MarkSilent { tx } => ops::mark_silent(&name(tx)),
        Ask::Expire { tx } => ops::expire(&name(tx)),
        Ask::Boot { i, generation } => ops::boot(c.boot(i, generation, NOW)),
        Ask::Lease { tx, i, ttl } => ops::lease(&name(tx), &c.node_id(i), ttl),
        Ask::Release { tx, i } => ops::release(&name(tx), &c.node_id(i)),
        Ask::Collect { tx } => ops::collect(&name(tx)),
    })
}

/// What must hold on a board at any time.
fn check(w: &World) {
    let mut unstarted: BTreeMap<NodeId, usize> = BTreeMap::new();
    for ballot in w.board.ballots() {
        if ballot.is_open() && !ballot.is_started() {
            for node_id in ballot.votes.keys() {
                *unstarted.entry(node_id.clone()).or_default() += 1;
            }
        }
        assert!(w.board.view(&ballot.tx_id).is_some());
        let decided = matches!(
            ballot.state,
            BallotState::Submitted | BallotState::Confirmed | BallotState::Failed
        );
        assert_eq!(ballot.reservation.is_some(), decided);
        if decided {
            assert_eq!(ballot.deciding_votes().len(), w.cluster.t());
        }
        if ballot.state == BallotState::Confirmed {
            assert!(ballot.certificate.is_some());
        }
        let noted: BTreeSet<_> = ballot
            .violations
            .iter()
            .map(|v| (&v.node_id, v.kind))
            .collect();
        assert_eq!(noted.len(), ballot.violations.len(), "noted twice");
    }
    for member in w.cluster.rules().members() {
        let state = w.board.member(&member.node_id).unwrap();
        assert!(state.reputation <= 1_000);
        assert_eq!(
            state.unstarted,
            unstarted.get(&member.node_id).copied().unwrap_or(0)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// [`World`] checks on the way that refusals change nothing, that repetitions
    /// have no effect, and that a replay of the log gives the same board.
    #[test]
    fn any_sequence_of_operations(
        asks in prop::collection::vec(asks(), 0..120),
        outvote in any::<bool>(),
        t in 2usize..5,
    ) {
        let mut w = World::new(5, t, options(outvote).ban_silence());
        for ask in &asks {
            let Some(op) = build(&mut w, ask) else { continue };
            let given = match ask {
                Ask::Advance { tx, .. } | Ask::Follow { tx } => w.board.next_move(&name(*tx), w.now),
                _ => None,
            };
            let result = w.apply(&op);
            if let Ask::Advance { to, .. } = ask {
                let applied = matches!(result, Ok(Outcome::Applied(_)));
                prop_assert_eq!(applied, given.is_some_and(|m| i32::from(m.to) == *to));
            }
            check(&w);
        }
        let mut first: BTreeSet<String> = BTreeSet::new();
        let mut nonces: BTreeSet<u64> = BTreeSet::new();
        for event in w.log.iter().flat_map(|entry| &entry.events) {
            if let Some(Event::Reserved(reserved)) = &event.event {
                let nonce = reserved.reservation.as_ref().unwrap().nonce;
                prop_assert!(nonces.insert(nonce), "nonce {} was given twice", nonce);
                prop_assert!(reserved.anew || first.insert(event.tx_id.clone()));
            }
        }
        prop_assert!(nonces.iter().copied().eq(7..7 + nonces.len() as u64), "no gaps");
        prop_assert!(w.cluster.rules().dissent() != DissentPolicy::Unspecified);
    }
}
