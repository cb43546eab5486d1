//! What many schedules came to, and what was in them.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::draw::{self, Family};
use crate::plan::{Act, Disk, Plan};
use crate::world::{Failure, Outcome};

/// A schedule that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its seed.
    pub seed: u64,
    /// Its family of bad days.
    pub family: Family,
    /// Its number in the hunt: 1 is the first. The same however many threads hunt.
    pub after: u64,
    /// What broke.
    pub failure: Failure,
}

impl Found {
    /// The command that tells its story.
    pub fn replay(&self) -> String {
        format!("{} --trace", command(self.seed, self.family))
    }
}

/// The command that runs the schedule of a seed in a family.
pub fn command(seed: u64, family: Family) -> String {
    if draw::family(seed) == family {
        format!("quorate sim --seed {seed}")
    } else {
        format!("quorate sim --seed {seed} --scenario {}", family.name())
    }
}

/// What the schedules of one family came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Schedules that were run.
    pub schedules: u64,
    /// Ballots that their boards saw.
    pub ballots: u64,
    /// Schedules that failed.
    pub failed: u64,
}

/// What all schedules of a hunt came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Schedules that were run.
    pub schedules: u64,
    /// Ballots that their boards saw.
    pub ballots: u64,
    /// Events that engines were given.
    pub events: u64,
    /// Milliseconds that passed in the worlds.
    pub simulated_ms: u64,
    /// The fingerprints of all schedules, summed: a digest of all that happened, in
    /// whatever order threads ran them.
    pub fingerprint: u64,
    /// What failed; in order of seeds once the hunt is over.
    pub failures: Vec<Found>,
    /// The same by family.
    pub families: BTreeMap<Family, Count>,
    /// How many schedules had a liar of this kind.
    pub liars: BTreeMap<&'static str, u64>,
    /// How many schedules had a fault of this kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// The smallest schedule of all.
    pub least: Option<Size>,
    /// All schedules together.
    pub total: Size,
}

/// How much is in a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Ballots that clients ask for.
    pub ballots: u64,
    /// Faults, restarts among them; not the small misfortunes of
    /// [`Noise`](crate::plan::Noise).
    pub faults: u64,
    /// Times that a process dies and starts again.
    pub restarts: u64,
    /// Liars.
    pub liars: u64,
}

impl Size {
    /// Of a plan.
    pub fn of(plan: &Plan) -> Self {
        let mut ballots = BTreeSet::new();
        let mut size = Self {
            liars: plan.liars.len() as u64,
            ..Self::default()
        };
        for step in &plan.steps {
            match &step.act {
                Act::Vote { tx, .. } => {
                    ballots.insert(*tx);
                }
                act => {
                    size.faults += u64::from(act.is_fault());
                    size.restarts += restarts(act, plan);
                }
            }
        }
        size.ballots = ballots.len() as u64;
        size
    }

    fn add(&mut self, other: Self) {
        self.ballots += other.ballots;
        self.faults += other.faults;
        self.restarts += other.restarts;
        self.liars += other.liars;
    }

    /// The smaller of both in each respect.
    pub(super) fn least(self, other: Self) -> Self {
        Self {
            ballots: self.ballots.min(other.ballots),
            faults: self.faults.min(other.faults),
            restarts: self.restarts.min(other.restarts),
            liars: self.liars.min(other.liars),
        }
    }
}

fn restarts(act: &Act, plan: &Plan) -> u64 {
    match act {
        Act::Crash { .. } => 1,
        Act::Sleep { .. } => plan.shape.nodes as u64,
        _ => 0,
    }
}

/// What kind of act it is, in a word or two.
fn kind(act: &Act) -> &'static str {
    match act {
        Act::Vote { .. } => "vote asked for",
        Act::Crash { disk, .. } => match disk {
            Disk::Kept => "crash",
            Disk::Unsynced => "crash losing writes",
            Disk::Lost => "crash losing the disk",
            Disk::Restored => "crash with an old disk",
        },
        Act::Backup { .. } => "backup",
        Act::Sleep { .. } => "all nodes down",
        Act::Partition { .. } => "partition",
        Act::Bridge { .. } => "partition with a bridge",
        Act::OneWay { .. } => "one-way partition",
        Act::Break { .. } => "stream broken",
        Act::Full { .. } => "queues full",
        Act::Slow { .. } => "slow peer",
        Act::Clock { .. } => "clock jump",
        Act::StoreAway { .. } => "store away",
        Act::RepliesLost { .. } => "store replies lost",
        Act::WatchLate { .. } => "watch late",
        Act::ReRead { .. } => "watch compacted",
        Act::Compact => "store compacted",
        Act::AuditAway { .. } => "audit store away",
        Act::ChainAway { .. } => "chain away",
        Act::KeysAway { .. } => "keys away",
        Act::Reorganise { .. } => "reorganisation",
        Act::DropWaiting => "mempool drop",
        Act::Fee { .. } => "fee too low",
        Act::Stranger => "nonce used by a stranger",
        Act::Revert { .. } => "chain reverts",
        Act::GiveUp { .. } => "given up",
        Act::Impostor { .. } => "impostor",
        Act::Unban { .. } => "unban",
        Act::Collect { .. } => "collected",
        Act::Forge { .. } => "store forges",
        Act::RollBack { .. } => "store rolled back",
        Act::Fork { .. } => "store forks",
    }
}

impl Tally {
    /// One more schedule, the `after`-th.
    pub(super) fn add(&mut self, after: u64, family: Family, plan: &Plan, outcome: Outcome) {
        let size = Size::of(plan);
        let failed = u64::from(outcome.failure.is_some());
        self.schedules += 1;
        self.ballots += outcome.ballots;
        self.events += outcome.events;
        self.simulated_ms += outcome.took_ms;
        self.fingerprint = self.fingerprint.wrapping_add(outcome.fingerprint);
        self.total.add(size);
        self.least = Some(self.least.map_or(size, |least| least.least(size)));
        let count = self.families.entry(family).or_default();
        count.schedules += 1;
        count.ballots += outcome.ballots;
        count.failed += failed;
        let liars = plan.liars.values().map(|liar| liar.name());
        once_each(&mut self.liars, liars);
        let acts = plan.steps.iter().map(|step| &step.act);
        once_each(
            &mut self.faults,
            acts.filter(|act| act.is_fault()).map(kind),
        );
        if let Some(failure) = outcome.failure {
            self.failures.push(Found {
                seed: plan.seed,
                family,
                after,
                failure,
            });
        }
    }
}

/// Counts a schedule for each of these names.
fn once_each(counts: &mut BTreeMap<&'static str, u64>, names: impl Iterator<Item = &'static str>) {
    for name in names.collect::<BTreeSet<_>>() {
        *counts.entry(name).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_in_its_own_family_needs_no_scenario() {
        for family in Family::ALL {
            let command = command(7, *family);
            let rest = command.strip_prefix("quorate sim --seed 7");
            let expected = match draw::family(7) == *family {
                true => String::new(),
                false => format!(" --scenario {}", family.name()),
            };
            assert_eq!(rest, Some(&*expected));
        }
    }
}
