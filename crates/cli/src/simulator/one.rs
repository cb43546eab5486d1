//! One schedule: what is in it, its story, and whether all held.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use quorate_consensus::wire::{DissentPolicy, SilencePolicy};
use quorate_sim::golden::{self, Script};
use quorate_sim::hunt::{Runner, Size, command};
use quorate_sim::plan::draw::{self, Family};
use quorate_sim::plan::text::PlanTextError;
use quorate_sim::plan::{BoardKind, Plan, Shape};
use quorate_sim::world::Outcome as Came;
use serde_json::json;

use super::failed::{Failed, Folder};
use super::{Long, counted};
use crate::failure::{Failure, Outcome};
use crate::files;
use crate::output::{Out, Tone};

/// What is to be run.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// One schedule.
    One(Box<One>),
    /// Many.
    Long(Long),
}

/// One schedule.
#[derive(Debug)]
pub(crate) struct One {
    plan: Arc<Plan>,
    source: Source,
    trace: bool,
}

/// Where a schedule comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// Its seed, in a family.
    Seed(Family),
    /// A script that comes with the program.
    Script(Script),
    /// A file, as it was named.
    File(String),
}

impl Wanted {
    /// The schedule of a seed: in this family, or in the seed's own.
    ///
    /// # Errors
    /// When it has not so many members as are asked for.
    pub(crate) fn seed(
        seed: u64,
        family: Option<Family>,
        nodes: Option<usize>,
        trace: bool,
    ) -> Outcome<Self> {
        let has = draw::nodes(seed);
        if let Some(nodes) = nodes.filter(|nodes| *nodes != has) {
            let has = counted(has as u64, "node", "nodes");
            return Err(Failure::usage(format!(
                "the schedule of seed {seed} has {has}, not {nodes}"
            ))
            .hint("leave --nodes out, or --seed; with --schedules other seeds are passed over"));
        }
        let family = family.unwrap_or_else(|| draw::family(seed));
        let plan = draw::of_family(seed, family);
        Ok(Self::one(plan, Source::Seed(family), trace))
    }

    /// A script that comes with the program.
    ///
    /// # Errors
    /// When its text is no plan.
    pub(crate) fn script(script: Script, trace: bool) -> Outcome<Self> {
        let plan = script.plan().map_err(|e| no_plan(script.name, &e))?;
        Ok(Self::one(plan, Source::Script(script), trace))
    }

    /// A script in a file.
    ///
    /// # Errors
    /// When it cannot be read, or is no plan.
    pub(crate) fn file(path: &Path, trace: bool) -> Outcome<Self> {
        let name = path.display().to_string();
        let text = String::from_utf8(files::read(path)?)
            .map_err(|_| Failure::usage(format!("{name} is no text")))?;
        let plan = golden::plan_of(&text).map_err(|e| no_plan(&name, &e))?;
        Runner::check(&plan)
            .map_err(|e| Failure::usage(format!("{name} has rules that are none: {e}")))?;
        Ok(Self::one(plan, Source::File(name), trace))
    }

    /// Many schedules.
    pub(crate) fn hunt(long: Long) -> Self {
        Self::Long(long)
    }

    fn one(plan: Plan, source: Source, trace: bool) -> Self {
        Self::One(Box::new(One {
            plan: Arc::new(plan),
            source,
            trace,
        }))
    }

    /// Runs it, until it ends or is told to stop.
    ///
    /// # Errors
    /// When something that must hold did not.
    pub(super) fn run(self, stop: &AtomicBool, folder: &Folder, out: Out) -> Outcome {
        match self {
            Self::One(one) => one.run(folder, out),
            Self::Long(long) => long.run(stop, folder, out),
        }
    }
}

fn no_plan(name: &str, error: &PlanTextError) -> Failure {
    Failure::usage(format!("{name} is no schedule: {error}")).hint(
        "docs/simulator.md shows how a script is written; `quorate sim --scenario list` names some",
    )
}

impl One {
    fn run(self, folder: &Folder, out: Out) -> Outcome {
        let mut rows = self.rows();
        if self.trace {
            // Whoever reads a story wants to know first who is in it.
            out.line(out.pairs(rows));
            rows = Vec::new();
        }
        let began = Instant::now();
        let mut runner = Runner::default();
        let (came, story) = match self.trace {
            true => runner.tell(&self.plan),
            false => (runner.run(&self.plan), Default::default()),
        };
        let took = began.elapsed();
        for line in &story.lines {
            out.line(line);
        }
        // Who reads a story has the schedule in hand already.
        let seeded = matches!(self.source, Source::Seed(_));
        let failed = came.failure.as_ref().map(|failure| {
            let replay = self.replay();
            match seeded && !self.trace {
                true => Failed::shrunk(&self.plan, failure, replay, folder, &mut runner, out),
                false => Failed::as_it_is(failure, replay),
            }
        });
        self.print_json(&came, failed.as_ref(), took, &story.lines, out);
        rows.push(("took", Tone::Plain, took_text(&came, took)));
        match &failed {
            None => rows.push(("outcome", Tone::Good, "all that must hold held".to_owned())),
            Some(failed) => rows.extend(failed.rows()),
        }
        out.line(out.pairs(rows));
        match failed {
            Some(failed) => Err(failed.error("the schedule failed", !self.trace)),
            None => {
                if !self.trace {
                    out.line(format!("Its story: {}", self.replay()));
                }
                Ok(())
            }
        }
    }

    /// Who is in it, and what.
    fn rows(&self) -> Vec<(&'static str, Tone, String)> {
        let (size, shape) = (Size::of(&self.plan), &self.plan.shape);
        let liars = self.liars().map(|(node, kind)| format!("{node} {kind}"));
        let liars: Vec<_> = liars.collect();
        let liars = match liars.is_empty() {
            true => "none".to_owned(),
            false => liars.join(", "),
        };
        let in_it = format!(
            "{}, {}, {}",
            counted(size.ballots, "ballot", "ballots"),
            counted(size.faults, "fault", "faults"),
            counted(size.restarts, "restart", "restarts"),
        );
        vec![
            ("schedule", Tone::Plain, self.scenario_text()),
            ("trustees", Tone::Plain, shape_text(shape)),
            ("board", Tone::Plain, board_text(self.plan.board).into()),
            ("liars", Tone::Plain, liars),
            ("in it", Tone::Plain, in_it),
        ]
    }

    fn liars(&self) -> impl Iterator<Item = (String, &'static str)> {
        let liars = self.plan.liars.iter();
        liars.map(|(member, kind)| (self.plan.shape.node_id(*member), kind.name()))
    }

    fn print_json(
        &self,
        came: &Came,
        failed: Option<&Failed>,
        took: Duration,
        story: &[String],
        out: Out,
    ) {
        let (size, shape) = (Size::of(&self.plan), &self.plan.shape);
        let liars = self.liars();
        let liars = liars.map(|(node, kind)| json!({ "node_id": node, "kind": kind }));
        out.json_pretty(&json!({
            "seed": self.plan.seed,
            "scenario": self.scenario(),
            "holds": failed.is_none(),
            "failure": failed.map(Failed::json),
            "nodes": shape.nodes,
            "threshold": shape.threshold,
            "board": self.plan.board.name(),
            "liars": liars.collect::<Vec<_>>(),
            "ballots": size.ballots,
            "faults": size.faults,
            "restarts": size.restarts,
            "events": came.events,
            "simulated_ms": came.took_ms,
            "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "fingerprint": format!("{:016x}", came.fingerprint),
            "replay": self.replay(),
            "script": self.plan.to_string(),
            "story": self.trace.then_some(story),
        }));
    }

    fn scenario(&self) -> String {
        match &self.source {
            Source::Seed(family) => family.name().to_owned(),
            Source::Script(script) => script.name.to_owned(),
            Source::File(name) => name.clone(),
        }
    }

    fn scenario_text(&self) -> String {
        match &self.source {
            Source::Seed(family) => {
                format!(
                    "seed {}, {}: {}",
                    self.plan.seed,
                    family.name(),
                    family.about()
                )
            }
            Source::Script(script) => format!("script {}: {}", script.name, script.about()),
            Source::File(name) => format!("script {name}"),
        }
    }

    /// The command that runs it again and tells its story.
    fn replay(&self) -> String {
        let command = match &self.source {
            Source::Seed(family) => command(self.plan.seed, *family),
            Source::Script(script) => format!("quorate sim --scenario {}", script.name),
            Source::File(name) => format!("quorate sim --script {name}"),
        };
        format!("{command} --trace")
    }
}

fn took_text(came: &Came, took: Duration) -> String {
    format!(
        "{} of the engines in {:.1} simulated seconds; {:.2} s here",
        counted(came.events, "event", "events"),
        came.took_ms as f64 / 1e3,
        took.as_secs_f64()
    )
}

fn board_text(board: BoardKind) -> &'static str {
    match board {
        BoardKind::Log => "a log that the store keeps",
        BoardKind::Keys => "keys of a model of etcd",
    }
}

fn shape_text(shape: &Shape) -> String {
    let dissent = match shape.dissent {
        DissentPolicy::Outvote => "outvote",
        _ => "abort",
    };
    let silence = match shape.silence {
        SilencePolicy::Ban => "ban",
        _ => "mark",
    };
    format!(
        "N = {}, t = {}, dissent {dissent}, silence {silence}, {} of them submit",
        shape.nodes, shape.threshold, shape.submitters
    )
}
