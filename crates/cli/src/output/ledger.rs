//! The vote ledger of one transaction, for people.

use quorate_consensus::words::violation_word;
use quorate_wire::v1::{Ballot, BallotState, DissentPolicy, Submission, Violation};

use super::{Out, Tone, ago, choice_text, clock, clock_ms, short_hex, standing_word, state_word};

/// Prints the whole ledger.
pub(crate) fn print_ballot(out: Out, ballot: &Ballot) {
    let now = clock_ms();
    let (state, tone) = state_word(ballot.state());
    out.line(format!(
        "{}  {}  since {} ({})",
        out.bold(&ballot.tx_id),
        out.paint(tone, state),
        clock(ballot.since_ms),
        ago(ballot.since_ms, now)
    ));
    if !ballot.reason.is_empty() {
        out.line(format!("  {}", ballot.reason));
    }
    for (name, text) in facts(out, ballot, now) {
        out.line(format!(
            "{} {text}",
            out.paint(Tone::Faint, format!("{name:<11}"))
        ));
    }
    let mut table = out.table(&["trustee", "standing", "choice", "signed at", "peer id"]);
    for trustee in &ballot.trustees {
        let (word, tone) = standing_word(trustee.standing());
        let word = match trustee.banned && word != "banned" {
            true => format!("{word}, banned"),
            false => word.to_owned(),
        };
        table.add_row([
            out.cell(Tone::Plain, &trustee.node_id),
            out.cell(tone, word),
            out.cell(Tone::Plain, choice_text(trustee.choice.as_ref())),
            out.cell(Tone::Faint, clock(trustee.time_ms)),
            out.cell(Tone::Faint, short_hex(&trustee.peer_id)),
        ]);
    }
    out.line(table);
}

/// The states that a ballot went through, in one line.
pub(crate) fn path_text(ballot: &Ballot) -> String {
    let states: Vec<_> = ballot
        .path
        .iter()
        .map(|passed| state_word(passed.state()).0)
        .collect();
    states.join(" → ")
}

fn facts(out: Out, ballot: &Ballot, now: u64) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let Some(rules) = &ballot.rules {
        let dissent = match rules.dissent() {
            DissentPolicy::Outvote => "outvote",
            _ => "abort",
        };
        facts.push((
            "rules",
            format!(
                "epoch {}, N = {}, t = {}, f = {}, dissent = {dissent}, digest {}",
                rules.epoch,
                rules.total_nodes,
                rules.threshold,
                rules.tolerated,
                short_hex(&rules.digest)
            ),
        ));
    }
    facts.push(("path", path_text(ballot)));
    let tally: Vec<_> = ballot
        .tally
        .iter()
        .map(|tally| format!("{} × {}", tally.count, choice_text(tally.value.as_ref())))
        .collect();
    if !tally.is_empty() {
        facts.push(("tally", tally.join(", ")));
    }
    if ballot.value.is_some() {
        // An aborted ballot may have had t votes for a value; that decided nothing.
        let label = match ballot.state() {
            BallotState::AbortedByzantine
            | BallotState::AbortedSplit
            | BallotState::AbortedTimeout => "majority",
            _ => "decided",
        };
        facts.push((label, choice_text(ballot.value.as_ref())));
    } else if ballot.votes_missing > 0 && ballot.state() == BallotState::Collecting {
        facts.push(("missing", missing(ballot)));
    }
    facts.push((
        "deadline",
        match ballot.deadline_ms {
            0 => "not started".into(),
            at => format!("{} ({})", clock(at), ago(at, now)),
        },
    ));
    if let Some(submission) = &ballot.submission {
        facts.push(("submission", submission_text(submission)));
    }
    let violations: Vec<_> = ballot.violations.iter().map(violation_text).collect();
    if !violations.is_empty() {
        facts.push(("violations", out.paint(Tone::Bad, violations.join(", "))));
    }
    facts
}

fn missing(ballot: &Ballot) -> String {
    let reachable: Vec<_> = ballot
        .reachable
        .iter()
        .map(|value| choice_text(Some(value)))
        .collect();
    let mut text = format!("{} more for the leading value", ballot.votes_missing);
    match (reachable.is_empty(), ballot.any_reachable) {
        (true, true) => text += "; any value can still be decided",
        (true, false) => text += "; no value can be decided any more",
        (false, true) => {
            text += &format!(
                "; {} or another value can still be decided",
                reachable.join(", ")
            );
        }
        (false, false) => text += &format!("; only {} can be decided", reachable.join(", ")),
    }
    text
}

fn submission_text(submission: &Submission) -> String {
    let mut text = match &submission.reservation {
        Some(reserved) => format!("account {}, nonce {}", reserved.account, reserved.nonce),
        None => "no chain needed".into(),
    };
    if !submission.tx_hash.is_empty() {
        text += &format!(", hash {}", short_hex(&submission.tx_hash));
    }
    if submission.block_number > 0 {
        text += &format!(", block {}", submission.block_number);
    }
    if submission.attempts > 0 {
        text += &format!(", sent {}× by this node", submission.attempts);
    }
    if submission.certified {
        text += ", certified";
    }
    if submission.given_up {
        text += ", given up";
    }
    text
}

fn violation_text(violation: &Violation) -> String {
    let proven = if violation.proven { " (proven)" } else { "" };
    format!(
        "{} {}{proven}",
        violation.node_id,
        violation_word(violation.r#type())
    )
}
