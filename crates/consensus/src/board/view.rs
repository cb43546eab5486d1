//! The vote ledger of one transaction, for people and clients.

use crate::ballot::{Ballot, RecordedVote};
use crate::board::Board;
use crate::choice::{Choice, Value};
use crate::fsm::names;
use crate::ids::{NodeId, TxId};
use crate::rules::Member;
use crate::wire::{self, BallotState, ChainOutcome, Standing, Submission, Tally, TrusteeStanding};

impl Board {
    /// The vote ledger of one transaction, for people and clients. `attempts` of the
    /// submission is the node's own knowledge and left 0.
    pub fn view(&self, tx_id: &TxId) -> Option<wire::Ballot> {
        let ballot = self.ballots.get(tx_id)?;
        let tally = tally(ballot);
        let (reachable, any_reachable) = self.reachable(ballot, &tally);
        let most = tally.first().map_or(0, |(_, count)| *count);
        let threshold = ballot.rules.threshold();
        Some(wire::Ballot {
            tx_id: tx_id.to_string(),
            state: ballot.state.into(),
            since_ms: ballot.since_ms,
            opened_ms: ballot.opened_ms,
            rules: Some(ballot.rules.summary()),
            trustees: ballot
                .rules
                .members()
                .map(|member| self.standing(ballot, member))
                .collect(),
            votes_missing: threshold.saturating_sub(most) as u32,
            reachable: reachable.into_iter().map(wire::Choice::from).collect(),
            any_reachable,
            started: ballot.is_started(),
            deadline_ms: ballot.deadline_ms().unwrap_or(0),
            value: ballot.value.as_ref().map(wire::Choice::from),
            submission: submission(ballot),
            violations: ballot.violations.iter().map(violation).collect(),
            reason: self.reason(ballot, &tally),
            revision: ballot.revision,
            path: ballot.path.clone(),
            tally: tally
                .into_iter()
                .map(|(value, count)| Tally {
                    value: Some(value.into()),
                    count: count as u32,
                })
                .collect(),
        })
    }

    fn standing(&self, ballot: &Ballot, member: &Member) -> TrusteeStanding {
        let node_id = &member.node_id;
        let recorded = ballot.votes.get(node_id);
        let banned = self.is_banned(node_id);
        let standing = match recorded {
            Some(recorded) => standing_of_vote(ballot, node_id, recorded),
            None if banned => Standing::Banned,
            None if ballot.silent.contains(node_id) => Standing::Silent,
            None => Standing::Missing,
        };
        let vote = recorded.map(|recorded| &recorded.vote.body);
        TrusteeStanding {
            node_id: node_id.to_string(),
            standing: standing.into(),
            choice: vote.map(|vote| wire::Choice::from(&vote.choice)),
            time_ms: vote.map_or(0, |vote| vote.time_ms),
            peer_id: member.peer_id.as_bytes().to_vec(),
            banned,
        }
    }

    /// Members that can still vote, ascending.
    fn awaited<'a>(&'a self, ballot: &'a Ballot) -> impl Iterator<Item = &'a NodeId> {
        ballot
            .without_vote()
            .filter(|node_id| !self.is_banned(node_id))
    }

    fn reachable<'a>(
        &self,
        ballot: &Ballot,
        tally: &[(&'a Value, usize)],
    ) -> (Vec<&'a Value>, bool) {
        let threshold = ballot.rules.threshold();
        match ballot.state {
            BallotState::Collecting => {
                let open = self.awaited(ballot).count();
                let can = tally.iter().filter(|(_, count)| count + open >= threshold);
                (can.map(|(value, _)| *value).collect(), open >= threshold)
            }
            BallotState::ThresholdReached
            | BallotState::Submitted
            | BallotState::Confirmed
            | BallotState::Failed => {
                let decided = tally.iter().map(|(value, _)| *value);
                let is_decided = |value: &&Value| Some(*value) == ballot.value.as_ref();
                (decided.filter(is_decided).collect(), false)
            }
            _ => (Vec::new(), false),
        }
    }

    /// One sentence: why it is in this state, and what it waits for.
    fn reason(&self, ballot: &Ballot, tally: &[(&Value, usize)]) -> String {
        let why = &ballot.reason;
        let threshold = ballot.rules.threshold();
        match ballot.state {
            BallotState::Collecting => {
                let votes = match tally.first() {
                    // The move follows the vote that allows it: some see the ballot between.
                    Some((value, count)) if *count >= threshold => {
                        format!("{count} of them for {value}, which is enough")
                    }
                    Some((value, count)) => {
                        format!("{} more for {value} would decide", threshold - count)
                    }
                    None => format!("{threshold} votes for one value would decide"),
                };
                let missing = match &*names(self.awaited(ballot)) {
                    "" => String::from("nobody is left to vote"),
                    names => format!("not voted: {names}"),
                };
                format!(
                    "{why}; {} of {} voted, {votes}; {missing}; {}",
                    ballot.votes.len(),
                    ballot.rules.total(),
                    clock(ballot)
                )
            }
            BallotState::ThresholdReached => match ballot.settled_ms() {
                Some(settled) => format!(
                    "{why}; it settles until {} and then waits for its reservation",
                    utc(settled)
                ),
                None => why.clone(),
            },
            BallotState::Submitted => {
                let waits = if ballot.given_up {
                    String::from("given up: it waits for the cancellation to be final")
                } else if ballot.certificate.is_none() {
                    format!("it waits for the decisions of {threshold} trustees")
                } else {
                    format!("certified; it waits until {threshold} trustees see it on the chain")
                };
                match &ballot.lease {
                    Some(lease) => format!("{why}; {waits}; {} submits", lease.holder),
                    None => format!("{why}; {waits}"),
                }
            }
            _ => why.clone(),
        }
    }
}

fn standing_of_vote(ballot: &Ballot, node_id: &NodeId, recorded: &RecordedVote) -> Standing {
    if ballot.second_votes.contains_key(node_id) {
        return Standing::Equivocated;
    }
    if recorded.late {
        return Standing::Late;
    }
    match (&recorded.vote.body.choice, &ballot.value) {
        (Choice::Abstention, _) => Standing::Abstained,
        (Choice::Value(_), None) => Standing::Voted,
        (Choice::Value(own), Some(decided)) if own == decided => Standing::Agreed,
        (Choice::Value(_), Some(_)) => Standing::Dissented,
    }
}

/// Votes per value, most first, the smallest value first among equals.
fn tally(ballot: &Ballot) -> Vec<(&Value, usize)> {
    let mut tally: Vec<_> = ballot.counts().into_iter().collect();
    tally.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    tally
}

fn submission(ballot: &Ballot) -> Option<Submission> {
    let reservation = ballot.reservation.clone()?;
    let observed = ballot.observed.as_ref();
    // What was undone is no longer where it was.
    let seen = observed.filter(|observed| observed.outcome != ChainOutcome::Undone);
    let outcome = observed.map_or(ChainOutcome::Unspecified, |observed| observed.outcome);
    Some(Submission {
        reservation: Some(reservation),
        tx_hash: seen.map(|seen| seen.tx_hash.clone()).unwrap_or_default(),
        block_number: seen.map_or(0, |seen| seen.block_number),
        attempts: 0,
        certified: ballot.certificate.is_some(),
        given_up: ballot.given_up,
        outcome: outcome.into(),
    })
}

fn violation(violation: &crate::ballot::Violation) -> wire::Violation {
    wire::Violation {
        node_id: violation.node_id.to_string(),
        r#type: violation.kind.into(),
        detected_ms: violation.detected_ms,
        proven: violation.misbehaviour.is_some(),
    }
}

fn clock(ballot: &Ballot) -> String {
    match ballot.deadline_ms() {
        Some(deadline) => format!("it times out at {}", utc(deadline)),
        None => format!(
            "it has not started: that takes {} voters, and without them it is removed at {}",
            ballot.rules.starters(),
            utc(ballot.expires_ms())
        ),
    }
}

/// Milliseconds since the Unix epoch as people read them, such as
/// `2026-11-21T12:55:00Z`.
fn utc(time_ms: u64) -> String {
    const DAY_S: u64 = 86_400;
    let seconds = time_ms / 1_000;
    let (mut days, second) = (seconds / DAY_S, seconds % DAY_S);
    if days > 2_900_000 {
        return format!("{time_ms} ms since 1970");
    }
    let is_leap = |year: u64| {
        year.is_multiple_of(400) || (year.is_multiple_of(4) && !year.is_multiple_of(100))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    let (day, second) = (days + 1, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn times_are_readable() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_400_000), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_709_251_199_999), "2024-02-29T23:59:59Z");
        assert_eq!(utc(1_795_000_000_000), "2026-11-18T11:06:40Z");
        assert_eq!(utc(4_107_542_400_000), "2100-03-01T00:00:00Z");
        assert_eq!(utc(u64::MAX), format!("{} ms since 1970", u64::MAX));
    }
}
