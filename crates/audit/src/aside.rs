//! What of a store's rows is of a lost past, and how the rows were before. Pure, and
//! the same for every backend: a backend reads the rows, and writes what changed.

use std::collections::BTreeSet;

use quorate_consensus::wire::{Reservation, SignedStatement};
use quorate_consensus::{Choice, TxId, Value};
use serde_json::{Value as Json, json};

use crate::page::{KeyRow, Page};
use crate::parting::{
    ACCUSATIONS, BANS, DECISIONS, KEYS, LostPast, LostRow, MEMBERS, Parting, SUBMISSIONS,
    VIOLATIONS, VOTES,
};
use crate::rows::{
    AccusationRow, BanRow, DecisionRow, ReputationRow, SubmissionRow, SubmissionState,
    ViolationRow, VoteRow,
};
use crate::time;

/// The rows that a lost past can have touched. Violations, bans and accusations are all
/// that are not set aside yet, by their numbers.
pub(crate) struct Shown {
    /// The transactions that it is about.
    pub(crate) tx_ids: BTreeSet<TxId>,
    /// Of those everything, and how they ended.
    pub(crate) page: Page,
    pub(crate) violations: Vec<ViolationRow>,
    pub(crate) bans: Vec<(u64, BanRow)>,
    pub(crate) accusations: Vec<(u64, AccusationRow)>,
}

/// The transactions that a lost past can have touched: those of its entries, parted by
/// spaces as `projected_entries` has them, and those that engines wrote before the
/// projection came to them.
pub(crate) fn touched(entries: &[String], pending: Vec<SubmissionRow>) -> BTreeSet<TxId> {
    let named = entries
        .iter()
        .flat_map(|tx_ids| tx_ids.split_ascii_whitespace());
    let named = named.filter_map(|text| TxId::new(text).ok());
    named
        .chain(pending.into_iter().map(|row| row.tx_id))
        .collect()
}

/// What is set aside, beside what changes on the page.
#[derive(Default)]
pub(crate) struct Aside {
    pub(crate) rows: Vec<LostRow>,
    /// Bans by their number, and when they were lifted as far as the log says.
    pub(crate) lifted: Vec<(u64, Option<u64>)>,
}

impl Shown {
    /// Brings the page back to what the store showed where the pasts part, and gives
    /// what is not of that, but of the lost `past`.
    pub(crate) fn set_aside(&mut self, parting: &Parting, past: &LostPast) -> Aside {
        let mut aside = Aside::default();
        self.submissions(parting, &mut aside);
        self.keys(&parting.page, &mut aside);
        self.votes(&parting.page, &mut aside);
        self.decisions(&parting.page, &mut aside);
        self.members(&parting.page, &mut aside);
        self.in_their_tables(&parting.page, &mut aside);
        aside.rows.iter_mut().for_each(|row| row.past = past.id);
        aside
    }

    /// A row stays that the log gives, before or after the parting. An engine's own
    /// columns (attempts, and the hash of what it signed) stay with the reservation.
    fn submissions(&mut self, parting: &Parting, aside: &mut Aside) {
        let page = &mut self.page;
        let live = page.submissions.rows().map(|row| (row.clone(), true));
        let archived = page.archive.rows().map(|row| (row.clone(), false));
        let found: Vec<_> = live.chain(archived).collect();
        for (found, live) in found {
            let tx_id = found.tx_id.clone();
            let ahead = parting.ahead.get(&tx_id);
            let expected = parting.page.submissions.row(&tx_id);
            if expected.is_some_and(|expected| says_the_same(&found, expected)) {
                continue;
            }
            let reserved_ahead = ahead.is_some_and(|ahead| is_at(&found, ahead));
            let pending = found.state == SubmissionState::Pending;
            if expected.is_none() && reserved_ahead && pending {
                continue;
            }
            let same_place =
                expected.is_some_and(|e| (&e.account, e.nonce, &e.payload) == place_of(&found));
            let lost = found.account.clone().zip(found.nonce);
            aside.rows.push(LostRow {
                state: Some(found.state),
                place: lost.filter(|_| !same_place && !reserved_ahead),
                ..of_tx(SUBMISSIONS, &tx_id, submission_json(&found))
            });
            if !live {
                page.archive.remove(tx_id.clone());
            }
            match expected {
                Some(expected) => {
                    let mut row = expected.clone();
                    row.attempts = found.attempts;
                    if same_place && row.tx_hash.is_none() {
                        row.tx_hash = found.tx_hash;
                    }
                    page.submissions.put(tx_id, row);
                }
                None if live => {
                    page.submissions.remove(tx_id);
                }
                None => {}
            }
        }
    }

    /// What has ended once is never forgotten: its row stays. Only where the log says
    /// of it something else, it says that.
    fn keys(&mut self, expected: &Page, aside: &mut Aside) {
        let found: Vec<_> = self.page.keys.rows().cloned().collect();
        for found in found {
            let expected = expected.keys.row(&found.tx_id);
            if expected.is_some_and(|expected| expected.final_state == found.final_state) {
                continue;
            }
            aside.rows.push(LostRow {
                state: Some(found.final_state),
                ..of_tx(KEYS, &found.tx_id, key_json(&found))
            });
            if let Some(expected) = expected {
                self.page.keys.put(found.tx_id, expected.clone());
            }
        }
        // An end that the lost past undid.
        for tx_id in &self.tx_ids {
            if let (None, Some(expected)) = (self.page.keys.row(tx_id), expected.keys.row(tx_id)) {
                self.page.keys.put(tx_id.clone(), expected.clone());
            }
        }
    }

    fn votes(&mut self, expected: &Page, aside: &mut Aside) {
        for (tx_id, votes) in &mut self.page.votes {
            let found: Vec<_> = votes.rows().cloned().collect();
            for found in found {
                let node_id = found.node_id.clone();
                let expected = expected.votes.get(tx_id).and_then(|all| all.row(&node_id));
                if expected.is_some_and(|expected| is_same_vote(&found, expected)) {
                    continue;
                }
                aside.rows.push(LostRow {
                    key: format!("{tx_id} {node_id}"),
                    ..of_tx(VOTES, tx_id, vote_json(&found))
                });
                match expected {
                    Some(expected) => votes.put(node_id, expected.clone()),
                    None => {
                        votes.remove(node_id);
                    }
                }
            }
        }
    }

    fn decisions(&mut self, expected: &Page, aside: &mut Aside) {
        for tx_id in &self.tx_ids {
            let expected = expected.decisions.row(tx_id);
            let found = self.page.decisions.row(tx_id).cloned();
            if found.as_ref() == expected {
                continue;
            }
            if let Some(found) = &found {
                let row = of_tx(DECISIONS, tx_id, decision_json(found));
                aside.rows.push(row);
            }
            match expected {
                Some(expected) => self.page.decisions.put(tx_id.clone(), expected.clone()),
                None => {
                    self.page.decisions.remove(tx_id.clone());
                }
            }
        }
    }

    fn members(&mut self, expected: &Page, aside: &mut Aside) {
        let found: Vec<_> = self.page.members.rows().cloned().collect();
        for found in found {
            let Some(expected) = expected.members.row(&found.peer_id) else {
                continue;
            };
            if *expected != found {
                aside.rows.push(LostRow {
                    key: found.peer_id.to_string(),
                    ..lost(MEMBERS, Some(member_json(&found)))
                });
                self.page.members.put(found.peer_id, expected.clone());
            }
        }
    }

    /// What no node may delete stays in its table, and is said to be lost.
    fn in_their_tables(&self, expected: &Page, aside: &mut Aside) {
        let mut wanted: Vec<_> = expected.violations.iter().map(said).collect();
        for found in &self.violations {
            let said = said(found);
            match wanted.iter().position(|wanted| *wanted == said) {
                Some(at) => drop(wanted.swap_remove(at)),
                None => aside.rows.push(LostRow {
                    key: found.id.to_string(),
                    tx_id: found.tx_id.clone(),
                    ..lost(VIOLATIONS, None)
                }),
            }
        }
        let mut wanted: Vec<_> = expected.bans.iter().collect();
        for (id, found) in &self.bans {
            match wanted.iter().position(|wanted| is_same_ban(wanted, found)) {
                Some(at) => {
                    let lifted = wanted.remove(at).lifted_at_ms;
                    if lifted != found.lifted_at_ms {
                        aside.lifted.push((*id, lifted));
                    }
                }
                None => aside.rows.push(LostRow {
                    key: id.to_string(),
                    ..lost(BANS, None)
                }),
            }
        }
        let mut wanted: Vec<_> = expected.accusations.iter().collect();
        for (id, found) in &self.accusations {
            let same = |wanted: &&AccusationRow| {
                (&wanted.accusation, wanted.at_ms) == (&found.accusation, found.at_ms)
            };
            match wanted.iter().position(same) {
                Some(at) => drop(wanted.swap_remove(at)),
                None => aside.rows.push(LostRow {
                    key: id.to_string(),
                    tx_id: found.tx_id.clone(),
                    ..lost(ACCUSATIONS, None)
                }),
            }
        }
    }
}

fn lost(table: &str, row: Option<Json>) -> LostRow {
    LostRow {
        past: 0,
        table: table.to_owned(),
        key: String::new(),
        tx_id: None,
        state: None,
        place: None,
        row,
    }
}

fn of_tx(table: &str, tx_id: &TxId, row: Json) -> LostRow {
    LostRow {
        key: tx_id.to_string(),
        tx_id: Some(tx_id.clone()),
        ..lost(table, Some(row))
    }
}

type Place<'a> = (&'a Option<String>, Option<u64>, &'a Option<Vec<u8>>);

fn place_of(row: &SubmissionRow) -> Place<'_> {
    (&row.account, row.nonce, &row.payload)
}

fn is_at(row: &SubmissionRow, reservation: &Reservation) -> bool {
    row.account.as_ref() == Some(&reservation.account)
        && row.nonce == Some(reservation.nonce)
        && row.payload.as_ref() == Some(&reservation.payload)
}

/// Whether a row says of its submission what the log does: not by what an engine
/// writes beside the log (attempts, and the hash of what was signed, before the chain
/// has it).
pub(crate) fn says_the_same(found: &SubmissionRow, expected: &SubmissionRow) -> bool {
    let pending = expected.state == SubmissionState::Pending;
    let told = SubmissionRow {
        attempts: expected.attempts,
        tx_hash: match pending {
            true => expected.tx_hash.clone(),
            false => found.tx_hash.clone(),
        },
        ..found.clone()
    };
    told == *expected
}

/// What the log says of a violation. Not key and proof: which rules documents the store
/// knew when it wrote the row is not in the log.
pub(crate) fn said(row: &ViolationRow) -> impl PartialEq + use<> {
    let mut evidence = row.evidence.clone();
    if let Some(fields) = evidence.as_object_mut() {
        fields.remove("proof");
    }
    let what = (row.violation_type, row.proof_kind, row.detected_at_ms);
    (row.node_id.clone(), row.tx_id.clone(), what, evidence)
}

/// By all but the key, as [`said`].
fn is_same_vote(found: &VoteRow, expected: &VoteRow) -> bool {
    let told = VoteRow {
        peer_id: expected.peer_id,
        public_key: expected.public_key.clone(),
        ..found.clone()
    };
    told == *expected
}

fn is_same_ban(one: &BanRow, other: &BanRow) -> bool {
    let told = BanRow {
        peer_id: one.peer_id,
        lifted_at_ms: one.lifted_at_ms,
        ..other.clone()
    };
    told == *one
}

fn at(ms: u64) -> Json {
    time::to_text(ms).into()
}

fn bytes(bytes: Option<&Vec<u8>>) -> Json {
    bytes.map(hex::encode).into()
}

fn value_json(value: Option<&Value>) -> Json {
    match value {
        None => Json::Null,
        Some(Value::Number(number)) => json!({ "value": number }),
        Some(Value::Data(data)) => json!({ "data": hex::encode(data) }),
    }
}

fn submission_json(row: &SubmissionRow) -> Json {
    json!({
        "tx_id": row.tx_id.as_str(),
        "state": row.state.as_str(),
        "value": value_json(row.value.as_ref()),
        "account": row.account,
        "nonce": row.nonce,
        "payload": bytes(row.payload.as_ref()),
        "tx_hash": bytes(row.tx_hash.as_ref()),
        "block_number": row.block_number,
        "attempts": row.attempts,
        "submitted_at": at(row.submitted_at_ms),
        "confirmed_at": row.confirmed_at_ms.map(at),
    })
}

fn key_json(row: &KeyRow) -> Json {
    json!({
        "tx_id": row.tx_id.as_str(),
        "final_state": row.final_state.as_str(),
        "at": at(row.at_ms),
    })
}

fn signed_json(signed: &SignedStatement) -> Json {
    json!({
        "statement": hex::encode(&signed.statement),
        "signature": hex::encode(&signed.signature),
    })
}

fn vote_json(row: &VoteRow) -> Json {
    json!({
        "tx_id": row.tx_id.as_str(),
        "node_id": row.node_id.as_str(),
        "peer_id": row.peer_id.map(|peer_id| peer_id.to_string()),
        "public_key": bytes(row.public_key.as_ref()),
        "choice": value_json(row.choice.value()),
        "abstained": row.choice == Choice::Abstention,
        "late": row.late,
        "expired": row.expired,
        "vote": signed_json(&row.vote),
        "received_at": at(row.received_at_ms),
    })
}

fn decision_json(row: &DecisionRow) -> Json {
    let nodes = row.participating_nodes.iter().map(|id| id.as_str());
    json!({
        "tx_id": row.tx_id.as_str(),
        "value": value_json(row.value.as_ref()),
        "participating_nodes": nodes.collect::<Vec<_>>(),
        "total_votes": row.total_votes,
        "threshold_reached": row.threshold_reached,
        "certificate": bytes(row.certificate.as_ref()),
    })
}

fn member_json(row: &ReputationRow) -> Json {
    json!({
        "node_id": row.node_id.as_str(),
        "thousandths": row.thousandths,
        "total_votes": row.total_votes,
        "violations_count": row.violations_count,
        "banned": row.banned,
        "last_seen": row.last_seen_ms.map(at),
    })
}
