//! What is true of every liar.

use std::collections::{BTreeSet, VecDeque};

use quorate_consensus::NodeId;
use quorate_sim::liars::{Beside, Cue, LiarKind, Lie};
use quorate_testkit::{Cluster, number, ops, tx};

use super::kit::Actor;

#[test]
fn each_has_a_name_of_its_own() {
    let names: BTreeSet<_> = LiarKind::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(names.len(), LiarKind::ALL.len());
    assert_eq!(names.len(), 20);
    for kind in LiarKind::ALL {
        let name = kind.name();
        assert_eq!(name.parse(), Ok(*kind));
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
    }
    let refusal = "saint".parse::<LiarKind>().unwrap_err();
    assert!(refusal.contains("lease-hog"), "{refusal}");
}

#[test]
fn what_the_world_does_for_it() {
    assert_eq!(LiarKind::Twin.beside(), Beside::Twins);
    assert!(matches!(
        LiarKind::Late.beside(),
        Beside::LateEngine(1..10_000)
    ));
    assert_eq!(LiarKind::Silent.beside(), Beside::Nothing);
    for kind in [LiarKind::Twin, LiarKind::Late, LiarKind::Silent] {
        assert_eq!(life(kind, 1), [], "{kind:?}");
    }
}

/// A life with everything in it, with other dice each time.
fn life(kind: LiarKind, seed: u64) -> Vec<Lie> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut actor = Actor::new(kind);
    let mut lies = actor.cue(Cue::Start);
    for i in 0..4 {
        let peer = &actor.cluster.node_id(i);
        lies.extend(actor.cue(Cue::Met { peer }));
    }
    for round in 0..60 {
        actor.dice = rng.u64(..);
        actor.now_ms += 500;
        let tx_id = tx(&format!("tx-{round}"));
        lies.extend(actor.asked(&tx_id, number(rng.u64(0..4))));
        let vote = actor.cluster.vote(0, &tx_id, number(1), actor.now_ms);
        let body = &quorate_sim::liars::votes([vote]);
        lies.extend(actor.hears(0, body));
        if round < 20 {
            lies.extend(actor.decide(&tx(&format!("other-{round}")), 1));
        }
        lies.extend(actor.cue(Cue::Wake));
    }
    lies
}

#[test]
fn the_same_dice_give_the_same_lies() {
    for kind in LiarKind::ALL {
        assert_eq!(life(*kind, 3), life(*kind, 3), "{kind:?}");
    }
}

#[test]
fn none_lies_without_end() {
    for kind in LiarKind::ALL {
        let lies = life(*kind, 5).len();
        assert!(lies < 5_000, "{kind:?} lied {lies} times");
    }
}

/// Two of a kind that hear each other fall silent one day.
#[test]
fn two_liars_do_not_keep_each_other_busy() {
    for one in LiarKind::ALL {
        for other in [*one, LiarKind::Replayer, LiarKind::FalseWitness] {
            let cluster = Cluster::new(3, 2);
            let mut pair = [
                Actor::of(*one, cluster.clone(), 0),
                Actor::of(other, cluster.clone(), 1),
            ];
            let ids: [NodeId; 2] = [cluster.node_id(0), cluster.node_id(1)];
            let mut queue = VecDeque::new();
            for i in 0..2 {
                queue.extend(pair[i].cue(Cue::Start).into_iter().map(|lie| (i, lie)));
                let peer = &ids[1 - i];
                queue.extend(
                    pair[i]
                        .cue(Cue::Met { peer })
                        .into_iter()
                        .map(|lie| (i, lie)),
                );
                let vote = cluster.vote(2, &tx("seed"), number(1), pair[i].now_ms);
                let lies = pair[i].hears(2, &quorate_sim::liars::votes([vote]));
                queue.extend(lies.into_iter().map(|lie| (i, lie)));
                for number_of in 0..10 {
                    let tx_id = tx(&format!("tx-{number_of}"));
                    let lies = pair[i].asked(&tx_id, number(1));
                    queue.extend(lies.into_iter().map(|lie| (i, lie)));
                }
            }
            let mut steps = 0;
            while let Some((i, lie)) = queue.pop_front() {
                steps += 1;
                assert!(steps < 20_000, "{one:?} and {other:?} go on and on");
                let hearer = 1 - i;
                let lies = match lie {
                    Lie::Say { to, body } if to == ids[hearer] => pair[hearer].hears(i, &body),
                    Lie::Wake { in_ms } => {
                        pair[i].now_ms += in_ms;
                        queue.extend(pair[i].cue(Cue::Wake).into_iter().map(|lie| (i, lie)));
                        continue;
                    }
                    _ => continue,
                };
                queue.extend(lies.into_iter().map(|lie| (hearer, lie)));
            }
        }
    }
}

/// A cluster of one has nobody to lie to; nothing falls over.
#[test]
fn alone_in_the_world() {
    for kind in LiarKind::ALL {
        for dice in 0..40 {
            let mut actor = Actor::of(*kind, Cluster::new(1, 1), 0).dice(dice << 40);
            let lies = actor.cue(Cue::Start);
            assert!(!lies.iter().any(|lie| matches!(lie, Lie::Say { .. })));
            let lies = actor.asked(&tx("a"), number(1));
            assert!(!lies.iter().any(|lie| matches!(lie, Lie::Say { .. })));
            let vote = actor.cluster.vote(0, &tx("b"), number(1), actor.now_ms);
            let now = actor.now_ms;
            actor.reads(&ops::record_vote(vote), now);
        }
    }
}
