//! Shrinks a schedule that fails, and tells its story. For who hunts:
//!
//! ```text
//! shrink SEED [RUNS]     the schedule of a seed, with at most so many runs (2,000)
//! shrink SEED:NAME       the same seed in another family
//! shrink FILE [RUNS]     a plan's text
//! ```
//!
//! The first lines are a plan's text for `corpus/`, the rest is its story.

use std::process::ExitCode;
use std::sync::Arc;

use quorate_sim::hunt::Runner;
use quorate_sim::plan::draw::Family;
use quorate_sim::plan::shrink::shrink;
use quorate_sim::plan::{Plan, draw};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(what) = args.next() else {
        eprintln!("shrink SEED|FILE [RUNS]");
        return ExitCode::from(2);
    };
    let runs = args.next().and_then(|runs| runs.parse().ok());
    let plan = match what.parse() {
        Ok(seed) => draw::plan(seed),
        Err(_) => match in_family(&what).map_or_else(|| read(&what), Ok) {
            Ok(plan) => plan,
            Err(wrong) => {
                eprintln!("{what}: {wrong}");
                return ExitCode::from(2);
            }
        },
    };
    let mut runner = Runner::default();
    let shrunk = shrink(&plan, &mut runner, runs.unwrap_or(2_000));
    let (outcome, story) = runner.tell(&Arc::new(shrunk.plan.clone()));
    let Some(failure) = outcome.failure else {
        println!("{what} does not fail");
        return ExitCode::SUCCESS;
    };
    println!("# seed: {what}");
    println!("# invariant: {}", failure.invariant);
    println!("# wrong: {}", failure.detail);
    println!("# mended: not yet");
    print!("{}", shrunk.plan);
    println!("--- after {} runs", shrunk.runs);
    for line in &story.lines {
        println!("{line}");
    }
    let (name, at_ms) = (failure.invariant, failure.at_ms);
    println!("{name} broke at {at_ms} ms: {}", failure.detail);
    ExitCode::FAILURE
}

/// A seed and a family's name.
fn in_family(what: &str) -> Option<Plan> {
    let (seed, name) = what.split_once(':')?;
    let family = Family::ALL.iter().find(|family| family.name() == name)?;
    Some(draw::of_family(seed.parse().ok()?, *family))
}

fn read(path: &str) -> Result<Plan, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let text = text.split("\n---").next().unwrap_or_default();
    text.parse()
        .map_err(|error: quorate_sim::plan::text::PlanTextError| error.to_string())
}
