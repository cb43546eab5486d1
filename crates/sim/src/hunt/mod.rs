//! Running schedules: one, or many until something breaks.

mod many;
pub(crate) mod panics;
mod tally;

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_consensus::rules::RulesError;
use quorate_consensus::wire::{ChainKind, ChainTarget, PayloadEncoding};
use quorate_testkit::{Cluster, Options};

use crate::invariants::{self, Invariant};
use crate::plan::{Plan, Shape, draw};
use crate::story::Story;
use crate::world::{Outcome, World};

pub use many::{Hunt, many};
pub use panics::PANIC;
pub use tally::{Count, Found, Size, Tally, command};

/// How many clusters a runner keeps: a long hunt meets some 17,000.
const KEPT: usize = 256;

/// Runs plans. Clusters are kept, for it takes longer to make one than to run a ballot.
pub struct Runner {
    clusters: BTreeMap<String, Arc<Cluster>>,
    invariants: fn() -> Vec<Box<dyn Invariant>>,
}

impl Default for Runner {
    /// All invariants watch.
    fn default() -> Self {
        Self::watched_by(invariants::all)
    }
}

impl Runner {
    /// One whose worlds are watched by these invariants, made anew for each.
    pub fn watched_by(invariants: fn() -> Vec<Box<dyn Invariant>>) -> Self {
        Self {
            clusters: BTreeMap::new(),
            invariants,
        }
    }

    /// Whether a plan's rules are rules. Those of drawn plans are; others are checked
    /// before they are run.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(plan: &Plan) -> Result<(), RulesError> {
        let shape = &plan.shape;
        Cluster::try_with(shape.nodes, shape.threshold, options(shape)).map(|_| ())
    }

    /// Runs one plan to its end. A panic is a failure like others.
    pub fn run(&mut self, plan: &Arc<Plan>) -> Outcome {
        self.world(plan, None).run().0
    }

    /// Runs one plan and tells its story.
    pub fn tell(&mut self, plan: &Arc<Plan>) -> (Outcome, Story) {
        let (outcome, story) = self.world(plan, Some(Story::default())).run();
        (outcome, story.unwrap_or_default())
    }

    /// Draws the plan of a seed and runs it.
    pub fn hunt(&mut self, seed: u64) -> Outcome {
        self.run(&Arc::new(draw::plan(seed)))
    }

    fn world(&mut self, plan: &Arc<Plan>, story: Option<Story>) -> World {
        let cluster = self.cluster(&plan.shape);
        World::new(plan.clone(), cluster, (self.invariants)(), story)
    }

    fn cluster(&mut self, shape: &Shape) -> Arc<Cluster> {
        if self.clusters.len() >= KEPT {
            self.clusters.clear();
        }
        // Who submits is no rule.
        let ruled = Shape {
            submitters: 0,
            ..shape.clone()
        };
        let key = format!("{ruled:?}");
        let make = || Arc::new(Cluster::with(shape.nodes, shape.threshold, options(shape)));
        self.clusters.entry(key).or_insert_with(make).clone()
    }
}

fn options(shape: &Shape) -> Options {
    Options {
        name: "sim".into(),
        dissent: shape.dissent,
        silence: shape.silence,
        vote_timeout_ms: shape.vote_timeout_ms,
        settle_window_ms: shape.settle_window_ms,
        clock_skew_ms: shape.clock_skew_ms,
        chain: ChainTarget {
            kind: ChainKind::Ledger.into(),
            chain_id: "sim".into(),
            account: "treasury".into(),
            destination: "vault".into(),
            encoding: PayloadEncoding::QuorateV1.into(),
            first_nonce: 7,
            confirmations: shape.confirmations,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::{Happening, Sort};

    /// Panics when a client has an answer.
    struct Panics;

    impl Invariant for Panics {
        fn name(&self) -> &'static str {
            "panics"
        }

        fn watches(&self) -> &'static [Sort] {
            &[Sort::Answered]
        }

        fn sees(&mut self, _world: &World, what: &Happening<'_>) -> Result<(), String> {
            if let Happening::Answered { client, .. } = what {
                panic!("client {client}");
            }
            Ok(())
        }
    }

    #[test]
    fn a_panic_fails_its_schedule_and_keeps_its_story() {
        let plan = "nodes 3\nat 100 vote node1 tx-1 42\n".parse::<Plan>();
        let plan = Arc::new(plan.expect("a plan"));
        let mut runner = Runner::watched_by(|| vec![Box::new(Panics)]);
        let (outcome, story) = runner.tell(&plan);
        let failure = outcome.failure.expect("a failure");
        assert_eq!(failure.invariant, PANIC);
        assert!(failure.detail.starts_with("client 0 ("), "{failure:?}");
        assert!(
            story.lines.iter().any(|line| line.contains("node1")),
            "{story:?}"
        );
        // The next schedule is none the worse for it.
        assert_eq!(runner.run(&plan).failure, Some(failure));
    }

    #[test]
    fn rules_that_are_none_are_told() {
        let plan = |text: &str| text.parse::<Plan>().expect("a plan");
        assert_eq!(Runner::check(&plan("nodes 3\n")), Ok(()));
        let wrong = Runner::check(&plan("nodes 3\ntimeout 1\n")).unwrap_err();
        assert!(wrong.to_string().contains("vote_timeout_ms"), "{wrong}");
    }
}
