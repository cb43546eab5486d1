//! "Guards are tried top to bottom; every ban and every vote re-evaluates the open
//! ballots it touches" (section 5): states move only along the table, each move has the
//! row that gives it, and every reader's mirror of the board is the store's own.

use quorate_consensus::statement::{ObservationBody, VoteBody};
use quorate_consensus::wire::ban_proof::Kind;
use quorate_consensus::wire::board_event::Event;
use quorate_consensus::wire::board_op::Op;
use quorate_consensus::wire::{
    BallotState, Banned, BoardEntry, BoardEvent, DissentPolicy, StateChanged, misbehaviour,
};
use quorate_consensus::{Choice, Rules, TxId, Value};

use super::ledger::{Counted, Ledger, Ledgers};
use super::parsed::parse;
use super::{Happening, Invariant, Sort, verified};
use crate::world::World;

/// States move only along the table.
#[derive(Default)]
pub(super) struct Table {
    ledgers: Ledgers,
}

impl Invariant for Table {
    fn name(&self) -> &'static str {
        "table"
    }

    fn watches(&self) -> &'static [Sort] {
        &[Sort::Entry]
    }

    fn sees(&mut self, world: &World, what: &Happening<'_>) -> Result<(), String> {
        let Happening::Entry { view, entry } = what else {
            return Ok(());
        };
        let rules = world.rules();
        let Some(ledger) = self.ledgers.before(world, *view) else {
            return Ok(());
        };
        for event in &entry.events {
            let fine = match &event.event {
                Some(Event::StateChanged(changed)) => {
                    let ballot = ledger.ballots.get(&event.tx_id);
                    judge(world, ledger, ballot, changed, entry)
                }
                Some(Event::VoteRecorded(recorded)) => match ledger.ballots.get(&event.tx_id) {
                    None => Err("a vote is recorded in a ballot that is not open".into()),
                    Some(ballot) if recorded.late == ballot.is_open() => Err(format!(
                        "a vote in state {:?} has late = {}",
                        ballot.state, recorded.late
                    )),
                    Some(_) => Ok(()),
                },
                Some(Event::Expired(_)) => match ledger.ballots.get(&event.tx_id) {
                    Some(ballot) => judge_expiry(rules, ballot, entry.time_ms),
                    None => Err("a ballot expires that there is not".into()),
                },
                Some(Event::Banned(banned)) => judge_haste(rules, ledger, banned, entry),
                _ => Ok(()),
            };
            if let Err(why) = fine {
                return Err(format!(
                    "revision {}, {}: {why}",
                    entry.revision, event.tx_id
                ));
            }
            ledger.take(rules, event);
        }
        Ok(())
    }

    fn ends(&mut self, world: &World) -> Result<(), String> {
        for (index, place) in world.places().iter().enumerate() {
            let view = &world.store().views()[place.view()];
            let Some(engine) = place.engine().filter(|_| !view.is_forged()) else {
                continue;
            };
            let (mirror, board) = (engine.board(), view.board());
            if mirror.revision() == board.revision() && mirror != board {
                return Err(format!(
                    "the mirror of {} is not the store's board",
                    world.node_id(index)
                ));
            }
        }
        Ok(())
    }
}

/// A ban for a lie in an open ballot would turn the liar's dissent into none and keep
/// its second vote away: what the ballot has to note and to do comes first.
fn judge_haste(
    rules: &Rules,
    ledger: &Ledger,
    banned: &Banned,
    entry: &BoardEntry,
) -> Result<(), String> {
    let Some(lie) = lied_in(banned) else {
        return Ok(());
    };
    let Some(ballot) = ledger.ballots.get(lie.as_str()) else {
        return Ok(());
    };
    if !ballot.is_open() {
        return Ok(());
    }
    let name = &banned.node_id;
    let wrong = |why: &str| Err(format!("{name} is banned for its vote in {lie}, {why}"));
    let notes = |event: &BoardEvent| {
        matches!(&event.event, Some(Event::ViolationFound(found)) if found.node_id == *name)
            && event.tx_id == lie.as_str()
    };
    if entry.events.iter().any(notes) {
        return wrong("where the votes do not show it yet");
    }
    if rules.dissent() != DissentPolicy::Abort {
        return Ok(());
    }
    let dissents = |value: &Value| {
        let mut counting = ballot.counting();
        counting.any(|(by, choice)| {
            matches!(choice, Choice::Value(own) if own != value) && !ledger.banned.contains(by)
        })
    };
    let reached = ballot.counting().filter_map(|(_, choice)| choice.value());
    let mut reached = reached.filter(|value| ballot.count(value) >= rules.threshold());
    if !ballot.doubles.is_empty() || reached.any(dissents) {
        return wrong("which that vote aborts and has not yet");
    }
    Ok(())
}

/// The ballot in which a member lied, by the proof in its ban.
fn lied_in(banned: &Banned) -> Option<TxId> {
    let Some(Kind::Misbehaviour(lie)) = &banned.proof.as_ref()?.kind else {
        return None;
    };
    let vote = match lie.kind.as_ref()? {
        misbehaviour::Kind::DoubleVote(double) => double.second.as_ref()?,
        misbehaviour::Kind::MinorityVote(minority) => minority.dissent.as_ref()?,
    };
    let (_, body) = parse::<VoteBody>(&vote.statement).ok()?;
    Some(body.tx_id)
}

/// Row 7.
fn judge_expiry(rules: &Rules, ballot: &Counted, now_ms: u64) -> Result<(), String> {
    let latest = ballot.votes.values().map(|vote| vote.time_ms).max();
    let life_ms = rules.vote_timeout_ms() + 2 * rules.clock_skew_ms();
    let expires = latest.unwrap_or(0) + life_ms;
    if ballot.state != BallotState::Collecting {
        return Err(format!("a ballot expires in state {:?}", ballot.state));
    }
    if ballot.votes.len() > rules.total() - rules.threshold() {
        return Err("a ballot expires that has started".into());
    }
    if now_ms < expires {
        return Err(format!("a ballot expires {} ms early", expires - now_ms));
    }
    Ok(())
}

fn judge(
    world: &World,
    ledger: &Ledger,
    ballot: Option<&Counted>,
    changed: &StateChanged,
    entry: &BoardEntry,
) -> Result<(), String> {
    use BallotState::{
        AbortedByzantine, AbortedSplit, AbortedTimeout, Collecting, Confirmed, Failed, Submitted,
        ThresholdReached, Unspecified,
    };
    let rules = world.rules();
    let (from, to, row) = (changed.from(), changed.to(), changed.row);
    let wrong = |why: &str| Err(format!("row {row}, {from:?} to {to:?}: {why}"));
    if ballot.map_or(Unspecified, |ballot| ballot.state) != from {
        return wrong("that is not the state it was in");
    }
    let abort = rules.dissent() == DissentPolicy::Abort;
    let in_table = match row {
        1 => (from, to) == (Unspecified, Collecting),
        2 if abort => matches!(from, Collecting | ThresholdReached) && to == AbortedByzantine,
        2 => (from, to) == (ThresholdReached, Collecting),
        3 => abort && (from, to) == (Collecting, AbortedByzantine),
        4 => (from, to) == (Collecting, ThresholdReached),
        5 => (from, to) == (Collecting, AbortedSplit),
        6 => (from, to) == (Collecting, AbortedTimeout),
        8 => abort && (from, to) == (ThresholdReached, AbortedByzantine),
        10 => (from, to) == (ThresholdReached, Submitted),
        11 => (from, to) == (Submitted, Confirmed),
        12 => (from, to) == (Submitted, Failed),
        13 => matches!(from, Confirmed | Failed) && to == Submitted,
        _ => false,
    };
    if !in_table {
        return wrong("the table has no such move");
    }
    let Some(ballot) = ballot else { return Ok(()) };
    let t = rules.threshold();
    let value = changed.value.as_ref();
    let value = value.and_then(|value| Value::try_from(value).ok());
    let doubles = !ballot.doubles.is_empty();
    let dissent = |value: &Value| {
        let mut counting = ballot.counting();
        counting.any(|(name, choice)| {
            matches!(choice, Choice::Value(own) if own != value) && !ledger.banned.contains(name)
        })
    };
    let reached = value.as_ref().is_some_and(|value| ballot.count(value) >= t);
    match row {
        2 if abort && !doubles => wrong("nobody signed two choices"),
        2 if !abort && ballot.value.as_ref().is_some_and(|v| ballot.count(v) >= t) => {
            wrong("its value still has t votes")
        }
        3..=6 | 8 | 10 if abort && doubles => wrong("row 2 comes first"),
        3 | 4 | 8 | 10 if !reached => wrong("no value has t votes"),
        3 | 8 if !value.as_ref().is_some_and(dissent) => wrong("nobody dissents"),
        4 | 10 if abort && value.as_ref().is_some_and(dissent) => wrong("somebody dissents"),
        5 | 6 if ballot.most() >= t => wrong("a value has t votes"),
        5 | 6 => {
            let open = rules.members().map(|member| member.node_id.as_str());
            let open = open.filter(|name| !ballot.votes.contains_key(*name));
            let open = open.filter(|name| !ledger.banned.contains(*name)).count();
            let split = ballot.most() + open < t;
            match row {
                5 if !split => wrong("a value can still get t votes"),
                6 if split => wrong("row 5 comes first"),
                6 => match ballot.deadline_ms(rules) {
                    Some(deadline) if deadline <= entry.time_ms => Ok(()),
                    Some(deadline) => wrong(&format!(
                        "{} ms before the deadline",
                        deadline - entry.time_ms
                    )),
                    None => wrong("it has not started"),
                },
                _ => Ok(()),
            }
        }
        10 if entry.time_ms < ballot.since_ms + rules.settle_window_ms() => {
            wrong("the settle window is not over")
        }
        11..=13 => judge_observers(world, entry).or_else(|why| wrong(&why)),
        _ => Ok(()),
    }
}

/// t members say the same.
fn judge_observers(world: &World, entry: &BoardEntry) -> Result<(), String> {
    let op = entry.op.as_ref().and_then(|op| op.op.as_ref());
    let Some(Op::Conclude(op)) = op else {
        return Err("no observation says so".into());
    };
    let mut observers = std::collections::BTreeSet::new();
    let mut first = None;
    for signed in &op.observations {
        let (by, seen) = verified::<ObservationBody>(world, signed)?;
        if *first.get_or_insert_with(|| seen.clone()) != seen {
            return Err("the observers disagree".into());
        }
        observers.insert(by);
    }
    match observers.len() >= world.rules().threshold() {
        true => Ok(()),
        false => Err(format!("only {} members observed it", observers.len())),
    }
}
