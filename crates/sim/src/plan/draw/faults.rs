//! Faults: which, and when.

use std::collections::BTreeMap;

use quorate_consensus::Value;

use super::{Draw, Family, LEAST};
use crate::liars::LiarKind;
use crate::plan::{Act, Disk, Forgery, Handed, Shape, Step, Tx};

/// A day on which a ballot may be collected: milliseconds.
const RETENTION_MS: u64 = quorate_consensus::board::RETENTION_MS;

/// The ballot that a trustee forgets; no other has its number.
const FORGOTTEN: Tx = Tx(20);

impl Draw {
    pub(super) fn faults(
        &mut self,
        shape: &Shape,
        liars: &BTreeMap<usize, LiarKind>,
        span_ms: u64,
        steps: &mut Vec<Step>,
    ) {
        let spoken = spoken(liars, steps);
        let mut left = LEAST.1 + self.rng.usize(0..10);
        // One restart at least.
        let mut act = self.crash(shape);
        while left > 0 {
            left -= usize::from(act.is_fault());
            let at_ms = match self.rng.u32(0..4) {
                // A lie is told once: what is away then matters more than at other times.
                0 if !spoken.is_empty() => self.pick(&spoken) + self.rng.u64(0..600),
                _ => self.rng.u64(0..span_ms + 1_000),
            };
            let again = self.crash_again(shape, &act, at_ms);
            steps.push(Step { at_ms, act });
            steps.extend(again);
            act = self.fault(shape, liars, span_ms);
        }
        if self.family == Family::LyingStore {
            for _ in 0..self.rng.usize(1..4) {
                let at_ms = self.rng.u64(span_ms / 4..span_ms + 500);
                let act = match self.rng.u32(0..4) {
                    0 => Act::RollBack {
                        entries: self.rng.u32(1..20),
                    },
                    1 => Act::Fork {
                        side: self.side(shape),
                    },
                    _ => Act::Forge {
                        what: self.pick(&[
                            Forgery::Vote,
                            Forgery::Move,
                            Forgery::Ban,
                            Forgery::Reservation,
                            Forgery::Certificate,
                            Forgery::Deletion,
                            Forgery::Events,
                            Forgery::Hole,
                        ]),
                    },
                };
                steps.push(Step { at_ms, act });
            }
        }
    }

    fn crash(&mut self, shape: &Shape) -> Act {
        let node = self.node(shape);
        let effects = match self.rng.u32(0..4) {
            0 => 0,
            _ => self.rng.u32(1..60),
        };
        let disk = match self.rng.u32(0..20) {
            0..8 => Disk::Kept,
            8..16 => Disk::Unsynced,
            16..18 => Disk::Lost,
            _ => Disk::Restored,
        };
        let down_ms = self.pick(&[1, 50, 500, 2_000]);
        Act::Crash {
            node,
            effects,
            disk,
            // A backup from within the same start shows in no generation: putting it
            // back must take longer than what the dead process asked can be on its way.
            down_ms: match disk {
                Disk::Restored => 2_000,
                _ => down_ms,
            },
        }
    }

    /// Whoever must be quiet since its disk was lost, or put back, may die once more
    /// meanwhile.
    fn crash_again(&mut self, shape: &Shape, first: &Act, at_ms: u64) -> Option<Step> {
        let Act::Crash {
            node,
            disk: Disk::Lost | Disk::Restored,
            down_ms,
            ..
        } = first
        else {
            return None;
        };
        if self.rng.bool() {
            return None;
        }
        let act = Act::Crash {
            node: *node,
            effects: 0,
            disk: Disk::Kept,
            down_ms: 1,
        };
        let at_ms = at_ms + down_ms + self.rng.u64(50..shape.vote_timeout_ms.min(3_000));
        Some(Step { at_ms, act })
    }

    /// A liar has a certificate that bears another's name; none where nobody lies.
    fn impostor(&mut self, shape: &Shape, liars: &BTreeMap<usize, LiarKind>) -> Option<Act> {
        let all: Vec<usize> = liars.keys().copied().collect();
        if all.is_empty() || shape.nodes < 3 {
            return None;
        }
        let liar = self.pick(&all);
        let mut others: Vec<usize> = (0..shape.nodes).filter(|node| *node != liar).collect();
        self.rng.shuffle(&mut others);
        let (name, to) = (others[0], others[1]);
        Some(Act::Impostor { liar, name, to })
    }

    fn fault(&mut self, shape: &Shape, liars: &BTreeMap<usize, LiarKind>, span_ms: u64) -> Act {
        use Family::{Chains, Clocks, Crashes, Partitions, Stores};
        // A family has more of its own.
        let own = self.rng.bool();
        let kind = match self.family {
            Crashes if own => self.rng.u32(0..2),
            Partitions if own => self.rng.u32(2..8),
            Stores if own => self.rng.u32(8..13),
            Chains if own => self.rng.u32(13..21),
            Clocks if own => 7,
            _ => self.rng.u32(0..25),
        };
        if kind == 24
            && let Some(impostor) = self.impostor(shape, liars)
        {
            return impostor;
        }
        let node = self.node(shape);
        let for_ms = self.pick(&[20, 200, 1_000, span_ms / 2]);
        match kind {
            0 => self.crash(shape),
            1 => Act::Backup { node },
            2 => Act::Partition {
                side: self.side(shape),
                for_ms,
            },
            3 => Act::Bridge {
                bridge: node,
                side: self.side(shape),
                for_ms,
            },
            4 => Act::OneWay {
                from: node,
                to: self.node(shape),
                for_ms,
            },
            5 => Act::Break {
                a: node,
                b: self.node(shape),
            },
            6 => Act::Full { node, for_ms },
            7 => {
                let skew = shape.clock_skew_ms as i64;
                let by_ms = match self.rng.bool() {
                    true => self.rng.i64(-skew..=skew),
                    false => self.rng.i64(-20 * skew..=20 * skew),
                };
                Act::Clock {
                    node,
                    by_ms,
                    for_ms,
                }
            }
            8 => Act::StoreAway {
                node: self.rng.bool().then_some(node),
                for_ms,
            },
            9 => Act::RepliesLost { for_ms },
            10 => Act::WatchLate { node, for_ms },
            11 => Act::ReRead { node },
            12 => Act::AuditAway { for_ms },
            13 => Act::ChainAway {
                node: self.rng.bool().then_some(node),
                for_ms,
            },
            14 | 15 => Act::Reorganise {
                depth: self.rng.u32(1..8),
                drop: self.rng.bool(),
            },
            16 => Act::DropWaiting,
            17 => Act::Fee {
                attempt: self.rng.u32(0..3),
            },
            18 => Act::Stranger,
            19 => Act::Revert {
                tx: Tx(self.rng.u32(0..8)),
            },
            20 => Act::GiveUp {
                tx: Tx(self.rng.u32(0..8)),
            },
            21 => Act::KeysAway { node, for_ms },
            22 => Act::Unban { node },
            _ => Act::Slow {
                node,
                by_ms: self.pick(&[50, 500]),
                for_ms,
            },
        }
    }

    /// A trustee votes alone, loses its disk, and comes back when the ballot is removed
    /// and nobody remembers its vote. Asked for another value it signs that: two choices,
    /// and no lie.
    pub(super) fn forgotten(
        &mut self,
        shape: &Shape,
        liars: &BTreeMap<usize, LiarKind>,
        span_ms: u64,
        steps: &mut Vec<Step>,
    ) {
        let honest = (0..shape.nodes).filter(|node| !liars.contains_key(node));
        let honest: Vec<usize> = honest.collect();
        // One vote must not start a ballot; and so long a wait takes too long to run.
        let long = shape.vote_timeout_ms > 5_000;
        if long || shape.nodes == shape.threshold || honest.is_empty() {
            return;
        }
        let node = self.pick(&honest);
        let at_ms = self.rng.u64(0..span_ms);
        let vote = |node, value: u64| Act::Vote {
            node,
            tx: FORGOTTEN,
            choice: Value::Number(value).into(),
            handed: Handed::Choice,
        };
        steps.push(Step {
            at_ms,
            act: vote(node, 1),
        });
        let lost_ms = at_ms + self.rng.u64(200..1_500);
        let lifetime_ms = shape.vote_timeout_ms + 2 * shape.clock_skew_ms;
        steps.push(Step {
            at_ms: lost_ms,
            act: Act::Crash {
                node,
                effects: 0,
                disk: Disk::Lost,
                down_ms: lifetime_ms,
            },
        });
        // When it has been quiet for long enough it may sign again.
        let again_ms = lost_ms + 2 * (lifetime_ms + shape.clock_skew_ms);
        for other in 0..shape.nodes {
            if other == node || self.rng.bool() {
                steps.push(Step {
                    at_ms: again_ms + self.rng.u64(0..1_000),
                    act: vote(other, 2),
                });
            }
        }
    }

    /// A day later finished ballots are collected, and clients ask for them again.
    pub(super) fn collection(&mut self, shape: &Shape, span_ms: u64, steps: &mut Vec<Step>) {
        let settled = span_ms + 2 * (shape.vote_timeout_ms + 4 * shape.clock_skew_ms) + 5_000;
        steps.push(Step {
            at_ms: settled,
            act: Act::Sleep {
                for_ms: RETENTION_MS,
            },
        });
        let morning = settled + RETENTION_MS + 3_000;
        for number in 0..LEAST.0 as u32 {
            let tx = Tx(number);
            steps.push(Step {
                at_ms: morning + self.rng.u64(0..500),
                act: Act::Collect { tx },
            });
            for _ in 0..2 {
                let choice = self.value();
                let node = self.node(shape);
                steps.push(Step {
                    at_ms: morning + self.rng.u64(0..2_000),
                    act: Act::Vote {
                        node,
                        tx,
                        choice,
                        handed: Handed::Choice,
                    },
                });
            }
        }
        steps.push(Step {
            at_ms: morning + 1_000,
            act: self.crash(shape),
        });
    }
}

/// When liars are asked to vote: that is when most of them lie.
fn spoken(liars: &BTreeMap<usize, LiarKind>, steps: &[Step]) -> Vec<u64> {
    let by_liars = steps
        .iter()
        .filter(|step| matches!(&step.act, Act::Vote { node, .. } if liars.contains_key(node)));
    by_liars.map(|step| step.at_ms).collect()
}
