//! A crash between any two effects of any node, lost disks, old stores, and a second
//! machine with the same keys.

mod world;

use std::collections::BTreeMap;

use quorate_consensus::statement::{self, VoteBody};
use quorate_consensus::wire::BallotState;
use quorate_consensus::{Choice, Domain, TxId};
use quorate_engine::{Alert, Effect, Reject, Wait};
use quorate_testkit::{Cluster, Options, number, ops, tx};
use world::World;

fn four() -> World {
    World::new(Cluster::with(
        4,
        3,
        Options::default().times(20_000, 100, 1_000),
    ))
}

/// What must hold of everything that was ever signed.
fn check_signatures(world: &World) {
    let mut choices: BTreeMap<(usize, TxId), Choice> = BTreeMap::new();
    let mut verdicts: BTreeMap<(usize, String), Domain> = BTreeMap::new();
    for (node, domain, bytes) in &world.signed {
        match domain {
            Domain::Vote => {
                let (_, vote) = statement::parse::<VoteBody>(bytes).unwrap();
                let first = choices
                    .entry((*node, vote.tx_id))
                    .or_insert(vote.choice.clone());
                assert_eq!(*first, vote.choice, "node {node} signed two choices");
            }
            Domain::Decision | Domain::Abort => {
                // Both statements start with cluster, rules and tx_id alike.
                let tx_id = match domain {
                    Domain::Decision => {
                        statement::parse::<statement::DecisionBody>(bytes)
                            .unwrap()
                            .1
                            .tx_id
                    }
                    _ => {
                        statement::parse::<statement::AbortBody>(bytes)
                            .unwrap()
                            .1
                            .tx_id
                    }
                };
                let first = verdicts
                    .entry((*node, tx_id.to_string()))
                    .or_insert(*domain);
                assert_eq!(first, domain, "node {node} signed a decision and an abort");
            }
            _ => {}
        }
    }
}

/// Three votes, confirmed on every node's mirror; gives the number of effects.
fn run_with_crash(at: Option<u64>) -> u64 {
    let mut world = four();
    let id = tx("tx_001");
    let before = world.effects;
    if let Some(at) = at {
        let mut seen = 0;
        world.crash = Some(Box::new(move |_, _| {
            seen += 1;
            seen == at
        }));
    }
    let mut recorded = Vec::new();
    for i in 0..3 {
        recorded.push((i, world.submit(i, &id, number(42), Wait::Recorded)));
    }
    let mut waited = 0;
    while (0..4).any(|i| {
        world.nodes[i].engine.as_ref().is_none_or(|engine| {
            engine
                .board()
                .ballot(&id)
                .is_none_or(|b| b.state != BallotState::Confirmed)
        })
    }) {
        world.run(50);
        waited += 50;
        assert!(
            waited < 60_000,
            "crash at {at:?}: not confirmed{}",
            world.story()
        );
        for i in 0..4 {
            if world.nodes[i].engine.is_none() {
                world.run(500);
                world.restart(i);
                // The client lost its connection and hands the same vote in again.
                world.until(|w| w.engine(i).is_in_service());
                world.submit(i, &id, number(42), Wait::Recorded);
            }
        }
    }
    let effects = world.effects - before;
    world.run(2_000);
    check_signatures(&world);
    assert_eq!(world.chain.included.len(), 1, "crash at {at:?}");
    assert_eq!(world.rows.len(), 1);
    let ballot = world.board.ballot(&id).unwrap();
    assert!(
        ballot.violations.is_empty(),
        "crash at {at:?}: an honest node is blamed"
    );
    for (i, request) in recorded {
        // Acknowledged is durable.
        if let Some(Ok(_)) = world.answers.get(&request) {
            assert!(ballot.votes.contains_key(&world.cluster.node_id(i)));
        }
    }
    effects
}

#[test]
fn a_crash_between_any_two_effects_changes_nothing() {
    let effects = run_with_crash(None);
    assert!(effects > 100, "only {effects} effects");
    for at in 1..=effects {
        run_with_crash(Some(at));
    }
}

#[test]
fn after_a_crash_another_value_is_no_second_choice() {
    for at in 1..40 {
        let mut world = four();
        let id = tx("tx_001");
        let mut seen = 0;
        world.crash = Some(Box::new(move |node, _| {
            seen += u32::from(node == 0);
            seen == at
        }));
        world.submit(0, &id, number(42), Wait::Recorded);
        world.run(200);
        if world.nodes[0].engine.is_none() {
            world.restart(0);
        }
        world.run(200);
        world.submit(0, &id, number(43), Wait::Recorded);
        world.run(2_000);
        check_signatures(&world);
        assert!(!world.board.is_banned(&world.cluster.node_id(0)));
    }
}

/// Kills every node that comes to a step, and sees the submission recovered.
fn kill_submitters_at(step: &'static str, is_step: fn(&Effect) -> bool) {
    let mut world = four();
    let id = tx("tx_001");
    let mut killed = Vec::new();
    let crashed = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let log = crashed.clone();
    world.crash = Some(Box::new(move |node, effect| {
        let dies = is_step(effect) && !killed.contains(&node);
        if dies {
            killed.push(node);
            log.borrow_mut().push(node);
        }
        dies
    }));
    for i in 0..3 {
        world.submit(i, &id, number(42), Wait::Recorded);
    }
    let mut waited = 0;
    while world.state(&id) != Some(BallotState::Confirmed) {
        world.run(100);
        waited += 100;
        assert!(waited < 300_000, "{step}: not recovered");
        for i in 0..4 {
            if world.nodes[i].engine.is_none() {
                world.restart(i);
            }
        }
    }
    assert!(!crashed.borrow().is_empty(), "{step}: nobody came to it");
    assert_eq!(world.chain.included.len(), 1, "{step}");
    check_signatures(&world);
}

#[test]
fn submitters_killed_at_each_numbered_step_are_recovered() {
    use quorate_consensus::wire::board_op::Op;
    use quorate_engine::{AuditAsk, ChainAsk};
    fn proposes(effect: &Effect, is: fn(&Op) -> bool) -> bool {
        matches!(effect, Effect::Propose { op, .. } if op.op.as_ref().is_some_and(is))
    }
    kill_submitters_at("reserve", |e| {
        proposes(e, |op| matches!(op, Op::Reserve(_)))
    });
    kill_submitters_at("decide", |e| {
        matches!(
            e,
            Effect::Sign {
                domain: Domain::Decision,
                ..
            }
        )
    });
    kill_submitters_at("certify", |e| {
        proposes(e, |op| matches!(op, Op::Certify(_)))
    });
    kill_submitters_at("lease", |e| proposes(e, |op| matches!(op, Op::Lease(_))));
    kill_submitters_at("pending row", |e| {
        matches!(
            e,
            Effect::Audit {
                ask: AuditAsk::Pending { .. },
                ..
            }
        )
    });
    kill_submitters_at("sign", |e| {
        matches!(
            e,
            Effect::Chain {
                ask: ChainAsk::Prepare { .. },
                ..
            }
        )
    });
    kill_submitters_at("store the variant", |e| {
        matches!(
            e,
            Effect::Audit {
                ask: AuditAsk::Variant { .. },
                ..
            }
        )
    });
    kill_submitters_at("read the head", |e| matches!(e, Effect::ReadHead { .. }));
    kill_submitters_at("send", |e| {
        matches!(
            e,
            Effect::Chain {
                ask: ChainAsk::Send { .. },
                ..
            }
        )
    });
    kill_submitters_at("after sending", |e| {
        matches!(
            e,
            Effect::Audit {
                ask: AuditAsk::Attempted { .. },
                ..
            }
        )
    });
    kill_submitters_at("conclude", |e| {
        proposes(e, |op| matches!(op, Op::Conclude(_)))
    });
}

#[test]
fn a_lost_disk_waits_and_adopts() {
    let mut world = four();
    let id = tx("tx_001");
    world.submit(0, &id, number(1), Wait::Recorded);
    world.submit(1, &id, number(1), Wait::Recorded);
    world.run(100);
    world.restart_without_disk(0);
    world.run(100);
    assert!(world.engine(0).is_in_service());
    assert!(matches!(
        world.nodes[0].alerts.as_slice(),
        [Alert::Quarantine { .. }]
    ));
    let other = world.submit(0, &id, number(2), Wait::Recorded);
    let fresh = world.submit(0, &tx("tx_002"), number(2), Wait::Recorded);
    world.run(100);
    assert!(matches!(
        world.answer(other),
        Err(Reject::SecondChoice { .. })
    ));
    assert!(
        matches!(
            world.answer(fresh),
            Err(Reject::Unavailable {
                reason: "QUARANTINE",
                ..
            })
        ),
        "{:?}",
        world.answer(fresh)
    );
    // A restart in the middle starts the whole wait again.
    world.run(10_000);
    world.restart(0);
    world.run(15_000);
    assert!(world.engine(0).signing_stopped(world.now(0)).is_some());
    world.run(10_000);
    assert_eq!(world.engine(0).signing_stopped(world.now(0)), None);
    let later = world.submit(0, &tx("tx_003"), number(2), Wait::Recorded);
    world.run(100);
    assert!(world.answer(later).is_ok());
    // With its disk intact a node waits for nothing.
    world.restart(0);
    world.run(100);
    assert_eq!(world.engine(0).signing_stopped(world.now(0)), None);
}

#[test]
fn an_older_store_stops_signing() {
    let mut world = four();
    let id = tx("tx_001");
    for i in 0..3 {
        world.submit(i, &id, number(1), Wait::Confirmed);
    }
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
    world.run(3_000);
    // The store is put back to what it was before the ballot.
    world.put_back_store(2);
    world.kill(0);
    world.start(0);
    world.run(1_000);
    assert!(
        world.nodes[0]
            .alerts
            .iter()
            .any(|a| matches!(a, Alert::StoreRollback { .. })),
        "{:?}",
        world.nodes[0].alerts
    );
    assert!(world.engine(0).signing_stopped(world.now(0)).is_some());
}

#[test]
fn a_start_on_an_older_store_puts_no_boot_on_it() {
    let mut world = four();
    let id = tx("tx_001");
    for i in 0..3 {
        world.submit(i, &id, number(1), Wait::Recorded);
    }
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
    world.run(3_000);
    let right = (world.board.clone(), world.log.clone());
    // Before anybody had started, but for node 0.
    world.put_back_store(1);
    world.restart(0);
    world.run(3_000);
    assert_eq!(world.log.len(), 1, "{}", world.story());
    let boots = |w: &World| {
        let booted = |(_, domain, _): &&(usize, Domain, Vec<u8>)| *domain == Domain::Boot;
        w.signed.iter().filter(booted).count()
    };
    assert_eq!(boots(&world), 4);
    let request = world.submit(0, &tx("tx_002"), number(1), Wait::Recorded);
    world.run(100);
    let answer = world.answer(request);
    let stopped = matches!(
        answer,
        Err(Reject::Unavailable {
            reason: "SIGNING_STOPPED",
            ..
        })
    );
    assert!(stopped, "{answer:?}");
    // Others write on; then the right store is put back, and all is as it was.
    for generation in 2..right.1.len() as u64 + 10 {
        let boot = world.cluster.boot(3, generation, world.wall());
        world.write(&ops::boot(boot)).unwrap();
        world.run(200);
    }
    (world.board, world.log) = right;
    world.restart(0);
    world.run(1_000);
    assert!(world.engine(0).is_in_service());
    assert_eq!(world.engine(0).signing_stopped(world.now(0)), None);
}

#[test]
fn a_newer_process_of_the_same_trustee_silences_this_one() {
    let mut world = four();
    let boot = world.cluster.boot(0, 9, world.wall());
    world.write(&ops::boot(boot)).unwrap();
    world.run(10);
    assert!(
        world.nodes[0]
            .alerts
            .contains(&Alert::NewerSelf { generation: 9 })
    );
    let request = world.submit(0, &tx("tx_001"), number(1), Wait::Recorded);
    world.run(100);
    assert!(matches!(
        world.answer(request),
        Err(Reject::Unavailable {
            reason: "SIGNING_STOPPED",
            ..
        })
    ));
}

#[test]
fn a_vote_outlives_an_absence_of_the_board() {
    let mut world = four();
    let id = tx("tx_001");
    world.board_away = true;
    let request = world.submit(0, &id, number(1), Wait::Recorded);
    world.run(100);
    assert!(matches!(
        world.answer(request),
        Err(Reject::Unavailable { .. })
    ));
    assert_eq!(world.state(&id), None);
    world.board_away = false;
    world.until(|w| w.state(&id).is_some());
    world.run(10);
    let again = world.submit(0, &id, number(1), Wait::Recorded);
    world.run(100);
    assert!(world.answer(again).as_ref().unwrap().repeated);
}

#[test]
fn a_clock_that_jumps_ends_no_quarantine() {
    let mut world = four();
    world.restart_without_disk(0);
    world.run(100);
    assert!(world.engine(0).is_in_service());
    world.nodes[0].clock_off_ms = 60_000;
    let request = world.submit(0, &tx("tx_001"), number(1), Wait::Recorded);
    world.run(100);
    let answer = world.answer(request);
    assert!(matches!(
        answer,
        Err(Reject::Unavailable {
            reason: "QUARANTINE",
            ..
        })
    ));
    world.nodes[0].clock_off_ms = 0;
    world.run(24_000);
    assert_eq!(world.engine(0).signing_stopped(world.now(0)), None);
}

#[test]
fn an_older_store_is_not_forgotten_for_a_quarantine() {
    let mut world = four();
    world.restart_without_disk(0);
    let id = tx("tx_001");
    for i in 1..4 {
        world.submit(i, &id, number(1), Wait::Confirmed);
    }
    world.until(|w| w.state(&id) == Some(BallotState::Confirmed));
    world.run(3_000);
    // Back to when the nodes had started: it knows a later generation than the
    // journal of the node that waits, and it is older than what that node has seen.
    world.put_back_store(4);
    for i in 0..4 {
        world.kill(i);
    }
    world.start(0);
    world.run(60_000);
    let why = world.engine(0).signing_stopped(world.now(0)).unwrap();
    assert!(why.contains("STORE_ROLLBACK"), "{why}");
}

#[test]
fn a_backup_of_the_journal_within_one_start_is_noticed() {
    let mut world = four();
    let backup = world.nodes[0].journal.clone();
    world.submit(0, &tx("tx_001"), number(1), Wait::Recorded);
    world.run(100);
    world.kill(0);
    world.nodes[0].journal = backup;
    world.restart(0);
    world.run(200);
    assert!(
        matches!(world.nodes[0].alerts.as_slice(), [Alert::Quarantine { .. }]),
        "{:?}",
        world.nodes[0].alerts
    );
    let second = world.submit(0, &tx("tx_001"), number(2), Wait::Recorded);
    let fresh = world.submit(0, &tx("tx_002"), number(2), Wait::Recorded);
    world.run(100);
    assert!(matches!(
        world.answer(second),
        Err(Reject::SecondChoice { .. })
    ));
    assert!(matches!(
        world.answer(fresh),
        Err(Reject::Unavailable {
            reason: "QUARANTINE",
            ..
        })
    ));
}

#[test]
fn of_two_machines_that_start_at_once_the_later_goes_on_with_care() {
    let mut world = four();
    world.kill(0);
    // Another machine with the same keys takes the generation that this one wants.
    let boot = world.cluster.boot(0, 2, world.wall() + 1);
    world.start(0);
    let mut other = Some(ops::boot(boot));
    let number_of_entries = world.log.len();
    world.until(|w| w.engine(0).generation() == 2);
    world.write(&other.take().unwrap()).unwrap();
    assert_eq!(world.log.len(), number_of_entries + 1);
    world.until(|w| w.engine(0).is_in_service());
    assert_eq!(world.engine(0).generation(), 3);
    assert!(world.engine(0).signing_stopped(world.now(0)).is_some());
    assert!(
        !world.nodes[0]
            .alerts
            .iter()
            .any(|a| matches!(a, Alert::NewerSelf { .. }))
    );
}
