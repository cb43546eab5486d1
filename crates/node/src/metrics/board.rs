//! Counts what the board's log says, as this node believes it.

use std::collections::HashMap;
use std::sync::PoisonError;

use quorate_consensus::ballot::{is_final, state_name};
use quorate_consensus::wire::{
    AccusationKind, BallotState, BoardEntry, BoardEvent, StateChanged, ViolationType, board_event,
};
use quorate_consensus::words::violation_word;

use super::{Meter, seconds};

/// What must be remembered of ballots that are not final.
#[derive(Debug, Default)]
pub(super) struct OnBoard {
    open: HashMap<Box<str>, Times>,
}

/// Milliseconds since the Unix epoch, by the board's time.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    opened: Option<u64>,
    submitted: Option<u64>,
}

impl Meter {
    /// Takes in entries that the engine believes, in order, from the first on: gauges
    /// follow all of them, counters those that are news.
    pub(crate) fn believed(&self, entries: &[BoardEntry]) {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries {
            let is_news = self.is_news(entry);
            for event in &entry.events {
                self.event(&mut board, event, is_news);
            }
        }
        if let Some(last) = entries.last() {
            self.board_revision.set(super::number(
                usize::try_from(last.revision).unwrap_or(usize::MAX),
            ));
        }
    }

    fn event(&self, board: &mut OnBoard, event: &BoardEvent, is_news: bool) {
        use board_event::Event as E;
        let Some(what) = &event.event else { return };
        match what {
            E::VoteRecorded(vote) => {
                let trustee = self.member(&vote.node_id);
                let last = self.last_vote_timestamp.of([trustee.clone()]);
                last.set(seconds(event.time_ms));
                if is_news {
                    self.votes_received.of([trustee]).inc();
                }
            }
            E::StateChanged(change) => self.moved(board, event, change, is_news),
            E::Expired(_) => {
                let state = state_name(BallotState::Collecting);
                self.ballots.of([state]).dec();
                self.active_votes.dec();
                self.etcd_active_transactions.dec();
                board.open.remove(&*event.tx_id);
                if is_news {
                    self.ballots_expired.inc();
                }
            }
            E::Collected(collected) => {
                self.ballots.of([state_name(collected.state())]).dec();
            }
            E::ViolationFound(found) if is_news => {
                let kind = found.r#type();
                let label = violation_word(kind);
                let trustee = self.member(&found.node_id);
                self.violations.of([trustee, label.into()]).inc();
                let of_a_vote = [ViolationType::DoubleVoting, ViolationType::MinorityVote];
                if of_a_vote.contains(&kind) {
                    self.votes_rejected_byzantine.of([label]).inc();
                }
            }
            E::Accused(accused) if is_news => {
                let label = violation_word(match accused.kind() {
                    AccusationKind::InvalidSignature => ViolationType::InvalidSignature,
                    AccusationKind::Operator => ViolationType::Operator,
                    AccusationKind::Malformed | AccusationKind::Unspecified => {
                        ViolationType::Malformed
                    }
                });
                let trustee = self.member(&accused.node_id);
                self.accusations.of([trustee, label.into()]).inc();
                if accused.kind() != AccusationKind::Operator {
                    self.votes_rejected_byzantine.of([label]).inc();
                }
            }
            E::Banned(banned) => {
                self.member_banned
                    .of([self.member(&banned.node_id)])
                    .set(1.0);
                if is_news {
                    self.banned_peers.inc();
                }
            }
            E::Unbanned(unbanned) => {
                let trustee = self.member(&unbanned.node_id);
                self.member_banned.of([trustee]).set(0.0);
            }
            E::ReputationChanged(changed) => {
                let trustee = self.member(&changed.node_id);
                let reputation = f64::from(changed.thousandths) / 1000.0;
                self.peer_reputation.of([trustee]).set(reputation);
            }
            _ => {}
        }
    }

    fn moved(&self, board: &mut OnBoard, event: &BoardEvent, change: &StateChanged, is_news: bool) {
        let (from, to) = (change.from(), change.to());
        if from != BallotState::Unspecified {
            self.ballots.of([state_name(from)]).dec();
        }
        self.ballots.of([state_name(to)]).inc();
        let step = |gauge: &quorate_telemetry::metrics::Gauge, was: bool, is: bool| {
            gauge.inc_by(f64::from(u8::from(is)) - f64::from(u8::from(was)));
        };
        step(&self.active_votes, collects(from), collects(to));
        let open = |state| state != BallotState::Unspecified && !is_final(state);
        step(&self.etcd_active_transactions, open(from), open(to));

        let times = board.open.entry(event.tx_id.as_str().into()).or_default();
        if from == BallotState::Unspecified {
            times.opened = Some(event.time_ms);
        }
        if to == BallotState::Submitted {
            times.submitted = Some(event.time_ms);
        }
        let times = *times;
        if is_final(to) {
            board.open.remove(&*event.tx_id);
        }
        if !is_news {
            return;
        }
        let since = |time: u64| seconds(event.time_ms.saturating_sub(time));
        self.ballot_moves.of([state_name(to)]).inc();
        match to {
            BallotState::ThresholdReached => {
                self.threshold_reached.inc();
            }
            BallotState::AbortedByzantine => {
                self.transactions_aborted_byzantine.inc();
            }
            BallotState::Submitted | BallotState::Confirmed | BallotState::Failed => {
                self.blockchain_submissions.of([state_name(to)]).inc();
            }
            _ => {}
        }
        if let (BallotState::Confirmed, Some(submitted)) = (to, times.submitted) {
            self.submission_latency.observe(since(submitted));
        }
        if let (true, Some(opened)) = (is_final(to), times.opened) {
            let duration = self.ballot_duration.of([state_name(to)]);
            duration.observe(since(opened));
        }
    }
}

/// Whether votes still count, or the settle window runs.
fn collects(state: BallotState) -> bool {
    matches!(
        state,
        BallotState::Collecting | BallotState::ThresholdReached
    )
}

#[cfg(test)]
mod tests {
    use quorate_consensus::wire::{Collected, Expired, VoteRecorded};

    use super::*;

    fn entry(revision: u64, time_ms: u64, tx_id: &str, event: board_event::Event) -> BoardEntry {
        BoardEntry {
            revision,
            time_ms,
            op: None,
            events: vec![BoardEvent {
                revision,
                time_ms,
                tx_id: tx_id.to_owned(),
                event: Some(event),
            }],
        }
    }

    fn change(from: BallotState, to: BallotState) -> board_event::Event {
        board_event::Event::StateChanged(StateChanged {
            from: from.into(),
            to: to.into(),
            ..StateChanged::default()
        })
    }

    fn value(meter: &Meter, series: &str) -> f64 {
        let text = meter.export();
        let line = text.lines().find_map(|l| l.strip_prefix(series));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}"))
            .trim()
            .parse()
            .unwrap()
    }

    #[test]
    fn gauges_follow_history_and_counters_only_news() {
        use BallotState::{
            AbortedByzantine, Collecting, Confirmed, Submitted, ThresholdReached, Unspecified,
        };
        let mut meter = Meter::default();
        meter.begin();
        meter.started_ms = 1_000;
        for (revision, time, tx_id, from, to) in [
            (1, 10, "old", Unspecified, Collecting),
            (2, 20, "old", Collecting, AbortedByzantine),
            (3, 900, "tx", Unspecified, Collecting),
            (4, 1_100, "tx", Collecting, ThresholdReached),
            (5, 1_200, "tx", ThresholdReached, Submitted),
            (6, 1_500, "tx", Submitted, Confirmed),
            (7, 1_600, "open", Unspecified, Collecting),
        ] {
            meter.believed(&[entry(revision, time, tx_id, change(from, to))]);
        }
        let vote = VoteRecorded {
            node_id: "nobody-we-know".into(),
            ..VoteRecorded::default()
        };
        meter.believed(&[entry(
            8,
            1_700,
            "open",
            board_event::Event::VoteRecorded(vote),
        )]);
        for (series, expected) in [
            ("quorate_ballots{state=\"ABORTED_BYZANTINE\"}", 1.0),
            ("quorate_ballots{state=\"CONFIRMED\"}", 1.0),
            ("quorate_ballots{state=\"COLLECTING\"}", 1.0),
            ("quorate_ballots{state=\"SUBMITTED\"}", 0.0),
            ("quorate_active_votes", 1.0),
            ("quorate_etcd_active_transactions", 1.0),
            ("quorate_transactions_aborted_byzantine_total", 0.0),
            ("quorate_threshold_reached_total", 1.0),
            (
                "quorate_blockchain_submissions_total{state=\"CONFIRMED\"}",
                1.0,
            ),
            ("quorate_submission_latency_seconds_sum", 0.3),
            (
                "quorate_ballot_duration_seconds_sum{state=\"CONFIRMED\"}",
                0.6,
            ),
            ("quorate_votes_received_total{node_id=\"other\"}", 1.0),
            ("quorate_board_revision", 8.0),
        ] {
            assert!(
                (value(&meter, series) - expected).abs() < 1e-9,
                "{series} is {}",
                value(&meter, series)
            );
        }
        // What leaves the board leaves the gauges.
        let expired = board_event::Event::Expired(Expired {});
        let collected = Collected {
            state: Confirmed.into(),
        };
        meter.believed(&[
            entry(9, 1_800, "open", expired),
            entry(10, 1_900, "tx", board_event::Event::Collected(collected)),
        ]);
        assert_eq!(value(&meter, "quorate_ballots{state=\"COLLECTING\"}"), 0.0);
        assert_eq!(value(&meter, "quorate_ballots{state=\"CONFIRMED\"}"), 0.0);
        assert_eq!(value(&meter, "quorate_active_votes"), 0.0);
        let board = meter.board.lock().unwrap();
        assert!(board.open.is_empty(), "{:?}", board.open);
    }
}
