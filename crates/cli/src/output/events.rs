//! One event of the board in one line.

use quorate_consensus::words::{accusation_word, outcome_word, violation_word};
use quorate_wire::v1::board_event::Event;
use quorate_wire::v1::{BallotState, BoardEvent, ChainOutcome, MessageReceived};

use super::{Out, Tone, choice_text, clock, short_hex, state_word};

/// The event for people: revision, time, transaction, what happened.
pub(crate) fn event_line(out: Out, event: &BoardEvent) -> String {
    let (tone, text) = event_text(event);
    let tx_id = match event.tx_id.as_str() {
        "" => "-",
        tx_id => tx_id,
    };
    let head = format!("{:>6}  {}", event.revision, clock(event.time_ms));
    format!(
        "{}  {tx_id}  {}",
        out.paint(Tone::Faint, head),
        out.paint(tone, text)
    )
}

/// A direct message for people: time, from whom, what, as text if it is some.
pub(crate) fn message_line(out: Out, message: &MessageReceived) -> String {
    let head = format!("{:>6}  {}", "-", clock(message.time_ms));
    let data = &message.data;
    let text = std::str::from_utf8(data).ok();
    let text = text.filter(|text| !text.chars().any(|c| c.is_control() && c != '\n'));
    let said = match text {
        Some(text) => text.to_owned(),
        None => format!("{} bytes, 0x{}", data.len(), short_hex(data)),
    };
    format!(
        "{}  -  message from {}: {said}",
        out.paint(Tone::Faint, head),
        message.node_id
    )
}

/// What happened, in words.
pub(crate) fn event_text(event: &BoardEvent) -> (Tone, String) {
    let Some(what) = &event.event else {
        return (Tone::Faint, "something this version does not know".into());
    };
    match what {
        Event::VoteRecorded(vote) => {
            let late = if vote.late { ", late" } else { "" };
            let choice = choice_text(vote.choice.as_ref());
            (
                Tone::Plain,
                format!("{} voted {choice}{late}", vote.node_id),
            )
        }
        Event::StateChanged(change) => {
            let (to, tone) = state_word(change.to());
            let text = match change.from() {
                BallotState::Unspecified => format!("opened: {to}"),
                from => format!("{} → {to}", state_word(from).0),
            };
            match change.reason.as_str() {
                "" => (tone, text),
                reason => (tone, format!("{text}: {reason}")),
            }
        }
        Event::Reserved(reserved) => {
            let text = match &reserved.reservation {
                Some(place) => format!("reserved account {}, nonce {}", place.account, place.nonce),
                None => "reserved".into(),
            };
            let anew = if reserved.anew { " anew" } else { "" };
            let value = choice_text(reserved.value.as_ref());
            (Tone::Plain, format!("{text} for {value}{anew}"))
        }
        Event::Certified(certified) => {
            let count = certified
                .proof
                .as_ref()
                .map_or(0, |proof| proof.decisions.len());
            (
                Tone::Plain,
                format!("certificate complete: {count} decisions"),
            )
        }
        Event::Concluded(seen) => {
            let outcome = outcome_word(seen.outcome());
            let tone = match seen.outcome() {
                ChainOutcome::Confirmed => Tone::Good,
                _ => Tone::Bad,
            };
            let hash = short_hex(&seen.tx_hash);
            (
                tone,
                format!(
                    "chain: {outcome} in block {}, hash {hash}",
                    seen.block_number
                ),
            )
        }
        Event::AbortProven(proof) => (
            Tone::Plain,
            format!("abort proven by {} statements", proof.aborts.len()),
        ),
        Event::ViolationFound(found) => {
            let proven = if found.misbehaviour.is_some() {
                ", with evidence"
            } else {
                ""
            };
            let word = violation_word(found.r#type());
            (
                Tone::Bad,
                format!("violation by {}: {word}{proven}", found.node_id),
            )
        }
        Event::Banned(ban) => (
            Tone::Bad,
            format!(
                "{} banned for {}",
                ban.node_id,
                violation_word(ban.r#type())
            ),
        ),
        Event::Unbanned(ban) => (Tone::Warn, format!("the ban of {} was lifted", ban.node_id)),
        Event::GivenUp(_) => (Tone::Warn, "the submission was given up".into()),
        Event::Accused(accused) => {
            let kind = accusation_word(accused.kind());
            (
                Tone::Warn,
                format!("{} accuses {} of {kind}", accused.by, accused.node_id),
            )
        }
        Event::ReputationChanged(change) => {
            let (whole, rest) = (change.thousandths / 1000, change.thousandths % 1000);
            (
                Tone::Faint,
                format!("reputation of {}: {whole}.{rest:03}", change.node_id),
            )
        }
        Event::Expired(_) => (Tone::Warn, "removed: it never started".into()),
        Event::Booted(boot) => (
            Tone::Faint,
            format!("{} started, generation {}", boot.node_id, boot.generation),
        ),
        Event::LeaseChanged(lease) => {
            let text = match lease.node_id.as_str() {
                "" => "the submission lease was given back".to_owned(),
                holder => format!("{holder} takes the submission lease"),
            };
            (Tone::Faint, text)
        }
        Event::Collected(gone) => (
            Tone::Faint,
            format!("collected, ended as {}", state_word(gone.state()).0),
        ),
    }
}
