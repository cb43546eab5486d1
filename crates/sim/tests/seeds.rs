//! Schedules of fixed seeds, in the build that checks overflow; and the same seed is
//! the same story. `QUORATE_SCHEDULES` runs more of them, for a coverage report.

use std::sync::Arc;

use quorate_sim::hunt::Runner;
use quorate_sim::plan::draw;

#[test]
fn nothing_breaks_in_the_first_schedules() {
    let count = std::env::var("QUORATE_SCHEDULES").map_or(100, |text| {
        text.parse().expect("QUORATE_SCHEDULES is a number")
    });
    let mut runner = Runner::default();
    for seed in 0..count {
        let outcome = runner.hunt(seed);
        assert_eq!(
            outcome.failure, None,
            "replay: quorate sim --seed {seed} --trace"
        );
    }
}

#[test]
fn one_seed_is_one_story() {
    let mut runner = Runner::default();
    for seed in 100..110 {
        let plan = Arc::new(draw::plan(seed));
        let (first, story) = runner.tell(&plan);
        let (second, again) = Runner::default().tell(&plan);
        assert_eq!(first, second);
        assert_eq!(story.lines, again.lines, "seed {seed}");
    }
}
