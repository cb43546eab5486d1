//! The seals of `byzantine_violations`: each row holds a hash over the row before and
//! its own content, so that no row can be edited, taken out or put in between without
//! all later seals being wrong. The same for every backend.
//!
//! Who may write everything can make new seals too; but not the board's log, with
//! which [`verify`](crate::verify) compares the rows.

use quorate_consensus::ClusterId;
use serde_json::Value;

use crate::rows::ViolationRow;
use quorate_consensus::words::violation_word;

/// Says what is hashed, and in which version.
const TAG: &[u8] = b"quorate.audit.violation.v1\0";

/// The last row and its seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its number, which is how many there are: they are numbered from 1 without a
    /// gap. 0 before the first.
    pub id: u64,
    /// Its seal; before the first, the cluster's id.
    pub hash: [u8; 32],
}

impl Head {
    /// Before the first row.
    pub fn before_all(cluster_id: ClusterId) -> Self {
        Self {
            id: 0,
            hash: cluster_id.0,
        }
    }

    /// Gives a row the next number and its seal, and moves on.
    pub(crate) fn add(&mut self, row: &mut ViolationRow) {
        self.id += 1;
        row.id = self.id;
        row.hash = seal(&self.hash, row);
        self.hash = row.hash;
    }
}

/// BLAKE3-256 over the seal of the row before, and all columns of this one but its
/// own seal. Every part goes in with its length, or with a mark where it is missing.
pub fn seal(before: &[u8; 32], row: &ViolationRow) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: Option<&[u8]>| {
        let length = bytes.map_or(u64::MAX, |bytes| bytes.len() as u64);
        hasher.update(&length.to_be_bytes());
        hasher.update(bytes.unwrap_or_default());
    };
    part(Some(TAG));
    part(Some(before));
    part(Some(&row.id.to_be_bytes()));
    part(row.peer_id.as_ref().map(|peer_id| &peer_id.0[..]));
    part(Some(row.node_id.as_str().as_bytes()));
    part(row.tx_id.as_ref().map(|tx_id| tx_id.as_str().as_bytes()));
    part(Some(violation_word(row.violation_type).as_bytes()));
    part(Some(row.proof_kind.as_str().as_bytes()));
    let mut evidence = String::new();
    canonical(&row.evidence, &mut evidence);
    part(Some(evidence.as_bytes()));
    part(Some(&row.detected_at_ms.to_be_bytes()));
    *hasher.finalize().as_bytes()
}

/// JSON without spaces, with the keys of every object in the order of their bytes: a
/// database may keep neither spaces nor order.
fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Array(all) => {
            out.push('[');
            for (i, one) in all.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                canonical(one, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut keys: Vec<_> = fields.keys().collect();
            keys.sort();
            out.push('{');
            for (i, key) in keys.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                canonical(&fields[key], out);
            }
            out.push('}');
        }
        simple => out.push_str(&simple.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use quorate_consensus::wire::ViolationType;
    use quorate_consensus::{NodeId, PeerId, TxId};
    use serde_json::json;

    use super::*;
    use crate::rows::ProofKind;

    fn row() -> ViolationRow {
        ViolationRow {
            id: 7,
            peer_id: Some(PeerId([1; 32])),
            node_id: NodeId::new("node1").unwrap(),
            tx_id: Some(TxId::new("tx_1").unwrap()),
            violation_type: ViolationType::DoubleVoting,
            proof_kind: ProofKind::Proven,
            evidence: json!({"b": [1, {"d": null, "c": "ü\"\n"}], "a": true}),
            detected_at_ms: 1_795_000_000_123,
            hash: [0; 32],
        }
    }

    /// A seal that changes makes every store that was written before look forged.
    #[test]
    fn the_seal_of_a_known_row() {
        let known = "21a2a3bb781c4e772a566974fb515eb4eb3b83d100c7e98c44c1ed98f619396e";
        assert_eq!(hex::encode(seal(&[9; 32], &row())), known);
        let read: Value =
            serde_json::from_str(r#" { "a":true, "b": [1, {"c": "\u00fc\"\n", "d":null}] } "#)
                .unwrap();
        let stored = ViolationRow {
            evidence: read,
            ..row()
        };
        assert_eq!(hex::encode(seal(&[9; 32], &stored)), known);
    }

    #[test]
    fn nothing_changes_without_the_seal() {
        let first = seal(&[9; 32], &row());
        assert_ne!(seal(&[8; 32], &row()), first);
        let edits: [fn(&mut ViolationRow); 10] = [
            |row| row.id += 1,
            |row| row.peer_id = None,
            |row| row.node_id = NodeId::new("node2").unwrap(),
            |row| row.tx_id = None,
            |row| row.tx_id = Some(TxId::new("tx_2").unwrap()),
            |row| row.violation_type = ViolationType::MinorityVote,
            |row| row.proof_kind = ProofKind::Counted,
            |row| row.evidence["a"] = false.into(),
            |row| row.evidence["b"][1]["c"] = "".into(),
            |row| row.detected_at_ms += 1,
        ];
        for (i, edit) in edits.iter().enumerate() {
            let mut edited = row();
            edit(&mut edited);
            assert_ne!(seal(&[9; 32], &edited), first, "edit {i}");
        }
    }
}
