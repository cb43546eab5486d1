//! Hunts without the command line tool around it, so that little has to be built: what
//! `make hunt` and `make mutants` run.
//!
//! ```text
//! hunt [--seed U64] [--schedules N] [--seconds S] [--threads T] [--scenario NAME]
//!      [--board log|keys] [--nodes N] [--scripts FOLDER]... [--keep-going] [--json]
//! ```
//!
//! Runs schedules from the seed on, until so many are done, the time is up, or one has
//! failed. `--nodes` and `--board` pass over the seeds of other schedules. When none has
//! failed, the plans in the folders are run, too. The exit code is 1 when one has failed.
//! The fingerprint at the end is that of all that happened: two builds that differ in it
//! differ in what they do. With `--json` the last line is
//! `{"schedules": N, "ballots": N, "events": N, "fingerprint": "HEX", "seconds": X, "failures":
//! [{"seed": U64, "invariant": "NAME", "detail": "…", "at_ms": N, "after": N}]}`; of a
//! plan in a folder there is `"script": "NAME"` and no seed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_sim::golden;
use quorate_sim::hunt::{Hunt, Runner, Tally, many};
use quorate_sim::plan::BoardKind;
use quorate_sim::plan::draw::{Family, MOST_NODES};
use quorate_sim::world::Failure;

/// Schedules make and drop millions of small values: a quarter of the time is the
/// allocator's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Args {
    hunt: Hunt,
    seconds: Option<u64>,
    scripts: Vec<PathBuf>,
    json: bool,
}

/// What the plans in folders came to.
#[derive(Default)]
struct Scripts {
    run: u64,
    ballots: u64,
    events: u64,
    /// The first that failed, by its name.
    failed: Option<(String, Failure)>,
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
    let mut scripts = Scripts::default();
    if tally.failures.is_empty()
        && let Err(wrong) = scripts.run(&args.scripts)
    {
        eprintln!("hunt: {wrong}");
        return ExitCode::from(2);
    }
    let seconds = start.elapsed().as_secs_f64();
    if args.json {
        println!("{}", json(&tally, &scripts, seconds));
    } else {
        print(&tally, &scripts, seconds);
    }
    ExitCode::from(u8::from(
        !tally.failures.is_empty() || scripts.failed.is_some(),
    ))
}

impl Scripts {
    /// Runs all plans until one fails.
    fn run(&mut self, folders: &[PathBuf]) -> Result<(), String> {
        let mut runner = Runner::default();
        for folder in folders {
            for path in plans_in(folder).map_err(|e| format!("{}: {e}", folder.display()))? {
                let wrong = |e: String| format!("{}: {e}", path.display());
                let text = std::fs::read_to_string(&path).map_err(|e| wrong(e.to_string()))?;
                let plan = golden::plan_of(&text).map_err(|e| wrong(e.to_string()))?;
                let outcome = runner.run(&Arc::new(plan));
                self.run += 1;
                self.ballots += outcome.ballots;
                self.events += outcome.events;
                if let Some(failure) = outcome.failure {
                    let name = path.file_stem().unwrap_or_default();
                    self.failed = Some((name.to_string_lossy().into_owned(), failure));
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// The plans of a folder, in the order of their names.
fn plans_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for file in std::fs::read_dir(folder)? {
        paths.push(file?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|end| end == "txt"));
    paths.sort();
    Ok(paths)
}

fn args(mut given: impl Iterator<Item = String>) -> Result<Args, String> {
    let mut args = Args {
        hunt: Hunt {
            base: 1,
            schedules: u64::MAX,
            family: None,
            board: None,
            nodes: None,
            threads: 1,
            keep_going: false,
        },
        seconds: None,
        scripts: Vec::new(),
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
            "--board" => {
                let wanted = value()?;
                let board = BoardKind::ALL.iter().find(|board| board.name() == wanted);
                let board = board.ok_or(format!("there is no board {wanted}"))?;
                args.hunt.board = Some(*board);
            }
            "--nodes" => {
                let nodes = value()?;
                let wanted = nodes.parse().ok().filter(|n| (1..=MOST_NODES).contains(n));
                let wrong = format!("--nodes {nodes}: a number from 1 to {MOST_NODES}");
                args.hunt.nodes = Some(wanted.ok_or(wrong)?);
            }
            "--scripts" => args.scripts.push(value()?.into()),
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

fn json(tally: &Tally, scripts: &Scripts, seconds: f64) -> serde_json::Value {
    let by_seed = tally.failures.iter().map(|found| {
        serde_json::json!({
            "seed": found.seed,
            "scenario": found.family.name(),
            "invariant": found.failure.invariant,
            "detail": found.failure.detail,
            "at_ms": found.failure.at_ms,
            "after": found.after,
        })
    });
    let by_script = scripts.failed.iter().map(|(name, failure)| {
        serde_json::json!({
            "script": name,
            "invariant": failure.invariant,
            "detail": failure.detail,
            "at_ms": failure.at_ms,
            "after": tally.schedules + scripts.run,
        })
    });
    serde_json::json!({
        "schedules": tally.schedules + scripts.run,
        "ballots": tally.ballots + scripts.ballots,
        "events": tally.events + scripts.events,
        "fingerprint": format!("{:016x}", tally.fingerprint),
        "seconds": seconds,
        "failures": by_seed.chain(by_script).collect::<Vec<_>>(),
    })
}

fn print(tally: &Tally, scripts: &Scripts, seconds: f64) {
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
    if let Some((name, failure)) = &scripts.failed {
        println!(
            "script {name}: {} at {} ms: {}",
            failure.invariant, failure.at_ms, failure.detail
        );
    }
    let ballots = tally.ballots + scripts.ballots;
    println!(
        "{} schedules, {} failed, {ballots} ballots, {} events, fingerprint {:016x}, \
         {seconds:.1} s, {:.0} ballots/s",
        tally.schedules + scripts.run,
        tally.failures.len() + usize::from(scripts.failed.is_some()),
        tally.events + scripts.events,
        tally.fingerprint,
        ballots as f64 / seconds
    );
}
