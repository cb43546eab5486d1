//! What the keys that are no records must say.

use std::fmt::Write as _;

use prost::Message as _;
use quorate_consensus::ballot::{Ballot, state_name};
use quorate_consensus::board::Board;
use quorate_consensus::wire::BallotState;
use quorate_consensus::{TxId, Value};

use crate::names::{self, Name};

/// What a view must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// This.
    Value(Vec<u8>),
    /// It must not be there.
    Nothing,
    /// This if it is there: a ballot that only votes touched has no status yet.
    ValueOrNothing(Vec<u8>),
    /// Nobody knows: a hint, or nothing of ours.
    Anything,
}

/// What the board says of a key that is no record.
pub(crate) fn says(board: &Board, name: &Name) -> Says {
    let value = match name {
        Name::Status(tx_id) => return status(board, tx_id),
        Name::Banned(node_id) => {
            let ban = board.member(node_id).and_then(|member| member.ban.as_ref());
            ban.map(|ban| {
                let kind = ban.kind.as_str_name();
                let proof = hex::encode(ban.proof.encode_to_vec());
                format!("{{\"reason\":\"{kind}\",\"proof\":\"{proof}\"}}").into_bytes()
            })
        }
        Name::Member(node_id) => board.member(node_id).and_then(|member| {
            let boot = hex::encode(member.boot.as_ref()?.encode_to_vec());
            let generation = member.generation;
            Some(format!("{{\"generation\":{generation},\"boot\":\"{boot}\"}}").into_bytes())
        }),
        Name::Certificate(tx_id) => {
            let ballot = board.ballot(tx_id);
            let proof = ballot.and_then(|ballot| ballot.certificate.as_ref());
            proof.map(|proof| proof.encode_to_vec())
        }
        Name::Observations(tx_id) => {
            let ballot = board.ballot(tx_id);
            let seen = ballot.and_then(|ballot| ballot.observed.as_ref());
            seen.map(|seen| {
                let text = format!(
                    "{{\"outcome\":\"{}\",\"tx_hash\":\"{}\",\"block_number\":{},\"block_hash\":\"{}\",\"round\":{}}}",
                    seen.outcome.as_str_name(),
                    hex::encode(&seen.tx_hash),
                    seen.block_number,
                    hex::encode(&seen.block_hash),
                    seen.round
                );
                text.into_bytes()
            })
        }
        Name::Accusation(accused, by) => {
            let member = board.member(accused);
            let first = member.and_then(|member| member.accusations.get(by));
            first.map(|accusation| accusation.signed.encode_to_vec())
        }
        Name::Rules(epoch) => {
            let rules = board.rules();
            (rules.epoch() == *epoch).then(|| rules.document().to_vec())
        }
        Name::Nonces(account) => {
            let chain = board.rules().chain();
            let used = board.reservations();
            (*account == chain.account && used > 0).then(|| {
                (chain.first_nonce.saturating_add(used))
                    .to_string()
                    .into_bytes()
            })
        }
        Name::Record | Name::Count(_) | Name::Head | Name::Other => return Says::Anything,
    };
    value.map_or(Says::Nothing, Says::Value)
}

fn status(board: &Board, tx_id: &TxId) -> Says {
    if let Some(state) = board.collected(tx_id) {
        let state = state_name(state);
        return Says::Value(format!("{{\"state\":\"{state}\",\"collected\":true}}").into_bytes());
    }
    let Some(ballot) = board.ballot(tx_id) else {
        return Says::Nothing;
    };
    let text = told(ballot).into_bytes();
    match ballot.state {
        BallotState::Collecting => Says::ValueOrNothing(text),
        _ => Says::Value(text),
    }
}

fn told(ballot: &Ballot) -> String {
    let mut text = format!(
        "{{\"state\":\"{}\",\"rules_digest\":\"{}\"",
        state_name(ballot.state),
        ballot.rules.digest()
    );
    // Writing to a String does not fail.
    let _ = match &ballot.value {
        Some(Value::Number(number)) => write!(text, ",\"value\":\"{number}\""),
        Some(Value::Data(data)) => write!(text, ",\"data\":\"{}\"", hex::encode(data)),
        None => Ok(()),
    };
    if let Some(reservation) = &ballot.reservation {
        let _ = write!(
            text,
            ",\"account\":\"{}\",\"nonce\":{},\"payload\":\"{}\"",
            reservation.account,
            reservation.nonce,
            hex::encode(&reservation.payload)
        );
    }
    if ballot.given_up {
        text.push_str(",\"given_up\":true");
    }
    text.push('}');
    text
}

/// Every view that the board says something of, and what it must say: a store that
/// lacks one has lost it.
pub(crate) fn all(board: &Board) -> Vec<(String, Vec<u8>)> {
    let mut names = vec![names::rules(board.rules().epoch())];
    names.push(names::nonces(&board.rules().chain().account));
    for ballot in board.ballots() {
        names.push(names::status(&ballot.tx_id));
        names.push(names::certificate(&ballot.tx_id));
        names.push(names::observations(&ballot.tx_id));
    }
    for member in board.rules().members() {
        let node_id = &member.node_id;
        names.push(names::banned(node_id));
        names.push(names::member(node_id));
        if let Some(state) = board.member(node_id) {
            names.extend(
                state
                    .accusations
                    .keys()
                    .map(|by| names::accusation(node_id, by)),
            );
        }
    }
    let value = |key: String| match says(board, &Name::of(&key)) {
        Says::Value(value) => Some((key, value)),
        _ => None,
    };
    names.into_iter().filter_map(value).collect()
}
