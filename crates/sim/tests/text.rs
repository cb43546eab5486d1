//! Plans are written as text and read back the same.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeSet;

use quorate_consensus::wire::{DissentPolicy, SilencePolicy};
use quorate_consensus::{Choice, Value};
use quorate_sim::liars::LiarKind;
use quorate_sim::plan::{Act, BoardKind, Disk, Forgery, Handed, Noise, Plan, Step, Tx, draw};
use quorate_testkit::Cluster;

fn read(text: &str) -> Plan {
    text.parse()
        .unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn refused(text: &str) -> String {
    text.parse::<Plan>().unwrap_err().to_string()
}

#[test]
fn drawn_plans_are_read_back_the_same() {
    for seed in 0..2_000 {
        let plan = draw::plan(seed);
        assert_eq!(read(&plan.to_string()), plan, "seed {seed}\n{plan}");
    }
}

/// Which act this is. Whoever adds one must give it a number here, and an example.
fn number(act: &Act) -> usize {
    match act {
        Act::Vote { .. } => 0,
        Act::Crash { .. } => 1,
        Act::Backup { .. } => 2,
        Act::Sleep { .. } => 3,
        Act::Partition { .. } => 4,
        Act::Bridge { .. } => 5,
        Act::OneWay { .. } => 6,
        Act::Break { .. } => 7,
        Act::Full { .. } => 8,
        Act::Slow { .. } => 9,
        Act::Clock { .. } => 10,
        Act::StoreAway { .. } => 11,
        Act::RepliesLost { .. } => 12,
        Act::WatchLate { .. } => 13,
        Act::ReRead { .. } => 14,
        Act::AuditAway { .. } => 15,
        Act::ChainAway { .. } => 16,
        Act::KeysAway { .. } => 17,
        Act::Reorganise { .. } => 18,
        Act::DropWaiting => 19,
        Act::Fee { .. } => 20,
        Act::Stranger => 21,
        Act::Revert { .. } => 22,
        Act::GiveUp { .. } => 23,
        Act::Unban { .. } => 24,
        Act::Collect { .. } => 25,
        Act::Forge { .. } => 26,
        Act::RollBack { .. } => 27,
        Act::Fork { .. } => 28,
        Act::Impostor { .. } => 29,
        Act::Compact => 30,
    }
}

const ACTS: usize = 31;

fn examples() -> Vec<(&'static str, Act)> {
    let vote = |choice, handed| Act::Vote {
        node: 0,
        tx: Tx(3),
        choice,
        handed,
    };
    let crash = |effects, disk| Act::Crash {
        node: 2,
        effects,
        disk,
        down_ms: 500,
    };
    let forty_two = Choice::Value(Value::Number(42));
    let bytes = Choice::Value(Value::data(&[0, 255]).unwrap());
    let for_ms = 200;
    let mut examples = vec![
        (
            "vote node1 tx-3 42",
            vote(forty_two.clone(), Handed::Choice),
        ),
        (
            "vote node1 tx-3 42 signed -7",
            vote(forty_two, Handed::Signed(-7)),
        ),
        (
            "vote node1 tx-3 0x00ff signed +150",
            vote(bytes, Handed::Signed(150)),
        ),
        (
            "vote node1 tx-3 abstain signed +0",
            vote(Choice::Abstention, Handed::Signed(0)),
        ),
        ("crash node3 kept down 500", crash(0, Disk::Kept)),
        (
            "crash node3 after 12 unsynced down 500",
            crash(12, Disk::Unsynced),
        ),
        ("crash node3 lost down 500", crash(0, Disk::Lost)),
        ("crash node3 restored down 500", crash(0, Disk::Restored)),
        ("backup node3", Act::Backup { node: 2 }),
        ("sleep for 200", Act::Sleep { for_ms }),
        (
            "partition node1,node3 for 200",
            Act::Partition {
                side: vec![0, 2],
                for_ms,
            },
        ),
        (
            "partition nobody for 200",
            Act::Partition {
                side: vec![],
                for_ms,
            },
        ),
        (
            "bridge node2 side node1,node3 for 200",
            Act::Bridge {
                bridge: 1,
                side: vec![0, 2],
                for_ms,
            },
        ),
        (
            "one-way node1 to node2 for 200",
            Act::OneWay {
                from: 0,
                to: 1,
                for_ms,
            },
        ),
        ("break node1 node2", Act::Break { a: 0, b: 1 }),
        ("full node1 for 200", Act::Full { node: 0, for_ms }),
        (
            "slow node1 by 50 for 200",
            Act::Slow {
                node: 0,
                by_ms: 50,
                for_ms,
            },
        ),
        (
            "clock node1 by -50 for 200",
            Act::Clock {
                node: 0,
                by_ms: -50,
                for_ms,
            },
        ),
        ("store away for 200", Act::StoreAway { node: None, for_ms }),
        (
            "store away from node2 for 200",
            Act::StoreAway {
                node: Some(1),
                for_ms,
            },
        ),
        ("replies lost for 200", Act::RepliesLost { for_ms }),
        (
            "watch late node1 for 200",
            Act::WatchLate { node: 0, for_ms },
        ),
        ("re-read node1", Act::ReRead { node: 0 }),
        ("compact", Act::Compact),
        ("audit away for 200", Act::AuditAway { for_ms }),
        ("chain away for 200", Act::ChainAway { node: None, for_ms }),
        (
            "chain away from node2 for 200",
            Act::ChainAway {
                node: Some(1),
                for_ms,
            },
        ),
        (
            "keys away from node2 for 200",
            Act::KeysAway { node: 1, for_ms },
        ),
        (
            "reorganise 3",
            Act::Reorganise {
                depth: 3,
                drop: false,
            },
        ),
        (
            "reorganise 3 lost",
            Act::Reorganise {
                depth: 3,
                drop: true,
            },
        ),
        ("drop waiting", Act::DropWaiting),
        ("fee 2", Act::Fee { attempt: 2 }),
        ("stranger", Act::Stranger),
        ("revert tx-3", Act::Revert { tx: Tx(3) }),
        ("give up tx-3", Act::GiveUp { tx: Tx(3) }),
        (
            "impostor node3 as node2 to node1",
            Act::Impostor {
                liar: 2,
                name: 1,
                to: 0,
            },
        ),
        ("unban node1", Act::Unban { node: 0 }),
        ("collect tx-3", Act::Collect { tx: Tx(3) }),
        ("roll back 12", Act::RollBack { entries: 12 }),
        ("fork node1,node3", Act::Fork { side: vec![0, 2] }),
    ];
    let forgeries = [
        "forge vote",
        "forge move",
        "forge ban",
        "forge reservation",
        "forge certificate",
        "forge deletion",
        "forge events",
        "forge hole",
        "forge count",
        "forge state",
        "forge member",
        "forge rules",
        "forge nonce",
        "forge unban",
        "forge overwrite",
        "forge past",
        "forge head",
        "forge everything",
    ];
    assert_eq!(forgeries.len(), Forgery::ALL.len());
    for (text, what) in forgeries.into_iter().zip(Forgery::ALL.iter().copied()) {
        examples.push((text, Act::Forge { what }));
    }
    examples
}

#[test]
fn every_act_reads_as_it_is_written() {
    let examples = examples();
    let numbers: BTreeSet<usize> = examples.iter().map(|(_, act)| number(act)).collect();
    assert_eq!(numbers, (0..ACTS).collect(), "an act has no example");
    for (text, act) in examples {
        assert_eq!(act.text(3).to_string(), text);
        let plan = read(&format!("nodes 3\nat 17 {text} # as it is"));
        assert_eq!(plan.steps, [Step { at_ms: 17, act }], "{text}");
    }
}

#[test]
fn every_header_is_read() {
    let plan = read(
        "# A comment, and an empty line.

         nodes 5
         threshold 3
         dissent outvote
         silence ban
         timeout 7000
         settle 0
         skew 300
         confirmations 2
         submitters 1
         seed 17
         liar node3 equivocator
         liar node4 self-made-rules
         noise frame 1..20 store 2..3 watch 4..5 answer 6..7 twice 1 overtaken 2 lost 3 \
         vanished 8 reply-lost 4 store-refuses 5 chain-lost 6 clock-off 7
         calm 9000
         at 20 stranger
         at 10 drop waiting",
    );
    let shape = &plan.shape;
    assert_eq!((shape.nodes, shape.threshold, shape.submitters), (5, 3, 1));
    assert_eq!(shape.dissent, DissentPolicy::Outvote);
    assert_eq!(shape.silence, SilencePolicy::Ban);
    let times = (shape.vote_timeout_ms, shape.settle_window_ms);
    assert_eq!(times, (7_000, 0));
    assert_eq!((shape.clock_skew_ms, shape.confirmations), (300, 2));
    assert_eq!((plan.seed, plan.calm_ms), (17, 9_000));
    let liars: Vec<_> = plan.liars.clone().into_iter().collect();
    let expected = [(2, LiarKind::Equivocator), (3, LiarKind::SelfMade)];
    assert_eq!(liars, expected);
    let noise = Noise {
        frame_ms: (1, 20),
        store_ms: (2, 3),
        watch_ms: (4, 5),
        answer_ms: (6, 7),
        twice: 1,
        overtaken: 2,
        lost: 3,
        vanished: 8,
        reply_lost: 4,
        store_refuses: 5,
        chain_lost: 6,
        clock_off_ms: 7,
    };
    assert_eq!(plan.noise, noise);
    let times: Vec<u64> = plan.steps.iter().map(|step| step.at_ms).collect();
    assert_eq!(times, [10, 20], "steps are put in order of time");
    assert_eq!(read(&plan.to_string()), plan);
}

#[test]
fn every_board_is_read() {
    for board in BoardKind::ALL {
        let plan = read(&format!("nodes 4\nboard {}", board.name()));
        assert_eq!(plan.board, *board);
        assert_eq!(read(&plan.to_string()), plan);
    }
}

#[test]
fn a_third_of_all_seeds_has_its_board_in_keys() {
    let boards = (0..3_000).map(draw::board);
    let keys = boards.filter(|board| *board == BoardKind::Keys).count();
    assert!((900..1_100).contains(&keys), "{keys} of 3000");
}

#[test]
fn every_liar_is_read() {
    for kind in LiarKind::ALL {
        let plan = read(&format!("nodes 4\nliar node4 {}", kind.name()));
        assert_eq!(plan.liars.get(&3), Some(kind));
        assert_eq!(read(&plan.to_string()), plan);
    }
}

#[test]
fn what_is_left_out_is_what_people_would_choose() {
    let plan = read("nodes 5\nat 100 stranger");
    let shape = &plan.shape;
    assert_eq!((shape.threshold, shape.submitters), (4, 5));
    assert_eq!(shape.dissent, DissentPolicy::Abort);
    assert_eq!(shape.silence, SilencePolicy::Mark);
    assert_eq!(plan.noise, Noise::QUIET);
    assert_eq!((plan.seed, plan.calm_ms), (0, 600));
    assert_eq!(plan.board, BoardKind::Log);
}

#[test]
fn members_have_the_ids_of_their_cluster() {
    for nodes in [1, 9, 10, 12] {
        let cluster = Cluster::new(nodes, nodes);
        for node in 0..nodes {
            let text = Act::Backup { node }.text(nodes).to_string();
            assert_eq!(text, format!("backup {}", cluster.node_id(node)));
            let plan = read(&format!("nodes {nodes}\nat 1 {text}"));
            assert_eq!(plan.steps[0].act, Act::Backup { node });
        }
    }
    // Without the zero, too.
    let plan = read("nodes 12\nat 1 backup node3");
    assert_eq!(plan.steps[0].act, Act::Backup { node: 2 });
}

#[test]
fn what_is_wrong_is_named_with_its_line_and_what_would_be_right() {
    let cases = [
        (
            "",
            "line 1: the first line must be `nodes` and a number from 1 to 100",
        ),
        (
            "seed 1\nat 1 stranger",
            "line 2: the first line must be `nodes` and a number from 1 to 100",
        ),
        (
            "nodes 101",
            "line 1: \"101\" must be a number from 1 to 100",
        ),
        (
            "nodes",
            "line 1: something is missing: a number from 1 to 100 comes next",
        ),
        (
            "nodes 3\n\nthreshold 4",
            "line 3: \"4\" must be a number from 1 to 3",
        ),
        (
            "nodes 3\nnodes 3",
            "line 2: nodes was said before: say it once",
        ),
        (
            "nodes 3\nliar node1 silent\nliar node1 twin",
            "line 3: the liar was said before: say it once",
        ),
        (
            "nodes 3\nat 1 vote node4 tx-1 1",
            "line 2: \"node4\" must be a member: node1 to node3",
        ),
        (
            "nodes 3\nat 1 vote node0 tx-1 1",
            "line 2: \"node0\" must be a member: node1 to node3",
        ),
        (
            "nodes 3\nat 1 vote node1 3 1",
            "line 2: \"3\" must be a ballot like tx-3",
        ),
        (
            "nodes 3\nat 1 vote node1 tx-3 0xf",
            "line 2: \"0xf\" must be a number, bytes like 0x00ff (1 to 1024 of them) or abstain",
        ),
        (
            "nodes 3\nat 1 crash node1 down 3",
            "line 2: \"down\" must be kept or unsynced or lost or restored",
        ),
        ("nodes 3\nat 1 sleep 100", "line 2: \"100\" must be for"),
        (
            "nodes 3\nat 1 stranger danger",
            "line 2: the line is complete before \"danger\"",
        ),
        (
            "nodes 3\nnoise frame 20",
            "line 2: \"20\" must be a span like 1..20, in milliseconds",
        ),
        (
            "nodes 3\ndissent maybe",
            "line 2: \"maybe\" must be abort or outvote",
        ),
    ];
    for (text, problem) in cases {
        assert_eq!(refused(text), problem, "{text}");
    }
    let unknown = refused("nodes 3\nfrobnicate 7");
    assert!(unknown.starts_with("line 2: \"frobnicate\" must be at, nodes,"));
    let unknown = refused("nodes 3\nat 5 explode");
    assert!(unknown.starts_with("line 2: \"explode\" must be vote, crash,"));
}
