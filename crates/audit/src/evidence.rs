//! Evidence as JSON: readable where it lies, and with the bytes that a stranger can
//! check.

use prost::Message;
use quorate_consensus::statement::{AccusationBody, VoteBody, parse};
use quorate_consensus::wire::misbehaviour::Kind;
use quorate_consensus::wire::{
    AccusationProof, Evidence, Misbehaviour, Proof, SignedStatement, ViolationType, proof,
};
use quorate_consensus::words::accusation_word;
use quorate_consensus::{RulesDigest, TxId};
use serde_json::{Map, Value, json};

use crate::lineage::Lineage;

/// The transaction that proven misbehaviour is about.
pub(crate) fn tx_of(misbehaviour: &Misbehaviour) -> Option<TxId> {
    Some(first_vote(misbehaviour)?.1.tx_id)
}

/// Proven misbehaviour.
pub(crate) fn proven(misbehaviour: &Misbehaviour, lineage: &Lineage) -> Value {
    let mut evidence = Map::new();
    match &misbehaviour.kind {
        None => {}
        Some(Kind::DoubleVote(two)) => {
            evidence.insert("first".into(), optional_vote(&two.first));
            evidence.insert("second".into(), optional_vote(&two.second));
        }
        Some(Kind::MinorityVote(minority)) => {
            evidence.insert("dissent".into(), optional_vote(&minority.dissent));
            let majority = minority.majority.iter().map(vote).collect();
            evidence.insert("majority".into(), majority);
        }
    }
    let digest = first_vote(misbehaviour).map(|(digest, _)| digest);
    let proof = proof::Kind::Evidence(Evidence {
        rules: Some(lineage.chain_to(digest)),
        misbehaviour: Some(misbehaviour.clone()),
    });
    evidence.insert("proof".into(), hex_of(proof).into());
    evidence.into()
}

/// t accusations.
pub(crate) fn accused(accusations: &[SignedStatement], lineage: &Lineage) -> Value {
    let digest = accusations
        .first()
        .and_then(|first| parse::<AccusationBody>(&first.statement).ok())
        .map(|(header, _)| header.rules_digest);
    let proof = proof::Kind::Accusation(AccusationProof {
        rules: Some(lineage.chain_to(digest)),
        accusations: accusations.to_vec(),
    });
    json!({
        "accusations": accusations.iter().map(accusation).collect::<Vec<_>>(),
        "proof": hex_of(proof),
    })
}

/// What every reader of the board can count.
pub(crate) fn counted(kind: ViolationType) -> Value {
    let what = match kind {
        ViolationType::SilentFailure => "no vote at the deadline",
        ViolationType::NonParticipation => "ten decided ballots in a row without a vote",
        _ => "counted on the board",
    };
    json!({ "counted": what })
}

fn hex_of(kind: proof::Kind) -> String {
    hex::encode(Proof { kind: Some(kind) }.encode_to_vec())
}

fn first_vote(misbehaviour: &Misbehaviour) -> Option<(RulesDigest, VoteBody)> {
    let signed = match misbehaviour.kind.as_ref()? {
        Kind::DoubleVote(two) => two.first.as_ref()?,
        Kind::MinorityVote(minority) => minority.dissent.as_ref()?,
    };
    let (header, body) = parse::<VoteBody>(&signed.statement).ok()?;
    Some((header.rules_digest, body))
}

fn optional_vote(signed: &Option<SignedStatement>) -> Value {
    signed.as_ref().map_or(Value::Null, vote)
}

fn vote(signed: &SignedStatement) -> Value {
    let mut fields = bytes_of(signed);
    if let Ok((header, body)) = parse::<VoteBody>(&signed.statement) {
        fields.insert("node_id".into(), header.node_id.as_str().into());
        fields.insert("tx_id".into(), body.tx_id.as_str().into());
        // As text: many readers of JSON cannot hold all u64.
        fields.insert("choice".into(), body.choice.to_string().into());
        fields.insert("time_ms".into(), body.time_ms.into());
    }
    fields.into()
}

fn accusation(signed: &SignedStatement) -> Value {
    let mut fields = bytes_of(signed);
    if let Ok((header, body)) = parse::<AccusationBody>(&signed.statement) {
        fields.insert("by".into(), header.node_id.as_str().into());
        fields.insert("kind".into(), accusation_word(body.kind).into());
        if let Some(tx_id) = &body.tx_id {
            fields.insert("tx_id".into(), tx_id.as_str().into());
        }
        let digest = hex::encode(body.subject_digest);
        fields.insert("subject_digest".into(), digest.into());
        fields.insert("time_ms".into(), body.time_ms.into());
    }
    fields.into()
}

fn bytes_of(signed: &SignedStatement) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("statement".into(), hex::encode(&signed.statement).into());
    fields.insert("signature".into(), hex::encode(&signed.signature).into());
    fields
}
