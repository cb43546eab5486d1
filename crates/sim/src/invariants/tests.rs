//! What no schedule of a good product brings about is made up here.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_consensus::wire::{AbortReason, DissentPolicy, Reservation, SilencePolicy};
use quorate_consensus::{Choice, Domain, Value};
use quorate_engine::{Effect, Ticket};
use quorate_testkit::{Cluster, NOW, number, ops, tx};

use super::{Happening, Invariant, SOURCES, Sort, agreement, all, guard};
use crate::plan::{BoardKind, Noise, Plan, Shape};
use crate::world::World;

fn world() -> (World, Arc<Cluster>) {
    let cluster = Arc::new(Cluster::new(4, 3));
    let plan = Plan {
        seed: 1,
        board: BoardKind::Log,
        shape: Shape {
            nodes: 4,
            threshold: 3,
            dissent: DissentPolicy::Abort,
            silence: SilencePolicy::Mark,
            vote_timeout_ms: 2_000,
            settle_window_ms: 0,
            clock_skew_ms: 200,
            confirmations: 1,
            submitters: 4,
        },
        liars: BTreeMap::new(),
        noise: Noise::QUIET,
        steps: Vec::new(),
        calm_ms: 100,
    };
    let world = World::new(Arc::new(plan), cluster.clone(), Vec::new(), None);
    (world, cluster)
}

fn sign(domain: Domain, statement: Vec<u8>) -> Effect {
    let (generation, number) = (1, 1);
    Effect::Sign {
        ticket: Ticket { generation, number },
        key: quorate_consensus::statement::KeyRole::Node,
        domain,
        statement,
    }
}

fn sees(invariant: &mut dyn Invariant, world: &World, effect: &Effect) -> Result<(), String> {
    invariant.sees(world, &Happening::Effect { place: 0, effect })
}

#[test]
fn invariants_are_shown_what_they_judge() {
    let invariants = all();
    assert_eq!(invariants.len(), SOURCES.len());
    for (invariant, (name, source)) in invariants.iter().zip(SOURCES) {
        assert_eq!(invariant.name(), *name);
        for sort in Sort::ALL {
            // As code names them: followed by their fields.
            let judged = ["{", "(", " {"]
                .iter()
                .any(|next| source.contains(&format!("Happening::{sort:?}{next}")));
            let shown = invariant.watches().contains(sort);
            assert_eq!(shown, judged, "{name} and Happening::{sort:?}");
        }
    }
    for (place, sort) in Sort::ALL.iter().enumerate() {
        assert_eq!(*sort as usize, place);
    }
}

#[test]
fn what_a_stranger_could_put_together_is_judged() {
    let (world, cluster) = world();
    let tx_id = tx("tx-0");
    let reservation = |nonce| Reservation {
        account: "treasury".into(),
        nonce,
        payload: b"x".to_vec(),
    };
    let decision = |i, value, nonce| {
        let value: Value = number(value);
        let signed = cluster.decision(i, &tx_id, &value, Some(&reservation(nonce)));
        sign(Domain::Decision, signed.statement)
    };
    let abort = |i| {
        let signed = cluster.abort(i, &tx_id, AbortReason::Timeout);
        sign(Domain::Abort, signed.statement)
    };
    // t decisions, and whatever else t members say last is too much.
    let last: [&dyn Fn(usize) -> Effect; 3] =
        [&abort, &|i| decision(i, 2, 7), &|i| decision(i, 1, 8)];
    for contradiction in last {
        let mut agreement = agreement::Agreement::default();
        for i in 0..3 {
            assert_eq!(sees(&mut agreement, &world, &decision(i, 1, 7)), Ok(()));
        }
        for i in 0..2 {
            assert_eq!(sees(&mut agreement, &world, &contradiction(i)), Ok(()));
            // Twice is once.
            assert_eq!(sees(&mut agreement, &world, &contradiction(i)), Ok(()));
        }
        assert!(sees(&mut agreement, &world, &contradiction(2)).is_err());
    }
}

#[test]
fn two_choices_within_the_window_are_seen() {
    let (world, cluster) = world();
    let window = world.rules().vote_lifetime_ms();
    let says = |choice: u64, time_ms| {
        let choice = Choice::Value(number(choice));
        let vote = cluster.vote(0, &tx("tx-0"), choice, time_ms);
        let (generation, number) = (1, 1);
        Effect::Propose {
            ticket: Ticket { generation, number },
            op: ops::record_vote(vote),
            now_ms: time_ms,
        }
    };
    let mut guard = guard::Guard::default();
    assert_eq!(sees(&mut guard, &world, &says(1, NOW)), Ok(()));
    assert_eq!(sees(&mut guard, &world, &says(1, NOW + 5)), Ok(()));
    assert_eq!(sees(&mut guard, &world, &says(2, NOW + 6 + window)), Ok(()));
    assert!(sees(&mut guard, &world, &says(1, NOW + 7 + window)).is_err());
}
