//! "What depends on the order of arrival: on which side of row 10 a late dissent falls;
//! who is late; rows 5 against 2 or 3; whether a trustee's vote in another ballot came
//! before or after its ban; under which epoch a ballot opened. Nothing else does"
//! (section 5).
//!
//! At the end one ballot's statements are recorded twice on fresh boards, each in
//! another order, every move taken as soon as the table gives it. Compared are: who is
//! found to have done what (exactly), the state (but ABORTED_SPLIT may stand for
//! ABORTED_BYZANTINE, and where 2t <= N two values may both get t votes), and that the
//! world's own ballot found the same, but for what a ban kept away.

use std::collections::BTreeSet;

use fastrand::Rng;
use quorate_consensus::ballot::Ballot;
use quorate_consensus::board::Board;
use quorate_consensus::wire::misbehaviour::Kind;
use quorate_consensus::wire::{BallotState, SignedStatement, ViolationType};
use quorate_testkit::{FakeVerifier, ops};

use super::{Happening, Invariant, Sort, banned_by, honest_store};
use crate::world::World;

/// Who did what.
type Found = BTreeSet<(String, ViolationType)>;

/// Outcomes do not depend on the order of arrival.
#[derive(Default)]
pub(super) struct Order {
    /// Who was ever banned.
    banned: BTreeSet<String>,
}

impl Invariant for Order {
    fn name(&self) -> &'static str {
        "order"
    }

    fn watches(&self) -> &'static [Sort] {
        &[Sort::Entry]
    }

    fn sees(&mut self, _world: &World, what: &Happening<'_>) -> Result<(), String> {
        if let Happening::Entry { entry, .. } = what {
            self.banned.extend(banned_by(entry).map(str::to_owned));
        }
        Ok(())
    }

    fn ends(&mut self, world: &World) -> Result<(), String> {
        if !honest_store(world) {
            return Ok(());
        }
        let mut rng = Rng::with_seed(world.plan().seed);
        let board = world.store().views()[0].board();
        // Those with something to find are the more telling ones.
        let ballots = || board.ballots().filter(|ballot| is_short(world, ballot));
        let telling = ballots()
            .filter(|ballot| !ballot.violations.is_empty())
            .count();
        let least = usize::from(telling > 0);
        let count = if telling > 0 {
            telling
        } else {
            ballots().count()
        };
        if count == 0 {
            return Ok(());
        }
        let mut chosen = ballots().filter(|ballot| ballot.violations.len() >= least);
        let Some(ballot) = chosen.nth(rng.usize(0..count)) else {
            return Ok(());
        };
        self.judge(world, ballot, &mut rng)
    }
}

impl Order {
    fn judge(&self, world: &World, ballot: &Ballot, rng: &mut Rng) -> Result<(), String> {
        let first = ballot.votes.values().map(|recorded| &recorded.vote.signed);
        let second = ballot.second_votes.values().map(|vote| &vote.signed);
        let mut votes: Vec<&SignedStatement> = first.chain(second).collect();
        rng.shuffle(&mut votes);
        let (state, found) = replay(world, ballot, &votes);
        rng.shuffle(&mut votes);
        let (other_state, other_found) = replay(world, ballot, &votes);
        let tx_id = &ballot.tx_id;
        if found != other_found {
            return Err(format!(
                "{tx_id}: {found:?} is found in one order, {other_found:?} in another"
            ));
        }
        let aborts = [BallotState::AbortedByzantine, BallotState::AbortedSplit];
        let alike = state == other_state
            || (aborts.contains(&state) && aborts.contains(&other_state))
            || 2 * world.rules().threshold() <= world.rules().total();
        if !alike {
            return Err(format!(
                "{tx_id}: one order leads to {state:?}, another to {other_state:?}"
            ));
        }
        let happened = proven(ballot, &votes);
        let kept_away = |(name, _): &&(String, ViolationType)| self.banned.contains(name);
        if let Some(more) = happened.difference(&found).next() {
            return Err(format!(
                "{tx_id}: {more:?} was found, and its votes do not show it"
            ));
        }
        match found.difference(&happened).find(|found| !kept_away(found)) {
            None => Ok(()),
            Some(less) => Err(format!("{tx_id}: {less:?} was not found")),
        }
    }
}

/// No vote is so late that the deadline comes between.
fn is_short(world: &World, ballot: &Ballot) -> bool {
    let times = ballot
        .votes
        .values()
        .map(|recorded| recorded.vote.body.time_ms);
    let times = times.chain(ballot.second_votes.values().map(|vote| vote.body.time_ms));
    let (least, most) = times.fold((u64::MAX, 0), |(least, most), time| {
        (least.min(time), most.max(time))
    });
    most < least.saturating_add(world.rules().vote_timeout_ms())
}

/// What was found by the ballot's own votes, which are given. A ban for a lie in a ballot
/// that is over may bring a vote that the ballot never got, and keeps it away: what that
/// one proves is judged with the ban.
fn proven(ballot: &Ballot, votes: &[&SignedStatement]) -> Found {
    let proven = ballot.violations.iter().filter(|violation| {
        let evidence = violation.misbehaviour.as_ref();
        let evidence = evidence.and_then(|misbehaviour| misbehaviour.kind.as_ref());
        let on_record = |signed: &SignedStatement| votes.contains(&signed);
        match (violation.kind, evidence) {
            (ViolationType::DoubleVoting, Some(Kind::DoubleVote(double))) => {
                let mut both = [&double.first, &double.second].into_iter().flatten();
                both.all(on_record)
            }
            (ViolationType::MinorityVote, Some(Kind::MinorityVote(minority))) => {
                let mut all = minority.dissent.iter().chain(&minority.majority);
                all.all(on_record)
            }
            (ViolationType::DoubleVoting | ViolationType::MinorityVote, _) => true,
            _ => false,
        }
    });
    proven
        .map(|violation| (violation.node_id.to_string(), violation.kind))
        .collect()
}

fn replay(world: &World, ballot: &Ballot, votes: &[&SignedStatement]) -> (BallotState, Found) {
    let mut board = Board::new(ballot.rules.clone());
    let times = ballot
        .votes
        .values()
        .map(|recorded| recorded.vote.body.time_ms);
    let times = times.chain(ballot.second_votes.values().map(|vote| vote.body.time_ms));
    // All of them can be recorded at the time of the last.
    let now_ms = times
        .max()
        .unwrap_or(0)
        .max(world.rules().vote_timeout_ms());
    for vote in votes {
        let op = ops::record_vote((*vote).clone());
        // What is refused leaves no trace, and the comparison shows that.
        let _ = board.apply(&op, now_ms, &FakeVerifier);
        while let Some(next) = board.next_move(&ballot.tx_id, now_ms) {
            let op = ops::advance(&ballot.tx_id, next.to);
            if board.apply(&op, now_ms, &FakeVerifier).is_err() {
                break;
            }
        }
    }
    match board.ballot(&ballot.tx_id) {
        Some(ballot) => (ballot.state, proven(ballot, votes)),
        None => (BallotState::Unspecified, Found::new()),
    }
}
