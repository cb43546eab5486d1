//! A plan that fails is made smaller, and fails alike.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::sync::Arc;

use quorate_consensus::wire::BallotState;
use quorate_consensus::wire::board_event::Event;
use quorate_sim::hunt::Runner;
use quorate_sim::invariants::{Happening, Invariant, Sort};
use quorate_sim::plan::shrink::{shrink, shrink_while};
use quorate_sim::plan::{Act, Disk, Noise, Plan, draw};
use quorate_sim::world::World;

/// A planted fault: it "must never be" that tx-3 is confirmed.
struct NeverConfirmed;

impl Invariant for NeverConfirmed {
    fn name(&self) -> &'static str {
        "never-confirmed"
    }

    fn watches(&self) -> &'static [Sort] {
        &[Sort::Entry]
    }

    fn sees(&mut self, _: &World, what: &Happening<'_>) -> Result<(), String> {
        let Happening::Entry { entry, .. } = what else {
            return Ok(());
        };
        let confirmed = entry.events.iter().any(|event| match &event.event {
            Some(Event::StateChanged(change)) => {
                event.tx_id == "tx-3" && change.to() == BallotState::Confirmed
            }
            _ => false,
        });
        match confirmed {
            true => Err("tx-3 is confirmed".into()),
            false => Ok(()),
        }
    }
}

/// Another one, which nearly every plan breaks: nobody must crash.
struct NobodyDies;

impl Invariant for NobodyDies {
    fn name(&self) -> &'static str {
        "nobody-dies"
    }

    fn watches(&self) -> &'static [Sort] {
        &[Sort::Died]
    }

    fn sees(&mut self, _: &World, what: &Happening<'_>) -> Result<(), String> {
        match what {
            Happening::Died { .. } => Err("one died".into()),
            _ => Ok(()),
        }
    }
}

fn confirmed() -> Runner {
    Runner::watched_by(|| vec![Box::new(NeverConfirmed)])
}

/// The first drawn plan, of at least five nodes, noisy and with a liar, that breaks the
/// planted invariant.
fn failing(runner: &mut Runner) -> Plan {
    let plans = (0..2_000).map(draw::plan);
    let mut bad = plans.filter(|plan| {
        plan.shape.nodes >= 5 && !plan.liars.is_empty() && plan.noise != Noise::QUIET
    });
    bad.find(|plan| runner.run(&Arc::new(plan.clone())).failure.is_some())
        .expect("a plan that confirms tx-3")
}

#[test]
fn a_planted_failure_shrinks_to_a_handful_of_steps() {
    let mut runner = confirmed();
    let plan = failing(&mut runner);
    let shrunk = shrink(&plan, &mut runner, 1_000);
    assert!(shrunk.runs <= 1_000);
    let small = shrunk.plan;
    assert!(small.steps.len() <= 3, "{small}");
    assert!(small.shape.nodes <= 3, "{small}");
    assert!(small.liars.is_empty(), "{small}");
    assert_eq!(small.noise, Noise::QUIET, "{small}");
    assert!(small.calm_ms <= plan.calm_ms);
    // It is read back from its text, and fails alike.
    let read: Plan = small.to_string().parse().unwrap();
    let failure = runner.run(&Arc::new(read)).failure.expect("a failure");
    assert_eq!(failure.invariant, "never-confirmed");
}

#[test]
fn runs_are_bounded_and_what_they_gave_is_kept() {
    let mut runner = confirmed();
    let plan = failing(&mut runner);
    let shrunk = shrink(&plan, &mut runner, 10);
    assert_eq!(shrunk.runs, 10);
    assert!(shrunk.plan.steps.len() < plan.steps.len());
    let failure = runner.run(&Arc::new(shrunk.plan)).failure;
    assert_eq!(failure.expect("a failure").invariant, "never-confirmed");
    let shrunk = shrink(&plan, &mut runner, 0);
    assert_eq!(shrunk.plan, plan);
}

#[test]
fn a_candidate_that_breaks_another_invariant_is_not_kept() {
    let mut both = Runner::watched_by(|| vec![Box::new(NeverConfirmed), Box::new(NobodyDies)]);
    // One vote confirms it; then a node dies.
    let text = "nodes 1\nat 1 vote node1 tx-3 1\nat 5000 crash node1 kept down 1\n";
    let plan: Plan = text.parse().unwrap();
    let small = shrink(&plan, &mut both, 100).plan;
    assert!(matches!(small.steps[..], [ref step] if matches!(step.act, Act::Vote { .. })));
}

#[test]
fn a_plan_that_does_not_fail_stays_as_it_is() {
    let plan: Plan = "nodes 3\nat 1 vote node1 tx-1 1".parse().unwrap();
    let shrunk = shrink(&plan, &mut confirmed(), 100);
    assert_eq!((shrunk.plan, shrunk.runs), (plan, 1));
}

/// When a member goes, everybody behind it moves up, and what was about it is gone.
#[test]
fn a_member_goes_with_all_that_is_about_it() {
    let text = "\
nodes 4
threshold 3
submitters 2
liar node2 silent
liar node4 late
at 1 vote node2 tx-1 1
at 2 vote node3 tx-1 1
at 3 partition node1,node2,node4 for 5
at 4 one-way node2 to node4 for 5
at 5 break node3 node4
at 6 store away from node4 for 5
at 7 bridge node3 side node1,node2 for 5
at 8 stranger
";
    let expected = "\
nodes 3
threshold 3
dissent abort
silence mark
timeout 5000
settle 50
skew 200
confirmations 1
submitters 1
board log
seed 0
liar node3 late
calm 508
at 2 vote node2 tx-1 1
at 3 partition node1,node3 for 5
at 5 break node2 node3
at 6 store away from node3 for 5
at 7 bridge node2 side node1 for 5
at 8 stranger
";
    let mut seen = Vec::new();
    shrink_while(&text.parse().unwrap(), 1_000, |plan| {
        seen.push(plan.to_string());
        false
    });
    assert!(
        seen.iter().any(|plan| plan == expected),
        "{}",
        seen.join("\n")
    );
}

#[test]
fn what_is_not_needed_is_made_simple() {
    let text = "\
nodes 2
threshold 1
board keys
confirmations 4
settle 500
liar node2 flooder
noise frame 1..20 lost 5 clock-off 99
at 1 vote node1 tx-1 7 signed +5
at 2 crash node1 after 7 lost down 500
at 3 reorganise 6 lost
calm 90000
";
    let plan: Plan = text.parse().unwrap();
    // Whatever has three steps, and a crash with the disk lost, fails.
    let small = shrink_while(&plan, 1_000, |plan| {
        let lost = plan.steps.iter().any(|step| {
            matches!(
                step.act,
                Act::Crash {
                    disk: Disk::Lost,
                    ..
                }
            )
        });
        plan.steps.len() == 3 && lost
    });
    let expected = "\
nodes 1
threshold 1
dissent abort
silence mark
timeout 5000
settle 0
skew 200
confirmations 1
submitters 1
board log
seed 0
calm 4
at 1 vote node1 tx-1 7
at 2 crash node1 lost down 1
at 3 reorganise 1
";
    assert_eq!(small.plan.to_string(), expected);
}
