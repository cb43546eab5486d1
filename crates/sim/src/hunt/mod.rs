//! Running schedules: one, or many until something breaks.

mod many;
mod panics;
mod tally;

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_consensus::wire::{ChainKind, ChainTarget, PayloadEncoding};
use quorate_testkit::{Cluster, Options};

use crate::invariants::{self, Invariant};
use crate::plan::{Plan, Shape, draw};
use crate::story::Story;
use crate::world::{Failure, Outcome, World};

pub use many::{Hunt, many};
pub use tally::{Count, Found, Size, Tally};

/// What a panic is called among the invariants.
pub const PANIC: &str = "panic";

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

    /// Runs one plan to its end. A panic is a failure like others.
    pub fn run(&mut self, plan: &Arc<Plan>) -> Outcome {
        self.caught(plan, None).0
    }

    /// Runs one plan and tells its story.
    pub fn tell(&mut self, plan: &Arc<Plan>) -> (Outcome, Story) {
        let (outcome, story) = self.caught(plan, Some(Story::default()));
        (outcome, story.unwrap_or_default())
    }

    /// Draws the plan of a seed and runs it.
    pub fn hunt(&mut self, seed: u64) -> Outcome {
        self.run(&Arc::new(draw::plan(seed)))
    }

    fn caught(&mut self, plan: &Arc<Plan>, story: Option<Story>) -> (Outcome, Option<Story>) {
        panics::caught(|| self.world(plan, story).run()).unwrap_or_else(|detail| {
            let failure = Failure {
                invariant: PANIC,
                detail,
                at_ms: 0,
            };
            let outcome = Outcome {
                failure: Some(failure),
                ..Outcome::default()
            };
            (outcome, None)
        })
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
