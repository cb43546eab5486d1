//! One node among peers that are honest, slow or hostile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
// The figures of docs/mesh.md are read from what these tests print.
#![allow(clippy::disallowed_macros)]

use std::collections::BTreeSet;

use quorate_gossip::{Mesh, MessageId, Output, Params, SCORE_FLOOR, SCORE_LEAST};

type Node = Mesh<u32, u64>;

fn id(n: u64) -> MessageId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    MessageId(bytes)
}

/// A node with peers 0 to n − 1, after ten quiet seconds.
fn node(n: u32) -> Node {
    let mut node = Mesh::new(Params::default(), 1);
    for peer in 0..n {
        node.peer_up(0, peer, true);
    }
    run(&mut node, 10_000);
    node
}

/// Lets time pass; gives what was said meanwhile.
fn run(node: &mut Node, until: u64) -> Vec<Output<u32, u64>> {
    let mut said = Vec::new();
    while let Some(at) = node.next_wake().filter(|at| *at <= until) {
        node.tick(at);
        said.extend(node.take_outputs());
    }
    said
}

fn hear(node: &mut Node, now: u64, from: u32, message: u64) {
    node.arrived(&from, &id(message));
    node.accept(now, Some(&from), id(message), from, message, 100);
}

#[test]
fn a_node_fills_its_mesh_by_itself_and_stops() {
    let node = node(30);
    // Fewer than the degree by one: the others graft it too.
    assert_eq!(node.load().degree, 5);
}

#[test]
fn what_is_new_goes_to_the_mesh_once_and_not_back() {
    let mut node = node(30);
    let mesh = node.mesh_peers();
    let from = mesh[0];
    hear(&mut node, 10_000, from, 7);
    let others: BTreeSet<u32> = mesh[1..].iter().copied().collect();
    let told = |node: &mut Node| -> BTreeSet<u32> {
        let outputs = node.take_outputs().into_iter();
        let sends = outputs.map(|output| match output {
            Output::Send { to, messages } if messages == [7] => to,
            other => panic!("{other:?}"),
        });
        sends.collect()
    };
    assert_eq!(told(&mut node), others);
    for peer in &others {
        hear(&mut node, 10_001, *peer, 7);
    }
    assert_eq!(told(&mut node), BTreeSet::new());
    assert_eq!(node.counts().duplicates, 4);
}

#[test]
fn what_was_announced_is_asked_of_one_and_then_of_another() {
    let mut node = node(30);
    let outside: Vec<u32> = (0..30).filter(|p| !node.mesh_peers().contains(p)).collect();
    let (liar, honest) = (outside[0], outside[1]);
    node.announced(10_000, &liar, &[id(7)]);
    node.announced(10_001, &honest, &[id(7)]);
    let ask = |to| Output::Request {
        to,
        ids: vec![id(7)],
    };
    assert_eq!(run(&mut node, 10_050), [ask(liar)]);
    assert_eq!(run(&mut node, 10_549), []);
    assert_eq!(run(&mut node, 10_550), [ask(honest)]);
    assert_eq!(node.score(&liar), -1);
    hear(&mut node, 10_600, honest, 7);
    assert_eq!(node.score(&honest), 1);
    assert_eq!((node.load().wanted, node.counts().unanswered), (0, 1));
    // What came is asked for no more, whoever announces it.
    node.announced(10_700, &outside[2], &[id(7)]);
    let asks = |output: &Output<u32, u64>| matches!(output, Output::Request { .. });
    assert!(!run(&mut node, 20_000).iter().any(asks));
}

#[test]
fn a_push_that_is_under_way_is_not_asked_for() {
    let mut node = node(30);
    let mesh = node.mesh_peers();
    node.announced(10_000, &mesh[0], &[id(7)]);
    hear(&mut node, 10_020, mesh[1], 7);
    // Nor is it pushed to who has announced it.
    let to_announcer = |output: &Output<u32, u64>| matches!(output, Output::Send { to, .. } | Output::Request { to, .. } if *to == mesh[0]);
    assert!(!node.take_outputs().iter().any(to_announcer));
    assert!(!run(&mut node, 11_000).iter().any(to_announcer));
}

#[test]
fn a_flooding_announcer_costs_a_bounded_amount() {
    let params = Params::default();
    let mut node = node(30);
    let outside: Vec<u32> = (0..30).filter(|p| !node.mesh_peers().contains(p)).collect();
    let (liar, honest) = (outside[0], outside[1]);
    let (mut asked, mut frames, mut most_wanted) = (0, 0, 0);
    // 60 s, and 100 frames of 1,000 fresh ids in each.
    for second in 0..60 {
        let now = 10_000 + second * 1_000;
        for n in 0..100 {
            let first = (second * 1_000 + n) * 1_000;
            let ids: Vec<_> = (first..first + 1_000).map(id).collect();
            node.announced(now, &liar, &ids);
        }
        most_wanted = most_wanted.max(node.load().wanted);
        for output in run(&mut node, now + 999) {
            if let Output::Request { to, ids } = output {
                assert_eq!(to, liar);
                frames += 1;
                asked += ids.len();
            }
        }
    }
    assert_eq!(most_wanted, params.wanted_of_peer);
    assert_eq!(node.score(&liar), SCORE_LEAST + 59);
    println!("6,000,000 ids announced: {asked} requested in {frames} frames");
    assert!(asked <= 2 * params.wanted_of_peer, "{asked}");
    assert!(frames <= 16, "{frames}");
    // Beside it an honest announcer is heard as before.
    node.announced(70_000, &honest, &[id(u64::MAX)]);
    let said = run(&mut node, 70_050);
    let ids = vec![id(u64::MAX)];
    assert!(said.contains(&Output::Request { to: honest, ids }));
}

#[test]
fn who_broke_its_word_is_heard_again_later() {
    let mut node = node(30);
    let peer = (0..30).find(|p| !node.mesh_peers().contains(p)).unwrap();
    let ids: Vec<_> = (0..500).map(id).collect();
    node.announced(10_000, &peer, &ids);
    run(&mut node, 14_000);
    assert!(node.score(&peer) <= SCORE_LEAST + 4);
    node.announced(14_000, &peer, &[id(1_000)]);
    assert_eq!(node.load().wanted, 0);
    let seconds = u64::try_from(SCORE_FLOOR - SCORE_LEAST).unwrap() + 1;
    run(&mut node, 14_000 + seconds * 1_000);
    node.announced(100_000, &peer, &[id(1_000)]);
    assert_eq!(node.load().wanted, 1);
}

#[test]
fn who_asks_for_everything_gets_so_much_and_no_more() {
    let params = Params::default();
    let mut node = node(30);
    for n in 0..100 {
        node.accept(
            10_000,
            None,
            id(n),
            1_000 + u32::try_from(n).unwrap(),
            n,
            100,
        );
    }
    node.take_outputs();
    let ids: Vec<_> = (0..100).map(id).collect();
    let outside = (0..30).find(|p| !node.mesh_peers().contains(p)).unwrap();
    for _ in 0..100 {
        node.requested(&outside, &ids);
    }
    assert_eq!(node.counts().served, u64::from(params.served_to_peer));
    // A heartbeat later again.
    run(&mut node, 11_000);
    node.requested(&outside, &ids);
    assert_eq!(node.counts().served, u64::from(params.served_to_peer) + 100);
}

#[test]
fn the_mesh_takes_in_so_many_and_keeps_room_for_its_own_choice() {
    let params = Params::default();
    let mut node = Mesh::<u32, u64>::new(params, 1);
    for peer in 0..100 {
        node.peer_up(0, peer, true);
    }
    let room = params.degree_most - params.degree_own;
    let prunes = |node: &mut Node| {
        let said = node.take_outputs().into_iter();
        let pruned = said.filter_map(|output| match output {
            Output::Prune { to, .. } => Some(to),
            _ => None,
        });
        pruned.collect::<Vec<_>>()
    };
    // Ten find a place; then each takes that of one that has brought nothing yet.
    for liar in 0..50 {
        node.grafted(10, &liar);
    }
    assert_eq!(node.load().degree, room);
    assert_eq!(prunes(&mut node).len(), 50 - room);
    // Whoever has brought something keeps its place.
    for (n, peer) in (0..).zip(node.mesh_peers()) {
        hear(&mut node, 20, peer, n);
    }
    let mesh = node.mesh_peers();
    node.take_outputs();
    node.grafted(30, &60);
    assert_eq!((prunes(&mut node), node.mesh_peers()), (vec![60], mesh));
    run(&mut node, 5_000);
    assert_eq!(node.load().degree, params.degree_most);
}

#[test]
fn a_graft_within_the_backoff_is_refused_and_remembered() {
    let mut node = node(30);
    let peer = node.mesh_peers()[0];
    node.pruned(10_000, &peer, 60_000);
    assert!(!node.mesh_peers().contains(&peer));
    node.grafted(10_500, &peer);
    let said = node.take_outputs();
    assert!(
        matches!(said[..], [Output::Prune { to, .. }] if to == peer),
        "{said:?}"
    );
    assert_eq!(node.score(&peer), -10);
    // And this node does not graft it either, however long.
    let grafts = |output: &Output<u32, u64>| matches!(output, Output::Graft { to } if *to == peer);
    for other in (0..30).filter(|other| *other != peer) {
        node.peer_down(&other);
    }
    assert!(!run(&mut node, 70_000).iter().any(grafts));
    assert!(run(&mut node, 75_000).iter().any(grafts));
}

#[test]
fn who_says_nothing_while_the_others_do_leaves_the_mesh() {
    let mut node = node(30);
    let mesh = node.mesh_peers();
    let silent = mesh[0];
    for n in 0..30 {
        hear(&mut node, 10_000, mesh[1], n);
        for peer in &mesh[2..] {
            node.arrived(peer, &id(n));
        }
    }
    let said = run(&mut node, 11_000);
    let pruned = |output: &&Output<u32, u64>| matches!(output, Output::Prune { .. });
    let pruned: Vec<_> = said.iter().filter(pruned).collect();
    assert!(matches!(pruned[..], [Output::Prune { to, .. }] if *to == silent));
    assert!(
        mesh[1..]
            .iter()
            .all(|peer| node.mesh_peers().contains(peer))
    );
}

#[test]
fn what_still_matters_is_announced_again_however_old() {
    let mut node = node(30);
    node.accept(10_000, None, id(7), 99, 7, 100);
    node.take_outputs();
    run(&mut node, 200_000);
    assert_eq!(node.load().kept, 0);
    node.remind(200_000, vec![(id(7), 99, 7, 100)]);
    let said = node.take_outputs();
    let told = |output: &Output<u32, u64>| match output {
        Output::Announce { to, ids } if *ids == [id(7)] => *to,
        other => panic!("{other:?}"),
    };
    let told: BTreeSet<u32> = said.iter().map(told).collect();
    assert!(node.mesh_peers().iter().all(|peer| told.contains(peer)));
    assert_eq!(told.len(), 5 + Params::default().lazy_most);
    let peer = *told.first().unwrap();
    node.requested(&peer, &[id(7)]);
    let messages = vec![7];
    assert_eq!(node.take_outputs(), [Output::Send { to: peer, messages }]);
}

#[test]
fn while_the_mesh_is_too_small_news_goes_to_others() {
    let mut node = Mesh::<u32, u64>::new(Params::default(), 1);
    for peer in 0..30 {
        node.peer_up(0, peer, true);
    }
    hear(&mut node, 1, 3, 7);
    assert!((5..=6).contains(&node.take_outputs().len()));
}

#[test]
fn what_is_its_own_goes_to_others_than_the_mesh_too() {
    let mut node = node(30);
    node.accept(10_000, None, id(7), 99, 7, 100);
    assert_eq!(node.take_outputs().len(), Params::default().degree_most);
}

#[test]
fn who_went_away_gets_nothing() {
    let mut node = node(30);
    let mesh = node.mesh_peers();
    node.accept(10_000, None, id(7), 99, 7, 100);
    for peer in 0..30 {
        node.peer_down(&peer);
    }
    assert_eq!(node.take_outputs(), []);
    node.grafted(10_001, &mesh[0]);
    node.requested(&mesh[0], &[id(7)]);
    assert_eq!(run(&mut node, 30_000), []);
}

#[test]
fn an_author_that_says_more_and_more_is_relayed_so_far() {
    let most = u64::from(Params::default().relayed_of_author);
    let mut node = node(30);
    let from = node.mesh_peers()[0];
    let flood = |node: &mut Node, now: u64, first: u64| {
        for n in first..first + 2 * most {
            node.arrived(&from, &id(n));
            node.accept(now, Some(&from), id(n), 99, n, 100);
        }
        let sends = node.take_outputs().into_iter();
        let counts = sends.map(|output| match output {
            Output::Send { messages, .. } => messages.len() as u64,
            _ => 0,
        });
        counts.max().unwrap()
    };
    assert_eq!(flood(&mut node, 10_000, 0), most);
    // Another author is none the worse for it, and the next heartbeat begins anew.
    hear(&mut node, 10_001, from, u64::MAX);
    assert!(!node.take_outputs().is_empty());
    run(&mut node, 11_000);
    assert_eq!(flood(&mut node, 11_000, most), most);
}
