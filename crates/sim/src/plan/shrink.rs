//! Makes a plan that fails smaller, as long as it fails alike: fewer steps, liars and
//! members, less noise, simpler rules.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Act, BoardKind, Disk, Handed, Noise, Plan, Step, Tx};
use crate::hunt::Runner;

/// Where a change disturbs every draw of chance, these seeds are tried beside the
/// plan's own.
const OTHER_SEEDS: [u64; 2] = [1, 2];

/// A plan made smaller.
#[derive(Clone, Debug, PartialEq)]
pub struct Shrunk {
    /// The smallest that was found.
    pub plan: Plan,
    /// How often plans were run for it.
    pub runs: usize,
}

/// Shrinks a plan with at most so many runs. The result breaks the invariant that the
/// plan breaks; a plan that breaks none stays as it is.
pub fn shrink(plan: &Plan, runner: &mut Runner, most_runs: usize) -> Shrunk {
    let failure = runner.run(&Arc::new(plan.clone())).failure;
    let Some(failure) = failure else {
        let plan = plan.clone();
        return Shrunk { plan, runs: 1 };
    };
    let fails = |plan: &Arc<Plan>| {
        let broken = runner.run(plan).failure;
        broken.is_some_and(|broken| broken.invariant == failure.invariant)
    };
    let mut shrunk = shrink_while(plan, most_runs.saturating_sub(1), fails);
    shrunk.runs += 1;
    shrunk
}

/// Shrinks a plan while this says that it fails alike, with at most so many questions.
pub fn shrink_while(
    plan: &Plan,
    most_runs: usize,
    fails: impl FnMut(&Arc<Plan>) -> bool,
) -> Shrunk {
    let mut shrink = Shrink {
        plan: plan.clone(),
        left: most_runs,
        fails,
    };
    loop {
        let before = shrink.plan.clone();
        shrink.whole_ballots();
        shrink.steps();
        shrink.liars();
        shrink.members();
        shrink.noise();
        shrink.rules();
        shrink.single_steps();
        shrink.calm();
        if shrink.plan == before || shrink.left == 0 {
            break;
        }
    }
    Shrunk {
        plan: shrink.plan,
        runs: most_runs - shrink.left,
    }
}

struct Shrink<F> {
    /// The smallest so far; it fails.
    plan: Plan,
    /// How many runs are left.
    left: usize,
    fails: F,
}

impl<F: FnMut(&Arc<Plan>) -> bool> Shrink<F> {
    /// Keeps a candidate if it fails alike.
    fn keeps(&mut self, candidate: Plan) -> bool {
        if self.left == 0 || candidate == self.plan {
            return false;
        }
        self.left -= 1;
        let candidate = Arc::new(candidate);
        let kept = (self.fails)(&candidate);
        if kept {
            self.plan = Arc::unwrap_or_clone(candidate);
        }
        kept
    }

    /// The same, with other seeds if its own does not do.
    fn keeps_somehow(&mut self, candidate: Plan) -> bool {
        if self.keeps(candidate.clone()) {
            return true;
        }
        OTHER_SEEDS.into_iter().any(|seed| {
            let plan = candidate.clone();
            self.keeps(Plan { seed, ..plan })
        })
    }

    fn keeps_changed(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        let mut candidate = self.plan.clone();
        change(&mut candidate);
        self.keeps(candidate)
    }

    /// All that is about one ballot, at a time.
    fn whole_ballots(&mut self) {
        let ballots: BTreeSet<Tx> = self.plan.steps.iter().filter_map(ballot_of).collect();
        for ballot in ballots {
            self.keeps_changed(|plan| plan.steps.retain(|step| ballot_of(step) != Some(ballot)));
        }
    }

    /// Halves of the steps, quarters, and so on down to single ones.
    fn steps(&mut self) {
        let mut size = self.plan.steps.len().div_ceil(2);
        while size > 0 {
            let mut at = 0;
            while at < self.plan.steps.len() {
                let end = (at + size).min(self.plan.steps.len());
                let gone = self.keeps_changed(|plan| drop(plan.steps.drain(at..end)));
                if !gone {
                    at = end;
                }
                if self.left == 0 {
                    return;
                }
            }
            size /= 2;
        }
    }

    fn liars(&mut self) {
        self.keeps_changed(|plan| plan.liars.clear());
        for member in self.plan.liars.clone().into_keys() {
            self.keeps_changed(|plan| {
                plan.liars.remove(&member);
            });
        }
    }

    /// Members go, the last first; t goes with them where it must, or where it may.
    fn members(&mut self) {
        let mut member = self.plan.shape.nodes;
        while member > 0 {
            member -= 1;
            if self.plan.shape.nodes == 1 || self.left == 0 {
                return;
            }
            let fewer = without(&self.plan, member);
            let t = fewer.shape.threshold;
            let kept = t <= fewer.shape.nodes && self.keeps_somehow(fewer.clone());
            if !kept && t > 1 {
                let mut fewer = fewer;
                fewer.shape.threshold = t - 1;
                self.keeps_somehow(fewer);
            }
        }
    }

    fn noise(&mut self) {
        let mut quiet = self.plan.clone();
        quiet.noise = Noise::QUIET;
        if self.plan.noise == Noise::QUIET || self.keeps_somehow(quiet) {
            return;
        }
        let fields: [fn(&mut Noise); 12] = [
            |noise| noise.frame_ms = Noise::QUIET.frame_ms,
            |noise| noise.store_ms = Noise::QUIET.store_ms,
            |noise| noise.watch_ms = Noise::QUIET.watch_ms,
            |noise| noise.answer_ms = Noise::QUIET.answer_ms,
            |noise| noise.twice = 0,
            |noise| noise.overtaken = 0,
            |noise| noise.lost = 0,
            |noise| noise.vanished = 0,
            |noise| noise.reply_lost = 0,
            |noise| noise.store_refuses = 0,
            |noise| noise.chain_lost = 0,
            |noise| noise.clock_off_ms = 0,
        ];
        for quiet in fields {
            let mut candidate = self.plan.clone();
            quiet(&mut candidate.noise);
            self.keeps_somehow(candidate);
        }
    }

    /// Rules that are easier to think about, and the board that is.
    fn rules(&mut self) {
        self.keeps_changed(|plan| plan.board = BoardKind::Log);
        self.keeps_changed(|plan| plan.shape.confirmations = 1);
        self.keeps_changed(|plan| plan.shape.submitters = plan.shape.nodes);
        self.keeps_changed(|plan| plan.shape.settle_window_ms = 0);
    }

    /// Steps that are easier to think about.
    fn single_steps(&mut self) {
        for number in 0..self.plan.steps.len() {
            // Each is simpler than the one before, so this ends.
            while simpler(&self.plan.steps[number].act)
                .into_iter()
                .any(|act| self.keeps_changed(|plan| plan.steps[number].act = act))
            {}
        }
    }

    /// The faults end sooner.
    fn calm(&mut self) {
        let last = self.plan.steps.last().map_or(0, |step| step.at_ms);
        for calm_ms in [last + 1, last + 500, (last + self.plan.calm_ms) / 2] {
            let sooner = last < calm_ms && calm_ms < self.plan.calm_ms;
            if sooner && self.keeps_changed(|plan| plan.calm_ms = calm_ms) {
                return;
            }
        }
    }
}

/// The ballot that a step is about.
fn ballot_of(step: &Step) -> Option<Tx> {
    match step.act {
        Act::Vote { tx, .. } | Act::Revert { tx } | Act::GiveUp { tx } | Act::Collect { tx } => {
            Some(tx)
        }
        _ => None,
    }
}

/// The plan without a member, and without what it does. Those behind it move up.
fn without(plan: &Plan, gone: usize) -> Plan {
    let moved = |member: usize| match member {
        member if member == gone => None,
        member if member > gone => Some(member - 1),
        member => Some(member),
    };
    let mut fewer = plan.clone();
    fewer.shape.nodes -= 1;
    if gone < fewer.shape.submitters {
        fewer.shape.submitters = (fewer.shape.submitters - 1).max(1);
    }
    let liars = plan.liars.iter();
    let liars = liars.filter_map(|(member, kind)| Some((moved(*member)?, *kind)));
    fewer.liars = liars.collect();
    let steps = plan.steps.iter().filter_map(|step| {
        let act = about_others(&step.act, &moved)?;
        let at_ms = step.at_ms;
        Some(Step { at_ms, act })
    });
    fewer.steps = steps.collect();
    fewer
}

/// An act with its members moved; none when it is about a member that is gone.
fn about_others(act: &Act, moved: &impl Fn(usize) -> Option<usize>) -> Option<Act> {
    let mut act = act.clone();
    match &mut act {
        Act::Vote { node, .. }
        | Act::Crash { node, .. }
        | Act::Backup { node }
        | Act::Full { node, .. }
        | Act::Slow { node, .. }
        | Act::Clock { node, .. }
        | Act::WatchLate { node, .. }
        | Act::ReRead { node }
        | Act::KeysAway { node, .. }
        | Act::Unban { node }
        | Act::StoreAway {
            node: Some(node), ..
        }
        | Act::ChainAway {
            node: Some(node), ..
        } => *node = moved(*node)?,
        Act::Impostor { liar, name, to } => {
            *liar = moved(*liar)?;
            *name = moved(*name)?;
            *to = moved(*to)?;
        }
        Act::OneWay { from: a, to: b, .. } | Act::Break { a, b } => {
            *a = moved(*a)?;
            *b = moved(*b)?;
        }
        Act::Bridge { bridge, side, .. } => {
            *bridge = moved(*bridge)?;
            *side = side.iter().filter_map(|member| moved(*member)).collect();
        }
        Act::Partition { side, .. } | Act::Fork { side } => {
            *side = side.iter().filter_map(|member| moved(*member)).collect();
        }
        Act::Sleep { .. }
        | Act::StoreAway { node: None, .. }
        | Act::RepliesLost { .. }
        | Act::Compact
        | Act::AuditAway { .. }
        | Act::ChainAway { node: None, .. }
        | Act::Reorganise { .. }
        | Act::DropWaiting
        | Act::Fee { .. }
        | Act::Stranger
        | Act::Revert { .. }
        | Act::GiveUp { .. }
        | Act::Collect { .. }
        | Act::Forge { .. }
        | Act::RollBack { .. } => {}
    }
    Some(act)
}

/// Acts that do less of the same.
fn simpler(act: &Act) -> Vec<Act> {
    let mut simpler = Vec::new();
    let mut less = |change: &dyn Fn(&mut Act)| {
        let mut candidate = act.clone();
        change(&mut candidate);
        if candidate != *act {
            simpler.push(candidate);
        }
    };
    less(&|act| {
        if let Act::Vote { handed, .. } = act {
            *handed = Handed::Choice;
        }
    });
    less(&|act| {
        if let Act::Crash { effects, .. } = act {
            *effects = 0;
        }
    });
    less(&|act| {
        if let Act::Crash { disk, .. } = act {
            *disk = Disk::Kept;
        }
    });
    less(&|act| {
        if let Act::Crash { down_ms, .. } = act {
            *down_ms = 1;
        }
    });
    less(&|act| {
        if let Act::Reorganise { depth, .. } = act {
            *depth = (*depth).div_ceil(2);
        }
    });
    less(&|act| {
        if let Act::Reorganise { drop, .. } = act {
            *drop = false;
        }
    });
    simpler
}
