//! `Violations`: what the board shows, and what it has forgotten from the audit store.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use prost::Message as _;
use quorate_audit::rows::{Filter, ViolationRow};
use quorate_consensus::detector::proof_digest;
use quorate_consensus::wire::{
    self, AccusationProof, AccusationRecord, BanProof, BanRecord, Evidence, Proof, RulesChain,
    ViolationRecord, ViolationsRequest, ViolationsResponse, ban_proof, proof::Kind,
};
use quorate_consensus::{NodeId, TxId};
use quorate_engine::Engine;

use super::{Operators, any_node_id};
use crate::service::{MAX_RESPONSE, in_time};
use crate::status::ApiError;

const USUAL: usize = 100;
const MOST: usize = 1000;

/// A checked request.
#[derive(Clone)]
pub(super) struct Wanted {
    node_id: Option<NodeId>,
    tx_id: Option<TxId>,
    limit: usize,
}

impl Wanted {
    pub(super) fn read(request: &ViolationsRequest) -> Result<Self, ApiError> {
        let limit = match usize::try_from(request.limit) {
            Ok(0) => USUAL,
            Ok(limit) if limit <= MOST => limit,
            _ => {
                let detail = format!("must be 0 to {MOST}, not {}", request.limit);
                return Err(ApiError::Invalid {
                    field: "limit",
                    detail,
                });
            }
        };
        let tx_id = match &*request.tx_id {
            "" => None,
            text => Some(crate::service::tx_id(text)?),
        };
        Ok(Self {
            node_id: any_node_id(&request.node_id)?,
            tx_id,
            limit,
        })
    }

    fn fits(&self, node_id: &NodeId, tx_id: Option<&TxId>) -> bool {
        self.node_id.as_ref().is_none_or(|wanted| wanted == node_id)
            && (self.tx_id.is_none() || self.tx_id.as_ref() == tx_id)
    }
}

pub(super) async fn violations(
    node: &Operators,
    wanted: Wanted,
) -> Result<ViolationsResponse, ApiError> {
    let rules = node.rules_chain.clone();
    let asked = wanted.clone();
    let mut found = node
        .look(move |engine| on_board(engine, &asked, &rules))
        .await?;
    // One more than asked for tells whether there are more.
    let filter = Filter {
        tx_id: wanted.tx_id.clone(),
        node_id: wanted.node_id.clone(),
        limit: u32::try_from(wanted.limit + 1).ok(),
    };
    for violation in &mut found.violations {
        if let Some(Kind::Evidence(evidence)) =
            violation.proof.as_mut().and_then(|p| p.kind.as_mut())
        {
            evidence.rules = Some(node.rules_chain.clone());
        }
    }
    let rows = in_time(node.audit.store().violations(&filter)).await;
    match rows {
        Ok(Ok(rows)) => {
            found.from_record = true;
            let known: BTreeSet<_> = found.violations.iter().map(key).collect();
            let rows = rows.into_iter().map(record);
            let lacking: Vec<_> = rows.filter(|row| !known.contains(&key(row))).collect();
            found.violations.extend(lacking);
        }
        // The board's part is worth having without it; the answer says so.
        Ok(Err(error)) => tracing::debug!(%error, "operator.no_record"),
        Err(_) => tracing::debug!(error = "no answer", "operator.no_record"),
    }
    found.violations.sort_by_key(|v| Reverse(v.detected_ms));
    found.accusations.sort_by_key(|a| Reverse(a.time_ms));
    found.bans.sort_by_key(|ban| Reverse(ban.since_ms));
    found.truncated = cut(&mut found, wanted.limit);
    Ok(found)
}

fn key(violation: &ViolationRecord) -> (String, String, i32) {
    let v = violation;
    (v.node_id.clone(), v.tx_id.clone(), v.r#type)
}

/// What the board shows, of violations the latest only: nobody waits for the engine while
/// evidence is copied that would be left out. Violations come without the rules.
fn on_board(engine: &Engine, wanted: &Wanted, rules: &RulesChain) -> ViolationsResponse {
    let board = engine.board();
    let mut found = ViolationsResponse::default();
    let all = board.ballots().flat_map(|ballot| {
        let of_ballot = ballot.violations.iter();
        of_ballot.map(|violation| (&ballot.tx_id, violation))
    });
    let mut latest: Vec<_> = all
        .filter(|(tx_id, violation)| wanted.fits(&violation.node_id, Some(tx_id)))
        .collect();
    latest.sort_by_key(|(_, violation)| Reverse(violation.detected_ms));
    // One more than asked for tells whether there are more.
    for (tx_id, violation) in latest.into_iter().take(wanted.limit + 1) {
        let evidence = violation.misbehaviour.clone().map(|misbehaviour| Evidence {
            rules: None,
            misbehaviour: Some(misbehaviour),
        });
        found.violations.push(ViolationRecord {
            node_id: violation.node_id.to_string(),
            r#type: violation.kind.into(),
            tx_id: tx_id.to_string(),
            detected_ms: violation.detected_ms,
            proof: evidence.map(|evidence| proof(Kind::Evidence(evidence))),
        });
    }
    for member in board.rules().members() {
        let Some(state) = board.member(&member.node_id) else {
            continue;
        };
        let further = state.further_accusations.values();
        for accusation in state.accusations.values().chain(further) {
            let body = &accusation.body;
            if wanted.fits(&body.accused, body.tx_id.as_ref()) {
                found.accusations.push(AccusationRecord {
                    node_id: body.accused.to_string(),
                    by: accusation.node_id.to_string(),
                    kind: body.kind.into(),
                    tx_id: body.tx_id.as_ref().map(TxId::to_string).unwrap_or_default(),
                    time_ms: body.time_ms,
                    accusation: Some(accusation.signed.clone()),
                });
            }
        }
        // A ban is of a trustee, in no transaction.
        if let Some(ban) = &state.ban
            && wanted.fits(&member.node_id, None)
        {
            found.bans.push(BanRecord {
                node_id: member.node_id.to_string(),
                r#type: ban.kind.into(),
                since_ms: ban.since_ms,
                proof_digest: proof_digest(&ban.proof).to_vec(),
                proof: ban_evidence(&ban.proof, rules),
            });
        }
    }
    found
}

fn proof(kind: Kind) -> Proof {
    Proof { kind: Some(kind) }
}

/// What a stranger can check of a ban.
fn ban_evidence(ban: &BanProof, rules: &RulesChain) -> Option<Proof> {
    let rules = Some(rules.clone());
    match ban.kind.clone()? {
        ban_proof::Kind::Misbehaviour(misbehaviour) => Some(proof(Kind::Evidence(Evidence {
            rules,
            misbehaviour: Some(misbehaviour),
        }))),
        ban_proof::Kind::Accusations(wire::Accusations { accusations }) => {
            Some(proof(Kind::Accusation(AccusationProof {
                rules,
                accusations,
            })))
        }
        ban_proof::Kind::Silence(_) => None,
    }
}

fn record(row: ViolationRow) -> ViolationRecord {
    let bytes = row.evidence.get("proof").and_then(|proof| proof.as_str());
    let bytes = bytes.and_then(|text| hex::decode(text).ok());
    ViolationRecord {
        node_id: row.node_id.to_string(),
        r#type: row.violation_type.into(),
        tx_id: row.tx_id.map(|tx_id| tx_id.to_string()).unwrap_or_default(),
        detected_ms: row.detected_at_ms,
        proof: bytes.and_then(|bytes| Proof::decode(&*bytes).ok()),
    }
}

/// Leaves what was asked for and fits into an answer, the latest first; true if
/// something was left out.
fn cut(found: &mut ViolationsResponse, limit: usize) -> bool {
    let mut room = MAX_RESPONSE;
    // Bans first: there are at most as many as trustees, and they matter most.
    let cut = cut_list(&mut found.bans, limit, &mut room);
    let cut = cut_list(&mut found.accusations, limit, &mut room) || cut;
    cut_list(&mut found.violations, limit, &mut room) || cut
}

fn cut_list<M: prost::Message>(list: &mut Vec<M>, limit: usize, room: &mut usize) -> bool {
    let before = list.len();
    let fit = list.iter().take(limit).take_while(|item| {
        let len = item.encoded_len() + 8;
        let fits = len <= *room;
        *room = room.saturating_sub(len);
        fits
    });
    let fit = fit.count();
    list.truncate(fit);
    list.len() < before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_as_long_as_it_may_be_and_says_what_is_missing() {
        let record = |bytes: usize| BanRecord {
            proof_digest: vec![0; bytes],
            ..BanRecord::default()
        };
        let mut few = ViolationsResponse {
            bans: vec![record(32); 3],
            ..ViolationsResponse::default()
        };
        assert!(!cut(&mut few, 3));
        assert!(cut(&mut few, 2));
        assert_eq!(few.bans.len(), 2);
        let mut large = ViolationsResponse {
            bans: vec![record(MAX_RESPONSE / 2); 2],
            violations: vec![ViolationRecord::default()],
            ..ViolationsResponse::default()
        };
        assert!(cut(&mut large, 9));
        assert_eq!(large.bans.len(), 1);
        assert!(large.encoded_len() <= MAX_RESPONSE);
    }

    #[test]
    fn requests_are_checked() {
        let field = |request| match Wanted::read(&request) {
            Err(ApiError::Invalid { field, .. }) => field,
            _ => panic!("taken"),
        };
        let request = ViolationsRequest::default;
        assert_eq!(Wanted::read(&request()).unwrap().limit, USUAL);
        let limit = 1001;
        assert_eq!(field(ViolationsRequest { limit, ..request() }), "limit");
        let tx_id = "a b".to_owned();
        assert_eq!(field(ViolationsRequest { tx_id, ..request() }), "tx_id");
        let node_id = "A".to_owned();
        assert_eq!(
            field(ViolationsRequest {
                node_id,
                ..request()
            }),
            "node_id"
        );
    }
}
