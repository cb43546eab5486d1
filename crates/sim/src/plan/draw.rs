//! A plan drawn from a seed. Each seed belongs to a *family* of bad days; within it
//! everything is a matter of chance.

use std::collections::BTreeMap;

use fastrand::Rng;
use quorate_consensus::wire::{DissentPolicy, SilencePolicy};
use quorate_consensus::{Choice, Value};

use super::{Act, BoardKind, Handed, Noise, Plan, Shape, Step, Tx};
use crate::liars::LiarKind;

mod faults;
mod keys;

/// A kind of bad day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Some of everything, and as many liars as decisions bear.
    Mixed,
    /// Processes die, with and without their disks.
    Crashes,
    /// The network falls apart.
    Partitions,
    /// The store is away, loses replies, is late.
    Stores,
    /// The chain reorganises, forgets, charges more, and serves strangers.
    Chains,
    /// Clocks are off and jump.
    Clocks,
    /// Many liars, and few faults.
    Liars,
    /// More liars than decisions bear: only safety is asked.
    Unsafe,
    /// The store itself lies: only safety is asked.
    LyingStore,
    /// Finished ballots are collected, and asked for again.
    Collected,
}

impl Family {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Mixed,
        Self::Crashes,
        Self::Partitions,
        Self::Stores,
        Self::Chains,
        Self::Clocks,
        Self::Liars,
        Self::Unsafe,
        Self::LyingStore,
        Self::Collected,
    ];

    /// Its name, as people type it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mixed => "mixed",
            Self::Crashes => "crashes",
            Self::Partitions => "partitions",
            Self::Stores => "stores",
            Self::Chains => "chains",
            Self::Clocks => "clocks",
            Self::Liars => "liars",
            Self::Unsafe => "unsafe",
            Self::LyingStore => "lying-store",
            Self::Collected => "collected",
        }
    }

    /// What goes wrong in it, in a sentence.
    pub fn about(self) -> &'static str {
        match self {
            Self::Mixed => "some of everything, and as many liars as decisions bear",
            Self::Crashes => "processes die, with and without their disks",
            Self::Partitions => "the network falls apart: in two, one way, with a bridge",
            Self::Stores => "the store is away, loses replies, is late",
            Self::Chains => "the chain reorganises, forgets, charges more, serves strangers",
            Self::Clocks => "clocks are off and jump",
            Self::Liars => "as many liars as decisions bear",
            Self::Unsafe => "more liars than decisions bear: only safety is asked",
            Self::LyingStore => "the store itself lies: only safety is asked",
            Self::Collected => "finished ballots are collected, and asked for again",
        }
    }
}

/// The least number of ballots, and of faults, in a schedule.
const LEAST: (usize, usize) = (8, 20);

/// The most members that are drawn.
pub const MOST_NODES: usize = 12;

/// The plan of a seed.
pub fn plan(seed: u64) -> Plan {
    of_family(seed, family(seed))
}

/// The family of a seed.
pub fn family(seed: u64) -> Family {
    let mut rng = Rng::with_seed(seed);
    match rng.u32(0..100) {
        0..40 => Family::Mixed,
        40..52 => Family::Crashes,
        52..60 => Family::Partitions,
        60..68 => Family::Stores,
        68..78 => Family::Chains,
        78..83 => Family::Clocks,
        83..91 => Family::Liars,
        91..95 => Family::Unsafe,
        95..98 => Family::LyingStore,
        _ => Family::Collected,
    }
}

/// What the board of a seed lies in, whichever its family.
pub fn board(seed: u64) -> BoardKind {
    keys::board(seed)
}

/// How many members there are in the schedule of a seed, whichever its family.
pub fn nodes(seed: u64) -> usize {
    nodes_by(&mut dice(seed))
}

/// The plan of a seed in a family.
pub fn of_family(seed: u64, family: Family) -> Plan {
    let rng = dice(seed);
    let mut plan = Draw { rng, family }.plan(seed);
    keys::choose(&mut plan, family);
    plan
}

fn dice(seed: u64) -> Rng {
    Rng::with_seed(seed ^ 0x0051_6d75_6c61_7465)
}

/// The first throw of all.
fn nodes_by(rng: &mut Rng) -> usize {
    // Few members find nearly everything that many find, and cost far less: frames
    // grow with the square.
    match rng.u32(0..100) {
        0..4 => 1,
        4..8 => 2,
        8..33 => 3,
        33..63 => 4,
        63..88 => 5,
        88..93 => 6,
        93..97 => 7,
        _ => rng.usize(8..=MOST_NODES),
    }
}

struct Draw {
    rng: Rng,
    family: Family,
}

impl Draw {
    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.rng.usize(0..from.len())].clone()
    }

    fn plan(&mut self, seed: u64) -> Plan {
        let shape = self.shape();
        let liars = self.liars(&shape);
        let noise = self.noise(&shape);
        let mut steps = Vec::new();
        let span_ms = self.pick(&[1_500, 3_000, 6_000]);
        self.ballots(&shape, &liars, span_ms, &mut steps);
        self.faults(&shape, &liars, span_ms, &mut steps);
        let forgets = matches!(
            self.family,
            Family::Mixed | Family::Crashes | Family::Liars | Family::Unsafe
        );
        if forgets && self.rng.u32(0..6) == 0 {
            self.forgotten(&shape, &liars, span_ms, &mut steps);
        }
        if self.family == Family::Collected {
            self.collection(&shape, span_ms, &mut steps);
        }
        steps.sort_by_key(|step| step.at_ms);
        let last = steps.iter().map(|step| step.at_ms).max().unwrap_or(0);
        Plan {
            seed,
            board: BoardKind::Log,
            shape,
            liars,
            noise,
            steps,
            calm_ms: last + 500,
        }
    }

    fn shape(&mut self) -> Shape {
        let nodes = nodes_by(&mut self.rng);
        // Mostly what people choose: two thirds. With half of them, or fewer, two values can
        // both get t votes: what comes of that, liars show.
        let threshold = match self.rng.bool() {
            _ if self.family == Family::Liars && self.rng.u32(0..4) == 0 => (nodes / 2).max(1),
            true => (2 * nodes).div_ceil(3),
            false => self.rng.usize(1..=nodes),
        };
        let dissent = match self.rng.bool() {
            true => DissentPolicy::Abort,
            false => DissentPolicy::Outvote,
        };
        let silence = match self.rng.u32(0..4) {
            0 => SilencePolicy::Ban,
            _ => SilencePolicy::Mark,
        };
        Shape {
            nodes,
            threshold,
            dissent,
            silence,
            vote_timeout_ms: self.pick(&[2_000, 5_000, 10_000]),
            settle_window_ms: self.pick(&[0, 50, 500]),
            clock_skew_ms: self.pick(&[200, 1_000]),
            confirmations: self.pick(&[1, 2, 4]),
            submitters: match self.rng.bool() {
                true => nodes,
                false => self.rng.usize(1..=nodes),
            },
        }
    }

    fn liars(&mut self, shape: &Shape) -> BTreeMap<usize, LiarKind> {
        let (n, t) = (shape.nodes, shape.threshold);
        let bearable = (n - t).min(t - 1);
        let most = match self.family {
            // Two certificates take 2t honest and lying signatures.
            Family::Unsafe => (2 * t).saturating_sub(n + 1).max(bearable),
            _ => bearable,
        };
        let count = match self.family {
            Family::Liars | Family::Unsafe => most,
            _ if most == 0 => 0,
            _ => self.rng.usize(0..=most),
        };
        let mut members: Vec<usize> = (0..n).collect();
        self.rng.shuffle(&mut members);
        let kinds = members.into_iter().take(count);
        // Half of the table turns on two choices.
        let doubles = self.family == Family::Liars;
        kinds
            .map(|member| match doubles && self.rng.u32(0..4) == 0 {
                true => (member, LiarKind::Equivocator),
                false => (member, self.pick(LiarKind::ALL)),
            })
            .collect()
    }

    fn noise(&mut self, shape: &Shape) -> Noise {
        let slow = self.rng.u32(0..4) == 0;
        let share = |rng: &mut Rng, most| if rng.bool() { rng.u32(0..=most) } else { 0 };
        let rng = &mut self.rng;
        Noise {
            frame_ms: (1, if slow { 400 } else { 20 }),
            store_ms: (1, if slow { 200 } else { 10 }),
            watch_ms: (1, if slow { 300 } else { 10 }),
            answer_ms: (1, if slow { 100 } else { 5 }),
            twice: share(rng, 50),
            overtaken: share(rng, 50),
            lost: share(rng, 20),
            vanished: 0,
            reply_lost: share(rng, 30),
            store_refuses: share(rng, 30),
            chain_lost: share(rng, 200),
            clock_off_ms: match rng.bool() {
                true => shape.clock_skew_ms / 2 - 1,
                false => 0,
            },
        }
    }

    fn ballots(
        &mut self,
        shape: &Shape,
        liars: &BTreeMap<usize, LiarKind>,
        span_ms: u64,
        steps: &mut Vec<Step>,
    ) {
        let count = LEAST.0 + self.rng.usize(0..3);
        for number in 0..count {
            let tx = Tx(number as u32);
            let at = self.rng.u64(0..span_ms);
            let value = self.value();
            // What the honest ones are told: nearly always the same. Where two values can
            // both get t votes they often do, one after the other.
            let halves = 2 * shape.threshold <= shape.nodes;
            let split = self.rng.u32(0..10) < if halves { 5 } else { 1 };
            let other = self.value();
            let few = self.rng.u32(0..8) == 0;
            let spread = self.pick(&[10, 200, 1_000]);
            // Somebody is always asked.
            let someone = self.node(shape);
            for node in 0..shape.nodes {
                let spared = node != someone && !liars.contains_key(&node);
                if few && spared && self.rng.bool() {
                    continue;
                }
                let later = split && halves && !liars.contains_key(&node) && self.rng.bool();
                let choice = match () {
                    () if later => other.clone(),
                    () if split && !halves && self.rng.u32(0..3) == 0 => self.value(),
                    () if self.rng.u32(0..40) == 0 => Choice::Abstention,
                    () => value.clone(),
                };
                let mut at_ms = at + self.rng.u64(0..=spread);
                if later {
                    at_ms += self.rng.u64(200..1_000);
                }
                let handed = self.handed(shape);
                let act = Act::Vote {
                    node,
                    tx,
                    choice,
                    handed,
                };
                steps.push(Step { at_ms, act });
                // Clients repeat themselves, and change their minds.
                if self.rng.u32(0..12) == 0 {
                    let choice = match self.rng.bool() {
                        true => value.clone(),
                        false => self.value(),
                    };
                    let handed = self.handed(shape);
                    let at_ms = at_ms + self.rng.u64(0..span_ms);
                    let act = Act::Vote {
                        node,
                        tx,
                        choice,
                        handed,
                    };
                    steps.push(Step { at_ms, act });
                }
            }
        }
    }

    fn handed(&mut self, shape: &Shape) -> Handed {
        let skew = shape.clock_skew_ms as i64;
        match self.rng.u32(0..8) {
            0 => Handed::Signed(self.rng.i64(-skew / 2..=skew / 2)),
            1 => Handed::Signed(self.rng.i64(-skew..=skew)),
            _ => Handed::Choice,
        }
    }

    fn value(&mut self) -> Choice {
        match self.rng.u32(0..8) {
            0 => Value::data(&[self.rng.u8(..)]).map_or(Choice::Abstention, Choice::Value),
            _ => Value::Number(self.rng.u64(0..5)).into(),
        }
    }

    fn node(&mut self, shape: &Shape) -> usize {
        self.rng.usize(0..shape.nodes)
    }

    fn side(&mut self, shape: &Shape) -> Vec<usize> {
        (0..shape.nodes).filter(|_| self.rng.bool()).collect()
    }
}
