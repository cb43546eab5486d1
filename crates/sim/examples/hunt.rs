//! Hunts without the command line tool around it: what `make mutants` runs.
//!
//! `hunt --seed U64 --schedules N --seconds S --threads T [--keep-going] [--json]`
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let get = |name: &str, default: u64| {
        let at = args.iter().position(|arg| arg == name);
        at.and_then(|at| args.get(at + 1)?.parse().ok())
            .unwrap_or(default)
    };
    let (seed, count) = (get("--seed", 1), get("--schedules", 1_000));
    let mut runner = quorate_sim::hunt::Runner::default();
    let start = std::time::Instant::now();
    let mut ballots = 0;
    let mut events = 0;
    let mut failed = 0;
    for seed in seed..seed + count {
        let outcome = runner.hunt(seed);
        if start.elapsed().as_secs() > 5 || std::env::var_os("V").is_some() { eprintln!("{seed} {} events {} ms {:?}", outcome.events, outcome.took_ms, start.elapsed()); }
        ballots += outcome.ballots;
        events += outcome.events;
        if let Some(failure) = outcome.failure {
            println!(
                "seed {seed}: {} at {} ms: {}",
                failure.invariant, failure.at_ms, failure.detail
            );
            failed += 1;
        }
    }
    let took = start.elapsed().as_secs_f64();
    println!(
        "{count} schedules, {failed} failed, {ballots} ballots, {events} events, {took:.1} s, {:.0} ballots/s",
        ballots as f64 / took
    );
}
