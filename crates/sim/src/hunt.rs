//! Running schedules: one, or many until something breaks.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_consensus::wire::{ChainKind, ChainTarget, PayloadEncoding};
use quorate_testkit::{Cluster, Options};

use crate::invariants;
use crate::plan::{Plan, Shape, draw};
use crate::story::Story;
use crate::world::{Outcome, World};

/// Runs plans. Clusters are kept, for it takes longer to make one than to run a ballot.
#[derive(Default)]
pub struct Runner {
    clusters: BTreeMap<String, Arc<Cluster>>,
}

impl Runner {
    /// Runs one plan to its end.
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
        World::new(plan.clone(), cluster, invariants::all(), story)
    }

    fn cluster(&mut self, shape: &Shape) -> Arc<Cluster> {
        let key = format!("{shape:?}");
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
