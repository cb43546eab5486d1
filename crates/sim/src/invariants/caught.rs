//! "Two choices signed by one trustee (an abstention is a choice)": DOUBLE_VOTING
//! (section 5, row 2); "proven by signed statements: DOUBLE_VOTING (two), MINORITY_VOTE (t
//! votes for v, and the other one) … The board accepts the ban with the evidence in it".
//!
//! Judged are two choices of which one is on the board while an honest engine was given
//! the other, by whomever, in time, and lived to the end; dissent that is on the
//! board; and that whoever is convicted is banned.

use std::collections::{BTreeMap, BTreeSet};

use quorate_consensus::detector::{bans, contradict};
use quorate_consensus::statement::VoteBody;
use quorate_consensus::wire::board_event::Event as Happened;
use quorate_consensus::wire::{Batch, ViolationType, frame, misbehaviour};
use quorate_consensus::{NodeId, TxId};
use quorate_engine::{Effect, Event, StreamId};
use quorate_testkit::NOW;

use super::liveness::is_asked;
use super::{Happening, Invariant, Sort, verified};
use crate::plan::{Act, BoardKind};
use crate::world::World;

/// After the faults are over it takes so long at most until evidence is on the board.
const MARGIN_MS: u64 = 4_000;

/// The same where the board lies in keys: who holds a vote that the board lacks waits, by
/// rank, four times what the store needs to answer (section 4), which is up to 0.9 s
/// there for a slow node, and four members wait one after the other.
const KEYS_MARGIN_MS: u64 = 12_000;

/// A ban takes so long at most.
const BAN_MS: u64 = 15_000;

/// Every provable lie that reached an honest node is evidenced.
#[derive(Default)]
pub(super) struct Caught {
    /// Streams of each machine whose other end said hello.
    heard: BTreeSet<(usize, StreamId)>,
    /// Machines that are in service.
    serving: BTreeSet<usize>,
    /// Votes of liars that a machine was given in time.
    given: BTreeMap<(TxId, NodeId), Vec<(usize, VoteBody)>>,
    jumpers: Option<BTreeSet<usize>>,
    banned: BTreeSet<String>,
    removed: BTreeSet<String>,
}

impl Invariant for Caught {
    fn name(&self) -> &'static str {
        "caught"
    }

    fn watches(&self) -> &'static [Sort] {
        &[Sort::Entry, Sort::Event, Sort::Effect, Sort::Died]
    }

    fn sees(&mut self, world: &World, what: &Happening<'_>) -> Result<(), String> {
        match what {
            Happening::Event { place, event } if !world.plan().liars.is_empty() => match event {
                Event::StreamDown { stream } => {
                    self.heard.remove(&(*place, *stream));
                }
                Event::Frame { stream, frame } => match &frame.body {
                    Some(frame::Body::Hello(_)) => {
                        self.heard.insert((*place, *stream));
                    }
                    Some(frame::Body::Batch(batch)) => self.hears(world, *place, *stream, batch),
                    _ => {}
                },
                _ => {}
            },
            Happening::Effect { place, effect } => match effect {
                Effect::Close { stream, .. } => {
                    self.heard.remove(&(*place, *stream));
                }
                Effect::Believed { .. } => {
                    let engine = world.places()[*place].engine();
                    if engine.is_some_and(|engine| engine.is_in_service()) {
                        self.serving.insert(*place);
                    }
                }
                _ => {}
            },
            Happening::Died { place, .. } => {
                self.serving.remove(place);
                for given in self.given.values_mut() {
                    given.retain(|(machine, _)| machine != place);
                }
            }
            Happening::Entry { entry, .. } => {
                for event in &entry.events {
                    match &event.event {
                        Some(Happened::Banned(banned)) => {
                            self.banned.insert(banned.node_id.clone());
                        }
                        Some(Happened::Expired(_) | Happened::Collected(_)) => {
                            self.removed.insert(event.tx_id.clone());
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn ends(&mut self, world: &World) -> Result<(), String> {
        if !is_asked(world) {
            return Ok(());
        }
        self.doubles(world)?;
        self.minorities(world)?;
        self.convicted(world)
    }
}

impl Caught {
    /// A machine is given statements by a peer.
    fn hears(&mut self, world: &World, place: usize, stream: StreamId, batch: &Batch) {
        let taken = self.serving.contains(&place)
            && self.heard.contains(&(place, stream))
            && !world.is_liar(place)
            && !self
                .jumpers(world)
                .contains(&world.places()[place].member());
        if !taken {
            return;
        }
        let doubles = batch.evidence.iter().filter_map(|lie| match &lie.kind {
            Some(misbehaviour::Kind::DoubleVote(double)) => Some(double),
            _ => None,
        });
        let shown = doubles.flat_map(|double| [&double.first, &double.second]);
        let votes = batch.votes.iter().map(|traced| &traced.vote);
        let mut good = Vec::new();
        for signed in votes.chain(shown).flatten() {
            match verified::<VoteBody>(world, signed) {
                Ok(vote) => good.push(vote),
                // Behind what is no good nothing is read.
                Err(_) => break,
            }
        }
        for (by, body) in good {
            if !world.is_liar_id(&by) {
                continue;
            }
            let (wall, skew) = (world.wall(place), world.rules().clock_skew_ms());
            let calm = NOW + world.plan().calm_ms;
            let lifetime = world.rules().vote_lifetime_ms();
            let margin = match world.plan().board {
                BoardKind::Log => MARGIN_MS,
                BoardKind::Keys => KEYS_MARGIN_MS,
            };
            if body.time_ms <= wall + skew / 2 && body.time_ms + lifetime >= calm + margin {
                let given = self.given.entry((body.tx_id.clone(), by));
                given.or_default().push((place, body));
            }
        }
    }

    /// Whose clocks jump so far that they take what is in time for too late.
    fn jumpers(&mut self, world: &World) -> &BTreeSet<usize> {
        self.jumpers.get_or_insert_with(|| {
            let skew = world.rules().clock_skew_ms();
            let jumps = world.plan().steps.iter().filter_map(|step| match step.act {
                Act::Clock { node, by_ms, .. } if by_ms.unsigned_abs() > skew => Some(node),
                _ => None,
            });
            jumps.collect()
        })
    }

    fn doubles(&self, world: &World) -> Result<(), String> {
        let board = world.store().views()[0].board();
        for ((tx_id, node_id), given) in &self.given {
            if self.banned.contains(node_id.as_str()) || self.removed.contains(tx_id.as_str()) {
                continue;
            }
            let Some(ballot) = board.ballot(tx_id) else {
                continue;
            };
            let Some(first) = ballot.votes.get(node_id) else {
                continue;
            };
            let rules = world.rules();
            let other = given
                .iter()
                .find(|(_, body)| contradict(&first.vote.body, body, rules));
            let caught = ballot.violations.iter().any(|violation| {
                violation.kind == ViolationType::DoubleVoting && violation.node_id == *node_id
            });
            if let (Some((place, other)), false) = (other, caught) {
                return Err(format!(
                    "{node_id} said {} on {tx_id}, and {} to {}, and is not caught",
                    first.vote.body.choice,
                    other.choice,
                    world.node_id(*place)
                ));
            }
        }
        Ok(())
    }

    fn minorities(&self, world: &World) -> Result<(), String> {
        let t = world.rules().threshold();
        for ballot in world.store().views()[0].board().ballots() {
            for (node_id, recorded) in &ballot.votes {
                let Some(own) = recorded.vote.body.choice.value() else {
                    continue;
                };
                let against = ballot.votes.values().find(|other| {
                    let value = other.vote.body.choice.value();
                    let same = |vote: &&quorate_consensus::ballot::RecordedVote| {
                        vote.vote.body.choice.value() == value
                    };
                    value.is_some_and(|value| value != own)
                        && ballot.votes.values().filter(same).count() >= t
                });
                let found = ballot.violations.iter().any(|violation| {
                    violation.kind == ViolationType::MinorityVote && violation.node_id == *node_id
                });
                if against.is_some() && !found && !self.banned.contains(node_id.as_str()) {
                    return Err(format!(
                        "{node_id} voted against {t} in {}, and nobody noticed",
                        ballot.tx_id
                    ));
                }
            }
        }
        Ok(())
    }

    /// Who is convicted is banned, or was and is pardoned.
    fn convicted(&self, world: &World) -> Result<(), String> {
        for ballot in world.store().views()[0].board().ballots() {
            for violation in &ballot.violations {
                let old = violation.detected_ms + BAN_MS < world.true_wall();
                let calm = world.now_ms() > world.plan().calm_ms + BAN_MS;
                if old
                    && calm
                    && bans(violation.kind, &ballot.rules)
                    && !self.banned.contains(violation.node_id.as_str())
                {
                    return Err(format!(
                        "{} is convicted of {:?} and not banned",
                        violation.node_id, violation.kind
                    ));
                }
            }
        }
        Ok(())
    }
}
