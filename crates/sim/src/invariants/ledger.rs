//! What a board's events come to, counted here once more and in another way than the
//! board does it: the invariants that judge boards compare with this.

use std::collections::{BTreeMap, BTreeSet};

use quorate_consensus::statement::VoteBody;
use quorate_consensus::wire::board_event::Event;
use quorate_consensus::wire::{
    BallotState, BoardEntry, BoardEvent, DissentPolicy, ViolationType, VoteRecorded,
};
use quorate_consensus::{Choice, Rules, Value};

use super::parsed::parse;
use crate::world::World;

/// A vote that was recorded.
pub(super) struct Vote {
    pub(super) choice: Choice,
    /// Milliseconds since the Unix epoch.
    pub(super) time_ms: u64,
    pub(super) late: bool,
}

/// One ballot.
#[derive(Default)]
pub(super) struct Counted {
    pub(super) state: BallotState,
    /// When it entered that state.
    pub(super) since_ms: u64,
    pub(super) votes: BTreeMap<String, Vote>,
    /// Who was seen to sign two choices.
    pub(super) doubles: BTreeSet<String>,
    /// Whose votes are struck.
    pub(super) struck: BTreeSet<String>,
    pub(super) value: Option<Value>,
}

impl Counted {
    /// Votes move it.
    pub(super) fn is_open(&self) -> bool {
        matches!(
            self.state,
            BallotState::Collecting | BallotState::ThresholdReached
        )
    }

    /// Voter and choice of the votes that count.
    pub(super) fn counting(&self) -> impl Iterator<Item = (&String, &Choice)> {
        let counts = |(name, vote): &(&String, &Vote)| !vote.late && !self.struck.contains(*name);
        let votes = self.votes.iter().filter(counts);
        votes.map(|(name, vote)| (name, &vote.choice))
    }

    /// How many votes count for a value.
    pub(super) fn count(&self, value: &Value) -> usize {
        let same = |choice: &Choice| matches!(choice, Choice::Value(own) if own == value);
        self.counting().filter(|(_, choice)| same(choice)).count()
    }

    /// The most votes that any value has.
    pub(super) fn most(&self) -> usize {
        let values = self.counting().filter_map(|(_, choice)| choice.value());
        values.map(|value| self.count(value)).max().unwrap_or(0)
    }

    /// The time that ends it, once N − t + 1 members have voted.
    pub(super) fn deadline_ms(&self, rules: &Rules) -> Option<u64> {
        let mut times: Vec<u64> = self.votes.values().map(|vote| vote.time_ms).collect();
        times.sort_unstable();
        let start = rules.total() - rules.threshold();
        Some(times.get(start)? + rules.vote_timeout_ms())
    }
}

/// One board.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) ballots: BTreeMap<String, Counted>,
    pub(super) banned: BTreeSet<String>,
    /// Thousandths; a member that is not here has 1000.
    reputations: BTreeMap<String, u32>,
    /// The log has holes: nothing can be said.
    broken: bool,
}

impl Ledger {
    /// The reputation of a member: thousandths.
    pub(super) fn reputation(&self, name: &str) -> u32 {
        self.reputations.get(name).copied().unwrap_or(1_000)
    }

    fn change(&mut self, name: &str, by: i64) {
        let new = (i64::from(self.reputation(name)) + by).clamp(0, 1_000);
        self.set(name, new as u32);
    }

    fn set(&mut self, name: &str, to: u32) {
        self.reputations.insert(name.to_owned(), to);
    }

    /// Takes an event in.
    pub(super) fn take(&mut self, rules: &Rules, event: &BoardEvent) {
        let tx_id = &event.tx_id;
        match &event.event {
            Some(Event::VoteRecorded(recorded)) => self.vote(tx_id, recorded),
            Some(Event::StateChanged(changed)) => {
                let ballot = match self.ballots.get_mut(tx_id) {
                    Some(ballot) => ballot,
                    None => self.ballots.entry(tx_id.clone()).or_default(),
                };
                ballot.state = changed.to();
                ballot.since_ms = event.time_ms;
                let value = changed.value.as_ref();
                ballot.value = value.and_then(|value| Value::try_from(value).ok());
                if changed.row == 10 {
                    self.reward(tx_id);
                }
            }
            Some(Event::ViolationFound(found)) => match found.r#type() {
                ViolationType::DoubleVoting => {
                    if let Some(ballot) = self.ballots.get_mut(tx_id) {
                        ballot.doubles.insert(found.node_id.clone());
                        if ballot.is_open() && rules.dissent() == DissentPolicy::Outvote {
                            ballot.struck.insert(found.node_id.clone());
                        }
                    }
                }
                ViolationType::SilentFailure | ViolationType::NonParticipation => {
                    self.change(&found.node_id, -100);
                }
                _ => {}
            },
            Some(Event::Banned(banned)) => {
                self.banned.insert(banned.node_id.clone());
                if banned.r#type() != ViolationType::SilentFailure {
                    self.set(&banned.node_id, 0);
                }
            }
            Some(Event::Unbanned(unbanned)) => {
                self.banned.remove(&unbanned.node_id);
                self.set(&unbanned.node_id, 500);
            }
            Some(Event::Expired(_) | Event::Collected(_)) => {
                self.ballots.remove(tx_id);
            }
            _ => {}
        }
    }

    fn vote(&mut self, tx_id: &str, recorded: &VoteRecorded) {
        let Some(ballot) = self.ballots.get_mut(tx_id) else {
            return;
        };
        let signed = recorded.vote.as_ref();
        let Some(Ok((_, body))) = signed.map(|signed| parse::<VoteBody>(&signed.statement)) else {
            return;
        };
        let vote = Vote {
            choice: body.choice,
            time_ms: body.time_ms,
            late: recorded.late,
        };
        ballot.votes.insert(recorded.node_id.clone(), vote);
    }

    /// The reservation is made: who voted for the value, and is not banned, gains.
    fn reward(&mut self, tx_id: &str) {
        let Some(ballot) = self.ballots.get(tx_id) else {
            return;
        };
        let good =
            |choice: &Choice| choice.value().is_some() && choice.value() == ballot.value.as_ref();
        let good: Vec<String> = ballot
            .counting()
            .filter(|(name, choice)| good(choice) && !self.banned.contains(*name))
            .map(|(name, _)| name.clone())
            .collect();
        for name in good {
            self.change(&name, 10);
        }
    }
}

/// The ledgers of all of the store's boards.
#[derive(Default)]
pub(super) struct Ledgers {
    views: Vec<Ledger>,
}

impl Ledgers {
    /// The ledger of the board that has just got an entry, as it was before. None where
    /// the store has lied about that board.
    pub(super) fn before(&mut self, world: &World, view: usize) -> Option<&mut Ledger> {
        let shown = world.store().views().get(view)?;
        if shown.is_forged() {
            return None;
        }
        while self.views.len() <= view {
            let mut ledger = Ledger::default();
            let log = world.store().views().get(self.views.len())?.log();
            for entry in &log[..log.len().saturating_sub(1)] {
                ledger.broken |= entry.events.is_empty();
                ledger.take_all(world.rules(), entry);
            }
            self.views.push(ledger);
        }
        self.views.get_mut(view).filter(|ledger| !ledger.broken)
    }

    /// The ledger of a board that the store has not lied about.
    pub(super) fn now(&self, world: &World, view: usize) -> Option<&Ledger> {
        let shown = world.store().views().get(view)?;
        let ledger = self.views.get(view).filter(|ledger| !ledger.broken)?;
        (!shown.is_forged()).then_some(ledger)
    }
}

impl Ledger {
    /// Takes an entry in.
    pub(super) fn take_all(&mut self, rules: &Rules, entry: &BoardEntry) {
        for event in &entry.events {
            self.take(rules, event);
        }
    }
}
