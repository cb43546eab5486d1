//! `quorate sim`: real engines in a simulated world, where a seed decides everything
//! that goes wrong.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use quorate_sim::plan::draw::MOST_NODES;

use crate::failure::{Failure, Outcome};
use crate::output::Out;
use crate::simulator::{self, Folder, Scenario, Wanted};

const EXAMPLES: &str = "\
Examples:
  quorate sim                                    fresh seeds for 20 seconds
  quorate sim --seed 42                          one schedule, the same every time
  quorate sim --seed 42 --trace                  its story: who did what, and when
  quorate sim --minutes 60 --keep-going          a long hunt that outlives a failure
  quorate sim --schedules 5000 --scenario chains
  quorate sim --minutes 5 --nodes 5              only schedules of five nodes
  quorate sim --scenario list                    what there is
  quorate sim --scenario row-04-threshold --trace
  quorate sim --script target/sim/failed-42.txt --trace

Nodes, store and chain live in this process; no file of a real node and no port is touched. What
runs is the engine that nodes run. The exit code is 1 if anything that must hold did not: then the
command that replays it is printed, and a smaller schedule that fails alike is written down.";

/// The hunt of somebody who does not say how long.
const USUAL: Duration = Duration::from_secs(20);

/// Hunt for faults: real engines in a simulated world, one seed decides what goes wrong
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SimArgs {
    /// Run the schedule of this seed; with --schedules or --minutes, start there
    /// [default: a fresh one]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Run so many schedules
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    schedules: Option<u64>,

    /// Run schedules for so many minutes; 0.5 is half of one
    #[arg(long, value_name = "N", value_parser = parse_minutes)]
    minutes: Option<Duration>,

    /// A kind of bad day, or a script by its name; `list` lists both
    #[arg(long, value_name = "NAME")]
    scenario: Option<String>,

    /// Run only schedules of so many nodes; seeds that draw others are passed over
    #[arg(long, value_name = "N", value_parser = parse_nodes)]
    nodes: Option<usize>,

    /// Run the schedule that a file describes
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "schedules", "minutes", "scenario", "nodes"])]
    script: Option<PathBuf>,

    /// Tell the story of one schedule
    #[arg(long, conflicts_with_all = ["schedules", "minutes", "keep_going"])]
    trace: bool,

    /// How many threads run schedules [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,

    /// Go on after a failure
    #[arg(long)]
    keep_going: bool,

    /// Where the schedules of failures go
    #[arg(long, value_name = "DIR", default_value = "target/sim")]
    out: PathBuf,
}

fn parse_minutes(text: &str) -> Result<Duration, String> {
    let wrong = || "a number of minutes above 0 and below a million".to_owned();
    let minutes: f64 = text.parse().map_err(|_| wrong())?;
    if minutes > 0.0 && minutes < 1e6 {
        Ok(Duration::from_secs_f64(minutes * 60.0))
    } else {
        Err(wrong())
    }
}

fn parse_nodes(text: &str) -> Result<usize, String> {
    let nodes = text.parse().ok().filter(|n| (1..=MOST_NODES).contains(n));
    nodes.ok_or_else(|| format!("a number from 1 to {MOST_NODES}: so many nodes schedules have"))
}

pub(crate) async fn run(args: SimArgs, out: Out) -> Outcome {
    if args.scenario.as_deref() == Some("list") {
        simulator::list(out);
        return Ok(());
    }
    let folder = Folder(args.out.clone());
    simulator::run(wanted(args)?, folder, out).await
}

/// What the arguments ask for.
fn wanted(args: SimArgs) -> Outcome<Wanted> {
    let trace = args.trace;
    if let Some(file) = args.script {
        return Wanted::file(&file, trace);
    }
    let family = match args.scenario.as_deref().map(Scenario::parse).transpose()? {
        Some(Scenario::Script(script)) => {
            let hunted = args.schedules.is_some() || args.minutes.is_some();
            if args.seed.is_some() || args.nodes.is_some() || hunted {
                return Err(Failure::usage(format!(
                    "{} is a script: one schedule, with a seed and nodes of its own",
                    script.name
                ))
                .hint("leave --seed, --nodes, --schedules and --minutes out"));
            }
            return Wanted::script(script, trace);
        }
        Some(Scenario::Family(family)) => Some(family),
        None => None,
    };
    let limited = args.schedules.is_some() || args.minutes.is_some();
    let fresh = args.seed.is_none();
    let seed = match args.seed {
        Some(seed) => seed,
        None => simulator::fresh_seed(args.nodes)?,
    };
    if trace || (!fresh && !limited) {
        return Wanted::seed(seed, family, args.nodes, trace);
    }
    Ok(Wanted::hunt(simulator::Long {
        base: seed,
        schedules: args.schedules,
        time: match limited {
            true => args.minutes,
            false => Some(USUAL),
        },
        family,
        nodes: args.nodes,
        threads: args.threads.map_or_else(simulator::cores, usize::from),
        keep_going: args.keep_going,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_as_many_as_are_drawn() {
        assert_eq!(parse_nodes("1"), Ok(1));
        assert_eq!(parse_nodes("12"), Ok(12));
        for wrong in ["0", "13", "-1", "five", ""] {
            assert!(parse_nodes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn minutes_may_be_parts_of_one() {
        assert_eq!(parse_minutes("0.5"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_minutes("90"), Ok(Duration::from_secs(5_400)));
        for wrong in ["0", "-1", "nan", "inf", "1e9", "soon", ""] {
            assert!(parse_minutes(wrong).is_err(), "{wrong}");
        }
    }
}
