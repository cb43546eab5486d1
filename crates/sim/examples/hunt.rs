//! Hunts without the command line tool around it, so that little has to be built: what
//! `make hunt` and `make mutants` run.
//!
//! ```text
//! hunt [--seed U64] [--schedules N] [--seconds S] [--threads T] [--scenario NAME]
//!      [--keep-going] [--json]
//! ```
//!
//! Runs schedules from the seed on, until so many are done, the time is up, or one has
//! failed. The exit code is 1 when one has. With `--json` the last line is
//! `{"schedules": N, "ballots": N, "events": N, "seconds": X, "failures":
//! [{"seed": U64, "invariant": "NAME", "detail": "…", "at_ms": N, "after": N}]}`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use quorate_sim::hunt::{Hunt, Tally, many};
use quorate_sim::plan::draw::Family;

/// Schedules make and drop millions of small values: a quarter of the time is the
/// allocator's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Args {
    hunt: Hunt,
    seconds: Option<u64>,
    json: bool,
}

fn main() -> ExitCode {
    let args = match args(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(wrong) => {
            eprintln!("hunt: {wrong}");
            return ExitCode::from(2);
        }
    };
    if !args.json {
        // Said first: whatever becomes of the hunt, it can be had again.
        println!("hunting from seed {}", args.hunt.base);
    }
    let start = Instant::now();
    let limit = args.seconds.map_or(Duration::MAX, Duration::from_secs);
    let tally = many(&args.hunt, &|_| start.elapsed() < limit);
    let seconds = start.elapsed().as_secs_f64();
    if args.json {
        println!("{}", json(&tally, seconds));
    } else {
        print(&tally, seconds);
    }
    ExitCode::from(u8::from(!tally.failures.is_empty()))
}

fn args(mut given: impl Iterator<Item = String>) -> Result<Args, String> {
    let mut args = Args {
        hunt: Hunt {
            base: 1,
            schedules: u64::MAX,
            family: None,
            threads: 1,
            keep_going: false,
        },
        seconds: None,
        json: false,
    };
    let mut limited = false;
    while let Some(name) = given.next() {
        let mut value = || given.next().ok_or(format!("{name} needs a value"));
        match name.as_str() {
            "--seed" => args.hunt.base = number(&name, &value()?)?,
            "--schedules" => {
                args.hunt.schedules = number(&name, &value()?)?;
                limited = true;
            }
            "--seconds" => args.seconds = Some(number(&name, &value()?)?),
            "--threads" => {
                let threads = number(&name, &value()?)?;
                args.hunt.threads = usize::try_from(threads).map_err(|e| e.to_string())?;
            }
            "--scenario" => {
                let wanted = value()?;
                let family = Family::ALL.iter().find(|family| family.name() == wanted);
                let family = family.ok_or(format!("there is no scenario {wanted}"))?;
                args.hunt.family = Some(*family);
            }
            "--keep-going" => args.hunt.keep_going = true,
            "--json" => args.json = true,
            _ => return Err(format!("what is {name}?")),
        }
    }
    if !limited && args.seconds.is_none() {
        args.hunt.schedules = 1_000;
    }
    Ok(args)
}

fn number(name: &str, value: &str) -> Result<u64, String> {
    value.parse().map_err(|e| format!("{name} {value}: {e}"))
}

fn json(tally: &Tally, seconds: f64) -> serde_json::Value {
    let failures = tally.failures.iter().map(|found| {
        serde_json::json!({
            "seed": found.seed,
            "scenario": found.family.name(),
            "invariant": found.failure.invariant,
            "detail": found.failure.detail,
            "at_ms": found.failure.at_ms,
            "after": found.after,
        })
    });
    serde_json::json!({
        "schedules": tally.schedules,
        "ballots": tally.ballots,
        "events": tally.events,
        "seconds": seconds,
        "failures": failures.collect::<Vec<_>>(),
    })
}

fn print(tally: &Tally, seconds: f64) {
    for found in &tally.failures {
        let failure = &found.failure;
        println!(
            "seed {} ({}): {} at {} ms: {}\n  {}",
            found.seed,
            found.family.name(),
            failure.invariant,
            failure.at_ms,
            failure.detail,
            found.replay()
        );
    }
    println!(
        "{} schedules, {} failed, {} ballots, {} events, {seconds:.1} s, \
         {:.0} ballots/s",
        tally.schedules,
        tally.failures.len(),
        tally.ballots,
        tally.events,
        tally.ballots as f64 / seconds
    );
}
