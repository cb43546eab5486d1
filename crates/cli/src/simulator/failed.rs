//! What is told of a schedule that failed: what broke, the command that replays it, and
//! a smaller schedule that fails alike.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use quorate_sim::hunt::{Runner, Size};
use quorate_sim::plan::{Plan, shrink};
use quorate_sim::world::Failure as Broke;
use serde_json::{Value, json};

use super::counted;
use super::progress::spinner;
use crate::failure::Failure;
use crate::files;
use crate::output::{Out, Tone};

/// So often a plan is run at most, to make it smaller.
const MOST_RUNS: usize = 5_000;

/// So long a smaller plan is looked for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the schedules of failures go.
#[derive(Clone, Debug)]
pub(crate) struct Folder(pub(crate) PathBuf);

/// A failure as it is told.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    broke: Broke,
    replay: String,
    shrunk: Option<Shrunk>,
}

#[derive(Clone, Debug)]
struct Shrunk {
    file: PathBuf,
    before: String,
    after: String,
}

impl Shrunk {
    fn replay(&self) -> String {
        format!("quorate sim --script {} --trace", self.file.display())
    }
}

impl Failed {
    /// Tells no more than what broke.
    pub(super) fn as_it_is(broke: &Broke, replay: String) -> Self {
        Self {
            broke: broke.clone(),
            replay,
            shrunk: None,
        }
    }

    /// Looks for a smaller schedule that fails alike, and writes it down.
    pub(super) fn shrunk(
        plan: &Arc<Plan>,
        broke: &Broke,
        replay: String,
        folder: &Folder,
        runner: &mut Runner,
        out: Out,
    ) -> Self {
        let bar = shrinking(plan.seed, out);
        let (smaller, broken) = shrunk(plan, broke, runner);
        bar.finish_and_clear();
        let file = folder.0.join(format!("failed-{}.txt", plan.seed));
        let shrunk = match write(&file, plan.seed, &smaller, &broken, &replay) {
            Ok(()) => Some(Shrunk {
                file,
                before: size_text(plan),
                after: size_text(&smaller),
            }),
            Err(failure) => {
                // What broke is worth more than where it could not be written.
                out.note(format!("the shrunk schedule is lost: {failure}"));
                None
            }
        };
        Self {
            broke: broke.clone(),
            replay,
            shrunk,
        }
    }

    /// For machines.
    pub(super) fn json(&self) -> Value {
        json!({
            "invariant": self.broke.invariant,
            "detail": self.broke.detail,
            "at_ms": self.broke.at_ms,
            "replay": self.replay,
            "script": self.shrunk.as_ref().map(|shrunk| shrunk.file.display().to_string()),
            "script_replay": self.shrunk.as_ref().map(Shrunk::replay),
        })
    }

    /// For people.
    pub(super) fn rows(&self) -> Vec<(&'static str, Tone, String)> {
        let mut rows = vec![
            ("broken", Tone::Bad, broken(&self.broke)),
            ("it says", Tone::Plain, self.broke.detail.clone()),
            ("replay", Tone::Plain, self.replay.clone()),
        ];
        if let Some(shrunk) = &self.shrunk {
            let sizes = format!("from {} to {}", shrunk.before, shrunk.after);
            rows.push(("shrunk", Tone::Plain, sizes));
            rows.push(("replay that", Tone::Plain, shrunk.replay()));
        }
        rows
    }

    /// What the command ends with.
    pub(super) fn error(&self, what: &str, hint: bool) -> Failure {
        let failure = Failure::failed(format!("{what}: {}", broken(&self.broke)));
        match (hint, &self.shrunk) {
            (false, _) => failure,
            (true, Some(shrunk)) => failure.hint(shrunk.replay()),
            (true, None) => failure.hint(&self.replay),
        }
    }
}

/// What broke and when, in a few words.
pub(super) fn broken(broke: &Broke) -> String {
    match broke.at_ms {
        0 => broke.invariant.to_owned(),
        at_ms => format!("{} at {:.3} s", broke.invariant, at_ms as f64 / 1e3),
    }
}

/// The smallest plan that breaks the same invariant, as far as it was looked for, and
/// what it breaks.
fn shrunk(plan: &Arc<Plan>, broke: &Broke, runner: &mut Runner) -> (Plan, Broke) {
    let began = Instant::now();
    let mut smallest = broke.clone();
    let fails = |plan: &Arc<Plan>| {
        // Late is late: then no smaller one is found any more, at no cost.
        if began.elapsed() > PATIENCE {
            return false;
        }
        match runner.run(plan).failure {
            Some(found) if found.invariant == broke.invariant => {
                smallest = found;
                true
            }
            _ => false,
        }
    };
    let shrunk = shrink::shrink_while(plan, MOST_RUNS, fails);
    (shrunk.plan, smallest)
}

/// Writes a schedule as the corpus of those that failed has them.
fn write(file: &Path, seed: u64, plan: &Plan, broke: &Broke, replay: &str) -> Result<(), Failure> {
    // A reason may have several lines; those of a comment all begin alike.
    let says = broke.detail.replace('\n', "\n#   ");
    // The corpus asks for the last two: whoever mends it knows what to say.
    let text = format!(
        "# seed: {seed} ({replay})\n# invariant: {} ({says})\n# wrong:\n# mended:\n{plan}",
        broke.invariant
    );
    files::write_atomically(file, text.as_bytes())
}

fn size_text(plan: &Plan) -> String {
    let size = Size::of(plan);
    format!(
        "{}, {}, {}, {}",
        counted(plan.shape.nodes as u64, "node", "nodes"),
        counted(size.liars, "liar", "liars"),
        counted(size.ballots, "ballot", "ballots"),
        counted(size.faults, "fault", "faults"),
    )
}

fn shrinking(seed: u64, out: Out) -> ProgressBar {
    let text = format!("looking for a smaller schedule that fails as seed {seed} does");
    match out.is_live() {
        true => spinner().with_message(text),
        false => {
            out.note(text);
            ProgressBar::hidden()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broke() -> Broke {
        Broke {
            invariant: "agreement",
            detail: "two certificates\nfor tx-1".into(),
            at_ms: 1_250,
        }
    }

    #[test]
    fn what_is_written_down_can_be_read_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("new/failed-7.txt");
        let plan = quorate_sim::plan::draw::plan(7);
        write(&file, 7, &plan, &broke(), "quorate sim --seed 7").expect("a file");
        let text = std::fs::read_to_string(&file).expect("a file");
        assert!(text.starts_with("# seed: 7 (quorate sim --seed 7)\n# invariant: agreement ("));
        assert_eq!(text.parse(), Ok(plan));
    }

    #[test]
    fn a_failure_names_the_commands_that_replay_it() {
        let failed = Failed {
            broke: broke(),
            replay: "quorate sim --seed 7".into(),
            shrunk: Some(Shrunk {
                file: "x/failed-7.txt".into(),
                before: "5 nodes".into(),
                after: "2 nodes".into(),
            }),
        };
        let json = failed.json();
        assert_eq!(json["replay"], "quorate sim --seed 7");
        assert_eq!(
            json["script_replay"],
            "quorate sim --script x/failed-7.txt --trace"
        );
        let error = failed.error("a schedule failed", true);
        assert_eq!(error.message(), "a schedule failed: agreement at 1.250 s");
        assert_eq!(error.advice(), json["script_replay"].as_str());
        let rows = failed.rows();
        assert!(
            rows.iter()
                .any(|(_, _, text)| text.contains("from 5 nodes to 2 nodes"))
        );
    }

    #[test]
    fn a_plan_that_does_not_fail_stays_as_it_is() {
        let text = "nodes 2\nat 100 vote node1 tx-1 1\n";
        let plan: Arc<Plan> = Arc::new(text.parse().expect("a plan"));
        let (smaller, broken) = shrunk(&plan, &broke(), &mut Runner::default());
        assert_eq!((smaller, broken), (Plan::clone(&plan), broke()));
    }
}
